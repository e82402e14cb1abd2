"""Handles, and what a loop tells of their failures."""

import sys

import pytest

import aioxide


def turn(loop, times=1):
    """Lets everything that is ready run."""
    for _ in range(times):
        loop.call_soon(loop.stop)
        loop.run_forever()


WAYS = {
    "call_soon": lambda loop, callback: loop.call_soon(callback),
    "call_soon_threadsafe": lambda loop, callback: loop.call_soon_threadsafe(callback),
    "call_later": lambda loop, callback: loop.call_later(-1, callback),
    "call_at": lambda loop, callback: loop.call_at(0, callback),
}
"""Ways to have a callback called in the next turn."""


@pytest.mark.parametrize("way", WAYS)
def test_handler_knows_what_is_being_handled(way, loop):
    """It is called from an `except` block."""
    seen = []

    def handler(loop, context):
        seen.append(sys.exc_info()[1] is context["exception"])

    loop.set_exception_handler(handler)
    WAYS[way](loop, lambda: 1 / 0)
    turn(loop)
    assert seen == [True]
    assert sys.exc_info() == (None, None, None)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit])
def test_handler_that_leaves_the_loop(kind, way, loop):
    def handler(loop, context):
        raise kind

    loop.set_exception_handler(handler)
    WAYS[way](loop, lambda: 1 / 0)
    with pytest.raises(kind) as caught:
        turn(loop)
    assert type(caught.value.__context__) is ZeroDivisionError
    turn(loop)


@pytest.mark.logs_errors
def test_handler_that_fails_knows_the_first_error(loop, caplog):
    def handler(loop, context):
        raise ValueError

    loop.set_exception_handler(handler)
    loop.call_soon(lambda: 1 / 0)
    turn(loop)
    (record,) = caplog.records
    assert record.getMessage().startswith("Unhandled error in exception handler")
    assert type(record.exc_info[1].__context__) is ZeroDivisionError


@pytest.mark.parametrize("way", WAYS)
def test_callback_that_cancels_itself_and_fails(way, loop):
    reports = []
    loop.set_exception_handler(lambda _, context: reports.append(context))

    def callback():
        handle.cancel()
        raise ZeroDivisionError

    handle = WAYS[way](loop, callback)
    turn(loop)
    assert [type(report["exception"]) for report in reports] == [ZeroDivisionError]
    assert reports[0]["handle"] is handle


def test_flag_without_a_truth_value(loop):
    class Odd:
        def __bool__(self):
            raise ZeroDivisionError

    if isinstance(loop, aioxide.Loop):
        for handle in (loop.call_soon(print), loop.call_later(1, print)):
            with pytest.raises(ZeroDivisionError):
                handle._cancelled = Odd()
            handle.cancel()


def test_errors_name_the_class_without_its_module(loop):
    handle = loop.call_later(1, print)
    with pytest.raises(TypeError, match="'TimerHandle' and 'int'"):
        handle < 3
    handle.cancel()


def test_context_that_is_none(loop):
    """Whatever has a `run` passes for a context; what has none is reported when it is used."""
    seen, reports = [], []
    loop.set_exception_handler(lambda _, context: reports.append(repr(context["exception"])))

    class Runs:
        def run(self, callback, *args):
            seen.append("run")
            return callback(*args)

    for count in range(5):
        loop.call_soon(lambda *args: seen.append(args), *range(count), context=Runs())
    loop.call_soon(print, context=3)
    turn(loop)
    assert seen[::2] == ["run"] * 5
    assert seen[1::2] == [tuple(range(count)) for count in range(5)]
    assert reports == ["AttributeError(\"'int' object has no attribute 'run'\")"]

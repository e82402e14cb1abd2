"""Futures: their callbacks, whatever these do, and the iterators that wait for them."""

import contextvars
import gc
import sys
import weakref

import pytest

import aioxide


def turn(loop, times=1):
    """Lets everything that is ready run."""
    for _ in range(times):
        loop.call_soon(loop.stop)
        loop.run_forever()


@pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit])
def test_callbacks_behind_one_that_leaves_the_loop_keep_their_place(kind, loop):
    """What is ready stays in its order when the loop is started again."""
    seen = []

    def leave(future):
        raise kind

    future = loop.create_future()
    future.add_done_callback(leave)
    future.add_done_callback(lambda _: seen.append("second"))
    future.add_done_callback(lambda _: seen.append("third"))
    future.set_result(None)
    loop.call_soon(seen.append, "other")
    with pytest.raises(kind):
        turn(loop)
    assert seen == []
    turn(loop)
    assert seen == ["second", "third", "other"]


@pytest.mark.logs_errors
def test_callback_that_fails_does_not_stop_the_others(loop):
    seen, reports = [], []
    loop.set_exception_handler(lambda _, context: reports.append(context))
    future = loop.create_future()
    future.add_done_callback(lambda _: 1 / 0)
    future.add_done_callback(lambda _: seen.append("second"))
    future.set_result(None)
    turn(loop)
    assert seen == ["second"]
    assert [type(report["exception"]) for report in reports] == [ZeroDivisionError]


def test_context_that_is_none(loop):
    """Whatever has a `run` passes for a context; what has none is reported when it is used."""
    seen, reports = [], []
    loop.set_exception_handler(lambda _, context: reports.append(repr(context["exception"])))

    class Runs:
        def run(self, callback, *args):
            seen.append("run")
            return callback(*args)

    for context in (Runs(), 3):
        future = loop.create_future()
        future.add_done_callback(lambda _: seen.append("called"), context=context)
        future.set_result(None)
        turn(loop)
    assert seen == ["run", "called"]
    assert reports == ["AttributeError(\"'int' object has no attribute 'run'\")"]


def test_removing_callbacks_whose_comparison_fails(loop):
    class Odd:
        def __call__(self, future):
            pass

        def __eq__(self, other):
            raise ZeroDivisionError

        __hash__ = None

    future = loop.create_future()
    future.add_done_callback(Odd())
    with pytest.raises(ZeroDivisionError):
        future.remove_done_callback(print)
    assert len(future._callbacks) == 1


@pytest.mark.parametrize("what", ["result", "cancel"])
def test_comparison_that_ends_the_future(what, loop):
    class Odd:
        def __call__(self, future):
            pass

        def __eq__(self, other):
            if not future.done():
                future.set_result(None) if what == "result" else future.cancel()
            return False

        __hash__ = None

    future = loop.create_future()
    future.add_done_callback(Odd())
    future.add_done_callback(print)
    future.remove_done_callback(len)
    assert future.done()


def test_looking_at_callbacks_while_garbage_adds_one(loop):
    """Making the list of callbacks may collect garbage (up to 3.11), and so run code that adds a callback."""
    if sys.version_info < (3, 12) and not isinstance(loop, aioxide.Loop):
        pytest.skip("the stdlib may crash")
    future = loop.create_future()
    future.add_done_callback(print)

    class Garbage:
        def __init__(self):
            self.cycle = self

        def __del__(self):
            future.add_done_callback(len)

    async def wait():
        await future

    task = loop.create_task(wait())
    turn(loop)
    threshold = gc.get_threshold()
    gc.collect()
    try:
        for _ in range(20):
            Garbage()
            gc.set_threshold(1)
            callbacks = future._callbacks
            gc.set_threshold(*threshold)
            gc.collect()
            assert len(callbacks) >= 2
    finally:
        gc.set_threshold(*threshold)
    assert len(future._callbacks) == 22
    future.remove_done_callback(print)
    future.remove_done_callback(len)
    task.cancel()
    turn(loop, 2)
    assert task.cancelled()


def test_iterator_that_is_over(loop):
    if sys.version_info < (3, 14) and not isinstance(loop, aioxide.Loop):
        pytest.skip("the stdlib raises SystemError")
    iterator = loop.create_future().__await__()
    iterator.close()
    with pytest.raises(StopIteration) as caught:
        iterator.send(None)
    assert caught.value.args == ()


def test_stop_iteration_is_as_new_each_time(aio, loop):
    """Exceptions that are reused carry nothing over, not even what they were asked."""

    def stop(value):
        future = loop.create_future()
        future.set_result(value)
        try:
            next(future.__await__())
        except StopIteration as error:
            hash(error.args)
            suppressed = error.__suppress_context__
            assert error.args == (value,)
            assert hash(error.args) == hash((value,))
            error.__suppress_context__ = True
            return suppressed
        raise AssertionError("this iterator is over")

    assert [stop(value) for value in ("a", "b", "c")] == [False] * 3


def test_loop_that_does_not_schedule(aio):
    """The future is done all the same."""

    class Loop:
        def get_debug(self):
            return False

        def call_soon(self, *args, **kwargs):
            raise ZeroDivisionError

    for finish in (lambda future: future.set_result(1), lambda future: future.cancel()):
        future = aio.Future(loop=Loop())
        future.add_done_callback(print)
        future.add_done_callback(len)
        with pytest.raises(ZeroDivisionError):
            finish(future)
        assert future.done()


def test_long_chain_of_futures_is_dropped(loop):
    if loop.get_debug():
        pytest.skip("a stack is recorded for each of them")
    if sys.version_info < (3, 12) and not isinstance(loop, aioxide.Loop):
        pytest.skip("the stdlib may run out of stack")
    future = None
    for _ in range(100_000):
        outer = loop.create_future()
        outer.set_result(future)
        future = outer
    known = weakref.ref(future)
    del future, outer
    assert known() is None


def test_long_chain_of_callbacks_is_dropped(loop):
    if loop.get_debug():
        pytest.skip("a stack is recorded for each of them")
    if sys.version_info < (3, 12) and not isinstance(loop, aioxide.Loop):
        pytest.skip("the stdlib may run out of stack")
    future = loop.create_future()
    known = weakref.ref(future)
    for _ in range(100_000):
        inner = loop.create_future()
        inner.add_done_callback(future.set_result)
        future = inner
    del future, inner
    assert known() is None


def test_contexts_of_callbacks_are_collected(loop):
    class Value:
        pass

    variable = contextvars.ContextVar("variable")
    context = contextvars.copy_context()
    future = loop.create_future()
    value = Value()
    value.future = future
    context.run(variable.set, value)
    future.add_done_callback(print, context=context)
    known = weakref.ref(value)
    del value, future, context
    gc.collect()
    assert known() is None

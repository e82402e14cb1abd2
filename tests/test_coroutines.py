"""What awaits and what is awaited: values, frames, the rules of coroutines."""

import asyncio
import copy
import gc
import inspect
import sys
import types
import weakref

import pytest

import aioxide


@pytest.fixture
def loop():
    loop = aioxide.new_event_loop()
    yield loop
    loop.close()


def done_future(loop, value):
    future = loop.create_future()
    future.set_result(value)
    return future


class Value:
    """Something that can be referred to weakly."""


# Values that are awaited travel as StopIteration from 3.12 on.

VALUES = [None, 0, "text", (), (1,), (1, 2), ((1, 2),), ValueError("kept"), StopIteration(7), StopIteration, [1]]


@pytest.mark.parametrize("value", VALUES, ids=repr)
def test_awaited_value_arrives_as_it_is(value, loop):
    async def main():
        return await done_future(loop, value)

    assert loop.run_until_complete(main()) is value


@pytest.mark.parametrize("value", VALUES, ids=repr)
def test_iterating_by_hand(value, loop):
    """What drives an awaitable with next() finds the value and the arguments of an ordinary StopIteration."""
    iterator = done_future(loop, value).__await__()
    with pytest.raises(StopIteration) as caught:
        next(iterator)
    error = caught.value
    assert error.value is value
    if value is not None:
        assert error.args == (value,)
        assert str(error) == str(value)
    assert type(error).__name__ == "StopIteration"


def test_exceptions_that_are_kept_stay_what_they_are(loop):
    """An instance that somebody holds is not used again for another value."""
    kept = []
    for number in range(50):
        try:
            next(done_future(loop, [number]).__await__())
        except StopIteration as error:
            kept.append(error)
    assert [error.value for error in kept] == [[number] for number in range(50)]
    assert [error.args for error in kept] == [([number],) for number in range(50)]


def test_arguments_that_are_kept_stay_what_they_are(loop):
    kept = []
    for number in range(50):
        try:
            next(done_future(loop, [number]).__await__())
        except StopIteration as error:
            kept.append(error.args)
    assert kept == [([number],) for number in range(50)]


def test_marked_exceptions_are_not_reused(loop):
    """Notes, attributes, causes and contexts of one instance do not show on another."""
    for _ in range(20):
        try:
            next(done_future(loop, "value").__await__())
        except StopIteration as error:
            assert error.__context__ is None
            assert error.__cause__ is None
            assert not hasattr(error, "__notes__")
            assert vars(error) == {}
            error.add_note("seen")
            error.mark = 1
            error.__cause__ = ValueError("cause")
            error.value = "changed"


def test_value_is_released(loop):
    """Nothing holds on to a value after it has arrived."""
    value = Value()
    gone = weakref.ref(value)

    async def main():
        return await done_future(loop, value) is value  # noqa: F821

    assert loop.run_until_complete(main())
    del value
    gc.collect()
    assert gone() is None


def test_release_of_a_value_may_await_another(loop):
    """Dropping a value that was awaited runs code that awaits."""
    seen = []

    class Dropped:
        def __init__(self, depth):
            self.depth = depth

        def __del__(self):
            seen.append(self.depth)
            if self.depth < 5:
                try:
                    next(done_future(loop, Dropped(self.depth + 1)).__await__())
                except StopIteration as error:
                    assert error.value.depth == self.depth + 1

    async def main():
        await done_future(loop, Dropped(0))

    loop.run_until_complete(main())
    gc.collect()
    assert seen == list(range(6))


def test_cycle_through_the_exception_is_collected(loop):
    """The collector sees a cycle through value and arguments of a kept exception."""
    value = Value()
    gone = weakref.ref(value)
    try:
        next(done_future(loop, value).__await__())
    except StopIteration as error:
        value.error = error
        error.__traceback__ = None
    del value
    gc.collect()
    assert gone() is None


def test_copy_of_the_exception(loop):
    try:
        next(done_future(loop, 5).__await__())
    except StopIteration as error:
        copied = copy.copy(error)
        assert (copied.value, copied.args) == (5, (5,))


# Frames of native coroutines.

COROUTINES = {
    "sleep": lambda: aioxide.sleep(3600),
    "wait": lambda: aioxide.wait([asyncio.get_running_loop().create_future()]),
    "wait_for": lambda: aioxide.wait_for(asyncio.get_running_loop().create_future(), 3600),
}


@pytest.mark.parametrize("name", COROUTINES)
def test_state_for_inspect(name, loop):
    """inspect sees created, suspended and closed."""

    async def main():
        coro = COROUTINES[name]()
        assert inspect.getcoroutinestate(coro) == inspect.CORO_CREATED
        assert isinstance(coro.cr_frame, types.FrameType)
        assert coro.cr_frame.f_code is coro.cr_code
        coro.send(None)
        assert inspect.getcoroutinestate(coro) == inspect.CORO_SUSPENDED
        coro.close()
        assert inspect.getcoroutinestate(coro) == inspect.CORO_CLOSED
        assert coro.cr_frame is None

    loop.run_until_complete(main())


def test_task_shows_what_it_runs(loop, capsys):
    """Reprs and stacks name the coroutine as running while it is."""

    async def main():
        task = asyncio.ensure_future(aioxide.sleep(3600))
        await aioxide.sleep(0)
        assert "coro=<sleep() running at <aioxide>:1>" in repr(task)
        (frame,) = task.get_stack()
        assert frame.f_code.co_name == "sleep"
        task.print_stack(file=sys.stdout)
        assert "in sleep" in capsys.readouterr().out
        task.cancel()
        await aioxide.wait([task])
        assert "coro=<sleep() done, defined at <aioxide>:1>" in repr(task)

    loop.run_until_complete(main())

"""Tasks: what wakes them, what cancels them, what they let go of."""

import asyncio
import contextlib
import contextvars
import gc
import sys
import types
import weakref

import pytest

import aioxide


def turn(loop, times=1):
    """Lets everything that is ready run."""
    for _ in range(times):
        loop.call_soon(loop.stop)
        loop.run_forever()


# Cancellation.


def test_future_cancelled_first_says_why(loop):
    """The future was cancelled before the task was: its message is the one that arrives."""
    seen = []

    async def wait(future):
        try:
            await future
        except asyncio.CancelledError as error:
            seen.append(error.args)
            raise

    future = loop.create_future()
    task = loop.create_task(wait(future))
    turn(loop)
    future.cancel("future")
    assert task.cancel("task")
    turn(loop, 2)
    assert seen == [("future",)]
    assert task.cancelled()
    assert task.cancelling() == 1


def test_first_of_two_cancels_says_why(loop):
    async def wait():
        await loop.create_future()

    task = loop.create_task(wait())
    turn(loop)
    assert task.cancel("first")
    assert task.cancel("second")
    turn(loop, 2)
    with pytest.raises(asyncio.CancelledError) as caught:
        task.result()
    assert caught.value.args == ("first",)


def test_cancel_counts_once_when_the_future_was_cancelled_too(loop):
    """A task that swallows the error goes on, and is not cancelled a second time."""

    async def swallow(future):
        with contextlib.suppress(asyncio.CancelledError):
            await future
        for _ in range(3):
            await asyncio.sleep(0)
        return "done"

    future = loop.create_future()
    task = loop.create_task(swallow(future))
    turn(loop)
    future.cancel()
    task.cancel()
    assert loop.run_until_complete(task) == "done"


def test_cancelled_task_does_not_leave_the_exception_of_its_future(loop, caplog):
    future = loop.create_future()

    async def wait():
        await future  # noqa: F821

    task = loop.create_task(wait())
    turn(loop)
    future.set_exception(ValueError())
    task.cancel("task")
    turn(loop, 2)
    with pytest.raises(asyncio.CancelledError, match="task"):
        task.result()
    del future
    gc.collect()
    assert not caplog.records


# Odd awaits.


def test_task_that_awaits_itself(loop):
    seen = []

    async def main():
        for _ in range(2):
            try:
                await asyncio.current_task()
            except RuntimeError as error:
                seen.append(str(error).partition(":")[0])

    loop.run_until_complete(main())
    assert seen == ["Task cannot await on itself", "await wasn't used with future"]


def test_task_that_yields_itself(loop):
    @types.coroutine
    def plain():
        yield asyncio.current_task()

    async def main():
        await plain()

    with pytest.raises(RuntimeError, match=r"^Task cannot await on itself: "):
        loop.run_until_complete(main())


@pytest.mark.parametrize("value", [3, "text", True, (), object()], ids=repr)
def test_bad_yield(value, loop):
    @types.coroutine
    def plain():
        yield value

    async def main():
        await plain()

    with pytest.raises(RuntimeError) as caught:
        loop.run_until_complete(main())
    assert str(caught.value) == f"Task got bad yield: {value!r}"


# Eager starts.


@pytest.mark.skipif(sys.version_info < (3, 13), reason="the stdlib's eager tasks crash in releases of 3.12")
def test_eagerly_finished_task_lets_its_coroutine_go(aio, loop):
    async def value():
        return 1

    async def main():
        coroutine = value()
        known = weakref.ref(coroutine)
        task = aio.Task(coroutine, loop=loop, eager_start=True)
        del coroutine
        assert task.get_coro() is None
        assert known() is None

    loop.run_until_complete(main())


def test_eager_start_in_a_context_that_is_entered(loop):
    """The error reaches the caller, who stays the current task. Later versions of CPython lose it."""
    if not isinstance(loop, aioxide.Loop):
        pytest.skip("a bug of the stdlib")

    async def value():
        return 1

    async def main():
        me = asyncio.current_task()
        context = contextvars.copy_context()
        with pytest.raises(RuntimeError, match="already entered"):
            context.run(aioxide.Task, coroutine, loop=loop, eager_start=True, context=context)
        assert asyncio.current_task() is me
        await asyncio.sleep(0)
        assert asyncio.current_task() is me

    coroutine = value()
    loop.run_until_complete(main())
    coroutine.close()


# Great numbers.


def test_long_chain_of_tasks_is_dropped(loop):
    if loop.get_debug():
        pytest.skip("reprs of such chains take too long")

    async def wait(future):
        await future

    future = loop.create_future()
    for _ in range(10_000):
        future = loop.create_task(wait(future))
        future._log_destroy_pending = False
    turn(loop, 2)
    del future
    loop.close()
    gc.collect()

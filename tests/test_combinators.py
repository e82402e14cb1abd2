"""`wait_for` and its relatives in races."""

import asyncio
import time

import pytest

import aioxide


@pytest.fixture(params=[asyncio, aioxide], ids=["stdlib", "aioxide"])
def aio(request):
    """The namespace under test."""
    return request.param


@pytest.fixture(params=[False, True], ids=["plain", "debug"])
def loop(aio, request):
    """A loop of the namespace."""
    loop = asyncio.SelectorEventLoop() if aio is asyncio else aioxide.new_event_loop()
    loop.set_debug(request.param)
    loop.slow_callback_duration = 10
    yield loop
    loop.close()


def wait_until(moment):
    """Keeps the loop busy until a deadline is past."""
    while time.monotonic() < moment:
        pass


def test_wait_for_that_ends_in_the_turn_of_its_deadline(aio, loop):
    """The coroutine comes first: it has its result, and nothing is cancelled afterwards."""

    async def main():
        future = loop.create_future()

        def finish_late():
            future.set_result("value")
            wait_until(loop.time() + 0.01)

        loop.call_soon(finish_late)
        assert await aio.wait_for(future, 0.005) == "value"
        await aio.sleep(0)
        await aio.sleep(0)
        return asyncio.current_task().cancelling()

    assert loop.run_until_complete(main()) == 0


def test_error_in_the_turn_of_the_deadline(aio, loop):
    async def main():
        future = loop.create_future()

        def finish_late():
            future.set_exception(ValueError("kept"))
            wait_until(loop.time() + 0.01)

        loop.call_soon(finish_late)
        with pytest.raises(ValueError, match="kept") as caught:
            await aio.wait_for(future, 0.005)
        assert caught.value.__context__ is None
        await aio.sleep(0)
        await aio.sleep(0)
        return asyncio.current_task().cancelling()

    assert loop.run_until_complete(main()) == 0


def test_cancellation_in_the_turn_of_the_deadline(aio, loop):
    """Whoever cancelled first is answered, not the deadline."""

    async def main():
        task = asyncio.current_task()

        def cancel_late():
            task.cancel("mine")
            wait_until(loop.time() + 0.01)

        loop.call_soon(cancel_late)
        with pytest.raises(asyncio.CancelledError, match="mine"):
            await aio.wait_for(loop.create_future(), 0.005)
        assert task.uncancel() == 0
        await aio.sleep(0)
        await aio.sleep(0)

    loop.run_until_complete(main())


def test_nested_deadlines_in_one_turn(aio, loop):
    async def main():
        future = loop.create_future()

        def finish_late():
            future.set_result("value")
            wait_until(loop.time() + 0.06)

        loop.call_soon(finish_late)
        assert await aio.wait_for(aio.wait_for(future, 0.04), 0.05) == "value"
        await aio.sleep(0)
        await aio.sleep(0)
        with pytest.raises(TimeoutError):
            await aio.wait_for(aio.wait_for(loop.create_future(), 0.001), 0.001)
        await aio.sleep(0)
        return asyncio.current_task().cancelling()

    assert loop.run_until_complete(main()) == 0


def test_wait_that_ends_in_the_turn_of_its_timeout(aio, loop):
    async def main():
        future = loop.create_future()

        def finish_late():
            future.set_result("value")
            wait_until(loop.time() + 0.01)

        loop.call_soon(finish_late)
        done, pending = await aio.wait([future], timeout=0.005)
        assert (done, pending) == ({future}, set())
        await aio.sleep(0)
        await aio.sleep(0)

    loop.run_until_complete(main())

"""Time limits: how a deadline is armed, what happens at each call into Python code, what is left behind."""

import asyncio
import gc
import weakref
from fractions import Fraction

import pytest

import aioxide


def run(main, *, debug=False, loop_class=aioxide.Loop):
    """Runs a coroutine on a loop of its own; returns its result and what was reported."""
    loop = loop_class()
    loop.set_debug(debug)
    reports = []
    loop.set_exception_handler(lambda _, context: reports.append(context))
    try:
        return loop.run_until_complete(main), reports
    finally:
        loop.close()


def forever():
    """A future that nobody finishes."""
    return asyncio.get_running_loop().create_future()


class VisibleLoop(aioxide.Loop):
    """Not direct: one of the scheduling methods is overridden."""

    calls = []

    def call_at(self, when, callback, *args, **kwargs):
        self.calls.append(when)
        return super().call_at(when, callback, *args, **kwargs)


@pytest.fixture(params=["direct", "debug", "overridden"])
def kind(request):
    """The ways in which a loop may take a deadline."""
    return {
        "direct": {},
        "debug": {"debug": True},
        "overridden": {"loop_class": VisibleLoop},
    }[request.param]


def test_deadline_passes(kind):
    async def main():
        with pytest.raises(TimeoutError) as caught:
            async with aioxide.timeout(0.001) as limit:
                await forever()
        assert isinstance(caught.value.__cause__, asyncio.CancelledError)
        assert caught.value.__context__ is caught.value.__cause__
        assert limit.expired()
        assert repr(limit) == "<Timeout [expired]>"
        assert asyncio.current_task().cancelling() == 0

    assert run(main(), **kind)[1] == []


@pytest.mark.parametrize("delay", [0, -1, -0.5, False, float("-inf")])
def test_deadline_is_past(kind, delay):
    async def main():
        with pytest.raises(TimeoutError):
            async with aioxide.timeout(delay):
                await forever()

    assert run(main(), **kind)[1] == []


@pytest.mark.parametrize("delay", [None, 60, 60.5, Fraction(60), float("inf")])
def test_deadline_is_not_reached(kind, delay):
    async def main():
        async with aioxide.timeout(delay) as limit:
            await asyncio.sleep(0)
        assert not limit.expired()
        assert repr(limit) == "<Timeout [finished]>"

    assert run(main(), **kind)[1] == []


def test_deadline_that_is_no_number_raises_as_arithmetic_does():
    async def main():
        with pytest.raises(TypeError, match=r"unsupported operand type\(s\) for \+: 'float' and 'str'"):
            aioxide.timeout("1")
        limit = aioxide.timeout_at("1")
        with pytest.raises(TypeError, match="'<=' not supported"):
            await limit.__aenter__()

    run(main())


def test_rescheduled_from_a_due_timer_of_the_same_turn():
    """The old deadline's job is in the ready queue already when the deadline moves."""

    async def main():
        loop = asyncio.get_running_loop()
        done = forever()
        async with aioxide.timeout(60) as limit:
            when = loop.time() + 0.002
            loop.call_at(when, lambda: limit.reschedule(loop.time() + 60))
            limit.reschedule(when)
            while loop.time() < when + 0.001:
                pass
            loop.call_at(loop.time() + 0.002, done.set_result, None)
            await done
            assert not limit.expired()
            limit.reschedule(0)
            with pytest.raises(asyncio.CancelledError):
                await forever()
            assert limit.expired()

    run(main())


def test_left_while_its_timer_is_due():
    async def main():
        loop = asyncio.get_running_loop()
        wake = loop.create_future()
        when = loop.time() + 0.002
        loop.call_at(when, wake.set_result, None)
        limit = aioxide.timeout_at(when)
        await limit.__aenter__()
        loop.call_at(when, lambda: None)
        while loop.time() < when + 0.001:
            pass
        limit.reschedule(None)
        await wake
        await limit.__aexit__(None, None, None)
        await asyncio.sleep(0)
        assert asyncio.current_task().cancelling() == 0

    run(main())


def test_rescheduling_in_each_state():
    async def main():
        limit = aioxide.timeout(60)
        with pytest.raises(RuntimeError, match="Timeout has not been entered"):
            limit.reschedule(1)
        async with limit:
            limit.reschedule(None)
            assert limit.when() is None
            with pytest.raises(RuntimeError, match="Timeout has already been entered"):
                await limit.__aenter__()
        with pytest.raises(RuntimeError, match="Cannot change state of finished Timeout"):
            limit.reschedule(1)
        with pytest.raises(AssertionError):
            await limit.__aexit__(None, None, None)
        limit = aioxide.timeout(0)
        with pytest.raises(TimeoutError):
            async with limit:
                try:
                    await forever()
                finally:
                    with pytest.raises(RuntimeError, match="Cannot change state of expiring Timeout"):
                        limit.reschedule(1)

    run(main())


def test_private_attributes():
    async def main():
        limit = aioxide.timeout_at(1e9)
        states = asyncio.timeouts._State
        assert (limit._state, limit._when, limit._task, limit._timeout_handler) == (states.CREATED, 1e9, None, None)
        async with limit:
            assert limit._state is states.ENTERED
            assert limit._task is asyncio.current_task()
            handle = limit._timeout_handler
            assert isinstance(handle, aioxide.TimerHandle)
            assert handle.when() == 1e9
            assert limit._timeout_handler is handle
        assert handle.cancelled()
        assert limit._timeout_handler is None

    run(main())


def test_subclass_is_asked():
    class Limit(aioxide.Timeout):
        calls = []

        def reschedule(self, when):
            self.calls.append("reschedule")
            super().reschedule(when)

        def _on_timeout(self):
            self.calls.append("_on_timeout")
            super()._on_timeout()

    async def main():
        with pytest.raises(TimeoutError):
            async with Limit(asyncio.get_running_loop().time() + 0.001):
                await forever()
        assert Limit.calls == ["reschedule", "_on_timeout"]

    run(main())


def test_overridden_method_of_the_loop_is_called():
    async def main():
        VisibleLoop.calls.clear()
        async with aioxide.timeout(60) as limit:
            assert VisibleLoop.calls == [limit.when()]

    run(main(), loop_class=VisibleLoop)


def test_cancel_that_raises_is_reported(kind):
    class Stubborn(asyncio.Future):
        refusals = 1

        def cancel(self, msg=None):
            if self.refusals:
                self.refusals = 0
                self.get_loop().call_soon(self.set_result, None)
                raise ZeroDivisionError
            return super().cancel(msg)

    async def main():
        async with aioxide.timeout(0.001) as limit:
            await Stubborn(loop=asyncio.get_running_loop())
        assert not limit.expired()
        # Entering and leaving again takes back nothing that was asked for.
        while asyncio.current_task().uncancel():
            pass

    _, reports = run(main(), **kind)
    assert [type(report["exception"]) for report in reports] == [ZeroDivisionError]
    assert "_on_timeout" in reports[0]["message"]


def test_cancel_that_leaves_the_block_itself():
    """The task is cancelled by the deadline while user code in `cancel` ends the block."""

    class Late(asyncio.Future):
        def cancel(self, msg=None):
            self.set_result("result")
            return True

    async def main():
        async with aioxide.timeout(0.001) as limit:
            assert await Late(loop=asyncio.get_running_loop()) == "result"
        assert limit.expired()
        assert asyncio.current_task().cancelling() == 0

    assert run(main())[1] == []


def test_cancellation_from_outside_wins():
    async def main():
        task = asyncio.current_task()
        with pytest.raises(asyncio.CancelledError):
            async with aioxide.timeout(0) as limit:
                asyncio.get_running_loop().call_soon(task.cancel)
                await forever()
        assert limit.expired()
        assert task.cancelling() == 1
        task.uncancel()

    run(main())


def test_error_during_the_cancellation_gets_a_timeout_error_in_its_chain():
    async def main():
        with pytest.raises(ExceptionGroup) as caught:
            async with aioxide.timeout(0):
                try:
                    await forever()
                except asyncio.CancelledError:
                    try:
                        raise KeyError
                    except KeyError as error:
                        inner = error
                    raise ExceptionGroup("group", [inner]) from None
        group = caught.value
        for error in (group, group.exceptions[0]):
            assert isinstance(error.__context__, TimeoutError)
            assert isinstance(error.__context__.__context__, asyncio.CancelledError)
            assert error.__context__.__cause__ is error.__context__.__context__

    run(main())


def test_insertion_refuses_what_is_no_exception():
    with pytest.raises(AttributeError, match="__context__"):
        aioxide.Timeout._insert_timeout_error(1)


def test_outside_of_a_task():
    with pytest.raises(RuntimeError, match="no running event loop"):
        aioxide.timeout(1)

    async def main():
        caught = asyncio.get_running_loop().create_future()

        def enter():
            try:
                aioxide.timeout(1).__aenter__().send(None)
            except RuntimeError as error:
                caught.set_result(str(error))

        asyncio.get_running_loop().call_soon(enter)
        assert await caught == "Timeout should be used inside a task"

    run(main())


def test_block_whose_coroutine_is_closed():
    limit = None

    async def block():
        nonlocal limit
        async with aioxide.timeout(60) as limit:
            await forever()

    async def main():
        coro = block()
        coro.send(None)
        assert repr(limit).startswith("<Timeout [active]")
        coro.close()
        assert repr(limit) == "<Timeout [finished]>"
        assert limit._timeout_handler is None

    run(main())


def test_closed_loop_gives_up_the_deadline():
    loop = aioxide.new_event_loop()

    async def block():
        async with aioxide.timeout(60):
            await forever()

    task = loop.create_task(block())
    task._log_destroy_pending = False
    loop.call_soon(loop.call_soon, loop.stop)
    loop.run_forever()
    limit = weakref.ref(task)
    loop.close()
    del task
    gc.collect()
    assert limit() is None


def test_cycle_through_a_timeout_is_collected():
    async def main():
        limit = aioxide.Timeout(None)
        limit.itself = limit
        dead = weakref.ref(limit)
        async with limit:
            pass
        del limit
        gc.collect()
        assert dead() is None

    run(main())


def test_memory_is_reused_clean():
    async def main():
        for _ in range(3):
            async with aioxide.timeout(60) as limit:
                limit.note = 1
            del limit
            fresh = aioxide.timeout_at(None)
            assert not hasattr(fresh, "note")
            assert repr(fresh) == "<Timeout [created]>"
            del fresh

    run(main())

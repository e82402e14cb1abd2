"""Synchronisation primitives: what subclasses and user locks are asked, who wakes whom when a wait is cancelled, and
what stays true when users reach into the queue of waiters.

Each test runs with the stdlib too, unless the running version lacks a fix that aioxide has on every Python.
"""

import asyncio
import collections
import copy
import gc
import inspect
import math
import sys
import warnings
import weakref

import pytest

import aioxide


class PythonLoop(asyncio.SelectorEventLoop):
    """A loop of Python code."""


class VisibleLoop(aioxide.Loop):
    """A native loop that has to be asked for everything, since it overrides a method."""

    def create_future(self):
        return super().create_future()


LOOPS = {
    "direct": aioxide.new_event_loop,
    "overridden": VisibleLoop,
    "foreign": PythonLoop,
}


@pytest.fixture(scope="module", autouse=True)
def small_collections():
    """Keeps what exists already out of the many collections of this module."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


@pytest.fixture(params=[asyncio, aioxide], ids=["stdlib", "aioxide"])
def aio(request):
    """The namespace under test."""
    return request.param


@pytest.fixture(params=[*LOOPS, "debug"])
def run(request, aio):
    """Runs a coroutine to its end, on each kind of loop; the stdlib has one."""
    if aio is asyncio and request.param in ("overridden", "foreign"):
        pytest.skip("the same as direct")
    loops = []

    def run(main):
        kind = asyncio.SelectorEventLoop if aio is asyncio else LOOPS.get(request.param, aioxide.new_event_loop)
        loop = kind()
        loops.append(loop)
        loop.set_debug(request.param == "debug")
        return loop.run_until_complete(main)

    yield run
    for loop in loops:
        loop.close()


@pytest.fixture
def fixed(aio):
    """Skips the stdlib where it lacks a fix of 3.13."""
    if aio is asyncio and sys.version_info < (3, 13):
        pytest.skip("fixed in 3.13")


async def turns(count=1):
    """Lets everything that is ready run."""
    for _ in range(count):
        await asyncio.sleep(0)


def spawn(coro):
    """A task of the running loop."""
    return asyncio.get_running_loop().create_task(coro)


async def cancelled(task):
    """Waits for a task and tells whether it was cancelled."""
    await asyncio.wait([task])
    return task.cancelled()


@pytest.fixture(params=["Lock", "Semaphore", "BoundedSemaphore", "Condition"])
def make(request, aio):
    """A class that is acquired and released."""
    return getattr(aio, request.param)


# Acquiring and releasing.


def test_order_is_first_come_first_served(make, run):
    async def main():
        guard, order = make(), []

        async def worker(number):
            async with guard:
                order.append(number)
                await turns()

        await asyncio.gather(*[worker(number) for number in range(7)])
        assert order == list(range(7))
        assert not guard.locked()

    run(main())


def test_async_with_gives_none(make, run):
    async def main():
        async with make() as value:
            assert value is None
        assert await make().acquire() is True

    run(main())


def test_block_releases_whatever_happens(make, run):
    async def main():
        guard = make()
        for error in (LookupError(), asyncio.CancelledError(), GeneratorExit()):
            with pytest.raises(type(error)):
                async with guard:
                    assert guard.locked()
                    raise error
            assert not guard.locked()

    run(main())


def test_nobody_jumps_the_queue(make, run):
    """Who is woken has what it waited for, even if somebody else asks before it runs."""

    async def main():
        guard, order = make(), []
        await guard.acquire()

        async def worker(name):
            await guard.acquire()
            order.append(name)
            guard.release()

        first = spawn(worker("first"))
        await turns()
        guard.release()
        second = spawn(worker("second"))
        await worker("third")
        await asyncio.gather(first, second)
        assert order[0] == "first"

    run(main())


def test_waiters_that_were_all_cancelled_do_not_block(make, run):
    async def main():
        guard = make()
        await guard.acquire()
        task = spawn(guard.acquire())
        await turns()
        task.cancel()
        guard.release()
        # The task has not run yet, so its future is still in the queue.
        await guard.acquire()
        assert await cancelled(task)
        assert guard.locked()
        guard.release()
        assert not guard.locked()

    run(main())


# Cancellation.


def test_cancelled_while_waiting(make, run):
    async def main():
        guard = make()
        await guard.acquire()
        tasks = [spawn(guard.acquire()) for _ in range(3)]
        await turns()
        tasks[1].cancel()
        await turns(2)
        guard.release()
        await tasks[0]
        assert tasks[1].cancelled()
        assert not tasks[2].done()
        guard.release()
        await tasks[2]

    run(main())


def test_woken_and_cancelled_in_the_same_turn(make, run, fixed):
    """The next one gets what the cancelled one would have had."""

    async def main():
        guard = make()
        await guard.acquire()
        first, second = spawn(guard.acquire()), spawn(guard.acquire())
        await turns()
        guard.release()
        first.cancel()
        assert await cancelled(first)
        await second
        assert guard.locked()
        guard.release()
        assert not guard.locked()

    run(main())


def test_cancelled_and_woken_in_the_same_turn(make, run, fixed):
    async def main():
        guard = make()
        await guard.acquire()
        first, second = spawn(guard.acquire()), spawn(guard.acquire())
        await turns()
        first.cancel()
        guard.release()
        assert await cancelled(first)
        await second
        guard.release()
        assert not guard.locked()

    run(main())


def test_cancelled_before_it_started(make, run):
    async def main():
        guard = make()
        task = spawn(guard.acquire())
        task.cancel()
        assert await cancelled(task)
        assert not guard.locked()

    run(main())


def test_every_point_of_a_contest_cancelled(make, run, fixed):
    """Whenever one of three workers is cancelled, the others get through and nothing stays taken."""

    async def main():
        for victim in range(3):
            for point in range(8):
                guard, done = make(), []

                async def worker(number, guard=guard, done=done):
                    async with guard:
                        await turns()
                        done.append(number)

                tasks = [spawn(worker(number)) for number in range(3)]
                await turns(point)
                tasks[victim].cancel()
                await asyncio.wait(tasks)
                assert set(done) >= {0, 1, 2} - {victim}
                assert not guard.locked()
                assert not guard._waiters

    run(main())


def test_release_by_a_callback(make, run):
    async def main():
        guard = make()
        await guard.acquire()
        asyncio.get_running_loop().call_soon(guard.release)
        await guard.acquire()
        asyncio.get_running_loop().call_soon(guard.release)
        async with guard:
            pass
        assert not guard.locked()

    run(main())


def test_semaphore_hands_on_every_permit(aio, run, fixed):
    """Permits that were released while a woken waiter was cancelled reach all who can have one."""

    async def main():
        semaphore = aio.Semaphore(0)
        tasks = [spawn(semaphore.acquire()) for _ in range(4)]
        await turns()
        semaphore.release()
        semaphore.release()
        tasks[0].cancel()
        tasks[1].cancel()
        await asyncio.wait(tasks[:2])
        await asyncio.wait(tasks[2:])
        assert [task.cancelled() for task in tasks] == [True, True, False, False]
        assert semaphore._value == 0

    run(main())


# Events.


def test_event_cancelled_and_set(aio, run):
    async def main():
        event = aio.Event()
        tasks = [spawn(event.wait()) for _ in range(4)]
        await turns()
        tasks[1].cancel()
        event.set()
        tasks[2].cancel()
        event.clear()
        await asyncio.wait(tasks)
        assert [task.cancelled() for task in tasks] == [False, True, True, False]
        assert tasks[0].result() is tasks[3].result() is True
        assert not event._waiters
        assert not event.is_set()

    run(main())


def test_event_set_wakes_in_order(aio, run):
    async def main():
        event, order = aio.Event(), []

        async def waiter(number):
            await event.wait()
            order.append(number)

        tasks = [spawn(waiter(number)) for number in range(50)]
        await turns()
        event.set()
        event.set()
        await asyncio.gather(*tasks)
        assert order == list(range(50))

    run(main())


# Conditions.


class UserLock:
    """A lock of the user's own: whatever is called is noted."""

    def __init__(self):
        self.taken = False
        self.calls = []

    def locked(self):
        return self.taken

    async def acquire(self):
        self.calls.append("acquire")
        await asyncio.sleep(0)
        assert not self.taken
        self.taken = True
        return "acquired"

    def release(self):
        self.calls.append("release")
        self.taken = False
        return "released"


def test_condition_with_a_users_lock(aio, run):
    async def main():
        lock = UserLock()
        condition = aio.Condition(lock)
        assert condition._lock is lock
        assert not condition.locked()
        assert await condition.acquire() == "acquired"
        assert condition.locked()
        assert "[locked]" in repr(condition)
        assert condition.release() == "released"

        async def waiter():
            async with condition:
                await condition.wait()

        task = spawn(waiter())
        await turns(3)
        async with condition:
            condition.notify()
        await task
        assert lock.calls == ["acquire", "release"] * 4
        assert lock.taken is False

    run(main())


@pytest.mark.parametrize("name", ["locked", "acquire", "release"])
def test_condition_wants_the_methods_of_a_lock(name, aio):
    lock = type("Partial", (), dict.fromkeys({"locked", "acquire", "release"} - {name}, print))()
    with pytest.raises(AttributeError, match=name):
        aio.Condition(lock)


def test_condition_exports_the_methods_of_its_lock(aio, run):
    async def main():
        lock = aio.Lock()
        condition = aio.Condition(lock)
        assert condition.acquire == lock.acquire
        assert condition.acquire is condition.acquire
        assert condition.release == lock.release
        assert condition.locked == lock.locked
        async with condition:
            assert lock.locked()
            condition.release()
            assert not lock.locked()
            await condition.acquire()

    run(main())


def test_condition_shares_a_lock(aio, run):
    async def main():
        lock = aio.Lock()
        one, other, order = aio.Condition(lock), aio.Condition(lock), []

        async def waiter(condition, name):
            async with condition:
                await condition.wait()
                order.append(name)

        tasks = [spawn(waiter(one, "one")), spawn(waiter(other, "other"))]
        await turns()
        async with lock:
            other.notify_all()
            one.notify_all()
        await asyncio.gather(*tasks)
        assert sorted(order) == ["one", "other"]

    run(main())


def test_attribute_of_a_condition_is_replaced(aio, run):
    """asyncio looks for acquire and release on the object."""

    async def main():
        condition, calls = aio.Condition(), []
        acquire, release = condition.acquire, condition.release

        async def noted():
            calls.append("acquire")
            return await acquire()

        condition.acquire = noted
        condition.release = lambda: calls.append("release") or release()
        async with condition:
            task = spawn(condition.wait())
            await turns()
            assert calls == ["acquire", "release"]
            await acquire()
            condition.notify()
        await task
        assert calls == ["acquire", "release", "release", "acquire"]

    run(main())


def test_condition_notified_and_cancelled(aio, run, fixed):
    """A notification that reached a cancelled task goes to another one."""

    async def main():
        condition, woken = aio.Condition(), []

        async def waiter(number):
            async with condition:
                await condition.wait()
                woken.append(number)

        tasks = [spawn(waiter(number)) for number in range(3)]
        await turns()
        async with condition:
            condition.notify()
            tasks[0].cancel()
        assert await cancelled(tasks[0])
        await tasks[1]
        assert woken == [1]
        async with condition:
            condition.notify()
        await tasks[2]
        assert not condition.locked()

    run(main())


def test_condition_cancelled_while_it_takes_the_lock(aio, run, fixed):
    """It comes back with the lock and with the last of the cancellations, and notifies another."""

    async def main():
        condition, seen = aio.Condition(), []

        async def waiter():
            async with condition:
                try:
                    await condition.wait()
                except asyncio.CancelledError as error:
                    seen.append(error.args)
                    assert condition.locked()
                    raise

        async def other():
            async with condition:
                await condition.wait()

        task, second = spawn(waiter()), spawn(other())
        await turns()
        await condition.acquire()
        condition.notify()
        await turns()
        for message in ("one", "two", "three"):
            task.cancel(message)
            await turns(2)
            assert not task.done()
        condition.release()
        assert await cancelled(task)
        assert seen == [("three",)]
        await second
        assert not condition.locked()

    run(main())


def test_condition_cancelled_at_each_point(aio, run, fixed):
    async def main():
        for point in range(8):
            condition, state = aio.Condition(), []

            async def waiter(condition=condition, state=state):
                async with condition:
                    await condition.wait_for(lambda: state)
                    state.append("woken")

            tasks = [spawn(waiter()), spawn(waiter())]
            await turns(2)

            async def notifier(condition=condition, state=state):
                async with condition:
                    state.append("changed")
                    condition.notify()
                    await turns(2)

            last = spawn(notifier())
            await turns(point)
            tasks[0].cancel()
            await last
            async with condition:
                condition.notify_all()
            await asyncio.wait(tasks)
            assert not tasks[1].cancelled()
            assert not condition.locked()
            assert not condition._waiters

    run(main())


class Boom(Exception):
    pass


def test_lock_that_fails_after_a_wait(aio, run, fixed):
    """The error leaves the wait, and the notification goes on."""

    class Failing(UserLock):
        fails = False

        async def acquire(self):
            if self.fails:
                self.taken = True
                raise Boom
            return await super().acquire()

    async def main():
        lock = Failing()
        condition = aio.Condition(lock)
        await condition.acquire()
        first = spawn(condition.wait())
        await turns()
        lock.taken = True
        second = spawn(condition.wait())
        await turns()
        lock.taken, lock.fails = True, True
        condition.notify()
        await asyncio.wait([first, second])
        assert isinstance(first.exception(), Boom)
        assert isinstance(second.exception(), Boom)

    run(main())


def test_wait_context_of_errors(aio, run, fixed):
    """An error while the lock is taken again has the cancellation as its context."""

    class Failing(UserLock):
        async def acquire(self):
            raise Boom

    async def main():
        lock = Failing()
        lock.taken = True
        condition = aio.Condition(lock)
        task = spawn(condition.wait())
        await turns()
        task.cancel("why")
        await asyncio.wait([task])
        assert isinstance(task.exception().__context__, asyncio.CancelledError)

    run(main())


def test_predicate(aio, run):
    async def main():
        condition, asked = aio.Condition(), []

        def predicate():
            asked.append(condition.locked())
            return asked if len(asked) > 2 else []

        async def waiter():
            async with condition:
                return await condition.wait_for(predicate)

        task = spawn(waiter())
        await turns()
        while not task.done():
            async with condition:
                condition.notify_all()
            await turns(3)
        assert task.result() is asked
        assert asked == [True, True, True]

    run(main())


@pytest.mark.parametrize(
    ("count", "woken"), [(0, 0), (-1, 0), (2, 2), (2.5, 3), (True, 1), (10**30, 4), (-(10**30), 0), (math.inf, 4)]
)
def test_notify_counts(count, woken, aio, run):
    async def main():
        condition, got = aio.Condition(), []

        async def waiter():
            async with condition:
                got.append(await condition.wait())

        tasks = [spawn(waiter()) for _ in range(4)]
        await turns()
        async with condition:
            condition.notify(count)
        await turns(10)
        assert got == [True] * woken
        async with condition:
            condition.notify_all()
        await asyncio.gather(*tasks)

    run(main())


def test_closed_while_waiting(aio, run):
    """A coroutine that is closed inside wait() must take the lock again; it can if the lock is free."""

    async def main():
        condition = aio.Condition()
        await condition.acquire()
        coro = condition.wait()
        coro.send(None)
        assert not condition.locked()
        coro.close()
        assert condition.locked()
        assert not condition._waiters
        other = condition.wait()
        other.send(None)
        await condition.acquire()
        with pytest.raises(RuntimeError, match="coroutine ignored GeneratorExit"):
            other.close()
        condition.release()
        with pytest.raises(GeneratorExit):
            other.send(None)
        assert condition.locked()

    run(main())


# Barriers.


def test_barrier_numbers_each_task(aio, run):
    async def main():
        barrier, numbers = aio.Barrier(3), []

        async def worker():
            for _ in range(4):
                async with barrier as number:
                    numbers.append(number)

        await asyncio.gather(*[worker() for _ in range(3)])
        assert [sorted(numbers[at : at + 3]) for at in range(0, 12, 3)] == [[0, 1, 2]] * 4
        assert (barrier.n_waiting, barrier._count, barrier.broken) == (0, 0, False)

    run(main())


def test_barrier_cancelled_at_each_point(aio, run):
    async def main():
        for point in range(10):
            barrier = aio.Barrier(2)
            tasks = [spawn(barrier.wait()) for _ in range(2)]
            await turns(point)
            tasks[0].cancel()
            await turns(10)
            if not tasks[1].done():
                await barrier.wait()
            await asyncio.wait(tasks)
            assert not tasks[1].cancelled()
            assert (barrier._count, barrier._cond.locked()) == (0, False)

    run(main())


def test_barrier_reset_and_abort(aio, run):
    async def main():
        barrier = aio.Barrier(3)
        tasks = [spawn(barrier.wait()) for _ in range(2)]
        await turns(2)
        assert barrier.n_waiting == 2
        assert await barrier.reset() is None
        assert "resetting" in repr(barrier)
        late = spawn(barrier.wait())
        await asyncio.wait(tasks)
        for task in tasks:
            assert isinstance(task.exception(), asyncio.BrokenBarrierError)
        await turns(4)
        assert barrier.n_waiting == 1
        assert await barrier.abort() is None
        assert barrier.broken
        with pytest.raises(asyncio.BrokenBarrierError, match="Abort or reset of barrier"):
            await late
        with pytest.raises(asyncio.BrokenBarrierError, match="Barrier aborted"):
            await barrier.wait()
        await barrier.reset()
        assert not barrier.broken

    run(main())


def test_barrier_state_is_asyncios(aio):
    states = asyncio.locks._BarrierState
    barrier = aio.Barrier(1)
    assert barrier._state is states.FILLING
    barrier._state = states.BROKEN
    assert barrier.broken
    assert barrier._state is states.BROKEN


# Overriding.


def test_subclass_that_overrides_acquire_and_release(make, run):
    async def main():
        calls = []

        class Sub(make):
            async def acquire(self):
                calls.append("acquire")
                return await super().acquire()

            def release(self):
                calls.append("release")
                super().release()

        guard = Sub()
        async with guard:
            assert guard.locked()
        assert not guard.locked()
        # A condition gets these as attributes of each object, from its lock.
        assert calls == ([] if issubclass(make, (asyncio.Condition, aioxide.Condition)) else ["acquire", "release"])

    if issubclass(make, (asyncio.Condition, aioxide.Condition)):

        async def without_super():
            class Sub(make):
                async def acquire(self):
                    raise AssertionError

                def release(self):
                    raise AssertionError

            async with Sub() as value:
                assert value is None

        run(without_super())
    else:
        run(main())


@pytest.mark.parametrize("name", ["Lock", "Semaphore", "BoundedSemaphore"])
def test_attribute_of_an_object_is_replaced(name, aio, run):
    async def main():
        guard, calls = getattr(aio, name)(), []
        acquire, release = guard.acquire, guard.release

        async def noted():
            calls.append("acquire")
            return await acquire()

        guard.acquire = noted
        guard.release = lambda: calls.append("release") or release()
        async with guard:
            assert guard.locked()
        assert calls == ["acquire", "release"]
        del guard.acquire, guard.release
        async with guard:
            assert guard.locked()
        assert calls == ["acquire", "release"]

    run(main())


@pytest.mark.parametrize("name", ["Lock", "Semaphore", "BoundedSemaphore"])
def test_method_of_a_class_is_patched(name, aio, run, monkeypatch):
    """As instrumentation does; a bounded semaphore inherits what is patched on semaphores."""

    async def main():
        owner = aio.Semaphore if name == "BoundedSemaphore" else getattr(aio, name)
        guard, calls, acquire = getattr(aio, name)(), [], owner.acquire

        async def noted(self):
            calls.append(self)
            return await acquire(self)

        async with guard:
            pass
        with monkeypatch.context() as patch:
            patch.setattr(owner, "acquire", noted)
            async with guard:
                assert guard.locked()
            assert calls == [guard]
        async with guard:
            pass
        assert calls == [guard]

    run(main())


def test_private_methods_are_asked(aio, run):
    """What asyncio calls on self can be overridden, whether or not somebody should."""

    async def main():
        calls = []

        def noting(base, *names):
            def note(name):
                method = getattr(base, name)

                def noted(self, *args):
                    calls.append(name)
                    return method(self, *args)

                return noted

            return type("Sub", (base,), {name: note(name) for name in names})

        lock = noting(aio.Lock, "_get_loop", "_wake_up_first")()
        await lock.acquire()
        task = spawn(lock.acquire())
        await turns()
        lock.release()
        await task
        assert calls == ["_get_loop", "_wake_up_first"]
        calls.clear()
        semaphore = noting(aio.Semaphore, "_get_loop", "_wake_up_next", "locked")()
        await semaphore.acquire()
        task = spawn(semaphore.acquire())
        await turns()
        semaphore.release()
        await task
        assert calls == ["locked", "locked", "_get_loop", "_wake_up_next"]
        calls.clear()
        condition = noting(aio.Condition, "_get_loop", "wait", "notify")()
        async with condition:
            task = spawn(condition.wait_for(lambda: len(calls) > 2))
            await turns()
            await condition._lock.acquire()
            condition.notify_all()
        await task
        assert calls == ["wait", "_get_loop", "notify"]
        calls.clear()
        event = noting(aio.Event, "_get_loop")()
        task = spawn(event.wait())
        await turns()
        event.set()
        await task
        assert calls == ["_get_loop"]
        calls.clear()
        barrier = noting(aio.Barrier, "_block", "_release", "_wait", "_exit", "wait")(2)
        async with asyncio.timeout(60):
            task = spawn(barrier.wait())
            await turns(3)
            async with barrier as number:
                assert number == 1
            assert await task == 0
        assert calls == ["wait", "_block", "_wait", "wait", "_block", "_release", "_exit", "_exit"]

    run(main())


def test_subclass_without_super_init(aio, run):
    """Its objects may be used all the same where aioxide is concerned."""
    if aio is asyncio:
        pytest.skip("AttributeError in asyncio")

    async def main():
        class Sub(aio.Lock):
            def __init__(self):
                pass

        async with Sub():
            pass

    run(main())


def test_init_again(aio, run):
    async def main():
        for guard in (aio.Lock(), aio.Semaphore(), aio.BoundedSemaphore(), aio.Condition()):
            await guard.acquire()
            assert guard.locked()
            guard.__init__()
            assert not guard.locked()
        event = aio.Event()
        event.set()
        event.__init__()
        assert not event.is_set()

    run(main())


# The queue of waiters.


def test_waiters_before_and_after(aio, run):
    async def main():
        lock, semaphore, event, condition = aio.Lock(), aio.Semaphore(0), aio.Event(), aio.Condition()
        assert lock._waiters is None
        assert semaphore._waiters is None
        for made in (event, condition):
            assert type(made._waiters) is collections.deque
            assert made._waiters is made._waiters
        await lock.acquire()
        task = spawn(lock.acquire())
        await turns()
        assert type(lock._waiters) is collections.deque
        assert asyncio.isfuture(lock._waiters[0])
        assert "waiters:1" in repr(lock)
        lock.release()
        await task
        assert lock._waiters == collections.deque()

    run(main())


@pytest.mark.parametrize("looked", [False, True])
def test_waiters_seen_while_they_wait(looked, make, run):
    """The same happens whether or not somebody has looked."""

    async def main():
        guard = make()
        queue = guard._lock if hasattr(guard, "_lock") else guard
        await guard.acquire()
        tasks = [spawn(guard.acquire()) for _ in range(4)]
        await turns()
        if looked:
            assert len(queue._waiters) == 4
        tasks[2].cancel()
        await turns(2)
        if looked:
            assert len(queue._waiters) == 3
            assert "waiters:3" in repr(queue)
        for at in (0, 1, 3):
            guard.release()
            await tasks[at]
        assert tasks[2].cancelled()
        assert not queue._waiters

    run(main())


def test_waiters_are_changed_by_users(aio, run):
    async def main():
        lock, order = aio.Lock(), []
        await lock.acquire()

        async def worker(number):
            await lock.acquire()
            order.append(number)
            lock.release()

        tasks = [spawn(worker(number)) for number in range(3)]
        await turns()
        lock._waiters.reverse()
        lock.release()
        await asyncio.gather(*tasks)
        assert order == [2, 1, 0]
        event = aio.Event()
        task = spawn(event.wait())
        await turns()
        waiter = event._waiters.popleft()
        event.set()
        await turns(2)
        assert not task.done()
        event._waiters.append(waiter)
        waiter.set_result(None)
        assert await task is True
        lost = spawn(aio.Event.wait(other := aio.Event()))
        await turns()
        other._waiters.clear()
        lost.cancel()
        with pytest.raises(ValueError, match="not in deque"):
            await lost

    run(main())


def test_waiters_are_replaced(aio, run):
    async def main():
        lock = aio.Lock()
        await lock.acquire()
        task = spawn(lock.acquire())
        await turns()
        lock._waiters = collections.deque(lock._waiters)
        assert len(lock._waiters) == 1
        lock.release()
        await task
        lock._waiters = None
        assert lock._waiters is None
        lock.release()
        event = aio.Event()
        task = spawn(event.wait())
        await turns()
        event._waiters = collections.deque()
        task.cancel()
        with pytest.raises(ValueError, match="not in deque"):
            await task

    run(main())


def test_state_is_written(aio, run):
    async def main():
        lock = aio.Lock()
        lock._locked = True
        assert lock.locked()
        lock.release()
        event = aio.Event()
        event._value = True
        assert await event.wait() is True
        semaphore = aio.Semaphore(0)
        semaphore._value = 1
        assert await semaphore.acquire()
        assert semaphore._value == 0
        bounded = aio.BoundedSemaphore(1)
        bounded._bound_value = 2
        bounded.release()
        with pytest.raises(ValueError, match="released too many times"):
            bounded.release()

    run(main())


@pytest.mark.parametrize("value", [math.inf, 2.5, True, 10**30, 2**62, 2**63 - 1])
def test_semaphore_counts_in_any_number(value, aio, run):
    async def main():
        semaphore = aio.Semaphore(value)
        assert f"value:{value}" in repr(semaphore)
        assert semaphore._value is value or semaphore._value == value
        async with semaphore:
            assert semaphore._value == value - 1
        assert semaphore._value == value
        bounded = aio.BoundedSemaphore(value)
        with pytest.raises(ValueError, match="released too many times"):
            bounded.release()

    run(main())


def test_copies(aio, run):
    async def main():
        lock, event, semaphore, bounded = aio.Lock(), aio.Event(), aio.Semaphore(3), aio.BoundedSemaphore(2)
        lock.note = ["attribute"]
        await lock.acquire()
        await semaphore.acquire()
        await bounded.acquire()
        event.set()
        for make in (copy.copy, copy.deepcopy):
            assert make(lock).locked()
            assert make(lock).note == ["attribute"]
            assert make(event).is_set()
            assert make(semaphore)._value == 2
            (other := make(bounded)).release()
            with pytest.raises(ValueError, match="released too many times"):
                other.release()
            assert make(aio.Barrier(3)).parties == 3
        condition = copy.deepcopy(aio.Condition())
        async with condition:
            assert condition._lock.locked()

    run(main())


# Loops.


WAITS = {
    "Lock": lambda aio: twice(aio.Lock()),
    "Semaphore": lambda aio: aio.Semaphore(0).acquire(),
    "Event": lambda aio: aio.Event().wait(),
    "Condition": lambda aio: waiting(aio.Condition()),
}


async def twice(lock):
    await lock.acquire()
    await lock.acquire()


async def waiting(condition):
    async with condition:
        await condition.wait()


@pytest.mark.parametrize("wait", WAITS)
def test_create_future_fails(wait, aio):
    class Failing(asyncio.SelectorEventLoop):
        fails = False

        def create_future(self):
            if self.fails:
                raise Boom
            return super().create_future()

    loop = Failing()
    try:

        async def main():
            loop.fails = True
            with pytest.raises(Boom):
                await WAITS[wait](aio)
            loop.fails = False

        loop.run_until_complete(main())
    finally:
        loop.close()


def test_failed_wait_leaves_the_lock_as_it_was(aio, fixed):
    class Failing(asyncio.SelectorEventLoop):
        fails = False

        def create_future(self):
            if self.fails:
                raise Boom
            return super().create_future()

    loop = Failing()
    try:

        async def main():
            condition = aio.Condition()
            async with condition:
                loop.fails = True
                with pytest.raises(Boom):
                    await condition.wait()
                loop.fails = False
                assert condition.locked()
                assert not condition._waiters

        loop.run_until_complete(main())
    finally:
        loop.close()


@pytest.mark.parametrize("outcome", ["result", "error", "cancelled"])
def test_future_that_is_done_from_the_start(outcome, aio):
    """A loop may give futures that never wait."""

    class Eager(asyncio.SelectorEventLoop):
        gives = False

        def create_future(self):
            future = super().create_future()
            if self.gives:
                if outcome == "result":
                    future.set_result("anything")
                elif outcome == "error":
                    future.set_exception(Boom())
                else:
                    future.cancel()
            return future

    errors = {"error": Boom, "cancelled": asyncio.CancelledError}
    loop = Eager()
    try:

        async def main():
            event, lock, semaphore = aio.Event(), aio.Lock(), aio.Semaphore(0)
            await lock.acquire()
            for wait in (event.wait, lock.acquire, semaphore.acquire):
                loop.gives = True
                try:
                    if outcome == "result":
                        assert await wait() is True
                    else:
                        with pytest.raises(errors[outcome]):
                            await wait()
                finally:
                    loop.gives = False
            assert not event._waiters
            assert not lock._waiters
            assert not semaphore._waiters

        loop.run_until_complete(main())
    finally:
        loop.close()


def test_other_loop(aio):
    """An object belongs to the loop on which it first waited."""
    one, other = asyncio.new_event_loop(), asyncio.new_event_loop()
    try:
        event = aio.Event()

        async def wait():
            task = spawn(event.wait())
            await turns()
            event.set()
            await task
            event.clear()

        one.run_until_complete(wait())
        assert event._loop is one
        with pytest.raises(RuntimeError, match=r"<asyncio\.locks\.Event object at 0x\w+ \[unset\]> is bound to a diff"):
            other.run_until_complete(event.wait())
        event._loop = None
        other.run_until_complete(wait())
        assert event._loop is other
        with pytest.raises(RuntimeError, match="is bound to a different event loop"):
            event._get_loop()
        assert aio.Event()._get_loop() is None
    finally:
        one.close()
        other.close()


def test_without_a_loop(make, aio):
    """What needs no waiting needs no loop."""
    guard = make()
    coro = guard.acquire()
    with pytest.raises(StopIteration) as caught:
        coro.send(None)
    assert caught.value.value is True
    coro = guard.acquire()
    with pytest.raises(AttributeError, match="create_future"):
        coro.send(None)
    guard.release()
    assert not guard.locked()


# Coroutines.


COROUTINES = {
    "Lock.acquire": lambda aio: aio.Lock().acquire(),
    "Event.wait": lambda aio: aio.Event().wait(),
    "Condition.wait": lambda aio: aio.Condition().wait(),
    "Condition.wait_for": lambda aio: aio.Condition().wait_for(print),
    "Semaphore.acquire": lambda aio: aio.BoundedSemaphore().acquire(),
    "Barrier.wait": lambda aio: aio.Barrier(1).wait(),
    "Barrier.reset": lambda aio: aio.Barrier(1).reset(),
    "Barrier.abort": lambda aio: aio.Barrier(1).abort(),
    "Barrier._block": lambda aio: aio.Barrier(1)._block(),
    "Barrier._wait": lambda aio: aio.Barrier(1)._wait(),
    "Barrier._release": lambda aio: aio.Barrier(1)._release(),
    "Barrier.__aenter__": lambda aio: aio.Barrier(1).__aenter__(),
    "Barrier.__aexit__": lambda aio: aio.Barrier(1).__aexit__(1, 2, 3, 4),
    "_ContextManagerMixin.__aenter__": lambda aio: aio.Semaphore().__aenter__(),
    "_ContextManagerMixin.__aexit__": lambda aio: aio.Lock().__aexit__(None, None, None),
}


@pytest.mark.parametrize("name", COROUTINES)
def test_name_of_a_coroutine(name, aio):
    coro = COROUTINES[name](aio)
    try:
        assert asyncio.iscoroutine(coro)
        assert (coro.__qualname__, coro.__name__) == (name, name.rpartition(".")[2])
        assert coro.cr_code.co_name == coro.__name__
    finally:
        coro.close()


@pytest.mark.parametrize("name", COROUTINES)
def test_coroutine_that_is_never_awaited(name, aio):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        COROUTINES[name](aio)
        gc.collect()
    assert [str(warning.message) for warning in caught] == [f"coroutine '{name}' was never awaited"]


def test_names_of_methods(aio):
    for cls in (aio.Lock, aio.Semaphore, aio.Condition):
        assert cls.__aenter__.__qualname__ == "_ContextManagerMixin.__aenter__"
        assert cls._get_loop.__qualname__ == "_LoopBoundMixin._get_loop"
    assert aio.BoundedSemaphore.acquire.__qualname__ == "Semaphore.acquire"
    assert aio.BoundedSemaphore.release.__qualname__ == "BoundedSemaphore.release"
    assert str(inspect.signature(aio.Lock.__aexit__)) == "(self, exc_type, exc, tb)"


def test_nothing_happens_before_the_coroutine_runs(make, run):
    async def main():
        guard = make()
        await guard.acquire()
        leave = guard.__aexit__(None, None, None)
        assert guard.locked()
        await leave
        assert not guard.locked()
        enter = guard.__aenter__()
        assert not guard.locked()
        await enter
        assert guard.locked()
        for coro in (leave, enter):
            with pytest.raises(RuntimeError, match="cannot reuse already awaited coroutine"):
                await coro

    run(main())


def test_what_is_awaited(aio, run):
    async def main():
        lock = aio.Lock()
        await lock.acquire()
        coro = lock.__aenter__()
        task = spawn(coro)
        await turns()
        assert coro.cr_await is not None
        assert task._fut_waiter is lock._waiters[0]
        lock.release()
        await task

    run(main())


# References.


@pytest.mark.parametrize("name", ["Lock", "Event", "Condition", "Semaphore", "BoundedSemaphore", "Barrier"])
def test_weak_references_and_attributes(name, aio):
    thing = getattr(aio, name)(*([1] if name == "Barrier" else []))
    reference = weakref.ref(thing)
    thing.attribute = thing
    assert vars(thing)["attribute"] is thing
    del thing
    gc.collect()
    assert reference() is None


def test_cycle_through_the_waiters(aio):
    """A lock, who waits for it and the loop are collected together."""
    loop = asyncio.SelectorEventLoop() if aio is asyncio else aioxide.new_event_loop()
    lock, event = aio.Lock(), aio.Event()
    references = [weakref.ref(lock), weakref.ref(event)]
    coros = [lock.acquire(), event.wait()]

    async def main():
        await lock.acquire()  # noqa: F821
        for coro in coros:  # noqa: F821
            coro.send(None)
        assert len(event._waiters) == 1  # noqa: F821
        lock._waiters[0].mine = (lock, coros, event)  # noqa: F821

    loop.run_until_complete(main())
    loop.close()
    lock.coros, event.coros = coros, coros
    del lock, event, coros, main
    gc.collect()
    assert [reference() for reference in references] == [None, None]


def test_last_reference_goes_while_waiting(aio, run):
    """A coroutine that is dropped leaves the queue."""

    async def main():
        lock, event = aio.Lock(), aio.Event()
        await lock.acquire()
        coros = [lock.acquire(), event.wait()]
        for coro in coros:
            coro.send(None)
        assert "waiters:1" in repr(lock)
        assert "waiters:1" in repr(event)
        del coro
        coros.clear()
        gc.collect()
        assert "waiters" not in repr(lock)
        assert "waiters" not in repr(event)
        # Only the coroutine refers to this one.
        reference = weakref.ref(unknown := aio.Event())
        coro = unknown.wait()
        coro.send(None)
        del unknown
        assert reference() is not None
        del coro
        gc.collect()
        assert reference() is None

    run(main())


def test_callback_of_a_waiter_drops_everything(aio, run):
    """What a waiter's callback does, when the loop calls it, meets a queue that is whole."""

    async def main():
        event, calls = aio.Event(), []
        tasks = [spawn(event.wait()) for _ in range(3)]
        await turns()
        for waiter in event._waiters:
            waiter.add_done_callback(lambda future: calls.append(len(event._waiters)))
        event.set()
        event._waiters.append(asyncio.get_running_loop().create_future())
        await asyncio.gather(*tasks)
        await turns()
        assert len(calls) == 3
        assert len(event._waiters) == 1

    run(main())


def test_set_comes_back_to_the_event(aio):
    """A loop whose call_soon is Python code may come back while waiters are woken: nobody is forgotten."""

    class Reentrant(asyncio.SelectorEventLoop):
        hook = None

        def call_soon(self, callback, *args, context=None):
            if self.hook:
                self.hook()
            return super().call_soon(callback, *args, context=context)

    loop = Reentrant()
    try:

        async def main():
            event, semaphore, lock = aio.Event(), aio.Semaphore(0), aio.Lock()
            await lock.acquire()
            tasks = [spawn(wait()) for wait in (event.wait, event.wait, semaphore.acquire, lock.acquire)]
            await turns()
            seen = []
            loop.hook = lambda: seen.append((repr(event), repr(semaphore), repr(lock), event.set()))
            event.set()
            semaphore.release()
            lock.release()
            loop.hook = None
            await asyncio.gather(*tasks)
            assert len(seen) >= 4

        loop.run_until_complete(main())
    finally:
        loop.close()

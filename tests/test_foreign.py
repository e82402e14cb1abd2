"""Native objects on other loops, other objects on the native loop, and loops whose methods are overridden."""

import asyncio
import collections
import concurrent.futures
import contextvars
import heapq
import sys
import threading

import pytest

import aioxide


class WorkflowLoop(asyncio.AbstractEventLoop):
    """A deterministic loop with a clock of its own, as temporalio has one for each workflow.

    All that it can do is call_soon, call_later and time; it makes native futures and tasks by their constructors.
    """

    def __init__(self):
        self.now = 0.0
        self.ready = collections.deque()
        self.timers = []
        self.reports = []
        self.made = 0

    def call_soon(self, callback, *args, context=None):
        handle = asyncio.Handle(callback, args, self, context)
        self.ready.append(handle)
        return handle

    def call_later(self, delay, callback, *args, context=None):
        return self.call_at(self.now + delay, callback, *args, context=context)

    def call_at(self, when, callback, *args, context=None):
        handle = asyncio.TimerHandle(when, callback, args, self, context)
        self.made += 1
        heapq.heappush(self.timers, (when, self.made, handle))
        return handle

    def _timer_handle_cancelled(self, handle):
        pass

    def time(self):
        return self.now

    def get_debug(self):
        return False

    def is_running(self):
        return asyncio._get_running_loop() is self

    def is_closed(self):
        return False

    def create_future(self):
        return aioxide.Future(loop=self)

    def create_task(self, coro, **kwargs):
        return aioxide.Task(coro, loop=self, **kwargs)

    def call_exception_handler(self, context):
        self.reports.append(context)

    def run(self, coro):
        """Turns until the coroutine is done."""
        asyncio._set_running_loop(self)
        try:
            main = self.create_task(coro)
            while not main.done():
                if not self.ready:
                    self.now, _, handle = heapq.heappop(self.timers)
                    self.ready.append(handle)
                handle = self.ready.popleft()
                if not handle.cancelled():
                    handle._run()
            return main.result()
        finally:
            asyncio._set_running_loop(None)

    def close(self):
        pass


class BaseLoop(asyncio.BaseEventLoop):
    """A pure-Python loop on asyncio's base class with a clock of its own, as CPython's tests use it."""

    class Selector:
        def __init__(self, loop):
            self.loop = loop

        def select(self, timeout):
            if timeout:
                self.loop.now += timeout
            return []

        def get_map(self):
            return {}

    def __init__(self):
        super().__init__()
        self.now = 0.0
        self.reports = []
        self._selector = self.Selector(self)
        self._clock_resolution = 1e-9
        self.set_exception_handler(lambda loop, context: self.reports.append(context))
        self.set_task_factory(lambda loop, coro, **kwargs: aioxide.Task(coro, loop=loop, **kwargs))

    def time(self):
        return self.now

    def create_future(self):
        return aioxide.Future(loop=self)

    def _process_events(self, events):
        pass

    def _write_to_self(self):
        pass

    def run(self, coro):
        return self.run_until_complete(coro)


class StdlibLoop(asyncio.SelectorEventLoop):
    """The stdlib's own loop, whose futures and tasks are the stdlib's."""

    def __init__(self):
        super().__init__()
        self.reports = []
        self.set_exception_handler(lambda loop, context: self.reports.append(context))

    def run(self, coro):
        return self.run_until_complete(coro)


@pytest.fixture(params=[WorkflowLoop, BaseLoop, StdlibLoop], ids=["workflow", "base", "stdlib"])
def foreign(request):
    """A loop that is not ours; nothing may be reported to its exception handler."""
    loop = request.param()
    yield loop
    loop.close()
    assert loop.reports == []


@pytest.fixture
def loop():
    """A native loop; nothing may be reported to its exception handler."""
    reports = []
    loop = aioxide.new_event_loop()
    loop.set_exception_handler(lambda loop, context: reports.append(context))
    yield loop
    for task in aioxide.all_tasks(loop):
        task.cancel()
    loop.run_until_complete(asyncio.sleep(0))
    loop.run_until_complete(loop.shutdown_default_executor())
    loop.close()
    assert reports == []


async def value_of(value):
    await aioxide.sleep(0)
    return value


async def failing(error):
    await aioxide.sleep(0)
    raise error


# Native objects on a foreign loop. A task that the test makes itself is native on every loop.


def task_on(loop, coro, **kwargs):
    """A native task on a loop that may be foreign."""
    return aioxide.Task(coro, loop=loop, **kwargs)


def test_future_on_a_foreign_loop(foreign):
    async def main():
        future = aioxide.Future(loop=foreign)
        assert future.get_loop() is foreign
        foreign.call_soon(future.set_result, 42)
        return await future

    assert foreign.run(main()) == 42


def test_future_finds_the_running_foreign_loop(foreign):
    async def main():
        assert asyncio.get_running_loop() is foreign
        assert aioxide.get_running_loop() is foreign
        return aioxide.Future().get_loop()

    assert foreign.run(main()) is foreign


def test_future_callbacks_go_through_call_soon_in_their_context(foreign):
    variable = contextvars.ContextVar("variable", default="outside")
    seen = []

    async def main():
        future = aioxide.Future(loop=foreign)
        context = contextvars.copy_context()
        context.run(variable.set, "inside")
        future.add_done_callback(lambda done: seen.append((done is future, variable.get())), context=context)
        future.add_done_callback(lambda done: seen.append((done is future, variable.get())))
        future.set_result(None)
        assert seen == []
        await aioxide.sleep(0)

    foreign.run(main())
    assert seen == [(True, "inside"), (True, "outside")]


def test_task_on_a_foreign_loop(foreign):
    async def main():
        assert await task_on(foreign, value_of(1)) == 1
        with pytest.raises(ValueError, match="text"):
            await task_on(foreign, failing(ValueError("text")))
        task = task_on(foreign, aioxide.sleep(60))
        await aioxide.sleep(0)
        task.cancel("why")
        with pytest.raises(asyncio.CancelledError, match="why"):
            await task
        return task.cancelled()

    assert foreign.run(main())


def test_current_task_and_all_tasks_on_a_foreign_loop(foreign):
    seen = []

    async def child():
        seen.append((asyncio.current_task(), aioxide.current_task()))
        await aioxide.sleep(0)
        seen.append((asyncio.current_task(), aioxide.current_task()))

    async def main():
        here = aioxide.current_task()
        task = task_on(foreign, child())
        assert aioxide.all_tasks() == {here, task}
        if sys.version_info >= (3, 14):
            assert asyncio.all_tasks() == {here, task}
        await task
        assert aioxide.all_tasks() == {here}
        assert seen == [(task, task)] * 2
        assert asyncio.current_task() is here

    foreign.run(main())


def test_sleep_on_a_foreign_loop(foreign):
    async def main():
        start = foreign.time()
        order = []

        async def sleeper(delay):
            assert await aioxide.sleep(delay, "value") == "value"
            order.append(delay)

        await aioxide.gather(*[task_on(foreign, sleeper(delay)) for delay in (0.03, 0.01, 0, 0.02)])
        assert order == [0, 0.01, 0.02, 0.03]
        return foreign.time() - start

    assert foreign.run(main()) >= 0.0299


def test_cancelled_sleep_on_a_foreign_loop(foreign):
    async def main():
        task = task_on(foreign, aioxide.sleep(3600))
        await aioxide.sleep(0)
        task.cancel()
        done, _ = await aioxide.wait([task])
        return [each.cancelled() for each in done]

    assert foreign.run(main()) == [True]


def test_lock_on_a_foreign_loop(foreign):
    async def main():
        lock = aioxide.Lock()
        order = []

        async def worker(number):
            for _ in range(2):
                async with lock:
                    order.append(number)
                    await aioxide.sleep(0)
                    order.append(number)

        await aioxide.gather(*[task_on(foreign, worker(number)) for number in range(3)])
        assert not lock.locked()
        return order

    assert foreign.run(main()) == [0, 0, 1, 1, 2, 2] * 2


def test_event_on_a_foreign_loop(foreign):
    async def main():
        event = aioxide.Event()
        waiters = [task_on(foreign, event.wait()) for _ in range(3)]
        await aioxide.sleep(0)
        foreign.call_later(0.001, event.set)
        return await aioxide.gather(*waiters)

    assert foreign.run(main()) == [True] * 3


def test_condition_on_a_foreign_loop(foreign):
    async def main():
        condition = aioxide.Condition()
        woken = []

        async def waiter(number):
            async with condition:
                await condition.wait()
                woken.append(number)

        tasks = [task_on(foreign, waiter(number)) for number in range(3)]
        await aioxide.sleep(0)
        async with condition:
            condition.notify(1)
        await tasks[0]
        assert woken == [0]
        async with condition:
            condition.notify_all()
        await aioxide.gather(*tasks)
        return woken

    assert foreign.run(main()) == [0, 1, 2]


def test_semaphore_on_a_foreign_loop(foreign):
    async def main():
        semaphore = aioxide.BoundedSemaphore(2)
        inside = most = 0

        async def worker():
            nonlocal inside, most
            async with semaphore:
                inside += 1
                most = max(most, inside)
                await aioxide.sleep(0)
                inside -= 1

        await aioxide.gather(*[task_on(foreign, worker()) for _ in range(6)])
        return most, inside

    assert foreign.run(main()) == (2, 0)


def test_barrier_on_a_foreign_loop(foreign):
    async def main():
        barrier = aioxide.Barrier(3)
        return await aioxide.gather(*[task_on(foreign, barrier.wait()) for _ in range(3)])

    assert sorted(foreign.run(main())) == [0, 1, 2]


@pytest.mark.parametrize("cls", [aioxide.Queue, aioxide.PriorityQueue, aioxide.LifoQueue])
def test_queue_on_a_foreign_loop(foreign, cls):
    async def main():
        queue = cls(1)

        async def consume():
            items = []
            for _ in range(10):
                items.append(await queue.get())
                queue.task_done()
            return items

        consumer = task_on(foreign, consume())
        for item in range(10):
            await queue.put(item)
        await queue.join()
        return await consumer

    assert foreign.run(main()) == list(range(10))


def test_gather_on_a_foreign_loop(foreign):
    async def main():
        futures = [task_on(foreign, value_of(1)), aioxide.Future(loop=foreign), task_on(foreign, failing(KeyError(3)))]
        foreign.call_soon(futures[1].set_result, 2)
        results = await aioxide.gather(*futures, return_exceptions=True)
        with pytest.raises(KeyError):
            await aioxide.gather(*futures)
        return results[:2], type(results[2])

    assert foreign.run(main()) == ([1, 2], KeyError)


def test_wait_on_a_foreign_loop(foreign):
    async def main():
        quick, slow = task_on(foreign, value_of(1)), task_on(foreign, aioxide.sleep(60))
        done, pending = await aioxide.wait([quick, slow], return_when=aioxide.FIRST_COMPLETED)
        assert (done, pending) == ({quick}, {slow})
        done, pending = await aioxide.wait([slow], timeout=0.001)
        assert (done, pending) == (set(), {slow})
        slow.cancel()
        done, pending = await aioxide.wait([slow])
        return len(done), len(pending)

    assert foreign.run(main()) == (1, 0)


def test_wait_for_on_a_foreign_loop(foreign):
    async def main():
        assert await aioxide.wait_for(value_of(1), 60) == 1
        future = aioxide.Future(loop=foreign)
        with pytest.raises(TimeoutError):
            await aioxide.wait_for(future, 0.001)
        return future.cancelled()

    assert foreign.run(main())


def test_as_completed_on_a_foreign_loop(foreign):
    async def main():
        tasks = [task_on(foreign, aioxide.sleep(delay, delay)) for delay in (0.02, 0.01)]
        return [await each for each in aioxide.as_completed(tasks)]

    assert foreign.run(main()) == [0.01, 0.02]


def test_shield_on_a_foreign_loop(foreign):
    async def main():
        inner = task_on(foreign, aioxide.sleep(0.001, "done"))
        outer = aioxide.shield(inner)
        outer.cancel()
        with pytest.raises(asyncio.CancelledError):
            await outer
        return await inner

    assert foreign.run(main()) == "done"


def test_timeouts_on_a_foreign_loop(foreign):
    async def main():
        with pytest.raises(TimeoutError):
            async with aioxide.timeout(0.001):
                await aioxide.sleep(60)
        async with aioxide.timeout_at(foreign.time() + 0.001) as block:
            block.reschedule(foreign.time() + 60)
            await aioxide.sleep(0.002)
        assert not block.expired()
        with pytest.raises(TimeoutError):
            async with aioxide.timeout(0):
                await aioxide.sleep(60)
        return aioxide.current_task().cancelling()

    assert foreign.run(main()) == 0


def test_task_group_on_a_foreign_loop(foreign):
    async def main():
        async with aioxide.TaskGroup() as group:
            tasks = [group.create_task(value_of(number)) for number in range(3)]
        assert [task.result() for task in tasks] == [0, 1, 2]
        with pytest.raises(ExceptionGroup) as caught:
            async with aioxide.TaskGroup() as group:
                sleeper = group.create_task(aioxide.sleep(60))
                group.create_task(failing(ValueError("text")))
        assert sleeper.cancelled()
        return [repr(error) for error in caught.value.exceptions]

    assert foreign.run(main()) == ["ValueError('text')"]


def test_eager_task_on_a_foreign_loop(foreign):
    async def main():
        async def at_once():
            return aioxide.current_task()

        outer = aioxide.current_task()
        task = aioxide.eager_task_factory(foreign, at_once())
        assert task.done()
        assert task.result() is task
        assert aioxide.current_task() is outer
        task = aioxide.eager_task_factory(foreign, value_of(2))
        assert not task.done()
        return await task

    assert foreign.run(main()) == 2


def test_lost_exception_is_reported_to_the_foreign_loop(foreign):
    async def main():
        aioxide.Future(loop=foreign).set_exception(ValueError("lost"))

    foreign.run(main())
    assert [context["message"] for context in foreign.reports] == ["Future exception was never retrieved"]
    foreign.reports.clear()


# The stdlib's objects on the native loop.


def py_task(coro, loop):
    return asyncio.tasks._PyTask(coro, loop=loop)


def c_task(coro, loop):
    return asyncio.tasks._CTask(coro, loop=loop)


def native_task(coro, loop):
    return aioxide.Task(coro, loop=loop)


TASKS = pytest.mark.parametrize("make_task", [c_task, py_task], ids=["C", "Python"])

AWAITABLES = {
    "future": lambda loop: _set_soon(aioxide.Future(loop=loop), loop),
    "C future": lambda loop: _set_soon(asyncio.futures._CFuture(loop=loop), loop),
    "Python future": lambda loop: _set_soon(asyncio.futures._PyFuture(loop=loop), loop),
    "task": lambda loop: native_task(value_of(42), loop),
    "C task": lambda loop: c_task(value_of(42), loop),
    "Python task": lambda loop: py_task(value_of(42), loop),
    "sleep": lambda loop: aioxide.sleep(0.001, 42),
    "sleep(0)": lambda loop: aioxide.sleep(0, 42),
    "stdlib's sleep": lambda loop: asyncio.sleep(0.001, 42),
    "gather": lambda loop: _first(aioxide.gather(native_task(value_of(42), loop), c_task(value_of(1), loop))),
    "stdlib's gather": lambda loop: _first(asyncio.gather(native_task(value_of(42), loop), c_task(value_of(1), loop))),
    "shield": lambda loop: aioxide.shield(c_task(value_of(42), loop)),
    "stdlib's shield": lambda loop: asyncio.shield(native_task(value_of(42), loop)),
    "wait_for": lambda loop: aioxide.wait_for(c_task(value_of(42), loop), 60),
    "stdlib's wait_for": lambda loop: asyncio.wait_for(native_task(value_of(42), loop), 60),
    "queue": lambda loop: _from_queue(aioxide.Queue(), loop),
    "stdlib's queue": lambda loop: _from_queue(asyncio.Queue(), loop),
    "event": lambda loop: _after_event(aioxide.Event(), loop),
    "stdlib's event": lambda loop: _after_event(asyncio.Event(), loop),
    "thread": lambda loop: aioxide.to_thread(lambda: 42),
    "stdlib's thread": lambda loop: asyncio.to_thread(lambda: 42),
    "executor": lambda loop: loop.run_in_executor(None, lambda: 42),
}


def _set_soon(future, loop):
    loop.call_soon(future.set_result, 42)
    return future


async def _first(awaitable):
    return (await awaitable)[0]


async def _from_queue(queue, loop):
    loop.call_soon(queue.put_nowait, 42)
    return await queue.get()


async def _after_event(event, loop):
    loop.call_soon(event.set)
    await event.wait()
    return 42


@pytest.mark.parametrize("make_task", [c_task, py_task, native_task], ids=["C", "Python", "native"])
@pytest.mark.parametrize("kind", AWAITABLES)
def test_any_task_awaits_anything(make_task, kind, loop):
    if make_task is py_task and "wait_for" in kind and sys.version_info >= (3, 14):
        pytest.skip("current_task() does not see the pure-Python task from 3.14, so that no timeout works in it")

    async def main():
        return await AWAITABLES[kind](loop)

    async def outer():
        task = make_task(main(), loop)
        return await task

    assert loop.run_until_complete(make_task(outer(), loop)) == 42


@TASKS
def test_cancel_reaches_a_native_future_through_a_stdlib_task(make_task, loop):
    async def main():
        future = aioxide.Future(loop=loop)

        async def waiter():
            await future

        task = make_task(waiter(), loop)
        await asyncio.sleep(0)
        assert task.cancel("why")
        with pytest.raises(asyncio.CancelledError, match="why"):
            await task
        return future.cancelled()

    assert loop.run_until_complete(main())


@TASKS
def test_cancel_reaches_a_stdlib_task_through_a_native_task(make_task, loop):
    async def main():
        inner = make_task(asyncio.sleep(3600), loop)

        async def waiter():
            await inner

        task = aioxide.Task(waiter(), loop=loop)
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert task.cancel("why")
        with pytest.raises(asyncio.CancelledError, match="why"):
            await task
        return inner.cancelled()

    assert loop.run_until_complete(main())


def test_current_task_changes_with_each_kind_of_task(loop):
    async def who():
        first = asyncio.current_task(), aioxide.current_task()
        await asyncio.sleep(0)
        return {*first, asyncio.current_task(), aioxide.current_task()}

    async def main():
        tasks = [c_task(who(), loop), native_task(who(), loop), c_task(who(), loop)]
        assert asyncio.all_tasks() == aioxide.all_tasks() == {*tasks, aioxide.current_task()}
        for task in tasks:
            assert await task == {task}

    loop.run_until_complete(main())


def test_what_the_native_loop_makes_in_loop_only_mode(loop):
    async def main():
        task = asyncio.create_task(value_of(1))
        assert type(task) is aioxide.Task
        assert type(asyncio.ensure_future(value_of(2))) is aioxide.Task
        assert type(asyncio.get_running_loop().create_future()) is aioxide.Future
        assert asyncio.current_task().__class__ is aioxide.Task

    loop.run_until_complete(main())


def test_the_stdlibs_runner_cancels_native_tasks_that_are_left():
    seen = []

    async def left():
        try:
            await asyncio.sleep(3600)
        except asyncio.CancelledError:
            seen.append("cancelled")
            raise

    async def main():
        kept.append(asyncio.create_task(left()))
        await asyncio.sleep(0)

    kept = []
    with asyncio.Runner(loop_factory=aioxide.new_event_loop) as runner:
        runner.run(main())
    assert seen == ["cancelled"]
    assert kept[0].cancelled()


def test_the_stdlibs_locks_on_the_native_loop():
    async def main():
        lock, semaphore, event = asyncio.Lock(), asyncio.Semaphore(2), asyncio.Event()
        condition, barrier = asyncio.Condition(), asyncio.Barrier(3)
        order = []

        async def worker(number):
            async with lock:
                order.append(number)
                await asyncio.sleep(0)
            async with semaphore:
                await asyncio.sleep(0)
            await barrier.wait()
            async with condition:
                await condition.wait_for(event.is_set)
            order.append(number)

        async with asyncio.TaskGroup() as group:
            for number in range(3):
                group.create_task(worker(number))
            await asyncio.sleep(0.001)
            event.set()
            while len(order) < 6:
                async with condition:
                    condition.notify_all()
                await asyncio.sleep(0)
        return order[:3], sorted(order[3:])

    with asyncio.Runner(loop_factory=aioxide.new_event_loop) as runner:
        assert runner.run(main()) == ([0, 1, 2], [0, 1, 2])


def test_the_stdlibs_combinators_on_the_native_loop():
    async def main():
        queue = asyncio.Queue(1)
        async with asyncio.timeout(60), asyncio.TaskGroup() as group:
            getter = group.create_task(queue.get())
            group.create_task(queue.put("item"))
        assert getter.result() == "item"
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.001):
                await asyncio.get_running_loop().create_future()
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(asyncio.get_running_loop().create_future(), 0.001)
        with pytest.raises(ExceptionGroup):
            async with asyncio.TaskGroup() as group:
                group.create_task(failing(ValueError()))
                await asyncio.get_running_loop().create_future()
        done, _ = await asyncio.wait([asyncio.create_task(value_of(1))])
        assert [task.result() for task in done] == [1]
        assert [await each for each in asyncio.as_completed([value_of(2)])] == [2]
        assert await asyncio.to_thread(threading.get_ident) != threading.get_ident()
        return await asyncio.gather(value_of(3), asyncio.shield(value_of(4)))

    with asyncio.Runner(loop_factory=aioxide.new_event_loop) as runner:
        assert runner.run(main()) == [3, 4]


def test_futures_of_one_loop_are_refused_on_another(loop):
    other = asyncio.SelectorEventLoop()
    try:
        for future in (asyncio.Future(loop=other), aioxide.Future(loop=other)):

            async def main(future=future):
                await future

            with pytest.raises(RuntimeError, match="attached to a different loop"):
                loop.run_until_complete(main())
    finally:
        other.close()


# Overridden methods. What overrides a method sees every use of it, also the native ones.

METHODS = ("call_soon", "call_later", "call_at", "call_soon_threadsafe", "create_task", "time", "create_future")


class Recorder:
    """The calls of an overridden method, which are passed on."""

    def __init__(self, name):
        self.name = name
        self.calls = []

    def wrap(self, original):
        def method(*args, **kwargs):
            self.calls.append(args)
            return original(*args, **kwargs)

        return method


@pytest.fixture(params=["subclass", "instance"])
def overridden(request):
    """Makes a loop one of whose methods is overridden in a subclass or on the instance."""
    loops = []

    def make(name):
        recorder = Recorder(name)
        if request.param == "instance":
            loop = aioxide.new_event_loop()
            setattr(loop, name, recorder.wrap(getattr(loop, name)))
        else:

            def method(self, *args, **kwargs):
                return recorder.wrap(getattr(super(cls, self), name))(*args, **kwargs)

            cls = type("Overriding", (aioxide.Loop,), {name: method})
            loop = cls()
        loops.append(loop)
        return loop, recorder

    yield make
    for loop in loops:
        for task in aioxide.all_tasks(loop):
            task.cancel()
        loop.run_until_complete(asyncio.sleep(0))
        loop.run_until_complete(loop.shutdown_default_executor())
        loop.close()


async def _wake_a_future(loop):
    future = loop.create_future()
    task = loop.create_task(_await(future))
    await aioxide.sleep(0)
    yield
    future.set_result(None)
    yield
    await task


async def _await(awaitable):
    return await awaitable


async def _make_a_task(loop):
    yield
    task = loop.create_task(value_of(1))
    yield
    await task


async def _make_a_task_by_the_constructor(loop):
    yield
    task = aioxide.Task(value_of(1), loop=loop)
    yield
    await task


async def _sleep_0(loop):
    yield
    await aioxide.sleep(0)
    yield


async def _call_back(loop):
    future = loop.create_future()
    future.add_done_callback(lambda future: None)
    yield
    future.set_result(None)
    yield


async def _call_back_when_done(loop):
    future = loop.create_future()
    future.set_result(None)
    yield
    future.add_done_callback(lambda future: None)
    yield


async def _set_an_event(loop):
    event = aioxide.Event()
    task = loop.create_task(event.wait())
    await aioxide.sleep(0)
    yield
    event.set()
    yield
    await task


async def _release_a_lock(loop):
    lock = aioxide.Lock()
    await lock.acquire()
    task = loop.create_task(lock.acquire())
    await aioxide.sleep(0)
    yield
    lock.release()
    yield
    await task


async def _release_a_semaphore(loop):
    semaphore = aioxide.Semaphore(0)
    task = loop.create_task(semaphore.acquire())
    await aioxide.sleep(0)
    yield
    semaphore.release()
    yield
    await task


async def _put_into_a_queue(loop):
    queue = aioxide.Queue()
    task = loop.create_task(queue.get())
    await aioxide.sleep(0)
    yield
    queue.put_nowait(1)
    yield
    await task


async def _get_from_a_queue(loop):
    queue = aioxide.Queue(1)
    queue.put_nowait(1)
    task = loop.create_task(queue.put(2))
    await aioxide.sleep(0)
    yield
    queue.get_nowait()
    yield
    await task


async def _finish_a_queue(loop):
    queue = aioxide.Queue()
    queue.put_nowait(1)
    task = loop.create_task(queue.join())
    await aioxide.sleep(0)
    yield
    queue.task_done()
    yield
    await task


async def _notify_a_condition(loop):
    condition = aioxide.Condition()

    async def wait():
        async with condition:
            await condition.wait()

    task = loop.create_task(wait())
    await aioxide.sleep(0)
    async with condition:
        yield
        condition.notify()
        yield
    await task


async def _cancel_a_waiting_task(loop):
    task = loop.create_task(_await(loop.create_future()))
    await aioxide.sleep(0)
    yield
    task.cancel()
    yield
    await aioxide.wait([task])


async def _cancel_a_sleeping_task(loop):
    task = loop.create_task(aioxide.sleep(3600))
    await aioxide.sleep(0)
    yield
    task.cancel()
    yield
    await aioxide.wait([task])


async def _finish_a_gathered_future(loop):
    future = loop.create_future()
    outer = aioxide.gather(future)
    yield
    future.set_result(1)
    yield
    await outer


async def _wait_for_a_group(loop):
    async with aioxide.TaskGroup() as group:
        yield
        group.create_task(value_of(1))
        yield


SOON = [
    _wake_a_future, _make_a_task, _make_a_task_by_the_constructor, _sleep_0, _call_back, _call_back_when_done,
    _set_an_event, _release_a_lock, _release_a_semaphore, _put_into_a_queue, _get_from_a_queue, _finish_a_queue,
    _notify_a_condition, _cancel_a_waiting_task, _cancel_a_sleeping_task, _finish_a_gathered_future,
    _wait_for_a_group,
]  # fmt: skip
"""Between their two yields each of these does what asyncio would call call_soon for."""


@pytest.mark.parametrize("scenario", SOON, ids=lambda scenario: scenario.__name__.strip("_"))
def test_overridden_call_soon_sees(scenario, overridden):
    loop, recorder = overridden("call_soon")

    async def main():
        steps = scenario(loop)
        await anext(steps)
        before = len(recorder.calls)
        await anext(steps)
        after = len(recorder.calls)
        async for _ in steps:
            pass
        return after - before

    assert loop.run_until_complete(main()) >= 1


def test_overridden_call_soon_decides_when_a_task_steps():
    class Holding(aioxide.Loop):
        held = None

        def call_soon(self, callback, *args, context=None):
            if self.held is None:
                return super().call_soon(callback, *args, context=context)
            handle = aioxide.Handle(callback, args, self, context)
            self.held.append(handle)
            return handle

    loop = Holding()
    steps = []

    async def worker(event, future):
        await event.wait()
        steps.append("event")
        await future
        steps.append("future")

    event, future = aioxide.Event(), loop.create_future()
    task = loop.create_task(worker(event, future))
    loop.run_until_complete(aioxide.sleep(0))
    for wake in (event.set, lambda: future.set_result(None)):
        loop.held = []
        before = list(steps)
        wake()
        held, loop.held = loop.held, None
        for _ in range(3):
            loop.run_until_complete(aioxide.sleep(0))
        assert steps == before
        assert len(held) == 1
        loop.call_soon(held[0]._run)
        loop.run_until_complete(aioxide.sleep(0))
        assert len(steps) == len(before) + 1
    loop.run_until_complete(task)
    loop.close()
    assert steps == ["event", "future"]


LATER = {
    "sleep": lambda loop: aioxide.sleep(0.001),
    "wait": lambda loop: aioxide.wait([loop.create_future()], timeout=0.001),
}


@pytest.mark.parametrize("kind", LATER)
@pytest.mark.parametrize("method", ["call_later", "call_at"])
def test_overridden_timer_method_sees(kind, method, overridden):
    loop, recorder = overridden(method)
    loop.run_until_complete(LATER[kind](loop))
    assert recorder.calls
    delay = recorder.calls[0][0]
    assert delay == 0.001 if method == "call_later" else delay > 0.001


def test_overridden_call_at_sees_timeouts(overridden):
    loop, recorder = overridden("call_at")

    async def main():
        async with aioxide.timeout(60):
            pass
        assert len(recorder.calls) == 1
        async with aioxide.timeout_at(loop.time() + 60) as block:
            block.reschedule(loop.time() + 61)
        assert len(recorder.calls) == 3
        await aioxide.wait_for(loop.create_task(value_of(1)), 60)

    loop.run_until_complete(main())
    assert len(recorder.calls) == 4


@pytest.mark.parametrize("where", ["subclass", "instance"])
def test_overridden_timer_method_decides(where):
    """A call_later that shortens every delay shortens every sleep."""

    class Hasty(aioxide.Loop):
        def call_later(self, delay, callback, *args, context=None):
            return super().call_later(delay / 1e6, callback, *args, context=context)

    if where == "subclass":
        loop = Hasty()
    else:
        loop = aioxide.new_event_loop()
        original = loop.call_later
        loop.call_later = lambda delay, callback, *args, context=None: original(
            delay / 1e6, callback, *args, context=context
        )
    start = loop.time()
    loop.run_until_complete(aioxide.sleep(1000))
    taken = loop.time() - start
    loop.close()
    assert 0.001 <= taken < 100


@pytest.mark.parametrize("where", ["subclass", "instance"])
def test_overridden_time_decides(where):
    """A clock that a program moves by hand ends sleeps and timeouts."""
    now = 1000.0

    class Clock(aioxide.Loop):
        def time(self):
            return now

    if where == "subclass":
        loop = Clock()
    else:
        loop = aioxide.new_event_loop()
        loop.time = lambda: now

    def pass_an_hour():
        nonlocal now
        now += 3600

    async def main():
        assert loop.call_later(5, int).when() == 1005.0
        loop.call_soon(pass_an_hour)
        await aioxide.sleep(3599)
        loop.call_soon(pass_an_hour)
        with pytest.raises(TimeoutError):
            async with aioxide.timeout(3599) as block:
                assert block.when() == now + 3599
                await loop.create_future()
        loop.call_soon(pass_an_hour)
        with pytest.raises(TimeoutError):
            await aioxide.wait_for(loop.create_future(), 3599)
        return now

    assert loop.run_until_complete(main()) == 1000 + 3 * 3600
    loop.close()


THREADSAFE = {
    "to_thread": lambda loop: _from_a_slow_thread(loop, aioxide.to_thread),
    "run_in_executor": lambda loop: _from_a_slow_thread(loop, lambda call: loop.run_in_executor(None, call)),
    "wrap_future": lambda loop: _from_a_concurrent_future(loop),
    "run_coroutine_threadsafe": lambda loop: _from_another_thread(loop),
}


async def _from_a_slow_thread(loop, start):
    """The thread ends only when somebody waits for it, so that it has to wake the loop."""
    awaited = threading.Event()
    loop.call_soon(awaited.set)
    return 0 if await start(lambda: awaited.wait(60)) else None


async def _from_a_concurrent_future(loop):
    future = concurrent.futures.Future()
    thread = threading.Thread(target=future.set_result, args=(0,))
    wrapped = aioxide.wrap_future(future, loop=loop)
    thread.start()
    result = await wrapped
    thread.join()
    return result


async def _from_another_thread(loop):
    def run():
        return aioxide.run_coroutine_threadsafe(value_of(0), loop).result()

    return await aioxide.to_thread(run)


@pytest.mark.parametrize("kind", THREADSAFE)
def test_overridden_call_soon_threadsafe_sees(kind, overridden):
    loop, recorder = overridden("call_soon_threadsafe")
    assert loop.run_until_complete(THREADSAFE[kind](loop)) == 0
    assert len(recorder.calls) >= (2 if kind == "run_coroutine_threadsafe" else 1)


CREATE = {
    "create_task": lambda loop: aioxide.create_task(value_of(1)),
    "ensure_future": lambda loop: aioxide.ensure_future(value_of(1)),
    "gather": lambda loop: aioxide.gather(value_of(1)),
    "shield": lambda loop: aioxide.shield(value_of(1)),
    "TaskGroup": lambda loop: _in_a_group(),
    "as_completed": lambda loop: next(iter(aioxide.as_completed([value_of(1)]))),
}


async def _in_a_group():
    async with aioxide.TaskGroup() as group:
        group.create_task(value_of(1))


@pytest.mark.parametrize("kind", CREATE)
def test_overridden_create_task_sees(kind, overridden):
    loop, recorder = overridden("create_task")

    async def main():
        assert [call[-1].__name__ for call in recorder.calls] == ["main"]
        await CREATE[kind](loop)

    loop.run_until_complete(main())
    assert [call[-1].__name__ for call in recorder.calls] == ["main", "value_of"]


def test_overridden_create_task_sees_what_a_runner_runs():
    class Counting(aioxide.Loop):
        made = ()

        def create_task(self, coro, **kwargs):
            self.made += (coro.__name__,)
            return super().create_task(coro, **kwargs)

    with aioxide.Runner(loop_factory=Counting) as runner:
        assert runner.run(value_of(1)) == 1
        assert runner.get_loop().made == ("value_of",)


def test_an_override_can_be_taken_back(loop):
    seen = []
    original = loop.call_soon
    loop.call_soon = lambda *args, **kwargs: seen.append(args) or original(*args, **kwargs)
    loop.run_until_complete(value_of(1))
    count = len(seen)
    assert count >= 1
    del loop.call_soon
    loop.run_until_complete(value_of(1))
    assert len(seen) == count


def test_an_override_while_the_loop_runs(loop):
    seen = []

    async def main():
        await aioxide.sleep(0)
        original = loop.call_soon
        loop.call_soon = lambda *args, **kwargs: seen.append(args) or original(*args, **kwargs)
        await aioxide.sleep(0)
        count = len(seen)
        assert count >= 1
        await aioxide.sleep(0)
        assert len(seen) > count
        del loop.call_soon

    loop.run_until_complete(main())


def test_an_override_that_raises(loop):
    """What call_soon raises comes out of the call that needed it."""

    def refuse(*args, **kwargs):
        raise LookupError("refused")

    future = loop.create_future()
    future.add_done_callback(lambda future: None)
    loop.call_soon = refuse
    with pytest.raises(LookupError, match="refused"):
        future.set_result(1)
    del loop.call_soon
    assert future.result() == 1


def test_a_subclass_has_its_own_constructor():
    class Named(aioxide.Loop):
        def __init__(self, name):
            super().__init__()
            self.name = name

    loop = Named("own")
    assert loop.run_until_complete(value_of(1)) == 1
    assert loop.name == "own"
    loop.close()


# Task factories.


def factory_of_two(loop, coro):
    return Recorded(coro, loop=loop)


def factory_with_context(loop, coro, context=None):
    return Recorded(coro, loop=loop, context=context)


def factory_with_keywords(loop, coro, **kwargs):
    return Recorded(coro, loop=loop, **kwargs)


class Recorded(aioxide.Task):
    """A task that only a factory makes."""


@pytest.mark.parametrize("factory", [factory_of_two, factory_with_context, factory_with_keywords])
@pytest.mark.parametrize("kind", CREATE)
def test_task_factory_makes_every_task(factory, kind, loop):
    made = []

    def recording(*args, **kwargs):
        task = factory(*args, **kwargs)
        made.append(task.get_coro().__name__)
        return task

    loop.set_task_factory(recording)
    assert loop.get_task_factory() is recording

    async def main():
        assert type(aioxide.current_task()) is Recorded
        await CREATE[kind](loop)

    loop.run_until_complete(main())
    assert made == ["main", "value_of"]


@pytest.mark.parametrize("factory", [factory_with_context, factory_with_keywords])
def test_task_factory_gets_the_context(factory, loop):
    variable = contextvars.ContextVar("variable")
    context = contextvars.copy_context()
    context.run(variable.set, "given")

    async def read():
        return variable.get()

    loop.set_task_factory(factory)
    assert loop.run_until_complete(loop.create_task(read(), context=context)) == "given"


@pytest.mark.parametrize("create", ["loop.create_task", "create_task", "TaskGroup"])
def test_task_made_by_a_factory_gets_its_name(create, loop):
    loop.set_task_factory(factory_with_keywords)

    async def main():
        if create == "TaskGroup":
            async with aioxide.TaskGroup() as group:
                return group.create_task(value_of(1), name="given")
        make = loop.create_task if create == "loop.create_task" else aioxide.create_task
        task = make(value_of(1), name="given")
        await task
        return task

    task = loop.run_until_complete(main())
    assert (type(task), task.get_name()) == (Recorded, "given")


def test_task_factory_may_make_stdlib_tasks(loop):
    """What Sentry does: every task is the stdlib's then."""
    loop.set_task_factory(lambda loop, coro, **kwargs: asyncio.tasks._CTask(coro, loop=loop, **kwargs))

    async def main():
        assert type(asyncio.current_task()) is asyncio.tasks._CTask
        lock, queue = aioxide.Lock(), aioxide.Queue(1)
        async with aioxide.timeout(60), aioxide.TaskGroup() as group:
            for number in range(3):
                group.create_task(queue.put(number))
            async with lock:
                waiting = group.create_task(lock.acquire())
                got = [await queue.get() for _ in range(3)]
        assert waiting.result() is True
        return got, await aioxide.gather(value_of(1), aioxide.wait_for(value_of(2), 60))

    assert loop.run_until_complete(main()) == ([0, 1, 2], [1, 2])


def test_a_refused_task_factory_changes_nothing(loop):
    with pytest.raises(TypeError):
        loop.set_task_factory(1)
    assert loop.get_task_factory() is None
    assert loop.run_until_complete(value_of(1)) == 1


@pytest.mark.parametrize("when", [0.1 + 0.2, 0.3, 1e-9, 1.1, 12345.678901234567, 2.0**40 + 0.3])
def test_clock_that_jumps_to_the_deadline(when):
    """A virtual clock moves to exactly the time of the next timer: that is when it fires."""

    class Virtual(aioxide.Loop):
        now = 0.0

        def time(self):
            return self.now

    loop = Virtual()
    fired = []

    def jump():
        loop.now = when
        # If the timer does not fire in this turn, it never will.
        loop.call_soon(loop.call_soon, loop.stop)

    loop.call_at(when, fired.append, when)
    loop.call_soon(jump)
    loop.run_forever()
    loop.close()
    assert fired == [when]

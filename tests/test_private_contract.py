"""Private attributes and habits that libraries rely on.

Each test runs with the stdlib too: what it demands holds there, on every version.
"""

import asyncio
import contextvars
import gc
import inspect
import os
import signal
import sys
import threading
import weakref

import pytest
from waiting import until

import aioxide


@pytest.fixture(params=[asyncio, aioxide], ids=["stdlib", "aioxide"])
def aio(request):
    """The namespace under test."""
    return request.param


@pytest.fixture
def loop(aio):
    """A loop of the namespace."""
    loop = asyncio.SelectorEventLoop() if aio is asyncio else aioxide.new_event_loop()
    yield loop
    loop.run_until_complete(loop.shutdown_default_executor())
    loop.close()


def turn(loop, times=1):
    """Lets everything that is ready run."""
    for _ in range(times):
        loop.call_soon(loop.stop)
        loop.run_forever()


def cancel(loop, *tasks):
    """Ends tasks without a report."""
    for task in tasks:
        task.cancel()
    while not all(task.done() for task in tasks):
        turn(loop)


async def parked(future):
    return await future


async def noop():
    pass


WAITS = {
    "future": lambda aio, loop: parked(loop.create_future()),
    "task": lambda aio, loop: parked(loop.create_task(aio.sleep(3600))),
    "sleep": lambda aio, loop: parked(aio.sleep(3600)),
    "Lock.acquire": lambda aio, loop: twice(aio.Lock().acquire),
    "Semaphore.acquire": lambda aio, loop: parked(aio.Semaphore(0).acquire()),
    "Event.wait": lambda aio, loop: parked(aio.Event().wait()),
    "Condition.wait": lambda aio, loop: wait_on(aio.Condition()),
    "Barrier.wait": lambda aio, loop: parked(aio.Barrier(2).wait()),
    "Queue.get": lambda aio, loop: parked(aio.Queue().get()),
    "Queue.put": lambda aio, loop: twice(lambda queue=aio.Queue(1): queue.put(1)),
    "Queue.join": lambda aio, loop: join(aio.Queue()),
    "gather": lambda aio, loop: parked(gathered(aio, loop)),
    "shield": lambda aio, loop: parked(shielded(aio, loop)),
    "wait": lambda aio, loop: parked(aio.wait([loop.create_future()])),
    "wait_for": lambda aio, loop: parked(aio.wait_for(loop.create_future(), 3600)),
    "TaskGroup": lambda aio, loop: in_a_group(aio),
}
"""What a task can wait for, as a coroutine."""


async def twice(call):
    await call()
    await call()


async def wait_on(condition):
    async with condition:
        await condition.wait()


async def join(queue):
    queue.put_nowait(1)
    await queue.join()


async def gathered(aio, loop):
    await aio.gather(loop.create_future())


async def shielded(aio, loop):
    await aio.shield(loop.create_future())


async def in_a_group(aio):
    async with aio.TaskGroup() as group:
        group.create_task(aio.sleep(3600))


# Tasks and what they wait for.


@pytest.mark.parametrize("wait", WAITS)
def test_fut_waiter(wait, aio, loop):
    """anyio asks what a task waits for before it cancels it."""
    task = loop.create_task(WAITS[wait](aio, loop))
    assert task._fut_waiter is None
    turn(loop, 2)
    waiter = task._fut_waiter
    assert isinstance(waiter, asyncio.Future)
    assert (waiter.done(), waiter.cancelled()) == (False, False)
    assert task._must_cancel is False
    cancel(loop, *aio.all_tasks(loop))
    assert task._fut_waiter is None
    assert task.cancelled()
    assert waiter.done()


def test_must_cancel(aio, loop):
    """anyio reads _must_cancel of a task that has been cancelled before it waits."""
    task = loop.create_task(noop())
    assert task._must_cancel is False
    task.cancel()
    assert task._must_cancel is True
    turn(loop)
    assert (task._must_cancel, task.cancelled()) == (False, True)


def test_root_task(aio, loop):
    """anyio finds the task of run_until_complete by a done callback that is asyncio's own."""

    async def main():
        callbacks = asyncio.current_task()._callbacks
        return [callback for callback, context in callbacks if isinstance(context, contextvars.Context)]

    assert loop.run_until_complete(main()) == [asyncio.base_events._run_until_complete_cb]


@pytest.mark.parametrize("wait", WAITS)
def test_state_of_the_coroutine(wait, aio, loop):
    """anyio asks inspect whether a task has started."""
    task = loop.create_task(WAITS[wait](aio, loop))
    coro = task.get_coro()
    assert inspect.getcoroutinestate(coro) == inspect.CORO_CREATED
    turn(loop, 2)
    assert inspect.getcoroutinestate(coro) == inspect.CORO_SUSPENDED
    cancel(loop, *aio.all_tasks(loop))
    assert inspect.getcoroutinestate(coro) == inspect.CORO_CLOSED


LIBRARY = {
    "sleep": lambda aio: aio.sleep(3600),
    "Event.wait": lambda aio: aio.Event().wait(),
    "Queue.get": lambda aio: aio.Queue().get(),
    "Semaphore.acquire": lambda aio: aio.Semaphore(0).acquire(),
    "Barrier.wait": lambda aio: aio.Barrier(2).wait(),
}


@pytest.mark.parametrize("name", LIBRARY)
def test_state_of_the_librarys_own_coroutine(name, aio, loop):
    """anyio, debuggers and tracers look at a task whose body is a coroutine of asyncio itself."""
    coro = LIBRARY[name](aio)
    assert asyncio.iscoroutine(coro)
    assert inspect.isawaitable(coro)
    assert (coro.__name__, coro.__qualname__) == (name.partition(".")[2] or name, name)
    assert inspect.getcoroutinestate(coro) == inspect.CORO_CREATED
    for attribute in ("cr_frame", "cr_code", "cr_await", "cr_running", "cr_origin"):
        getattr(coro, attribute)
    task = loop.create_task(coro)
    turn(loop)
    assert inspect.getcoroutinestate(coro) == inspect.CORO_SUSPENDED
    assert task.get_coro() is coro
    cancel(loop, task)
    assert inspect.getcoroutinestate(coro) == inspect.CORO_CLOSED


@pytest.mark.parametrize("wait", WAITS)
def test_cancel_message(wait, aio, loop):
    """anyio knows its own cancellations by their message."""
    seen = []

    async def main():
        try:
            await WAITS[wait](aio, loop)
        except asyncio.CancelledError as error:
            seen.append(error.args)
            raise

    task = loop.create_task(main())
    turn(loop, 3)
    task.cancel("Cancelled via cancel scope 7f")
    while not task.done():
        turn(loop)
    assert seen == [("Cancelled via cancel scope 7f",)]
    with pytest.raises(asyncio.CancelledError, match="scope 7f"):
        task.result()
    cancel(loop, *aio.all_tasks(loop))


def test_cancel_message_of_a_future(aio, loop):
    """qasync and anyio read the message where it is kept."""
    future = loop.create_future()
    assert future._cancel_message is None
    future.cancel("why")
    assert future._cancel_message == "why"
    error = future._make_cancelled_error()
    assert (type(error), error.args) == (asyncio.CancelledError, ("why",))


def test_cancelling_counts(aio, loop):
    """anyio, TaskGroup and timeout balance cancel() with uncancel(); several make one CancelledError."""
    seen = []

    async def main():
        task = asyncio.current_task()
        try:
            await loop.create_future()
        except asyncio.CancelledError as error:
            seen.append((error.args, task.cancelling()))
        assert [task.uncancel() for _ in range(4)] == [2, 1, 0, 0]
        await aio.sleep(0)
        return task.cancelling()

    task = loop.create_task(main())
    turn(loop)
    for message in ("first", "second", "third"):
        task.cancel(message)
    assert loop.run_until_complete(task) == 0
    assert len(seen) == 1
    assert seen[0][1] == 3


def test_tasks_take_attributes(aio, loop):
    """Playwright keeps the caller's frame on the task."""
    task = loop.create_task(noop())
    task.__pw_caller_frame__ = "frame"
    loop.run_until_complete(task)
    assert task.__pw_caller_frame__ == "frame"


@pytest.mark.parametrize("kind", ["task", "future", "loop"])
def test_weak_references(kind, aio, loop):
    """anyio keeps tasks and loops as keys of a WeakKeyDictionary."""
    if kind == "task":
        thing = loop.create_task(noop())
        loop.run_until_complete(thing)
    else:
        thing = loop.create_future() if kind == "future" else loop
    table = weakref.WeakKeyDictionary({thing: "value"})
    gone = []
    reference = weakref.ref(thing, gone.append)
    assert table[thing] == "value"
    assert reference() is thing
    if kind != "loop":
        del thing
        gc.collect()
        assert (reference(), len(table), len(gone)) == (None, 0, 1)


def test_loop_takes_attributes(aio, loop):
    """Sentry marks loops that it has patched."""
    loop._sentry_instrumented = True
    assert loop._sentry_instrumented is True


@pytest.mark.parametrize("name", ["call_soon", "call_later", "call_at", "call_soon_threadsafe", "time"])
def test_loop_methods_can_be_assigned_and_restored(name, aio, loop):
    """aiocop, frontrun and test suites patch methods of the loop object."""
    original = getattr(loop, name)
    calls = []

    def patched(*args, **kwargs):
        calls.append(name)
        return original(*args, **kwargs)

    setattr(loop, name, patched)
    assert getattr(loop, name) is patched
    use = {
        "call_soon": lambda: loop.call_soon(int),
        "call_later": lambda: loop.call_later(0, int),
        "call_at": lambda: loop.call_later(0, int),
        "call_soon_threadsafe": lambda: loop.call_soon_threadsafe(int),
        "time": lambda: loop.call_later(0, int),
    }
    use[name]()
    assert calls
    delattr(loop, name)
    before = len(calls)
    use[name]()
    assert len(calls) == before


def test_close_can_be_assigned(aio, loop):
    """aiohttp's and frontrun's test helpers keep a loop open by replacing close()."""
    calls = []
    loop.close = lambda: calls.append("close")
    loop.close()
    assert (calls, loop.is_closed()) == (["close"], False)
    del loop.close
    loop.run_until_complete(noop())


def test_handle_attributes(aio, loop):
    """ddtrace, aiodebug and Playwright read and wrap Handle._run."""
    seen = []
    handle = loop.call_soon(seen.append, 1)
    assert (handle._callback.__name__, tuple(handle._args), handle._cancelled) == ("append", (1,), False)
    assert handle._loop is loop
    assert handle._source_traceback is None
    handle._run()
    assert seen == [1]
    turn(loop)
    assert seen == [1, 1]
    cancelled = loop.call_soon(seen.append, 2)
    cancelled.cancel()
    assert (cancelled._cancelled, cancelled._callback, cancelled._args) == (True, None, None)
    turn(loop)
    assert seen == [1, 1]


def test_timer_handle_attributes(aio, loop):
    """Virtual clocks read when a timer is due and whether it is in the loop's list."""
    handle = loop.call_at(loop.time() + 3600, int)
    assert handle._when == handle.when()
    assert handle._scheduled is True
    handle.cancel()
    assert handle._cancelled is True


def test_handle_source_traceback(aio, loop):
    """aiodebug tells where a slow callback was scheduled."""
    loop.set_debug(True)
    handle = loop.call_soon(int)
    assert handle._source_traceback[-1].filename == __file__
    turn(loop)


@pytest.mark.parametrize("kind", ["future", "task"])
def test_source_traceback_can_be_shortened(kind, aio, loop):
    """Sentry removes its own frame from the end of the list."""
    loop.set_debug(True)
    thing = aio.Future(loop=loop) if kind == "future" else loop.create_task(noop())
    length = len(thing._source_traceback)
    assert thing._source_traceback[-1].name == "test_source_traceback_can_be_shortened"
    del thing._source_traceback[-1]
    assert len(thing._source_traceback) == length - 1
    turn(loop)


def test_no_source_traceback_without_debug(aio, loop):
    """Sentry tests for None."""
    assert aio.Future(loop=loop)._source_traceback is None


def test_task_factory_that_makes_asyncio_tasks(aio, loop):
    """Sentry and aiomonitor chain the factory, or make the stdlib's task."""
    previous = loop.get_task_factory()
    assert previous is None
    made = []

    def factory(loop, coro, **kwargs):
        task = asyncio.Task(coro, loop=loop, **kwargs)
        made.append(task)
        return task

    loop.set_task_factory(factory)

    async def main():
        return await asyncio.gather(aio.create_task(parked(aio.sleep(0, 1))), asyncio.create_task(aio.sleep(0, 2)))

    assert loop.run_until_complete(main()) == [1, 2]
    assert len(made) == 3


# Running coroutines without a task.


class Driver:
    """Drives a coroutine as granian and temporalio do: it is registered as if it were a task."""

    def __init__(self, loop, coro):
        self.loop, self.coro, self.finished = loop, coro, False
        asyncio.tasks._register_task(self)
        loop.call_soon(self.step)

    def done(self):
        return self.finished

    def get_loop(self):
        return self.loop

    def step(self, _=None):
        asyncio.tasks._enter_task(self.loop, self)
        try:
            future = self.coro.send(None)
        except StopIteration as end:
            self.finished = True
            self.result = end.value
            asyncio.tasks._unregister_task(self)
            self.loop.stop()
        else:
            if future is None:
                self.loop.call_soon(self.step)
            else:
                future._asyncio_future_blocking = False
                future.add_done_callback(self.step)
        finally:
            asyncio.tasks._leave_task(self.loop, self)


def test_coroutine_driven_by_hand(aio, loop):
    """granian drives coroutines itself, with _register_task, _enter_task and _leave_task."""

    async def main():
        seen.append((asyncio.current_task(), aio.current_task(), driver in aio.all_tasks(loop)))
        await aio.sleep(0)
        future = loop.create_future()
        loop.call_soon(future.set_result, 1)
        result = await future + await loop.create_task(parked(aio.sleep(0, 2)))
        event = aio.Event()
        loop.call_soon(event.set)
        await event.wait()
        await aio.sleep(0.001)
        seen.append((asyncio.current_task(), aio.current_task(), driver in aio.all_tasks(loop)))
        return result

    seen = []
    driver = Driver(loop, main())
    loop.run_forever()
    assert driver.result == 3
    assert seen == [(driver, driver, True)] * 2
    assert driver not in aio.all_tasks(loop)


@pytest.mark.skipif(sys.version_info < (3, 12), reason="from 3.12")
def test_swap_current_task(aio, loop):
    """Playwright and nest_asyncio2 take the current task away for a while."""

    async def main():
        task = aio.current_task()
        assert asyncio.tasks._swap_current_task(loop, None) is task
        assert aio.current_task() is asyncio.current_task() is None
        assert asyncio.tasks._swap_current_task(loop, task) is None
        await aio.sleep(0)
        return aio.current_task() is task

    assert loop.run_until_complete(main())


def test_running_loop_set_by_hand(aio, loop):
    """temporalio, qasync and trio-asyncio set the running loop themselves."""
    asyncio._set_running_loop(loop)
    try:
        assert aio.get_running_loop() is aio.get_event_loop() is aio._get_running_loop() is loop
        assert aio.Future().get_loop() is loop
    finally:
        asyncio._set_running_loop(None)
    with pytest.raises(RuntimeError):
        aio.get_running_loop()


@pytest.mark.skipif(sys.version_info < (3, 14), reason="from 3.14")
def test_awaited_by(aio, loop):
    """The call graph of asyncio walks from a future to the tasks that await it."""
    future = loop.create_future()
    inner = loop.create_task(parked(future))
    outer = loop.create_task(parked(inner))
    group = loop.create_task(gathered_of(aio, inner))
    turn(loop, 2)
    assert future._asyncio_awaited_by == {inner}
    assert outer in inner._asyncio_awaited_by
    assert len(inner._asyncio_awaited_by) == 2
    asyncio.future_add_to_awaited_by(future, outer)
    assert future._asyncio_awaited_by == {inner, outer}
    asyncio.future_discard_from_awaited_by(future, outer)
    assert future._asyncio_awaited_by == {inner}
    graph = asyncio.capture_call_graph(future)
    assert [call.future for call in graph.awaited_by] == [inner]
    future.set_result(1)
    loop.run_until_complete(aio.gather(outer, group))
    assert not future._asyncio_awaited_by
    assert not inner._asyncio_awaited_by


async def gathered_of(aio, task):
    await aio.gather(task)


def test_future_blocking_flag(aio, loop):
    """Foreign schedulers (granian, tornado's tests) keep the protocol of __await__ by this attribute."""
    future = loop.create_future()
    assert type(future)._asyncio_future_blocking is not None
    assert future._asyncio_future_blocking is False
    steps = future.__await__()
    assert next(steps) is future
    assert future._asyncio_future_blocking is True
    future._asyncio_future_blocking = False
    assert future._asyncio_future_blocking is False
    future.set_result(42)
    with pytest.raises(StopIteration) as end:
        next(steps)
    assert end.value.value == 42


# Private state.


def test_future_state(aio, loop):
    """tornado, distributed and asynctest read the state of futures."""
    pending, done, failed, cancelled = (loop.create_future() for _ in range(4))
    done.set_result(42)
    failed.set_exception(ValueError("text"))
    cancelled.cancel()
    assert [each._state for each in (pending, done, failed, cancelled)] == [
        "PENDING", "FINISHED", "FINISHED", "CANCELLED",
    ]  # fmt: skip
    assert (pending._result, pending._exception, pending._loop) == (None, None, loop)
    assert (done._result, done._exception) == (42, None)
    assert (type(failed._exception), failed._result) == (ValueError, None)
    assert (failed._log_traceback, done._log_traceback) == (True, False)
    failed._log_traceback = False
    assert failed._log_traceback is False


def test_future_callbacks(aio, loop):
    """anyio and debuggers read _callbacks: None, or a list of pairs."""
    future = loop.create_future()
    assert not future._callbacks
    context = contextvars.copy_context()

    def first(_):
        pass

    def second(_):
        pass

    future.add_done_callback(first, context=context)
    assert future._callbacks == [(first, context)]
    future.add_done_callback(second)
    assert [callback for callback, _ in future._callbacks] == [first, second]
    assert future.remove_done_callback(first) == 1
    assert [callback for callback, _ in future._callbacks] == [second]
    future.set_result(None)
    assert not future._callbacks
    turn(loop)


@pytest.mark.parametrize("combinator", ["gather", "shield"])
def test_callbacks_of_a_combinator(combinator, aio, loop):
    """anyio looks through the callbacks of the futures that gather and shield make."""

    async def main():
        outer = getattr(aio, combinator)(loop.create_future())
        before = len(outer._callbacks or ())
        outer.add_done_callback(print)
        assert outer._callbacks[-1][0] is print
        assert len(outer._callbacks) == before + 1
        outer.remove_done_callback(print)
        outer.cancel()
        await aio.gather(outer, return_exceptions=True)

    loop.run_until_complete(main())


def test_task_attributes(aio, loop):
    """debugpy, aiomonitor and CPython's own tests read and set these."""
    coro = parked(loop.create_future())
    task = loop.create_task(coro)
    assert task._coro is coro
    assert task._loop is loop
    assert task._log_destroy_pending is True
    task._log_destroy_pending = False
    assert task._log_destroy_pending is False
    cancel(loop, task)


def test_pending_task_can_be_dropped_in_silence(aio, loop):
    """CPython's tests and aiohttp set _log_destroy_pending to False before they let a task go."""
    reports = []
    loop.set_exception_handler(lambda loop, context: reports.append(context["message"]))
    for silent in (True, False):
        task = loop.create_task(parked(loop.create_future()))
        turn(loop)
        task._log_destroy_pending = not silent
        del task
        gc.collect()
    assert reports == ["Task was destroyed but it is pending!"]


@pytest.mark.parametrize("make", ["create_future", "Future", "create_task"])
def test_attributes_die_with_the_future(make, aio, loop):
    """Instrumentation sets attributes on futures and tasks; the next future must not have them."""
    makers = {
        "create_future": loop.create_future,
        "Future": lambda: aio.Future(loop=loop),
        "create_task": lambda: loop.create_task(noop()),
    }
    for _ in range(3):
        future = makers[make]()
        assert not hasattr(future, "span")
        future.span = aio.Lock()
        span = weakref.ref(future.span)
        if make == "create_task":
            loop.run_until_complete(future)
        del future
        gc.collect()
        assert span() is None


def test_lock_state(aio, loop):
    """asyncio-throttle, aiocache and redis read the waiters of locks."""

    async def main():
        lock = aio.Lock()
        assert (lock._locked, len(lock._waiters or ())) == (False, 0)
        await lock.acquire()
        waiter = loop.create_task(lock.acquire())
        await aio.sleep(0)
        assert (lock._locked, len(lock._waiters)) == (True, 1)
        assert [each.done() for each in lock._waiters] == [False]
        assert lock._get_loop() is lock._loop is loop
        lock.release()
        await waiter
        assert len(lock._waiters) == 0

    loop.run_until_complete(main())


def test_event_state(aio, loop):
    """aiormq and asynctest read these."""

    async def main():
        event = aio.Event()
        assert (event._value, len(event._waiters)) == (False, 0)
        waiter = loop.create_task(event.wait())
        await aio.sleep(0)
        assert len(event._waiters) == 1
        event.set()
        assert event._value is True
        await waiter
        assert len(event._waiters) == 0

    loop.run_until_complete(main())


def test_semaphore_state(aio, loop):
    """aiolimiter, discord.py and aiohttp-retry read the value, and set it."""

    async def main():
        semaphore = aio.Semaphore(2)
        assert (semaphore._value, len(semaphore._waiters or ())) == (2, 0)
        await semaphore.acquire()
        assert semaphore._value == 1
        semaphore._value = 0
        assert semaphore.locked()
        waiter = loop.create_task(semaphore.acquire())
        await aio.sleep(0)
        assert len(semaphore._waiters) == 1
        semaphore.release()
        await waiter
        assert semaphore._value == 0

    loop.run_until_complete(main())


def test_condition_state(aio, loop):
    """aiomisc and asynctest reach for the lock and the waiters."""

    async def main():
        lock = aio.Lock()
        condition = aio.Condition(lock)
        assert condition._lock is lock
        waiter = loop.create_task(wait_on(condition))
        await aio.sleep(0)
        assert len(condition._waiters) == 1
        async with condition:
            assert lock.locked()
            condition.notify()
        await waiter
        assert len(condition._waiters) == 0

    loop.run_until_complete(main())


def test_barrier_state(aio, loop):
    """CPython's tests read the count."""

    async def main():
        barrier = aio.Barrier(2)
        waiter = loop.create_task(barrier.wait())
        await aio.sleep(0)
        assert barrier._count == barrier.n_waiting == 1
        await barrier.wait()
        await waiter
        assert barrier._count == 0

    loop.run_until_complete(main())


def test_queue_state(aio, loop):
    """aiokafka, janus and faststream read the inner queue and the waiters."""

    async def main():
        queue = aio.Queue(1)
        assert (queue._maxsize, queue._unfinished_tasks, len(queue._queue)) == (1, 0, 0)
        assert queue._finished.is_set()
        getter = loop.create_task(queue.get())
        await aio.sleep(0)
        assert (len(queue._getters), len(queue._putters)) == (1, 0)
        queue.put_nowait("one")
        await getter
        queue.put_nowait("two")
        assert list(queue._queue) == ["two"]
        assert queue._unfinished_tasks == 2
        assert not queue._finished.is_set()
        putter = loop.create_task(queue.put("three"))
        await aio.sleep(0)
        assert (len(queue._getters), len(queue._putters)) == (0, 1)
        assert queue._format() in repr(queue)
        queue.get_nowait()
        await putter

    loop.run_until_complete(main())


@pytest.mark.skipif(sys.version_info < (3, 13), reason="from 3.13")
def test_queue_shutdown_state(aio, loop):
    """janus follows asyncio's shutdown."""
    queue = aio.Queue()
    assert queue._is_shutdown is False
    queue.shutdown()
    assert queue._is_shutdown is True


def test_queue_subclass_with_a_store_of_its_own(aio, loop):
    """psycopg, asyncpg and aiohttp's friends override _init, _get and _put."""

    class Unique(aio.Queue):
        def _init(self, maxsize):
            self.log = [("init", maxsize)]
            self._queue = {}

        def _put(self, item):
            self.log.append(("put", item))
            self._queue[item] = None

        def _get(self):
            item = next(reversed(self._queue))
            del self._queue[item]
            self.log.append(("get", item))
            return item

        def _format(self):
            return f"items={len(self._queue)}"

    async def main():
        queue = Unique(2)
        getter = loop.create_task(queue.get())
        await aio.sleep(0)
        for item in "abb":
            await queue.put(item)
            await aio.sleep(0)
        assert await getter == "a"
        assert (queue.qsize(), queue.full(), queue.empty()) == (1, False, False)
        assert "items=1" in repr(queue)
        queue.put_nowait("c")
        assert queue.full()
        putter = loop.create_task(queue.put("d"))
        await aio.sleep(0)
        assert not putter.done()
        assert await queue.get() == "c"
        await putter
        assert queue.log[:3] == [("init", 2), ("put", "a"), ("get", "a")]
        return [queue.get_nowait(), queue.get_nowait()]

    assert loop.run_until_complete(main()) == ["d", "b"]


def test_heap_and_stack_queues_keep_lists(aio, loop):
    """distributed and psycopg look into _queue of the two."""
    heap, stack = aio.PriorityQueue(), aio.LifoQueue()
    for item in (3, 1, 2):
        heap.put_nowait(item)
        stack.put_nowait(item)
    assert sorted(heap._queue) == [1, 2, 3]
    assert heap._queue[0] == 1
    assert list(stack._queue) == [3, 1, 2]


def test_task_group_state(aio, loop):
    """Textual and aiomonitor read the tasks of a group."""

    async def main():
        async with aio.TaskGroup() as group:
            task = group.create_task(parked(aio.sleep(0)))
            assert set(group._tasks) == {task}
        assert not group._tasks

    loop.run_until_complete(main())


def test_loop_state(aio, loop):
    """nest_asyncio2, Sentry, pytest-asyncio and anyio's runner read these."""
    assert loop._default_executor is None
    assert loop._executor_shutdown_called is False
    assert loop._thread_id is None
    assert loop._debug is False
    assert loop._exception_handler is None
    assert loop._task_factory is None
    assert len(loop._asyncgens) == 0
    loop._check_closed()
    loop._check_running()

    async def main():
        assert loop._thread_id == threading.get_ident()
        with pytest.raises(RuntimeError, match="already running"):
            loop._check_running()
        await loop.run_in_executor(None, int)

    loop.run_until_complete(main())
    assert loop._default_executor is not None
    assert loop._thread_id is None
    loop.run_until_complete(loop.shutdown_default_executor())
    assert loop._executor_shutdown_called is True


def test_closed_loop_state(aio):
    """pytest-asyncio and tornado ask a closed loop."""
    loop = asyncio.SelectorEventLoop() if aio is asyncio else aioxide.new_event_loop()
    loop.close()
    with pytest.raises(RuntimeError, match="Event loop is closed"):
        loop._check_closed()


def test_loop_settings_are_seen_in_private_attributes(aio, loop):
    """Sentry and opentelemetry save and restore them."""

    def handler(loop, context):
        pass

    def factory(loop, coro, **kwargs):
        return asyncio.Task(coro, loop=loop, **kwargs)

    loop.set_exception_handler(handler)
    loop.set_task_factory(factory)
    loop.set_debug(True)
    assert (loop._exception_handler, loop._task_factory, loop._debug) == (handler, factory, True)


def test_async_generators_are_counted(aio, loop):
    """pytest-asyncio looks at generators that a test has left open."""

    async def generator():
        yield 1
        yield 2

    async def main():
        steps = generator()
        await anext(steps)
        assert list(loop._asyncgens) == [steps]
        await steps.aclose()

    loop.run_until_complete(main())


def test_coroutine_functions_are_known(aio):
    """asgiref, Sentry and aiormq ask whether a function has to be awaited."""
    ask = inspect.iscoroutinefunction if sys.version_info >= (3, 12) else asyncio.iscoroutinefunction
    for function in (aio.sleep, aio.wait_for, aio.to_thread, aio.Lock().acquire, aio.Queue().get, aio.Event().wait):
        assert ask(function)
    for function in (aio.create_task, aio.gather, aio.shield, aio.Lock().release, aio.Queue().get_nowait):
        assert not ask(function)


def test_concurrent_futures_are_chained(aio, loop):
    """distributed and ray chain futures of threads to futures of the loop, both ways."""
    import concurrent.futures

    async def main():
        source, target = concurrent.futures.Future(), loop.create_future()
        asyncio.futures._chain_future(source, target)
        threading.Thread(target=source.set_result, args=(1,)).start()
        assert await target == 1
        source, target = loop.create_future(), concurrent.futures.Future()
        asyncio.futures._chain_future(source, target)
        source.set_exception(ValueError("text"))
        await aio.sleep(0)
        assert isinstance(target.exception(timeout=10), ValueError)
        source, target = concurrent.futures.Future(), loop.create_future()
        asyncio.futures._chain_future(source, target)
        target.cancel()
        await aio.sleep(0)
        return source.cancelled()

    assert loop.run_until_complete(main())


# Handles and classes that instrumentation wraps.


def test_handles_are_handles(aio, loop):
    """ddtrace, aiodebug and Playwright ask isinstance of Handle, and keep weak references.

    Of asyncio's own Handle native ones are instances after install() only: see test_install.py.
    """
    handles = [loop.call_soon(int), loop.call_soon_threadsafe(int), loop.call_later(0, int), loop.call_at(0, int)]
    for handle in handles:
        assert isinstance(handle, aio.Handle)
        assert weakref.ref(handle)() is handle
    assert [isinstance(handle, aio.TimerHandle) for handle in handles] == [False, False, True, True]
    assert issubclass(aio.TimerHandle, aio.Handle)
    turn(loop, 2)


def test_run_of_a_handle_can_be_wrapped(aio, loop, monkeypatch):
    """ddtrace and aiodebug put a function of their own in the place of Handle._run."""
    original = aio.Handle._run
    seen = []

    def _run(self):
        seen.append(self)
        return original(self)

    monkeypatch.setattr(aio.Handle, "_run", _run)
    calls = []
    handle = loop.call_soon(calls.append, 1)
    handle._run()
    assert (seen, calls) == ([handle], [1])
    handle.cancel()
    turn(loop)


@pytest.mark.parametrize("where", ["class", "base"])
def test_create_task_of_the_class_can_be_wrapped(where, aio, loop):
    """ddtrace and New Relic wrap create_task of the loop's class, or of the base that defines it."""
    kind = type(loop)
    if where == "base":
        kind = next(base for base in kind.__mro__ if "create_task" in vars(base))
    original = kind.create_task
    made = []

    def create_task(self, coro, **kwargs):
        made.append(coro.__name__)
        return original(self, coro, **kwargs)

    async def main():
        await aio.create_task(noop())
        async with aio.TaskGroup() as group:
            group.create_task(noop())
        await aio.gather(noop(), noop())

    kind.create_task = create_task
    try:
        loop.run_until_complete(main())
    finally:
        if where == "base":
            kind.create_task = original
        else:
            del kind.create_task
    assert made == ["main", "noop", "noop", "noop", "noop"]
    made.clear()
    loop.run_until_complete(main())
    assert made == []


@pytest.mark.parametrize("name", ["create_task", "create_future", "call_soon"])
def test_methods_of_a_subclass_are_called(name, aio):
    """trio-asyncio, qasync and looptime override methods in a class derived from the loop's."""
    base = asyncio.SelectorEventLoop if aio is asyncio else aioxide.Loop
    calls = []

    def override(self, *args, **kwargs):
        calls.append(name)
        return getattr(super(derived, self), name)(*args, **kwargs)

    derived = type("Derived", (base,), {name: override})
    loop = derived()

    async def main():
        await aio.create_task(aio.sleep(0))
        await aio.wait_for(aio.Event().wait(), 0.001)

    with pytest.raises(TimeoutError):
        loop.run_until_complete(main())
    assert calls
    loop.close()


def test_functions_of_asyncio_can_be_wrapped(aio, loop, monkeypatch):
    """ddtrace's profiler and opentelemetry wrap gather, wait, shield, as_completed and TaskGroup.create_task."""
    calls = []

    def wrapped(owner, name):
        original = getattr(owner, name)

        def wrapper(*args, **kwargs):
            calls.append(name)
            return original(*args, **kwargs)

        monkeypatch.setattr(owner, name, wrapper)

    for name in ("gather", "wait", "shield", "as_completed", "create_task"):
        wrapped(aio, name)
    wrapped(aio.TaskGroup, "create_task")

    async def main():
        await aio.gather(noop())
        await aio.wait([aio.create_task(noop())])
        await aio.shield(noop())
        for each in aio.as_completed([noop()]):
            await each
        async with aio.TaskGroup() as group:
            group.create_task(noop())

    loop.run_until_complete(main())
    assert calls == ["gather", "create_task", "wait", "shield", "as_completed", "create_task"]


def test_gathering_futures_have_a_class_of_their_own(aio, loop):
    """ddtrace's profiler wraps _GatheringFuture.__init__ of asyncio.tasks, and asks isinstance."""

    async def main():
        outer = aio.gather(loop.create_future(), loop.create_future())
        kind = type(outer)
        outer.cancel()
        await aio.gather(outer, return_exceptions=True)
        return kind

    kind = loop.run_until_complete(main())
    assert kind.__name__ == "_GatheringFuture"
    assert issubclass(kind, asyncio.Future)


@pytest.mark.skipif(sys.version_info < (3, 12), reason="from 3.12")
def test_registry_of_tasks_is_there(aio, loop):
    """ddtrace's profiler reads the registry of tasks: what it finds there are real asyncio tasks."""

    async def main():
        return [type(task) for task in list(asyncio.tasks._scheduled_tasks)], asyncio.all_tasks()

    kinds, tasks = loop.run_until_complete(main())
    assert all(issubclass(kind, asyncio.Task) for kind in kinds)
    assert len(tasks) == 1


def test_current_task_is_known_to_asyncio(aio, loop):
    """sniffio asks asyncio.current_task(), anyio and httpcore asyncio.get_running_loop(), whatever made the loop."""

    async def main():
        task = asyncio.current_task()
        assert task is aio.current_task()
        assert asyncio.get_running_loop() is asyncio._get_running_loop() is loop
        await aio.sleep(0)
        assert asyncio.current_task() is task
        return task, asyncio.current_task(loop)

    task, same = loop.run_until_complete(main())
    assert task is same
    assert isinstance(task, asyncio.Task)
    assert asyncio._get_running_loop() is None


def test_tasks_of_the_stdlib_run_on_the_loop(aio, loop):
    """aiohttp makes asyncio.Task objects itself, and starts them eagerly where it can."""

    async def main():
        keywords = {"eager_start": True} if sys.version_info >= (3, 12) else {}
        task = asyncio.Task(parked(aio.sleep(0, 42)), loop=loop, **keywords)
        assert task in asyncio.all_tasks()
        assert await task == 42
        done = asyncio.Task(noop(), loop=loop, **keywords)
        assert done.done() == bool(keywords)
        await done

    loop.run_until_complete(main())


@pytest.mark.skipif(sys.version_info < (3, 12), reason="from 3.12")
def test_eager_factory_of_asyncio(aio, loop):
    """Textual sets asyncio.eager_task_factory."""
    loop.set_task_factory(asyncio.eager_task_factory)

    async def main():
        assert aio.create_task(noop()).done()
        async with aio.TaskGroup() as group:
            assert group.create_task(noop()).done()
        return await aio.gather(aio.sleep(0, 1), parked(aio.sleep(0, 2)))

    assert loop.run_until_complete(main()) == [1, 2]


def test_chain_of_causes_of_a_cancellation(aio, loop):
    """anyio walks __context__ from a CancelledError to its own."""

    async def main():
        try:
            await loop.create_future()
        except asyncio.CancelledError as first:
            try:
                await aio.sleep(0)
                raise ValueError
            except ValueError as error:
                assert error.__context__ is first
                asyncio.current_task().cancel("second")
                try:
                    await aio.sleep(0)
                except asyncio.CancelledError as second:
                    seen.append((first.args, second.args, second.__context__ is error))

    seen = []
    task = loop.create_task(main())
    turn(loop)
    task.cancel("first")
    loop.run_until_complete(task)
    assert seen == [(("first",), ("second",), True)]


def test_nest_asyncio_finds_no_insides(aio, loop):
    """nest_asyncio and aiotools' clock want BaseEventLoop, and say so, before they reach for _run_once or _ready."""
    if aio is asyncio:
        assert isinstance(loop, asyncio.BaseEventLoop)
        assert all(hasattr(loop, name) for name in ("_ready", "_scheduled", "_selector", "_run_once"))
    else:
        assert isinstance(loop, asyncio.AbstractEventLoop)
        assert not isinstance(loop, asyncio.BaseEventLoop)
        assert not any(hasattr(loop, name) for name in ("_ready", "_scheduled", "_run_once"))


# Streams, transports and servers.


class Echo(asyncio.Protocol):
    """Keeps its transport."""

    def connection_made(self, transport):
        self.transport = transport


async def connected(aio, loop, accepted):
    """A server of streams, and the two ends of a connection to it."""
    ready = loop.create_future()
    server = await aio.start_server(lambda reader, writer: ready.set_result((reader, writer)), "127.0.0.1", 0)
    address = server.sockets[0].getsockname()
    client = await aio.open_connection(*address)
    accepted.extend([server, client, await ready])


def test_state_of_streams(aio, loop):
    """redis-py, aiosmtpd and aiomysql read _buffer and _eof of readers, _transport and _protocol of writers."""

    async def main():
        parts = []
        await connected(aio, loop, parts)
        server, (reader, writer), (_, other) = parts
        assert (type(reader._buffer), bytes(reader._buffer)) == (bytearray, b"")
        assert (reader._eof, reader._exception, reader._waiter, reader._paused) == (False, None, None, False)
        assert (reader._loop, writer._loop) == (loop, loop)
        assert reader._limit == 2**16
        assert reader._transport is writer._transport is writer.transport
        assert writer._reader is reader
        protocol = writer._protocol
        assert isinstance(protocol, aio.StreamReaderProtocol)
        assert isinstance(protocol, asyncio.Protocol)
        assert protocol._stream_reader is reader
        assert protocol._loop is loop
        assert protocol._over_ssl is False
        assert protocol._transport is writer._transport
        task = loop.create_task(reader.readexactly(6))
        await aio.sleep(0)
        assert isinstance(reader._waiter, asyncio.Future)
        other.write(b"abcdefgh")
        assert await task == b"abcdef"
        while len(reader._buffer) < 2:
            await reader._wait_for_data("test")
        assert bytes(reader._buffer) == b"gh"
        # aiosmtpd takes bytes away, redis-py puts some back.
        del reader._buffer[:1]
        reader._buffer.extend(b"ijk\n")
        assert await reader.readline() == b"hijk\n"
        other.close()
        assert await reader.read() == b""
        assert reader._eof is True
        writer.close()
        await writer.wait_closed()
        server.close()
        await server.wait_closed()

    loop.run_until_complete(main())


def test_state_of_transports(aio, loop):
    """aiohttp and MCP's SDK ask for the class; uvicorn, hypercorn and grpc for the socket; distributed for _sock."""

    async def main():
        parts = []
        await connected(aio, loop, parts)
        server, (_, writer), (_, other) = parts
        for transport in (writer.transport, other.transport):
            assert isinstance(transport, asyncio.Transport)
            assert isinstance(transport, asyncio.ReadTransport)
            assert isinstance(transport, asyncio.WriteTransport)
            sock = transport.get_extra_info("socket")
            assert isinstance(sock, asyncio.trsock.TransportSocket)
            assert sock.fileno() == transport._sock_fd == transport._sock.fileno()
            assert transport._extra["socket"] is sock
            assert transport._loop is loop
            assert transport._protocol is transport.get_protocol()
            assert transport._paused is False
            transport.pause_reading()
            assert transport._paused is True
            transport.resume_reading()
            assert transport._conn_lost == 0
            assert weakref.ref(transport)() is transport
        for each in (writer, other):
            each.close()
            await each.wait_closed()
        server.close()
        await server.wait_closed()

    loop.run_until_complete(main())


def test_class_of_other_transports(aio, loop):
    """anyio and aiohttp ask for the class of datagram and pipe transports."""
    import os
    import socket

    async def main():
        datagrams, _ = await loop.create_datagram_endpoint(asyncio.DatagramProtocol, local_addr=("127.0.0.1", 0))
        if aio is aioxide or sys.version_info >= (3, 12):
            assert isinstance(datagrams, asyncio.DatagramTransport)
        assert isinstance(datagrams.get_extra_info("socket"), asyncio.trsock.TransportSocket)
        read, write = os.pipe()
        reading, _ = await loop.connect_read_pipe(asyncio.Protocol, os.fdopen(read, "rb", 0))
        writing, _ = await loop.connect_write_pipe(asyncio.Protocol, os.fdopen(write, "wb", 0))
        assert isinstance(reading, asyncio.ReadTransport)
        assert isinstance(writing, asyncio.WriteTransport)
        assert reading._pipe.fileno() == read
        for each in (datagrams, writing, reading):
            each.close()
        one, other = socket.socketpair()
        transport, protocol = await loop.create_connection(Echo, sock=one)
        assert protocol.transport is transport
        assert isinstance(transport, asyncio.Transport)
        transport.abort()
        other.close()
        for _ in range(3):
            await aio.sleep(0)

    loop.run_until_complete(main())


def test_state_of_servers(aio, loop):
    """uvicorn, aiohttp's test tools and CPython's own tests read what a server holds."""

    async def main():
        server = await loop.create_server(asyncio.Protocol, "127.0.0.1", 0)
        assert isinstance(server, asyncio.AbstractServer)
        assert server.get_loop() is loop
        assert server.is_serving()
        assert [sock.fileno() for sock in server.sockets] == [sock.fileno() for sock in server._sockets]
        assert isinstance(server.sockets[0], asyncio.trsock.TransportSocket)
        assert server._waiters is not None
        server.close()
        await server.wait_closed()
        assert server._sockets is None
        assert tuple(server.sockets) == ()

    loop.run_until_complete(main())


def test_protocols_and_transports_are_the_stdlibs(aio):
    """Every library derives from these, and catches the exceptions: there must be one of each."""
    for name in (
        "BaseProtocol", "Protocol", "BufferedProtocol", "DatagramProtocol", "SubprocessProtocol",
        "BaseTransport", "ReadTransport", "WriteTransport", "Transport", "DatagramTransport", "SubprocessTransport",
        "CancelledError", "InvalidStateError", "TimeoutError", "IncompleteReadError", "LimitOverrunError",
        "QueueEmpty", "QueueFull", "BrokenBarrierError", "SendfileNotAvailableError",
        "AbstractEventLoop", "AbstractServer",
    ):  # fmt: skip
        assert getattr(aio, name) is getattr(asyncio, name)


def test_stages_of_run_are_those_of_asyncio(aio):
    """pytest-asyncio, anyio and IsolatedAsyncioTestCase use Runner: its loop is set for the thread, once, and unset."""
    with aio.Runner() as runner:
        loop = runner.get_loop()
        seen = [runner.run(running_loop()) for _ in range(2)]
        assert seen == [loop, loop]
        assert runner.get_loop() is loop
    assert loop.is_closed()
    with pytest.raises(RuntimeError, match="Runner is closed"):
        runner.get_loop()


async def running_loop():
    return asyncio.get_running_loop()


@pytest.mark.skipif(sys.version_info < (3, 12), reason="3.12 has eager tasks")
def test_constructor_of_an_eager_factory(aio):
    """anyio knows eager factories by their code, and has their closure's constructor make tasks that are not eager."""

    def constructor(coro, **options):
        pass

    usual, own = aio.eager_task_factory, aio.create_eager_task_factory(constructor)
    assert usual.__code__ is own.__code__
    assert usual.__closure__[0].cell_contents is aio.Task
    assert own.__closure__[0].cell_contents is constructor
    assert inspect.signature(usual) == inspect.signature(own)


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX")
def test_children_are_started_under_a_frame_of_asyncio(aio, loop, monkeypatch):
    """blockbuster looks for it, and lets what is below it block."""
    stacks = []

    def look(*args, **options):
        frame = sys._getframe()
        while frame is not None:
            stacks.append((frame.f_code.co_filename, frame.f_code.co_name))
            frame = frame.f_back
        raise ZeroDivisionError

    monkeypatch.setattr("subprocess.Popen", look)
    with pytest.raises(ZeroDivisionError):
        loop.run_until_complete(aio.create_subprocess_exec("true"))
    assert any(file.endswith("asyncio/base_events.py") and name == "subprocess_exec" for file, name in stacks)


def test_signal_handler_is_called_beside_another(loop):
    """uvicorn puts its own handler in the place of the loop's for a while, and asyncio still hears the signals."""
    seen = []
    loop.add_signal_handler(signal.SIGUSR1, seen.append, 1)

    async def main():
        loops = signal.signal(signal.SIGUSR1, lambda *args: seen.append(2))
        signal.raise_signal(signal.SIGUSR1)
        signal.signal(signal.SIGUSR1, loops)
        while len(seen) < 2:
            await asyncio.sleep(0)

    try:
        loop.run_until_complete(asyncio.wait_for(main(), 10))
    finally:
        loop.remove_signal_handler(signal.SIGUSR1)
    assert sorted(seen) == [1, 2]


def test_signal_handler_is_called_once_for_each_signal(loop):
    """Whichever way the loop hears of it first, and also after somebody else's handler had one of them."""
    seen = []
    loop.add_signal_handler(signal.SIGUSR1, seen.append, 1)

    async def main():
        for number in range(60):
            if number % 20 == 10:
                loops = signal.signal(signal.SIGUSR1, lambda *args: None)
                signal.raise_signal(signal.SIGUSR1)
                signal.signal(signal.SIGUSR1, loops)
            elif number % 2:
                loop.call_soon(signal.raise_signal, signal.SIGUSR1)
            else:
                loop.run_in_executor(None, os.kill, os.getpid(), signal.SIGUSR1)
            while len(seen) <= number:
                await asyncio.sleep(0.001 if number % 3 else 0)
            for _ in range(40):
                await asyncio.sleep(0)
            assert len(seen) == number + 1

    try:
        loop.run_until_complete(asyncio.wait_for(main(), 20))
    finally:
        loop.remove_signal_handler(signal.SIGUSR1)


def test_signal_of_the_last_turn_is_handled_once(loop):
    """Also when the loop runs again, and finds the number in its socket."""
    seen = []
    loop.add_signal_handler(signal.SIGUSR1, seen.append, 1)
    try:
        for number in range(1, 4):
            loop.call_soon(signal.raise_signal, signal.SIGUSR1)
            turn(loop)
            loop.run_until_complete(until(lambda number=number: len(seen) == number))
            # Another thread ends this wait by the same socket.
            loop.run_until_complete(loop.run_in_executor(None, int))
            turn(loop)
        assert seen == [1, 1, 1]
    finally:
        loop.remove_signal_handler(signal.SIGUSR1)


@pytest.mark.parametrize("handled", [False, True], ids=["foreign-handler", "own-handler"])
def test_descriptor_that_somebody_has_signals_written_to(request, aio, loop, handled):
    """Twisted names one before it runs the loop, and hears of its children by it."""
    if handled and aio is asyncio:
        request.applymarker(pytest.mark.xfail(strict=True, reason="asyncio takes the place of the descriptor"))
    readable, writable = os.pipe()
    os.set_blocking(readable, False)
    os.set_blocking(writable, False)
    numbers, seen = [], []
    before = signal.signal(signal.SIGUSR1, lambda *args: None)
    assert signal.set_wakeup_fd(writable) == -1
    try:
        if handled:
            loop.add_signal_handler(signal.SIGUSR1, seen.append, 1)
        loop.add_reader(readable, lambda: numbers.append(os.read(readable, 100)))
        for _ in range(3):
            loop.call_soon(signal.raise_signal, signal.SIGUSR1)
            loop.run_until_complete(until(lambda: numbers))
            assert numbers.pop() == bytes([signal.SIGUSR1])
        loop.remove_reader(readable)
        # What comes in the last turn is there when the loop has stopped.
        loop.call_soon(signal.raise_signal, signal.SIGUSR1)
        turn(loop)
        assert os.read(readable, 100) == bytes([signal.SIGUSR1])
        if handled:
            loop.run_until_complete(until(lambda: len(seen) == 4))
            loop.remove_signal_handler(signal.SIGUSR1)
        assert signal.set_wakeup_fd(-1) == writable
    finally:
        signal.set_wakeup_fd(-1)
        loop.remove_signal_handler(signal.SIGUSR1)
        signal.signal(signal.SIGUSR1, before)
        os.close(readable)
        os.close(writable)


def test_files_of_servers_are_looked_after_under_frames_of_asyncio(aio, loop, monkeypatch, tmp_path):
    """blockbuster looks for them, too."""
    found, path, stat = set(), str(tmp_path / "server"), os.stat

    def look(*args, **options):
        frame = sys._getframe()
        while frame is not None:
            if frame.f_code.co_filename.endswith("asyncio/unix_events.py"):
                found.add(frame.f_code.co_name)
            frame = frame.f_back
        return stat(*args, **options)

    async def main():
        monkeypatch.setattr("os.stat", look)
        server = await loop.create_unix_server(asyncio.Protocol, path)
        server.close()
        await server.wait_closed()
        monkeypatch.undo()

    loop.run_until_complete(main())
    expected = {"create_unix_server", "_stop_serving"} if sys.version_info >= (3, 13) else {"create_unix_server"}
    assert found >= expected

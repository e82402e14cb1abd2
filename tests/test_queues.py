"""Queues: what CPython's own suite leaves out.

Most tests run with the stdlib too. Where a version of the stdlib lacks a behaviour that every Python gets here
(`shutdown`), they run with aioxide alone.
"""

import asyncio
import collections
import copy
import decimal
import fractions
import gc
import heapq
import math
import pickle
import random
import sys
import warnings
import weakref

import pytest

import aioxide

HAS_SHUTDOWN = hasattr(asyncio.Queue, "shutdown")
KINDS = ["Queue", "PriorityQueue", "LifoQueue"]


@pytest.fixture(params=[asyncio, aioxide], ids=["stdlib", "aioxide"])
def aio(request):
    """The namespace under test."""
    return request.param


@pytest.fixture(params=[asyncio, aioxide] if HAS_SHUTDOWN else [aioxide], ids=lambda module: module.__name__)
def shutting(request):
    """A namespace whose queues can be shut down."""
    return request.param


@pytest.fixture(params=KINDS)
def kind(request):
    """The name of a class."""
    return request.param


@pytest.fixture(scope="module", autouse=True)
def small_collections():
    """Keeps what exists already out of the many collections of this module."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


def new_loop(aio):
    return asyncio.SelectorEventLoop() if aio is asyncio else aioxide.new_event_loop()


def run(aio, main):
    """Runs a coroutine on a loop of the namespace, whose tasks are of the namespace."""
    loop = new_loop(aio)
    try:
        return loop.run_until_complete(main)
    finally:
        loop.close()


async def turns(aio, count=3):
    """Lets everything that is ready run."""
    for _ in range(count):
        await aio.sleep(0)


async def outcome(task):
    """What became of a task: its result or the class of its exception."""
    try:
        return await task
    except BaseException as error:
        return type(error).__name__


# Overridden methods.

OVERRIDABLE = [
    "_init", "_get", "_put", "_format", "qsize", "empty", "full", "put_nowait", "get_nowait", "_wakeup_next",
    "_get_loop",
]  # fmt: skip


def recording(name, log):
    """A method that notes its call and does what the class it overrides does."""

    def method(self, *args):
        shown = [type(arg).__name__ if name == "_wakeup_next" else arg for arg in args]
        log.append((name, *shown))
        return getattr(super(type(self), self), name)(*args)

    return method


async def exercise(aio, queue, log):
    """All that can be done with a queue of two."""

    async def note(label, coro):
        log.append((label, await outcome(coro)))

    def attempt(call, *args):
        try:
            log.append((call.__name__, call(*args)))
        except Exception as error:
            log.append((call.__name__, type(error).__name__))

    log.append("get that waits")
    getter = aio.create_task(note("getter", queue.get()))
    await turns(aio)
    log.append("put")
    await queue.put(1)
    await getter
    log.append("nowait")
    attempt(queue.get_nowait)
    attempt(queue.put_nowait, 2)
    attempt(queue.put_nowait, 3)
    attempt(queue.put_nowait, 4)
    log.append("looks")
    attempt(queue.qsize)
    attempt(queue.full)
    attempt(queue.empty)
    log.append(repr(queue).partition(" ")[2].partition(" ")[2].partition(" ")[2])
    log.append(str(queue))
    log.append("put that waits")
    putters = [aio.create_task(note("putter", queue.put(item))) for item in (5, 6)]
    await turns(aio)
    log.append("a woken putter is cancelled")
    attempt(queue.get_nowait)
    putters[0].cancel()
    await turns(aio)
    log.append("the rest")
    await queue.get()
    await queue.get()
    log.append("a woken getter is cancelled")
    getters = [aio.create_task(note("getter", queue.get())) for _ in range(2)]
    await turns(aio)
    attempt(queue.put_nowait, 7)
    getters[0].cancel()
    await turns(aio)
    await aio.wait([*putters, *getters])
    attempt(queue.task_done)
    if HAS_SHUTDOWN:
        log.append("shutdown")
        attempt(queue.put_nowait, 8)
        queue.shutdown(immediate=True)
        attempt(queue.put_nowait, 9)
        attempt(queue.get_nowait)
        await note("get", queue.get())
        await note("put", queue.put(10))


def logs_of_overrides(kind, names, how):
    """What `exercise` logs with the stdlib and with aioxide."""
    logs = []
    for aio in (asyncio, aioxide):
        log = []

        async def main(aio=aio, log=log):
            base = getattr(aio, kind)
            if how == "class":
                queue = type("Sub", (base,), {name: recording(name, log) for name in names})(2)
            elif how == "later":
                cls = type("Sub", (base,), {})
                queue = cls(2)
                queue.put_nowait(0)
                queue.get_nowait()
                for name in names:
                    setattr(cls, name, recording(name, log))
            else:
                cls = type("Sub", (base,), {}) if how == "instance of a subclass" else base
                queue = cls(2)
                for name in names:
                    bound = getattr(queue, name)

                    def method(*args, name=name, bound=bound):
                        log.append((name, *(arg for arg in args if name != "_wakeup_next")))
                        return bound(*args)

                    method.__name__ = name
                    setattr(queue, name, method)
            await exercise(aio, queue, log)

        run(aio, main())
        logs.append(log)
    return logs


@pytest.mark.parametrize("how", ["class", "later", "instance", "instance of a subclass"])
@pytest.mark.parametrize("names", [[name] for name in OVERRIDABLE] + [OVERRIDABLE, []], ids="-".join)
def test_every_override_is_called_as_in_asyncio(kind, names, how):
    theirs, ours = logs_of_overrides(kind, names, how)
    assert ours == theirs
    if how == "class" and names and names != ["_format"]:
        assert any(entry[0] == names[0] for entry in ours if isinstance(entry, tuple))


def test_an_override_on_the_instance_can_be_taken_back(aio):
    queue = aio.Queue(1)
    queue.full = lambda: True
    with pytest.raises(aio.QueueFull):
        queue.put_nowait(1)
    del queue.full
    queue.put_nowait(1)
    assert queue.get_nowait() == 1


def test_a_method_replaced_on_the_class_itself(aio, monkeypatch):
    queue = aio.Queue()
    queue.put_nowait(1)
    monkeypatch.setattr(aio.Queue, "_get", lambda self: "patched")
    assert queue.get_nowait() == "patched"
    assert run(aio, queue.get()) == "patched"
    monkeypatch.undo()
    assert queue.get_nowait() == 1


def test_results_of_overrides_are_handed_on(aio):
    class Odd(aio.Queue):
        def put_nowait(self, item):
            return ["put", item]

        def get_nowait(self):
            return "got"

        def empty(self):
            return []

        def full(self):
            return 0

    async def main():
        queue = Odd()
        return await queue.put(1), await queue.get()

    assert run(aio, main()) == (["put", 1], "got")


def test_truth_of_overridden_empty_and_full_may_raise(aio):
    class Bad:
        def __bool__(self):
            raise KeyError("truth")

    class Odd(aio.Queue):
        def full(self):
            return Bad()

        def empty(self):
            return Bad()

    queue = Odd()
    for call in (lambda: queue.put_nowait(1), queue.get_nowait, lambda: run(aio, queue.get())):
        with pytest.raises(KeyError):
            call()


def test_an_override_that_raises_during_cleanup(aio):
    """The newer error is raised; the cancellation is its context."""

    class Odd(aio.Queue):
        broken = False

        def empty(self):
            if self.broken:
                raise KeyError("empty")
            return super().empty()

    async def main():
        queue = Odd()
        task = aio.create_task(queue.get())
        await turns(aio)
        queue.broken = True
        task.cancel()
        with pytest.raises(KeyError) as caught:
            await task
        assert isinstance(caught.value.__context__, asyncio.CancelledError)
        assert len(queue._getters) == 0

    run(aio, main())


def test_a_store_without_queue_attribute(aio):
    """A subclass may keep its items elsewhere, if it answers for them."""

    class Elsewhere(aio.Queue):
        def _init(self, maxsize):
            self.store = set()

        def _put(self, item):
            self.store.add(item)

        def _get(self):
            return self.store.pop()

        def qsize(self):
            return len(self.store)

        def empty(self):
            return not self.store

    async def main():
        queue = Elsewhere(1)
        with pytest.raises(AttributeError, match="_queue"):
            queue._queue
        await queue.put("item")
        assert queue.full()
        assert str(queue) == "<Elsewhere maxsize=1 tasks=1>"
        return await queue.get()

    assert run(aio, main()) == "item"


def test_queue_as_a_property(aio):
    class Viewed(aio.Queue):
        def _init(self, maxsize):
            self.held = collections.deque()

        @property
        def _queue(self):
            return self.held

    async def main():
        queue = Viewed(1)
        getter = aio.create_task(queue.get())
        await turns(aio)
        await queue.put(1)
        await getter
        queue.held.append(2)
        assert (queue.qsize(), queue.full(), queue.empty()) == (1, True, False)
        assert str(queue) == "<Viewed maxsize=1 _queue=[2] tasks=1>"
        return queue.get_nowait()

    assert run(aio, main()) == 2


def test_queue_as_a_settable_property(aio, kind):
    class Stored(getattr(aio, kind)):
        @property
        def _queue(self):
            return self.held

        @_queue.setter
        def _queue(self, value):
            self.held = value

    queue = Stored()
    for item in (2, 1):
        queue.put_nowait(item)
    assert len(queue.held) == 2
    assert queue.get_nowait() == (2 if kind == "Queue" else 1)


def test_maxsize_as_a_property(aio):
    class Elastic(aio.Queue):
        bound = 1

        @property
        def _maxsize(self):
            return self.bound

        @_maxsize.setter
        def _maxsize(self, value):
            self.given = value

    queue = Elastic(7)
    assert (queue.given, queue.maxsize) == (7, 1)
    queue.put_nowait(1)
    with pytest.raises(aio.QueueFull):
        queue.put_nowait(2)
    queue.bound = 2
    queue.put_nowait(2)
    assert str(queue) == "<Elastic maxsize=2 _queue=[1, 2] tasks=2>"


def test_two_kinds_at_once(aio):
    class Both(aio.LifoQueue, aio.PriorityQueue):
        pass

    queue = Both()
    for item in (2, 3, 1):
        queue.put_nowait(item)
    assert [queue.get_nowait() for _ in range(3)] == [1, 3, 2]
    assert isinstance(queue._queue, list)


def test_without_init(aio):
    class Lazy(aio.Queue):
        def __init__(self):
            pass

    queue = Lazy()
    for call in (queue.qsize, queue.empty, queue.full, queue.get_nowait, lambda: queue.put_nowait(1), queue._format):
        with pytest.raises(AttributeError):
            call()
    with pytest.raises(AttributeError):
        queue.maxsize


def test_init_again_starts_anew(aio, kind):
    queue = getattr(aio, kind)(1)
    queue.put_nowait(1)
    queue._queue
    queue.__init__(2)
    assert (queue.qsize(), queue.maxsize, queue._unfinished_tasks) == (0, 2, 0)
    queue.put_nowait(2)
    queue.put_nowait(3)
    assert queue.full()


def test_generic_subclass(aio, kind):
    cls = getattr(aio, kind)

    class Sub(cls[int]):
        pass

    assert Sub.__mro__[1] is cls
    assert repr(Sub[str]).endswith("Sub[str]")
    assert Sub(3).maxsize == 3


@pytest.mark.parametrize("looks", [False, True])
@pytest.mark.parametrize("make", [copy.copy, copy.deepcopy, lambda queue: pickle.loads(pickle.dumps(queue))])
def test_copies(aio, kind, make, looks, monkeypatch):
    cls = getattr(aio, kind)
    monkeypatch.setattr(asyncio.queues, kind, cls)
    queue = cls(3)
    queue.name = "mine"
    for item in (2, 1, 3):
        queue.put_nowait(item)
    queue.get_nowait()
    if looks:
        queue._queue, queue._getters
    twin = make(queue)
    assert (type(twin), twin.name, str(twin)) == (cls, "mine", str(queue))
    assert (twin._queue is queue._queue) == (make is copy.copy)
    assert not twin._finished.is_set()
    twin.put_nowait(0)
    assert twin.full()
    assert [twin.get_nowait() for _ in range(3)] == {"Queue": [1, 3, 0], "PriorityQueue": [0, 2, 3]}.get(
        kind, [0, 1, 2]
    )
    for _ in range(4):
        twin.task_done()
    run(aio, twin.join())
    assert copy.copy(cls())._finished.is_set()


def test_copies_of_subclasses(aio):
    class Sub(aio.LifoQueue):
        def __init__(self):
            super().__init__(2)
            self.extra = []

    twin = copy.copy(Sub())
    twin.put_nowait(1)
    twin.put_nowait(2)
    assert (twin.extra, twin.full(), twin.get_nowait()) == ([], True, 2)


def test_a_burst(aio, kind):
    queue = getattr(aio, kind)()
    for _ in range(2):
        for item in range(5000):
            queue.put_nowait(item)
        got = [queue.get_nowait() for _ in range(5000)]
        assert got == sorted(got, reverse=kind == "LifoQueue")
        assert queue.empty()


def test_attributes_of_ones_own(aio):
    queue = aio.Queue()
    queue.name = "mine"
    assert queue.__dict__ == {"name": "mine"} or queue.__dict__["name"] == "mine"
    assert weakref.ref(queue)() is queue


# The bound.

BOUNDS = [
    0, 1, 2, -1, True, False, 2.5, 2.0, 0.5, -0.5, 1e300, math.inf, -math.inf, math.nan, 2**70, -(2**70),
    decimal.Decimal(2), fractions.Fraction(3, 2), "x", None, [], 1j,
]  # fmt: skip


@pytest.mark.parametrize("bound", BOUNDS, ids=repr)
def test_any_bound(bound):
    def fill(aio):
        queue = aio.Queue(bound)
        log = [repr(queue.maxsize)]
        for item in range(4):
            for call in (queue.full, lambda item=item: queue.put_nowait(item)):
                try:
                    answer = call()
                    log.append((answer, type(answer)))
                except Exception as error:
                    log.append((type(error).__name__, str(error)))
        return [*log, str(queue)]

    assert fill(aioxide) == fill(asyncio)


def test_bound_that_compares_by_itself():
    def fill(aio):
        log = []

        class Bound:
            def __le__(self, other):
                log.append(("<=", other))
                return other == 1

            def __repr__(self):
                return "Bound()"

        queue = aio.Queue(Bound())
        queue.put_nowait(1)
        with pytest.raises(aio.QueueFull):
            queue.put_nowait(2)
        return [*log, str(queue)]

    assert fill(aioxide) == fill(asyncio)


def test_bound_can_be_changed(aio):
    async def main():
        queue = aio.Queue(1)
        await queue.put(1)
        queue._maxsize = 2
        await queue.put(2)
        assert queue.full()
        assert queue.maxsize == 2
        queue._maxsize = 0
        await queue.put(3)
        assert not queue.full()

    run(aio, main())


# Private attributes, read and changed.


def test_stores_are_real(aio):
    assert type(aio.Queue()._queue) is collections.deque
    assert type(aio.PriorityQueue()._queue) is list
    assert type(aio.LifoQueue()._queue) is list
    assert type(aio.Queue()._getters) is collections.deque
    assert type(aio.Queue()._putters) is collections.deque
    for name in ("_queue", "_getters", "_putters", "_finished"):
        queue = aio.Queue()
        assert getattr(queue, name) is getattr(queue, name)


def test_what_is_seen_is_the_truth(aio, kind):
    queue = getattr(aio, kind)()
    for item in (3, 1, 2):
        queue.put_nowait(item)
    store = queue._queue
    assert list(store) == {"Queue": [3, 1, 2], "PriorityQueue": [1, 3, 2], "LifoQueue": [3, 1, 2]}[kind]
    queue.put_nowait(4)
    assert len(store) == 4
    store.append(5)
    assert queue.qsize() == 5
    got = [queue.get_nowait() for _ in range(5)]
    assert got == {"Queue": [3, 1, 2, 4, 5], "PriorityQueue": [1, 2, 3, 4, 5], "LifoQueue": [5, 4, 2, 1, 3]}[kind]
    assert not store
    assert queue.empty()


def test_store_can_be_cleared_and_replaced(aio, kind):
    async def main():
        queue = getattr(aio, kind)(2)
        await queue.put(1)
        await queue.put(2)
        queue._queue.clear()
        assert queue.empty()
        await queue.put(3)
        queue._queue = type(queue._queue)([8, 9])
        assert queue.full()
        return sorted([await queue.get(), await queue.get()])

    assert run(aio, main()) == [8, 9]


def test_peek(aio):
    queue = aio.Queue()
    queue.put_nowait("a")
    queue.put_nowait("b")
    assert queue._queue[0] == "a"
    queue._queue.appendleft("first")
    assert [queue.get_nowait() for _ in range(3)] == ["first", "a", "b"]


@pytest.mark.parametrize("store", [[], (), None, {}, 5], ids=repr)
def test_stores_of_another_type(store):
    def use(aio):
        queue = aio.Queue()
        queue._queue = store if store is None else type(store)(store)
        log = []
        for call in (queue.empty, queue.qsize, queue._format, lambda: queue.put_nowait(1), queue.get_nowait):
            try:
                log.append(call())
            except Exception as error:
                log.append((type(error).__name__, str(error)))
        return log

    assert use(aioxide) == use(asyncio)


def test_waiters_are_futures_in_order(aio):
    async def main():
        queue = aio.Queue()
        tasks = [aio.create_task(queue.get(), name=str(number)) for number in range(3)]
        await turns(aio)
        waiters = queue._getters
        assert [task._fut_waiter for task in tasks] == list(waiters)
        assert all(isinstance(waiter, asyncio.Future) for waiter in waiters)
        queue.put_nowait("one")
        assert len(waiters) == 2
        assert await tasks[0] == "one"
        late = aio.create_task(queue.get())
        await turns(aio)
        assert waiters[-1] is late._fut_waiter
        for item in range(3):
            queue.put_nowait(item)
        return [await task for task in [*tasks[1:], late]], len(waiters)

    assert run(aio, main()) == ([0, 1, 2], 0)


def test_waiters_can_be_cleared(aio):
    """CPython's own tests do this; whoever waited is then woken by nobody, and can still be cancelled."""

    async def main():
        queue = aio.Queue(1)
        getter = aio.create_task(queue.get())
        await turns(aio)
        queue._getters.clear()
        queue.put_nowait(1)
        await turns(aio)
        assert not getter.done()
        putter = aio.create_task(queue.put(2))
        await turns(aio)
        queue._putters.clear()
        for task in (getter, putter):
            task.cancel()
        return [await outcome(getter), await outcome(putter), queue.qsize()]

    assert run(aio, main()) == ["CancelledError", "CancelledError", 1]


def test_waiters_can_be_replaced(aio):
    async def main():
        queue = aio.Queue()
        getter = aio.create_task(queue.get())
        await turns(aio)
        queue._getters = collections.deque(queue._getters)
        queue.put_nowait(1)
        return await getter

    assert run(aio, main()) == 1


def test_a_waiter_of_somebody_elses(aio):
    """A future put in line by hand is woken in its turn."""

    async def main():
        queue = aio.Queue()
        mine = asyncio.get_running_loop().create_future()
        queue._getters.append(mine)
        getter = aio.create_task(queue.get())
        await turns(aio)
        queue.put_nowait(1)
        assert mine.done()
        assert await getter == 1 if getter.done() else True
        queue._wakeup_next(queue._getters)
        return await getter

    assert run(aio, main()) == 1


def test_wakeup_next_skips_what_is_done(aio):
    async def main():
        queue = aio.Queue()
        loop = asyncio.get_running_loop()
        futures = [loop.create_future() for _ in range(4)]
        futures[0].cancel()
        futures[1].set_result("done")
        row = collections.deque(futures)
        queue._wakeup_next(row)
        assert [future.done() for future in futures] == [True, True, True, False]
        assert list(row) == futures[3:]
        queue._wakeup_next(collections.deque())

    run(aio, main())


@pytest.mark.parametrize("end", ["cancel", "exception", "result"])
@pytest.mark.parametrize("side", ["_getters", "_putters"])
def test_a_waiter_ended_by_hand(aio, side, end):
    """A result makes the task look again, an error is raised where it waits."""

    async def main():
        queue = aio.Queue(1)
        if side == "_putters":
            queue.put_nowait(0)
        task = aio.create_task(queue.get() if side == "_getters" else queue.put(1))
        await turns(aio)
        waiter = getattr(queue, side)[0]
        if end == "cancel":
            waiter.cancel()
        elif end == "exception":
            waiter.set_exception(KeyError("by hand"))
        else:
            waiter.set_result("by hand")
        await turns(aio)
        # Not taken out of the line by those who set a result.
        left = [future.done() for future in getattr(queue, side)]
        if end == "result":
            assert not task.done()
            task.cancel()
        return await outcome(task), left, len(getattr(queue, side))

    wanted = {
        "cancel": ("CancelledError", [], 0),
        "exception": ("KeyError", [], 0),
        "result": ("CancelledError", [True, False], 1),
    }
    assert run(aio, main()) == wanted[end]


def test_unfinished_tasks_can_be_set(aio):
    async def main():
        queue = aio.Queue()
        queue._unfinished_tasks = 2
        queue._finished.clear()
        joiner = aio.create_task(queue.join())
        await turns(aio)
        queue.task_done()
        await turns(aio)
        assert not joiner.done()
        queue.task_done()
        await joiner
        with pytest.raises(ValueError, match=r"task_done\(\) called too many times"):
            queue.task_done()

    run(aio, main())


def test_finished_is_an_event_in_step(aio):
    async def main():
        queue = aio.Queue()
        assert queue._finished.is_set()
        queue.put_nowait(1)
        assert not queue._finished.is_set()
        waiter = aio.create_task(queue._finished.wait())
        await turns(aio)
        queue.task_done()
        assert queue._finished.is_set()
        assert await waiter is True
        late = aio.Queue()
        late.put_nowait(1)
        assert not late._finished.is_set()
        joiner = aio.create_task(late.join())
        await turns(aio)
        late._finished.set()
        assert await joiner is None
        assert late._unfinished_tasks == 1

    run(aio, main())


def test_finished_can_be_replaced(aio):
    async def main():
        queue = aio.Queue()
        queue.put_nowait(1)
        queue._finished = event = aio.Event()
        joiner = aio.create_task(queue.join())
        await turns(aio)
        queue.task_done()
        assert event.is_set()
        return await joiner

    assert run(aio, main()) is None


def test_loop_attribute(aio):
    async def main():
        queue = aio.Queue()
        assert queue._loop is None
        await queue.put(1)
        assert queue._loop is None
        assert queue._get_loop() is asyncio.get_running_loop()
        assert queue._loop is asyncio.get_running_loop()
        queue._loop = None
        queue._loop = asyncio.get_running_loop()

    run(aio, main())


# Texts.


def test_texts(aio, kind):
    queue = getattr(aio, kind)(2)
    name = kind
    assert str(queue) == f"<{name} maxsize=2>"
    assert repr(queue) == f"<{name} at {id(queue):#x} maxsize=2>"
    queue.put_nowait("a")
    assert str(queue) == f"<{name} maxsize=2 _queue=['a'] tasks=1>"
    assert f"{queue}" == f"{queue!s}"
    assert queue._format() == "maxsize=2 _queue=['a'] tasks=1"


def test_repr_does_not_change_the_queue(aio):
    queue = aio.Queue()
    queue.put_nowait("a")
    for _ in range(2):
        assert "_queue=['a']" in repr(queue)
    assert queue.get_nowait() == "a"
    assert "_queue" not in repr(queue)


def test_repr_of_an_item_may_raise_or_reenter(aio):
    class Item:
        def __init__(self, queue):
            self.queue = queue

        def __repr__(self):
            self.queue.get_nowait()
            raise KeyError("repr")

    queue = aio.Queue()
    queue.put_nowait(Item(queue))
    with pytest.raises(KeyError):
        repr(queue)
    assert queue.empty()


def test_queue_in_itself(aio):
    queue = aio.Queue()
    queue.put_nowait(queue)
    with pytest.raises(RecursionError):
        repr(queue)
    queue.get_nowait()


def test_format_that_is_no_text(aio):
    class Odd(aio.Queue):
        def _format(self):
            return 5

    assert str(Odd()) == "<Odd 5>"


# Cancellation: at every point where a task waits.


async def park(aio, queue, side, count, first=0):
    """Tasks that wait on one side of a queue."""
    tasks = []
    for number in range(first, first + count):
        tasks.append(aio.create_task(queue.get() if side == "get" else queue.put(number)))
    await turns(aio)
    return tasks


def bounded(aio, side, cls="Queue"):
    """A queue of one on which tasks wait: full for putters, empty for getters."""
    queue = getattr(aio, cls)(1)
    if side == "put":
        queue.put_nowait("first")
    return queue


def wake(queue, side):
    """Lets one task go on."""
    if side == "get":
        queue.put_nowait("item")
    else:
        queue.get_nowait()


SIDES = ["get", "put"]
LINE = {"get": "_getters", "put": "_putters"}


@pytest.mark.parametrize("seen", [False, True], ids=["native", "seen"])
@pytest.mark.parametrize("side", SIDES)
def test_cancelled_while_waiting(aio, side, seen):
    async def main():
        queue = bounded(aio, side)
        tasks = await park(aio, queue, side, 3)
        if seen:
            queue._getters, queue._putters
        tasks[1].cancel("why")
        await turns(aio)
        assert len(getattr(queue, LINE[side])) == 2
        with pytest.raises(asyncio.CancelledError) as caught:
            await tasks[1]
        assert caught.value.args == ("why",)
        wake(queue, side)
        await turns(aio)
        states = [task.done() for task in tasks]
        for task in tasks:
            task.cancel()
        await aio.wait(tasks)
        return states

    assert run(aio, main()) == [True, True, False]


@pytest.mark.parametrize("seen", [False, True], ids=["native", "seen"])
@pytest.mark.parametrize("side", SIDES)
def test_woken_and_cancelled_in_the_same_turn(aio, side, seen):
    """Nothing is lost, and the wake-up goes to the next in line."""

    async def main():
        queue = bounded(aio, side)
        tasks = await park(aio, queue, side, 3)
        if seen:
            queue._getters, queue._putters
        wake(queue, side)
        tasks[0].cancel()
        await turns(aio)
        states = [task.done() and (task.cancelled() or "done") for task in tasks]
        assert states == [True, "done", False]
        got = tasks[1].result() if side == "get" else queue.get_nowait()
        tasks[2].cancel()
        await aio.wait(tasks)
        return got, queue.qsize(), len(queue._getters), len(queue._putters)

    assert run(aio, main()) == ("item" if side == "get" else 1, 0, 0, 0)


@pytest.mark.parametrize("side", SIDES)
def test_cancelled_and_woken_in_the_same_turn(aio, side):
    """A task that is cancelled first is not woken; the next is."""

    async def main():
        queue = bounded(aio, side)
        tasks = await park(aio, queue, side, 2)
        tasks[0].cancel()
        wake(queue, side)
        await turns(aio)
        return [task.cancelled() for task in tasks], tasks[1].done()

    assert run(aio, main()) == ([True, False], True)


@pytest.mark.parametrize("side", SIDES)
def test_all_woken_ones_are_cancelled(aio, side):
    """The wake-up is handed down the whole line and is not lost at its end."""

    async def main():
        queue = bounded(aio, side)
        tasks = await park(aio, queue, side, 4)
        wake(queue, side)
        for task in tasks:
            task.cancel()
        await aio.wait(tasks)
        assert all(task.cancelled() for task in tasks)
        assert (len(queue._getters), len(queue._putters)) == (0, 0)
        if side == "get":
            return await queue.get()
        await queue.put("later")
        return queue.get_nowait()

    assert run(aio, main()) == ("item" if side == "get" else "later")


@pytest.mark.parametrize("side", SIDES)
def test_woken_and_cancelled_when_another_was_faster(aio, side):
    """The item is gone already: nobody else may be woken."""

    async def main():
        queue = bounded(aio, side)
        tasks = await park(aio, queue, side, 2)
        wake(queue, side)
        if side == "get":
            queue.get_nowait()
        else:
            queue.put_nowait("faster")
        tasks[0].cancel()
        await turns(aio)
        waiting = len(getattr(queue, LINE[side]))
        tasks[1].cancel()
        await aio.wait(tasks)
        return [task.cancelled() for task in tasks], waiting

    assert run(aio, main()) == ([True, True], 1)


@pytest.mark.parametrize("side", SIDES)
def test_woken_but_another_was_faster(aio, side):
    """A woken task that comes too late waits again, at the end of the line."""

    async def main():
        queue = bounded(aio, side)
        tasks = await park(aio, queue, side, 2)
        wake(queue, side)
        if side == "get":
            queue.get_nowait()
        else:
            queue.put_nowait("faster")
        await turns(aio)
        assert [task.done() for task in tasks] == [False, False]
        wake(queue, side)
        await turns(aio)
        states = [task.done() for task in tasks]
        tasks[0].cancel()
        await aio.wait(tasks)
        return states

    assert run(aio, main()) == [False, True]


@pytest.mark.parametrize("how", ["close", "throw"])
@pytest.mark.parametrize("side", SIDES)
def test_driven_by_hand(aio, side, how):
    """A coroutine that is closed or gets an exception while it waits leaves the line; a wake-up is handed on."""

    async def main():
        queue = bounded(aio, side)
        coro = queue.get() if side == "get" else queue.put(1)
        waiter = coro.send(None)
        assert waiter is getattr(queue, LINE[side])[0]
        if how == "close":
            coro.close()
        else:
            with pytest.raises(KeyError):
                coro.throw(KeyError("thrown"))
        assert waiter.cancelled()
        assert len(getattr(queue, LINE[side])) == 0
        # The same after a wake-up.
        coro = queue.get() if side == "get" else queue.put(1)
        coro.send(None)
        (task,) = await park(aio, queue, side, 1)
        wake(queue, side)
        if how == "close":
            coro.close()
        else:
            with pytest.raises(KeyError):
                coro.throw(KeyError("thrown"))
        await aio.wait([task])
        return task.cancelled()

    assert run(aio, main()) is False


@pytest.mark.parametrize("side", SIDES)
def test_timeouts_lose_nothing(aio, side):
    async def main():
        queue = bounded(aio, side)
        now = asyncio.get_running_loop().time
        for _ in range(5):
            with pytest.raises(TimeoutError):
                await aio.wait_for(queue.get() if side == "get" else queue.put(1), 0)
            with pytest.raises(TimeoutError):
                async with aio.timeout_at(now()):
                    await (queue.get() if side == "get" else queue.put(1))
        return len(queue._getters), len(queue._putters), queue.qsize()

    assert run(aio, main()) == (0, 0, int(side == "put"))


def test_cancelled_join(aio):
    async def main():
        queue = aio.Queue()
        queue.put_nowait(1)
        joiners = [aio.create_task(queue.join()) for _ in range(2)]
        await turns(aio)
        joiners[0].cancel()
        assert await outcome(joiners[0]) == "CancelledError"
        queue.task_done()
        assert await outcome(joiners[1]) is None
        assert len(queue._finished._waiters) == 0

    run(aio, main())


def test_join_waits_for_the_event_alone(aio):
    """Work that is added between the wake-up and the run of the joiner does not hold it."""

    async def main():
        queue = aio.Queue()
        queue.put_nowait(1)
        joiner = aio.create_task(queue.join())
        await turns(aio)
        queue.task_done()
        queue.put_nowait(2)
        await turns(aio)
        return joiner.done()

    assert run(aio, main()) is True


# Shutdown, on every Python.


def test_shutdown_class():
    assert issubclass(aioxide.QueueShutDown, Exception)
    assert pickle.loads(pickle.dumps(aioxide.QueueShutDown)) is aioxide.QueueShutDown
    if not HAS_SHUTDOWN:
        assert aioxide.QueueShutDown.__module__ == "aioxide"


@pytest.mark.parametrize("immediate", [False, True])
def test_shutdown_wakes_everybody(shutting, kind, immediate):
    aio = shutting

    async def main():
        empty, full = getattr(aio, kind)(), getattr(aio, kind)(1)
        full.put_nowait(1)
        getters = await park(aio, empty, "get", 3)
        putters = await park(aio, full, "put", 3, first=2)
        for queue in (empty, full):
            queue.shutdown(immediate)
            assert queue._is_shutdown is True
            assert (len(queue._getters), len(queue._putters)) == (0, 0)
        await aio.wait([*getters, *putters])
        assert {await outcome(task) for task in [*getters, *putters]} == {"QueueShutDown"}
        for queue in (empty, full):
            with pytest.raises(aio.QueueShutDown):
                queue.put_nowait(9)
            with pytest.raises(aio.QueueShutDown):
                await queue.put(9)
        if not immediate:
            assert await full.get() == 1
            assert full._unfinished_tasks == 1
        else:
            assert full._unfinished_tasks == 0
        with pytest.raises(aio.QueueShutDown):
            full.get_nowait()
        with pytest.raises(aio.QueueShutDown):
            await full.get()
        return str(full)

    text = run(aio, main())
    assert text == f"<{kind} maxsize=1{' tasks=1' if not immediate else ''} shutdown>"


def test_shutdown_counts_what_it_throws_away(shutting):
    aio = shutting

    async def main():
        queue = aio.Queue()
        for item in range(4):
            queue.put_nowait(item)
        await queue.get()
        joiner = aio.create_task(queue.join())
        await turns(aio)
        queue.shutdown(immediate=True)
        await turns(aio)
        assert queue._unfinished_tasks == 1
        assert not joiner.done()
        queue.task_done()
        await joiner
        with pytest.raises(ValueError, match="too many"):
            queue.task_done()

    run(aio, main())


def test_shutdown_with_more_items_than_tasks(shutting):
    aio = shutting
    queue = aio.Queue()
    queue._queue.extend([1, 2])
    queue.put_nowait(3)
    queue.shutdown(immediate=True)
    assert (queue._unfinished_tasks, queue.qsize()) == (0, 0)
    assert queue._finished.is_set()


def test_shutdown_twice(shutting):
    aio = shutting
    queue = aio.Queue()
    queue.put_nowait(1)
    queue.shutdown()
    queue.shutdown()
    assert queue.qsize() == 1
    queue.shutdown(immediate=True)
    assert queue.qsize() == 0


@pytest.mark.parametrize("side", SIDES)
def test_shutdown_and_cancelled_in_the_same_turn(shutting, side):
    aio = shutting

    async def main():
        queue = bounded(aio, side)
        tasks = await park(aio, queue, side, 2)
        queue.shutdown()
        tasks[0].cancel()
        return [await outcome(task) for task in tasks]

    assert run(aio, main()) == ["CancelledError", "QueueShutDown"]


def test_woken_putter_finds_the_queue_shut_down(shutting):
    """There is room, so the error comes from `put_nowait`."""
    aio = shutting

    async def main():
        queue = bounded(aio, "put")
        (putter,) = await park(aio, queue, "put", 1)
        queue.get_nowait()
        queue.shutdown()
        return await outcome(putter), queue.qsize()

    assert run(aio, main()) == ("QueueShutDown", 0)


def test_woken_getter_still_gets_its_item(shutting):
    aio = shutting

    async def main():
        queue = bounded(aio, "get")
        getters = await park(aio, queue, "get", 2)
        queue.put_nowait("item")
        queue.shutdown()
        return [await outcome(getter) for getter in getters]

    assert run(aio, main()) == ["item", "QueueShutDown"]


def test_shutdown_state_can_be_set(shutting):
    aio = shutting
    queue = aio.Queue()
    queue._is_shutdown = True
    with pytest.raises(aio.QueueShutDown):
        queue.put_nowait(1)
    queue._is_shutdown = False
    queue.put_nowait(1)


def test_shutdown_drains_by_the_overridden_methods(shutting):
    aio = shutting
    log = []

    class Sub(aio.Queue):
        def empty(self):
            log.append("empty")
            return super().empty()

        def _get(self):
            log.append("_get")
            return super()._get()

    queue = Sub()
    queue.put_nowait(1)
    queue.shutdown(immediate=True)
    assert log == ["empty", "_get", "empty"]


def test_shutdown_when_get_raises(shutting):
    aio = shutting

    class Sub(aio.Queue):
        def _get(self):
            raise KeyError("_get")

    queue = Sub()
    queue.put_nowait(1)
    with pytest.raises(KeyError):
        queue.shutdown(immediate=True)
    assert queue._is_shutdown
    assert queue.qsize() == 1


# Priority queues: whatever comparisons do.


def test_order_is_that_of_heapq(aio):
    class Item:
        def __init__(self, priority, number):
            self.priority, self.number = priority, number

        def __lt__(self, other):
            return self.priority < other.priority

    chance = random.Random(5)
    items = [Item(chance.randrange(4), number) for number in range(200)]
    queue, heap = aio.PriorityQueue(), []
    got, wanted = [], []
    for item in items:
        queue.put_nowait(item)
        heapq.heappush(heap, item)
        if chance.random() < 0.3:
            got.append(queue.get_nowait())
            wanted.append(heapq.heappop(heap))
    while heap:
        got.append(queue.get_nowait())
        wanted.append(heapq.heappop(heap))
    assert got == wanted
    assert queue.empty()


def test_comparison_that_raises_in_put(aio):
    """The item is in the store, as heapq leaves it, but does not count."""

    class Bad:
        def __lt__(self, other):
            raise KeyError("compare")

    async def main():
        queue = aio.PriorityQueue()
        queue.put_nowait(Bad())
        for call in (queue.put_nowait, queue.put):
            with pytest.raises(KeyError):
                answer = call(Bad())
                await answer
        return queue.qsize(), queue._unfinished_tasks

    assert run(aio, main()) == (3, 1)


def test_comparison_that_raises_in_get(aio):
    class Item:
        broken = False

        def __init__(self, number):
            self.number = number

        def __lt__(self, other):
            if self.broken:
                raise KeyError("compare")
            return self.number < other.number

    def use(aio):
        Item.broken = False
        queue = aio.PriorityQueue(3)
        for number in (2, 0, 1):
            queue.put_nowait(Item(number))
        Item.broken = True
        with pytest.raises(KeyError):
            queue.get_nowait()
        Item.broken = False
        return queue.qsize(), [item.number for item in queue._queue]

    assert use(aio) == use(asyncio)


@pytest.mark.parametrize("deed", ["put", "get", "clear", "replace", "init"])
def test_comparison_that_reenters(deed):
    def use(aio):
        log = []

        class Item:
            armed = False

            def __init__(self, number):
                self.number = number

            def __lt__(self, other):
                if Item.armed:
                    Item.armed = False
                    if deed == "put":
                        queue.put_nowait(Item(-1))
                    elif deed == "get":
                        log.append(queue.get_nowait().number)
                    elif deed == "clear":
                        queue._queue.clear()
                    elif deed == "replace":
                        queue._queue = []
                    else:
                        queue.__init__()
                return self.number < other.number

        queue = aio.PriorityQueue()
        for number in range(6, 0, -1):
            queue.put_nowait(Item(number))
        for call in (lambda: queue.put_nowait(Item(0)), lambda: log.append(queue.get_nowait().number)):
            Item.armed = True
            try:
                call()
            except Exception as error:
                log.append((type(error).__name__, str(error)))
            log.append([item.number for item in queue._queue])
        return [*log, queue._unfinished_tasks]

    assert use(aioxide) == use(asyncio)


def test_heap_functions_as_arguments(aio):
    queue = aio.PriorityQueue()
    queue._put(2)
    queue._put(1, heapq.heappush)
    queue._put(0, heappush=list.append)
    assert queue._queue == [1, 2, 0]
    assert queue._get(heappop=list.pop) == 0
    assert queue._get() == 1


def test_methods_of_the_store_on_an_empty_queue(aio, kind):
    queue = getattr(aio, kind)()
    with pytest.raises(IndexError):
        queue._get()
    queue._put(1)
    assert (queue.qsize(), queue._unfinished_tasks, queue._get()) == (1, 0, 1)
    queue._put(1)
    queue._init(0)
    assert queue.empty()


# Items that do things when they go.


class Plain:
    """An item that any heap takes."""

    def __lt__(self, other):
        return False


class Dying(Plain):
    """Runs code when it is dropped."""

    def __init__(self, deed):
        self.deed = deed

    def __del__(self):
        self.deed()


def test_items_that_reenter_when_dropped_by_shutdown(shutting, kind):
    aio = shutting
    log = []
    queue = getattr(aio, kind)()

    def deed():
        log.append((queue.qsize(), queue._unfinished_tasks))
        if len(log) == 1:
            queue._put(Plain())
        repr(queue)

    for _ in range(2):
        queue.put_nowait(Dying(deed))
    queue.shutdown(immediate=True)
    assert queue.empty()
    assert len(log) == 2


@pytest.mark.parametrize("how", ["init", "clear", "replace", "last reference"])
def test_items_that_reenter_when_the_store_goes(aio, kind, how):
    queue = getattr(aio, kind)()
    log = []
    holder = weakref.ref(queue)

    def deed():
        living = holder()
        if living is None:
            log.append("gone")
            return
        log.append("alive")
        living.put_nowait(Plain())
        str(living)

    for _ in range(2):
        queue.put_nowait(Dying(deed))
    if how == "init":
        queue.__init__()
    elif how == "clear":
        queue._queue.clear()
    elif how == "replace":
        queue._queue = collections.deque() if kind == "Queue" else []
    else:
        del queue
    gc.collect()
    assert log == (["gone"] * 2 if how == "last reference" else ["alive"] * 2)


def test_item_dropped_when_put_fails(aio):
    log = []

    async def main():
        queue = aio.Queue(1)
        queue.put_nowait(1)
        task = aio.create_task(queue.put(Dying(lambda: log.append(queue.qsize()))))
        await turns(aio)
        task.cancel()
        await aio.wait([task])
        with pytest.raises(aio.QueueFull):
            queue.put_nowait(Dying(lambda: log.append(queue.qsize())))
        del task

    run(aio, main())
    gc.collect()
    assert log == [1, 1]


def test_bound_that_dies_with_a_change(aio):
    class Bound(int):
        def __del__(self):
            log.append(queue.maxsize)

    log = []
    queue = aio.Queue(Bound(3))
    queue._maxsize = 1
    assert log == [1]


# Loops.


def test_another_loop_is_refused(aio):
    """The text names the queue; a queue is bound when it first makes a task wait."""
    queue = aio.Queue(1)

    async def wait():
        task = aio.create_task(queue.get())
        await turns(aio)
        task.cancel()
        await aio.wait([task])

    run(aio, wait())
    with pytest.raises(RuntimeError) as caught:
        run(aio, queue.get())
    assert str(caught.value) == f"{queue!r} is bound to a different event loop"
    queue.put_nowait(1)
    assert run(aio, queue.get()) == 1
    queue.put_nowait(1)
    with pytest.raises(RuntimeError, match="is bound to a different event loop"):
        run(aio, queue.put(2))
    assert (len(queue._getters), len(queue._putters)) == (0, 0)


def test_join_is_bound_by_its_event(aio):
    queue = aio.Queue()
    queue.put_nowait(1)

    async def wait():
        task = aio.create_task(queue.join())
        await turns(aio)
        task.cancel()
        await aio.wait([task])

    run(aio, wait())
    assert queue._loop is None
    with pytest.raises(RuntimeError) as caught:
        run(aio, queue.join())
    assert str(caught.value) == f"{queue._finished!r} is bound to a different event loop"


def test_without_a_loop(aio):
    queue = aio.Queue(1)
    with pytest.raises(StopIteration):
        queue.put(1).send(None)
    with pytest.raises(AttributeError, match="'NoneType' object has no attribute 'create_future'"):
        queue.put(2).send(None)
    with pytest.raises(StopIteration) as caught:
        queue.get().send(None)
    assert caught.value.value == 1
    with pytest.raises(AttributeError, match="'NoneType' object has no attribute 'create_future'"):
        queue.get().send(None)
    assert queue._loop is None


class ForeignLoop(asyncio.SelectorEventLoop):
    """The stdlib's loop with futures and tasks of one's own."""

    class Future(asyncio.Future):
        pass

    def create_future(self):
        return self.Future(loop=self)


@pytest.mark.parametrize("make", [asyncio.SelectorEventLoop, ForeignLoop])
def test_foreign_loops(kind, make):
    async def main():
        queue = getattr(aioxide, kind)(1)
        got = []

        async def consume():
            for _ in range(20):
                got.append(await queue.get())
                queue.task_done()

        consumers = [asyncio.ensure_future(consume()) for _ in range(2)]
        idle = asyncio.ensure_future(aioxide.Queue().get())
        for item in range(40):
            await queue.put(item)
        await queue.join()
        await asyncio.wait(consumers)
        assert isinstance(idle._fut_waiter, ForeignLoop.Future if make is ForeignLoop else asyncio.Future)
        waiting = asyncio.ensure_future(queue.get())
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        queue.put_nowait("last")
        waiting.cancel()
        for task in (idle, waiting):
            task.cancel()
        await asyncio.wait([idle, waiting])
        assert queue.get_nowait() == "last"
        queue.shutdown()
        assert await outcome(queue.get()) == "QueueShutDown"
        return sorted(got)

    loop = make()
    try:
        assert loop.run_until_complete(main()) == list(range(40))
    finally:
        loop.close()


def test_native_loop_with_overridden_create_future():
    made = []

    class Loop(aioxide.Loop):
        def create_future(self):
            made.append(super().create_future())
            return made[-1]

    async def main():
        queue = aioxide.Queue()
        task = aioxide.create_task(queue.get())
        await turns(aioxide)
        assert list(queue._getters) == made
        queue.put_nowait(1)
        return await task

    loop = Loop()
    try:
        assert loop.run_until_complete(main()) == 1
    finally:
        loop.close()


def test_create_future_that_raises(aio):
    class Sub(aio.Queue):
        def _get_loop(self):
            raise KeyError("no loop")

    async def main():
        queue = Sub(1)
        with pytest.raises(KeyError):
            await queue.get()
        return len(queue._getters)

    assert run(aio, main()) == 0


def test_line_that_refuses_the_waiter(aio):
    class Line(collections.deque):
        def append(self, item):
            raise KeyError("line")

    async def main():
        queue = aio.Queue()
        queue._getters = Line()
        with pytest.raises(KeyError):
            await queue.get()

    run(aio, main())


def test_debug_mode(aio, kind):
    loop = new_loop(aio)
    loop.set_debug(True)

    async def main():
        queue = getattr(aio, kind)(1)
        (getter,) = await park(aio, queue, "get", 1)
        assert getter._fut_waiter._source_traceback
        await queue.put(1)
        await getter
        await queue.put(2)
        (putter,) = await park(aio, queue, "put", 1)
        assert await queue.get() == 2
        await putter
        joiner = aio.create_task(queue.join())
        await turns(aio)
        for _ in range(3):
            queue.task_done()
        await joiner

    try:
        loop.run_until_complete(main())
    finally:
        loop.close()


@pytest.mark.parametrize("name", ["get", "put", "join"])
def test_never_awaited(aio, kind, name):
    queue = getattr(aio, kind)()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        getattr(queue, name)(*([1] if name == "put" else []))
        gc.collect()
    assert [str(warning.message) for warning in caught] == [f"coroutine 'Queue.{name}' was never awaited"]


@pytest.mark.parametrize("name", ["get", "put", "join"])
def test_coroutines(aio, kind, name):
    async def main():
        queue = getattr(aio, kind)(1)
        queue.put_nowait(1)
        if name == "get":
            queue.get_nowait()
        coro = getattr(queue, name)(*([1] if name == "put" else []))
        assert asyncio.iscoroutine(coro)
        assert (coro.__name__, coro.__qualname__) == (name, f"Queue.{name}")
        assert coro.cr_await is None
        task = aio.create_task(coro)
        await turns(aio)
        assert coro.cr_await is not None
        assert task._fut_waiter is not None
        task.cancel()
        await aio.wait([task])
        with pytest.raises(RuntimeError, match="cannot reuse already awaited coroutine"):
            await coro

    run(aio, main())


# The collector, and last references.


@pytest.mark.parametrize("seen", [False, True], ids=["native", "seen"])
def test_cycles_through_items_are_collected(aio, kind, seen):
    class Item:
        pass

    queue = getattr(aio, kind)()
    item = Item()
    item.queue = queue
    queue.put_nowait(item)
    if seen:
        queue._queue
    gone = weakref.ref(item), weakref.ref(queue)
    del item, queue
    gc.collect()
    assert [ref() for ref in gone] == [None, None]


def test_cycles_through_the_dict_and_the_bound_are_collected(aio):
    class Bound(int):
        pass

    bound = Bound(5)
    queue = aio.Queue(bound)
    bound.queue = queue
    queue.me = queue
    gone = weakref.ref(queue)
    del bound, queue
    gc.collect()
    assert gone() is None


@pytest.mark.parametrize("side", SIDES)
@pytest.mark.logs_errors
def test_cycles_through_waiters_are_collected(aio, side):
    """A task that nobody can wake any more."""
    loop = new_loop(aio)
    reports = []
    loop.set_exception_handler(lambda loop, context: reports.append(context["message"]))

    def turn():
        loop.call_soon(loop.stop)
        loop.run_forever()

    queue = bounded(aio, side)

    async def wait(queue):
        await (queue.get() if side == "get" else queue.put(queue))

    task = loop.create_task(wait(queue))
    turn()
    turn()
    gone = weakref.ref(queue), weakref.ref(task)
    del queue, task
    gc.collect()
    assert gone[0]() is None
    # Where the coroutine dies before the task, it cancels the waiter, and the loop wakes the task once more.
    turn()
    gc.collect()
    loop.close()
    assert gone[1]() is None
    if sys.version_info < (3, 15):
        assert reports == ["Task was destroyed but it is pending!"]


def test_last_reference_to_the_queue_dropped_while_waiting(aio):
    async def main():
        queue = aio.Queue()
        getter = aio.create_task(queue.get())
        await turns(aio)
        gone = weakref.ref(queue)
        put = queue.put_nowait
        del queue
        gc.collect()
        assert gone() is not None
        put("item")
        del put
        assert await getter == "item"
        del getter
        gc.collect()
        return gone()

    assert run(aio, main()) is None


def test_no_cycle_is_left_behind(aio):
    """Ordinary use, cancellation and shutdown leave nothing for the collector."""

    async def main():
        gone = []
        for deed in ("item", "cancel", "timeout", "shutdown"):
            queue = aio.Queue()
            getter = aio.create_task(queue.get())
            await turns(aio)
            if deed == "item":
                queue.put_nowait(1)
            elif deed == "shutdown" and hasattr(queue, "shutdown"):
                queue.shutdown()
            else:
                getter.cancel()
            await aio.wait([getter])
            getter.cancelled() or getter.exception()
            gone.append(weakref.ref(queue))
            del queue, getter
        return [ref() for ref in gone]

    gc.collect()
    gc.disable()
    try:
        assert run(aio, main()) == [None] * 4
    finally:
        gc.enable()


def test_items_are_released(aio, kind):
    """No reference to an item stays once it is taken."""

    async def main():
        queue = getattr(aio, kind)(1)
        item = Plain()
        count = sys.getrefcount(item)
        await queue.put(item)
        assert await queue.get() is item
        (getter,) = await park(aio, queue, "get", 1)
        queue.put_nowait(item)
        assert await getter is item
        del getter
        queue.put_nowait(item)
        task = aio.create_task(queue.put(item))
        await turns(aio)
        queue.get_nowait()
        await task
        queue.get_nowait()
        del task
        return sys.getrefcount(item) - count

    assert run(aio, main()) == 0


def test_many_queues():
    """Objects come from a free list: nothing of the former life is left."""
    for _ in range(300):
        queue = aioxide.Queue(1)
        queue.put_nowait(1)
        queue._queue, queue._getters
        queue.name = "x"
        queue.full = lambda: True
        queue.shutdown()
        del queue
        fresh = aioxide.Queue()
        assert str(fresh) == "<Queue maxsize=0>"
        assert not hasattr(fresh, "name")
        fresh.put_nowait(2)
        assert fresh.get_nowait() == 2


# Anything at all: the same random deeds on both.


class Sub(aioxide.Queue):
    """A subclass that overrides what it does not change."""

    def full(self):
        return super().full()

    def _put(self, item):
        super()._put(item)


def story(aio, cls, seed, loop, looks):
    """What random deeds on a queue lead to."""
    chance = random.Random(seed)
    queue = cls(chance.randrange(4))
    log, tasks = [], []

    def note(task):
        log.append((task.get_name(), "cancelled" if task.cancelled() else repr(task.exception() or task.result())))

    def spawn(label, coro):
        task = loop.create_task(coro, name=f"{label}{len(tasks)}")
        task.add_done_callback(note)
        tasks.append(task)

    def attempt(call, *args):
        try:
            log.append(call(*args))
        except Exception as error:
            log.append(type(error).__name__)

    async def main():
        for step in range(120):
            deed = chance.choice(
                ["get", "get", "put", "put", "put_nowait", "get_nowait", "cancel", "done", "join", "turn"]
            )
            if deed == "get":
                spawn("get", queue.get())
            elif deed == "put":
                spawn("put", queue.put(chance.randrange(10)))
            elif deed == "put_nowait":
                attempt(queue.put_nowait, chance.randrange(10))
            elif deed == "get_nowait":
                attempt(queue.get_nowait)
            elif deed == "cancel" and tasks:
                chance.choice(tasks[-6:]).cancel()
            elif deed == "done":
                attempt(queue.task_done)
            elif deed == "join":
                spawn("join", queue.join())
            else:
                await asyncio.sleep(0)
            if step == looks:
                len(queue._queue), len(queue._getters), len(queue._putters)
            if step == 100 and HAS_SHUTDOWN:
                queue.shutdown(immediate=bool(seed % 2))
            log.append(str(queue).partition(" ")[2])
        for task in tasks:
            task.cancel()
        while not all(task.done() for task in tasks):
            await asyncio.sleep(0)
        log.append(str(queue).partition(" ")[2])

    loop.run_until_complete(main())
    return log


@pytest.mark.parametrize("seed", range(40))
def test_random_deeds(kind, seed):
    loop = asyncio.SelectorEventLoop()
    wanted = story(asyncio, getattr(asyncio, kind), seed, loop, None)
    foreign = story(aioxide, getattr(aioxide, kind), seed, loop, None)
    loop.close()
    assert foreign == wanted
    loop = aioxide.new_event_loop()
    for looks in (None, 0, 50):
        assert story(aioxide, getattr(aioxide, kind), seed, loop, looks) == wanted
    if kind == "Queue":
        assert story(aioxide, Sub, seed, loop, None) == wanted
    loop.close()

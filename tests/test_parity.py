"""Names, signatures, classes and reprs are asyncio's."""

import asyncio
import concurrent.futures
import functools
import gc
import inspect
import re
import subprocess
import sys

import pytest

import aioxide

LATER = {
    "BaseTransport", "ReadTransport", "WriteTransport", "Transport", "DatagramTransport", "SubprocessTransport",
    "BaseProtocol", "Protocol", "BufferedProtocol", "DatagramProtocol", "SubprocessProtocol",
    "AbstractServer", "Server", "BaseEventLoop", "SelectorEventLoop", "EventLoop",
    "AbstractEventLoopPolicy", "DefaultEventLoopPolicy",
    "get_event_loop_policy", "set_event_loop_policy", "AbstractChildWatcher", "SafeChildWatcher",
    "FastChildWatcher", "MultiLoopChildWatcher", "ThreadedChildWatcher", "PidfdChildWatcher",
    "get_child_watcher", "set_child_watcher", "FrameCallGraphEntry", "FutureCallGraph", "capture_call_graph",
    "format_call_graph", "print_call_graph",
}  # fmt: skip
"""Names of servers, policies and call graphs: they may be missing as yet."""

LOOP_CLASSES = {"SelectorEventLoop", "EventLoop"}
"""Calling one of these makes a loop of aioxide's, unless a foreign selector is given."""

NEWER = {
    "Queue", "PriorityQueue", "LifoQueue", "Task", "TaskGroup", "Timeout", "timeout", "timeout_at", "Runner",
    "QueueShutDown", "eager_task_factory", "create_eager_task_factory",
}  # fmt: skip
"""Names that every Python gets, whether the running version's `__all__` has them or not."""

FUNCTIONS = [
    "all_tasks", "as_completed", "create_eager_task_factory", "create_task", "current_task", "eager_task_factory",
    "ensure_future", "gather", "get_event_loop", "get_running_loop", "iscoroutine", "iscoroutinefunction", "isfuture",
    "new_event_loop", "run", "run_coroutine_threadsafe", "set_event_loop", "shield", "sleep", "timeout", "timeout_at",
    "to_thread", "wait", "wait_for", "wrap_future", "open_connection", "start_server",
    "open_unix_connection", "start_unix_server", "create_subprocess_exec", "create_subprocess_shell",
    "_enter_task", "_leave_task", "_register_task",
    "_unregister_task", "_get_running_loop", "_set_running_loop",
]  # fmt: skip

CLASSES = [
    "Future", "Task", "Handle", "TimerHandle", "Lock", "Event", "Condition", "Semaphore", "BoundedSemaphore",
    "Barrier", "Queue", "PriorityQueue", "LifoQueue", "Timeout", "TaskGroup", "Runner",
    "StreamReader", "StreamWriter", "StreamReaderProtocol",
]  # fmt: skip

LOOP_METHODS = [
    "run_forever", "run_until_complete", "stop", "is_running", "is_closed", "close", "call_soon", "call_later",
    "call_at", "call_soon_threadsafe", "time", "create_future", "create_task", "set_task_factory",
    "get_task_factory", "set_exception_handler", "get_exception_handler", "default_exception_handler",
    "call_exception_handler", "run_in_executor", "set_default_executor", "shutdown_default_executor",
    "shutdown_asyncgens", "get_debug", "set_debug", "add_reader", "remove_reader", "add_writer", "remove_writer",
]  # fmt: skip

NEWEST = {
    "as_completed": "(fs, *, timeout=None)",
    "create_task": "(coro, **kwargs)",
    "eager_task_factory": "(loop, coro, *, eager_start=True, **kwargs)",
    "run": "(main, *, debug=None, loop_factory=None)",
    "Task": "(coro, *, loop=None, name=None, context=None, eager_start=False)",
    "Loop.create_task": "(self, coro, **kwargs)",
    "Loop.shutdown_default_executor": "(self, timeout=None)",
    "TaskGroup.create_task": "(self, coro, **kwargs)",
    "StreamWriter.start_tls": (
        "(self, sslcontext, *, server_hostname=None, ssl_handshake_timeout=None, ssl_shutdown_timeout=None)"
    ),
}
"""Signatures of the newest Python, which older ones may have too: supersets of their own."""

DIFFERENT = {
    "new_event_loop": "makes an aioxide loop whatever the policy",
}
"""Names whose signature is aioxide's own business, with the reason."""


def signature(thing):
    """The signature as text, or None where the object does not tell one."""
    try:
        return str(inspect.signature(thing))
    except ValueError:
        return None


def comparable(text):
    """Defaults and annotations that only say how something is implemented count the same."""
    text = re.sub(r"<[^>]*>", "<unrepresentable>", text)
    return re.sub(r" ?-> [\w.\[\], |']+$|: [\w.\[\], |]+(?=[,)=])", "", text)


def assert_same_signature(name, ours, theirs):
    """Fails unless the signature is the running version's or the newest."""
    wanted = signature(theirs)
    if wanted is None or name in DIFFERENT:
        return
    found = signature(ours)
    assert found is not None, f"{name} has no signature, asyncio's is {wanted}"
    allowed = {comparable(wanted)} | ({comparable(NEWEST[name])} if name in NEWEST else set())
    assert comparable(found) in allowed


def is_coroutine_function(thing):
    """What libraries ask before they await a call."""
    if sys.version_info >= (3, 12):
        return inspect.iscoroutinefunction(thing)
    return asyncio.iscoroutinefunction(thing)


def public(cls):
    """The attributes of a class that are part of its interface."""
    protocols = {"__await__", "__iter__", "__aenter__", "__aexit__", "__enter__", "__exit__", "__class_getitem__"}
    return sorted(name for name in dir(cls) if not name.startswith("_") or name in protocols)


@pytest.mark.parametrize("name", sorted(set(asyncio.__all__) - LATER | NEWER))
def test_name_exists(name):
    assert hasattr(aioxide, name)


@pytest.mark.parametrize("name", sorted(set(asyncio.__all__) - LATER))
def test_name_is_in_all(name):
    assert name in aioxide.__all__


@pytest.mark.parametrize(
    "name", sorted(name for name in LATER & set(asyncio.__all__) - LOOP_CLASSES if hasattr(aioxide, name))
)
def test_later_name_is_shared_or_native(name):
    ours = getattr(aioxide, name)
    assert ours is getattr(asyncio, name) or ours.__module__.partition(".")[0] == "aioxide"


@pytest.mark.parametrize("name", [name for name in FUNCTIONS if hasattr(asyncio, name)])
def test_function_signature(name):
    assert_same_signature(name, getattr(aioxide, name), getattr(asyncio, name))


@pytest.mark.parametrize("name", [name for name in FUNCTIONS if hasattr(asyncio, name)])
def test_function_is_a_coroutine_function_or_not(name):
    assert is_coroutine_function(getattr(aioxide, name)) == is_coroutine_function(getattr(asyncio, name))


@pytest.mark.parametrize("name", CLASSES)
def test_class_signature(name):
    assert_same_signature(name, getattr(aioxide, name), getattr(asyncio, name))


@pytest.mark.parametrize(
    ("name", "attribute"), [(name, attribute) for name in CLASSES for attribute in public(getattr(asyncio, name))]
)
def test_class_attribute(name, attribute):
    ours = inspect.getattr_static(getattr(aioxide, name), attribute)
    theirs = inspect.getattr_static(getattr(asyncio, name), attribute)
    assert inspect.isdatadescriptor(ours) == inspect.isdatadescriptor(theirs)
    ours, theirs = getattr(getattr(aioxide, name), attribute), getattr(getattr(asyncio, name), attribute)
    assert callable(ours) == callable(theirs)
    if callable(theirs):
        assert_same_signature(f"{name}.{attribute}", ours, theirs)
        assert is_coroutine_function(ours) == is_coroutine_function(theirs)


@pytest.mark.parametrize("attribute", LOOP_METHODS)
def test_loop_method(attribute):
    ours, theirs = getattr(aioxide.Loop, attribute), getattr(asyncio.SelectorEventLoop, attribute)
    assert_same_signature(f"Loop.{attribute}", ours, theirs)
    assert is_coroutine_function(ours) == is_coroutine_function(theirs)


@pytest.mark.parametrize("name", [*FUNCTIONS, *CLASSES])
def test_name_of_object(name):
    theirs = getattr(asyncio, name, None)
    if theirs is not None:
        ours = getattr(aioxide, name)
        assert (ours.__name__, ours.__qualname__) == (theirs.__name__, theirs.__qualname__)


@pytest.mark.parametrize("name", [*FUNCTIONS, *CLASSES])
def test_documented(name):
    assert inspect.getdoc(getattr(aioxide, name)) or not inspect.getdoc(getattr(asyncio, name))


@pytest.mark.parametrize("name", CLASSES)
def test_newer_methods_are_on_every_python(name):
    newer = {
        "Queue": ["shutdown"],
        "PriorityQueue": ["shutdown"],
        "LifoQueue": ["shutdown"],
        "Task": ["get_context"],
        "TaskGroup": ["cancel"],
        "Handle": ["get_context"],
    }
    for attribute in newer.get(name, []):
        assert callable(getattr(getattr(aioxide, name), attribute))
    assert set(public(getattr(asyncio, name))) <= set(public(getattr(aioxide, name)))


# Classes.


@pytest.mark.parametrize(
    "name",
    ["CancelledError", "TimeoutError", "InvalidStateError", "BrokenBarrierError", "SendfileNotAvailableError",
     "IncompleteReadError", "LimitOverrunError", "QueueEmpty", "QueueFull", "AbstractEventLoop"],
)  # fmt: skip
def test_class_is_shared_with_the_stdlib(name):
    assert getattr(aioxide, name) is getattr(asyncio, name)


def test_queue_shut_down_is_shared_where_the_stdlib_has_it():
    assert issubclass(aioxide.QueueShutDown, Exception)
    assert getattr(asyncio, "QueueShutDown", aioxide.QueueShutDown) is aioxide.QueueShutDown


@pytest.mark.parametrize("name", ["FIRST_COMPLETED", "FIRST_EXCEPTION", "ALL_COMPLETED"])
def test_constant(name):
    assert getattr(aioxide, name) == getattr(asyncio, name)


@pytest.mark.parametrize(
    ("sub", "base"),
    [
        ("Task", "Future"),
        ("TimerHandle", "Handle"),
        ("BoundedSemaphore", "Semaphore"),
        ("PriorityQueue", "Queue"),
        ("LifoQueue", "Queue"),
    ],
)
def test_subclass(sub, base):
    assert issubclass(getattr(aioxide, sub), getattr(aioxide, base))


@pytest.mark.parametrize("name", ["Future", "Task"])
def test_native_class_is_a_subclass_of_the_stdlib_class(name):
    assert issubclass(getattr(aioxide, name), getattr(asyncio, name))


def test_loop_is_an_abstract_event_loop(loop):
    assert isinstance(loop, asyncio.AbstractEventLoop)
    assert isinstance(loop, aioxide.Loop)


@pytest.mark.parametrize("name", sorted(name for name in LOOP_CLASSES if hasattr(aioxide, name)))
def test_loop_class_makes_native_loops(name):
    loop = getattr(aioxide, name)()
    assert isinstance(loop, aioxide.Loop)
    loop.close()


def test_what_the_loop_makes_is_native(loop):
    async def noop():
        pass

    task = loop.create_task(noop())
    assert type(loop.create_future()) is aioxide.Future
    assert type(task) is aioxide.Task
    assert type(loop.call_soon(int)) is aioxide.Handle
    assert type(loop.call_later(60, int)) is aioxide.TimerHandle
    loop.run_until_complete(task)


def test_futures_of_combinators_are_futures(loop):
    async def main():
        for future in (aioxide.gather(), aioxide.gather(aioxide.sleep(0)), aioxide.shield(aioxide.sleep(0))):
            assert isinstance(future, aioxide.Future)
            assert isinstance(future, asyncio.Future)
            assert asyncio.isfuture(future)
            await future
        future = aioxide.wrap_future(concurrent.futures.Future())
        assert isinstance(future, aioxide.Future)

    loop.run_until_complete(main())


@pytest.mark.parametrize("name", ["Future", "Task", "Lock", "Event", "Semaphore", "Condition", "Queue"])
def test_class_can_be_subclassed(name):
    cls = getattr(aioxide, name)
    sub = type("Sub", (cls,), {"extra": 1})
    assert issubclass(sub, cls)
    assert sub.extra == 1


@pytest.mark.parametrize("name", ["Future", "Task", "Queue", "PriorityQueue", "LifoQueue"])
def test_class_is_generic(name):
    assert repr(getattr(aioxide, name)[int]).endswith(f"{name}[int]")


@pytest.mark.parametrize("name", [*CLASSES, "run", "sleep", "gather", "wait", "wait_for", "shield", "timeout"])
def test_name_is_native(name):
    assert getattr(aioxide, name) is not getattr(asyncio, name)


def test_import_changes_nothing_in_asyncio():
    program = """
import asyncio, sys

def bindings():
    modules = [module for name, module in sys.modules.items() if name.partition(".")[0] == "asyncio"]
    return {(module.__name__, name): value for module in modules for name, value in vars(module).items()}

before = bindings()
import aioxide
after = bindings()
changed = [key for key in before if after[key] is not before[key]]
sys.exit(f"{changed}" if changed else 0)
"""
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False)
    assert (result.returncode, result.stderr) == (0, "")


# Reprs: each case builds objects in some state and yields them; the texts are compared.


def _future_states(aio, loop):
    yield aio.Future(loop=loop)
    done = aio.Future(loop=loop)
    done.set_result("value")
    yield done
    long = aio.Future(loop=loop)
    long.set_result("x" * 500)
    yield long
    failed = aio.Future(loop=loop)
    failed.set_exception(ValueError("text"))
    failed.exception()
    yield failed
    cancelled = aio.Future(loop=loop)
    cancelled.cancel("why")
    yield cancelled


class Callable:
    """A callback without a name."""

    def __call__(self, *args):
        pass

    def __repr__(self):
        return "Callable()"

    def method(self, *args):
        pass


def _callback(*args, **kwargs):
    pass


def _future_callbacks(aio, loop):
    callbacks = [
        _callback,
        Callable(),
        Callable().method,
        print,
        functools.partial(_callback, 1, key="x"),
        functools.partial(functools.partial(Callable().method, 1), "x" * 300),
        lambda future: None,
        aio.Future(loop=loop).cancel,
    ]
    for callback in callbacks:
        future = aio.Future(loop=loop)
        future.add_done_callback(callback)
        yield future
    for count in range(1, 6):
        future = aio.Future(loop=loop)
        for number in range(count):
            future.add_done_callback(callbacks[number])
        yield future


async def _noop():
    pass


async def _raises():
    raise ValueError("text")


async def _parked(future):
    await future


def _task_states(aio, loop):
    pending = loop.create_task(_noop(), name="named")
    yield pending
    loop.run_until_complete(pending)
    yield pending
    waiting = loop.create_task(_parked(aio.Future(loop=loop)), name="waiting")
    nested = loop.create_task(_parked(_parked(aio.Future(loop=loop))), name="nested")
    loop.call_soon(loop.stop)
    loop.run_forever()
    yield waiting
    yield nested
    waiting.add_done_callback(_callback)
    yield waiting
    waiting.cancel("why")
    nested.cancel()
    yield waiting
    loop.run_until_complete(aio.gather(waiting, nested, return_exceptions=True))
    yield waiting
    failed = loop.create_task(_raises(), name="failed")
    loop.run_until_complete(aio.gather(failed, return_exceptions=True))
    yield failed

    class Sub(aio.Task):
        def extra(self):
            pass

    sub = Sub(_noop(), loop=loop, name="sub")
    yield sub
    loop.run_until_complete(sub)
    yield sub


def _combinators(aio, loop):
    async def main():
        outer = aio.gather(aio.Future(loop=loop), aio.Future(loop=loop))
        shielded = aio.shield(aio.Future(loop=loop))
        found.extend([outer, shielded])
        yield_texts.extend([repr(outer), repr(shielded)])
        outer.cancel()
        shielded.cancel()
        await aio.gather(outer, shielded, return_exceptions=True)
        yield_texts.extend([repr(outer), repr(shielded)])

    found, yield_texts = [], []
    loop.run_until_complete(main())
    yield from yield_texts


def _handles(aio, loop):
    for callback in (_callback, Callable(), Callable().method, functools.partial(_callback, 1), print):
        handle = loop.call_soon(callback)
        yield handle
        handle.cancel()
        yield handle
    yield loop.call_soon(_callback, 1, "two", [3])
    yield loop.call_soon_threadsafe(_callback, 1)
    timer = loop.call_at(10**9 + 0.5, _callback, 1)
    yield timer
    timer.cancel()
    yield timer
    ran = loop.call_soon(_callback)
    loop.call_soon(loop.stop)
    loop.run_forever()
    yield ran


def _locks(aio, loop):
    async def main():
        lock = aio.Lock()
        texts.append(repr(lock))
        await lock.acquire()
        texts.append(repr(lock))
        waiters = [aio.create_task(lock.acquire()) for _ in range(2)]
        await aio.sleep(0)
        texts.append(repr(lock))
        for waiter in waiters:
            waiter.cancel()
        await aio.wait(waiters)
        texts.append(repr(lock))

        event = aio.Event()
        texts.append(repr(event))
        waiter = aio.create_task(event.wait())
        await aio.sleep(0)
        texts.append(repr(event))
        event.set()
        texts.append(repr(event))
        await waiter
        texts.append(repr(event))

        for semaphore in (aio.Semaphore(2), aio.BoundedSemaphore(1), aio.Semaphore(0)):
            texts.append(repr(semaphore))
            waiters = [aio.create_task(semaphore.acquire()) for _ in range(3)]
            await aio.sleep(0)
            texts.append(repr(semaphore))
            for _ in range(3):
                if not semaphore.locked() or isinstance(semaphore, aio.BoundedSemaphore) is False:
                    semaphore.release()
            for waiter in waiters:
                waiter.cancel()
            await aio.wait(waiters)
            texts.append(repr(semaphore))

        condition = aio.Condition()
        texts.append(repr(condition))

        async def wait():
            async with condition:
                await condition.wait()

        waiter = aio.create_task(wait())
        await aio.sleep(0)
        texts.append(repr(condition))
        async with condition:
            texts.append(repr(condition))
            condition.notify_all()
        await waiter

        barrier = aio.Barrier(2)
        texts.append(repr(barrier))
        waiter = aio.create_task(barrier.wait())
        await aio.sleep(0)
        texts.append(repr(barrier))
        await barrier.wait()
        await waiter
        await barrier.abort()
        texts.append(repr(barrier))

    texts = []
    loop.run_until_complete(main())
    yield from texts


def _queues(aio, loop):
    async def main():
        for cls in (aio.Queue, aio.PriorityQueue, aio.LifoQueue):
            queue = cls(2)
            both(queue)
            getter = aio.create_task(queue.get())
            await aio.sleep(0)
            both(queue)
            queue.put_nowait(1)
            await getter
            queue.put_nowait(2)
            queue.put_nowait(3)
            both(queue)
            putter = aio.create_task(queue.put(4))
            await aio.sleep(0)
            both(queue)
            queue.get_nowait()
            await putter
            queue.task_done()
            both(queue)

    def both(queue):
        texts.extend([repr(queue), str(queue)])

    texts = []
    loop.run_until_complete(main())
    yield from texts


def _timeouts(aio, loop):
    async def main():
        block = aio.timeout(None)
        texts.append(repr(block))
        async with block:
            texts.append(repr(block))
            block.reschedule(10**9 + 0.123456)
            texts.append(repr(block))
        texts.append(repr(block))
        block = aio.timeout_at(0)
        try:
            async with block:
                try:
                    await aio.Future(loop=loop)
                finally:
                    texts.append(repr(block))
        except TimeoutError:
            texts.append(repr(block))

    texts = []
    loop.run_until_complete(main())
    yield from texts


def _task_groups(aio, loop):
    async def main():
        group = aio.TaskGroup()
        texts.append(repr(group))
        async with group:
            texts.append(repr(group))
            task = group.create_task(_noop())
            group.create_task(_parked(task))
            texts.append(repr(group))
        texts.append(repr(group))
        group = aio.TaskGroup()
        try:
            async with group:
                group.create_task(_raises())
                try:
                    await aio.Future(loop=loop)
                finally:
                    texts.append(repr(group))
        except ExceptionGroup:
            texts.append(repr(group))

    texts = []
    loop.run_until_complete(main())
    yield from texts


def _subclasses(aio, loop):
    class MyFuture(aio.Future):
        pass

    class MyLock(aio.Lock):
        pass

    class MyQueue(aio.Queue):
        pass

    yield MyFuture(loop=loop)
    yield MyLock()
    yield MyQueue()


def _recursive(aio, loop):
    future = aio.Future(loop=loop)
    future.set_result([future])
    yield future


def _coroutines_of_the_library(aio, loop):
    for coro in (aio.sleep(0), aio.Lock().acquire(), aio.Event().wait(), aio.Queue().get(), aio.Queue().put(1)):
        task = loop.create_task(coro, name="library")
        text = repr(task)
        # Where the library's own source is, is not compared.
        yield re.sub(r" at \S+:\d+|, defined at \S+:\d+| running", "", text)
        task.cancel()
        loop.run_until_complete(aio.gather(task, return_exceptions=True))


REPRS = [
    _future_states, _future_callbacks, _task_states, _combinators, _handles, _locks, _queues, _timeouts,
    _task_groups, _subclasses, _recursive, _coroutines_of_the_library,
]  # fmt: skip


def normalise(text):
    """Takes out addresses, the counter in default names, and what names the library's own source.

    `<asyncio.locks.Lock object at ...>` names the module that really defines the class; an object that the library
    makes for the user is "created at" a line of asyncio there and at the user's line here; a callback of the library
    has a line of source there only.
    """
    text = re.sub(r"0x[0-9a-fA-F]+", "0x...", text)
    text = re.sub(r"Task-\d+", "Task-N", text)
    text = re.sub(r" created at (\S+):\d+", " created at <file>", text)
    text = re.sub(r"\(\) at \S+/asyncio/\w+\.py:\d+", "()", text)
    return re.sub(r"<(?:_?asyncio|_?aioxide)(?:\.\w+)*\.(?=[A-Z])", "<", text)


def texts_of(case, aio, loop, debug):
    """The reprs of one case."""
    loop.set_debug(debug)
    texts = []
    for item in case(aio, loop):
        text = item if isinstance(item, str) else repr(item)
        texts.append(normalise(text))
    for task in aio.all_tasks(loop):
        task.cancel()
    loop.call_soon(loop.stop)
    loop.run_forever()
    return texts


@pytest.fixture(scope="module", autouse=True)
def small_collections():
    """Keeps what exists already out of the many collections of this module."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


@pytest.fixture
def loop():
    """A native loop."""
    loop = aioxide.new_event_loop()
    yield loop
    loop.close()


@pytest.fixture
def stdlib_loop():
    """A loop of the stdlib."""
    loop = asyncio.SelectorEventLoop()
    yield loop
    loop.close()


@pytest.mark.parametrize("debug", [False, True], ids=["", "debug"])
@pytest.mark.parametrize("case", REPRS, ids=lambda case: case.__name__.strip("_"))
def test_repr(case, debug, loop, stdlib_loop):
    wanted = texts_of(case, asyncio, stdlib_loop, debug)
    assert wanted
    assert texts_of(case, aioxide, loop, debug) == wanted


def test_debug_repr_tells_where_it_was_created(loop):
    loop.set_debug(True)
    makers = [
        lambda: aioxide.Future(loop=loop),
        lambda: loop.create_task(_noop()),
        lambda: loop.call_soon(_callback),
        lambda: loop.call_at(1e9, _callback),
    ]
    for make in makers:
        place = f"{__file__}:{make.__code__.co_firstlineno}>"
        assert repr(make()).rpartition(" created at ")[2] == place
    turn = loop.create_future()
    loop.call_soon(turn.set_result, None)
    loop.run_until_complete(turn)

"""For type checkers only, never run: aioxide's names go wherever asyncio's are asked for."""

import asyncio
import contextlib
import contextvars
import ssl
import sys
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, assert_type

import aioxide
import aioxide.queues
import aioxide.runners
import aioxide.tasks
from aioxide import _aioxide

# Classes.

barrier: type[asyncio.Barrier] = aioxide.Barrier
bounded_semaphore: type[asyncio.BoundedSemaphore] = aioxide.BoundedSemaphore
condition: type[asyncio.Condition] = aioxide.Condition
event: type[asyncio.Event] = aioxide.Event
future: type[asyncio.Future[int]] = aioxide.Future[int]
handle: type[asyncio.Handle] = aioxide.Handle
lifo_queue: type[asyncio.LifoQueue[int]] = aioxide.LifoQueue[int]
lock: type[asyncio.Lock] = aioxide.Lock
loop: type[asyncio.AbstractEventLoop] = aioxide.Loop
priority_queue: type[asyncio.PriorityQueue[int]] = aioxide.PriorityQueue[int]
queue: type[asyncio.Queue[int]] = aioxide.Queue[int]
runner: type[asyncio.Runner] = aioxide.Runner
selector_event_loop: type[asyncio.SelectorEventLoop] = aioxide.SelectorEventLoop
semaphore: type[asyncio.Semaphore] = aioxide.Semaphore
stream_reader: type[asyncio.StreamReader] = aioxide.StreamReader
stream_reader_protocol: type[asyncio.StreamReaderProtocol] = aioxide.StreamReaderProtocol
stream_writer: type[asyncio.StreamWriter] = aioxide.StreamWriter
task: type[asyncio.Task[int]] = aioxide.Task[int]
task_group: type[asyncio.TaskGroup] = aioxide.TaskGroup
timeout_class: type[asyncio.Timeout] = aioxide.Timeout
timer_handle: type[asyncio.TimerHandle] = aioxide.TimerHandle

# Exceptions and constants, which are asyncio's.

cancelled: type[asyncio.CancelledError] = aioxide.CancelledError
queue_full: type[asyncio.QueueFull] = aioxide.QueueFull
first: str = aioxide.FIRST_COMPLETED

# Factories.

factory: Callable[[], asyncio.AbstractEventLoop] = aioxide.new_event_loop
assert_type(aioxide.new_event_loop(), _aioxide.Loop)
with asyncio.Runner(loop_factory=aioxide.new_event_loop) as native_runner:
    native_runner.get_loop()
with aioxide.Runner(debug=True) as own_runner:
    own_runner.run(aioxide.sleep(0))


class Derived(aioxide.Loop):
    """A loop may be derived from, and made."""

    def call_soon(
        self, callback: Callable[..., object], *args: object, context: contextvars.Context | None = None
    ) -> asyncio.Handle:
        return super().call_soon(callback, *args, context=context)


derived: asyncio.AbstractEventLoop = Derived()

# Functions, by what they take and give.


async def number() -> int:
    return 42


async def text() -> str:
    return ""


async def main() -> None:
    # Each kind of name goes through the other's functions.
    one: asyncio.Task[int] = aioxide.create_task(number(), name="one", context=contextvars.copy_context())
    two: aioxide.Task[int] = asyncio.create_task(number())
    three = aioxide.create_task(text(), eager_start=True)
    assert_type(three, asyncio.Task[str])
    assert_type(await aioxide.gather(one, two, three), tuple[int, int, str])
    assert_type(await asyncio.gather(aioxide.sleep(0, 1), text()), tuple[int, str])
    assert_type(await aioxide.shield(one), int)
    assert_type(await aioxide.wait_for(number(), 1), int)
    done, _ = await aioxide.wait([one, two], return_when=aioxide.FIRST_COMPLETED)
    assert_type(done, set[asyncio.Task[int]])
    assert_type(await aioxide.to_thread(len, ""), int)
    assert_type(aioxide.ensure_future(number()), asyncio.Task[int])
    assert_type(aioxide.current_task(), asyncio.Task[Any] | None)
    async with aioxide.timeout(1) as limit, aioxide.timeout_at(None):
        assert_type(limit, asyncio.Timeout)
    async for completed in aioxide.as_completed([one, two]):
        assert_type(await completed, int)
    for awaitable in aioxide.as_completed([one, two]):
        assert_type(await awaitable, int)
    async with aioxide.TaskGroup() as group:
        assert_type(group.create_task(number(), eager_start=True), asyncio.Task[int])
        group.cancel()
    items: asyncio.Queue[str] = aioxide.Queue(1)
    own: aioxide.Queue[str] = aioxide.Queue()
    assert_type(await items.get(), str)
    own.shutdown(immediate=True)
    with contextlib.suppress(aioxide.QueueShutDown):
        own.put_nowait("")
    heap: aioxide.PriorityQueue[int] = aioxide.PriorityQueue()
    heap.shutdown()
    reader, writer = await aioxide.open_connection("localhost", 80)
    assert_type(reader, asyncio.StreamReader)
    assert_type(writer, asyncio.StreamWriter)
    server: asyncio.Server = await aioxide.start_server(serve, port=0)
    await server.serve_forever()
    running = aioxide.get_running_loop()
    running.set_task_factory(aioxide.eager_task_factory)


async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await aioxide.Lock().acquire()


async def with_the_loop(native: aioxide.Loop, context: ssl.SSLContext) -> None:
    assert_type(native.create_task(number(), eager_start=False), asyncio.Task[int])
    assert_type(native.call_soon(print, "text"), asyncio.Handle)
    assert_type(native.call_later(1, print, "text"), asyncio.TimerHandle)
    transport, protocol = await native.create_connection(asyncio.Protocol, "localhost", 443, ssl=context)
    assert_type(transport, asyncio.Transport)
    assert_type(protocol, asyncio.Protocol)
    await native.create_connection(asyncio.Protocol, "localhost", 80, happy_eyeballs_delay=0.25, all_errors=True)
    assert_type(await native.run_in_executor(None, len, ""), int)
    await native.shutdown_default_executor(timeout=1)
    server = await native.create_server(asyncio.Protocol, port=80, keep_alive=True)
    assert_type(server, asyncio.Server)


assert_type(aioxide.run(number()), int)
awaitable: Awaitable[str] = text()
aioxide.run(awaitable, debug=True, loop_factory=aioxide.new_event_loop)

# Modules.

assert_type(aioxide.tasks.Task[int], type[asyncio.Task[int]])
aioxide.queues.Queue[int]().shutdown()
aioxide.runners.run(main())
start_server: Callable[..., Coroutine[Any, Any, asyncio.Server]] = aioxide.streams.start_server
race = aioxide.staggered.staggered_race([text], None)
assert_type(aioxide.subprocess.PIPE, int)
assert_type(aioxide.subprocess.Process, type[asyncio.subprocess.Process])

# Its own.

aioxide.install()
aioxide.install("loop", rebind_importers=True, children=True)
aioxide.install("half")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
assert_type(aioxide.status().native, tuple[str, ...])
assert_type(aioxide.__version__, str)
aioxide.uninstall()
aioxide.nonsense  # type: ignore[attr-defined]  # pyright: ignore

if sys.version_info >= (3, 14):
    aioxide.print_call_graph()

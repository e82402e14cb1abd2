"""The extension module.

Where a class or function does what asyncio's does, it *is* asyncio's for a type checker: programs
mix the two, as in `task: asyncio.Task[int] = aioxide.create_task(...)`, and at run time a native
task is an instance of `asyncio.Task`. What is declared here is what asyncio has no word for: the
loop's class, and whatever came with a later Python than the one that is checked for.
"""

import asyncio
import sys
from asyncio import ALL_COMPLETED as ALL_COMPLETED
from asyncio import FIRST_COMPLETED as FIRST_COMPLETED
from asyncio import FIRST_EXCEPTION as FIRST_EXCEPTION
from asyncio import Barrier as Barrier
from asyncio import BoundedSemaphore as BoundedSemaphore
from asyncio import Condition as Condition
from asyncio import Event as Event
from asyncio import Future as Future
from asyncio import Handle as Handle
from asyncio import Lock as Lock
from asyncio import Runner as Runner
from asyncio import Semaphore as Semaphore
from asyncio import StreamReader as StreamReader
from asyncio import StreamReaderProtocol as StreamReaderProtocol
from asyncio import StreamWriter as StreamWriter
from asyncio import Task as Task
from asyncio import Timeout as Timeout
from asyncio import TimerHandle as TimerHandle
from asyncio import create_subprocess_exec as create_subprocess_exec
from asyncio import create_subprocess_shell as create_subprocess_shell
from asyncio import ensure_future as ensure_future
from asyncio import gather as gather
from asyncio import isfuture as isfuture
from asyncio import open_connection as open_connection
from asyncio import open_unix_connection as open_unix_connection
from asyncio import run_coroutine_threadsafe as run_coroutine_threadsafe
from asyncio import shield as shield
from asyncio import sleep as sleep
from asyncio import start_server as start_server
from asyncio import start_unix_server as start_unix_server
from asyncio import timeout as timeout
from asyncio import timeout_at as timeout_at
from asyncio import to_thread as to_thread
from asyncio import wait as wait
from asyncio import wait_for as wait_for
from asyncio import wrap_future as wrap_future
from asyncio.base_events import Server
from asyncio.sslproto import SSLProtocol as SSLProtocol
from asyncio.staggered import staggered_race as staggered_race
from collections.abc import (
    AsyncIterator,
    Awaitable,
    Callable,
    Coroutine,
    Generator,
    Iterable,
    Iterator,
    Mapping,
    Sequence,
)
from concurrent.futures import Executor, ThreadPoolExecutor
from contextvars import Context
from socket import AddressFamily, SocketKind, socket
from ssl import SSLContext
from typing import IO, Any, Literal, Protocol, TypeAlias, TypeVar

from _typeshed import FileDescriptorLike, ReadableBuffer, StrPath, SupportsRichComparisonT, WriteableBuffer
from typing_extensions import TypeVarTuple

_T = TypeVar("_T")
_Ts = TypeVarTuple("_Ts")
_ProtocolT = TypeVar("_ProtocolT", bound=asyncio.BaseProtocol)
_TaskT_co = TypeVar("_TaskT_co", bound=asyncio.Task[Any], covariant=True)

if sys.version_info >= (3, 12):
    _CoroutineLike: TypeAlias = Coroutine[Any, Any, _T]
    _AwaitableLike: TypeAlias = Awaitable[_T]
else:
    _CoroutineLike: TypeAlias = Coroutine[Any, Any, _T] | Generator[Any, None, _T]
    _AwaitableLike: TypeAlias = Awaitable[_T] | Generator[Any, None, _T]

_ProtocolFactory: TypeAlias = Callable[[], asyncio.BaseProtocol]
_Context: TypeAlias = dict[str, Any]
_ExceptionHandler: TypeAlias = Callable[[asyncio.AbstractEventLoop, _Context], object]
_SSL: TypeAlias = bool | SSLContext | None
_Address: TypeAlias = tuple[Any, ...] | str | ReadableBuffer | int
_Pipe: TypeAlias = int | IO[Any] | None

class _TaskFactory(Protocol):
    def __call__(self, loop: asyncio.AbstractEventLoop, factory: _CoroutineLike[_T], /) -> asyncio.Future[_T]: ...

__version__: str

#: The names this build offers, by the asyncio module that has them.
NAMES: Mapping[str, tuple[str, ...]]

class BaseEventLoop:
    slow_callback_duration: float
    # Running.
    def run_forever(self) -> None: ...
    def run_until_complete(self, future: _AwaitableLike[_T]) -> _T: ...
    def stop(self) -> None: ...
    def is_running(self) -> bool: ...
    def is_closed(self) -> bool: ...
    def close(self) -> None: ...
    async def shutdown_asyncgens(self) -> None: ...
    async def shutdown_default_executor(self, timeout: float | None = None) -> None: ...
    # Scheduling.
    def call_soon(
        self, callback: Callable[[*_Ts], object], *args: *_Ts, context: Context | None = None
    ) -> asyncio.Handle: ...
    def call_soon_threadsafe(
        self, callback: Callable[[*_Ts], object], *args: *_Ts, context: Context | None = None
    ) -> asyncio.Handle: ...
    def call_later(
        self,
        delay: float,
        callback: Callable[[*_Ts], object],
        *args: *_Ts,
        context: Context | None = None,
    ) -> asyncio.TimerHandle: ...
    def call_at(
        self, when: float, callback: Callable[[*_Ts], object], *args: *_Ts, context: Context | None = None
    ) -> asyncio.TimerHandle: ...
    def time(self) -> float: ...
    # Futures and tasks.
    def create_future(self) -> asyncio.Future[Any]: ...
    # Any other keyword goes to the task factory.
    def create_task(
        self,
        coro: _CoroutineLike[_T],
        *,
        name: str | None = None,
        context: Context | None = None,
        eager_start: bool | None = None,
        **kwargs: Any,
    ) -> asyncio.Task[_T]: ...
    def set_task_factory(self, factory: _TaskFactory | None) -> None: ...
    def get_task_factory(self) -> _TaskFactory | None: ...
    # Threads and names.
    def run_in_executor(
        self, executor: Executor | None, func: Callable[[*_Ts], _T], *args: *_Ts
    ) -> asyncio.Future[_T]: ...
    def set_default_executor(self, executor: ThreadPoolExecutor) -> None: ...
    async def getaddrinfo(
        self,
        host: bytes | str | None,
        port: bytes | str | int | None,
        *,
        family: int = 0,
        type: int = 0,
        proto: int = 0,
        flags: int = 0,
    ) -> list[
        tuple[Literal[AddressFamily.AF_INET], SocketKind, int, str, tuple[str, int]]
        | tuple[Literal[AddressFamily.AF_INET6], SocketKind, int, str, tuple[str, int, int, int] | tuple[int, bytes]]
    ]: ...
    async def getnameinfo(
        self, sockaddr: tuple[str, int] | tuple[str, int, int, int], flags: int = 0
    ) -> tuple[str, str]: ...
    # Connections and servers.
    async def create_connection(
        self,
        protocol_factory: Callable[[], _ProtocolT],
        host: str | None = None,
        port: int | None = None,
        *,
        ssl: _SSL = None,
        family: int = 0,
        proto: int = 0,
        flags: int = 0,
        sock: socket | None = None,
        local_addr: tuple[str, int] | None = None,
        server_hostname: str | None = None,
        ssl_handshake_timeout: float | None = None,
        ssl_shutdown_timeout: float | None = None,
        happy_eyeballs_delay: float | None = None,
        interleave: int | None = None,
        all_errors: bool = False,
    ) -> tuple[asyncio.Transport, _ProtocolT]: ...
    async def create_server(
        self,
        protocol_factory: _ProtocolFactory,
        host: str | Sequence[str] | None = None,
        port: int | None = None,
        *,
        family: int = ...,
        flags: int = ...,
        sock: socket | None = None,
        backlog: int = 100,
        ssl: _SSL = None,
        reuse_address: bool | None = None,
        reuse_port: bool | None = None,
        keep_alive: bool | None = None,
        ssl_handshake_timeout: float | None = None,
        ssl_shutdown_timeout: float | None = None,
        start_serving: bool = True,
    ) -> Server: ...
    async def create_unix_connection(
        self,
        protocol_factory: Callable[[], _ProtocolT],
        path: StrPath | None = None,
        *,
        ssl: _SSL = None,
        sock: socket | None = None,
        server_hostname: str | None = None,
        ssl_handshake_timeout: float | None = None,
        ssl_shutdown_timeout: float | None = None,
    ) -> tuple[asyncio.Transport, _ProtocolT]: ...
    async def create_unix_server(
        self,
        protocol_factory: _ProtocolFactory,
        path: StrPath | None = None,
        *,
        sock: socket | None = None,
        backlog: int = 100,
        ssl: _SSL = None,
        ssl_handshake_timeout: float | None = None,
        ssl_shutdown_timeout: float | None = None,
        start_serving: bool = True,
        cleanup_socket: bool = ...,
    ) -> Server: ...
    async def connect_accepted_socket(
        self,
        protocol_factory: Callable[[], _ProtocolT],
        sock: socket,
        *,
        ssl: _SSL = None,
        ssl_handshake_timeout: float | None = None,
        ssl_shutdown_timeout: float | None = None,
    ) -> tuple[asyncio.Transport, _ProtocolT]: ...
    async def start_tls(
        self,
        transport: asyncio.WriteTransport,
        protocol: asyncio.BaseProtocol,
        sslcontext: SSLContext,
        *,
        server_side: bool = False,
        server_hostname: str | None = None,
        ssl_handshake_timeout: float | None = None,
        ssl_shutdown_timeout: float | None = None,
    ) -> asyncio.Transport | None: ...
    async def sendfile(
        self,
        transport: asyncio.WriteTransport,
        file: IO[bytes],
        offset: int = 0,
        count: int | None = None,
        *,
        fallback: bool = True,
    ) -> int: ...
    # asyncio refuses `reuse_address` whatever it is; it is gone here as it is from asyncio's documentation.
    async def create_datagram_endpoint(
        self,
        protocol_factory: Callable[[], _ProtocolT],
        local_addr: tuple[str, int] | str | None = None,
        remote_addr: tuple[str, int] | str | None = None,
        *,
        family: int = 0,
        proto: int = 0,
        flags: int = 0,
        reuse_port: bool | None = None,
        allow_broadcast: bool | None = None,
        sock: socket | None = None,
    ) -> tuple[asyncio.DatagramTransport, _ProtocolT]: ...
    # Pipes and subprocesses.
    async def connect_read_pipe(
        self, protocol_factory: Callable[[], _ProtocolT], pipe: Any
    ) -> tuple[asyncio.ReadTransport, _ProtocolT]: ...
    async def connect_write_pipe(
        self, protocol_factory: Callable[[], _ProtocolT], pipe: Any
    ) -> tuple[asyncio.WriteTransport, _ProtocolT]: ...
    async def subprocess_shell(
        self,
        protocol_factory: Callable[[], _ProtocolT],
        cmd: bytes | str,
        *,
        stdin: _Pipe = -1,
        stdout: _Pipe = -1,
        stderr: _Pipe = -1,
        universal_newlines: Literal[False] = False,
        shell: Literal[True] = True,
        bufsize: Literal[0] = 0,
        encoding: None = None,
        errors: None = None,
        text: Literal[False] | None = None,
        **kwargs: Any,
    ) -> tuple[asyncio.SubprocessTransport, _ProtocolT]: ...
    async def subprocess_exec(
        self,
        protocol_factory: Callable[[], _ProtocolT],
        program: Any,
        *args: Any,
        stdin: _Pipe = -1,
        stdout: _Pipe = -1,
        stderr: _Pipe = -1,
        universal_newlines: Literal[False] = False,
        shell: Literal[False] = False,
        bufsize: Literal[0] = 0,
        encoding: None = None,
        errors: None = None,
        text: Literal[False] | None = None,
        **kwargs: Any,
    ) -> tuple[asyncio.SubprocessTransport, _ProtocolT]: ...
    # Descriptors and sockets.
    def add_reader(self, fd: FileDescriptorLike, callback: Callable[[*_Ts], Any], *args: *_Ts) -> None: ...
    def remove_reader(self, fd: FileDescriptorLike) -> bool: ...
    def add_writer(self, fd: FileDescriptorLike, callback: Callable[[*_Ts], Any], *args: *_Ts) -> None: ...
    def remove_writer(self, fd: FileDescriptorLike) -> bool: ...
    async def sock_recv(self, sock: socket, n: int) -> bytes: ...
    async def sock_recv_into(self, sock: socket, buf: WriteableBuffer) -> int: ...
    async def sock_recvfrom(self, sock: socket, bufsize: int) -> tuple[bytes, Any]: ...
    async def sock_recvfrom_into(self, sock: socket, buf: WriteableBuffer, nbytes: int = 0) -> tuple[int, Any]: ...
    async def sock_sendall(self, sock: socket, data: ReadableBuffer) -> None: ...
    async def sock_sendto(self, sock: socket, data: ReadableBuffer, address: _Address) -> int: ...
    async def sock_connect(self, sock: socket, address: _Address) -> None: ...
    async def sock_accept(self, sock: socket) -> tuple[socket, Any]: ...
    async def sock_sendfile(
        self,
        sock: socket,
        file: IO[bytes],
        offset: int = 0,
        count: int | None = None,
        *,
        fallback: bool | None = True,
    ) -> int: ...
    # Signals.
    def add_signal_handler(self, sig: int, callback: Callable[[*_Ts], object], *args: *_Ts) -> None: ...
    def remove_signal_handler(self, sig: int) -> bool: ...
    # Errors and debugging.
    def set_exception_handler(self, handler: _ExceptionHandler | None) -> None: ...
    def get_exception_handler(self) -> _ExceptionHandler | None: ...
    def call_exception_handler(self, context: _Context) -> None: ...
    def get_debug(self) -> bool: ...
    def set_debug(self, enabled: bool) -> None: ...

# `set_default_executor` takes thread pools only, as BaseEventLoop's does, and see `create_datagram_endpoint`.
class Loop(BaseEventLoop, asyncio.AbstractEventLoop):  # type: ignore[misc]
    def default_exception_handler(self, context: _Context) -> None: ...

def new_event_loop() -> Loop: ...
def _chain_future(source: Any, destination: Any) -> None: ...
def _copy_future_state(source: Any, dest: Any) -> None: ...
def _tls_direct(allowed: bool | None = None) -> bool: ...
def _has_made_loops() -> bool: ...
def _native_tasks() -> list[asyncio.Task[Any]]: ...

class _GatheringFuture(asyncio.Future[_T]):
    def __init__(self, children: Iterable[asyncio.Future[Any]], *, loop: asyncio.AbstractEventLoop | None) -> None: ...

class _ThreadSafeHandle(asyncio.Handle): ...

# As in 3.14.
def run(
    main: Awaitable[_T],
    *,
    debug: bool | None = None,
    loop_factory: Callable[[], asyncio.AbstractEventLoop] | None = None,
) -> _T: ...
def create_task(
    coro: _CoroutineLike[_T],
    *,
    name: str | None = None,
    context: Context | None = None,
    eager_start: bool | None = None,
    **kwargs: Any,
) -> asyncio.Task[_T]: ...

class _EagerTaskFactory(Protocol[_TaskT_co]):
    def __call__(
        self,
        loop: asyncio.AbstractEventLoop,
        coro: _CoroutineLike[Any],
        *,
        eager_start: bool = True,
        name: str | None = None,
        context: Context | None = None,
    ) -> _TaskT_co: ...

if sys.version_info >= (3, 12):
    from asyncio import create_eager_task_factory as create_eager_task_factory
    from asyncio import eager_task_factory as eager_task_factory
else:
    def create_eager_task_factory(
        custom_task_constructor: Callable[..., _TaskT_co],
    ) -> _EagerTaskFactory[_TaskT_co]: ...
    def eager_task_factory(
        loop: asyncio.AbstractEventLoop,
        coro: _CoroutineLike[_T],
        *,
        eager_start: bool = True,
        name: str | None = None,
        context: Context | None = None,
    ) -> asyncio.Task[_T]: ...

if sys.version_info >= (3, 13):
    from asyncio import LifoQueue as LifoQueue
    from asyncio import PriorityQueue as PriorityQueue
    from asyncio import Queue as Queue
    from asyncio import QueueShutDown as QueueShutDown
    from asyncio import as_completed as as_completed
else:
    class QueueShutDown(Exception): ...

    class Queue(asyncio.Queue[_T]):
        def shutdown(self, immediate: bool = False) -> None: ...

    class PriorityQueue(asyncio.PriorityQueue[SupportsRichComparisonT]):
        def shutdown(self, immediate: bool = False) -> None: ...

    class LifoQueue(asyncio.LifoQueue[_T]):
        def shutdown(self, immediate: bool = False) -> None: ...

    class _Completed(Iterator[asyncio.Future[_T]], AsyncIterator[asyncio.Future[_T]], Protocol[_T]): ...

    def as_completed(
        fs: Iterable[asyncio.Future[_T] | Awaitable[_T]], *, timeout: float | None = None
    ) -> _Completed[_T]: ...

if sys.version_info >= (3, 15):
    from asyncio import TaskGroup as TaskGroup
else:
    class TaskGroup(asyncio.TaskGroup):
        def create_task(
            self,
            coro: _CoroutineLike[_T],
            *,
            name: str | None = None,
            context: Context | None = None,
            eager_start: bool | None = None,
            **kwargs: Any,
        ) -> asyncio.Task[_T]: ...
        def cancel(self) -> None: ...

"""Defects seen in other event loops, each with a small test that it is not one of ours.

What other files test is named here and not tested again:

| Behaviour | Where |
|---|---|
| a patched loop.time() drives the timers | test_base_events.py: test_clock_of_a_test |
| very long, infinite and past delays | test_base_events.py: test_delays_that_never_end, test_delays_that_are_over |
| nested runs and runs in two threads are refused | test_interrupt.py: test_nested_run_is_refused |
| Ctrl-C on an idle loop acts at once | test_interrupt.py: test_ctrl_c_on_an_idle_run... |
| call_soon_threadsafe in a Python signal handler | test_interrupt.py: test_python_signal_handler_on_an_idle_loop |
| KeyboardInterrupt, SystemExit of callbacks and tasks | test_interrupt.py: test_it_comes_out_of_a_callback and others |
| a loop of its own after fork() | test_fork.py |
| add_reader() knows file objects, removal says whether | test_fork.py: test_child_that_removes_an_inherited_reader... |
| factories that raise: clients | both test_..._connections.py: test_factory_that_raises |
| factories that raise, leave the loop, close the server | test_servers.py: test_factory_that_raises and next to it |
| happy_eyeballs_delay, interleave, all_errors | test_connections.py: test_race_is_won, test_interleave |
| hosts of a server, reuse_port, keep_alive | test_servers.py: test_hosts, test_options |
| contexts of servers and connections | test_servers.py: test_each_connection_has... |
| serve_forever() cancelled by close() | test_servers.py: test_close_ends_serve_forever |
| wait_closed() waits for clients | test_servers.py: test_wait_closed_waits_for_connections |
| close_clients(), abort_clients() | test_servers.py: test_clients_are_closed |
| Unix sockets, abstract names, removal of the file | test_unix_connections.py: test_abstract_name |
| connect_accepted_socket() | test_connections.py: test_accepted_socket_arguments; test_network_faults.py |
| regular files as pipes are refused | test_pipes.py: test_regular_files_are_refused |
| sock_recv(), sock_recvfrom(), sock_sendto() and the like | test_sock.py |
| Unix datagrams, error_received() | test_datagram.py |
| buffers may be reused after write() | test_stream_transports.py: test_a_snapshot_is_sent |
| callbacks of a protocol that raise | test_stream_transports.py: test_a_raising_callback... |
| half-closed connections, flow control | test_stream_transports.py: test_half_closed..., test_flow_control |
| other protocols take over (set_protocol) | test_stream_transports.py: test_another_protocol_takes_over |
| closed transports can be collected | test_stream_transports.py: test_nothing_keeps_it_alive... |
| task factories make every task, with name and context | test_foreign.py: test_task_factory_makes_every_task |
| getaddrinfo() equals the C library's | test_names.py: test_every_usual_question... |
| cancelled connects leave no descriptor and no registration | test_network_faults.py: test_cancelled_at_every_moment |
| importing changes nothing in asyncio | test_parity.py: test_import_changes_nothing_in_asyncio |
"""

import asyncio
import concurrent.futures
import contextlib
import contextvars
import functools
import gc
import os
import signal
import socket
import subprocess
import sys
import textwrap
import threading
import time
import traceback
import weakref

import pytest
from waiting import PATIENCE, until

import aioxide


@pytest.fixture
def loop(loop):
    """A loop of either kind whose executor ends with the test."""
    yield loop
    loop.run_until_complete(loop.shutdown_default_executor())


def program(text):
    """What a program prints; both kinds of loop are at hand in it."""
    command = [sys.executable, "-c", textwrap.dedent(text)]
    result = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (result.returncode, result.stderr) == (0, "")
    return result.stdout


# The clock and timers.


def test_the_clock_is_the_monotonic_one(loop):
    """Deadlines can be computed from time.monotonic()."""
    before = time.monotonic()
    assert before <= loop.time() <= time.monotonic()


def test_timers_are_never_early(own):
    """Short timers of odd lengths: none fires before its time, by the system's clock."""
    early = []

    def fire(due):
        if time.monotonic() < due:
            early.append(due)

    async def main():
        for number in range(300):
            due = time.monotonic() + 0.0003 + number * 0.000013
            own.call_at(due, fire, due)
        await asyncio.sleep(0.006)

    own.run_until_complete(main())
    assert early == []


def test_equal_deadlines_are_first_in_first_out(own):
    """asyncio promises no order here; those made first fire first."""
    fired = []
    when = own.time() + 0.001
    for number in range(100):
        own.call_at(when, fired.append, number)
    own.call_at(when, own.stop)
    own.run_forever()
    assert fired == list(range(100))


def test_a_delay_of_nothing_makes_a_timer(aio, loop):
    """It has when(), as any other."""
    for delay in (0, -1, 0.0):
        handle = loop.call_later(delay, print)
        assert isinstance(handle, aio.TimerHandle)
        assert abs(handle.when() - loop.time() - delay) < 1
        handle.cancel()


# Callbacks.


def test_callbacks_of_threads_keep_their_place(loop):
    """Callbacks from here and from other threads run in the order in which they were scheduled."""
    order = []

    def both():
        for number in range(10):
            loop.call_soon(order.append, 2 * number)
            thread = threading.Thread(target=loop.call_soon_threadsafe, args=(order.append, 2 * number + 1))
            thread.start()
            thread.join()
        loop.call_later(0.001, loop.stop)

    loop.call_soon(both)
    loop.run_forever()
    assert sorted(order) == list(range(20))
    assert order[::2] == sorted(order[::2])
    assert [each for each in order if each % 2] == list(range(1, 20, 2))


def test_scheduled_here_by_both_methods_they_keep_their_order(loop):
    """call_soon() and call_soon_threadsafe() in the loop's own thread are one queue."""
    order = []
    for number in range(20):
        (loop.call_soon if number % 3 else loop.call_soon_threadsafe)(order.append, number)
    loop.call_soon(loop.stop)
    loop.run_forever()
    assert order == list(range(20))


def test_a_callback_from_a_thread_has_the_threads_context(loop):
    """The context variables of whoever called call_soon_threadsafe()."""
    variable = contextvars.ContextVar("variable", default="the loop's")
    seen = []

    def thread():
        variable.set("the thread's")
        loop.call_soon_threadsafe(lambda: (seen.append(variable.get()), loop.stop()))

    loop.call_soon(lambda: started.start())
    started = threading.Thread(target=thread)
    loop.run_forever()
    started.join()
    assert seen == ["the thread's"]


def test_stop_before_the_run_lets_what_is_queued_run(loop):
    """run_forever() after stop() runs one turn, with what was scheduled before and after stop()."""
    ran = []
    loop.call_soon(ran.append, 1)
    loop.stop()
    loop.call_soon(ran.append, 2)
    loop.run_forever()
    assert ran == [1, 2]
    assert not loop.is_running()


def test_a_closed_loop_is_closed(aio):
    """Nothing can be scheduled on it, or run."""
    loop = asyncio.SelectorEventLoop() if aio is asyncio else aioxide.new_event_loop()
    loop.close()
    loop.close()
    for call in (lambda: loop.call_soon(print), lambda: loop.call_later(0, print), loop.run_forever):
        with pytest.raises(RuntimeError, match="Event loop is closed"):
            call()


@pytest.mark.logs_errors
def test_an_exception_handler_that_raises(loop, caplog):
    """It is logged, and the loop goes on."""

    def handler(loop, context):
        raise ValueError("handler")

    loop.set_exception_handler(handler)
    loop.call_soon(lambda: 1 / 0)
    loop.call_soon(lambda: 1 / 0)
    loop.call_soon(loop.stop)
    loop.run_forever()
    assert loop.run_until_complete(asyncio.sleep(0, "alive")) == "alive"
    assert [record.message.split("\n")[0] for record in caplog.records] == ["Unhandled error in exception handler"] * 2


def test_errors_of_callbacks_reach_the_exception_handler(loop):
    """With the message, the exception and the handle that asyncio gives."""
    contexts = []
    loop.set_exception_handler(lambda loop, context: contexts.append(context))

    def fail():
        raise ValueError("callback")

    handle = loop.call_soon(fail)
    loop.call_soon(loop.stop)
    loop.run_forever()
    (context,) = contexts
    assert context["message"].startswith("Exception in callback")
    assert isinstance(context["exception"], ValueError)
    assert context["handle"] is handle


@pytest.mark.parametrize("method", ["call_soon", "call_soon_threadsafe", "call_later", "call_at", "run_in_executor"])
def test_debug_mode_refuses_coroutines_as_callbacks(aio, loop, method):
    """Neither coroutine functions nor coroutines can be called back."""

    async def coroutine():
        pass

    loop.set_debug(True)
    first = {"call_later": (0,), "call_at": (0,), "run_in_executor": (None,)}.get(method, ())
    with pytest.raises(TypeError, match=r"[Cc]oroutine"):
        getattr(loop, method)(*first, coroutine)


def test_debug_mode_refuses_other_threads(loop):
    """call_soon() in a thread that is not the loop's."""
    loop.set_debug(True)
    errors = []

    def thread():
        try:
            loop.call_soon(print)
        except RuntimeError as error:
            errors.append(str(error))

    def start():
        other = threading.Thread(target=thread)
        other.start()
        other.join()
        loop.stop()

    loop.call_soon(start)
    loop.run_forever()
    assert len(errors) == 1
    assert "Non-thread-safe operation" in errors[0]


def test_debug_mode_logs_slow_callbacks(loop, caplog):
    loop.set_debug(True)
    loop.slow_callback_duration = 0.0
    with caplog.at_level("WARNING", "asyncio"):
        loop.call_soon(time.sleep, 0.001)
        loop.call_soon(loop.stop)
        loop.run_forever()
    assert any("took" in record.message and "sleep" in record.message for record in caplog.records)


def test_sockets_are_served_although_a_task_never_waits(loop):
    """Under a task that only sleeps for nothing, what is readable is read within 16 turns."""
    counts = []

    async def main():
        near, far = socket.socketpair()
        near.setblocking(False)
        with near, far:
            turns = 0
            readable = []
            loop.add_reader(near, lambda: (near.recv(1), readable.append(turns)))
            for _ in range(20):
                for _ in range(50):
                    await asyncio.sleep(0)
                far.send(b"x")
                turns = 0
                while not readable:
                    turns += 1
                    assert turns <= 16
                    await asyncio.sleep(0)
                counts.append(readable.pop())
            loop.remove_reader(near)

    loop.run_until_complete(main())
    assert len(counts) == 20


def test_timers_fire_although_a_task_never_waits(loop):
    """A timer that is due is not starved, either."""

    async def main():
        fired = []
        loop.call_later(0.001, fired.append, True)
        await until(lambda: fired)

    loop.run_until_complete(main())


def test_cycles_through_handles_are_collected(loop):
    """A handle whose callback refers to the handle."""

    class Callback:
        def __call__(self):
            pass

    references = []
    for schedule in (loop.call_soon, loop.call_soon_threadsafe, functools.partial(loop.call_later, 3600)):
        callback = Callback()
        callback.handle = schedule(callback)
        callback.handle.cancel()
        references.append(weakref.ref(callback))
    loop.call_soon(loop.stop)
    loop.run_forever()
    del callback
    gc.collect()
    assert [reference() for reference in references] == [None] * 3


def test_cycles_through_a_loop_that_was_never_run_are_collected():
    """A closed loop dies with what it holds, though each refers to the other."""

    class Callback:
        def __call__(self):
            pass

    callback = Callback()
    callback.loop = aioxide.new_event_loop()
    callback.loop.set_exception_handler(lambda *_, callback=callback: None)
    callback.loop.call_soon(callback)
    callback.loop.call_later(3600, callback)
    callback.loop.close()
    reference = weakref.ref(callback)
    del callback
    gc.collect()
    assert reference() is None


# Tasks.


@pytest.mark.skipif(sys.version_info < (3, 12), reason="3.12 has eager tasks")
def test_the_eager_task_factory_is_honoured(aio, loop):
    """The coroutine starts within create_task()."""
    loop.set_task_factory(aio.eager_task_factory)

    async def main():
        started = []

        async def child():
            started.append(True)
            await asyncio.sleep(0)
            return "done"

        task = asyncio.create_task(child(), name="eager")
        assert started == [True]
        assert task.get_name() == "eager"
        assert await task == "done"

    loop.run_until_complete(main())


def _with_context(loop, coro, context=None):
    return asyncio.Task(coro, loop=loop, context=context)


def _with_keywords(loop, coro, **kwargs):
    return asyncio.Task(coro, loop=loop, **kwargs)


def _without_keywords(loop, coro):
    return asyncio.Task(coro, loop=loop)


@pytest.mark.parametrize("factory", [_without_keywords, _with_context, _with_keywords])
def test_task_factories_get_what_they_can_take(loop, factory):
    """Nobody passes a keyword that the caller of create_task() did not give."""
    loop.set_task_factory(factory)

    async def value():
        return 42

    async def main():
        task = loop.create_task(value())
        assert type(task) is asyncio.Task
        return await task

    assert loop.run_until_complete(main()) == 42
    if factory is not _without_keywords:
        context = contextvars.copy_context()
        assert loop.run_until_complete(loop.create_task(value(), context=context)) == 42


def test_methods_of_the_network_are_coroutines(loop):
    """create_task() takes what they return."""

    async def main():
        server = await loop.create_task(loop.create_server(asyncio.Protocol, "127.0.0.1", 0))
        address = server.sockets[0].getsockname()
        transport, _ = await loop.create_task(loop.create_connection(asyncio.Protocol, *address))
        serving = loop.create_task(server.serve_forever())
        await asyncio.sleep(0)
        transport.close()
        server.close()
        with pytest.raises(asyncio.CancelledError):
            await serving
        await loop.create_task(server.wait_closed())
        with socket.socket() as near:
            near.setblocking(False)
            for coroutine in (
                loop.sock_recv(near, 1),
                loop.sock_connect(near, address),
                loop.sock_accept(near),
                loop.sock_sendall(near, b""),
                loop.getaddrinfo("127.0.0.1", 1),
                loop.connect_accepted_socket(asyncio.Protocol, near),
                loop.create_datagram_endpoint(asyncio.DatagramProtocol, local_addr=("127.0.0.1", 0)),
            ):
                assert asyncio.iscoroutine(coroutine)
                coroutine.close()

    loop.run_until_complete(main())


# Executors.


def test_the_default_executor_has_a_limit(own):
    """As many threads as concurrent.futures has by default, for any number of calls."""
    limit = concurrent.futures.ThreadPoolExecutor()._max_workers
    names = set()
    most = 0

    def work():
        nonlocal most
        names.add(threading.get_ident())
        most = max(most, threading.active_count())

    before = threading.active_count()

    async def main():
        await asyncio.gather(*[own.run_in_executor(None, work) for _ in range(300)])

    own.run_until_complete(main())
    assert most - before <= limit


def test_the_default_executor_has_to_run_threads(loop):
    """Anything else is refused."""
    for wrong in (None, object(), concurrent.futures.Executor()):
        with pytest.raises(TypeError, match="ThreadPoolExecutor"):
            loop.set_default_executor(wrong)


# Signals.


@pytest.fixture
def signals():
    """The handlers of two signals are as before afterwards."""
    before = {number: signal.getsignal(number) for number in (signal.SIGUSR1, signal.SIGUSR2)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def test_a_signal_right_after_its_handler_was_added(loop, signals):
    """It is the handler that gets it, not the process."""
    got = []
    for _ in range(30):
        loop.add_signal_handler(signal.SIGUSR1, lambda: (got.append(True), loop.stop()))
        os.kill(os.getpid(), signal.SIGUSR1)
        loop.run_forever()
        assert loop.remove_signal_handler(signal.SIGUSR1)
        assert not loop.remove_signal_handler(signal.SIGUSR1)
    assert len(got) == 30


def test_signals_that_cannot_be_caught_are_refused(loop):
    """SIGKILL and SIGSTOP cannot, other numbers are no signals."""
    for number in (signal.SIGKILL, signal.SIGSTOP):
        with pytest.raises(RuntimeError, match=f"sig {number:d} cannot be caught"):
            loop.add_signal_handler(number, print)
    for number in (0, -1, 10_000):
        with pytest.raises(ValueError, match="invalid signal number"):
            loop.add_signal_handler(number, print)
    with pytest.raises(TypeError, match="sig must be an int"):
        loop.add_signal_handler("SIGUSR1", print)
    assert not loop.remove_signal_handler(signal.SIGKILL)


def test_a_signal_handler_in_place_of_another(loop, signals):
    """The later one is called; after its removal the signal has its default again."""
    got = []
    loop.add_signal_handler(signal.SIGUSR1, got.append, 1)
    loop.add_signal_handler(signal.SIGUSR1, lambda: (got.append(2), loop.stop()))
    os.kill(os.getpid(), signal.SIGUSR1)
    loop.run_forever()
    assert got == [2]
    assert loop.remove_signal_handler(signal.SIGUSR1)
    assert signal.getsignal(signal.SIGUSR1) is signal.SIG_DFL


def test_a_signal_wakes_a_loop_that_sleeps(loop, signals):
    """A signal handler of the loop is called while nothing else happens."""
    loop.add_signal_handler(signal.SIGUSR1, loop.stop)

    def send():
        os.kill(os.getpid(), signal.SIGUSR1)

    timer = threading.Timer(0.01, send)
    timer.start()
    started = time.monotonic()
    watchdog = loop.call_later(PATIENCE, loop.stop)
    loop.run_forever()
    timer.join()
    watchdog.cancel()
    assert time.monotonic() - started < PATIENCE / 2
    loop.remove_signal_handler(signal.SIGUSR1)


# Threads, wake-ups, processes.

IDLE = """
import asyncio, os, socket, threading
import aioxide

def switches():
    with open("/proc/self/status") as status:
        return [int(line.split()[1]) for line in status if line.startswith("voluntary_ctxt_switches")][0]

def threads():
    return len(os.listdir("/proc/self/task"))

async def main():
    loop = asyncio.get_running_loop()
    server = await loop.create_server(asyncio.Protocol, "127.0.0.1", 0)
    address = server.sockets[0].getsockname()
    connections = [await loop.create_connection(asyncio.Protocol, *address) for _ in range(50)]
    near, far = socket.socketpair()
    near.setblocking(False)
    loop.add_reader(near, print)
    while len(server._clients if hasattr(server, "_clients") else connections) < 50:
        await asyncio.sleep(0)
    await asyncio.sleep(0.01)
    before = switches()
    await asyncio.sleep(0.3)
    print(switches() - before, threads())
    loop.remove_reader(near)
    near.close()
    far.close()
    for transport, _ in connections:
        transport.close()
    server.close()
    await server.wait_closed()

aioxide.run(main())
"""


def test_an_idle_loop_sleeps_and_has_no_threads():
    """With a server and 50 connections: one wake-up for the timer, and no thread but the main one."""
    switches, threads = map(int, program(IDLE).split())
    assert switches <= 3
    assert threads == 1


@pytest.mark.filterwarnings("ignore:.*use of fork.*may lead to deadlocks:DeprecationWarning")
@pytest.mark.parametrize("used", [False, True], ids=["new", "used"])
@pytest.mark.parametrize("kind", ["tcp", "streams"])
def test_a_loop_made_before_fork_serves_in_the_children(kind, used):
    """A server with preloading: loop and listening sockets are the parent's, children run it, the parent goes on."""
    loop = aioxide.new_event_loop()
    listening = socket.create_server(("127.0.0.1", 0))
    address = listening.getsockname()

    async def work():
        """A bit of everything: timers, threads, a server, a connection."""
        await asyncio.sleep(0.001)
        assert await loop.run_in_executor(None, threading.get_ident)
        if kind == "streams":

            async def echo(reader, writer):
                writer.write(await reader.read(10))
                writer.close()

            server = await aioxide.start_server(echo, "127.0.0.1", 0)
            reader, writer = await aioxide.open_connection(*server.sockets[0].getsockname())
            writer.write(b"hello")
            assert await reader.read() == b"hello"
            writer.close()
            await writer.wait_closed()
        else:
            server = await loop.create_server(asyncio.Protocol, sock=listening.dup())
            transport, _ = await loop.create_connection(asyncio.Protocol, *address)
            transport.close()
        server.close()
        await server.wait_closed()
        await loop.shutdown_default_executor()

    async def warm():
        await asyncio.sleep(0.001)

    def child():
        signal.alarm(30)
        loop.run_until_complete(asyncio.wait_for(work(), PATIENCE))
        loop.close()

    if used:
        loop.run_until_complete(warm())
    for _ in range(2):
        readable, writable = os.pipe()
        pid = os.fork()
        if pid == 0:
            status = 1
            try:
                child()
                status = 0
            except BaseException:
                os.write(writable, traceback.format_exc().encode())
            finally:
                os._exit(status)
        os.close(writable)
        with open(readable) as pipe:
            text = pipe.read()
        _, status = os.waitpid(pid, 0)
        assert (os.waitstatus_to_exitcode(status), text) == (0, "")
    loop.run_until_complete(asyncio.wait_for(work(), PATIENCE))
    loop.close()
    listening.close()


# Transports.


class Keeping(asyncio.Protocol):
    """Keeps its transport for ever."""

    def __init__(self):
        self.closed = asyncio.get_running_loop().create_future()

    def connection_made(self, transport):
        self.transport = transport

    def connection_lost(self, exc):
        self.closed.set_result(exc)


def test_close_reaches_the_peer(loop):
    """The peer sees the end although protocol and transport live on."""

    async def main():
        kept = []

        def factory():
            kept.append(Keeping())
            return kept[-1]

        server = await loop.create_server(factory, "127.0.0.1", 0)
        with socket.socket() as sock:
            sock.setblocking(False)
            await loop.sock_connect(sock, server.sockets[0].getsockname())
            await until(lambda: kept and hasattr(kept[0], "transport"))
            kept[0].transport.write(b"last words")
            kept[0].transport.close()
            assert await asyncio.wait_for(loop.sock_recv(sock, 100), PATIENCE) == b"last words"
            assert await asyncio.wait_for(loop.sock_recv(sock, 100), PATIENCE) == b""
            assert await kept[0].closed is None
            assert kept[0].transport.is_closing()
        server.close()
        await server.wait_closed()

    loop.run_until_complete(main())


def test_transports_are_asyncios(aio, loop):
    """They are asyncio.Transport, show a TransportSocket, and have every method of the class."""

    async def main():
        server = await loop.create_server(asyncio.Protocol, "127.0.0.1", 0)
        transport, _ = await loop.create_connection(asyncio.Protocol, *server.sockets[0].getsockname())
        assert isinstance(transport, asyncio.Transport)
        assert isinstance(server, asyncio.AbstractServer)
        sock = transport.get_extra_info("socket")
        assert isinstance(sock, asyncio.trsock.TransportSocket)
        assert sock.getpeername() == transport.get_extra_info("peername")
        assert transport.get_extra_info("sockname") == sock.getsockname()
        assert transport.get_extra_info("nothing", 42) == 42
        for name in dir(asyncio.Transport):
            assert hasattr(transport, name)
        transport.close()
        server.close()
        await server.wait_closed()
        datagrams, _ = await loop.create_datagram_endpoint(asyncio.DatagramProtocol, local_addr=("127.0.0.1", 0))
        if aio is aioxide or sys.version_info >= (3, 13):
            assert isinstance(datagrams, asyncio.DatagramTransport)
        datagrams.close()
        reading, writing = (os.fdopen(fd, mode, 0) for fd, mode in zip(os.pipe(), ("rb", "wb"), strict=True))
        reader, _ = await loop.connect_read_pipe(asyncio.Protocol, reading)
        writer, _ = await loop.connect_write_pipe(asyncio.Protocol, writing)
        assert isinstance(reader, asyncio.ReadTransport)
        assert isinstance(writer, asyncio.WriteTransport)
        assert reader.get_extra_info("pipe") is reading
        writer.close()
        reader.close()
        await until(lambda: reading.closed and writing.closed)

    loop.run_until_complete(main())


def test_values_set_in_one_connection_are_not_seen_in_the_next(own):
    """A context variable set in a protocol's callback stays in that connection."""
    variable = contextvars.ContextVar("variable", default=None)
    seen = []
    lost = []

    class Protocol(asyncio.Protocol):
        def connection_made(self, transport):
            seen.append(variable.get())
            variable.set(self)
            self.transport = transport

        def data_received(self, data):
            seen.append(variable.get() is self)
            self.transport.close()

        def connection_lost(self, exc):
            lost.append(variable.get() is self)

    async def main():
        server = await own.create_server(Protocol, "127.0.0.1", 0)
        for _ in range(3):
            reader, writer = await aioxide.open_connection(*server.sockets[0].getsockname())
            writer.write(b"x")
            assert await reader.read() == b""
            writer.close()
            await writer.wait_closed()
        await until(lambda: len(lost) == 3)
        server.close()
        await server.wait_closed()

    own.run_until_complete(main())
    assert seen == [None, True] * 3
    assert lost == [True] * 3
    assert variable.get() is None


def test_reading_to_the_end_ends(aio, loop):
    """A stream's read() returns everything when the peer has closed, also if that was before."""

    async def main():
        async def serve(reader, writer):
            writer.write(b"a" * 300_000)
            writer.close()

        server = await aio.start_server(serve, "127.0.0.1", 0)
        for waits in (False, True):
            reader, writer = await aio.open_connection(*server.sockets[0].getsockname())
            if waits:
                await until(lambda: len(reader._buffer) > 100_000)
            assert await asyncio.wait_for(reader.read(), PATIENCE) == b"a" * 300_000
            assert await reader.read() == b""
            assert reader.at_eof()
            writer.close()
            await writer.wait_closed()
        server.close()
        await server.wait_closed()

    loop.run_until_complete(main())


def test_a_factory_that_raises_leaves_nobody_hanging(own):
    """The peer sees the end, the error is reported, and the server accepts on."""
    contexts = []
    own.set_exception_handler(lambda loop, context: contexts.append(context))
    factories = [ValueError, asyncio.Protocol]

    def factory():
        made = factories.pop(0)()
        if isinstance(made, Exception):
            raise made
        return made

    async def main():
        server = await own.create_server(factory, "127.0.0.1", 0)
        for wanted in (b"", None):
            with socket.socket() as sock:
                sock.setblocking(False)
                await own.sock_connect(sock, server.sockets[0].getsockname())
                if wanted is not None:
                    with contextlib.suppress(ConnectionResetError):
                        assert await asyncio.wait_for(own.sock_recv(sock, 1), PATIENCE) == wanted
                else:
                    await until(lambda: not factories)
        server.close()
        await server.wait_closed()

    own.run_until_complete(main())
    assert [type(context["exception"]) for context in contexts] == [ValueError]


def test_files_are_sent_without_passing_through_the_process(own, tmp_path, monkeypatch):
    """With fallback forbidden the kernel copies it; the file is never read here."""
    path = tmp_path / "file"
    path.write_bytes(bytes(1 << 20))

    class File:
        """Has a descriptor, and cannot be read otherwise."""

        def __init__(self, fd):
            self.fd = fd
            self.mode = "rb"

        def fileno(self):
            return self.fd

        def seek(self, *_):
            pass

        def readinto(self, buffer):
            raise AssertionError("it is read")

    async def main():
        near, far = socket.socketpair()
        near.setblocking(False)
        far.setblocking(False)
        fd = os.open(path, os.O_RDONLY)
        with near, far:
            sending = asyncio.ensure_future(own.sock_sendfile(near, File(fd), fallback=False))
            received = 0
            while received < 1 << 20:
                received += len(await own.sock_recv(far, 1 << 16))
            assert await sending == 1 << 20
        os.close(fd)

    own.run_until_complete(main())


def test_readers_are_files_and_stay_until_removed(loop):
    """add_reader() takes objects with fileno(), calls as long as there is something to read, and tells of removals."""

    class File:
        def __init__(self, sock):
            self.sock = sock

        def fileno(self):
            return self.sock.fileno()

    async def main():
        near, far = socket.socketpair()
        near.setblocking(False)
        with near, far:
            calls = []
            loop.add_reader(File(near), calls.append, "read")
            loop.add_writer(near, calls.append, "write")
            await until(lambda: calls.count("write") > 1)
            assert "read" not in calls
            far.send(b"xx")
            await until(lambda: calls.count("read") > 1)
            assert loop.remove_writer(File(near)) is True
            assert loop.remove_writer(near) is False
            assert loop.remove_reader(near.fileno()) is True
            assert loop.remove_reader(near) is False

    loop.run_until_complete(main())


def test_a_closed_transport_and_its_protocol_are_collected(own):
    """Though each refers to the other, and tasks of streams to both."""

    async def main():
        references = []

        class Protocol(asyncio.Protocol):
            def connection_made(self, transport):
                self.transport = transport
                references.extend([weakref.ref(self), weakref.ref(transport)])

        server = await own.create_server(Protocol, "127.0.0.1", 0)
        for _ in range(3):
            reader, writer = await aioxide.open_connection(*server.sockets[0].getsockname())
            references += [weakref.ref(reader), weakref.ref(writer.transport)]
            await until(lambda: len(references) % 4 == 0)
            writer.close()
            await writer.wait_closed()
        del reader, writer
        server.close()
        await server.wait_closed()
        await asyncio.sleep(0)
        gc.collect()
        assert [reference() for reference in references if reference() is not None] == []
        assert len(references) == 12

    own.run_until_complete(main())

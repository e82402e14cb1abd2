"""Servers: making, serving, accepting, closing, and what goes wrong on the way."""

import asyncio
import contextlib
import contextvars
import errno
import gc
import socket
import sys
import weakref

import pytest
from waiting import until

import aioxide


@pytest.fixture
def own(loop):
    """A loop of aioxide's: for what the stdlib has later or not at all."""
    if not isinstance(loop, aioxide.Loop):
        pytest.skip("the stdlib of some or all versions does it otherwise")
    return loop


@pytest.fixture
def reports(loop):
    """What the loop's exception handler was told."""
    told = []
    loop.set_exception_handler(lambda loop, context: told.append(context))
    return told


class Recorder(asyncio.Protocol):
    """A protocol that tells when it is connected and when it is not any more."""

    def __init__(self):
        loop = asyncio.get_running_loop()
        self.made = loop.create_future()
        self.lost = loop.create_future()

    def connection_made(self, transport):
        self.transport = transport
        self.made.set_result(transport)

    def connection_lost(self, exc):
        self.lost.set_result(exc)


async def turns(count=5):
    """Lets others run."""
    for _ in range(count):
        await asyncio.sleep(0)


def client(server):
    """A connected socket of a client."""
    sock = socket.create_connection(server.sockets[0].getsockname()[:2])
    sock.settimeout(10)
    return sock


async def closed_by_peer(loop, sock):
    """Waits in a thread, so that the loop can go on, until the other side has closed."""

    def read():
        try:
            return sock.recv(1)
        except ConnectionResetError:
            return b""

    return await loop.run_in_executor(None, read) == b""


def run(loop, coro):
    """Runs a coroutine and ends the executor, so that no thread is left."""
    try:
        return loop.run_until_complete(coro)
    finally:
        loop.run_until_complete(loop.shutdown_default_executor())


# The object.


def test_server_object(loop):
    async def main():
        server = await loop.create_server(Recorder, "127.0.0.1", 0, start_serving=False)
        assert isinstance(server, asyncio.AbstractServer)
        assert isinstance(server, asyncio.Server)
        assert server.get_loop() is loop
        assert not server.is_serving()
        assert repr(server) == f"<Server sockets={server.sockets!r}>"
        assert type(server.sockets) is tuple
        assert type(server.sockets[0]).__name__ == "TransportSocket"
        assert server._waiters == []
        await server.start_serving()
        assert server.is_serving()
        await server.start_serving()
        server.close()
        assert server.sockets == ()
        assert (server._sockets, server._waiters) == (None, None)
        assert repr(server) == "<Server sockets=()>"
        server.close()
        await server.wait_closed()
        return weakref.ref(server)

    assert loop.run_until_complete(main())() is None


def test_async_with(loop):
    async def main():
        async with await loop.create_server(Recorder, "127.0.0.1", 0) as server:
            assert server.is_serving()
        assert not server.is_serving()

    loop.run_until_complete(main())


def test_attributes_can_be_added(own):
    async def main():
        async with await own.create_server(Recorder, "127.0.0.1", 0) as server:
            server.name = "mine"
            assert vars(server)["name"] == "mine"

    own.run_until_complete(main())


# Arguments.


@pytest.mark.parametrize(
    ("kwargs", "error", "text"),
    [
        ({}, ValueError, "Neither host/port nor sock were specified"),
        ({"host": "x", "sock": 1}, ValueError, "host/port and sock can not be specified at the same time"),
        ({"port": 0, "sock": 1}, ValueError, "host/port and sock can not be specified at the same time"),
        ({"ssl": True}, TypeError, "ssl argument must be an SSLContext or None"),
        ({"ssl": False}, TypeError, "ssl argument must be an SSLContext or None"),
        ({"ssl_handshake_timeout": 1}, ValueError, "ssl_handshake_timeout is only meaningful with ssl"),
        ({"ssl_shutdown_timeout": 1}, ValueError, "ssl_shutdown_timeout is only meaningful with ssl"),
    ],
)
def test_arguments_that_are_refused(loop, kwargs, error, text):
    with pytest.raises(error, match=f"^{text}$"):
        loop.run_until_complete(loop.create_server(Recorder, **kwargs))


def test_datagram_socket_is_refused(loop):
    with socket.socket(type=socket.SOCK_DGRAM) as sock, pytest.raises(ValueError, match="A Stream Socket was expected"):
        loop.run_until_complete(loop.create_server(Recorder, sock=sock))


def test_address_in_use(loop):
    with socket.create_server(("127.0.0.1", 0)) as sock:
        port = sock.getsockname()[1]
        with pytest.raises(OSError, match=r"error while attempting to bind on address \('127.0.0.1', \d+\): ") as info:
            loop.run_until_complete(loop.create_server(Recorder, "127.0.0.1", port))
        assert info.value.errno == errno.EADDRINUSE


def test_one_of_two_addresses_in_use(loop):
    """The socket that was bound is closed again."""
    with socket.create_server(("127.0.0.1", 0)) as sock:
        port = sock.getsockname()[1]
        with pytest.raises(OSError, match="error while attempting to bind"):
            loop.run_until_complete(loop.create_server(Recorder, ["127.0.0.2", "127.0.0.1"], port))
        with socket.create_server(("127.0.0.2", port)):
            pass


def test_address_that_cannot_be_had(own):
    with pytest.raises(OSError, match=r"^could not bind on any address out of \[\('203.0.113.1', 0\)\]$"):
        own.run_until_complete(own.create_server(Recorder, "203.0.113.1", 0))


def test_hosts(loop):
    async def main():
        async with await loop.create_server(Recorder, ["127.0.0.1", "127.0.0.2", "127.0.0.1"], 0) as server:
            assert sorted(sock.getsockname()[0] for sock in server.sockets) == ["127.0.0.1", "127.0.0.2"]

    loop.run_until_complete(main())


@pytest.mark.parametrize("host", [None, ""])
def test_every_interface(loop, host):
    async def main():
        async with await loop.create_server(Recorder, host, 0, family=socket.AF_INET) as server:
            assert [sock.getsockname()[0] for sock in server.sockets] == ["0.0.0.0"]

    run(loop, main())


def test_no_address(loop):
    async def getaddrinfo(*args, **kwargs):
        return []

    loop.getaddrinfo = getaddrinfo
    with pytest.raises(OSError, match=r"^getaddrinfo\('nowhere'\) returned empty list$"):
        loop.run_until_complete(loop.create_server(Recorder, "nowhere", 0))


def test_options(own):
    async def main():
        async with await own.create_server(
            Recorder, ["127.0.0.1", "::1"], 0, reuse_port=True, keep_alive=True, reuse_address=False
        ) as server:
            for sock in server.sockets:
                assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT)
                assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
                assert not sock.getsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR)
                if sock.family == socket.AF_INET6:
                    assert sock.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY)
        async with await own.create_server(Recorder, "127.0.0.1", 0) as server:
            assert server.sockets[0].getsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR)
            assert not server.sockets[0].getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)

    own.run_until_complete(main())


# Cancellation.


def test_cancelled_while_looking_up(loop):
    async def main():
        asked = loop.create_future()

        async def getaddrinfo(*args, **kwargs):
            asked.set_result(None)
            await loop.create_future()

        loop.getaddrinfo = getaddrinfo
        task = loop.create_task(loop.create_server(Recorder, "somewhere", 0))
        await asked
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    loop.run_until_complete(main())


def test_cancelled_when_it_serves(own):
    """A server that nobody gets is closed."""
    with socket.create_server(("127.0.0.1", 0)) as sock:

        async def main():
            coro = own.create_server(Recorder, sock=sock)
            assert coro.send(None) is None
            assert own.remove_reader(sock.fileno())
            own.add_reader(sock.fileno(), int)
            with pytest.raises(asyncio.CancelledError):
                coro.throw(asyncio.CancelledError())
            assert sock.fileno() == -1

        own.run_until_complete(main())


def test_start_that_fails(own):
    """Two sockets may be bound to one port, but only one of them listens."""

    class Deaf(socket.socket):
        def listen(self, backlog):
            raise OSError(errno.EADDRINUSE, "taken")

    with Deaf() as sock:
        sock.bind(("127.0.0.1", 0))
        with pytest.raises(OSError, match="taken"):
            own.run_until_complete(own.create_server(Recorder, sock=sock))
        assert sock.fileno() == -1


# Accepting.


def test_connection(loop):
    async def main():
        protocols = []

        def factory():
            protocols.append(Recorder())
            return protocols[-1]

        async with await loop.create_server(factory, "127.0.0.1", 0) as server:
            with client(server) as sock:
                while not protocols:
                    await asyncio.sleep(0)
                transport = await protocols[0].made
                if isinstance(loop, aioxide.Loop):
                    assert server._active_count == 1
                assert transport.get_extra_info("peername") == sock.getsockname()
                assert transport.get_extra_info("sockname") == sock.getpeername()
                assert not transport.get_extra_info("socket").gettimeout()
            assert await protocols[0].lost is None

    loop.run_until_complete(main())


def test_connections_are_accepted_in_one_go(own):
    """All that wait are accepted in one turn, set up in the next one, in the order in which they came."""

    async def main():
        order = []

        class Protocol(asyncio.Protocol):
            def connection_made(self, transport):
                order.append(transport.get_extra_info("peername"))
                transport.close()

        server = await own.create_server(Protocol, "127.0.0.1", 0, backlog=10)
        clients = [client(server) for _ in range(5)]
        while not order:
            await asyncio.sleep(0)
        await turns()
        assert order == [sock.getsockname() for sock in clients]
        for sock in clients:
            sock.close()
        server.close()
        await server.wait_closed()

    own.run_until_complete(main())


@pytest.mark.parametrize("error", [ZeroDivisionError, asyncio.CancelledError, GeneratorExit])
def test_factory_that_raises(own, reports, error):
    """It is reported in every mode, and the connection is closed."""

    async def main():
        def factory():
            raise error("no protocol today")

        async with await own.create_server(factory, "127.0.0.1", 0) as server:
            with client(server) as sock:
                assert await closed_by_peer(own, sock)
            assert server._active_count == 0
        (report,) = reports
        assert report["message"] == "Error on transport creation for incoming connection"
        assert type(report["exception"]) is error
        assert "protocol" not in report

    run(own, main())


@pytest.mark.logs_errors  # In debug mode of the task that nobody asks for its exception.
@pytest.mark.parametrize("error", [SystemExit, KeyboardInterrupt])
def test_factory_that_leaves_the_loop(own, error):
    def factory():
        raise error("enough")

    server = own.run_until_complete(own.create_server(factory, "127.0.0.1", 0))
    with client(server) as sock:
        with pytest.raises(error):
            own.run_forever()
        assert sock.recv(1) == b""
    server.close()
    for task in asyncio.all_tasks(own):
        task.cancel()
    own.run_until_complete(server.wait_closed())
    gc.collect()


def test_factory_that_closes_the_server(own, reports):
    async def main():
        def factory():
            server.close()
            return Recorder()

        server = await own.create_server(factory, "127.0.0.1", 0)
        with client(server) as first, client(server) as second:
            assert await closed_by_peer(own, first)
            assert await closed_by_peer(own, second)
        await server.wait_closed()

    run(own, main())
    assert len(reports) <= 1


def test_server_closed_between_accept_and_set_up(own):
    """A connection that was accepted and is not set up yet is closed, too."""

    async def main():
        made = []

        def factory():
            made.append(Recorder())
            return made[-1]

        class Closing(socket.socket):
            def accept(self):
                pair = super().accept()
                own.call_soon(server.close)
                return pair

        listening = Closing()
        listening.bind(("127.0.0.1", 0))
        listening.setblocking(False)
        server = await own.create_server(factory, sock=listening, backlog=0)
        # Something that is ready before the connection is: the set-up comes after it.
        with client(server) as sock:
            server_closed = own.run_in_executor(None, sock.recv, 1)
            assert await server_closed == b""
        await server.wait_closed()
        assert made == []

    run(own, main())


def test_accept_that_fails(loop, reports):
    """Neither an aborted connection nor an interruption ends the accepting; other errors are reported."""

    async def main():
        errors = [ConnectionAbortedError(), InterruptedError(), BlockingIOError(), OSError(errno.EPERM, "firewall")]
        connected = loop.create_future()

        class Failing(socket.socket):
            def accept(self):
                if errors:
                    raise errors.pop(0)
                return super().accept()

        class Protocol(asyncio.Protocol):
            def connection_made(self, transport):
                transport.close()
                connected.set_result(None)

        listening = Failing()
        listening.bind(("127.0.0.1", 0))
        async with await loop.create_server(Protocol, sock=listening) as server:
            with client(server):
                await connected
        assert errors == []

    loop.run_until_complete(main())
    (report,) = reports
    assert report["exception"].errno == errno.EPERM
    assert "_accept_connection" in report["message"]


def test_no_descriptors_left(own, reports, no_descriptors, monkeypatch):
    """It is reported once, and accepting goes on after a while."""
    forbid, allow = no_descriptors
    monkeypatch.setattr(asyncio.constants, "ACCEPT_RETRY_DELAY", 0.01)

    async def main():
        told = own.create_future()
        connected = own.create_future()

        class Protocol(asyncio.Protocol):
            def connection_made(self, transport):
                transport.close()
                connected.set_result(None)

        def handler(loop, context):
            # Not watched meanwhile, since it stays readable.
            assert not own._remove_reader(server.sockets[0].fileno())
            allow()
            told.set_result(context)

        own.set_exception_handler(handler)
        async with await own.create_server(Protocol, "127.0.0.1", 0) as server:
            with client(server):
                forbid()
                context = await told
                assert context["message"] == "socket.accept() out of system resource"
                assert context["exception"].errno == errno.EMFILE
                assert context["socket"].fileno() == server.sockets[0].fileno()
                await connected

    own.run_until_complete(main())


def test_server_closed_while_no_descriptors_are_left(own, no_descriptors, monkeypatch):
    forbid, allow = no_descriptors
    monkeypatch.setattr(asyncio.constants, "ACCEPT_RETRY_DELAY", 0)

    async def main():
        told = own.create_future()

        def handler(loop, context):
            server.close()
            allow()
            told.set_result(context["message"])

        own.set_exception_handler(handler)
        server = await own.create_server(Recorder, "127.0.0.1", 0)
        with client(server):
            forbid()
            assert await told == "socket.accept() out of system resource"
        await server.wait_closed()
        own.set_exception_handler(None)
        await turns()

    own.run_until_complete(main())


def test_loop_stopped_before_a_connection_is_set_up(own):
    """A connection that waits in the ready queue of a loop that is closed is closed, too."""

    class Stopping(socket.socket):
        def accept(self):
            pair = super().accept()
            own.stop()
            return pair

    listening = Stopping()
    listening.bind(("127.0.0.1", 0))
    own.set_debug(False)
    server = own.run_until_complete(own.create_server(Recorder, sock=listening, backlog=0))
    with client(server) as sock:
        own.run_forever()
        server.close()
        own.close()
        assert sock.recv(1) == b""


@pytest.mark.skipif(sys.version_info < (3, 12), reason="3.12 has eager tasks")
@pytest.mark.parametrize("closes", [False, True])
def test_eager_tasks(own, closes):
    """With a task factory each connection has its task, as in asyncio; an eager one runs while others are accepted."""

    async def main():
        protocols = []

        def factory():
            assert asyncio.current_task() is not None
            protocols.append(Recorder())
            return protocols[-1]

        own.set_task_factory(asyncio.eager_task_factory)
        server = await own.create_server(factory, "127.0.0.1", 0)
        with client(server):
            while not protocols:
                await asyncio.sleep(0)
            await protocols[0].made
            server.close()
        await server.wait_closed()
        await protocols[0].lost

    own.run_until_complete(main())


# Context.

VALUE = contextvars.ContextVar("VALUE", default="nobody's")


def test_each_connection_has_a_copy_of_the_context_of_the_server(own):
    async def main():
        seen = []

        def factory():
            seen.append(("factory", VALUE.get()))
            VALUE.set(f"connection {len(seen)}")
            return Protocol()

        class Protocol(asyncio.Protocol):
            def connection_made(self, transport):
                seen.append(("made", VALUE.get()))
                VALUE.set(f"{VALUE.get()}, made")
                transport.close()

            def connection_lost(self, exc):
                # The stdlib's transports before 3.15 make a copy for each callback.
                lost.append(VALUE.get())

        lost = []
        VALUE.set("server's")
        server = await own.create_server(factory, "127.0.0.1", 0, start_serving=False)
        VALUE.set("somebody's")
        await server.start_serving()
        for count in (1, 2):
            with client(server):
                while len(lost) < count:
                    await asyncio.sleep(0)
        server.close()
        await server.wait_closed()
        assert seen == [
            ("factory", "server's"),
            ("made", "connection 1"),
            ("factory", "server's"),
            ("made", "connection 3"),
        ]
        assert lost in (["connection 1", "connection 3"], ["connection 1, made", "connection 3, made"])
        assert VALUE.get() == "somebody's"

    own.run_until_complete(main())


# The end.


def test_serve_forever(loop):
    async def main():
        server = await loop.create_server(Recorder, "127.0.0.1", 0, start_serving=False)
        task = loop.create_task(server.serve_forever())
        await turns(2)
        assert server.is_serving()
        with pytest.raises(RuntimeError, match=r"^server <Server .*> is already being awaited on serve_forever\(\)$"):
            await server.serve_forever()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert server.sockets == ()
        with pytest.raises(RuntimeError, match=r"^server <Server sockets=\(\)> is closed$"):
            await server.serve_forever()

    loop.run_until_complete(main())


def test_close_ends_serve_forever(loop):
    async def main():
        server = await loop.create_server(Recorder, "127.0.0.1", 0)
        task = loop.create_task(server.serve_forever())
        await turns(2)
        server.close()
        with pytest.raises(asyncio.CancelledError):
            await task
        await server.wait_closed()

    loop.run_until_complete(main())


def test_cancelled_serve_forever_closes_connections(own):
    async def main():
        protocols = []

        def factory():
            protocols.append(Recorder())
            return protocols[-1]

        server = await own.create_server(factory, "127.0.0.1", 0)
        task = own.create_task(server.serve_forever())
        with client(server):
            while not protocols:
                await asyncio.sleep(0)
            await protocols[0].made
            task.cancel("enough")
            with pytest.raises(asyncio.CancelledError, match="enough"):
                await task
            assert protocols[0].lost.done()
            await server.wait_closed()

    own.run_until_complete(main())


def test_serve_forever_cancelled_twice(own):
    """The second cancellation ends the wait for the connections; the first one is what is raised."""

    async def main():
        server = await own.create_server(Recorder, "127.0.0.1", 0)
        hanging = own.create_future()

        class Client:
            def close(self):
                hanging.set_result(None)

        stubborn = Client()
        server._attach(stubborn)
        task = own.create_task(server.serve_forever())
        await turns(2)
        task.cancel("first")
        await hanging
        assert not task.done()
        task.cancel("second")
        with pytest.raises(asyncio.CancelledError, match="first"):
            await task
        assert server._serving_forever_fut is None
        server._detach(stubborn)
        await server.wait_closed()

    own.run_until_complete(main())


def test_wait_closed_waits_for_connections(own):
    async def main():
        protocols = []

        def factory():
            protocols.append(Recorder())
            return protocols[-1]

        server = await own.create_server(factory, "127.0.0.1", 0)
        before = own.create_task(server.wait_closed())
        with client(server):
            while not protocols:
                await asyncio.sleep(0)
            transport = await protocols[0].made
            assert server._active_count == 1
            server.close()
            after = own.create_task(server.wait_closed())
            await turns()
            assert not before.done()
            assert not after.done()
            transport.close()
            assert (await before, await after) == (None, None)
            assert server._active_count == 0
            await server.wait_closed()

    own.run_until_complete(main())


def test_cancelled_wait_closed_leaves_nothing_behind(own):
    async def main():
        server = await own.create_server(Recorder, "127.0.0.1", 0)
        task = own.create_task(server.wait_closed())
        await turns(2)
        assert len(server._waiters) == 1
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert server._waiters == []
        server.close()

    own.run_until_complete(main())


@pytest.mark.parametrize("method", ["close_clients", "abort_clients"])
def test_clients_are_closed(own, method):
    async def main():
        protocols = []

        def factory():
            protocols.append(Recorder())
            return protocols[-1]

        server = await own.create_server(factory, "127.0.0.1", 0)
        with client(server), client(server):
            while len(protocols) < 2:
                await asyncio.sleep(0)
            for protocol in protocols:
                await protocol.made
            getattr(server, method)()
            for protocol in protocols:
                assert await protocol.lost is None
            assert server.is_serving()
        server.close()
        await server.wait_closed()

    own.run_until_complete(main())


def test_transports_are_known_weakly(own):
    async def main():
        class Client:
            pass

        server = await own.create_server(Recorder, "127.0.0.1", 0)
        transport = Client()
        server._attach(transport)
        assert server._active_count == 1
        del transport
        gc.collect()
        assert server._active_count == 0
        server.close()
        with pytest.raises(AssertionError):
            server._attach(Client())
        await server.wait_closed()

    own.run_until_complete(main())


def test_clients_attribute(own):
    """Transports of our own and others, before `_clients` is looked at and after."""

    async def main():
        class Client:
            def close(self):
                closed.append(self)

        closed = []
        recorders = []

        def factory():
            recorders.append(Recorder())
            return recorders[-1]

        server = await own.create_server(factory, "127.0.0.1", 0)
        with client(server), client(server), client(server):
            while len(recorders) < 3:
                await asyncio.sleep(0)
            first, second, third = [await recorder.made for recorder in recorders]
            assert server._active_count == 3
            first.abort()
            await until(lambda: server._active_count == 2)
            clients = server._clients
            assert isinstance(clients, weakref.WeakSet)
            assert set(clients) == {second, third}
            assert server._clients is clients
            other = Client()
            server._attach(other)
            assert other in clients
            second.abort()
            await until(lambda: second not in clients)
            server.close_clients()
            assert closed == [other]
            assert third.is_closing()
            await until(lambda: set(clients) == {other})
            with client(server):
                while len(recorders) < 4:
                    await asyncio.sleep(0)
                fourth = await recorders[3].made
                assert set(clients) == {other, fourth}
                server._clients = weakref.WeakSet([fourth])
                server.close()
                waiting = own.create_task(server.wait_closed())
                await turns(2)
                assert not waiting.done()
                fourth.abort()
                await waiting

    own.run_until_complete(main())


@pytest.mark.filterwarnings("ignore:unclosed transport:ResourceWarning")
def test_many_transports_that_nobody_closes(own):
    """The server forgets them, and is over when the last one is gone."""

    async def main():
        alive = []

        class Abandoned(asyncio.Protocol):
            def connection_made(self, transport):
                transport.pause_reading()
                alive.append(weakref.ref(transport))

        server = await own.create_server(Abandoned, "127.0.0.1", 0)
        for number in range(40):
            with client(server):
                await until(lambda: len(alive) == number + 1)
                gc.collect()
                await until(lambda: alive[-1]() is None)
                assert server._active_count == 0
        server.close()
        await server.wait_closed()

    own.run_until_complete(main())


def test_wait_closed_with_many_connections(own):
    async def main():
        recorders = []

        def factory():
            recorders.append(Recorder())
            return recorders[-1]

        server = await own.create_server(factory, "127.0.0.1", 0)
        with contextlib.ExitStack() as stack:
            for _ in range(60):
                stack.enter_context(client(server))
            while len(recorders) < 60:
                await asyncio.sleep(0)
            server.close()
            waiting = own.create_task(server.wait_closed())
            for number, recorder in enumerate(recorders):
                transport = await recorder.made
                await turns()
                assert not waiting.done()
                assert server._active_count == 60 - number
                transport.abort()
                await recorder.lost
            await waiting

    own.run_until_complete(main())


def test_sockets_that_cannot_be_closed(own):
    """The others are closed all the same."""

    class Sticky(socket.socket):
        def close(self):
            super().close()
            raise OSError("sticky")

    async def main():
        server = await own.create_server(Recorder, ["127.0.0.1", "127.0.0.2"], 0)
        sticky = Sticky()
        sticky.bind(("127.0.0.1", 0))
        other = server._sockets[0]
        server._sockets.insert(0, sticky)
        with pytest.raises(OSError, match="sticky"):
            server.close()
        assert other.fileno() == -1
        assert not server.is_serving()

    own.run_until_complete(main())


def test_server_that_is_dropped(own):
    """It goes on serving: the loop holds it."""

    async def main():
        protocols = []

        def factory():
            protocols.append(Recorder())
            return protocols[-1]

        server = await own.create_server(factory, "127.0.0.1", 0)
        address = server.sockets[0].getsockname()
        known = weakref.ref(server)
        del server
        gc.collect()
        with socket.create_connection(address):
            while not protocols:
                await asyncio.sleep(0)
            (await protocols[0].made).close()
        await protocols[0].lost
        known().close()
        await turns()

    own.run_until_complete(main())
    gc.collect()

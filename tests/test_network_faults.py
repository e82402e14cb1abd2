"""What goes wrong in a network: no descriptors, peers that vanish or stop reading, cancellation at every moment.

Each test ends with the process and the loop as they were: no descriptor more, no task, no registration. At the end of
the file connections are opened, dropped, aborted and half-closed at random (longer by `make stress`).
"""

import asyncio
import contextlib
import ctypes
import errno
import gc
import hashlib
import io
import os
import random
import resource
import socket
import ssl
import struct
import time

import pytest
from waiting import PATIENCE, descriptors, turns, until

import aioxide

RESET = struct.pack("ii", 1, 0)
"""The value of SO_LINGER with which close() resets the connection."""


@pytest.fixture
def loop(loop):
    """A loop of either kind whose executor ends with the test."""
    yield loop
    loop.run_until_complete(loop.shutdown_default_executor())


def full_listener():
    """A listening socket that takes no more connections, and the connections that fill it."""
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    listener.listen(0)
    waiting = []
    for _ in range(4):
        waiting.append(socket.socket())
        waiting[-1].setblocking(False)
        waiting[-1].connect_ex(listener.getsockname())
    return listener, waiting


def small_buffers(*sockets):
    for sock in sockets:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 2048)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)


# Cancellation of every method that waits, at every moment.


class Peer(asyncio.Protocol):
    """A protocol of which is known whether it is connected."""

    connected: set = set()

    def connection_made(self, transport):
        self.transport = transport
        Peer.connected.add(self)

    def data_received(self, data):
        pass

    def connection_lost(self, exc):
        Peer.connected.discard(self)


class DatagramPeer(Peer, asyncio.DatagramProtocol):
    pass


class Attempt:
    """Runs one coroutine as a task and cancels it after some turns.

    What it waits for happens never, in the moment of the cancellation, or before.
    """

    def __init__(self, count, fires):
        self.count = count
        self.fires = fires
        self.completed = False

    async def __call__(self, coroutine, fire=None, clean=None):
        """Returns the result, or None if it was cancelled."""
        task = asyncio.ensure_future(coroutine)
        for turn in range(self.count):
            if task.done():
                break
            # It waits from the second turn on.
            if self.fires == "before" and fire is not None and turn:
                fire(turn)
            await asyncio.sleep(0)
        if not task.done():
            if self.fires == "meanwhile" and fire is not None:
                fire(1)
            task.cancel()
            done, _ = await asyncio.wait([task], timeout=PATIENCE)
            assert done, "a cancelled task does not end"
        else:
            self.completed = True
        if task.cancelled():
            return None
        result = task.result()
        return result if clean is None else clean(result)


def once(function):
    """What happens once."""
    return lambda turn: function() if turn == 1 else None


SCENARIOS = {}


def scenario(function):
    """A coroutine function that gets the loop, an attempt and a folder."""
    SCENARIOS[function.__name__] = function
    return function


def close_first(result):
    result[0].close()


def close_writer(result):
    result[1].close()


@contextlib.contextmanager
def pair():
    near, far = socket.socketpair()
    near.setblocking(False)
    far.setblocking(False)
    small_buffers(near, far)
    with near, far:
        yield near, far


@contextlib.asynccontextmanager
async def serving(loop, make=None):
    server = await loop.create_server(make or Peer, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()
    finally:
        server.close()
        server.close_clients()
        await asyncio.wait_for(server.wait_closed(), PATIENCE)


@contextlib.asynccontextmanager
async def connected(loop, protocol=Peer):
    """A transport on one of two connected sockets, and the other socket."""
    with pair() as (near, far):
        transport, protocol = await loop.connect_accepted_socket(protocol, near)
        try:
            yield transport, far
        finally:
            transport.abort()
            await until(lambda: near.fileno() == -1)


@scenario
async def create_connection(loop, attempt, tmp_path):
    async with serving(loop) as (host, port):
        await attempt(loop.create_connection(Peer, host, port), clean=close_first)
        await until(lambda: not Peer.connected)


@scenario
async def create_connection_to_one_of_several(loop, attempt, tmp_path):
    async with serving(loop) as (_, port):
        flags = {"happy_eyeballs_delay": 0.001, "interleave": 1}

        async def found(*args, **kwargs):
            await asyncio.sleep(0)
            kind = (socket.SOCK_STREAM, 6, "")
            return [
                (socket.AF_INET6, *kind, ("::1", port, 0, 0)),
                (socket.AF_INET, *kind, ("127.0.0.2", port)),
                (socket.AF_INET, *kind, ("127.0.0.1", port)),
            ]

        loop.getaddrinfo = found
        try:
            await attempt(loop.create_connection(Peer, "somewhere", port, **flags), clean=close_first)
        finally:
            del loop.getaddrinfo
        await until(lambda: not Peer.connected)


@scenario
async def create_connection_that_hangs(loop, attempt, tmp_path):
    listener, waiting = full_listener()
    with contextlib.ExitStack() as stack:
        for sock in [listener, *waiting]:
            stack.enter_context(sock)
        await attempt(loop.create_connection(Peer, *listener.getsockname()), clean=close_first)
        await until(lambda: not Peer.connected)


@scenario
async def create_connection_with_a_socket(loop, attempt, tmp_path):
    with pair() as (near, _):
        await attempt(loop.create_connection(Peer, sock=near), clean=close_first)
        await until(lambda: not Peer.connected)
    assert near.fileno() == -1


@scenario
async def create_connection_from_an_address(loop, attempt, tmp_path):
    async with serving(loop) as (host, port):
        coroutine = loop.create_connection(Peer, host, port, local_addr=("127.0.0.1", 0))
        await attempt(coroutine, clean=close_first)
        await until(lambda: not Peer.connected)


@scenario
async def create_server(loop, attempt, tmp_path):
    await attempt(loop.create_server(Peer, ["127.0.0.1", "127.0.0.2"], 0), clean=lambda server: server.close())


@scenario
async def create_unix_connection(loop, attempt, tmp_path):
    path = str(tmp_path / "socket")
    async with await loop.create_unix_server(Peer, path):
        await attempt(loop.create_unix_connection(Peer, path), clean=close_first)
        await until(lambda: not Peer.connected)


@scenario
async def create_unix_server(loop, attempt, tmp_path):
    path = str(tmp_path / "socket")
    await attempt(loop.create_unix_server(Peer, path), clean=lambda server: server.close())


@scenario
async def create_datagram_endpoint(loop, attempt, tmp_path):
    addresses = {"local_addr": ("127.0.0.1", 0), "remote_addr": ("127.0.0.1", 9)}
    await attempt(loop.create_datagram_endpoint(DatagramPeer, **addresses), clean=close_first)
    await until(lambda: not Peer.connected)


@scenario
async def connect_accepted_socket(loop, attempt, tmp_path):
    with pair() as (near, _):
        await attempt(loop.connect_accepted_socket(Peer, near), clean=close_first)
        await until(lambda: not Peer.connected)
    assert near.fileno() == -1


@scenario
async def connect_read_pipe(loop, attempt, tmp_path):
    reading, writing = os.pipe()
    with open(reading, "rb", 0) as pipe, open(writing, "wb", 0):
        await attempt(loop.connect_read_pipe(Peer, pipe), clean=close_first)
        await until(lambda: not Peer.connected)


@scenario
async def connect_write_pipe(loop, attempt, tmp_path):
    reading, writing = os.pipe()
    with open(reading, "rb", 0), open(writing, "wb", 0) as pipe:
        await attempt(loop.connect_write_pipe(Peer, pipe), clean=close_first)
        await until(lambda: not Peer.connected)


@scenario
async def sock_connect(loop, attempt, tmp_path):
    async with serving(loop) as address:
        with socket.socket() as sock:
            sock.setblocking(False)
            await attempt(loop.sock_connect(sock, address))
            assert not loop.remove_writer(sock)


@scenario
async def sock_connect_that_hangs(loop, attempt, tmp_path):
    listener, waiting = full_listener()
    with contextlib.ExitStack() as stack:
        for sock in [listener, *waiting]:
            stack.enter_context(sock)
        with socket.socket() as sock:
            sock.setblocking(False)
            await attempt(loop.sock_connect(sock, listener.getsockname()))
            assert not loop.remove_writer(sock)


@scenario
async def sock_accept(loop, attempt, tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as listener, socket.socket() as client:
        listener.setblocking(False)
        await attempt(
            loop.sock_accept(listener), fire=once(lambda: client.connect(listener.getsockname())), clean=close_first
        )
        assert not loop.remove_reader(listener)


def receiving(name, *arguments):
    async def scenario(loop, attempt, tmp_path):
        with pair() as (near, far):
            coroutine = getattr(loop, name)(near, *(make() for make in arguments))
            await attempt(coroutine, fire=once(lambda: far.send(b"x")))
            assert not loop.remove_reader(near)
            # The socket is as usable as before.
            far.send(b"y")
            assert (await loop.sock_recv(near, 2))[-1:] == b"y"

    SCENARIOS[name] = scenario


receiving("sock_recv", lambda: 10)
receiving("sock_recvfrom", lambda: 10)
receiving("sock_recv_into", lambda: bytearray(10))
receiving("sock_recvfrom_into", lambda: bytearray(10))


def drain(sock):
    with contextlib.suppress(BlockingIOError):
        while sock.recv(1 << 16):
            pass


@scenario
async def sock_sendall(loop, attempt, tmp_path):
    with pair() as (near, far):
        await attempt(loop.sock_sendall(near, bytes(20_000)), fire=lambda _: drain(far))
        assert not loop.remove_writer(near)
        drain(far)
        await loop.sock_sendall(near, b"y")


@scenario
async def sock_sendto(loop, attempt, tmp_path):
    path = str(tmp_path / "datagrams")
    with (
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as near,
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as far,
    ):
        near.setblocking(False)
        far.setblocking(False)
        far.bind(path)
        with contextlib.suppress(BlockingIOError):
            while True:
                near.sendto(bytes(100), path)
        await attempt(loop.sock_sendto(near, b"x", path), fire=once(lambda: far.recv(1000)))
        assert not loop.remove_writer(near)


@scenario
async def sock_sendfile(loop, attempt, tmp_path):
    path = tmp_path / "file"
    path.write_bytes(bytes(200_000))
    with pair() as (near, far), path.open("rb") as file:
        await attempt(loop.sock_sendfile(near, file), fire=lambda _: drain(far))
        assert not loop.remove_writer(near)
        drain(far)
        await loop.sock_sendall(near, b"y")


@scenario
async def sock_sendfile_by_reading(loop, attempt, tmp_path):
    with pair() as (near, far), io.BytesIO(bytes(20_000)) as file:
        await attempt(loop.sock_sendfile(near, file), fire=lambda _: drain(far))
        assert not loop.remove_writer(near)
        drain(far)
        await loop.sock_sendall(near, b"y")


@scenario
async def sendfile(loop, attempt, tmp_path):
    path = tmp_path / "file"
    path.write_bytes(bytes(200_000))
    with path.open("rb") as file:
        async with connected(loop) as (transport, far):
            await attempt(loop.sendfile(transport, file), fire=lambda _: drain(far))
            assert transport.is_reading() or transport.is_closing()


@scenario
async def sendfile_after_much_else(loop, attempt, tmp_path):
    path = tmp_path / "file"
    path.write_bytes(bytes(1000))
    with path.open("rb") as file:
        async with connected(loop) as (transport, far):
            transport.write(bytes(20_000))
            await attempt(loop.sendfile(transport, file), fire=lambda _: drain(far))


@scenario
async def start_tls(loop, attempt, tmp_path):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    async with connected(loop) as (transport, _far):
        await attempt(loop.start_tls(transport, Peer(), context, server_hostname="nobody"))
        await turns(3)


@scenario
async def create_connection_with_tls(loop, attempt, tmp_path):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    # The server never answers.
    async with serving(loop) as (host, port):
        await attempt(loop.create_connection(Peer, host, port, ssl=context, server_hostname="nobody"))
        await until(lambda: not Peer.connected)


@scenario
async def getaddrinfo(loop, attempt, tmp_path):
    await attempt(loop.getaddrinfo("localhost", 80))


@scenario
async def getnameinfo(loop, attempt, tmp_path):
    await attempt(loop.getnameinfo(("127.0.0.1", 80)))


@scenario
async def start_serving(loop, attempt, tmp_path):
    server = await loop.create_server(Peer, "127.0.0.1", 0, start_serving=False)
    await attempt(server.start_serving())
    server.close()
    await server.wait_closed()


@scenario
async def serve_forever(loop, attempt, tmp_path):
    server = await loop.create_server(Peer, "127.0.0.1", 0)
    with socket.create_connection(server.sockets[0].getsockname()):
        await attempt(server.serve_forever(), fire=once(server.close))
        server.close()
    await asyncio.wait_for(server.wait_closed(), PATIENCE)
    await until(lambda: not Peer.connected)


@scenario
async def wait_closed(loop, attempt, tmp_path):
    server = await loop.create_server(Peer, "127.0.0.1", 0)
    client = socket.create_connection(server.sockets[0].getsockname())
    with client:
        await until(lambda: Peer.connected)
        server.close()
        await attempt(server.wait_closed(), fire=once(client.close))
    await asyncio.wait_for(server.wait_closed(), PATIENCE)
    await until(lambda: not Peer.connected)


# Streams.


@scenario
async def open_connection(loop, attempt, tmp_path):
    async with serving(loop) as (host, port):
        await attempt(aioxide.open_connection(host, port), clean=close_writer)
        await until(lambda: not Peer.connected)


@scenario
async def start_server(loop, attempt, tmp_path):
    coroutine = aioxide.start_server(lambda reader, writer: writer.close(), "127.0.0.1", 0)
    await attempt(coroutine, clean=lambda server: server.close())


@scenario
async def open_unix_connection(loop, attempt, tmp_path):
    path = str(tmp_path / "socket")
    async with await loop.create_unix_server(Peer, path):
        await attempt(aioxide.open_unix_connection(path), clean=close_writer)
        await until(lambda: not Peer.connected)


@contextlib.asynccontextmanager
async def streams():
    with pair() as (near, far):
        reader, writer = await aioxide.open_connection(sock=near, limit=1000)
        try:
            yield reader, writer, far
        finally:
            writer.transport.abort()
            await until(lambda: near.fileno() == -1)


def stream_read(name, *arguments):
    async def scenario(loop, attempt, tmp_path):
        async with streams() as (reader, _writer, far):
            await attempt(getattr(reader, name)(*arguments), fire=once(lambda: far.send(b"ab\n")))
            assert reader._waiter is None
            far.send(b"z")
            assert (await reader.readuntil(b"z"))[-1:] == b"z"

    SCENARIOS[f"stream_{name}_{arguments}"] = scenario


stream_read("read", 10)
stream_read("readline")
stream_read("readexactly", 3)
stream_read("readuntil", b"b")


@scenario
async def stream_read_to_the_end(loop, attempt, tmp_path):
    async with streams() as (reader, _writer, far):
        await attempt(reader.read(), fire=once(lambda: far.shutdown(socket.SHUT_WR)))
        assert reader._waiter is None


@scenario
async def stream_drain(loop, attempt, tmp_path):
    async with streams() as (_reader, writer, far):
        writer.write(bytes(100_000))
        await attempt(writer.drain(), fire=lambda _: drain(far))
        if not attempt.completed:
            draining = asyncio.ensure_future(writer.drain())
            deadline = time.monotonic() + PATIENCE
            while not draining.done():
                assert time.monotonic() < deadline
                drain(far)
                await asyncio.sleep(0)
            await draining


@scenario
async def stream_wait_closed(loop, attempt, tmp_path):
    async with streams() as (_reader, writer, _far):
        writer.close()
        await attempt(writer.wait_closed())
        await writer.wait_closed()


@scenario
async def stream_start_tls(loop, attempt, tmp_path):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    async with streams() as (_reader, writer, _far):
        await attempt(writer.start_tls(context, server_hostname="nobody"))
        await turns(3)


@pytest.mark.parametrize("fires", ["never", "meanwhile", "before"])
@pytest.mark.parametrize("name", SCENARIOS)
def test_cancelled_at_every_moment(own, name, fires, tmp_path):
    """Nothing is left: no descriptor, task, registration, connection; and what was waited for can be had again."""
    reports = []
    own.set_exception_handler(lambda _, context: reports.append(context))

    async def main(attempt, path):
        before = descriptors()
        transports = len(own._transports)
        tasks = asyncio.all_tasks()
        await SCENARIOS[name](own, attempt, path)
        await turns(2)
        assert asyncio.all_tasks() == tasks
        assert descriptors() == before
        assert len(own._transports) == transports

    # The loop may leave descriptors alone for 16 turns while callbacks are ready.
    counts = [*range(8), 12, 16] if fires == "never" else [*range(12), *range(15, 20), 24, 33, 34, 64]
    for count in counts:
        attempt = Attempt(count, fires)
        path = tmp_path / str(count)
        path.mkdir()
        own.run_until_complete(asyncio.wait_for(main(attempt, path), PATIENCE))
        assert reports == [], count
        if attempt.completed:
            break
    Peer.connected.clear()


# No descriptors, no memory.


@pytest.mark.parametrize("kind", ["tcp", "unix", "streams"])
@pytest.mark.parametrize("servers", [1, 3])
def test_servers_accept_again_when_there_are_descriptors(own, kind, servers, no_descriptors, monkeypatch, tmp_path):
    """Of every server each connection that waited meanwhile is served, and each later one."""
    forbid, allow = no_descriptors
    monkeypatch.setattr(asyncio.constants, "ACCEPT_RETRY_DELAY", 0.01)
    reports = []
    own.set_exception_handler(lambda _, context: reports.append(context))

    class Echo(asyncio.Protocol):
        def connection_made(self, transport):
            self.transport = transport

        def data_received(self, data):
            self.transport.write(data)

    async def echo(reader, writer):
        writer.write(await reader.read(10))
        await reader.read()
        writer.close()

    async def serve(number):
        if kind == "tcp":
            return await own.create_server(Echo, "127.0.0.1", 0)
        if kind == "unix":
            return await own.create_unix_server(Echo, str(tmp_path / str(number)))
        return await aioxide.start_server(echo, "127.0.0.1", 0)

    async def check(socks):
        for sock in socks:
            await own.sock_sendall(sock, b"x")
        for sock in socks:
            assert await asyncio.wait_for(own.sock_recv(sock, 1), PATIENCE) == b"x"

    async def main():
        listening = [await serve(number) for number in range(servers)]
        family = socket.AF_UNIX if kind == "unix" else socket.AF_INET
        with contextlib.ExitStack() as stack:
            socks = [stack.enter_context(socket.socket(family)) for _ in range(10 * servers)]
            later = [stack.enter_context(socket.socket(family)) for _ in listening]
            for sock in socks + later:
                sock.setblocking(False)
            forbid()
            for number, sock in enumerate(socks):
                await own.sock_connect(sock, listening[number % servers].sockets[0].getsockname())
            await until(lambda: len(reports) >= servers)
            assert {report["exception"].errno for report in reports} == {errno.EMFILE}
            allow()
            await check(socks)
            for sock, server in zip(later, listening, strict=True):
                await own.sock_connect(sock, server.sockets[0].getsockname())
            await check(later)
        for server in listening:
            server.close()
            await asyncio.wait_for(server.wait_closed(), PATIENCE)

    own.run_until_complete(main())


@pytest.mark.parametrize("number", [errno.ENFILE, errno.ENOBUFS, errno.ENOMEM])
def test_accept_without_resources(own, number, monkeypatch):
    """The whole system has none left: reported once, then accepted."""
    monkeypatch.setattr(asyncio.constants, "ACCEPT_RETRY_DELAY", 0.01)
    reports = []
    own.set_exception_handler(lambda _, context: reports.append(context))

    class Failing(socket.socket):
        failures = 2

        def accept(self):
            if self.failures:
                self.failures -= 1
                raise OSError(number, os.strerror(number))
            return super().accept()

    async def main():
        listening = Failing()
        listening.bind(("127.0.0.1", 0))
        async with await own.create_server(Peer, sock=listening):
            with socket.create_connection(listening.getsockname()):
                await until(lambda: Peer.connected)
            await until(lambda: not Peer.connected)

    own.run_until_complete(main())
    assert [report["message"] for report in reports] == ["socket.accept() out of system resource"] * 2
    assert [report["exception"].errno for report in reports] == [number] * 2


NEEDS = {
    "create_connection": lambda loop, path: loop.create_connection(Peer, "127.0.0.1", 9),
    "create_server": lambda loop, path: loop.create_server(Peer, "127.0.0.1", 0),
    "create_unix_connection": lambda loop, path: loop.create_unix_connection(Peer, path),
    "create_unix_server": lambda loop, path: loop.create_unix_server(Peer, path),
    "create_datagram_endpoint": lambda loop, path: loop.create_datagram_endpoint(
        DatagramPeer, local_addr=("127.0.0.1", 0)
    ),
    "open_connection": lambda loop, path: aioxide.open_connection("127.0.0.1", 9),
    "start_server": lambda loop, path: aioxide.start_server(print, "127.0.0.1", 0),
}


@pytest.mark.parametrize("name", NEEDS)
def test_what_needs_a_descriptor_says_so(own, name, no_descriptors, tmp_path):
    """Neither a hang nor a registration, and the loop goes on."""
    forbid, allow = no_descriptors

    async def main():
        forbid()
        # Servers try each address and say only that there was none.
        text = "could not bind on any address" if name in {"create_server", "start_server"} else "Too many open files"
        with pytest.raises(OSError, match=text):
            await NEEDS[name](own, str(tmp_path / "socket"))
        allow()
        assert not own._transports

    own.run_until_complete(main())


def test_a_new_loop_needs_descriptors(no_descriptors):
    """It raises, leaves nothing, and succeeds afterwards."""
    forbid, allow = no_descriptors
    before = descriptors()
    for spare in range(4):
        forbid()
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft + spare, hard))
        try:
            loop = aioxide.new_event_loop()
        except OSError as error:
            assert error.errno == errno.EMFILE
            assert spare < 3
        else:
            loop.close()
        finally:
            allow()
        assert descriptors() == before
    aioxide.new_event_loop().close()


def test_accepting_by_hand_without_descriptors(loop, no_descriptors):
    """The error comes out of sock_accept(), and the connection can be had later."""
    forbid, allow = no_descriptors

    async def main():
        with socket.create_server(("127.0.0.1", 0)) as listener, socket.create_connection(listener.getsockname()):
            listener.setblocking(False)
            forbid()
            with pytest.raises(OSError, match="Too many open files"):
                await loop.sock_accept(listener)
            allow()
            connection, _ = await loop.sock_accept(listener)
            connection.close()

    loop.run_until_complete(main())


# Nobody there.


@pytest.mark.parametrize("connect", ["transport", "socket", "stream"])
def test_nobody_listens(loop, connect):
    async def main():
        with socket.socket() as silent:
            silent.bind(("127.0.0.1", 0))
            address = silent.getsockname()
            before = descriptors()
            for _ in range(3):
                with pytest.raises(ConnectionRefusedError) as raised:
                    if connect == "transport":
                        await loop.create_connection(Peer, *address)
                    elif connect == "stream":
                        await asyncio.open_connection(*address)
                    else:
                        with socket.socket() as sock:
                            sock.setblocking(False)
                            await loop.sock_connect(sock, address)
                assert raised.value.errno == errno.ECONNREFUSED
            del raised
            assert descriptors() == before

    loop.run_until_complete(main())


def test_no_way_there(loop):
    """A broadcast address cannot be connected to by TCP: the system says so at once."""

    async def main():
        before = descriptors()
        with pytest.raises(OSError, match=r"Errno|Multiple") as raised:
            await loop.create_connection(Peer, "255.255.255.255", 9)
        assert raised.value.errno in {errno.ENETUNREACH, errno.EACCES, errno.EHOSTUNREACH}
        assert descriptors() == before

    loop.run_until_complete(main())


def test_a_connection_that_takes_too_long(loop, aio):
    async def main():
        listener, waiting = full_listener()
        with contextlib.ExitStack() as stack:
            for sock in [listener, *waiting]:
                stack.enter_context(sock)
            before = descriptors()
            with pytest.raises(TimeoutError):
                async with aio.timeout(0.02):
                    await loop.create_connection(Peer, *listener.getsockname())
            assert descriptors() == before

    loop.run_until_complete(main())


# Peers that vanish.


class Recorder(asyncio.Protocol):
    """Knows how its connection ended."""

    def __init__(self, loop):
        self.lost = loop.create_future()
        self.paused = False
        self.data = bytearray()

    def connection_made(self, transport):
        self.transport = transport

    def data_received(self, data):
        self.data += data

    def pause_writing(self):
        self.paused = True

    def resume_writing(self):
        self.paused = False

    def connection_lost(self, exc):
        self.lost.set_result(exc)


@contextlib.asynccontextmanager
async def to_raw_socket(loop):
    """A protocol connected by TCP, and the blocking socket at the other end."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        _, protocol = await loop.create_connection(lambda: Recorder(loop), *listener.getsockname())
        far, _ = listener.accept()
        with far:
            yield protocol, far
        protocol.transport.abort()
        await asyncio.wait_for(asyncio.shield(protocol.lost), PATIENCE)


@pytest.mark.parametrize("state", ["idle", "paused", "writing", "closing", "half_closed"])
def test_reset(loop, state):
    """However the transport is busy, it ends with the reset, and its socket is closed."""

    async def main():
        async with to_raw_socket(loop) as (protocol, far):
            transport = protocol.transport
            sock = transport.get_extra_info("socket")
            if state == "paused":
                transport.pause_reading()
            if state in {"writing", "closing"}:
                transport.write(bytes(32 << 20))
                await turns(20)
            if state == "closing":
                transport.close()
            if state == "half_closed":
                transport.write_eof()
            far.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
            far.close()
            if state == "paused":
                # Who does not read learns of it by writing or by reading again.
                transport.resume_reading()
            error = await asyncio.wait_for(protocol.lost, PATIENCE)
            assert isinstance(error, (ConnectionResetError, BrokenPipeError))
            assert sock.fileno() == -1
            assert transport.is_closing()
            if state != "half_closed":
                transport.write(b"x")
            assert transport.get_write_buffer_size() == 0

    loop.run_until_complete(main())


@pytest.mark.parametrize("state", ["at_once", "queued"])
def test_broken_pipe(loop, state):
    """The peer of a Unix socket has gone; what is written is lost, the protocol is told once."""

    async def main():
        near, far = socket.socketpair()
        _, protocol = await loop.connect_accepted_socket(lambda: Recorder(loop), near)
        protocol.transport.pause_reading()
        if state == "queued":
            protocol.transport.write(bytes(8 << 20))
            assert protocol.paused
        far.close()
        protocol.transport.write(b"x")
        error = await asyncio.wait_for(protocol.lost, PATIENCE)
        assert isinstance(error, (BrokenPipeError, ConnectionResetError))
        assert near.fileno() == -1

    loop.run_until_complete(main())


@pytest.mark.parametrize("way", ["at_once", "in_a_job"])
def test_the_first_error_of_writing_is_told(loop, way):
    """A socket tells of a reset once; who asks again is told of a broken pipe."""

    async def main():
        with socket.create_server(("127.0.0.1", 0)) as listener:
            near = socket.create_connection(listener.getsockname())
            far, _ = listener.accept()
        _, protocol = await loop.connect_accepted_socket(lambda: Recorder(loop), near)
        protocol.transport.pause_reading()
        # Data that was not read makes the end a reset.
        far.send(b"x")
        far.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
        far.close()
        if way == "at_once":
            return protocol
        protocol.transport.write(b"x")
        return protocol, await asyncio.wait_for(protocol.lost, PATIENCE)

    if way == "at_once":
        protocol = loop.run_until_complete(main())
        protocol.transport.write(b"x")
        error = loop.run_until_complete(asyncio.wait_for(protocol.lost, PATIENCE))
    else:
        protocol, error = loop.run_until_complete(main())
    assert type(error) is ConnectionResetError
    assert protocol.transport.get_extra_info("socket").fileno() == -1


def test_streams_after_a_reset(loop, aio):
    """Reading, draining and closing all tell of it, and none of them hangs."""

    async def main():
        with socket.create_server(("127.0.0.1", 0)) as listener:
            reader, writer = await aio.open_connection(*listener.getsockname())
            far, _ = listener.accept()
            reading = asyncio.ensure_future(reader.read())
            writer.write(bytes(32 << 20))
            draining = asyncio.ensure_future(writer.drain())
            await turns(20)
            far.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
            far.close()
            done, pending = await asyncio.wait([reading, draining], timeout=PATIENCE)
            assert not pending
            assert {isinstance(task.exception(), ConnectionError) for task in done} == {True}
            with pytest.raises(ConnectionError):
                await reader.readline()
            with pytest.raises(ConnectionError):
                await asyncio.wait_for(writer.wait_closed(), PATIENCE)

    loop.run_until_complete(main())


def test_every_write_is_short(loop):
    """With the smallest buffers each call to the system takes a part only; nothing is lost or doubled."""

    async def main():
        near, far = socket.socketpair()
        small_buffers(near, far)
        far.setblocking(False)
        _, protocol = await loop.connect_accepted_socket(lambda: Recorder(loop), near)
        transport = protocol.transport
        generator = random.Random(1)
        sent, received = hashlib.sha256(), hashlib.sha256()
        total = 0
        with far:
            for _ in range(60):
                parts = [generator.randbytes(generator.choice([0, 1, 700, 5000, 20_000])) for _ in range(3)]
                transport.writelines(parts)
                transport.write(memoryview(parts[0]))
                for part in [*parts, parts[0]]:
                    sent.update(part)
                    total += len(part)
                for _ in range(generator.randrange(5)):
                    with contextlib.suppress(BlockingIOError):
                        received.update(far.recv(generator.randrange(1, 9000)))
                    await asyncio.sleep(0)
            transport.write_eof()
            while data := await loop.sock_recv(far, 5000):
                received.update(data)
            assert received.digest() == sent.digest()
        await asyncio.wait_for(protocol.lost, PATIENCE)

    loop.run_until_complete(main())


def resident():
    """The memory of this process in bytes, less what glibc keeps of what was freed: that depends on where holes are."""
    with contextlib.suppress(AttributeError):
        ctypes.CDLL(None).malloc_trim(0)
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * resource.getpagesize()


@pytest.mark.slow
@pytest.mark.parametrize("size", [64, pytest.param(1024, marks=pytest.mark.stress)])
@pytest.mark.parametrize("ends", ["read", "close", "reset", "abort"])
def test_a_peer_that_stops_reading(own, size, ends):
    """Much is queued for it. It may read on, or go; the memory is given back either way."""
    piece = random.Random(2).randbytes(1 << 20)

    async def main():
        async with to_raw_socket(own) as (protocol, far):
            transport = protocol.transport
            for _ in range(size):
                transport.write(piece)
            await turns(20)
            assert protocol.paused
            assert transport.get_write_buffer_size() > (size << 20) - (16 << 20)
            if ends == "read":
                far.setblocking(False)
                transport.write_eof()
                wanted, received = hashlib.sha256(), hashlib.sha256()
                for _ in range(size):
                    wanted.update(piece)
                buffer = bytearray(1 << 20)
                while count := await own.sock_recv_into(far, buffer):
                    received.update(memoryview(buffer)[:count])
                assert received.digest() == wanted.digest()
                assert not protocol.paused
                far.close()
                assert await protocol.lost is None
            elif ends == "close":
                far.close()
                assert isinstance(await protocol.lost, ConnectionError)
            elif ends == "reset":
                far.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
                far.close()
                assert isinstance(await protocol.lost, ConnectionError)
            else:
                transport.abort()
                assert await protocol.lost is None
            assert transport.get_write_buffer_size() == 0

    before = resident()
    own.run_until_complete(asyncio.wait_for(main(), 10 * PATIENCE))
    gc.collect()
    assert resident() - before < 24 << 20


# Everything at random.


class Tally:
    """What a soak has done."""

    def __init__(self):
        self.conversations = 0
        self.bytes = 0
        self.reports = []


class EchoProtocol(asyncio.Protocol):
    """Sends back what comes, at the pace of the peer; every so often it drops the connection instead."""

    alive: set = set()

    def __init__(self, generator):
        self.left = generator.randrange(1, 200_000) if generator.random() < 0.1 else float("inf")
        self.way = generator.choice(["close", "abort"])

    def connection_made(self, transport):
        self.transport = transport
        EchoProtocol.alive.add(self)

    def pause_writing(self):
        self.transport.pause_reading()

    def resume_writing(self):
        self.transport.resume_reading()

    def data_received(self, data):
        self.transport.write(data)
        self.left -= len(data)
        if self.left <= 0:
            getattr(self.transport, self.way)()

    def connection_lost(self, exc):
        EchoProtocol.alive.discard(self)


class BufferedEcho(EchoProtocol, asyncio.BufferedProtocol):
    """The same with a buffer of its own."""

    def __init__(self, generator):
        super().__init__(generator)
        self.buffer = bytearray(generator.choice([100, 5000, 70_000]))

    def get_buffer(self, sizehint):
        return self.buffer

    def buffer_updated(self, nbytes):
        self.data_received(memoryview(self.buffer)[:nbytes])


def echo_by_streams(generator):
    async def echo(reader, writer):
        with contextlib.suppress(ConnectionError):
            left = generator.randrange(1, 200_000) if generator.random() < 0.1 else float("inf")
            while left > 0 and (data := await reader.read(generator.choice([10, 1000, 65_536]))):
                writer.write(data)
                left -= len(data)
                await writer.drain()
            if generator.random() < 0.05:
                writer.transport.abort()
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()

    return echo


async def converse(generator, tally, open_connection):
    """One connection of a client, with a random end; what came back has to be a beginning of what was sent."""
    try:
        reader, writer = await open_connection()
    except ConnectionError:
        return None
    end = generator.choice(["orderly", "orderly", "half", "half", "close", "abort", "cancel", "reset"])
    sent = bytearray()
    received = bytearray()

    async def receive():
        while data := await reader.read(generator.choice([1, 100, 4096, 65_536])):
            received.extend(data)

    receiving = asyncio.ensure_future(receive())
    broken = False
    try:
        for _ in range(generator.randrange(6)):
            part = generator.randbytes(generator.choice([1, 10, 1000, 10_000, 100_000]))
            sent += part
            writer.write(part)
            if generator.random() < 0.7:
                await writer.drain()
            if generator.random() < 0.3:
                await turns(generator.randrange(4))
        if end == "orderly":
            while len(received) < len(sent) and not receiving.done():
                await asyncio.sleep(0)
            writer.write_eof()
            await receiving
        elif end == "half":
            writer.write_eof()
            await receiving
        elif end == "abort":
            writer.transport.abort()
        elif end == "reset":
            sock = writer.get_extra_info("socket")
            if sock.family == socket.AF_INET and not writer.is_closing():
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
        elif end == "cancel":
            receiving.cancel()
    except OSError as error:
        # write_eof() says ENOTCONN.
        assert isinstance(error, ConnectionError) or error.errno == errno.ENOTCONN
        broken = True
    writer.close()
    with contextlib.suppress(ConnectionError):
        await writer.wait_closed()
    (error,) = await asyncio.gather(receiving, return_exceptions=True)
    assert error is None or isinstance(error, (ConnectionError, asyncio.CancelledError)), error
    assert sent.startswith(received), "bytes were lost, doubled or changed"
    tally.conversations += 1
    tally.bytes += len(received)
    return end in {"orderly", "half"} and not broken and error is None and len(received) == len(sent)


async def soak(loop, seed, goes_on, tally, folder):
    """Keeps 20 conversations going with servers of several kinds."""
    generator = random.Random(seed)
    path = str(folder / "streams")
    servers = [
        await loop.create_server(lambda: EchoProtocol(generator), "127.0.0.1", 0),
        await loop.create_server(lambda: BufferedEcho(generator), "127.0.0.1", 0),
        await loop.create_unix_server(lambda: EchoProtocol(generator), str(folder / "protocols")),
        await aioxide.start_server(echo_by_streams(generator), "127.0.0.1", 0),
        await aioxide.start_unix_server(echo_by_streams(generator), path),
    ]

    def opening():
        address = generator.choice(servers).sockets[0].getsockname()
        if isinstance(address, str):
            return aioxide.open_unix_connection(address)
        return aioxide.open_connection(*address)

    whole = 0

    async def talk():
        nonlocal whole
        while goes_on(tally):
            was_whole = await converse(generator, tally, opening)
            whole += bool(was_whole)

    await asyncio.gather(*[talk() for _ in range(20)])
    # Most orderly ones were complete, since servers drop one of ten only.
    assert whole > tally.conversations * 0.3
    # Every server still accepts.
    for server in servers:
        address = server.sockets[0].getsockname()
        unix = isinstance(address, str)
        for _ in range(20):
            opened = aioxide.open_unix_connection(address) if unix else aioxide.open_connection(*address)
            reader, writer = await opened
            writer.write(b"x")
            back = await reader.read(1)
            writer.close()
            with contextlib.suppress(ConnectionError):
                await writer.wait_closed()
            if back == b"x":
                break
        else:
            pytest.fail("a server does not echo any more")
        server.close()
        await asyncio.wait_for(server.wait_closed(), PATIENCE)
    await until(lambda: not EchoProtocol.alive)


def run_soak(loop, seed, goes_on, folder):
    tally = Tally()
    loop.set_exception_handler(lambda _, context: tally.reports.append(context))

    async def main():
        before = descriptors()
        await soak(loop, seed, goes_on, tally, folder)
        # The tasks of the servers' streams end by themselves.
        await until(lambda: asyncio.all_tasks() == {asyncio.current_task()})
        assert descriptors() == before
        assert len(loop._transports) == 0
        assert tally.reports == []

    folder.mkdir()
    loop.run_until_complete(main())
    return tally


@pytest.mark.slow
@pytest.mark.parametrize("debug", [False, True], ids=["plain", "debug"])
@pytest.mark.parametrize("seed", [1, 2])
def test_random_connections(own, seed, debug, tmp_path):
    """No crash, no byte lost, nothing left; servers keep accepting."""
    own.set_debug(debug)
    own.slow_callback_duration = 60
    count = 100 if debug else 400
    tally = run_soak(own, seed, lambda tally: tally.conversations < count, tmp_path / "first")
    assert tally.conversations >= count


@pytest.mark.slow
@pytest.mark.stress
def test_very_many_random_connections(own, tmp_path):
    """The same for a minute and 10,000 connections, with memory as it was after the first 1,000."""
    run_soak(own, 3, lambda tally: tally.conversations < 1000, tmp_path / "first")
    gc.collect()
    objects, memory = len(gc.get_objects()), resident()
    end = time.monotonic() + 60
    tally = run_soak(own, 4, lambda tally: tally.conversations < 10_000 or time.monotonic() < end, tmp_path / "second")
    assert tally.conversations >= 10_000
    gc.collect()
    grown = (resident() - memory) / 2**20
    print(f"{tally.conversations} conversations, {tally.bytes >> 20} MiB, {grown:+.1f} MiB of memory")
    assert len(gc.get_objects()) - objects < 500
    assert resident() - memory < 4 << 20


# Pipes and datagrams at random.


class Sink(asyncio.Protocol, asyncio.DatagramProtocol):
    """Keeps what comes, and stops reading for a while every so often."""

    def __init__(self, generator, loop):
        self.generator = generator
        self.lost = loop.create_future()
        self.pieces = []

    def connection_made(self, transport):
        self.transport = transport

    def data_received(self, data):
        self.pieces.append(data)
        if self.generator.random() < 0.2:
            self.transport.pause_reading()
            loop = asyncio.get_running_loop()
            loop.call_later(self.generator.choice([0, 0.0005]), self.transport.resume_reading)

    def datagram_received(self, data, addr):
        self.data_received(data)

    def connection_lost(self, exc):
        self.lost.set_result(exc)


class Source(Sink):
    """Knows when it may send."""

    def __init__(self, generator, loop):
        super().__init__(generator, loop)
        self.free = asyncio.Event()
        self.free.set()

    def pause_writing(self):
        self.free.clear()

    def resume_writing(self):
        self.free.set()

    def connection_lost(self, exc):
        super().connection_lost(exc)
        self.free.set()


async def send_at_random(generator, source, send, sizes):
    """Sends pieces, mostly as the transport wants them; returns them, and how it ended."""
    sent = []
    for _ in range(generator.randrange(30)):
        piece = generator.randbytes(generator.choice(sizes))
        sent.append(piece)
        send(piece)
        if generator.random() < 0.8:
            await source.free.wait()
        if generator.random() < 0.3:
            await turns(generator.randrange(3))
    end = generator.choice(["close", "close", "abort", "peer"])
    return sent, end


async def pipe_at_random(loop, generator):
    reading, writing = os.pipe()
    _, sink = await loop.connect_read_pipe(lambda: Sink(generator, loop), io.FileIO(reading))
    transport, source = await loop.connect_write_pipe(lambda: Source(generator, loop), io.FileIO(writing, "w"))
    transport.set_write_buffer_limits(high=generator.choice([0, 1000, 1 << 16]))
    sent, end = await send_at_random(generator, source, transport.write, [1, 100, 5000, 100_000])
    if end == "peer":
        sink.transport.close()
    else:
        getattr(transport, end)()
    await sink.lost
    transport.close()
    await source.lost
    whole, received = b"".join(sent), b"".join(sink.pieces)
    assert received == whole if end == "close" else whole.startswith(received)
    return len(received)


async def datagrams_at_random(loop, generator, folder, number):
    """Over Unix sockets nothing is lost that was not dropped, and the order stays."""
    near, far = (socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) for _ in range(2))
    for name, sock in ("near", near), ("far", far):
        sock.bind(str(folder / f"{number}-{name}"))
        sock.setblocking(False)
    near.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    address = far.getsockname()
    if generator.random() < 0.5:
        near.connect(address)
        address = None
    _, sink = await loop.create_datagram_endpoint(lambda: Sink(generator, loop), sock=far)
    transport, source = await loop.create_datagram_endpoint(lambda: Source(generator, loop), sock=near)
    transport.set_write_buffer_limits(high=generator.choice([0, 1000, 1 << 16]))
    sent, end = await send_at_random(
        generator, source, lambda piece: transport.sendto(piece, address), [0, 1, 100, 1000, 2000]
    )
    if end == "peer":
        sink.transport.abort()
    else:
        getattr(transport, end)()
    if end == "peer":
        transport.abort()
    await source.lost
    if end == "close":
        await until(lambda: len(sink.pieces) == len(sent))
    sink.transport.abort()
    await sink.lost
    assert sink.pieces == sent[: len(sink.pieces)]
    return sum(map(len, sink.pieces))


@pytest.mark.slow
@pytest.mark.parametrize("debug", [False, True], ids=["plain", "debug"])
@pytest.mark.parametrize("seed", range(3))
def test_random_pipes_and_datagrams(own, seed, debug, tmp_path):
    own.set_debug(debug)
    own.slow_callback_duration = 60
    reports = []
    own.set_exception_handler(lambda _, context: reports.append(context))
    generator = random.Random(seed)

    async def main():
        before = descriptors()
        stories = []
        for number in range(40):
            stories.append(pipe_at_random(own, generator))
            stories.append(datagrams_at_random(own, generator, tmp_path, number))
        assert sum(await asyncio.wait_for(asyncio.gather(*stories), 3 * PATIENCE)) > 0
        await turns(3)
        assert descriptors() == before
        assert asyncio.all_tasks() == {asyncio.current_task()}
        assert reports == []

    own.run_until_complete(main())

"""What goes wrong in a network: no descriptors, peers that vanish or stop reading, cancellation at every moment.

Each test ends with the process and the loop as they were: no descriptor more, no task, no registration. At the end of
the file connections are opened, dropped, aborted and half-closed at random (longer by `make stress`).
"""

import asyncio
import contextlib
import errno
import gc
import hashlib
import io
import os
import random
import resource
import socket
import struct
import sys
import time
import warnings

import pytest

import aioxide

PATIENCE = 20
"""Seconds after which something that should have happened will not."""

RESET = struct.pack("ii", 1, 0)
"""The value of SO_LINGER with which close() resets the connection."""


@pytest.fixture
def own():
    """A native loop whose executor ends with the test."""
    loop = aioxide.new_event_loop()
    yield loop
    loop.run_until_complete(loop.shutdown_default_executor())
    loop.close()


@pytest.fixture
def loop(loop):
    """A loop of either kind whose executor ends with the test."""
    yield loop
    loop.run_until_complete(loop.shutdown_default_executor())


def descriptors():
    """The open descriptors of this process."""
    found = set()
    for name in os.listdir("/proc/self/fd"):
        # The listing's own descriptor is closed by now.
        with contextlib.suppress(OSError):
            found.add((int(name), os.readlink(f"/proc/self/fd/{name}")))
    return found


async def turns(count=1):
    for _ in range(count):
        await asyncio.sleep(0)


async def until(condition):
    """Lets the loop run until something is true."""
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, "it does not happen"
        await asyncio.sleep(0)


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
        server.close_clients() if hasattr(server, "close_clients") else None
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
    import ssl

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    async with connected(loop) as (transport, far):
        await attempt(loop.start_tls(transport, Peer(), context, server_hostname="nobody"))
        await turns(3)


@scenario
async def create_connection_with_tls(loop, attempt, tmp_path):
    import ssl

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
    await attempt(aioxide.start_server(lambda reader, writer: writer.close(), "127.0.0.1", 0), clean=lambda s: s.close())


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
        async with streams() as (reader, writer, far):
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
    async with streams() as (reader, writer, far):
        await attempt(reader.read(), fire=once(lambda: far.shutdown(socket.SHUT_WR)))
        assert reader._waiter is None


@scenario
async def stream_drain(loop, attempt, tmp_path):
    async with streams() as (reader, writer, far):
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
    async with streams() as (reader, writer, far):
        writer.close()
        await attempt(writer.wait_closed())
        await writer.wait_closed()


@scenario
async def stream_start_tls(loop, attempt, tmp_path):
    import ssl

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    async with streams() as (reader, writer, far):
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
        await SCENARIOS[name](own, attempt, path)
        await turns(2)
        assert asyncio.all_tasks() == {asyncio.current_task()}
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
    print(name, fires, "completed" if attempt.completed else "cancelled", count)
    Peer.connected.clear()

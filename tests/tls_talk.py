"""What tests of TLS share: protocols that note what they are told, connected pairs, and TLS by hand.

`Hand` is one end of TLS without an event loop, an `SSLObject` over two `MemoryBIO`s. It is the peer of which a test
sees, cuts and changes each byte, and it tells what a handshake between two contexts comes to.
"""

import asyncio
import asyncio.sslproto
import contextlib
import gc
import inspect
import platform
import socket
import ssl
import threading
import traceback

import pytest
from tls_certificates import client_context, server_context
from waiting import PATIENCE, descriptors, turns, until

TLS_1_2, TLS_1_3 = ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3


def old_stdlib(aio, source, text, what):
    """Skips a test on the stdlib if its source lacks a text: `what` was mended later."""
    if aio is asyncio and text not in inspect.getsource(source):
        pytest.skip(f"asyncio of Python {platform.python_version()}: {what}")


def needs_is_closing(aio):
    """The transport of 3.14 tells that the connection below it is closing."""
    old_stdlib(aio, asyncio.sslproto, "_is_transport_closing", "is_closing() is false after a fatal error")


def needs_exception_of_abort(aio):
    """From 3.13 on `_force_close` hands its exception on."""
    old_stdlib(aio, asyncio.sslproto.SSLProtocol._abort, "exc", "_force_close() loses the exception")


def needs_lasting_shutdown_timeout(aio):
    """From 3.14 on the time limit of the shutdown lasts until the connection is lost."""
    old_stdlib(
        aio,
        asyncio.sslproto.SSLProtocol._on_shutdown_complete,
        "call_later",
        "the time limit of the shutdown ends before what is written has been sent",
    )


def run(loop, coroutine, *, threads=False):
    """Runs a test; afterwards it has left no descriptor, no task, no transport and no thread, unless it may.

    Returns its result.
    """

    async def whole():
        before, count = descriptors(), threading.active_count()
        result = await coroutine
        await until(lambda: asyncio.all_tasks() == {asyncio.current_task()}, "tasks are left")
        await until(lambda: descriptors() <= before, "descriptors are left")
        if threads:
            await loop.shutdown_default_executor()
        assert threading.active_count() == count
        return result

    async def in_time():
        # wait_for() would make a task on some versions.
        async with asyncio.timeout(PATIENCE):
            return await whole()

    result = loop.run_until_complete(in_time())
    # The last callbacks of connections that were lost.
    loop.run_until_complete(turns(2))
    if len(loop._transports):
        gc.collect()
    assert len(loop._transports) == 0
    return result


class Recorder(asyncio.Protocol):
    """Notes what it is told, with the data that came joined; what a test puts in `on` is called then."""

    buffered = False

    def __init__(self, **on):
        self.log = []
        self.on = on
        self.transport = None
        loop = asyncio.get_running_loop()
        self.made, self.ended, self.lost = loop.create_future(), loop.create_future(), loop.create_future()
        self.data = bytearray()
        self.paused = False
        self.error = None

    def note(self, name, *arguments):
        self.log.append((name, *arguments))
        act = self.on.get(name)
        return act(self) if act is not None else None

    def connection_made(self, transport):
        self.transport = transport
        if not self.made.done():
            self.made.set_result(None)
        self.note("connection_made")

    def data_received(self, data):
        assert type(data) is bytes
        self.received(data)

    def received(self, data):
        self.data += data
        if self.log and self.log[-1][0] == "data_received":
            data = self.log.pop()[1] + data
        self.note("data_received", bytes(data))

    def eof_received(self):
        if not self.ended.done():
            self.ended.set_result(None)
        return self.note("eof_received")

    def pause_writing(self):
        self.paused = True
        self.note("pause_writing")

    def resume_writing(self):
        self.paused = False
        self.note("resume_writing")

    def connection_lost(self, exc):
        self.error = exc
        # The traceback would keep the connection.
        if exc is not None:
            traceback.clear_frames(exc.__traceback__)
        self.lost.set_result(None)
        self.note("connection_lost", *describe(exc))

    async def has(self, count):
        """Waits until so many bytes were received."""
        await until(lambda: len(self.data) >= count or self.lost.done(), f"{len(self.data)} of {count} bytes came")
        assert len(self.data) >= count

    @property
    def names(self):
        return [entry[0] for entry in self.log]


class BufferedRecorder(Recorder, asyncio.BufferedProtocol):
    """The same with a buffer of its own; `sizes` are those of the buffers it gives, one after the other."""

    buffered = True

    def __init__(self, sizes=(65_536,), **on):
        super().__init__(**on)
        self.sizes = list(sizes)
        self.turn = 0

    def get_buffer(self, sizehint):
        assert type(sizehint) is int
        act = self.on.get("get_buffer")
        if act is not None:
            act(self)
        self.buffer = bytearray(self.sizes[self.turn % len(self.sizes)])
        self.turn += 1
        return memoryview(self.buffer)

    def buffer_updated(self, nbytes):
        assert 0 < nbytes <= len(self.buffer)
        self.received(self.buffer[:nbytes])


def describe(error):
    """What is compared of an exception."""
    if error is None:
        return (None,)
    if isinstance(error, ssl.SSLCertVerificationError):
        return type(error).__name__, error.reason, error.verify_code, error.verify_message
    if isinstance(error, ssl.SSLError):
        return type(error).__name__, getattr(error, "reason", None)
    return type(error).__name__, str(error)


class Broken(Exception):
    """A connection of which one side or both failed."""

    def __init__(self, client, server):
        self.client, self.server = client, server
        super().__init__(f"client: {client!r}, server: {server!r}")


def socket_pair(kind="unix"):
    """Two connected sockets."""
    if kind == "unix":
        return socket.socketpair()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        near = socket.create_connection(listener.getsockname())
        far, _ = listener.accept()
    return near, far


async def connect(
    loop, client=Recorder, server=Recorder, *, contexts=None, hostname="localhost", kind="unix", **options
):
    """Connects two protocols by TLS. Returns them, the client's first.

    `Broken` carries the errors of both sides if there were any.
    """
    context, other = contexts or (client_context(), server_context())
    near, far = socket_pair(kind)
    outcomes = await asyncio.gather(
        loop.create_connection(client, sock=near, ssl=context, server_hostname=hostname, **options),
        loop.connect_accepted_socket(server, far, ssl=other, **options),
        return_exceptions=True,
    )
    errors = [outcome if isinstance(outcome, BaseException) else None for outcome in outcomes]
    if errors != [None, None]:
        for outcome in outcomes:
            if not isinstance(outcome, BaseException):
                outcome[0].abort()
        raise Broken(*errors)
    return outcomes[0][1], outcomes[1][1]


@contextlib.asynccontextmanager
async def connected(loop, client=Recorder, server=Recorder, **options):
    """Two protocols connected by TLS, which are disconnected in the end."""
    client, server = await connect(loop, client, server, **options)
    try:
        yield client, server
    finally:
        await disconnect(client, server)


async def disconnect(*protocols):
    """Aborts connections and waits until they are lost."""
    for protocol in protocols:
        protocol.transport.abort()
    await asyncio.wait_for(asyncio.wait([protocol.lost for protocol in protocols]), PATIENCE)


class Hand:
    """One end of TLS by hand."""

    def __init__(self, context, *, server_side=False, hostname="localhost"):
        self.incoming, self.outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.ssl = context.wrap_bio(
            self.incoming, self.outgoing, server_side=server_side, server_hostname=None if server_side else hostname
        )
        self.ready = self.ended = False
        self.error = None

    def shake(self, data=b""):
        """Goes on with the handshake. Returns what is to be sent; `ready` and `error` tell how it stands."""
        self.incoming.write(data)
        try:
            self.ssl.do_handshake()
        except ssl.SSLWantReadError:
            pass
        except ssl.SSLError as error:
            # The frames would keep what their callers hold.
            self.error = error.with_traceback(None)
        else:
            self.ready = True
        return self.outgoing.read()

    def seal(self, data):
        """The records that carry data."""
        self.ssl.write(data)
        return self.outgoing.read()

    def open(self, records=b""):
        """The data that records carry; `ended` tells whether they end TLS."""
        self.incoming.write(records)
        parts = []
        try:
            while part := self.ssl.read(1 << 16):
                parts.append(part)
            self.ended = True
        except ssl.SSLWantReadError:
            pass
        except ssl.SSLZeroReturnError:
            self.ended = True
        return b"".join(parts)

    def end(self):
        """The record that ends TLS."""
        with contextlib.suppress(ssl.SSLError):
            self.ssl.unwrap()
        return self.outgoing.read()

    async def handshake(self, loop, sock, send=None):
        """Does the handshake over a socket, not blocking. Returns whether it succeeded."""
        send = send or (lambda data: loop.sock_sendall(sock, data))
        data = b""
        while True:
            answer = self.shake(data)
            if answer:
                await send(answer)
            if self.ready or self.error:
                return self.ready
            data = await loop.sock_recv(sock, 1 << 16)
            if not data:
                return False


def by_hand(contexts, hostname="localhost"):
    """Two ends that had their handshake, the client's first; `error` tells of those that failed."""
    client, server = Hand(contexts[0], hostname=hostname), Hand(contexts[1], server_side=True)
    data = b""
    for _ in range(6):
        data = client.shake(data) if not client.error else b""
        data = server.shake(data) if not server.error else b""
        if not data and (client.ready or client.error):
            break
    if client.ready and data:
        # Session tickets, or the server's objection to a certificate.
        client.incoming.write(data)
        try:
            client.ssl.read(1)
        except ssl.SSLWantReadError:
            pass
        except ssl.SSLError as error:
            client.error = error.with_traceback(None)
    return client, server


@contextlib.asynccontextmanager
async def against_hand(loop, protocol=Recorder, *, server_side=True, contexts=None, shaken=True, **options):
    """A protocol on one end, TLS by hand on the other, on whose socket nothing blocks.

    With `server_side` the protocol is the server. Yields the protocol, the hand, and the hand's socket; if the
    handshake is not wanted, a task instead of the protocol.
    """
    context, other = contexts or (client_context(), server_context())
    near, far = socket.socketpair()
    far.setblocking(False)
    with far:
        if server_side:
            opening = loop.connect_accepted_socket(protocol, near, ssl=other, **options)
            hand = Hand(context)
        else:
            opening = loop.create_connection(protocol, sock=near, ssl=context, server_hostname="localhost", **options)
            hand = Hand(other, server_side=True)
        opening = asyncio.ensure_future(opening)
        if not shaken:
            yield opening, hand, far
            return
        assert await hand.handshake(loop, far)
        transport, own = await opening
        try:
            yield own, hand, far
        finally:
            transport.abort()
            await asyncio.wait_for(own.lost, PATIENCE)

"""What goes wrong with TLS: garbage, cuts at every byte, peers that stay silent, cancellation in each phase.

Each test ends with the process and the loop as they were (`tls_talk.run`). The peer is TLS by hand, whose every byte
can be held back, cut off or changed; what OpenSSL says of a changed record is what it says of it by hand.
"""

import asyncio
import contextlib
import gc
import socket
import ssl
import threading
import weakref

import fuzz_tls
import pytest
from tls_certificates import client_context, server_context
from tls_talk import (
    PATIENCE,
    TLS_1_2,
    TLS_1_3,
    BufferedRecorder,
    Hand,
    Recorder,
    against_hand,
    by_hand,
    connect,
    connected,
    describe,
    needs_lasting_shutdown_timeout,
    run,
    turns,
    until,
)

VERSIONS = pytest.mark.parametrize("version", [TLS_1_2, TLS_1_3], ids=["1.2", "1.3"])
SIDES = pytest.mark.parametrize("side", ["client", "server"])

MANY = 200
"""Connections that one run of the loop makes in time, also on a busy machine."""

SOON = 0.02
"""A time limit that a test waits for."""


@pytest.fixture
def loop(plain_loop):
    """Not in debug mode."""
    return plain_loop


@pytest.fixture
def reports(loop):
    """What the loop reports."""
    reports = []
    loop.set_exception_handler(lambda _, context: reports.append((context["message"], repr(context.get("exception")))))
    return reports


CONTEXTS = {}


def contexts_of(version):
    """Contexts of a client and a server, the same ones each time, whose handshakes are short."""
    if version not in CONTEXTS:
        pair = client_context(version=version), server_context()
        for context in pair:
            context.set_ecdh_curve("prime256v1")
        pair[1].num_tickets = 0
        CONTEXTS[version] = pair
    return CONTEXTS[version]


def open_on(loop, side, sock, contexts, protocol=Recorder, **options):
    """The coroutine that makes one side of a connection."""
    if side == "client":
        return loop.create_connection(protocol, sock=sock, ssl=contexts[0], server_hostname="localhost", **options)
    return loop.connect_accepted_socket(protocol, sock, ssl=contexts[1], **options)


def hand_against(side, contexts):
    """The other side, by hand."""
    if side == "client":
        return Hand(contexts[1], server_side=True)
    return Hand(contexts[0])


async def gather(coroutines, width=20):
    """The results of many coroutines, some at a time."""
    results = []
    for start in range(0, len(coroutines), width):
        results += await asyncio.gather(*coroutines[start : start + width])
    return results


async def drain_until_end(loop, sock):
    """Reads what comes to a socket until it ends."""
    received = bytearray()
    try:
        while data := await loop.sock_recv(sock, 1 << 16):
            received += data
    except ConnectionError:
        pass
    return bytes(received)


async def failed(opening):
    """The exception with which a connection was not made."""
    await asyncio.wait([opening], timeout=PATIENCE)
    assert opening.done(), "it hangs"
    error = opening.exception()
    if error is None:
        # It was made and ended: the protocol was told.
        _, protocol = opening.result()
        await asyncio.wait_for(protocol.lost, PATIENCE)
        return protocol
    return error


# What is no TLS at all.


GARBAGE = {
    "http": b"GET / HTTP/1.0\r\n\r\n",
    "zeros": bytes(100),
    "ones": b"\xff" * 100,
    "text": b"hello\r\n" * 20,
    "an alert": bytes([21, 3, 3, 0, 2, 2, 40]),
    "data": bytes([23, 3, 3, 0, 5]) + b"12345",
    "a hello of nothing": bytes([22, 3, 1, 0, 4, 1, 0, 0, 0]),
    "a record too long": bytes([22, 3, 1, 255, 255]) + bytes(100),
    "a change of ciphers": bytes([20, 3, 3, 0, 1, 1]),
    "a huge message": bytes([22, 3, 1, 64, 0, 1, 255, 255, 255]) + bytes(16_380),
}


def error_by_hand(side, contexts, data):
    """What OpenSSL says of bytes as a side's first message."""
    hand = Hand(contexts[0]) if side == "client" else Hand(contexts[1], server_side=True)
    if side == "client":
        hand.shake()
    hand.shake(data)
    return hand.error


def upgrade(loop, side, transport, protocol, contexts, **options):
    """`start_tls` on either side."""
    server = side == "server"
    return loop.start_tls(
        transport,
        protocol,
        contexts[server],
        server_side=server,
        server_hostname=None if server else "localhost",
        **options,
    )


@SIDES
@pytest.mark.parametrize("data", GARBAGE.values(), ids=GARBAGE)
@pytest.mark.parametrize("method", ["connect", "start_tls"])
def test_garbage_instead_of_a_hello(loop, reports, side, data, method):
    contexts = contexts_of(None)
    wanted = error_by_hand(side, contexts, data)

    async def main():
        near, far = socket.socketpair()
        far.setblocking(False)
        with far:
            if method == "connect":
                opening = asyncio.ensure_future(open_on(loop, side, near, contexts))
            else:
                transport, protocol = await loop.connect_accepted_socket(Recorder, near)
                opening = asyncio.ensure_future(upgrade(loop, side, transport, protocol, contexts))
            await loop.sock_sendall(far, data)
            if wanted is None:
                far.shutdown(socket.SHUT_WR)
            await drain_until_end(loop, far)
            await asyncio.wait([opening])
            error = opening.exception()
            if method == "start_tls":
                assert transport.is_closing()
                assert protocol.names[0] == "connection_made"
            return describe(error)

    assert run(loop, main()) == (("ConnectionResetError", "") if wanted is None else describe(wanted))
    assert reports == []


@SIDES
def test_garbage_to_a_server_leaves_it_running(loop, side):
    """It accepts the next one; with many of them at once, too."""

    async def main():
        contexts = contexts_of(None)
        server = await loop.create_server(Recorder, "127.0.0.1", 0, ssl=contexts[1])
        address = server.sockets[0].getsockname()

        async def attack(data):
            with socket.create_connection(address) as sock:
                sock.setblocking(False)
                await loop.sock_sendall(sock, data)
                sock.shutdown(socket.SHUT_WR)
                await drain_until_end(loop, sock)

        await asyncio.gather(*[attack(data) for data in [*GARBAGE.values(), b""] * 3])
        transport, protocol = await loop.create_connection(
            Recorder, *address, ssl=contexts[0], server_hostname="localhost"
        )
        transport.close()
        await protocol.lost
        server.close()
        await server.wait_closed()

    run(loop, main())


# Cuts.


async def cut_handshake(loop, side, contexts, length):
    """The other side's bytes end after `length` ones. Returns whether they ended, and what came of it."""
    near, far = socket.socketpair()
    far.setblocking(False)
    left = length
    ended = False

    async def send(data):
        nonlocal left, ended
        if len(data) > left or (left == 0 and not ended):
            ended = True
        part, left = data[:left], left - min(left, len(data))
        if part:
            await loop.sock_sendall(far, part)
        if ended:
            raise EOFError

    with far:
        opening = asyncio.ensure_future(open_on(loop, side, near, contexts))
        with contextlib.suppress(EOFError):
            await hand_against(side, contexts).handshake(loop, far, send)
        far.shutdown(socket.SHUT_WR)
        receiving = asyncio.ensure_future(drain_until_end(loop, far))
        outcome = await failed(opening)
        await receiving
    if isinstance(outcome, Recorder):
        return ended, tuple(outcome.log)
    return ended, describe(outcome)


def length_of_handshake(side, contexts):
    """How many bytes the other side sends, more or less."""
    hands = Hand(contexts[0]), Hand(contexts[1], server_side=True)
    counts = [0, 0]
    data = b""
    for turn in range(8):
        data = hands[turn % 2].shake(data)
        counts[turn % 2] += len(data)
    return counts[side == "client"]


@pytest.mark.slow
@VERSIONS
@SIDES
@pytest.mark.parametrize("step", [7, pytest.param(1, marks=pytest.mark.stress)])
def test_cut_handshake(loop, aio, side, version, step, reports):
    """ConnectionResetError each time; once the last byte is there the protocol was connected, and it ended."""
    contexts = contexts_of(version)
    length = length_of_handshake(side, contexts)
    # Signatures are of different lengths.
    margin = 8
    # The stdlib shows that the expectation is right, at some places.
    places = [*range(0, length, 41 if aio is asyncio else step), *range(length - margin, length + margin)]

    async def cut(places):
        return await gather([cut_handshake(loop, side, contexts, place) for place in places])

    results = []
    for start in range(0, len(places), MANY):
        # The time limit is that of a part.
        results += run(loop, cut(places[start : start + MANY]))
    ended = [("connection_made",), ("eof_received",), ("connection_lost", None)]
    for place, (cut, outcome) in zip(places, results, strict=True):
        if not cut or place > length - margin:
            assert outcome in [("ConnectionResetError", ""), tuple(ended)], place
        else:
            assert outcome == ("ConnectionResetError", ""), place
    assert results[0][1] == ("ConnectionResetError", "")
    assert results[-1][1] == tuple(ended)
    assert reports == []


async def after_handshake(loop, side, contexts, act, kind=Recorder):
    """Connects to a hand, lets it act, and returns what the protocol noted when all is over.

    Sessions' tickets are taken away before.
    """
    async with against_hand(loop, kind, contexts=contexts, server_side=side == "server") as (protocol, hand, sock):
        await act(protocol, hand, sock)
        await drain_until_end(loop, sock)
        await asyncio.wait_for(protocol.lost, PATIENCE)
        return protocol.log


@pytest.mark.slow
@VERSIONS
@SIDES
@pytest.mark.parametrize("kind", [Recorder, BufferedRecorder], ids=["plain", "buffered"])
def test_record_cut_at_every_byte(loop, aio, side, version, kind):
    """What is not whole is nothing, and the end is an ordinary end of file, as in asyncio."""
    contexts = contexts_of(version)
    data = b"0123456789" * 4

    def cut_at(place):
        async def act(protocol, hand, sock):
            record = hand.seal(b"whole") + hand.seal(data)
            if place < len(record):
                record = record[:place]
            await loop.sock_sendall(sock, record)
            sock.shutdown(socket.SHUT_WR)

        return act

    first, _ = by_hand(contexts)
    whole, both = len(first.seal(b"whole")), 0
    both = whole + len(first.seal(data))
    places = range(0, both + 1, 17 if aio is asyncio else 1)

    async def main():
        return await gather([after_handshake(loop, side, contexts, cut_at(place), kind) for place in places])

    for place, log in zip(places, run(loop, main()), strict=True):
        got = (b"whole" if place >= whole else b"") + (data if place >= both else b"")
        received = [("data_received", got)] if got else []
        assert log == [("connection_made",), *received, ("eof_received",), ("connection_lost", None)], place


def open_by_hand(hand, records):
    """What OpenSSL gives for records: the data, and the error that ends it."""
    hand.incoming.write(records)
    data = b""
    try:
        while part := hand.ssl.read(1 << 16):
            data += part
    except ssl.SSLWantReadError:
        return data, None
    except ssl.SSLError as error:
        return data, describe(error)
    return data, "end"


@pytest.mark.slow
@VERSIONS
@SIDES
def test_record_with_a_wrong_byte(loop, aio, side, version, reports):
    """The error that OpenSSL has for it is given to connection_lost(), and nobody else."""
    contexts = contexts_of(version)
    data = b"0123456789" * 3
    own = side == "server"
    length = len(by_hand(contexts)[not own].seal(data))
    places = [(place, bit) for place in range(0, length, 9 if aio is asyncio else 1) for bit in (1, 0x80)]

    def spoil(record, place, bit):
        record = bytearray(record)
        record[place] ^= bit
        return bytes(record)

    def act_at(place, bit):
        async def act(protocol, hand, sock):
            await loop.sock_sendall(sock, hand.seal(b"whole") + spoil(hand.seal(data), place, bit))
            sock.shutdown(socket.SHUT_WR)

        return act

    async def main():
        return await gather([after_handshake(loop, side, contexts, act_at(*place)) for place in places])

    results = run(loop, main())
    for (place, bit), log in zip(places, results, strict=True):
        client, server = by_hand(contexts)
        writer, reader = (client, server) if own else (server, client)
        whole, spoiled = writer.seal(b"whole"), spoil(writer.seal(data), place, bit)
        assert open_by_hand(reader, whole) == (b"whole", None)
        got, error = open_by_hand(reader, spoiled)
        assert got == b""
        assert log[0] == ("connection_made",)
        # The stdlib loses whole data that comes together with what is spoiled.
        rest = [entry for entry in log[1:] if entry != ("data_received", b"whole")]
        if error is None or error == "end":
            assert rest == [("eof_received",), ("connection_lost", None)], place
        else:
            assert rest == [("connection_lost", *error)], place
            assert error[0] == "SSLError"
    assert reports == []


@VERSIONS
@SIDES
def test_reasons_of_wrong_bytes(loop, side, version):
    """The common ones by name."""

    async def main():
        async def act(protocol, hand, sock):
            record = bytearray(hand.seal(b"data"))
            record[-1] ^= 1
            await loop.sock_sendall(sock, record)

        return await after_handshake(loop, side, contexts_of(version), act)

    # OpenSSL 3.5 has another word for it.
    assert run(loop, main()) in (
        [("connection_made",), ("connection_lost", "SSLError", reason)]
        for reason in ("DECRYPTION_FAILED_OR_BAD_RECORD_MAC", "RECORD_LAYER_FAILURE")
    )


@SIDES
def test_records_byte_by_byte(loop, side):
    """Handshake and data come one byte at a time."""

    async def main():
        contexts = contexts_of(None)
        near, far = socket.socketpair()
        far.setblocking(False)
        opening = asyncio.ensure_future(open_on(loop, side, near, contexts))

        async def send(data):
            for index in range(len(data)):
                await loop.sock_sendall(far, data[index : index + 1])
                await asyncio.sleep(0)

        with far:
            hand = hand_against(side, contexts)
            assert await hand.handshake(loop, far, send)
            _, protocol = await opening
            await send(hand.seal(b"data") + hand.seal(b"more"))
            await protocol.has(8)
            assert protocol.data == b"datamore"
            await send(hand.end())
            await asyncio.wait_for(protocol.lost, PATIENCE)
            assert protocol.error is None

    run(loop, main())


def test_many_records_at_once(loop):
    """Ends and data in one piece: what comes after the end is not data."""

    async def main():
        async with against_hand(loop) as (server, hand, sock):
            records = b"".join(hand.seal(b"%d," % number) for number in range(200)) + hand.seal(bytes(0))
            await loop.sock_sendall(sock, records + hand.end() + records)
            await asyncio.wait_for(server.lost, PATIENCE)
            assert server.data == b"".join(b"%d," % number for number in range(200))
            assert server.names[:3] == ["connection_made", "data_received", "eof_received"]
            return server.log[-1]

    last = run(loop, main())
    assert last == ("connection_lost", None)


@VERSIONS
@pytest.mark.parametrize("level", [1, 2], ids=["warning", "fatal"])
def test_alerts(loop, version, level, reports):
    """A fatal alert of the peer is the error of the connection."""

    async def main():
        contexts = contexts_of(version)
        near, far = socket.socketpair()
        far.setblocking(False)
        with far:
            opening = asyncio.ensure_future(open_on(loop, "client", near, contexts))
            await loop.sock_recv(far, 1 << 16)
            await loop.sock_sendall(far, bytes([21, 3, 3, 0, 2, level, 112]))
            far.shutdown(socket.SHUT_WR)
            await drain_until_end(loop, far)
            return describe(await failed(opening))

    hand = Hand(contexts_of(version)[0])
    hand.shake()
    hand.shake(bytes([21, 3, 3, 0, 2, level, 112]))
    assert run(loop, main()) == (("ConnectionResetError", "") if hand.error is None else describe(hand.error))
    assert reports == []


@VERSIONS
def test_endless_empty_records(loop, version):
    """OpenSSL ends it after some; nothing hangs before or after."""

    async def main():
        contexts = contexts_of(version)
        async with against_hand(loop, contexts=contexts) as (server, _hand, sock):
            with contextlib.suppress(BrokenPipeError):
                for _ in range(50):
                    await loop.sock_sendall(sock, bytes([23, 3, 3, 0, 0]) * 10)
                    await turns(2)
            await asyncio.wait_for(server.lost, PATIENCE)
            assert isinstance(server.error, ssl.SSLError)

    run(loop, main())


# Silence.


@SIDES
@pytest.mark.parametrize("method", ["connect", "start_tls"])
@pytest.mark.parametrize("answers", [False, True])
def test_handshake_takes_too_long(loop, reports, side, method, answers):
    """The peer says nothing, or half of it."""
    contexts = contexts_of(None)

    async def main():
        near, far = socket.socketpair()
        far.setblocking(False)
        with far:
            if method == "connect":
                coroutine = open_on(loop, side, near, contexts, ssl_handshake_timeout=SOON)
            else:
                transport, protocol = await loop.connect_accepted_socket(Recorder, near)
                coroutine = upgrade(loop, side, transport, protocol, contexts, ssl_handshake_timeout=SOON)
            opening = asyncio.ensure_future(coroutine)
            if answers:
                hand = hand_against(side, contexts)
                data = b"" if side == "server" else await loop.sock_recv(far, 1 << 16)
                await loop.sock_sendall(far, hand.shake(data)[:-3])
            with pytest.raises(ConnectionAbortedError) as raised:
                await opening
            await drain_until_end(loop, far)
            return str(raised.value), raised.value.errno

    before = loop.time()
    message = f"SSL handshake is taking longer than {SOON} seconds: aborting the connection"
    assert run(loop, main()) == (message, None)
    assert SOON <= loop.time() - before < PATIENCE
    assert reports == []


def test_handshake_that_takes_too_long_for_a_server(loop, reports):
    """Nobody is told; the connection ends, the server goes on."""

    async def main():
        server = await loop.create_server(
            Recorder, "127.0.0.1", 0, ssl=contexts_of(None)[1], ssl_handshake_timeout=SOON
        )
        with socket.create_connection(server.sockets[0].getsockname()) as sock:
            sock.setblocking(False)
            assert await drain_until_end(loop, sock) == b""
        server.close()
        await server.wait_closed()

    run(loop, main())
    assert reports == []


@SIDES
@pytest.mark.parametrize("writes", [False, True])
@pytest.mark.parametrize("paused", [False, True])
def test_peer_does_not_answer_the_end(loop, aio, reports, side, writes, paused):
    """After `ssl_shutdown_timeout` the connection is lost with TimeoutError."""
    if writes:
        needs_lasting_shutdown_timeout(aio)

    async def main():
        options = {"server_side": side == "server", "ssl_shutdown_timeout": SOON}
        async with against_hand(loop, **options) as (protocol, _hand, sock):
            if paused:
                protocol.transport.pause_reading()
            if writes:
                protocol.transport.write(bytes(4 << 20))
            before = loop.time()
            protocol.transport.close()
            await asyncio.wait_for(protocol.lost, PATIENCE)
            assert loop.time() - before >= SOON * 0.99
            assert type(protocol.error) is TimeoutError
            assert str(protocol.error) == "SSL shutdown timed out"
            assert "eof_received" not in protocol.names
            await drain_until_end(loop, sock)

    run(loop, main())
    assert reports == []


def test_peer_does_not_read_its_own_end(loop, aio):
    """The peer has said its end but takes nothing of what is still to be sent to it."""
    needs_lasting_shutdown_timeout(aio)

    async def main():
        async with against_hand(loop, ssl_shutdown_timeout=SOON) as (server, hand, sock):
            server.transport.write(bytes(8 << 20))
            await loop.sock_sendall(sock, hand.end())
            await asyncio.wait_for(server.lost, PATIENCE)
            assert type(server.error) is TimeoutError
            assert server.names[-2:] == ["eof_received", "connection_lost"] or "eof_received" in server.names

    run(loop, main())


def test_peer_goes_on_sending(loop):
    """Who closes does not read for ever: the first data after its own end is an error."""

    async def main():
        async with against_hand(loop, ssl_shutdown_timeout=PATIENCE) as (server, hand, sock):
            server.transport.close()
            try:
                for _ in range(10_000):
                    await loop.sock_sendall(sock, hand.seal(bytes(10_000)))
                    await asyncio.sleep(0)
            except (BrokenPipeError, ConnectionResetError):
                pass
            else:
                pytest.fail("it reads on and on")
            await asyncio.wait_for(server.lost, PATIENCE)
            assert describe(server.error) in [
                ("SSLError", "APPLICATION_DATA_AFTER_CLOSE_NOTIFY"),
                ("ConnectionResetError", "[Errno 104] Connection reset by peer"),
            ]
            assert server.data == b""

    run(loop, main())


def test_peer_ends_tls_while_writing_is_paused(loop):
    """What waits is sent, and the protocol is told to resume before it is told of the end."""

    async def main():
        reports = []
        loop.set_exception_handler(lambda _, context: reports.append(context))
        async with against_hand(loop) as (server, hand, sock):
            # More than the transport below keeps for later, and so little that the socket takes it all at once.
            server.transport.set_write_buffer_limits(high=70_000)
            while not server.paused:
                server.transport.write(bytes(16_384))
                await asyncio.sleep(0)
            await loop.sock_sendall(sock, hand.end())
            await asyncio.wait_for(server.ended, PATIENCE)
            await turns(2)
            with contextlib.suppress(BlockingIOError):
                while sock.recv(1 << 20):
                    pass
            await drain_until_end(loop, sock)
            await asyncio.wait_for(server.lost, PATIENCE)
        told = [name for name, *_ in server.log]
        assert told == ["connection_made", "pause_writing", "eof_received", "resume_writing", "connection_lost"]
        assert reports == []

    run(loop, main())


def test_write_while_closing(loop):
    """It is not sent, and it is no error."""

    async def main():
        async with against_hand(loop) as (server, hand, sock):
            server.transport.write(b"before")
            server.transport.close()
            for _ in range(3):
                server.transport.write(b"after")
                server.transport.writelines([b"after"])
                await turns(2)
            data = b""
            while data != b"before":
                data += hand.open(await loop.sock_recv(sock, 1 << 16))
            await loop.sock_sendall(sock, hand.end())
            assert hand.open(await drain_until_end(loop, sock)) == b""
            await asyncio.wait_for(server.lost, PATIENCE)
            assert server.error is None

    run(loop, main())


@SIDES
@pytest.mark.parametrize("phase", ["nothing", "hello", "half"])
def test_loss_below_in_the_handshake(loop, side, phase):
    """The peer resets the connection."""
    contexts = contexts_of(None)

    async def main():
        with socket.create_server(("127.0.0.1", 0)) as listener:
            near = socket.create_connection(listener.getsockname())
            far, _ = listener.accept()
        far.setblocking(False)
        opening = asyncio.ensure_future(open_on(loop, side, near, contexts))
        hand = hand_against(side, contexts)
        if phase != "nothing":
            data = b"" if side == "server" else await loop.sock_recv(far, 1 << 16)
            await loop.sock_sendall(far, hand.shake(data)[: 100 if phase == "half" else 1 << 16][:-1])
        await turns(3)
        far.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        far.close()
        error = await failed(opening)
        assert isinstance(error, ConnectionResetError)

    run(loop, main())


def test_abort_in_the_handshake(loop):
    """The server is closed with its clients while they shake hands."""

    async def main():
        near, far = socket.socketpair()
        context = contexts_of(None)[0]
        seen = []

        class Below(asyncio.Protocol):
            pass

        transport, protocol = await loop.connect_accepted_socket(Below, near)
        with far:
            upgrading = asyncio.ensure_future(loop.start_tls(transport, protocol, context, server_hostname="localhost"))
            await turns(3)
            transport.abort()
            await asyncio.wait([upgrading], timeout=PATIENCE)
            seen.append(type(upgrading.exception()) if not upgrading.cancelled() else "cancelled")
        return seen

    # The transport below is lost without an exception, so none is told; what comes back is closed.
    assert run(loop, main()) == [type(None)]


# Cancellation.


class Scene:
    """What a test of cancellation has: a loop, contexts, and the far end of a socket pair with TLS by hand."""

    def __init__(self, loop, aio):
        self.loop, self.aio = loop, aio
        self.contexts = contexts_of(None)
        self.near, self.far = socket.socketpair()
        self.far.setblocking(False)
        self.hand = None
        self.echoes = True

    async def answer(self, side):
        """Does the other side's handshake, and sends back what comes."""
        self.hand = hand_against(side, self.contexts)
        try:
            if not await self.hand.handshake(self.loop, self.far):
                return
            data = b""
            while not self.hand.ended:
                # Data may have come with the last word of the handshake.
                if (opened := self.hand.open(data)) and self.echoes:
                    await self.loop.sock_sendall(self.far, self.hand.seal(opened))
                if not self.hand.ended and not (data := await self.loop.sock_recv(self.far, 1 << 16)):
                    return
            await self.loop.sock_sendall(self.far, self.hand.end())
        except (OSError, ssl.SSLError):
            pass


async def scene_connect(scene, side):
    transport, protocol = await open_on(scene.loop, side, scene.near, scene.contexts)
    transport.abort()
    await asyncio.wait([protocol.lost])


async def scene_start_tls(scene, side):
    transport, protocol = await scene.loop.connect_accepted_socket(Recorder, scene.near)
    server = side == "server"
    try:
        transport = await scene.loop.start_tls(
            transport,
            protocol,
            scene.contexts[server],
            server_side=server,
            server_hostname=None if server else "localhost",
        )
    finally:
        transport.abort()


async def streams_of(scene, side):
    loop, aio = scene.loop, scene.aio
    reader = aio.StreamReader(loop=loop)
    transport, protocol = await open_on(
        loop, side, scene.near, scene.contexts, lambda: aio.StreamReaderProtocol(reader, loop=loop)
    )
    return reader, aio.StreamWriter(transport, protocol, reader, loop)


async def scene_streams(scene, side):
    reader, writer = await streams_of(scene, side)
    try:
        writer.write(b"x" * 1000)
        await writer.drain()
        await reader.readexactly(1000)
        writer.close()
        await writer.wait_closed()
    finally:
        writer.transport.abort()


async def scene_drain(scene, side):
    scene.echoes = False
    _, writer = await streams_of(scene, side)
    try:
        for _ in range(6):
            writer.write(bytes(200_000))
            await writer.drain()
    finally:
        writer.transport.abort()


async def scene_writer_start_tls(scene, side):
    reader, writer = await scene.aio.open_connection(sock=scene.near)
    try:
        if side == "client":
            await writer.start_tls(scene.contexts[0], server_hostname="localhost")
            writer.write(b"x")
            await reader.readexactly(1)
    finally:
        writer.transport.abort()


@pytest.mark.slow
@SIDES
@pytest.mark.parametrize(
    "scene",
    [scene_connect, scene_start_tls, scene_streams, scene_drain, scene_writer_start_tls],
    ids=lambda f: f.__name__,
)
def test_cancelled_at_every_turn(loop, aio, scene, side, reports):
    """In connect, handshake, start_tls, drain, wait_closed: CancelledError, and nothing is left."""

    async def attempt(count):
        """Cancels after some turns; was it over by then?"""
        stage = Scene(loop, aio)
        answering = asyncio.ensure_future(stage.answer(side))
        task = asyncio.ensure_future(scene(stage, side))
        for _ in range(count):
            if task.done():
                break
            await asyncio.sleep(0)
        over = task.done()
        task.cancel()
        await asyncio.wait([task], timeout=PATIENCE)
        assert task.done()
        if not task.cancelled():
            task.result()
        await until(lambda: stage.near.fileno() == -1, f"the socket stays open after {count} turns")
        await asyncio.wait([answering], timeout=PATIENCE)
        answering.result()
        stage.far.close()
        return over

    async def main():
        # What was not begun has not taken the socket.
        for count in range(1, 400):
            if await attempt(count):
                return count
        return None

    assert run(loop, main()) is not None
    assert reports == []


# Nothing is left.


@pytest.mark.slow
def test_another_thread_asks_the_ssl_object(loop):
    """All that is only asked of it, while data flows both ways."""
    questions = [
        "cipher",
        "version",
        "getpeercert",
        "compression",
        "selected_alpn_protocol",
        "shared_ciphers",
        "pending",
    ]
    over = threading.Event()
    answers = []

    def ask(ssl_object):
        while not over.is_set() or not answers:
            answers.append([getattr(ssl_object, question)() for question in questions])

    async def main():
        async with connected(loop) as (client, server):
            thread = threading.Thread(target=ask, args=(client.transport.get_extra_info("ssl_object"),))
            thread.start()
            try:
                for count in range(1, 100):
                    for near, far in [(client, server), (server, client)]:
                        near.transport.write(bytes(1000))
                        await far.has(1000 * count)
            finally:
                over.set()
                thread.join()

    run(loop, main())
    assert all(answer[:-1] == answers[0][:-1] for answer in answers)
    assert answers[0][0] is not None


def test_no_thread_and_no_descriptor(loop):
    async def main():
        threads = threading.active_count()
        contexts = contexts_of(None)
        pairs = await asyncio.gather(*[connect(loop, contexts=contexts) for _ in range(50)])
        assert threading.active_count() == threads
        for index, (client, server) in enumerate(pairs):
            client.transport.write(b"x")
            await server.has(1)
            # Each in its own way.
            [client.transport.close, client.transport.abort, server.transport.close, server.transport.abort][
                index % 4
            ]()
        assert threading.active_count() == threads
        for client, server in pairs:
            await asyncio.wait([client.lost, server.lost])

    run(loop, main())


def test_dropped_in_every_phase(loop):
    """Objects of connections that ended in each way are free."""

    async def main():
        dead = []

        class Context(ssl.SSLContext):
            def wrap_bio(self, *arguments, **options):
                tls = super().wrap_bio(*arguments, **options)
                dead.append(weakref.ref(tls))
                return tls

        contexts = client_context(cls=Context), server_context(cls=Context)
        for way in ("close", "abort", "eof", "garbage", "cancel"):
            near, far = socket.socketpair()
            far.setblocking(False)
            with far:
                opening = asyncio.ensure_future(open_on(loop, "server", near, contexts))
                if way == "cancel":
                    await turns(2)
                    opening.cancel()
                    await asyncio.wait([opening])
                    continue
                hand = Hand(contexts[0])
                assert await hand.handshake(loop, far)
                transport, protocol = await opening
                if way == "garbage":
                    await loop.sock_sendall(far, b"x" * 100)
                elif way == "eof":
                    far.shutdown(socket.SHUT_WR)
                elif way == "abort":
                    transport.abort()
                else:
                    transport.close()
                    await loop.sock_sendall(far, hand.end())
                await asyncio.wait_for(protocol.lost, PATIENCE)
                del hand, transport, protocol, opening
        return dead

    dead = run(loop, main())
    gc.collect()
    assert len(dead) >= 9
    assert [reference() for reference in dead] == [None] * len(dead)


# Records that were changed at random (`make fuzz` for long).


@pytest.mark.slow
@pytest.mark.parametrize("first", range(0, 200, 50))
def test_changed_records(first):
    """As on the stdlib."""
    assert fuzz_tls.fuzz(range(first, first + 50)) == 50

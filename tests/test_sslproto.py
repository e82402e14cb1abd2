"""TLS between two transports: each way that data can take, compared with the stdlib's."""

import asyncio
import contextvars
import ctypes
import gc
import os
import shutil
import socket
import ssl
import subprocess
import sys
import warnings
import weakref

import pytest

import aioxide
from aioxide import _aioxide

pytestmark = pytest.mark.skipif(shutil.which("openssl") is None, reason="certificates are made by the command openssl")

WAYS = ["stdlib", "direct", "unfused", "bio", "bio-unfused"]
NATIVE = WAYS[1:]


@pytest.fixture(scope="module")
def certificate(tmp_path_factory):
    """A certificate of localhost with its key, in one file."""
    folder = tmp_path_factory.mktemp("certificate")
    key, cert = folder / "key.pem", folder / "cert.pem"
    command = (
        f"openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -keyout {key} -out {cert}"
        " -days 2 -subj /CN=localhost -addext subjectAltName=DNS:localhost"
    )
    subprocess.run(command.split(), check=True, capture_output=True)
    both = folder / "both.pem"
    both.write_text(key.read_text() + cert.read_text())
    return both


@pytest.fixture
def server_context(certificate):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    return context


@pytest.fixture
def client_context(certificate):
    return ssl.create_default_context(cafile=certificate)


class Case:
    """A loop, and how its TLS connections are made."""

    def __init__(self, way):
        self.way = way
        self.fused = not way.endswith("unfused")
        self.loop = asyncio.SelectorEventLoop() if way == "stdlib" else aioxide.new_event_loop()
        self.reports = []
        self.loop.set_exception_handler(lambda loop, context: self.reports.append(context))
        self.cleanup = []

    def run(self, coro):
        return self.loop.run_until_complete(asyncio.wait_for(coro, 20))

    def adopt(self, transport):
        """Sees to it that the connection works as the way says."""
        self.cleanup.append(transport)
        if not self.fused and transport._ssl_protocol is not None:
            # With attributes of its own it might override anything.
            transport._ssl_protocol.marked = True
        return transport

    async def server(self, factory, sock, context, **kwargs):
        transport, protocol = await self.loop.connect_accepted_socket(factory, sock, ssl=context, **kwargs)
        return self.adopt(transport), protocol

    async def client(self, factory, sock, context, **kwargs):
        transport, protocol = await self.loop.create_connection(
            factory, sock=sock, ssl=context, server_hostname="localhost", **kwargs
        )
        return self.adopt(transport), protocol

    def close(self):
        for transport in self.cleanup:
            transport.abort()
        self.cleanup.clear()
        for _ in range(3):
            self.loop.call_soon(self.loop.stop)
            self.loop.run_forever()
        self.loop.close()


def make_case(way):
    if way.startswith("bio"):
        _aioxide._tls_direct(False)
    return Case(way)


@pytest.fixture(params=WAYS)
def case(request):
    try:
        made = make_case(request.param)
        yield made
        made.close()
    finally:
        _aioxide._tls_direct(True)


@pytest.fixture
def compare():
    """Runs a scenario every way; all must tell the same as the stdlib."""

    def compare(scenario, ways=WAYS):
        told = {}
        for way in ways:
            try:
                case = make_case(way)
                told[way] = case.run(scenario(case))
                case.close()
                if case.reports:
                    told[way] = (told[way], [describe_report(report) for report in case.reports])
            finally:
                _aioxide._tls_direct(True)
        expected = told[ways[0]]
        for way, found in told.items():
            assert found == expected, way
        return expected

    return compare


def describe(exception):
    """What can be seen of an exception."""
    if not isinstance(exception, BaseException):
        return exception
    text = str(exception).partition(" (_ssl.c")[0]
    seen = [type(exception), text]
    if isinstance(exception, ssl.SSLError):
        seen += [exception.reason, exception.library, exception.errno]
    return seen


def describe_report(report):
    return report["message"], describe(report.get("exception"))


class Log(asyncio.Protocol):
    """Notes what is called; `on` maps names to what happens then."""

    def __init__(self, on=()):
        self.calls = []
        self.data = bytearray()
        self.on = dict(on)
        self.changed = asyncio.Event()

    def note(self, name, *args):
        self.calls.append((name, *map(describe, args)))
        self.changed.set()
        action = self.on.pop(name, None)
        return action(self) if action else None

    def connection_made(self, transport):
        self.transport = transport
        self.note("made")

    def data_received(self, data):
        assert type(data) is bytes
        self.data += data
        self.calls[:] = [call for call in self.calls if call != ("data",)]
        self.note("data")

    def eof_received(self):
        return self.note("eof")

    def pause_writing(self):
        self.note("pause")

    def resume_writing(self):
        self.note("resume")

    def connection_lost(self, exc):
        self.note("lost", exc)

    async def until(self, name):
        while name not in [call[0] for call in self.calls]:
            self.changed.clear()
            await self.changed.wait()

    async def until_data(self, count):
        while len(self.data) < count:
            self.changed.clear()
            await self.changed.wait()


class Buffered(asyncio.BufferedProtocol):
    """Takes data by a buffer of its own."""

    def __init__(self, size=4096, kind=bytearray):
        self.buffer = kind(size) if kind is bytearray else kind(bytearray(size))
        self.data = bytearray()
        self.changed = asyncio.Event()
        self.lost = None

    def get_buffer(self, sizehint):
        assert sizehint >= 0
        return self.buffer

    def buffer_updated(self, count):
        self.data += self.buffer[:count]
        self.changed.set()

    def connection_lost(self, exc):
        self.lost = (exc,)

    async def until_data(self, count):
        while len(self.data) < count:
            self.changed.clear()
            await self.changed.wait()


class Peer:
    """The other side: an `SSLObject` on a plain socket, which can send whatever it likes."""

    def __init__(self, case, sock, context, *, server_side):
        sock.setblocking(False)
        self.case, self.sock = case, sock
        self.incoming, self.outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        name = None if server_side else "localhost"
        self.tls = context.wrap_bio(self.incoming, self.outgoing, server_side=server_side, server_hostname=name)

    async def flush(self):
        if data := self.outgoing.read():
            await self.case.loop.sock_sendall(self.sock, data)

    async def do(self, method, *args):
        while True:
            try:
                done = method(*args)
            except ssl.SSLWantReadError:
                await self.flush()
                received = await self.case.loop.sock_recv(self.sock, 65536)
                if not received:
                    self.incoming.write_eof()
                self.incoming.write(received)
            else:
                await self.flush()
                return done

    async def handshake(self):
        await self.do(self.tls.do_handshake)

    async def send(self, data):
        self.tls.write(data)
        await self.flush()

    async def read(self, count):
        data = b""
        while len(data) < count:
            data += await self.do(self.tls.read, count - len(data))
        return data

    def record(self, data):
        """A record that is not sent yet."""
        self.tls.write(data)
        return bytearray(self.outgoing.read())

    async def raw(self, data):
        await self.case.loop.sock_sendall(self.sock, data)

    async def drain(self):
        """Reads until the connection is over, and closes."""
        try:
            while await self.case.loop.sock_recv(self.sock, 65536):
                pass
        except ConnectionError:
            pass
        self.sock.close()


async def with_peer(case, factory, server_context, client_context, **kwargs):
    """A server of the loop and a client that is a `Peer`."""
    ours, theirs = socket.socketpair()
    peer = Peer(case, theirs, client_context, server_side=False)
    (transport, protocol), _ = await asyncio.gather(
        case.server(factory, ours, server_context, **kwargs), peer.handshake()
    )
    return transport, protocol, peer


async def with_both(case, server_factory, client_factory, server_context, client_context, **kwargs):
    """Both sides are the loop's."""
    one, other = socket.socketpair()
    server, client = await asyncio.gather(
        case.server(server_factory, one, server_context, **kwargs),
        case.client(client_factory, other, client_context, **kwargs),
    )
    return server, client


def has_own_openssl():
    import _ssl

    return hasattr(_ssl, "__file__") and ssl.OPENSSL_VERSION.startswith("OpenSSL ")


# Which way is taken.


@pytest.mark.skipif(not has_own_openssl(), reason="OpenSSL is a part of the interpreter, or is no OpenSSL")
def test_openssl_is_driven_directly_where_it_is_a_library():
    assert _aioxide._tls_direct() is True


def test_the_environment_forbids_the_direct_way():
    code = "from aioxide import _aioxide; print(_aioxide._tls_direct())"
    environment = os.environ | {"AIOXIDE_TLS": "bio"}
    told = subprocess.run([sys.executable, "-c", code], env=environment, check=True, capture_output=True, text=True)
    assert told.stdout.strip() == "False"


def test_the_way_is_what_the_case_says(case, server_context, client_context):
    if case.way == "stdlib":
        pytest.skip("native ways only")

    async def scenario():
        _, (transport, _) = await with_both(case, Log, Log, server_context, client_context)
        assert type(transport._ssl_protocol).__name__ == "SSLProtocol"
        assert isinstance(transport._ssl_protocol, asyncio.BufferedProtocol)
        assert isinstance(transport, asyncio.Transport)
        assert transport._ssl_protocol._native_data is (has_own_openssl() and not case.way.startswith("bio"))

    case.run(scenario())


class ReadingObject(ssl.SSLObject):
    reads = 0

    def read(self, len=1024, buffer=None):
        type(self).reads += 1
        return super().read(len, buffer)


class WritingObject(ssl.SSLObject):
    writes = 0

    def write(self, data):
        type(self).writes += 1
        return super().write(data)


class OtherObject(ssl.SSLObject):
    def cipher(self):
        return ("mine", "x", 1)


async def echo_once(case, server_context, client_context):
    (_, server), (transport, client) = await with_both(
        case, lambda: Log({"data": lambda log: log.transport.write(bytes(log.data))}), Log, server_context, client_context
    )
    transport.write(b"hello")
    await client.until_data(5)
    assert client.data == b"hello"
    return transport


def test_an_ssl_object_that_reads_itself_is_asked(case, server_context, client_context):
    client_context.sslobject_class = ReadingObject
    ReadingObject.reads = 0
    transport = case.run(echo_once(case, server_context, client_context))
    assert ReadingObject.reads > 0
    assert case.way == "stdlib" or not transport._ssl_protocol._native_data


def test_an_ssl_object_that_writes_itself_is_asked(case, server_context, client_context):
    client_context.sslobject_class = WritingObject
    WritingObject.writes = 0
    case.run(echo_once(case, server_context, client_context))
    assert WritingObject.writes == 1


def test_another_subclass_of_ssl_object_is_no_hindrance(case, server_context, client_context):
    client_context.sslobject_class = OtherObject
    transport = case.run(echo_once(case, server_context, client_context))
    assert transport.get_extra_info("cipher") == ("mine", "x", 1)
    assert case.way != "direct" or transport._ssl_protocol._native_data is has_own_openssl()


def test_a_context_that_watches_messages_hears_of_data(case, server_context, client_context):
    heard = []
    client_context._msg_callback = lambda connection, direction, *rest: heard.append(direction)
    transport = case.run(echo_once(case, server_context, client_context))
    assert heard
    assert case.way == "stdlib" or not transport._ssl_protocol._native_data


def test_a_keylog_file_is_written(case, server_context, client_context, tmp_path):
    client_context.keylog_filename = str(tmp_path / "keys")
    case.run(echo_once(case, server_context, client_context))
    assert "CLIENT_TRAFFIC_SECRET_0" in (tmp_path / "keys").read_text()


@pytest.mark.parametrize("way", NATIVE)
def test_methods_of_the_transport_below_that_are_replaced_are_called(way, server_context, client_context):
    case = make_case(way)
    try:

        async def scenario():
            (_, server), (transport, client) = await with_both(case, Log, Log, server_context, client_context)
            below = transport._ssl_protocol._transport
            written, write = [], below.write
            below.write = lambda data: (written.append(data), write(data))
            transport.write(b"hello")
            await server.until_data(5)
            assert len(written) == 1 and type(written[0]) is bytes
            del below.write
            transport.write(b" again")
            await server.until_data(11)
            assert len(written) == 1

        case.run(scenario())
        case.close()
    finally:
        _aioxide._tls_direct(True)


@pytest.mark.parametrize("way", NATIVE)
def test_buffer_updated_that_is_replaced_is_called(way, server_context, client_context):
    case = make_case(way)
    try:

        async def scenario():
            (_, server), (transport, _) = await with_both(case, Log, Log, server_context, client_context)
            protocol = server.transport._ssl_protocol
            calls, real = [], protocol.buffer_updated
            protocol.buffer_updated = lambda count: (calls.append(count), real(count))
            transport.write(b"hello")
            await server.until_data(5)
            assert len(calls) >= 1 and all(type(count) is int for count in calls)
            del protocol.buffer_updated

        case.run(scenario())
        case.close()
    finally:
        _aioxide._tls_direct(True)


# Data.


@pytest.mark.parametrize("size", [1, 1024, 16384, 16385, 300_000, 3_000_000])
@pytest.mark.parametrize("kind", ["protocol", "bytearray", "memoryview"])
def test_data_arrives_whole(case, kind, size, server_context, client_context):
    factory = {
        "protocol": Log,
        "bytearray": Buffered,
        "memoryview": lambda: Buffered(100_000, memoryview),
    }[kind]
    if kind == "bytearray" and case.way == "stdlib":
        pytest.skip("the stdlib loses all records of a batch but the first one")
    data = os.urandom(size)

    async def scenario():
        (_, server), (transport, _) = await with_both(case, factory, Log, server_context, client_context)
        transport.write(data)
        await server.until_data(size)
        assert server.data == data

    case.run(scenario())


def test_streams_carry_data_both_ways(case, server_context, client_context):
    async def handle(reader, writer):
        while line := await reader.readline():
            writer.write(line)
            await writer.drain()
        writer.close()

    async def scenario():
        server = await asyncio.start_server(handle, "127.0.0.1", 0, ssl=server_context)
        address = server.sockets[0].getsockname()
        reader, writer = await asyncio.open_connection(*address, ssl=client_context, server_hostname="localhost")
        case.adopt(writer.transport)
        for size in (0, 10, 1000, 60_000):
            line = b"x" * size + b"\n"
            writer.writelines([line[:5], bytearray(line[5:7]), memoryview(line)[7:]])
            await writer.drain()
            assert await reader.readline() == line
        writer.close()
        await writer.wait_closed()
        server.close()
        await server.wait_closed()

    case.run(scenario())


def test_what_is_written_may_change_afterwards(case, server_context, client_context):
    if case.way == "stdlib":
        pytest.skip("the stdlib keeps a reference until the handshake is over")

    async def scenario():
        (_, server), (transport, _) = await with_both(case, Log, Log, server_context, client_context)
        data = bytearray(b"before")
        transport.write(data)
        data[:] = b"after!"
        await server.until_data(6)
        assert server.data == b"before"

    case.run(scenario())


def test_writelines_refuses_what_is_no_buffer(case, server_context, client_context):
    if case.way == "stdlib":
        pytest.skip("the stdlib aborts the connection")

    async def scenario():
        (_, server), (transport, _) = await with_both(case, Log, Log, server_context, client_context)
        with pytest.raises(TypeError):
            transport.writelines([b"one", "two"])
        transport.writelines([b"three"])
        await server.until_data(5)
        assert server.data == b"three"

    case.run(scenario())


def test_writes_of_wrong_types(compare, server_context, client_context):
    async def scenario(case):
        _, (transport, _) = await with_both(case, Log, Log, server_context, client_context)
        told = []
        for data in ("text", 5, None, [b"x"]):
            with pytest.raises(TypeError) as raised:
                transport.write(data)
            told.append(str(raised.value))
        with pytest.raises(NotImplementedError):
            transport.write_eof()
        told += [transport.can_write_eof(), transport.write(b"")]
        return told

    compare(scenario)


def test_flow_control(compare, server_context, client_context):
    async def scenario(case):
        (below, server), (transport, client) = await with_both(case, Log, Log, server_context, client_context)
        told = [transport.get_write_buffer_limits(), transport.get_read_buffer_limits()]
        server.transport.pause_reading()
        count = 0
        while ("pause",) not in client.calls:
            transport.write(bytes(64 * 1024))
            count += 64 * 1024
            await asyncio.sleep(0)
        told.append(transport._protocol_paused)
        assert transport.get_write_buffer_size() >= 512 * 1024
        assert not server.transport.is_reading()
        server.transport.resume_reading()
        await client.until("resume")
        await server.until_data(count)
        assert server.data == bytes(count)
        told += [transport._protocol_paused, transport.get_write_buffer_size(), server.transport.is_reading()]
        return told

    compare(scenario)


def test_limits(compare, server_context, client_context):
    async def scenario(case):
        _, (transport, client) = await with_both(case, Log, Log, server_context, client_context)
        told = []
        for setting in (
            {},
            {"high": 100},
            {"low": 100},
            {"high": 10, "low": 5},
            {"high": 0},
            {"high": 5, "low": 10},
            {"high": -1},
            {"high": 10.5},
        ):
            for kind in ("read", "write"):
                try:
                    getattr(transport, f"set_{kind}_buffer_limits")(**setting)
                except ValueError as error:
                    told.append(str(error))
                told.append(getattr(transport, f"get_{kind}_buffer_limits")())
        transport.set_write_buffer_limits(high=0)
        return [*told, client.calls]

    compare(scenario)


def test_errors_that_others_left_behind_do_no_harm(case, server_context, client_context):
    import _ssl

    if case.way.startswith("bio") or case.way == "stdlib" or not has_own_openssl():
        pytest.skip("the direct way only")
    library = ctypes.CDLL(_ssl.__file__)

    async def scenario():
        (_, server), (transport, _) = await with_both(case, Log, Log, server_context, client_context)
        for count in range(1, 6):
            library.ERR_new()
            library.ERR_set_error(20, 100, None)
            transport.write(b"x")
            await server.until_data(count)

    case.run(scenario())
    library.ERR_clear_error()


# Errors are those of `_ssl`.


def corrupt(record, place):
    record[place] ^= 0x55
    return record


DAMAGE = {
    "last byte": lambda record: corrupt(record, -1),
    "first byte of the body": lambda record: corrupt(record, 5),
    "type": lambda record: corrupt(record, 0),
    "version": lambda record: corrupt(record, 1),
    "garbage": lambda record: b"GET / HTTP/1.1\r\n\r\n",
    "too long": lambda record: b"\x17\x03\x03\xff\xff" + bytes(0xFFFF),
    "empty": lambda record: b"\x17\x03\x03\x00\x00",
    "short": lambda record: b"\x17\x03\x03\x00\x05hello",
    "alert in plain": lambda record: b"\x15\x03\x03\x00\x02\x02\x28",
}


@pytest.mark.parametrize("version", ["TLSv1_2", "TLSv1_3"])
@pytest.mark.parametrize("damage", DAMAGE)
@pytest.mark.parametrize("kind", [Log, Buffered])
def test_damaged_records(compare, kind, version, damage, server_context, client_context):
    server_context.maximum_version = getattr(ssl.TLSVersion, version)

    async def scenario(case):
        _, protocol, peer = await with_peer(case, kind, server_context, client_context)
        await peer.send(b"hello")
        await protocol.until_data(5)
        await peer.raw(DAMAGE[damage](peer.record(b"damaged")))
        await peer.drain()
        for _ in range(5):
            await asyncio.sleep(0)
        if kind is Log:
            return protocol.calls, bytes(protocol.data)
        return describe(protocol.lost[0]), bytes(protocol.data)

    compare(scenario)


@pytest.mark.parametrize("version", ["TLSv1_2", "TLSv1_3"])
def test_an_alert(compare, version, server_context, client_context):
    """The peer finds a record of ours damaged, and says so."""
    server_context.maximum_version = getattr(ssl.TLSVersion, version)

    async def scenario(case):
        transport, protocol, peer = await with_peer(case, Log, server_context, client_context)
        await peer.send(b"hello")
        await protocol.until_data(5)
        transport.write(b"answer")
        await peer.read(6)
        peer.incoming.write(b"\x17\x03\x03\x00\x20" + bytes(32))
        with pytest.raises(ssl.SSLError):
            peer.tls.read(100)
        await peer.flush()
        await peer.drain()
        for _ in range(5):
            await asyncio.sleep(0)
        return protocol.calls

    compare(scenario)


@pytest.mark.parametrize("cut", [0, 1, 4, 5, 6, 20, -1])
def test_a_record_that_is_cut_off(compare, cut, server_context, client_context):
    async def scenario(case):
        _, protocol, peer = await with_peer(case, Log, server_context, client_context)
        record = peer.record(b"x" * 100)
        await peer.raw(record[:cut])
        peer.sock.shutdown(socket.SHUT_WR)
        await peer.drain()
        await protocol.until("lost")
        return protocol.calls, bytes(protocol.data)

    compare(scenario)


def test_the_end_of_tls_by_the_peer(compare, server_context, client_context):
    async def scenario(case):
        transport, protocol, peer = await with_peer(case, Log, server_context, client_context)
        peer.tls.write(b"last words")
        await peer.do(peer.tls.unwrap)
        await peer.drain()
        await protocol.until("lost")
        return protocol.calls, bytes(protocol.data), transport.is_closing()

    compare(scenario)


def test_data_during_the_shutdown(compare, server_context, client_context):
    async def scenario(case):
        transport, protocol, peer = await with_peer(case, Log, server_context, client_context)
        await peer.send(b"hello")
        await protocol.until_data(5)
        transport.close()
        await peer.send(b"too late")
        await peer.drain()
        await protocol.until("lost")
        return protocol.calls, bytes(protocol.data)

    compare(scenario)


@pytest.mark.parametrize("kind", ["handshake", "shutdown"])
def test_time_limits(compare, kind, server_context, client_context):
    async def scenario(case):
        ours, theirs = socket.socketpair()
        if kind == "handshake":
            with pytest.raises(ConnectionAbortedError) as raised:
                await case.loop.connect_accepted_socket(Log, ours, ssl=server_context, ssl_handshake_timeout=0.05)
            theirs.close()
            return str(raised.value)
        theirs.close()
        ours.close()
        transport, protocol, peer = await with_peer(
            case, Log, server_context, client_context, ssl_shutdown_timeout=0.05
        )
        transport.close()
        await protocol.until("lost")
        peer.sock.close()
        return protocol.calls

    compare(scenario)


@pytest.mark.parametrize("name", ["ssl_handshake_timeout", "ssl_shutdown_timeout"])
@pytest.mark.parametrize("value", [0, -1, -0.5])
def test_time_limits_must_be_positive(compare, name, value, server_context):
    async def scenario(case):
        ours, theirs = socket.socketpair()
        with pytest.raises(ValueError, match="positive") as raised:
            await case.loop.connect_accepted_socket(Log, ours, ssl=server_context, **{name: value})
        ours.close()
        theirs.close()
        return str(raised.value)

    compare(scenario)


def test_a_certificate_that_is_not_trusted(compare, server_context):
    async def scenario(case):
        one, other = socket.socketpair()
        server = case.loop.create_task(case.loop.connect_accepted_socket(Log, one, ssl=server_context))
        with pytest.raises(ssl.SSLCertVerificationError) as raised:
            await case.client(Log, other, ssl.create_default_context())
        [failed] = await asyncio.gather(server, return_exceptions=True)
        assert isinstance(failed, (OSError, ssl.SSLError))
        return describe(raised.value), raised.value.verify_code, raised.value.verify_message

    compare(scenario)


# Re-entrance.


def fail(log):
    raise ZeroDivisionError("on purpose")


def leave(log):
    raise asyncio.CancelledError


def drop(log):
    del log.transport
    gc.collect()


ACTIONS = {
    "close": lambda log: log.transport.close(),
    "close twice": lambda log: (log.transport.close(), log.transport.close()),
    "abort": lambda log: log.transport.abort(),
    "close and abort": lambda log: (log.transport.close(), log.transport.abort()),
    "raise": fail,
    "cancel": leave,
    "write": lambda log: log.transport.write(b"from within"),
    "write and close": lambda log: (log.transport.write(b"from within"), log.transport.close()),
    "write much and close": lambda log: (log.transport.write(bytes(2_000_000)), log.transport.close()),
    "pause and resume": lambda log: (log.transport.pause_reading(), log.transport.resume_reading()),
    "close below": lambda log: log.transport._ssl_protocol._transport.close(),
    "abort below": lambda log: log.transport._ssl_protocol._transport.abort(),
    "collect": drop,
}


@pytest.mark.parametrize("action", ACTIONS)
@pytest.mark.parametrize("place", ["made", "data", "eof", "lost"])
def test_actions_in_callbacks(compare, place, action, server_context, client_context):
    if place == "lost" and "below" in action:
        pytest.skip("there is nothing below any more")

    async def scenario(case):
        one, other = socket.socketpair()
        answers = await asyncio.gather(
            case.loop.connect_accepted_socket(lambda: server, one, ssl=server_context)
            if (server := Log({place: ACTIONS[action]}))
            else None,
            case.loop.create_connection(
                lambda: client, sock=other, ssl=client_context, server_hostname="localhost"
            )
            if (client := Log())
            else None,
            return_exceptions=True,
        )
        for answer in answers:
            if isinstance(answer, tuple):
                case.adopt(answer[0])
        transport = client.transport
        transport.write(b"to the server")
        for _ in range(10):
            await asyncio.sleep(0.001)
        transport.close()
        await client.until("lost")
        if not isinstance(answers[0], BaseException):
            await server.until("lost")
        for _ in range(3):
            await asyncio.sleep(0)
        told = [call for call in server.calls if call[0] not in ("pause", "resume")]
        ends = [call[0] for call in client.calls]
        received = bytes(client.data)
        if (place, action) == ("made", "write much and close"):
            # What the client writes comes after the end of TLS: an error, which cuts off what is not sent.
            received = received.strip(b"\0")
        return told, bytes(server.data), ends, received

    ways = WAYS
    if action == "close and abort" and place == "data":
        # The stdlib reports that it cannot switch from UNWRAPPED to SHUTDOWN.
        ways = NATIVE
    compare(scenario, ways)


def test_writes_while_the_handshake_goes_on_wait(compare, server_context, client_context):
    async def scenario(case):
        ours, theirs = socket.socketpair()
        peer = Peer(case, theirs, client_context, server_side=False)
        log = Log()
        started = case.loop.create_task(case.loop.connect_accepted_socket(lambda: log, ours, ssl=server_context))
        await asyncio.sleep(0)
        await peer.handshake()
        transport, _ = await started
        transport._test__append_write_backlog(b"waits, ")
        transport.write(b"goes")
        data = await peer.read(11)
        transport.abort()
        await peer.drain()
        return data, transport.get_write_buffer_size()

    compare(scenario)


def test_the_protocol_can_be_changed(compare, server_context, client_context):
    async def scenario(case):
        (_, server), (transport, _) = await with_both(case, Log, Log, server_context, client_context)
        other, third = Buffered(), Log()
        transport.write(b"one")
        await server.until_data(3)
        server.transport.set_protocol(other)
        assert server.transport.get_protocol() is other
        transport.write(b"two")
        await other.until_data(3)
        server.transport.set_protocol(third)
        transport.write(b"three")
        await third.until_data(5)
        return bytes(server.data), bytes(other.data), bytes(third.data)

    compare(scenario)


def test_methods_after_two_closes(compare, server_context, client_context):
    async def scenario(case):
        _, (transport, _) = await with_both(case, Log, Log, server_context, client_context)
        transport.close()
        transport.close()
        told = [transport.is_closing()]
        for name, args in (("get_extra_info", ["peername"]), ("write", [b"x"]), ("get_protocol", []), ("close", [])):
            try:
                told.append(getattr(transport, name)(*args))
            except AttributeError as error:
                told.append(str(error))
        transport.abort()
        return told

    compare(scenario)


def test_extra_information(compare, server_context, client_context):
    async def scenario(case):
        _, (transport, _) = await with_both(case, Log, Log, server_context, client_context)
        assert transport.get_extra_info("sslcontext") is client_context
        assert transport.get_extra_info("ssl_object").context is client_context
        assert transport.get_extra_info("socket").type == socket.SOCK_STREAM
        names = ("peercert", "cipher", "compression", "peername", "sockname", "nothing")
        return [transport.get_extra_info(name, "default") for name in names]

    compare(scenario)


def test_callbacks_run_in_the_context_of_the_transport(case, server_context, client_context):
    variable = contextvars.ContextVar("variable", default="outside")
    seen = []

    async def scenario():
        one, other = socket.socketpair()
        variable.set("connecting")
        (_, server), (transport, _) = await asyncio.gather(
            case.server(lambda: Log({"data": lambda log: seen.append(variable.get())}), one, server_context),
            case.client(Log, other, client_context),
        )
        variable.set("later")
        transport.write(b"x")
        await server.until_data(1)

    case.run(scenario())
    assert seen == ["connecting"]


# Tunnels.


def test_tls_inside_tls(case, server_context, client_context):
    async def scenario():
        (outer_server, _), (outer_client, _) = await with_both(case, Log, Log, server_context, client_context)
        servers, clients = Log(), Log()
        inner_server, inner_client = await asyncio.gather(
            case.loop.start_tls(outer_server, servers, server_context, server_side=True),
            case.loop.start_tls(outer_client, clients, client_context, server_hostname="localhost"),
        )
        data = os.urandom(200_000)
        inner_client.write(data)
        await servers.until_data(len(data))
        assert servers.data == data
        inner_server.write(data)
        await clients.until_data(len(data))
        inner_client.close()
        await servers.until("lost")
        assert servers.calls[-2:] == [("eof",), ("lost", None)]

    case.run(scenario())


def test_start_tls_with_bytes_that_came_before(case, server_context, client_context):
    if case.way == "stdlib" and sys.version_info < (3, 13):
        pytest.skip("this stdlib loses them")

    async def scenario():
        done = case.loop.create_future()

        async def handle(reader, writer):
            assert await reader.readline() == b"STARTTLS\n"
            # The hello came with the line.
            while not reader._buffer:
                await asyncio.sleep(0.001)
            await writer.start_tls(server_context)
            case.adopt(writer.transport)
            done.set_result(await reader.readexactly(5))
            writer.close()

        server = await asyncio.start_server(handle, "127.0.0.1", 0)
        sock = socket.create_connection(server.sockets[0].getsockname())
        peer = Peer(case, sock, client_context, server_side=False)
        with pytest.raises(ssl.SSLWantReadError):
            peer.tls.do_handshake()
        await peer.raw(b"STARTTLS\n" + peer.outgoing.read())
        await peer.handshake()
        await peer.send(b"hello")
        assert await done == b"hello"
        await peer.do(peer.tls.unwrap)
        await peer.drain()
        server.close()

    case.run(scenario())


class MemoryTransport(asyncio.Transport):
    """A transport that nobody but the test moves."""

    def __init__(self):
        super().__init__()
        self.sent = bytearray()
        self.calls = []

    def write(self, data):
        assert type(data) is bytes
        self.sent += data

    def is_closing(self):
        return bool(self.calls)

    def close(self):
        self.calls.append("close")

    def pause_reading(self):
        self.calls.append("pause_reading")

    def _force_close(self, exc):
        self.calls.append(("_force_close", describe(exc)))


@pytest.mark.parametrize("way", NATIVE)
def test_any_transport_may_be_below(way, server_context, client_context):
    case = make_case(way)
    try:
        loop = case.loop
        log = Log()
        waiter = loop.create_future()
        protocol = _aioxide.SSLProtocol(loop, log, server_context, waiter, server_side=True)
        below = MemoryTransport()
        unused, other = socket.socketpair()
        other.close()
        peer = Peer(case, unused, client_context, server_side=False)
        protocol.connection_made(below)

        def exchange():
            peer.incoming.write(below.sent)
            below.sent.clear()
            data = peer.outgoing.read()
            if data:
                view = protocol.get_buffer(-1)
                assert type(view) is memoryview
                assert len(view) == 256 * 1024
                view[: len(data)] = data
                protocol.buffer_updated(len(data))

        for _ in range(3):
            try:
                peer.tls.do_handshake()
            except ssl.SSLWantReadError:
                pass
            exchange()
        assert waiter.result() is None
        peer.tls.write(b"hello")
        exchange()
        assert log.data == b"hello"
        log.transport.writelines([b"good", b"bye"])
        exchange()
        assert peer.tls.read() == b"goodbye"
        log.transport.close()
        exchange()
        peer.tls.unwrap()
        exchange()
        loop.call_soon(loop.stop)
        loop.run_forever()
        assert below.calls == ["close"]
        protocol.connection_lost(None)
        loop.call_soon(loop.stop)
        loop.run_forever()
        assert log.calls == [("made",), ("data",), ("eof",), ("lost", None)]
        peer.sock.close()
        case.close()
    finally:
        _aioxide._tls_direct(True)


def test_assertions_about_flow_from_below(case, server_context):
    factory = asyncio.sslproto.SSLProtocol if case.way == "stdlib" else _aioxide.SSLProtocol
    protocol = factory(case.loop, Log(), server_context, None, server_side=True)
    with pytest.raises(AssertionError):
        protocol.resume_writing()
    protocol.pause_writing()
    with pytest.raises(AssertionError):
        protocol.pause_writing()
    protocol._app_transport._closed = True


def test_states_are_those_of_the_stdlib(case, server_context, client_context):
    states = asyncio.sslproto.SSLProtocolState
    factory = asyncio.sslproto.SSLProtocol if case.way == "stdlib" else _aioxide.SSLProtocol
    protocol = factory(case.loop, Log(), server_context, None, server_side=True)
    assert protocol._state is states.UNWRAPPED
    assert protocol._app_state is asyncio.sslproto.AppProtocolState.STATE_INIT
    protocol._state = states.WRAPPED
    assert protocol._state is states.WRAPPED
    protocol._app_transport._closed = True


# The end of objects.


def test_dead_connections_are_found_by_the_collector(case, server_context, client_context):
    async def scenario():
        (_, server), (transport, client) = await with_both(case, Log, Log, server_context, client_context)
        transport.write(b"x")
        await server.until_data(1)
        watched = [weakref.ref(each) for each in (server, client, transport, transport._ssl_protocol)]
        transport.close()
        await server.until("lost")
        await client.until("lost")
        server.transport.cycle = server
        case.cleanup.clear()
        return watched

    watched = case.run(scenario())
    for _ in range(2):
        case.loop.call_soon(case.loop.stop)
        case.loop.run_forever()
    gc.collect()
    assert [reference() for reference in watched] == [None] * 4


def test_a_protocol_that_was_never_connected_is_collected(case, server_context):
    factory = asyncio.sslproto.SSLProtocol if case.way == "stdlib" else _aioxide.SSLProtocol
    protocol = factory(case.loop, Log(), server_context, None, server_side=True)
    watched = weakref.ref(protocol)
    del protocol
    with pytest.warns(ResourceWarning, match="^unclosed transport <asyncio._SSLProtocolTransport object>$"):
        gc.collect()
    assert watched() is None


def test_a_closed_transport_does_not_warn(case, server_context):
    factory = asyncio.sslproto.SSLProtocol if case.way == "stdlib" else _aioxide.SSLProtocol
    protocol = factory(case.loop, Log(), server_context, None, server_side=True)
    protocol._app_transport.close()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        # `close` before there is a connection does nothing but note it.
        del protocol
        gc.collect()
    assert [str(warning.message) for warning in caught] == []


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_a_forked_child_sends_nothing(case, server_context, client_context):
    def fork(log):
        log.transport.write(b"parent")
        child = os.fork()
        if child == 0:
            os._exit(0)
        os.waitpid(child, 0)

    async def scenario():
        (_, server), (transport, client) = await with_both(
            case, lambda: Log({"data": fork}), Log, server_context, client_context
        )
        transport.write(b"x")
        await client.until_data(6)
        server.transport.write(b" and again")
        await client.until_data(16)
        assert client.data == b"parent and again"

    case.run(scenario())


def test_wakes_no_waiter_that_was_cancelled(compare, server_context):
    async def scenario(case):
        ours, theirs = socket.socketpair()
        task = case.loop.create_task(case.loop.connect_accepted_socket(Log, ours, ssl=server_context))
        await asyncio.sleep(0.01)
        task.cancel()
        [answer] = await asyncio.gather(task, return_exceptions=True)
        theirs.setblocking(False)
        ended = await case.loop.sock_recv(theirs, 100)
        theirs.close()
        return describe(answer), ended

    compare(scenario)


# Callbacks of the context.


SERVER_NAMES = {
    "swap": lambda connection, sock, context: setattr(connection, "context", context),
    "refuse": lambda connection, sock, context: ssl.ALERT_DESCRIPTION_INTERNAL_ERROR,
    "shut the socket": lambda connection, sock, context: sock.shutdown(socket.SHUT_RDWR),
}


@pytest.mark.parametrize("action", SERVER_NAMES)
def test_callbacks_for_the_server_name(compare, action, certificate, server_context, client_context):
    async def scenario(case):
        one, other = socket.socketpair()
        first = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        if action != "swap":
            first.load_cert_chain(certificate)
        first.sni_callback = lambda connection, name, context: SERVER_NAMES[action](connection, one, server_context)
        log = Log()
        answers = await asyncio.gather(
            case.loop.connect_accepted_socket(lambda: log, one, ssl=first),
            case.loop.create_connection(Log, sock=other, ssl=client_context, server_hostname="localhost"),
            return_exceptions=True,
        )
        for answer in answers:
            if isinstance(answer, tuple):
                case.adopt(answer[0])
        return type(answers[0]), isinstance(answers[1], OSError), log.calls

    compare(scenario)


def test_a_callback_that_raises_is_reported_and_refuses(case, certificate, client_context):
    first = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    first.load_cert_chain(certificate)
    first.sni_callback = lambda connection, name, context: 1 / 0
    unraisable, before = [], sys.unraisablehook
    sys.unraisablehook = unraisable.append

    async def scenario():
        one, other = socket.socketpair()
        return await asyncio.gather(
            case.loop.connect_accepted_socket(Log, one, ssl=first),
            case.loop.create_connection(Log, sock=other, ssl=client_context, server_hostname="localhost"),
            return_exceptions=True,
        )

    try:
        answers = case.run(scenario())
    finally:
        sys.unraisablehook = before
    assert [type(each.exc_value) for each in unraisable] == [ZeroDivisionError]
    assert isinstance(answers[0], ssl.SSLError)
    assert isinstance(answers[1], OSError)
    unraisable.clear()

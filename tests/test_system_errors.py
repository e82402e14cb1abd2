"""System calls that fail with errors which are hard to provoke: `ENOBUFS`, `ENOMEM`, `ENOSPC` and their like.

The kernel itself is told to refuse certain calls on a certain descriptor, by a filter that stays for the life of the
process: each test forks a child for it. Both loops are tested, since both shall take the errors alike.
"""

import asyncio
import contextlib
import ctypes
import errno
import gc
import io
import itertools
import os
import platform
import socket
import struct
import sys

import pytest
from waiting import SUCCESS, in_child, turns, until

import aioxide

NUMBERS = {
    "x86_64": {
        "read": 0,
        "write": 1,
        "sendfile": 40,
        "accept": 43,
        "sendto": 44,
        "recvfrom": 45,
        "sendmsg": 46,
        "connect": 42,
        "epoll_ctl": 233,
        "accept4": 288,
    },
    "aarch64": {
        "read": 63,
        "write": 64,
        "sendfile": 71,
        "accept": 202,
        "sendto": 206,
        "recvfrom": 207,
        "sendmsg": 211,
        "connect": 203,
        "epoll_ctl": 21,
        "accept4": 242,
    },
}.get(platform.machine())
"""The numbers of the calls."""

DESCRIPTOR = {"epoll_ctl": 2}
"""Which argument is the descriptor, if it is not the first."""

LENGTH = {"sendto": 2, "write": 2, "sendfile": 3}
"""Which argument is a number of bytes."""

LOAD, IF_EQUAL, IF_AT_LEAST, RETURN = 0x20, 0x15, 0x35, 0x06
"""Instructions of a filter."""

FAIL, ALLOW = 0x0005_0000, 0x7FFF_0000
"""What a filter returns."""

PR_SET_SECCOMP, SECCOMP_MODE_FILTER, PR_SET_NO_NEW_PRIVS = 22, 2, 38

SEND_ERRORS = [errno.ENOBUFS, errno.ENOMEM, errno.EPIPE, errno.ECONNRESET, errno.EIO]
ACCEPT_ERRORS = [errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM, errno.ECONNABORTED, errno.EPERM]


class Program(ctypes.Structure):
    """`struct sock_fprog`."""

    _fields_ = [("length", ctypes.c_ushort), ("instructions", ctypes.c_void_p)]


def install(instructions):
    """Has the kernel filter the calls of this thread, for ever."""
    code = ctypes.create_string_buffer(b"".join(struct.pack("=HBBI", *each) for each in instructions))
    program = Program(len(instructions), ctypes.addressof(code))
    prctl = ctypes.CDLL(None, use_errno=True).prctl
    for arguments in (
        (PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0),
        (PR_SET_SECCOMP, SECCOMP_MODE_FILTER, ctypes.byref(program), 0, 0),
    ):
        if prctl(*arguments):
            raise OSError(ctypes.get_errno(), "the kernel takes no filter")


def refuse(file, number, *calls, length=None, shorter=None):
    """Calls on a descriptor fail from now on; only those with so many bytes, or with fewer bytes, if that is given."""
    descriptor = file if isinstance(file, int) else file.fileno()
    for call in calls:

        def argument(index):
            return (LOAD, 0, 0, 16 + 8 * index)

        tests = [
            [(LOAD, 0, 0, 0), (IF_EQUAL, 0, None, NUMBERS[call])],
            [argument(DESCRIPTOR.get(call, 0)), (IF_EQUAL, 0, None, descriptor)],
        ]
        if length is not None:
            tests.append([argument(LENGTH[call]), (IF_EQUAL, 0, None, length)])
        if shorter is not None:
            tests.append([argument(LENGTH[call]), (IF_AT_LEAST, None, 0, shorter)])
        program = [*itertools.chain.from_iterable(tests), (RETURN, 0, 0, FAIL | number), (RETURN, 0, 0, ALLOW)]
        # What is None goes to the end.
        install(
            [
                tuple(len(program) - 2 - index if part is None else part for part in instruction)
                for index, instruction in enumerate(program)
            ]
        )


def filters_work():
    """Does the kernel of this machine take filters?"""
    if sys.platform != "linux" or NUMBERS is None:
        return False

    def attempt():
        with socket.socket() as sock:
            refuse(sock, errno.ENOBUFS, "sendto")

    return in_child(attempt) == SUCCESS


@pytest.fixture(scope="module", autouse=True)
def _filters():
    if not filters_work():
        pytest.skip("no calls can be made to fail here")


@pytest.fixture
def child(aio, request):
    """Runs a coroutine function, which gets a loop and its reports, in a child."""

    def run(main, debug=False):
        def body():
            loop = asyncio.SelectorEventLoop() if aio is asyncio else aioxide.new_event_loop()
            loop.set_debug(debug)
            loop.slow_callback_duration = 100
            reports = []
            loop.set_exception_handler(lambda _, context: reports.append(context))
            try:
                loop.run_until_complete(asyncio.wait_for(main(loop, reports), 20))
                loop.run_until_complete(loop.shutdown_default_executor())
            finally:
                loop.close()

        status, text = in_child(body)
        assert status == 0, text

    return run


class Recorder(asyncio.Protocol, asyncio.DatagramProtocol):
    """Notes what happens."""

    def __init__(self):
        self.events = []
        self.ended = asyncio.Event()

    def connection_made(self, transport):
        self.transport = transport

    def data_received(self, data):
        self.events.append(("data", data))

    def datagram_received(self, data, addr):
        self.events.append(("datagram", data))

    def error_received(self, exc):
        self.events.append(("error", exc.errno))

    def eof_received(self):
        self.events.append("eof")

    def pause_writing(self):
        self.events.append("pause")

    def resume_writing(self):
        self.events.append("resume")

    def connection_lost(self, exc):
        self.events.append(("lost", exc if exc is None else exc.errno))
        self.ended.set()


class Buffered(asyncio.BufferedProtocol, Recorder):
    """The same with a buffer of its own."""

    def get_buffer(self, sizehint):
        return bytearray(1000)

    def buffer_updated(self, nbytes):
        self.events.append(("data", nbytes))


def fails(number):
    """What is done within raises the error with this number."""
    return pytest.raises(OSError, match=rf"\[Errno {number}\]")


def empty(sock):
    """Takes what there is, and returns the pieces."""
    pieces = []
    with contextlib.suppress(BlockingIOError):
        while data := sock.recv(1 << 20):
            pieces.append(data)
    return pieces


async def connect(loop, factory=Recorder):
    """A protocol on one of two connected sockets, its socket, and the other one."""
    near, far = socket.socketpair()
    far.setblocking(False)
    _, protocol = await loop.connect_accepted_socket(factory, near)
    return protocol, near, far


def fill(transport, data=bytes(1 << 16)):
    """Writes until something has to wait."""
    while not transport.get_write_buffer_size():
        transport.write(data)


async def filled(loop):
    """The same with a peer that does not read, and something that waits to be sent."""
    protocol, near, far = await connect(loop)
    while not protocol.transport.get_write_buffer_size():
        protocol.transport.write(bytes(1 << 20))
        await turns(2)
    return protocol, near, far


# Connections.


@pytest.mark.parametrize("number", SEND_ERRORS, ids=errno.errorcode.get)
def test_write_that_fails_at_once(child, number):
    async def main(loop, reports):
        protocol, near, far = await connect(loop)
        refuse(near, number, "sendto", "sendmsg")
        protocol.transport.write(b"x")
        protocol.transport.writelines([b"y", b"z"])
        await protocol.ended.wait()
        assert protocol.events == [("lost", number)]
        assert protocol.transport.is_closing()
        assert protocol.transport.get_write_buffer_size() == 0
        await turns(2)
        assert near.fileno() == -1
        assert empty(far) == []
        assert reports == []

    child(main)


@pytest.mark.parametrize("end", [None, "close", "write_eof"])
@pytest.mark.parametrize("number", SEND_ERRORS, ids=errno.errorcode.get)
def test_write_that_fails_later(child, number, end):
    async def main(loop, reports):
        protocol, near, far = await filled(loop)
        if end is not None:
            getattr(protocol.transport, end)()
        refuse(near, number, "sendto", "sendmsg")
        while not protocol.ended.is_set():
            empty(far)
            await asyncio.sleep(0)
        assert protocol.events == ["pause", ("lost", number)]
        assert protocol.transport.get_write_buffer_size() == 0
        await turns(2)
        assert near.fileno() == -1
        assert reports == []

    child(main)


def test_failing_write_is_logged_in_debug_mode(child, caplog):
    async def main(loop, reports):
        protocol, near, _far = await connect(loop)
        refuse(near, errno.ENOBUFS, "sendto", "sendmsg")
        with caplog.at_level("DEBUG", "asyncio"):
            protocol.transport.write(b"x")
            await protocol.ended.wait()
        assert any("Fatal write error on socket transport" in line for line in caplog.messages)
        assert reports == []

    child(main, debug=True)


@pytest.mark.parametrize("number", SEND_ERRORS, ids=errno.errorcode.get)
def test_streams_tell_of_the_error(child, aio, number):
    async def main(loop, reports):
        near, far = socket.socketpair()
        reader, writer = await aio.open_connection(sock=near)
        reading = asyncio.ensure_future(reader.read())
        refuse(near, number, "sendto", "sendmsg")
        writer.write(b"x")
        await turns(3)
        for outcome in reading, writer.drain(), writer.wait_closed(), reader.read(1):
            with fails(number):
                await outcome
        far.close()
        assert reports == []

    child(main)


def test_write_that_would_block_is_tried_again(child):
    """For once the system takes nothing; with the next bytes it does."""

    async def main(loop, reports):
        protocol, near, far = await connect(loop)
        refuse(near, errno.EAGAIN, "sendto", length=777)
        protocol.transport.write(bytes(777))
        await turns(40)
        protocol.transport.write(b"end")
        received = bytearray()
        while not received.endswith(b"end"):
            received += b"".join(empty(far))
            await asyncio.sleep(0)
        assert received == bytes(777) + b"end"
        protocol.transport.close()
        await protocol.ended.wait()
        assert protocol.events == [("lost", None)]
        assert reports == []

    child(main)


@pytest.mark.parametrize("factory", [Recorder, Buffered])
@pytest.mark.parametrize(
    "number", [errno.ENOBUFS, errno.ENOMEM, errno.ETIMEDOUT, errno.EHOSTUNREACH], ids=errno.errorcode.get
)
def test_read_that_fails(child, number, factory):
    async def main(loop, reports):
        protocol, near, far = await connect(loop, factory)
        refuse(near, number, "recvfrom")
        far.send(b"x")
        await protocol.ended.wait()
        assert protocol.events == [("lost", number)]
        await turns(2)
        assert near.fileno() == -1
        assert reports == []

    child(main)


@pytest.mark.parametrize("factory", [Recorder, Buffered])
def test_descriptor_that_is_ready_and_has_nothing(child, factory):
    async def main(loop, reports):
        protocol, near, far = await connect(loop, factory)
        refuse(near, errno.EAGAIN, "recvfrom")
        far.send(b"x")
        await turns(40)
        assert protocol.events == []
        protocol.transport.write(b"y")
        await turns(40)
        assert empty(far) == [b"y"]
        protocol.transport.close()
        await protocol.ended.wait()
        assert protocol.events == [("lost", None)]
        assert reports == []

    child(main)


# Datagrams.


async def datagrams(loop, connected=True, kind=socket.AF_UNIX):
    """A protocol on one of two datagram sockets, its socket, the other one, and the address to send to."""
    near, far = (socket.socket(kind, socket.SOCK_DGRAM) for _ in range(2))
    for sock in near, far:
        sock.setblocking(False)
        sock.bind("" if kind == socket.AF_UNIX else ("127.0.0.1", 0))
    if connected:
        near.connect(far.getsockname())
    _, protocol = await loop.create_datagram_endpoint(Recorder, sock=near)
    return protocol, near, far, None if connected else far.getsockname()


@pytest.mark.parametrize("kind", [socket.AF_UNIX, socket.AF_INET])
@pytest.mark.parametrize("connected", [True, False])
@pytest.mark.parametrize("number", [*SEND_ERRORS, errno.EPERM, errno.EMSGSIZE], ids=errno.errorcode.get)
def test_datagram_that_is_refused(child, number, connected, kind):
    """The protocol is told, that datagram is lost, the transport goes on."""

    async def main(loop, reports):
        protocol, near, far, address = await datagrams(loop, connected, kind)
        refuse(near, number, "sendto", length=777)
        for size in 777, 3, 777, 4:
            protocol.transport.sendto(bytes(size), address)
        await turns(40)
        assert protocol.events == [("error", number)] * 2
        assert [len(data) for data in empty(far)] == [3, 4]
        assert protocol.transport.get_write_buffer_size() == 0
        protocol.transport.close()
        await protocol.ended.wait()
        assert protocol.events[2:] == [("lost", None)]
        assert reports == []

    child(main)


@pytest.mark.parametrize("ends", [False, True], ids=["goes_on", "closes"])
@pytest.mark.parametrize("order", ["first", "between", "last", "all"])
@pytest.mark.parametrize("number", [errno.ENOBUFS, errno.ECONNREFUSED], ids=errno.errorcode.get)
def test_queued_datagram_that_is_refused(child, number, order, ends):
    """The others are sent, and a transport that was closed ends when they are."""

    async def main(loop, reports):
        protocol, near, far, _ = await datagrams(loop)
        while not protocol.transport.get_write_buffer_size():
            protocol.transport.sendto(bytes(100))
        protocol.transport.set_write_buffer_limits(high=1)
        refused = {"first": [777, 3, 4], "between": [3, 777, 4], "last": [3, 4, 777], "all": [777, 777]}[order]
        for size in refused:
            protocol.transport.sendto(bytes(size))
        if ends:
            protocol.transport.close()
        refuse(near, number, "sendto", length=777)
        received = []

        def is_over():
            received.extend(len(data) for data in empty(far))
            return "resume" in protocol.events

        await until(is_over)
        is_over()
        assert [size for size in received if size != 100] == [size for size in refused if size != 777]
        if not ends:
            protocol.transport.close()
        await protocol.ended.wait()
        failures = [("error", number)] * refused.count(777)
        assert sorted(protocol.events, key=str) == sorted(["pause", *failures, "resume", ("lost", None)], key=str)
        assert protocol.events[-1] == ("lost", None)
        assert reports == []

    child(main)


@pytest.mark.parametrize("how", ["close", "abort", "raise"])
@pytest.mark.parametrize("queued", [False, True])
def test_end_within_error_received(child, how, queued):
    async def main(loop, reports):
        protocol, near, far, _ = await datagrams(loop)

        def error_received(exc):
            protocol.events.append("error")
            if how == "raise":
                raise ZeroDivisionError
            getattr(protocol.transport, how)()

        protocol.error_received = error_received
        if queued:
            while not protocol.transport.get_write_buffer_size():
                protocol.transport.sendto(bytes(100))
        raised = []
        if queued:
            protocol.transport.sendto(bytes(777))
        refuse(near, errno.ENOBUFS, "sendto", length=777)
        if not queued:
            try:
                protocol.transport.sendto(bytes(777))
            except ZeroDivisionError:
                raised.append(True)
        await until(lambda: empty(far) is None or "error" in protocol.events)
        if how == "raise":
            assert raised or [type(report["exception"]) for report in reports] == [ZeroDivisionError]
            protocol.transport.abort()
        await protocol.ended.wait()
        assert protocol.events == ["error", ("lost", None)]
        await turns(2)
        assert near.fileno() == -1

    child(main)


@pytest.mark.parametrize("number", [errno.ENOBUFS, errno.ENOMEM, errno.ECONNREFUSED], ids=errno.errorcode.get)
def test_datagram_that_cannot_be_received(child, number):
    async def main(loop, reports):
        protocol, near, far, _ = await datagrams(loop, connected=False)
        refuse(near, number, "recvfrom")
        far.sendto(b"x", near.getsockname())
        await until(lambda: len(protocol.events) > 3)
        protocol.transport.close()
        await protocol.ended.wait()
        assert set(protocol.events[:-1]) == {("error", number)}
        assert protocol.events[-1] == ("lost", None)
        assert reports == []

    child(main)


# Pipes.


@pytest.mark.parametrize("queued", [False, True])
@pytest.mark.parametrize("number", [errno.ENOMEM, errno.EIO, errno.ENOSPC, errno.EPIPE], ids=errno.errorcode.get)
def test_pipe_that_cannot_be_written(child, number, queued):
    async def main(loop, reports):
        reading, writing = os.pipe()
        os.set_blocking(reading, False)
        transport, protocol = await loop.connect_write_pipe(Recorder, io.FileIO(writing, "w"))
        if queued:
            fill(transport)
        refuse(writing, number, "write")
        if queued:
            with contextlib.suppress(BlockingIOError):
                while os.read(reading, 1 << 20):
                    pass
        else:
            transport.write(b"x")
        await protocol.ended.wait()
        # The reader is still there, so this is the error of the call.
        assert protocol.events == [("lost", number)]
        assert transport.get_write_buffer_size() == 0
        assert reports == []

    child(main)


def test_full_device(child):
    """The real thing."""

    async def main(loop, reports):
        transport, protocol = await loop.connect_write_pipe(Recorder, io.FileIO("/dev/full", "w"))
        transport.write(b"x")
        await protocol.ended.wait()
        assert protocol.events == [("lost", errno.ENOSPC)]
        assert reports == []

    child(main)


@pytest.mark.parametrize("number", [errno.ENOMEM, errno.EIO], ids=errno.errorcode.get)
def test_pipe_that_cannot_be_read(child, number):
    async def main(loop, reports):
        reading, writing = os.pipe()
        _, protocol = await loop.connect_read_pipe(Recorder, io.FileIO(reading))
        refuse(reading, number, "read")
        os.write(writing, b"x")
        await protocol.ended.wait()
        assert protocol.events == [("lost", number)]
        # EIO is the usual end of a terminal.
        assert [report["exception"].errno for report in reports] == ([] if number == errno.EIO else [number])

    child(main)


# Sockets.


@pytest.mark.parametrize("waits", [False, True])
@pytest.mark.parametrize("number", SEND_ERRORS, ids=errno.errorcode.get)
def test_sock_sendall_that_fails(child, number, waits):
    """The error comes out of the call, and nothing stays registered."""

    async def main(loop, reports):
        near, far = socket.socketpair()
        near.setblocking(False)
        far.setblocking(False)
        task = None
        if waits:
            task = asyncio.ensure_future(loop.sock_sendall(near, bytes(8 << 20)))
            await turns(3)
        refuse(near, number, "sendto", "sendmsg")
        if not waits:
            task = asyncio.ensure_future(loop.sock_sendall(near, b"x"))
        empty(far)
        with fails(number):
            await task
        assert not loop.remove_writer(near)
        far.send(b"back")
        assert await loop.sock_recv(near, 10) == b"back"
        assert reports == []

    child(main)


@pytest.mark.parametrize("waits", [False, True])
@pytest.mark.parametrize("number", [errno.ENOBUFS, errno.EMSGSIZE, errno.ECONNREFUSED], ids=errno.errorcode.get)
def test_sock_sendto_that_fails(child, number, waits):
    async def main(loop, reports):
        near, far = (socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) for _ in range(2))
        near.setblocking(False)
        far.setblocking(False)
        far.bind("")
        task = None
        if waits:
            with contextlib.suppress(BlockingIOError):
                while True:
                    near.sendto(b"x", far.getsockname())
            task = asyncio.ensure_future(loop.sock_sendto(near, bytes(777), far.getsockname()))
            await turns(3)
        refuse(near, number, "sendto", length=777)
        if not waits:
            task = asyncio.ensure_future(loop.sock_sendto(near, bytes(777), far.getsockname()))
        empty(far)
        with fails(number):
            await task
        assert not loop.remove_writer(near)
        assert await loop.sock_sendto(near, b"yes", far.getsockname()) == 3
        assert reports == []

    child(main)


@pytest.mark.parametrize("method", ["sock_recv", "sock_recv_into", "sock_recvfrom", "sock_recvfrom_into"])
@pytest.mark.parametrize("number", [errno.ENOBUFS, errno.ENOMEM, errno.ETIMEDOUT], ids=errno.errorcode.get)
def test_receiving_that_fails(child, method, number):
    async def main(loop, reports):
        near, far = socket.socketpair()
        near.setblocking(False)
        room = bytearray(10) if method.endswith("into") else 10
        task = asyncio.ensure_future(getattr(loop, method)(near, room))
        await turns(3)
        refuse(near, number, "recvfrom")
        far.send(b"x")
        for attempt in task, getattr(loop, method)(near, room):
            with fails(number):
                await attempt
            assert not loop.remove_reader(near)
        assert reports == []

    child(main)


@pytest.mark.parametrize("number", [errno.ENOBUFS, errno.ENETUNREACH, errno.EADDRNOTAVAIL], ids=errno.errorcode.get)
def test_connecting_that_fails(child, number):
    async def main(loop, reports):
        with socket.create_server(("127.0.0.1", 0)) as listener, socket.socket() as sock:
            sock.setblocking(False)
            lowest = sock.fileno()
            refuse(sock, number, "connect")
            with fails(number):
                await loop.sock_connect(sock, listener.getsockname())
            assert not loop.remove_writer(sock)
            sock.close()
            # The same number again.
            with fails(number):
                await loop.create_connection(Recorder, *listener.getsockname())
            with socket.socket() as again:
                assert again.fileno() == lowest
        assert reports == []

    child(main)


# Servers.


@pytest.mark.parametrize(
    "number",
    [errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM, errno.ECONNABORTED, errno.EPERM],
    ids=errno.errorcode.get,
)
def test_server_that_cannot_accept(aio, child, monkeypatch, number):
    """It is reported, tried again later, and the server can be closed."""
    if aio is asyncio and number not in {errno.ECONNABORTED, errno.EPERM}:
        pytest.skip("asyncio reports once for each place in the backlog, and accepts again after the end of the server")

    async def main(loop, reports):
        monkeypatch.setattr(asyncio.constants, "ACCEPT_RETRY_DELAY", 0.001)
        server = await loop.create_server(Recorder, "127.0.0.1", 0)
        refuse(server.sockets[0], number, "accept", "accept4")
        with socket.create_connection(server.sockets[0].getsockname()):
            if number == errno.ECONNABORTED:
                await turns(40)
            else:
                await until(lambda: len(reports) > 2)
        server.close()
        await server.wait_closed()
        seen = len(reports)
        await asyncio.sleep(0.01)
        assert len(reports) == seen
        assert {report["exception"].errno for report in reports} == ({number} if seen else set())
        if number not in {errno.ECONNABORTED, errno.EPERM}:
            assert {report["message"] for report in reports} == {"socket.accept() out of system resource"}
        else:
            assert (seen == 0) == (number == errno.ECONNABORTED)

    child(main)


@pytest.mark.parametrize("number", [errno.EMFILE, errno.ENOBUFS, errno.EPERM], ids=errno.errorcode.get)
def test_accepting_by_hand_that_fails(child, number):
    async def main(loop, reports):
        with socket.create_server(("127.0.0.1", 0)) as listener:
            listener.setblocking(False)
            task = asyncio.ensure_future(loop.sock_accept(listener))
            await turns(3)
            refuse(listener, number, "accept", "accept4")
            with socket.create_connection(listener.getsockname()), fails(number):
                await task
            assert not loop.remove_reader(listener)
        assert reports == []

    child(main)


# Files.


@pytest.mark.parametrize("over", ["socket", "transport"])
@pytest.mark.parametrize("number", [errno.ENOMEM, errno.EINVAL, errno.EOVERFLOW], ids=errno.errorcode.get)
def test_file_that_the_system_does_not_copy(child, tmp_path, number, over):
    """If it fails before the first byte, the fallback sends the file."""
    path = tmp_path / "file"
    path.write_bytes(bytes(300_000))

    async def main(loop, reports):
        near, far = socket.socketpair()
        near.setblocking(False)
        far.setblocking(False)
        refuse(near, number, "sendfile")
        with path.open("rb") as file:
            if over == "socket":
                task = asyncio.ensure_future(loop.sock_sendfile(near, file))
            else:
                transport, _ = await loop.connect_accepted_socket(Recorder, near)
                task = asyncio.ensure_future(loop.sendfile(transport, file))
            count = 0
            while count < 300_000:
                count += len(await loop.sock_recv(far, 1 << 20))
            assert await task == 300_000
            assert file.tell() == 300_000
            if over == "socket":
                with pytest.raises(asyncio.SendfileNotAvailableError):
                    await loop.sock_sendfile(near, file, 0, fallback=False)
        assert reports == []

    child(main)


@pytest.mark.parametrize("over", ["socket", "transport"])
@pytest.mark.parametrize("number", [errno.ENOMEM, errno.EIO, errno.ECONNRESET, errno.EPIPE], ids=errno.errorcode.get)
def test_file_that_the_system_stops_to_copy(child, tmp_path, number, over):
    """After the first byte, the error comes out; the file is at the first byte that was not sent."""
    path = tmp_path / "file"
    size = 8 << 20
    path.write_bytes(bytes(size))

    async def main(loop, reports):
        near, far = socket.socketpair()
        near.setblocking(False)
        far.setblocking(False)
        # The whole file goes through, what is left of it does not.
        refuse(near, number, "sendfile", shorter=size)
        with path.open("rb") as file:
            if over == "socket":
                task = asyncio.ensure_future(loop.sock_sendfile(near, file, 0, size))
            else:
                transport, protocol = await loop.connect_accepted_socket(Recorder, near)
                task = asyncio.ensure_future(loop.sendfile(transport, file, 0, size))
            count = 0
            while not task.done():
                count += sum(map(len, empty(far)))
                await asyncio.sleep(0)
            count += sum(map(len, empty(far)))
            with fails(number):
                task.result()
            assert 0 < count < size
            assert file.tell() == count
            if over == "socket":
                assert not loop.remove_writer(near)
            else:
                assert not transport.is_closing()
                transport.write(b"on")
                await turns(40)
                assert empty(far) == [b"on"]
                transport.close()
                await protocol.ended.wait()
        assert reports == []

    child(main)


# The selector.


def test_waiting_that_cannot_be_registered(child):
    """The kernel has no room for one more: the call says so, and may be made again."""

    async def main(loop, reports):
        near, far = socket.socketpair()
        near.setblocking(False)
        refuse(near, errno.ENOSPC, "epoll_ctl")
        for _ in range(2):
            with fails(errno.ENOSPC):
                await loop.sock_recv(near, 10)
            with fails(errno.ENOSPC):
                loop.add_reader(near, print)
            assert not loop.remove_reader(near)
        far.send(b"x")
        assert await loop.sock_recv(near, 10) == b"x"
        assert reports == []

    child(main)


@pytest.mark.parametrize("kind", ["stream", "datagram", "read_pipe", "write_pipe"])
def test_transport_that_cannot_be_registered(child, kind):
    """Its creation does not hang, the error is reported, and it can be closed."""

    async def main(loop, reports):
        near, far = socket.socketpair(type=socket.SOCK_DGRAM if kind == "datagram" else socket.SOCK_STREAM)
        near.setblocking(False)
        refuse(near, errno.ENOSPC, "epoll_ctl")
        if kind == "stream":
            transport, protocol = await loop.connect_accepted_socket(Recorder, near)
        elif kind == "datagram":
            transport, protocol = await loop.create_datagram_endpoint(Recorder, sock=near)
        elif kind == "read_pipe":
            transport, protocol = await loop.connect_read_pipe(Recorder, near)
        else:
            transport, protocol = await loop.connect_write_pipe(Recorder, near)
        await turns(40)
        assert [report["exception"].errno for report in reports] == [errno.ENOSPC]
        transport.close()
        await protocol.ended.wait()
        assert protocol.events == [("lost", None)]
        await turns(2)
        assert near.fileno() == -1
        far.close()

    child(main)


def test_write_that_cannot_wait(child):
    """What is not taken at once cannot be sent later: the caller or the protocol is told."""

    async def main(loop, reports):
        protocol, near, far = await connect(loop)
        refuse(near, errno.ENOSPC, "epoll_ctl")
        try:
            protocol.transport.write(bytes(8 << 20))
            await turns(40)
        except OSError as error:
            assert error.errno == errno.ENOSPC
        else:
            assert [report["exception"].errno for report in reports] == [errno.ENOSPC] or protocol.events == [
                ("lost", errno.ENOSPC)
            ]
        protocol.transport.abort()
        await protocol.ended.wait()
        await turns(2)
        assert near.fileno() == -1
        far.close()

    child(main)


def lowest():
    """The number of the next descriptor."""
    with socket.socket() as sock:
        return sock.fileno()


@pytest.mark.parametrize("kind", ["create_server", "start_server", "create_unix_server"])
def test_server_that_cannot_be_registered(child, aio, kind, tmp_path):
    """It is said, and its socket is closed."""
    if aio is asyncio and kind == "create_unix_server":
        pytest.skip("asyncio leaves the socket open")

    async def main(loop, reports):
        path = str(tmp_path / "socket")
        number = lowest()
        refuse(number, errno.ENOSPC, "epoll_ctl")

        def serve():
            if kind == "create_server":
                return loop.create_server(Recorder, "127.0.0.1", 0)
            if kind == "start_server":
                return aio.start_server(print, "127.0.0.1", 0)
            return loop.create_unix_server(Recorder, path)

        with fails(errno.ENOSPC):
            await serve()
        gc.collect()
        # The number that cannot be registered is left to somebody else.
        with socket.socket() as sock:
            assert sock.fileno() == number
            server = await serve()
            server.close()
            await server.wait_closed()
        assert reports == []

    child(main)


@pytest.mark.parametrize("kind", ["create_connection", "open_connection", "sock_connect"])
def test_connection_that_cannot_be_waited_for(child, aio, kind):
    """The attempt fails, and its socket is closed."""

    async def main(loop, reports):
        # Nobody accepts, so that one has to wait.
        with contextlib.ExitStack() as stack:
            listener = stack.enter_context(socket.socket())
            listener.bind(("127.0.0.1", 0))
            listener.listen(0)
            for _ in range(4):
                waiting = stack.enter_context(socket.socket())
                waiting.setblocking(False)
                waiting.connect_ex(listener.getsockname())
            number = lowest()
            refuse(number, errno.ENOSPC, "epoll_ctl")
            with fails(errno.ENOSPC):
                if kind == "create_connection":
                    await loop.create_connection(Recorder, *listener.getsockname())
                elif kind == "open_connection":
                    await aio.open_connection(*listener.getsockname())
                else:
                    with socket.socket() as sock:
                        sock.setblocking(False)
                        await loop.sock_connect(sock, listener.getsockname())
            assert lowest() == number
        assert reports == []

    child(main)

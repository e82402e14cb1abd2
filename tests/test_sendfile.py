"""Sending files, through sockets and through transports."""

import asyncio
import contextlib
import errno
import hashlib
import io
import os
import socket
import sys
from asyncio import constants

import pytest
from waiting import run, turn, until

SIZE = 10 << 20


@pytest.fixture(scope="module")
def data():
    """Much data, none of it alike."""
    return os.urandom(SIZE)


@pytest.fixture
def file(tmp_path, data):
    """A file with much data."""
    path = tmp_path / "file"
    path.write_bytes(data)
    with path.open("rb") as file:
        yield file


@pytest.fixture
def loop(loop):
    """A loop whose executor ends with the test."""
    yield loop
    loop.run_until_complete(loop.shutdown_default_executor())


async def receive(loop, sock, count):
    parts, missing = [], count
    while missing:
        part = await loop.sock_recv(sock, min(missing, 1 << 20))
        assert part
        parts.append(part)
        missing -= len(part)
    return b"".join(parts)


def without_native(loop, monkeypatch):
    """Leaves nothing but the fallback."""

    async def unavailable(*args):
        raise asyncio.SendfileNotAvailableError("not here")

    monkeypatch.setattr(loop, "_sock_sendfile_native", unavailable, raising=False)


@pytest.fixture(params=["native", "fallback"])
def way(request, loop, monkeypatch):
    """Whether the kernel copies."""
    if request.param == "fallback":
        without_native(loop, monkeypatch)
    return request.param


# ---------------------------------------------------------------- sockets


@pytest.mark.parametrize(("offset", "count"), [(0, None), (1000, None), (1000, 5_000_001), (5, SIZE * 2), (0, 1 << 70)])
def test_file_arrives(aio, loop, pair, file, data, way, offset, count):
    near, far = pair
    if count == 1 << 70 and aio is asyncio and sys.version_info < (3, 13):
        pytest.skip("the stdlib before 3.13 hands the count to the system call as it is: OverflowError")
    if count == 1 << 70 and way == "fallback":
        pytest.skip("as any count beyond the end")
    expected = data[offset:] if count is None else data[offset : offset + count]

    async def body():
        sending = loop.create_task(loop.sock_sendfile(near, file, offset, count))
        received = await receive(loop, far, len(expected))
        assert hashlib.sha1(received).digest() == hashlib.sha1(expected).digest()
        assert await sending == len(expected)

    run(loop, body())
    assert file.tell() == offset + len(expected)
    assert not loop.remove_writer(near)


def test_small_file_takes_no_turn(aio, loop, pair, tmp_path):
    if aio is asyncio:
        pytest.skip("asyncio goes through the selector to learn that there is nothing left")
    near, far = pair
    path = tmp_path / "file"
    path.write_bytes(b"hello")
    with path.open("rb") as file:
        for arguments, sent in [((), b"hello"), ((1, 2), b"el"), ((2, None), b"llo")]:

            async def body(arguments=arguments):
                coro = loop._sock_sendfile_native(near, file, *(arguments or (0, None)))
                with pytest.raises(StopIteration) as stopped:
                    coro.send(None)
                return stopped.value.value

            assert run(loop, body()) == len(sent)
            assert far.recv(99) == sent


@pytest.mark.parametrize("offset", [5, 6, 1 << 40])
def test_offset_at_and_beyond_the_end(aio, loop, pair, tmp_path, way, offset):
    if aio is asyncio and way == "native" and sys.version_info < (3, 14):
        pytest.skip("the stdlib before 3.14 leaves the file's position alone if nothing was sent")
    path = tmp_path / "file"
    path.write_bytes(b"hello")
    with path.open("rb") as file:
        assert run(loop, loop.sock_sendfile(pair[0], file, offset)) == 0
        assert run(loop, loop.sock_sendfile(pair[0], file, offset, 3)) == 0
        assert file.tell() == offset


def test_empty_file(loop, pair, tmp_path, way):
    path = tmp_path / "file"
    path.write_bytes(b"")
    with path.open("rb") as file:
        assert run(loop, loop.sock_sendfile(pair[0], file)) == 0
        assert run(loop, loop.sock_sendfile(pair[0], file, 0, 5)) == 0


def test_file_that_grows_and_shrinks_meanwhile(loop, pair, tmp_path):
    near, far = pair
    path = tmp_path / "file"
    path.write_bytes(bytes(1_000_000))

    async def body():
        with path.open("r+b") as file:
            task = loop.create_task(loop.sock_sendfile(near, file))
            await asyncio.sleep(0)
            with path.open("ab") as other:
                other.write(b"more")
            assert (await receive(loop, far, 1_000_004))[-4:] == b"more"
            assert await task == 1_000_004
            task = loop.create_task(loop.sock_sendfile(near, file))
            await asyncio.sleep(0)
            file.truncate(300_000)
            sent = loop.create_task(receive(loop, far, 300_000))
            total = await task
            assert 0 < total <= 1_000_000
            assert file.tell() == total
            sent.cancel()

    run(loop, body())


def test_files_that_the_kernel_does_not_copy(loop, pair):
    near, far = pair
    for file in (io.BytesIO(b"hello"), io.BufferedReader(io.BytesIO(b"hello"))):
        with pytest.raises(asyncio.SendfileNotAvailableError, match="not a regular file"):
            run(loop, loop.sock_sendfile(near, file, fallback=False))
        assert run(loop, loop.sock_sendfile(near, file, 1, 3)) == 3
        assert far.recv(9) == b"ell"
        assert file.tell() == 4


def test_file_without_position(loop, pair):
    near, far = pair

    class Source:
        parts = [b"he", b"llo"]

        def readinto(self, buffer):
            part = self.parts.pop(0) if self.parts else b""
            buffer[: len(part)] = part
            return len(part)

    assert run(loop, loop.sock_sendfile(near, Source())) == 5
    assert far.recv(9) == b"hello"


def test_file_that_fails(loop, pair):
    near, _ = pair

    class Source(io.BytesIO):
        def readinto(self, buffer):
            if self.tell() > 200_000:
                raise ValueError("worn out")
            return super().readinto(buffer)

    file = Source(bytes(1_000_000))

    async def body():
        task = loop.create_task(loop.sock_sendfile(near, file))
        received = loop.create_task(receive(loop, pair[1], 1_000_000))
        with pytest.raises(ValueError, match="worn out"):
            await task
        received.cancel()

    run(loop, body())
    assert file.tell() == 262_144


def test_file_without_readinto(loop, pair):
    with pytest.raises(AttributeError):
        run(loop, loop.sock_sendfile(pair[0], object()))


def test_pipe(loop, pair):
    read, write = os.pipe()
    os.write(write, b"hello")
    with os.fdopen(read, "rb", 0) as file, os.fdopen(write, "wb", 0):
        # The kernel has no size for it, as for an empty file.
        assert run(loop, loop.sock_sendfile(pair[0], file)) == 0
        with pytest.raises(OSError, match="Errno") as raised:
            run(loop, loop.sock_sendfile(pair[0], file, 0, 5))
        assert raised.value.errno == errno.ESPIPE


def test_socket_as_file(aio, loop, pair):
    if aio is asyncio and sys.version_info < (3, 12):
        pytest.skip("the stdlib of 3.11 words it otherwise")
    near, _far = pair
    one, two = socket.socketpair()
    with one, two, one.makefile("rb") as file:
        two.send(b"hello")
        with pytest.raises(OSError, match="Errno"):
            run(loop, loop.sock_sendfile(near, file, 0, 5))


def test_wrong_arguments(loop, pair, file, tmp_path):
    near, _ = pair
    with (
        (tmp_path / "text").open("w+") as text,
        pytest.raises(ValueError, match="file should be opened in binary mode"),
    ):
        run(loop, loop.sock_sendfile(near, text))
    for count in (0, -1, False):
        expected = rf"count must be a positive integer \(got {count}\)"
        with pytest.raises(ValueError, match=expected):
            run(loop, loop.sock_sendfile(near, file, 0, count))
    for count in ("1", 1.0):
        expected = rf"count must be a positive integer \(got {count!r}\)"
        with pytest.raises(TypeError, match=expected):
            run(loop, loop.sock_sendfile(near, file, 0, count))
    for offset in (None, "1", 1.0):
        expected = rf"offset must be a non-negative integer \(got {offset!r}\)"
        with pytest.raises(TypeError, match=expected):
            run(loop, loop.sock_sendfile(near, file, offset))
    with pytest.raises(ValueError, match=r"offset must be a non-negative integer \(got -1\)"):
        run(loop, loop.sock_sendfile(near, file, -1))
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.setblocking(False)
        with pytest.raises(ValueError, match="only SOCK_STREAM type sockets are supported"):
            run(loop, loop.sock_sendfile(sock, file))
    assert file.tell() == 0


def test_cancellation(aio, loop, pair, file, data, way):
    near, far = pair
    task = loop.create_task(loop.sock_sendfile(near, file))
    first = run(loop, receive(loop, far, 100_000))
    turn(loop, 3)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        run(loop, task)
    assert not loop.remove_writer(near)
    far.setblocking(True)
    near.shutdown(socket.SHUT_WR)
    rest = b"".join(iter(lambda: far.recv(1 << 20), b""))
    assert data.startswith(first + rest)
    if aio is not asyncio and way == "native":
        assert file.tell() == len(first + rest)


def test_cancellation_after_the_file_was_closed(aio, loop, pair, file, way):
    if way == "fallback":
        pytest.skip("the executor reads the file")
    task = loop.create_task(loop.sock_sendfile(pair[0], file))
    turn(loop, 3)
    task.cancel()
    file.close()
    with pytest.raises(asyncio.CancelledError):
        run(loop, task)
    assert not loop.remove_writer(pair[0])


def test_file_closed_while_it_is_sent(aio, loop, pair, file, tmp_path):
    if aio is asyncio:
        pytest.skip("asyncio goes on with whatever file has the number by then")
    near, far = pair
    task = loop.create_task(loop.sock_sendfile(near, file))
    turn(loop, 3)
    number = file.fileno()
    file.close()
    (tmp_path / "secret").write_bytes(b"secret" * 1_000_000)
    with (tmp_path / "secret").open("rb") as other:
        assert other.fileno() == number
        far.setblocking(True)

        async def body():
            while not task.done():
                far.setblocking(False)
                with contextlib.suppress(BlockingIOError):
                    assert b"secret" not in far.recv(1 << 20)
                await asyncio.sleep(0)
            with pytest.raises(ValueError, match="closed file"):
                await task

        run(loop, body())
    assert not loop.remove_writer(near)


def test_peer_that_is_gone(aio, loop, pair, file, way):
    if aio is asyncio and way == "native" and sys.version_info < (3, 14):
        pytest.skip("the stdlib before 3.14 leaves the file's position alone if nothing was sent")
    near, far = pair
    far.close()
    with pytest.raises(BrokenPipeError):
        run(loop, loop.sock_sendfile(near, file))
    if way == "native":
        with pytest.raises(asyncio.SendfileNotAvailableError, match="sendfile call failed"):
            run(loop, loop.sock_sendfile(near, file, fallback=False))
        assert file.tell() == 0


def test_peer_that_goes_meanwhile(loop, pair, file, way):
    near, far = pair
    task = loop.create_task(loop.sock_sendfile(near, file))
    run(loop, receive(loop, far, 100_000))
    turn(loop, 3)
    far.close()
    with pytest.raises(ConnectionError):
        run(loop, task)
    assert not loop.remove_writer(near)
    assert 0 < file.tell() < SIZE


def test_steps_are_called_through_the_loop(loop, pair, file, monkeypatch):
    calls = []

    async def native(*args):
        calls.append(args)
        raise asyncio.SendfileNotAvailableError("mine")

    async def fallback(*args):
        calls.append(args)
        return 5

    monkeypatch.setattr(loop, "_sock_sendfile_native", native, raising=False)
    monkeypatch.setattr(loop, "_sock_sendfile_fallback", fallback, raising=False)
    near, _ = pair
    with pytest.raises(asyncio.SendfileNotAvailableError, match="mine"):
        run(loop, loop.sock_sendfile(near, file, 1, 2, fallback=False))
    assert run(loop, loop.sock_sendfile(near, file, count=2)) == 5
    assert calls == [(near, file, 1, 2), (near, file, 0, 2), (near, file, 0, 2)]


# ------------------------------------------------------------- transports


class Recorder(asyncio.Protocol):
    """A protocol that remembers what it was told."""

    def __init__(self):
        self.events = []
        self.lost = asyncio.Event()

    def pause_writing(self):
        self.events.append("pause")

    def resume_writing(self):
        self.events.append("resume")

    def data_received(self, data):
        self.events.append(data)

    def connection_lost(self, exc):
        self.events.append(exc)
        self.lost.set()


async def connect(loop, sock):
    protocol, waiter = Recorder(), loop.create_future()
    transport = loop._make_socket_transport(sock, protocol, waiter)
    await waiter
    return transport, protocol


@pytest.fixture(params=["native", "sock-fallback", "fallback"])
def transport_way(request, loop, monkeypatch):
    """How a transport sends a file."""
    if request.param == "fallback":

        async def unavailable(*args):
            raise asyncio.SendfileNotAvailableError("not here")

        monkeypatch.setattr(loop, "_sendfile_native", unavailable, raising=False)
    elif request.param == "sock-fallback":
        without_native(loop, monkeypatch)
    return request.param


def test_transport_sends_between_writes(aio, loop, pair, file, data, transport_way):
    if aio is asyncio and transport_way != "native":
        pytest.skip("asyncio's next block overwrites what the transport has not sent yet")
    near, far = pair
    before, after = b"before" * 100_000, b"after" * 1000

    async def body():
        transport, protocol = await connect(loop, near)
        transport.write(before)
        sending = loop.create_task(loop.sendfile(transport, file, 10, 5_000_000))
        expected = before + data[10:5_000_010] + after
        receiving = loop.create_task(receive(loop, far, len(expected)))
        assert await sending == 5_000_000
        transport.write(after)
        received = await receiving
        assert hashlib.sha1(received).digest() == hashlib.sha1(expected).digest()
        assert file.tell() == 5_000_010
        assert transport.get_protocol() is protocol
        assert transport.is_reading()
        far.send(b"hi")
        while b"hi" not in protocol.events:
            await asyncio.sleep(0)
        with pytest.raises(RuntimeError, match="is used by transport"):
            loop.remove_reader(near)
        transport.close()
        await protocol.lost.wait()
        assert protocol.events.count("pause") == protocol.events.count("resume")

    run(loop, body())


@pytest.mark.parametrize("size", [0, 1, 16384, 16385])
def test_transport_sends_small_files(loop, pair, tmp_path, transport_way, size):
    near, far = pair
    path = tmp_path / "small"
    path.write_bytes(os.urandom(size))

    async def body():
        transport, protocol = await connect(loop, near)
        with path.open("rb") as file:
            assert await loop.sendfile(transport, file) == size
        assert await receive(loop, far, size) == path.read_bytes()
        transport.close()
        await protocol.lost.wait()

    run(loop, body())


def test_writing_while_the_kernel_copies_is_refused(loop, pair, file):
    near, far = pair

    async def body():
        transport, protocol = await connect(loop, near)
        sending = loop.create_task(loop.sendfile(transport, file))
        await asyncio.sleep(0)
        with pytest.raises(RuntimeError, match="sendfile is in progress"):
            transport.write(b"x")
        await receive(loop, far, len(file.read()))
        await sending
        transport.write(b"x")
        assert await receive(loop, far, 1) == b"x"
        transport.close()
        await protocol.lost.wait()

    run(loop, body())


def test_fallback_leaves_each_block_to_the_transport(aio, loop, pair, monkeypatch):
    if aio is asyncio:
        pytest.skip("asyncio's next block overwrites what the transport has not sent yet")
    _near, _far = pair

    class Keeping(asyncio.transports._FlowControlMixin, asyncio.Transport):
        """A transport that sends nothing at first."""

        _sendfile_compatible = constants._SendfileMode.FALLBACK

        def __init__(self):
            super().__init__(None, loop)
            self.kept, self.protocol = [], Recorder()

        def write(self, data):
            self.kept.append(data)

        def get_write_buffer_size(self):
            return 0

        def is_closing(self):
            return False

        def is_reading(self):
            return False

        def pause_reading(self):
            pass

        def get_protocol(self):
            return self.protocol

        def set_protocol(self, protocol):
            self.protocol = protocol

    data = os.urandom(100_000)

    async def body():
        transport = Keeping()
        protocol = transport.protocol
        assert await loop.sendfile(transport, io.BytesIO(data)) == len(data)
        assert b"".join(transport.kept) == data
        assert transport.protocol is protocol
        with pytest.raises(RuntimeError, match="fallback is disabled and native sendfile is not"):
            await loop.sendfile(transport, io.BytesIO(data), fallback=False)

    run(loop, body())


def test_transports_that_cannot(loop, pair, file):
    class Plain:
        closing = False

        def is_closing(self):
            return self.closing

    transport = Plain()
    with pytest.raises(RuntimeError, match="sendfile is not supported for transport <"):
        run(loop, loop.sendfile(transport, file))
    transport.closing = True
    with pytest.raises(RuntimeError, match="Transport is closing"):
        run(loop, loop.sendfile(transport, file))
    transport.closing = False
    transport._sendfile_compatible = constants._SendfileMode.FALLBACK
    with pytest.raises(TypeError, match="transport should be _FlowControlMixin instance"):
        run(loop, loop.sendfile(transport, file))


def test_transport_without_native_way_and_without_fallback(loop, pair, file, monkeypatch):
    without_native(loop, monkeypatch)

    async def body():
        transport, protocol = await connect(loop, pair[0])
        with pytest.raises(asyncio.SendfileNotAvailableError, match="not here"):
            await loop.sendfile(transport, file, fallback=False)
        transport.write(b"x")
        assert await receive(loop, pair[1], 1) == b"x"
        transport.close()
        await protocol.lost.wait()

    run(loop, body())


def test_transport_cancelled(aio, loop, pair, file, transport_way):
    if aio is asyncio and transport_way != "native":
        pytest.skip("asyncio's fallback then resumes a future that is cancelled, and reports that")
    near, far = pair

    async def body():
        transport, protocol = await connect(loop, near)
        sending = loop.create_task(loop.sendfile(transport, file))
        first = await receive(loop, far, 200_000)
        sending.cancel()
        with pytest.raises(asyncio.CancelledError):
            await sending
        assert transport.get_protocol() is protocol
        assert transport.is_reading()
        file.seek(0)
        assert file.read(len(first)) == first
        with pytest.raises(RuntimeError, match="is used by transport"):
            loop.remove_writer(near)
        transport.abort()
        await protocol.lost.wait()

    run(loop, body())


def test_transport_cancelled_before_it_has_sent_its_own(aio, loop, pair, file):
    if aio is asyncio:
        pytest.skip("asyncio's transport is left without writing, reading and registration")
    near, far = pair

    async def body():
        transport, protocol = await connect(loop, near)
        transport.write(bytes(1 << 20))
        sending = loop.create_task(loop.sendfile(transport, file))
        await asyncio.sleep(0)
        sending.cancel()
        with pytest.raises(asyncio.CancelledError):
            await sending
        assert transport.is_reading()
        transport.write(b"x")
        assert (await receive(loop, far, (1 << 20) + 1))[-1:] == b"x"
        with pytest.raises(RuntimeError, match="is used by transport"):
            loop.remove_writer(near)
        transport.close()
        await protocol.lost.wait()

    run(loop, body())


def test_transport_whose_peer_goes(loop, pair, file, transport_way):
    near, far = pair

    async def body():
        transport, protocol = await connect(loop, near)
        sending = loop.create_task(loop.sendfile(transport, file))
        await receive(loop, far, 200_000)
        far.close()
        with pytest.raises(ConnectionError):
            await sending
        assert 200_000 <= file.tell() < SIZE
        transport.abort()
        await protocol.lost.wait()

    run(loop, body())


@pytest.mark.parametrize("end", ["close", "abort"])
@pytest.mark.parametrize("before", ["nothing", "much"])
@pytest.mark.parametrize("reads", [True, False], ids=["reads", "stops"])
def test_transport_that_ends_meanwhile(aio, loop, pair, file, data, transport_way, end, before, reads):
    """The wait ends with it, also if the peer reads nothing any more, and the protocol is told once."""
    if aio is asyncio and transport_way != "fallback":
        pytest.skip("asyncio's transport fails in connection_lost, or the wait never ends")
    near, far = pair
    reports = []
    loop.set_exception_handler(lambda _, context: reports.append(context))

    async def body():
        transport, protocol = await connect(loop, near)
        if before == "much":
            transport.write(bytes(4 << 20))
        sending = loop.create_task(loop.sendfile(transport, file))
        if before == "nothing":
            await receive(loop, far, 200_000)
            # Until the socket takes no more.
            for _ in range(20):
                await asyncio.sleep(0)
        else:
            await asyncio.sleep(0)
        getattr(transport, end)()
        if end == "close" and not reads and transport.get_write_buffer_size():
            # It waits for its own bytes to be sent.
            transport.abort()

        async def read_on():
            with contextlib.suppress(ConnectionError):
                while await loop.sock_recv(far, 1 << 20):
                    pass

        reading = loop.create_task(read_on()) if reads else None
        with pytest.raises(OSError, match=r"Connection.*closed by peer|Bad file descriptor"):
            await asyncio.wait_for(sending, 10)
        await asyncio.wait_for(protocol.lost.wait(), 10)
        assert [event for event in protocol.events if event not in ("pause", "resume")] == [None]
        if before == "nothing" and transport_way == "native":
            assert 200_000 <= file.tell() < SIZE
        for _ in range(3):
            await asyncio.sleep(0)
        assert near.fileno() == -1
        if reading is not None:
            await reading

    run(loop, body())
    assert reports == []


def test_writer_of_a_transport_s_socket_is_not_left_when_it_is_lost(aio, loop, pair, file):
    """Whoever registers the socket while it sends a file is called for the last time, or no more."""
    if aio is asyncio:
        pytest.skip("asyncio's transport fails in connection_lost")
    near, _ = pair
    number = near.fileno()
    calls = []

    async def body():
        transport, protocol = await connect(loop, near)
        sending = loop.create_task(loop.sendfile(transport, file))
        for _ in range(20):
            await asyncio.sleep(0)
        loop.add_writer(number, calls.append, None)
        transport.abort()
        await protocol.lost.wait()
        for _ in range(3):
            await asyncio.sleep(0)
        assert len(calls) <= 1
        assert not loop.remove_writer(number)
        sending.cancel()
        await asyncio.wait([sending])

    run(loop, body())


@pytest.mark.parametrize("before", ["nothing", "much"])
def test_second_file_meanwhile_is_refused(aio, loop, pair, file, data, tmp_path, before):
    """And does not disturb the first."""
    if aio is asyncio:
        pytest.skip("asyncio says KeyError")
    near, far = pair
    (tmp_path / "other").write_bytes(b"other")

    async def body():
        transport, protocol = await connect(loop, near)
        own = bytes(1 << 20) if before == "much" else b""
        transport.write(own)
        sending = loop.create_task(loop.sendfile(transport, file))
        await asyncio.sleep(0)
        for _ in range(2):
            with (tmp_path / "other").open("rb") as other, pytest.raises(RuntimeError, match="already set"):
                await loop.sendfile(transport, other)
        assert not transport.is_reading()
        assert await receive(loop, far, len(own) + SIZE) == own + data
        assert await sending == SIZE
        assert transport.is_reading()
        transport.write(b"more")
        assert await receive(loop, far, 4) == b"more"
        transport.close()
        await protocol.lost.wait()

    run(loop, body())


@pytest.mark.parametrize("order", ["cancel_first", "end_first"])
@pytest.mark.parametrize("end", ["close", "abort"])
def test_transport_cancelled_and_ended(aio, loop, pair, file, transport_way, order, end):
    """At the same moment."""
    if aio is asyncio:
        pytest.skip("asyncio's transport fails in connection_lost, or is resumed by a future that is cancelled")
    near, far = pair
    reports = []
    loop.set_exception_handler(lambda _, context: reports.append(context))

    async def body():
        transport, protocol = await connect(loop, near)
        sending = loop.create_task(loop.sendfile(transport, file))
        await receive(loop, far, 200_000)
        acts = [sending.cancel, getattr(transport, end)]
        for act in acts if order == "cancel_first" else reversed(acts):
            act()
        with contextlib.suppress(ConnectionError):
            while await loop.sock_recv(far, 1 << 20):
                pass
        await asyncio.wait([sending])
        assert sending.cancelled()
        await asyncio.wait_for(protocol.lost.wait(), 10)
        assert protocol.events[-1] is None or protocol.events[-1] == "resume"
        for _ in range(3):
            await asyncio.sleep(0)
        assert near.fileno() == -1

    run(loop, body())
    assert reports == []


def test_connection_lost_during_the_fallback_reaches_the_protocol(loop, pair, file, monkeypatch):
    near, far = pair
    without_native(loop, monkeypatch)

    async def body():
        transport, protocol = await connect(loop, near)
        sending = loop.create_task(loop.sendfile(transport, file))
        await receive(loop, far, 200_000)
        while not transport.get_write_buffer_size():
            await asyncio.sleep(0)
        transport.abort()
        with pytest.raises(ConnectionError):
            await sending
        await protocol.lost.wait()
        assert protocol.events[-1] is None
        assert transport.get_protocol() in (protocol, None)

    run(loop, body())


def test_blocks_wait_for_room_however_soon_they_are_read(loop, pair, file, monkeypatch):
    near, far = pair
    without_native(loop, monkeypatch)

    async def body():
        transport, protocol = await connect(loop, near)
        filled = 0
        with contextlib.suppress(BlockingIOError):
            while True:
                filled += near.send(bytes(100_000))
        sending = loop.create_task(loop.sendfile(transport, file, 0, 100_000))
        await until(lambda: sending.done() or transport.get_write_buffer_size() > 65_536)
        assert not sending.done()
        await receive(loop, far, filled + 100_000)
        assert await sending == 100_000
        assert protocol.events == []
        transport.close()
        await protocol.lost.wait()

    run(loop, body())


def test_protocol_that_was_told_to_pause_before(aio, loop, pair, file, data, monkeypatch):
    if aio is asyncio:
        pytest.skip("asyncio's next block overwrites what the transport has not sent yet")
    near, far = pair
    without_native(loop, monkeypatch)

    async def body():
        transport, protocol = await connect(loop, near)
        transport.write(bytes(1 << 20))
        assert protocol.events == ["pause"]
        sending = loop.create_task(loop.sendfile(transport, file, 0, 1_000_000))
        received = await receive(loop, far, (1 << 20) + 1_000_000)
        assert received[1 << 20 :] == data[:1_000_000]
        assert await sending == 1_000_000
        assert protocol.events == ["pause", "resume"]
        transport.close()
        await protocol.lost.wait()

    run(loop, body())


def test_reading_goes_on_afterwards_only_if_it_did_before(loop, pair, file, transport_way):
    near, far = pair

    async def body():
        transport, protocol = await connect(loop, near)
        transport.pause_reading()
        assert await loop.sendfile(transport, file, 0, 10) == 10
        assert not transport.is_reading()
        transport.resume_reading()
        far.send(b"early")
        assert await loop.sendfile(transport, file, 0, 10) == 10
        assert transport.is_reading()
        while b"early" not in protocol.events:
            await asyncio.sleep(0)
        transport.close()
        await protocol.lost.wait()

    run(loop, body())


@pytest.mark.skipif(sys.platform != "linux", reason="descriptors are counted in /proc")
def test_no_descriptor_is_left(loop, file):
    async def body():
        near, far = socket.socketpair()
        near.setblocking(False)
        with near, far:
            task = loop.create_task(loop.sock_sendfile(near, file))
            await asyncio.sleep(0)
            task.cancel()

    run(loop, body())
    turn(loop)
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(5):
        run(loop, body())
        turn(loop)
    assert len(os.listdir("/proc/self/fd")) == before

"""`connect_read_pipe` and `connect_write_pipe`, with the stdlib too."""

import asyncio
import contextvars
import gc
import hashlib
import io
import os
import socket
import tty
import weakref

import pytest
from waiting import Recorder, run, turn, until_noted

import aioxide


def forget(last):
    """Drops the last references to objects, and collects what is left of them."""
    last.clear()
    gc.collect()


def is_stdlib(aio):
    return aio is asyncio


def lost(protocol):
    return "lost" in protocol.kinds()


def read_pipe(loop, fd, factory=Recorder):
    return run(loop, loop.connect_read_pipe(factory, open(fd, "rb", 0)))


def write_pipe(loop, fd, factory=Recorder):
    return run(loop, loop.connect_write_pipe(factory, open(fd, "wb", 0)))


@pytest.fixture
def reader(loop):
    """A transport that reads, its protocol, and the descriptor to write to."""
    read, write = os.pipe()
    transport, protocol = read_pipe(loop, read)
    write = io.FileIO(write, "w")
    yield transport, protocol, write
    write.close()
    if not lost(protocol):
        transport.close()
        turn(loop, 3)


@pytest.fixture
def writer(loop):
    """A transport that writes, its protocol, and the file to read from."""
    read, write = os.pipe()
    os.set_blocking(read, False)
    transport, protocol = write_pipe(loop, write)
    read = io.FileIO(read)
    yield transport, protocol, read
    read.close()
    if not lost(protocol):
        transport.abort()
        turn(loop, 3)


def fill(transport, data=b"x" * 65536):
    """Writes until something is left in the buffer."""
    count = 0
    while transport.get_write_buffer_size() == 0 and not transport.is_closing():
        transport.write(data)
        count += len(data)
    return count


def drain(loop, file, count):
    """Reads from a non-blocking file while the loop runs."""
    got, misses = bytearray(), 0
    while len(got) < count:
        data = file.read(65536)
        if data:
            got += data
        else:
            assert data is None, f"{len(got)} of {count} bytes came"
            turn(loop)
            misses += 1
            assert misses < 1000, f"{len(got)} of {count} bytes came"
    return got


# --------------------------------------------------------------------- reading


def test_reading(loop, reader):
    transport, protocol, file = reader
    assert isinstance(transport, asyncio.ReadTransport)
    assert not isinstance(transport, asyncio.WriteTransport)
    assert not hasattr(transport, "abort")
    assert transport.get_extra_info("pipe") is transport._pipe
    assert transport._pipe.fileno() == transport._fileno
    assert not os.get_blocking(transport._fileno)
    assert (transport._paused, transport._closing, transport._loop) == (False, False, loop)
    assert transport.get_protocol() is transport._protocol is protocol
    assert transport.max_size == 256 * 1024
    file.write(b"one")
    until_noted(loop, protocol, lambda: protocol.received == b"one")
    assert type(protocol.events[-1][1]) is bytes
    file.close()
    until_noted(loop, protocol, lambda: lost(protocol))
    assert protocol.events[2:] == [("eof",), ("lost", None)]
    assert transport._pipe is None
    assert transport._loop is None
    assert transport.get_protocol() is None
    transport.close()


def test_eof_and_loss_come_in_their_turns(loop, reader):
    _, protocol, file = reader
    file.close()
    until_noted(loop, protocol, lambda: "eof" in protocol.kinds())
    turn(loop)
    assert protocol.kinds() == ["made", "eof", "lost"]


def test_pause_and_resume(loop, reader):
    transport, protocol, file = reader
    transport.pause_reading()
    transport.pause_reading()
    assert not transport.is_reading()
    file.write(b"x")
    turn(loop, 3)
    assert not protocol.received
    transport.resume_reading()
    transport.resume_reading()
    assert transport.is_reading()
    until_noted(loop, protocol, lambda: protocol.received)
    transport.close()
    assert not transport.is_reading()
    transport.pause_reading()
    transport.resume_reading()
    turn(loop, 2)
    assert protocol.kinds()[-1] == "lost"


def test_paused_in_connection_made(loop):
    class Pausing(Recorder):
        def connection_made(self, transport):
            super().connection_made(transport)
            transport.pause_reading()

    read, write = os.pipe()
    transport, protocol = read_pipe(loop, read, Pausing)
    os.write(write, b"x")
    os.close(write)
    turn(loop, 3)
    assert protocol.kinds() == ["made"]
    transport.resume_reading()
    until_noted(loop, protocol, lambda: lost(protocol))
    assert protocol.kinds() == ["made", "data", "eof", "lost"]


def test_protocol_can_be_changed(loop, reader):
    transport, protocol, file = reader
    other = Recorder()
    transport.set_protocol(other)
    file.write(b"x")
    until_noted(loop, other, lambda: other.received)
    assert not protocol.received


@pytest.mark.parametrize("kind", ["fifo", "socket", "pty"])
def test_other_files_are_read(loop, tmp_path, kind):
    if kind == "fifo":
        os.mkfifo(tmp_path / "fifo")
        read = os.open(tmp_path / "fifo", os.O_RDONLY | os.O_NONBLOCK)
        write = os.open(tmp_path / "fifo", os.O_WRONLY)
    elif kind == "socket":
        left, right = socket.socketpair()
        read, write = left.detach(), right.detach()
    else:
        read, write = os.openpty()
        tty.setraw(write)
    _transport, protocol = read_pipe(loop, read)
    os.write(write, b"text")
    until_noted(loop, protocol, lambda: protocol.received == b"text")
    os.close(write)
    until_noted(loop, protocol, lambda: lost(protocol))
    # The end of a terminal is an error, which is not worth a report.
    if kind == "pty":
        assert isinstance(protocol.events[-1][1], OSError)
    else:
        assert protocol.events[-1] == ("lost", None)


@pytest.mark.parametrize(
    ("method", "message"),
    [
        ("connect_read_pipe", r"^Pipe transport is for pipes/sockets only\.$"),
        ("connect_write_pipe", "^Pipe transport is only for pipes, sockets and character devices$"),
    ],
)
def test_regular_files_are_refused(loop, tmp_path, method, message):
    with open(tmp_path / "file", "w+b", 0) as file:
        with pytest.raises(ValueError, match=message):
            run(loop, getattr(loop, method)(Recorder, file))
        assert not file.closed
        assert os.get_blocking(file.fileno())


@pytest.mark.parametrize("method", ["connect_read_pipe", "connect_write_pipe"])
def test_senseless_pipes(aio, loop, method):
    if is_stdlib(aio):
        pytest.skip("the finaliser of the stdlib's half-made transport fails, too")
    with pytest.raises(AttributeError):
        run(loop, getattr(loop, method)(Recorder, None))
    read, write = os.pipe()
    closed = io.FileIO(read)
    closed.close()
    with pytest.raises(ValueError, match="closed file"):
        run(loop, getattr(loop, method)(Recorder, closed))
    os.close(write)


# --------------------------------------------------------------------- writing


def test_writing(loop, writer):
    transport, protocol, file = writer
    assert isinstance(transport, asyncio.WriteTransport)
    assert isinstance(transport, asyncio.Transport)
    assert transport.get_extra_info("pipe") is transport._pipe
    assert transport._pipe.fileno() == transport._fileno
    assert not os.get_blocking(transport._fileno)
    assert (transport._closing, transport._conn_lost, transport._buffer) == (False, 0, bytearray())
    assert transport.can_write_eof()
    assert transport.get_write_buffer_limits() == (16384, 65536)
    for data in (b"a", bytearray(b"b"), memoryview(b"xcx")[1:2], b"", memoryview(b"")):
        transport.write(data)
    assert file.read(10) == b"abc"
    transport.writelines([b"d", bytearray(b"e")])
    assert file.read(10) == b"de"
    transport.close()
    transport.close()
    turn(loop, 2)
    assert protocol.events == [("made",), ("lost", None)]
    assert file.read(10) == b""
    assert transport._pipe is None
    transport.close()
    transport.write_eof()


@pytest.mark.parametrize("data", ["text", None, 5, [1]])
def test_wrong_data(writer, data):
    with pytest.raises(AssertionError) as caught:
        writer[0].write(data)
    assert str(caught.value) == repr(data)


def test_memoryview_of_larger_items(aio, loop, writer):
    if is_stdlib(aio):
        pytest.skip("the stdlib counts items where it means bytes")
    transport, _, file = writer
    data = memoryview(bytes(range(256)) * 4096).cast("I")
    transport.write(data)
    assert transport.get_write_buffer_size() > 0
    assert drain(loop, file, data.nbytes) == data.tobytes()


@pytest.mark.logs_errors
def test_noncontiguous_data_is_fatal(loop, writer):
    transport, protocol, _ = writer
    reports = []
    loop.set_exception_handler(lambda loop, context: reports.append(context))
    transport.write(memoryview(b"abcdef")[::2])
    assert reports[0]["message"] == "Fatal write error on pipe transport"
    assert isinstance(reports[0]["exception"], BufferError)
    turn(loop, 2)
    assert protocol.events[-1] == ("lost", reports[0]["exception"])


@pytest.mark.parametrize("make", [bytearray, lambda data: memoryview(bytearray(data))])
def test_later_changes_of_the_buffer_are_not_written(loop, writer, make):
    transport, _, file = writer
    count = fill(transport)
    data = make(b"before")
    transport.write(data)
    data[:] = b"after!"
    if isinstance(data, bytearray):
        data.clear()
    assert drain(loop, file, count + 6)[-6:] == b"before"


def test_rest_of_a_partial_write_is_a_copy(loop, writer):
    transport, _, file = writer
    data = bytearray(b"a" * 1_000_000)
    transport.write(data)
    data[:] = b"b" * len(data)
    data.clear()
    assert drain(loop, file, 1_000_000) == b"a" * 1_000_000


def test_caller_s_buffer_is_free_in_pause_writing(aio, loop):
    if is_stdlib(aio):
        pytest.skip("the stdlib still holds a view of it")
    data = bytearray(1_000_000)

    class Clearing(Recorder):
        def pause_writing(self):
            super().pause_writing()
            data.clear()

    read, write = os.pipe()
    transport, protocol = write_pipe(loop, write, Clearing)
    transport.write(data)
    assert protocol.kinds() == ["made", "pause"]
    transport.abort()
    turn(loop, 2)
    os.close(read)


def test_flow_control(loop, writer):
    transport, protocol, file = writer
    transport.set_write_buffer_limits(high=100_000, low=10)
    assert transport.get_write_buffer_limits() == (10, 100_000)
    count = fill(transport)
    assert "pause" not in protocol.kinds()
    transport.write(bytes(200_000))
    transport.write(bytes(1))
    assert protocol.kinds() == ["made", "pause"]
    assert len(transport._buffer) == transport.get_write_buffer_size()
    drain(loop, file, count + 200_001)
    turn(loop)
    assert protocol.kinds() == ["made", "pause", "resume"]
    assert transport.get_write_buffer_size() == 0


@pytest.mark.parametrize("end", ["close", "write_eof"])
def test_close_waits_for_the_buffer(loop, writer, end):
    transport, protocol, file = writer
    count = fill(transport)
    getattr(transport, end)()
    transport.write(b"not any more")
    turn(loop, 3)
    assert transport.is_closing()
    assert not lost(protocol)
    assert len(drain(loop, file, count)) == count
    turn(loop, 2)
    assert protocol.events[-1] == ("lost", None)
    assert file.read(10) == b""


def test_abort_drops_the_buffer(aio, loop, writer):
    transport, protocol, _file = writer
    fill(transport)
    transport.abort()
    if not is_stdlib(aio):
        # The stdlib calls connection_lost() once for each.
        transport.abort()
    assert transport.get_write_buffer_size() == 0
    turn(loop, 2)
    assert protocol.kinds().count("lost") == 1
    if not is_stdlib(aio):
        transport.abort()


def test_peer_closes(loop, writer):
    _transport, protocol, file = writer
    file.close()
    until_noted(loop, protocol, lambda: lost(protocol))
    assert protocol.events[-1] == ("lost", None)


def test_peer_closes_before_everything_is_written(loop, writer):
    transport, protocol, file = writer
    fill(transport)
    file.close()
    until_noted(loop, protocol, lambda: lost(protocol))
    assert isinstance(protocol.events[-1][1], BrokenPipeError)
    assert protocol.kinds().count("lost") == 1


def test_broken_pipe(aio, loop, writer, caplog):
    transport, protocol, file = writer
    file.close()
    transport.write(b"x")
    assert transport.is_closing()
    for _ in range(6):
        transport.write(b"x")
    warnings = [record.message for record in caplog.records if record.levelname == "WARNING"]
    assert warnings == ["pipe closed by peer or os.write(pipe, data) raised exception."] * 2
    turn(loop, 2)
    assert isinstance(protocol.events[-1][1], BrokenPipeError)
    assert protocol.kinds().count("lost") == 1


@pytest.mark.parametrize("kind", ["fifo", "socket", "pty"])
def test_other_files_are_written(loop, tmp_path, kind):
    if kind == "fifo":
        os.mkfifo(tmp_path / "fifo")
        read = os.open(tmp_path / "fifo", os.O_RDONLY | os.O_NONBLOCK)
        write = os.open(tmp_path / "fifo", os.O_WRONLY)
    elif kind == "socket":
        left, right = socket.socketpair()
        read, write = left.detach(), right.detach()
    else:
        read, write = os.openpty()
        tty.setraw(write)
    transport, protocol = write_pipe(loop, write)
    transport.write(b"text")
    assert os.read(read, 10) == b"text"
    os.close(read)
    if kind == "pty":
        turn(loop, 3)
        assert protocol.kinds() == ["made"]
        transport.close()
    until_noted(loop, protocol, lambda: lost(protocol))
    assert protocol.events[-1] == ("lost", None)


def test_bulk(loop):
    read, write = os.pipe()
    in_transport, source = write_pipe(loop, write)
    _out_transport, sink = read_pipe(loop, read)
    sent, got = hashlib.sha256(), hashlib.sha256()
    sink.data_received = got.update

    async def pump():
        for number in range(400):
            chunk = number.to_bytes(4, "big") * (1 + number * 977 % 30_000)
            sent.update(chunk)
            in_transport.write(chunk)
            while source.kinds().count("pause") > source.kinds().count("resume"):
                source.changed = loop.create_future()
                await source.changed
        in_transport.close()
        while not lost(sink):
            sink.changed = loop.create_future()
            await sink.changed

    run(loop, pump())
    assert got.digest() == sent.digest()
    assert "pause" in source.kinds()


# ------------------------------------------------------------ callbacks, contexts


@pytest.mark.logs_errors
@pytest.mark.parametrize("callback", ["connection_made", "data_received", "eof_received", "connection_lost"])
def test_raising_callbacks_are_reported(loop, callback):
    reports = []
    loop.set_exception_handler(lambda loop, context: reports.append(context))

    class Raising(Recorder):
        pass

    def raising(self, *args):
        getattr(Recorder, callback)(self, *args)
        raise ZeroDivisionError(callback)

    setattr(Raising, callback, raising)
    read, write = os.pipe()
    transport, protocol = read_pipe(loop, read, Raising)
    os.write(write, b"x")
    until_noted(loop, protocol, lambda: protocol.received)
    os.close(write)
    until_noted(loop, protocol, lambda: lost(protocol))
    turn(loop)
    assert len(reports) == 1
    assert isinstance(reports[0]["exception"], ZeroDivisionError)
    assert reports[0]["message"].startswith("Exception in callback ")
    assert isinstance(reports[0]["handle"], (asyncio.Handle, aioxide.Handle))
    assert transport._pipe is None


@pytest.mark.parametrize("callback", ["connection_made", "data_received", "eof_received", "connection_lost"])
def test_close_of_reader_in_every_callback(aio, loop, callback):
    if is_stdlib(aio) and loop.get_debug() and callback == "connection_made":
        pytest.skip("the stdlib logs the number of a closed file")

    class Ending(Recorder):
        pass

    def ending(self, *args):
        getattr(Recorder, callback)(self, *args)
        self.transport.close()

    setattr(Ending, callback, ending)
    read, write = os.pipe()
    transport, protocol = read_pipe(loop, read, Ending)
    if callback == "data_received":
        os.write(write, b"x")
        until_noted(loop, protocol, lambda: lost(protocol))
    os.close(write)
    until_noted(loop, protocol, lambda: lost(protocol))
    turn(loop, 3)
    assert protocol.kinds().count("lost") == 1
    assert transport._pipe is None


@pytest.mark.parametrize("how", ["close", "abort", "write_eof", "write"])
@pytest.mark.parametrize("callback", ["connection_made", "pause_writing", "resume_writing"])
def test_acts_of_writer_in_every_callback(aio, loop, callback, how):
    if is_stdlib(aio) and (callback != "pause_writing" and how not in ("write", "write_eof")):
        pytest.skip("the stdlib calls connection_lost() twice, or leaves a watch behind")
    if is_stdlib(aio) and how == "write_eof":
        pytest.skip("the stdlib calls connection_lost() twice, or leaves a watch behind")

    class Acting(Recorder):
        acted = False

    def act(self, *args):
        getattr(Recorder, callback)(self, *args)
        if not self.acted:
            self.acted = True
            getattr(self.transport, how)(*([b"from within"] if how == "write" else []))

    setattr(Acting, callback, act)
    read, write = os.pipe()
    os.set_blocking(read, False)
    transport, protocol = write_pipe(loop, write, Acting)
    transport.set_write_buffer_limits(high=0)
    count = fill(transport)
    with open(read, "rb", 0) as file:
        if how == "abort" and callback != "resume_writing":
            turn(loop, 3)
        else:
            drain(loop, file, count + 11 * (how == "write"))
        transport.close()
        turn(loop, 3)
    assert protocol.kinds().count("lost") == 1
    assert transport._pipe is None


@pytest.mark.logs_errors
@pytest.mark.parametrize("callback", ["pause_writing", "resume_writing"])
def test_raising_flow_control(loop, callback):
    reports = []
    loop.set_exception_handler(lambda loop, context: reports.append(context))

    class Raising(Recorder):
        pass

    def raising(self):
        raise ZeroDivisionError

    setattr(Raising, callback, raising)
    read, write = os.pipe()
    os.set_blocking(read, False)
    transport, _protocol = write_pipe(loop, write, Raising)
    transport.set_write_buffer_limits(high=0)
    count = fill(transport)
    with open(read, "rb", 0) as file:
        drain(loop, file, count)
        turn(loop)
        assert [report["message"] for report in reports] == [f"protocol.{callback}() failed"]
        transport.close()
        turn(loop, 2)


VAR = contextvars.ContextVar("VAR", default="outside")


def test_callbacks_do_not_leak_their_context(loop):
    class Setting(Recorder):
        def note(self, kind, *event):
            VAR.set(kind)
            super().note(kind, *event)

    read, write = os.pipe()
    _transport, protocol = read_pipe(loop, read, Setting)
    os.write(write, b"x")
    os.close(write)
    until_noted(loop, protocol, lambda: lost(protocol))
    assert VAR.get() == "outside"


def test_callbacks_share_the_context_of_the_creation(aio, loop):
    if is_stdlib(aio):
        pytest.skip("the stdlib's pipes have no context of their own")
    seen = {}

    class Watching(Recorder):
        def note(self, kind, *event):
            seen[kind] = VAR.get()
            VAR.set(f"set in {kind}")
            super().note(kind, *event)

    read, write = os.pipe()

    async def create():
        VAR.set("creation")
        return await loop.connect_read_pipe(Watching, open(read, "rb", 0))

    _, protocol = run(loop, create())
    os.write(write, b"x")
    os.close(write)
    until_noted(loop, protocol, lambda: lost(protocol))
    assert seen == {"made": "creation", "data": "set in made", "eof": "set in data", "lost": "set in eof"}


# ------------------------------------------------------------------- ends, leaks


@pytest.mark.parametrize("method", ["connect_read_pipe", "connect_write_pipe"])
@pytest.mark.parametrize("end", ["cancel", "close"])
def test_cancelled_before_connection_made(loop, method, end):
    read, write = os.pipe()
    fd, other = (read, write) if method == "connect_read_pipe" else (write, read)
    file = io.FileIO(fd, "r" if fd == read else "w")
    protocol = Recorder()

    async def main():
        coro = getattr(loop, method)(lambda: protocol, file)
        if end == "close":
            coro.send(None)
            coro.close()
        else:
            task = asyncio.ensure_future(coro)
            await asyncio.sleep(0)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
        for _ in range(4):
            await asyncio.sleep(0)

    run(loop, main())
    assert protocol.kinds() == ["made", "lost"]
    assert file.closed
    os.close(other)


def test_failing_factory_leaves_the_pipe_open(loop):
    def broken():
        raise ZeroDivisionError

    read, write = os.pipe()
    with open(read, "rb", 0) as reader, open(write, "wb", 0) as writer:
        for method, file in (("connect_read_pipe", reader), ("connect_write_pipe", writer)):
            with pytest.raises(ZeroDivisionError):
                run(loop, getattr(loop, method)(broken, file))
            assert not file.closed


@pytest.mark.skipif(not os.path.exists("/proc/self/fd"), reason="counts descriptors in /proc")
def test_no_descriptor_is_leaked(loop):
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(3):
        read, write = os.pipe()
        (_reader, rp), (writer, _wp) = read_pipe(loop, read), write_pipe(loop, write)
        writer.write(b"x")
        writer.close()
        until_noted(loop, rp, lambda: lost(rp))
    gc.collect()
    assert len(os.listdir("/proc/self/fd")) == before


def test_dropped_transport_stays_with_its_loop(loop):
    read, write = os.pipe()
    transport, protocol = read_pipe(loop, read)
    alive = weakref.ref(transport)
    protocol.transport = None
    del transport
    gc.collect()
    assert alive() is not None
    os.close(write)
    until_noted(loop, protocol, lambda: lost(protocol))
    turn(loop)
    gc.collect()
    assert alive() is None


@pytest.mark.parametrize("end", ["read", "write"])
def test_unclosed_transport_warns(aio, end):
    loop = asyncio.SelectorEventLoop() if is_stdlib(aio) else aioxide.new_event_loop()
    read, write = os.pipe()
    transport, protocol = (read_pipe if end == "read" else write_pipe)(loop, read if end == "read" else write)
    pipe = transport._pipe
    loop.close()
    text = repr(transport)
    assert text.endswith("open>")
    protocol.transport = None
    last = [transport]
    del transport
    with pytest.warns(ResourceWarning) as caught:
        forget(last)
    assert [str(warning.message) for warning in caught] == [f"unclosed transport {text}"]
    assert pipe.closed
    os.close(write if end == "read" else read)


def test_repr(loop, reader, writer):
    transport, _, _ = reader
    fd = transport._fileno
    assert repr(transport) == f"<_UnixReadPipeTransport fd={fd} polling>"
    transport.pause_reading()
    assert repr(transport) == f"<_UnixReadPipeTransport fd={fd} idle>"
    transport.close()
    assert repr(transport) == f"<_UnixReadPipeTransport closing fd={fd} idle>"
    turn(loop, 2)
    assert repr(transport) == f"<_UnixReadPipeTransport closed fd={fd} closed>"
    transport, _, _ = writer
    fd = transport._fileno
    assert repr(transport) == f"<_UnixWritePipeTransport fd={fd} idle bufsize=0>"
    fill(transport)
    size = transport.get_write_buffer_size()
    assert repr(transport) == f"<_UnixWritePipeTransport fd={fd} polling bufsize={size}>"
    transport.abort()
    assert repr(transport) == f"<_UnixWritePipeTransport closing fd={fd} idle bufsize=0>"
    turn(loop, 2)
    assert repr(transport) == f"<_UnixWritePipeTransport closed fd={fd} closed>"

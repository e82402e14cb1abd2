"""Streams: what asyncio promises of readers, writers and their protocol, on both implementations where both keep it.

Transports are fakes; with sockets, streams are tested on the stdlib's loop, which they have to work with, too.
"""

import asyncio
import gc
import inspect
import socket
import sys
import warnings
import weakref

import pytest

import aioxide

NATIVE = [asyncio.SelectorEventLoop, aioxide.new_event_loop]


class FakeTransport(asyncio.Transport):
    """A transport without a connection."""

    def __init__(self, **extra):
        super().__init__(extra)
        self.calls = []
        self.closing = False

    def pause_reading(self):
        self.calls.append("pause")

    def resume_reading(self):
        self.calls.append("resume")

    def write(self, data):
        self.calls.append(bytes(data))

    def writelines(self, data):
        self.calls.append([bytes(piece) for piece in data])

    def write_eof(self):
        self.calls.append("eof")

    def can_write_eof(self):
        return True

    def close(self):
        self.closing = True
        self.calls.append("close")

    def abort(self):
        self.calls.append("abort")

    def is_closing(self):
        return self.closing


def turn(loop, times=1):
    """Lets everything that is ready run."""
    for _ in range(times):
        loop.call_soon(loop.stop)
        loop.run_forever()


def run(loop, coroutine):
    return loop.run_until_complete(coroutine)


def start(loop, coroutine):
    """A task that has come to its first wait."""
    task = loop.create_task(coroutine)
    turn(loop)
    return task


@pytest.fixture
def reader(aio, loop):
    return aio.StreamReader(limit=16, loop=loop)


def stream(aio, loop, callback=None, **options):
    """A reader, its protocol, a transport and a writer."""
    reader = aio.StreamReader(loop=loop, **options)
    protocol = aio.StreamReaderProtocol(reader, callback, loop=loop)
    transport = FakeTransport()
    return reader, protocol, transport


def writer_of(aio, loop, protocol, transport, reader):
    protocol.connection_made(transport)
    return aio.StreamWriter(transport, protocol, reader, loop)


# Reading.


def test_what_is_there_needs_no_wait(loop, reader):
    reader.feed_data(b"one\ntwo\nthree|four!five")
    reader.feed_eof()
    for coroutine, wanted in [
        (reader.readline(), b"one\n"),
        (reader.readuntil(b"\n"), b"two\n"),
        (reader.readuntil(b"|"), b"three|"),
        (reader.readexactly(5), b"four!"),
        (reader.read(2), b"fi"),
        (reader.read(), b"ve"),
        (reader.read(), b""),
        (reader.readline(), b""),
    ]:
        with pytest.raises(StopIteration) as stopped:
            coroutine.send(None)
        assert stopped.value.value == wanted
        assert type(stopped.value.value) is bytes
    assert reader.at_eof()


def test_a_line_in_pieces(loop, reader):
    task = start(loop, reader.readline())
    for piece in (b"a", b"b", b"c\nd"):
        assert not task.done()
        reader.feed_data(piece)
        turn(loop, 3)
    assert task.result() == b"abc\n"
    assert reader._buffer == b"d"


def test_a_separator_in_pieces(loop, reader):
    task = start(loop, reader.readuntil(b"\r\n\r\n"))
    for piece in (b"a\r", b"\n", b"\r", b"\n\r"):
        assert not task.done()
        reader.feed_data(piece)
        turn(loop, 3)
    assert task.result() == b"a\r\n\r\n"
    assert reader._buffer == b"\r"


@pytest.mark.parametrize(
    ("separators", "data", "wanted"),
    [
        ((b"\n", b"\r\n"), b"one\r\ntwo", b"one\r\n"),
        ((b"b", b"ab"), b"xxab", b"xxab"),
        ((b"ab", b"\n"), b"xab\n", b"xab"),
        ((b"stop", b"p"), b"a stop", b"a stop"),
    ],
)
def test_the_first_of_several_separators(aio, loop, separators, data, wanted):
    if aio is asyncio and sys.version_info < (3, 13):
        pytest.skip("the stdlib has this from 3.13")
    reader = aio.StreamReader(loop=loop)
    reader.feed_data(data)
    assert run(loop, reader.readuntil(separators)) == wanted


def test_separators_must_not_be_empty(aio, loop, reader):
    with pytest.raises(ValueError, match="Separator should be at least one-byte string"):
        run(loop, reader.readuntil(b""))
    if aio is aioxide or sys.version_info >= (3, 13):
        with pytest.raises(ValueError, match="Separator should contain at least one element"):
            run(loop, reader.readuntil(()))


def test_lines_by_iteration(loop, reader):
    async def lines():
        return [line async for line in reader]

    task = start(loop, lines())
    reader.feed_data(b"a\nb\n")
    turn(loop, 2)
    reader.feed_data(b"c")
    reader.feed_eof()
    assert run(loop, task) == [b"a\n", b"b\n", b"c"]


def test_a_line_over_the_limit(loop, reader):
    reader.feed_data(b"x" * 20 + b"\nnext\n")
    with pytest.raises(ValueError, match="Separator is found, but chunk is longer than limit") as raised:
        run(loop, reader.readline())
    assert type(raised.value.__context__) is asyncio.LimitOverrunError
    assert run(loop, reader.readline()) == b"next\n"


def test_a_line_over_the_limit_that_does_not_end(loop, reader):
    task = start(loop, reader.readline())
    reader.feed_data(b"x" * 16)
    turn(loop, 3)
    assert not task.done()
    reader.feed_data(b"x")
    with pytest.raises(ValueError, match="Separator is not found, and chunk exceed the limit"):
        run(loop, task)
    assert reader._buffer == b""


def test_readuntil_over_the_limit_takes_nothing(loop, reader):
    reader.feed_data(b"x" * 20 + b"\n")
    with pytest.raises(asyncio.LimitOverrunError) as raised:
        run(loop, reader.readuntil())
    assert raised.value.consumed == 20
    assert run(loop, reader.readexactly(21)) == b"x" * 20 + b"\n"


def test_incomplete_reads(loop, reader):
    task = start(loop, reader.readexactly(5))
    reader.feed_data(b"abc")
    turn(loop, 2)
    reader.feed_eof()
    with pytest.raises(asyncio.IncompleteReadError) as raised:
        run(loop, task)
    assert (raised.value.partial, raised.value.expected) == (b"abc", 5)
    with pytest.raises(asyncio.IncompleteReadError) as raised:
        run(loop, reader.readuntil(b"|"))
    assert (raised.value.partial, raised.value.expected) == (b"", None)


def test_read_everything_collects_pieces(loop, reader):
    task = start(loop, reader.read())
    for _ in range(5):
        reader.feed_data(b"x" * 30)
        turn(loop, 2)
    reader.feed_eof()
    assert run(loop, task) == b"x" * 150


def test_only_one_may_wait(loop, reader):
    first = start(loop, reader.readexactly(3))
    for coroutine, name in [
        (reader.read(1), "read"),
        (reader.readline(), "readuntil"),
        (reader.readexactly(2), "readexactly"),
    ]:
        with pytest.raises(RuntimeError) as raised:
            run(loop, coroutine)
        text = f"{name}() called while another coroutine is already waiting for incoming data"
        assert str(raised.value) == text
    reader.feed_data(b"abc")
    assert run(loop, first) == b"abc"


@pytest.mark.parametrize("method", ["read", "readline", "readuntil", "__anext__", "readexactly"])
def test_cancelling_leaves_nothing_behind(loop, reader, method):
    args = (9,) if method == "readexactly" else ()

    async def call():
        return await getattr(reader, method)(*args)

    task = start(loop, call())
    reader.feed_data(b"abc")
    turn(loop, 2)
    if method == "read":
        assert task.cancel()
        with pytest.raises(asyncio.CancelledError):
            run(loop, task)
        return
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        run(loop, task)
    assert reader._waiter is None
    # Nothing is lost.
    assert run(loop, reader.read(10)) == b"abc"


def test_cancelled_right_after_data_came(loop, reader):
    task = start(loop, reader.readline())
    reader.feed_data(b"line\n")
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        run(loop, task)
    assert run(loop, reader.readline()) == b"line\n"


def test_closing_a_read_ends_its_wait(loop, reader):
    coroutine = reader.readline()

    async def first_step():
        return coroutine.send(None)

    run(loop, first_step())
    assert reader._waiter is not None
    coroutine.close()
    assert reader._waiter is None


def test_an_exception_reaches_who_waits_and_who_comes(loop, reader):
    task = start(loop, reader.readexactly(10))
    reader.feed_data(b"abc")
    turn(loop, 2)
    error = ConnectionError("gone")
    reader.set_exception(error)
    assert reader.exception() is error
    with pytest.raises(ConnectionError):
        run(loop, task)
    for coroutine in (reader.read(0), reader.read(1), reader.readline(), reader.readuntil(), reader.readexactly(0)):
        with pytest.raises(ConnectionError) as raised:
            run(loop, coroutine)
        assert raised.value is error


def test_an_exception_in_the_turn_of_the_data_is_not_missed():
    # asyncio's reader waits for ever here.
    loop = aioxide.new_event_loop()
    for watched in (False, True):
        reader = aioxide.StreamReader(loop=loop)
        task = start(loop, reader.readexactly(10))
        if watched:
            assert reader._waiter is not None
        reader.feed_data(b"abc")
        reader.set_exception(ConnectionError("gone"))
        with pytest.raises(ConnectionError):
            run(loop, task)
    loop.close()


def test_feeding_after_the_end(reader):
    reader.feed_eof()
    with pytest.raises(AssertionError, match="feed_data after feed_eof"):
        reader.feed_data(b"x")


@pytest.mark.parametrize("data", [bytearray(b"abc"), memoryview(b"abc"), [97, 98, 99], (97, 98, 99)])
def test_whatever_a_bytearray_can_be_extended_by(loop, reader, data):
    reader.feed_data(data)
    reader.feed_eof()
    assert run(loop, reader.read()) == b"abc"


def test_limits(aio, loop):
    for wrong in (0, -1, -0.5):
        with pytest.raises(ValueError, match="Limit cannot be <= 0"):
            aio.StreamReader(limit=wrong, loop=loop)
    with pytest.raises(TypeError):
        aio.StreamReader(limit="many", loop=loop)
    assert aio.StreamReader(loop=loop)._limit == 2**16
    for limit in (2**80, float("inf")):
        reader = aio.StreamReader(limit=limit, loop=loop)
        reader.feed_data(b"x" * 200_000 + b"\n")
        assert len(run(loop, reader.readline())) == 200_001
    reader = aio.StreamReader(limit=2.5, loop=loop)
    reader.feed_data(b"abc\n")
    with pytest.raises(ValueError, match="longer than limit"):
        run(loop, reader.readline())


def test_the_reader_pauses_and_resumes_the_transport(aio, loop, reader):
    transport = FakeTransport()
    reader.set_transport(transport)
    with pytest.raises(AssertionError, match="Transport already set"):
        reader.set_transport(transport)
    reader.feed_data(b"x" * 32)
    assert (transport.calls, reader._paused) == ([], False)
    reader.feed_data(b"x")
    assert (transport.calls, reader._paused) == (["pause"], True)
    run(loop, reader.readexactly(16))
    assert transport.calls == ["pause"]
    run(loop, reader.readexactly(1))
    assert (transport.calls, reader._paused) == (["pause", "resume"], False)


def test_waiting_for_more_than_fits_resumes_the_transport(loop, reader):
    transport = FakeTransport()
    reader.set_transport(transport)
    task = start(loop, reader.readexactly(100))
    for _ in range(4):
        reader.feed_data(b"x" * 25)
        turn(loop, 2)
    assert run(loop, task) == b"x" * 100
    assert transport.calls == ["pause", "resume", "pause", "resume", "pause", "resume"]


def test_a_transport_that_cannot_pause_is_asked_once(loop, reader):
    class Stubborn(FakeTransport):
        def pause_reading(self):
            super().pause_reading()
            raise NotImplementedError

    transport = Stubborn()
    reader.set_transport(transport)
    reader.feed_data(b"x" * 100)
    reader.feed_data(b"x" * 100)
    assert transport.calls == ["pause"]
    assert reader._transport is None


def test_reprs(aio, loop, reader):
    assert repr(aio.StreamReader(loop=loop)) == "<StreamReader>"
    transport = FakeTransport()
    reader.set_transport(transport)
    reader.feed_data(b"x" * 33)
    assert repr(reader) == f"<StreamReader 33 bytes limit=16 transport={transport!r} paused>"
    reader.feed_eof()
    error = OSError()
    reader.set_exception(error)
    text = f"<StreamReader 33 bytes eof limit=16 exception={error!r} transport={transport!r} paused>"
    assert repr(reader) == text


def test_who_looks_at_the_buffer_has_it_for_good(loop, reader):
    reader.feed_data(b"abc")
    buffer = reader._buffer
    assert type(buffer) is bytearray
    task = start(loop, reader.readline())
    reader.feed_data(b"d")
    assert buffer == b"abcd"
    buffer.extend(b"\n")
    reader.feed_data(b"e")
    assert run(loop, task) == b"abcd\n"
    assert buffer == b"e"
    assert reader._buffer is buffer
    reader._buffer = bytearray(b"other")
    reader.feed_data(b"!")
    assert run(loop, reader.readexactly(6)) == b"other!"


def test_looking_at_the_buffer_while_somebody_waits(loop, reader):
    task = start(loop, reader.readuntil(b"\r\n"))
    reader.feed_data(b"ab\r")
    turn(loop, 2)
    assert reader._buffer == b"ab\r"
    reader.feed_data(b"\n")
    assert run(loop, task) == b"ab\r\n"


def test_the_waiting_task_is_not_woken_for_less_than_it_wants():
    loop = aioxide.new_event_loop()
    reader = aioxide.StreamReader(loop=loop)
    for coroutine, pieces in [
        (reader.readline(), [b"a"] * 50 + [b"\n"]),
        (reader.readuntil(b"\r\n"), [b"\r"] * 50 + [b"\n"]),
        (reader.readexactly(51), [b"a"] * 51),
    ]:
        task = start(loop, coroutine)
        waiter = task._fut_waiter
        for piece in pieces[:-1]:
            reader.feed_data(piece)
            turn(loop)
            assert task._fut_waiter is waiter
        reader.feed_data(pieces[-1])
        assert run(loop, task) == b"".join(pieces)
    loop.close()


def test_a_transport_that_does_what_it_likes(loop, reader):
    class Wild(FakeTransport):
        def pause_reading(self):
            reader._transport = None
            reader._buffer = bytearray(b"other\n")
            raise NotImplementedError

    reader.set_transport(Wild())
    reader.feed_data(b"x" * 100)
    assert run(loop, reader.readline()) == b"other\n"
    reader.feed_data(b"x" * 100)

    class Failing(FakeTransport):
        def pause_reading(self):
            raise ZeroDivisionError

        def resume_reading(self):
            raise ZeroDivisionError

    reader.set_transport(Failing())
    with pytest.raises(ZeroDivisionError):
        reader.feed_data(b"x")
    assert reader._paused is False
    reader._paused = True
    with pytest.raises(ZeroDivisionError):
        run(loop, reader.readexactly(101))
    assert (reader._buffer, reader._paused) == (b"", False)


def test_a_view_of_the_buffer_keeps_its_size(loop, reader):
    reader.feed_data(b"abc\n")
    with memoryview(reader._buffer), pytest.raises(BufferError):
        run(loop, reader.readline())
    assert run(loop, reader.readline()) == b"abc\n"


def test_a_waiter_of_ones_own(aio, loop, reader):
    waiter = reader._waiter = loop.create_future()
    with pytest.raises(RuntimeError, match="already waiting"):
        run(loop, reader.read(1))
    reader.feed_data(b"x")
    assert waiter.done()
    assert reader._waiter is None
    waiter = reader._waiter = loop.create_future()
    waiter.cancel()
    reader.feed_eof()
    reader._waiter = waiter
    reader.set_exception(OSError())
    assert reader._waiter is None


def test_the_last_reference_goes_while_it_is_fed(aio, loop):
    reader, protocol, _ = stream(aio, loop)

    class Last(FakeTransport):
        def pause_reading(self):
            nonlocal reader
            reader = None
            gc.collect()

    protocol.connection_made(Last())
    reader._limit = 1
    protocol.data_received(b"xxx")
    assert protocol._stream_reader is None


# Subclasses.


def test_overridden_methods_are_called(aio, loop):
    calls = []

    class Reader(aio.StreamReader):
        async def readuntil(self, separator=b"\n"):
            calls.append(("readuntil", separator))
            return await super().readuntil(separator)

        async def read(self, n=-1):
            calls.append(("read", n))
            return await super().read(n)

        async def _wait_for_data(self, func_name):
            calls.append(("_wait_for_data", func_name))
            await super()._wait_for_data(func_name)

        def _wakeup_waiter(self):
            calls.append("_wakeup_waiter")
            super()._wakeup_waiter()

        def _maybe_resume_transport(self):
            calls.append("_maybe_resume_transport")
            super()._maybe_resume_transport()

    reader = Reader(limit=4, loop=loop)
    task = start(loop, reader.readline())
    reader.feed_data(b"a\n")
    assert run(loop, task) == b"a\n"
    assert calls == [
        ("readuntil", b"\n"),
        ("_wait_for_data", "readuntil"),
        "_wakeup_waiter",
        "_maybe_resume_transport",
    ]
    calls.clear()
    reader.feed_data(b"abcdef")
    reader.feed_eof()
    assert run(loop, reader.read()) == b"abcdef"
    assert [call for call in calls if call[0] == "read"] == [("read", -1), ("read", 4), ("read", 4), ("read", 4)]


def test_an_overridden_readline_serves_the_iteration(aio, loop):
    class Reader(aio.StreamReader):
        async def readline(self):
            return (await super().readline()).upper()

    reader = Reader(loop=loop)
    reader.feed_data(b"a\nb")
    reader.feed_eof()

    async def lines():
        return [line async for line in reader]

    assert run(loop, lines()) == [b"A\n", b"B"]


def test_methods_assigned_to_an_instance_are_called(aio, loop, reader):
    seen = []
    reader._wakeup_waiter = lambda: seen.append("woken")
    reader.feed_data(b"x")
    assert seen == ["woken"]
    protocol = aio.StreamReaderProtocol(reader, loop=loop)
    reader.feed_data = seen.append
    protocol.data_received(b"abc")
    assert seen == ["woken", b"abc"]


def test_a_patched_class_is_noticed(aio, loop, reader, monkeypatch):
    seen = []
    monkeypatch.setattr(aio.StreamReader, "feed_data", lambda self, data: seen.append(data))
    protocol = aio.StreamReaderProtocol(reader, loop=loop)
    protocol.data_received(b"abc")
    assert seen == [b"abc"]


def test_a_writer_calls_whatever_its_transport_has(aio, loop, monkeypatch):
    seen = []

    async def main():
        near, far = socket.socketpair()
        with far:
            far.setblocking(False)
            _, writer = await aio.open_connection(sock=near)
            transport = writer.transport
            writer.write(b"a")
            writer.writelines([b"b", bytearray(b"c")])
            with pytest.raises(TypeError, match=r"bytes-like object|bytearray, or memoryview"):
                writer.write("text")
            with pytest.raises(TypeError):
                writer.writelines(1)
            await writer.drain()
            assert await loop.sock_recv(far, 9) == b"abc"
            assert writer.is_closing() is False

            # The class, the instance, and neither any more.
            with monkeypatch.context() as patch:
                for name in ("write", "writelines"):
                    patch.setattr(type(transport), name, lambda self, data: seen.append(data))
                patch.setattr(type(transport), "is_closing", lambda self: "maybe")
                writer.write(b"class")
                writer.writelines(["lines"])
                assert writer.is_closing() == "maybe"
            transport.write = seen.append
            transport.close = lambda: seen.append("close")
            writer.write(b"instance")
            writer.close()
            del transport.write, transport.close
            assert seen == [b"class", ["lines"], b"instance", "close"]
            writer.write(b"d")
            await writer.drain()
            assert await loop.sock_recv(far, 9) == b"d"
            assert writer.close() is None
            assert writer.is_closing() is True
            await writer.wait_closed()
            assert await loop.sock_recv(far, 9) == b""

    run(loop, main())


def test_a_protocol_in_python(aio, loop):
    class Protocol(aio.StreamReaderProtocol):
        def __init__(self, loop):
            super().__init__(aio.StreamReader(loop=loop), self.connected, loop=loop)
            self.lost = None

        def connected(self, reader, writer):
            self.reader, self.writer = reader, writer

        def connection_lost(self, exc):
            self.lost = exc
            super().connection_lost(exc)

    protocol, transport = Protocol(loop), FakeTransport()
    protocol.connection_made(transport)
    assert isinstance(protocol.writer, aio.StreamWriter)
    protocol.data_received(b"hello\n")
    assert run(loop, protocol.reader.readline()) == b"hello\n"
    transport.close()
    error = ConnectionError()
    protocol.connection_lost(error)
    assert protocol.lost is error
    assert protocol._stream_reader is None
    assert protocol.reader.exception() is error


# The protocol.


def test_the_protocol_is_what_asyncios_is(aio, loop):
    protocol = aio.StreamReaderProtocol(None, loop=loop)
    assert isinstance(protocol, (asyncio.Protocol, asyncio.BaseProtocol))
    assert isinstance(protocol, asyncio.streams.FlowControlMixin)
    assert protocol._stream_reader is None
    # Without a reader, data goes nowhere.
    protocol.data_received(b"x")
    assert protocol.eof_received() is True


def test_the_reader_is_held_weakly(aio, loop):
    reader, protocol, transport = stream(aio, loop)
    watched = weakref.ref(reader)
    protocol.connection_made(transport)
    assert protocol._stream_reader is reader
    assert protocol._stream_reader_wr() is reader
    del reader
    assert watched() is None
    assert protocol._stream_reader is None
    protocol.data_received(b"x")
    protocol.connection_lost(None)


def test_a_servers_reader_is_held_until_the_connection_is_made(aio, loop):
    seen = []
    reader, protocol, transport = stream(aio, loop, lambda reader, writer: seen.append((reader, writer)))
    watched = weakref.ref(reader)
    del reader
    gc.collect()
    assert watched() is not None
    protocol.connection_made(transport)
    assert seen[0][0] is watched()
    assert protocol._strong_reader is None
    transport.close()


def test_a_rejected_connection(aio, loop):
    contexts = []
    loop.set_exception_handler(lambda _, context: contexts.append(context))
    reader, protocol, transport = stream(aio, loop)
    protocol._reject_connection = True
    protocol.connection_made(transport)
    assert transport.calls == ["abort"]
    assert contexts[0]["message"].startswith("An open stream was garbage collected prior to establishing")
    assert ("source_traceback" in contexts[0]) == loop.get_debug()
    assert reader._transport is None


def test_a_client_callback_that_raises_closes_the_transport(aio, loop):
    if aio is asyncio and sys.version_info < (3, 14):
        pytest.skip("the stdlib catches this from 3.14")
    contexts = []
    loop.set_exception_handler(lambda _, context: contexts.append(context))
    error = ValueError("no")

    def fail(reader, writer):
        raise error

    _reader, protocol, transport = stream(aio, loop, fail)
    protocol.connection_made(transport)
    assert transport.calls == ["close"]
    message = "Unhandled exception in client_connected_cb"
    assert contexts == [{"message": message, "exception": error, "transport": transport}]


@pytest.mark.parametrize("end", ["fail", "cancel", "return"])
def test_the_end_of_a_clients_task(aio, loop, end):
    if aio is asyncio and sys.version_info < (3, 13):
        pytest.skip("the stdlib closes the transport of a cancelled task from 3.13")
    contexts = []
    loop.set_exception_handler(lambda _, context: contexts.append(context))

    async def serve(reader, writer):
        await asyncio.sleep(0)
        if end == "fail":
            raise ValueError("no")
        if end == "cancel":
            raise asyncio.CancelledError
        writer.close()

    _reader, protocol, transport = stream(aio, loop, serve)
    protocol.connection_made(transport)
    assert isinstance(protocol._task, asyncio.Task)
    turn(loop, 5)
    assert transport.calls == ["close"]
    if end == "fail":
        assert contexts[0]["message"] == "Unhandled exception in client_connected_cb"
        assert str(contexts[0]["exception"]) == "no"
        assert contexts[0]["transport"] is transport
    else:
        assert contexts == []
    protocol.connection_lost(None)
    assert protocol._task is None


@pytest.mark.parametrize("encrypted", [False, True])
def test_the_end_of_what_the_other_side_writes(aio, loop, encrypted):
    reader, protocol, _ = stream(aio, loop)
    protocol.connection_made(FakeTransport(sslcontext=object()) if encrypted else FakeTransport())
    assert protocol._over_ssl is encrypted
    assert protocol.eof_received() is not encrypted
    assert reader._eof is True


def test_replacing_the_transport(aio, loop):
    if aio is asyncio and sys.version_info < (3, 14):
        pytest.skip("the stdlib replaces the reader's transport from 3.14")
    reader, protocol, transport = stream(aio, loop)
    with pytest.raises(AssertionError, match="Transport not set"):
        protocol._replace_transport(transport)
    protocol.connection_made(transport)
    other = FakeTransport(sslcontext=object())
    protocol._replace_transport(other)
    assert reader._transport is protocol._transport is other
    assert protocol._over_ssl is True


def test_a_lost_connection_is_no_unretrieved_exception(aio, loop):
    contexts = []
    loop.set_exception_handler(lambda _, context: contexts.append(context))
    reader, protocol, transport = stream(aio, loop)
    protocol.connection_made(transport)
    protocol.connection_lost(ConnectionError("gone"))
    del reader, protocol
    gc.collect()
    assert contexts == []


# Writing.


def test_the_writer_hands_on_to_the_transport(aio, loop):
    reader, protocol, transport = stream(aio, loop)
    writer = writer_of(aio, loop, protocol, transport, reader)
    assert writer.transport is writer._transport is transport
    writer.write(b"a")
    writer.writelines([b"b", b"c"])
    writer.write_eof()
    assert writer.can_write_eof() is True
    assert writer.get_extra_info("nothing", "default") == "default"
    assert repr(writer) == f"<StreamWriter transport={transport!r} reader={reader!r}>"
    assert writer._complete_fut.result() is None
    assert writer.is_closing() is False
    writer.close()
    assert writer.is_closing() is True
    assert transport.calls == [b"a", [b"b", b"c"], "eof", "close"]
    with pytest.raises(AttributeError):
        writer.transport = None


def test_a_writer_wants_a_reader_or_none(aio, loop):
    transport = FakeTransport()
    transport.close()
    aio.StreamWriter(transport, None, None, loop)
    with pytest.raises(AssertionError):
        aio.StreamWriter(transport, None, object(), loop)


def test_draining_with_room_returns_at_once(aio, loop):
    reader, protocol, transport = stream(aio, loop)
    writer = writer_of(aio, loop, protocol, transport, reader)
    with pytest.raises(StopIteration):
        writer.drain().send(None)
    writer.close()


def test_draining_waits_for_room(aio, loop):
    reader, protocol, transport = stream(aio, loop)
    writer = writer_of(aio, loop, protocol, transport, reader)
    protocol.pause_writing()
    with pytest.raises(AssertionError):
        protocol.pause_writing()
    tasks = [start(loop, writer.drain()) for _ in range(3)]
    assert len(protocol._drain_waiters) == 3
    tasks[1].cancel()
    turn(loop, 2)
    assert tasks[1].cancelled()
    assert len(protocol._drain_waiters) == 2
    protocol.resume_writing()
    with pytest.raises(AssertionError):
        protocol.resume_writing()
    turn(loop, 2)
    assert [task.done() for task in tasks] == [True] * 3
    assert not protocol._drain_waiters
    writer.close()


@pytest.mark.parametrize("error", [None, ConnectionError("gone")])
def test_draining_ends_with_the_connection(aio, loop, error):
    reader, protocol, transport = stream(aio, loop)
    writer = writer_of(aio, loop, protocol, transport, reader)
    protocol.pause_writing()
    task = start(loop, writer.drain())
    protocol.connection_lost(error)
    if error is None:
        assert run(loop, task) is None
    else:
        with pytest.raises(ConnectionError):
            run(loop, task)
    with pytest.raises(ConnectionError if error else ConnectionResetError) as raised:
        run(loop, writer.drain())
    assert str(raised.value) == ("gone" if error else "Connection lost")
    writer.close()


def test_draining_a_closing_stream_lets_others_run_once(aio, loop):
    reader, protocol, transport = stream(aio, loop)
    writer = writer_of(aio, loop, protocol, transport, reader)
    writer.close()
    loop.call_soon(protocol.connection_lost, None)
    with pytest.raises(ConnectionResetError, match="Connection lost"):
        run(loop, writer.drain())


def test_waiting_for_the_close(aio, loop):
    reader, protocol, transport = stream(aio, loop)
    writer = writer_of(aio, loop, protocol, transport, reader)
    writer.close()
    task = start(loop, writer.wait_closed())
    assert not task.done()
    protocol.connection_lost(None)
    assert run(loop, task) is None
    assert run(loop, writer.wait_closed()) is None


def test_a_foreign_protocol_drains_and_closes_its_own_way(aio, loop):
    class Protocol:
        async def _drain_helper(self):
            return "ignored"

        async def _get_close_waiter(self, stream):
            self.stream = stream
            return "ignored"

    transport, protocol = FakeTransport(), Protocol()
    writer = aio.StreamWriter(transport, protocol, None, loop)
    assert run(loop, writer.drain()) is None
    assert run(loop, writer.wait_closed()) is None
    assert protocol.stream is writer
    writer.close()
    del protocol.stream


def test_start_tls(aio, loop, monkeypatch):
    calls = []
    reader, protocol, transport = stream(aio, loop)
    writer = writer_of(aio, loop, protocol, transport, reader)
    other = FakeTransport(sslcontext=object())

    async def start_tls(*args, **kwargs):
        calls.append((args, kwargs))
        await asyncio.sleep(0)
        return other

    loop.start_tls = start_tls
    run(loop, writer.start_tls("context", server_hostname="name", ssl_handshake_timeout=3))
    ((args, kwargs),) = calls
    assert args == (transport, protocol, "context")
    assert kwargs["server_side"] is False
    assert (kwargs["server_hostname"], kwargs["ssl_handshake_timeout"]) == ("name", 3)
    assert writer.transport is protocol._transport is other
    assert protocol._over_ssl is True
    writer.close()


# What is forgotten.


def forget(things):
    """Gives up the last references."""
    things.clear()
    gc.collect()


def test_a_writer_that_nobody_closed(aio, loop):
    reader, protocol, transport = stream(aio, loop)
    writers = [writer_of(aio, loop, protocol, transport, reader)]
    with pytest.warns(ResourceWarning, match="unclosed <StreamWriter"):
        forget(writers)
    assert transport.calls == ["close"]


def test_a_writer_that_outlived_its_loop(aio):
    loop = asyncio.SelectorEventLoop() if aio is asyncio else aioxide.new_event_loop()
    reader, protocol, transport = stream(aio, loop)
    writers = [writer_of(aio, loop, protocol, transport, reader)]
    loop.close()
    with pytest.warns(ResourceWarning, match="loop is closed"):
        forget(writers)
    assert transport.calls == []


def test_a_closed_writer_goes_quietly(aio, loop):
    reader, protocol, transport = stream(aio, loop)
    writer = writer_of(aio, loop, protocol, transport, reader)
    writer.close()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        del writer
        gc.collect()


def test_no_cycle_is_left(aio, loop):
    gc.collect()
    gc.disable()
    try:
        reader, protocol, transport = stream(aio, loop)
        writer = writer_of(aio, loop, protocol, transport, reader)
        reader.feed_data(b"x")
        run(loop, reader.read(1))
        writer.close()
        protocol.connection_lost(None)
        watched = [weakref.ref(thing) for thing in (reader, protocol, writer)]
        del reader, protocol, writer, transport
        assert [thing() for thing in watched] == [None] * 3
    finally:
        gc.enable()


def test_cycles_are_collected(aio, loop):
    reader, protocol, transport = stream(aio, loop)
    writer = writer_of(aio, loop, protocol, transport, reader)
    transport.protocol = protocol
    reader.me, protocol.me, writer.me = writer, reader, protocol
    task = start(loop, reader.readline())
    task.cancel()
    turn(loop, 2)
    transport.close()
    watched = [weakref.ref(thing) for thing in (reader, protocol, writer)]
    del reader, protocol, writer, transport, task
    gc.collect()
    assert [thing() for thing in watched] == [None] * 3


def test_objects_whose_init_failed(aio):
    for class_ in (aio.StreamReader, aio.StreamReaderProtocol):
        with pytest.raises(TypeError):
            class_(1, 2, 3, 4)
    thing = aioxide.StreamReaderProtocol.__new__(aioxide.StreamReaderProtocol)
    with pytest.raises(AttributeError):
        thing._closed
    del thing


def test_without_a_loop_there_is_no_stream(aio):
    if sys.version_info < (3, 14):
        pytest.skip("the policy makes a loop before 3.14")
    for make in (aio.StreamReader, lambda: aio.StreamReaderProtocol(None)):
        with pytest.raises(RuntimeError, match="There is no current event loop"):
            make()


def test_debug_mode_tells_where_a_reader_was_made(aio, loop):
    reader, protocol, _ = stream(aio, loop)
    assert (reader._source_traceback is not None) == loop.get_debug()
    assert protocol._source_traceback is reader._source_traceback
    if loop.get_debug():
        assert reader._source_traceback[-1].name == "stream"


# Connections.


class Recorder:
    """Notes how the loop's methods are called."""

    def __init__(self, loop):
        self.calls = []
        for name in ("create_connection", "create_server", "create_unix_connection", "create_unix_server"):
            setattr(loop, name, self.method(name))

    def method(self, name):
        async def call(factory, *args, **kwargs):
            protocol = factory()
            self.calls.append((name, args, kwargs, protocol))
            if name.endswith("server"):
                return "server"
            transport = FakeTransport()
            protocol.connection_made(transport)
            return transport, protocol

        return call


def test_open_connection_calls_the_loop(aio, loop):
    recorder = Recorder(loop)
    reader, writer = run(loop, aio.open_connection("host", 80, limit=7, ssl="context", other=1))
    ((name, args, kwargs, protocol),) = recorder.calls
    assert (name, args, kwargs) == ("create_connection", ("host", 80), {"ssl": "context", "other": 1})
    assert (type(reader), type(writer)) == (aio.StreamReader, aio.StreamWriter)
    assert type(protocol) is aio.StreamReaderProtocol
    assert reader._limit == 7
    assert protocol._stream_reader is reader
    assert writer._protocol is protocol
    writer.close()
    reader, writer = run(loop, aio.open_unix_connection("path", sock=3))
    assert recorder.calls[1][:3] == ("create_unix_connection", ("path",), {"sock": 3})
    assert reader._limit == 2**16
    writer.close()


def test_start_server_calls_the_loop(aio, loop):
    recorder = Recorder(loop)

    def callback(reader, writer):
        pass

    assert run(loop, aio.start_server(callback, "host", 80, limit=9, backlog=3)) == "server"
    assert run(loop, aio.start_unix_server(callback, "path")) == "server"
    (first, second) = recorder.calls
    assert first[:3] == ("create_server", ("host", 80), {"backlog": 3})
    assert second[:3] == ("create_unix_server", ("path",), {})
    assert first[3]._stream_reader._limit == 9
    assert first[3]._client_connected_cb is callback


@pytest.mark.parametrize("streams", [asyncio, aioxide], ids=["stdlib", "aioxide"])
def test_an_echo_over_sockets_on_the_stdlibs_loop(streams):
    async def serve(reader, writer):
        while line := await reader.readline():
            writer.write(line.upper())
            await writer.drain()
        writer.close()
        await writer.wait_closed()

    async def main():
        server = await streams.start_server(serve, "127.0.0.1", 0)
        host, port = server.sockets[0].getsockname()
        reader, writer = await streams.open_connection(host, port)
        for size in (1, 100, 50_000):
            writer.write(b"x" * size + b"\n")
            await writer.drain()
            assert await reader.readexactly(size + 1) == b"X" * size + b"\n"
        writer.write_eof()
        assert await reader.read() == b""
        writer.close()
        await writer.wait_closed()
        server.close()
        await server.wait_closed()

    loop = asyncio.SelectorEventLoop()
    try:
        loop.run_until_complete(main())
    finally:
        loop.close()


@pytest.mark.skipif(not hasattr(socket, "AF_UNIX"), reason="no Unix sockets")
def test_an_echo_over_a_unix_socket_on_the_stdlibs_loop(tmp_path):
    path = str(tmp_path / "socket")

    async def serve(reader, writer):
        writer.write(await reader.readuntil(b"|"))
        writer.close()

    async def main():
        server = await aioxide.start_unix_server(serve, path)
        reader, writer = await aioxide.open_unix_connection(path)
        writer.write(b"a|")
        assert await reader.read() == b"a|"
        writer.close()
        await writer.wait_closed()
        server.close()

    loop = asyncio.SelectorEventLoop()
    try:
        loop.run_until_complete(main())
    finally:
        loop.close()


def test_coroutine_functions(aio):
    is_coroutine_function = inspect.iscoroutinefunction if sys.version_info >= (3, 12) else asyncio.iscoroutinefunction
    for function in (
        aio.open_connection, aio.start_server, aio.StreamReader.read, aio.StreamReader.readline,
        aio.StreamReader.readuntil, aio.StreamReader.readexactly, aio.StreamReader._wait_for_data,
        aio.StreamWriter.drain, aio.StreamWriter.wait_closed, aio.StreamWriter.start_tls,
        aio.StreamReaderProtocol._drain_helper,
    ):  # fmt: skip
        assert is_coroutine_function(function)

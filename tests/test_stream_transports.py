"""The transport of a stream socket, over socket pairs: reading, writing, flow control, its end, and user code that
misbehaves at each callback. All of it holds for asyncio's own transport as well, but for what is marked."""

import asyncio
import contextlib
import contextvars
import errno
import gc
import hashlib
import logging
import os
import signal
import socket
import sys
import threading
import weakref

import pytest

import aioxide


def forget(last):
    """Drops the last references to objects, and collects what is left of them."""
    last.clear()
    gc.collect()


LATER_FIXES = pytest.mark.skipif(sys.version_info < (3, 14), reason="fixed in 3.14")


class Recorder(asyncio.Protocol):
    """Notes what it is told."""

    def __init__(self, **callbacks):
        self.calls = []
        self.callbacks = callbacks
        self.transport = None

    def note(self, name, *args):
        self.calls.append((name, *args))
        callback = self.callbacks.get(name)
        return callback(self, *args) if callback else None

    def connection_made(self, transport):
        self.transport = transport
        self.note("made")

    def data_received(self, data):
        self.note("data", data)

    def eof_received(self):
        return self.note("eof")

    def pause_writing(self):
        self.note("pause")

    def resume_writing(self):
        self.note("resume")

    def connection_lost(self, exc):
        self.note("lost", exc)


class Buffered(asyncio.BufferedProtocol, Recorder):
    """The same, with a buffer of its own."""

    buffer = bytearray(16)

    def get_buffer(self, sizehint):
        self.note("get_buffer", sizehint)
        return self.buffer

    def buffer_updated(self, nbytes):
        self.note("updated", nbytes)


@pytest.fixture
def reports(loop):
    """What the loop's exception handler was told."""
    found = []
    loop.set_exception_handler(lambda _, context: found.append(context))
    return found


@pytest.fixture
def pair(loop):
    """A socket for the transport and the peer's; both are closed in the end."""
    near, far = socket.socketpair()
    near.setblocking(False)
    far.settimeout(10)
    yield near, far
    near.close()
    far.close()


@pytest.fixture
def connect(loop, pair):
    """Makes a transport of the near end."""

    def connect(protocol):
        waiter = loop.create_future()
        transport = loop._make_socket_transport(pair[0], protocol, waiter)
        loop.run_until_complete(waiter)
        return transport

    return connect


def run_until(loop, condition):
    """Turns of the loop until something holds."""

    async def wait():
        while not condition():
            await asyncio.sleep(0)

    loop.run_until_complete(asyncio.wait_for(wait(), 10))


def fill(sock):
    """Sends until there is no more room."""
    with contextlib.suppress(BlockingIOError):
        while sock.send(bytes(100_000)):
            pass


def take(sock, size=1 << 20):
    """What has arrived: `None` for nothing yet, `b""` for the end."""
    timeout = sock.gettimeout()
    sock.setblocking(False)
    try:
        return sock.recv(size)
    except BlockingIOError:
        return None
    finally:
        sock.settimeout(timeout)


def turn(loop):
    loop.call_soon(loop.stop)
    loop.run_forever()


def in_callback(loop, function):
    """Runs a function as a callback of the loop and gives what it returned."""
    results = []
    loop.call_soon(lambda: results.append(function()))
    turn(loop)
    return results[0]


def finish(loop, protocol):
    """Closes the transport and waits for the end."""
    protocol.transport.close()
    run_until(loop, lambda: protocol.calls[-1][0] == "lost")


class TestLife:
    def test_the_order_of_the_beginning(self, loop, pair):
        order = []
        protocol = Recorder(made=lambda self: order.append("made"), data=lambda self, data: order.append(data))
        waiter = loop.create_future()
        waiter.add_done_callback(lambda _: order.append("waiter"))
        pair[1].send(b"early")
        transport = loop._make_socket_transport(pair[0], protocol, waiter)
        assert order == []
        run_until(loop, lambda: b"early" in order)
        assert order[0] == "made"
        assert set(order[1:]) == {"waiter", b"early"}
        assert isinstance(transport, asyncio.Transport)
        finish(loop, protocol)

    def test_a_cancelled_waiter_is_left_alone(self, loop, pair):
        protocol, waiter = Recorder(), loop.create_future()
        loop._make_socket_transport(pair[0], protocol, waiter)
        waiter.cancel()
        turn(loop)
        assert waiter.cancelled()
        finish(loop, protocol)

    def test_what_is_known_of_it(self, loop, pair, connect):
        protocol = Recorder()
        transport = connect(protocol)
        known = transport.get_extra_info("socket")
        assert isinstance(known, asyncio.trsock.TransportSocket)
        assert known.fileno() == pair[0].fileno()
        assert transport.get_extra_info("sockname") == ""
        assert transport.get_extra_info("peername") == ""
        assert transport.get_extra_info("other") is None
        assert transport.get_extra_info("other", default=7) == 7
        assert transport.get_protocol() is protocol
        assert not transport.is_closing()
        assert transport.is_reading()
        fd = pair[0].fileno()
        assert repr(transport) == f"<_SelectorSocketTransport fd={fd} read=polling write=<idle, bufsize=0>>"
        finish(loop, protocol)
        assert repr(transport) == f"<_SelectorSocketTransport closed fd={fd}>"
        assert transport.is_closing()
        assert transport.get_extra_info("sockname") == ""
        assert transport.get_protocol() is None

    @pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_INET6], ids=["v4", "v6"])
    def test_names_of_internet_sockets(self, loop, family):
        with socket.create_server(("", 0), family=family) as listener:
            client = socket.socket(family)
            host = "127.0.0.1" if family == socket.AF_INET else "::1"
            client.connect((host, listener.getsockname()[1]))
            accepted, _ = listener.accept()
            client.setblocking(False)
            names = client.getsockname(), client.getpeername()
            protocol = Recorder()
            transport = loop._make_socket_transport(client, protocol)
            turn(loop)
            finish(loop, protocol)
            accepted.close()
            assert (transport.get_extra_info("sockname"), transport.get_extra_info("peername")) == names
            assert client.fileno() == -1

    def test_extra_is_the_callers_dict(self, loop, pair):
        extra = {"peername": "somebody", "more": 1}
        protocol = Recorder()
        transport = loop._make_socket_transport(pair[0], protocol, extra=extra)
        turn(loop)
        assert transport._extra is extra
        assert transport.get_extra_info("peername") == "somebody"
        assert transport.get_extra_info("more") == 1
        assert transport.get_extra_info("socket") is not None
        finish(loop, protocol)

    def test_a_lost_transport_is_reported_and_its_socket_closed(self, loop, pair):
        near, far = pair
        transport = loop._make_socket_transport(near, asyncio.Protocol())
        turn(loop)
        transport.pause_reading()
        last = [transport]
        del transport
        with pytest.warns(ResourceWarning, match="unclosed transport <_SelectorSocketTransport fd="):
            forget(last)
        assert near.fileno() == -1
        assert far.recv(1) == b""

    def test_nothing_keeps_it_alive_after_the_end(self, loop, connect):
        protocol = Recorder()
        connect(protocol)
        finish(loop, protocol)
        reference = weakref.ref(protocol.transport)
        del protocol
        turn(loop)
        gc.collect()
        assert reference() is None

    def test_a_reading_transport_lives_without_other_references(self, loop, pair, connect):
        got = []

        class Forgetful(asyncio.Protocol):
            def data_received(self, data):
                got.append(data)

        connect(Forgetful())
        gc.collect()
        pair[1].send(b"x")
        run_until(loop, lambda: got)
        pair[1].close()
        run_until(loop, lambda: pair[0].fileno() == -1)

    def test_callbacks_share_a_context_that_nobody_else_has(self, loop, pair, aio):
        if aio is asyncio and sys.version_info < (3, 15):
            pytest.skip("asyncio has it from 3.15 on")
        variable = contextvars.ContextVar("variable", default="outside")
        seen = []

        def note(self, *_):
            seen.append(variable.get())
            variable.set("inside")

        protocol = Recorder(made=note, data=note, eof=note, lost=note, pause=note, resume=note)
        variable.set("maker")
        context = contextvars.copy_context()
        loop._make_socket_transport(pair[0], protocol, context=context)
        variable.set("later")
        turn(loop)
        pair[1].send(b"x")
        run_until(loop, lambda: len(protocol.calls) == 2)
        pair[1].close()
        run_until(loop, lambda: protocol.calls[-1][0] == "lost")
        assert seen == ["maker", "inside", "inside", "inside"]
        assert variable.get() == "later"
        assert context[variable] == "inside"


class TestReading:
    def test_data_and_end(self, loop, pair, connect):
        protocol = Recorder()
        connect(protocol)
        pair[1].sendall(b"hello")
        run_until(loop, lambda: len(protocol.calls) == 2)
        pair[1].close()
        run_until(loop, lambda: protocol.calls[-1][0] == "lost")
        assert protocol.calls == [("made",), ("data", b"hello"), ("eof",), ("lost", None)]

    def test_pause_and_resume(self, loop, pair, connect):
        protocol = Recorder()
        transport = connect(protocol)
        transport.pause_reading()
        transport.pause_reading()
        assert not transport.is_reading()
        pair[1].send(b"x")
        for _ in range(10):
            turn(loop)
        assert protocol.calls == [("made",)]
        transport.resume_reading()
        transport.resume_reading()
        run_until(loop, lambda: len(protocol.calls) == 2)
        finish(loop, protocol)
        transport.pause_reading()
        transport.resume_reading()
        assert not transport.is_reading()

    def test_paused_before_it_began(self, loop, pair):
        protocol = Recorder(made=lambda self: self.transport.pause_reading())
        transport = loop._make_socket_transport(pair[0], protocol)
        pair[1].send(b"x")
        for _ in range(10):
            turn(loop)
        assert protocol.calls == [("made",)]
        transport.resume_reading()
        run_until(loop, lambda: len(protocol.calls) == 2)
        finish(loop, protocol)

    def test_half_closed_it_may_go_on_writing(self, loop, pair, connect):
        protocol = Recorder(eof=lambda self: True)
        transport = connect(protocol)
        pair[1].shutdown(socket.SHUT_WR)
        run_until(loop, lambda: ("eof",) in protocol.calls)
        for _ in range(5):
            turn(loop)
        assert not transport.is_closing()
        transport.write(b"still here")
        assert pair[1].recv(100) == b"still here"
        finish(loop, protocol)
        assert protocol.calls == [("made",), ("eof",), ("lost", None)]

    def test_another_protocol_takes_over(self, loop, pair, connect):
        second = Recorder()
        first = Recorder(data=lambda self, data: self.transport.set_protocol(second))
        transport = connect(first)
        pair[1].send(b"one")
        run_until(loop, lambda: len(first.calls) == 2)
        assert transport.get_protocol() is second
        pair[1].send(b"two")
        run_until(loop, lambda: second.calls)
        third = Buffered()
        transport.set_protocol(third)
        pair[1].send(b"three")
        run_until(loop, lambda: third.calls)
        assert (first.calls[1:], second.calls) == ([("data", b"one")], [("data", b"two")])
        assert third.calls == [("get_buffer", -1), ("updated", 5)]
        transport.close()
        run_until(loop, lambda: third.calls[-1] == ("lost", None))

    def test_a_reset_connection_is_lost_with_its_error(self, loop, reports):
        with socket.create_server(("127.0.0.1", 0)) as listener:
            client = socket.create_connection(listener.getsockname())
            accepted, _ = listener.accept()
        accepted.setblocking(False)
        protocol = Recorder()
        loop._make_socket_transport(accepted, protocol)
        turn(loop)
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")
        client.close()
        run_until(loop, lambda: protocol.calls[-1][0] == "lost")
        assert isinstance(protocol.calls[-1][1], ConnectionResetError)
        assert protocol.calls[-1][1].errno == errno.ECONNRESET
        assert reports == []

    @pytest.mark.parametrize(
        ("name", "kind", "message"),
        [
            ("data", Recorder, "Fatal error: protocol.data_received() call failed."),
            ("eof", Recorder, "Fatal error: protocol.eof_received() call failed."),
            ("get_buffer", Buffered, "Fatal error: protocol.get_buffer() call failed."),
            ("updated", Buffered, "Fatal error: protocol.buffer_updated() call failed."),
        ],
    )
    def test_a_raising_callback_is_reported_and_ends_the_connection(
        self, loop, pair, connect, reports, name, kind, message
    ):
        def fail(self, *_):
            raise ZeroDivisionError(name)

        protocol = kind(**{name: fail})
        transport = connect(protocol)
        pair[1].send(b"x")
        pair[1].shutdown(socket.SHUT_WR)
        run_until(loop, lambda: protocol.calls[-1][0] == "lost")
        (report,) = reports
        assert report["message"] == message
        assert isinstance(report["exception"], ZeroDivisionError)
        assert report["transport"] is transport
        assert report["protocol"] is protocol
        assert protocol.calls[-1] == ("lost", report["exception"])
        assert pair[0].fileno() == -1

    @pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
    @pytest.mark.parametrize(("name", "kind"), [("data", Recorder), ("get_buffer", Buffered), ("updated", Buffered)])
    def test_an_exit_leaves_the_loop_and_not_the_connection(self, loop, pair, connect, name, kind, error):
        fail = [error]

        def leave(self, *_):
            if fail:
                self.transport.write(b"sent all the same")
                raise fail.pop()

        protocol = kind(**{name: leave})
        transport = connect(protocol)
        pair[1].send(b"x")
        with pytest.raises(error):
            loop.run_forever()
        assert not transport.is_closing()
        assert pair[1].recv(100) == b"sent all the same"
        finish(loop, protocol)

    @pytest.mark.parametrize("buffer", [b"", bytearray()])
    def test_an_empty_buffer_is_an_error(self, loop, pair, connect, reports, buffer):
        protocol = Buffered()
        protocol.buffer = buffer
        connect(protocol)
        pair[1].send(b"x")
        run_until(loop, lambda: protocol.calls[-1][0] == "lost")
        assert str(reports[0]["exception"]) == "get_buffer() returned an empty buffer"

    def test_a_read_only_buffer_is_an_error(self, loop, pair, connect, reports):
        protocol = Buffered()
        protocol.buffer = b"read only"
        connect(protocol)
        pair[1].send(b"x")
        run_until(loop, lambda: protocol.calls[-1][0] == "lost")
        assert reports[0]["message"] == "Fatal read error on socket transport"
        assert isinstance(reports[0]["exception"], (TypeError, BufferError))

    @pytest.mark.parametrize("way", ["close", "abort"])
    @pytest.mark.parametrize("name", ["made", "data", "eof", "get_buffer", "updated"])
    def test_closed_from_a_callback(self, loop, pair, connect, reports, name, way):
        kind = Buffered if name in ("get_buffer", "updated") else Recorder
        protocol = kind(**{name: lambda self, *_: getattr(self.transport, way)()})
        pair[1].send(b"x")
        pair[1].shutdown(socket.SHUT_WR)
        connect(protocol)
        run_until(loop, lambda: protocol.calls[-1][0] == "lost")
        assert protocol.calls[-1] == ("lost", None)
        assert [call[0] for call in protocol.calls].count("lost") == 1
        assert reports == []
        assert pair[0].fileno() == -1

    def test_the_loop_is_stopped_from_a_callback(self, loop, pair, connect):
        protocol = Recorder(data=lambda self, data: loop.stop())
        connect(protocol)
        pair[1].send(b"x")
        loop.run_forever()
        assert protocol.calls[-1] == ("data", b"x")
        finish(loop, protocol)

    def test_the_last_reference_goes_in_a_callback(self, loop, pair, connect):
        def forget(self, data):
            self.transport.close()
            self.transport = None

        protocol = Recorder(data=forget)
        connect(protocol)
        pair[1].send(b"x")
        run_until(loop, lambda: protocol.calls[-1][0] == "lost")

    def test_the_socket_is_closed_behind_its_back(self, loop, pair, connect, reports):
        protocol = Recorder()
        transport = connect(protocol)
        pair[0].close()
        transport.write(b"x")
        transport.abort()
        run_until(loop, lambda: protocol.calls[-1][0] == "lost")
        assert reports == []

    def test_a_raising_end_still_closes_the_socket(self, loop, pair, connect, reports):
        def fail(self, exc):
            raise ZeroDivisionError

        protocol = Recorder(lost=fail)
        connect(protocol)
        protocol.transport.close()
        run_until(loop, lambda: reports)
        assert "connection_lost" in reports[0]["message"]
        assert isinstance(reports[0]["exception"], ZeroDivisionError)
        assert pair[0].fileno() == -1

    def test_a_raising_beginning_is_reported_and_the_connection_goes_on(self, loop, pair, reports):
        def fail(self):
            raise ZeroDivisionError

        protocol, waiter = Recorder(made=fail), loop.create_future()
        loop._make_socket_transport(pair[0], protocol, waiter)
        loop.run_until_complete(waiter)
        assert reports[0]["message"].startswith("Exception in callback ")
        pair[1].send(b"x")
        run_until(loop, lambda: protocol.calls[-1] == ("data", b"x"))
        finish(loop, protocol)


class TestWriting:
    @pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
    def test_what_is_written_arrives(self, loop, pair, connect, kind):
        protocol = Recorder()
        transport = connect(protocol)
        transport.write(kind(b"hello "))
        assert pair[1].recv(100) == b"hello "
        in_callback(loop, lambda: transport.write(kind(b"world")))
        assert pair[1].recv(100) == b"world"
        finish(loop, protocol)

    @pytest.mark.parametrize("data", ["text", None, 1, [b"x"], object()])
    def test_other_things_are_refused(self, connect, loop, data):
        protocol = Recorder()
        transport = connect(protocol)
        with pytest.raises(TypeError, match=f"^data argument must be a .*, not '{type(data).__name__}'$"):
            transport.write(data)
        finish(loop, protocol)

    @pytest.mark.parametrize("empty", [b"", bytearray(), memoryview(b"")])
    def test_nothing_is_nothing(self, loop, pair, connect, empty):
        protocol = Recorder()
        transport = connect(protocol)
        transport.write(empty)
        transport.writelines([])
        finish(loop, protocol)
        assert pair[1].recv(1) == b""

    def test_lines(self, loop, pair, connect):
        protocol = Recorder()
        transport = connect(protocol)
        in_callback(loop, lambda: transport.writelines([b"a", bytearray(b"b"), memoryview(b"c")]))
        in_callback(loop, lambda: transport.writelines(line for line in [b"d", b"e"]))
        finish(loop, protocol)
        received = b""
        while data := pair[1].recv(100):
            received += data
        assert received == b"abcde"

    def test_a_snapshot_is_sent(self, loop, pair, connect, aio):
        if aio is asyncio:
            pytest.skip("asyncio sends what stands in the buffer later")
        protocol = Recorder()
        transport = connect(protocol)
        pair[0].setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        data = bytearray(b"a" * 500_000)

        def write():
            transport.write(data)
            transport.write(memoryview(data))
            transport.writelines([data])
            data[:] = b"b" * len(data)

        in_callback(loop, write)
        transport.close()
        received = bytearray()

        def read():
            received.extend(take(pair[1]) or b"")
            return len(received) >= 1_500_000

        run_until(loop, read)
        run_until(loop, lambda: protocol.calls[-1][0] == "lost")
        assert received == b"a" * 1_500_000

    def test_the_writes_of_a_callback_leave_together(self, loop, aio):
        if aio is asyncio:
            pytest.skip("asyncio sends each write at once")
        near, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        near.setblocking(False)
        far.settimeout(10)
        protocol = Recorder()
        transport = loop._make_socket_transport(near, protocol)
        turn(loop)

        def write():
            for number in range(10):
                transport.write(b"%d" % number)

        in_callback(loop, write)
        assert far.recv(100) == b"0123456789"
        write()
        assert [far.recv(100) for _ in range(10)] == [b"%d" % number for number in range(10)]
        loop.call_soon(transport.write, b"one")
        loop.call_soon(transport.write, b"another")
        turn(loop)
        assert [far.recv(100), far.recv(100)] == [b"one", b"another"]
        finish(loop, protocol)
        far.close()

    @pytest.mark.parametrize(
        "look",
        [
            lambda transport: transport.get_write_buffer_size(),
            lambda transport: transport.get_extra_info("socket"),
            lambda transport: transport.write_eof(),
            lambda transport: transport.close(),
            lambda transport: transport.abort(),
            lambda transport: transport.set_write_buffer_limits(100),
            lambda transport: transport.write(bytes(512 * 1024)),
        ],
        ids=["size", "socket", "eof", "close", "abort", "limits", "much"],
    )
    def test_whoever_could_tell_sees_it_sent(self, loop, pair, connect, look):
        protocol = Recorder()
        transport = connect(protocol)
        received = []

        def write_and_look():
            transport.write(b"sent")
            look(transport)
            received.append(pair[1].recv(4))

        in_callback(loop, write_and_look)
        assert received == [b"sent"]
        if transport.get_protocol() is not None and not transport.is_closing():
            transport.abort()
        run_until(loop, lambda: protocol.calls[-1][0] == "lost")

    def test_how_much_waits_for_the_end_of_a_callback(self, loop, aio, pair, connect):
        transport = connect(protocol := Recorder())
        came = []

        def write():
            for _ in range(7):
                transport.write(bytes(20_000))
            came.append(len(take(pair[1]) or b""))

        in_callback(loop, write)
        assert came[0] == (0 if aio is aioxide else 140_000)
        if aio is aioxide:
            assert len(take(pair[1])) == 140_000
        # Whoever set a lower mark is told, and served, as soon as it is passed.
        transport.set_write_buffer_limits(high=30_000)
        in_callback(loop, write)
        assert came[1] == (120_000 if aio is aioxide else 140_000)
        assert protocol.calls == [("made",)]
        finish(loop, protocol)

    @pytest.mark.parametrize("high", [None, 50_000], ids=["default", "own"])
    def test_the_protocol_is_told_to_pause_before_the_next_callback(self, loop, aio, pair, connect, high):
        transport = connect(protocol := Recorder())
        transport.set_write_buffer_limits(high=high)
        fill(pair[0])
        told = []

        def write():
            transport.write(bytes(100_000))
            told.append(protocol.calls[-1])

        in_callback(loop, write)
        assert told == [("made",) if aio is aioxide and high is None else ("pause",)]
        assert protocol.calls == [("made",), ("pause",)]
        assert transport.get_write_buffer_size() == 100_000
        transport.abort()
        run_until(loop, lambda: protocol.calls[-1][0] == "lost")

    def test_the_protocol_that_wrote_too_much_is_told_although_it_is_replaced(self, loop, pair, connect):
        transport = connect(first := Recorder())
        fill(pair[0])

        def write():
            transport.write(bytes(100_000))
            transport.set_protocol(second)

        second = Recorder()
        in_callback(loop, write)
        assert (first.calls, second.calls) == ([("made",), ("pause",)], [])
        transport.abort()
        run_until(loop, lambda: second.calls == [("lost", None)])

    def test_the_mark_counts_that_held_when_too_much_was_written(self, loop, pair, connect):
        transport = connect(protocol := Recorder())
        fill(pair[0])

        def write():
            transport.write(bytes(100_000))
            transport.set_write_buffer_limits(high=1_000_000, low=1)

        in_callback(loop, write)
        assert protocol.calls == [("made",), ("pause",)]
        run_until(loop, lambda: take(pair[1]) is None and protocol.calls[-1] == ("resume",))
        finish(loop, protocol)

    def test_that_it_was_told_to_pause_is_known_at_once(self, loop, pair, connect):
        transport = connect(protocol := Recorder())
        fill(pair[0])
        known = []

        def write():
            transport.write(bytes(100_000))
            known.append((transport._protocol_paused, protocol.calls[-1]))

        in_callback(loop, write)
        assert known == [(True, ("pause",))]
        transport.abort()
        run_until(loop, lambda: protocol.calls[-1][0] == "lost")

    @pytest.mark.parametrize("kind", ["native", "stdlib"])
    def test_drain_waits_for_what_was_just_written(self, loop, aio, pair, kind):
        streams = aio if kind == "native" else asyncio

        async def write():
            writer.write(bytes(100_000))
            await writer.drain()
            return writer.transport.get_write_buffer_size()

        async def main():
            nonlocal writer
            _, writer = await streams.open_connection(sock=pair[0])
            fill(pair[0])
            writing = asyncio.ensure_future(write())
            for _ in range(5):
                await asyncio.sleep(0)
            assert not writing.done()
            while not writing.done():
                take(pair[1])
                await asyncio.sleep(0)
            assert await writing <= 16_384
            writer.close()
            await writer.wait_closed()

        writer = None
        loop.run_until_complete(asyncio.wait_for(main(), 10))

    def test_a_write_that_failed_is_known_at_once(self, loop, pair, connect):
        transport = connect(protocol := Recorder())
        transport.pause_reading()
        pair[1].close()

        def write():
            transport.write(bytes(100_000))
            return transport.is_closing()

        assert in_callback(loop, write)
        run_until(loop, lambda: protocol.calls[-1][0] == "lost")

    @pytest.mark.filterwarnings("ignore:.*use of fork.*may lead to deadlocks:DeprecationWarning")
    @pytest.mark.parametrize("way", ["fork", "write", "abort"])
    def test_a_pause_in_the_midst_of_several_flushes(self, loop, aio, way):
        """The bytes of a connection leave once, whatever the protocol of another one does when it is told to pause."""
        if aio is asyncio and way != "write":
            pytest.skip("asyncio sends each write at once")
        pairs = [socket.socketpair() for _ in range(3)]
        parent = os.getpid()

        def paused(protocol):
            if way == "write":
                for transport in transports[1:]:
                    transport.write(b"more")
            elif way == "abort":
                transports[1].abort()
            elif child := os.fork():
                os.waitpid(child, 0)
            else:
                signal.alarm(30)

        protocols = [Recorder(pause=paused), Recorder(), Recorder()]
        transports = []
        for (near, far), protocol in zip(pairs, protocols, strict=True):
            near.setblocking(False)
            far.settimeout(10)
            transports.append(loop._make_socket_transport(near, protocol))
        turn(loop)
        fill(pairs[0][0])

        def write():
            for transport in transports:
                transport.write(bytes(70_000))

        def leave():
            if os.getpid() != parent:
                os._exit(0)

        loop.call_soon(write)
        loop.call_soon(leave)
        turn(loop)
        more = 4 if way == "write" else 0
        received = [bytearray(), bytearray()]

        def read():
            for bucket, (_, far) in zip(received, pairs[1:], strict=True):
                bucket.extend(take(far) or b"")
            return min(map(len, received)) >= 70_000 + more

        run_until(loop, read)
        for transport in transports:
            transport.close()
            transport.abort()
        run_until(loop, lambda: all(protocol.calls[-1][0] == "lost" for protocol in protocols))
        for bucket, (_, far) in zip(received, pairs[1:], strict=True):
            bucket.extend(take(far) or b"")
        assert [len(bucket) for bucket in received] == [70_000 + more] * 2
        for pair in pairs:
            pair[1].close()

    @pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit])
    def test_a_pause_that_raises_when_the_callback_is_over(self, loop, aio, connect, reports, pair, error):
        """What leaves the loop leaves it then; other connections are served all the same."""

        def paused(protocol):
            raise error("pause")

        transport = connect(protocol := Recorder(pause=paused))
        near, far = socket.socketpair()
        near.setblocking(False)
        other = loop._make_socket_transport(near, second := Recorder())
        turn(loop)
        fill(pair[0])

        def write():
            other.write(b"sent")
            transport.write(bytes(100_000))

        leaves = error is not ValueError
        loop.call_soon(write)
        loop.call_soon(other.write, b" too")
        with pytest.raises(error) if leaves else contextlib.nullcontext():
            turn(loop)
        turn(loop)
        assert take(far) == b"sent too"
        assert [report["message"] for report in reports] == ([] if leaves else ["protocol.pause_writing() failed"])
        assert transport.get_write_buffer_size() == 100_000
        assert not transport.is_closing()
        transport.abort()
        other.abort()
        run_until(loop, lambda: protocol.calls[-1][0] == second.calls[-1][0] == "lost")
        far.close()

    def test_flow_control(self, loop, pair, connect):
        protocol = Recorder()
        transport = connect(protocol)
        assert transport.get_write_buffer_limits() == (16384, 65536)
        transport.write(bytes(2_000_000))
        assert protocol.calls == [("made",), ("pause",)]
        size = transport.get_write_buffer_size()
        assert 0 < size < 2_000_000
        transport.write(b"x")
        assert transport.get_write_buffer_size() == size + 1
        assert protocol.calls == [("made",), ("pause",)]
        received = 0

        def read():
            nonlocal received
            received += len(take(pair[1], 100_000) or b"")
            return ("resume",) in protocol.calls

        run_until(loop, read)
        assert transport.get_write_buffer_size() <= 16384
        transport.close()

        def read_on():
            nonlocal received
            if received < 2_000_001:
                received += len(take(pair[1], 100_000) or b"")
            return protocol.calls[-1][0] == "lost"

        run_until(loop, read_on)
        assert received == 2_000_001
        assert protocol.calls == [("made",), ("pause",), ("resume",), ("lost", None)]

    def test_limits(self, loop, connect):
        protocol = Recorder()
        transport = connect(protocol)
        for arguments, expected in [
            ({}, (16384, 65536)),
            ({"high": 100}, (25, 100)),
            ({"low": 10}, (10, 40)),
            ({"high": 100, "low": 0}, (0, 100)),
            ({"high": 0}, (0, 0)),
            ({"high": 10, "low": 10}, (10, 10)),
        ]:
            transport.set_write_buffer_limits(**arguments)
            assert transport.get_write_buffer_limits() == expected
        for wrong in [{"high": 1, "low": 2}, {"high": -1}, {"high": 5, "low": -1}]:
            with pytest.raises(ValueError, match=r"high \(.*\) must be >= low \(.*\) must be >= 0"):
                transport.set_write_buffer_limits(**wrong)
        with pytest.raises(TypeError):
            transport.set_write_buffer_limits(high="x")
        assert transport.get_write_buffer_limits() == (10, 10)
        finish(loop, protocol)

    def test_limits_lowered_below_what_waits(self, loop, connect):
        protocol = Recorder()
        transport = connect(protocol)
        transport.set_write_buffer_limits(high=10_000_000)
        transport.write(bytes(2_000_000))
        assert protocol.calls == [("made",)]
        transport.set_write_buffer_limits(high=10)
        assert protocol.calls == [("made",), ("pause",)]
        transport.abort()
        run_until(loop, lambda: protocol.calls[-1][0] == "lost")
        assert protocol.calls == [("made",), ("pause",), ("lost", None)]

    @pytest.mark.parametrize(
        "write",
        [
            lambda transport: transport.write(bytes(1_000)),
            lambda transport: transport.write(b"more"),
            lambda transport: (transport.write(b"more"), transport.get_write_buffer_size()),
            lambda transport: (transport.write(b"more"), transport.set_write_buffer_limits(high=2_000)),
            lambda transport: (transport.write(b"more"), transport.get_extra_info("socket")),
            lambda transport: (transport.write(b"more"), transport.close()),
        ],
        ids=["much", "little", "size", "limits", "socket", "close"],
    )
    def test_what_is_written_while_it_closes_does_not_end_it_within_the_call(self, loop, pair, connect, write):
        def write_on(self):
            write(self.transport)
            self.note("written")

        protocol = Recorder(resume=write_on)
        transport = connect(protocol)
        transport.set_write_buffer_limits(high=500)
        transport.write(bytes(1_000_000))
        transport.close()

        def read():
            take(pair[1])
            return protocol.calls[-1][0] == "lost"

        run_until(loop, read)
        assert protocol.calls == [("made",), ("pause",), ("resume",), ("written",), ("lost", None)]

    @pytest.mark.parametrize("name", ["pause", "resume"])
    def test_a_raising_flow_callback_is_reported_and_the_connection_goes_on(self, loop, pair, connect, reports, name):
        def fail(self):
            raise ZeroDivisionError

        protocol = Recorder(**{name: fail})
        transport = connect(protocol)
        transport.write(bytes(1_000_000))
        transport.close()
        received = []

        def read():
            received.append(len(take(pair[1]) or b""))
            return sum(received) == 1_000_000

        run_until(loop, read)
        run_until(loop, lambda: protocol.calls[-1] == ("lost", None))
        (report,) = reports
        assert report["message"] == f"protocol.{name}_writing() failed"
        assert report["transport"] is transport
        assert report["protocol"] is protocol

    @pytest.mark.parametrize("way", ["close", "abort", "write"])
    @pytest.mark.parametrize("name", ["pause", "resume"])
    def test_flow_callbacks_that_act(self, aio, loop, pair, connect, reports, name, way):
        if aio is asyncio and sys.version_info < (3, 14) and name == "resume" and way != "write":
            pytest.skip("the stdlib before 3.14 loses the connection twice")

        def act(self):
            if way == "write":
                self.transport.write(b"!" * 10)
            else:
                getattr(self.transport, way)()

        protocol = Recorder(**{name: act})
        transport = connect(protocol)
        transport.write(bytes(1_000_000))
        received = bytearray()

        def read():
            if ("eof",) not in received_end:
                data = take(pair[1])
                received.extend(data or b"")
                if data == b"":
                    received_end.append(("eof",))
            if way == "write" and not transport.is_closing() and ("resume",) in protocol.calls:
                transport.close()
            return protocol.calls[-1][0] == "lost" and received_end

        received_end = []
        run_until(loop, read)
        expected = {"close": 1_000_000, "write": 1_000_010}
        if way in expected:
            assert len(received) == expected[way]
        assert reports == []
        assert protocol.calls[-1] == ("lost", None)

    def test_the_end_of_the_sending_half(self, aio, loop, pair, connect):
        if aio is asyncio and sys.version_info < (3, 12):
            pytest.skip("writelines() of 3.11 speaks of write()")
        protocol = Recorder()
        transport = connect(protocol)
        assert transport.can_write_eof()
        transport.write(bytes(1_000_000))
        transport.write_eof()
        transport.write_eof()
        with pytest.raises(RuntimeError, match=r"Cannot call write\(\) after write_eof\(\)"):
            transport.write(b"x")
        with pytest.raises(RuntimeError, match=r"Cannot call writelines\(\) after write_eof\(\)"):
            transport.writelines([b"x"])
        received = []

        def read():
            data = take(pair[1])
            received.append(len(data or b""))
            return data == b""

        run_until(loop, read)
        assert sum(received) == 1_000_000
        pair[1].send(b"answer")
        run_until(loop, lambda: protocol.calls[-1] == ("data", b"answer"))
        finish(loop, protocol)

    def test_close_sends_what_waits_and_abort_does_not(self, loop, pair, connect):
        protocol = Recorder()
        transport = connect(protocol)
        transport.write(bytes(1_000_000))
        transport.close()
        transport.close()
        assert transport.is_closing()
        turn(loop)
        assert protocol.calls[-1] != ("lost", None)
        transport.abort()
        transport.abort()
        run_until(loop, lambda: protocol.calls[-1] == ("lost", None))
        assert 0 < sum(iter(lambda: len(pair[1].recv(1 << 20)), 0)) < 1_000_000

    def test_a_peer_that_is_gone(self, loop, pair, connect, reports, caplog):
        protocol = Recorder()
        transport = connect(protocol)
        transport.pause_reading()
        pair[1].close()
        transport.write(b"x")
        run_until(loop, lambda: protocol.calls[-1][0] == "lost")
        assert isinstance(protocol.calls[-1][1], (BrokenPipeError, ConnectionResetError))
        assert reports == []
        with caplog.at_level(logging.WARNING, "asyncio"):
            for _ in range(4):
                transport.write(b"x")
            assert caplog.records == []
            for _ in range(3):
                transport.write(b"x")
        assert {record.getMessage() for record in caplog.records} == {"socket.send() raised exception."}
        transport.close()
        transport.abort()

    def test_bulk(self, loop, pair, connect):
        """Everything arrives, in order, in whatever pieces it is written and read."""
        protocol = Recorder()
        transport = connect(protocol)
        pair[1].setblocking(False)
        sent, received = hashlib.sha256(), hashlib.sha256()
        total = [0, 0]

        async def write():
            for number in range(400):
                data = bytes([number % 256]) * ((number * 7919) % 30_000)
                sent.update(data)
                total[0] += len(data)
                if number % 3:
                    transport.write(data)
                else:
                    transport.writelines([data[:100], bytearray(data[100:101]), data[101:]])
                while transport.get_write_buffer_size() > 200_000:
                    await asyncio.sleep(0)
            transport.close()

        async def read():
            while (data := take(pair[1])) != b"":
                received.update(data or b"")
                total[1] += len(data or b"")
                await asyncio.sleep(0)

        async def both():
            await asyncio.gather(write(), read())

        loop.run_until_complete(both())
        run_until(loop, lambda: protocol.calls[-1] == ("lost", None))
        assert total[0] == total[1]
        assert sent.digest() == received.digest()

    def test_sendfile_has_it_to_itself(self, loop, pair, connect):
        protocol = Recorder()
        transport = connect(protocol)
        waiter = transport._make_empty_waiter()
        assert waiter.done()
        with pytest.raises(RuntimeError, match="sendfile is in progress"):
            transport.write(b"x")
        with pytest.raises(RuntimeError, match="sendfile is in progress"):
            transport.writelines([b"x"])
        with pytest.raises(RuntimeError, match="Empty waiter is already set"):
            transport._make_empty_waiter()
        transport._reset_empty_waiter()
        transport.write(bytes(1_000_000))
        waiter = transport._make_empty_waiter()
        assert not waiter.done()
        transport.abort()
        with pytest.raises(ConnectionError, match="Connection is closed by peer"):
            loop.run_until_complete(waiter)

    def test_after_the_loop_is_closed(self, aio):
        loop = asyncio.SelectorEventLoop() if aio is asyncio else aioxide.new_event_loop()
        near, far = socket.socketpair()
        near.setblocking(False)
        transport = loop._make_socket_transport(near, asyncio.Protocol())
        turn(loop)
        loop.close()
        transport.write(b"x")
        assert far.recv(10) == b"x"
        with pytest.raises(RuntimeError, match="Event loop is closed"):
            transport.close()
        transport._sock.close()
        last = [transport]
        del transport
        with pytest.warns(ResourceWarning):
            forget(last)
        far.close()


MUCH = 1 << 20


def flood(loop, far, size=MUCH):
    """The peer sends much, from a thread that does not wait for the loop."""

    def send():
        # The other end may go.
        with contextlib.suppress(OSError):
            far.sendall(bytes(range(256)) * (size // 256))

    thread = threading.Thread(target=send)
    thread.start()
    return thread


def wide(pair):
    """Has the sockets take much at once."""
    for sock in pair:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, MUCH)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, MUCH)


def test_much_arrives_in_order(loop, pair, connect):
    wide(pair)
    protocol = Recorder()
    transport = connect(protocol)
    thread = flood(loop, pair[1])
    received = bytearray()

    def done():
        while protocol.calls and protocol.calls[0][0] != "data":
            protocol.calls.pop(0)
        while protocol.calls:
            received.extend(protocol.calls.pop(0)[1])
        return len(received) == MUCH

    run_until(loop, done)
    thread.join()
    assert received == bytes(range(256)) * (MUCH // 256)
    transport.abort()
    turn(loop)


@pytest.mark.parametrize("how", ["pause", "close", "abort", "raise", "leave", "protocol", "buffered"])
def test_much_that_arrives_ends_with_a_read_if_the_protocol_says_so(loop, pair, connect, reports, how):
    """Whatever the protocol does after a large read counts before the next one."""
    wide(pair)
    other = Buffered() if how == "buffered" else Recorder()
    other.buffer = bytearray(1 << 16)

    def stop(protocol, data):
        if protocol.total >= MUCH // 4:
            protocol.late = True
        protocol.total += len(data)
        if protocol.total < MUCH // 4:
            return
        if protocol.late:
            raise AssertionError("called once more")
        transport = protocol.transport
        if how == "pause":
            transport.pause_reading()
        elif how == "close":
            transport.close()
        elif how == "abort":
            transport.abort()
        elif how == "raise":
            raise ValueError("mine")
        elif how == "leave":
            raise SystemExit
        else:
            transport.set_protocol(other)

    protocol = Recorder(data=stop)
    protocol.total, protocol.late = 0, False
    transport = connect(protocol)
    # All of it is there before the loop looks, as far as the sockets have room.
    thread = flood(loop, pair[1])
    if how == "leave":
        with pytest.raises(SystemExit):
            run_until(loop, lambda: protocol.total >= MUCH // 4)
        transport.pause_reading()
    else:
        run_until(loop, lambda: protocol.total >= MUCH // 4)
    turn(loop)
    assert not protocol.late
    if how in ("close", "abort", "raise"):
        run_until(loop, lambda: protocol.calls[-1][0] == "lost")
        lost = protocol.calls[-1][1]
        assert (type(lost) is ValueError) if how == "raise" else lost is None
    elif how in ("pause", "leave"):
        protocol.callbacks.clear()
        transport.resume_reading()
        count = lambda: sum(len(call[1]) for call in protocol.calls if call[0] == "data")  # noqa: E731
        run_until(loop, lambda: count() == MUCH)
    else:
        name, size = ("updated", int) if how == "buffered" else ("data", len)
        count = lambda: sum(size(call[1]) for call in other.calls if call[0] == name)  # noqa: E731
        run_until(loop, lambda: protocol.total + count() == MUCH)
    thread.join()
    transport.abort()
    turn(loop)
    assert len(reports) == (how == "raise")


def test_writes_of_the_size_of_the_water_mark_arrive(loop, pair, connect):
    """They may be sent in pairs; whoever looks at the size finds nothing that the socket would have taken."""
    wide(pair)
    protocol = Recorder()
    transport = connect(protocol)
    piece = bytes(range(256)) * 256

    def write():
        for _ in range(3):
            transport.write(piece)
        return transport.get_write_buffer_size()

    assert in_callback(loop, write) <= 3 * len(piece)
    received = bytearray()
    pair[1].setblocking(False)

    def done():
        with contextlib.suppress(BlockingIOError):
            received.extend(pair[1].recv(MUCH))
        return len(received) == 3 * len(piece)

    run_until(loop, done)
    assert received == 3 * piece
    transport.abort()
    turn(loop)

"""`create_datagram_endpoint` and its transport.

Each test runs with the stdlib too, on plain and debug loops; where a stdlib does
something else, the test says which and why.
"""

import asyncio
import contextvars
import errno
import gc
import os
import socket
import sys
import threading
import weakref

import pytest
from waiting import Recorder, run, turn, until_noted

import aioxide


def forget(last):
    """Drops the last references to objects, and collects what is left of them."""
    last.clear()
    gc.collect()


LOCALHOST = "127.0.0.1"


def is_stdlib(aio):
    return aio is asyncio


def endpoint(loop, factory=Recorder, **kwargs):
    return run(loop, loop.create_datagram_endpoint(factory, **kwargs))


def close(loop, *transports):
    for transport in transports:
        transport.close()
    turn(loop, 2)


@pytest.fixture
def pair(loop):
    """A server, not connected, and a client connected to it."""
    server, server_protocol = endpoint(loop, local_addr=(LOCALHOST, 0))
    client, client_protocol = endpoint(loop, remote_addr=server.get_extra_info("sockname"))
    yield server_protocol, client_protocol
    close(loop, server, client)


def connected_unix_sockets():
    """Two Unix sockets connected to each other, the first one with little room.

    They have names, since the stdlib takes the empty name of a peer for none at all.
    """
    left, right = (socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) for _ in range(2))
    for sock in (left, right):
        sock.bind("")
    left.connect(right.getsockname())
    right.connect(left.getsockname())
    left.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    right.setblocking(False)
    return left, right


def unread_unix_sender(loop, factory=Recorder):
    """A transport over a Unix socket with little room, and the other end, which nobody reads."""
    left, right = connected_unix_sockets()
    transport, protocol = endpoint(loop, factory, sock=left)
    return transport, protocol, right


def fill(transport, data=b"x" * 1000):
    """Sends until something is left in the buffer."""
    count = 0
    while transport.get_write_buffer_size() == 0 and not transport.is_closing():
        transport.sendto(data)
        count += 1
    return count


def drain(loop, sock, count):
    """Reads datagrams from a non-blocking socket while the loop runs."""
    got, misses = [], 0
    while len(got) < count:
        try:
            got.append(sock.recv(65536))
        except BlockingIOError:
            turn(loop)
            misses += 1
            assert misses < 1000, f"{len(got)} of {count} datagrams came"
    return got


# ------------------------------------------------------------- sending, receiving


def test_classes_and_attributes(loop, pair):
    server, client = pair
    for transport in (server.transport, client.transport):
        assert isinstance(transport, asyncio.Transport)
        assert type(transport).__name__ == "_SelectorDatagramTransport"
        assert transport._loop is loop
        assert transport._protocol in pair
        assert transport._sock_fd == transport._sock.fileno()
        assert (transport._closing, transport._conn_lost, transport._buffer_size) == (False, 0, 0)
        assert not transport._buffer
        assert transport.max_size == 256 * 1024
        assert isinstance(transport._extra["socket"], asyncio.trsock.TransportSocket)
        assert transport.get_write_buffer_limits() == (16384, 65536)
    assert server.transport._address is None
    assert client.transport._address == server.transport.get_extra_info("sockname")
    assert client.transport.get_extra_info("peername") == server.transport.get_extra_info("sockname")
    assert server.transport.get_extra_info("peername") is None
    assert server.transport.get_extra_info("nothing") is None
    assert server.transport.get_extra_info("nothing", 7) == 7


def test_is_a_datagram_transport():
    loop = aioxide.new_event_loop()
    transport, _ = endpoint(loop, local_addr=(LOCALHOST, 0))
    assert isinstance(transport, asyncio.DatagramTransport)
    close(loop, transport)
    loop.close()


def test_exchange(loop, pair):
    server, client = pair
    client.transport.sendto(b"ping")
    until_noted(loop, server, lambda: server.data)
    (_, data, address) = server.events[-1]
    assert data == b"ping"
    assert type(data) is bytes
    assert address == client.transport.get_extra_info("sockname")
    server.transport.sendto(bytearray(b"pong"), address)
    until_noted(loop, client, lambda: client.data)
    assert client.events[-1] == ("data", b"pong", server.transport.get_extra_info("sockname"))
    client.transport.sendto(memoryview(b"..peng..")[2:6], server.transport.get_extra_info("sockname"))
    until_noted(loop, server, lambda: len(server.data) == 2)
    assert server.data[-1] == b"peng"


@pytest.mark.skipif(not socket.has_ipv6, reason="needs IPv6")
def test_exchange_v6(loop):
    server, sp = endpoint(loop, local_addr=("::1", 0))
    host, port, *_ = server.get_extra_info("sockname")
    client, cp = endpoint(loop, local_addr=("::1", 0))
    for address in ((host, port), (host, port, 0), (host, port, 0, 0)):
        client.sendto(b"x", address)
    until_noted(loop, sp, lambda: len(sp.data) == 3)
    source = sp.events[-1][2]
    assert source == client.get_extra_info("sockname")
    assert len(source) == 4
    server.sendto(b"y", source)
    until_noted(loop, cp, lambda: cp.data)
    close(loop, server, client)


def test_every_size_arrives(loop, pair):
    server, client = pair
    sizes = [0, 1, 2, 1000, 65507]
    if is_stdlib_without_empty(loop):
        sizes.remove(0)
    for size in sizes:
        client.transport.sendto(bytes(size))
    until_noted(loop, server, lambda: len(server.data) == len(sizes))
    assert [len(data) for data in server.data] == sizes


def is_stdlib_without_empty(loop):
    """Zero-length datagrams were dropped silently up to 3.12 and in the first 3.13."""
    return isinstance(loop, asyncio.SelectorEventLoop) and sys.version_info < (3, 14)


def test_empty_datagram(aio, loop, pair):
    if is_stdlib_without_empty(loop):
        pytest.skip("the stdlib before 3.13.x drops empty datagrams")
    server, client = pair
    client.transport.sendto(b"")
    until_noted(loop, server, lambda: server.events[1:])
    assert server.data == [b""]


def test_many_at_once_keep_their_order(loop, pair):
    server, client = pair
    for start in range(0, 1000, 100):
        for number in range(start, start + 100):
            client.transport.sendto(str(number).encode())
        until_noted(loop, server, lambda: len(server.data) == start + 100)
    assert server.data == [str(number).encode() for number in range(1000)]


def test_other_work_gets_its_turns_under_a_flood(loop, pair):
    server, client = pair
    turns = 0
    seen_at_turn = []

    def tick():
        nonlocal turns
        turns += 1
        loop.call_soon(tick)

    received = server.datagram_received
    server.datagram_received = lambda data, addr: (seen_at_turn.append(turns), received(data, addr))
    for number in range(100):
        client.transport.sendto(b"%d" % number)
    tick()
    until_noted(loop, server, lambda: len(server.data) == 100)
    assert max(seen_at_turn.count(turn) for turn in set(seen_at_turn)) <= 16


@pytest.mark.parametrize("how", ["close", "abort", "pause_reading", "stop"])
def test_nothing_is_received_after_an_end(loop, pair, how):
    server, client = pair
    # So many at first that a turn takes more than one of them.
    for _ in range(64):
        client.transport.sendto(b"first")
    until_noted(loop, server, lambda: len(server.data) == 64)

    def end(data, addr):
        Recorder.datagram_received(server, data, addr)
        if how == "stop":
            loop.stop()
        else:
            getattr(server.transport, how)()

    server.datagram_received = end
    for _ in range(8):
        client.transport.sendto(b"second")
    if how == "stop":
        loop.run_forever()
    else:
        until_noted(loop, server, lambda: len(server.data) > 64)
        turn(loop, 4)
    assert len(server.data) == 65
    if how == "pause_reading":
        assert not server.transport.is_reading()
        del server.datagram_received
        server.transport.resume_reading()
        until_noted(loop, server, lambda: len(server.data) == 72)
    elif how == "stop":
        del server.datagram_received
        until_noted(loop, server, lambda: len(server.data) == 72)


def test_pause_and_resume_within_a_callback(loop, pair):
    server, client = pair

    def pause_and_resume(data, addr):
        Recorder.datagram_received(server, data, addr)
        server.transport.pause_reading()
        server.transport.pause_reading()
        server.transport.resume_reading()
        server.transport.resume_reading()

    server.datagram_received = pause_and_resume
    for _ in range(50):
        client.transport.sendto(b"x")
    until_noted(loop, server, lambda: len(server.data) == 50)


def test_protocol_can_be_changed_between_datagrams(loop, pair):
    server, client = pair
    other = Recorder()

    def change(data, addr):
        Recorder.datagram_received(server, data, addr)
        server.transport.set_protocol(other)

    server.datagram_received = change
    for _ in range(5):
        client.transport.sendto(b"x")
    until_noted(loop, other, lambda: len(other.data) == 4)
    assert len(server.data) == 1
    assert server.transport.get_protocol() is other


# ------------------------------------------------------------------- addresses


def test_wrong_address_of_a_connected_transport(loop, pair):
    server, client = pair
    own = server.transport.get_extra_info("sockname")
    with pytest.raises(ValueError, match="Invalid address: must be None or ") as caught:
        client.transport.sendto(b"x", (LOCALHOST, 9))
    assert str(caught.value) == f"Invalid address: must be None or {own}"
    client.transport.sendto(b"x", tuple(own))
    until_noted(loop, server, lambda: server.data)


@pytest.mark.parametrize("data", ["text", None, 5, [1]])
def test_wrong_data(pair, data):
    _, client = pair
    with pytest.raises(TypeError) as caught:
        client.transport.sendto(data)
    assert str(caught.value) == f"data argument must be a bytes-like object, not {type(data).__name__!r}"


def test_alternating_addresses(loop):
    sender, _ = endpoint(loop, local_addr=(LOCALHOST, 0))
    receivers = [endpoint(loop, local_addr=(LOCALHOST, 0)) for _ in range(3)]
    for round_ in range(10):
        for receiver, _ in receivers:
            sender.sendto(b"%d" % round_, receiver.get_extra_info("sockname"))
            # An equal tuple that is another object.
            sender.sendto(b"again", (*receiver.get_extra_info("sockname"),))
    for _, protocol in receivers:
        until_noted(loop, protocol, lambda protocol=protocol: len(protocol.data) == 20)
        assert protocol.data[::2] == [b"%d" % round_ for round_ in range(10)]
    close(loop, sender, *(receiver for receiver, _ in receivers))


@pytest.mark.parametrize("host", [LOCALHOST, "::1", "127.10.199.254"])
def test_answers_go_to_whom_they_are_for(loop, host):
    """To the sender heard last, to those heard before, and to equal addresses that are other objects."""
    if host == "::1" and not socket.has_ipv6:
        pytest.skip("no IPv6")

    class Server(Recorder):
        def datagram_received(self, data, addr):
            super().datagram_received(data, addr)
            self.transport.sendto(b"to you: " + data, addr)
            first = self.events[1][2]
            self.transport.sendto(b"to the first: " + data, first)
            self.transport.sendto(b"copy: " + data, (*addr,))
            self.transport.sendto(b"again: " + data, addr)

    transport, server = endpoint(loop, Server, local_addr=(host, 0))
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as one, socket.socket(family, socket.SOCK_DGRAM) as two:
        for sock in (one, two):
            sock.bind((host, 0))
            sock.setblocking(False)
        for sock, data in [(one, b"1"), (two, b"2"), (two, b"3"), (one, b"4")]:
            sock.sendto(data, transport.get_extra_info("sockname"))
        until_noted(loop, server, lambda: len(server.data) == 4)
        assert [event[2] for event in server.events[1:]] == [sock.getsockname() for sock in (one, two, two, one)]
        first = ["to you: 1", "to the first: 1", "copy: 1", "again: 1", "to the first: 2", "to the first: 3"]
        first += ["to you: 4", "to the first: 4", "copy: 4", "again: 4"]
        second = ["to you: 2", "copy: 2", "again: 2", "to you: 3", "copy: 3", "again: 3"]
        assert drain(loop, one, len(first)) == [text.encode() for text in first]
        assert drain(loop, two, len(second)) == [text.encode() for text in second]
    close(loop, transport)


def test_host_name_as_address(loop):
    sender, _ = endpoint(loop, local_addr=(LOCALHOST, 0))
    receiver, protocol = endpoint(loop, local_addr=(LOCALHOST, 0))
    _, port = receiver.get_extra_info("sockname")
    sender.sendto(b"x", ("localhost", port))
    sender.sendto(b"y", [LOCALHOST, port][0:0] or ("", port))
    until_noted(loop, protocol, lambda: len(protocol.data) == 2)
    close(loop, sender, receiver)


@pytest.mark.logs_errors
@pytest.mark.parametrize("address", [None, "text", (LOCALHOST,), (LOCALHOST, "http"), (LOCALHOST, 1 << 70), 5])
def test_senseless_address_closes_the_transport(loop, address):
    reports = []
    loop.set_exception_handler(lambda loop, context: reports.append(context))
    transport, protocol = endpoint(loop, local_addr=(LOCALHOST, 0))
    transport.sendto(b"x", address)
    assert reports[0]["message"] == "Fatal write error on datagram transport"
    assert isinstance(reports[0]["exception"], (TypeError, OverflowError))
    assert reports[0]["transport"] is transport
    assert reports[0]["protocol"] is protocol
    assert transport.is_closing()
    turn(loop, 2)
    assert protocol.events[-1] == ("lost", reports[0]["exception"])


@pytest.mark.parametrize("address", [("no.such.host.invalid", 9), ("256.1.1.1", 9)])
def test_unknown_host_is_an_error_received(loop, address):
    transport, protocol = endpoint(loop, local_addr=(LOCALHOST, 0))
    transport.sendto(b"x", address)
    assert isinstance(protocol.events[-1][1], OSError)
    assert not transport.is_closing()
    close(loop, transport)


# ----------------------------------------------------------------------- errors


def test_refused(loop):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind((LOCALHOST, 0))
        address = sock.getsockname()
    transport, protocol = endpoint(loop, remote_addr=address)
    transport.sendto(b"nobody there")
    until_noted(loop, protocol, lambda: "error" in protocol.kinds())
    assert isinstance(protocol.events[-1][1], ConnectionRefusedError)
    assert protocol.events[-1][1].errno == errno.ECONNREFUSED
    assert not transport.is_closing()
    # One of two is refused at once: the error of the datagram before waits on the socket.
    transport.sendto(b"nobody there")
    turn(loop, 3)
    close(loop, transport)
    assert protocol.events[-1] == ("lost", None)


def test_too_long(loop, pair):
    _, client = pair
    client.transport.sendto(bytes(70_000))
    assert client.events[-1][1].errno == errno.EMSGSIZE
    assert not client.transport.is_closing()


@pytest.mark.logs_errors
def test_noncontiguous_data_is_fatal(loop, pair):
    _server, client = pair
    reports = []
    loop.set_exception_handler(lambda loop, context: reports.append(context))
    client.transport.sendto(memoryview(b"abcdef")[::2])
    assert isinstance(reports[0]["exception"], BufferError)
    turn(loop, 2)
    assert client.kinds()[-1] == "lost"


@pytest.mark.logs_errors
@pytest.mark.parametrize("callback", ["connection_made", "datagram_received", "error_received", "connection_lost"])
def test_raising_callbacks_are_reported(loop, callback):
    reports = []
    loop.set_exception_handler(lambda loop, context: reports.append(context))

    class Raising(Recorder):
        pass

    def raising(self, *args):
        getattr(Recorder, callback)(self, *args)
        raise ZeroDivisionError(callback)

    setattr(Raising, callback, raising)
    transport, protocol = endpoint(loop, Raising, local_addr=(LOCALHOST, 0))
    other, _ = endpoint(loop, local_addr=(LOCALHOST, 0))
    if callback == "error_received":
        with pytest.raises(ZeroDivisionError):
            transport.sendto(bytes(70_000), (LOCALHOST, 9))
    for _ in range(2):
        other.sendto(b"x", transport.get_extra_info("sockname"))
    until_noted(loop, protocol, lambda: len(protocol.data) == 2)
    close(loop, transport, other)
    assert protocol.kinds()[-1] == "lost"
    expected = {"connection_made": 1, "datagram_received": 2, "error_received": 0, "connection_lost": 1}[callback]
    assert len(reports) == expected
    for report in reports:
        assert isinstance(report["exception"], ZeroDivisionError)
        assert report["message"].startswith("Exception in callback ")
        assert isinstance(report["handle"], (asyncio.Handle, aioxide.Handle))
    if callback == "datagram_received":
        assert "_read_ready" in reports[0]["message"]


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
def test_interrupts_leave_the_loop(loop, pair, error):
    server, client = pair

    def interrupt(data, addr):
        raise error

    server.datagram_received = interrupt
    client.transport.sendto(b"x")
    with pytest.raises(error):
        loop.run_forever()
    del server.datagram_received
    client.transport.sendto(b"y")
    until_noted(loop, server, lambda: server.data)
    assert server.data == [b"y"]


def test_writes_after_the_end_warn(loop, pair, caplog):
    _server, client = pair
    client.transport.abort()
    for _ in range(8):
        client.transport.sendto(b"x")
    assert [record.message for record in caplog.records if record.levelname == "WARNING"] == [
        "socket.send() raised exception."
    ] * 4
    turn(loop, 2)
    client.transport.sendto(b"x")


def test_sendto_after_the_end_without_address(aio, loop):
    if is_stdlib(aio):
        pytest.skip("the stdlib fails with an AttributeError of its own, and reports another one")
    transport, protocol = endpoint(loop, local_addr=(LOCALHOST, 0))
    close(loop, transport)
    for _ in range(3):
        transport.sendto(b"x", (LOCALHOST, 9))
    assert protocol.kinds() == ["made", "lost"]


# ----------------------------------------------------------------- flow control


def test_buffer_and_flow_control(loop):
    transport, protocol, reader = unread_unix_sender(loop)
    transport.set_write_buffer_limits(high=3000)
    assert transport.get_write_buffer_limits() == (750, 3000)
    sent = fill(transport)
    size = transport.get_write_buffer_size()
    assert size == 1008 if not is_old_stdlib(loop) else size == 1000
    assert "pause" not in protocol.kinds()
    for _ in range(5):
        transport.sendto(b"x" * 1000)
    assert protocol.kinds().count("pause") == 1
    assert len(transport._buffer) == 6
    assert len(drain(loop, reader, sent + 5)) == sent + 5
    turn(loop)
    assert protocol.kinds()[-2:] == ["pause", "resume"]
    assert transport.get_write_buffer_size() == 0
    transport.sendto(b"after")
    assert reader.recv(10) == b"after"
    close(loop, transport)
    reader.close()


def is_old_stdlib(loop):
    """Before 3.14 the header of a datagram did not count."""
    return isinstance(loop, asyncio.SelectorEventLoop) and sys.version_info < (3, 14)


@pytest.mark.parametrize(
    ("high", "low", "expected"),
    [
        (None, None, (16384, 65536)),
        (100, None, (25, 100)),
        (None, 100, (100, 400)),
        (0, None, (0, 0)),
        (1 << 80, 0, (0, 1 << 80)),
        (100.0, 2.5, (2.5, 100.0)),
    ],
)
def test_limits(pair, high, low, expected):
    _, client = pair
    client.transport.set_write_buffer_limits(high=high, low=low)
    assert client.transport.get_write_buffer_limits() == expected


@pytest.mark.parametrize(("high", "low"), [(1, 2), (-1, None), (5, -1)])
def test_wrong_limits(pair, high, low):
    _, client = pair
    with pytest.raises(ValueError, match=r"high \(.*\) must be >= low \(.*\) must be >= 0"):
        client.transport.set_write_buffer_limits(high=high, low=low)


@pytest.mark.parametrize("make", [bytearray, lambda data: memoryview(bytearray(data))])
def test_later_changes_of_the_buffer_are_not_sent(loop, make):
    transport, _, reader = unread_unix_sender(loop)
    sent = fill(transport)
    data = make(b"before")
    transport.sendto(data)
    data[:] = b"after!"
    if isinstance(data, bytearray):
        data.clear()
    assert drain(loop, reader, sent + 1)[-1] == b"before"
    close(loop, transport)
    reader.close()


def test_close_waits_for_the_buffer(loop):
    transport, protocol, reader = unread_unix_sender(loop)
    sent = fill(transport)
    transport.close()
    transport.close()
    turn(loop, 3)
    assert transport.is_closing()
    assert "lost" not in protocol.kinds()
    # It still takes datagrams, as asyncio's does.
    transport.sendto(b"last")
    assert drain(loop, reader, sent + 1)[-1] == b"last"
    turn(loop, 2)
    assert protocol.events[-1] == ("lost", None)
    reader.close()


def test_abort_drops_the_buffer(aio, loop):
    transport, protocol, reader = unread_unix_sender(loop)
    sent = fill(transport)
    transport.abort()
    transport.abort()
    if aio is aioxide or sys.version_info >= (3, 15):
        # The stdlib before 3.15 forgets the size.
        assert transport.get_write_buffer_size() == 0
    turn(loop, 2)
    assert protocol.kinds().count("lost") == 1
    assert len([reader.recv(2000) for _ in range(sent - 1)]) == sent - 1
    with pytest.raises(BlockingIOError):
        reader.recv(10)
    reader.close()


def test_abort_after_close(loop):
    transport, protocol, reader = unread_unix_sender(loop)
    fill(transport)
    transport.close()
    transport.abort()
    turn(loop, 2)
    assert protocol.kinds().count("lost") == 1
    reader.close()


@pytest.mark.parametrize("how", ["close", "abort"])
@pytest.mark.parametrize("callback", ["connection_made", "datagram_received", "error_received", "connection_lost"])
def test_end_in_every_callback(loop, callback, how):
    class Ending(Recorder):
        pass

    def ending(self, *args):
        getattr(Recorder, callback)(self, *args)
        getattr(self.transport, how)()

    setattr(Ending, callback, ending)
    transport, protocol = endpoint(loop, Ending, local_addr=(LOCALHOST, 0))
    if callback == "datagram_received":
        transport.sendto(b"x", transport.get_extra_info("sockname"))
    elif callback == "error_received":
        transport.sendto(bytes(70_000), (LOCALHOST, 9))
    elif callback == "connection_lost":
        transport.close()
    until_noted(loop, protocol, lambda: "lost" in protocol.kinds())
    turn(loop, 3)
    assert protocol.events[-1] == ("lost", None)
    assert protocol.kinds().count("lost") == 1
    assert transport.get_protocol() is None
    assert transport._sock is None


@pytest.mark.parametrize("how", ["close", "abort", "sendto"])
@pytest.mark.parametrize("callback", ["pause_writing", "resume_writing"])
def test_re_entry_in_flow_control(aio, loop, callback, how):
    if is_stdlib(aio) and callback == "resume_writing" and how != "sendto":
        pytest.skip("the stdlib calls connection_lost() twice")

    class Acting(Recorder):
        acted = False

    def act(self):
        getattr(Recorder, callback)(self)
        if not self.acted:
            self.acted = True
            if how == "sendto":
                self.transport.sendto(b"from within")
            else:
                getattr(self.transport, how)()

    setattr(Acting, callback, act)
    transport, protocol, reader = unread_unix_sender(loop, Acting)
    transport.set_write_buffer_limits(high=0)
    sent = fill(transport)
    lost_in_buffer = 1 if (callback, how) == ("pause_writing", "abort") else 0
    extra = 1 if how == "sendto" else 0
    got = drain(loop, reader, sent - lost_in_buffer + extra)
    assert (b"from within" in got) == (how == "sendto")
    turn(loop, 3)
    if how == "sendto":
        close(loop, transport)
    assert protocol.kinds().count("lost") == 1
    reader.close()


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
    transport, protocol, reader = unread_unix_sender(loop, Raising)
    transport.set_write_buffer_limits(high=0)
    sent = fill(transport)
    drain(loop, reader, sent)
    turn(loop)
    assert [report["message"] for report in reports] == [f"protocol.{callback}() failed"]
    assert reports[0]["protocol"] is protocol
    assert reports[0]["transport"] is transport
    close(loop, transport)
    reader.close()


def test_error_while_sending_what_was_buffered(loop):
    transport, protocol, reader = unread_unix_sender(loop)
    transport.set_write_buffer_limits(high=0)
    fill(transport)
    transport.sendto(b"y")
    reader.close()
    until_noted(loop, protocol, lambda: protocol.kinds().count("error") == 2)
    until_noted(loop, protocol, lambda: "resume" in protocol.kinds())
    assert transport.get_write_buffer_size() == 0
    close(loop, transport)
    assert protocol.events[-1] == ("lost", None)


def test_close_in_the_error_of_what_was_buffered(loop):
    class Closing(Recorder):
        def error_received(self, exc):
            super().error_received(exc)
            self.transport.close()

    transport, protocol, reader = unread_unix_sender(loop, Closing)
    fill(transport)
    reader.close()
    until_noted(loop, protocol, lambda: "lost" in protocol.kinds())
    turn(loop, 2)
    assert protocol.kinds().count("lost") == 1


# -------------------------------------------------------------------- contexts

VAR = contextvars.ContextVar("VAR", default="outside")


def test_callbacks_share_the_context_of_the_creation(aio, loop):
    seen = {}

    class Watching(Recorder):
        def note(self, kind, *event):
            seen[kind] = VAR.get()
            VAR.set(f"set in {kind}")
            super().note(kind, *event)

    async def create():
        VAR.set("creation")
        return await loop.create_datagram_endpoint(Watching, local_addr=(LOCALHOST, 0))

    transport, protocol = run(loop, create())
    other, _ = endpoint(loop, local_addr=(LOCALHOST, 0))
    other.sendto(b"x", transport.get_extra_info("sockname"))
    until_noted(loop, protocol, lambda: protocol.data)
    other.sendto(b"x", transport.get_extra_info("sockname"))
    until_noted(loop, protocol, lambda: len(protocol.data) == 2)
    second = seen["data"]

    async def close_elsewhere():
        VAR.set("closer")
        transport.close()

    run(loop, close_elsewhere())
    turn(loop, 2)
    assert seen["made"] == "creation"
    assert second == "set in data"
    assert VAR.get() == "outside"
    if not is_stdlib(aio):
        # In the stdlib, connection_lost runs in the closer's context: only its streams have a context of their own.
        assert seen["lost"] == "set in data"
    close(loop, other)


# -------------------------------------------------------------- creating: errors


def refused(loop, error, match, **kwargs):
    with pytest.raises(error, match=match) as caught:
        endpoint(loop, **kwargs)
    return str(caught.value)


def test_arguments_that_are_refused(loop):
    refused(loop, ValueError, "^unexpected address family$")
    refused(loop, TypeError, "^2-tuple is expected$", local_addr="localhost")
    refused(loop, TypeError, "^2-tuple is expected$", local_addr=("localhost", 1, 2))
    refused(loop, TypeError, "^2-tuple is expected$", local_addr=["localhost", 1])
    refused(loop, TypeError, "^2-tuple is expected$", local_addr=(), remote_addr=(LOCALHOST, 1))
    refused(loop, TypeError, "^string is expected$", local_addr=(LOCALHOST, 0), family=socket.AF_UNIX)
    refused(loop, TypeError, "^string is expected$", remote_addr=b"path", family=socket.AF_UNIX)
    with socket.socket() as sock:
        refused(loop, ValueError, "^A (datagram socket|UDP Socket) was expected, got <socket", sock=sock)


def test_socket_with_other_arguments(loop):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        text = refused(
            loop,
            ValueError,
            "^socket modifier",
            sock=sock,
            local_addr=(LOCALHOST, 0),
            remote_addr=("x", 1),
            family=2,
            proto=3,
            flags=4,
            reuse_port=True,
            allow_broadcast=True,
        )
    assert text == (
        "socket modifier keyword arguments can not be used when sock is specified. "
        "(local_addr=('127.0.0.1', 0), remote_addr=('x', 1), family=2, proto=3, flags=4, "
        "reuse_port=True, allow_broadcast=True)"
    )


def test_addresses_of_two_families(loop):
    refused(
        loop,
        ValueError,
        "^can not get address information$",
        local_addr=("::1", 0),
        remote_addr=(LOCALHOST, 1),
    )


def test_address_in_use(loop):
    transport, _ = endpoint(loop, local_addr=(LOCALHOST, 0))
    with pytest.raises(OSError, match="Errno") as caught:
        endpoint(loop, local_addr=transport.get_extra_info("sockname"))
    assert caught.value.errno == errno.EADDRINUSE
    close(loop, transport)


def test_first_error_is_raised_and_the_next_candidate_tried(loop):
    taken, _ = endpoint(loop, local_addr=(LOCALHOST, 0))
    address = taken.get_extra_info("sockname")
    infos = [(socket.AF_INET, socket.SOCK_DGRAM, 17, "", address)]

    async def getaddrinfo(host, port, **kwargs):
        assert kwargs == {"family": 0, "type": socket.SOCK_DGRAM, "proto": 0, "flags": 0}
        await asyncio.sleep(0)
        return infos

    loop.getaddrinfo = getaddrinfo
    with pytest.raises(OSError, match="Errno") as caught:
        endpoint(loop, local_addr=("name", 5))
    assert caught.value.errno == errno.EADDRINUSE
    infos.append((socket.AF_INET, socket.SOCK_DGRAM, 0, "", (LOCALHOST, 0)))
    transport, _ = endpoint(loop, local_addr=("name", 5))
    close(loop, transport)
    infos.clear()
    with pytest.raises(OSError, match=r"^getaddrinfo\(\) returned empty list$"):
        endpoint(loop, local_addr=("name", 5))
    close(loop, taken)


def test_name_is_resolved(loop):
    transport, protocol = endpoint(loop, local_addr=("localhost", 0), family=socket.AF_INET)
    assert transport.get_extra_info("sockname")[0] == LOCALHOST
    client, _ = endpoint(
        loop, remote_addr=("localhost", transport.get_extra_info("sockname")[1]), family=socket.AF_INET
    )
    client.sendto(b"x")
    until_noted(loop, protocol, lambda: protocol.data)
    close(loop, transport, client)
    loop.run_until_complete(loop.shutdown_default_executor())


def test_overridden_sock_connect_is_used(aio):
    base = asyncio.SelectorEventLoop if is_stdlib(aio) else aioxide.Loop
    calls = []

    class Loop(base):
        async def sock_connect(self, sock, address):
            calls.append(address)
            sock.connect(address)

    loop = Loop()
    transport, _ = endpoint(loop, remote_addr=(LOCALHOST, 9))
    assert calls == [(LOCALHOST, 9)]
    close(loop, transport)
    loop.close()


def test_reuse_port(loop):
    first, _ = endpoint(loop, local_addr=(LOCALHOST, 0), reuse_port=True)
    second, _ = endpoint(loop, local_addr=first.get_extra_info("sockname"), reuse_port=True)
    assert second.get_extra_info("sockname") == first.get_extra_info("sockname")
    close(loop, first, second)


def test_broadcast_is_not_connected(loop):
    transport, _ = endpoint(loop, remote_addr=(LOCALHOST, 9), allow_broadcast=True)
    sock = transport.get_extra_info("socket")
    assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST)
    assert transport.get_extra_info("peername") is None
    assert transport._address == (LOCALHOST, 9)
    close(loop, transport)


def test_broadcast_arrives(loop):
    receiver, protocol = endpoint(loop, local_addr=("0.0.0.0", 0))
    address = ("127.255.255.255", receiver.get_extra_info("sockname")[1])
    sender, _ = endpoint(loop, remote_addr=address, allow_broadcast=True)
    sender.sendto(b"all")
    sender.sendto(b"of you", address)
    until_noted(loop, protocol, lambda: len(protocol.data) == 2)
    close(loop, receiver, sender)


def test_family_alone(loop):
    transport, _protocol = endpoint(loop, family=socket.AF_INET)
    receiver, got = endpoint(loop, local_addr=(LOCALHOST, 0))
    transport.sendto(b"x", receiver.get_extra_info("sockname"))
    until_noted(loop, got, lambda: got.data)
    close(loop, transport, receiver)


def test_socket_of_one_s_own(loop):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind((LOCALHOST, 0))
        assert sock.gettimeout() is None
        transport, protocol = endpoint(loop, sock=sock)
        assert sock.gettimeout() == 0
        assert transport._sock is sock
        transport.sendto(b"x", sock.getsockname())
        until_noted(loop, protocol, lambda: protocol.data)
        close(loop, transport)
        assert sock.fileno() == -1


def test_subclass_of_socket_keeps_its_methods(loop):
    class Sock(socket.socket):
        def recvfrom(self, size):
            data, address = super().recvfrom(size)
            return data.upper(), address

        def sendto(self, data, address):
            return super().sendto(b"<" + data + b">", address)

    sock = Sock(socket.AF_INET, socket.SOCK_DGRAM)
    sock.bind((LOCALHOST, 0))
    transport, protocol = endpoint(loop, sock=sock)
    transport.sendto(b"x", sock.getsockname())
    until_noted(loop, protocol, lambda: protocol.data)
    assert protocol.data == [b"<X>"]
    close(loop, transport)


# ------------------------------------------------------------------------- Unix


def test_unix_datagrams(loop, tmp_path):
    path = str(tmp_path / "sock")
    server, sp = endpoint(loop, local_addr=path, family=socket.AF_UNIX)
    client, _cp = endpoint(loop, remote_addr=path, family=socket.AF_UNIX)
    named, np = endpoint(loop, local_addr=str(tmp_path / "other"), remote_addr=path, family=socket.AF_UNIX)
    client.sendto(b"nameless")
    named.sendto(b"named")
    until_noted(loop, sp, lambda: len(sp.data) == 2)
    assert sp.events[-2:] == [("data", b"nameless", None), ("data", b"named", str(tmp_path / "other"))]
    server.sendto(b"answer", str(tmp_path / "other"))
    server.sendto(b"bytes", os.fsencode(tmp_path / "other"))
    until_noted(loop, np, lambda: len(np.data) == 2)
    assert np.events[-1] == ("data", b"bytes", path)
    close(loop, server, client, named)


def test_abstract_unix_names(loop):
    name = f"\0aioxide-test-{os.getpid()}-{id(loop)}"
    server, sp = endpoint(loop, local_addr=name, family=socket.AF_UNIX)
    client, _cp = endpoint(loop, remote_addr=name, family=socket.AF_UNIX)
    client.sendto(b"x")
    until_noted(loop, sp, lambda: sp.data)
    other, _op = endpoint(loop, local_addr=name + "o", family=socket.AF_UNIX)
    other.sendto(b"y", name.encode())
    until_noted(loop, sp, lambda: len(sp.data) == 2)
    assert sp.events[-1][2] == name.encode() + b"o"
    close(loop, server, client, other)


def test_stale_unix_socket_is_removed(loop, tmp_path):
    path = str(tmp_path / "sock")
    for _ in range(2):
        transport, _ = endpoint(loop, local_addr=path, family=socket.AF_UNIX)
        close(loop, transport)
        assert os.path.exists(path)


def test_other_file_is_not_removed(loop, tmp_path):
    path = tmp_path / "file"
    path.write_text("kept")
    with pytest.raises(OSError, match="Errno") as caught:
        endpoint(loop, local_addr=str(path), family=socket.AF_UNIX)
    assert caught.value.errno == errno.EADDRINUSE
    assert path.read_text() == "kept"


@pytest.mark.logs_errors
def test_stale_unix_socket_that_cannot_be_looked_at(loop, tmp_path, caplog):
    (tmp_path / "file").write_text("")
    path = str(tmp_path / "file" / "sock")
    with pytest.raises(NotADirectoryError):
        endpoint(loop, local_addr=path, family=socket.AF_UNIX)
    assert caplog.records[-1].getMessage().startswith(f"Unable to check or remove stale UNIX socket {path!r}: ")


@pytest.mark.parametrize("to", ["peer", "name"])
def test_unnamed_unix_pair(aio, loop, to):
    if is_stdlib(aio) and to == "peer":
        pytest.skip("the stdlib takes the empty name of the peer for none, and does not use the connection")
    left, right = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    transport, protocol = endpoint(loop, sock=left)
    assert transport.get_extra_info("peername") == ""
    if to == "peer":
        transport.sendto(b"x")
        assert right.recv(10) == b"x"
        right.send(b"y")
        until_noted(loop, protocol, lambda: protocol.data)
    else:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as named:
            named.bind("")
            transport.sendto(b"x", named.getsockname())
            assert named.recv(10) == b"x"
    close(loop, transport)
    right.close()


def test_unix_refused(loop, tmp_path):
    with pytest.raises(FileNotFoundError):
        endpoint(loop, remote_addr=str(tmp_path / "nobody"), family=socket.AF_UNIX)


# ------------------------------------------------------------ ends, leaks, repr


def open_descriptors():
    return len(os.listdir("/proc/self/fd"))


@pytest.mark.skipif(not os.path.exists("/proc/self/fd"), reason="counts descriptors in /proc")
def test_no_descriptor_is_leaked(aio, loop):
    endpoint_close = [endpoint(loop, local_addr=(LOCALHOST, 0))[0]]
    close(loop, *endpoint_close)
    gc.collect()
    before = open_descriptors()

    def broken():
        raise ZeroDivisionError

    for _ in range(3):
        close(loop, endpoint(loop, local_addr=(LOCALHOST, 0))[0])
        with pytest.raises(OSError, match="Errno"):
            endpoint(loop, local_addr=("192.0.2.1", 9))
        if not is_stdlib(aio):
            # The stdlib leaves that socket to the garbage collector, with a warning.
            with pytest.raises(ZeroDivisionError):
                endpoint(loop, broken, local_addr=(LOCALHOST, 0))
    gc.collect()
    assert open_descriptors() == before


def test_failing_factory_leaves_a_given_socket_open(loop):
    def broken():
        raise ZeroDivisionError

    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        with pytest.raises(ZeroDivisionError):
            endpoint(loop, broken, sock=sock)
        assert sock.fileno() >= 0


def step(coro):
    """One step of a coroutine within a loop."""
    try:
        return coro.send(None)
    except StopIteration as stop:
        return stop


@pytest.mark.parametrize("end", ["cancel", "close"])
def test_cancelled_while_resolving(loop, end):
    parked = loop.create_future()

    async def getaddrinfo(*args, **kwargs):
        await parked

    loop.getaddrinfo = getaddrinfo
    check_cancelled(loop, end, local_addr=("name", 1), made=False)
    assert parked.cancelled() or end == "close"


@pytest.mark.parametrize("end", ["cancel", "close"])
def test_cancelled_while_connecting(aio, end):
    base = asyncio.SelectorEventLoop if is_stdlib(aio) else aioxide.Loop
    socks = []

    class Loop(base):
        async def sock_connect(self, sock, address):
            socks.append(sock)
            await self.create_future()

    loop = Loop()
    check_cancelled(loop, end, remote_addr=(LOCALHOST, 9), made=False)
    assert [sock.fileno() for sock in socks] == [-1]
    loop.close()


@pytest.mark.parametrize("end", ["cancel", "close"])
def test_cancelled_before_connection_made(loop, end):
    check_cancelled(loop, end, local_addr=(LOCALHOST, 0), made=True)


def check_cancelled(loop, end, made, **kwargs):
    protocols = []

    def factory():
        protocols.append(Recorder())
        return protocols[-1]

    async def main():
        coro = loop.create_datagram_endpoint(factory, **kwargs)
        if end == "close":
            assert not isinstance(step(coro), StopIteration)
            coro.close()
        else:
            task = asyncio.ensure_future(coro)
            while (not protocols) if made else (not task.done() and not started(task)):
                await asyncio.sleep(0)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task

    async def settle():
        for _ in range(4):
            await asyncio.sleep(0)

    run(loop, main())
    run(loop, settle())
    assert len(protocols) == (1 if made else 0)
    if made:
        assert protocols[0].kinds() == ["made", "lost"]
        assert protocols[0].transport._sock is None


def started(task):
    return task._fut_waiter is not None


def test_dropped_transport_stays_with_its_loop(loop, pair):
    server, client = pair
    reference = weakref.ref(server)
    address = server.transport.get_extra_info("sockname")
    transport, protocol = endpoint(loop, local_addr=(LOCALHOST, 0))
    alive = weakref.ref(transport)
    address = transport.get_extra_info("sockname")
    protocol.transport = None
    del transport
    gc.collect()
    assert alive() is not None
    client.transport.sendto(b"", None)
    other, _ = endpoint(loop, local_addr=(LOCALHOST, 0))
    other.sendto(b"still there", address)
    until_noted(loop, protocol, lambda: protocol.data)
    assert reference() is not None
    close(loop, alive(), other)
    gc.collect()
    assert alive() is None


def test_unclosed_transport_warns(aio):
    loop = asyncio.SelectorEventLoop() if is_stdlib(aio) else aioxide.new_event_loop()
    transport, protocol = endpoint(loop, local_addr=(LOCALHOST, 0))
    sock = transport._sock
    loop.close()
    text = repr(transport)
    assert text == f"<_SelectorDatagramTransport fd={sock.fileno()}>"
    protocol.transport = None
    last = [transport]
    del transport
    with pytest.warns(ResourceWarning) as caught:
        forget(last)
    assert [str(warning.message) for warning in caught] == [f"unclosed transport {text}"]
    assert sock.fileno() == -1


def test_closed_loop(aio):
    loop = asyncio.SelectorEventLoop() if is_stdlib(aio) else aioxide.new_event_loop()
    transport, _protocol = endpoint(loop, local_addr=(LOCALHOST, 0))
    loop.close()
    with pytest.raises(RuntimeError, match="Event loop is closed"):
        transport.close()
    transport.close()
    with pytest.raises(RuntimeError, match="Event loop is closed"):
        transport.abort()
        raise RuntimeError("Event loop is closed")
    transport._sock.close()
    transport._sock = None


def test_repr(loop):
    transport, _protocol, reader = unread_unix_sender(loop)
    fd = transport._sock_fd
    assert repr(transport) == f"<_SelectorDatagramTransport fd={fd} read=polling write=<idle, bufsize=0>>"
    fill(transport)
    size = transport.get_write_buffer_size()
    assert repr(transport) == f"<_SelectorDatagramTransport fd={fd} read=polling write=<polling, bufsize={size}>>"
    transport.pause_reading()
    assert "read=idle" in repr(transport)
    transport.close()
    assert repr(transport).startswith(f"<_SelectorDatagramTransport closing fd={fd} read=idle write=<polling")
    transport.abort()
    turn(loop, 2)
    assert repr(transport) == f"<_SelectorDatagramTransport closed fd={fd}>"
    reader.close()


def test_socket_closed_behind_the_transport(loop):
    """The number may be another file's by then: nothing is read from it or written to it."""
    transport, protocol = endpoint(loop, local_addr=(LOCALHOST, 0))
    fd = transport._sock_fd
    transport._sock.close()
    left, right = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    if left.fileno() != fd:
        right, left = left, right
    assert left.fileno() == fd
    transport.sendto(b"stray", (LOCALHOST, 9))
    assert protocol.events[-1][1].errno == errno.EBADF
    right.setblocking(False)
    with pytest.raises(BlockingIOError):
        right.recv(10)
    transport.abort()
    turn(loop, 2)
    assert left.fileno() == fd
    left.close()
    right.close()


def test_sending_from_another_thread_s_loop(aio):
    """Two loops in two threads exchange datagrams."""
    results = []

    def serve(ready, address):
        loop = asyncio.SelectorEventLoop() if is_stdlib(aio) else aioxide.new_event_loop()
        transport, protocol = endpoint(loop, local_addr=(LOCALHOST, 0))
        address.append(transport.get_extra_info("sockname"))
        ready.set()
        until_noted(loop, protocol, lambda: len(protocol.data) == 100)
        results.extend(protocol.data)
        close(loop, transport)
        loop.close()

    ready, address = threading.Event(), []
    thread = threading.Thread(target=serve, args=(ready, address))
    thread.start()
    ready.wait(10)
    loop = asyncio.SelectorEventLoop() if is_stdlib(aio) else aioxide.new_event_loop()
    transport, _protocol = endpoint(loop, remote_addr=address[0])
    for number in range(100):
        transport.sendto(b"%d" % number)
    thread.join(30)
    assert results == [b"%d" % number for number in range(100)]
    close(loop, transport)
    loop.close()

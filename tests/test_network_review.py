"""Transports under awkward circumstances: errors at the end, writes from odd places, stale descriptors, forks."""

import asyncio
import contextlib
import errno
import gc
import logging
import os
import signal
import socket
import sys
import threading
import time

import pytest


class Quiet(asyncio.Protocol):
    """Notes what arrives and how the connection ends."""

    def __init__(self):
        self.data = b""
        self.lost = []

    def data_received(self, data):
        self.data += data

    def connection_lost(self, exc):
        self.lost.append(exc)


@pytest.fixture
def reports(loop):
    """What the loop's exception handler was told."""
    found = []
    loop.set_exception_handler(lambda _, context: found.append(context))
    return found


@pytest.fixture
def pair():
    """A socket for the transport and the peer's; both are closed in the end."""
    near, far = socket.socketpair()
    near.setblocking(False)
    far.settimeout(10)
    yield near, far
    near.close()
    far.close()


@pytest.fixture
def connect(loop, pair):
    """Makes a transport of the near end, or of another socket."""
    transports = []

    def connect(protocol, sock=None):
        waiter = loop.create_future()
        transport = loop._make_socket_transport(sock or pair[0], protocol, waiter)
        loop.run_until_complete(waiter)
        transports.append(transport)
        return transport

    yield connect
    for transport in transports:
        if transport._loop is not None:
            transport.abort()
    run_turns(loop)


def run_turns(loop, count=3):
    """A few turns of the loop."""

    async def turns():
        for _ in range(count):
            await asyncio.sleep(0)

    loop.run_until_complete(turns())


def run_until(loop, condition):
    """Turns of the loop until something holds."""

    async def wait():
        while not condition():
            await asyncio.sleep(0)

    loop.run_until_complete(asyncio.wait_for(wait(), 10))


def in_job(loop, body):
    """Runs `body` as a callback of the loop."""

    def run():
        try:
            body()
        finally:
            loop.stop()

    loop.call_soon(run)
    loop.run_forever()


def fill(transport):
    """Writes more than the socket takes."""
    transport.set_write_buffer_limits(high=1 << 30)
    while transport.get_write_buffer_size() == 0:
        transport.write(bytes(1 << 20))


def drain(loop, sock, condition):
    """Reads all that comes until something holds."""
    sock.setblocking(False)

    def read():
        with contextlib.suppress(BlockingIOError):
            while sock.recv(1 << 20):
                pass
        return condition()

    run_until(loop, read)


def forget(held):
    """Gives objects up and collects what is left of them."""
    held.clear()
    gc.collect()


# Errors at the end.


def test_error_in_connection_lost_after_the_last_byte_is_reported(aio, loop, pair, connect, reports):
    if aio is asyncio and sys.version_info < (3, 14):
        pytest.skip("the stdlib before 3.14 goes on with a transport that is over")

    class Failing(Quiet):
        def connection_lost(self, exc):
            super().connection_lost(exc)
            raise ZeroDivisionError

    protocol = Failing()
    transport = connect(protocol)
    fill(transport)
    transport.close()
    drain(loop, pair[1], lambda: protocol.lost)
    (report,) = reports
    assert isinstance(report["exception"], ZeroDivisionError)
    assert pair[0].fileno() == -1


def test_failing_shutdown_after_the_last_byte_is_reported(loop, pair, connect, reports):
    protocol = Quiet()
    far = pair[1]
    transport = connect(protocol)
    fill(transport)
    transport.write_eof()
    # The peer goes after the last byte was taken and before the half-close.
    far.close()
    run_until(loop, lambda: protocol.lost)
    assert reports == []


def test_error_in_a_receiver_and_in_the_exception_handler_does_not_end_the_loop(aio, loop, pair):
    class Loop(type(loop)):
        def call_exception_handler(self, context):
            seen.append(context)
            if len(seen) == 1:
                raise ZeroDivisionError

    class Failing(Quiet):
        def data_received(self, data):
            raise ValueError(data)

    seen = []
    own = Loop()
    try:
        protocol = Failing()
        waiter = own.create_future()
        transport = own._make_socket_transport(pair[0], protocol, waiter)
        own.run_until_complete(waiter)
        pair[1].send(b"x")
        run_until(own, lambda: len(seen) == 2)
        assert isinstance(seen[0]["exception"], ValueError)
        assert isinstance(seen[1]["exception"], ZeroDivisionError)
        assert "_read_ready" in seen[1]["message"]
        transport.abort()
        run_turns(own)
    finally:
        own.close()


# What was written before an end arrives.


def test_written_before_the_receiver_fails_arrives(loop, pair, connect, reports):
    class Failing(Quiet):
        def data_received(self, data):
            transport.write(b"last words")
            raise ZeroDivisionError

    transport = connect(Failing())
    pair[1].send(b"x")
    run_until(loop, lambda: reports)
    run_turns(loop)
    assert pair[1].recv(100) == b"last words"
    assert pair[1].recv(100) == b""


@pytest.mark.parametrize("name", ["_force_close", "_fatal_error"])
def test_written_before_a_forced_close_arrives(loop, pair, connect, reports, name):
    transport = connect(Quiet())

    def body():
        transport.write(b"last words")
        getattr(transport, name)(ZeroDivisionError())

    in_job(loop, body)
    run_turns(loop)
    assert pair[1].recv(100) == b"last words"
    assert pair[1].recv(100) == b""


def test_written_before_an_interrupt_arrives(loop, pair, connect):
    transport = connect(Quiet())

    def body():
        transport.write(b"last words")
        raise KeyboardInterrupt

    loop.call_soon(body)
    with pytest.raises(KeyboardInterrupt):
        loop.run_forever()
    assert pair[1].recv(100) == b"last words"


def test_first_of_two_failing_flushes_is_what_is_raised(loop, pair):
    """Both sockets are broken, and telling so raises."""

    class Loop(type(loop)):
        def call_soon(self, callback, *args, context=None):
            if armed and "connection_lost" in getattr(callback, "__name__", ""):
                raise KeyboardInterrupt(callback.__self__)
            return super().call_soon(callback, *args, context=context)

    own = Loop()
    armed = []
    pairs = [socket.socketpair() for _ in range(2)]
    try:
        transports = []
        for near, far in pairs:
            near.setblocking(False)
            waiter = own.create_future()
            transports.append(own._make_socket_transport(near, Quiet(), waiter))
            own.run_until_complete(waiter)
            transports[-1].pause_reading()
            far.close()

        def body():
            own.stop()
            armed.append(True)
            for transport in transports:
                with contextlib.suppress(KeyboardInterrupt):
                    transport.write(b"x")

        own.call_soon(body)
        with contextlib.suppress(KeyboardInterrupt):
            own.run_forever()
        armed.clear()
        for transport in transports:
            transport._call_connection_lost(None)
    finally:
        for near, far in pairs:
            near.close()
            far.close()
        own.close()


# Writes from odd places.


def test_write_from_a_signal_handler_leaves_at_once(loop, pair, connect):
    """The handler runs while the loop waits: no callback's end sends what it wrote."""
    transport = connect(Quiet())
    previous = signal.signal(signal.SIGUSR1, lambda *_: transport.write(b"signalled"))
    received = []

    def peer():
        os.kill(os.getpid(), signal.SIGUSR1)
        pair[1].settimeout(5)
        with contextlib.suppress(TimeoutError):
            received.append(pair[1].recv(100))
        loop.call_soon_threadsafe(loop.stop)

    thread = threading.Thread(target=peer)
    loop.call_soon(thread.start)
    try:
        loop.run_forever()
    finally:
        thread.join()
        signal.signal(signal.SIGUSR1, previous)
    assert received == [b"signalled"]


def test_write_of_a_signal_handler_that_raises_arrives(loop, pair, connect):
    transport = connect(Quiet())

    def handler(*_):
        transport.write(b"signalled")
        raise KeyboardInterrupt

    previous = signal.signal(signal.SIGUSR1, handler)
    thread = threading.Timer(0.05, os.kill, [os.getpid(), signal.SIGUSR1])
    loop.call_soon(thread.start)
    try:
        with pytest.raises(KeyboardInterrupt):
            loop.run_forever()
    finally:
        thread.join()
        signal.signal(signal.SIGUSR1, previous)
    assert pair[1].recv(100) == b"signalled"


def test_write_from_the_wrong_thread_leaves_at_once(loop, pair, connect):
    """Nobody should, but it works with asyncio while the loop waits."""
    transport = connect(Quiet())
    received = []

    def wrong():
        time.sleep(0.05)  # Until the loop waits.
        transport.write(b"wrong")
        pair[1].settimeout(5)
        with contextlib.suppress(TimeoutError):
            received.append(pair[1].recv(100))
        loop.call_soon_threadsafe(loop.stop)

    thread = threading.Thread(target=wrong)
    loop.call_soon(thread.start)
    loop.run_forever()
    thread.join()
    assert received == [b"wrong"]


def test_write_while_the_clock_is_asked_arrives(loop, pair):
    class Loop(type(loop)):
        def time(self):
            if armed:
                armed.pop()
                transport.write(b"tick")
            return super().time()

    armed = []
    own = Loop()
    try:
        waiter = own.create_future()
        transport = own._make_socket_transport(pair[0], Quiet(), waiter)
        own.run_until_complete(waiter)
        armed.append(True)
        own.call_later(30, print)
        received = []

        def read():
            received.append(pair[1].recv(100))
            own.call_soon_threadsafe(own.stop)

        pair[1].settimeout(5)
        thread = threading.Thread(target=read)
        own.call_soon(thread.start)
        own.run_forever()
        thread.join()
        assert received == [b"tick"]
        transport.abort()
        run_turns(own)
    finally:
        own.close()


# Forks.

needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
fork_warns = pytest.mark.filterwarnings("ignore:.*use of fork.*may lead to deadlocks:DeprecationWarning")


@needs_fork
@fork_warns
def test_fork_does_not_double_what_was_written_before(loop, pair, connect):
    transport = connect(Quiet())

    def body():
        transport.write(b"once")
        pid = os.fork()
        if pid == 0:
            raise SystemExit
        os.waitpid(pid, 0)

    parent = os.getpid()
    try:
        in_job(loop, body)
    except BaseException:
        if os.getpid() == parent:
            raise
    finally:
        if os.getpid() != parent:
            os._exit(0)
    run_turns(loop)
    pair[1].setblocking(False)
    assert pair[1].recv(100) == b"once"
    with pytest.raises(BlockingIOError):
        pair[1].recv(100)


@needs_fork
@fork_warns
def test_fork_in_the_receiver_sends_what_was_written_before(loop, pair, connect):
    class Forking(Quiet):
        def data_received(self, data):
            transport.write(b"once")
            pid = os.fork()
            if pid == 0:
                os._exit(0)
            os.waitpid(pid, 0)
            pair[1].setblocking(False)
            seen.append(pair[1].recv(100))
            transport.write(b"more")

    seen = []
    transport = connect(Forking())
    pair[1].send(b"x")
    run_until(loop, lambda: seen)
    assert seen == [b"once"]
    run_turns(loop)
    assert pair[1].recv(100) == b"more"


@needs_fork
@fork_warns
def test_write_of_a_child_leaves_at_once(loop, pair, connect):
    transport = connect(Quiet())

    def body():
        pid = os.fork()
        if pid == 0:
            try:
                transport.write(b"child")
            finally:
                os._exit(0)
        os.waitpid(pid, 0)

    in_job(loop, body)
    pair[1].setblocking(False)
    assert pair[1].recv(100) == b"child"


# Stale descriptors.


def reused(stale):
    """A new pair of sockets, the first of which has a closed socket's number."""
    near, far = socket.socketpair()
    if far.fileno() == stale:
        near, far = far, near
    assert near.fileno() == stale
    near.setblocking(False)
    far.settimeout(5)
    return near, far


@pytest.fixture
def stale(loop, pair, connect):
    """A transport whose socket was closed behind its back, its protocol, and sockets with its number."""
    protocol = Quiet()
    transport = connect(protocol)
    number = pair[0].fileno()
    pair[0].close()
    near, far = reused(number)
    yield transport, protocol, near, far
    near.close()
    far.close()


@pytest.mark.parametrize("way", ["inside", "outside"])
def test_write_does_not_reach_the_next_owner_of_the_number(loop, stale, reports, way):
    transport, protocol, near, far = stale
    if way == "inside":
        in_job(loop, lambda: transport.write(b"secret"))
    else:
        transport.write(b"secret")
    run_until(loop, lambda: protocol.lost)
    (lost,) = protocol.lost
    assert lost.errno == errno.EBADF
    far.setblocking(False)
    with pytest.raises(BlockingIOError):
        far.recv(100)
    assert near.fileno() != -1


def test_read_does_not_take_from_the_next_owner_of_the_number(loop, pair, connect, reports):
    """The event of the old file is under way when its number changes hands."""
    protocol = Quiet()
    transport = connect(protocol)
    number = pair[0].fileno()
    new = []

    def swap():
        pair[0].close()
        new.extend(reused(number))
        new[1].send(b"for the new owner")

    loop.call_soon(swap)
    pair[1].send(b"x")
    run_until(loop, lambda: new)
    run_turns(loop)
    assert b"owner" not in protocol.data
    assert new[0].recv(100) == b"for the new owner"
    transport.abort()
    run_turns(loop)
    for sock in new:
        sock.close()


@pytest.mark.parametrize("end", ["abort", "write"])
def test_closing_transport_leaves_the_next_owner_of_the_number_alone(aio, loop, pair, connect, end):
    if aio is asyncio:
        pytest.skip("asyncio cannot register the number again: the selector knows it still")
    protocol = Quiet()
    transport = connect(protocol)
    fill(transport)
    transport.close()
    number = pair[0].fileno()
    pair[0].close()
    near, far = reused(number)
    try:
        new = Quiet()
        connect(new, near)
        if end == "abort":
            transport.abort()
        run_until(loop, lambda: protocol.lost)
        far.send(b"new")
        run_until(loop, lambda: new.data)
        assert new.data == b"new"
        far.setblocking(False)
        with pytest.raises(BlockingIOError):
            far.recv(100)
    finally:
        near.close()
        far.close()


# After the loop.


def test_writes_after_the_loop_was_closed(loop, pair):
    protocol = Quiet()
    near, far = pair
    waiter = loop.create_future()
    transport = loop._make_socket_transport(near, protocol, waiter)
    loop.run_until_complete(waiter)
    loop.close()
    transport.write(b"still")
    assert far.recv(100) == b"still"
    transport.set_write_buffer_limits(high=1 << 30)
    for _ in range(2):
        with pytest.raises(RuntimeError, match="closed"):
            for _ in range(20):
                transport.write(bytes(1 << 20))
        far.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            while far.recv(1 << 20):
                pass
    near.close()
    held = [transport, waiter]
    del transport, waiter
    with pytest.warns(ResourceWarning, match="unclosed transport"):
        forget(held)


# Debug mode.


@pytest.mark.parametrize("slow", ["data_received", "resume_writing"])
@pytest.mark.parametrize("loop", [True], indirect=True)
def test_slow_callbacks_of_transports_are_logged(aio, loop, pair, connect, caplog, slow):
    class Slow(Quiet):
        pass

    done = []

    def wait(self, *_):
        time.sleep(0.02)
        done.append(True)

    setattr(Slow, slow, wait)
    loop.slow_callback_duration = 0.01
    transport = connect(Slow())
    with caplog.at_level(logging.WARNING, "asyncio"):
        if slow == "data_received":
            pair[1].send(b"x")
            run_until(loop, lambda: done)
        else:
            transport.set_write_buffer_limits(high=0)
            while transport.get_write_buffer_size() == 0:
                transport.write(bytes(1 << 20))
            drain(loop, pair[1], lambda: done)
    name = "_read_ready" if slow == "data_received" else "_write_"
    lines = [record.getMessage() for record in caplog.records]
    assert any(line.startswith("Executing <Handle") and name in line for line in lines), lines

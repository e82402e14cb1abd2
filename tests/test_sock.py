"""The loop's methods on sockets: `sock_recv` and its relatives."""

import array
import asyncio
import contextlib
import contextvars
import errno
import gc
import hashlib
import os
import socket
import ssl
import sys
import weakref

import pytest
from waiting import run, turn


@pytest.fixture
def listener():
    """A listening socket that does not block."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.setblocking(False)
        yield listener


@pytest.fixture
def tcp(listener):
    """Two sockets connected by TCP."""
    near = socket.create_connection(listener.getsockname())
    listener.setblocking(True)
    far, _ = listener.accept()
    listener.setblocking(False)
    near.setblocking(False)
    far.setblocking(False)
    with near, far:
        yield near, far


@pytest.fixture
def datagrams():
    """Two UDP sockets."""
    with (
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as near,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as far,
    ):
        for sock in (near, far):
            sock.bind(("127.0.0.1", 0))
            sock.setblocking(False)
        yield near, far


def fill(sock):
    """Sends until the socket takes no more."""
    sent = 0
    for size in (65536, 256, 1):
        try:
            while True:
                sent += sock.send(bytes(size))
        except BlockingIOError:
            pass
    return sent


def drain(sock, count):
    while count:
        with contextlib.suppress(BlockingIOError):
            count -= len(sock.recv(count))


class Method:
    """A method that waits, on a socket that makes it wait, and how the wait ends."""

    def __init__(self, name, writes, call, end, result):
        self.name, self.writes = name, writes
        self.call, self.end, self.result = call, end, result


METHODS = [
    Method("sock_recv", False, lambda loop, near: loop.sock_recv(near, 9),
           lambda far: far.send(b"hi"), b"hi"),
    Method("sock_recv_into", False, lambda loop, near: loop.sock_recv_into(near, bytearray(9)),
           lambda far: far.send(b"hi"), 2),
    Method("sock_recvfrom", False, lambda loop, near: loop.sock_recvfrom(near, 9),
           lambda far: far.send(b"hi"), (b"hi", None)),
    Method("sock_recvfrom_into", False,
           lambda loop, near: loop.sock_recvfrom_into(near, bytearray(9)),
           lambda far: far.send(b"hi"), (2, None)),
    Method("sock_sendall", True, lambda loop, near: loop.sock_sendall(near, b"hi"),
           None, None),
]  # fmt: skip
METHOD_IDS = [method.name for method in METHODS]


class Waiting:
    """A task that waits in a method."""

    def __init__(self, loop, method, pair):
        self.loop, self.method = loop, method
        self.near, self.far = pair
        self.filled = fill(self.near) if method.writes else 0
        self.task = loop.create_task(method.call(loop, self.near))
        turn(loop, 2)
        assert not self.task.done()

    def finish(self):
        if self.method.writes:
            drain(self.far, self.filled)
        else:
            self.method.end(self.far)

    def is_registered(self):
        remove = self.loop.remove_writer if self.method.writes else self.loop.remove_reader
        return remove(self.near)


def test_what_works_at_once_does_not_suspend(loop, tcp, datagrams):
    near, far = tcp
    far.send(b"abcd")
    one, two = datagrams
    one.sendto(b"ping", two.getsockname())
    one.sendto(b"pong", two.getsockname())

    def result(coro):
        with pytest.raises(StopIteration) as stopped:
            coro.send(None)
        return stopped.value.value

    async def body():
        assert result(loop.sock_recv(near, 2)) == b"ab"
        assert result(loop.sock_recv_into(near, bytearray(9))) == 2
        assert result(loop.sock_sendall(near, b"xyz")) is None
        assert far.recv(9) == b"xyz"
        sender = one.getsockname()
        assert result(loop.sock_recvfrom(two, 9)) == (b"ping", sender)
        assert result(loop.sock_recvfrom_into(two, bytearray(9))) == (4, sender)
        assert result(loop.sock_sendto(two, b"back", sender)) == 4

    run(loop, body())


@pytest.mark.parametrize("method", METHODS, ids=METHOD_IDS)
def test_wait_ends_with_the_result_and_without_registration(loop, pair, method):
    waiting = Waiting(loop, method, pair)
    waiting.finish()
    result = run(loop, waiting.task)
    if isinstance(result, tuple):
        assert result[0] == method.result[0]
    else:
        assert result == method.result
    assert not waiting.is_registered()


@pytest.mark.parametrize("method", METHODS, ids=METHOD_IDS)
def test_cancellation_leaves_no_registration(loop, pair, method):
    waiting = Waiting(loop, method, pair)
    waiting.task.cancel()
    with pytest.raises(asyncio.CancelledError):
        run(loop, waiting.task)
    assert not waiting.is_registered()
    waiting.finish()
    turn(loop, 2)


@pytest.mark.parametrize("method", METHODS, ids=METHOD_IDS)
def test_cancellation_in_the_turn_in_which_the_socket_is_ready(loop, pair, method):
    waiting = Waiting(loop, method, pair)
    waiting.finish()
    waiting.task.cancel()
    with pytest.raises(asyncio.CancelledError):
        run(loop, waiting.task)
    assert not waiting.is_registered()
    if not method.writes:
        assert waiting.near.recv(9) == b"hi"


@pytest.mark.parametrize("method", METHODS, ids=METHOD_IDS)
def test_newer_registration_replaces_the_wait(loop, pair, method):
    waiting = Waiting(loop, method, pair)
    called = loop.create_future()
    done = lambda: called.done() or called.set_result(None)  # noqa: E731
    add = loop.add_writer if method.writes else loop.add_reader
    add(waiting.near, done)
    waiting.finish()
    run(loop, called)
    assert not waiting.task.done()
    waiting.task.cancel()
    with pytest.raises(asyncio.CancelledError):
        run(loop, waiting.task)
    # The cancelled wait has left alone what took its place.
    assert waiting.is_registered()


@pytest.mark.parametrize("method", METHODS, ids=METHOD_IDS)
def test_wait_replaces_an_older_registration(loop, pair, method):
    near, _ = pair
    called = []
    filled = fill(near) if method.writes else 0
    add = loop.add_writer if method.writes else loop.add_reader
    add(near, called.append, 1)
    task = loop.create_task(method.call(loop, near))
    turn(loop, 2)
    if method.writes:
        drain(pair[1], filled)
    else:
        method.end(pair[1])
    run(loop, task)
    assert called == []


@pytest.mark.parametrize("method", METHODS, ids=METHOD_IDS)
def test_registration_taken_away_is_not_removed_twice(loop, pair, method):
    waiting = Waiting(loop, method, pair)
    assert waiting.is_registered()
    assert not waiting.is_registered()
    waiting.task.cancel()
    with pytest.raises(asyncio.CancelledError):
        run(loop, waiting.task)


@pytest.mark.parametrize("method", METHODS, ids=METHOD_IDS)
def test_socket_closed_while_a_method_waits(loop, method):
    near, far = socket.socketpair()
    near.setblocking(False)
    far.setblocking(False)
    with far:
        waiting = Waiting(loop, method, (near, far))
        fd = near.fileno()
        near.close()
        turn(loop, 2)
        assert not waiting.task.done()
        waiting.task.cancel()
        with pytest.raises(asyncio.CancelledError):
            run(loop, waiting.task)
        remove = loop.remove_writer if method.writes else loop.remove_reader
        assert not remove(fd)


@pytest.mark.parametrize("method", METHODS, ids=METHOD_IDS)
def test_nothing_holds_socket_and_data_after_the_wait(loop, method):
    near, far = socket.socketpair()
    near.setblocking(False)
    far.setblocking(False)
    waiting = Waiting(loop, method, (near, far))
    waiting.finish()
    run(loop, waiting.task)
    with far:
        ref = weakref.ref(near)
        near.close()
        del near, waiting.near, waiting.task
        turn(loop)
        gc.collect()
        assert ref() is None


def test_loop_closed_while_a_method_waits(aio, pair):
    loop = asyncio.SelectorEventLoop() if aio is asyncio else aio.new_event_loop()
    task = loop.create_task(loop.sock_recv(pair[0], 9))
    turn(loop, 2)
    loop.close()
    task._log_destroy_pending = False
    coro = task.get_coro()
    coro.close()
    del task, coro
    gc.collect()


def test_closing_the_coroutine_takes_the_registration_back(aio, loop, pair):
    if aio is asyncio:
        pytest.skip("asyncio's reader stays and swallows what comes")
    near, _far = pair

    async def body():
        coro = loop.sock_recv(near, 9)
        coro.send(None)
        coro.close()
        assert not loop.remove_reader(near)

    run(loop, body())


# ------------------------------------------------------------------ data


def test_much_data_arrives_as_it_was_sent(loop, pair):
    near, far = pair
    data = os.urandom(1 << 20) * 12

    async def receive():
        digest, missing = hashlib.sha1(), len(data)
        while missing:
            part = await loop.sock_recv(far, 300_000)
            digest.update(part)
            missing -= len(part)
        return digest.digest()

    async def receive_into():
        digest, missing, buffer = hashlib.sha1(), len(data), bytearray(2_000_000)
        while missing:
            count = await loop.sock_recv_into(near, buffer)
            digest.update(memoryview(buffer)[:count])
            missing -= count
        return digest.digest()

    async def body():
        expected = hashlib.sha1(data).digest()
        results = await asyncio.gather(
            receive(),
            receive_into(),
            loop.sock_sendall(near, data),
            loop.sock_sendall(far, bytearray(data)),
        )
        assert results == [expected, expected, None, None]

    run(loop, body())


@pytest.mark.parametrize(
    "make",
    [bytes, bytearray, memoryview, lambda data: memoryview(bytearray(data))[:],
     lambda data: array.array("B", data)],
    ids=["bytes", "bytearray", "memoryview", "slice", "array"],
)  # fmt: skip
def test_sendall_takes_any_buffer(loop, pair, make):
    near, far = pair
    data = os.urandom(3_000_000)

    async def body():
        task = loop.create_task(loop.sock_sendall(near, make(data)))
        received = bytearray()
        while len(received) < len(data):
            received += await loop.sock_recv(far, 1 << 20)
        assert received == data
        assert await task is None

    run(loop, body())


def test_sendall_counts_bytes_not_items(aio, loop, pair):
    if aio is asyncio:
        pytest.skip("asyncio compares the number of bytes with that of items, and does not end")
    near, far = pair
    data = array.array("I", range(1000))
    run(loop, loop.sock_sendall(near, data))
    assert far.recv(8000) == data.tobytes()
    filled = fill(near)
    task = loop.create_task(loop.sock_sendall(near, data))
    turn(loop, 2)
    drain(far, filled)
    run(loop, task)
    assert far.recv(8000) == data.tobytes()


def test_sendall_of_nothing(loop, pair):
    near, _ = pair
    assert run(loop, loop.sock_sendall(near, b"")) is None
    fill(near)
    assert run(loop, loop.sock_sendall(near, b"")) is None


def test_sendall_gives_the_buffer_back(loop, pair):
    near, far = pair
    filled = fill(near)
    data = bytearray(b"hello")
    task = loop.create_task(loop.sock_sendall(near, data))
    turn(loop, 2)
    with pytest.raises(BufferError):
        data.clear()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        run(loop, task)
    data.clear()
    data += b"again"
    task = loop.create_task(loop.sock_sendall(near, data))
    turn(loop, 2)
    drain(far, filled)
    run(loop, task)
    data.clear()
    assert far.recv(9) == b"again"


def test_recv_of_nothing_and_at_the_end(loop, pair):
    near, far = pair
    assert run(loop, loop.sock_recv(near, 0)) == b""
    assert run(loop, loop.sock_recv_into(near, bytearray())) == 0
    far.close()
    assert run(loop, loop.sock_recv(near, 9)) == b""
    assert run(loop, loop.sock_recv_into(near, bytearray(9))) == 0


def test_recv_into_leaves_the_rest_of_the_buffer(loop, pair):
    near, far = pair
    buffer = bytearray(b"0123456789")
    far.send(b"abc")
    assert run(loop, loop.sock_recv_into(near, memoryview(buffer)[2:])) == 3
    assert buffer == b"01abc56789"
    task = loop.create_task(loop.sock_recv_into(near, buffer))
    turn(loop, 2)
    far.send(b"xy")
    assert run(loop, task) == 2
    assert buffer == b"xyabc56789"


def test_datagrams(loop, datagrams):
    near, far = datagrams
    address = near.getsockname()

    async def body():
        task = loop.create_task(loop.sock_recvfrom(far, 99))
        await asyncio.sleep(0)
        assert await loop.sock_sendto(near, b"one", far.getsockname()) == 3
        assert await task == (b"one", address)
        buffer = bytearray(9)
        task = loop.create_task(loop.sock_recvfrom_into(far, buffer, 2))
        await asyncio.sleep(0)
        await loop.sock_sendto(near, bytearray(b"two"), far.getsockname())
        assert await task == (2, address)
        assert buffer[:3] == b"tw\0"
        with pytest.raises(ValueError, match="greater than the length"):
            await loop.sock_recvfrom_into(far, buffer, 10)
        await loop.sock_sendto(near, b"", far.getsockname())
        assert await loop.sock_recvfrom(far, 9) == (b"", address)

    run(loop, body())


# ---------------------------------------------------------------- errors


def test_wrong_arguments_are_refused_when_awaited(loop, pair):
    near, far = pair
    far.send(b"data")
    calls = [
        (TypeError, lambda: loop.sock_recv(near, "5")),
        (TypeError, lambda: loop.sock_recv(near, 5.0)),
        (ValueError, lambda: loop.sock_recv(near, -1)),
        (OverflowError, lambda: loop.sock_recv(near, 1 << 80)),
        (TypeError, lambda: loop.sock_recv_into(near, b"read only")),
        (TypeError, lambda: loop.sock_recv_into(near, 5)),
        (TypeError, lambda: loop.sock_recvfrom_into(near, 5)),
        (TypeError, lambda: loop.sock_sendall(near, "text")),
        (TypeError, lambda: loop.sock_sendall(near, None)),
        (BufferError, lambda: loop.sock_sendall(near, memoryview(b"abcd")[::2])),
        (TypeError, lambda: loop.sock_sendto(near, b"", 5, 6)),
        (AttributeError, lambda: loop.sock_recv(object(), 5)),
        (AttributeError, lambda: loop.sock_recv(None, 5)),
    ]
    for error, call in calls[:10] + calls[11:]:
        coro = call()
        with pytest.raises(error):
            run(loop, coro)
    with pytest.raises(calls[10][0]):
        calls[10][1]()


def test_messages_of_wrong_arguments_are_the_sockets_own(loop, pair):
    near, _ = pair
    for method, direct, argument in [
        (loop.sock_recv, near.recv, -1),
        (loop.sock_recv, near.recv, "5"),
        (loop.sock_recv_into, near.recv_into, b"x"),
        (loop.sock_sendall, near.send, "x"),
    ]:
        with pytest.raises(Exception, match=r".") as expected:
            direct(argument)
        with pytest.raises(type(expected.value)) as raised:
            run(loop, method(near, argument))
        assert str(raised.value) == str(expected.value)


def test_closed_socket(loop):
    near, far = socket.socketpair()
    near.setblocking(False)
    near.close()
    far.close()
    for coro in (
        loop.sock_recv(near, 9),
        loop.sock_recv_into(near, bytearray(9)),
        loop.sock_recvfrom(near, 9),
        loop.sock_sendall(near, b"x"),
        loop.sock_accept(near),
    ):
        with pytest.raises(OSError, match="Errno") as raised:
            run(loop, coro)
        assert raised.value.errno == errno.EBADF


def test_peer_that_is_gone(loop, pair, tcp):
    near, far = pair
    far.close()
    with pytest.raises(BrokenPipeError) as raised:
        run(loop, loop.sock_sendall(near, b"x"))
    assert raised.value.args == (errno.EPIPE, os.strerror(errno.EPIPE))
    near, far = tcp
    far.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    task = loop.create_task(loop.sock_recv(near, 9))
    turn(loop, 2)
    far.close()
    with pytest.raises(ConnectionResetError) as raised:
        run(loop, task)
    assert raised.value.errno == errno.ECONNRESET
    assert not loop.remove_reader(near)


def test_peer_that_goes_while_much_is_sent(loop, tcp):
    near, far = tcp
    fill(near)
    task = loop.create_task(loop.sock_sendall(near, bytes(1 << 20)))
    turn(loop, 2)
    far.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    far.close()
    with pytest.raises(ConnectionError):
        run(loop, task)
    assert not loop.remove_writer(near)


def test_debug_mode_refuses_sockets_that_block(aio):
    loop = asyncio.SelectorEventLoop() if aio is asyncio else aio.new_event_loop()
    near, far = socket.socketpair()
    with near, far:
        for debug in (True, False):
            loop.set_debug(debug)
            far.send(b"data")
            for timeout in (None, 5.0):
                near.settimeout(timeout)
                if debug:
                    for coro in (
                        loop.sock_recv(near, 1),
                        loop.sock_recv_into(near, bytearray(1)),
                        loop.sock_recvfrom(near, 1),
                        loop.sock_recvfrom_into(near, bytearray(1)),
                        loop.sock_sendall(near, b""),
                        loop.sock_sendto(near, b"", ""),
                        loop.sock_connect(near, ""),
                        loop.sock_accept(near),
                        loop.sock_sendfile(near, None),
                    ):
                        with pytest.raises(ValueError, match="the socket must be non-blocking"):
                            run(loop, coro)
                else:
                    # It blocks then, as the socket is told to.
                    assert run(loop, loop.sock_recv(near, 1)) in (b"d", b"a")
    loop.close()


def test_socket_with_a_timeout_keeps_it(aio, pair):
    loop = asyncio.SelectorEventLoop() if aio is asyncio else aio.new_event_loop()
    near, _ = pair
    near.settimeout(0.01)
    with pytest.raises(TimeoutError):
        run(loop, loop.sock_recv(near, 1))
    loop.close()


def test_tls_sockets_are_refused(loop):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    near, far = socket.socketpair()
    with far, context.wrap_socket(near, do_handshake_on_connect=False, server_hostname="x") as sock:
        for coro in (
            loop.sock_recv(sock, 1),
            loop.sock_recv_into(sock, bytearray(1)),
            loop.sock_recvfrom(sock, 1),
            loop.sock_recvfrom_into(sock, bytearray(1)),
            loop.sock_sendall(sock, b""),
            loop.sock_sendto(sock, b"", ""),
            loop.sock_connect(sock, ""),
            loop.sock_accept(sock),
        ):
            sock.setblocking(False)
            with pytest.raises(TypeError, match="Socket cannot be of type SSLSocket"):
                run(loop, coro)


def test_transport_sockets_have_no_such_methods(loop, pair):
    sock = asyncio.trsock.TransportSocket(pair[0])
    with pytest.raises(AttributeError):
        run(loop, loop.sock_recv(sock, 1))


# ----------------------------------------------------------- other sockets


class Fake:
    """A socket in Python around a real one."""

    def __init__(self, sock, errors=()):
        self.sock, self.errors, self.calls = sock, list(errors), []

    def fileno(self):
        return self.sock.fileno()

    def gettimeout(self):
        return 0.0

    def _call(self, name, *args):
        self.calls.append((name, *args))
        if self.errors and (error := self.errors.pop(0)) is not None:
            raise error
        return getattr(self.sock, name)(*args)

    def recv(self, size):
        return self._call("recv", size)

    def recv_into(self, buffer):
        return self._call("recv_into", buffer)

    def send(self, data):
        return self._call("send", bytes(data))

    def sendto(self, *args):
        return self._call("sendto", *args)


@pytest.mark.parametrize("error", [BlockingIOError, InterruptedError])
def test_methods_of_fakes_are_called(loop, pair, error):
    near, far = pair
    fake = Fake(near, [error()])
    far.send(b"hi")
    assert run(loop, loop.sock_recv(fake, 9)) == b"hi"
    assert fake.calls == [("recv", 9)] * 2
    fake = Fake(near, [error(), error()])
    assert run(loop, loop.sock_sendall(fake, b"hello")) is None
    assert fake.calls == [("send", b"hello")] * 3
    assert not loop.remove_reader(near)
    assert not loop.remove_writer(near)


def test_fake_sends_pieces(loop, pair):
    near, far = pair

    class Slow(Fake):
        def send(self, data):
            return self._call("send", bytes(data[:2]))

    fake = Slow(near)
    run(loop, loop.sock_sendall(fake, b"hello"))
    assert [call[1] for call in fake.calls] == [b"he", b"ll", b"o"]
    assert far.recv(9) == b"hello"


def test_later_sendto_names_the_flags(loop, datagrams):
    near, far = datagrams
    fake = Fake(near, [BlockingIOError()])
    assert run(loop, loop.sock_sendto(fake, b"x", far.getsockname())) == 1
    assert fake.calls == [
        ("sendto", b"x", far.getsockname()),
        ("sendto", b"x", 0, far.getsockname()),
    ]


def test_methods_of_subclasses_are_called(loop):
    class Upper(socket.socket):
        def recv(self, size):
            return super().recv(size).upper()

    near, far = socket.socketpair()
    with far, Upper(near.family, near.type, near.proto, near.detach()) as near:
        near.setblocking(False)
        far.send(b"hi")
        assert run(loop, loop.sock_recv(near, 9)) == b"HI"
        task = loop.create_task(loop.sock_recv(near, 9))
        turn(loop, 2)
        far.send(b"ho")
        assert run(loop, task) == b"HO"


def test_patched_methods_of_the_socket_class_are_called(loop, pair, monkeypatch):
    near, far = pair
    far.send(b"hi")
    assert run(loop, loop.sock_recv(near, 1)) == b"h"
    monkeypatch.setattr(socket.socket, "recv", lambda self, size: b"patched", raising=False)
    assert run(loop, loop.sock_recv(near, 1)) == b"patched"
    monkeypatch.undo()
    assert run(loop, loop.sock_recv(near, 1)) == b"i"


@pytest.mark.parametrize("first", [True, False], ids=["first", "later"])
def test_error_of_an_attempt_reaches_the_caller(loop, pair, first):
    near, far = pair
    error = ValueError("mine")
    fake = Fake(near, [error] if first else [BlockingIOError(), error])
    far.send(b"x")
    with pytest.raises(ValueError, match="mine") as raised:
        run(loop, loop.sock_recv(fake, 9))
    assert raised.value is error
    assert not loop.remove_reader(near)


def test_stop_iteration_becomes_a_runtime_error(loop, pair):
    near, _far = pair
    with pytest.raises(RuntimeError) as raised:
        run(loop, loop.sock_recv(Fake(near, [StopIteration(5)]), 9))
    assert isinstance(raised.value.__cause__, StopIteration)


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
def test_what_must_leave_the_loop_leaves_it(loop, pair, error):
    near, far = pair
    fake = Fake(near, [BlockingIOError(), error()])
    far.send(b"x")
    task = loop.create_task(loop.sock_recv(fake, 9))
    with pytest.raises(error):
        run(loop, task)
    assert not task.done()
    assert run(loop, task) == b"x"


def test_attempt_runs_in_the_context_of_the_caller(loop, pair):
    near, far = pair
    variable = contextvars.ContextVar("variable", default="outer")
    seen = []

    class Spy(Fake):
        def recv(self, size):
            seen.append(variable.get())
            return self._call("recv", size)

    async def body():
        variable.set("inner")
        return await loop.sock_recv(Spy(near), 9)

    task = loop.create_task(body())
    turn(loop, 2)
    far.send(b"x")
    assert run(loop, task) == b"x"
    assert seen == ["inner", "inner"]


def test_attempt_that_cancels_the_waiter(aio, loop, pair):
    if aio is asyncio:
        pytest.skip("asyncio reports an InvalidStateError")
    near, far = pair

    class Canceller(Fake):
        def recv(self, size):
            data = self._call("recv", size)
            task.cancel()
            return data

    task = loop.create_task(loop.sock_recv(Canceller(near), 9))
    turn(loop, 2)
    far.send(b"x")
    with pytest.raises(asyncio.CancelledError):
        run(loop, task)
    assert not loop.remove_reader(near)


def test_attempt_that_closes_the_socket(loop):
    near, far = socket.socketpair()
    near.setblocking(False)

    class Closer(Fake):
        def recv(self, size):
            try:
                return self._call("recv", size)
            finally:
                if len(self.calls) == 2:
                    near.close()

    with far:
        fd = near.fileno()
        task = loop.create_task(loop.sock_recv(Closer(near), 9))
        turn(loop, 2)
        far.send(b"x")
        assert run(loop, task) == b"x"
        assert not loop.remove_reader(fd)


def test_fileno_is_asked_when_it_is_needed(loop, pair):
    near, _far = pair

    class Broken(Fake):
        def fileno(self):
            return -1

    with pytest.raises(ValueError, match="Invalid file descriptor: -1"):
        run(loop, loop.sock_recv(Broken(near), 9))


def test_descriptor_of_a_transport_is_refused(loop, pair):
    near, _far = pair
    other = near.dup()
    other.setblocking(False)

    async def body():
        waiter = loop.create_future()
        transport = loop._make_socket_transport(near, asyncio.Protocol(), waiter)
        await waiter
        for coro in (
            loop.sock_recv(near, 9),
            loop.sock_recv_into(near, bytearray(9)),
            loop.sock_recvfrom(near, 9),
        ):
            with pytest.raises(RuntimeError, match="is used by transport"):
                await coro
        with pytest.raises(RuntimeError, match="is used by transport"):
            loop.add_reader(near, print)
        with pytest.raises(RuntimeError, match="is used by transport"):
            loop.remove_writer(near.fileno())
        transport.abort()
        await asyncio.sleep(0)
        await asyncio.sleep(0)

    with other:
        run(loop, body())


# ------------------------------------------------------ connect and accept


def test_connect_and_accept(loop, listener):
    async def body():
        with socket.socket() as client:
            client.setblocking(False)
            accepting = loop.create_task(loop.sock_accept(listener))
            await asyncio.sleep(0)
            assert await loop.sock_connect(client, listener.getsockname()) is None
            connection, address = await accepting
            with connection:
                assert type(connection) is socket.socket
                assert connection.gettimeout() == 0
                assert address == client.getsockname()
                await loop.sock_sendall(client, b"hi")
                assert await loop.sock_recv(connection, 9) == b"hi"
            assert not loop.remove_reader(listener)
            assert not loop.remove_writer(client)

    run(loop, body())


def test_connect_to_unix_path(loop, tmp_path):
    path = str(tmp_path / "socket")
    with socket.socket(socket.AF_UNIX) as listener, socket.socket(socket.AF_UNIX) as client:
        listener.bind(path)
        listener.listen()
        client.setblocking(False)
        listener.setblocking(False)
        run(loop, loop.sock_connect(client, path))
        connection, address = run(loop, loop.sock_accept(listener))
        with connection:
            assert address in ("", None)
        with pytest.raises(FileNotFoundError):
            run(loop, loop.sock_connect(client, path + "x"))


def test_connect_refused(loop):
    with socket.socket() as taken, socket.socket() as client:
        taken.bind(("127.0.0.1", 0))
        address = taken.getsockname()
        client.setblocking(False)
        with pytest.raises(ConnectionRefusedError) as raised:
            run(loop, loop.sock_connect(client, address))
        assert raised.value.args == (errno.ECONNREFUSED, f"Connect call failed {address}")
        assert not loop.remove_writer(client)


def test_hooks_hear_of_a_connection_once(loop, listener):
    heard = []

    def hook(event, args):
        # There is no way to take it back.
        if event == "socket.connect" and heard is not None and args[0] in watched:
            heard.append(args[1])
            if closes:
                args[0].close()

    watched, closes = [], False
    sys.addaudithook(hook)
    address = listener.getsockname()
    with socket.socket() as client:
        client.setblocking(False)
        watched.append(client)
        run(loop, loop.sock_connect(client, address))
        assert client.getpeername() == address
        assert heard == [address]
    heard.clear()
    closes = True
    with socket.socket() as client:
        client.setblocking(False)
        watched[:] = [client]
        with pytest.raises(OSError, match="Bad file descriptor") as raised:
            run(loop, loop.sock_connect(client, address))
        assert raised.value.errno == errno.EBADF
    assert heard == [address]
    heard = None


def test_connect_to_an_address_of_the_wrong_kind(loop):
    with socket.socket() as client:
        client.setblocking(False)
        for address, error in [
            (("127.0.0.1", 1, 2), TypeError),
            ((b"127.0.0.1", -1), OverflowError),
            (("127.0.0.1", 1.5), TypeError),
        ]:
            with pytest.raises((error, OSError)):
                run(loop, loop.sock_connect(client, address))


@pytest.mark.skipif(not socket.has_ipv6, reason="no IPv6 here")
def test_connect_by_ipv6(loop):
    try:
        listener = socket.create_server(("::1", 0), family=socket.AF_INET6)
    except OSError:
        pytest.skip("no IPv6 here")
    with listener:
        address = listener.getsockname()
        for length in (2, 4):
            with socket.socket(socket.AF_INET6) as client:
                client.setblocking(False)
                run(loop, loop.sock_connect(client, address[:length]))
                assert client.getpeername() == address


def test_patched_connect_is_called(loop, listener, monkeypatch):
    calls = []
    connect = socket.socket.connect

    def patched(self, address):
        calls.append(address)
        return connect(self, address)

    address = listener.getsockname()
    monkeypatch.setattr(socket.socket, "connect", patched, raising=False)
    with socket.socket() as client:
        client.setblocking(False)
        run(loop, loop.sock_connect(client, address))
        assert calls == [address]
        assert client.getpeername() == address


def test_connect_that_fails_at_once(loop):
    with socket.socket() as client:
        client.setblocking(False)
        with pytest.raises(OverflowError):
            run(loop, loop.sock_connect(client, ("127.0.0.1", 1 << 20)))
        with pytest.raises(OSError, match="Errno"):
            run(loop, loop.sock_connect(client, ("255.255.255.255", 9)))


@pytest.mark.parametrize("address", [(), ("127.0.0.1",)])
def test_connect_to_half_an_address(loop, address):
    with socket.socket() as client:
        client.setblocking(False)
        text = rf"not enough values to unpack \(expected 2, got {len(address)}\)"
        with pytest.raises(ValueError, match=text):
            run(loop, loop.sock_connect(client, address))


def test_connect_cancelled(loop):
    with socket.socket() as full, socket.socket() as client:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        waiting = []
        # Until the backlog is full and connections are left hanging.
        for _ in range(4):
            other = socket.socket()
            other.setblocking(False)
            other.connect_ex(full.getsockname())
            waiting.append(other)
        client.setblocking(False)
        task = loop.create_task(loop.sock_connect(client, full.getsockname()))
        turn(loop, 2)
        assert not task.done()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            run(loop, task)
        assert not loop.remove_writer(client)
        for other in waiting:
            other.close()


def test_names_are_looked_up_by_the_loop(loop, listener, monkeypatch):
    port = listener.getsockname()[1]
    calls = []

    async def getaddrinfo(host, port, **keywords):
        calls.append((host, port, keywords))
        await asyncio.sleep(0)
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", port))]

    monkeypatch.setattr(loop, "getaddrinfo", getaddrinfo, raising=False)
    with socket.socket() as client:
        client.setblocking(False)
        run(loop, loop.sock_connect(client, ("some.example", port)))
        assert client.getpeername() == ("127.0.0.1", port)
    keywords = {"family": socket.AF_INET, "type": socket.SOCK_STREAM, "proto": 0, "flags": 0}
    assert calls == [("some.example", port, keywords)]
    with socket.socket() as client:
        client.setblocking(False)
        run(loop, loop.sock_connect(client, ("127.0.0.1", port)))
    assert len(calls) == 1


def test_failed_and_cancelled_look_ups(loop, monkeypatch):
    outcome = OSError("no such name")

    async def getaddrinfo(host, port, **keywords):
        if outcome is None:
            await loop.create_future()
        if isinstance(outcome, list):
            return outcome
        raise outcome

    monkeypatch.setattr(loop, "getaddrinfo", getaddrinfo, raising=False)
    with socket.socket() as client:
        client.setblocking(False)
        with pytest.raises(OSError, match="no such name"):
            run(loop, loop.sock_connect(client, ("some.example", 1)))
        outcome = []
        with pytest.raises(IndexError):
            run(loop, loop.sock_connect(client, ("some.example", 1)))
        outcome = None
        task = loop.create_task(loop.sock_connect(client, ("some.example", 1)))
        turn(loop, 2)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            run(loop, task)
        assert not loop.remove_writer(client)


def test_accept_cancelled_keeps_the_connection(loop, listener):
    task = loop.create_task(loop.sock_accept(listener))
    turn(loop, 2)
    with socket.create_connection(listener.getsockname()):
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            run(loop, task)
        assert not loop.remove_reader(listener)
        connection, _ = run(loop, loop.sock_accept(listener))
        connection.close()


def test_accept_of_what_does_not_listen(loop, pair):
    with pytest.raises(OSError, match="Errno") as raised:
        run(loop, loop.sock_accept(pair[0]))
    assert raised.value.errno in (errno.EINVAL, errno.EOPNOTSUPP)


def test_no_descriptor_is_left(loop, listener):
    def count():
        gc.collect()
        return len(os.listdir("/proc/self/fd"))

    if sys.platform != "linux":
        pytest.skip("descriptors are counted in /proc")

    async def body():
        with socket.socket() as client:
            client.setblocking(False)
            accepting = loop.create_task(loop.sock_accept(listener))
            await loop.sock_connect(client, listener.getsockname())
            connection, _ = await accepting
            with connection:
                task = loop.create_task(loop.sock_recv(connection, 9))
                await asyncio.sleep(0)
                task.cancel()

    run(loop, body())
    turn(loop)
    before = count()
    for _ in range(5):
        run(loop, body())
    turn(loop)
    assert count() == before

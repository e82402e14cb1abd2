"""User code at each place where a transport, a server or a socket method calls it, does what it should not.

Each story is told twice, with the stdlib's loop and with aioxide's, and has to be the same: what was called, what was
reported, how it ended. Where the stdlib stumbles over itself, what has to hold all the same is stated here.
"""

import asyncio
import contextlib
import gc
import io
import os
import socket
import weakref

import pytest

import aioxide

KINDS = {}
CALLBACKS = ["connection_made", "data_received", "eof_received", "pause_writing", "resume_writing", "connection_lost"]
CALLBACKS += ["datagram_received", "error_received"]


class Boom(Exception):
    """An error of the user's."""


class Story:
    """A loop, a transport, and what happens to them."""

    def __init__(self, namespace, callback, act):
        self.loop = asyncio.SelectorEventLoop() if namespace is asyncio else aioxide.new_event_loop()
        self.loop.set_exception_handler(self.report)
        self.callback, self.act = callback, act
        self.events = []
        self.transport = self.file = None
        self.other = Noting(self, "other")

    def report(self, _loop, context):
        self.events.append(("reported", type(context.get("exception"))))

    def turn(self, count=3):
        for _ in range(count):
            self.loop.call_soon(self.loop.stop)
            try:
                self.loop.run_forever()
            except SystemExit:
                self.events.append("left the loop")

    def made(self, coroutine):
        """Waits for a transport, through whatever its protocol does."""
        task = self.loop.create_task(coroutine)
        for _ in range(30):
            if not task.done():
                self.turn(1)
        assert task.done()
        task.result()

    def attempt(self, function, *arguments):
        """Calls a method of the transport, which may tell the protocol something."""
        try:
            function(*arguments)
        except (Boom, asyncio.CancelledError, SystemExit, OSError) as error:
            self.events.append(("raised", type(error)))
        except AttributeError:
            # asyncio's transport that lost its loop.
            assert type(self.loop) is asyncio.SelectorEventLoop


class Noting(asyncio.Protocol, asyncio.DatagramProtocol):
    """A protocol that notes what it is told, and acts once."""

    def __init__(self, story, name):
        self.story, self.name = story, name

    def note(self, callback, *details):
        story = self.story
        story.events.append((self.name, callback, *details))
        if callback == story.callback and self.name == "first":
            story.callback = None
            try:
                ACTS[story.act](story)
            except (Boom, asyncio.CancelledError, SystemExit):
                raise
            except (RuntimeError, NotImplementedError, OSError) as error:
                story.events.append(("refused", type(error)))

    def connection_made(self, transport):
        self.story.transport = transport
        self.note("connection_made")

    def data_received(self, data):
        self.note("data_received", bytes(data))

    def datagram_received(self, data, addr):
        self.note("datagram_received", data)

    def error_received(self, exc):
        self.note("error_received", type(exc))

    def eof_received(self):
        self.note("eof_received")

    def pause_writing(self):
        self.note("pause_writing")

    def resume_writing(self):
        self.note("resume_writing")

    def connection_lost(self, exc):
        self.note("connection_lost", type(exc))


def abort(story):
    getattr(story.transport, "abort", story.transport.close)()


def raises(error):
    def act(_):
        raise error

    return act


def write(story):
    if hasattr(story.transport, "sendto"):
        story.transport.sendto(b"w")
    elif hasattr(story.transport, "write"):
        story.transport.write(b"w")


ACTS = {
    "raises": raises(Boom),
    "is cancelled": raises(asyncio.CancelledError),
    "leaves the loop": raises(SystemExit),
    "closes": lambda story: story.transport.close(),
    "aborts": abort,
    "closes, then aborts": lambda story: (story.transport.close(), abort(story)),
    "closes the socket": lambda story: story.file.close(),
    "stops the loop": lambda story: story.loop.stop(),
    # Not while the loop stands still: then it may be closed.
    "closes the loop": lambda story: story.loop.is_running() and story.loop.close(),
    "runs the loop": lambda story: story.loop.is_running() and story.loop.run_forever(),
    "takes another protocol": lambda story: story.transport.set_protocol(story.other),
    "pauses": lambda story: story.transport.pause_reading(),
    "pauses and resumes": lambda story: (story.transport.pause_reading(), story.transport.resume_reading()),
    "writes": write,
    "collects": lambda story: gc.collect(),
}


def kind(function):
    """A generator function that makes things happen to a transport; after each step the story goes on."""
    KINDS[function.__name__] = function
    return function


def empty(read):
    with contextlib.suppress(BlockingIOError, ConnectionError):
        while read(1 << 20):
            pass


@kind
def stream(story):
    near, far = socket.socketpair()
    with far:
        far.setblocking(False)
        story.file = near
        story.made(story.loop.connect_accepted_socket(lambda: Noting(story, "first"), near))
        for data in b"one", b"two":
            with contextlib.suppress(OSError):
                far.send(data)
            story.turn()
        story.transport.set_write_buffer_limits(high=0)
        story.attempt(story.transport.write, bytes(4 << 20))
        for _ in range(40):
            empty(far.recv)
            story.turn(1)
    story.turn(5)
    story.attempt(story.transport.close)


@kind
def datagrams(story):
    near, far = (socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) for _ in range(2))
    with far:
        for sock in near, far:
            sock.bind("")
            sock.setblocking(False)
        near.connect(far.getsockname())
        far.connect(near.getsockname())
        story.file = near
        story.made(story.loop.create_datagram_endpoint(lambda: Noting(story, "first"), sock=near))
        for data in b"one", b"two":
            with contextlib.suppress(OSError):
                far.send(data)
        story.turn(5)
        story.transport.set_write_buffer_limits(high=0)
        for _ in range(2000):
            if story.transport.get_write_buffer_size() or story.transport.is_closing():
                break
            story.attempt(story.transport.sendto, bytes(200))
        for _ in range(2):
            empty(far.recv)
            story.turn()
    story.attempt(story.transport.sendto, b"refused")
    story.turn()
    story.attempt(story.transport.close)


@kind
def read_pipe(story):
    reading, writing = os.pipe()
    story.file = io.FileIO(reading)
    with open(writing, "wb", 0) as file:
        story.made(story.loop.connect_read_pipe(lambda: Noting(story, "first"), story.file))
        for data in b"one", b"two":
            with contextlib.suppress(BrokenPipeError):
                file.write(data)
            story.turn()
    story.turn(5)
    story.attempt(story.transport.close)


@kind
def write_pipe(story):
    reading, writing = os.pipe()
    os.set_blocking(reading, False)
    story.file = io.FileIO(writing, "w")
    with open(reading, "rb", 0) as file:
        story.made(story.loop.connect_write_pipe(lambda: Noting(story, "first"), story.file))
        story.transport.set_write_buffer_limits(high=0)
        for _ in range(50):
            if story.transport.get_write_buffer_size() or story.transport.is_closing():
                break
            story.attempt(story.transport.write, bytes(8192))
        story.turn(2)
        for _ in range(2):
            empty(file.read)
            story.turn()
    story.turn(5)
    story.attempt(story.transport.close)


def told(namespace, name, callback, act):
    """What happened, and whether anything is left of the transport."""
    story = Story(namespace, callback, act)
    try:
        KINDS[name](story)
        story.turn()
        story.attempt(abort, story)
        story.turn()
        events = story.events
        closed = story.file.closed if isinstance(story.file, io.FileIO) else story.file.fileno() == -1
        transport = weakref.ref(story.transport)
    finally:
        if not story.loop.is_closed():
            story.loop.close()
    del story
    gc.collect()
    return events, closed, transport() is None


STUMBLES = {
    ("closes the socket", "pause_writing"),
    ("closes the socket", "resume_writing"),
    ("closes", "resume_writing"),
    ("aborts", "resume_writing"),
    *(("closes, then aborts", callback) for callback in CALLBACKS),
    ("aborts", "connection_lost"),
    ("leaves the loop", "resume_writing"),
}
"""What asyncio's transports do not survive without errors of their own."""


@pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")
@pytest.mark.parametrize("callback", CALLBACKS)
@pytest.mark.parametrize("name", KINDS)
def test_protocols_that_act_in_a_callback(name, callback):
    for act in ACTS:
        events, closed, gone = told(aioxide, name, callback, act)
        assert closed, act
        assert gone, act
        # The end is told once, to whichever protocol there is then.
        assert [event[1] for event in events if event[1:]].count("connection_lost") == 1, (act, events)
        reported = {event[1] for event in events if event[0] == "reported"}
        assert reported <= {Boom, asyncio.CancelledError, OSError}, (act, events)
        if (act, callback) not in STUMBLES:
            assert (events, closed) == told(asyncio, name, callback, act)[:2], act


# Servers.

SERVER_ACTS = {
    "raises": (raises(Boom), "goes on"),
    "is cancelled": (raises(asyncio.CancelledError), "goes on"),
    "leaves the loop": (raises(SystemExit), "leaves"),
    "closes the server": (lambda loop, server, task: server.close(), "ends"),
    "closes the clients": (lambda loop, server, task: server.close_clients(), "goes on"),
    "aborts the clients": (lambda loop, server, task: server.abort_clients(), "goes on"),
    "cancels who serves": (lambda loop, server, task: task.cancel(), "ends"),
    "closes the loop": (lambda loop, server, task: loop.close(), "goes on"),
    "stops the loop": (lambda loop, server, task: loop.stop(), "leaves"),
    "serves again": (lambda loop, server, task: loop.create_task(server.start_serving()), "goes on"),
    "collects": (lambda loop, server, task: gc.collect(), "goes on"),
    "stops to accept": (lambda loop, server, task: loop.remove_reader(server.sockets[0]), "is deaf"),
}


@pytest.mark.parametrize("act", SERVER_ACTS)
def test_factories_that_act(act):
    """A server that is not ended serves the next client."""
    function, then = SERVER_ACTS[act]
    loop = aioxide.new_event_loop()
    reports, made, acted = [], [], []
    loop.set_exception_handler(lambda _, context: reports.append(context["exception"]))

    class Echo(asyncio.Protocol):
        def connection_made(self, transport):
            self.transport = transport
            made.append(self)

        def data_received(self, data):
            self.transport.write(data)

    def factory():
        if not acted:
            acted.append(True)
            if then == "goes on" and act in {"raises", "is cancelled"}:
                function(None)
            if act == "leaves the loop":
                function(None)
            try:
                function(loop, server, task)
            except RuntimeError as error:
                assert "running" in str(error)
        return Echo()

    async def ask(address):
        with socket.socket() as sock:
            sock.setblocking(False)
            await loop.sock_connect(sock, address)
            await loop.sock_sendall(sock, b"x")
            with contextlib.suppress(ConnectionError):
                return await loop.sock_recv(sock, 1)

    async def main():
        nonlocal server, task
        server = await loop.create_server(factory, "127.0.0.1", 0)
        task = asyncio.ensure_future(server.serve_forever())
        await asyncio.sleep(0)
        return server.sockets[0].getsockname()

    server = task = None
    address = loop.run_until_complete(main())
    asking = loop.create_task(ask(address))
    if then == "leaves":
        with pytest.raises(SystemExit) if act == "leaves the loop" else contextlib.nullcontext():
            loop.run_forever()
    first = loop.run_until_complete(asyncio.wait_for(asking, 10)) if then != "ends" else None
    assert first in {b"x", b"", None}
    if then == "ends":
        loop.run_until_complete(asyncio.wait([task], timeout=10))
        assert task.cancelled()
        loop.run_until_complete(asyncio.wait([asking], timeout=10))
    elif then == "is deaf":
        later = loop.create_task(ask(address))
        loop.run_until_complete(asyncio.wait([later], timeout=0.01))
        assert not later.done()
        later.cancel()
        loop.run_until_complete(asyncio.wait([later]))
    else:
        assert loop.run_until_complete(asyncio.wait_for(ask(address), 10)) == b"x"
    server.close()
    loop.run_until_complete(asyncio.wait([task], timeout=10))
    loop.run_until_complete(asyncio.wait_for(server.wait_closed(), 10))
    expected = {"raises": {Boom}, "is cancelled": {asyncio.CancelledError}, "closes the server": {RuntimeError}}
    assert {type(error) for error in reports} <= expected.get(act, set())
    loop.close()


# Methods of sockets.


class Acting(socket.socket):
    """Its methods act when there is something to do for them."""

    act = None

    def attempt(self, name, *arguments):
        result = getattr(super(), name)(*arguments)
        act, self.act = self.act, None
        if act is not None:
            act()
        return result

    def recv(self, *arguments):
        return self.attempt("recv", *arguments)

    def accept(self):
        return self.attempt("accept")


@pytest.mark.parametrize("act", ["again", "writer", "reader", "forget", "close", "cancel", "loop", "stop", "run", "gc"])
def test_sockets_that_act_while_they_are_read(aio, act):
    """Whatever it does, the task ends, and nothing stays registered."""
    if aio is asyncio and act == "cancel":
        pytest.skip("asyncio reports an InvalidStateError")
    loop = asyncio.SelectorEventLoop() if aio is asyncio else aioxide.new_event_loop()
    reports = []
    loop.set_exception_handler(lambda _, context: reports.append(context))
    near, far = socket.socketpair()
    sock = Acting(fileno=near.detach())
    sock.setblocking(False)
    task = loop.create_task(loop.sock_recv(sock, 1))
    loop.call_soon(loop.stop)
    loop.run_forever()
    others = []
    number = sock.fileno()

    def refused(function):
        with pytest.raises(RuntimeError, match="running"):
            function()

    sock.act = {
        "again": lambda: others.append(loop.create_task(loop.sock_recv(sock, 1))),
        "writer": lambda: loop.add_writer(sock, others.append, None),
        "reader": lambda: loop.add_reader(sock, others.append, None),
        "forget": lambda: loop.remove_reader(sock),
        "close": sock.close,
        "cancel": task.cancel,
        "loop": lambda: refused(loop.close),
        "stop": loop.stop,
        "run": lambda: refused(loop.run_forever),
        "gc": gc.collect,
    }[act]
    far.send(b"x")
    if act == "stop":
        loop.run_forever()
    loop.run_until_complete(asyncio.wait([task], timeout=10))
    assert task.done()
    if act == "cancel":
        assert task.cancelled()
    else:
        assert task.result() == b"x"
    if act == "again":
        far.send(b"y")
        assert loop.run_until_complete(asyncio.wait_for(others[0], 10)) == b"y"
    loop.remove_writer(number)
    if act != "reader":
        assert not loop.remove_reader(number)
    assert reports == []
    loop.close()
    sock.close()
    far.close()

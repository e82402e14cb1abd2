"""A fork inside a callback of TLS or of a child process.

The parent's connection and its child go on as if nothing had happened, whatever becomes of the forked process: it ends
at once or in an ordinary way, runs loops of its own, or goes on with the parent's loop as its copy. It sends nothing of
what the parent has begun: TLS by hand on the other side would find the record that comes twice.
"""

import asyncio
import contextlib
import gc
import os
import signal
import socket
import ssl
import subprocess
import sys
import threading
import traceback

import pytest
from tls_certificates import client_context, server_context
from tls_talk import PATIENCE, BufferedRecorder, Hand, Recorder, connected, run, until

import aioxide

pytestmark = [
    pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here"),
    pytest.mark.filterwarnings("ignore:.*use of fork.*may lead to deadlocks:DeprecationWarning"),
]


class Fork:
    """Forks once, when called; the forked process does its deed and ends, the other one waits for it."""

    def __init__(self, loop, deed):
        self.loop, self.deed = loop, deed
        self.status = None
        self.trouble = ""
        self.parent = os.getpid()
        self.over = threading.Event()

    def __call__(self, *arguments):
        if self.status is not None:
            return
        self.arguments = arguments
        readable, writable = os.pipe()
        pid = os.fork()
        if pid == 0:
            self.status = 1
            signal.alarm(30)
            try:
                DEEDS[self.deed](self)
            except Exception:
                os.write(writable, traceback.format_exc().encode())
                os._exit(1)
            return
        os.close(writable)
        with open(readable) as pipe:
            self.trouble = pipe.read()
        self.status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        self.over.set()

    async def only_in_parent(self):
        """A forked process that goes on waits here for its end."""
        if os.getpid() != self.parent:
            await self.loop.create_future()

    @contextlib.contextmanager
    def the_child_ends(self):
        """A forked process that gets out of the block fails."""
        try:
            yield
        finally:
            if os.getpid() != self.parent:
                traceback.print_exc()
                os._exit(1)

    def check(self):
        """It was called, and the forked process ended well."""
        assert (self.status, self.trouble) == (0, "")


def end(fork):
    os._exit(0)


def collect(fork):
    gc.collect()
    os._exit(0)


def run_a_loop(fork):
    """TLS and a child of its own."""

    async def main():
        async with connected(asyncio.get_running_loop()) as (client, server):
            client.transport.write(b"x")
            await server.has(1)
        process = await aioxide.create_subprocess_exec("cat", stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert await process.communicate(b"x") == (b"x", None)
        assert process.returncode == 0

    aioxide.run(main())
    os._exit(0)


def go_on(fork):
    """Returns from the callback; some turns later it ends."""

    def later(count):
        if count == 0:
            os._exit(0)
        fork.loop.call_soon(later, count - 1)

    later(4)


def close(fork):
    """Closes what the callback belongs to."""
    protocol = fork.arguments[0] if fork.arguments else None
    if isinstance(protocol, Recorder):
        protocol.transport.close()
        protocol.transport.close()
    os._exit(0)


def leave(fork):
    """Leaves the loop, and the program, in the ordinary way. What it then says of tasks is of no interest."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    sys.exit()


DEEDS = {"end": end, "collect": collect, "run a loop": run_a_loop, "go on": go_on, "close": close, "leave": leave}
IN_TESTS = [deed for deed in DEEDS if deed != "leave"]


@pytest.fixture
def loop():
    """A native loop."""
    loop = aioxide.new_event_loop()
    yield loop
    loop.close()


# TLS.


def forking_protocol(place, fork):
    """A protocol that forks in one of its callbacks."""
    if place in ("get_buffer", "buffer_updated"):
        name = "data_received" if place == "buffer_updated" else place
        return lambda: BufferedRecorder(**{name: fork})
    return lambda: Recorder(**{place: fork})


def forking_contexts(place, fork):
    """Contexts of a client and a server in which something forks."""
    contexts = client_context(), server_context()
    if place == "server name":
        contexts[1].sni_callback = fork

    class Forking(ssl.SSLObject):
        def do_handshake(self):
            if place == "before the handshake":
                fork()
            super().do_handshake()
            if place == "after the handshake":
                fork()

        def read(self, *args):
            data = super().read(*args)
            if place == "read":
                fork()
            return data

        def unwrap(self):
            if place == "unwrap":
                fork()
            super().unwrap()

    if place in ("before the handshake", "after the handshake", "read", "unwrap"):
        for context in contexts:
            context.sslobject_class = Forking
    return contexts


PLACES = [
    "server name",
    "before the handshake",
    "after the handshake",
    "read",
    "unwrap",
    "connection_made",
    "data_received",
    "get_buffer",
    "buffer_updated",
    "eof_received",
    "connection_lost",
]


EARLY = ["server name", "before the handshake", "after the handshake", "connection_made", "get_buffer"]
"""Places where it forks before there is data, which the forked process could take if it goes on."""


def speak_by_hand(hand, sock, over):
    """The other side's part of the conversation, in a thread, which a forked process does not have."""
    received = b""
    data = b""
    while True:
        sock.sendall(hand.shake(data))
        if hand.error:
            raise hand.error
        if hand.ready:
            break
        data = sock.recv(1 << 16)
        assert data, "the handshake was cut off"
    if over is not None:
        over.wait(PATIENCE)
    sock.sendall(hand.seal(b"ping"))
    while len(received) < 4:
        received += hand.open(sock.recv(1 << 16))
    sock.sendall(hand.seal(b"again"))
    while not hand.ended:
        data = sock.recv(1 << 16)
        assert data, "TLS was not ended"
        received += hand.open(data)
    sock.sendall(hand.end())
    assert sock.recv(1 << 16) == b""
    return received


async def talk(loop, fork, place, side):
    """A whole life of a connection whose other side is TLS by hand. Returns what each side received."""
    client, server = forking_contexts(place, fork)
    near, far = socket.socketpair()
    far.settimeout(PATIENCE)
    protocol = forking_protocol(place, fork)
    with far:
        if side == "server":
            opening = loop.connect_accepted_socket(protocol, near, ssl=server)
            hand = Hand(client_context())
        else:
            opening = loop.create_connection(protocol, sock=near, ssl=client, server_hostname="localhost")
            other = server_context()
            # A forked process that goes on would take the tickets.
            other.num_tickets = 0
            hand = Hand(other, server_side=True)
        speaking = loop.run_in_executor(None, speak_by_hand, hand, far, fork.over if place in EARLY else None)
        try:
            transport, own = await opening
        except ConnectionAbortedError:
            await fork.only_in_parent()
            raise
        await own.has(4)
        await fork.only_in_parent()
        transport.write(b"pong")
        await own.has(9)
        await fork.only_in_parent()
        transport.close()
        await fork.only_in_parent()
        await asyncio.wait_for(own.lost, PATIENCE)
        return await speaking, bytes(own.data)


TALK = (b"pong", b"pingagain")
"""What it returns."""


@pytest.mark.parametrize("deed", IN_TESTS)
@pytest.mark.parametrize("side", ["client", "server"])
@pytest.mark.parametrize("place", PLACES)
def test_parent_goes_on_with_tls(loop, place, side, deed):
    if place == "server name" and side == "client":
        pytest.skip("the client names the server")
    fork = Fork(loop, deed)
    with fork.the_child_ends():
        assert run(loop, talk(loop, fork, place, side), threads=True) == TALK
    fork.check()


# Children.


class Watcher(asyncio.SubprocessProtocol):
    """Notes what it is told of a child, and acts on it."""

    def __init__(self, place, fork):
        self.place, self.fork = place, fork
        self.log = []
        self.data = bytearray()
        self.transport = None
        self.lost = asyncio.get_running_loop().create_future()

    def note(self, name, *arguments):
        self.log.append((name, *arguments))
        if name == self.place:
            self.fork()

    def connection_made(self, transport):
        self.transport = transport
        self.note("connection_made")

    def pipe_data_received(self, fd, data):
        self.data += data
        if len(self.log) == 1:
            # More than the pipes take: the rest waits, and is the parent's.
            self.transport.get_pipe_transport(0).write(MUCH)
            self.note("pipe_data_received")

    def pipe_connection_lost(self, fd, exc):
        self.note("pipe_connection_lost", fd, exc)

    def process_exited(self):
        self.note("process_exited")

    def connection_lost(self, exc):
        self.note("connection_lost", exc)
        self.lost.set_result(None)


MUCH = bytes(range(256)) * 4096


async def look_after_child(loop, fork, place):
    """A whole life of a child. Returns what it wrote, how it ended, and what the protocol was told, in any order."""
    transport, protocol = await loop.subprocess_exec(
        lambda: Watcher(place, fork), "cat", stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=None
    )
    await fork.only_in_parent()
    stdin = transport.get_pipe_transport(0)
    stdin.write(b"ping")
    await until(lambda: len(protocol.data) == 4 + len(MUCH))
    await fork.only_in_parent()
    stdin.close()
    await asyncio.wait_for(protocol.lost, PATIENCE)
    transport.close()
    return bytes(protocol.data) == b"ping" + MUCH, transport.get_returncode(), sorted(protocol.log, key=repr)


CHILD = (
    True,
    0,
    [
        ("connection_lost", None),
        ("connection_made",),
        ("pipe_connection_lost", 0, None),
        ("pipe_connection_lost", 1, None),
        ("pipe_data_received",),
        ("process_exited",),
    ],
)
"""What it returns."""

TOLD = sorted({entry[0] for entry in CHILD[2]})


@pytest.mark.parametrize("deed", IN_TESTS)
@pytest.mark.parametrize("place", TOLD)
def test_parent_goes_on_with_its_child(loop, place, deed):
    if (place, deed) == ("pipe_data_received", "go on"):
        pytest.skip("what waits to be sent is sent by whoever goes on: that is two")
    fork = Fork(loop, deed)
    with fork.the_child_ends():
        assert run(loop, look_after_child(loop, fork, place)) == CHILD
    fork.check()


# The ordinary end of a program.


LEAVING = [("tls", place, side) for place in PLACES[4:] for side in ("client", "server")]
LEAVING += [("child", place, "") for place in TOLD]


@pytest.mark.slow
@pytest.mark.parametrize("story", LEAVING, ids=" ".join)
def test_forked_process_leaves_the_program(story):
    """By SystemExit through the loop, the runner and the end of the interpreter."""
    command = [sys.executable, "-W", "ignore::DeprecationWarning", __file__, *story]
    result = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (result.returncode, result.stdout, result.stderr) == (0, "as it should be\n", "")


def main():
    """The program: forks in a callback, where the child raises SystemExit."""
    what, place, side = sys.argv[1:]
    with aioxide.Runner() as runner:
        loop = runner.get_loop()
        fork = Fork(loop, "leave")
        if what == "tls":
            assert runner.run(talk(loop, fork, place, side)) == TALK
        else:
            assert runner.run(look_after_child(loop, fork, place)) == CHILD
    fork.check()
    print("as it should be")


if __name__ == "__main__":
    main()

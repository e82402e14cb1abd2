"""A child after os.fork() has loops of its own and leaves the parent's alone."""

import asyncio
import contextlib
import gc
import io
import os
import signal
import socket
import threading
import traceback

import pytest
from waiting import SUCCESS, in_child, turns

import aioxide

pytestmark = [
    pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here"),
    pytest.mark.filterwarnings("ignore:.*use of fork.*may lead to deadlocks:DeprecationWarning"),
]


async def everything():
    """Uses a bit of all parts of a loop."""
    loop = asyncio.get_running_loop()
    await aioxide.sleep(0)
    await aioxide.sleep(0.001)
    assert await aioxide.to_thread(threading.get_ident) != threading.get_ident()
    async with aioxide.TaskGroup() as group:
        task = group.create_task(aioxide.sleep(0.001, "slept"))
    assert task.result() == "slept"
    future = loop.create_future()
    thread = threading.Thread(target=loop.call_soon_threadsafe, args=(future.set_result, 42))
    thread.start()
    assert await future == 42
    thread.join()
    ours, theirs = socket.socketpair()
    readable = loop.create_future()
    loop.add_reader(ours, readable.set_result, None)
    theirs.send(b"x")
    await readable
    loop.remove_reader(ours)
    ours.close()
    theirs.close()
    return "done"


def run_everything():
    assert aioxide.run(everything()) == "done"


@pytest.fixture
def loop():
    """A native loop of the parent that has run already and works afterwards."""
    loop = aioxide.new_event_loop()
    assert loop.run_until_complete(everything()) == "done"
    yield loop
    assert loop.run_until_complete(aioxide.wait_for(everything(), 5)) == "done"
    loop.run_until_complete(loop.shutdown_default_executor())
    loop.close()


def test_child_runs_a_loop_of_its_own():
    assert in_child(run_everything) == SUCCESS


def test_child_runs_a_loop_of_its_own_beside_an_idle_one(loop):
    assert in_child(run_everything) == SUCCESS


def test_child_forked_in_a_callback_runs_a_loop_of_its_own(loop):
    results = []

    def fork():
        results.append(in_child(run_everything))
        loop.stop()

    loop.call_soon(fork)
    loop.run_forever()
    assert results == [SUCCESS]


def test_child_forked_in_a_task_runs_a_loop_of_its_own(loop):
    async def main():
        return in_child(run_everything)

    assert loop.run_until_complete(main()) == SUCCESS


def test_child_forked_in_a_task_has_no_running_loop(loop):
    def check():
        assert asyncio._get_running_loop() is None
        with pytest.raises(RuntimeError, match="no running event loop"):
            aioxide.get_running_loop()

    async def main():
        return in_child(check)

    assert loop.run_until_complete(main()) == SUCCESS


def test_child_has_no_wakeup_descriptor(loop):
    def check():
        assert signal.set_wakeup_fd(-1) == -1

    async def main():
        return in_child(check)

    assert loop.run_until_complete(main()) == SUCCESS


def test_child_of_a_child(loop):
    def nested():
        async def main():
            return in_child(run_everything)

        assert aioxide.run(main()) == SUCCESS

    async def main():
        return in_child(nested)

    assert loop.run_until_complete(main()) == SUCCESS


def test_parent_goes_on_after_a_fork_in_a_task(loop):
    async def main():
        sleeper = aioxide.create_task(aioxide.sleep(0.01, "slept"))
        await aioxide.sleep(0)
        assert in_child(run_everything) == SUCCESS
        assert await everything() == "done"
        return await sleeper

    assert loop.run_until_complete(main()) == "slept"


async def watch_while(loop, fork):
    """Forks while a reader, a timer and a thread are to come, and awaits all three."""
    ours, theirs = socket.socketpair()
    readable, called = loop.create_future(), loop.create_future()
    loop.add_reader(ours, lambda: readable.done() or readable.set_result(ours.recv(10)))
    timer = aioxide.create_task(aioxide.sleep(0.01, "slept"))
    await aioxide.sleep(0)
    result = fork()
    theirs.send(b"data")
    assert await aioxide.wait_for(readable, 10) == b"data"
    thread = threading.Thread(target=loop.call_soon_threadsafe, args=(called.set_result, 42))
    waiter = aioxide.create_task(aioxide.wait_for(called, 10))
    await aioxide.sleep(0)
    loop.call_later(0.001, thread.start)
    assert await waiter == 42
    thread.join()
    assert await timer == "slept"
    assert loop.remove_reader(ours)
    ours.close()
    theirs.close()
    return result


def test_child_that_drops_the_inherited_loop_does_not_disturb_the_parent():
    loop = aioxide.new_event_loop()
    kept = [loop]

    def drop():
        nonlocal loop
        loop = None
        kept.clear()
        gc.collect()
        run_everything()

    assert loop.run_until_complete(watch_while(loop, lambda: in_child(drop))) == SUCCESS
    loop.close()


def test_child_that_closes_the_inherited_loop_does_not_disturb_the_parent(loop):
    ours, theirs = socket.socketpair()
    seen = []

    def readable():
        seen.append(ours.recv(10))
        loop.stop()

    def close():
        loop.close()
        assert loop.is_closed()
        gc.collect()
        run_everything()

    loop.add_reader(ours, readable)
    assert in_child(close) == SUCCESS
    guard = loop.call_later(2, loop.stop)
    theirs.send(b"data")
    loop.run_forever()
    assert seen == [b"data"]
    thread = threading.Timer(0.01, loop.call_soon_threadsafe, args=(loop.stop,))
    thread.start()
    loop.run_forever()
    thread.join()
    assert not guard.cancelled()
    assert loop.time() < guard.when()
    guard.cancel()
    loop.remove_reader(ours)
    ours.close()
    theirs.close()


def test_child_that_removes_an_inherited_reader_does_not_disturb_the_parent(loop):
    """The kernel's interest list is shared after a fork, so the child must not edit it."""
    ours, theirs = socket.socketpair()
    loop.add_reader(ours, loop.stop)

    def remove():
        loop.remove_reader(ours)
        ours.close()

    assert in_child(remove) == SUCCESS
    guard = loop.call_later(2, loop.stop)
    theirs.send(b"data")
    loop.run_forever()
    assert loop.time() < guard.when()
    guard.cancel()
    loop.remove_reader(ours)
    ours.close()
    theirs.close()


def test_thread_of_the_parent_may_fork_while_the_loop_runs(loop):
    async def main():
        return await aioxide.to_thread(in_child, run_everything)

    assert loop.run_until_complete(main()) == SUCCESS


def test_ctrl_c_works_in_the_child(loop):
    def check():
        async def main():
            os.kill(os.getpid(), signal.SIGINT)
            await aioxide.sleep(3600)

        with pytest.raises(KeyboardInterrupt):
            aioxide.run(main())

    async def main():
        return in_child(check)

    assert loop.run_until_complete(main()) == SUCCESS


def test_child_runs_the_inherited_loop(loop):
    """With a selector and a waker of its own: what each registers and wakes is not the other's."""
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    calls = []
    loop.add_reader(ours, lambda: calls.append(ours.recv(10)))

    async def until_called():
        while not calls:
            await aioxide.sleep(0.001)

    def child():
        # What the parent registered stays registered, and can be removed and added again.
        theirs.send(b"child")
        loop.run_until_complete(aioxide.wait_for(until_called(), 10))
        assert calls == [b"child"]
        assert loop.remove_reader(ours)
        assert loop.run_until_complete(everything()) == "done"
        loop.add_signal_handler(signal.SIGUSR1, loop.stop)
        os.kill(os.getpid(), signal.SIGUSR1)
        loop.run_forever()
        loop.run_until_complete(loop.shutdown_default_executor())
        loop.close()

    assert in_child(child) == SUCCESS
    assert calls == []
    theirs.send(b"parent")
    loop.run_until_complete(aioxide.wait_for(until_called(), 10))
    assert calls == [b"parent"]
    assert loop.remove_reader(ours)
    ours.close()
    theirs.close()


def test_child_that_registers_first_takes_the_loop_over(loop):
    """add_reader() before the first run leaves the parent's selector alone."""
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    calls = []

    def read():
        calls.append(ours.recv(10))
        loop.stop()

    def child():
        loop.add_reader(ours, read)
        theirs.send(b"x")
        loop.run_forever()
        assert calls == [b"x"]

    assert in_child(child) == SUCCESS
    theirs.send(b"y")
    loop.call_soon(loop.stop)
    loop.run_forever()
    assert calls == []
    ours.close()
    theirs.close()


def test_child_forked_in_a_callback_goes_on_with_the_run(loop):
    """Timers, descriptors and calls from threads come to the child, and the parent has its own."""
    readable, writable = os.pipe()
    pairs = {"parent": socket.socketpair(), "child": socket.socketpair()}
    names, got, pids = ["parent"], [], []

    def read(name):
        got.append((name, pairs[name][0].recv(10)))
        thread = threading.Thread(target=loop.call_soon_threadsafe, args=(loop.stop,))
        loop.call_later(0.001, thread.start)

    def fork():
        pids.append(os.fork())
        if pids == [0]:
            signal.alarm(30)
            names[0] = "child"
        other = "parent" if pids == [0] else "child"
        assert loop.remove_reader(pairs[other][0])
        pairs[names[0]][1].send(b"x")

    for name, (ours, _) in pairs.items():
        loop.add_reader(ours, read, name)
    loop.call_soon(fork)
    try:
        loop.run_forever()
        if pids == [0]:
            os.write(writable, repr(got).encode())
    finally:
        if pids == [0]:
            os._exit(0)
    os.close(writable)
    with open(readable) as pipe:
        child = pipe.read()
    os.waitpid(pids[0], 0)
    assert child == "[('child', b'x')]"
    assert got == [("parent", b"x")]
    for ours, theirs in pairs.values():
        loop.remove_reader(ours)
        ours.close()
        theirs.close()


def test_child_forked_in_a_task_goes_on_with_the_run(loop):
    """As a program does that becomes a daemon: after the next turn the loop is the child's, and it is running."""
    readable, writable = os.pipe()
    parent = os.getpid()

    async def main():
        pid = os.fork()
        if pid:
            os.close(writable)
            with open(readable) as pipe:
                told = pipe.read()
            return told, os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        signal.alarm(30)
        await turns(1)
        assert asyncio.get_running_loop() is loop
        loop.add_signal_handler(signal.SIGUSR1, os.write, writable, b"signal ")
        os.kill(os.getpid(), signal.SIGUSR1)
        os.write(writable, (await everything()).encode())
        return None

    try:
        told = loop.run_until_complete(main())
        if os.getpid() != parent:
            assert asyncio._get_running_loop() is None
            os._exit(0)
    finally:
        if os.getpid() != parent:
            traceback.print_exc()
            os._exit(1)
    assert told == ("signal done", 0)


def test_child_without_descriptors_cannot_take_the_loop_over(loop):
    """It is told, and can try again."""
    resource = pytest.importorskip("resource")

    def child():
        limits = resource.getrlimit(resource.RLIMIT_NOFILE)
        with socket.socket() as sock:
            lowest = sock.fileno()
        for spare in range(3):
            resource.setrlimit(resource.RLIMIT_NOFILE, (lowest + spare, limits[1]))
            with pytest.raises(OSError, match="Too many open files"):
                loop.run_forever()
            assert not loop.is_running()
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
        assert loop.run_until_complete(everything()) == "done"

    assert in_child(child) == SUCCESS


# What waits in the parent goes on waiting there, whatever the child does with its copy.

WAITS = {}


def wait(function):
    """A coroutine function that lets something wait: returns how to end it, what lets it succeed, and its future."""
    WAITS[function.__name__] = function
    return function


class Waiting(asyncio.Protocol, asyncio.DatagramProtocol):
    """A protocol that waits for data, for room to write, or for a connection."""

    def __init__(self, succeeded):
        self.succeeded = succeeded

    def connection_made(self, transport):
        pass

    def data_received(self, data):
        self.succeeded.done() or self.succeeded.set_result(data)

    def datagram_received(self, data, addr):
        self.data_received(data)

    def resume_writing(self):
        self.data_received(None)


def sockets(kind=socket.SOCK_STREAM):
    """Two connected sockets that do not block."""
    pair = socket.socketpair(type=kind)
    for sock in pair:
        sock.setblocking(False)
    return pair


def empty(file):
    """Takes what there is to read."""
    read = file.recv if isinstance(file, socket.socket) else file.read
    with contextlib.suppress(BlockingIOError):
        while read(1 << 20):
            pass


@wait
async def stream(loop):
    near, far = sockets()
    succeeded = loop.create_future()
    transport, _ = await loop.connect_accepted_socket(lambda: Waiting(succeeded), near)
    return transport.abort, lambda: far.send(b"x"), succeeded


@wait
async def stream_with_a_queue(loop):
    near, far = sockets()
    succeeded = loop.create_future()
    transport, _ = await loop.connect_accepted_socket(lambda: Waiting(succeeded), near)
    transport.write(bytes(8 << 20))
    return transport.abort, lambda: empty(far), succeeded


@wait
async def datagrams(loop):
    near, far = sockets(socket.SOCK_DGRAM)
    succeeded = loop.create_future()
    transport, _ = await loop.create_datagram_endpoint(lambda: Waiting(succeeded), sock=near)
    return transport.abort, lambda: far.send(b"x"), succeeded


@wait
async def datagrams_with_a_queue(loop):
    near, far = sockets(socket.SOCK_DGRAM)
    succeeded = loop.create_future()
    transport, _ = await loop.create_datagram_endpoint(lambda: Waiting(succeeded), sock=near)
    transport.set_write_buffer_limits(high=0)
    while not transport.get_write_buffer_size():
        transport.sendto(bytes(1000))
    return transport.abort, lambda: empty(far), succeeded


@wait
async def read_pipe(loop):
    reading, writing = os.pipe()
    succeeded = loop.create_future()
    transport, _ = await loop.connect_read_pipe(lambda: Waiting(succeeded), io.FileIO(reading))
    far = io.FileIO(writing, "w")
    return transport.close, lambda: far.write(b"x"), succeeded


@wait
async def write_pipe(loop):
    reading, writing = os.pipe()
    os.set_blocking(reading, False)
    succeeded = loop.create_future()
    transport, _ = await loop.connect_write_pipe(lambda: Waiting(succeeded), io.FileIO(writing, "w"))
    transport.set_write_buffer_limits(high=0)
    while not transport.get_write_buffer_size():
        transport.write(bytes(1 << 16))
    far = io.FileIO(reading)
    return transport.abort, lambda: empty(far), succeeded


@wait
async def server(loop):
    succeeded = loop.create_future()

    def accepted():
        succeeded.done() or succeeded.set_result(None)
        return Waiting(succeeded)

    server = await loop.create_server(accepted, "127.0.0.1", 0)
    address = server.sockets[0].getsockname()
    clients = []
    return server.close, lambda: clients.append(socket.create_connection(address)), succeeded


@wait
async def sock_recv(loop):
    near, far = sockets()
    task = loop.create_task(loop.sock_recv(near, 10))
    return task.cancel, lambda: far.send(b"x"), task


@wait
async def sock_sendall(loop):
    near, far = sockets()
    task = loop.create_task(loop.sock_sendall(near, bytes(1 << 20)))
    return task.cancel, lambda: empty(far), task


@wait
async def sock_accept(loop):
    listener = socket.create_server(("127.0.0.1", 0))
    listener.setblocking(False)
    task = loop.create_task(loop.sock_accept(listener))
    clients = []
    return task.cancel, lambda: clients.append(socket.create_connection(listener.getsockname())), task


@pytest.fixture
def own():
    """A native loop, and what still waits is ended with it."""
    loop = aioxide.new_event_loop()
    ends = []
    yield loop, ends

    async def end():
        for each in ends:
            each()
        for _ in range(3):
            await asyncio.sleep(0)

    loop.run_until_complete(end())
    loop.close()


async def begin(loop, name, ends):
    end, succeed, future = await WAITS[name](loop)
    ends.append(end)
    # Until it is registered.
    for _ in range(3):
        await asyncio.sleep(0)
    assert not future.done()
    return end, succeed, future


async def succeeds(succeed, future):
    """Lets something succeed, again and again if it takes more than once."""
    deadline = asyncio.get_running_loop().time() + 10
    while not future.done():
        succeed()
        for _ in range(20):
            await asyncio.sleep(0)
        assert asyncio.get_running_loop().time() < deadline, "it does not succeed"
    future.result()


@pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")
@pytest.mark.parametrize("deed", ["end", "end_and_turn", "end_and_close_the_loop", "close_the_loop", "run"])
@pytest.mark.parametrize("name", WAITS)
def test_child_does_not_disturb_what_waits_in_the_parent(own, name, deed):
    loop, ends = own
    end, succeed, future = loop.run_until_complete(begin(loop, name, ends))

    def child():
        if deed.startswith("end"):
            end()
        if deed == "end_and_turn":
            loop.run_until_complete(asyncio.sleep(0))
            loop.run_until_complete(asyncio.sleep(0.001))
        if deed == "run":
            # In the child it succeeds as well, with what came for the child.
            loop.run_until_complete(succeeds(succeed, future))
        if deed.endswith("the_loop"):
            loop.close()
        gc.collect()

    assert in_child(child) == SUCCESS
    assert not future.done()
    loop.run_until_complete(succeeds(succeed, future))


@pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")
@pytest.mark.parametrize("deed", ["nothing", "end"])
@pytest.mark.parametrize("name", WAITS)
def test_child_forked_in_a_task_does_not_disturb_what_waits(own, name, deed):
    loop, ends = own

    async def main():
        end, succeed, future = await begin(loop, name, ends)
        assert in_child(end if deed == "end" else gc.collect) == SUCCESS
        await succeeds(succeed, future)

    loop.run_until_complete(main())

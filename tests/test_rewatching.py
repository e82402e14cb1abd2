"""A descriptor that is watched again right after a watch of it ended, and what may happen to its number in between.

The native loop tells the kernel of an end only before it looks at the selector the next time.
"""

import asyncio
import gc
import os
import re
import socket
import sys

import pytest
from waiting import SUCCESS, in_child, run, turns

import aioxide


def connected():
    """Two connected sockets that do not block."""
    near, far = socket.socketpair()
    near.setblocking(False)
    far.setblocking(False)
    return near, far


@pytest.fixture
def other():
    """Two more."""
    near, far = connected()
    with near, far:
        yield near, far


async def exchange(loop, near, far, data=b"hello"):
    """A message that has to be waited for."""
    handle = loop.call_soon(far.send, data)
    assert await loop.sock_recv(near, 100) == data
    handle.cancel()


async def look(loop):
    """Has the loop look at its selector."""
    near, far = connected()
    with near, far:
        await exchange(loop, near, far)


def kernel_watches(number):
    """Does an epoll descriptor of this process watch the number?"""
    for name in os.listdir("/proc/self/fd"):
        try:
            with open(f"/proc/self/fdinfo/{name}") as info:
                if re.search(rf"^tfd: +{number} events:", info.read(), re.MULTILINE):
                    return True
        except OSError:
            # The listing's own.
            continue
    return False


linux = pytest.mark.skipif(sys.platform != "linux", reason="asks Linux what epoll watches")


@linux
@pytest.mark.parametrize("debug", [False, True])
def test_kernel_is_told_before_the_next_look(native_loop, pair, debug):
    loop, (near, far) = native_loop, pair
    loop.set_debug(debug)

    async def body():
        await exchange(loop, near, far)
        assert kernel_watches(near.fileno())
        assert not loop.remove_reader(near)
        await exchange(loop, near, far)
        await look(loop)
        assert not kernel_watches(near.fileno())

        called = loop.create_future()
        loop.add_reader(near, called.set_result, None)
        far.send(b"x")
        await called
        assert loop.remove_reader(near)
        assert kernel_watches(near.fileno())
        await look(loop)
        assert not kernel_watches(near.fileno())

    run(loop, body())


@linux
def test_kernel_is_told_at_once_when_no_job_runs(pair):
    loop = aioxide.new_event_loop()
    loop.add_reader(pair[0], print)
    assert kernel_watches(pair[0].fileno())
    loop.remove_reader(pair[0])
    assert not kernel_watches(pair[0].fileno())
    loop.close()


def test_messages_one_after_another(loop, pair):
    near, far = pair

    async def answer():
        while data := await loop.sock_recv(far, 100):
            await loop.sock_sendall(far, data[::-1])

    async def body():
        task = loop.create_task(answer())
        for number in range(50):
            data = b"message %d" % number
            await loop.sock_sendall(near, data)
            assert await loop.sock_recv(near, 100) == data[::-1]
        near.shutdown(socket.SHUT_WR)
        await task

    run(loop, body())


def test_both_directions_at_once(loop, pair):
    near, far = pair
    size, rounds = 1 << 18, 4

    async def send(sock):
        for _ in range(rounds):
            await loop.sock_sendall(sock, bytes(size))

    async def receive(sock):
        left = size * rounds
        while left:
            left -= len(await loop.sock_recv(sock, 5000))

    async def body():
        await asyncio.gather(send(near), receive(near), send(far), receive(far))
        assert not loop.remove_reader(near)
        assert not loop.remove_writer(near)

    run(loop, body())


def closed_and_opened(near, fresh):
    """The number belongs to another socket, the old one is closed."""
    number = near.fileno()
    near.close()
    os.dup2(fresh.fileno(), number)
    return socket.socket(fileno=number)


def duplicated_over(near, fresh):
    """The same object and number, another file."""
    os.dup2(fresh.fileno(), near.fileno())
    return near


def initialised_again(near, fresh):
    """The same object and number once more, by Python's own means."""
    number = near.detach()
    os.dup2(fresh.fileno(), number)
    near.__init__(near.family, near.type, near.proto, fileno=number)
    return near


REPLACED = [closed_and_opened, duplicated_over, initialised_again]


@pytest.mark.parametrize("keep", [False, True], ids=["gone", "duplicate lives"])
@pytest.mark.parametrize("replace", REPLACED)
def test_another_file_under_the_number(loop, other, replace, keep):
    near, far = connected()
    fresh, peer = other

    async def body():
        await exchange(loop, near, far)
        old = near.dup() if keep else None
        replaced = replace(near, fresh)
        with far, replaced:
            replaced.setblocking(False)
            if keep:
                far.send(b"for the duplicate")
            await exchange(loop, replaced, peer, b"for the new one")
            if keep:
                with old:
                    old.setblocking(False)
                    assert await loop.sock_recv(old, 100) == b"for the duplicate"
                    await exchange(loop, old, far)
            await exchange(loop, replaced, peer)
            # Twice more, now that the kernel was told.
            await look(loop)
            await exchange(loop, replaced, peer)
            await exchange(loop, replaced, peer)

    run(loop, body())


@pytest.mark.parametrize("replace", REPLACED)
def test_another_file_that_nobody_watches(loop, other, replace):
    near, far = connected()
    fresh, peer = other

    async def body():
        await exchange(loop, near, far)
        with far, replace(near, fresh):
            peer.send(b"x")
            await look(loop)
            assert await loop.sock_recv(fresh, 10) == b"x"
            await exchange(loop, fresh, peer)

    run(loop, body())


def test_regular_file_under_the_number(loop, tmp_path):
    near, far = connected()
    path = tmp_path / "file"
    path.write_bytes(b"x")

    async def body():
        await exchange(loop, near, far)
        number = near.detach()
        with open(path) as file:
            os.dup2(file.fileno(), number)
        with pytest.raises(PermissionError):
            loop.add_reader(number, print)
        await look(loop)
        os.close(number)

    if sys.platform == "linux":
        run(loop, body())
    near.close()
    far.close()


def test_reader_after_a_wait_and_a_wait_after_a_reader(loop, pair):
    near, far = pair

    async def body():
        await exchange(loop, near, far)
        called = loop.create_future()
        loop.add_reader(near, lambda: called.done() or called.set_result(near.recv(9)))
        far.send(b"reader")
        assert await called == b"reader"
        assert loop.remove_reader(near)
        await exchange(loop, near, far)
        assert not loop.remove_reader(near)

    run(loop, body())


@pytest.mark.parametrize("writes", [False, True], ids=["reader", "writer"])
def test_removed_and_added_again_each_time(loop, pair, writes):
    near, far = pair
    add, remove = (loop.add_writer, loop.remove_writer) if writes else (loop.add_reader, loop.remove_reader)

    async def ready():
        future = loop.create_future()

        def callback():
            assert remove(near)
            future.set_result(None)

        add(near, callback)
        await future

    async def body():
        for _ in range(20):
            if not writes:
                far.send(b"x")
            await ready()
            if not writes:
                near.recv(9)
        assert not remove(near)
        near.close()

    run(loop, body())


def test_removed_in_a_callback_is_called_no_more(loop, pair):
    near, far = pair
    calls = []

    def callback():
        calls.append(loop.remove_reader(near))

    loop.add_reader(near, callback)
    far.send(b"x")
    run(loop, look(loop))
    run(loop, look(loop))
    assert calls == [True]


class Dying:
    """A callback that does something when its last reference goes."""

    def __init__(self, deed):
        self.deed = deed

    def __call__(self):
        raise AssertionError("it has been removed")

    def __del__(self):
        self.deed()


def test_what_dies_with_a_watch_begins_another(loop, pair):
    near, far = pair
    calls = []

    async def body():
        far.send(b"x")
        loop.add_reader(near, Dying(lambda: loop.add_reader(near, calls.append, "again")))
        assert loop.remove_reader(near)
        assert calls == []
        await look(loop)
        assert calls
        assert loop.remove_reader(near)

    run(loop, body())


def test_what_dies_with_a_watch_ends_the_other_direction(loop, pair):
    near, far = pair
    removed = []

    async def body():
        far.send(b"x")
        loop.add_writer(near, removed.append, "writable")
        loop.add_reader(near, Dying(lambda: removed.append(loop.remove_writer(near))))
        assert loop.remove_reader(near)
        assert removed == [True]
        await look(loop)
        assert removed == [True]

    run(loop, body())


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_what_dies_with_a_watch_raises(loop, pair):
    near, far = pair

    def fail():
        raise ValueError("in __del__")

    async def body():
        loop.add_reader(near, Dying(fail))
        assert loop.remove_reader(near)
        await exchange(loop, near, far)

    run(loop, body())


def test_reading_ends_writing_goes_on(loop, pair):
    near, far = pair

    async def body():
        writable = 0

        def write():
            nonlocal writable
            writable += 1

        loop.add_writer(near, write)
        await exchange(loop, near, far)
        far.send(b"not asked for")
        before = writable
        await look(loop)
        assert writable > before
        assert loop.remove_writer(near)
        before = writable
        await look(loop)
        assert writable == before
        assert near.recv(100) == b"not asked for"
        await exchange(loop, near, far)

    run(loop, body())


def test_cancelled_and_waited_for_again(loop, pair):
    near, far = pair

    async def body():
        for _ in range(3):
            task = loop.create_task(loop.sock_recv(near, 9))
            await turns()
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            await exchange(loop, near, far)
        assert not loop.remove_reader(near)

    run(loop, body())


def test_transport_after_a_wait(loop, pair):
    near, far = pair

    async def body():
        await exchange(loop, near, far)
        reader, writer = await asyncio.open_connection(sock=near)
        far.send(b"line\n")
        assert await reader.readline() == b"line\n"
        writer.close()
        await writer.wait_closed()

    run(loop, body())


def test_socket_moves_to_another_loop(aio, pair):
    near, far = pair
    make = asyncio.SelectorEventLoop if aio is asyncio else aioxide.new_event_loop
    loops = [make(), make()]
    for _ in range(3):
        for loop in loops:
            run(loop, exchange(loop, near, far))
    for loop in loops:
        loop.close()
    loop = make()
    run(loop, exchange(loop, near, far))
    loop.close()


def test_loop_closed_right_after_a_wait(pair):
    near, far = pair
    loop = aioxide.new_event_loop()

    async def body():
        await exchange(loop, near, far)
        loop.stop()

    task = loop.create_task(body())
    loop.run_forever()
    assert task.done()
    loop.close()
    del loop, task
    gc.collect()
    loop = aioxide.new_event_loop()
    run(loop, exchange(loop, near, far))
    loop.close()


def test_fork_between_an_end_and_the_next_look(plain_loop, pair, other):
    loop, (near, far) = plain_loop, pair

    def child():
        asyncio._set_running_loop(None)
        # Collected, and closed without having been used here.
        second = aioxide.new_event_loop()
        run(second, exchange(second, *other))
        second.close()

    async def body():
        await exchange(loop, near, far)
        assert in_child(child) == SUCCESS
        await exchange(loop, near, far)
        await look(loop)
        await exchange(loop, near, far)

    run(loop, body())


def test_fork_and_both_go_on(own, pair, other):
    near, far = pair

    async def stop_after_a_message():
        await exchange(own, near, far)
        own.stop()

    def child():
        # Nothing of this comes to the parent's selector.
        os.dup2(other[0].fileno(), near.fileno())
        run(own, exchange(own, near, other[1]))
        run(own, exchange(own, near, other[1]))
        own.close()

    task = own.create_task(stop_after_a_message())
    own.run_forever()
    assert task.done()
    assert in_child(child) == SUCCESS
    run(own, exchange(own, near, far))
    run(own, exchange(own, near, far))

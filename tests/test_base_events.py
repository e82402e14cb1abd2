"""The loop itself: odd clocks and odd times, running again, closing, finalizers that use it."""

import asyncio
import gc
import math
import socket
import sys
import threading
import weakref

import pytest

import aioxide


@pytest.fixture(params=[asyncio, aioxide], ids=["stdlib", "aioxide"])
def aio(request):
    """The namespace under test."""
    return request.param


@pytest.fixture
def base(aio):
    """The class of its loops."""
    return asyncio.SelectorEventLoop if aio is asyncio else aioxide.Loop


@pytest.fixture(params=[False, True], ids=["plain", "debug"])
def loop(base, request):
    """A loop of the namespace."""
    loop = base()
    loop.set_debug(request.param)
    yield loop
    loop.close()


def turn(loop, times=1):
    """Lets everything that is ready run."""
    for _ in range(times):
        loop.call_soon(loop.stop)
        loop.run_forever()


# Clocks.


def test_clock_that_raises_ends_the_run(base):
    """At once, and not when the timer would have been due."""

    class Loop(base):
        broken = False

        def time(self):
            if self.broken:
                raise ZeroDivisionError
            return super().time()

    loop = Loop()
    seen = []
    timer = loop.call_later(3600, print)
    loop.broken = True
    with pytest.raises(ZeroDivisionError):
        loop.run_forever()
    assert not loop.is_running()
    loop.broken = False
    timer.cancel()
    thread = threading.Thread(target=loop.call_soon_threadsafe, args=[loop.stop])
    loop.call_soon(thread.start)
    loop.call_soon(seen.append, 1)
    loop.run_forever()
    thread.join()
    assert seen == [1]
    loop.close()


def test_clock_of_a_test(aio, base):
    class Loop(base):
        now = 0.0

        def time(self):
            return self.now

    loop = Loop()
    seen = []
    loop.call_later(5, seen.append, "5")
    loop.call_at(3, seen.append, "3")
    loop.call_later(5, seen.append, "5 again")
    for loop.now, wanted in [(0, []), (3, ["3"]), (4.999, ["3"]), (5.0, ["3", "5", "5 again"])]:
        turn(loop)
        assert seen == wanted

    async def main():
        with pytest.raises(TimeoutError):
            async with aio.timeout(5):
                loop.call_soon(setattr, loop, "now", 30)
                await aio.sleep(10)

    loop.run_until_complete(main())
    loop.close()


@pytest.mark.parametrize("delay", [-1, -1e20, 0, True, False, math.nan, -math.inf])
def test_delays_that_are_over(delay, loop):
    seen = []
    loop.call_at(delay, seen.append, "at")
    turn(loop)
    assert seen == ["at"]


@pytest.mark.parametrize("delay", [1e20, 1e300, math.inf, 2**70])
def test_delays_that_never_end(delay, loop):
    seen = []
    timers = [loop.call_later(delay, seen.append, "later"), loop.call_at(delay, seen.append, "at")]
    turn(loop)
    assert seen == []
    for timer in timers:
        assert timer.when() >= 1e20
        timer.cancel()


def test_number_that_is_too_large(loop):
    with pytest.raises(OverflowError, match="int too large to convert to float"):
        loop.call_later(10**400, print)


def test_great_number_of_cancelled_timers(loop):
    for _ in range(3):
        timers = [loop.call_later(3600 + index, print) for index in range(1000)]
        for timer in timers[::2] + timers[::-2]:
            timer.cancel()
        turn(loop)
    kept = loop.call_later(0, int)
    turn(loop)
    kept.cancel()


# Running and closing.


def test_run_in_a_run(loop):
    if sys.version_info[:3] == (3, 13, 0) and not isinstance(loop, aioxide.Loop):
        pytest.skip("the stdlib of 3.13.0 forgets that it is running")
    errors = []

    def again():
        for call in (loop.run_forever, lambda: loop.run_until_complete(loop.create_future()), loop.close):
            try:
                call()
            except RuntimeError as error:
                errors.append(str(error))

    loop.call_soon(again)
    turn(loop)
    running = "This event loop is already running"
    assert errors == [running, running, "Cannot close a running event loop"]


def test_each_run_looks_at_descriptors_at_once(loop):
    """Also one that ends in its first turn, as the caller may have sent something meanwhile."""
    near, far = socket.socketpair()
    with near, far:
        seen = []
        loop.add_reader(near, lambda: seen.append(near.recv(1)))
        done = loop.create_future()
        done.set_result(None)
        for count in range(1, 4):
            far.send(b"x")
            loop.run_until_complete(done)
            assert len(seen) == count
        loop.remove_reader(near)


@pytest.mark.parametrize("what", ["reader", "writer"])
def test_watch_of_a_closed_socket_is_ended_by_the_object(loop, what):
    """As anyio does when a stream is closed while a task receives: a closed socket has no number to be found by."""
    add, remove = getattr(loop, f"add_{what}"), getattr(loop, f"remove_{what}")
    near, far = socket.socketpair()
    other, another = socket.socketpair()
    with near, far, other, another:
        add(near, print)
        other.close()
        with pytest.raises(ValueError, match=r"^Invalid file descriptor: -1$"):
            remove(other)
        near.close()
        assert remove(near) is True
        for _ in range(2):
            with pytest.raises(ValueError, match=r"^Invalid file descriptor: -1$"):
                remove(near)
        with pytest.raises(ValueError, match=r"^Invalid file descriptor: -1$"):
            remove(-1)
        loop.close()
        assert remove(near) is False
        assert remove(-1) is False


def test_watched_file_objects_are_let_go(loop):
    """With the watch, when the number is watched through something else, and with the loop."""
    near, far = socket.socketpair()
    with near, far:

        class File:
            def fileno(self):
                return near.fileno()

        file = File()
        gone = weakref.ref(file)
        loop.add_reader(file, print)
        del file
        assert gone() is not None
        assert loop.remove_reader(gone()) is True
        gc.collect()
        assert gone() is None

        file = File()
        gone = weakref.ref(file)
        loop.add_writer(file, print)
        file.loop = loop
        del file
        loop.close()
        gc.collect()
        assert gone() is None


def test_other_loop_in_a_run(base, loop):
    async def main():
        other = base()
        with pytest.raises(RuntimeError, match="Cannot run the event loop while another loop is running"):
            other.run_forever()
        other.close()

    loop.run_until_complete(main())


def test_finalizers_that_use_a_closing_loop(loop):
    errors = []

    class Late:
        def __del__(self):
            for call in (loop.call_soon, loop.call_soon_threadsafe):
                try:
                    call(print)
                except RuntimeError as error:
                    errors.append(str(error))

    def refers(late):
        pass

    loop.call_soon(refers, Late())
    loop.call_later(3600, refers, Late())
    loop.call_soon_threadsafe(refers, Late())
    loop.close()
    gc.collect()
    assert errors == ["Event loop is closed"] * 6


def test_finalizers_that_schedule(loop):
    """They may run at any allocation, the loop's own included."""
    seen = []

    class Late:
        def __init__(self):
            self.cycle = self

        def __del__(self):
            loop.call_soon(seen.append, "soon")
            loop.call_later(-1, seen.append, "later").cancel()

    threshold = gc.get_threshold()
    gc.collect()
    gc.set_threshold(1)
    try:
        for _ in range(50):
            Late()
            loop.call_soon(int)
            loop.call_later(-1, int)
            loop.create_future()
        turn(loop)
    finally:
        gc.set_threshold(*threshold)
    gc.collect()
    turn(loop)
    assert seen == ["soon"] * 50


def test_threads_that_call_while_the_loop_closes(loop):
    errors = []

    def call():
        while True:
            try:
                loop.call_soon_threadsafe(int)
            except RuntimeError as error:
                errors.append(str(error))
                return

    threads = [threading.Thread(target=call) for _ in range(3)]
    for thread in threads:
        thread.start()
    turn(loop, 20)
    loop.close()
    for thread in threads:
        thread.join()
    assert errors == ["Event loop is closed"] * 3

"""Ctrl-C, Python signal handlers, and exceptions that end the loop."""

import asyncio
import json
import os
import signal
import socket
import statistics
import subprocess
import sys
import threading
import time
import warnings

import pytest

import aioxide

LIMIT = 0.05
"""Seconds within which a signal has to act; the aim is 0.001, this leaves room for a busy machine."""

FROM_A_THREAD = """
import json, os, signal, threading, time
import aioxide

latencies = []

def interrupt(idle):
    global sent
    idle.wait()
    time.sleep(0.005)  # the main thread is on its way into the kernel
    sent = time.perf_counter()
    os.kill(os.getpid(), signal.SIGINT)

async def main(idle):
    aioxide.get_running_loop().call_soon(idle.set)
    await aioxide.sleep(3600)

for _ in range(15):
    idle = threading.Event()
    thread = threading.Thread(target=interrupt, args=(idle,))
    thread.start()
    try:
        aioxide.run(main(idle))
    except KeyboardInterrupt:
        latencies.append(time.perf_counter() - sent)
    thread.join()
print(json.dumps(latencies))
"""

FROM_ANOTHER_PROCESS = """
import sys, time
import aioxide

async def main():
    aioxide.get_running_loop().call_soon(lambda: print("idle", flush=True))
    await aioxide.sleep(3600)

for _ in range(15):
    try:
        aioxide.run(main())
    except KeyboardInterrupt:
        print(time.monotonic(), flush=True)
"""


@pytest.fixture
def loop():
    """A native loop that is closed without a warning."""
    loop = aioxide.new_event_loop()
    yield loop
    loop.run_until_complete(loop.shutdown_default_executor())
    loop.close()


def report(record_property, what, latencies):
    """Leaves the median in the test's report."""
    median = statistics.median(latencies)
    record_property(f"{what}_median_ms", round(median * 1000, 3))
    print(f"{what}: median {median * 1000:.3f} ms, worst {max(latencies) * 1000:.3f} ms")
    return median


def test_ctrl_c_on_an_idle_run_from_a_thread(record_property):
    command = [sys.executable, "-c", FROM_A_THREAD]
    result = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (result.returncode, result.stderr) == (0, "")
    latencies = json.loads(result.stdout)
    assert len(latencies) == 15
    assert report(record_property, "ctrl_c", latencies) < LIMIT


def test_ctrl_c_on_an_idle_run_from_another_process(record_property):
    command = [sys.executable, "-c", FROM_ANOTHER_PROCESS]
    latencies = []
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as child:
        for _ in range(15):
            assert child.stdout.readline() == "idle\n"
            time.sleep(0.005)  # the child is on its way into the kernel
            sent = time.monotonic()
            child.send_signal(signal.SIGINT)
            latencies.append(float(child.stdout.readline()) - sent)
    assert child.returncode == 0
    assert report(record_property, "ctrl_c_from_outside", latencies) < LIMIT


def test_uncaught_ctrl_c_ends_the_process_as_python_ends():
    program = (
        "import aioxide, os, signal\nasync def main(): os.kill(os.getpid(), signal.SIGINT); await aioxide.sleep(60)\n"
    )
    command = [sys.executable, "-c", program + "aioxide.run(main())"]
    result = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert result.returncode == -signal.SIGINT
    assert result.stderr.splitlines()[-1] == "KeyboardInterrupt"


def test_python_signal_handler_on_an_idle_loop(loop, record_property):
    """The handler acts while the loop sleeps in the kernel, which the timer of the process interrupts."""
    latencies = []

    def handler(signum, frame):
        latencies.append(time.monotonic() - due)
        loop.call_soon_threadsafe(loop.stop)

    previous = signal.signal(signal.SIGALRM, handler)
    try:
        for _ in range(15):
            due = time.monotonic() + 0.01
            signal.setitimer(signal.ITIMER_REAL, 0.01)
            loop.run_forever()
    finally:
        signal.signal(signal.SIGALRM, previous)
    assert len(latencies) == 15
    assert report(record_property, "signal_handler", latencies) < LIMIT


def test_python_signal_handler_runs_in_the_main_thread_and_the_loop_goes_on(loop):
    seen = []

    def handler(signum, frame):
        seen.append((signum, threading.current_thread() is threading.main_thread()))
        loop.call_soon_threadsafe(future.set_result, "woken")

    async def main():
        return await future

    future = loop.create_future()
    previous = signal.signal(signal.SIGUSR1, handler)
    try:
        loop.call_soon(threading.Thread(target=os.kill, args=(os.getpid(), signal.SIGUSR1)).start)
        assert loop.run_until_complete(main()) == "woken"
    finally:
        signal.signal(signal.SIGUSR1, previous)
    assert seen == [(signal.SIGUSR1, True)]


def test_signal_handler_that_raises_ends_an_idle_loop(loop):
    def handler(signum, frame):
        raise LookupError("out of the handler")

    previous = signal.signal(signal.SIGALRM, handler)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.01)
        with pytest.raises(LookupError, match="out of the handler"):
            loop.run_forever()
    finally:
        signal.signal(signal.SIGALRM, previous)
    assert not loop.is_running()
    assert_usable(loop)


def test_signal_handler_acts_while_the_loop_is_busy(loop):
    seen = []

    async def main():
        turns = 0
        while not seen:
            await aioxide.sleep(0)
            turns += 1
        return turns

    previous = signal.signal(signal.SIGALRM, lambda *args: seen.append(args))
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.01)
        assert loop.run_until_complete(main()) > 0
    finally:
        signal.signal(signal.SIGALRM, previous)


# Ctrl-C in a run.


async def interrupted(seen):
    """Sends Ctrl-C to itself and tells what arrives."""
    os.kill(os.getpid(), signal.SIGINT)
    try:
        await aioxide.sleep(3600)
    except asyncio.CancelledError as error:
        seen.append(type(error))
        raise


def test_ctrl_c_cancels_the_main_task():
    seen = []
    with pytest.raises(KeyboardInterrupt):
        aioxide.run(interrupted(seen))
    assert seen == [asyncio.CancelledError]
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_ctrl_c_that_the_main_task_handles():
    async def main():
        try:
            await interrupted([])
        except asyncio.CancelledError:
            return "cleaned up"

    assert aioxide.run(main()) == "cleaned up"


def test_second_ctrl_c_is_immediate():
    async def main():
        try:
            await interrupted([])
        except asyncio.CancelledError:
            os.kill(os.getpid(), signal.SIGINT)
            for _ in range(1000):
                pass
            raise AssertionError("the second Ctrl-C did nothing") from None

    with pytest.raises(KeyboardInterrupt):
        aioxide.run(main())


def test_ctrl_c_of_a_busy_main_task():
    async def main():
        os.kill(os.getpid(), signal.SIGINT)
        while True:
            await aioxide.sleep(0)

    with pytest.raises(KeyboardInterrupt):
        aioxide.run(main())


def test_runner_is_usable_after_ctrl_c():
    async def answer():
        return 42

    with aioxide.Runner() as runner:
        with pytest.raises(KeyboardInterrupt):
            runner.run(interrupted([]))
        assert runner.run(answer()) == 42


def test_own_handler_for_ctrl_c_is_left_alone():
    seen = []

    async def main():
        os.kill(os.getpid(), signal.SIGINT)
        await aioxide.sleep(0)
        return "went on"

    previous = signal.signal(signal.SIGINT, lambda *args: seen.append(args[0]))
    try:
        assert aioxide.run(main()) == "went on"
    finally:
        signal.signal(signal.SIGINT, previous)
    assert seen == [signal.SIGINT]


def test_run_in_another_thread_leaves_the_handler_alone():
    found = []

    async def main():
        found.append(signal.getsignal(signal.SIGINT))

    thread = threading.Thread(target=lambda: aioxide.run(main()))
    thread.start()
    thread.join()
    assert found == [signal.default_int_handler]


# Exceptions that end the loop.


def assert_usable(loop):
    """Runs a little of everything."""

    async def main():
        await aioxide.sleep(0)
        await aioxide.sleep(0.001)
        future = loop.create_future()
        loop.call_soon(future.set_result, 42)
        return await future

    assert not loop.is_running()
    assert asyncio._get_running_loop() is None
    assert loop.run_until_complete(main()) == 42


def raiser(error):
    def callback(*args):
        raise error

    return callback


def _soon(loop, error):
    loop.call_soon(raiser(error))


def _later(loop, error):
    loop.call_later(0.001, raiser(error))


def _threadsafe(loop, error):
    thread = threading.Thread(target=loop.call_soon_threadsafe, args=(raiser(error),))
    thread.start()
    thread.join()


def _done_callback(loop, error):
    future = loop.create_future()
    future.add_done_callback(raiser(error))
    future.set_result(None)


def _reader(loop, error):
    ours, theirs = socket.socketpair()
    theirs.close()

    def callback():
        loop.remove_reader(ours)
        ours.close()
        raise error

    loop.add_reader(ours, callback)


def _exception_handler(loop, error):
    loop.set_exception_handler(raiser(error))
    loop.call_soon(raiser(ValueError("for the handler")))


CALLBACKS = pytest.mark.parametrize(
    "schedule", [_soon, _later, _threadsafe, _done_callback, _reader, _exception_handler], ids=lambda f: f.__name__
)
ENDINGS = pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit], indirect=True)


@pytest.fixture
def error(request):
    """A fresh exception of the class."""
    return request.param("text")


@CALLBACKS
@ENDINGS
def test_it_comes_out_of_a_callback(schedule, error, loop):
    schedule(loop, error)
    with pytest.raises(type(error)) as caught:
        loop.run_forever()
    assert caught.value is error
    loop.set_exception_handler(None)
    assert_usable(loop)


@ENDINGS
def test_callbacks_after_it_are_not_lost(error, loop):
    seen = []
    for number in range(3):
        loop.call_soon(seen.append, number)
        loop.call_soon(raiser(error))
    for expected in ([0], [0, 1], [0, 1, 2]):
        with pytest.raises(type(error)):
            loop.run_forever()
        assert seen == expected
    assert_usable(loop)


@ENDINGS
def test_it_comes_out_of_a_task(error, loop):
    async def main():
        await aioxide.sleep(0)
        raise error

    task = loop.create_task(main())
    with pytest.raises(type(error)) as caught:
        loop.run_until_complete(task)
    assert caught.value is error
    assert task.done()
    assert task.exception() is error
    assert_usable(loop)


@ENDINGS
def test_it_comes_out_of_a_task_that_another_awaits(error, loop):
    async def child():
        raise error

    async def main():
        await aioxide.gather(aioxide.create_task(child()), aioxide.sleep(0.001))

    task = loop.create_task(main())
    with pytest.raises(type(error)):
        loop.run_until_complete(task)
    assert not task.done()
    with pytest.raises(type(error)):
        loop.run_until_complete(task)
    assert_usable(loop)


@ENDINGS
@pytest.mark.logs_errors
def test_it_comes_out_of_a_task_group(error):
    async def child():
        raise error

    async def main():
        async with aioxide.TaskGroup() as group:
            group.create_task(child())
            await aioxide.sleep(3600)

    with pytest.raises(type(error)) as caught:
        aioxide.run(main())
    assert caught.value is error


@ENDINGS
@pytest.mark.logs_errors
def test_it_comes_out_of_an_eager_task(error, loop):
    async def child():
        raise error

    async def main():
        aioxide.create_task(child())

    loop.set_task_factory(aioxide.eager_task_factory)
    with pytest.raises(type(error)):
        loop.run_until_complete(main())
    loop.set_task_factory(None)
    assert_usable(loop)


@ENDINGS
def test_it_comes_out_of_run_after_the_other_tasks_are_cancelled(error):
    seen = []

    async def other():
        try:
            await aioxide.sleep(3600)
        except asyncio.CancelledError:
            seen.append("cancelled")
            raise

    async def main():
        task = aioxide.create_task(other())
        await aioxide.sleep(0)
        del task
        raise error

    with pytest.raises(type(error)):
        aioxide.run(main())
    assert seen == ["cancelled"]


class Unusual(BaseException):
    """Neither an Exception nor one of the two that end the loop."""


def test_other_base_exception_of_a_callback_is_reported(loop):
    reports = []
    error = Unusual("text")
    loop.set_exception_handler(lambda loop, context: reports.append(context["exception"]))
    loop.call_soon(raiser(error))
    loop.call_soon(loop.stop)
    loop.run_forever()
    assert reports == [error]


def test_other_base_exception_of_a_task_is_its_exception(loop):
    async def main():
        raise Unusual("text")

    task = loop.create_task(main())
    with pytest.raises(Unusual):
        loop.run_until_complete(task)
    assert_usable(loop)


# A run inside a run.


@pytest.mark.parametrize("how", ["run_until_complete", "run_forever", "other loop", "run", "asyncio.run", "Runner"])
def test_nested_run_is_refused(how, loop):
    other = aioxide.new_event_loop()

    async def inner():
        raise AssertionError("must not run")

    async def main():
        coro = inner()
        with pytest.raises(RuntimeError, match="running"), warnings.catch_warnings():
            warnings.simplefilter("error")
            if how == "run_until_complete":
                loop.run_until_complete(coro)
            elif how == "run_forever":
                loop.run_forever()
            elif how == "other loop":
                other.run_forever()
            elif how == "run":
                aioxide.run(coro)
            elif how == "asyncio.run":
                asyncio.run(coro)
            else:
                aioxide.Runner().run(coro)
        coro.close()
        await aioxide.sleep(0)
        assert asyncio.get_running_loop() is loop
        return "went on"

    assert loop.run_until_complete(main()) == "went on"
    assert not loop.is_running()
    assert not other.is_running()
    other.close()
    assert_usable(loop)


def test_loop_that_runs_in_another_thread_is_refused(loop):
    started = threading.Event()
    loop.call_soon(started.set)
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    started.wait()
    with pytest.raises(RuntimeError, match="already running"):
        loop.run_forever()
    loop.call_soon_threadsafe(loop.stop)
    thread.join()
    assert_usable(loop)

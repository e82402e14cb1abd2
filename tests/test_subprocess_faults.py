"""What goes wrong with subprocesses, with the stdlib too where it copes."""

import asyncio
import contextlib
import gc
import logging
import os
import resource
import signal
import subprocess
import sys
import threading
import warnings

import pytest
from children import PIPE, NothingLeft, Recorder, children, open_descriptors, over, run

import aioxide

pytestmark = pytest.mark.skipif(not os.path.exists("/proc/self/fd"), reason="needs /proc")


@pytest.fixture(autouse=True)
def nothing_left():
    with NothingLeft():
        yield


def is_stdlib(aio):
    return aio is asyncio


@contextlib.contextmanager
def descriptors_left(count):
    """Leaves room for so many more descriptors."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    # Numbers that are free below the highest one count, too.
    used = open_descriptors()
    limit, free = 0, 0
    while free < count or limit <= 0:
        free += limit not in used
        limit += 1
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@contextlib.contextmanager
def no_descriptor_for_the_watch():
    """Lets descriptors run out once a child is started."""
    with contextlib.ExitStack() as stack:
        real = subprocess.Popen

        def popen(*args, **options):
            started = real(*args, **options)
            stack.enter_context(descriptors_left(0))
            return started

        subprocess.Popen = popen
        try:
            yield
        finally:
            subprocess.Popen = real


def waiting_thread():
    """The thread that waits for a child."""
    [found] = [thread for thread in threading.enumerate() if thread.name.startswith("aioxide-waitpid")]
    return found


# What does not start.


@pytest.mark.parametrize("streams", [{}, {"stdin": PIPE, "stdout": PIPE, "stderr": PIPE}], ids=["none", "pipes"])
@pytest.mark.parametrize(
    ("program", "options", "error"),
    [
        ("/nonexistent/program", {}, FileNotFoundError),
        ("true", {"cwd": "/nonexistent"}, FileNotFoundError),
        ("/etc", {}, PermissionError),
        ("true", {"cwd": "/etc/passwd"}, NotADirectoryError),
        ("true", {"env": {"A\0B": "C"}}, ValueError),
    ],
    ids=["program", "cwd", "permission", "cwd is a file", "env"],
)
def test_what_does_not_start(aio, loop, program, options, error, streams):
    async def main():
        with pytest.raises(error) as caught:
            await aio.create_subprocess_exec(program, **streams | options)
        # Nothing of the frames shall hold what is to be closed.
        del caught

    with NothingLeft():
        run(loop, main())


@pytest.mark.slow
def test_want_of_descriptors_at_every_point(native_loop):
    """Whatever descriptor is missing, the call fails cleanly or works."""
    outcomes = []

    async def attempt():
        try:
            process = await aioxide.create_subprocess_exec("cat", stdin=PIPE, stdout=PIPE, stderr=PIPE)
        except OSError as error:
            return type(error), error.errno
        assert await process.communicate(b"spam") == (b"spam", b"")
        assert process.returncode == 0
        await over(process)
        return "ran"

    async def main():
        # Opens what the loop needs once, and imports what Popen does.
        assert await attempt() == "ran"
        for count in range(14):
            if sys.version_info < (3, 12):
                # Up to 3.11 Popen leaks the pipes it has made when it can make no more.
                with descriptors_left(count):
                    outcome = await attempt()
            else:
                with NothingLeft(), descriptors_left(count):
                    outcome = await attempt()
            outcomes.append(outcome)

    if sys.version_info < (3, 12):
        pytest.skip("up to 3.11 Popen leaks descriptors")
    run(native_loop, main())
    # 24 is EMFILE.
    assert outcomes[0] == (OSError, 24)
    assert outcomes[-1] == "ran"
    assert set(outcomes) == {(OSError, 24), "ran"}


@pytest.mark.parametrize("failing", ["connect_write_pipe", "connect_read_pipe"])
@pytest.mark.parametrize("error", [ZeroDivisionError, asyncio.CancelledError])
def test_pipe_that_cannot_be_connected(native_loop, failing, error):
    original = getattr(native_loop, failing)
    calls = []

    async def replacement(*args):
        calls.append(args)
        if failing == "connect_read_pipe" and len(calls) == 1:
            return await original(*args)
        raise error

    setattr(native_loop, failing, replacement)

    async def main():
        with pytest.raises(error):
            await aioxide.create_subprocess_exec("sleep", "100", stdin=PIPE, stdout=PIPE, stderr=PIPE)
        await asyncio.sleep(0)

    with NothingLeft():
        run(native_loop, main())


def test_task_factory_that_fails():
    native_loop = aioxide.new_event_loop()

    def factory(loop, coro, **options):
        coro.close()
        raise ZeroDivisionError

    async def main():
        native_loop.set_task_factory(factory)
        with pytest.raises(ZeroDivisionError):
            await aioxide.create_subprocess_exec("cat", stdin=PIPE)
        native_loop.set_task_factory(None)

    before = children()
    with warnings.catch_warnings():
        # The Popen, which nobody can have waited for.
        warnings.simplefilter("ignore", ResourceWarning)
        with contextlib.closing(native_loop):
            run(native_loop, main())
        gc.collect()
    # The child was killed; the next Popen waits for it.
    while children() - before:
        subprocess._cleanup()


# Children that do not behave.


def test_child_that_closes_its_pipes_early(aio, loop):
    async def main():
        readable, writable = os.pipe()
        command = f"exec 0<&- 1>&- 2>&-; read line < /proc/self/fd/{readable}"
        options = {"stdin": PIPE, "stdout": PIPE, "stderr": PIPE, "pass_fds": [readable]}
        process = await aio.create_subprocess_shell(command, **options)
        os.close(readable)
        assert await process.stdout.read() == await process.stderr.read() == b""
        with contextlib.suppress(ConnectionError):
            while True:
                process.stdin.write(b"x" * 100_000)
                await process.stdin.drain()
        assert process.returncode is None
        os.close(writable)
        assert await process.wait() in (0, 1)
        await over(process)

    run(loop, main())


@pytest.mark.parametrize("size", [10, 10_000_000])
def test_child_that_reads_nothing(aio, loop, size):
    async def main():
        process = await aio.create_subprocess_exec("true", stdin=PIPE, stdout=PIPE)
        assert await process.communicate(b"x" * size) == (b"", None)
        assert process.returncode == 0
        await over(process)

    run(loop, main())


def test_child_that_is_over_before_communicate_starts(aio, loop):
    async def main():
        process = await aio.create_subprocess_shell("echo spam; exit 3", stdin=PIPE, stdout=PIPE)
        assert await process.wait() == 3
        for _ in range(5):
            await asyncio.sleep(0)
        assert await process.communicate(b"eggs") == (b"spam\n", None)
        assert await process.communicate() == (b"", None)
        await over(process)

    if is_stdlib(aio) and sys.version_info < (3, 12):
        pytest.skip("up to 3.11 the input has to be closed by hand")
    run(loop, main())


def test_child_that_ignores_sigterm(aio, loop):
    async def main():
        process = await aio.create_subprocess_shell("trap '' TERM; echo ready; exec cat", stdin=PIPE, stdout=PIPE)
        assert await process.stdout.readline() == b"ready\n"
        process.terminate()
        process.stdin.write(b"still there\n")
        assert await process.stdout.readline() == b"still there\n"
        process.kill()
        assert await process.wait() == -signal.SIGKILL
        await over(process)

    run(loop, main())


def test_child_that_is_stopped(native_loop):
    async def main():
        process = await aioxide.create_subprocess_exec("cat", stdin=PIPE, stdout=PIPE)
        process.send_signal(signal.SIGSTOP)
        while not children("T"):
            await asyncio.sleep(0)
        assert process.returncode is None
        process.stdin.write(b"spam")
        process.send_signal(signal.SIGCONT)
        assert await process.communicate() == (b"spam", None)
        await over(process)

    run(native_loop, main())


def test_double_fork(aio, loop):
    """A daemon that outlives its parent and holds a pipe."""

    async def main():
        readable, writable = os.pipe()
        command = "exec 3<&0; (sh -c 'cat <&3' &) ; echo started"
        process = await aio.create_subprocess_shell(command, stdin=readable, stdout=PIPE)
        os.close(readable)
        assert await process.stdout.readline() == b"started\n"
        while process.returncode is None:
            await asyncio.sleep(0)
        os.write(writable, b"from the daemon")
        os.close(writable)
        assert await process.stdout.read() == b"from the daemon"
        assert await process.wait() == 0
        await over(process)

    run(loop, main())


# Cancellation.


@pytest.mark.slow
def test_cancelled_while_it_is_made(native_loop):
    """At every turn: either it is too late, or child, pipes and registrations are gone."""

    async def main():
        outcomes = []
        for turns in range(12):
            with NothingLeft():
                task = asyncio.ensure_future(
                    aioxide.create_subprocess_exec("sleep", "100", stdin=PIPE, stdout=PIPE, stderr=PIPE)
                )
                for _ in range(turns):
                    await asyncio.sleep(0)
                task.cancel()
                try:
                    process = await task
                except asyncio.CancelledError:
                    outcomes.append("cancelled")
                else:
                    outcomes.append("made")
                    process.kill()
                    await process.communicate()
                    await over(process)
                    del process
                del task
                # Pipes are closed in the next turn.
                for _ in range(3):
                    await asyncio.sleep(0)
        assert outcomes.count("cancelled") >= 3
        assert outcomes[-1] == "made"

    run(native_loop, main())


def test_cancelled_twice_while_it_is_made(native_loop):
    async def main():
        task = asyncio.ensure_future(aioxide.create_subprocess_exec("sleep", "100", stdin=PIPE))
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        while children():
            await asyncio.sleep(0)

    run(native_loop, main())


def test_cancelled_wait_leaves_nothing_behind(native_loop):
    async def main():
        process = await aioxide.create_subprocess_exec("cat", stdin=PIPE)
        for _ in range(3):
            task = asyncio.ensure_future(process.wait())
            await asyncio.sleep(0)
            assert len(process._transport._exit_waiters) == 1
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert process._transport._exit_waiters == set()
        await process.communicate()
        assert process._transport._exit_waiters is None
        await over(process)

    run(native_loop, main())


@pytest.mark.parametrize("turns", range(5))
def test_cancelled_communicate_can_be_followed_by_another(aio, loop, turns):
    async def main():
        process = await aio.create_subprocess_exec("cat", stdin=PIPE, stdout=PIPE, stderr=PIPE)
        task = asyncio.ensure_future(process.communicate(b"x" * 10_000_000))
        for _ in range(turns):
            await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert process.stdout._waiter is process.stderr._waiter is None
        process.kill()
        output, _ = await process.communicate()
        assert set(output) <= {ord("x")}
        assert process.returncode == -signal.SIGKILL
        await over(process)

    if is_stdlib(aio) and sys.version_info < (3, 12):
        pytest.skip("up to 3.11 the input has to be closed by hand")
    run(loop, main())


def test_cancelled_drain(aio, loop):
    async def main():
        process = await aio.create_subprocess_exec("sleep", "100", stdin=PIPE)
        process.stdin.write(b"x" * 1_000_000)
        task = asyncio.ensure_future(process.stdin.drain())
        await asyncio.sleep(0)
        assert not task.done()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert not process._protocol._drain_waiters
        process.kill()
        await process.wait()
        with pytest.raises(ConnectionError):
            while True:
                await process.stdin.drain()
        await over(process)

    run(loop, main())


# Loops that end first.


def left_alone(aio, close):
    """Starts a child and closes the loop."""
    loop = asyncio.SelectorEventLoop() if is_stdlib(aio) else aioxide.new_event_loop()

    async def main():
        return await aio.create_subprocess_exec("sleep", "100", stdout=PIPE)

    process = run(loop, main())
    if close:
        process._transport.close()
    loop.close()
    return process


@pytest.mark.parametrize("close", [False, True], ids=["open", "closed"])
def test_loop_that_is_closed_while_a_child_runs(close):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        process = left_alone(aioxide, close)
        pid, popen = process.pid, process._transport.get_extra_info("subprocess")
        assert process.returncode is None
        transport_text = repr(process._transport)
        del process
        gc.collect()
        # The child was killed, and somebody has to wait for it.
        assert popen.wait() == -signal.SIGKILL
    texts = [str(warning.message) for warning in caught]
    assert any(text.startswith("unclosed transport <_UnixSubprocessTransport pid=") for text in texts) != close
    assert f"pid={pid} running" in transport_text
    popen.stdout.close()


def test_child_that_ended_after_the_loop_was_closed():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        process = left_alone(aioxide, False)
        popen = process._transport.get_extra_info("subprocess")
        os.kill(process.pid, signal.SIGTERM)
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        process._transport.close()
        # It was taken in, not killed once more.
        assert popen.returncode == -signal.SIGTERM
        popen.stdout.close()
        del process
        gc.collect()


def test_transport_closed_while_the_child_runs(aio, loop):
    async def main():
        transport, protocol = await loop.subprocess_exec(Recorder, "cat")
        transport.close()
        transport.close()
        assert await transport._wait() == -signal.SIGKILL
        await protocol.until_event("lost", None)
        assert transport.get_returncode() == -signal.SIGKILL

    run(loop, main())


@pytest.mark.parametrize("callback", ["made", "data", "pipe lost", "exited", "lost", "factory"])
@pytest.mark.parametrize("action", ["raise", "close", "kill", "pipes", "stop", "drop"])
@pytest.mark.logs_errors
def test_callbacks_that_do_what_they_should_not(native_loop, callback, action):
    """Errors are reported, and the rest goes on; nothing is left behind."""
    reports = []
    native_loop.set_exception_handler(lambda loop, context: reports.append(context))
    protocol = Recorder()
    note, acted = protocol.note, []

    def act(*event):
        is_it = event[0] == callback and not acted
        if is_it:
            acted.append(event)
        note(*event)
        if not is_it:
            return
        transport = protocol.transport
        if action == "raise":
            raise ZeroDivisionError
        if action == "close":
            transport.close()
        elif action == "kill":
            with contextlib.suppress(ProcessLookupError):
                transport.kill()
        elif action == "pipes":
            for fd in range(3):
                transport.get_pipe_transport(fd).close()
        elif action == "stop":
            native_loop.stop()
        elif action == "drop":
            protocol.transport = None
            gc.collect()

    protocol.note = act

    def factory():
        if callback == "factory" and action == "raise":
            raise ZeroDivisionError
        return protocol

    async def start():
        return await native_loop.subprocess_exec(factory, "cat")

    async def finish(transport):
        with contextlib.suppress(RuntimeError):
            transport.get_pipe_transport(0).write(b"spam")
        if callback != "data":
            transport.get_pipe_transport(0).close()
        else:
            await protocol.until(lambda: acted)
            transport.get_pipe_transport(0).close()
        await protocol.until_event("lost", None)
        transport.close()

    def until_done(coro):
        task = native_loop.create_task(coro)
        while not task.done():
            with contextlib.suppress(RuntimeError):
                # Stopped from inside.
                native_loop.run_until_complete(asyncio.wait([task], timeout=30))
        return task.result()

    if callback == "factory":
        if action != "raise":
            pytest.skip("has no transport yet")
        with pytest.raises(ZeroDivisionError):
            until_done(start())
        return
    transport, _ = until_done(start())
    until_done(finish(transport))
    assert acted
    protocol.transport = None
    del transport
    assert bool(reports) == (action == "raise")
    reports.clear()
    acted.clear()


# Others who wait for children.


@pytest.fixture
def log(caplog):
    caplog.set_level(logging.WARNING, "asyncio")
    return lambda: [record.getMessage() for record in caplog.records]


@pytest.mark.parametrize("steal", [lambda pid: os.waitpid(pid, 0), lambda pid: os.waitpid(-1, 0)], ids=["pid", "any"])
def test_child_that_somebody_else_waited_for(log, steal):
    loop = aioxide.new_event_loop()

    async def main():
        process = await aioxide.create_subprocess_exec("true")
        steal(process.pid)
        # Its number may be another one's by now.
        process.kill()
        assert await process.wait() == 255
        await over(process)
        return process.pid

    with contextlib.closing(loop):
        pid = run(loop, main())
    assert log() == [f"Unknown child process pid {pid}, will report returncode 255"]


def test_child_whose_status_cannot_be_taken_yet(native_loop, monkeypatch):
    """As that of a child that is traced: the tracer is told first. The loop does not spin meanwhile."""
    real, asked = os.waitpid, []

    def waitpid(pid, options):
        asked.append(pid)
        return (0, 0) if len(asked) == 1 else real(pid, options)

    async def main():
        process = await aioxide.create_subprocess_shell("exit 6")
        monkeypatch.setattr(os, "waitpid", waitpid)
        assert await process.wait() == 6
        assert asked == [process.pid, process.pid]
        await over(process)

    run(native_loop, main())


@pytest.mark.parametrize("method", ["wait", "poll"])
def test_child_that_was_waited_for_through_its_popen(log, native_loop, method):
    async def main():
        process = await aioxide.create_subprocess_shell("exit 9")
        popen = process._transport.get_extra_info("subprocess")
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        assert getattr(popen, method)() == 9
        process.kill()
        process._transport.close()
        assert await process.wait() == 9
        await over(process)

    run(native_loop, main())
    assert log() == []


def test_sigchld_that_is_ignored(log):
    """Then the kernel keeps no status, and forgets the child at once."""
    loop = aioxide.new_event_loop()

    async def main():
        process = await aioxide.create_subprocess_shell("exit 9")
        assert await process.wait() == 255
        await over(process)

    before = signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    try:
        with contextlib.closing(loop):
            run(loop, main())
    finally:
        signal.signal(signal.SIGCHLD, before)
    assert len(log()) == 1


@pytest.mark.slow
def test_storm_of_sigchld_with_handlers_of_others(native_loop):
    """Handlers of the program's own see the signals, and its own children are its own."""
    seen = []

    async def main():
        native_loop.add_signal_handler(signal.SIGCHLD, seen.append, 1)
        own = [subprocess.Popen(["sh", "-c", f"exit {number}"]) for number in range(10)]
        create = aioxide.create_subprocess_shell
        processes = [await create(f"exit {number}") for number in range(30)]
        for _ in range(100):
            os.kill(os.getpid(), signal.SIGCHLD)
        codes = await asyncio.gather(*(process.wait() for process in processes))
        assert codes == list(range(30))
        assert [popen.wait() for popen in own] == list(range(10))
        native_loop.remove_signal_handler(signal.SIGCHLD)
        for process in processes:
            await over(process)

    run(native_loop, main())
    assert seen


@pytest.mark.slow
def test_other_code_runs_children_meanwhile(native_loop):
    done, failures = threading.Event(), []

    def others():
        try:
            while not done.is_set():
                assert subprocess.run(["sh", "-c", "exit 3"], check=False).returncode == 3
                pid = os.posix_spawn("/bin/true", ["true"], {})
                assert os.waitpid(pid, 0) == (pid, 0)
        except BaseException as error:
            failures.append(error)

    async def main():
        for number in range(20):
            process = await aioxide.create_subprocess_shell(f"exit {number}")
            assert await process.wait() == number
            await over(process)

    thread = threading.Thread(target=others)
    thread.start()
    try:
        run(native_loop, main())
    finally:
        done.set()
        thread.join()
    assert failures == []


def test_status_is_taken_by_the_loop_when_a_thread_waits(native_loop):
    """Where there is no descriptor: the number stays the child's until the transport knows."""

    async def main():
        with no_descriptor_for_the_watch():
            process = await aioxide.create_subprocess_exec("sleep", "100")
        thread = waiting_thread()
        process.kill()
        thread.join()
        # It was not told yet, and the child is still there.
        assert process.returncode is None
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT | os.WNOHANG)
        process.kill()
        assert await process.wait() == -signal.SIGKILL
        await over(process)

    run(native_loop, main())


def test_thread_takes_the_status_if_the_loop_is_closed(log):
    loop = aioxide.new_event_loop()

    async def main():
        with no_descriptor_for_the_watch():
            return await aioxide.create_subprocess_exec("cat", stdin=readable)

    readable, writable = os.pipe()
    process = run(loop, main())
    os.close(readable)
    loop.close()
    thread = waiting_thread()
    os.close(writable)
    thread.join()
    assert len(log()) == 1
    assert "is closed" in log()[0]
    with pytest.raises(ChildProcessError):
        os.waitpid(process.pid, os.WNOHANG)
    process._transport.close()


# Fork.


@pytest.mark.filterwarnings("ignore:.*use of fork.*:DeprecationWarning")
def test_forked_child_leaves_the_parents_children_alone(native_loop):
    """In a fork, the parent's children are nobody's: to close the loop and the transport kills nobody."""

    async def main():
        process = await aioxide.create_subprocess_exec("cat", stdin=PIPE, stdout=PIPE)
        pid = os.fork()
        if pid == 0:
            status = 1
            try:
                process._transport.close()
                asyncio.events._set_running_loop(None)
                status = 0
            finally:
                os._exit(status)
        assert os.waitpid(pid, 0)[1] == 0
        assert await process.communicate(b"spam") == (b"spam", None)
        assert process.returncode == 0
        await over(process)

    run(native_loop, main())


@pytest.mark.filterwarnings("ignore:.*use of fork.*:DeprecationWarning")
def test_forked_child_runs_children_of_its_own_on_the_parents_loop(native_loop):
    async def work(number):
        process = await aioxide.create_subprocess_shell(f"cat; exit {number}", stdin=PIPE, stdout=PIPE)
        assert await process.communicate(b"spam") == (b"spam", None)
        assert process.returncode == number
        await over(process)

    run(native_loop, work(1))
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            run(native_loop, work(2))
            status = 0
        finally:
            os._exit(status)
    run(native_loop, work(3))
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0

"""Subprocesses, with the stdlib too."""

import asyncio
import contextlib
import gc
import grp
import inspect
import logging
import os
import pwd
import re
import signal
import subprocess
import sys
import tempfile
import threading
import weakref

import children
import pytest
from children import PIPE, NothingLeft, Recorder, over, run

import aioxide

pytestmark = pytest.mark.skipif(not os.path.exists("/proc/self/fd"), reason="needs /proc")


@pytest.fixture(autouse=True)
def nothing_left():
    with NothingLeft():
        yield


def is_stdlib(aio):
    return aio is asyncio


def plain(text):
    """A repr without its numbers."""
    return re.sub(r"(pid=|fd=|Process )\d+", r"\1N", text)


# Streams.


@pytest.mark.parametrize("size", [0, 1, 65536, 65537, 3_000_000])
def test_communicate_gives_back_what_it_is_given(aio, loop, size):
    data = os.urandom(size)

    async def main():
        process = await aio.create_subprocess_exec("cat", stdin=PIPE, stdout=PIPE)
        output, errors = await process.communicate(data)
        assert (output == data, errors, process.returncode) == (True, None, 0)

    run(loop, main())


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_input_of_every_kind(aio, loop, kind):
    async def main():
        process = await aio.create_subprocess_exec("cat", stdin=PIPE, stdout=PIPE)
        output, _ = await process.communicate(kind(b"spam" * 100_000))
        assert output == b"spam" * 100_000

    run(loop, main())


def test_output_and_error_output(aio, loop):
    async def main():
        command = "echo out; echo err >&2; exit 7"
        process = await aio.create_subprocess_shell(command, stdout=PIPE, stderr=PIPE)
        assert process.stdin is None
        assert await process.communicate() == (b"out\n", b"err\n")
        assert process.returncode == 7
        process = await aio.create_subprocess_shell(command, stdout=PIPE, stderr=subprocess.STDOUT)
        assert await process.communicate() == (b"out\nerr\n", None)

    run(loop, main())


def test_lines_are_read_as_they_come(aio, loop):
    async def main():
        process = await aio.create_subprocess_exec("cat", stdin=PIPE, stdout=PIPE)
        for number in range(10):
            line = b"line %d\n" % number
            process.stdin.write(line)
            await process.stdin.drain()
            assert await process.stdout.readline() == line
        process.stdin.close()
        await process.stdin.wait_closed()
        assert await process.stdout.read() == b""
        assert await process.wait() == 0

    run(loop, main())


def test_limit_is_that_of_the_readers(aio, loop):
    async def main():
        process = await aio.create_subprocess_shell("echo 0123456789; cat", stdin=PIPE, stdout=PIPE, limit=4)
        with pytest.raises(ValueError, match="limit"):
            await process.stdout.readline()
        assert process.stdout._limit == 4
        process.stdin.close()
        await process.communicate()

    run(loop, main())


def test_reader_that_is_not_read_stops_the_child(aio, loop):
    async def main():
        process = await aio.create_subprocess_exec("cat", "/dev/zero", stdout=PIPE, limit=1000)
        pipe = process._transport.get_pipe_transport(1)
        while pipe.is_reading():
            await asyncio.sleep(0)
        assert process.stdout._paused
        before = len(process.stdout._buffer)
        for _ in range(20):
            await asyncio.sleep(0)
        assert len(process.stdout._buffer) == before
        assert len(await process.stdout.readexactly(1_000_000)) == 1_000_000
        process.kill()
        pipe.close()
        assert await process.wait() == -signal.SIGKILL
        await over(process)

    run(loop, main())


@pytest.mark.parametrize("subject", ["file", "descriptor", "DEVNULL"])
def test_streams_as_files(aio, loop, subject):
    async def main(source, target):
        def stream(file):
            return {"file": file, "descriptor": file.fileno(), "DEVNULL": subprocess.DEVNULL}[subject]

        process = await aio.create_subprocess_exec("cat", stdin=stream(source), stdout=stream(target))
        assert (process.stdin, process.stdout, process.stderr) == (None, None, None)
        assert await process.communicate() == (None, None)
        target.seek(0)
        assert target.read() == (b"" if subject == "DEVNULL" else b"content")

    with tempfile.TemporaryFile() as source, tempfile.TemporaryFile() as target:
        source.write(b"content")
        source.seek(0)
        run(loop, main(source, target))


def test_standard_input_is_a_pipe_that_opens(aio, loop):
    async def main():
        process = await aio.create_subprocess_exec("cat", "/dev/stdin", stdin=PIPE, stdout=PIPE)
        assert await process.communicate(b"opened") == (b"opened", None)

    run(loop, main())


def test_communicate_without_input_closes_the_childs_input(aio, loop):
    if is_stdlib(aio) and sys.version_info < (3, 12):
        pytest.skip("up to 3.11 it stays open")

    async def main():
        process = await aio.create_subprocess_exec("cat", stdin=PIPE, stdout=PIPE)
        assert await process.communicate() == (b"", None)

    run(loop, main())


def test_wait_is_over_when_the_child_is_though_its_pipe_is_open(aio, loop):
    if is_stdlib(aio) and sys.version_info < (3, 14):
        pytest.skip("up to 3.13 it waits for the pipes, too")

    async def main():
        # The grandchild holds the pipe until its input ends.
        readable, writable = os.pipe()
        process = await aio.create_subprocess_shell("exec 3<&0; cat <&3 >&2 & exit 3", stdin=readable, stderr=PIPE)
        os.close(readable)
        assert await process.wait() == 3
        assert not process.stderr.at_eof()
        os.close(writable)
        assert await process.stderr.read() == b""

    run(loop, main())


def test_many_may_wait(aio, loop):
    async def main():
        process = await aio.create_subprocess_exec("cat", stdin=PIPE)
        waiting = [asyncio.ensure_future(process.wait()) for _ in range(10)]
        await asyncio.sleep(0)
        waiting[3].cancel()
        process.stdin.close()
        results = await asyncio.gather(*waiting, return_exceptions=True)
        assert [type(result) for result in results].count(asyncio.CancelledError) == 1
        assert results.count(0) == 9
        assert await process.wait() == 0

    run(loop, main())


# Protocols.


async def start(loop, *command, **options):
    """Runs a command with a recorder."""
    return await loop.subprocess_exec(Recorder, *command, **options)


def test_protocol_is_told_in_order(aio, loop):
    async def main():
        transport, protocol = await start(loop, "cat")
        assert protocol.transport is transport
        assert isinstance(transport, asyncio.SubprocessTransport)
        transport.get_pipe_transport(0).write(b"hello")
        await protocol.until_event("data", 1)
        transport.get_pipe_transport(0).close()
        await protocol.until_event("lost", None)
        kinds = [event[0] for event in protocol.events]
        assert kinds[:2] == ["made", "data"]
        assert kinds[-1] == "lost"
        assert sorted(kinds[2:-1]) == ["exited", "pipe lost", "pipe lost", "pipe lost"]
        assert protocol.output[1] == b"hello"
        assert transport.get_returncode() == 0
        assert not transport.is_closing()
        transport.close()
        assert transport.is_closing()

    run(loop, main())


@pytest.mark.slow
def test_child_that_is_over_at_once_loses_nothing(aio, loop):
    async def main():
        for _ in range(10):
            transport, protocol = await loop.subprocess_shell(Recorder, "echo spam; echo eggs >&2", stdin=None)
            await protocol.until_event("lost", None)
            assert protocol.events[0] == ("made",)
            assert protocol.output == {1: b"spam\n", 2: b"eggs\n"}
            transport.close()

    run(loop, main())


def test_child_without_pipes(aio, loop):
    async def main():
        transport, protocol = await start(loop, "true", stdin=None, stdout=None, stderr=None)
        await protocol.until_event("lost", None)
        assert protocol.events == [("made",), ("exited",), ("lost", None)]
        transport.close()

    run(loop, main())


def test_exit_comes_before_the_end_of_a_pipe_that_a_grandchild_holds(aio, loop):
    async def main():
        readable, writable = os.pipe()
        options = {"stdin": readable, "stderr": None}
        transport, protocol = await loop.subprocess_shell(Recorder, "exec 3<&0; cat <&3 & exit 4", **options)
        os.close(readable)
        await protocol.until_event("exited")
        assert transport.get_returncode() == 4
        assert ("lost", None) not in protocol.events
        os.write(writable, b"late")
        os.close(writable)
        await protocol.until_event("lost", None)
        assert protocol.output[1] == b"late"
        transport.close()

    run(loop, main())


def test_what_is_known_of_a_child(aio, loop):
    async def main():
        transport, protocol = await start(loop, "cat", stderr=None)
        popen = transport.get_extra_info("subprocess")
        assert type(popen) is subprocess.Popen
        assert popen.pid == transport.get_pid() == transport._pid
        assert transport._proc is popen
        assert transport.get_extra_info("nothing", 5) == 5
        assert transport.get_returncode() is transport._returncode is None
        assert transport.get_protocol() is transport._protocol is protocol
        assert isinstance(transport.get_pipe_transport(0), asyncio.WriteTransport)
        assert isinstance(transport.get_pipe_transport(1), asyncio.ReadTransport)
        assert transport.get_pipe_transport(2) is None
        assert transport.get_pipe_transport("spam") is None
        assert list(transport._pipes) == [0, 1]
        assert transport._pipes[0].pipe is transport.get_pipe_transport(0)
        assert (transport._pipes[1].fd, transport._pipes[1].proc) == (1, transport)
        assert not transport._pipes[1].disconnected
        assert transport._pending_calls is None
        assert not transport._finished
        assert not transport._closed
        assert transport._loop is loop
        other = Recorder()
        transport.set_protocol(other)
        transport.get_pipe_transport(0).close()
        await other.until_event("lost", None)
        assert popen.returncode == transport.get_returncode() == 0
        assert (transport._proc, transport._loop, transport._protocol) == (None, None, None)
        assert transport._finished
        assert transport.get_extra_info("subprocess") is popen
        assert await transport._wait() == 0
        with pytest.raises(ProcessLookupError):
            transport._check_proc()
        with pytest.raises(ProcessLookupError):
            transport.kill()
        transport.close()

    run(loop, main())


def states(aio):
    """What reprs show of a child, from its start to its end."""
    shown = []

    async def main():
        process = await aio.create_subprocess_exec("cat", stdin=PIPE, stdout=PIPE, stderr=PIPE)
        protocol, transport = process._protocol, process._transport
        shown.extend(map(repr, [process, transport, protocol, *transport._pipes.values()]))
        process.stdin.close()
        await process.wait()
        await process.communicate()
        await over(process)
        shown.extend(map(repr, [process, transport, protocol]))

    loop = asyncio.SelectorEventLoop() if is_stdlib(aio) else aioxide.new_event_loop()
    with contextlib.closing(loop):
        run(loop, main())
    return list(map(plain, shown))


def test_reprs_are_asyncios():
    # A watched pipe is known to asyncio by its selector alone, and the write end may have written meanwhile.
    assert states(aioxide) == states(asyncio)


def test_classes_are_asyncios():
    import asyncio.subprocess

    for name in ("Process", "SubprocessStreamProtocol"):
        ours, theirs = getattr(aioxide.subprocess, name), getattr(asyncio.subprocess, name)
        assert (ours.__module__, ours.__qualname__) == (theirs.__module__, theirs.__qualname__)
        missing = {attribute for attribute in vars(theirs) if not hasattr(ours, attribute)}
        assert missing <= {"__weakref__", "__static_attributes__", "__firstlineno__"}
        for method in vars(theirs):
            if inspect.isfunction(theirs.__dict__[method]) and not method.startswith("__"):
                assert str(inspect.signature(getattr(ours, method))) == str(inspect.signature(getattr(theirs, method)))
    for name in ("create_subprocess_exec", "create_subprocess_shell"):
        assert inspect.signature(getattr(aioxide, name)) == inspect.signature(getattr(asyncio, name))
        assert inspect.iscoroutinefunction(getattr(aioxide, name))
    protocol = aioxide.subprocess.SubprocessStreamProtocol
    assert issubclass(protocol, (asyncio.SubprocessProtocol, asyncio.streams.FlowControlMixin))


# What is refused.

REFUSED = {
    "universal_newlines": (True, "universal_newlines must be False"),
    "bufsize": (1, "bufsize must be 0"),
    "text": (True, "text must be False"),
    "encoding": ("utf-8", "encoding must be None"),
    "errors": ("strict", "errors must be None"),
}


@pytest.mark.parametrize("option", REFUSED)
@pytest.mark.parametrize("method", ["exec", "shell"])
def test_refused_options(aio, loop, option, method):
    value, message = REFUSED[option]

    async def main():
        create = getattr(aio, f"create_subprocess_{method}")
        with pytest.raises(ValueError, match=f"^{message}$"):
            await create("true", **{option: value})
        made = []
        with pytest.raises(ValueError, match=f"^{message}$"):
            await getattr(loop, f"subprocess_{method}")(lambda: made.append(1), "true", **{option: value})
        assert made == []

    run(loop, main())


def test_refused_shell(aio, loop):
    async def main():
        with pytest.raises(ValueError, match="shell must be False"):
            await aio.create_subprocess_exec("true", shell=True)
        with pytest.raises(ValueError, match="shell must be True"):
            await aio.create_subprocess_shell("true", shell=False)
        for command in (["true"], 1, None):
            with pytest.raises(ValueError, match="cmd must be a string"):
                await aio.create_subprocess_shell(command)
        process = await aio.create_subprocess_shell(b"exit 2", text=False, bufsize=0, encoding=None)
        assert await process.wait() == 2

    run(loop, main())


@pytest.mark.parametrize("option", ["loop", "nonsense"])
def test_unknown_options_are_popens_to_refuse(aio, loop, option):
    if is_stdlib(aio) and option == "loop":
        pytest.skip("the stdlib's transport takes it for its own argument, and fails in its finaliser")

    async def main():
        with pytest.raises(TypeError, match=f"unexpected keyword argument '{option}'"):
            await aio.create_subprocess_exec("true", **{option: None})

    run(loop, main())


# Options of Popen.


def shows(command, expected, **options):
    return pytest.param(command, expected, options, id=next(iter(options)))


SELF = os.getpid


@pytest.mark.parametrize(
    ("command", "expected", "options"),
    [
        shows("echo $SPAM", b"eggs\n", env={"SPAM": "eggs", "PATH": os.environ["PATH"]}),
        shows("pwd", b"/usr\n", cwd="/usr"),
        shows("echo $0", b"myself\n", executable="/bin/sh"),
        shows("umask", b"0027\n", umask=0o027),
        shows("exec 2>&-; cut -d ' ' -f 6 /proc/self/stat | grep -qx $$ && echo own", b"own\n", start_new_session=True),
        shows("cut -d ' ' -f 5 /proc/self/stat | grep -qx $$ && echo own", b"own\n", process_group=0),
        shows("echo ran", b"ran\n", pipesize=1 << 16),
        shows("echo ran", b"ran\n", restore_signals=False),
        shows("echo ran", b"ran\n", close_fds=False),
    ],
)
def test_options(aio, loop, command, expected, options):
    async def main():
        args = ("myself", "-c", command) if "executable" in options else ("/bin/sh", "-c", command)
        process = await aio.create_subprocess_exec(*args, stdout=PIPE, **options)
        assert await process.communicate() == (expected, None)

    run(loop, main())


def test_pipesize(aio, loop):
    import fcntl

    async def main():
        process = await aio.create_subprocess_exec("cat", stdin=PIPE, stdout=PIPE, pipesize=1 << 18)
        pipe = process._transport.get_pipe_transport(1).get_extra_info("pipe")
        assert fcntl.fcntl(pipe, fcntl.F_GETPIPE_SZ) == 1 << 18
        await process.communicate(b"")

    run(loop, main())


def test_preexec_fn(aio, loop):
    async def main():
        process = await aio.create_subprocess_shell("echo $$; pwd", stdout=PIPE, preexec_fn=lambda: os.chdir("/usr"))
        assert await process.communicate() == (b"%d\n/usr\n" % process.pid, None)

        def fail():
            raise ValueError

        with pytest.raises(subprocess.SubprocessError):
            await aio.create_subprocess_shell("true", preexec_fn=fail)

    run(loop, main())


@pytest.mark.skipif(os.getuid() != 0, reason="only root may")
def test_user_and_groups(aio, loop):
    async def main():
        user = pwd.getpwnam("nobody")
        group = grp.getgrgid(user.pw_gid)
        process = await aio.create_subprocess_shell(
            "id -u; id -g; id -G", stdout=PIPE, user="nobody", group=group.gr_name, extra_groups=[group.gr_gid]
        )
        gid = b"%d" % group.gr_gid
        assert await process.communicate() == (b"%d\n%b\n%b\n" % (user.pw_uid, gid, gid), None)

    run(loop, main())


def test_inherited_descriptors(aio, loop):
    async def main():
        readable, writable = os.pipe()
        os.set_inheritable(readable, True)
        command = f"test -e /proc/self/fd/{readable} && echo open || echo closed"
        for options, expected in [({}, b"closed\n"), ({"pass_fds": [readable]}, b"open\n")]:
            process = await aio.create_subprocess_shell(command, stdout=PIPE, **options)
            assert await process.communicate() == (expected, None)
        os.close(readable)
        os.close(writable)

    run(loop, main())


# Signals.


def test_signals(aio, loop):
    async def main():
        for send, expected in [
            (lambda process: process.terminate(), -signal.SIGTERM),
            (lambda process: process.kill(), -signal.SIGKILL),
            (lambda process: process.send_signal(signal.SIGHUP), -signal.SIGHUP),
            (lambda process: process.send_signal(1), -signal.SIGHUP),
        ]:
            process = await aio.create_subprocess_exec("sleep", "100")
            process.send_signal(0)
            send(process)
            assert await process.wait() == process.returncode == expected

    run(loop, main())


def test_wrong_signals(aio, loop):
    async def main():
        process = await aio.create_subprocess_exec("cat", stdin=PIPE)
        for wrong, error in [("TERM", TypeError), (None, TypeError), (99999, OSError), (-1, OSError)]:
            with pytest.raises(error):
                process.send_signal(wrong)
        await process.communicate(b"")

    run(loop, main())


def test_signal_after_the_end(aio, loop):
    if is_stdlib(aio) and sys.version_info < (3, 14):
        pytest.skip("up to 3.13 it depends on who has waited for the child")

    async def main():
        readable, writable = os.pipe()
        process = await aio.create_subprocess_shell("exec 3<&0; cat <&3 & exit", stdin=readable, stdout=PIPE)
        os.close(readable)
        assert await process.wait() == 0
        # The pipe is open, so the transport is still there.
        process.kill()
        process.terminate()
        os.close(writable)
        await process.communicate()
        await over(process)
        for method in (process.kill, process.terminate, lambda: process.send_signal(9)):
            with pytest.raises(ProcessLookupError):
                method()

    run(loop, main())


# What may be overridden.


def native_protocol(loop, kind=None):
    return (kind or aioxide.subprocess.SubprocessStreamProtocol)(limit=2**16, loop=loop)


@pytest.fixture
def native_loop():
    with contextlib.closing(aioxide.new_event_loop()) as loop:
        yield loop


def test_override_of_pipe_data_received_is_called(native_loop):
    seen = []

    class Protocol(aioxide.subprocess.SubprocessStreamProtocol):
        def pipe_data_received(self, fd, data):
            seen.append((fd, data))
            super().pipe_data_received(fd, data.upper())

    async def main():
        transport, protocol = await native_loop.subprocess_shell(
            lambda: native_protocol(native_loop, Protocol), "echo spam"
        )
        process = aioxide.subprocess.Process(transport, protocol, native_loop)
        assert await process.communicate() == (b"SPAM\n", b"")
        assert seen == [(1, b"spam\n")]

    run(native_loop, main())


@pytest.mark.parametrize("where", ["protocol", "reader", "pipe", "transport"])
def test_assignment_on_an_instance_is_called(native_loop, where):
    seen = []

    async def main():
        transport, protocol = await native_loop.subprocess_exec(lambda: native_protocol(native_loop), "cat")
        owner, name = {
            "protocol": (protocol, "pipe_data_received"),
            "reader": (protocol.stdout, "feed_data"),
            "pipe": (transport._pipes[1], "data_received"),
            "transport": (transport, "_pipe_data_received"),
        }[where]
        original = getattr(owner, name)

        def replacement(*args):
            seen.append(args)
            original(*args)

        setattr(owner, name, replacement)
        process = aioxide.subprocess.Process(transport, protocol, native_loop)
        assert await process.communicate(b"spam") == (b"spam", b"")
        assert [args[-1] for args in seen] == [b"spam"]

    run(native_loop, main())


@pytest.mark.logs_errors
def test_data_after_the_end_is_reported_as_asyncio_does(aio, loop):
    reports = []
    loop.set_exception_handler(lambda loop, context: reports.append(type(context["exception"])))

    async def main():
        process = await aio.create_subprocess_exec("cat", stdin=PIPE, stdout=PIPE)
        process.stdout.feed_eof()
        process.stdin.write(b"spam")
        while not reports:
            await asyncio.sleep(0)
        process.stdin.close()
        await process.wait()
        assert await process.stdout.read() == b""
        assert set(reports) == {AssertionError}

    run(loop, main())


@pytest.mark.parametrize("name", ["connect_read_pipe", "connect_write_pipe", "_make_subprocess_transport"])
def test_overridden_methods_of_the_loop_are_called(aio, loop, name):
    original, calls = getattr(loop, name), []

    async def replacement(*args, **options):
        calls.append(args)
        return await original(*args, **options)

    setattr(loop, name, replacement)

    async def main():
        process = await aio.create_subprocess_exec("cat", stdin=PIPE, stdout=PIPE, stderr=PIPE)
        assert await process.communicate(b"spam") == (b"spam", b"")
        assert len(calls) == (2 if name == "connect_read_pipe" else 1)

    run(loop, main())


@pytest.mark.parametrize("namespace", [asyncio, aioxide], ids=["stdlib functions", "native functions"])
@pytest.mark.parametrize(
    "kind", [asyncio.SelectorEventLoop, aioxide.new_event_loop], ids=["stdlib loop", "native loop"]
)
def test_functions_and_loops_mix(namespace, kind):
    async def main():
        process = await namespace.create_subprocess_exec("cat", stdin=PIPE, stdout=PIPE)
        data = os.urandom(1_000_000)
        assert await process.communicate(data) == (data, None)
        process = await namespace.create_subprocess_shell("exit 5")
        assert await process.wait() == 5

    with contextlib.closing(kind()) as loop:
        run(loop, main())


def test_task_factory_gets_the_task_that_connects_pipes(aio, loop):
    names = []

    def factory(loop, coro, **options):
        names.append(coro.__qualname__)
        return asyncio.Task(coro, loop=loop, **options)

    async def main():
        loop.set_task_factory(factory)
        process = await aio.create_subprocess_exec("true")
        await process.wait()
        loop.set_task_factory(None)
        assert names == ["BaseSubprocessTransport._connect_pipes"]

    run(loop, main())


# Debug mode, and what is left behind.


def test_log_of_debug_mode(aio, caplog):
    loop = asyncio.SelectorEventLoop() if is_stdlib(aio) else aioxide.new_event_loop()
    loop.set_debug(True)
    loop.slow_callback_duration = 30

    async def main():
        process = await aio.create_subprocess_exec("cat", stdin=PIPE, stdout=PIPE)
        await process.communicate(b"spam")

    caplog.set_level(logging.DEBUG, "asyncio")
    with contextlib.closing(loop):
        run(loop, main())
    lines = [plain(record.getMessage()) for record in caplog.records]
    wanted = [
        "execute program 'cat' stdin=<pipe> stdout=<pipe>",
        "process 'cat' created: pid ",
        "execute program 'cat': <_UnixSubprocessTransport ",
        "<Process N> communicate: feed stdin (4 bytes)",
        "<Process N> communicate: read stdout",
        "<Process N> communicate: close stdin",
        "<Process N> communicate: close stdout",
        " exited with return code 0",
    ]
    for text in wanted:
        assert any(text in line for line in lines), (text, lines)


def test_everything_is_freed(aio, loop):
    async def main():
        process = await aio.create_subprocess_exec("cat", stdin=PIPE, stdout=PIPE, stderr=PIPE)
        alive = [
            weakref.ref(thing)
            for thing in (process, process._transport, process._protocol, process.stdin, process.stdout)
        ]
        await process.communicate(b"spam")
        await over(process)
        return alive

    alive = run(loop, main())
    # A thread in which asyncio waits for the child lives on for a moment, and holds the transport.
    for thread in threading.enumerate():
        if "waitpid" in thread.name:
            thread.join()
    gc.collect()
    assert [reference() for reference in alive] == [None] * 5


def test_transport_that_nobody_closed(aio, loop):
    async def main():
        transport, protocol = await start(loop, "true")
        await protocol.until_event("lost", None)
        protocol.transport = None
        transport.marker = 1
        del transport, protocol
        await asyncio.sleep(0)
        gc.collect()

    with pytest.warns(ResourceWarning, match=r"unclosed transport <_UnixSubprocessTransport pid=\d+ returncode=0"):
        run(loop, main())


@pytest.mark.slow
def test_no_thread_for_200_children(native_loop):
    def threads():
        return len(os.listdir("/proc/self/task"))

    async def main():
        before = threads(), threading.active_count()
        create = aioxide.create_subprocess_exec
        running = [await create("cat", stdin=PIPE, stdout=PIPE) for _ in range(200)]
        assert (threads(), threading.active_count()) == before
        outputs = await asyncio.gather(*(process.communicate(b"%d" % process.pid) for process in running))
        assert [output for output, _ in outputs] == [b"%d" % process.pid for process in running]
        assert (threads(), threading.active_count()) == before

    run(native_loop, main())


@pytest.mark.slow
def test_ten_loops_in_ten_threads(aio):
    failures = []

    async def work():
        for number in range(5):
            process = await aio.create_subprocess_shell(f"cat; exit {number}", stdin=PIPE, stdout=PIPE)
            assert await process.communicate(b"spam") == (b"spam", None)
            assert process.returncode == number

    def thread():
        loop = asyncio.SelectorEventLoop() if is_stdlib(aio) else aioxide.new_event_loop()
        try:
            with contextlib.closing(loop):
                run(loop, work())
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=thread) for _ in range(10)]
    for item in threads:
        item.start()
    for item in threads:
        item.join()
    assert failures == []
    assert children.children("Z") == set()

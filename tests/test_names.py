"""getaddrinfo and getnameinfo: literals give what socket gives, names are looked up in threads of the loop's own."""

import asyncio
import gc
import itertools
import logging
import os
import random
import socket
import subprocess
import sys
import threading
import weakref
from concurrent.futures import ThreadPoolExecutor

import pytest
from waiting import SUCCESS, in_child

import aioxide
from aioxide import _resolver

NUMERIC_NAME = socket.NI_NUMERICHOST | socket.NI_NUMERICSERV


def outcome(function, *args, **kwargs):
    """What a call gave, types included, or what it raised."""
    try:
        return "returned", repr(function(*args, **kwargs))
    except Exception as error:
        return "raised", type(error), str(error), getattr(error, "errno", None)


@pytest.fixture
def native():
    """A native loop, not in debug mode."""
    loop = aioxide.new_event_loop()
    loop.set_debug(False)
    yield loop
    loop.close()


@pytest.fixture
def no_threads(monkeypatch):
    """Fails a test that hands a lookup to a thread."""

    def submit(*args):
        raise AssertionError(f"a thread was asked for {args}")

    monkeypatch.setattr(_resolver.Resolver, "submit", submit)


class Hang:
    """A stand-in for a function of socket that answers when it is told to."""

    def __init__(self, answer="the answer"):
        self.answer = answer
        self.calls = []
        self.threads = set()
        self.running = 0
        self.most = 0
        self.lock = threading.Lock()
        self.started = threading.Semaphore(0)
        self.go_on = threading.Event()

    def __call__(self, *args):
        with self.lock:
            self.calls.append(args)
            self.threads.add(threading.current_thread())
            self.running += 1
            self.most = max(self.most, self.running)
        self.started.release()
        assert self.go_on.wait(30)
        with self.lock:
            self.running -= 1
        return self.answer


@pytest.fixture
def hang(monkeypatch):
    """Has all lookups of addresses hang until they are released."""
    hang = Hang()
    monkeypatch.setattr(socket, "getaddrinfo", hang)
    yield hang
    hang.go_on.set()


def started(loop, hang, count=1):
    """A coroutine that waits until so many lookups have reached their function."""

    async def wait():
        for _ in range(count):
            while not hang.started.acquire(blocking=False):
                await asyncio.sleep(0)

    return wait()


# ---------------------------------------------------------------- literals

HOSTS = [
    "127.0.0.1",
    "0.0.0.0",
    "255.255.255.255",
    "192.0.2.77",
    "9.10.99.100",
    "101.109.110.199",
    "200.209.240.249",
    b"127.0.0.1",
    b"10.200.3.44",
    "::",
    "::1",
    b"::1",
    "2001:DB8::00ff",
    "1:2:3:4:5:6:7:8",
    "1:0:0:4:0:0:0:8",
    "1:2:3:0:5:6:7:8",
    "1:2:3:4:5:6:7::",
    "::2:3:4:5:6:7:8",
    "::ffff:1.2.3.4",
    "::1.2.3.4",
    "::0.0.1.2",
    "::ffff:0:1.2.3.4",
    "64:ff9b::1.2.3.4",
    "fe80::1%lo",
    "fe80::1%1",
    "fe80::1%nowhere",
    "fe80::1%99999999999",
    "::1%lo",
    "::1%7",
    None,
]
"""What is answered at once if the port is a number."""

ODD_HOSTS = [
    "",
    b"",
    " 127.0.0.1",
    "127.0.0.1 ",
    "127.1",
    "127.0.0.01",
    "0x7f.0.0.1",
    "2130706433",
    "127.0.0.256",
    "127.0.0.1.",
    "1:2:3:4:5:6:7::8",
    ":::",
    "12345::",
    "[::1]",
    "fe80::1%",
    "localhost",
    "127.0.0.1\0",
    "local\0host",
    b"127.0.0.1\0",
    "\uff11\uff12\uff17.0.0.1",
    "\udc80",
    "ü" * 70,
    "a..b",
    5,
    object,
    bytearray(b"127.0.0.1"),
]
"""What is not, but for these flags."""

PORTS = [0, 1, 80, 65535, 65536, 70000, -1, 2**31, 2**70, None, "80", "080", b"80", "70000", "9" * 30]
ODD_PORTS = ["", " 80", "+80", "-80", "http", b"http", "no-such-service", "80\0", "8\uff10", True, 80.0, object]
FAMILIES = [0, socket.AF_INET, socket.AF_INET6, socket.AF_UNIX, 99, -1]
KINDS = [0, socket.SOCK_STREAM, socket.SOCK_DGRAM, socket.SOCK_RAW, socket.SOCK_SEQPACKET, 99, -1]
PROTOCOLS = [0, socket.IPPROTO_TCP, socket.IPPROTO_UDP, socket.IPPROTO_ICMP, 99, -1]
SINGLE_FLAGS = [
    0,
    socket.AI_PASSIVE,
    socket.AI_CANONNAME,
    socket.AI_NUMERICHOST,
    socket.AI_NUMERICSERV,
    socket.AI_V4MAPPED,
    socket.AI_ALL,
    socket.AI_ADDRCONFIG,
]
FLAGS = [one | other for one, other in itertools.combinations_with_replacement(SINGLE_FLAGS, 2)] + [0x40000000, -1]


def check(loop, cases):
    """Compares the loop's answers to `(host, port, family, type, proto, flags)` with those of socket."""

    async def main():
        different = []
        for host, port, family, kind, protocol, flags in cases:
            expected = outcome(socket.getaddrinfo, host, port, family, kind, protocol, flags)
            coro = loop.getaddrinfo(host, port, family=family, type=kind, proto=protocol, flags=flags)
            try:
                found = "returned", repr(await coro)
            except Exception as error:
                found = "raised", type(error), str(error), getattr(error, "errno", None)
            if found != expected:
                different.append(((host, port, family, kind, protocol, flags), found, expected))
        return different

    different = loop.run_until_complete(main())
    assert different[:5] == []


@pytest.mark.slow
def test_every_usual_question_about_a_literal_has_the_answer_of_socket(native, no_threads):
    """6240 combinations."""
    kinds = KINDS[:4]
    flags = [0, socket.AI_PASSIVE, socket.AI_PASSIVE | socket.AI_NUMERICHOST, socket.AI_CANONNAME, socket.AI_ADDRCONFIG]
    check(native, itertools.product(HOSTS, [80, None], FAMILIES[:3], kinds, [0, socket.IPPROTO_TCP], flags))


@pytest.mark.slow
def test_unusual_questions_about_literals_have_the_answers_of_socket(native, no_threads):
    """4000 of half a million combinations."""
    choose = random.Random(1).choice
    parts = (HOSTS, PORTS, FAMILIES, KINDS, PROTOCOLS, FLAGS)
    check(native, [[choose(part) for part in parts] for _ in range(4000)])


@pytest.mark.slow
def test_odd_hosts_and_ports_have_the_answers_of_socket(native):
    """4000 combinations, none of which asks a server."""
    choose = random.Random(2).choice
    hosts, ports = HOSTS + ODD_HOSTS, PORTS + ODD_PORTS
    cases = [[choose(part) for part in (hosts, ports, FAMILIES, KINDS, PROTOCOLS, FLAGS)] for _ in range(4000)]
    check(native, cases)


def test_numeric_host_makes_a_literal_of_any_host(native, no_threads):
    hosts = [
        host for host in ODD_HOSTS if type(host) in (str, bytes) and ascii(host).lstrip("b") == repr(host).lstrip("b")
    ]
    assert len(hosts) > 15
    flags = [socket.AI_NUMERICHOST, socket.AI_NUMERICHOST | socket.AI_CANONNAME]
    check(native, itertools.product(hosts, [80, None, "80"], [0, socket.AF_INET6], [0, socket.SOCK_STREAM], [0], flags))


def test_random_addresses_are_written_as_the_c_library_does(native, no_threads):
    rng = random.Random(3)
    words = [0, 0, 0, 1, 0xFFFF, 0x0A0B]
    cases = []
    for _ in range(1000):
        host = ":".join(f"{rng.choice(words):x}" for _ in range(8))
        cases.append((host, 80, 0, socket.SOCK_STREAM, 0, 0))
    check(native, cases)


@pytest.mark.parametrize(
    "arguments",
    [
        {"host": 5},
        {"host": object()},
        {"port": object()},
        {"port": 1.5},
        {"port": 2**70},
        {"family": "x"},
        {"family": None},
        {"family": 2**40},
        {"type": 1.0},
        {"proto": 2**40},
        {"flags": "x"},
        {"flags": 2**40},
        {"flags": -(2**40)},
    ],
    ids=repr,
)
def test_wrong_arguments_raise_when_awaited(loop, arguments):
    arguments = {"host": "127.0.0.1", "port": 80, "family": 0, "type": 0, "proto": 0, "flags": 0} | arguments
    expected = outcome(socket.getaddrinfo, *arguments.values())
    assert expected[0] == "raised"
    coro = loop.getaddrinfo(arguments.pop("host"), arguments.pop("port"), **arguments)
    assert outcome(loop.run_until_complete, coro) == expected


def test_literal_in_debug_mode_needs_no_thread(native, no_threads, caplog):
    native.set_debug(True)
    with caplog.at_level(logging.DEBUG, logger="asyncio"):
        infos = native.run_until_complete(native.getaddrinfo("::1", 80))
    assert infos == socket.getaddrinfo("::1", 80)
    assert [record.getMessage() for record in caplog.records if "Get address" in record.getMessage()] == [
        "Get address info ::1:80"
    ]


def test_audit_hooks_hear_of_literals():
    """A hook cannot be taken away, so this has a process of its own."""
    program = """
import asyncio, socket, sys
import aioxide
seen = []
sys.addaudithook(lambda event, args: seen.append(args) if event == "socket.getaddrinfo" else None)
questions = [("127.0.0.1", 80, {}), ("::1", "80", {"type": socket.SOCK_STREAM, "proto": 6}),
             (b"::1", None, {"family": socket.AF_INET6, "flags": socket.AI_PASSIVE})]
heard = []
for run in asyncio.run, aioxide.run:
    async def main():
        for host, port, keywords in questions:
            await asyncio.get_running_loop().getaddrinfo(host, port, **keywords)
    run(main())
    heard.append(seen[:])
    seen.clear()
assert heard[0] == heard[1] and len(heard[0]) == 3, heard
"""
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)


def test_audit_hook_may_forbid_a_literal():
    program = """
import sys
import aioxide
def hook(event, args):
    if event == "socket.getaddrinfo":
        raise PermissionError("no names")
sys.addaudithook(hook)
async def main():
    await aioxide.get_running_loop().getaddrinfo("127.0.0.1", 80)
try:
    aioxide.run(main())
except PermissionError as error:
    assert str(error) == "no names"
else:
    raise AssertionError("it was not asked")
"""
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)


# ---------------------------------------------------------------- names


def test_name_has_the_answer_of_socket(loop):
    expected = socket.getaddrinfo("localhost", 80, type=socket.SOCK_STREAM)
    assert loop.run_until_complete(loop.getaddrinfo("localhost", 80, type=socket.SOCK_STREAM)) == expected


def test_function_in_the_place_of_getaddrinfo_is_called_in_a_thread(loop, monkeypatch):
    seen = []

    def getaddrinfo(*args):
        seen.append((args, threading.get_ident()))
        return "replaced"

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    for host in ["example.org", "127.0.0.1", None]:
        assert loop.run_until_complete(loop.getaddrinfo(host, 80, family=1, type=2, proto=3, flags=4)) == "replaced"
        (args, ident) = seen.pop()
        assert args == (host, 80, 1, 2, 3, 4)
        assert ident != threading.get_ident()


def test_function_in_the_place_of_the_c_function_is_called(loop, monkeypatch):
    import _socket

    monkeypatch.setattr(_socket, "getaddrinfo", lambda *args: [(2, 1, 6, "", ("replaced", args[1]))])
    infos = loop.run_until_complete(loop.getaddrinfo("127.0.0.1", 80))
    assert infos == [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("replaced", 80))]


def test_error_of_the_function_reaches_the_caller(loop, monkeypatch):
    error = socket.gaierror(socket.EAI_NONAME, "no such name")

    def getaddrinfo(*args):
        raise error

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    with pytest.raises(socket.gaierror) as caught:
        loop.run_until_complete(loop.getaddrinfo("example.org", 80))
    assert caught.value is error


def test_error_is_not_kept_by_a_cycle(native, monkeypatch):
    class Failure(Exception):
        pass

    def getaddrinfo(*args):
        raise Failure

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    native.run_until_complete(asyncio.sleep(0))
    gc.collect()
    gc.disable()
    try:
        coro = native.getaddrinfo("example.org", 80)
        assert coro.send(None) is not None
        future = coro.cr_await
        coro.close()
        native.run_until_complete(asyncio.wait([future]))
        reference = weakref.ref(future.exception())
        # Whatever the thread still holds, it holds no longer than until its next lookup.
        monkeypatch.setattr(socket, "getaddrinfo", lambda *args: None)
        del future
        native.run_until_complete(native.getaddrinfo("example.org", 80))
        assert reference() is None
    finally:
        gc.enable()


def test_jobs_in_the_executor_do_not_hold_up_names(native):
    go_on = threading.Event()
    native.set_default_executor(ThreadPoolExecutor(1))

    async def main():
        job = native.run_in_executor(None, go_on.wait)
        infos = await native.getaddrinfo("localhost", 80, type=socket.SOCK_STREAM)
        assert not job.done()
        go_on.set()
        await job
        return infos

    try:
        assert native.run_until_complete(main()) == socket.getaddrinfo("localhost", 80, type=socket.SOCK_STREAM)
        native.run_until_complete(native.shutdown_default_executor())
    finally:
        go_on.set()


def test_names_are_looked_up_without_the_executor(native):
    """Differs from asyncio, where this fails."""
    native.run_until_complete(native.shutdown_default_executor())
    assert native.run_until_complete(native.getaddrinfo("localhost", 80))


def test_override_of_run_in_executor_has_no_part_in_it():
    """Differs from asyncio, where it is called."""

    class Loop(aioxide.Loop):
        def run_in_executor(self, *args):
            raise AssertionError("it was called")

    loop = Loop()
    assert loop.run_until_complete(loop.getaddrinfo("localhost", 80))
    loop.close()


def test_a_thousand_lookups_at_once(loop, hang):
    async def main():
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(loop.getaddrinfo(f"host{number}", number)) for number in range(1000)]
            await started(loop, hang)
            hang.go_on.set()
        return [task.result() for task in tasks]

    assert loop.run_until_complete(main()) == ["the answer"] * 1000
    assert sorted(args[1] for args in hang.calls) == list(range(1000))
    loop.run_until_complete(loop.shutdown_default_executor())


def test_threads_are_as_many_as_an_executor_has_and_no_more(native, hang):
    size = min(32, (os.cpu_count() or 1) + 4)

    async def main():
        tasks = [asyncio.ensure_future(native.getaddrinfo("host", number)) for number in range(100)]
        await started(native, hang, size)
        hang.go_on.set()
        await asyncio.gather(*tasks)

    native.run_until_complete(main())
    assert (len(hang.threads), hang.most, len(hang.calls)) == (size, size, 100)


def test_one_thread_serves_lookups_that_follow_each_other(native, hang):
    hang.go_on.set()

    async def main():
        for number in range(50):
            await native.getaddrinfo("host", number)

    native.run_until_complete(main())
    assert len(hang.threads) == 1


def test_lookup_can_be_cancelled_while_it_hangs(loop, hang):
    async def main():
        task = asyncio.ensure_future(loop.getaddrinfo("host", 80))
        await started(loop, hang)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        hang.go_on.set()
        assert await loop.getaddrinfo("other", 80) == "the answer"

    loop.run_until_complete(main())
    loop.run_until_complete(loop.shutdown_default_executor())


def test_cancelled_lookup_is_not_begun(native, hang, monkeypatch):
    monkeypatch.setattr(os, "cpu_count", lambda: -3)

    async def main():
        first = asyncio.ensure_future(native.getaddrinfo("first", 80))
        await started(native, hang)
        second = asyncio.ensure_future(native.getaddrinfo("second", 80))
        third = asyncio.ensure_future(native.getaddrinfo("third", 80))
        await asyncio.sleep(0)
        second.cancel()
        with pytest.raises(asyncio.CancelledError):
            await second
        hang.go_on.set()
        await asyncio.gather(first, third)

    native.run_until_complete(main())
    assert [args[0] for args in hang.calls] == ["first", "third"]


def test_closed_coroutine_leaves_the_lookup_alone(native, hang):
    coro = native.getaddrinfo("host", 80)
    coro.send(None)
    coro.close()
    native.run_until_complete(started(native, hang))
    hang.go_on.set()
    assert native.run_until_complete(native.getaddrinfo("host", 80)) == "the answer"


def test_answer_after_the_loop_was_closed_goes_nowhere(hang, monkeypatch):
    reports = []
    monkeypatch.setattr(threading, "excepthook", reports.append)
    loop = aioxide.new_event_loop()
    coros = [loop.getaddrinfo("host", number) for number in range(100)]
    for coro in coros:
        coro.send(None)
    loop.run_until_complete(started(loop, hang))
    loop.close()
    hang.go_on.set()
    for thread in hang.threads:
        thread.join(30)
        assert not thread.is_alive()
    for coro in coros:
        coro.close()
    assert reports == []


def test_closing_the_loop_ends_the_threads(hang):
    hang.go_on.set()
    loop = aioxide.new_event_loop()
    loop.run_until_complete(loop.getaddrinfo("host", 80))
    [thread] = hang.threads
    assert thread.is_alive()
    assert thread.daemon
    loop.close()
    thread.join(30)
    assert not thread.is_alive()


def test_threads_end_when_there_is_nothing_to_do(native, hang, monkeypatch):
    monkeypatch.setattr(_resolver, "IDLE_SECONDS", 0.001)
    hang.go_on.set()
    for number in range(3):
        native.run_until_complete(native.getaddrinfo("host", number))
        for thread in hang.threads:
            thread.join(30)
            assert not thread.is_alive()
    assert len(hang.threads) == 3


def test_threads_that_end_lose_no_lookup(native, hang, monkeypatch):
    monkeypatch.setattr(_resolver, "IDLE_SECONDS", 0)
    hang.go_on.set()

    async def main():
        for _ in range(50):
            await asyncio.gather(*(native.getaddrinfo("host", number) for number in range(10)))

    native.run_until_complete(asyncio.wait_for(main(), 60))
    assert len(hang.calls) == 500


def test_lookup_fails_if_there_can_be_no_thread(native, monkeypatch):
    def start(thread):
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", start)
        with pytest.raises(RuntimeError, match="can't start new thread"):
            native.run_until_complete(native.getaddrinfo("localhost", 80))
    assert native.run_until_complete(native.getaddrinfo("localhost", 80))


def test_lookups_share_the_threads_there_are_if_there_can_be_no_more(native, hang, monkeypatch):
    async def main():
        first = asyncio.ensure_future(native.getaddrinfo("first", 80))
        await started(native, hang)

        def start(thread):
            raise RuntimeError("can't start new thread")

        monkeypatch.setattr(threading.Thread, "start", start)
        others = [asyncio.ensure_future(native.getaddrinfo("other", number)) for number in range(5)]
        await asyncio.sleep(0)
        hang.go_on.set()
        await asyncio.gather(first, *others)

    native.run_until_complete(main())
    assert len(hang.threads) == 1


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_closed_loop_refuses_when_awaited(aio, host):
    loop = aio.new_event_loop()
    loop.close()
    for coro in loop.getaddrinfo(host, 80), loop.getnameinfo((host, 80)):
        with pytest.raises(RuntimeError, match="Event loop is closed"):
            coro.send(None)


def test_debug_mode_tells_of_lookups(aio, monkeypatch, caplog):
    monkeypatch.setattr(socket, "getaddrinfo", lambda *args: "infos")
    loop = aio.new_event_loop()
    loop.set_debug(True)
    with caplog.at_level(logging.DEBUG, logger="asyncio"):
        loop.run_until_complete(loop.getaddrinfo("host", 80, family=1, type=2, proto=3, flags=4))
        loop.slow_callback_duration = 0.0
        loop.run_until_complete(loop.getaddrinfo("host", "http"))
    loop.run_until_complete(loop.shutdown_default_executor())
    loop.close()
    lines = [
        (record.levelname, record.getMessage().partition(" took ")[0])
        for record in caplog.records
        if "address info" in record.getMessage()
    ]
    assert lines == [
        ("DEBUG", "Get address info host:80, family=1, type=2, proto=3, flags=4"),
        ("DEBUG", "Getting address info host:80, family=1, type=2, proto=3, flags=4"),
        ("DEBUG", "Get address info host:'http'"),
        ("INFO", "Getting address info host:'http'"),
    ]


@pytest.mark.slow
def test_interpreter_ends_although_lookups_hang():
    """In a process of its own. asyncio waits for the threads of its executor."""
    program = """
import socket, threading
import aioxide
started = threading.Semaphore(0)
def getaddrinfo(*args):
    started.release()
    threading.Event().wait()
socket.getaddrinfo = getaddrinfo
async def main():
    tasks = [aioxide.create_task(aioxide.get_running_loop().getaddrinfo("host", port)) for port in range(100)]
    await aioxide.sleep(0)
    await aioxide.to_thread(started.acquire)
    print("main is over")
aioxide.run(main())
"""
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False)
    assert (run.returncode, run.stdout, run.stderr) == (0, "main is over\n", "")


@pytest.mark.slow
def test_interpreter_ends_while_answers_come_in():
    """The threads find the interpreter gone when they want the GIL again."""
    program = """
import socket, time
import aioxide
def getaddrinfo(*args):
    time.sleep(args[1] / 10_000)
    return []
socket.getaddrinfo = getaddrinfo
loop = aioxide.new_event_loop()
coros = [loop.getaddrinfo("host", number) for number in range(2000)]
for coro in coros:
    coro.send(None)
"""
    for _ in range(3):
        command = [sys.executable, "-W", "ignore", "-c", program]
        run = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        assert (run.returncode, run.stderr) == (0, "")


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
@pytest.mark.filterwarnings("ignore:.*use of fork.*may lead to deadlocks:DeprecationWarning")
def test_child_has_threads_of_its_own(native, hang):
    def look_up():
        hang.go_on.set()
        loop = aioxide.new_event_loop()
        assert loop.run_until_complete(asyncio.wait_for(loop.getaddrinfo("child", 80), 20)) == "the answer"
        loop.close()
        native.close()

    coro = native.getaddrinfo("parent", 80)
    coro.send(None)
    native.run_until_complete(started(native, hang))
    assert in_child(look_up) == SUCCESS
    coro.close()
    hang.go_on.set()
    assert native.run_until_complete(native.getaddrinfo("parent", 80)) == "the answer"
    assert [args[0] for args in hang.calls] == ["parent", "parent"]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
@pytest.mark.filterwarnings("ignore:.*use of fork.*may lead to deadlocks:DeprecationWarning")
def test_child_replaces_the_threads_that_it_inherited():
    resolver = _resolver.Resolver()
    go_on, started = threading.Event(), threading.Event()
    lookups = [resolver.submit(lambda: (started.set(), go_on.wait(30))) for _ in range(50)]
    started.wait(30)

    def look_up():
        assert resolver.submit(lambda: "the answer").result(20) == "the answer"
        resolver.close()

    with resolver._lock:
        assert in_child(look_up) == SUCCESS
    go_on.set()
    assert [lookup.result(30) for lookup in lookups]
    resolver.close()


# ---------------------------------------------------------------- getnameinfo


ADDRESSES = [
    ("127.0.0.1", 80),
    ("::1", 80),
    ("::1", 80, 0),
    ("::1", 80, 0, 0),
    ("::1", 80, 5, 1),
    ("fe80::1%lo", 80),
    ("fe80::1", 80, 0, 1),
    ("127.0.0.1", 80, 0, 0),
    ("127.1", 80),
    ("127.0.0.1", 70000),
    ("127.0.0.1", -1),
    ("127.0.0.1", "80"),
    ("localhost", 80),
    ("", 80),
    (None, 80),
    ("127.0.0.1",),
    ("::1", 80, 2**20, 0),
    ("::1", 80, 2**40, 0),
    ("127.0.0.1\0", 80),
    [],
    None,
    "127.0.0.1",
]


@pytest.mark.parametrize("flags", [NUMERIC_NAME, NUMERIC_NAME | socket.NI_DGRAM, NUMERIC_NAME | socket.NI_NAMEREQD])
def test_numeric_getnameinfo_has_the_answers_of_socket(native, no_threads, flags):
    for address in ADDRESSES:
        expected = outcome(socket.getnameinfo, address, flags)
        assert outcome(native.run_until_complete, native.getnameinfo(address, flags)) == expected, address


@pytest.mark.parametrize("flags", ["x", None, 2**40, 1.5])
def test_wrong_flags_of_getnameinfo_raise_when_awaited(loop, flags):
    expected = outcome(socket.getnameinfo, ("127.0.0.1", 80), flags)
    assert expected[0] == "raised"
    assert outcome(loop.run_until_complete, loop.getnameinfo(("127.0.0.1", 80), flags)) == expected


def test_getnameinfo_asks_in_a_thread(loop, monkeypatch):
    seen = []

    def getnameinfo(*args):
        seen.append((args, threading.get_ident() == threading.main_thread().ident))
        return "replaced"

    monkeypatch.setattr(socket, "getnameinfo", getnameinfo)
    assert loop.run_until_complete(loop.getnameinfo(("127.0.0.1", 80))) == "replaced"
    assert loop.run_until_complete(loop.getnameinfo(("127.0.0.1", 80), NUMERIC_NAME)) == "replaced"
    assert seen == [((("127.0.0.1", 80), 0), False), ((("127.0.0.1", 80), NUMERIC_NAME), False)]


def test_getnameinfo_of_a_host_has_the_answer_of_socket(loop):
    expected = outcome(socket.getnameinfo, ("127.0.0.1", 80), 0)
    assert outcome(loop.run_until_complete, loop.getnameinfo(("127.0.0.1", 80))) == expected

"""The benchmarks: each row works, and a server that echoes something else does not pass."""

import contextlib
import faulthandler
import itertools
import json
import os
import pathlib
import shutil
import socket
import ssl
import subprocess
import sys
import threading

import pytest
import trustme

ROOT = pathlib.Path(__file__).parent.parent
TIMEOUT = 100


@pytest.fixture(scope="module")
def generator():
    """The load generator, built as `make bench` builds it."""
    if sys.platform != "linux":
        pytest.skip("the load generator needs epoll")
    cargo = shutil.which("cargo")
    if cargo is None:
        pytest.skip("no cargo to build the load generator with")
    command = [cargo, "build", "--quiet", "--release", "-p", "aioxide-load"]
    environment = os.environ | {"CARGO_TARGET_DIR": str(ROOT / "target" / "load")}
    # The first time, on a busy machine, it may take longer than a test.
    faulthandler.cancel_dump_traceback_later()
    subprocess.run(command, cwd=ROOT, env=environment, check=True)
    return ROOT / "target" / "load" / "release" / "aioxide-load"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("rows", "providers"),
    [
        (["--group", "network", "--only", "echo*"], "stdlib,aioxide"),
        (["--group", "network", "--only", "[!e]*"], "stdlib,aioxide"),
        (["--only", "echo, U*"], "floor"),
        (["--group", "tls"], "stdlib,aioxide"),
        (["--group", "subprocess"], "stdlib,aioxide"),
        (["--only", "future ping-pong"], "stdlib,aioxide"),
    ],
    ids=["echo", "network", "floor", "tls", "subprocess", "other"],
)
def test_every_row_gives_a_figure(generator, tmp_path, rows, providers):
    report = tmp_path / "report.json"
    command = [sys.executable, str(ROOT / "benches" / "run.py"), "--quick", *rows]
    command += ["--providers", providers, "--json", str(report)]
    result = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT, check=False)
    assert result.returncode == 0, result.stdout + result.stderr
    found = json.loads(report.read_text())
    assert found["failures"] == {}
    assert found["samples"]
    assert not [label for label in found["missing"] if label.endswith(" on stdlib")]
    for sample in found["samples"]:
        label = f"{sample['row']} on {sample['provider']}"
        assert len(sample["rounds"]) == (label not in found["missing"]), label
        assert all("value" in figures for figures in sample["rounds"]), label


@pytest.fixture(scope="module")
def make_context(tmp_path_factory):
    """A function that makes contexts for servers; no session of one is known to another."""
    certificate = tmp_path_factory.mktemp("tls") / "certificate.pem"
    trustme.CA().issue_cert("localhost").private_key_and_cert_chain_pem.write_to_path(certificate)

    def make():
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate)
        return context

    return make


class Server:
    """A TCP server that answers the first connection with what `answer` makes of it."""

    def __init__(self, answer, context=None):
        self.answer = answer
        self.context = context
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.address = "127.0.0.1:{1}".format(*self.listener.getsockname())
        self.thread = threading.Thread(target=self.serve)

    def serve(self):
        client, _ = self.listener.accept()
        if self.context is not None:
            client = self.context.wrap_socket(client, server_side=True)
        # A client that has seen enough may reset the connection.
        with client, contextlib.suppress(ConnectionError):
            while data := client.recv(1 << 16):
                answer = self.answer(data)
                if answer is None:
                    return
                client.sendall(answer)

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *exc_info):
        self.thread.join(TIMEOUT)
        self.listener.close()


class Greeter:
    """A server of TLS that greets, and keeps every connection; each has the next context."""

    def __init__(self, contexts):
        self.contexts = contexts
        self.listener = socket.create_server(("127.0.0.1", 0), backlog=100)
        self.address = "127.0.0.1:{1}".format(*self.listener.getsockname())
        self.thread = threading.Thread(target=self.serve)

    def serve(self):
        with contextlib.ExitStack() as kept:
            while True:
                try:
                    client, _ = self.listener.accept()
                except OSError:
                    return
                kept.enter_context(client)
                # A client that has seen enough may reset the connection.
                with contextlib.suppress(OSError):
                    client = kept.enter_context(next(self.contexts).wrap_socket(client, server_side=True))
                    client.sendall(b"!")

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *exc_info):
        self.listener.shutdown(socket.SHUT_RDWR)
        self.thread.join(TIMEOUT)
        self.listener.close()


def talk(generator, server, *command):
    """Runs the generator to its end, which a server that is wrong brings about."""
    arguments = [str(generator), command[0], "--tcp", server.address, "--messages", "10", *command[1:]]
    return subprocess.run(arguments, input="go\n", capture_output=True, text=True, timeout=TIMEOUT, check=False)


@pytest.mark.parametrize("tls", [False, True], ids=["tcp", "tls"])
@pytest.mark.parametrize("size", [100, 100_000])
def test_the_generator_is_content_with_an_echo(generator, make_context, size, tls):
    with Server(bytes, make_context() if tls else None) as server:
        result = talk(generator, server, "echo", "--size", str(size), *(["--tls", "full"] if tls else []))
    assert result.returncode == 0, result.stderr
    ready, report = result.stdout.splitlines()
    assert ready == "ready"
    assert json.loads(report)["messages"] == 10


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (lambda data: data[:-2] + b"?\n", "what came back is not what was sent"),
        (lambda data: data.replace(b"0", b"1", 1), "what came back is not what was sent"),
        (lambda data: data + b"!", "more came back than was sent"),
        (lambda data: None, "a connection was closed"),
    ],
    ids=["other end", "other mark", "too much", "nothing"],
)
@pytest.mark.parametrize("tls", [False, True], ids=["tcp", "tls"])
def test_the_generator_fails_when_the_echo_is_wrong(generator, make_context, answer, reason, tls):
    with Server(answer, make_context() if tls else None) as server:
        result = talk(generator, server, "echo", "--size", "100", *(["--tls", "full"] if tls else []))
    assert result.returncode == 1
    assert reason in result.stderr


@pytest.mark.parametrize(
    ("command", "answer", "reason"),
    [
        ("sink", lambda data: bytes(1 << 16), "wrong bytes after 0"),
        ("source", lambda data: (7).to_bytes(8, "big"), "bytes were sent and 7 came"),
    ],
    ids=["sink", "source"],
)
def test_the_generator_fails_when_bulk_is_wrong(generator, command, answer, reason):
    with Server(answer) as server:
        result = talk(generator, server, command)
    assert result.returncode == 1
    assert reason in result.stderr


@pytest.mark.parametrize("kind", ["full", "resumed"])
def test_handshakes_are_what_was_asked_for(generator, make_context, kind):
    context = make_context()
    with Greeter(itertools.repeat(context)) as server:
        result = talk(generator, server, "accept", "--tls", kind)
    assert result.returncode == 0, result.stderr
    statistics = context.session_stats()
    # 64 give the tickets, then there are 2 to get warm, and those that count.
    assert statistics["accept_good"] == (76 if kind == "resumed" else 12)
    assert statistics["hits"] == (12 if kind == "resumed" else 0)


def test_the_generator_fails_when_there_is_nothing_to_resume(generator, make_context):
    context = make_context()
    context.num_tickets = 0
    with Greeter(itertools.repeat(context)) as server:
        result = talk(generator, server, "accept", "--tls", "resumed")
    assert result.returncode == 1
    assert "the server gives no tickets" in result.stderr


def test_the_generator_fails_when_a_ticket_is_refused(generator, make_context):
    with Greeter(iter(make_context, None)) as server:
        result = talk(generator, server, "accept", "--tls", "resumed")
    assert result.returncode == 1
    assert "the handshake was to be Resumed and is Some(Full)" in result.stderr


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["--tcp", "127.0.0.1:1", "--tls", "sometimes"], "--tls sometimes makes no sense"),
        (["--unix", "/nowhere", "--tls", "full"], "TLS is for --tcp"),
    ],
    ids=["kind", "address"],
)
def test_the_generator_refuses_nonsense(generator, arguments, reason):
    result = subprocess.run([str(generator), "echo", *arguments], capture_output=True, text=True, timeout=TIMEOUT)
    assert result.returncode == 1
    assert reason in result.stderr


def test_readme_has_the_figures_of_the_results():
    command = [sys.executable, str(ROOT / "benches" / "report.py"), "--check"]
    result = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT, check=False)
    assert result.returncode == 0, result.stderr

"""The benchmarks: each row works, and a server that echoes something else does not pass."""

import contextlib
import json
import os
import pathlib
import shutil
import socket
import subprocess
import sys
import threading

import pytest

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
    subprocess.run(command, cwd=ROOT, env=environment, check=True)
    return ROOT / "target" / "load" / "release" / "aioxide-load"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("rows", "providers"),
    [
        (["--group", "network", "--only", "echo*"], "stdlib,aioxide"),
        (["--group", "network", "--only", "[!e]*"], "stdlib,aioxide"),
        (["--only", "echo, U*"], "floor"),
        (["--only", "future ping-pong"], "stdlib,aioxide"),
    ],
    ids=["echo", "network", "floor", "other"],
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


class Server:
    """A TCP server that answers the first connection with what `answer` makes of it."""

    def __init__(self, answer):
        self.answer = answer
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.address = "127.0.0.1:{1}".format(*self.listener.getsockname())
        self.thread = threading.Thread(target=self.serve)

    def serve(self):
        client, _ = self.listener.accept()
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


def talk(generator, server, *command):
    """Runs the generator to its end, which a server that is wrong brings about."""
    arguments = [str(generator), command[0], "--tcp", server.address, "--messages", "10", *command[1:]]
    return subprocess.run(arguments, input="go\n", capture_output=True, text=True, timeout=TIMEOUT, check=False)


def test_the_generator_is_content_with_an_echo(generator):
    with Server(bytes) as server:
        result = talk(generator, server, "echo", "--size", "100")
    assert result.returncode == 0
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
def test_the_generator_fails_when_the_echo_is_wrong(generator, answer, reason):
    with Server(answer) as server:
        result = talk(generator, server, "echo", "--size", "100")
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

"""How hosts are started: real programs and servers, each in a process of its own.

Everything runs in three modes. `stdlib` is the control: what fails there is not about aioxide.
`loop` has native event loops with asyncio's own names around them, `full` all native names. What
a program runs on is not believed but asked: see `programs/running_on.py`.
"""

import contextlib
import os
import pathlib
import re
import signal
import socket
import subprocess
import sys
import threading
import time

import pytest

PROGRAMS = pathlib.Path(__file__).parent / "programs"

#: Long enough for a machine under load; nothing waits for it but what has failed.
PATIENCE = 180

#: How to start Python in each mode.
PYTHON = {
    "stdlib": [sys.executable],
    "loop": [sys.executable, "-m", "aioxide", "--loop-only"],
    "full": [sys.executable, "-m", "aioxide"],
}

#: What asyncio and the interpreter say of things that went wrong where nobody could see them.
_COMPLAINTS = re.compile(
    r"Traceback|Exception ignored|was destroyed|never retrieved|never awaited|ResourceWarning|Fatal Python error"
)


def environment(mode):
    """The variables of a process that runs in a mode."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("PYTEST_", "PYTHON"))}
    warnings = "default::ResourceWarning,default::RuntimeWarning"
    return inherited | {
        "RUNNING_ON": mode,
        "PYTHONPATH": str(PROGRAMS),
        "PYTHONWARNINGS": warnings,
        "PYTHONUNBUFFERED": "1",
    }


@pytest.fixture(params=list(PYTHON))
def mode(request):
    """What the host runs on."""
    return request.param


@pytest.fixture
def run(tmp_path):
    """Runs a program to its end and returns what it printed; it may not complain."""

    def run(mode, *arguments, quiet=True, status=0, **variables):
        command = [*PYTHON[mode], *map(str, arguments)]
        process = subprocess.run(
            command,
            cwd=tmp_path,
            env=environment(mode) | variables,
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=False,
        )
        said = process.stdout + process.stderr
        if process.returncode != status or (quiet and _COMPLAINTS.search(process.stderr)):
            pytest.fail(f"exit status {process.returncode}\n{said}", pytrace=False)
        return process.stdout

    return run


def free_port():
    """A port for what cannot choose one itself. Somebody else might take it, which is not likely."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return listener.getsockname()[1]


class Server:
    """A server in a process group of its own."""

    def __init__(self, command, mode, cwd, variables, **options):
        self.folder = cwd
        self.process = subprocess.Popen(
            list(map(str, command)),
            cwd=cwd,
            env=environment(mode) | variables,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
            **options,
        )
        self._lines = []
        self._changed = threading.Condition()
        self._ended = False
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self):
        for line in self.process.stdout:
            with self._changed:
                self._lines.append(line)
                self._changed.notify_all()
        with self._changed:
            self._ended = True
            self._changed.notify_all()

    @property
    def output(self):
        with self._changed:
            return "".join(self._lines)

    def wait_for(self, pattern, times=1):
        """Waits until the output has a pattern in it; returns the last match."""
        with self._changed:
            found = self._changed.wait_for(
                lambda: self._ended or len(re.findall(pattern, "".join(self._lines))) >= times, PATIENCE
            )
            text = "".join(self._lines)
        found = found and len(re.findall(pattern, text)) >= times
        matches = list(re.finditer(pattern, text))
        assert found, f"{pattern!r} is not in\n{text}"
        return matches[-1]

    def stop(self, number=signal.SIGTERM):
        """Sends a signal to the server, as a supervisor does, and returns its exit status."""
        self.process.send_signal(number)
        return self.wait()

    def wait(self):
        """Waits for the server's end, and returns its exit status."""
        status = self.process.wait(PATIENCE)
        self._reader.join(PATIENCE)
        return status

    def wait_until_accepting(self, port, accepting=True):
        """Waits for a server that says nothing when it has come to listen, or has stopped to."""
        for _ in range(PATIENCE * 100):
            with socket.socket() as client:
                refused = client.connect_ex(("127.0.0.1", port)) != 0
            if refused is not accepting:
                return
            assert self.process.poll() is None, self.output
            time.sleep(0.01)
        pytest.fail(self.output)

    def assert_quiet(self, but=r"(?!)"):
        """Nothing went wrong where nobody could see it, but for what is the host's own doing."""
        output = re.sub(but, "", self.output)
        if _COMPLAINTS.search(output):
            pytest.fail(output, pytrace=False)

    def kill(self):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        self._reader.join(PATIENCE)
        self.process.stdout.close()


@pytest.fixture
def serve(tmp_path):
    """Starts servers, and kills them and their children after the test."""
    servers = []

    def serve(mode, *command, **variables):
        server = Server(command, mode, tmp_path, variables)
        servers.append(server)
        return server

    yield serve
    for server in servers:
        server.kill()

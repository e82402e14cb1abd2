"""Runs a test file in processes of its own, whatever its tests do to them.

A process has its own session, an empty working directory and no input. When it
dies or hangs in a test, that test gets an outcome that says so, and a new
process goes on with the tests that are left.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent

MAX_CRASHES = 40
"""After as many crashes and hangs a file is given up."""

MAX_OUTPUT = 12_000
"""The characters of a dead process's output that are kept."""

RETRIES = 2
"""A failed test is flaky if it passes as many times in a row afterwards."""

MAX_RETRIED = 20
"""With more failures than that, a file is broken and not flaky."""

LEVELS = {"stdlib": None, "aioxide-loop": "loop", "aioxide-full": "full"}
"""What to call ``aioxide.install`` with for each provider."""


@dataclass(frozen=True)
class Settings:
    """How to run; the same for all files."""

    provider: str
    file_timeout: float
    test_timeout: float
    package: str = "test.test_asyncio"
    path: tuple[str, ...] = ()
    """Folders to import the package from, where it is not installed."""


@dataclass
class Outcome:
    """What happened to one test."""

    state: str
    """passed, failed, skipped, crashed, hung, or unreached (the file was given up)."""
    detail: str = ""
    seconds: float = 0.0
    flaky: bool = False
    """Failed at first, then passed every time."""


@dataclass
class FileRun:
    """What happened to the tests of one file."""

    file: str
    tests: list[str] = field(default_factory=list)
    """All tests that the file has, run or not."""
    outcomes: dict[str, Outcome] = field(default_factory=dict)
    """By test; fixtures and the process itself appear too when they fail."""


@dataclass
class _Process:
    """What one process reported, and how it ended."""

    collected: list[str] | None = None
    planned: list[str] = field(default_factory=list)
    outcomes: dict[str, Outcome] = field(default_factory=dict)
    unfinished: str | None = None
    done: bool = False
    ending: str = ""
    """How it ended, when it did not end well; then `output` is its last output."""
    timed_out: bool = False
    output: str = ""


class Interrupted(Exception):
    """The run was told to stop."""


class _Running:
    """The processes that are running now."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._processes: set[subprocess.Popen[bytes]] = set()
        self._stopped = False

    def start(self, command: list[str | Path], **options: Any) -> subprocess.Popen[bytes]:
        """Starts a process in a session of its own."""
        with self._lock:
            if self._stopped:
                raise Interrupted
            process = subprocess.Popen(command, start_new_session=True, **options)
            self._processes.add(process)
            return process

    def end(self, process: subprocess.Popen[bytes]) -> None:
        """Ends a process and what it left behind in its process group."""
        with self._lock:
            self._processes.discard(process)
        _kill_group(process)
        process.wait()

    def stop(self) -> None:
        """Ends all of them, and starts no more."""
        with self._lock:
            self._stopped = True
            for process in self._processes:
                _kill_group(process)


_running = _Running()

stop = _running.stop


def run_file(file: str, settings: Settings, select: Iterable[str] = ("*",), exclude: Iterable[str] = ()) -> FileRun:
    """Runs the tests of a file that the patterns name, each to an outcome."""
    run = FileRun(file)
    left: list[str] | None = None
    for _ in range(MAX_CRASHES):
        process = _run_process(file, settings, left, select, exclude)
        if process.collected is None:
            run.outcomes[f"{file}.import"] = _death(process)
            return run
        run.tests = process.collected
        run.outcomes |= process.outcomes
        left = [test for test in process.planned if test not in process.outcomes]
        if process.unfinished is not None:
            run.outcomes[process.unfinished] = _death(process)
            left = [test for test in left if test != process.unfinished]
        elif process.ending or not process.done:
            where = "exit" if process.done else "fixture"
            run.outcomes[f"{file}.{where}"] = _death(process)
            break
        if not left:
            return run
    for test in left or ():
        run.outcomes[test] = Outcome("unreached", "the file was given up before this test")
    return run


def retry_failures(run: FileRun, settings: Settings, tests: Iterable[str]) -> None:
    """Runs failed tests again in fresh processes, and marks as flaky those that then pass."""
    flaky = [t for t in tests if t in run.outcomes and run.outcomes[t].state == "failed"]
    if len(flaky) > MAX_RETRIED:
        return
    for _ in range(RETRIES):
        if flaky:
            again = run_file(run.file, settings, flaky)
            flaky = [t for t in flaky if t in again.outcomes and again.outcomes[t].state == "passed"]
    for test in flaky:
        run.outcomes[test].flaky = True


def void_skips(run: FileRun, settings: Settings, tests: Iterable[str]) -> None:
    """Turns into failures the skips of tests that the stdlib would not skip."""
    skipped = [t for t in tests if t in run.outcomes and run.outcomes[t].state == "skipped"]
    if not skipped:
        return
    there = run_file(run.file, replace(settings, provider="stdlib"), skipped).outcomes
    for test in skipped:
        if test not in there or there[test].state != "skipped":
            reason = run.outcomes[test].detail
            run.outcomes[test] = Outcome("failed", f"skipped, but not on the stdlib: {reason}")


def _run_process(
    file: str,
    settings: Settings,
    only: list[str] | None,
    select: Iterable[str],
    exclude: Iterable[str],
) -> _Process:
    """Runs one process to its end, and reads its report."""
    level = LEVELS[settings.provider]
    with tempfile.TemporaryDirectory(prefix="conformance-", ignore_cleanup_errors=True) as folder:
        base = Path(folder)
        (base / "cwd").mkdir()
        plan = {
            "package": settings.package,
            "path": settings.path,
            "file": file,
            "level": level,
            "only": only,
            "select": list(select),
            "exclude": list(exclude),
            "report": str(base / "report"),
        }
        (base / "plan").write_text(json.dumps(plan), encoding="utf-8")
        with (base / "output").open("wb") as output:
            process = _running.start(
                [sys.executable, "-u", "-bb", "-Wdefault", HERE / "child.py", base / "plan"],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                cwd=base / "cwd",
                env=_environment(level, base / "cwd"),
            )
            try:
                timed_out = _watch(process, base / "report", settings)
            finally:
                _running.end(process)
        result = _read_report(base / "report")
        result.ending = timed_out or _describe_status(process.returncode)
        if result.ending or not result.done:
            result.timed_out = bool(timed_out)
            result.output = (base / "output").read_text(errors="replace")[-MAX_OUTPUT:]
        return result


def _watch(process: subprocess.Popen[bytes], report: Path, settings: Settings) -> str:
    """Waits for the process; aborts it and says why if it takes too long.

    The report grows when a test starts or ends, so that its standing still tells of
    a test that hangs. An aborted process prints the traceback of every thread.
    """
    started = moved = time.monotonic()
    size = 0
    while True:
        try:
            process.wait(0.1)
            return ""
        except subprocess.TimeoutExpired:
            now = time.monotonic()
        if report.exists() and (grown := report.stat().st_size) != size:
            size, moved = grown, now
        if now - started > settings.file_timeout:
            reason = f"the file took more than {settings.file_timeout:g} s"
        elif now - moved > settings.test_timeout:
            reason = f"nothing happened for {settings.test_timeout:g} s"
        else:
            continue
        process.send_signal(signal.SIGABRT)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(5)
        return reason


def _environment(level: str | None, folder: Path) -> dict[str, str]:
    """The environment of a test process: ours without Python's own variables."""
    env = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    env.pop("AIOXIDE_CONFORMANCE_LEVEL", None)
    env["TMPDIR"] = str(folder)
    if level is not None:
        env["PYTHONPATH"] = str(HERE / "bootstrap")
        env["AIOXIDE_CONFORMANCE_LEVEL"] = level
    return env


def _kill_group(process: subprocess.Popen[bytes]) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)


def _describe_status(status: int) -> str:
    """Why a process ended, empty if all was well."""
    if status >= 0:
        return f"exit status {status}" if status else ""
    try:
        return f"killed by {signal.Signals(-status).name}"
    except ValueError:
        return f"killed by signal {-status}"


def _read_report(path: Path) -> _Process:
    """Reads what the process wrote down before it ended."""
    result = _Process()
    for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else ():
        try:
            event: dict[str, Any] = json.loads(line)
        except ValueError:
            break  # cut short by a crash
        match event["event"]:
            case "collected":
                result.collected, result.planned = event["tests"], event["planned"]
            case "start":
                result.unfinished = event["test"]
            case "end":
                result.unfinished = None
                result.outcomes[event["test"]] = Outcome(event["outcome"], event["detail"], event["seconds"])
            case "done":
                result.done = True
    return result


def _death(process: _Process) -> Outcome:
    """The outcome of the test, fixture or file in which a process ended."""
    state = "hung" if process.timed_out else "crashed"
    if not process.ending:
        process.ending = "the process ended without finishing"
    return Outcome(state, f"{process.ending}; its last output:\n{process.output}")

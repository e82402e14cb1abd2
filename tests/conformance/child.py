"""Runs the tests of one file and writes down what happens to each.

Started by supervisor.py in a process of its own, with the path of a plan (JSON):

- ``package``: the package of the test files; ``path``: folders to import it from
- ``file``: the module to run
- ``level``: what ``aioxide.install`` was called with, or null for the stdlib
- ``select``: patterns of the tests to run; ``exclude``: patterns of those not to run
- ``only``: what is left to run of these, or null for all
- ``report``: the file for what happens, a JSON object a line

Each line of the report is written with one system call at the moment when it
happens, so that it is complete up to a crash. The objects, by their ``event``:

- ``collected``: ``tests``, all that the file has; ``planned``, those to be run
- ``start``: ``test``
- ``end``: ``test``, ``outcome`` (passed, failed or skipped), ``detail``, ``seconds``
- ``done``: all tests have run; what follows is the interpreter's exit
"""

from __future__ import annotations

import asyncio
import faulthandler
import fnmatch
import importlib
import json
import os
import re
import resource
import signal
import sys
import time
import traceback
import unittest
from collections.abc import Iterator
from types import TracebackType
from typing import Any

ExcInfo = tuple[type[BaseException], BaseException, TracebackType | None]

MAX_DETAIL = 16_000
"""The characters of a failure's description that are kept."""


class Report:
    """The file that the supervisor reads."""

    def __init__(self, path: str) -> None:
        self._fd = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC)
        self._pid = os.getpid()

    def write(self, event: str, **fields: object) -> None:
        """Adds a line; does nothing in a process that a test has forked."""
        if os.getpid() == self._pid:
            os.write(self._fd, json.dumps({"event": event} | fields).encode() + b"\n")


class ReportingResult(unittest.TestResult):
    """A unittest result that reports each test as it starts and ends."""

    def __init__(self, report: Report, prefix: str, planned: list[str]) -> None:
        super().__init__()
        self._report = report
        self._prefix = prefix
        self._unreported = dict.fromkeys(planned)
        self._current: str | None = None
        self._outcomes: list[tuple[str, str]] = []
        self._started = 0.0

    def startTest(self, test: unittest.TestCase) -> None:
        self._current = test.id().removeprefix(self._prefix)
        self._outcomes = []
        self._report.write("start", test=self._current)
        self._started = time.monotonic()

    def stopTest(self, test: unittest.TestCase) -> None:
        if self._current is None:
            return  # 3.12.1 does not start what is skipped
        if not self._outcomes and sys.exc_info()[0] is not None:
            return  # a KeyboardInterrupt passes through: the test never ends
        failures = [detail for outcome, detail in self._outcomes if outcome == "failed"]
        if failures:
            outcome, detail = "failed", "\n".join(failures)
        elif self._outcomes:
            outcome, detail = self._outcomes[0]
        else:
            outcome, detail = "failed", "the test ended without an outcome"
        self._end(self._current, outcome, detail, time.monotonic() - self._started)
        self._current = None

    def addSuccess(self, test: unittest.TestCase) -> None:
        self._add(test, "passed")

    def addError(self, test: unittest.TestCase, err: Any) -> None:
        self._add(test, "failed", describe(err))

    def addFailure(self, test: unittest.TestCase, err: Any) -> None:
        self._add(test, "failed", describe(err))

    def addSkip(self, test: unittest.TestCase, reason: str) -> None:
        if self._current is None and isinstance(test, unittest.TestCase):
            self._end(test.id().removeprefix(self._prefix), "skipped", reason, 0.0)  # 3.12.1, see stopTest
        else:
            self._add(test, "skipped", reason)

    def addExpectedFailure(self, test: unittest.TestCase, err: Any) -> None:
        self._add(test, "passed")

    def addUnexpectedSuccess(self, test: unittest.TestCase) -> None:
        self._add(test, "failed", "passed, but is marked as an expected failure")

    def addSubTest(self, test: unittest.TestCase, subtest: unittest.TestCase, err: Any) -> None:
        if err is not None:
            self._add(test, "failed", f"{subtest}\n{describe(err)}")

    def _add(self, test: unittest.TestCase, outcome: str, detail: str = "") -> None:
        """Notes an outcome of the current test, or of a class's or module's fixture."""
        if self._current is None:
            self._add_fixture(str(test), outcome, detail)
        else:
            self._outcomes.append((outcome, detail))

    def _add_fixture(self, name: str, outcome: str, detail: str) -> None:
        """Reports what a fixture's failure means for the tests under it.

        Its name is of the form ``setUpClass (package.file.Class)``.
        """
        match = re.fullmatch(r"(\w+) \((.*)\)", name)
        fixture, owner = (match[1], match[2]) if match else (name, self._prefix)
        owner = owner.removeprefix(self._prefix)
        prevented = [test for test in self._unreported if test.startswith(f"{owner}.")]
        if fixture.startswith("setUp") and prevented:
            for test in prevented:
                self._end(test, outcome, f"{fixture}: {detail}", 0.0)
        else:
            self._end(f"{owner}.{fixture}", outcome, detail, 0.0)

    def _end(self, test: str, outcome: str, detail: str, seconds: float) -> None:
        self._unreported.pop(test, None)
        self._report.write("end", test=test, outcome=outcome, detail=detail[-MAX_DETAIL:], seconds=seconds)


def describe(err: ExcInfo) -> str:
    """The traceback of a failure."""
    return "".join(traceback.format_exception(*err))


def flatten(suite: unittest.TestSuite) -> Iterator[unittest.TestCase]:
    """The tests of nested suites, in order."""
    for test in suite:
        if isinstance(test, unittest.TestSuite):
            yield from flatten(test)
        else:
            yield test


def matches(test: str, patterns: list[str]) -> bool:
    """Whether one of the patterns names the test."""
    return any(fnmatch.fnmatchcase(test, pattern) for pattern in patterns)


def check_provider(level: str | None) -> None:
    """Makes sure that the tests will meet the implementation that was asked for."""
    import _asyncio

    native_future = asyncio.Future is not _asyncio.Future
    loop = asyncio.new_event_loop()
    native_loop = not type(loop).__module__.startswith("asyncio.")
    loop.close()
    if native_loop != (level is not None) or native_future != (level == "full"):
        sys.exit(
            f"asyncio is not as asked for (level={level}): native loop: {native_loop}, native Future: {native_future}"
        )


def reset_signals() -> None:
    """Undoes what a background job or nohup leaves: with SIGINT or SIGHUP ignored, tests would hang."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, [])


def run(plan: dict[str, Any]) -> None:
    """Runs what the plan says."""
    report = Report(plan["report"])
    prefix = plan["package"] + "."
    try:
        module = importlib.import_module(prefix + plan["file"])
    except unittest.SkipTest as exc:
        test = f"{plan['file']}.setUpModule"
        report.write("collected", tests=[test], planned=[test])
        report.write("end", test=test, outcome="skipped", detail=str(exc), seconds=0.0)
        report.write("done")
        return
    tests = {
        test.id().removeprefix(prefix): test for test in flatten(unittest.defaultTestLoader.loadTestsFromModule(module))
    }
    only = tests.keys() if plan["only"] is None else set(plan["only"])
    planned = [
        test for test in tests if test in only and matches(test, plan["select"]) and not matches(test, plan["exclude"])
    ]
    report.write("collected", tests=list(tests), planned=planned)
    result = ReportingResult(report, prefix, planned)
    unittest.TestSuite(tests[test] for test in planned).run(result)
    report.write("done")


def main() -> None:
    """Reads the plan named on the command line, and runs it."""
    with open(sys.argv[1], encoding="utf-8") as stream:
        plan = json.load(stream)
    sys.argv[1:] = []
    sys.path[0:1] = plan["path"]  # instead of this folder
    faulthandler.enable()  # the supervisor aborts the process when a test hangs
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    reset_signals()
    check_provider(plan["level"])
    run(plan)


if __name__ == "__main__":
    main()

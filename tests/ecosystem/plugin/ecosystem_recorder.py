"""A pytest plugin that writes down what becomes of each test, while the run goes on.

It is loaded into the upstream suites, unmodified, by `run.py`. Each line of the file that
AIOXIDE_ECOSYSTEM_RECORD names is a JSON object: what the run is on, the start of a test, or its
outcome. What was under way when a process died can so be told.
"""

import asyncio
import fnmatch
import gc
import json
import os
import pathlib
import sys

import pytest

#: The worst of a test's phases counts.
_ORDER = ("passed", "skipped", "xfailed", "failed", "error")


def running_on():
    """Names what a loop, the task class and `asyncio.sleep` are at this moment."""
    loop = asyncio.new_event_loop()
    loop.close()
    return {
        "loop": f"{type(loop).__module__}.{type(loop).__qualname__}",
        "native loop": "aioxide" in sys.modules and isinstance(loop, sys.modules["aioxide"].EventLoop),
        "native names": "aioxide" in sys.modules and asyncio.Task is sys.modules["aioxide"].Task,
    }


class Recorder:
    """Writes the file."""

    def __init__(self, path):
        self._file = pathlib.Path(path).open("a", encoding="utf-8")  # noqa: SIM115
        self._phases = {}
        #: Reports of runs within tests (pytester) come from other processes; those of this one have this id.
        self._pid = os.getpid()
        self._choice = json.loads(os.environ.get("AIOXIDE_ECOSYSTEM_CHOICE", "{}"))

    def write(self, **line):
        if os.getpid() == self._pid:
            self._file.write(json.dumps(line) + "\n")
            self._file.flush()

    @pytest.hookimpl(trylast=True)
    def pytest_collection_modifyitems(self, config, items):
        self.write(what="on", **running_on())
        chosen = self._choice
        only, without, patterns = chosen.get("only"), set(chosen.get("without", ())), chosen.get("patterns", ())
        kept, dropped = [], []
        for item in items:
            name = item.nodeid
            keep = (only is None or name in only) and name not in without
            keep = keep and not any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)
            (kept if keep else dropped).append(item)
        items[:] = kept
        if dropped:
            config.hook.pytest_deselected(items=dropped)

    def pytest_collection_finish(self):
        if self._choice.get("freeze"):
            gc.collect()
            gc.freeze()

    def pytest_collectreport(self, report):
        if report.failed:
            self.write(
                what="outcome", test=f"{report.nodeid} (collection)", outcome="error", detail=report.longreprtext
            )

    def pytest_runtest_logstart(self, nodeid):
        self._phases[nodeid] = []
        self.write(what="start", test=nodeid)

    def pytest_runtest_logreport(self, report):
        outcome = report.outcome
        if hasattr(report, "wasxfail"):
            outcome = "xfailed" if report.skipped else "passed"
        elif report.failed and report.when != "call":
            outcome = "error"
        self._phases.setdefault(report.nodeid, []).append((outcome, report.longreprtext if report.failed else ""))

    def pytest_runtest_logfinish(self, nodeid):
        phases = self._phases.pop(nodeid, [])
        outcome = max((outcome for outcome, _ in phases), key=_ORDER.index, default="error")
        detail = "\n".join(text for _, text in phases if text)
        self.write(what="outcome", test=nodeid, outcome=outcome, detail=detail[-6000:])

    def pytest_sessionfinish(self):
        self.write(what="end", **running_on())


def pytest_configure(config):
    """Begin, if the runner has said where to."""
    # Taken out, so that no run within a test writes to it.
    if path := os.environ.pop("AIOXIDE_ECOSYSTEM_RECORD", None):
        config.pluginmanager.register(Recorder(path), "ecosystem-recorder-instance")

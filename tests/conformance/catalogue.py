"""What there is to run: CPython's test files, and the tests that do not apply.

The list of tests that do not apply is data, in not_applicable.toml; this module
reads it for one version of Python.
"""

from __future__ import annotations

import fnmatch
import re
import sys
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

Version = tuple[int, ...]
Kind = Literal["internal", "later"]

LIST = Path(__file__).with_name("not_applicable.toml")


@dataclass(frozen=True)
class TestFile:
    """One file of CPython's test_asyncio."""

    name: str
    since: Version = (3, 11)
    """The first version that has the file."""
    default: bool = True
    """Whether it belongs to the parts of asyncio that are native by now."""

    def exists(self, version: Version) -> bool:
        """Whether this version of Python has the file."""
        return version >= self.since


FILES = {
    file.name: file
    for file in (
        TestFile("test_futures"),
        TestFile("test_futures2"),
        TestFile("test_tasks"),
        TestFile("test_eager_task_factory", since=(3, 12)),
        TestFile("test_locks"),
        TestFile("test_queues"),
        TestFile("test_taskgroups"),
        TestFile("test_timeouts"),
        TestFile("test_waitfor"),
        TestFile("test_runners"),
        TestFile("test_threads"),
        TestFile("test_pep492"),
        TestFile("test_context"),
        TestFile("test_staggered", since=(3, 13)),
        TestFile("test_graph", since=(3, 14)),
        TestFile("test_free_threading", since=(3, 14)),
        TestFile("test_events"),
        TestFile("test_base_events"),
        TestFile("test_buffered_proto"),
        TestFile("test_protocols"),
        TestFile("test_sendfile"),
        TestFile("test_server"),
        TestFile("test_server_context", since=(3, 15)),
        TestFile("test_sock_lowlevel"),
        TestFile("test_ssl"),
        TestFile("test_sslproto"),
        TestFile("test_streams"),
        TestFile("test_subprocess"),
        TestFile("test_transports"),
        TestFile("test_unix_events"),
    )
}
"""Every file but those that test only CPython's own classes: test_proactor_events,
test_selector_events, test_tools, test_windows_events and test_windows_utils."""


@dataclass(frozen=True)
class Pattern:
    """A pattern of the list, with why the tests it names do not apply."""

    text: str
    kind: Kind
    reason: str
    run: bool
    """Whether the tests are run all the same, and have to fail."""

    def matches(self, test: str) -> bool:
        """Whether the pattern names this test."""
        return fnmatch.fnmatchcase(test, self.text)

    @property
    def file(self) -> str:
        """The test file that the pattern is about."""
        return self.text.partition(".")[0]


class ListError(Exception):
    """The list of tests that do not apply is not well formed."""


def version_matches(spec: str, version: Version) -> bool:
    """Whether a version satisfies a specification such as ``>=3.12,<3.14``."""
    for part in spec.split(","):
        match = re.fullmatch(r"\s*(>=|<)\s*(\d+(?:\.\d+)+)\s*", part)
        if match is None:
            raise ListError(f"versions: {spec!r} is not of the form '>=3.12,<3.14'")
        bound = tuple(map(int, match[2].split(".")))
        if (version >= bound) != (match[1] == ">="):
            return False
    return True


def load_list(path: Path = LIST, version: Version = sys.version_info[:3]) -> list[Pattern]:
    """The patterns of the list that hold for a version of Python."""
    with path.open("rb") as stream:
        document = tomllib.load(stream)
    patterns = []
    for entry in document.pop("entry", []):
        patterns += _read_entry(entry, version)
    if document:
        raise ListError(f"unknown keys: {', '.join(document)}")
    return patterns


def _read_entry(entry: dict[str, object], version: Version) -> list[Pattern]:
    """The patterns of one entry; none if it is about other versions."""
    fields = dict(entry)
    tests = fields.pop("tests", None)
    kind = fields.pop("kind", None)
    reason = fields.pop("reason", None)
    versions = fields.pop("versions", ">=3.11")
    run = fields.pop("run", None)
    where = f"entry {tests!r}"
    if fields:
        raise ListError(f"{where}: unknown keys: {', '.join(fields)}")
    if not isinstance(tests, list) or not tests or not all(isinstance(t, str) for t in tests):
        raise ListError(f"{where}: tests is a list of patterns")
    if kind not in ("internal", "later"):
        raise ListError(f"{where}: kind is 'internal' or 'later'")
    if not isinstance(reason, str) or len(reason) < 10:
        raise ListError(f"{where}: a reason is needed")
    if not isinstance(versions, str):
        raise ListError(f"{where}: versions is a text")
    if run is not None and not isinstance(run, bool):
        raise ListError(f"{where}: run is true or false")
    for text in tests:
        file, *names = text.split(".")
        if file not in FILES or len(names) != 2:
            raise ListError(f"{where}: {text!r} is not of the form file.Class.test")
    if not version_matches(versions, version):
        return []
    reason = " ".join(reason.split())
    return [Pattern(text, kind, reason, "*" not in text if run is None else run) for text in tests]

"""What the pages include and nobody writes by hand: the conformance list, and the benchmarks with their plots."""

from __future__ import annotations

import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from sphinx.application import Sphinx

DOCS = Path(__file__).parents[1]
ROOT = DOCS.parent
TARGET = DOCS / "_generated"

sys.path.insert(0, str(ROOT / "benches"))

import report  # noqa: E402
from run import markdown, table  # noqa: E402

NO_COST = {"turns before I/O is served", "loop with 5000 idle connections"}
"""Rows that are no cost of an operation."""

# ------------------------------------------------------------- conformance


def conformance() -> str:
    """The tests of CPython that do not apply, by test file, each with its reason."""
    document = tomllib.loads((ROOT / "tests/conformance/not_applicable.toml").read_text(encoding="utf-8"))
    entries: dict[str, list[dict[str, Any]]] = {}
    for entry in document["entry"]:
        entries.setdefault(entry["tests"][0].partition(".")[0], []).append(entry)
    return "\n".join(line for file in sorted(entries) for line in _file_of_tests(file, entries[file]))


def _file_of_tests(file: str, entries: list[dict[str, Any]]) -> Iterator[str]:
    """The section about one file of tests."""
    yield f"### {file}\n"
    for entry in entries:
        names = ", ".join(f"`{test.partition('.')[2]}`" for test in entry["tests"])
        versions = f" (Python {entry['versions']})" if "versions" in entry else ""
        yield names + versions
        yield f": {' '.join(entry['reason'].split())}\n"


# -------------------------------------------------------------- benchmarks

FAMILIES = {
    "tasks": ("Tasks, combinators, primitives", ("task", "combinator", "primitive")),
    "loop": ("Loop and memory", ("loop", "memory")),
    "network": ("Network", ("network",)),
    "tls": ("TLS", ("tls",)),
    "subprocess": ("Subprocesses", ("subprocess",)),
}
"""The sections of a report, with the groups of rows that each has."""


def benchmarks() -> str:
    """A section for each report."""
    reports = report.read_all()
    if not reports:
        return "No results are recorded yet: `make bench ARGS='--json benches/results/NAME.json'`.\n"
    return "\n".join(line for one in reports for line in _section(one))


def _section(one: report.Report) -> Iterator[str]:
    """Where the figures come from, plots, and the tables."""
    yield f"### {one.stem}\n"
    yield f"{one.facts()}\n"
    for name, (title, groups) in FAMILIES.items():
        rows = [row for row in one.rows(*groups) if row.name not in NO_COST]
        if not rows:
            continue
        yield f"#### {title}\n"
        for theme in report.THEMES:
            picture = f"{one.stem}-{name}-{theme}.svg"
            report.plot(one, rows, TARGET / picture, theme)
            yield f"```{{figure}} _generated/{picture}\n:alt: {title}: cost beside aioxide's\n:figclass: only-{theme}\n"
            yield "Cost of an operation beside aioxide's, which is 1: a longer bar is slower. Logarithmic.\n```\n"
        columns = [name for name in one.versions if any((row.name, name) in one.figures for row in rows)]
        yield markdown(table(rows, columns, one.figures))
        yield f"{report.behind(one, rows)}\n"


def write(app: Sphinx) -> None:
    """Writes the pieces that pages include."""
    TARGET.mkdir(exist_ok=True)
    for name, text in (("conformance.md", conformance()), ("benchmarks.md", benchmarks())):
        path = TARGET / name
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            path.write_text(text, encoding="utf-8")


def setup(app: Sphinx) -> dict[str, bool]:
    """Has the pieces written before the pages are read."""
    app.connect("builder-inited", write)
    return {"parallel_read_safe": True}

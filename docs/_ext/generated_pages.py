"""What the pages include and nobody writes by hand: the conformance list, and the benchmarks with their plots."""

from __future__ import annotations

import json
import math
import statistics
import sys
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from sphinx.application import Sphinx

DOCS = Path(__file__).parents[1]
ROOT = DOCS.parent
TARGET = DOCS / "_generated"
RESULTS = ROOT / "benches" / "results"

sys.path.insert(0, str(ROOT / "benches"))

COLOURS = {
    "aioxide": "#c2410c",
    "uvloop": "#2563eb",
    "zuvloop": "#0d9488",
    "rsloop": "#7c3aed",
    "rloop": "#64748b",
    "floor": "#111827",
    "stdlib": "#9ca3af",
}

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


class Report:
    """One file that `make bench ARGS='--json ...'` wrote."""

    def __init__(self, path: Path) -> None:
        import network
        from rows import load

        document = json.loads(path.read_text(encoding="utf-8"))
        self.build: dict[str, Any] = document["build"]
        self.versions: dict[str, str] = document["versions"]
        self.statistic: str = document["statistic"]
        reduce: Callable[[list[float]], float] = min if self.statistic == "min" else statistics.median
        self.values: dict[str, dict[str, float]] = {}
        for sample in document["samples"]:
            figures = [one["value"] for one in sample["rounds"]]
            if figures:
                self.values.setdefault(sample["row"], {})[sample["provider"]] = reduce(figures)
        self.groups = {row.name: row.group for row in [*load(), *network.ROWS] if row.name not in NO_COST}
        self.floor = network.FLOOR

    def providers(self) -> list[str]:
        """Every column that has a figure, the floor apart, in the order of the report."""
        return [name for name in self.versions if name != self.floor]

    def rows(self, *groups: str) -> list[str]:
        """The rows of some groups that aioxide has a figure for."""
        return [row for row, figures in self.values.items() if self.groups.get(row) in groups and "aioxide" in figures]


def benchmarks() -> str:
    """A section for each report."""
    reports = sorted(RESULTS.glob("*.json"))
    if not reports:
        return "No results are recorded yet: `make bench ARGS='--json benches/results/NAME.json'`.\n"
    return "\n".join(line for path in reports for line in _section(path.stem, Report(path)))


def _section(stem: str, report: Report) -> Iterator[str]:
    """Where the figures come from, plots, and the tables."""
    versions = ", ".join(f"{name} {version}" for name, version in report.versions.items() if version)
    facts = ", ".join(str(value) for value in report.build.values() if value not in (None, "", False))
    yield f"### {stem}\n"
    yield f"{facts}. {versions}. The {'least' if report.statistic == 'min' else 'median'} of the rounds.\n"
    families = {
        "tasks": ("Tasks, combinators, primitives", ("task", "combinator", "primitive")),
        "loop": ("Loop and memory", ("loop", "memory")),
        "network": ("Network", ("network",)),
        "tls": ("TLS", ("tls",)),
        "subprocess": ("Subprocesses", ("subprocess",)),
    }
    for name, (title, groups) in families.items():
        rows = report.rows(*groups)
        if not rows:
            continue
        picture = f"{stem}-{name}.svg"
        plot(report, rows, TARGET / picture)
        yield f"#### {title}\n"
        yield f"```{{figure}} _generated/{picture}\n:alt: {title}: cost beside aioxide's\n"
        yield "Cost of an operation beside aioxide's, which is 1: a longer bar is slower. Logarithmic.\n```\n"
        yield from _table(report, rows)
        yield ""


def _table(report: Report, rows: list[str]) -> Iterator[str]:
    """A table, and the rows that are no better than the best rival."""
    names = [name for name in report.providers() if any(name in report.values[row] for row in rows)]
    names.sort(key=lambda name: name == "aioxide")
    shows_floor = any(report.floor in report.values[row] for row in rows)
    shown = [*([report.floor] if shows_floor else []), *names]
    yield "| row | " + " | ".join(shown) + " | vs best rival |"
    yield "|---" + "|---:" * (len(shown) + 1) + "|"
    losses = []
    for row in rows:
        figures = report.values[row]
        rivals = {name: figures[name] for name in names if name in figures and name != "aioxide"}
        verdict = ""
        if rivals and figures["aioxide"] > 0:
            best = min(rivals, key=rivals.__getitem__)
            ratio = rivals[best] / figures["aioxide"]
            verdict = f"{ratio:.2f}x ({best})"
            if ratio < 1:
                losses.append(f"{row} {ratio:.2f}x of {best}")
        cells = [f"{figures[name]:,.0f}" if name in figures else "" for name in shown]
        yield f"| {row} | " + " | ".join(cells) + f" | {verdict} |"
    if losses:
        yield f"\nSlower here than the best rival: {'; '.join(losses)}."


def plot(report: Report, rows: list[str], path: Path) -> None:
    """Bars for each row: what the others cost beside aioxide."""
    import matplotlib

    matplotlib.use("svg")
    matplotlib.rcParams["svg.hashsalt"] = "aioxide"
    import matplotlib.pyplot as pyplot

    names = [name for name in report.providers() if name != "aioxide"]
    height = 0.8 / max(1, len(names))
    figure, axes = pyplot.subplots(figsize=(8, 0.6 + len(rows) * (0.16 * len(names) + 0.12)))
    for index, name in enumerate(names):
        places, widths = [], []
        for row_index, row in enumerate(rows):
            figures = report.values[row]
            if name in figures and figures["aioxide"] > 0:
                places.append(row_index - 0.4 + (index + 0.5) * height)
                widths.append(figures[name] / figures["aioxide"])
        # A bar begins at 1, where aioxide is: to its left is who was faster.
        lefts = [min(1.0, width) for width in widths]
        lengths = [abs(width - 1.0) for width in widths]
        axes.barh(places, lengths, left=lefts, height=height * 0.9, color=COLOURS.get(name, "#444"), label=name)
    axes.set_xscale("log")
    axes.axvline(1, color=COLOURS["aioxide"], linewidth=1.5, label="aioxide")
    ticks = [0.5, 1, 2, 5, 10, 20]
    axes.set_xticks(ticks, [f"{tick:g}x" for tick in ticks])
    axes.minorticks_off()
    axes.set_yticks(range(len(rows)), rows, fontsize=8)
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0), fontsize=8, frameon=False)
    figure.tight_layout()
    figure.savefig(path, metadata={"Date": None})
    pyplot.close(figure)


def mean_ratio(report: Report, rows: list[str], rival: str) -> float:
    """The geometric mean of what a rival costs beside aioxide."""
    ratios = [report.values[row][rival] / report.values[row]["aioxide"] for row in rows if rival in report.values[row]]
    return math.exp(statistics.fmean(map(math.log, ratios)))


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

"""What runs of the benchmarks found, from the files that `--json` wrote: the plots and tables of README and the docs.

`make figures` has this program write README's table, between the marks `<!-- speed -->`, and its two plots, one for
a light page and one for a dark one. The docs take the whole tables from here when they are built.
"""

import argparse
import dataclasses
import json
import pathlib
import statistics
import sys
import textwrap
from collections.abc import Iterable

import network
from providers import OURS
from rows import MEAN_GROUPS, load
from run import AnyRow, best_rival, geometric_mean, markdown, ratio, times

ROOT = pathlib.Path(__file__).parents[1]
RESULTS = ROOT / "benches" / "results"
README = ROOT / "README.md"
IMAGES = ROOT / "docs" / "images"
BEGIN, END = "<!-- speed -->\n", "<!-- speed end -->"

README_ROWS = {
    "create_task + await": "`create_task` and `await`",
    "gather, 1000": "`gather` of 1000, for each",
    "TaskGroup, 1000": "`TaskGroup` of 1000, for each",
    "timeout()": "`timeout()` around an `await`",
    "Queue(1)": "item through a `Queue(1)`",
    "call_soon chain": "`call_soon`",
    "echo, 64 connections": "echo by a protocol, 1 KiB",
    "echo, readline": "echo by streams, `readline`",
    "echo, sock_recv + sock_sendall": "echo by `sock_*`",
    "echo, UDP": "echo of datagrams",
    "TLS echo, 64 connections": "echo over TLS",
    "TLS send, protocol": "1 MiB sent over TLS",
    "spawn + wait": "a child started and waited for",
}
"""The rows that README shows, in its words."""

THEMES = {
    "light": {
        "text": "#1f2328",
        "faint": "#d1d9e0",
        "aioxide": "#c2410c",
        "aioxide-loop": "#f59e0b",
        "stdlib": "#8b949e",
        "uvloop": "#2563eb",
        "zuvloop": "#0d9488",
        "rsloop": "#7c3aed",
        "rloop": "#475569",
        "aiofastnet": "#be185d",
        "best other": "#0d9488",
    },
    "dark": {
        "text": "#e6edf3",
        "faint": "#3d444d",
        "aioxide": "#fb923c",
        "aioxide-loop": "#fde047",
        "stdlib": "#7d8590",
        "uvloop": "#60a5fa",
        "zuvloop": "#2dd4bf",
        "rsloop": "#c4b5fd",
        "rloop": "#cbd5e1",
        "aiofastnet": "#f472b6",
        "best other": "#2dd4bf",
    },
}
"""Colours on a light page and on a dark one; the pictures have no background of their own."""


BUSY = 1.5
"""A load before a run that its figures show. Groups of rows, run one after the other, leave a load of 1 to the next."""

Figures = dict[tuple[str, str], float]
"""Row and provider to what one operation costs."""


@dataclasses.dataclass
class Report:
    """One file that `make bench ARGS='--json ...'` wrote."""

    stem: str
    """The file's name."""
    build: dict[str, str]
    """Python, machine and date."""
    versions: dict[str, str]
    """The columns, each with its release."""
    rounds: str
    """What of how many rounds the figures are."""
    figures: Figures

    @classmethod
    def read(cls, path: pathlib.Path) -> "Report":
        """The report in a file."""
        document = json.loads(path.read_text(encoding="utf-8"))
        least = document["statistic"] == "min"
        reduce = min if least else statistics.median
        figures: Figures = {}
        rounds: set[int] = set()
        for sample in document["samples"]:
            if values := [one["value"] for one in sample["rounds"]]:
                figures[sample["row"], sample["provider"]] = reduce(values)
                rounds.add(len(values))
        number = " to ".join(map(str, sorted({min(rounds, default=0), max(rounds, default=0)})))
        said = f"{'least' if least else 'median'} of {number} rounds"
        return cls(path.stem, document["build"], document["versions"], said, figures)

    def when(self) -> str:
        """The day and the rounds, and whether the machine had other things to do."""
        load = float(self.build.get("load", 0))
        return f"{self.build['date']}, {self.rounds}{f', beside other work (load {load:g})' if load >= BUSY else ''}"

    def loops(self) -> str:
        """The other providers, each with its release."""
        return ", ".join(f"{name} {version}" for name, version in self.versions.items() if version and name not in OURS)

    def facts(self) -> str:
        """Where the figures come from."""
        pgo = "built with PGO" if self.build.get("pgo") == "yes" else ""
        facts = [self.build["python"], self.build["compiler"], pgo, self.build["system"], self.build["cpu"]]
        return f"{', '.join(filter(None, facts))}, {self.when()}; {self.loops()}."

    def rows(self, *groups: str) -> list[AnyRow]:
        """The rows, those of some groups, that aioxide has a figure for."""
        rows: list[AnyRow] = [*load(), *network.ROWS]
        return [row for row in rows if (row.name, "aioxide") in self.figures and (not groups or row.group in groups)]


def read_all() -> list[Report]:
    """What is in `benches/results`, the oldest first."""
    reports = map(Report.read, RESULTS.glob("*.json"))
    return sorted(reports, key=lambda report: (report.build["date"], report.build.get("time", ""), report.stem))


def newest(reports: Iterable[Report]) -> Report:
    """All rows, each as the newest report has it; where they come from is that of the last one."""
    figures: Figures = {}
    last = None
    for last in reports:
        measured = {row for row, _ in last.figures}
        figures = {cell: value for cell, value in figures.items() if cell[0] not in measured} | last.figures
    if last is None:
        sys.exit("no results: make bench ARGS='--json benches/results/NAME.json'")
    return dataclasses.replace(last, figures=figures)


# -------------------------------------------------------------------- words


def beside_best(report: Report, row: AnyRow) -> tuple[float, str] | None:
    """How many times cheaper aioxide is than the best other provider, and which that is."""
    best = best_rival(report.figures, row.name, list(report.versions))
    value = ratio(report.figures, row, best, "aioxide")
    return None if best is None or value is None else (value, best)


def behind(report: Report, rows: list[AnyRow]) -> str:
    """A sentence about the rows where another provider is ahead."""
    compared = [(row.name, found) for row in rows if (found := beside_best(report, row))]
    losses = [f"{name} {times(found[0])} of {found[1]}" for name, found in compared if found[0] < 0.995]
    if not losses:
        return f"Behind the best of the others in none of {len(compared)} rows."
    return f"Behind the best of the others in {len(losses)} of {len(compared)} rows: {'; '.join(losses)}."


def means(report: Report) -> str:
    """A sentence about tasks, combinators and primitives together."""
    rows = report.rows(*MEAN_GROUPS)
    parts = []
    for other in ("stdlib", "uvloop", None):
        found = [
            value
            for row in rows
            if (value := ratio(report.figures, row, other or (beside_best(report, row) or ("", None))[1], "aioxide"))
        ]
        if found and (mean := geometric_mean(found)):
            parts.append(f"{times(mean)} beside {other or 'the best of the others in each row'}")
    if not parts:
        return ""
    return f"Geometric mean of the {len(rows)} rows of tasks, combinators and primitives: {', '.join(parts)}."


def readme_table(report: Report) -> str:
    """The rows of README."""
    by_name = {row.name: row for row in report.rows()}
    lines = [["CPU time, ns", "stdlib", "uvloop", "best other", "aioxide", "vs stdlib", "vs uvloop", "vs best"]]
    for name, words in README_ROWS.items():
        if name not in by_name:
            continue
        row = by_name[name]
        other = best_other(report, name)
        figures = [report.figures.get((name, column)) for column in ("stdlib", "uvloop", other, "aioxide")]
        cells = ["-" if figure is None else f"{figure:,.0f}" for figure in figures]
        cells[2] += f" ({other})" if other else ""
        beside = [times(ratio(report.figures, row, column, "aioxide")) for column in ("stdlib", "uvloop")]
        best = beside_best(report, row)
        lines.append([words, *cells, *beside, times(best and best[0])])
    return markdown(lines)


def best_other(report: Report, row: str) -> str | None:
    """The cheapest provider of a row that has no column of its own in README."""
    return best_rival(report.figures, row, [name for name in report.versions if name not in ("stdlib", "uvloop")])


def readme_block(reports: list[Report]) -> str:
    """All that stands between the marks in README."""
    report = newest(reports)
    used = [one for one in reports if any(report.figures.get(cell) == value for cell, value in one.figures.items())]
    facts = (
        f"{report.build['python']}, {report.build['cpu']}: {'; '.join(one.when() for one in used)}; {report.loops()}."
    )
    paragraphs = [means(report), behind(report, report.rows()), facts]
    filled = [textwrap.fill(text, 120, break_long_words=False, break_on_hyphens=False) for text in paragraphs if text]
    return "\n\n".join([readme_table(report).rstrip(), *filled]) + "\n"


# -------------------------------------------------------------------- plots


def plot(report: Report, rows: list[AnyRow], path: pathlib.Path, theme: str) -> None:
    """Bars for each row: what the other providers cost beside aioxide."""
    columns = [name for name in report.versions if name not in ("aioxide", network.FLOOR)]
    bars = {
        name: {row.name: value for row in rows if (value := ratio(report.figures, row, name, "aioxide"))}
        for name in columns
    }
    draw({row.name: row.name for row in rows}, bars, path, THEMES[theme])


def readme_plot(report: Report, path: pathlib.Path, theme: str) -> None:
    """The same for the rows of README, with the best of the other loops in one bar."""
    bars: dict[str, dict[str, float]] = {"stdlib": {}, "uvloop": {}, "best other": {}}
    rows = [row for row in report.rows() if row.name in README_ROWS]
    for row in rows:
        for label, bar in bars.items():
            name = best_other(report, row.name) if label == "best other" else label
            if value := ratio(report.figures, row, name, "aioxide"):
                bar[row.name] = value
    words = {name: README_ROWS[name].replace("`", "") for name in README_ROWS if name in {row.name for row in rows}}
    draw(words, bars, path, THEMES[theme], numbers=True)


def draw(
    words: dict[str, str],
    bars: dict[str, dict[str, float]],
    path: pathlib.Path,
    colours: dict[str, str],
    numbers: bool = False,
) -> None:
    """A plot of bars: each row has its words, each column one bar for a row, of so many times aioxide's cost."""
    import matplotlib
    from matplotlib import pyplot

    matplotlib.use("svg")
    plain = dict.fromkeys(("text.color", "axes.labelcolor", "xtick.color", "ytick.color"), colours["text"])
    # Text stays text; the salt and the missing date make two runs write the same file.
    style = {"svg.hashsalt": "aioxide", "svg.fonttype": "none", "font.family": "sans-serif", "font.size": 9}
    bars = {name: bar for name, bar in bars.items() if bar}
    height = 0.84 / max(1, len(bars))
    with matplotlib.rc_context({**style, **plain, "axes.edgecolor": colours["faint"]}):
        figure, axes = pyplot.subplots(figsize=(8, 0.7 + len(words) * (0.14 * len(bars) + 0.1)), layout="constrained")
        order = list(words)
        for index, (name, bar) in enumerate(bars.items()):
            places = [order.index(row) - 0.42 + (index + 0.5) * height for row in bar]
            # A bar begins at 1, where aioxide is: to its left is who was faster.
            lengths = [value - 1 for value in bar.values()]
            drawn = axes.barh(places, lengths, left=1, height=height * 0.9, color=colours.get(name), label=name)
            if numbers:
                axes.bar_label(
                    drawn, [f"{value:.{1 if value >= 1 else 2}f}x" for value in bar.values()], padding=2, fontsize=7
                )
        axes.set_xscale("log")
        axes.axvline(1, color=colours["aioxide"], linewidth=2, label="aioxide")
        axes.grid(axis="x", color=colours["faint"], linewidth=0.6)
        axes.set_axisbelow(True)
        low = min((value for bar in bars.values() for value in bar.values()), default=1)
        high = max((value for bar in bars.values() for value in bar.values()), default=1)
        axes.set_xlim(min(0.7, low * 0.8), max(2, high * 1.25))
        ticks = [tick for tick in (0.2, 0.5, 1, 2, 5, 10, 20, 50, 100) if tick <= high * 1.25 and tick >= low * 0.8]
        axes.set_xticks(ticks, [f"{tick:g}x" for tick in ticks])
        axes.minorticks_off()
        axes.set_yticks(range(len(order)), [words[row] for row in order])
        axes.set_ylim(len(order) - 0.5, -0.5)
        axes.tick_params(length=0)
        axes.spines[["top", "right", "left", "bottom"]].set_visible(False)
        figure.legend(loc="outside upper center", ncols=len(bars) + 1, frameon=False)
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, metadata={"Date": None}, transparent=True)
        pyplot.close(figure)


def main() -> None:
    """Writes README's part and its plots, or looks whether that part is what the results say."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="write nothing; fail if README is not up to date")
    options = parser.parse_args()
    reports = read_all()
    text = README.read_text(encoding="utf-8")
    before, _, rest = text.partition(BEGIN)
    _, mark, after = rest.partition(END)
    if not mark:
        sys.exit(f"README.md has no {BEGIN.strip()} ... {END}")
    wanted = f"{before}{BEGIN}{readme_block(reports)}{mark}{after}"
    if options.check:
        sys.exit(0 if text == wanted else "README.md is not what benches/results says: make figures")
    README.write_text(wanted, encoding="utf-8")
    for theme in THEMES:
        readme_plot(newest(reports), IMAGES / f"speed-{theme}.svg", theme)


if __name__ == "__main__":
    main()

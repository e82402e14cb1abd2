"""Compares aioxide with the stdlib's asyncio, uvloop and other loops, all in one run.

Each cell is a fresh process that calibrates its row to a fixed amount of CPU time. All providers of a row run
one after another before the next row, in an order that is rotated every round, and the table shows the median
of the rounds: CPU nanoseconds (all threads) per operation, so that waiting for neighbours does not count.
"""

import argparse
import datetime
import fnmatch
import json
import math
import os
import pathlib
import platform
import re
import statistics
import subprocess
import sys
import sysconfig
import tempfile

import providers
from rows import MEAN_GROUPS, Row, load

CELL = pathlib.Path(__file__).with_name("cell.py")
CELL_TIMEOUT = 60.0

Samples = dict[tuple[str, str], list[float]]
"""Row and provider to one value a round."""


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5, help="fresh processes for each cell (default 5)")
    parser.add_argument("--seconds", type=float, default=0.25, help="CPU time of a measurement (default 0.25)")
    parser.add_argument("--only", metavar="PATTERN", help="rows that contain PATTERN, or match it as a glob")
    parser.add_argument("--group", help="rows of this group: task, combinator, primitive, loop, memory")
    parser.add_argument("--providers", metavar="A,B", help="columns (default: all that import)")
    parser.add_argument("--statistic", choices=("median", "min"), default="median", help="of the rounds")
    parser.add_argument("--json", type=pathlib.Path, metavar="FILE", help="write every sample")
    parser.add_argument("--markdown", type=pathlib.Path, metavar="FILE", help="write the table")
    parser.add_argument("--callgrind", metavar="ROW", help="count instructions of one row instead of time")
    parser.add_argument("--list", action="store_true", help="print the rows and stop")
    return parser.parse_args()


def cell(*arguments: str, prefix: tuple[str, ...] = ()) -> subprocess.CompletedProcess[str]:
    """Runs one cell; a cell that hangs is killed."""
    environment = os.environ | {"PYTHONHASHSEED": "0", "PYTHONWARNINGS": "error::RuntimeWarning"}
    command = [*prefix, sys.executable, str(CELL), *arguments]
    timeout = CELL_TIMEOUT * (20 if prefix else 1)
    try:
        return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=timeout, check=False)
    except subprocess.TimeoutExpired:
        return subprocess.CompletedProcess(command, 124, "", f"no end after {timeout:.0f} s")


def why(result: subprocess.CompletedProcess[str]) -> str:
    """The last line of what a failed cell said."""
    lines = result.stderr.strip().splitlines()
    return lines[-1] if lines else f"exit status {result.returncode}"


def present(wanted: str | None) -> dict[str, str]:
    """Provider to version, for those that work here."""
    names = wanted.split(",") if wanted else providers.PROVIDERS
    found = {}
    for name in names:
        if name not in providers.PROVIDERS:
            sys.exit(f"unknown provider {name!r}; known: {', '.join(providers.PROVIDERS)}")
        result = cell("probe", name)
        if result.returncode == 0:
            found[name] = json.loads(result.stdout)["version"]
        elif wanted:
            sys.exit(f"{name}: {why(result)}")
        else:
            print(f"without {name}: {why(result)}", file=sys.stderr)
    return found


def chosen(rows: list[Row], options: argparse.Namespace) -> list[Row]:
    """The rows that the command line asks for."""

    def matches(row: Row) -> bool:
        if options.group and row.group != options.group:
            return False
        if not options.only:
            return True
        name, pattern = row.name.lower(), options.only.lower()
        return pattern in name or fnmatch.fnmatchcase(name, pattern)

    return [row for row in rows if matches(row)]


def collect(rows: list[Row], names: list[str], options: argparse.Namespace) -> tuple[Samples, dict[str, str]]:
    """Runs every cell in every round; returns the samples and what failed."""
    samples: Samples = {(row.name, name): [] for row in rows for name in names}
    failures: dict[str, str] = {}
    for number in range(options.rounds):
        turn = number % len(names)
        order = names[turn:] + names[:turn]
        for row in rows:
            for name in order:
                label = f"{row.name} on {name}"
                if label in failures:
                    continue
                if sys.stderr.isatty():
                    print(f"\rround {number + 1}/{options.rounds}: {label}".ljust(78), end="", file=sys.stderr)
                result = cell("run", name, row.name, str(options.seconds))
                if result.returncode == 0:
                    samples[row.name, name].append(json.loads(result.stdout)["value"])
                else:
                    failures[label] = why(result)
    if sys.stderr.isatty():
        print("\r".ljust(79), end="\r", file=sys.stderr)
    return samples, failures


def summarise(samples: Samples, options: argparse.Namespace) -> dict[tuple[str, str], float]:
    """One figure a cell; cells without a full set of samples are left out."""
    statistic = min if options.statistic == "min" else statistics.median
    return {key: statistic(values) for key, values in samples.items() if len(values) == options.rounds}


def ratio(figures: dict[tuple[str, str], float], row: str, other: str | None, ours: str) -> float | None:
    """How many times cheaper `ours` is than `other`."""
    if other is None or (row, other) not in figures or (row, ours) not in figures:
        return None
    return figures[row, other] / max(figures[row, ours], 1e-9)


def best_rival(figures: dict[tuple[str, str], float], row: str, names: list[str]) -> str | None:
    """The cheapest provider of the row that is not ours."""
    rivals = [name for name in names if name not in providers.OURS and (row, name) in figures]
    return min(rivals, key=lambda name: figures[row, name], default=None)


def geometric_mean(values: list[float]) -> float | None:
    """None for no values."""
    return math.exp(statistics.fmean(map(math.log, values))) if values else None


def times(value: float | None) -> str:
    """A ratio as text."""
    return "-" if value is None else f"{value:.2f}x"


def table(rows: list[Row], names: list[str], figures: dict[tuple[str, str], float]) -> list[list[str]]:
    """The report, cell by cell, the head first."""
    ours = next((name for name in ("aioxide", "aioxide-loop") if name in names), None)
    head = ["row", *names]
    if ours:
        head += ["vs stdlib", "vs uvloop", "vs best rival"]
    lines = [head]
    means: dict[str, list[float]] = {"stdlib": [], "uvloop": [], "best": []}
    for row in rows:
        line = [row.name]
        for name in names:
            value = figures.get((row.name, name))
            line.append("-" if value is None else f"{value:,.0f}" + (" B" if row.unit == "B" else ""))
        if ours:
            best = best_rival(figures, row.name, names)
            for key, other in (("stdlib", "stdlib"), ("uvloop", "uvloop"), ("best", best)):
                value = ratio(figures, row.name, other, ours)
                if value is not None and row.group in MEAN_GROUPS:
                    means[key].append(value)
                line.append(times(value) + (f" ({best})" if key == "best" and value is not None else ""))
        lines.append(line)
    if ours:
        counted = [row for row in rows if row.group in MEAN_GROUPS]
        if counted:
            line = ["geometric mean: " + ", ".join(MEAN_GROUPS), *[""] * len(names)]
            for values in means.values():
                complete = len(values) == len(counted)
                line.append(times(geometric_mean(values)) + ("" if complete else f" (of {len(values)} rows)"))
            lines.append(line)
    return lines


def plain(lines: list[list[str]]) -> str:
    """The table for a terminal."""
    widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]
    text = []
    for line in lines:
        first, *rest = [
            part.ljust(width) if i == 0 else part.rjust(width)
            for i, (part, width) in enumerate(zip(line, widths, strict=True))
        ]
        text.append("  ".join([first, *rest]).rstrip())
    text.insert(1, "-" * len(text[0]))
    return "\n".join(text)


def markdown(lines: list[list[str]], head: str) -> str:
    """The table for a document."""
    text = ["| " + " | ".join(line) + " |" for line in lines]
    text.insert(1, "|" + "---|" + "---:|" * (len(lines[0]) - 1))
    return f"{head}\n\n" + "\n".join(text) + "\n"


def build() -> dict[str, str]:
    """What is needed to judge the figures."""
    arguments = sysconfig.get_config_var("CONFIG_ARGS") or ""
    flags = f"{arguments} {sysconfig.get_config_var('PY_CFLAGS') or ''}"
    optimised = "--enable-optimizations" in arguments or "-fprofile-use" in flags
    cpu = platform.processor() or platform.machine()
    cpuinfo = pathlib.Path("/proc/cpuinfo")
    if cpuinfo.exists() and (match := re.search(r"model name\s*:\s*(.+)", cpuinfo.read_text())):
        cpu = match[1]
    return {
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "compiler": platform.python_compiler(),
        "pgo": "yes" if optimised else "unknown",
        "system": f"{platform.system()} {platform.release()}",
        "cpu": f"{cpu} x {os.cpu_count()}",
        "date": datetime.date.today().isoformat(),
    }


def instructions(name: str, row: Row, n: int, profile: pathlib.Path) -> int:
    """Instructions of a whole process that does `n` operations; the profile is left in a file."""
    prefix = ("valgrind", "--tool=callgrind", f"--callgrind-out-file={profile}")
    result = cell("fixed", name, row.name, str(n), prefix=prefix)
    if result.returncode:
        sys.exit(f"{name}: {why(result)}")
    found = re.search(r"Collected : (\d+)", result.stderr)
    if not found:
        sys.exit(f"{name}: valgrind gave no count")
    return int(found[1])


def callgrind(row: Row, names: list[str]) -> None:
    """Prints user-space instructions per operation: the difference of two runs of different length."""
    few = max(1, 1000 // row.quantum) * row.quantum
    many = few * 5
    folder = pathlib.Path(tempfile.mkdtemp(prefix="callgrind-"))
    print(f"{row.name}: user-space instructions per operation (profiles in {folder})")
    for name in names:
        counts = [instructions(name, row, n, folder / f"{name}.{n}") for n in (few, many)]
        print(f"  {name:14} {(counts[1] - counts[0]) / (many - few):12,.0f}")


def main() -> int:
    """Runs what the command line asks for; 1 when a cell of ours failed."""
    options = parse()
    rows = load()
    if options.list:
        for row in rows:
            print(f"{row.group:12} {row.name}")
        return 0
    if options.callgrind:
        options.only = options.callgrind
    rows = chosen(rows, options)
    if not rows:
        sys.exit("no such row; --list prints them all")
    versions = present(options.providers)
    names = list(versions)
    if options.callgrind:
        for row in rows:
            callgrind(row, names)
        return 0

    samples, failures = collect(rows, names, options)
    figures = summarise(samples, options)
    facts = build()
    head = (
        f"{facts['python']} ({facts['compiler']}; PGO: {facts['pgo']}), {facts['cpu']}, {facts['date']}; "
        f"{options.statistic} of {options.rounds} rounds, CPU ns per operation, smaller is better; "
        + ", ".join(f"{name} {version}".strip() for name, version in versions.items())
    )
    lines = table(rows, names, figures)
    print(head, plain(lines), sep="\n\n")
    for label, reason in failures.items():
        print(f"failed: {label}: {reason}")
    if options.markdown:
        options.markdown.write_text(markdown(lines, head))
    if options.json:
        options.json.write_text(
            json.dumps(
                {
                    "build": facts,
                    "versions": versions,
                    "statistic": options.statistic,
                    "samples": [
                        {"row": row, "provider": name, "values": values} for (row, name), values in samples.items()
                    ],
                    "failures": failures,
                },
                indent=1,
            )
            + "\n"
        )
    return int(any(label.rpartition(" on ")[2] in providers.OURS for label in failures))


if __name__ == "__main__":
    sys.exit(main())

"""Compares aioxide with the stdlib's asyncio, uvloop and other loops, all in one run.

Each cell is a fresh process that calibrates its row to a fixed amount of CPU time. All providers of a row run
one after another before the next row, in an order that is turned round every round, and the table shows the median
of the rounds: CPU nanoseconds (all threads) per operation, so that waiting for neighbours does not count. How the
rows with a peer are measured says `network.py`.
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

import network
import providers
from network import FLOOR, NetworkRow
from rows import MEAN_GROUPS, Failed, Missing, Row, load, problem

CELL = pathlib.Path(__file__).with_name("cell.py")
CELL_TIMEOUT = 60.0
DETAILED = ("network", "tls", "subprocess")
"""The groups that have tables of their own, and more figures in the last one."""

AnyRow = Row | NetworkRow
Samples = dict[tuple[str, str], list[dict[str, float]]]
"""Row and provider to the figures of each round: `value`, and for some `rate`, `p50`, `p99`, `wakeups`, `threads`."""


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5, help="fresh processes for each cell (default 5)")
    parser.add_argument("--seconds", type=float, default=0.25, help="CPU time of a measurement (default 0.25)")
    parser.add_argument("--only", metavar="PATTERN", help="rows that contain PATTERN, or match it as a glob")
    parser.add_argument("--group", help="one of task, combinator, primitive, loop, memory, network, tls, subprocess")
    parser.add_argument("--providers", metavar="A,B", help="columns (default: all that import)")
    parser.add_argument("--statistic", choices=("median", "min"), default="median", help="of the rounds")
    parser.add_argument("--json", type=pathlib.Path, metavar="FILE", help="write every sample")
    parser.add_argument("--markdown", type=pathlib.Path, metavar="FILE", help="write the table")
    parser.add_argument("--callgrind", metavar="ROW", help="count instructions of one row instead of time")
    parser.add_argument("--quick", action="store_true", help="one short round that shows whether all works")
    parser.add_argument("--list", action="store_true", help="print the rows and stop")
    options = parser.parse_args()
    if options.quick:
        options.rounds, options.seconds = 1, 0.02
    return options


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
    """Provider to version, for those that work here; the floor is the first of them."""
    known = (FLOOR, *providers.PROVIDERS)
    names = wanted.split(",") if wanted else known
    found = {}
    for name in names:
        if name not in known:
            sys.exit(f"unknown provider {name!r}; known: {', '.join(known)}")
        if name == FLOOR:
            reason, version = network.unavailable(), ""
        else:
            result = cell("probe", name)
            reason = why(result) if result.returncode else None
            version = "" if reason else json.loads(result.stdout)["version"]
        if reason is None:
            found[name] = version
        elif wanted:
            sys.exit(f"{name}: {reason}")
        else:
            print(f"without {name}: {reason}", file=sys.stderr)
    return found


def chosen(rows: list[AnyRow], options: argparse.Namespace) -> list[AnyRow]:
    """The rows that the command line asks for."""

    def matches(row: AnyRow) -> bool:
        if options.group and row.group != options.group:
            return False
        if not options.only:
            return True
        name, pattern = row.name.lower(), options.only.lower()
        return pattern in name or fnmatch.fnmatchcase(name, pattern)

    return [row for row in rows if matches(row)]


def suits(row: AnyRow, name: str) -> bool:
    """Is there such a cell at all?"""
    if name == FLOOR:
        return isinstance(row, NetworkRow) and row.has_floor
    return name not in providers.TLS_ONLY or row.group == "tls"


def rounds_of(row: AnyRow, options: argparse.Namespace) -> int:
    """How often each cell of a row runs."""
    return min(options.rounds, row.rounds or options.rounds)


def measure(row: AnyRow, name: str, options: argparse.Namespace) -> dict[str, float]:
    """The figures of one cell."""
    figures = measure_any(row, name, options)
    if name in providers.OURS and figures.get("threads"):
        raise Failed(f"it made {figures['threads']} threads")
    return figures


def measure_any(row: AnyRow, name: str, options: argparse.Namespace) -> dict[str, float]:
    """The figures of one cell, whatever kind of row it is."""
    if isinstance(row, NetworkRow):
        return network.measure(row, name, network.Extent(2 * options.seconds, 0.02 if options.quick else 1))
    result = cell("run", name, row.name, str(options.seconds))
    if result.returncode:
        raise problem(why(result))
    return json.loads(result.stdout)


def in_order(names: list[str], number: int) -> list[str]:
    """The providers in the order of a round: each comes first and last once in a while, and after each other one."""
    turn = number // 2 % len(names)
    order = names[turn:] + names[:turn]
    return order[::-1] if number % 2 else order


def collect(
    rows: list[AnyRow], names: list[str], options: argparse.Namespace
) -> tuple[Samples, dict[str, str], dict[str, str]]:
    """Runs every cell in every round; returns the samples, what failed, and what a provider does not have."""
    samples: Samples = {(row.name, name): [] for row in rows for name in names if suits(row, name)}
    failures: dict[str, str] = {}
    missing: dict[str, str] = {}
    for number in range(options.rounds):
        for row in rows:
            for name in in_order(names, number):
                label = f"{row.name} on {name}"
                if label in failures or label in missing or not suits(row, name) or number >= rounds_of(row, options):
                    continue
                if sys.stderr.isatty():
                    print(f"\rround {number + 1}/{options.rounds}: {label}".ljust(78), end="", file=sys.stderr)
                try:
                    samples[row.name, name].append(measure(row, name, options))
                except Missing as error:
                    missing[label] = str(error)
                except Failed as error:
                    failures[label] = str(error)
    if sys.stderr.isatty():
        print("\r".ljust(79), end="\r", file=sys.stderr)
    return samples, failures, missing


def summarise(rows: list[AnyRow], samples: Samples, options: argparse.Namespace) -> dict[tuple[str, str], float]:
    """One figure a cell; cells without a full set of samples are left out."""
    statistic = min if options.statistic == "min" else statistics.median
    wanted = {row.name: rounds_of(row, options) for row in rows}
    return {
        (row, name): statistic([figures["value"] for figures in rounds])
        for (row, name), rounds in samples.items()
        if len(rounds) == wanted[row]
    }


def ratio(figures: dict[tuple[str, str], float], row: AnyRow, other: str | None, ours: str) -> float | None:
    """How many times cheaper `ours` is than `other`."""
    if row.unit not in ("ns", "µs", "ms", "B") or other is None:
        return None
    theirs, own = figures.get((row.name, other)), figures.get((row.name, ours))
    return theirs / own if theirs and own else None


def best_rival(figures: dict[tuple[str, str], float], row: str, names: list[str]) -> str | None:
    """The cheapest provider of the row that is not ours, and has Python in it."""
    rivals = [name for name in names if name not in (*providers.OURS, FLOOR) and (row, name) in figures]
    return min(rivals, key=lambda name: figures[row, name], default=None)


def geometric_mean(values: list[float]) -> float | None:
    """None for no values."""
    return math.exp(statistics.fmean(map(math.log, values))) if values else None


def times(value: float | None) -> str:
    """A ratio as text."""
    return "-" if value is None else f"{value:.2f}x"


def table(rows: list[AnyRow], names: list[str], figures: dict[tuple[str, str], float]) -> list[list[str]]:
    """The report, cell by cell, the head first."""
    names = [name for name in names if any(suits(row, name) for row in rows)]
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
            line.append("-" if value is None else f"{value:,.0f}" + ("" if row.unit == "ns" else f" {row.unit}"))
        if ours:
            best = best_rival(figures, row.name, names)
            for key, other in (("stdlib", "stdlib"), ("uvloop", "uvloop"), ("best", best)):
                value = ratio(figures, row, other, ours)
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


def spread(rounds: list[dict[str, float]], key: str, divisor: float = 1.0) -> str:
    """The median of the rounds and their range."""
    values = [figures[key] / divisor for figures in rounds if key in figures]
    if not values:
        return ""
    digits = 0 if max(values) >= 100 or all(map(float.is_integer, map(float, values))) else 1
    low, middle, high = (f"{value:,.{digits}f}" for value in (min(values), statistics.median(values), max(values)))
    return middle if low == high else f"{middle} ({low}-{high})"


def details(rows: list[AnyRow], names: list[str], samples: Samples) -> list[list[str]]:
    """What else is known of the rows of `DETAILED`: throughput, latency and threads, each with its range."""
    lines = [["row", "loop", "CPU", "per second", "p50, µs", "p99, µs"]]
    for row in rows:
        for name in names:
            rounds = samples.get((row.name, name))
            if not rounds:
                continue
            rate = spread(rounds, "rate") and f"{spread(rounds, 'rate')} {row.operations}"
            wakeups = spread(rounds, "wakeups") and f"{spread(rounds, 'wakeups')} wake-ups"
            made = spread(rounds, "threads") and f"{spread(rounds, 'threads')} threads made"
            latencies = [spread(rounds, key, 1000) for key in ("p50", "p99")]
            lines.append([row.name, name, f"{spread(rounds, 'value')} {row.unit}", rate or wakeups or made, *latencies])
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


def markdown(lines: list[list[str]]) -> str:
    """The table for a document."""
    text = ["| " + " | ".join(line) + " |" for line in lines]
    text.insert(1, "|" + "---|" + "---:|" * (len(lines[0]) - 1))
    return "\n".join(text) + "\n"


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
        "time": f"{datetime.datetime.now():%H:%M}",
        # Of the minute before: what else the machine had to do.
        "load": f"{os.getloadavg()[0]:.1f}",
    }


def instructions(name: str, row: Row, n: int, profile: pathlib.Path) -> int:
    """Instructions of a whole process that does `n` operations; the profile is left in a file."""
    prefix = ("valgrind", "--tool=callgrind", f"--callgrind-out-file={profile}")
    result = cell("fixed", name, row.name, str(n), prefix=prefix)
    if result.returncode:
        raise problem(why(result))
    found = re.search(r"Collected : (\d+)", result.stderr)
    if not found:
        raise Failed("valgrind gave no count")
    return int(found[1])


def callgrind(row: AnyRow, names: list[str]) -> None:
    """Prints user-space instructions per operation."""
    folder = pathlib.Path(tempfile.mkdtemp(prefix="callgrind-"))
    print(f"{row.name}: user-space instructions per operation (profiles in {folder})")
    for name in names:
        if not suits(row, name):
            continue
        try:
            if isinstance(row, NetworkRow):
                count = network.instructions(row, name, folder)
            else:
                count = difference(row, name, folder)
            print(f"  {name:14} {count:12,.0f}", flush=True)
        except (Missing, Failed) as error:
            print(f"  {name:14} {'-':>12}  {error}", flush=True)


def difference(row: Row, name: str, folder: pathlib.Path) -> float:
    """Instructions per operation: the difference of two runs of different length."""
    few = max(1, 1000 // row.quantum) * row.quantum
    many = few * 5
    counts = [instructions(name, row, n, folder / f"{name}.{n}") for n in (few, many)]
    return (counts[1] - counts[0]) / (many - few)


def main() -> int:
    """Runs what the command line asks for; 1 when a cell of ours failed."""
    options = parse()
    rows: list[AnyRow] = [*load(), *network.ROWS]
    if options.list:
        for row in rows:
            print(f"{row.group:12} {row.name}")
        return 0
    if options.callgrind:
        options.only = options.callgrind
    rows = chosen(rows, options)
    if not rows:
        sys.exit("no such row; --list prints them all")
    if reason := network.unavailable():
        print(f"without the rows that need a peer: {reason}", file=sys.stderr)
        rows = [row for row in rows if not isinstance(row, NetworkRow)]
    if reason := network.without_certificate():
        print(f"without the rows of TLS: {reason}", file=sys.stderr)
        rows = [row for row in rows if row.group != "tls"]
    facts = build()
    versions = present(options.providers)
    names = list(versions)
    if options.callgrind:
        for row in rows:
            callgrind(row, names)
        return 0

    samples, failures, missing = collect(rows, names, options)
    figures = summarise(rows, samples, options)
    head = (
        f"{facts['python']} ({facts['compiler']}; PGO: {facts['pgo']}), {facts['cpu']}, {facts['date']}; "
        f"{options.statistic} of {options.rounds} rounds, CPU ns per operation, smaller is better; "
        + ", ".join(f"{name} {version}".strip() for name, version in versions.items())
    )
    parts = [[row for row in rows if row.group not in DETAILED]]
    parts += [[row for row in rows if row.group == group] for group in DETAILED]
    tables = [table(part, names, figures) for part in parts if part]
    if detailed := [row for part in parts[1:] for row in part]:
        tables.append(details(detailed, names, samples))
    print(head, *map(plain, tables), sep="\n\n")
    for reason, labels in by_reason(missing).items():
        print(f"not available: {'; '.join(labels)}: {reason}")
    for label, reason in failures.items():
        print(f"failed: {label}: {reason}")
    if options.markdown:
        options.markdown.write_text("\n".join([f"{head}\n", *map(markdown, tables)]))
    if options.json:
        write_json(options, facts, versions, samples, failures, missing)
    return int(any(label.rpartition(" on ")[2] in providers.OURS for label in failures))


def by_reason(missing: dict[str, str]) -> dict[str, list[str]]:
    """What is missing, a line for each reason."""
    found: dict[str, list[str]] = {}
    for label, reason in missing.items():
        found.setdefault(reason, []).append(label)
    return found


def write_json(options: argparse.Namespace, facts: dict, versions: dict, samples: Samples, *problems: dict) -> None:
    """Writes every sample to the file of `--json`."""
    report = {
        "build": facts,
        "versions": versions,
        "statistic": options.statistic,
        "samples": [{"row": row, "provider": name, "rounds": rounds} for (row, name), rounds in samples.items()],
        "failures": problems[0],
        "missing": problems[1],
    }
    options.json.write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    sys.exit(main())

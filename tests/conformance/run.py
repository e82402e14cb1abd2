"""Runs CPython's own test_asyncio of this Python against aioxide.

Every asyncio name is native while the tests run, the classes that they take from
the C slots of asyncio.tasks and asyncio.futures too. What may fail stands in
not_applicable.toml, each entry with its reason. That list can only shrink:

- a test that is named there in full is run, and has to fail;
- the tests of a pattern with a `*` are not run (`run = true` or `false` in an
  entry turns either round);
- an entry that names no test of this Python is an error.

A test that fails is run twice more in fresh processes; if it passes both times, it
counts as passed and is named as flaky. A test that skips itself, but would not on
the stdlib, counts as failed.

    python tests/conformance/run.py                          the parts that are native
    python tests/conformance/run.py test_locks -v            one file, with tracebacks
    python tests/conformance/run.py 'test_tasks.CTask*.test_cancel*'
    python tests/conformance/run.py --provider stdlib        checks this runner itself
"""

from __future__ import annotations

import argparse
import concurrent.futures
import fnmatch
import importlib.util
import json
import platform
import sys
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from catalogue import FILES, ListError, Pattern, TestFile, load_list
from supervisor import LEVELS, FileRun, Settings, retry_failures, run_file, stop, void_skips
from verdicts import BAD, Counts, Judgement, Verdict, count, find_pattern, judge

VERSION = sys.version_info[:3]


@dataclass
class FileResult:
    """A file that has been run and judged."""

    run: FileRun
    judgements: dict[str, Judgement]
    stale: list[Pattern]
    """Entries of the list that name no test of the file."""
    seconds: float
    counts: Counts = field(init=False)

    def __post_init__(self) -> None:
        self.counts = count(self.judgements)


def parse_arguments(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Reads the command line."""
    description, _, details = (__doc__ or "").partition("\n\n")
    parser = argparse.ArgumentParser(
        description=description,
        epilog=details,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "tests",
        nargs="*",
        metavar="TEST",
        help="file, file.Class or file.Class.test, * allowed; default: all files of native parts",
    )
    parser.add_argument("--provider", choices=LEVELS, default="aioxide-full")
    parser.add_argument("--all-files", action="store_true", help="also the files of parts that are not native yet")
    parser.add_argument(
        "--run-listed",
        action="store_true",
        help="run all tests of the list too: those that pass should come off it",
    )
    parser.add_argument("-v", "--verbose", action="store_true", help="tracebacks of failures")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all results to FILE")
    parser.add_argument("--list-internal", action="store_true", help="print the list for this Python, run nothing")
    parser.add_argument("-j", "--jobs", type=int, default=2, help="files at a time (2)")
    parser.add_argument("--file-timeout", type=float, default=300.0, metavar="S", help="(300)")
    parser.add_argument("--test-timeout", type=float, default=60.0, metavar="S", help="(60)")
    return parser.parse_args(arguments)


def select_files(tests: Iterable[str], *, all_files: bool) -> list[TestFile]:
    """The files that the command line asks for and this version has, long ones first."""
    wanted = {test.partition(".")[0] for test in tests}
    if unknown := [w for w in wanted if not fnmatch.filter(FILES, w)]:
        sys.exit(f"no such file: {', '.join(unknown)}; known are: {', '.join(FILES)}")
    chosen = [
        file
        for file in FILES.values()
        if file.exists(VERSION)
        and (any(fnmatch.fnmatchcase(file.name, w) for w in wanted) if wanted else file.default or all_files)
    ]
    long = ("test_events", "test_tasks", "test_subprocess", "test_base_events")
    return sorted(chosen, key=lambda file: file.name not in long)


def select_tests(tests: Iterable[str]) -> list[str]:
    """Patterns of the tests that the command line asks for."""
    return [pattern for test in tests for pattern in (test, f"{test}.*")] or ["*"]


def run_one(file: str, options: argparse.Namespace, patterns: Sequence[Pattern]) -> FileResult:
    """Runs a file, retries what failed, and judges it."""
    started = time.monotonic()
    settings = Settings(options.provider, options.file_timeout, options.test_timeout)
    mine = [pattern for pattern in patterns if pattern.file == file]
    exclude = [] if options.run_listed else [pattern.text for pattern in mine if not pattern.run]
    select = select_tests(options.tests)
    run = run_file(file, settings, select, exclude)
    selected = [t for t in run.tests if any(fnmatch.fnmatchcase(t, p) for p in select)]
    strict = options.provider == "aioxide-full"
    if strict:
        void_skips(run, settings, [t for t in selected if find_pattern(t, mine) is None])
    judgements = judge(run, mine, selected, strict=strict)
    failed = [test for test, it in judgements.items() if it.verdict is Verdict.FAILED]
    if failed:
        retry_failures(run, settings, failed)
        judgements = judge(run, mine, selected, strict=strict)
    stale = [p for p in mine if run.tests and not any(map(p.matches, run.tests))]
    return FileResult(run, judgements, stale, time.monotonic() - started)


COLUMNS = "{:<26}{:>7}{:>8}{:>8}{:>8}{:>9}{:>9}"


def print_row(name: str, counts: Counts, seconds: float) -> None:
    """Prints a line of the table."""
    numbers = (counts.run, counts.passed, counts.failed, counts.not_applicable, counts.skipped)
    print(COLUMNS.format(name, *numbers, f"{seconds:.1f} s"), flush=True)


def print_problems(result: FileResult, *, verbose: bool) -> None:
    """Prints below a file's line what is wrong with it."""
    for test, it in result.judgements.items():
        detail = it.outcome.detail if it.outcome else "was not run: the process did not get there"
        state = it.outcome.state if it.outcome else "missing"
        if it.verdict is Verdict.UNEXPECTED_PASS:
            print(f"    UNEXPECTED PASS, take it off the list: {test}")
        elif it.verdict is Verdict.FLAKY or it.verdict in BAD:
            label = "FLAKY" if it.verdict is Verdict.FLAKY else state.upper()
            print(f"    {label}: {test}")
            if verbose or state in ("crashed", "hung"):
                print("\n".join(f"        {line}" for line in detail.splitlines()))
    for pattern in result.stale:
        print(f"    STALE ENTRY, names no test of this Python: {pattern.text}")
    sys.stdout.flush()


def print_list(files: Iterable[TestFile], patterns: Sequence[Pattern]) -> None:
    """Prints the list as it applies to this Python, with how many tests each entry names."""
    collect = Settings("stdlib", file_timeout=60, test_timeout=60)
    for file in files:
        mine = [pattern for pattern in patterns if pattern.file == file.name]
        named = [find_pattern(t, mine) for t in run_file(file.name, collect, exclude=["*"]).tests]
        print(f"{file.name}: {sum(p is not None for p in named)} of {len(named)} tests")
        for pattern in mine:
            how = "must fail" if pattern.run else "not run"
            print(f"  {pattern.text}: {named.count(pattern)} ({pattern.kind}, {how})")
            print(f"      {pattern.reason}")


def write_json(path: Path, provider: str, results: Sequence[FileResult]) -> None:
    """Writes the verdict on every test to a file."""
    document = {
        "python": platform.python_version(),
        "provider": provider,
        "files": {
            result.run.file: {
                "run": result.counts.run,
                "verdicts": dict(result.counts.verdicts),
                "stale": [pattern.text for pattern in result.stale],
                "tests": {
                    test: {
                        "verdict": it.verdict,
                        "state": it.outcome.state if it.outcome else None,
                        "seconds": round(it.outcome.seconds, 4) if it.outcome else None,
                        "detail": it.outcome.detail if it.outcome else "",
                        "reason": it.pattern.reason if it.pattern else None,
                    }
                    for test, it in result.judgements.items()
                },
            }
            for result in results
        },
    }
    path.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")


def run_all(options: argparse.Namespace, patterns: Sequence[Pattern]) -> list[FileResult]:
    """Runs all files, a few at a time, and prints each as it is done."""
    files = select_files(options.tests, all_files=options.all_files)
    print(COLUMNS.format("file", "run", "passed", "failed", "n/a", "skipped", "time"))
    results = []
    with concurrent.futures.ThreadPoolExecutor(options.jobs) as pool:
        futures = [pool.submit(run_one, file.name, options, patterns) for file in files]
        try:
            for future in concurrent.futures.as_completed(futures):
                result = future.result()
                results.append(result)
                print_row(result.run.file, result.counts, result.seconds)
                print_problems(result, verbose=options.verbose)
        except BaseException:
            stop()
            pool.shutdown(cancel_futures=True)
            raise
    return results


def main() -> int:
    """Runs what the command line asks for; the exit status tells whether all is well."""
    options = parse_arguments()
    if importlib.util.find_spec("test") is None or not importlib.util.find_spec("test.test_asyncio"):
        print(
            "This Python comes without its own tests (the package test.test_asyncio), which the\n"
            "conformance run needs. Debian has them as libpython3.X-testsuite.",
            file=sys.stderr,
        )
        return 2
    try:
        patterns = load_list()
    except ListError as exc:
        print(f"not_applicable.toml: {exc}", file=sys.stderr)
        return 2
    if options.list_internal:
        print_list(select_files(options.tests, all_files=options.all_files), patterns)
        return 0

    started = time.monotonic()
    print(f"test.test_asyncio of Python {platform.python_version()} on {options.provider}")
    results = run_all(options, patterns)
    total = Counts()
    for result in results:
        total.add(result.counts)
    print_row("total", total, time.monotonic() - started)
    for reason, times in total.skip_reasons.most_common():
        print(f"    skipped {times}: {reason}")
    if options.json:
        write_json(options.json, options.provider, results)

    stale = sum(len(result.stale) for result in results)
    failed = total.failed + stale
    if not total.run:
        print("no test was run")
    print(f"conformance: {total.passed} passed, {failed} failed, {total.skipped} skipped")
    return 1 if failed or not total.run else 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)

"""Runs the upstream test-suites of projects that stand on asyncio, unmodified, on aioxide and on the stdlib.

Each suite comes from its project's source distribution on PyPI, in an environment of its own, and
runs three times: on the stdlib, with native event loops alone (`loop`), with all native names (`full`).
A test that is in order on the stdlib, and not on aioxide, is run again: twice more on aioxide, once
more on the stdlib. If it passes both times, or fails on the stdlib, it is named as flaky; else it is
a difference, and the run fails. A test that fails on the stdlib is run once more there: if it is in order
then, it counts as such.

A test that hangs is interrupted and fails; one that takes the process with it, or cannot be
interrupted, is named as crashed or hung, and the run goes on behind it in a new process.

    python tests/ecosystem/run.py                     all suites; writes docs/ecosystem.md
    python tests/ecosystem/run.py anyio uvicorn       some; the page keeps what is known of the others
    python tests/ecosystem/run.py anyio -k sockets    some tests, for work on them; writes no page without --enter
    python tests/ecosystem/run.py --jobs 2            two modes of a suite at a time
    python tests/ecosystem/run.py --prepare           makes the environments, runs nothing
"""

import argparse
import concurrent.futures
import contextlib
import dataclasses
import fnmatch
import json
import os
import platform
import re
import shutil
import signal
import subprocess
import sys
import tarfile
import time
from pathlib import Path

from suites import SUITES, Suite

ROOT = Path(__file__).resolve().parents[2]
TARGET = ROOT / "target" / "ecosystem"
TAG = "cp{}{}".format(*sys.version_info[:2])
PAGE = ROOT / "docs" / "ecosystem.md"

MODES = {"stdlib": [], "loop": ["-m", "aioxide", "--loop-only"], "full": ["-m", "aioxide"]}
IN_ORDER = ("passed", "skipped", "xfailed")

#: What a test may take before pytest-timeout interrupts it, and before its process is killed.
TEST_TIMEOUT = 30
SILENCE = 100


@dataclasses.dataclass
class Run:
    """What became of a suite's tests in one mode."""

    outcomes: dict[str, str] = dataclasses.field(default_factory=dict)
    details: dict[str, str] = dataclasses.field(default_factory=dict)
    native: list[tuple[bool, bool]] = dataclasses.field(default_factory=list)
    """Whether the loops and the names were native, at the start and the end of each process."""
    seconds: float = 0.0
    problem: str = ""

    def count(self, *outcomes):
        return sum(outcome in outcomes for outcome in self.outcomes.values())


def command(*words, **options):
    subprocess.run([str(word) for word in words], check=True, **options)


def source(suite, mode):
    """Unpacks the source distribution for a mode; takes the package out of the way of the installed one.

    Each mode has its own, since tests write files beside themselves.
    """
    place = TARGET / "sources" / mode / suite.folder
    if not (place / ".unpacked").exists():
        shutil.rmtree(place, ignore_errors=True)
        with tarfile.open(distribution(suite)) as archive:
            archive.extractall(place.parent, filter="data")
        if suite.package:
            shutil.rmtree(place / suite.package)
        (place / ".unpacked").touch()
    return place


def distribution(suite):
    """Downloads the source distribution."""
    folder = TARGET / "sdists"
    archive = folder / f"{suite.folder}.tar.gz"
    if not archive.exists():
        command(
            *(sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"),
            *("--no-binary", suite.name, "--dest", folder, f"{suite.name}=={suite.version}"),
        )
    return archive


def prepare(suite):
    """Makes the environment and unpacks the sources."""
    environment(suite)
    for mode in MODES:
        source(suite, mode)


def environment(suite):
    """Makes the environment of a suite, returns its Python."""
    place = TARGET / TAG / suite.name
    python = place / "bin" / "python"
    wanted = [f"{suite.name}=={suite.version}", "pytest", "pytest-timeout", *suite.requirements]
    made_of = place / ".requirements"
    if not made_of.exists() or made_of.read_text() != "\n".join(wanted):
        command(sys.executable, "-m", "venv", "--clear", place)
        command(python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--prefer-binary", *wanted)
        made_of.write_text("\n".join(wanted))
    return python


def watch(process, record):
    """Waits for a process; kills it, with all it has started, once its record has not grown for long."""
    grown, size = time.monotonic(), -1
    while process.poll() is None:
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(1)
        now = record.stat().st_size if record.exists() else 0
        if now != size:
            grown, size = time.monotonic(), now
        elif time.monotonic() - grown > SILENCE:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            return True
    return False


def run(suite, mode, extra=(), only=None, name=None):
    """Runs a suite's tests in a mode, in as many processes as it takes. Its files are named by `name` or the mode."""
    result = Run()
    started = time.monotonic()
    python, place = environment(suite), source(suite, mode)
    scratch = TARGET / "runs" / suite.name
    scratch.mkdir(parents=True, exist_ok=True)
    record, log = scratch / f"{name or mode}.jsonl", scratch / f"{name or mode}.log"
    log.unlink(missing_ok=True)
    pytest = ["-m", "pytest", "-p", "no:cacheprovider", "-p", "ecosystem_recorder", "-q", "--color=no"]
    pytest += [f"--timeout={TEST_TIMEOUT}", "--timeout-method=signal", *suite.arguments, *extra]
    for _ in range(20):
        record.unlink(missing_ok=True)
        choice = {"without": list(result.outcomes), "patterns": list(suite.deselected), "freeze": suite.freeze}
        if only is not None:
            choice["only"] = list(only)
        inherited = {name: value for name, value in os.environ.items() if not name.startswith(("PYTEST", "PYTHON"))}
        variables = inherited | {
            "PYTHONPATH": os.pathsep.join([str(Path(__file__).with_name("plugin")), str(ROOT / "python")]),
            "PATH": f"{python.parent}{os.pathsep}{inherited.get('PATH', '')}",
            "AIOXIDE_ECOSYSTEM_RECORD": str(record),
            "AIOXIDE_ECOSYSTEM_CHOICE": json.dumps(choice),
        }
        with log.open("ab") as output:
            process = subprocess.Popen(
                [str(python), *MODES[mode], *pytest],
                cwd=place,
                env=variables,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
            try:
                hung = watch(process, record)
            finally:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
        under_way, ended = read(record, result)
        if under_way is not None:
            result.outcomes[under_way] = "hung" if hung else "crashed"
            result.details[under_way] = f"exit status {process.returncode}"
        elif ended or process.returncode == 5:
            break
        else:
            text = log.read_text(errors="replace")[-3000:]
            result.problem = f"the process ended early, status {process.returncode}{', hung' * hung}\n{text}"
            break
    else:
        result.problem = "too many crashes"
    result.seconds = time.monotonic() - started
    return result


def read(record, result):
    """Adds a record to a result; returns the test that was under way and whether the session came to its end."""
    under_way, ended = None, False
    if record.exists():
        for line in map(json.loads, record.read_text(encoding="utf-8").splitlines()):
            if line["what"] == "start":
                under_way = line["test"]
            elif line["what"] == "outcome":
                result.outcomes[line["test"]] = line["outcome"]
                if line["detail"]:
                    result.details[line["test"]] = line["detail"]
                under_way = None
            else:
                result.native.append((line["native loop"], line["native names"]))
                ended = line["what"] == "end"
    return under_way, ended


def differs(on_stdlib, here):
    """Whether a test is in order on the stdlib and not here."""
    return (on_stdlib in IN_ORDER and here not in IN_ORDER) or (on_stdlib == "passed" and here != "passed")


def judge(suite, control, mode, result, extra):
    """Compares a run on aioxide with the stdlib's; returns a record for the page."""
    outcome = {test: result.outcomes.get(test, "not run") for test in control.outcomes}
    suspects = [test for test, before in control.outcomes.items() if differs(before, outcome[test])]
    flaky, differences = [], {}
    if suspects and not result.problem:
        print(f"    {mode}: {len(suspects)} to be run again", flush=True)
        again = [run(suite, mode, extra, suspects, f"{mode}-again-{number}") for number in (1, 2)]
        control_again = run(suite, "stdlib", extra, suspects, f"{mode}-again-stdlib")
    for test in suspects:
        if not result.problem and not differs(control.outcomes[test], control_again.outcomes.get(test, "not run")):
            if all(not differs(control.outcomes[test], each.outcomes.get(test, "not run")) for each in again):
                flaky.append(test)
            else:
                differences[test] = f"{outcome[test]}\n{result.details.get(test, '')}"
        elif result.problem:
            differences[test] = outcome[test]
        else:
            flaky.append(test)
    wanted = {"loop": (True, False), "full": (True, True)}[mode]
    if any(found != wanted for found in result.native) or not result.native:
        result.problem += f"\nnot what it should run on (loops, names native): {result.native}"
    return {
        "ran": len(result.outcomes),
        "passed": result.count("passed"),
        "skipped": result.count("skipped", "xfailed"),
        "failed": len(result.outcomes) - result.count(*IN_ORDER),
        "flaky": flaky,
        "differences": differences,
        "problem": result.problem.strip(),
        "seconds": round(result.seconds),
    }


def run_suite(suite, extra, modes, jobs):
    """Runs a suite in all modes, so many at a time."""
    prepare(suite)
    with concurrent.futures.ThreadPoolExecutor(1 if suite.alone else jobs) as pool:
        runs = {mode: pool.submit(run, suite, mode, extra) for mode in ("stdlib", *modes)}
    control = runs["stdlib"].result()
    if any(any(native) for native in control.native):
        control.problem += "\nthe stdlib's run was on aioxide"
    failed = [test for test, outcome in control.outcomes.items() if outcome not in IN_ORDER]
    repeat = failed and not control.problem
    again = run(suite, "stdlib", extra, failed, "stdlib-again").outcomes if repeat else {}
    recovered = {test: outcome for test, outcome in again.items() if test in failed and outcome in IN_ORDER}
    control.outcomes |= recovered
    found = {
        "version": suite.version,
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
        "stdlib": {
            "ran": len(control.outcomes),
            "passed": control.count("passed"),
            "skipped": control.count("skipped", "xfailed"),
            "failed": {test: reason(control, test) for test, it in control.outcomes.items() if it not in IN_ORDER},
            "flaky": list(recovered),
            "problem": control.problem.strip(),
            "seconds": round(control.seconds),
        },
    }
    print(line("stdlib", found["stdlib"]), flush=True)
    if not control.problem:
        for mode in modes:
            found[mode] = judge(suite, control, mode, runs[mode].result(), extra)
            print(line(mode, found[mode]), flush=True)
            for test, detail in found[mode]["differences"].items():
                print(f"    DIFFERENCE {test}: {detail.splitlines()[0]}", flush=True)
            for test in found[mode]["flaky"]:
                print(f"    flaky {test}", flush=True)
    return found


def reason(result, test):
    """The last line of what pytest said of a failed test, or the outcome."""
    said = [part for part in result.details.get(test, "").splitlines() if part.startswith("E  ")]
    words = " ".join(said[-1][1:].split()).replace("`", "'") if said else result.outcomes[test]
    # Paths, ports and addresses, so that like goes with like.
    words = re.sub(r"(?<![\w.:/])(/[\w.+-]+){2,}/", "…/", words)
    return re.sub(r"0x[0-9a-f]+|\b\d{4,}\b", "…", words)[:160]


def line(mode, found):
    failed = found["failed"] if isinstance(found["failed"], int) else len(found["failed"])
    text = f"  {mode:<8}{found['passed']:>6} passed {failed:>5} failed {found['skipped']:>5} skipped"
    text += f" {len(found.get('differences', ())):>5} differences {found['seconds']:>6} s"
    return text + (f"\n    PROBLEM {found['problem']}" if found["problem"] else "")


def wrong(found):
    """Whether a suite's result fails the run."""
    modes = [found.get(mode) for mode in MODES]
    return any(mode is None or mode["problem"] or mode.get("differences") for mode in modes)


def page(results):
    """The page of the documentation."""
    text = [
        "# Upstream test-suites",
        "",
        "<!-- Written by tests/ecosystem/run.py (make ecosystem). -->",
        "",
        "The tests of projects that stand on asyncio, as their source distributions on PyPI carry them, unmodified.",
        "Each suite ran on the stdlib, with native event loops alone (`python -m aioxide --loop-only -m pytest`), and",
        "with all native names (`python -m aioxide -m pytest`). A *difference* is a test that is in order on",
        "the stdlib and fails on aioxide: run twice more, it failed at least once more on aioxide, and was in order a",
        "second time on the stdlib. What passed both times, or failed on the stdlib then, is named as flaky.",
        "What failed on the stdlib was run once more there, and counts as in order if it was so then.",
        "",
        "| suite | Python | tests | passed, stdlib | passed, loop | passed, full | different, loop | different, full |",
        "|---|---|---:|---:|---:|---:|---:|---:|",
    ]
    for suite in SUITES:
        found = results.get(suite.name)
        if found is None:
            cells = ["not run"] * 7
        else:
            loop, full = found.get("loop"), found.get("full")
            part = " (a part)" if found.get("only") else ""
            cells = [found["python"], f"{found['stdlib']['ran']}{part}", found["stdlib"]["passed"]]
            cells += [mode["passed"] if mode else "not run" for mode in (loop, full)]
            cells += [
                ("?" if mode["problem"] else len(mode["differences"])) if mode else "not run" for mode in (loop, full)
            ]
        text.append(f"| {suite.name} {suite.version} | " + " | ".join(map(str, cells)) + " |")
    text += ["", "What is neither passed nor a difference was skipped, or fails on the stdlib as well.", ""]
    for suite in SUITES:
        text += [f"## {suite.name}", ""]
        text += section(suite, results.get(suite.name))
    while text[-1] == "":
        text.pop()
    return "\n".join(text) + "\n"


def listing(head, tests):
    """A list of tests with a head, if there are any."""
    return [head, "", *[f"- `{test}`{note and ': ' + note}" for test, note in tests], ""] if tests else []


def known(kept):
    """The results of earlier runs, without what has come to be left out since."""
    results = {path.stem: json.loads(path.read_text()) for path in sorted(kept.glob("*.json"))}
    for suite in SUITES:
        for mode in ("loop", "full"):
            if found := results.get(suite.name, {}).get(mode):
                found["differences"] = {
                    test: detail
                    for test, detail in found["differences"].items()
                    if not any(fnmatch.fnmatchcase(test, pattern) for pattern in suite.deselected)
                }
    return results


def section(suite, found):
    """What the page says of a suite."""
    text = []
    if suite.notes:
        text += [suite.notes, ""]
    if suite.left_out:
        return [*text, f"Not run: {suite.left_out}.", ""]
    text += listing("Left out on all:", sorted(suite.deselected.items()))
    if found is None:
        return [*text, "Not run yet.", ""]
    if found.get("only"):
        text += [f"Only a part of it has been run so far: `pytest -k '{found['only']}'`.", ""]
    failed = found["stdlib"]["failed"]
    groups = {}
    for test, why in sorted(failed.items()):
        groups.setdefault(why, []).append(test)
    if groups:
        text += [f"Not in order on the stdlib either, where it was run ({len(failed)}):", ""]
        for why, tests in sorted(groups.items(), key=lambda group: -len(group[1])):
            text.append(f"- {len(tests)}, `{tests[0]}`{' and others' * (len(tests) > 1)}: `{why}`")
        text.append("")
    flaky = [(test, "") for test in sorted(found["stdlib"].get("flaky", ()))]
    text += listing("Flaky on the stdlib, where they failed once and were in order when run again:", flaky)
    for mode in ("loop", "full"):
        if mode in found:
            words = {test: detail.partition("\n")[0] for test, detail in found[mode]["differences"].items()}
            text += listing(f"Differences, {mode}:", sorted(words.items()))
            text += listing(f"Flaky, {mode}:", [(test, "") for test in sorted(found[mode]["flaky"])])
            if found[mode]["problem"]:
                text += [f"The run of {mode} did not come to its end.", ""]
    if not wrong(found):
        text += ["No differences.", ""]
    return text


def main():
    description, _, details = __doc__.partition("\n\n")
    parser = argparse.ArgumentParser(
        description=description, epilog=details, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("suites", nargs="*", metavar="SUITE", help="anyio, aiohttp, ...; default: all")
    parser.add_argument("-k", metavar="WORD", help="tests that match, as in pytest")
    parser.add_argument("--enter", action="store_true", help="enter a run of some tests (-k) in the page, as such")
    parser.add_argument("--modes", default="loop,full", help="(loop,full)")
    parser.add_argument("--jobs", type=int, default=1, help="how many modes of a suite run at a time (1)")
    parser.add_argument("--prepare", action="store_true", help="make the environments, run nothing")
    parser.add_argument("--page-only", action="store_true", help="write the page of what is known")
    options = parser.parse_args()
    if unknown := set(options.suites) - {suite.name for suite in SUITES}:
        parser.error(f"no such suite: {', '.join(unknown)}")
    chosen: list[Suite] = [suite for suite in SUITES if not options.suites or suite.name in options.suites]
    kept = TARGET / "results"
    kept.mkdir(parents=True, exist_ok=True)
    bad = []
    for suite in [] if options.page_only else chosen:
        print(f"{suite.name} {suite.version}", flush=True)
        if suite.left_out:
            print(f"  not run: {suite.left_out}")
        elif options.prepare:
            prepare(suite)
        else:
            found = run_suite(suite, ["-k", options.k] if options.k else [], options.modes.split(","), options.jobs)
            found["only"] = options.k
            whole = (options.enter or not options.k) and options.modes == "loop,full"
            name = f"{suite.name}.json" if whole else f"{suite.name}-part.json.txt"
            (kept / name).write_text(json.dumps(found, indent=1))
            if (
                wrong(found)
                if whole
                else any(found[mode]["differences"] for mode in MODES if mode in found and mode != "stdlib")
            ):
                bad.append(suite.name)
    if not options.prepare and (options.enter or not options.k):
        PAGE.write_text(page(known(kept)))
        print(f"written: {PAGE.relative_to(ROOT)}")
    if bad:
        sys.exit(f"differences or trouble: {', '.join(bad)}")


if __name__ == "__main__":
    main()

"""A build runner: shell commands side by side, so many at a time, each with a time limit.

What a command prints appears at once, under its name; error output is marked. A command that takes
too long is stopped together with all that it has started. In the end there is a summary.

    python examples/build_runner.py                           a demonstration
    python -m aioxide examples/build_runner.py                the same natively
    python examples/build_runner.py --jobs 8 "make" "ruff check ."
"""

import argparse
import asyncio
import contextlib
import os
import signal
import sys
import time
from dataclasses import dataclass

GRACE = 2.0
"""How long a command that was asked to end may take before it is killed, in seconds."""

LONGEST_LINE = 2**20

DEMONSTRATION = {
    "configure": "echo checking for a compiler; echo checking for a linker",
    "compile": "for part in lexer parser printer; do echo compiling $part; done",
    "test": "echo 17 of 18 tests passed >&2; exit 3",
    "upload": "echo waiting for a server that never answers; sleep 1000",
    "clean": "echo nothing to do",
}


@dataclass
class Result:
    """What became of a command."""

    name: str
    outcome: str
    seconds: float
    lines: int

    @property
    def succeeded(self) -> bool:
        return self.outcome == "ok"


class Runner:
    """Runs commands, at most `jobs` at a time."""

    def __init__(self, jobs: int, timeout: float, width: int) -> None:
        self.slots = asyncio.Semaphore(jobs)
        self.timeout = timeout
        self.width = width

    async def run(self, name: str, command: str) -> Result:
        """Runs one command to its end, however that comes."""
        async with self.slots:
            started = time.perf_counter()
            process = await asyncio.create_subprocess_shell(
                command,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
                limit=LONGEST_LINE,
                # A session of its own: what it has started can be stopped with it.
                start_new_session=True,
            )
            assert process.stdout is not None
            assert process.stderr is not None
            show = asyncio.gather(self.show(name, "|", process.stdout), self.show(name, "!", process.stderr))
            outcome = "ok"
            try:
                async with asyncio.timeout(self.timeout):
                    if status := await process.wait():
                        outcome = f"failed ({status})"
            except TimeoutError:
                outcome = f"stopped after {self.timeout:g} s"
            finally:
                await stop(process)
            lines = sum(await show)
            return Result(name, outcome, time.perf_counter() - started, lines)

    async def show(self, name: str, mark: str, stream: asyncio.StreamReader) -> int:
        """Prints lines as they come; returns how many."""
        count = 0
        async for line in stream:
            text = line.decode(errors="replace").rstrip("\n")
            print(f"{name:>{self.width}} {mark} {text}", flush=True)
            count += 1
        return count


async def stop(process: asyncio.subprocess.Process) -> None:
    """Ends a command and all that it has started: politely, then by force."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, number)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(GRACE):
                await process.wait()
                return


async def build(commands: dict[str, str], jobs: int, timeout: float, show_times: bool) -> bool:
    """Runs commands and prints a summary. Did all succeed?"""
    width = max(map(len, commands))
    runner = Runner(jobs, timeout, width)
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(runner.run(name, command)) for name, command in commands.items()]
    results = [task.result() for task in tasks]
    print()
    for result in results:
        spent = f" in {result.seconds:.2f} s" if show_times else ""
        lines = "line" if result.lines == 1 else "lines"
        print(f"{result.name:>{width}}: {result.outcome}, {result.lines} {lines}{spent}")
    succeeded = sum(result.succeeded for result in results)
    print(f"{succeeded} of {len(results)} succeeded")
    return succeeded == len(results)


def main() -> None:
    parser = argparse.ArgumentParser(description="Runs shell commands side by side.")
    parser.add_argument("command", nargs="*", help="what to run; a demonstration if nothing is given")
    parser.add_argument("--jobs", type=int, default=2, metavar="N", help="how many run at a time (2)")
    parser.add_argument("--timeout", type=float, metavar="S", help="how long each may take, in seconds")
    parser.add_argument("--times", action="store_true", help="show how long each took")
    options = parser.parse_args()
    commands = {command: command for command in options.command} or DEMONSTRATION
    timeout = options.timeout or (600 if options.command else 0.5)
    succeeded = asyncio.run(build(commands, options.jobs, timeout, options.times))
    sys.exit(bool(options.command and not succeeded))


if __name__ == "__main__":
    main()

"""Children: starting them, talking to them, and learning that they have ended.

CPU time is that of the parent alone.
"""

import asyncio
import pathlib
import shutil
import statistics
import time
from asyncio.subprocess import PIPE, Process

from rows import expect, row

TRUE = shutil.which("true") or "true"
CAT = shutil.which("cat") or "cat"
MEBIBYTES = 64
"""What goes through `cat` and comes back."""


def threads() -> int:
    """How many threads this process has; 0 where nobody tells."""
    tasks = pathlib.Path("/proc/self/task")
    return sum(1 for _ in tasks.iterdir()) if tasks.exists() else 0


@row("spawn + wait", "subprocess", operations="children")
async def spawn_and_wait(n: int) -> None:
    """Children without pipes that end at once, one after another."""
    for _ in range(n):
        process = await asyncio.create_subprocess_exec(TRUE)
        expect(await process.wait(), 0)


@row("spawn + communicate, 3 pipes", "subprocess", operations="children")
async def spawn_and_communicate(n: int) -> None:
    """Children that say what they are told, one after another."""
    for i in range(n):
        line = b"%d\n" % i
        process = await asyncio.create_subprocess_exec(CAT, stdin=PIPE, stdout=PIPE, stderr=PIPE)
        expect(await process.communicate(line), (line, b""))
        expect(process.returncode, 0)


@row("exit latency, p50", "subprocess", quantum=200, unit="µs")
async def exit_latency(n: int) -> dict[str, float]:
    """From the killing of a child to the end of a `wait()` that was begun before."""
    latencies = []
    for _ in range(n):
        process = await asyncio.create_subprocess_exec(CAT, stdin=PIPE)
        waiting = asyncio.create_task(process.wait())
        await asyncio.sleep(0)
        start = time.perf_counter_ns()
        process.kill()
        expect(await waiting, -9)
        latencies.append(time.perf_counter_ns() - start)
    middle = statistics.median(latencies)
    return {"value": middle / 1000, "p50": middle, "p99": statistics.quantiles(latencies, n=100)[-1]}


@row("200 children at once", "subprocess", quantum=200, unit="ms")
async def children_at_once(n: int) -> dict[str, float]:
    """Starts all, lets all end when all run, and waits for all."""

    async def start() -> Process:
        return await asyncio.create_subprocess_exec(CAT, stdin=PIPE)

    async def end(process: Process) -> int:
        process.stdin.close()
        return await process.wait()

    before = threads()
    expect(await end(await start()), 0)
    begin = time.perf_counter()
    processes = await asyncio.gather(*(start() for _ in range(n)))
    waiting = [asyncio.create_task(process.wait()) for process in processes]
    await asyncio.sleep(0)
    found = threads() - before
    expect({process.returncode for process in processes}, {None})
    expect(set(await asyncio.gather(*map(end, processes))), {0})
    expect(set(await asyncio.gather(*waiting)), {0})
    return {"value": (time.perf_counter() - begin) * 1000, "threads": found}


@row("communicate of 64 MiB through cat", "subprocess", quantum=MEBIBYTES, operations="MiB")
async def communicate(n: int) -> None:
    """As much in as out, at the same time."""
    data = bytes(range(256)) * (MEBIBYTES << 12)
    for _ in range(n // MEBIBYTES):
        process = await asyncio.create_subprocess_exec(CAT, stdin=PIPE, stdout=PIPE)
        output, _ = await process.communicate(data)
        expect(output == data, True)

"""One cell of the table: one row on one provider, in a process of its own.

`python cell.py probe PROVIDER` prints the provider's version; `python cell.py run PROVIDER ROW SECONDS`
calibrates and measures; `python cell.py fixed PROVIDER ROW N` does N operations, for a profiler.
"""

import asyncio
import gc
import json
import sys
import time

import providers
from rows import Figures, Row, load


def measure(row: Row, n: int, loop_factory) -> tuple[float, float, Figures]:
    """Runs `n` operations; returns the CPU seconds of all threads, those of the clock, and the row's own figures."""

    async def timed() -> tuple[float, float, Figures]:
        wall, cpu = time.perf_counter(), time.process_time()
        figures = await row.bench(n)
        return time.process_time() - cpu, time.perf_counter() - wall, figures

    with asyncio.Runner(loop_factory=loop_factory) as runner:
        providers.check(sys.argv[2], runner.get_loop())
        gc.collect()
        return runner.run(timed())


def calibrate(row: Row, target: float, loop_factory) -> int:
    """The number of operations that takes about `target` seconds of CPU; warms the process up as well."""
    n = row.quantum
    while True:
        seconds, _, _ = measure(row, n, loop_factory)
        if seconds >= target / 8:
            quanta = max(1, round(n * target / seconds / row.quantum))
            return quanta * row.quantum
        n *= 2 if seconds > target / 100 else 8


def main() -> None:
    """Prints one JSON object."""
    command, provider = sys.argv[1:3]
    loop_factory = providers.activate(provider)
    if command == "probe":
        loop = loop_factory()
        providers.check(provider, loop)
        loop.close()
        print(json.dumps({"version": providers.version(provider)}))
        return
    row = next(row for row in load() if row.name == sys.argv[3])
    if command == "fixed":
        measure(row, int(sys.argv[4]), loop_factory)
        return
    if row.unit != "ns":
        *_, figures = measure(row, row.quantum, loop_factory)
        print(json.dumps(figures if isinstance(figures, dict) else {"value": figures}))
        return
    n = calibrate(row, float(sys.argv[4]), loop_factory)
    cpu, wall, _ = measure(row, n, loop_factory)
    print(json.dumps({"value": cpu / n * 1e9, "rate": n / wall}))


if __name__ == "__main__":
    main()

"""What an idle task weighs."""

import asyncio
import gc
import pathlib
import resource

from rows import expect, row


def resident_bytes() -> int:
    """The memory this process holds now."""
    statm = pathlib.Path("/proc/self/statm")
    if statm.exists():
        return int(statm.read_text().split()[1]) * resource.getpagesize()
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


@row("bytes per idle task", "memory", quantum=100_000, unit="B")
async def bytes_per_idle_task(n: int) -> float:
    """Resident memory of a task that sleeps for an hour, coroutine included."""
    parked = 0

    async def idle() -> None:
        nonlocal parked
        parked += 1
        await asyncio.sleep(3600)

    tasks: list[asyncio.Task[None] | None] = [None] * n
    gc.collect()
    before = resident_bytes()
    for i in range(n):
        tasks[i] = asyncio.create_task(idle())
    await asyncio.sleep(0)
    gc.collect()
    after = resident_bytes()
    expect(parked, n)
    for task in tasks:
        task.cancel()
    results = await asyncio.gather(*tasks, return_exceptions=True)
    expect({type(result) for result in results}, {asyncio.CancelledError})
    return (after - before) / n

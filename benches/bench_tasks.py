"""Task switches, creation, hand-over by futures, cancellation."""

import asyncio

from rows import expect, row


@row("sleep(0), 1 task", "task")
async def sleep_0_one_task(n: int) -> None:
    """One task gives way again and again."""
    others = []
    asyncio.get_running_loop().call_soon(others.append, "ran")
    for _ in range(n):
        await asyncio.sleep(0)
    expect(others, ["ran"])


@row("sleep(0), 100 tasks", "task", quantum=100)
async def sleep_0_hundred_tasks(n: int) -> None:
    """A hundred tasks take turns."""
    finished = []

    async def worker(number: int, turns: int) -> None:
        for _ in range(turns):
            await asyncio.sleep(0)
        finished.append((number, len(leading)))

    async def leader(turns: int) -> None:
        for turn in range(turns):
            if turn == turns - 1:
                leading.append(turn)
            await asyncio.sleep(0)
        finished.append((0, len(leading)))

    leading: list[int] = []
    turns = n // 100
    await asyncio.gather(leader(turns), *[worker(i, turns) for i in range(1, 100)])
    # Fair turns: nobody ends before the first task has begun its last turn, and all end in order.
    expect(finished, [(i, 1) for i in range(100)])


@row("create_task + await", "task")
async def create_task_and_await(n: int) -> None:
    """One task after another is made and awaited."""

    async def echo(value: int) -> int:
        return value

    total = 0
    for i in range(n):
        total += await asyncio.create_task(echo(i))
    expect(total, n * (n - 1) // 2)


@row("future ping-pong", "task")
async def future_ping_pong(n: int) -> None:
    """Two tasks hand fresh futures to and fro; a round trip is one operation."""
    loop = asyncio.get_running_loop()
    ping = loop.create_future()
    pong = loop.create_future()
    total = 0

    async def answer() -> None:
        nonlocal ping
        for _ in range(n):
            value = await ping
            ping = loop.create_future()
            pong.set_result(value + 1)

    task = asyncio.create_task(answer())
    for i in range(n):
        pong = loop.create_future()
        ping.set_result(i)
        total += await pong
    await task
    expect(total, n * (n + 1) // 2)


@row("cancel storm", "task", quantum=1000)
async def cancel_storm(n: int) -> None:
    """Tasks by the thousand are made, parked and cancelled."""
    for _ in range(n // 1000):
        parked = 0

        async def park() -> None:
            nonlocal parked
            parked += 1
            await asyncio.sleep(3600)

        tasks = [asyncio.create_task(park()) for _ in range(1000)]
        await asyncio.sleep(0)
        expect(parked, 1000)
        for task in tasks:
            task.cancel()
        results = await asyncio.gather(*tasks, return_exceptions=True)
        expect({type(result) for result in results}, {asyncio.CancelledError})
        expect(all(task.cancelled() for task in tasks), True)

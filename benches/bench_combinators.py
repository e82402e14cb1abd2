"""gather, TaskGroup, timeout, wait_for, shield."""

import asyncio

from rows import expect, row


async def echo(value: int) -> int:
    """Returns at once."""
    return value


async def echo_later(value: int) -> int:
    """Returns after one turn of the loop."""
    await asyncio.sleep(0)
    return value


@row("gather, 1000", "combinator", quantum=1000)
async def gather_thousand(n: int) -> None:
    """A thousand coroutines gathered; one coroutine is one operation."""
    for _ in range(n // 1000):
        results = await asyncio.gather(*[echo(i) for i in range(1000)])
        expect(results, list(range(1000)))


@row("TaskGroup, 1000", "combinator", quantum=1000)
async def task_group_thousand(n: int) -> None:
    """A thousand tasks in a group; one task is one operation."""
    for _ in range(n // 1000):
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(echo(i)) for i in range(1000)]
        expect([task.result() for task in tasks], list(range(1000)))


@row("timeout()", "combinator")
async def timeout_block(n: int) -> None:
    """A block under a timeout that does not expire, suspended once."""
    total = 0
    for i in range(n):
        async with asyncio.timeout(60):
            await asyncio.sleep(0)
            total += i
    expect(total, n * (n - 1) // 2)


@row("wait_for", "combinator")
async def wait_for_coroutine(n: int) -> None:
    """A coroutine that suspends once, under wait_for."""
    total = 0
    for i in range(n):
        total += await asyncio.wait_for(echo_later(i), 60)
    expect(total, n * (n - 1) // 2)


@row("shield", "combinator")
async def shield_coroutine(n: int) -> None:
    """A coroutine behind shield."""
    total = 0
    for i in range(n):
        total += await asyncio.shield(echo(i))
    expect(total, n * (n - 1) // 2)

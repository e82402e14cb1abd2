"""Locks, semaphores, events and queues."""

import asyncio

from rows import expect, row


async def produce_and_consume(n: int, maxsize: int) -> None:
    """One task puts `n` items, another gets them."""
    queue: asyncio.Queue[int] = asyncio.Queue(maxsize)
    total = 0

    async def consume() -> None:
        nonlocal total
        for i in range(n):
            item = await queue.get()
            if item != i:
                raise AssertionError(f"got {item}, wanted {i}")
            total += item

    consumer = asyncio.create_task(consume())
    for i in range(n):
        await queue.put(i)
    await consumer
    expect((total, queue.qsize()), (n * (n - 1) // 2, 0))


@row("Queue(64)", "primitive")
async def queue_64(n: int) -> None:
    """Items through a queue of 64; put and get together are one operation."""
    await produce_and_consume(n, 64)


@row("Queue(1)", "primitive")
async def queue_1(n: int) -> None:
    """Items through a queue of 1: producer and consumer alternate."""
    await produce_and_consume(n, 1)


@row("Lock, free", "primitive")
async def lock_free(n: int) -> None:
    """One task takes and releases a lock nobody else wants."""
    lock = asyncio.Lock()
    entered = 0
    for _ in range(n):
        async with lock:
            entered += 1
    expect((entered, lock.locked()), (n, False))


@row("Lock, contended", "primitive", quantum=10)
async def lock_contended(n: int) -> None:
    """Ten tasks want one lock and give way while they hold it."""
    lock = asyncio.Lock()
    holder = None

    async def worker(number: int) -> None:
        nonlocal holder
        for _ in range(n // 10):
            async with lock:
                holder = number
                await asyncio.sleep(0)
                if holder != number:
                    raise AssertionError("two tasks hold the lock")

    await asyncio.gather(*[worker(i) for i in range(10)])
    expect(lock.locked(), False)


@row("Semaphore", "primitive", quantum=20)
async def semaphore(n: int) -> None:
    """Twenty tasks share five permits and give way while they hold one."""
    permits = asyncio.Semaphore(5)
    inside = 0
    most = 0

    async def worker() -> None:
        nonlocal inside, most
        for _ in range(n // 20):
            async with permits:
                inside += 1
                if inside > most:
                    most = inside
                await asyncio.sleep(0)
                inside -= 1

    await asyncio.gather(*[worker() for _ in range(20)])
    expect((most, inside), (5, 0))


@row("Event broadcast", "primitive", quantum=100)
async def event_broadcast(n: int) -> None:
    """One set() wakes a hundred tasks; a woken task is one operation."""
    event = asyncio.Event()
    parked = 0
    woken = 0

    async def waiter(rounds: int) -> None:
        nonlocal parked, woken
        for _ in range(rounds):
            parked += 1
            await event.wait()
            woken += 1

    rounds = n // 100
    tasks = [asyncio.create_task(waiter(rounds)) for _ in range(100)]
    for done in range(rounds):
        while parked < 100:
            await asyncio.sleep(0)
        expect(woken, done * 100)
        parked = 0
        event, old = asyncio.Event(), event
        old.set()
    await asyncio.gather(*tasks)
    expect(woken, n)

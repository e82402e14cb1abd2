"""Callbacks, timers and other threads."""

import asyncio
import threading

from rows import expect, row


@row("call_soon chain", "loop")
async def call_soon_chain(n: int) -> None:
    """Each callback schedules the next."""
    loop = asyncio.get_running_loop()
    done = loop.create_future()
    calls = 0

    def step() -> None:
        nonlocal calls
        calls += 1
        if calls < n:
            loop.call_soon(step)
        else:
            done.set_result(calls)

    loop.call_soon(step)
    expect(await done, n)


@row("call_soon batch", "loop", quantum=1000)
async def call_soon_batch(n: int) -> None:
    """A thousand callbacks with an argument per turn."""
    loop = asyncio.get_running_loop()
    total = 0

    def add(value: int) -> None:
        nonlocal total
        total += value

    for _ in range(n // 1000):
        for i in range(1000):
            loop.call_soon(add, i)
        await asyncio.sleep(0)
    expect(total, n // 1000 * 499500)


@row("call_later + cancel", "loop", quantum=100)
async def call_later_and_cancel(n: int) -> None:
    """Timers made and cancelled at once, a hundred per turn."""
    loop = asyncio.get_running_loop()
    fired = []
    for burst in range(n // 100):
        # The last burst is due soon, so that a cancel that does nothing shows.
        delay = 60 if burst < n // 100 - 1 else 0.0005
        for _ in range(100):
            handle = loop.call_later(delay, fired.append, None)
            handle.cancel()
        expect(handle.cancelled(), True)
        await asyncio.sleep(0)
    await asyncio.sleep(0.002)
    expect(fired, [])


@row("10 000 concurrent sleeps", "loop", quantum=10_000)
async def concurrent_sleeps(n: int) -> None:
    """Ten thousand tasks sleep 1 to 10 ms; a sleep is one operation."""
    loop = asyncio.get_running_loop()
    for _ in range(n // 10_000):
        early = 0
        woken = 0

        async def sleeper(delay: float) -> None:
            nonlocal woken
            await asyncio.sleep(delay)
            woken += 1

        async def watched_sleeper(delay: float) -> None:
            nonlocal early
            due = loop.time() + delay
            await sleeper(delay)
            # The stdlib may be early by its clock's resolution, uvloop by its millisecond.
            early += loop.time() < due - 0.0011

        tasks = [
            asyncio.create_task((sleeper if i % 100 else watched_sleeper)(0.001 * (1 + i // 7 % 10)))
            for i in range(10_000)
        ]
        await asyncio.gather(*tasks)
        expect((early, woken), (0, 10_000))


@row("to_thread", "loop")
async def to_thread(n: int) -> None:
    """Calls in the default executor, one after another."""
    own = threading.get_ident()
    total = 0
    here = 0

    def work(value: int) -> tuple[int, int]:
        return value, threading.get_ident()

    for i in range(n):
        value, ident = await asyncio.to_thread(work, i)
        total += value
        here += ident == own
    expect((total, here), (n * (n - 1) // 2, 0))


@row("call_soon_threadsafe", "loop", quantum=1000)
async def call_soon_threadsafe(n: int) -> None:
    """Another thread hands over callbacks, a thousand at a time."""
    loop = asyncio.get_running_loop()
    own = threading.get_ident()
    finished = loop.create_future()
    batch_done = threading.Event()
    calls = 0
    wrong = 0

    def called(number: int) -> None:
        nonlocal calls, wrong
        wrong += number != calls
        calls += 1
        if calls % 1000 == 0:
            wrong += threading.get_ident() != own
            batch_done.set()
        if calls == n:
            finished.set_result(None)

    def sender() -> None:
        for batch in range(n // 1000):
            for i in range(1000):
                loop.call_soon_threadsafe(called, batch * 1000 + i)
            batch_done.wait()
            batch_done.clear()

    thread = threading.Thread(target=sender)
    thread.start()
    await finished
    thread.join()
    expect((calls, wrong), (n, 0))

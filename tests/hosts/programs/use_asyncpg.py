"""asyncpg: queries, transactions, cursors, COPY, notifications, a pool, cancellation."""

import asyncio
import os

import asyncpg
from running_on import check


async def until_running(connection, number):
    """Waits until as many queries that sleep are under way."""
    query = "SELECT count(*) FROM pg_stat_activity WHERE state = 'active' AND query LIKE 'SELECT pg_sleep%'"
    while await connection.fetchval(query) != number:
        pass


async def main():
    check()
    options = {"host": "127.0.0.1", "port": int(os.environ["PORT"]), "user": "postgres", "database": "postgres"}
    connection = await asyncpg.connect(**options)
    await connection.execute("CREATE TEMP TABLE t (a int, b text)")
    await connection.executemany("INSERT INTO t VALUES ($1, $2)", [(i, str(i) * 100) for i in range(1000)])
    assert await connection.fetchval("SELECT sum(a) FROM t") == sum(range(1000))
    assert len(await connection.fetch("SELECT * FROM t, generate_series(1, 20)")) == 20_000
    try:
        async with connection.transaction():
            await connection.execute("DELETE FROM t")
            assert [row["a"] async for row in connection.cursor("SELECT a FROM t")] == []
            raise KeyError
    except KeyError:
        pass
    async with connection.transaction():
        rows = [row["a"] async for row in connection.cursor("SELECT a FROM t ORDER BY a", prefetch=7)]
    assert rows == list(range(1000))

    async def source():
        for number in range(1000):
            yield b"%d\t%s\n" % (number, b"x" * 200)
            await asyncio.sleep(0)

    await connection.copy_to_table("t", source=source())
    parts = []

    async def sink(data):
        parts.append(data)
        await asyncio.sleep(0)

    await connection.copy_from_table("t", output=sink)
    assert b"".join(parts).count(b"\n") == 2000

    notified = asyncio.get_running_loop().create_future()
    await connection.add_listener("channel", lambda *arguments: notified.set_result(arguments[3]))
    other = await asyncpg.connect(**options)
    await other.execute("NOTIFY channel, 'payload'")
    assert await asyncio.wait_for(notified, 60) == "payload"

    # A timeout sends a request to cancel over another connection.
    try:
        await other.fetch("SELECT pg_sleep(100)", timeout=0.05)
    except TimeoutError:
        pass
    else:
        raise AssertionError
    task = asyncio.create_task(other.fetch("SELECT pg_sleep(100)"))
    await until_running(connection, 1)
    task.cancel()
    try:
        await task
    except asyncio.CancelledError:
        pass
    else:
        raise AssertionError
    await until_running(connection, 0)
    assert await other.fetchval("SELECT 1") == 1
    await other.close()

    async with asyncpg.create_pool(**options, min_size=2, max_size=5) as pool:

        async def one(number):
            async with pool.acquire() as connection:
                return await connection.fetchval("SELECT $1::int + 1", number)

        assert await asyncio.gather(*map(one, range(200))) == list(range(1, 201))
        async with asyncio.timeout(60):
            tasks = [asyncio.create_task(pool.fetch("SELECT pg_sleep(100)")) for _ in range(10)]
            await until_running(connection, 5)
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)
            assert await pool.fetchval("SELECT 2") == 2
    await connection.close()


asyncio.run(main())

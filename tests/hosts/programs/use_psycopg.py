"""psycopg: its waiting for descriptors, its pool, pipelines, COPY, notifications, cancellation."""

import asyncio
import os

import psycopg
import psycopg_pool
from running_on import check


async def main():
    check()
    address = f"host=127.0.0.1 port={os.environ['PORT']} user=postgres dbname=postgres"
    async with await psycopg.AsyncConnection.connect(address, autocommit=True) as connection:
        await connection.execute("CREATE TEMP TABLE t (a int, b text)")
        async with connection.cursor() as cursor:
            await cursor.executemany("INSERT INTO t VALUES (%s, %s)", [(i, str(i) * 100) for i in range(500)])
            await cursor.execute("SELECT a FROM t ORDER BY a")
            assert [row[0] async for row in cursor] == list(range(500))
            async with cursor.copy("COPY t FROM STDIN") as copy:
                for number in range(5000):
                    await copy.write_row((number, "x" * 100))
            async with cursor.copy("COPY t TO STDOUT") as copy:
                assert sum([1 async for _ in copy.rows()]) == 5500
        async with connection.pipeline():
            cursors = [await connection.execute("SELECT %s::int", [number]) for number in range(50)]
        assert [(await cursor.fetchone())[0] for cursor in cursors] == list(range(50))
        async for row in connection.cursor().stream("SELECT generate_series(1, 1000)"):
            assert row
        try:
            async with connection.transaction():
                await connection.execute("DELETE FROM t")
                raise KeyError
        except KeyError:
            pass
        await connection.execute("LISTEN channel")
        await connection.execute("NOTIFY channel, 'payload'")
        async for notice in connection.notifies(timeout=60, stop_after=1):
            assert notice.payload == "payload"
        # A cancelled task cancels its query.
        task = asyncio.create_task(connection.execute("SELECT pg_sleep(100)"))
        async with await psycopg.AsyncConnection.connect(address, autocommit=True) as other:
            query = "SELECT count(*) FROM pg_stat_activity WHERE state = 'active' AND query LIKE 'SELECT pg_sleep%'"
            while await (await other.execute(query)).fetchone() != (1,):
                pass
        task.cancel()
        try:
            await task
        except asyncio.CancelledError:
            pass
        else:
            raise AssertionError
        assert (await (await connection.execute("SELECT 1")).fetchone()) == (1,)

    async with psycopg_pool.AsyncConnectionPool(address, min_size=2, max_size=5) as pool:

        async def one(number):
            async with pool.connection() as connection:
                return (await (await connection.execute("SELECT %s::int + 1", [number])).fetchone())[0]

        assert await asyncio.gather(*map(one, range(200))) == list(range(1, 201))


asyncio.run(main())

"""aiosqlite: a thread for each connection, which hands results over by `call_soon_threadsafe`."""

import asyncio

import aiosqlite
from running_on import check


async def main():
    check()
    async with aiosqlite.connect("file.db") as connection:
        await connection.execute("CREATE TABLE t (a INTEGER)")
        await connection.executemany("INSERT INTO t VALUES (?)", [(number,) for number in range(1000)])
        await connection.commit()
        async with connection.execute("SELECT a FROM t ORDER BY a") as cursor:
            assert [row[0] async for row in cursor] == list(range(1000))

        async def one(number):
            async with connection.execute("SELECT a FROM t WHERE a = ?", (number,)) as cursor:
                return (await cursor.fetchone())[0]

        assert await asyncio.gather(*map(one, range(200))) == list(range(200))
        task = asyncio.create_task(one(1))
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait([task])
        try:
            await connection.execute("SELECT nothing FROM nowhere")
        except aiosqlite.OperationalError:
            pass
        else:
            raise AssertionError


asyncio.run(main())

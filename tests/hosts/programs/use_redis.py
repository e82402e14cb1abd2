"""redis-py: commands, pipelines, blocking commands, publish and subscribe, a pool, cancellation."""

import asyncio
import os

from redis import asyncio as redis
from redis.exceptions import ConnectionError, TimeoutError
from running_on import check


async def blocked(client):
    """A task that the server has made wait."""
    task = asyncio.create_task(client.blpop("list", timeout=60))
    while (await client.info("clients"))["blocked_clients"] == 0:
        pass
    return task


async def use(client):
    body = os.urandom(1_000_000)
    await client.set("key", body)
    assert await client.get("key") == body
    async with client.pipeline() as pipeline:
        for number in range(500):
            pipeline.incrby("sum", number)
        assert (await pipeline.execute())[-1] == sum(range(500))
    await client.delete("sum")

    async def one(number):
        return await client.echo(str(number))

    assert await asyncio.gather(*map(one, range(80))) == [b"%d" % number for number in range(80)]

    waiting = await blocked(client)
    await client.rpush("list", "item")
    assert await waiting == (b"list", b"item")
    assert await client.blpop("list", timeout=0.05) is None

    async with client.pubsub() as channel:
        await channel.subscribe("channel")
        assert (await channel.get_message(timeout=60))["type"] == "subscribe"
        assert await channel.get_message(timeout=0.01) is None
        for number in range(100):
            await client.publish("channel", number)
        received = []
        async for message in channel.listen():
            received.append(int(message["data"]))
            if len(received) == 100:
                break
        assert received == list(range(100))

    # Not earlier: redis-py keeps a connection that was cancelled between command and answer.
    task = await blocked(client)
    task.cancel()
    try:
        await task
    except asyncio.CancelledError:
        pass
    assert await client.get("key") == body
    assert [key async for key in client.scan_iter()] == [b"key"]
    await client.flushall()


async def main():
    check()
    port, path = int(os.environ["PORT"]), os.environ["SOCKET"]
    for options in ({"host": "127.0.0.1", "port": port}, {"unix_socket_path": path}):
        async with redis.Redis(**options) as client:
            await use(client)
    async with redis.Redis(host="127.0.0.1", port=port, socket_timeout=0.05, retry=None) as client:
        try:
            await client.execute_command("BLPOP", "nothing", 60)
        except (TimeoutError, ConnectionError):
            pass
        else:
            raise AssertionError


asyncio.run(main())

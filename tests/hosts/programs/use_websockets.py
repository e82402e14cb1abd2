"""A server and clients of websockets: messages, fragments, pings, back-pressure, closing."""

import asyncio

from running_on import check
from websockets.asyncio.client import connect
from websockets.asyncio.server import broadcast, serve
from websockets.exceptions import ConnectionClosedError, ConnectionClosedOK


async def main():
    check()
    clients = set()

    async def handler(socket):
        check()
        clients.add(socket)
        try:
            async for message in socket:
                if message == "all":
                    broadcast(clients, "to all")
                elif message == "fail":
                    raise RuntimeError("meant")
                elif message == "close":
                    await socket.close(4001, "asked to")
                else:
                    await socket.send(message)
        finally:
            clients.discard(socket)

    async with serve(handler, "127.0.0.1", 0, ping_interval=0.05, logger=quiet()) as server:
        address = f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}"

        async def echo(number):
            async with connect(address) as socket:
                for size in (0, 10, 100_000, 1_000_000 // (number + 1)):
                    message = str(number) * size
                    await socket.send(message)
                    assert await socket.recv() == message
                await socket.send(part for part in ["a", "b", "c"])
                assert await socket.recv() == "abc"

        await asyncio.gather(*map(echo, range(20)))
        async with connect(address) as one, connect(address) as two:
            latency = await (await one.ping())
            assert latency >= 0
            await two.send("x")
            await two.recv()
            await one.send("all")
            assert await one.recv() == await two.recv() == "to all"
            for text, code in (("close", 4001), ("fail", 1011)):
                async with connect(address) as three:
                    await three.send(text)
                    try:
                        await three.recv()
                    except (ConnectionClosedOK, ConnectionClosedError) as closed:
                        assert closed.rcvd.code == code, closed
                    else:
                        raise AssertionError
            try:
                async with asyncio.timeout(0.05):
                    await two.recv()
            except TimeoutError:
                pass
            await two.send("still here")
            assert await two.recv() == "still here"


def quiet():
    """A logger for the failure that is meant."""
    import logging

    logger = logging.getLogger("quiet")
    logger.addHandler(logging.NullHandler())
    logger.propagate = False
    return logger


asyncio.run(main())

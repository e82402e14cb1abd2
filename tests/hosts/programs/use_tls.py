"""TLS through aiohttp, httpx and websockets: servers and clients, large bodies, many at once, strangers refused."""

import asyncio
import io
import ssl
import sys

import aiohttp
import httpx
from aiohttp import web
from running_on import check
from websockets.asyncio.client import connect
from websockets.asyncio.server import serve


async def echo(request):
    check()
    return web.Response(body=await request.read())


async def main(certificate, authority):
    check()
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate)
    trusting = ssl.create_default_context(cafile=authority)
    app = web.Application(client_max_size=1 << 24)
    app.add_routes([web.post("/", echo)])
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "localhost", 0, ssl_context=context).start()
    address = f"https://localhost:{runner.addresses[0][1]}"
    body = bytes(range(256)) * 8000
    async with aiohttp.ClientSession() as session:

        async def one(number):
            async with session.post(address, data=b"%d" % number, ssl=trusting) as response:
                return int(await response.read())

        async with session.post(address, data=io.BytesIO(body), ssl=trusting) as response:
            assert await response.read() == body
        assert await asyncio.gather(*map(one, range(100))) == list(range(100))
        try:
            await session.post(address, data=b"")
        except aiohttp.ClientConnectorCertificateError:
            pass
        else:
            raise AssertionError
    async with httpx.AsyncClient(verify=trusting, timeout=60) as client:
        assert (await client.post(address, content=body)).content == body
        answers = await asyncio.gather(*[client.post(address, content=b"%d" % number) for number in range(50)])
        assert [int(answer.content) for answer in answers] == list(range(50))
    await runner.cleanup()

    async def handler(socket):
        async for message in socket:
            await socket.send(message)

    async with serve(handler, "localhost", 0, ssl=context) as server:
        address = f"wss://localhost:{server.sockets[0].getsockname()[1]}"

        async def talk(number):
            async with connect(address, ssl=trusting) as socket:
                for size in (1, 300_000):
                    await socket.send(str(number) * size)
                    assert await socket.recv() == str(number) * size

        await asyncio.gather(*map(talk, range(8)))


asyncio.run(main(*sys.argv[1:]))

"""A server and clients of aiohttp: bodies, streams, websockets, timeouts, many at once, sub-applications' clean-up."""

import asyncio
import io

import aiohttp
from aiohttp import web
from running_on import check


async def echo(request):
    check()
    return web.Response(body=await request.read(), headers={"x": request.query.get("x", "")})


async def stream(request):
    response = web.StreamResponse()
    await response.prepare(request)
    async for chunk in request.content.iter_chunked(1000):
        await response.write(chunk)
    await response.write_eof()
    return response


async def never(request):
    request.app["arrived"].set()
    try:
        await asyncio.Event().wait()
    finally:
        request.app["events"].append("disconnected")
        request.app["gone"].set()


async def late(request):
    await asyncio.Event().wait()


async def websocket(request):
    socket = web.WebSocketResponse(heartbeat=10)
    await socket.prepare(request)
    async for message in socket:
        if message.data == "stop":
            await socket.close(code=4000)
        else:
            await socket.send_str(message.data.upper())
    return socket


async def file(request):
    return web.FileResponse(__file__)


async def resource(app):
    app["events"].append("start")
    yield
    app["events"].append("stop")


async def main():
    check()
    app = web.Application(client_max_size=1 << 24)
    app["events"] = events = []
    app["arrived"], app["gone"] = asyncio.Event(), asyncio.Event()
    app.cleanup_ctx.append(resource)
    app.add_routes(
        [
            web.post("/echo", echo),
            web.post("/stream", stream),
            web.get("/never", never),
            web.get("/late", late),
            web.get("/ws", websocket),
            web.get("/file", file),
        ]
    )
    runner = web.AppRunner(app, handler_cancellation=True)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    address = "http://{}:{}".format(*runner.addresses[0][:2])
    async with aiohttp.ClientSession(address, timeout=aiohttp.ClientTimeout(60)) as session:
        body = bytes(range(256)) * 8000
        async with session.post("/echo", data=io.BytesIO(body), params={"x": "y"}) as response:
            assert await response.read() == body
            assert response.headers["x"] == "y"

        async def chunks():
            for start in range(0, len(body), 100_000):
                yield body[start : start + 100_000]
                await asyncio.sleep(0)

        async with session.post("/stream", data=chunks()) as response:
            assert await response.read() == body
        async with session.get("/file") as response:
            assert (await response.text()).startswith('"""A server and clients')

        async def one(number):
            async with session.post("/echo", json={"number": number}) as response:
                return (await response.json(content_type=None))["number"]

        assert await asyncio.gather(*map(one, range(300))) == list(range(300))
        try:
            await session.get("/late", timeout=aiohttp.ClientTimeout(total=0.05))
        except TimeoutError:
            pass
        else:
            raise AssertionError
        task = asyncio.create_task(session.get("/never"))
        await app["arrived"].wait()
        task.cancel()
        try:
            await task
        except asyncio.CancelledError:
            pass
        else:
            raise AssertionError
        await app["gone"].wait()
        async with session.ws_connect("/ws") as socket:
            for text in ("one", "x" * 200_000):
                await socket.send_str(text)
                assert await socket.receive_str() == text.upper()
            await socket.send_str("stop")
            assert (await socket.receive()).type is aiohttp.WSMsgType.CLOSE
            assert socket.close_code == 4000
    await runner.cleanup()
    assert events == ["start", "disconnected", "stop"]


asyncio.run(main())

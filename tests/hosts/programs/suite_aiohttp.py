"""Tests as a project has them that uses pytest-aiohttp."""

import asyncio

import pytest_aiohttp  # noqa: F401
from aiohttp import web
from running_on import check


async def test_client(aiohttp_client):
    async def hello(request):
        check()
        return web.Response(text="hello")

    app = web.Application()
    app.router.add_get("/", hello)
    client = await aiohttp_client(app)
    assert await (await client.get("/")).text() == "hello"


async def test_server(aiohttp_server):
    check()
    server = await aiohttp_server(web.Application())
    _, writer = await asyncio.open_connection(server.host, server.port)
    writer.close()
    await writer.wait_closed()

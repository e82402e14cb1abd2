"""Tests as a project has them that uses pytest-asyncio."""

import asyncio

import pytest
import pytest_asyncio
from running_on import check


@pytest_asyncio.fixture
async def queue():
    check()
    queue = asyncio.Queue()
    yield queue
    assert queue.empty()


@pytest.mark.asyncio
async def test_fixture(queue):
    check()
    asyncio.get_running_loop().call_later(0.001, queue.put_nowait, 1)
    assert await queue.get() == 1


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def server():
    async def echo(reader, writer):
        writer.write(await reader.readline())
        writer.close()

    async with await asyncio.start_server(echo, "127.0.0.1", 0) as server:
        yield server.sockets[0].getsockname()


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize("number", range(3))
async def test_module_loop(server, number):
    check()
    reader, writer = await asyncio.open_connection(*server)
    writer.write(b"%d\n" % number)
    assert await reader.read() == b"%d\n" % number
    writer.close()
    await writer.wait_closed()

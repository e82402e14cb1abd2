"""Tests as a project has them that uses anyio's pytest plugin."""

import anyio
import pytest
from running_on import check

pytestmark = pytest.mark.anyio


@pytest.fixture(scope="module")
def anyio_backend():
    return "asyncio"


@pytest.fixture(scope="module")
async def streams():
    check()
    send, receive = anyio.create_memory_object_stream(1)
    async with send, receive:
        yield send, receive


async def test_streams(streams):
    check()
    send, receive = streams
    await send.send(1)
    assert await receive.receive() == 1


async def test_cancelled():
    with anyio.move_on_after(0.01):
        await anyio.sleep_forever()

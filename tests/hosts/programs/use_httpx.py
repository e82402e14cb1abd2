"""httpx against a server of asyncio's streams, and against an application in the same process."""

import asyncio

import httpx
from asgi import app
from running_on import check

answering = []


async def answer(reader, writer):
    answering.append(asyncio.current_task())
    try:
        while True:
            head = await reader.readuntil(b"\r\n\r\n")
            length = next(
                (
                    int(line.split(b":")[1])
                    for line in head.lower().split(b"\r\n")
                    if line.startswith(b"content-length")
                ),
                0,
            )
            body = await reader.readexactly(length)
            if head.startswith(b"GET /never"):
                await reader.read()
                break
            writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % len(body) + body)
            await writer.drain()
    except asyncio.IncompleteReadError:
        pass
    writer.close()


async def main():
    check()
    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    address = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    async with httpx.AsyncClient(base_url=address, timeout=60) as client:
        body = bytes(range(256)) * 4000
        assert (await client.post("/", content=body)).content == body

        async def one(number):
            async with client.stream("POST", "/", content=b"%d" % number) as response:
                return b"".join([part async for part in response.aiter_bytes()])

        assert await asyncio.gather(*map(one, range(200))) == [b"%d" % number for number in range(200)]
        try:
            await client.get("/never", timeout=0.05)
        except httpx.ReadTimeout:
            pass
        else:
            raise AssertionError
    server.close()
    await server.wait_closed()
    # Before 3.12 that was not waited for.
    await asyncio.gather(*answering)
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://app") as client:
        assert (await client.post("/", content=b"12345")).json()["received"] == 5


asyncio.run(main())

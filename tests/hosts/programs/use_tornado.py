"""Tornado: its loop is a wrapper of asyncio's; server, client, websockets, descriptors, threads."""

import asyncio
import socket

from running_on import check
from tornado import (
    gen,
    httpclient,
    httpserver,
    ioloop,
    iostream,
    netutil,
    process,
    tcpclient,
    tcpserver,
    web,
    websocket,
)


class Echo(web.RequestHandler):
    async def post(self):
        check()
        await gen.sleep(0)
        self.write(self.request.body)


class Socket(websocket.WebSocketHandler):
    def on_message(self, message):
        self.write_message(message.upper())


class Lines(tcpserver.TCPServer):
    async def handle_stream(self, stream, address):
        try:
            while True:
                await stream.write(await stream.read_until(b"\n"))
        except iostream.StreamClosedError:
            pass


@gen.coroutine
def old_style():
    yield gen.moment
    values = yield [gen.maybe_future(1), asyncio.sleep(0.001, 2)]
    return values


async def main():
    check()
    sockets = netutil.bind_sockets(0, "127.0.0.1")
    server = httpserver.HTTPServer(web.Application([("/", Echo), ("/ws", Socket)]))
    server.add_sockets(sockets)
    address = f"127.0.0.1:{sockets[0].getsockname()[1]}"
    client = httpclient.AsyncHTTPClient()
    body = bytes(range(256)) * 2000

    async def one(number):
        headers = {"content-type": "application/octet-stream"}
        response = await client.fetch(f"http://{address}/", method="POST", body=body, headers=headers)
        return response.body == body

    assert all(await asyncio.gather(*map(one, range(50))))
    connection = await websocket.websocket_connect(f"ws://{address}/ws")
    for text in ("one", "x" * 100_000):
        await connection.write_message(text)
        assert await connection.read_message() == text.upper()
    connection.close()
    assert await connection.read_message() is None

    lines = Lines()
    lines.listen(0, "127.0.0.1")
    (port,) = {listener.getsockname()[1] for listener in lines._sockets.values()}
    stream = await tcpclient.TCPClient().connect("127.0.0.1", port)
    await stream.write(b"x" * 100_000 + b"\n")
    assert len(await stream.read_until(b"\n")) == 100_001
    stream.close()

    loop = ioloop.IOLoop.current()
    one, two = socket.socketpair()
    with one, two:
        readable = asyncio.Event()
        loop.add_handler(one, lambda fd, events: readable.set(), loop.READ)
        two.send(b"x")
        await readable.wait()
        loop.remove_handler(one)
    ticks = asyncio.Queue()
    periodic = ioloop.PeriodicCallback(lambda: ticks.put_nowait(1), 1)
    periodic.start()
    for _ in range(3):
        await ticks.get()
    periodic.stop()
    assert await loop.run_in_executor(None, lambda: 5) == 5
    assert (yield_ := await old_style()) == [1, 2], yield_
    try:
        await gen.with_timeout(loop.time() + 0.01, asyncio.Event().wait())
    except gen.TimeoutError:
        pass
    child = process.Subprocess(["cat"], stdin=process.Subprocess.STREAM, stdout=process.Subprocess.STREAM)
    await child.stdin.write(b"x" * 100_000)
    child.stdin.close()
    assert await child.stdout.read_until_close() == b"x" * 100_000
    # It hears of the end by SIGCHLD.
    assert await child.wait_for_exit() == 0
    server.stop()
    lines.stop()
    await server.close_all_connections()


ioloop.IOLoop.current().run_sync(main)

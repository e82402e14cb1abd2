"""An echo server and its clients, written as protocols.

A protocol is an object whose methods the event loop calls: when its connection is made, when
data has arrived, when the connection is lost. It answers through its transport. No task and no
`await` is needed for a connection, which makes this the fastest way to write a server.

    python examples/echo_protocol.py                 a server, five clients, and it ends
    python -m aioxide examples/echo_protocol.py      the same natively
    python examples/echo_protocol.py --serve 8888    a server until Ctrl-C; try `nc localhost 8888`
"""

import argparse
import asyncio


class EchoServer(asyncio.Protocol):
    """One connection of the server: sends back whatever comes in."""

    transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.transport.write(data)


class EchoClient(asyncio.Protocol):
    """One client: sends a message and waits until all of it has come back."""

    def __init__(self, message: bytes) -> None:
        self.message = message
        self.received = bytearray()
        self.answer: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        transport.write(self.message)

    def data_received(self, data: bytes) -> None:
        # A stream has no borders: the message may come back in several pieces.
        self.received += data
        if len(self.received) >= len(self.message) and not self.answer.done():
            self.answer.set_result(bytes(self.received))
            self.transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.answer.done():
            self.answer.set_exception(exc or ConnectionError("the server hung up"))


async def ask(port: int, message: bytes) -> bytes:
    """Sends a message to the server and returns the answer."""
    loop = asyncio.get_running_loop()
    _, client = await loop.create_connection(lambda: EchoClient(message), "127.0.0.1", port)
    return await client.answer


async def demonstrate(clients: int) -> None:
    """Runs a server and lets some clients talk to it, all at the same time."""
    loop = asyncio.get_running_loop()
    # Port 0 lets the system choose a free one.
    server = await loop.create_server(EchoServer, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with server:
        messages = [b"hello from client %d" % number for number in range(clients)]
        # The last one is far more than fits into one packet.
        messages.append(b"x" * 1_000_000)
        answers = await asyncio.gather(*(ask(port, message) for message in messages))
    for answer in answers[:-1]:
        print("echo:", answer.decode())
    print("echo:", len(answers[-1]), "bytes in one message")
    print("all came back unchanged:", answers == messages)


async def serve(port: int) -> None:
    """Runs a server until it is interrupted."""
    server = await asyncio.get_running_loop().create_server(EchoServer, "127.0.0.1", port)
    async with server:
        print("serving on", *server.sockets[0].getsockname())
        await server.serve_forever()


def main() -> None:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description="An echo server and its clients, on protocols.")
    parser.add_argument("--clients", type=int, default=5, metavar="N", help="how many clients talk to the server")
    parser.add_argument("--serve", type=int, metavar="PORT", help="serve there until Ctrl-C")
    args = parser.parse_args()
    try:
        asyncio.run(demonstrate(args.clients) if args.serve is None else serve(args.serve))
    except KeyboardInterrupt:
        print("stopped")


if __name__ == "__main__":
    main()

"""The process under test of a network row: `python subject.py PROVIDER SERVICE ADDRESS SIZE [CERTIFICATE]`.

A server says in JSON where it listens and serves until it is killed; with a file of a certificate and its key it
speaks TLS. A client says when it is warm, waits for a line
with a number, does that many operations and says so. Nothing here measures: `network.py` does, from outside.
"""

import asyncio
import dataclasses
import gc
import json
import socket
import ssl
import sys
from collections.abc import Awaitable, Callable

import providers

PIECE = 8 << 20
"""The bytes of a bulk transfer after which the other end has to agree."""
PERIOD = 65_521
"""The bytes after which their pattern starts again; a prime number."""
BACKLOG = 1024


@dataclasses.dataclass(frozen=True)
class Order:
    """What a service is told."""

    address: str
    """Where to connect to, or the path to listen at."""
    size: int
    """Of a message."""
    context: ssl.SSLContext | None
    """For TLS, if there is to be any."""


Service = Callable[[asyncio.AbstractEventLoop, Order], Awaitable[object]]
"""Called with the loop and its order; what it returns is kept alive."""

SERVICES: dict[str, Service] = {}


def say(**facts: object) -> None:
    """Tells the process that measures."""
    print(json.dumps(facts), flush=True)


def serve_protocol(make: Callable[[int], type[asyncio.BaseProtocol]]) -> Service:
    """A server whose protocol class `make` makes for a size."""

    async def service(loop: asyncio.AbstractEventLoop, order: Order) -> object:
        protocol = make(order.size)
        if order.address.startswith("/"):
            server = await loop.create_unix_server(protocol, order.address, backlog=BACKLOG)
            say(address=order.address)
        else:
            server = await loop.create_server(protocol, "127.0.0.1", 0, backlog=BACKLOG, ssl=order.context)
            say(address="127.0.0.1:{1}".format(*server.sockets[0].getsockname()))
        return server

    return service


def serve_streams(handler: Callable[..., Awaitable[None]]) -> Service:
    """A server that calls `handler` with reader, writer and size."""

    async def service(loop: asyncio.AbstractEventLoop, order: Order) -> object:
        async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await handler(reader, writer, order.size)
            writer.close()

        limit = max(2 * order.size, 2**16)
        server = await asyncio.start_server(connected, "127.0.0.1", 0, backlog=BACKLOG, limit=limit, ssl=order.context)
        say(address="127.0.0.1:{1}".format(*server.sockets[0].getsockname()))
        return server

    return service


def pattern(size: int) -> bytes:
    """What a bulk transfer has in it; `bulk.rs` says the same."""
    period = bytes((i * 7 + i // 251) & 255 for i in range(PERIOD))
    return (period * (size // PERIOD + 1))[:size]


# Echo.


class Echo(asyncio.Protocol):
    """Sends back what it gets."""

    def connection_made(self, transport: asyncio.Transport) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.transport.write(data)


def buffered_echo(size: int) -> type[asyncio.BaseProtocol]:
    """Sends back what it gets, and says where it has to be put."""

    class BufferedEcho(asyncio.BufferedProtocol):
        def connection_made(self, transport: asyncio.Transport) -> None:
            self.transport = transport
            self.buffer = memoryview(bytearray(2 * size))

        def get_buffer(self, sizehint: int) -> memoryview:
            return self.buffer

        def buffer_updated(self, nbytes: int) -> None:
            self.transport.write(bytes(self.buffer[:nbytes]))

    return BufferedEcho


class DatagramEcho(asyncio.DatagramProtocol):
    """Sends each datagram back."""

    def connection_made(self, transport: asyncio.DatagramTransport) -> None:
        self.transport = transport

    def datagram_received(self, data: bytes, addr: object) -> None:
        self.transport.sendto(data, addr)

    def error_received(self, exc: OSError) -> None:
        raise exc


async def datagram_echo(loop: asyncio.AbstractEventLoop, order: Order) -> object:
    """A server of datagrams."""
    transport, _ = await loop.create_datagram_endpoint(DatagramEcho, local_addr=("127.0.0.1", 0))
    say(address="127.0.0.1:{1}".format(*transport.get_extra_info("sockname")))
    return transport


async def sock_echo(loop: asyncio.AbstractEventLoop, order: Order) -> object:
    """A server made of the loop's methods for sockets; a task for each client."""
    listener = socket.create_server(("127.0.0.1", 0), backlog=BACKLOG)
    listener.setblocking(False)
    tasks = set()

    async def client(sock: socket.socket) -> None:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with sock:
            while data := await loop.sock_recv(sock, 2 * order.size):
                await loop.sock_sendall(sock, data)

    async def accept() -> None:
        while True:
            sock, _ = await loop.sock_accept(listener)
            sock.setblocking(False)
            task = loop.create_task(client(sock))
            tasks.add(task)
            task.add_done_callback(tasks.discard)

    task = loop.create_task(accept())
    # A loop without these methods says so in the first step.
    await asyncio.wait([task], timeout=0.01)
    if task.done():
        await task
    say(address="127.0.0.1:{1}".format(*listener.getsockname()))
    return task


async def read_echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, size: int) -> None:
    """Reads what is there."""
    while data := await reader.read(2 * size):
        writer.write(data)
        await writer.drain()


async def readexactly_echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, size: int) -> None:
    """Reads whole messages."""
    try:
        while True:
            writer.write(await reader.readexactly(size))
            await writer.drain()
    except asyncio.IncompleteReadError as error:
        if error.partial:
            raise


async def readline_echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, size: int) -> None:
    """Reads lines."""
    while line := await reader.readline():
        writer.write(line)
        await writer.drain()


# Bulk transfer.


class Receiver(asyncio.Protocol):
    """Takes pieces and tells after each how many bytes came so far. Of each connection it compares the first piece."""

    def connection_made(self, transport: asyncio.Transport) -> None:
        self.transport = transport
        self.total = 0
        self.first: bytearray | None = bytearray()

    def data_received(self, data: bytes) -> None:
        self.total += len(data)
        if self.first is not None:
            self.first += data
        if self.total % PIECE == 0:
            check_first(self.first)
            self.first = None
            self.transport.write(self.total.to_bytes(8, "big"))


def check_first(first: bytearray | None) -> None:
    """Fails if a piece is not what is sent."""
    if first is not None and first != pattern(PIECE):
        raise AssertionError("wrong bytes came")


async def receive(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, size: int) -> None:
    """Does as `Receiver`, by streams."""
    total = 0
    first: bytearray | None = bytearray()
    while data := await reader.read(size):
        total += len(data)
        if first is not None:
            first += data
        if total % PIECE == 0:
            check_first(first)
            first = None
            writer.write(total.to_bytes(8, "big"))
            await writer.drain()


def sender(size: int) -> type[asyncio.BaseProtocol]:
    """Sends a piece for each byte that it gets, in writes of `size` bytes, and stops while it is told to pause."""
    piece = pattern(PIECE)
    parts = [piece[start : start + size] for start in range(0, PIECE, size)]

    class Sender(asyncio.Protocol):
        def connection_made(self, transport: asyncio.Transport) -> None:
            self.transport = transport
            self.parts = iter(())
            self.paused = False

        def data_received(self, data: bytes) -> None:
            self.parts = iter(parts * len(data))
            self.send()

        def send(self) -> None:
            while not self.paused and (part := next(self.parts, None)):
                self.transport.write(part)

        def pause_writing(self) -> None:
            self.paused = True

        def resume_writing(self) -> None:
            self.paused = False
            self.send()

    return Sender


async def send(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, size: int) -> None:
    """Does as `sender`, by streams."""
    piece = pattern(PIECE)
    parts = [piece[start : start + size] for start in range(0, PIECE, size)]
    while data := await reader.read(1):
        for part in parts * len(data):
            writer.write(part)
            await writer.drain()


# Connections.


class Greeter(asyncio.Protocol):
    """Greets, and no more."""

    def connection_made(self, transport: asyncio.Transport) -> None:
        transport.write(b"!")


async def greet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, size: int) -> None:
    """Greets, and waits for the end."""
    writer.write(b"!")
    await reader.read()


async def connect(loop: asyncio.AbstractEventLoop, order: Order) -> None:
    """A client that connects and closes, one connection after another."""
    host, _, port = order.address.rpartition(":")

    class Connection(asyncio.Protocol):
        def connection_made(self, transport: asyncio.Transport) -> None:
            self.lost = loop.create_future()

        def connection_lost(self, exc: Exception | None) -> None:
            self.lost.set_result(exc)

    async def several(count: int) -> None:
        for _ in range(count):
            transport, protocol = await loop.create_connection(Connection, host, int(port))
            transport.close()
            if error := await protocol.lost:
                raise error

    await several(100)
    gc.collect()
    say(warm=100)
    count = int(sys.stdin.readline())
    start = loop.time()
    await several(count)
    say(messages=count, seconds=loop.time() - start)
    sys.stdin.readline()


SERVICES |= {
    "echo": serve_protocol(lambda size: Echo),
    "buffered": serve_protocol(buffered_echo),
    "datagrams": datagram_echo,
    "sock": sock_echo,
    "read": serve_streams(read_echo),
    "readexactly": serve_streams(readexactly_echo),
    "readline": serve_streams(readline_echo),
    "receive": serve_protocol(lambda size: Receiver),
    "receive-streams": serve_streams(receive),
    "send": serve_protocol(sender),
    "send-streams": serve_streams(send),
    "greet": serve_protocol(lambda size: Greeter),
    "greet-streams": serve_streams(greet),
    "connect": connect,
}


def server_context(certificate: str) -> ssl.SSLContext:
    """What a server of TLS needs; the file has the key as well."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    return context


async def main(provider: str, service: Service, order: Order) -> None:
    """Starts the service; a server goes on until the process is killed."""
    loop = asyncio.get_running_loop()
    providers.check(provider, loop)
    server = await service(loop, order)
    if server is not None:
        gc.collect()
        await loop.create_future()


if __name__ == "__main__":
    provider, name, address, size, *certificates = sys.argv[1:]
    with asyncio.Runner(loop_factory=providers.activate(provider)) as runner:
        order = Order(address, int(size), next(map(server_context, certificates), None))
        runner.run(main(provider, SERVICES[name], order))

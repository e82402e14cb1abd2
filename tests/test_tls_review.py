"""TLS where an application does not read, and other ways into a dead end."""

import asyncio
import socket
import sys

import pytest
from tls_talk import (
    PATIENCE,
    TLS_1_2,
    TLS_1_3,
    Recorder,
    client_context,
    connect,
    connected,
    run,
    server_context,
    turns,
    until,
)

import aioxide


def pause(protocol):
    protocol.transport.pause_reading()


@pytest.mark.parametrize("version", [TLS_1_2, TLS_1_3])
@pytest.mark.parametrize("paused", ["client", "server"])
def test_a_side_that_does_not_read_ends_the_handshake(native_loop, version, paused):
    """The last message of the handshake is sent. asyncio keeps it until the application reads."""

    async def main():
        contexts = client_context(version=version), server_context(version=version)
        sides = {paused: lambda: Recorder(connection_made=pause)}
        async with connected(native_loop, contexts=contexts, **sides) as (client, server):
            (client if paused == "server" else server).transport.write(b"hello")
            quiet = client if paused == "client" else server
            await turns(5)
            assert quiet.data == b""
            quiet.transport.resume_reading()
            await quiet.has(5)

    run(native_loop, main())


@pytest.mark.parametrize("again", [False, True])
def test_close_after_the_connection_below_ended_unread(native_loop, again):
    """Who reads no more may close. asyncio waits for ever."""

    async def main():
        client, server = await connect(native_loop, server=lambda: Recorder(connection_made=pause))
        client.transport.write(b"never read")
        below = client.transport._ssl_protocol._transport
        below.close()
        await until(lambda: server.transport._ssl_protocol._eof_received)
        assert not server.lost.done()
        server.transport.close()
        if again:
            server.transport.close()
        await asyncio.wait_for(server.lost, PATIENCE)
        assert server.names == ["connection_made", "eof_received", "connection_lost"]
        await asyncio.wait_for(client.lost, PATIENCE)

    run(native_loop, main())


def test_a_stream_whose_reader_is_full_can_be_closed(native_loop):
    """The same with streams: more than the limit has come, and then the end."""

    async def main():
        near, far = socket.socketpair()
        done = native_loop.create_future()

        async def send():
            _, writer = await aioxide.open_connection(sock=near, ssl=client_context(), server_hostname="localhost")
            writer.write(bytes(200_000))
            await writer.drain()
            writer.transport._ssl_protocol._transport.write_eof()
            await done
            writer.transport.abort()

        reader = aioxide.StreamReader(limit=1024)
        protocol = aioxide.StreamReaderProtocol(reader)
        sender = native_loop.create_task(send())
        transport, _ = await native_loop.connect_accepted_socket(lambda: protocol, far, ssl=server_context())
        writer = aioxide.StreamWriter(transport, protocol, reader, native_loop)
        await until(lambda: transport._ssl_protocol._eof_received)
        writer.close()
        await asyncio.wait_for(writer.wait_closed(), PATIENCE)
        done.set_result(None)
        await sender

    run(native_loop, main())


@pytest.mark.skipif(sys.version_info < (3, 12), reason="objects have __buffer__ since 3.12")
def test_a_buffer_that_is_shorter_each_time(native_loop):
    """It ends the connection, and not in an endless loop."""

    class Shrinking:
        def __init__(self):
            self.count = 0

        def __len__(self):
            return 100

        def __buffer__(self, flags):
            self.count += 1
            return memoryview(bytearray(100 if self.count == 1 else 10))

    class Receiver(asyncio.BufferedProtocol):
        def __init__(self):
            self.lost = asyncio.get_running_loop().create_future()
            self.transport = None

        def connection_made(self, transport):
            self.transport = transport

        def get_buffer(self, sizehint):
            return Shrinking()

        def buffer_updated(self, nbytes):
            pass

        def connection_lost(self, exc):
            self.lost.set_result(None)

    async def main():
        client, server = await connect(native_loop, server=Receiver)
        client.transport.write(bytes(1000))
        await asyncio.wait_for(server.lost, PATIENCE)
        client.transport.abort()
        await asyncio.wait_for(client.lost, PATIENCE)

    run(native_loop, main())

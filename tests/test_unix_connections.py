"""Unix sockets: connections, servers, and the files of both."""

import asyncio
import errno
import os
import pathlib
import socket
import sys

import pytest

import aioxide


@pytest.fixture
def own(loop):
    """A loop of aioxide's: for what the stdlib has later or not at all."""
    if not isinstance(loop, aioxide.Loop):
        pytest.skip("the stdlib of some or all versions does it otherwise")
    return loop


@pytest.fixture
def path(tmp_path):
    """A path that is free."""
    return str(tmp_path / "socket")


class Protocol(asyncio.Protocol):
    """A protocol that tells when its connection is gone."""

    def __init__(self):
        self.lost = asyncio.get_running_loop().create_future()

    def connection_made(self, transport):
        self.transport = transport

    def connection_lost(self, exc):
        self.lost.set_result(exc)


def abstract_name(kind):
    """A name outside of the file system."""
    name = f"\0aioxide-{os.getpid()}-{os.urandom(4).hex()}"
    return name.encode() if kind is bytes else name


# Arguments.


@pytest.mark.parametrize(
    ("kwargs", "error", "text"),
    [
        ({}, ValueError, "no path and sock were specified"),
        ({"path": "x", "sock": 1}, ValueError, "path and sock can not be specified at the same time"),
        ({"server_hostname": 1}, AssertionError, ""),
        ({"server_hostname": ""}, ValueError, "server_hostname is only meaningful with ssl"),
        ({"ssl": True}, ValueError, "you have to pass server_hostname when using ssl"),
        ({"ssl_handshake_timeout": 1}, ValueError, "ssl_handshake_timeout is only meaningful with ssl"),
        ({"ssl_shutdown_timeout": 1}, ValueError, "ssl_shutdown_timeout is only meaningful with ssl"),
    ],
)
def test_connection_arguments_that_are_refused(loop, kwargs, error, text):
    with pytest.raises(error, match=f"^{text}$"):
        loop.run_until_complete(loop.create_unix_connection(Protocol, **kwargs))


@pytest.mark.parametrize(
    ("kwargs", "error", "text"),
    [
        ({}, ValueError, "path was not specified, and no sock specified"),
        ({"path": "x", "sock": 1}, ValueError, "path and sock can not be specified at the same time"),
        ({"ssl": True}, TypeError, "ssl argument must be an SSLContext or None"),
        ({"ssl_handshake_timeout": 1}, ValueError, "ssl_handshake_timeout is only meaningful with ssl"),
        ({"ssl_shutdown_timeout": 1}, ValueError, "ssl_shutdown_timeout is only meaningful with ssl"),
    ],
)
def test_server_arguments_that_are_refused(loop, kwargs, error, text):
    with pytest.raises(error, match=f"^{text}$"):
        loop.run_until_complete(loop.create_unix_server(Protocol, **kwargs))


@pytest.mark.parametrize("method", ["create_unix_connection", "create_unix_server"])
def test_sockets_that_are_refused(loop, method):
    for sock in (socket.socket(), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)):
        with sock, pytest.raises(ValueError, match=r"^A UNIX Domain Stream Socket was expected, got <socket"):
            loop.run_until_complete(getattr(loop, method)(Protocol, sock=sock))


@pytest.mark.parametrize("method", ["create_unix_connection", "create_unix_server"])
def test_paths_that_are_refused(own, method):
    with pytest.raises(TypeError):
        own.run_until_complete(getattr(own, method)(Protocol, 1))
    with pytest.raises((ValueError, OSError)):
        own.run_until_complete(getattr(own, method)(Protocol, "a\0b"))


# Connections.


@pytest.mark.parametrize("kind", [str, os.fsencode, pathlib.Path])
def test_connection(loop, path, kind):
    async def main():
        protocols = []

        def factory():
            protocols.append(Protocol())
            return protocols[-1]

        async with await loop.create_unix_server(factory, kind(path)) as server:
            assert server.sockets[0].getsockname() == path
            transport, protocol = await loop.create_unix_connection(Protocol, kind(path))
            assert transport.get_extra_info("peername") == path
            while not protocols:
                await asyncio.sleep(0)
            transport.close()
            assert await protocol.lost is None
            assert await protocols[0].lost is None

    loop.run_until_complete(main())


@pytest.mark.parametrize("kind", [str, bytes])
def test_abstract_name(loop, kind):
    name = abstract_name(kind)

    async def main():
        protocols = []

        def factory():
            protocols.append(Protocol())
            return protocols[-1]

        async with await loop.create_unix_server(factory, name) as server:
            assert os.fsencode(server.sockets[0].getsockname()) == os.fsencode(name)
            transport, protocol = await loop.create_unix_connection(Protocol, name)
            while not protocols:
                await asyncio.sleep(0)
            transport.close()
            await protocol.lost
            await protocols[0].lost

    loop.run_until_complete(main())


def test_given_sockets(loop):
    async def main():
        ours, theirs = socket.socketpair()
        with theirs:
            transport, protocol = await loop.create_unix_connection(Protocol, sock=ours)
            transport.close()
            await protocol.lost
            assert theirs.recv(1) == b""

    loop.run_until_complete(main())


def test_nobody_listens(loop, path):
    with pytest.raises(FileNotFoundError):
        loop.run_until_complete(loop.create_unix_connection(Protocol, path))
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(path)
        with pytest.raises(ConnectionRefusedError):
            loop.run_until_complete(loop.create_unix_connection(Protocol, path))


def test_cancelled_while_connecting(loop, path):
    async def main():
        sockets = []

        async def sock_connect(sock, address):
            sockets.append(sock)
            await loop.create_future()

        loop.sock_connect = sock_connect
        task = loop.create_task(loop.create_unix_connection(Protocol, path))
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert [sock.fileno() for sock in sockets] == [-1]

    loop.run_until_complete(main())


def test_factory_that_raises(own, path):
    async def main():
        def factory():
            raise ZeroDivisionError

        ours, theirs = socket.socketpair()
        with theirs:
            with pytest.raises(ZeroDivisionError):
                await own.create_unix_connection(factory, sock=ours)
            assert theirs.recv(1) == b""

    own.run_until_complete(main())


# Files.


def test_stale_socket_is_replaced(loop, path):
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(path)

    async def main():
        async with await loop.create_unix_server(Protocol, path):
            assert os.path.exists(path)

    loop.run_until_complete(main())


def test_other_files_are_not_replaced(loop, path):
    pathlib.Path(path).write_text("precious")
    with pytest.raises(OSError, match=f"Address '{path}' is already in use") as info:
        loop.run_until_complete(loop.create_unix_server(Protocol, path))
    assert info.value.errno == errno.EADDRINUSE
    assert pathlib.Path(path).read_text() == "precious"


def test_no_directory(loop, path):
    with pytest.raises(FileNotFoundError):
        loop.run_until_complete(loop.create_unix_server(Protocol, f"{path}/socket"))


@pytest.mark.parametrize("given", ["path", "sock"])
def test_file_is_removed(own, path, given):
    async def main():
        if given == "path":
            server = await own.create_unix_server(Protocol, path, cleanup_socket=True)
        else:
            sock = socket.socket(socket.AF_UNIX)
            sock.bind(path)
            server = await own.create_unix_server(Protocol, sock=sock, cleanup_socket=True)
        server.close()
        assert not os.path.exists(path)
        assert own._unix_server_sockets == {}
        await server.wait_closed()

    own.run_until_complete(main())


def test_file_is_removed_by_default_as_by_the_stdlib(loop, path):
    """Before 3.13 programs do it, and that must not fail."""

    async def main():
        server = await loop.create_unix_server(Protocol, path)
        server.close()
        await server.wait_closed()

    loop.run_until_complete(main())
    assert os.path.exists(path) == (sys.version_info < (3, 13))


def test_file_is_kept(own, path):
    async def main():
        server = await own.create_unix_server(Protocol, path, cleanup_socket=False)
        server.close()
        assert os.path.exists(path)
        await server.wait_closed()

    own.run_until_complete(main())


def test_file_of_somebody_else_is_kept(own, path):
    async def main():
        server = await own.create_unix_server(Protocol, path, cleanup_socket=True)
        other = await own.create_unix_server(Protocol, path, cleanup_socket=True)
        server.close()
        assert os.path.exists(path)
        other.close()
        assert not os.path.exists(path)

    own.run_until_complete(main())


def test_file_is_gone_already(own, path):
    async def main():
        server = await own.create_unix_server(Protocol, path, cleanup_socket=True)
        os.unlink(path)
        server.close()
        await server.wait_closed()

    own.run_until_complete(main())


def test_socket_is_closed_already(own, path):
    async def main():
        server = await own.create_unix_server(Protocol, path, cleanup_socket=True)
        own.remove_reader(server._sockets[0])
        server._sockets[0].close()
        server.close()
        assert own._unix_server_sockets == {}
        await server.wait_closed()

    own.run_until_complete(main())


def test_cancelled_when_it_serves(own, path):
    """A server that nobody gets is closed, and its file removed."""

    async def main():
        coro = own.create_unix_server(Protocol, path, cleanup_socket=True)
        assert coro.send(None) is None
        assert os.path.exists(path)
        with pytest.raises(asyncio.CancelledError):
            coro.throw(asyncio.CancelledError())
        assert not os.path.exists(path)

    own.run_until_complete(main())

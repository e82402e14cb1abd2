"""Connections: looking up, trying addresses one after the other or in a race, and making transport and protocol."""

import asyncio
import errno
import gc
import socket
import ssl
import sys

import pytest

import aioxide

LOCAL = ("127.0.0.1", 0)


@pytest.fixture
def own(loop):
    """A loop of aioxide's: for what the stdlib has later or not at all."""
    if not isinstance(loop, aioxide.Loop):
        pytest.skip("the stdlib of some or all versions does it otherwise")
    return loop


@pytest.fixture
def listening():
    """A listening socket."""
    with socket.create_server(LOCAL) as sock:
        yield sock


@pytest.fixture
def sockets(monkeypatch):
    """The sockets that the loop made."""
    made = []

    class Recorded(socket.socket):
        def __init__(self, *args, **kwargs):
            super().__init__(*args, **kwargs)
            made.append(self)

    class Module:
        socket = Recorded

        def __getattr__(self, name):
            return getattr(socket, name)

    monkeypatch.setattr(asyncio.base_events, "socket", Module())
    return made


class Protocol(asyncio.Protocol):
    """A protocol that tells when its connection is gone."""

    def __init__(self):
        self.lost = asyncio.get_running_loop().create_future()

    def connection_lost(self, exc):
        self.lost.set_result(exc)


def info(address, family=socket.AF_INET):
    """An entry of getaddrinfo."""
    return (family, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", address)


def resolve(loop, *addresses):
    """Has every name resolved to these addresses."""

    async def getaddrinfo(*args, **kwargs):
        return [info(address) if len(address) == 2 else address for address in addresses]

    loop.getaddrinfo = getaddrinfo


async def close(transport, protocol):
    """Closes a connection."""
    transport.close()
    await protocol.lost


async def turns(count=5):
    """Lets others run."""
    for _ in range(count):
        await asyncio.sleep(0)


# Arguments.


@pytest.mark.parametrize(
    ("kwargs", "error", "text"),
    [
        ({}, ValueError, "host and port was not specified and no sock specified"),
        ({"host": "x", "sock": 1}, ValueError, "host/port and sock can not be specified at the same time"),
        ({"port": 1, "sock": 1}, ValueError, "host/port and sock can not be specified at the same time"),
        ({"server_hostname": ""}, ValueError, "server_hostname is only meaningful with ssl"),
        ({"ssl": True, "port": 1}, ValueError, "You must set server_hostname when using ssl without a host"),
        ({"ssl_handshake_timeout": 1}, ValueError, "ssl_handshake_timeout is only meaningful with ssl"),
        ({"ssl_shutdown_timeout": 1}, ValueError, "ssl_shutdown_timeout is only meaningful with ssl"),
    ],
)
def test_arguments_that_are_refused(loop, kwargs, error, text):
    with pytest.raises(error, match=f"^{text}$"):
        loop.run_until_complete(loop.create_connection(Protocol, **kwargs))


def test_sockets_that_are_refused(loop):
    with socket.socket(type=socket.SOCK_DGRAM) as sock:
        with pytest.raises(ValueError, match=r"^A Stream Socket was expected, got <socket"):
            loop.run_until_complete(loop.create_connection(Protocol, sock=sock))
        with pytest.raises(ValueError, match=r"^A Stream Socket was expected, got <socket"):
            loop.run_until_complete(loop.connect_accepted_socket(Protocol, sock))
    context = ssl.create_default_context()
    context.check_hostname = False
    with context.wrap_socket(socket.socket()) as sock:
        for coro in (
            loop.create_connection(Protocol, sock=sock),
            loop.connect_accepted_socket(Protocol, sock),
            loop.create_server(Protocol, sock=sock),
        ):
            with pytest.raises(TypeError, match=r"^Socket cannot be of type SSLSocket$"):
                loop.run_until_complete(coro)


@pytest.mark.parametrize(
    ("kwargs", "text"),
    [
        ({"ssl_handshake_timeout": 1}, "ssl_handshake_timeout is only meaningful with ssl"),
        ({"ssl_shutdown_timeout": 1}, "ssl_shutdown_timeout is only meaningful with ssl"),
    ],
)
def test_accepted_socket_arguments(loop, kwargs, text):
    with socket.socket() as sock, pytest.raises(ValueError, match=f"^{text}$"):
        loop.run_until_complete(loop.connect_accepted_socket(Protocol, sock, **kwargs))


@pytest.mark.parametrize("local_addr", [(), ("127.0.0.1",)])
def test_local_address_that_is_too_short(loop, listening, local_addr):
    coro = loop.create_connection(Protocol, *listening.getsockname(), local_addr=local_addr)
    with pytest.raises(ValueError, match=r"^not enough values to unpack \(expected 2, got [01]\)$"):
        loop.run_until_complete(coro)


# Connecting.


def test_connection(loop, listening):
    async def main():
        transport, protocol = await loop.create_connection(Protocol, *listening.getsockname())
        conn, address = listening.accept()
        with conn:
            assert type(protocol) is Protocol
            assert transport.get_protocol() is protocol
            assert transport.get_extra_info("peername") == listening.getsockname()
            assert transport.get_extra_info("sockname") == address
            await close(transport, protocol)

    loop.run_until_complete(main())


def test_connected_socket(loop, listening):
    async def main():
        transport, protocol = await loop.create_connection(
            Protocol, sock=socket.create_connection(listening.getsockname())
        )
        conn, _ = listening.accept()
        _, other = await loop.connect_accepted_socket(Protocol, conn)
        await close(transport, protocol)
        assert await other.lost is None

    loop.run_until_complete(main())


def test_descriptor_of_a_transport(loop, listening):
    """Nobody else may watch it, and it gets no second transport."""

    async def main():
        transport, protocol = await loop.create_connection(Protocol, *listening.getsockname())
        sock = transport.get_extra_info("socket")
        fd = sock.fileno()
        for method in (loop.add_reader, loop.add_writer):
            with pytest.raises(RuntimeError, match=f"^File descriptor {fd} is used by transport <"):
                method(fd, int)
        for method in (loop.remove_reader, loop.remove_writer):
            with pytest.raises(RuntimeError, match=r"^File descriptor <.*> is used by transport <"):
                method(sock)
        await close(transport, protocol)
        assert loop.remove_reader(fd) is False
        listening.accept()[0].close()

    loop.run_until_complete(main())


def test_overridden_methods_are_called(loop, listening):
    async def main():
        resolve(loop, listening.getsockname())
        connect, called = loop.sock_connect, []

        async def sock_connect(sock, address):
            called.append(address)
            await connect(sock, address)

        loop.sock_connect = sock_connect
        connection = await loop.create_connection(Protocol, "name", 1)
        assert called == [listening.getsockname()]
        await close(*connection)
        listening.accept()[0].close()

    loop.run_until_complete(main())


def test_look_up(loop):
    """What it is asked for, and what happens if it finds nothing."""
    asked = []

    async def getaddrinfo(host, port, **kwargs):
        asked.append((host, port, kwargs))
        return [] if len(asked) % 2 else [info(("127.0.0.1", 1))]

    loop.getaddrinfo = getaddrinfo
    with pytest.raises(OSError, match=r"^getaddrinfo\(\) returned empty list$"):
        loop.run_until_complete(loop.create_connection(Protocol, "name", 1, family=2, proto=6, flags=4))
    keywords = {"family": 2, "type": socket.SOCK_STREAM, "proto": 6, "flags": 4}
    assert asked == [("name", 1, keywords)]
    asked.append(None)
    asked.append(None)
    with pytest.raises(OSError, match=r"^getaddrinfo\(\) returned empty list$"):
        loop.run_until_complete(loop.create_connection(Protocol, "name", 1, local_addr=("local", 2)))
    assert [entry[:2] for entry in asked[3:]] == [("name", 1), ("local", 2)]


# Failures.


def test_refused(loop, sockets):
    with socket.socket() as sock:
        sock.bind(LOCAL)
        with pytest.raises(ConnectionRefusedError, match="Connect call failed"):
            loop.run_until_complete(loop.create_connection(Protocol, *sock.getsockname()))
    assert [sock.fileno() for sock in sockets] == [-1]


def failing(loop, errors):
    """Has connecting fail with these errors, by address."""
    tried = []

    async def sock_connect(sock, address):
        tried.append(address[0])
        error = errors.get(address[0])
        if error is not None:
            raise error

    loop.sock_connect = sock_connect
    return tried


def test_several_errors(loop, sockets):
    resolve(loop, ("1.0.0.1", 1), ("1.0.0.2", 1))
    tried = failing(loop, {"1.0.0.1": OSError("one"), "1.0.0.2": OSError("two")})
    with pytest.raises(OSError, match=r"^Multiple exceptions: one, two$"):
        loop.run_until_complete(loop.create_connection(Protocol, "name", 1))
    assert tried == ["1.0.0.1", "1.0.0.2"]
    assert [sock.fileno() for sock in sockets] == [-1, -1]


def test_the_same_error_several_times(loop):
    resolve(loop, ("1.0.0.1", 1), ("1.0.0.2", 1))
    errors = [OSError(1, "same"), OSError(1, "same")]
    failing(loop, dict(zip(("1.0.0.1", "1.0.0.2"), errors, strict=True)))
    with pytest.raises(OSError, match="same") as caught:
        loop.run_until_complete(loop.create_connection(Protocol, "name", 1))
    assert caught.value is errors[0]


def test_all_errors(own):
    resolve(own, ("1.0.0.1", 1), ("1.0.0.2", 1))
    errors = {"1.0.0.1": OSError("one"), "1.0.0.2": OSError("two")}
    failing(own, errors)
    with pytest.raises(ExceptionGroup, match="create_connection failed") as caught:
        own.run_until_complete(own.create_connection(Protocol, "name", 1, all_errors=True))
    assert caught.value.exceptions == tuple(errors.values())


def test_error_of_another_kind_ends_it(loop, sockets):
    resolve(loop, ("1.0.0.1", 1), ("1.0.0.2", 1))
    tried = failing(loop, {"1.0.0.1": ZeroDivisionError()})
    with pytest.raises(ZeroDivisionError):
        loop.run_until_complete(loop.create_connection(Protocol, "name", 1))
    assert tried == ["1.0.0.1"]
    assert [sock.fileno() for sock in sockets] == [-1]


def test_failures_make_no_cycle(own):
    resolve(own, ("1.0.0.1", 1), ("1.0.0.2", 1))

    class Error(OSError):
        pass

    async def sock_connect(sock, address):
        raise Error(address[0])

    own.sock_connect = sock_connect

    async def main():
        with pytest.raises(OSError, match="Multiple"):
            await own.create_connection(Protocol, "name", 1)

    gc.collect()
    gc.disable()
    try:
        own.run_until_complete(main())
        assert not [found for found in gc.get_objects() if type(found) is Error]
    finally:
        gc.enable()


@pytest.mark.parametrize("error", [ZeroDivisionError, SystemExit, asyncio.CancelledError])
def test_factory_that_raises(own, listening, sockets, error):
    """The socket is closed."""

    async def main():
        def factory():
            raise error

        with pytest.raises(error):
            await own.create_connection(factory, *listening.getsockname())
        mine = socket.create_connection(listening.getsockname())
        with pytest.raises(error):
            await own.create_connection(factory, sock=mine)
        assert [sock.fileno() for sock in [*sockets, mine]] == [-1, -1]
        conn, _ = listening.accept()
        with pytest.raises(error):
            await own.connect_accepted_socket(factory, conn)
        assert conn.fileno() == -1

    own.run_until_complete(main())


# Where from.


def test_local_address(loop, listening):
    async def main():
        connection = await loop.create_connection(Protocol, *listening.getsockname(), local_addr=("127.0.0.3", 0))
        assert connection[0].get_extra_info("sockname")[0] == "127.0.0.3"
        await close(*connection)
        listening.accept()[0].close()

    loop.run_until_complete(main())


def test_several_local_addresses(own, listening):
    """The first that can be had is taken; those of another family do not count."""

    async def main():
        host = listening.getsockname()

        async def getaddrinfo(name, port, **kwargs):
            return [info(("::1", 0, 0, 0), socket.AF_INET6), info(("203.0.113.1", 0)), info(("127.0.0.4", 0))]

        own.getaddrinfo = getaddrinfo
        connection = await own.create_connection(Protocol, *host, local_addr=("mine", 0))
        assert connection[0].get_extra_info("sockname")[0] == "127.0.0.4"
        await close(*connection)
        listening.accept()[0].close()

    own.run_until_complete(main())


def test_no_local_address_of_the_family(own, listening, sockets):
    own.getaddrinfo = None
    coro = own.create_connection(Protocol, *listening.getsockname(), local_addr=("::1", 0))
    with pytest.raises(OSError, match=r"^no matching local address with family=<AddressFamily.AF_INET: 2> found$"):
        own.run_until_complete(coro)
    assert [sock.fileno() for sock in sockets] == [-1]


def test_local_addresses_that_cannot_be_had(own, listening, sockets):
    async def getaddrinfo(name, port, **kwargs):
        return [info(("203.0.113.1", 0)), info(("203.0.113.2", 0))]

    own.getaddrinfo = getaddrinfo
    coro = own.create_connection(Protocol, *listening.getsockname(), local_addr=("mine", 0), all_errors=True)
    with pytest.raises(ExceptionGroup) as caught:
        own.run_until_complete(coro)
    texts = [str(error) for error in caught.value.exceptions]
    assert [error.errno for error in caught.value.exceptions] == [errno.EADDRNOTAVAIL] * 2
    for number, text in enumerate(texts, 1):
        assert f"error while attempting to bind on address ('203.0.113.{number}', 0): [errno " in text
    assert [sock.fileno() for sock in sockets] == [-1]


# The race.


def race(loop, *names):
    """Has connecting wait for a future for each of these addresses; the order of attempts is in the list."""
    tried = []
    futures = {name: loop.create_future() for name in names}

    async def sock_connect(sock, address):
        tried.append(address[0])
        await futures[address[0]]

    loop.sock_connect = sock_connect
    resolve(loop, *[(name, 1) for name in names])
    return tried, futures


def test_race_is_won(own, sockets):
    async def main():
        tried, futures = race(own, "1.0.0.1", "1.0.0.2", "1.0.0.3")
        task = own.create_task(own.create_connection(Protocol, "name", 1, happy_eyeballs_delay=0))
        while len(tried) < 3:
            await asyncio.sleep(0)
        assert tried == ["1.0.0.1", "1.0.0.2", "1.0.0.3"]
        futures["1.0.0.2"].set_result(None)
        transport, protocol = await task
        assert transport.get_extra_info("socket").fileno() == sockets[1].fileno()
        assert [sock.fileno() == -1 for sock in sockets] == [True, False, True]
        transport.abort()
        await protocol.lost

    own.run_until_complete(main())


def test_failed_attempt_starts_the_next_one_at_once(own):
    async def main():
        tried, futures = race(own, "1.0.0.1", "1.0.0.2")
        futures["1.0.0.1"].set_exception(OSError("one"))
        futures["1.0.0.2"].set_exception(OSError("two"))
        with pytest.raises(OSError, match=r"^Multiple exceptions: one, two$"):
            await own.create_connection(Protocol, "name", 1, happy_eyeballs_delay=3600)
        assert tried == ["1.0.0.1", "1.0.0.2"]

    own.run_until_complete(main())


def test_two_connect_in_one_turn(own, sockets):
    """One of them is the winner, the other one is closed."""

    async def main():
        tried, futures = race(own, "1.0.0.1", "1.0.0.2")
        task = own.create_task(own.create_connection(Protocol, "name", 1, happy_eyeballs_delay=0))
        while len(tried) < 2:
            await asyncio.sleep(0)
        for future in futures.values():
            future.set_result(None)
        transport, protocol = await task
        assert sorted(sock.fileno() == -1 for sock in sockets) == [False, True]
        transport.abort()
        await protocol.lost

    own.run_until_complete(main())


@pytest.mark.parametrize("waits", range(6))
def test_race_is_cancelled(own, sockets, waits):
    """However far it is, no socket is left: also when one was connected in the same turn."""

    async def main():
        tried, futures = race(own, "1.0.0.1", "1.0.0.2")
        task = own.create_task(own.create_connection(Protocol, "name", 1, happy_eyeballs_delay=0))
        while len(tried) < 2:
            await asyncio.sleep(0)
        futures["1.0.0.1"].set_result(None)
        await turns(waits)
        task.cancel()
        try:
            transport, protocol = await task
        except asyncio.CancelledError:
            await turns()
        else:
            transport.abort()
            await protocol.lost
        assert [sock.fileno() for sock in sockets] == [-1, -1]

    own.run_until_complete(main())


def test_nothing_collected(own):
    """A race without contestants."""

    async def main():
        async def getaddrinfo(*args, **kwargs):
            return Nothing([None])

        class Nothing(list):
            def __iter__(self):
                return iter(())

        own.getaddrinfo = getaddrinfo
        for delay in (None, 0):
            with pytest.raises(TimeoutError, match=r"^create_connection failed$"):
                await own.create_connection(Protocol, "name", 1, happy_eyeballs_delay=delay)

    own.run_until_complete(main())


@pytest.mark.parametrize(
    ("interleave", "order"),
    [
        (None, ["1.0.0.1", "1.0.0.2", "1.0.0.3", "::1", "::2"]),
        (1, ["1.0.0.1", "::1", "1.0.0.2", "::2", "1.0.0.3"]),
        (2, ["1.0.0.1", "1.0.0.2", "::1", "1.0.0.3", "::2"]),
    ],
)
def test_interleave(loop, interleave, order):
    async def getaddrinfo(*args, **kwargs):
        return [
            *[info((f"1.0.0.{number}", 1)) for number in (1, 2, 3)],
            *[info((f"::{number}", 1, 0, 0), socket.AF_INET6) for number in (1, 2)],
        ]

    loop.getaddrinfo = getaddrinfo
    tried = failing(loop, {name: OSError(name) for name in order})
    with pytest.raises(OSError, match="Multiple"):
        loop.run_until_complete(loop.create_connection(Protocol, "name", 1, interleave=interleave))
    assert tried == order


# Cancellation.


def test_cancelled_while_looking_up(loop, sockets):
    async def main():
        asked = []

        async def getaddrinfo(host, *args, **kwargs):
            asked.append(host)
            if len(asked) != 2:
                await loop.create_future()
            return [info(("127.0.0.1", 1))]

        loop.getaddrinfo = getaddrinfo
        for local_addr in (None, ("local", 0)):
            task = loop.create_task(loop.create_connection(Protocol, "name", 1, local_addr=local_addr))
            await turns()
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
        assert asked == ["name", "name", "local"]
        assert sockets == []

    loop.run_until_complete(main())


def test_cancelled_while_connecting(loop, sockets):
    async def main():
        tried, _ = race(loop, "1.0.0.1", "1.0.0.2")
        task = loop.create_task(loop.create_connection(Protocol, "name", 1))
        await turns()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert tried == ["1.0.0.1"]
        assert [sock.fileno() for sock in sockets] == [-1]

    loop.run_until_complete(main())


@pytest.mark.parametrize("end", ["cancel", "close"])
def test_ended_while_the_protocol_is_told(loop, listening, end):
    """The transport is closed."""

    async def main():
        protocols = []

        def factory():
            protocols.append(Protocol())
            return protocols[-1]

        coro = loop.create_connection(factory, sock=socket.create_connection(listening.getsockname()))
        if end == "close":
            coro.send(None)
            coro.close()
        else:
            task = loop.create_task(coro)
            await asyncio.sleep(0)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
        assert await protocols[0].lost is None
        listening.accept()[0].close()

    loop.run_until_complete(main())


# TLS: its arguments. What it does is tested by CPython's own tests.


@pytest.mark.parametrize("name", ["ssl_handshake_timeout", "ssl_shutdown_timeout"])
@pytest.mark.parametrize("value", [0, -1])
def test_time_limits_of_tls(own, listening, sockets, name, value):
    context = ssl.create_default_context()
    coro = own.create_connection(Protocol, *listening.getsockname(), ssl=context, **{name: value})
    with pytest.raises(ValueError, match=f"^{name} should be a positive number, got {value}$"):
        own.run_until_complete(coro)
    assert [sock.fileno() for sock in sockets] == [-1]


def test_handshake_that_fails(loop, listening):
    async def main():
        task = loop.create_task(
            loop.create_connection(Protocol, *listening.getsockname(), ssl=True, server_hostname="x")
        )
        listening.setblocking(False)
        accepted = loop.create_future()
        loop.add_reader(listening, accepted.set_result, None)
        await accepted
        loop.remove_reader(listening)
        conn, _ = listening.accept()
        conn.close()
        with pytest.raises((ConnectionResetError, ConnectionAbortedError, ssl.SSLError)):
            await task
        await turns()

    loop.run_until_complete(main())


@pytest.mark.parametrize("sslcontext", [None, True, "context"])
def test_start_tls_needs_a_context(loop, sslcontext):
    with pytest.raises(TypeError, match=r"^sslcontext is expected to be an instance of ssl.SSLContext, got "):
        loop.run_until_complete(loop.start_tls(None, None, sslcontext))


def test_start_tls_needs_a_transport(loop):
    with pytest.raises(TypeError, match=r"^transport 'x' is not supported by start_tls\(\)$"):
        loop.run_until_complete(loop.start_tls("x", None, ssl.create_default_context()))


def test_cancelled_start_tls(loop, listening):
    """The transport is closed, and nothing that was scheduled for it runs any more."""

    async def main():
        transport, protocol = await loop.create_connection(Protocol, *listening.getsockname())
        coro = loop.start_tls(transport, protocol, ssl.create_default_context(), server_hostname="x")
        task = loop.create_task(coro)
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert transport.is_closing()
        await turns()
        listening.accept()[0].close()

    loop.run_until_complete(main())


def test_coroutines_have_asyncios_names(own):
    for name in ("create_connection", "create_server", "start_tls", "connect_accepted_socket"):
        given = {"create_connection": 1, "create_server": 1, "start_tls": 3, "connect_accepted_socket": 2}[name]
        coro = getattr(own, name)(*[None] * given)
        assert coro.__qualname__ == f"BaseEventLoop.{name}"
        coro.close()


def test_signatures_are_those_of_the_newest_python(own):
    if sys.version_info < (3, 15):
        pytest.skip("3.15 is the newest")
    import inspect

    for name in ("create_connection", "create_unix_connection", "create_unix_server", "start_tls"):
        theirs = getattr(asyncio.SelectorEventLoop, name)
        assert str(inspect.signature(getattr(type(own), name))) == str(inspect.signature(theirs))


def test_a_server_in_the_loop_accepts_before_its_client_goes_on(aio, loop):
    """Connecting takes turns even if the kernel is ready at once: whoever closes the server then has a client."""

    async def main():
        accepted = []

        class Protocol(asyncio.Protocol):
            def connection_made(self, transport):
                accepted.append(transport)

        server = await loop.create_server(Protocol, "127.0.0.1", 0)
        address = server.sockets[0].getsockname()
        transport, _ = await loop.create_connection(asyncio.Protocol, *address)
        server.close()
        await asyncio.sleep(0)
        assert len(accepted) == 1
        transport.close()
        accepted[0].close()
        await asyncio.sleep(0)

    loop.run_until_complete(main())

"""TLS with the user's own context: verification, what the context promises, every way in, callbacks, flow control.

What comes of two contexts is what comes of them by hand (`by_hand`): that is what the library `ssl` says. What the
event loop makes of it is written down here. Faults are in test_tls_faults.py, other programs in test_tls_peers.py.
"""

import array
import asyncio
import contextlib
import contextvars
import gc
import hashlib
import io
import logging
import pathlib
import random
import socket
import ssl
import threading
import traceback
import warnings
import weakref

import pytest
import truststore

import aioxide
import tls_certificates
import tls_talk
from tls_certificates import certificates, client_context, server_context
from tls_talk import (
    PATIENCE,
    TLS_1_2,
    TLS_1_3,
    Broken,
    BufferedRecorder,
    Hand,
    Recorder,
    against_hand,
    by_hand,
    connect,
    connected,
    describe,
    needs_exception_of_abort,
    needs_is_closing,
    old_stdlib,
    run,
    turns,
    until,
)

VERSIONS = pytest.mark.parametrize("version", [TLS_1_2, TLS_1_3], ids=["1.2", "1.3"])
PROTOCOLS = pytest.mark.parametrize("kind", [Recorder, BufferedRecorder], ids=["plain", "buffered"])


@pytest.fixture
def loop(aio):
    """A loop of the namespace, not in debug mode."""
    loop = asyncio.SelectorEventLoop() if aio is asyncio else aioxide.new_event_loop()
    yield loop
    loop.close()


@pytest.fixture
def reports(loop):
    """What the loop reports."""
    reports = []

    def handler(_, context):
        # The tracebacks hold what the tests want to see die.
        if (error := context.get("exception")) is not None:
            traceback.clear_frames(error.__traceback__)
        reports.append((context["message"], *describe(error), *sorted(context)))

    loop.set_exception_handler(handler)
    return reports


async def echo_both_ways(client, server, count=1):
    """Each side sends something that the other gets."""
    before = len(client.data), len(server.data)
    for _ in range(count):
        client.transport.write(b"from the client")
        server.transport.write(b"from the server")
    await server.has(before[1] + 15 * count)
    await client.has(before[0] + 15 * count)
    assert bytes(server.data[before[1] :]) == b"from the client" * count
    assert bytes(client.data[before[0] :]) == b"from the server" * count


async def close_both(client, server):
    """The client closes; both are told of an orderly end."""
    client.transport.close()
    await asyncio.wait_for(asyncio.gather(client.lost, server.lost), PATIENCE)
    assert client.error is None
    assert server.error is None


# What two contexts come to.


def without_place(error):
    """The text of an error without the line of CPython where it was made."""
    return str(error).rpartition(" (_ssl.c:")[0]


async def compare(loop, contexts, hostname="localhost"):
    """The outcome of a handshake is the one by hand; returns the errors by hand, the client's first."""
    client, server = by_hand(contexts, hostname)
    if client.error is None and server.error is None:
        async with connected(loop, contexts=contexts, hostname=hostname) as protocols:
            for protocol, hand in zip(protocols, [client, server], strict=True):
                extra = protocol.transport.get_extra_info
                assert extra("peercert") == hand.ssl.getpeercert()
                assert extra("cipher") == hand.ssl.cipher()
                assert extra("compression") == hand.ssl.compression()
                tls = extra("ssl_object")
                assert tls.version() == hand.ssl.version()
                assert tls.selected_alpn_protocol() == hand.ssl.selected_alpn_protocol()
            await echo_both_ways(*protocols)
    else:
        with pytest.raises(Broken) as broken:
            await connect(loop, contexts=contexts, hostname=hostname)
        for found, hand in zip([broken.value.client, broken.value.server], [client, server], strict=True):
            if hand.error is None or hand.error.reason.startswith(("TLSV1", "SSLV3")):
                # CPython closes the connection without the alert that would tell the other side.
                assert describe(found) in [("ConnectionResetError", ""), describe(hand.error)]
            else:
                assert describe(found) == describe(hand.error)
                assert without_place(found) == without_place(hand.error)
        await turns(2)
    return client.error, server.error


VERIFIED = {
    "name": ("server", "localhost", None),
    "another name": ("server", "server.test", None),
    "a wildcard": ("server", "any.wild.test", None),
    "an address": ("server", "127.0.0.1", None),
    "another's": ("other", "localhost", 62),
    "two levels of a wildcard": ("server", "a.b.wild.test", 62),
    "another address": ("server", "127.0.0.2", 64),
    "expired": ("expired", "localhost", 10),
    "not valid yet": ("early", "localhost", 9),
    "self-signed": ("self_signed", "localhost", 18),
    "unknown authority": ("strange", "localhost", 20),
}


@VERSIONS
@pytest.mark.parametrize(("name", "hostname", "code"), VERIFIED.values(), ids=VERIFIED)
def test_verification(loop, reports, name, hostname, code, version):
    contexts = client_context(version=version), server_context(name)
    error, _ = run(loop, compare(loop, contexts, hostname))
    if code is None:
        assert error is None
    else:
        assert isinstance(error, ssl.SSLCertVerificationError)
        assert error.verify_code == code
        assert error.verify_message
    assert reports == []


def test_message_of_a_wrong_name(loop):
    with pytest.raises(Broken) as broken:
        run(loop, connect(loop, contexts=(client_context(), server_context("other"))))
    error = broken.value.client
    assert type(error) is ssl.SSLCertVerificationError
    assert error.verify_code == 62
    assert error.verify_message == "Hostname mismatch, certificate is not valid for 'localhost'."
    assert error.reason == "CERTIFICATE_VERIFY_FAILED"
    assert error.library == "SSL"
    assert f"certificate verify failed: {error.verify_message}" in str(error)


def test_nothing_is_verified_if_not_wanted(loop):
    for verify in (False, True):
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.load_verify_locations(certificates().authority)
        context.check_hostname = False
        if not verify:
            context.verify_mode = ssl.CERT_NONE
        run(loop, compare(loop, (context, server_context("other")), "nobody.test"))
        error, _ = run(loop, compare(loop, (context, server_context("expired")), "nobody.test"))
        assert (error is not None) is verify


def test_optional_hostname_check_without_a_name(loop):
    """An empty name is none; a context that checks names wants one."""
    context = client_context()
    context.check_hostname = False

    async def main():
        async with connected(loop, hostname="", contexts=(context, server_context())) as (client, server):
            assert client.transport.get_extra_info("ssl_object").server_hostname is None
            await echo_both_ways(client, server)
        near, far = socket.socketpair()
        with near, far, pytest.raises(ValueError, match=r"^check_hostname requires server_hostname$"):
            await loop.create_connection(Recorder, sock=near, ssl=client_context(), server_hostname="")

    run(loop, main())


@VERSIONS
@pytest.mark.parametrize("ask", [ssl.CERT_NONE, ssl.CERT_OPTIONAL, ssl.CERT_REQUIRED])
@pytest.mark.parametrize("given", [None, "client", "strange"])
def test_certificates_of_clients(loop, reports, ask, given, version):
    """With TLS 1.3 the client learns after its own handshake that it is not welcome."""

    async def main():
        contexts = client_context(given, version=version), server_context(ask=ask)
        client, server = by_hand(contexts)
        welcome = ask == ssl.CERT_NONE or given == "client" or (given is None and ask == ssl.CERT_OPTIONAL)
        assert (server.error is None) is welcome
        if welcome or version == TLS_1_2:
            await compare(loop, contexts)
            if welcome:
                found = server.ssl.getpeercert()
                assert bool(found) is (given == "client" and ask != ssl.CERT_NONE)
            return
        near, far = socket.socketpair()
        own, other = await asyncio.gather(
            loop.create_connection(Recorder, sock=near, ssl=contexts[0], server_hostname="localhost"),
            loop.connect_accepted_socket(Recorder, far, ssl=contexts[1]),
            return_exceptions=True,
        )
        assert describe(other) == describe(server.error)
        protocol = own[1]
        await asyncio.wait_for(protocol.lost, PATIENCE)
        if protocol.error is None:
            # CPython's server closes without an alert.
            assert protocol.names == ["connection_made", "eof_received", "connection_lost"]
        else:
            assert describe(protocol.error) == describe(client.error)
            assert protocol.names == ["connection_made", "connection_lost"]

    run(loop, main())
    assert reports == []


def test_subject_of_a_client(loop):
    async def main():
        contexts = client_context("client"), server_context(ask=ssl.CERT_REQUIRED)
        async with connected(loop, contexts=contexts) as (client, server):
            subject = server.transport.get_extra_info("peercert")["subject"]
            assert (("commonName", "a client"),) in subject
            names = client.transport.get_extra_info("peercert")["subjectAltName"]
            assert ("DNS", "localhost") in names
            binary = server.transport.get_extra_info("ssl_object").getpeercert(True)
            assert ssl.DER_cert_to_PEM_cert(binary) in pathlib.Path(certificates().client).read_text()

    run(loop, main())


@pytest.mark.parametrize(
    ("offered", "taken", "chosen"),
    [
        (["h2", "http/1.1"], ["http/1.1"], "http/1.1"),
        (["h2", "http/1.1"], ["http/1.1", "h2"], "http/1.1"),
        (["a"], ["b"], None),
        (["a"], None, None),
        (None, ["b"], None),
    ],
)
def test_alpn(loop, offered, taken, chosen):
    contexts = client_context(), server_context()
    for context, names in zip(contexts, [offered, taken], strict=True):
        if names is not None:
            context.set_alpn_protocols(names)

    async def main():
        async with connected(loop, contexts=contexts) as protocols:
            for protocol in protocols:
                assert protocol.transport.get_extra_info("ssl_object").selected_alpn_protocol() == chosen

    run(loop, main())


@VERSIONS
def test_ciphers(loop, version):
    contexts = client_context(version=version), server_context()
    contexts[0].set_ciphers("ECDHE-ECDSA-AES128-GCM-SHA256")
    contexts[1].set_ciphers("ECDHE-ECDSA-AES128-GCM-SHA256:ECDHE-ECDSA-CHACHA20-POLY1305")
    assert run(loop, compare(loop, contexts)) == (None, None)
    if version == TLS_1_2:
        contexts[0].set_ciphers("ECDHE-ECDSA-AES256-GCM-SHA384")
        client, server = run(loop, compare(loop, contexts))
        assert server.reason == "NO_SHARED_CIPHER"
        assert "HANDSHAKE_FAILURE" in client.reason


@pytest.mark.parametrize("newer", ["client", "server"])
def test_versions_do_not_match(loop, newer):
    client, server = (TLS_1_3, TLS_1_2) if newer == "client" else (TLS_1_2, TLS_1_3)
    contexts = client_context(version=client), server_context(version=server)
    errors = run(loop, compare(loop, contexts))
    assert all(isinstance(error, ssl.SSLError) for error in errors)


def test_group_of_key_exchange(loop):
    """A hello that has to be said again."""
    contexts = client_context(version=TLS_1_3), server_context()
    contexts[1].set_ecdh_curve("secp384r1")
    assert run(loop, compare(loop, contexts)) == (None, None)


@pytest.mark.parametrize("how", ["text", "bytes", "callable"])
def test_encrypted_key(loop, how):
    secret = tls_certificates.PASSWORD
    password = {"text": secret, "bytes": secret.encode(), "callable": lambda: secret}[how]
    contexts = client_context(), server_context("encrypted", password=password)
    assert run(loop, compare(loop, contexts)) == (None, None)


@pytest.mark.parametrize("side", ["client", "server"])
def test_key_log(loop, side, tmp_path):
    path = tmp_path / "keys"
    contexts = client_context(version=TLS_1_3), server_context()
    contexts[side == "server"].keylog_filename = str(path)

    async def main():
        async with connected(loop, contexts=contexts) as protocols:
            await echo_both_ways(*protocols)

    run(loop, main())
    labels = {line.split()[0] for line in path.read_text().splitlines() if not line.startswith("#")}
    assert {"CLIENT_TRAFFIC_SECRET_0", "SERVER_TRAFFIC_SECRET_0"} <= labels
    contexts[side == "server"].keylog_filename = None


# The server's choice by name.


@VERSIONS
def test_callback_swaps_the_context(loop, version):
    seen = []
    chosen = server_context("other")
    original = server_context("server")

    def choose(tls, name, context):
        seen.append((isinstance(tls, ssl.SSLObject), name, context is original, tls.server_side))
        tls.context = chosen

    original.sni_callback = choose

    async def main():
        contexts = client_context(version=version), original
        async with connected(loop, contexts=contexts, hostname="other.test") as (client, server):
            assert ("DNS", "other.test") in client.transport.get_extra_info("peercert")["subjectAltName"]
            extra = server.transport.get_extra_info
            assert extra("ssl_object").context is chosen
            assert extra("sslcontext") is original
            await echo_both_ways(client, server)

    run(loop, main())
    assert seen == [(True, "other.test", True, True)]
    original.sni_callback = None


def test_callback_gets_the_object_of_the_connection(loop):
    seen = []
    context = server_context()
    context.sni_callback = lambda tls, name, context: seen.append(tls)

    async def main():
        async with connected(loop, contexts=(client_context(), context)) as (_, server):
            assert seen == [server.transport.get_extra_info("ssl_object")]
            assert seen[0] is server.transport.get_extra_info("ssl_object")
        seen.clear()

    run(loop, main())
    context.sni_callback = None


@VERSIONS
@pytest.mark.parametrize("alert", ["ALERT_DESCRIPTION_UNRECOGNIZED_NAME", "ALERT_DESCRIPTION_ACCESS_DENIED"])
def test_callback_returns_an_alert(loop, alert, version):
    context = server_context()
    context.sni_callback = lambda tls, name, context: getattr(ssl, alert)
    client, server = run(loop, compare(loop, (client_context(version=version), context)))
    assert server.reason == "CALLBACK_FAILED"
    assert alert.removeprefix("ALERT_DESCRIPTION_") in client.reason
    context.sni_callback = None


@pytest.mark.parametrize("how", ["raises", "returns nonsense"])
def test_callback_fails(loop, how):
    """Python reports it; the handshake fails."""
    context = server_context()

    def fail(tls, name, context):
        if how == "raises":
            raise LookupError(name)
        return "nonsense"

    context.sni_callback = fail
    with pytest.MonkeyPatch.context() as patch:
        noted = []
        patch.setattr("sys.unraisablehook", lambda args: noted.append(args.exc_type))
        client, server = run(loop, compare(loop, (client_context(), context)))
        kind = LookupError if how == "raises" else TypeError
        assert noted == [kind, kind]
    assert server.reason == "CALLBACK_FAILED"
    assert isinstance(client, ssl.SSLError)
    context.sni_callback = None


def test_no_name_for_the_callback(loop):
    seen = []
    contexts = client_context(), server_context()
    contexts[0].check_hostname = False
    contexts[1].sni_callback = lambda tls, name, context: seen.append(name)

    async def main():
        for hostname in ("", "127.0.0.1"):
            async with connected(loop, contexts=contexts, hostname=hostname) as protocols:
                await echo_both_ways(*protocols)

    run(loop, main())
    assert seen == [None, None]
    contexts[1].sni_callback = None


# Subclasses of what `ssl` has.


class CountingObject(ssl.SSLObject):
    """Notes which of its methods are called."""

    calls: list = []

    def do_handshake(self):
        CountingObject.calls.append("do_handshake")
        return super().do_handshake()

    def read(self, *arguments):
        CountingObject.calls.append("read")
        return super().read(*arguments)

    def write(self, data):
        CountingObject.calls.append("write")
        return super().write(data)

    def unwrap(self):
        CountingObject.calls.append("unwrap")
        return super().unwrap()

    def getpeercert(self, *arguments):
        CountingObject.calls.append("getpeercert")
        return super().getpeercert(*arguments)

    def cipher(self):
        CountingObject.calls.append("cipher")
        return ("a cipher", "TLSv9", 1)

    def compression(self):
        CountingObject.calls.append("compression")
        return "a compression"


@PROTOCOLS
@pytest.mark.parametrize("side", ["client", "server"])
def test_methods_of_an_object_class_are_called(loop, kind, side):
    contexts = client_context(), server_context()
    contexts[side == "server"].sslobject_class = CountingObject
    CountingObject.calls = []

    async def main():
        client, server = await connect(loop, kind, kind, contexts=contexts)
        protocol = client if side == "client" else server
        extra = protocol.transport.get_extra_info
        assert type(extra("ssl_object")) is CountingObject
        assert extra("cipher") == ("a cipher", "TLSv9", 1)
        assert extra("compression") == "a compression"
        await echo_both_ways(client, server)
        await close_both(client, server)

    run(loop, main())
    names = {"do_handshake", "read", "write", "unwrap", "getpeercert", "cipher", "compression"}
    assert set(CountingObject.calls) == names
    assert CountingObject.calls[0] == "do_handshake"
    assert CountingObject.calls.count("write") == 1
    assert CountingObject.calls.count("cipher") == 1


class UpperObject(ssl.SSLObject):
    """Changes what is read."""

    def read(self, length=1024, buffer=None):
        if buffer is None:
            return super().read(length).upper()
        count = super().read(length, buffer)
        buffer[:count] = bytes(buffer[:count]).upper()
        return count


class ThriftyObject(ssl.SSLObject):
    """Writes few bytes at a time."""

    def write(self, data):
        return super().write(bytes(data)[:7])


@PROTOCOLS
def test_an_object_class_changes_the_data(loop, kind):
    contexts = client_context(), server_context()
    contexts[0].sslobject_class = UpperObject
    contexts[1].sslobject_class = ThriftyObject

    async def main():
        async with connected(loop, kind, kind, contexts=contexts) as (client, server):
            server.transport.writelines([b"a sentence of some length", bytearray(b" and another")])
            await client.has(37)
            assert client.data == b"A SENTENCE OF SOME LENGTH AND ANOTHER"

    run(loop, main())


@pytest.mark.parametrize("where", ["do_handshake", "read", "write", "unwrap", "getpeercert"])
@pytest.mark.parametrize("error", [ssl.SSLError, OSError, LookupError])
def test_an_object_class_raises(loop, reports, where, error):
    """It is as if OpenSSL had: the connection is lost with it."""

    def fail(self, *arguments):
        raise error(5, "it fails")

    cls = type("Failing", (ssl.SSLObject,), {where: fail})
    contexts = client_context(), server_context()
    contexts[0].sslobject_class = cls

    async def main():
        near, far = socket.socketpair()
        accepting = asyncio.ensure_future(loop.connect_accepted_socket(Recorder, far, ssl=contexts[1]))
        coroutine = loop.create_connection(Recorder, sock=near, ssl=contexts[0], server_hostname="localhost")
        if where in {"do_handshake", "getpeercert"}:
            with pytest.raises(error):
                await coroutine
            await asyncio.wait([accepting])
            if accepting.exception() is None:
                await accepting.result()[1].lost
            return
        _, client = await coroutine
        if where != "read":
            await accepting
        if where == "write":
            client.transport.write(b"x")
        if where == "unwrap":
            client.transport.close()
        await asyncio.wait_for(client.lost, PATIENCE)
        assert type(client.error) is error
        await asyncio.wait([accepting])
        if accepting.exception() is None:
            _, server = accepting.result()
            server.transport.abort()
            await server.lost

    if where == "do_handshake" and error is not ssl.SSLError:
        pytest.skip("what is not of TLS goes to the transport below")
    if where == "unwrap" and error is not ssl.SSLError:
        pytest.skip("what is not of TLS goes to who calls close()")
    run(loop, main())
    assert [report[0] for report in reports] == (
        [] if error is not LookupError else [{"getpeercert": "SSL handshake failed"}.get(where, "Fatal error on SSL protocol")]
    )


class OwnContext(ssl.SSLContext):
    """Notes how it is asked, and may resume a session."""

    session = None

    def wrap_bio(self, incoming, outgoing, **options):
        self.calls = [*getattr(self, "calls", []), (type(incoming), type(outgoing), options)]
        return super().wrap_bio(incoming, outgoing, session=self.session, **options)


@VERSIONS
def test_context_class(loop, version):
    """Its wrap_bio() is called; that is also how a session is used again."""
    contexts = client_context(cls=OwnContext, version=version), server_context(cls=OwnContext)

    async def main():
        for again in (False, True):
            async with connected(loop, contexts=contexts) as (client, server):
                await echo_both_ways(client, server)
                tls = client.transport.get_extra_info("ssl_object")
                assert tls.session_reused is again
                assert server.transport.get_extra_info("ssl_object").session_reused is again
                assert tls.session.has_ticket
                contexts[0].session = tls.session

    run(loop, main())
    bios = ssl.MemoryBIO, ssl.MemoryBIO
    assert contexts[0].calls == [(*bios, {"server_side": False, "server_hostname": "localhost"})] * 2
    assert contexts[1].calls == [(*bios, {"server_side": True, "server_hostname": None})] * 2
    contexts[0].session = None


def test_sessions_without_tickets(loop):
    """The server remembers; a session of another context is refused."""
    contexts = client_context(cls=OwnContext, version=TLS_1_2), server_context()
    contexts[0].options |= ssl.OP_NO_TICKET

    async def main():
        for again in (False, True):
            async with connected(loop, contexts=contexts) as (client, server):
                await echo_both_ways(client, server)
                tls = client.transport.get_extra_info("ssl_object")
                assert tls.session_reused is again
                contexts[0].session = tls.session
        assert contexts[1].session_stats()["hits"] == 1
        near, far = socket.socketpair()
        other = client_context(cls=OwnContext)
        other.session = contexts[0].session
        with near, far, pytest.raises(ValueError, match=r"^Session refers to a different SSLContext\.$"):
            await loop.create_connection(Recorder, sock=near, ssl=other, server_hostname="localhost")
        contexts[0].session = other.session = None

    run(loop, main())


class Wrapper:
    """No SSLObject, but it has what asyncio calls."""

    def __init__(self, tls):
        self.tls = tls

    def __getattr__(self, name):
        return getattr(self.tls, name)


def test_a_context_gives_another_object(loop):
    class Context(ssl.SSLContext):
        def wrap_bio(self, *arguments, **options):
            return Wrapper(super().wrap_bio(*arguments, **options))

    async def main():
        contexts = client_context(cls=Context), server_context(cls=Context)
        client, server = await connect(loop, contexts=contexts)
        assert type(client.transport.get_extra_info("ssl_object")) is Wrapper
        await echo_both_ways(client, server)
        await close_both(client, server)

    run(loop, main())


def test_anything_with_wrap_bio_is_a_context(loop):
    class Duck:
        def __init__(self, context):
            self.context = context

        def wrap_bio(self, incoming, outgoing, server_side=False, server_hostname=None):
            return self.context.wrap_bio(incoming, outgoing, server_side, server_hostname)

    async def main():
        contexts = Duck(client_context()), Duck(server_context())
        async with connected(loop, contexts=contexts) as (client, server):
            assert client.transport.get_extra_info("sslcontext") is contexts[0]
            await echo_both_ways(client, server)

    run(loop, main())


def test_truststore(loop):
    """It verifies in its own way; here it is asked to trust the authority of the tests."""

    async def main():
        for name, code in (("server", None), ("other", 62), ("strange", 20)):
            context = truststore.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            context.load_verify_locations(certificates().authority)
            contexts = context, server_context(name)
            if code is None:
                async with connected(loop, contexts=contexts) as protocols:
                    await echo_both_ways(*protocols)
                    assert protocols[0].transport.get_extra_info("sslcontext") is context
            else:
                with pytest.raises(Broken) as broken:
                    await connect(loop, contexts=contexts)
                assert isinstance(broken.value.client, ssl.SSLCertVerificationError)
                assert broken.value.client.verify_code == code

    run(loop, main())


def test_default_context(loop, monkeypatch):
    """ssl=True means one that trusts what the system trusts."""

    async def main():
        server = await loop.create_server(Recorder, "127.0.0.1", 0, ssl=server_context())
        port = server.sockets[0].getsockname()[1]
        with pytest.raises(ssl.SSLCertVerificationError):
            await loop.create_connection(Recorder, "127.0.0.1", port, ssl=True)
        monkeypatch.setenv("SSL_CERT_FILE", certificates().authority)
        transport, protocol = await loop.create_connection(Recorder, "127.0.0.1", port, ssl=True)
        context = transport.get_extra_info("sslcontext")
        assert type(context) is ssl.SSLContext
        assert context.check_hostname
        assert context.verify_mode == ssl.CERT_REQUIRED
        assert transport.get_extra_info("ssl_object").server_hostname == "127.0.0.1"
        transport.close()
        await protocol.lost
        # Without a name there is none to check.
        transport, protocol = await loop.create_connection(
            Recorder, "127.0.0.1", port, ssl=True, server_hostname=""
        )
        assert not transport.get_extra_info("sslcontext").check_hostname
        transport.close()
        await protocol.lost
        server.close()
        await server.wait_closed()

    run(loop, main())


# Ways in.


@pytest.mark.parametrize("kind", ["tcp", "unix"])
def test_servers_and_connections(loop, kind, tmp_path):
    made = []

    def factory():
        made.append(Recorder())
        return made[-1]

    async def main():
        options = {"ssl": client_context(), "ssl_handshake_timeout": 10, "ssl_shutdown_timeout": 10.5}
        context = server_context()
        if kind == "tcp":
            server = await loop.create_server(factory, "127.0.0.1", 0, **{**options, "ssl": context})
            address = server.sockets[0].getsockname()
            opened = loop.create_connection(Recorder, *address, **options)
        else:
            address = str(tmp_path / "socket")
            server = await loop.create_unix_server(factory, address, **{**options, "ssl": context})
            opened = loop.create_unix_connection(Recorder, address, server_hostname="localhost", **options)
        transport, client = await opened
        assert transport is client.transport
        assert isinstance(transport, asyncio.Transport)
        await until(lambda: made and made[0].transport)
        await echo_both_ways(client, made[0])
        extra = transport.get_extra_info
        assert extra("sslcontext") is options["ssl"]
        assert isinstance(extra("ssl_object"), ssl.SSLObject)
        assert extra("peername") == address
        assert isinstance(extra("socket"), asyncio.trsock.TransportSocket)
        assert extra("sockname") == extra("socket").getsockname()
        assert extra("compression") is None
        assert extra("cipher") == extra("ssl_object").cipher()
        assert extra("nothing") is None
        assert extra("nothing", 5) == 5
        other = made[0].transport.get_extra_info
        assert other("sslcontext") is context
        assert other("peername") == extra("sockname")
        assert other("peercert") is None
        server.close()
        await close_both(client, made[0])
        assert extra("sslcontext") is options["ssl"]
        assert extra("peername") is None
        assert extra("nothing", 5) == 5
        await server.wait_closed()

    run(loop, main())


@pytest.mark.parametrize("kind", ["tcp", "unix"])
def test_streams(loop, aio, kind, tmp_path):
    done = loop.create_future()

    async def serve(reader, writer):
        assert writer.get_extra_info("sslcontext") is not None
        while line := await reader.readline():
            writer.write(line.upper())
            await writer.drain()
        assert reader.at_eof()
        writer.close()
        await writer.wait_closed()
        done.set_result(None)

    async def main():
        if kind == "tcp":
            server = await aio.start_server(serve, "127.0.0.1", 0, ssl=server_context())
            opened = aio.open_connection(*server.sockets[0].getsockname(), ssl=client_context())
        else:
            path = str(tmp_path / "socket")
            server = await aio.start_unix_server(serve, path, ssl=server_context())
            opened = aio.open_unix_connection(path, ssl=client_context(), server_hostname="localhost")
        reader, writer = await opened
        assert not writer.can_write_eof()
        with pytest.raises(NotImplementedError):
            writer.write_eof()
        writer.writelines([b"one\n", b"two\n"])
        assert await reader.readuntil(b"\n") == b"ONE\n"
        assert await reader.readexactly(4) == b"TWO\n"
        writer.write(b"x" * 60_000 + b"\n")
        assert await reader.readline() == b"X" * 60_000 + b"\n"
        writer.close()
        await writer.wait_closed()
        await done
        assert await reader.read() == b""
        server.close()
        await server.wait_closed()

    run(loop, main())


def test_server_with_tls_accepts_many_at_once(loop):
    """No thread is made for any of them."""
    before = threading.active_count()

    class Echo(Recorder):
        def received(self, data):
            super().received(data)
            self.transport.write(data)

    async def main():
        context, other = client_context(), server_context()
        server = await loop.create_server(Echo, "127.0.0.1", 0, ssl=other)
        address = server.sockets[0].getsockname()
        opened = await asyncio.gather(*[loop.create_connection(Recorder, *address, ssl=context) for _ in range(50)])
        assert threading.active_count() == before
        for number, (transport, _) in enumerate(opened):
            transport.write(b"%d" % number)
        for number, (_, protocol) in enumerate(opened):
            await protocol.has(len(b"%d" % number))
            assert protocol.data == b"%d" % number
        assert threading.active_count() == before
        for transport, _ in opened:
            transport.close()
        await asyncio.gather(*[protocol.lost for _, protocol in opened])
        server.close()
        await server.wait_closed()

    run(loop, main())


# Plain connections become TLS.


@contextlib.asynccontextmanager
async def plain_pair(loop, client=Recorder, server=Recorder):
    near, far = socket.socketpair()
    _, client = await loop.connect_accepted_socket(client, near)
    _, server = await loop.connect_accepted_socket(server, far)
    try:
        yield client, server
    finally:
        for protocol in (client, server):
            protocol.transport.abort()
        await asyncio.wait_for(asyncio.wait([client.lost, server.lost]), PATIENCE)


async def upgrade(loop, client, server, contexts=None, **options):
    """Starts TLS on both sides; connection_made() is not called again."""
    context, other = contexts or (client_context(), server_context())
    transports = await asyncio.gather(
        loop.start_tls(client.transport, client, context, server_hostname="localhost", **options),
        loop.start_tls(server.transport, server, other, server_side=True, **options),
    )
    for protocol, transport in zip([client, server], transports, strict=True):
        assert transport is not protocol.transport
        assert transport.get_protocol() is protocol
        assert transport.get_extra_info("ssl_object") is not None
        protocol.transport = transport


@PROTOCOLS
def test_start_tls(loop, kind):
    async def main():
        async with plain_pair(loop, kind, kind) as (client, server):
            await echo_both_ways(client, server)
            await upgrade(loop, client, server, ssl_handshake_timeout=10, ssl_shutdown_timeout=10)
            await echo_both_ways(client, server)
            assert client.names == ["connection_made", "data_received"]
            await close_both(client, server)
            assert client.names == ["connection_made", "data_received", "eof_received", "connection_lost"]

    run(loop, main())


@PROTOCOLS
@pytest.mark.parametrize("layers", [2, 3])
def test_tls_inside_tls(loop, kind, layers):
    async def main():
        async with plain_pair(loop, kind, kind) as (client, server):
            for layer in range(layers):
                contexts = client_context(version=[TLS_1_2, TLS_1_3][layer % 2]), server_context()
                below = client.transport
                await upgrade(loop, client, server, contexts)
                await echo_both_ways(client, server)
                tls = client.transport.get_extra_info("ssl_object")
                assert tls.version() == ["TLSv1.2", "TLSv1.3"][layer % 2]
                assert client.transport.get_extra_info("socket") is below.get_extra_info("socket")
            await echo_both_ways(client, server, 50)
            big = random.Random(1).randbytes(600_001)
            before = len(server.data)
            client.transport.write(big)
            await server.has(before + len(big))
            assert server.data[before:] == big
            await close_both(client, server)

    run(loop, main())


def test_tls_inside_the_tls_of_a_connection(loop):
    """The outer one was made by create_connection()."""

    async def main():
        async with connected(loop) as (client, server):
            await upgrade(loop, client, server)
            await echo_both_ways(client, server)
            await close_both(client, server)

    run(loop, main())


def test_start_tls_with_other_protocols(loop):
    async def main():
        async with plain_pair(loop) as (client, server):
            others = Recorder(), BufferedRecorder()
            context, other = client_context(), server_context()
            transports = await asyncio.gather(
                loop.start_tls(client.transport, others[0], context, server_hostname="localhost"),
                loop.start_tls(server.transport, others[1], other, server_side=True),
            )
            for protocol, transport in zip(others, transports, strict=True):
                protocol.transport = transport
            await echo_both_ways(*others)
            await close_both(*others)
            assert others[0].names == ["data_received", "eof_received", "connection_lost"]
            assert client.names == server.names == ["connection_made"]
            client.lost.set_result(None)
            server.lost.set_result(None)

    run(loop, main())


def test_start_tls_that_fails(loop):
    """The transport below is closed."""

    async def main():
        async with plain_pair(loop) as (client, server):
            contexts = client_context(), server_context("other")
            outcomes = await asyncio.gather(
                loop.start_tls(client.transport, client, contexts[0], server_hostname="localhost"),
                loop.start_tls(server.transport, server, contexts[1], server_side=True),
                return_exceptions=True,
            )
            assert isinstance(outcomes[0], ssl.SSLCertVerificationError)
            assert isinstance(outcomes[1], (ssl.SSLError, ConnectionResetError))
            assert client.transport.is_closing()
            assert server.transport.is_closing()
            # The protocol was told of the connection by the transport below, and now hears nothing.
            await turns(3)
            assert client.names == server.names
            for protocol in (client, server):
                if not protocol.lost.done():
                    protocol.lost.set_result(None)
            return client.names

    names = run(loop, main())
    assert names == START_TLS_FAILED


START_TLS_FAILED = ["connection_made", "connection_lost"]
"""What a protocol hears if its connection was there before, and the handshake fails."""


def test_start_tls_arguments(loop):
    async def main():
        async with plain_pair(loop) as (client, _):
            transport = client.transport
            context = client_context()
            for options, error, message in [
                ({"ssl_handshake_timeout": 0}, ValueError, "ssl_handshake_timeout should be a positive number, got 0"),
                ({"ssl_shutdown_timeout": -1}, ValueError, "ssl_shutdown_timeout should be a positive number, got -1"),
                ({}, ValueError, "check_hostname requires server_hostname"),
            ]:
                with pytest.raises(error) as raised:
                    await loop.start_tls(transport, client, context, **options)
                assert str(raised.value) == message
            context.check_hostname = False
            with pytest.raises(ssl.SSLError, match="Cannot create a server socket with a PROTOCOL_TLS_CLIENT context"):
                await loop.start_tls(transport, client, context, server_side=True)
            # Nothing happened to it.
            assert transport.get_protocol() is client
            assert transport.is_reading()
            assert not transport.is_closing()

    run(loop, main())


def test_streams_start_tls(loop, aio):
    """As mail does it: a word, then TLS on the same connection."""
    served = loop.create_future()

    async def serve(reader, writer):
        assert await reader.readline() == b"STARTTLS\n"
        writer.write(b"go\n")
        await writer.drain()
        await writer.start_tls(server_context())
        assert writer.get_extra_info("ssl_object") is not None
        while line := await reader.readline():
            writer.write(line.upper())
        writer.close()
        await writer.wait_closed()
        served.set_result(None)

    async def main():
        server = await aio.start_server(serve, "127.0.0.1", 0)
        reader, writer = await aio.open_connection(*server.sockets[0].getsockname())
        writer.write(b"STARTTLS\n")
        assert await reader.readline() == b"go\n"
        assert writer.get_extra_info("sslcontext") is None
        context = client_context()
        await writer.start_tls(context, server_hostname="localhost", ssl_handshake_timeout=10)
        assert writer.get_extra_info("sslcontext") is context
        writer.write(b"hello\n")
        assert await reader.readline() == b"HELLO\n"
        writer.close()
        await writer.wait_closed()
        await served
        server.close()
        await server.wait_closed()

    run(loop, main())


def test_start_tls_with_a_hello_in_the_reader(loop, aio):
    """What the reader holds is the beginning of the handshake."""
    if aio is asyncio:
        old_stdlib(aio, asyncio.BaseEventLoop.start_tls, "_stream_reader", "a hello that came early is lost")

    async def main():
        near, far = socket.socketpair()
        far.setblocking(False)
        hand = Hand(client_context())
        served = loop.create_future()

        async def serve(reader, writer):
            assert await reader.readline() == b"STARTTLS\n"
            await until(lambda: len(reader._buffer) == len(hello))
            await writer.start_tls(server_context())
            writer.write(await reader.readexactly(5))
            served.set_result((reader, writer))

        with far:
            hello = hand.shake()
            await loop.sock_sendall(far, b"STARTTLS\n" + hello)
            reader = aio.StreamReader(loop=loop)
            await loop.connect_accepted_socket(lambda: aio.StreamReaderProtocol(reader, serve, loop=loop), near)
            data = await loop.sock_recv(far, 1 << 16)
            while answer := hand.shake(data):
                await loop.sock_sendall(far, answer)
                if hand.ready:
                    break
                data = await loop.sock_recv(far, 1 << 16)
            await loop.sock_sendall(far, hand.seal(b"hello"))
            data = hand.open()
            while data != b"hello":
                received = await loop.sock_recv(far, 1 << 16)
                assert received
                data += hand.open(received)
            _, writer = await served
            writer.close()
            await loop.sock_sendall(far, hand.end())
            await writer.wait_closed()

    run(loop, main())

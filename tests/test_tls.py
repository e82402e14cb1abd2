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
import platform
import random
import socket
import ssl
import threading
import traceback
import warnings
import weakref

import pytest
import tls_certificates
import truststore
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
    disconnect,
    needs_exception_of_abort,
    needs_is_closing,
    old_stdlib,
    run,
    turns,
    until,
)

import aioxide

VERSIONS = pytest.mark.parametrize("version", [TLS_1_2, TLS_1_3], ids=["1.2", "1.3"])
PROTOCOLS = pytest.mark.parametrize("kind", [Recorder, BufferedRecorder], ids=["plain", "buffered"])


@pytest.fixture
def loop(plain_loop):
    """Not in debug mode."""
    return plain_loop


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


def wants_a_name():
    """Does this Python's wrap_bio() refuse to check the name of nobody?"""
    try:
        Hand(client_context(), hostname=None)
    except ValueError:
        return True
    return False


def test_optional_hostname_check_without_a_name(loop):
    """An empty name is none; a context that checks names wants one."""
    context = client_context()
    context.check_hostname = False

    async def main():
        async with connected(loop, hostname="", contexts=(context, server_context())) as (client, server):
            assert client.transport.get_extra_info("ssl_object").server_hostname is None
            await echo_both_ways(client, server)
        if not wants_a_name():
            return
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


@PROTOCOLS
def test_certificate_asked_for_later(loop, kind):
    """TLS 1.3 lets a server ask in the middle of a connection: the client answers while it reads."""
    contexts = client_context("client", version=TLS_1_3), server_context(ask=ssl.CERT_REQUIRED)
    contexts[0].post_handshake_auth = contexts[1].post_handshake_auth = True

    async def main():
        async with connected(loop, kind, kind, contexts=contexts) as (client, server):
            await echo_both_ways(client, server)
            tls = server.transport.get_extra_info("ssl_object")
            assert not tls.getpeercert()
            tls.verify_client_post_handshake()
            await echo_both_ways(client, server)
            await until(tls.getpeercert)
            assert (("commonName", "a client"),) in tls.getpeercert()["subject"]
            # What was noted after the handshake is not noted again.
            assert not server.transport.get_extra_info("peercert")
            await echo_both_ways(client, server)
            await close_both(client, server)

    run(loop, main())


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
        []
        if error is not LookupError
        else [{"getpeercert": "SSL handshake failed"}.get(where, "Fatal error on SSL protocol")]
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
        transport, protocol = await loop.create_connection(Recorder, "127.0.0.1", port, ssl=True, server_hostname="")
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


def test_methods_that_are_replaced(loop, aio):
    """A stream's protocol and reader may be other ones at any time, and each piece of data goes through them."""
    seen = []

    class Protocol(aio.StreamReaderProtocol):
        def data_received(self, data):
            seen.append(("protocol", data))
            super().data_received(data)

    class Reader(aio.StreamReader):
        def feed_data(self, data):
            seen.append(("reader", bytes(data)))
            super().feed_data(data)

    async def main():
        reader = Reader(loop=loop)
        async with connected(loop, lambda: ClosingWith(Protocol(reader, loop=loop))) as (client, server):
            client.transport.set_protocol(client.inner)
            server.transport.write(b"one")
            assert await reader.readexactly(3) == b"one"
            assert seen == [("protocol", b"one"), ("reader", b"one")]
            # On the instance, and with it gone again.
            client.inner.data_received = lambda data: seen.append(("instance", data))
            server.transport.write(b"two")
            await until(lambda: len(seen) == 3)
            assert seen[2] == ("instance", b"two")
            del client.inner.data_received
            server.transport.write(b"three")
            assert await reader.readexactly(5) == b"three"
            assert seen[3:] == [("protocol", b"three"), ("reader", b"three")]
            client.transport.set_protocol(client)

    run(loop, main())


class ClosingWith(Recorder):
    """Makes another protocol know of its transport."""

    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def connection_made(self, transport):
        super().connection_made(transport)
        self.inner.connection_made(transport)


# Plain connections become TLS.


@contextlib.asynccontextmanager
async def plain_pair(loop, client=Recorder, server=Recorder):
    near, far = socket.socketpair()
    _, client = await loop.connect_accepted_socket(client, near)
    _, server = await loop.connect_accepted_socket(server, far)
    try:
        yield client, server
    finally:
        await disconnect(client, server)


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
                *([({}, ValueError, "check_hostname requires server_hostname")] if wants_a_name() else []),
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


# Data.


PIECES = [1, 2, 1000, 16_383, 16_384, 16_385, 65_536, 100_001, 3]


@VERSIONS
@PROTOCOLS
def test_much_both_ways(loop, kind, version):
    """Several MiB in odd pieces in both directions at once; each side pauses when the other does not keep up."""
    generator = random.Random(3)
    pieces = [generator.randbytes(generator.choice(PIECES)) for _ in range(120)]
    digest = hashlib.sha256(b"".join(pieces)).digest()
    total = sum(map(len, pieces))

    async def talk(protocol):
        for index, piece in enumerate(pieces):
            write = protocol.transport.write
            if index % 3 == 2:
                protocol.transport.writelines([piece[:7], memoryview(piece)[7:]])
            else:
                write([piece, bytearray(piece)][index % 2])
            while protocol.paused and not protocol.lost.done():
                await asyncio.sleep(0)

    async def main():
        contexts = client_context(version=version), server_context()
        async with connected(loop, kind, kind, contexts=contexts) as protocols:
            await asyncio.gather(*map(talk, protocols))
            for protocol in protocols:
                await protocol.has(total)
                assert hashlib.sha256(protocol.data).digest() == digest
            await close_both(*protocols)

    assert total > 2 << 20
    run(loop, main())


@pytest.mark.parametrize(
    "sizes", [[1], [7, 1, 100], [16_384], [300_000], [1, 70_000]], ids=lambda sizes: "-".join(map(str, sizes))
)
def test_buffers_of_every_size(loop, sizes):
    generator = random.Random(4)
    data = generator.randbytes(3_000 if sizes == [1] else 200_003 if sizes[0] > 1000 else 20_003)

    async def main():
        async with connected(loop, lambda: BufferedRecorder(sizes), Recorder) as (client, server):
            server.transport.write(data)
            await client.has(len(data))
            assert client.data == data
            # Another size of buffer later on, and a protocol without one.
            client.sizes = [13]
            server.transport.write(data[:1000])
            await client.has(len(data) + 1000)
            other = Recorder()
            client.transport.set_protocol(other)
            assert client.transport.get_protocol() is other
            server.transport.write(data[:1000])
            await until(lambda: len(other.data) == 1000)
            client.transport.set_protocol(client)
            server.transport.write(b"the end")
            server.transport.close()
            await asyncio.wait_for(client.lost, PATIENCE)
            assert client.data == data + data[:1000] + b"the end"

    run(loop, main())


def test_empty_buffer(loop, reports):
    """What reads nothing is to asyncio the end of TLS."""

    async def main():
        async with connected(loop, lambda: BufferedRecorder([0])) as (client, server):
            server.transport.write(b"x")
            await asyncio.wait_for(client.lost, PATIENCE)
            return client.log

    assert run(loop, main()) == [("connection_made",), ("eof_received",), ("connection_lost", None)]
    assert reports == []


@pytest.mark.parametrize("what", ["None", "bytes", "raise"])
def test_a_buffer_that_is_none(loop, reports, what):
    class Wrong(BufferedRecorder):
        def get_buffer(self, sizehint):
            if what == "raise":
                raise LookupError("no buffer")
            return {"None": None, "bytes": b"abcd"}[what]

    async def main():
        client, server = None, None
        near, far = socket.socketpair()
        accepting = asyncio.ensure_future(loop.connect_accepted_socket(Recorder, far, ssl=server_context()))
        opening = loop.create_connection(Wrong, sock=near, ssl=client_context(), server_hostname="localhost")
        _, client = await opening
        await asyncio.wait_for(client.lost, PATIENCE)
        await asyncio.wait([accepting])
        if accepting.exception() is None:
            _, server = accepting.result()
            server.transport.abort()
            await server.lost
        return client.names, type(client.error)

    names, error = run(loop, main())
    assert names == ["connection_made", "connection_lost"]
    # What cannot be written to is a TypeError to the library ssl, a BufferError to everybody else.
    assert error in {"None": {TypeError}, "bytes": {TypeError, BufferError}, "raise": {LookupError}}[what]
    assert [(report[0], report[1]) for report in reports] == [("Fatal error on SSL protocol", error.__name__)]


def shared_memory(content):
    """A view that can be changed after it was written."""
    kept = bytearray(content)
    return kept, memoryview(kept)


def test_what_is_written_is_a_snapshot(loop):
    async def main():
        async with connected(loop) as (client, server):
            first = bytearray(b"one")
            client.transport.write(first)
            first[:] = b"xxx"
            kept, view = shared_memory(b"two")
            client.transport.write(view)
            kept[:] = b"xxx"
            parts = [bytearray(b"three"), memoryview(bytearray(b"four")), b"five"]
            client.transport.writelines(part for part in parts)
            parts[0][:] = b"xxxxx"
            parts[1][:] = b"xxxx"
            client.transport.write(memoryview(b"..six..")[2:5])
            client.transport.write(memoryview(array.array("H", [0x6161, 0x6262])))
            client.transport.write(b"")
            client.transport.writelines([])
            client.transport.writelines([b"", bytearray()])
            wanted = b"onetwothreefourfivesixaabb"
            await server.has(len(wanted))
            assert server.data == wanted

    run(loop, main())


def test_a_snapshot_where_the_peer_does_not_read(loop):
    """The same with buffers that can not be sent at once."""

    async def main():
        async with connected(loop) as (client, server):
            server.transport.pause_reading()
            buffer = bytearray(100_000)
            for number in range(30):
                buffer[:] = bytes([number]) * len(buffer)
                client.transport.write(buffer)
                client.transport.write(memoryview(buffer)[5:50])
            buffer[:] = bytes([255]) * len(buffer)
            await turns(10)
            assert len(server.data) == 0
            server.transport.resume_reading()
            await server.has(30 * 100_045)
            assert server.data == b"".join(bytes([number]) * 100_045 for number in range(30))

    run(loop, main())


@pytest.mark.parametrize("data", ["text", 5, None, array.array("b", b"abc"), [b"x"]], ids=str)
def test_what_cannot_be_written(loop, data):
    async def main():
        async with connected(loop) as (client, server):
            with pytest.raises(TypeError) as raised:
                client.transport.write(data)
            assert str(raised.value) == f"data: expecting a bytes-like instance, got {type(data).__name__}"
            await echo_both_ways(client, server)
            with pytest.raises(NotImplementedError):
                client.transport.write_eof()
            assert client.transport.can_write_eof() is False

    run(loop, main())


@pytest.mark.parametrize("wrong", [lambda: "text", lambda: memoryview(b"abcdef")[::2]], ids=["text", "strided"])
def test_what_cannot_be_written_in_lines(loop, aio, reports, wrong):
    """On the stdlib the connection fails. Here the call does, before anything is written."""
    kind = TypeError if isinstance(wrong(), str) else BufferError

    async def main():
        async with connected(loop) as (client, server):
            try:
                client.transport.writelines([b"before", wrong(), b"after"])
            except kind:
                assert aio is not asyncio
                await echo_both_ways(client, server)
                assert b"before" not in server.data
                return
            assert aio is asyncio
            await asyncio.wait_for(client.lost, PATIENCE)
            assert isinstance(client.error, kind)
            await server.lost
            assert b"after" not in server.data

    run(loop, main())
    assert [report[0] for report in reports] == ["Fatal error on SSL protocol"] * (aio is asyncio)


@pytest.mark.parametrize("argument", [5, None])
def test_lines_that_are_none(loop, argument):
    async def main():
        async with connected(loop) as (client, server):
            with pytest.raises(TypeError):
                client.transport.writelines(argument)
            await echo_both_ways(client, server)

    run(loop, main())


def test_write_after_close(loop, caplog):
    """It is lost; who goes on is told in the log."""

    async def main():
        async with connected(loop) as (client, server):
            client.transport.write(b"before")
            client.transport.close()
            assert client.transport.is_closing()
            client.transport.write(b"after")
            client.transport.writelines([b"after"])
            await asyncio.wait_for(asyncio.gather(client.lost, server.lost), PATIENCE)
            assert server.data == b"before"
            assert caplog.record_tuples == []
            # The transport has forgotten its protocol.
            client.transport.write(b"")

    run(loop, main())


def test_writes_to_a_lost_connection_are_logged(loop, caplog):
    async def main():
        async with connected(loop) as (client, server):
            server.transport.abort()
            await asyncio.wait_for(client.lost, PATIENCE)
            for _ in range(8):
                client.transport.write(b"x")
            client.transport.writelines([b"x"])

    run(loop, main())
    assert {record[1:] for record in caplog.record_tuples} == {(logging.WARNING, "SSL connection is closed")}
    # One was counted when the connection was lost.
    assert len(caplog.record_tuples) == 5


@pytest.mark.parametrize("size", [0, 1, 100_000, 300_000])
def test_sendfile(loop, size, tmp_path):
    data = random.Random(5).randbytes(size)
    path = tmp_path / "file"
    path.write_bytes(data)

    async def main():
        async with connected(loop) as (client, server):
            with path.open("rb") as file:
                assert await loop.sendfile(client.transport, file) == size
                assert file.tell() == size
                client.transport.write(b"|")
                await server.has(size + 1)
                assert server.data == data + b"|"
                count = await loop.sendfile(client.transport, file, 10, 20)
                assert count == max(0, min(20, size - 10))
                await server.has(size + 1 + count)
                assert server.data == data + b"|" + data[10:30]
                with pytest.raises(RuntimeError, match="fallback is disabled and native sendfile is not supported"):
                    await loop.sendfile(client.transport, file, fallback=False)
            await echo_both_ways(client, server)
            with io.BytesIO(b"of memory") as file:
                assert await loop.sendfile(server.transport, file) == 9
            await client.has(24)
            assert client.data[-9:] == b"of memory"

    # Files are read by threads.
    run(loop, main(), threads=True)


def test_sendfile_to_a_closing_transport(loop, tmp_path):
    async def main():
        async with connected(loop) as (client, _):
            client.transport.close()
            with io.BytesIO(b"x") as file, pytest.raises(RuntimeError, match=r"^Transport is closing$"):
                await loop.sendfile(client.transport, file)

    run(loop, main())


# Flow control.


def test_pause_reading(loop):
    """Data in flight stays where it is; a second call changes nothing."""

    async def main():
        async with connected(loop) as (client, server):
            assert client.transport.is_reading()
            client.transport.pause_reading()
            client.transport.pause_reading()
            assert not client.transport.is_reading()
            for _ in range(3):
                server.transport.write(b"data")
                await turns(3)
            assert client.log == [("connection_made",)]
            client.transport.resume_reading()
            client.transport.resume_reading()
            assert client.transport.is_reading()
            assert client.log == [("connection_made",)]
            await client.has(12)
            # Paused in the callback, with more behind it.
            client.on["data_received"] = lambda protocol: protocol.transport.pause_reading()
            server.transport.write(b"x" * 100)
            await client.has(112)
            assert not client.transport.is_reading()
            server.transport.write(b"y" * 100)
            await turns(5)
            assert len(client.data) == 112
            client.on.clear()
            client.transport.resume_reading()
            await client.has(212)
            assert client.data == b"data" * 3 + b"x" * 100 + b"y" * 100

    run(loop, main())


@PROTOCOLS
def test_a_reader_that_pauses_stops_the_writer(loop, kind):
    """Reading stops in the transport below, too: else all would gather in memory."""

    async def main():
        async with connected(loop, kind, kind) as (client, server):
            client.transport.pause_reading()
            written = 0
            while not server.paused:
                server.transport.write(bytes(65_536))
                written += 65_536
                await turns(3)
            assert written < 8 << 20
            assert server.transport.get_write_buffer_size() >= 0
            await turns(10)
            assert server.paused
            client.transport.resume_reading()
            await client.has(written)
            await until(lambda: not server.paused)

    run(loop, main())


def test_limits_of_writing(loop):
    async def main():
        async with connected(loop) as (client, server):
            transport = client.transport
            assert transport.get_write_buffer_limits() == (131_072, 524_288)
            assert transport.get_write_buffer_size() == 0
            for arguments, limits in [
                ({"high": 100}, (25, 100)),
                ({"low": 100}, (100, 400)),
                ({"high": 0}, (0, 0)),
                ({"high": 10, "low": 10}, (10, 10)),
                ({}, (131_072, 524_288)),
            ]:
                transport.set_write_buffer_limits(**arguments)
                assert transport.get_write_buffer_limits() == limits
                # Each call asks at once whether this is to be paused.
                if limits == (0, 0):
                    assert client.names[-1] == "pause_writing"
            for high, low in [(1, 2), (-1, None), (5, -1)]:
                with pytest.raises(ValueError, match="must be >= low"):
                    transport.set_write_buffer_limits(high, low)
            with pytest.raises(ValueError, match=r"^high \(1\) must be >= low \(2\) must be >= 0$"):
                transport.set_write_buffer_limits(1, 2)
            transport.set_write_buffer_limits()
            server.transport.pause_reading()
            while not client.paused:
                transport.write(bytes(100_000))
                await turns(2)
            # There is nothing below that would have room.
            size = transport.get_write_buffer_size()
            assert size >= 524_288
            transport.write(b"12345")
            assert transport.get_write_buffer_size() > size
            transport.set_write_buffer_limits(high=64 << 20, low=32 << 20)
            assert not client.paused
            server.transport.resume_reading()
            await until(lambda: transport.get_write_buffer_size() == 0)

    run(loop, main())


def test_limits_of_reading(loop):
    """The TLS transport has them, too; no other one has."""

    async def main():
        async with connected(loop) as (client, _):
            transport = client.transport
            assert transport.get_read_buffer_limits() == (65_536, 262_144)
            assert transport.get_read_buffer_size() == 0
            transport.set_read_buffer_limits(high=100)
            assert transport.get_read_buffer_limits() == (25, 100)
            transport.set_read_buffer_limits(low=100)
            assert transport.get_read_buffer_limits() == (100, 400)
            with pytest.raises(ValueError, match=r"^high \(1\) must be >= low \(2\) must be >= 0$"):
                transport.set_read_buffer_limits(1, 2)
            transport.set_read_buffer_limits()
            assert transport.get_read_buffer_limits() == (65_536, 262_144)

    run(loop, main())


def test_drain(loop, aio):
    """It waits while the peer does not read."""
    ended = loop.create_future()

    async def serve(reader, writer):
        ended.set_result((reader, writer))

    async def main():
        server = await aio.start_server(serve, "127.0.0.1", 0, ssl=server_context())
        context = client_context()
        reader, writer = await aio.open_connection(*server.sockets[0].getsockname(), ssl=context, limit=1000)
        other_reader, other = await ended
        total = 0
        # The limit of the reader pauses the transport; then everything on the way fills.
        while True:
            other.write(bytes(262_144))
            total += 262_144
            draining = asyncio.ensure_future(other.drain())
            await turns(20)
            if not draining.done():
                break
        assert total < 64 << 20
        received = 0
        while received < total:
            received += len(await reader.read(1 << 20))
        await draining
        other.close()
        await other.wait_closed()
        assert await reader.read() == b""
        writer.close()
        await writer.wait_closed()
        assert await other_reader.read() == b""
        server.close()
        await server.wait_closed()

    run(loop, main())


# The end.


@PROTOCOLS
@pytest.mark.parametrize("side", ["client", "server"])
def test_close(loop, kind, side):
    """What was written before is sent; the other side gets an end of file, then both are told."""

    async def main():
        async with connected(loop, kind, kind) as protocols:
            closing, other = protocols if side == "client" else protocols[::-1]
            closing.transport.write(b"last words")
            closing.transport.close()
            assert closing.transport.is_closing()
            closing.transport.close()
            await asyncio.wait_for(asyncio.gather(*[protocol.lost for protocol in protocols]), PATIENCE)
            assert other.log == [
                ("connection_made",),
                ("data_received", b"last words"),
                ("eof_received",),
                ("connection_lost", None),
            ]
            assert closing.log in (
                [("connection_made",), ("eof_received",), ("connection_lost", None)],
                [("connection_made",), ("connection_lost", None)],
            )
            assert other.transport.is_closing()
            return closing.log

    assert ("eof_received",) in run(loop, main())


def test_abort(loop):
    async def main():
        async with connected(loop) as (client, server):
            client.transport.write(b"x")
            client.transport.abort()
            assert client.transport.is_closing()
            assert client.names == ["connection_made"]
            client.transport.abort()
            await asyncio.wait_for(asyncio.gather(client.lost, server.lost), PATIENCE)
            assert client.names == ["connection_made", "connection_lost"]
            assert client.error is None
            client.transport.abort()
            client.transport.close()

    run(loop, main())


def test_force_close_with_an_exception(loop, aio):
    needs_exception_of_abort(aio)

    async def main():
        async with connected(loop) as (client, server):
            client.transport._force_close(LookupError("why"))
            await asyncio.wait_for(client.lost, PATIENCE)
            assert isinstance(client.error, LookupError)
            await server.lost

    run(loop, main())


def test_closing_of_the_connection_below(loop, aio):
    needs_is_closing(aio)

    async def main():
        async with connected(loop) as (client, server):
            server.transport.abort()
            await asyncio.wait_for(client.lost, PATIENCE)
            assert client.transport.is_closing()

    run(loop, main())


@pytest.mark.parametrize("truncated", [False, True])
@pytest.mark.parametrize("answer", [None, True])
def test_end_of_file(loop, truncated, answer, caplog):
    """TLS connections are not half-open: each end is the end of both directions."""

    async def main():
        on = {"eof_received": lambda protocol: answer}
        async with against_hand(loop, lambda: Recorder(**on)) as (server, hand, sock):
            records = hand.seal(b"before")
            if not truncated:
                records += hand.end()
            await loop.sock_sendall(sock, records)
            if truncated:
                sock.shutdown(socket.SHUT_WR)
            await asyncio.wait_for(server.lost, PATIENCE)
            received = b""
            while data := await loop.sock_recv(sock, 1 << 16):
                received += data
            assert server.log == [
                ("connection_made",),
                ("data_received", b"before"),
                ("eof_received",),
                ("connection_lost", None),
            ]
            # The server says its own end, if it was said properly to it.
            assert hand.open(received) == b""

    run(loop, main())
    message = "returning true from eof_received() has no effect when using ssl"
    assert [record[2] for record in caplog.record_tuples] == ([message] if answer else [])


@pytest.mark.parametrize("version", [TLS_1_2, TLS_1_3], ids=["1.2", "1.3"])
def test_data_arrives_while_closing(loop, reports, version):
    """What OpenSSL has read already is delivered; what comes later is an error that nobody need be told of."""

    async def main():
        contexts = client_context(version=version), server_context()
        async with against_hand(loop, contexts=contexts) as (server, hand, sock):
            await loop.sock_sendall(sock, hand.seal(b"early"))
            await server.has(5)
            server.transport.close()
            await loop.sock_sendall(sock, hand.seal(b"later"))
            await asyncio.wait_for(server.lost, PATIENCE)
            return server.log

    assert run(loop, main()) == [
        ("connection_made",),
        ("data_received", b"early"),
        ("connection_lost", "SSLError", "APPLICATION_DATA_AFTER_CLOSE_NOTIFY"),
    ]
    assert reports == []


def test_paused_reader_gets_all_before_the_end(loop):
    """The end of file waits for who does not read."""

    async def main():
        async with connected(loop) as (client, server):
            client.transport.pause_reading()
            server.transport.write(b"late")
            await turns(3)
            server.transport.close()
            await turns(10)
            assert client.log == [("connection_made",)]
            client.transport.resume_reading()
            await asyncio.wait_for(asyncio.gather(client.lost, server.lost), PATIENCE)
            assert client.log[1] == ("data_received", b"late")
            assert client.error is None

    run(loop, main())


# Callbacks.


@pytest.mark.parametrize("error", [LookupError, ssl.SSLError, ConnectionError, asyncio.CancelledError, GeneratorExit])
@PROTOCOLS
def test_data_received_raises(loop, reports, kind, error):
    def fail(protocol):
        raise error("in the callback")

    async def main():
        async with connected(loop, lambda: kind(data_received=fail)) as (client, server):
            server.transport.write(b"x")
            await asyncio.wait_for(client.lost, PATIENCE)
            assert type(client.error) is error
            assert client.names == ["connection_made", "data_received", "connection_lost"]

    run(loop, main())
    message = (
        "Fatal error on SSL protocol"
        if issubclass(error, Exception)
        else "Fatal error: protocol.buffer_updated() call failed."
    )
    if issubclass(error, (OSError, asyncio.CancelledError)):
        assert reports == [] or error is asyncio.CancelledError
    else:
        assert [(report[0], report[1]) for report in reports] == [(message, error.__name__)]


@pytest.mark.parametrize("side", ["client", "server"])
def test_connection_made_raises(loop, reports, side):
    """The coroutine that connects raises it, the protocol is told of the end."""
    made = []

    def fail(protocol):
        made.append(protocol)
        raise LookupError("in the callback")

    async def main():
        near, far = socket.socketpair()

        def factory(which):
            return (lambda: Recorder(connection_made=fail)) if which == side else Recorder

        outcomes = await asyncio.gather(
            loop.create_connection(factory("client"), sock=near, ssl=client_context(), server_hostname="localhost"),
            loop.connect_accepted_socket(factory("server"), far, ssl=server_context()),
            return_exceptions=True,
        )
        assert isinstance(outcomes[side == "server"], LookupError)
        (protocol,) = made
        await asyncio.wait_for(protocol.lost, PATIENCE)
        assert protocol.names == ["connection_made", "connection_lost"]
        assert isinstance(protocol.error, LookupError)
        other = outcomes[side == "client"]
        if not isinstance(other, BaseException):
            await asyncio.wait_for(other[1].lost, PATIENCE)
        else:
            traceback.clear_frames(other.__traceback__)
        traceback.clear_frames(outcomes[side == "server"].__traceback__)
        made.clear()

    run(loop, main())
    assert [(report[0], report[1]) for report in reports] == [
        ("Fatal error: protocol.buffer_updated() call failed.", "LookupError")
    ]


@pytest.mark.parametrize("truncated", [False, True])
def test_eof_received_raises(loop, reports, truncated):
    def fail(protocol):
        raise LookupError("in the callback")

    async def main():
        async with connected(loop, lambda: Recorder(eof_received=fail)) as (client, server):
            getattr(server.transport, "abort" if truncated else "close")()
            await asyncio.wait_for(client.lost, PATIENCE)
            assert isinstance(client.error, LookupError)
            assert client.names == ["connection_made", "eof_received", "connection_lost"]

    run(loop, main())
    assert [(report[0], report[1]) for report in reports] == [("Error calling eof_received()", "LookupError")]


def test_connection_lost_raises(loop, reports):
    def fail(protocol):
        raise LookupError("in the callback")

    async def main():
        async with connected(loop, lambda: Recorder(connection_lost=fail)) as (client, server):
            await close_both(client, server)

    run(loop, main())
    ((message, error, *_),) = reports
    assert message.startswith("Exception in callback Recorder.connection_lost(")
    assert error == "LookupError"


@pytest.mark.parametrize("name", ["pause_writing", "resume_writing"])
def test_flow_control_raises(loop, reports, name):
    """It is reported, and nothing else comes of it."""

    def fail(protocol):
        raise LookupError("in the callback")

    async def main():
        async with connected(loop, lambda: Recorder(**{name: fail})) as (client, server):
            server.transport.pause_reading()
            total = 0
            while not client.paused:
                client.transport.write(bytes(1 << 20))
                total += 1 << 20
                await turns(2)
            server.transport.resume_reading()
            await server.has(total)
            await until(lambda: not client.paused)
            await echo_both_ways(client, server)

    run(loop, main())
    keys = ["exception", "message", "protocol", "transport"]
    assert reports == [(f"protocol.{name}() failed", "LookupError", "in the callback", *keys)]


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
@pytest.mark.parametrize("name", ["connection_made", "data_received", "eof_received", "pause_writing"])
def test_what_ends_the_program(loop, reports, name, error):
    """It comes out of the loop, which can run on."""

    def fail(protocol):
        protocol.on.clear()
        raise error("in the callback")

    async def main():
        client, server = await connect(loop, lambda: Recorder(**{name: fail}))
        protocols.extend([client, server])
        if name == "data_received":
            server.transport.write(b"x")
        elif name == "eof_received":
            server.transport.close()
        elif name == "pause_writing":
            client.transport.set_write_buffer_limits(high=0)
        await asyncio.wait([client.lost], timeout=PATIENCE)

    protocols = []
    task = loop.create_task(main())
    with pytest.raises(error):
        loop.run_until_complete(task)
    assert not loop.is_running()
    task.cancel()

    async def end():
        await asyncio.wait([task])
        for protocol in protocols:
            protocol.transport.abort()
            await asyncio.wait_for(protocol.lost, PATIENCE)
        for other in asyncio.all_tasks() - {asyncio.current_task()}:
            other.cancel()
            with contextlib.suppress(BaseException):
                await other

    with contextlib.suppress(error):
        loop.run_until_complete(end())
    if name != "connection_made":
        assert [protocol.lost.done() for protocol in protocols] == [True, True]


def by_hand_only(act, protocol):
    """Does something with the SSLObject of a connection, behind the back of its transport."""
    with contextlib.suppress(ssl.SSLError):
        act(protocol.transport.get_extra_info("ssl_object"))


ACTIONS = {
    "close": lambda protocol: protocol.transport.close(),
    "abort": lambda protocol: protocol.transport.abort(),
    "close and abort": lambda protocol: (protocol.transport.close(), protocol.transport.abort()),
    "write": lambda protocol: protocol.transport.write(b"written in a callback"),
    "write and close": lambda protocol: (protocol.transport.write(b"last"), protocol.transport.close()),
    "write much": lambda protocol: protocol.transport.writelines([bytes(700_000), b"end"]),
    "pause": lambda protocol: protocol.transport.pause_reading(),
    "pause and resume": lambda protocol: (protocol.transport.pause_reading(), protocol.transport.resume_reading()),
    "limits": lambda protocol: protocol.transport.set_write_buffer_limits(high=0),
    "another protocol": lambda protocol: protocol.transport.set_protocol(Deputy(protocol)),
    "size": lambda protocol: protocol.transport.get_write_buffer_size(),
    "collect": lambda protocol: gc.collect(),
    "read by hand": lambda protocol: by_hand_only(lambda tls: tls.read(3), protocol),
    "write by hand": lambda protocol: by_hand_only(lambda tls: tls.write(b"by hand"), protocol),
    "end by hand": lambda protocol: by_hand_only(lambda tls: tls.unwrap(), protocol),
    "look": lambda protocol: by_hand_only(lambda tls: (tls.pending(), tls.session, tls.shared_ciphers()), protocol),
}
"""What a protocol may do in a callback, and in each one it does it once."""


class Deputy(BufferedRecorder):
    """Takes over from another protocol, into whose log it writes."""

    def __init__(self, first):
        super().__init__()
        self.log, self.data, self.lost = first.log, first.data, first.lost
        self.transport = first.transport

    def connection_lost(self, exc):
        if not self.lost.done():
            super().connection_lost(exc)


CALLBACKS = ["connection_made", "data_received", "get_buffer", "eof_received", "connection_lost", "pause_writing"]


async def act_in_a_callback(loop, name, action, kind):
    """A short life of a connection, in one of whose callbacks something is done. Returns what both sides noted."""

    def act(protocol):
        del protocol.on[name]
        if name == "connection_lost":
            # What it noted is complete by now.
            protocol.log.append(("acted",))
        action(protocol)

    made = []

    def factory():
        made.append(kind(**{name: act}))
        return made[-1]

    try:
        client, server = await connect(loop, factory)
    except Broken as broken:
        # The last word of the handshake is sent after connection_made().
        (client,) = made
        await asyncio.wait_for(client.lost, PATIENCE)
        return client.log, describe(broken.server)
    server.transport.write(b"first")
    await until(lambda: len(client.data) == 5 or not client.transport.is_reading() or client.lost.done())
    await turns(3)
    if name == "pause_writing" and not client.lost.done():
        server.transport.pause_reading()
        while name in client.on and not client.lost.done():
            client.transport.write(bytes(1 << 20))
            await turns(2)
        server.transport.resume_reading()
    if client.transport.is_closing() or (action is ACTIONS["end by hand"] and name not in client.on):
        # What crosses the goodbye is an error or is not, as it comes.
        await asyncio.wait_for(asyncio.wait([server.lost]), PATIENCE)
    server.transport.write(b"second")
    await turns(3)
    if not client.lost.done() and not client.transport.is_reading():
        client.transport.resume_reading()
    server.transport.close()
    await asyncio.wait_for(asyncio.wait([client.lost, server.lost]), PATIENCE)
    await turns(3)
    sizes = [len(protocol.data) for protocol in (client, server)]
    dull = set()
    if action is ACTIONS["limits"] or name == "pause_writing":
        # With a limit of nothing the number of pauses is the number of attempts to write. And asyncio hands all of a
        # large write to the transport below before it counts what waits: the next one pauses the protocol.
        dull = {"pause_writing", "resume_writing"}
        assert name != "pause_writing" or name not in client.on or client.lost.done()
    if name == "pause_writing" or action is ACTIONS["write much"]:
        # How much of it gets through before the other side closes depends on how much a turn moves.
        dull |= {"resume_writing"}
        sizes = sizes[:1]
    log = [entry[:1] if entry[0] == "data_received" else entry for entry in client.log if entry[0] not in dull]
    while ("data_received",) in log[1:] and log.count(("data_received",)) > 1:
        log.remove(("data_received",))
    return log, server.names[-1], sizes


@pytest.mark.parametrize("name", CALLBACKS)
@pytest.mark.parametrize("action", ACTIONS)
@PROTOCOLS
def test_what_callbacks_do(name, action, kind):
    """As on the stdlib: what is called then, with what error, and how much each side has received."""
    if name == "get_buffer" and kind is Recorder:
        pytest.skip("it has no such method")
    if name == "connection_made" and action == "pause":
        pytest.skip("it keeps the handshake of the stdlib from ending, see test_pause_in_connection_made")
    outcomes = []
    for make in (asyncio.SelectorEventLoop, aioxide.new_event_loop):
        loop = make()
        noted = []
        loop.set_exception_handler(lambda _, context: noted.append(context["message"]))
        try:
            outcome = run(loop, act_in_a_callback(loop, name, ACTIONS[action], kind))
        finally:
            loop.close()
        outcomes.append((outcome, noted))
    assert outcomes[0] == outcomes[1]


def test_pause_in_connection_made(loop):
    """Who reads later gets all of it. On the stdlib the peer's handshake ends no sooner."""

    async def main():
        near, far = socket.socketpair()
        accepting = asyncio.ensure_future(loop.connect_accepted_socket(Recorder, far, ssl=server_context()))
        context = client_context()
        paused = Recorder(connection_made=lambda protocol: protocol.transport.pause_reading())
        await loop.create_connection(lambda: paused, sock=near, ssl=context, server_hostname="localhost")
        await turns(3)
        paused.transport.resume_reading()
        _, server = await accepting
        await echo_both_ways(paused, server)
        await close_both(paused, server)

    run(loop, main())


# Contexts, life and death.


def test_context_variables(loop):
    """Those of one connection are not seen by another."""
    variable = contextvars.ContextVar("variable", default="nobody")

    class Noting(Recorder):
        def connection_made(self, transport):
            self.seen = [variable.get()]
            variable.set(id(self))
            super().connection_made(transport)

        def received(self, data):
            self.seen.append(variable.get())
            super().received(data)

        def connection_lost(self, exc):
            self.seen.append(variable.get())
            super().connection_lost(exc)

    made = []

    def factory():
        made.append(Noting())
        return made[-1]

    async def main():
        server = await loop.create_server(factory, "127.0.0.1", 0, ssl=server_context())
        clients = []
        for number in range(3):
            address = server.sockets[0].getsockname()
            opened = loop.create_connection(Recorder, *address, ssl=client_context())
            clients.append((await opened)[1])
            await until(lambda number=number: len(made) == number + 1 and made[-1].transport)
        for client in clients:
            client.transport.write(b"x")
        for protocol in made:
            await protocol.has(1)
        for client in clients:
            client.transport.close()
            await client.lost
        for protocol in made:
            await protocol.lost
            allowed = {"nobody", id(protocol)}
            assert set(protocol.seen) <= allowed
            assert protocol.seen[0] == "nobody"
        assert variable.get() == "nobody"
        server.close()
        await server.wait_closed()

    run(loop, main())


def test_the_context_of_who_connects(loop):
    variable = contextvars.ContextVar("variable", default="nobody")
    seen = []

    async def main():
        variable.set("who connects")
        on = {name: lambda protocol: seen.append(variable.get()) for name in ("connection_made", "data_received")}
        async with connected(loop, lambda: Recorder(**on)) as (client, server):
            variable.set("later")
            server.transport.write(b"x")
            await client.has(1)

    run(loop, main())
    assert seen == ["who connects"] * 2


def test_closed_connections_can_be_collected(loop):
    async def main():
        dead = []
        async with connected(loop) as (client, server):
            await echo_both_ways(client, server)
            for protocol in (client, server):
                dead += [weakref.ref(protocol), weakref.ref(protocol.transport)]
                dead.append(weakref.ref(protocol.transport.get_extra_info("ssl_object")))
            await close_both(client, server)
        del protocol
        return dead

    dead = run(loop, main())
    gc.collect()
    assert [reference() for reference in dead] == [None] * 6


def test_failed_connections_can_be_collected(loop):
    async def main():
        dead = []

        class Context(ssl.SSLContext):
            def wrap_bio(self, *arguments, **options):
                tls = super().wrap_bio(*arguments, **options)
                dead.append(weakref.ref(tls))
                return tls

        with pytest.raises(Broken):
            await connect(loop, contexts=(client_context(cls=Context), server_context("other", cls=Context)))
        return dead

    dead = run(loop, main())
    gc.collect()
    assert len(dead) == 2
    assert [reference() for reference in dead] == [None] * 2


def test_unclosed_connections_warn(aio):
    loop = asyncio.SelectorEventLoop() if aio is asyncio else aioxide.new_event_loop()
    with warnings.catch_warnings(record=True) as noted:
        warnings.simplefilter("always")
        protocols = loop.run_until_complete(connect(loop))
        loop.close()
        for protocol in protocols:
            protocol.transport = None
        protocol = protocols = None
        gc.collect()
        assert protocols is None
    texts = [str(warning.message) for warning in noted if warning.category is ResourceWarning]
    assert sum(text.startswith("unclosed transport <asyncio._SSLProtocolTransport") for text in texts) == 2


# Wrong arguments.


@pytest.mark.parametrize("name", ["ssl_handshake_timeout", "ssl_shutdown_timeout"])
@pytest.mark.parametrize("value", [0, -1, -0.5, 0.0, "1", b"1"], ids=repr)
@pytest.mark.parametrize("method", ["create_connection", "connect_accepted_socket", "start_tls"])
def test_time_limits(loop, method, name, value):
    async def main():
        near, far = socket.socketpair()
        with near, far:
            if method == "create_connection":
                context = client_context()
                coroutine = loop.create_connection(
                    Recorder, sock=near, ssl=context, server_hostname="localhost", **{name: value}
                )
            elif method == "connect_accepted_socket":
                coroutine = loop.connect_accepted_socket(Recorder, near, ssl=server_context(), **{name: value})
            else:
                transport, protocol = await loop.connect_accepted_socket(Recorder, near)
                coroutine = loop.start_tls(transport, protocol, server_context(), server_side=True, **{name: value})
            number = isinstance(value, (int, float))
            with pytest.raises(ValueError if number else TypeError) as raised:
                await coroutine
            if number:
                assert str(raised.value) == f"{name} should be a positive number, got {value}"
            else:
                assert (
                    str(raised.value) == f"'<=' not supported between instances of '{type(value).__name__}' and 'int'"
                )
            if method == "start_tls":
                transport.abort()
                await protocol.lost

    run(loop, main())


@pytest.mark.parametrize("value", ["context", 5, object])
def test_what_is_no_context(loop, value):
    async def main():
        near, far = socket.socketpair()
        with near, far:
            with pytest.raises(AttributeError, match="has no attribute 'wrap_bio'"):
                await loop.create_connection(Recorder, sock=near, ssl=value, server_hostname="localhost")
            with pytest.raises(AttributeError, match="has no attribute 'wrap_bio'"):
                await loop.connect_accepted_socket(Recorder, far, ssl=value)

    run(loop, main())


def test_contexts_of_the_other_side(loop):
    async def main():
        client = client_context()
        client.check_hostname = False
        near, far = socket.socketpair()
        with near, far:
            with pytest.raises(ssl.SSLError, match="Cannot create a client socket with a PROTOCOL_TLS_SERVER context"):
                await loop.create_connection(Recorder, sock=near, ssl=server_context(), server_hostname="localhost")
            with pytest.raises(ssl.SSLError, match="Cannot create a server socket with a PROTOCOL_TLS_CLIENT context"):
                await loop.connect_accepted_socket(Recorder, far, ssl=client)

    run(loop, main())


def test_true_is_no_context_of_a_server(loop):
    async def main():
        near, far = socket.socketpair()
        with near, far, pytest.raises(ValueError, match=r"^Server side SSL needs a valid SSLContext$"):
            await loop.connect_accepted_socket(Recorder, near, ssl=True)
        for value in (True, False):
            with pytest.raises(TypeError, match=r"^ssl argument must be an SSLContext or None$"):
                await loop.create_server(Recorder, "127.0.0.1", 0, ssl=value)
            with pytest.raises(TypeError, match=r"^ssl argument must be an SSLContext or None$"):
                await loop.create_unix_server(Recorder, "/nowhere", ssl=value)

    run(loop, main())


@pytest.mark.parametrize(
    ("hostname", "error"),
    [(5, AttributeError), (b"localhost", None), ("a\0b", ValueError), (".x", UnicodeError), ("x" * 300, UnicodeError)],
    ids=["number", "bytes", "zero", "dot", "long"],
)
def test_names_that_are_none(loop, hostname, error):
    """As the context has it."""
    text = None
    try:
        Hand(client_context(), hostname=hostname)
    except (AttributeError, TypeError, ValueError) as raised:
        text = type(raised), without_place(raised) or str(raised)

    async def main():
        near, far = socket.socketpair()
        with near, far:
            coroutine = loop.create_connection(Recorder, sock=near, ssl=client_context(), server_hostname=hostname)
            if text is None:
                async with asyncio.TaskGroup() as group:
                    opening = group.create_task(coroutine)
                    accepting = group.create_task(loop.connect_accepted_socket(Recorder, far, ssl=server_context()))
                (_, client), (_, server) = opening.result(), accepting.result()
                await close_both(client, server)
                return
            with pytest.raises(text[0]) as raised:
                await coroutine
            assert (type(raised.value), without_place(raised.value) or str(raised.value)) == text

    run(loop, main())
    assert (text is None) is (error is None)


def test_bad_time_limits_of_a_server(loop, aio, reports):
    """They are noticed when somebody connects, and reported in debug mode."""
    if aio is asyncio:
        pytest.skip(f"asyncio of Python {platform.python_version()} and all others: the connection stays open")
    loop.set_debug(True)

    async def main():
        server = await loop.create_server(Recorder, "127.0.0.1", 0, ssl=server_context(), ssl_handshake_timeout=0)
        with socket.create_connection(server.sockets[0].getsockname()) as sock:
            sock.setblocking(False)
            assert await loop.sock_recv(sock, 10) == b""
        server.close()
        await server.wait_closed()

    run(loop, main())
    assert [(report[0], *report[1:3]) for report in reports] == [
        (
            "Error on transport creation for incoming connection",
            "ValueError",
            "ssl_handshake_timeout should be a positive number, got 0",
        )
    ]


def test_debug_mode_logs(aio, caplog):
    caplog.set_level(logging.DEBUG, "asyncio")
    loop = asyncio.SelectorEventLoop() if aio is asyncio else aioxide.new_event_loop()
    loop.set_debug(True)

    async def main():
        async with connected(loop) as (client, server):
            await close_both(client, server)

    run(loop, main())
    loop.close()
    texts = [record[2] for record in caplog.record_tuples]
    assert sum("starts SSL handshake" in text for text in texts) == 2
    assert sum("SSL handshake took" in text for text in texts) == 2

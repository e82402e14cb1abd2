"""TLS with other programs: openssl, curl, asyncio in another process, mail.

What the other program does is waited for by what it writes. Without the program a test is skipped.
"""

import asyncio
import contextlib
import fcntl
import functools
import hashlib
import os
import re
import shutil
import smtplib
import socket
import ssl
import subprocess
import sys
import termios
import threading

import pytest
from tls_certificates import certificates, client_context, server_context
from tls_talk import PATIENCE, TLS_1_2, TLS_1_3, Recorder, run, until

OPENSSL, CURL = shutil.which("openssl"), shutil.which("curl")
needs_openssl = pytest.mark.skipif(OPENSSL is None, reason="the program openssl is not here")
needs_curl = pytest.mark.skipif(CURL is None, reason="the program curl is not here")


@pytest.fixture
def loop(plain_loop):
    """Not in debug mode."""
    return plain_loop


@functools.cache
def speaks(version):
    """Can the program speak a version (`-tls1_1`), and this Python?"""
    options = subprocess.run([OPENSSL, "s_client", "-help"], capture_output=True, text=True, check=False).stderr
    return re.search(rf"{version}\b", options) is not None


VERSIONS = {"-tls1": "TLSv1", "-tls1_1": "TLSv1.1", "-tls1_2": "TLSv1.2", "-tls1_3": "TLSv1.3"}


def old_versions(context, name):
    """Lets a context speak old versions, if it is to."""
    if name in {"TLSv1", "TLSv1.1"}:
        context.minimum_version = ssl.TLSVersion.MINIMUM_SUPPORTED
        context.set_ciphers("ALL:@SECLEVEL=0")
    return context


class Child:
    """Another program, whose output the loop reads."""

    def __init__(self, loop, *arguments):
        self.loop = loop
        self.process = subprocess.Popen(
            arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, bufsize=0
        )
        self.output = bytearray()

    async def __aenter__(self):
        child = self

        class Output(asyncio.Protocol):
            def data_received(self, data):
                child.output += data

            def connection_lost(self, exc):
                child.over.set_result(None)

        self.over = self.loop.create_future()
        self.transport, _ = await self.loop.connect_read_pipe(Output, self.process.stdout)
        return self

    async def __aexit__(self, *details):
        with contextlib.suppress(OSError):
            self.process.stdin.close()
        if details[0] is not None:
            self.process.kill()
        try:
            await asyncio.wait_for(self.over, PATIENCE)
        finally:
            self.process.kill()
            self.process.wait()
            self.transport.close()

    def say(self, data):
        self.process.stdin.write(data)

    async def has_read(self):
        """Waits until it has taken what was said to it."""
        size = bytearray(4)

        def taken():
            fcntl.ioctl(self.process.stdin, termios.FIONREAD, size)
            return size == bytes(4)

        await until(taken)

    async def says(self, text):
        """Waits until it has written a text, and forgets what came before."""
        await until(lambda: text in self.output or self.over.done(), f"{text!r} does not come")
        assert text in self.output, bytes(self.output)
        del self.output[: self.output.index(text) + len(text)]


class Echo(Recorder):
    """Sends everything back."""

    def received(self, data):
        super().received(data)
        self.transport.write(data)


@contextlib.asynccontextmanager
async def serving(loop, context, factory=Echo):
    """A server of the loop. Yields its port, and the protocols that it makes."""
    made = []

    def make():
        made.append(factory())
        return made[-1]

    server = await loop.create_server(make, "127.0.0.1", 0, ssl=context)
    try:
        yield server.sockets[0].getsockname()[1], made
    finally:
        server.close()
        for protocol in made:
            if protocol.transport is not None:
                protocol.transport.abort()
        await asyncio.wait_for(server.wait_closed(), PATIENCE)


def s_client(loop, port, *options):
    arguments = ["-connect", f"127.0.0.1:{port}", "-servername", "localhost", "-CAfile", certificates().authority]
    return Child(loop, OPENSSL, "s_client", *arguments, "-verify_return_error", *options)


@contextlib.asynccontextmanager
async def s_server(loop, *options, name="server"):
    """openssl as a server. Yields it and its port."""
    path = getattr(certificates(), name)
    arguments = ["-accept", "127.0.0.1:0", "-cert", path, "-key", path, *options]
    async with Child(loop, OPENSSL, "s_server", *arguments) as child:
        await until(lambda: re.search(rb"ACCEPT 127\.0\.0\.1:\d+\s", child.output) or child.over.done())
        port = int(re.search(rb"ACCEPT 127\.0\.0\.1:(\d+)", child.output)[1])
        try:
            yield child, port
        finally:
            child.process.terminate()


@needs_openssl
@pytest.mark.parametrize("option", VERSIONS)
def test_client_of_openssl(loop, option):
    """It verifies the server, sends a line, and gets it back."""
    if not speaks(option):
        pytest.skip(f"this openssl does not know {option}")
    old = option in {"-tls1", "-tls1_1"}

    async def main():
        context = old_versions(server_context("rsa" if old else "server"), VERSIONS[option])
        extra = ["-cipher", "ALL:@SECLEVEL=0"] if old else []
        async with serving(loop, context) as (port, made), s_client(loop, port, option, *extra) as child:
            await child.says(b"Verify return code: 0 (ok)")
            child.say(b"a line\n")
            await child.says(b"a line\n")
            assert made[0].transport.get_extra_info("ssl_object").version() == VERSIONS[option]
            child.say(b"Q\n")
            await asyncio.wait_for(made[0].lost, PATIENCE)
            assert made[0].error is None
            assert made[0].names[-2:] == ["eof_received", "connection_lost"]

    run(loop, main())


@needs_openssl
@pytest.mark.parametrize("option", VERSIONS)
def test_server_of_openssl(loop, option):
    """With -rev it sends back each line reversed."""
    if not speaks(option):
        pytest.skip(f"this openssl does not know {option}")
    old = option in {"-tls1", "-tls1_1"}

    async def main():
        context = old_versions(client_context(), VERSIONS[option])
        extra = ["-cipher", "ALL:@SECLEVEL=0"] if old else []
        async with s_server(loop, option, "-rev", *extra, name="rsa" if old else "server") as (_, port):
            transport, protocol = await loop.create_connection(
                Recorder, "127.0.0.1", port, ssl=context, server_hostname="localhost"
            )
            assert transport.get_extra_info("ssl_object").version() == VERSIONS[option]
            transport.write(b"a line\n")
            await protocol.has(7)
            assert protocol.data == b"enil a\n"
            transport.close()
            await asyncio.wait_for(protocol.lost, PATIENCE)

    run(loop, main())


async def echo_between_orders(child, order, answer, protocol):
    """Has s_client do something, then send a line that comes back; three times, then it quits."""
    for number in range(3):
        child.say(order)
        await child.says(answer)
        line = b"line %d\n" % number
        child.say(line)
        await child.says(line)
    child.say(b"Q\n")
    await asyncio.wait_for(protocol.lost, PATIENCE)
    assert protocol.data == b"line 0\nline 1\nline 2\n"
    assert protocol.error is None


@needs_openssl
def test_client_renegotiates(loop):
    """If the server's context allows it, data goes on with other keys; else it is refused."""
    allow = 1 << 8

    async def main():
        context = server_context(version=TLS_1_2)
        context.options |= allow
        async with serving(loop, context) as (port, made), s_client(loop, port, "-tls1_2") as child:
            await child.says(b"Verify return code: 0 (ok)")
            await echo_between_orders(child, b"R\n", b"RENEGOTIATING", made[0])

    run(loop, main())


@needs_openssl
def test_client_may_not_renegotiate(loop):
    async def main():
        context = server_context(version=TLS_1_2)
        context.options |= ssl.OP_NO_RENEGOTIATION
        async with serving(loop, context) as (port, made), s_client(loop, port, "-tls1_2") as child:
            await child.says(b"Verify return code: 0 (ok)")
            child.say(b"R\n")
            await child.says(b"RENEGOTIATING")
            await child.says(b"no renegotiation")
            await asyncio.wait_for(made[0].lost, PATIENCE)
            assert made[0].data == b""

    run(loop, main())


@needs_openssl
@pytest.mark.parametrize("order", [b"K\n", b"k\n"], ids=["both", "one"])
def test_client_changes_its_keys(loop, order):
    """TLS 1.3's KeyUpdate, with and without asking for an answer."""

    async def main():
        async with serving(loop, server_context()) as (port, made), s_client(loop, port, "-tls1_3") as child:
            await child.says(b"Verify return code: 0 (ok)")
            await echo_between_orders(child, order, b"KEYUPDATE", made[0])

    run(loop, main())


@needs_openssl
@pytest.mark.parametrize(
    "order", [b"r\n", b"K\n", b"k\n"], ids=["renegotiates", "changes both keys", "changes its key"]
)
def test_server_changes(loop, order):
    """The server of openssl asks for other keys; data goes on in both directions."""
    version = "-tls1_2" if order == b"r\n" else "-tls1_3"

    async def main():
        async with s_server(loop, version) as (child, port):
            transport, protocol = await loop.create_connection(
                Recorder, "127.0.0.1", port, ssl=client_context(), server_hostname="localhost"
            )
            transport.write(b"before\n")
            await child.says(b"before\n")
            child.say(order)
            await child.has_read()
            child.say(b"from openssl\n")
            await until(lambda: b"from openssl\n" in protocol.data)
            transport.write(b"after\n")
            await child.says(b"after\n")
            transport.close()
            await asyncio.wait_for(protocol.lost, PATIENCE)

    run(loop, main())


@needs_openssl
def test_client_of_openssl_with_a_certificate(loop):
    async def main():
        context = server_context(ask=ssl.CERT_REQUIRED)
        path = certificates().client
        async with (
            serving(loop, context) as (port, made),
            s_client(loop, port, "-cert", path, "-key", path, "-alpn", "h2") as child,
        ):
            await child.says(b"Verify return code: 0 (ok)")
            await until(lambda: made[0].transport)
            subject = made[0].transport.get_extra_info("peercert")["subject"]
            assert (("commonName", "a client"),) in subject

    run(loop, main())


@needs_openssl
def test_session_of_openssl(loop, tmp_path):
    """It comes again with the session of before."""

    async def main():
        path = str(tmp_path / "session")
        async with serving(loop, server_context(version=TLS_1_2)) as (port, made):
            for option, word in (("-sess_out", b"New, "), ("-sess_in", b"Reused, ")):
                async with s_client(loop, port, option, path) as child:
                    await child.says(word)
                    child.say(b"x\n")
                    await child.says(b"x\n")
            assert made[1].transport.get_extra_info("ssl_object").session_reused

    run(loop, main())


@needs_openssl
def test_much_data_of_openssl(loop):
    """Whole files both ways."""

    async def main():
        async with serving(loop, server_context()) as (port, made), s_client(loop, port, "-quiet") as child:
            line = b"x" * 99 + b"\n"
            os.set_blocking(child.process.stdin.fileno(), False)
            left = memoryview(line * 20_000)
            got = 0
            while left or got < 2_000_000:
                with contextlib.suppress(BlockingIOError):
                    left = left[child.process.stdin.write(left[:65_536]) or 0 :]
                got = child.output.count(b"x\n") * 100
                await asyncio.sleep(0)
            await until(lambda: child.output.count(line) >= 20_000)
            child.process.terminate()
            await asyncio.wait_for(made[0].lost, PATIENCE)
            assert len(made[0].data) == 2_000_000

    run(loop, main())


# curl.


@needs_curl
@pytest.mark.parametrize("options", [["--tlsv1.2", "--tls-max", "1.2"], ["--tlsv1.3"], ["--http1.0"]], ids=" ".join)
def test_curl(loop, aio, options):
    body = b"0123456789" * 50_000

    async def answer(reader, writer):
        with contextlib.suppress(asyncio.IncompleteReadError):
            head = await reader.readuntil(b"\r\n\r\n")
            assert head.startswith(b"GET /page HTTP/1")
            writer.write(b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: %d\r\n\r\n" % len(body))
            writer.write(body)
            await writer.drain()
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()

    async def main():
        server = await aio.start_server(answer, "127.0.0.1", 0, ssl=server_context())
        port = server.sockets[0].getsockname()[1]
        url = f"https://127.0.0.1:{port}/page"
        async with Child(
            loop, CURL, "-sS", "--noproxy", "*", "--cacert", certificates().authority, *options, url
        ) as child:
            await asyncio.wait_for(child.over, PATIENCE)
        assert child.output == body
        assert child.process.returncode == 0
        # It says so if the certificate is not good.
        async with Child(
            loop, CURL, "-sS", "--noproxy", "*", "--cacert", certificates().stranger, *options, url
        ) as child:
            await asyncio.wait_for(child.over, PATIENCE)
        assert b"certificate" in child.output
        server.close()
        await server.wait_closed()

    run(loop, main())


# asyncio in another process.

PEER = """
import asyncio, hashlib, ssl, sys
side, port, certificate, authority = sys.argv[1:]

async def serve(reader, writer):
    data = await reader.readexactly(1_000_003)
    writer.write(hashlib.sha256(data).digest() + data)
    await writer.drain()
    await reader.read()
    writer.close()
    await writer.wait_closed()
    done.set()

async def main():
    global done
    done = asyncio.Event()
    if side == "server":
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate)
        server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context)
        print("port", server.sockets[0].getsockname()[1], flush=True)
        await done.wait()
        server.close()
    else:
        context = ssl.create_default_context(cafile=authority)
        reader, writer = await asyncio.open_connection("127.0.0.1", int(port), ssl=context, server_hostname="localhost")
        data = bytes(range(256)) * 3906 + bytes(67)
        writer.write(data)
        await writer.drain()
        assert await reader.readexactly(32) == hashlib.sha256(data).digest()
        assert await reader.readexactly(len(data)) == data
        writer.close()
        await writer.wait_closed()
    print("well done", flush=True)

asyncio.run(main())
"""


@pytest.mark.slow
@pytest.mark.parametrize("side", ["client", "server"])
def test_asyncio_in_another_process(loop, aio, side):
    async def main():
        paths = certificates().server, certificates().authority
        if side == "client":
            ended = asyncio.Event()

            async def serve(reader, writer):
                data = await reader.readexactly(1_000_003)
                writer.write(hashlib.sha256(data).digest() + data)
                await writer.drain()
                assert await reader.read() == b""
                writer.close()
                await writer.wait_closed()
                ended.set()

            server = await aio.start_server(serve, "127.0.0.1", 0, ssl=server_context())
            port = server.sockets[0].getsockname()[1]
            async with Child(loop, sys.executable, "-c", PEER, "client", str(port), *paths) as child:
                await child.says(b"well done")
            await asyncio.wait_for(ended.wait(), PATIENCE)
            server.close()
            await server.wait_closed()
            return
        async with Child(loop, sys.executable, "-c", PEER, "server", "0", *paths) as child:
            await child.says(b"port ")
            await until(lambda: b"\n" in child.output)
            port = int(child.output)
            reader, writer = await aio.open_connection(
                "127.0.0.1", port, ssl=client_context(), server_hostname="localhost"
            )
            data = os.urandom(1_000_003)
            writer.write(data)
            await writer.drain()
            await reader.readexactly(32)
            assert await reader.readexactly(len(data)) == data
            writer.close()
            await writer.wait_closed()
            await child.says(b"well done")

    run(loop, main())


# Mail.


class Mailbox:
    """A small SMTP server over streams, that wants TLS."""

    def __init__(self, context):
        self.context = context
        self.messages = []
        self.versions = []
        self.ended = asyncio.Event()

    async def serve(self, reader, writer):
        writer.write(b"220 here\r\n")
        while line := (await reader.readline()).rstrip():
            word = line.split(b" ")[0].upper()
            if word == b"EHLO":
                secure = writer.get_extra_info("ssl_object") is not None
                writer.write(b"250 here\r\n" if secure else b"250-here\r\n250 STARTTLS\r\n")
            elif word == b"STARTTLS":
                writer.write(b"220 go ahead\r\n")
                await writer.drain()
                await writer.start_tls(self.context)
                self.versions.append(writer.get_extra_info("ssl_object").version())
            elif word == b"DATA":
                writer.write(b"354 go ahead\r\n")
                self.messages.append(await reader.readuntil(b"\r\n.\r\n"))
                writer.write(b"250 ok\r\n")
            elif word == b"QUIT":
                writer.write(b"221 bye\r\n")
                break
            else:
                writer.write(b"250 ok\r\n")
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()
        self.ended.set()


@pytest.mark.parametrize("version", [TLS_1_2, TLS_1_3], ids=["1.2", "1.3"])
def test_smtplib_as_client(loop, aio, version):
    """It blocks, so it has a thread."""

    def send(port):
        with smtplib.SMTP("127.0.0.1", port, timeout=PATIENCE) as client:
            client._host = "localhost"
            client.starttls(context=client_context(version=version))
            client.sendmail("a@a.test", ["b@b.test"], "Subject: x\r\n\r\n" + "a line\r\n" * 5000)

    async def main():
        box = Mailbox(server_context())
        server = await aio.start_server(box.serve, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        await loop.run_in_executor(None, send, port)
        await asyncio.wait_for(box.ended.wait(), PATIENCE)
        assert box.messages == [b"Subject: x\r\n\r\n" + b"a line\r\n" * 5000 + b".\r\n"]
        assert box.versions == ["TLSv1.2" if version == TLS_1_2 else "TLSv1.3"]
        server.close()
        await server.wait_closed()

    run(loop, main(), threads=True)


def blocking_mail_server(listener, lines):
    """One conversation, with the library ssl's blocking sockets."""
    sock, _ = listener.accept()
    sock.settimeout(PATIENCE)
    with sock:
        sock.sendall(b"220 here\r\n")
        assert sock.recv(100) == b"EHLO me\r\n"
        sock.sendall(b"250-here\r\n250 STARTTLS\r\n")
        assert sock.recv(100) == b"STARTTLS\r\n"
        sock.sendall(b"220 go ahead\r\n")
        with server_context().wrap_socket(sock, server_side=True) as secure, secure.makefile("rb") as file:
            for line in file:
                lines.append(line)
                if line == b"QUIT\r\n":
                    break
                secure.sendall(b"250 ok\r\n")
            secure.sendall(b"221 bye\r\n")
            # It says its end and waits for ours.
            secure.unwrap().close()


def test_client_of_a_mail_server(loop, aio):
    async def main():
        lines = []
        with socket.create_server(("127.0.0.1", 0)) as listener:
            listener.settimeout(PATIENCE)
            thread = threading.Thread(target=blocking_mail_server, args=(listener, lines))
            thread.start()
            reader, writer = await aio.open_connection(*listener.getsockname())
            assert await reader.readline() == b"220 here\r\n"
            writer.write(b"EHLO me\r\n")
            assert await reader.readuntil(b"250 STARTTLS\r\n") == b"250-here\r\n250 STARTTLS\r\n"
            writer.write(b"STARTTLS\r\n")
            assert await reader.readline() == b"220 go ahead\r\n"
            await writer.start_tls(client_context(), server_hostname="localhost")
            for line in (b"EHLO me\r\n", b"MAIL FROM:<a@a.test>\r\n"):
                writer.write(line)
                assert await reader.readline() == b"250 ok\r\n"
            writer.write(b"QUIT\r\n")
            assert await reader.readline() == b"221 bye\r\n"
            assert await reader.read() == b""
            writer.close()
            await writer.wait_closed()
            await loop.run_in_executor(None, thread.join)
        assert lines == [b"EHLO me\r\n", b"MAIL FROM:<a@a.test>\r\n", b"QUIT\r\n"]

    run(loop, main(), threads=True)

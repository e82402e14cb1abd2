"""A short program that touches what the extension does with memory; `make memcheck` runs it under valgrind.

Everything here ends in a known way, and is checked, so that a fault that valgrind does not see shows all the same.
"""

import contextlib
import contextvars
import functools
import gc
import importlib
import os
import pickle
import socket
import ssl
import subprocess
import sys
import tempfile
import threading
import weakref

aio = importlib.import_module(sys.argv[1] if len(sys.argv) > 1 else "aioxide")
ROUNDS = 3
BURST = 40
VARIABLE = contextvars.ContextVar("variable", default=None)


class Boom(Exception):
    """An exception with references to more than its arguments."""


class Callback:
    """A callable that knows when it dies, and may come back then."""

    graveyard = []

    def __init__(self, loop=None, returns=False):
        self.loop, self.returns, self.called = loop, returns, 0

    def __call__(self, *args):
        self.called += 1

    def __del__(self):
        if self.loop is not None and not self.loop.is_closed():
            self.loop.call_soon(int)
        if self.returns:
            self.returns = False
            self.graveyard.append(self)


class SlottedFuture(aio.Future):
    __slots__ = ("extra",)


def expect(condition, text="wrong"):
    if not condition:
        raise AssertionError(text)


async def value(result, turns=1):
    for _ in range(turns):
        await aio.sleep(0)
    return result


async def fails(turns=1):
    await aio.sleep(0)
    raise Boom(turns)


async def stubborn():
    try:
        await aio.sleep(3600)
    except aio.CancelledError:
        await aio.sleep(0)
        return "survived"


async def tasks():
    loop = aio.get_running_loop()
    burst = [aio.create_task(value(i, i % 4), name=f"task {i}") for i in range(BURST)]
    expect([await task for task in burst] == list(range(BURST)))
    parked = [aio.create_task(aio.sleep(3600)) for _ in range(BURST)]
    await aio.sleep(0)
    for number, task in enumerate(parked):
        task.cancel(f"message {number}" if number % 2 else None)
    expect(all(isinstance(end, aio.CancelledError) for end in await aio.gather(*parked, return_exceptions=True)))
    stays = aio.create_task(stubborn())
    await aio.sleep(0)
    stays.cancel()
    expect(await stays == "survived")
    eager = aio.Task(value("eager", 0), loop=loop, eager_start=True) if sys.version_info >= (3, 12) else None
    expect(eager is None or eager.result() == "eager")
    repr([burst, parked, stays, eager, aio.all_tasks(), aio.current_task()])


async def futures():
    loop = aio.get_running_loop()
    for kind in (aio.Future, SlottedFuture):
        made = [kind(loop=loop) for _ in range(BURST)]
        for number, future in enumerate(made):
            for _ in range(number % 4):
                future.add_done_callback(Callback())
            future.remove_done_callback(print)
            future.attribute = future
        waiting = [aio.ensure_future(aio.wait_for(future, 3600)) for future in made]
        await aio.sleep(0)
        for number, future in enumerate(made):
            if number % 3 == 0:
                future.set_result(number)
            elif number % 3 == 1:
                future.set_exception(Boom(future))
            else:
                future.cancel()
        ends = await aio.gather(*waiting, return_exceptions=True)
        expect(ends[0] == 0 and isinstance(ends[1], Boom) and isinstance(ends[2], aio.CancelledError))
        for future in made:
            del future.attribute
    iterator = loop.create_future().__await__()
    next(iterator)
    iterator.close()


async def combinators():
    aws = [aio.create_task(value(i, i)) for i in range(6)]
    done, pending = await aio.wait(aws, return_when=aio.FIRST_COMPLETED)
    expect(done and pending)
    done, pending = await aio.wait(pending, timeout=0)
    await aio.wait(pending)
    expect([await each for each in aio.as_completed([value(i, i) for i in range(5)])] == list(range(5)))
    expect(await aio.shield(value(1)) == 1)
    outer = aio.shield(aio.sleep(0))
    outer.cancel()
    for timeout in (0, 0.001):
        try:
            await aio.wait_for(aio.sleep(3600), timeout)
        except TimeoutError:
            pass
        else:
            expect(False)
    try:
        async with aio.timeout(0.001) as scope:
            scope.reschedule(aio.get_running_loop().time())
            await aio.sleep(3600)
    except TimeoutError:
        pass
    ends = await aio.gather(value(1), fails(), value(2), return_exceptions=True)
    expect(ends[0] == 1 and ends[2] == 2)
    with contextlib.suppress(Boom):
        await aio.gather(fails(), aio.sleep(3600), fails())


async def groups():
    async with aio.TaskGroup() as group:
        made = [group.create_task(value(i, 2)) for i in range(BURST)]
    expect([task.result() for task in made] == list(range(BURST)))
    try:
        async with aio.TaskGroup() as group:
            group.create_task(fails())
            group.create_task(aio.sleep(3600))
            await aio.sleep(3600)
    except BaseExceptionGroup as error:
        expect(isinstance(error.exceptions[0], Boom))


async def scheduling():
    loop = aio.get_running_loop()
    callback = Callback()
    context = contextvars.copy_context()
    for count in range(6):
        loop.call_soon(callback, *range(count), context=context)
        loop.call_soon(callback).cancel()
        loop.call_later(0.001, callback, *range(count))
        loop.call_at(loop.time() + 3600, callback, *range(count)).cancel()
        loop.call_later(1e20, callback).cancel()
    handle = None

    def cancels_itself():
        handle.cancel()
        raise Boom(handle)

    reports = []
    loop.set_exception_handler(lambda loop, context: reports.append(repr(context)))
    handle = loop.call_soon(cancels_itself)
    timers = [loop.call_later(3600 + i, callback) for i in range(500)]
    for timer in timers[::2] + timers[1::2]:
        timer.cancel()
    threads = [threading.Thread(target=lambda: [loop.call_soon_threadsafe(callback) for _ in range(20)]) for _ in "12"]
    for thread in threads:
        thread.start()
    await aio.to_thread(int)
    for thread in threads:
        thread.join()
    await aio.sleep(0.002)
    loop.set_exception_handler(None)
    expect(callback.called == 12 + 40, callback.called)
    expect(len(reports) == 1, reports)


async def garbage():
    """Cycles through every kind of object, weak references, finalizers that use the loop."""
    loop = aio.get_running_loop()
    loop.set_exception_handler(lambda loop, context: repr(context))
    seen = []
    for number in range(BURST):
        future = loop.create_future()
        future.cycle = [future, Callback(loop, returns=number % 5 == 0)]
        future.add_done_callback(future.cycle.append)
        weakref.finalize(future, seen.append, number)
        task = loop.create_task(aio.sleep(3600))
        task.cycle = task
        if number % 2:
            future.set_exception(Boom(future))
        else:
            task.cancel()
    future = task = None
    await aio.sleep(0)
    gc.collect()
    await aio.sleep(0)
    gc.collect()
    never = aio.sleep(1)
    never.close()
    loop.set_exception_handler(None)
    Callback.graveyard.clear()
    expect(sorted(seen) == list(range(BURST)), seen)
    for task in aio.all_tasks() - {aio.current_task()}:
        task.cancel()
    await aio.sleep(0)


class Echo(aio.Protocol):
    """Sends back what comes, and misbehaves now and then."""

    def __init__(self, lost):
        self.lost = lost

    def connection_made(self, transport):
        self.transport = transport

    def data_received(self, data):
        if data == b"raise":
            self.transport.write(b"raised")
            raise Boom(self)
        if data == b"abort":
            self.transport.write(b"aborted")
            self.transport.abort()
        for start in range(0, len(data), 7):
            self.transport.write(bytearray(data[start : start + 7]))
        self.transport.writelines([b"", memoryview(b"."), b""])

    def connection_lost(self, exc):
        self.lost.append(exc)


class BufferedEcho(aio.BufferedProtocol, Echo):
    """The same into a buffer of its own, a new one each time."""

    def get_buffer(self, sizehint):
        self.buffer = bytearray(16)
        return self.buffer

    def buffer_updated(self, nbytes):
        self.data_received(bytes(self.buffer[:nbytes]))


class Datagrams(aio.DatagramProtocol):
    """Sends each datagram back, or keeps it."""

    def __init__(self, arrived=None):
        self.arrived = arrived

    def connection_made(self, transport):
        self.transport = transport

    def datagram_received(self, data, address):
        if self.arrived is None:
            self.transport.sendto(data, address)
        else:
            self.arrived.put_nowait(data)


def streams(sock):
    return aio.open_connection(sock=sock)


async def protocols():
    loop = aio.get_running_loop()
    lost = []
    loop.set_exception_handler(lambda *_: None)
    for factory in (Echo, BufferedEcho):
        server = await loop.create_server(lambda: factory(lost), "127.0.0.1", 0)
        host, port = server.sockets[0].getsockname()
        for words in (b"raise", b"abort", b"hello " * 5):
            reader, writer = await aio.open_connection(host, port)
            writer.write(words)
            if words.startswith(b"hello"):
                expect((await reader.read(3)) == b"hel")
            else:
                expect((await reader.read()).endswith(b"ed"))
            writer.get_extra_info("socket")
            writer.close()
            await writer.wait_closed()
        server.close()
        await server.wait_closed()
    loop.set_exception_handler(None)
    expect(len(lost) == 6, lost)


async def flow():
    near, far = socket.socketpair()
    (reader, writer), (peer, answer) = [await streams(sock) for sock in (near, far)]
    data = bytes(range(256)) * 4096
    for start in range(0, len(data), 5000):
        writer.write(data[start : start + 5000])
    draining = aio.create_task(writer.drain())
    expect(await peer.readexactly(len(data)) == data)
    await draining
    waiting = [aio.create_task(read) for read in (reader.readline(), peer.readuntil((b"--", b"++")))]
    await aio.sleep(0)
    waiting[0].cancel()
    writer.write(b"end++rest")
    writer.write_eof()
    expect(await waiting[1] == b"end++")
    expect(await peer.read() == b"rest")
    answer.close()
    expect(await reader.read() == b"")
    writer.close()
    await aio.gather(*waiting, return_exceptions=True)
    # A stale number: the socket is closed behind the transport, and others take its place.
    near, far = socket.socketpair()
    reader, writer = await streams(near)
    near.close()
    others = socket.socketpair()
    writer.write(b"nobody")
    await aio.sleep(0)
    await aio.sleep(0)
    expect(writer.is_closing())
    for sock in (far, *others):
        sock.close()


async def datagrams():
    loop = aio.get_running_loop()
    arrived = aio.Queue()
    server, _ = await loop.create_datagram_endpoint(Datagrams, local_addr=("127.0.0.1", 0))
    address = server.get_extra_info("sockname")
    client, _ = await loop.create_datagram_endpoint(lambda: Datagrams(arrived), remote_addr=address)
    for number in range(BURST):
        client.sendto(bytes([number]) * number)
        expect(await arrived.get() == bytes([number]) * number)
    client.close()
    server.abort()
    await aio.sleep(0)
    await aio.sleep(0)


async def pipes():
    loop = aio.get_running_loop()
    read_end, write_end = os.pipe()
    reader = aio.StreamReader()
    lost = []
    ends = (os.fdopen(read_end, "rb", 0), os.fdopen(write_end, "wb", 0))
    source, _ = await loop.connect_read_pipe(lambda: aio.StreamReaderProtocol(reader), ends[0])
    sink, _ = await loop.connect_write_pipe(lambda: Echo(lost), ends[1])
    sink.write(bytes(1 << 18))
    expect(len(await reader.readexactly(1 << 18)) == 1 << 18)
    sink.write(bytearray(b"end"))
    sink.close()
    expect(await reader.read() == b"end")
    source.close()
    await aio.sleep(0)
    await aio.sleep(0)
    expect(lost == [None], lost)


async def sockets():
    loop = aio.get_running_loop()
    listener = socket.create_server(("127.0.0.1", 0))
    near = socket.socket()
    for sock in (listener, near):
        sock.setblocking(False)
    accepting = aio.create_task(loop.sock_accept(listener))
    await loop.sock_connect(near, listener.getsockname())
    far, _ = await accepting
    data = bytes(1 << 20)
    sending = aio.create_task(loop.sock_sendall(near, data))
    buffer, count = bytearray(1 << 16), 0
    while count < len(data):
        count += await loop.sock_recv_into(far, buffer)
        count += len(await loop.sock_recv(far, 1 << 16)) if count < len(data) else 0
    await sending
    for turns in range(3):
        waiting = [aio.create_task(call) for call in (loop.sock_recv(far, 9), loop.sock_accept(listener))]
        for _ in range(turns):
            await aio.sleep(0)
        for task in waiting:
            task.cancel()
        await aio.gather(*waiting, return_exceptions=True)
    for sock in (listener, near, far):
        sock.close()


@functools.cache
def contexts():
    """Contexts of a server and of a client that trusts it."""
    command = (
        "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2"
        " -subj /CN=localhost -addext subjectAltName=DNS:localhost"
    )
    with tempfile.TemporaryDirectory() as folder:
        key, certificate = os.path.join(folder, "key"), os.path.join(folder, "certificate")
        subprocess.run([*command.split(), "-keyout", key, "-out", certificate], check=True, capture_output=True)
        server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        server.load_cert_chain(certificate, key)
        return server, ssl.create_default_context(cafile=certificate)


class Secret(aio.Protocol):
    """Notes what comes by TLS; does something else with the first of it."""

    def __init__(self, act=None):
        self.act, self.data, self.transport = act, bytearray(), None
        self.lost = aio.get_running_loop().create_future()

    def connection_made(self, transport):
        self.transport = transport

    def data_received(self, data):
        self.data += data
        if self.act is not None:
            act, self.act = self.act, None
            act(self)

    def connection_lost(self, exc):
        if not self.lost.done():
            self.lost.set_result(None)
        self.transport = None


class BufferedSecret(Secret, aio.BufferedProtocol):
    """The same into a buffer that is another one each time."""

    def get_buffer(self, sizehint):
        self.buffer = bytearray(1 + 5000 * len(self.data) % 70_000)
        return self.buffer

    def buffer_updated(self, nbytes):
        self.data_received(self.buffer[:nbytes])


def replace_inside(protocol):
    """Takes the objects of TLS away while they are in use."""
    tls = protocol.transport._ssl_protocol
    other = contexts()[1].wrap_bio(ssl.MemoryBIO(), ssl.MemoryBIO(), server_hostname="localhost")
    tls._incoming, tls._outgoing, tls._sslobj = ssl.MemoryBIO(), ssl.MemoryBIO(), other
    gc.collect()


def let_go(protocol):
    """Drops all that can be dropped."""
    transport = protocol.transport
    transport.abort()
    transport._ssl_protocol.__init__(aio.get_running_loop(), protocol, contexts()[1], None, server_hostname="localhost")
    transport._ssl_protocol = None
    # It will not hear of it.
    protocol.lost.set_result(None)
    gc.collect()


ACTS = (
    None,
    lambda protocol: protocol.transport.write(bytes(200_000)),
    lambda protocol: protocol.transport.close(),
    lambda protocol: protocol.transport.abort(),
    lambda protocol: protocol.transport.get_extra_info("ssl_object").read(3),
    lambda protocol: protocol.transport._ssl_protocol._do_read(),
    replace_inside,
    let_go,
)


async def secrets():
    loop = aio.get_running_loop()
    loop.set_exception_handler(lambda *_: None)
    for factory in (Secret, BufferedSecret):
        for act in ACTS:
            near, far = socket.socketpair()
            (_, server), (_, client) = await aio.gather(
                loop.connect_accepted_socket(lambda: factory(act), far, ssl=contexts()[0]),
                loop.create_connection(Secret, sock=near, ssl=contexts()[1], server_hostname="localhost"),
            )
            client.transport.writelines([b"spam", bytearray(100_000), memoryview(b"eggs")])
            client.transport.write(bytes(150_000))
            while act is None and len(server.data) < 250_008:
                await aio.sleep(0)
            for _ in range(5):
                await aio.sleep(0)
            for protocol in (client, server):
                if protocol.transport is not None:
                    protocol.transport.abort()
            near.close()
            far.close()
            await aio.wait([client.lost, server.lost], timeout=5)
    loop.set_exception_handler(None)
    server = await aio.start_server(whisper, "127.0.0.1", 0, ssl=contexts()[0])
    for turns in range(12):
        host, port = server.sockets[0].getsockname()
        opening = aio.open_connection(host, port, ssl=contexts()[1], server_hostname="localhost")
        task = aio.create_task(opening)
        if turns < 10:
            for _ in range(turns):
                await aio.sleep(0)
            task.cancel()
        [opened] = await aio.gather(task, return_exceptions=True)
        if isinstance(opened, tuple):
            reader, writer = opened
            writer.write(b"once\ntwice\n" * 900)
            expect(await reader.readexactly(9900) == b"once\ntwice\n" * 900)
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()
    server.close()
    await server.wait_closed()


async def whisper(reader, writer):
    with contextlib.suppress(OSError):
        while line := await reader.readline():
            writer.write(line)
            await writer.drain()
        writer.close()
        await writer.wait_closed()


async def children():
    data = bytes(300_000)
    process = await aio.create_subprocess_exec("cat", stdin=-1, stdout=-1, stderr=-1)
    expect(await process.communicate(data) == (data, b""))
    process = await aio.create_subprocess_shell("echo spam; exec cat", stdin=-1, stdout=-1)
    expect(await process.stdout.readline() == b"spam\n")
    waiting = [aio.create_task(process.wait()) for _ in range(3)]
    await aio.sleep(0)
    waiting[1].cancel()
    process.kill()
    expect((await aio.gather(*waiting, return_exceptions=True))[::2] == [-9, -9])
    await process.communicate()
    for turns in range(4):
        task = aio.create_task(aio.create_subprocess_exec("cat", stdin=-1, stdout=-1))
        for _ in range(turns):
            await aio.sleep(0)
        task.cancel()
        [made] = await aio.gather(task, return_exceptions=True)
        if not isinstance(made, BaseException):
            await made.communicate()
    with contextlib.suppress(FileNotFoundError):
        await aio.create_subprocess_exec("/nonexistent", stdin=-1)
    # Nobody waits for this one.
    await aio.create_subprocess_exec("true")


def wrong_calls(loop):
    for call in (
        lambda: aio.Future(1, 2),
        lambda: aio.Task(),
        lambda: aio.Task(3, loop=loop),
        lambda: loop.call_soon(),
        lambda: loop.call_later(None, int),
        lambda: loop.create_future().set_exception(3),
        lambda: loop.create_future().result(),
        lambda: pickle.dumps(loop.create_future()),
        lambda: aio.Future.__new__(aio.Future).set_result(1),
        lambda: aio.Handle(1),
        lambda: aio.wait_for(bad=1),
        lambda: aio.get_running_loop(),
    ):
        try:
            call()
        except (TypeError, RuntimeError, aio.InvalidStateError, AttributeError, ValueError):
            continue
        expect(False, "this call is wrong")


def main():
    for debug in (False, True):
        for _ in range(ROUNDS):
            with aio.Runner(debug=debug) as runner:
                for part in (tasks, futures, combinators, groups, scheduling, garbage):
                    runner.run(part())
                for part in (protocols, flow, datagrams, pipes, sockets, secrets, children):
                    runner.run(part())
                wrong_calls(runner.get_loop())
                pending = runner.get_loop().create_task(aio.sleep(3600))
                runner.get_loop().call_later(3600, Callback(runner.get_loop()))
            expect(pending.cancelled())
            gc.collect()


if __name__ == "__main__":
    main()
    print("the program has ended well")

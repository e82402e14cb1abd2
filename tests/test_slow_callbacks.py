"""Debug mode names whatever ran for long, also what aioxide runs without a handle.

The limit is zero here: each job is logged, and the test looks for the one that it is about.
"""

import asyncio
import contextlib
import io
import logging
import os
import socket

import pytest
from waiting import turns, until

import aioxide

pytestmark = pytest.mark.parametrize("loop", [True], indirect=True, ids=["debug"])

JOBS = {}


def job(shown):
    """A coroutine function that makes the loop run a job; how the job is shown."""

    def note(function):
        JOBS[function.__name__] = function, shown
        return function

    return note


class Happening(asyncio.Event):
    """A callback of which is known that it was called."""

    def __call__(self, *_):
        self.set()

    async def called(self):
        await asyncio.wait_for(self.wait(), 10)


def protocol(base=asyncio.Protocol, **methods):
    """A protocol factory."""
    return lambda: type("Made", (base,), {name: lambda self, *_, c=call: c() for name, call in methods.items()})()


@contextlib.contextmanager
def pair():
    near, far = socket.socketpair()
    with near, far:
        near.setblocking(False)
        far.setblocking(False)
        yield near, far


def empty(read):
    with contextlib.suppress(BlockingIOError):
        while read(1 << 20):
            pass


@job("Handle _SelectorDatagramTransport._read_ready()")
async def datagram(loop):
    received = Happening()
    made = protocol(asyncio.DatagramProtocol, datagram_received=received)
    transport, _ = await loop.create_datagram_endpoint(made, local_addr=("127.0.0.1", 0))
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.sendto(b"x", transport.get_extra_info("sockname"))
        await received.called()
    transport.close()
    await turns(3)


@job("_SelectorDatagramTransport._sendto_ready()")
async def datagram_sent_later(loop):
    resumed = Happening()
    near, far = (socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) for _ in range(2))
    with near, far:
        for sock in near, far:
            sock.bind("")
            sock.setblocking(False)
        near.connect(far.getsockname())
        far.connect(near.getsockname())
        made = protocol(asyncio.DatagramProtocol, resume_writing=resumed)
        transport, _ = await loop.create_datagram_endpoint(made, sock=near)
        transport.set_write_buffer_limits(high=0)
        while not transport.get_write_buffer_size():
            transport.sendto(bytes(1000))
        empty(far.recv)
        await resumed.called()
        transport.abort()
        await turns(3)


@job("_SelectorSocketTransport._read_ready()")
async def stream(loop):
    received = Happening()
    with pair() as (near, far):
        transport, _ = await loop.connect_accepted_socket(protocol(data_received=received), near)
        far.send(b"x")
        await received.called()
        transport.abort()
        await turns(3)


@job("_UnixReadPipeTransport._read_ready()")
async def read_pipe(loop):
    received = Happening()
    reading, writing = os.pipe()
    with open(writing, "wb", 0) as file:
        transport, _ = await loop.connect_read_pipe(protocol(data_received=received), io.FileIO(reading))
        file.write(b"x")
        await received.called()
        transport.close()
        await turns(3)


@job("_UnixWritePipeTransport._write_ready()")
async def write_pipe(loop):
    resumed = Happening()
    reading, writing = os.pipe()
    os.set_blocking(reading, False)
    with open(reading, "rb", 0) as file:
        transport, _ = await loop.connect_write_pipe(protocol(resume_writing=resumed), io.FileIO(writing, "w"))
        transport.set_write_buffer_limits(high=0)
        while not transport.get_write_buffer_size():
            transport.write(bytes(1 << 16))
        while file.read(1 << 20):
            pass
        await resumed.called()
        transport.abort()
        await turns(3)


@job("_UnixWritePipeTransport._read_ready()")
async def write_pipe_without_reader(loop):
    lost = Happening()
    reading, writing = os.pipe()
    await loop.connect_write_pipe(protocol(connection_lost=lost), io.FileIO(writing, "w"))
    os.close(reading)
    await lost.called()
    await turns(3)


@job("EventLoop._accept_connection(")
async def server(loop):
    lost = Happening()
    server = await loop.create_server(protocol(connection_lost=lost), "127.0.0.1", 0)
    with socket.create_connection(server.sockets[0].getsockname()) as client:
        client.shutdown(socket.SHUT_WR)
        await lost.called()
    server.close()
    await server.wait_closed()


def waiting(method, *arguments):
    """A `sock_*` method that waits, and its attempt when there is something to read."""

    async def wait(loop):
        with pair() as (near, far):
            task = asyncio.ensure_future(getattr(loop, method)(near, *(make() for make in arguments)))
            await turns(3)
            far.send(b"x")
            await task

    JOBS[method] = wait, f"BaseSelectorEventLoop._{method}("


waiting("sock_recv", lambda: 10)
waiting("sock_recv_into", lambda: bytearray(10))
waiting("sock_recvfrom", lambda: 10)
waiting("sock_recvfrom_into", lambda: bytearray(10))


@job("BaseSelectorEventLoop._sock_sendall(")
async def sock_sendall(loop):
    with pair() as (near, far):
        task = asyncio.ensure_future(loop.sock_sendall(near, bytes(1 << 20)))
        await turns(3)
        while not task.done():
            empty(far.recv)
            await asyncio.sleep(0)


@job("BaseSelectorEventLoop._sock_sendto(")
async def sock_sendto(loop):
    near, far = (socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) for _ in range(2))
    with near, far:
        far.bind("")
        near.setblocking(False)
        far.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            while True:
                near.sendto(b"x", far.getsockname())
        task = asyncio.ensure_future(loop.sock_sendto(near, b"x", far.getsockname()))
        await turns(3)
        while not task.done():
            empty(far.recv)
            await asyncio.sleep(0)


@job("BaseSelectorEventLoop._sock_accept(")
async def sock_accept(loop):
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.setblocking(False)
        task = asyncio.ensure_future(loop.sock_accept(listener))
        await turns(3)
        with socket.create_connection(listener.getsockname()):
            connection, _ = await task
            connection.close()


@job("BaseSelectorEventLoop._sock_connect_cb(")
async def sock_connect(loop):
    with socket.create_server(("127.0.0.1", 0)) as listener, socket.socket() as sock:
        sock.setblocking(False)
        await loop.sock_connect(sock, listener.getsockname())


@job("_sock_sendfile_native_impl(")
async def sock_sendfile(loop):
    with pair() as (near, far), open(__file__, "rb") as file:
        with contextlib.suppress(BlockingIOError):
            while True:
                near.send(bytes(1 << 16))
        task = asyncio.ensure_future(loop.sock_sendfile(near, file))
        await turns(3)
        while not task.done():
            empty(far.recv)
            await asyncio.sleep(0)
        task.result()


@job("Task finished name='waits for a name'")
async def name(loop):
    async def look_up():
        await loop.getaddrinfo("localhost", 80)

    await loop.create_task(look_up(), name="waits for a name")


@job("Task finished name='waits for a thread'")
async def thread(loop):
    async def call():
        await loop.run_in_executor(None, int)

    await loop.create_task(call(), name="waits for a thread")


@job("TimerHandle when=")
async def timer(loop):
    called = Happening()
    loop.call_later(0, called)
    await called.called()


@job("Task finished name='sleeps'")
async def sleep(loop):
    async def sleep():
        await aioxide.sleep(0.001)

    await loop.create_task(sleep(), name="sleeps")


@job("Task finished name='times out'")
async def timeout(loop):
    async def time_out():
        with contextlib.suppress(TimeoutError):
            async with aioxide.timeout(0.001):
                await aioxide.sleep(1000)

    await loop.create_task(time_out(), name="times out")


@job("Task finished name='reads a stream'")
async def stream_read(loop):
    with pair() as (near, far):
        reader, writer = await aioxide.open_connection(sock=near)
        task = loop.create_task(reader.read(1), name="reads a stream")
        await turns(3)
        far.send(b"x")
        await task
        writer.close()
        await writer.wait_closed()


@pytest.mark.parametrize("name", JOBS)
def test_each_kind_of_job_is_named(aio, loop, name, caplog):
    run, shown = JOBS[name]
    loop.slow_callback_duration = 0.0
    with caplog.at_level(logging.WARNING, "asyncio"):
        loop.run_until_complete(run(loop))
    loop.run_until_complete(loop.shutdown_default_executor())
    lines = [record.getMessage() for record in caplog.records]
    named = [line for line in lines if shown in line]
    assert any(line.startswith("Executing <") and " took " in line for line in named), lines


def test_wait_of_a_socket_is_shown_where_its_result_is_refused(aio, loop):
    """The future of the wait is the loop's, which somebody may have replaced."""

    class Refusing(asyncio.Future):
        def set_result(self, result):
            if type(result) is bytes:
                raise ZeroDivisionError
            super().set_result(result)

    reports = []
    loop.set_exception_handler(lambda _, context: reports.append(context))
    loop.create_future = lambda: Refusing(loop=loop)

    async def main():
        with pair() as (near, far):
            task = asyncio.ensure_future(loop.sock_recv(near, 10))
            await turns(3)
            far.send(b"x")
            await until(lambda: reports)
            task.cancel()
            await asyncio.wait([task])

    try:
        loop.run_until_complete(main())
    finally:
        del loop.create_future
    assert {type(report["exception"]) for report in reports} == {ZeroDivisionError}
    assert "Exception in callback BaseSelectorEventLoop._sock_recv(" in reports[0]["message"]
    assert "_sock_recv(" in repr(reports[0]["handle"])
    assert reports[0]["source_traceback"]

"""What anyio builds on asyncio's private parts: cancel scopes, task groups, threads, streams, signals."""

import os
import signal
import subprocess
import sys

import anyio
import anyio.from_thread
import anyio.to_thread
from running_on import check


async def cancellation():
    with anyio.move_on_after(0.01) as scope:
        await anyio.sleep_forever()
    assert scope.cancelled_caught
    with anyio.CancelScope() as outer:
        with anyio.CancelScope(shield=True):
            outer.cancel()
            await anyio.sleep(0)
        await anyio.sleep(0)
        raise AssertionError
    try:
        with anyio.fail_after(0.01):
            await anyio.Event().wait()
    except TimeoutError:
        pass
    else:
        raise AssertionError


async def groups():
    async def ready(*, task_status):
        check()
        task_status.started("value")
        await anyio.sleep_forever()

    async with anyio.create_task_group() as group:
        assert await group.start(ready) == "value"
        group.cancel_scope.cancel()

    async def fail():
        raise KeyError("x")

    try:
        async with anyio.create_task_group() as group:
            group.start_soon(anyio.sleep_forever)
            group.start_soon(fail)
    except BaseExceptionGroup as error:
        assert [type(one) for one in error.exceptions] == [KeyError]
    else:
        raise AssertionError
    assert len(anyio.get_running_tasks()) == 1


async def threads():
    def work():
        return anyio.from_thread.run(value), anyio.from_thread.run_sync(check)

    async def value():
        check()
        return 7

    assert await anyio.to_thread.run_sync(work) == (7, None)
    async with anyio.from_thread.BlockingPortal() as portal:
        assert await anyio.to_thread.run_sync(lambda: portal.start_task_soon(value).result()) == 7


async def memory():
    send, receive = anyio.create_memory_object_stream(2)

    async def produce():
        async with send:
            for number in range(100):
                await send.send(number)

    async with anyio.create_task_group() as group, receive:
        group.start_soon(produce)
        assert [item async for item in receive] == list(range(100))
    lock, limiter = anyio.Lock(), anyio.CapacityLimiter(2)
    async with lock, limiter:
        pass


async def network(folder):
    ended = []

    async def echo(stream):
        async with stream:
            async for data in stream:
                await stream.send(data)
        ended[-1].set()

    body = bytes(300_000)
    for listener, connect in (
        (
            await anyio.create_tcp_listener(local_host="127.0.0.1"),
            lambda listener: anyio.connect_tcp(*listener.extra(anyio.abc.SocketAttribute.local_address)),
        ),
        (
            await anyio.create_unix_listener(os.path.join(folder, "socket")),
            lambda listener: anyio.connect_unix(os.path.join(folder, "socket")),
        ),
    ):
        ended.append(anyio.Event())
        async with listener, anyio.create_task_group() as group:
            group.start_soon(listener.serve, echo)
            async with await connect(listener) as stream:
                async with anyio.create_task_group() as sending:
                    sending.start_soon(stream.send, body)
                    received = b""
                    while len(received) < len(body):
                        received += await stream.receive()
                assert received == body
            # A stream that becomes readable in the turn in which its reader is cancelled is too much
            # for anyio's Unix streams, on any loop.
            await ended[-1].wait()
            group.cancel_scope.cancel()
    async with await anyio.create_udp_socket(local_host="127.0.0.1") as one:
        port = one.extra(anyio.abc.SocketAttribute.local_port)
        async with await anyio.create_connected_udp_socket("127.0.0.1", port) as two:
            await two.send(b"datagram")
            data, (host, back) = await one.receive()
            await one.sendto(data.upper(), host, back)
            assert await two.receive() == b"DATAGRAM"


async def signals():
    with anyio.open_signal_receiver(signal.SIGUSR1) as received:
        os.kill(os.getpid(), signal.SIGUSR1)
        async for number in received:
            assert number == signal.SIGUSR1
            break


async def subprocesses():
    result = await anyio.run_process([sys.executable, "-c", "print(input()[::-1])"], input=b"abc\n")
    assert result.stdout == b"cba\n"
    try:
        await anyio.run_process([sys.executable, "-c", "import sys; sys.exit('meant')"])
    except subprocess.CalledProcessError as error:
        assert (error.returncode, error.stderr) == (1, b"meant\n")
    else:
        raise AssertionError
    async with await anyio.open_process(["cat"]) as cat:
        body, received = bytes(500_000), b""
        async with anyio.create_task_group() as group:
            group.start_soon(cat.stdin.send, body)
            while len(received) < len(body):
                received += await cat.stdout.receive()
        assert received == body
        await cat.stdin.aclose()
        assert await cat.wait() == 0
    # A scope that is cancelled kills its child, which does not care for the end of its input.
    with anyio.CancelScope() as scope:
        async with await anyio.open_process(["sleep", "600"]) as sleep:
            scope.cancel()
            await sleep.wait()
    assert sleep.returncode == -signal.SIGKILL


async def main(what, folder):
    check()
    await {
        "cancellation": cancellation,
        "groups": groups,
        "threads": threads,
        "memory": memory,
        "network": lambda: network(folder),
        "signals": signals,
        "subprocesses": subprocesses,
    }[what]()


if "--constant" in sys.argv:
    import aioxide

    backend, options = aioxide.anyio_backend
    anyio.run(main, sys.argv[1], os.getcwd(), backend=backend, backend_options=options)
else:
    anyio.run(main, sys.argv[1], os.getcwd())

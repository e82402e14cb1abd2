"""What touches the network and needs no peer: names, and how long I/O waits for its turn.

The rows with a peer are in `network.py`.
"""

import asyncio
import socket

from rows import expect, row


@row("literal getaddrinfo", "network")
async def literal_getaddrinfo(n: int) -> None:
    """Addresses that need no look-up, as every connection to one asks for."""
    loop = asyncio.get_running_loop()
    for port in range(1, n + 1):
        found = await loop.getaddrinfo("127.0.0.1", port & 0xFFFF, type=socket.SOCK_STREAM)
        expect(found[0][4], ("127.0.0.1", port & 0xFFFF))


@row("turns before I/O is served", "network", quantum=1000, unit="turns")
async def turns_before_io(n: int) -> float:
    """How often, at worst, a task that gives way has its turn while a socket that is ready waits for its own."""
    loop = asyncio.get_running_loop()
    ours, theirs = socket.socketpair()
    served = 0
    worst = 0

    def serve() -> None:
        nonlocal served
        expect(ours.recv(2), b"x")
        served += 1

    with ours, theirs:
        ours.setblocking(False)
        loop.add_reader(ours.fileno(), serve)
        for i in range(n):
            # Not always at the same distance from the last look at the selector.
            for _ in range(i % 67):
                await asyncio.sleep(0)
            theirs.send(b"x")
            turns = -1
            while served == i:
                await asyncio.sleep(0)
                turns += 1
            worst = max(worst, turns)
        loop.remove_reader(ours.fileno())
    expect(served, n)
    return worst

"""How tests wait: for turns of a loop, for what becomes true, and for what a protocol is told. Never for time."""

import asyncio
import time

PATIENCE = 20
"""Seconds after which something that should have happened will not."""


def turn(loop, times=1):
    """Lets everything that is ready run."""
    for _ in range(times):
        loop.call_soon(loop.stop)
        loop.run_forever()


async def turns(count=1):
    """The same from within."""
    for _ in range(count):
        await asyncio.sleep(0)


async def until(condition):
    """Lets the loop run until something is true."""
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, "it does not happen"
        await asyncio.sleep(0)


def run(loop, coro):
    """Runs a coroutine that may not take long."""
    return loop.run_until_complete(asyncio.wait_for(coro, PATIENCE))


class Recorder(asyncio.Protocol, asyncio.DatagramProtocol):
    """Notes what happens, and lets a test wait for it."""

    def __init__(self):
        self.events = []
        self.transport = None
        self.changed = None

    def note(self, *event):
        self.events.append(event)
        if self.changed is not None and not self.changed.done():
            self.changed.set_result(None)

    def connection_made(self, transport):
        self.transport = transport
        self.note("made")

    def data_received(self, data):
        self.note("data", data)

    def eof_received(self):
        self.note("eof")

    def datagram_received(self, data, addr):
        self.note("data", data, addr)

    def error_received(self, exc):
        self.note("error", exc)

    def connection_lost(self, exc):
        self.note("lost", exc)

    def pause_writing(self):
        self.note("pause")

    def resume_writing(self):
        self.note("resume")

    def kinds(self):
        return [event[0] for event in self.events]

    @property
    def data(self):
        return [event[1] for event in self.events if event[0] == "data"]

    @property
    def received(self):
        return b"".join(self.data)


def until_noted(loop, protocol, condition):
    """Runs the loop until something was noted that makes the condition true."""

    async def wait():
        while not condition():
            protocol.changed = asyncio.get_running_loop().create_future()
            await protocol.changed

    run(loop, wait())

"""How tests wait: for turns of a loop, for what becomes true, for what a protocol is told, and for a forked child.

Never for time. And how they count what is left afterwards.
"""

import asyncio
import contextlib
import os
import signal
import time
import traceback
import warnings

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


async def until(condition, what="it does not happen"):
    """Lets the loop run until something is true."""
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, what
        await asyncio.sleep(0)


def descriptors():
    """The open descriptors of this process."""
    found = set()
    for name in os.listdir("/proc/self/fd"):
        # The listing's own descriptor is closed by now.
        with contextlib.suppress(OSError):
            found.add((int(name), os.readlink(f"/proc/self/fd/{name}")))
    return found


SUCCESS = (0, "")
"""What `in_child` returns if nothing went wrong."""


def in_child(function):
    """Forks; the child calls the function and ends; returns the child's exit status and what went wrong there."""
    readable, writable = os.pipe()
    with warnings.catch_warnings():
        # A loop that ran before may have left a thread of the resolver.
        warnings.filterwarnings("ignore", ".*use of fork.*may lead to deadlocks", DeprecationWarning)
        pid = os.fork()
    if pid == 0:
        status = 1
        try:
            signal.alarm(30)
            function()
            status = 0
        except BaseException:
            os.write(writable, traceback.format_exc().encode())
        finally:
            os._exit(status)
    os.close(writable)
    with open(readable) as pipe:
        text = pipe.read()
    _, status = os.waitpid(pid, 0)
    return os.waitstatus_to_exitcode(status), text


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

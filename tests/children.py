"""What the tests of subprocesses share."""

import asyncio
import gc
import os
import pathlib
import subprocess

PIPE = subprocess.PIPE


def run(loop, coro):
    """Runs a coroutine to its end, but not for ever."""
    return loop.run_until_complete(asyncio.wait_for(coro, 30))


async def over(process):
    """Waits until the transport of a child has told everything."""
    while process._transport._loop is not None:
        await asyncio.sleep(0)


def open_descriptors():
    """The numbers of this process's open descriptors."""
    listed = os.listdir("/proc/self/fd")
    return {int(name) for name in listed if os.path.exists(f"/proc/self/fd/{name}")}


def children(states="RSDZTtXI"):
    """The numbers of this process's children that are in one of these states."""
    found = set()
    for folder in pathlib.Path("/proc").iterdir():
        if not folder.name.isdigit():
            continue
        try:
            fields = (folder / "stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[1]) == os.getpid() and fields[0] in states:
            found.add(int(folder.name))
    return found


class NothingLeft:
    """Asserts that a block leaves no descriptor open and no child behind."""

    def __enter__(self):
        gc.collect()
        self.descriptors = open_descriptors()
        self.children = children()
        return self

    def __exit__(self, kind, value, traceback):
        if kind is not None:
            return
        gc.collect()
        # Has children taken in whose Popen died before they ended.
        subprocess._cleanup()
        assert open_descriptors() - self.descriptors == set()
        assert children() - self.children == set()


class Recorder(asyncio.SubprocessProtocol):
    """Notes what it is told, and lets a test wait for it."""

    def __init__(self):
        self.events = []
        self.output = {1: b"", 2: b""}
        self.transport = None
        self.waiting = []

    def note(self, *event):
        self.events.append(event)
        for condition, future in self.waiting:
            if not future.done() and condition():
                future.set_result(None)

    def connection_made(self, transport):
        self.transport = transport
        self.note("made")

    def pipe_data_received(self, fd, data):
        self.output[fd] += data
        self.note("data", fd)

    def pipe_connection_lost(self, fd, exc):
        self.note("pipe lost", fd, type(exc))

    def process_exited(self):
        self.note("exited")

    def connection_lost(self, exc):
        self.note("lost", exc)

    def pause_writing(self):
        self.note("pause")

    def resume_writing(self):
        self.note("resume")

    async def until(self, condition):
        """Waits until something was noted that makes the condition true."""
        if not condition():
            future = asyncio.get_running_loop().create_future()
            self.waiting.append((condition, future))
            await future

    async def until_event(self, *event):
        await self.until(lambda: event in self.events)

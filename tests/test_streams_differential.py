"""Readers of both implementations get the same random life, and have to say the same at every step.

Each seed is a list of steps: data, the end of the stream, an exception, reads of all kinds (also two at once), their
cancellation, looks at `_buffer` and changes of it. What every read gives or raises, what the transport is told, and
what is left are compared. `AIOXIDE_SEQUENCES=100000` makes it a long run.
"""

import asyncio
import os
import random
import sys

import pytest

import aioxide

SEQUENCES = int(os.environ.get("AIOXIDE_SEQUENCES", "2400"))
PARTS = 6
TUPLES = sys.version_info >= (3, 13)
"""From 3.13 on there may be several separators."""

SEPARATORS = [b"\n", b"\r\n", b"ab", b"aab", b"\r\n\r\n", b"abababab", bytearray(b"b"), memoryview(b"\n")]
SEPARATOR_TUPLES = [(b"\n",), (b"\r\n", b"\n"), (b"b", b"ab"), (b"aab", b"ba", b"\n"), (b"bbb", b"\r\r"), (), (b"",)]


class Transport:
    """Notes what it is told."""

    def __init__(self, log, can_pause):
        self.log = log
        self.can_pause = can_pause

    def pause_reading(self):
        self.log.append("pause")
        if not self.can_pause:
            raise NotImplementedError

    def resume_reading(self):
        self.log.append("resume")

    def __repr__(self):
        return "<transport>"


def some_bytes(rng, most=12):
    return bytes(rng.choice(b"aab\r\n") for _ in range(rng.randrange(most)))


def some_read(rng):
    """A method and its arguments."""
    kind = rng.randrange(6)
    if kind == 0:
        return "readline", ()
    if kind == 1:
        return "read", (rng.choice([-1, 0, 1, 2, 5, 20, 1.5, True]),)
    if kind == 2:
        return "readexactly", (rng.choice([-1, 0, 1, 3, 8, 30]),)
    if kind == 3:
        return "__anext__", ()
    if TUPLES and rng.random() < 0.3:
        return "readuntil", (rng.choice(SEPARATOR_TUPLES),)
    return "readuntil", rng.choice([(), (rng.choice(SEPARATORS),), (rng.choice(SEPARATORS),), (b"",)])


def steps(rng):
    """A life: a list of steps."""
    life = []
    for _ in range(rng.randrange(3, 22)):
        number = rng.random()
        if number < 0.30:
            life.append(("feed", [some_bytes(rng) for _ in range(rng.choice([1, 1, 1, 2, 3]))]))
        elif number < 0.34:
            data = some_bytes(rng)
            odd = rng.choice([bytearray(data), memoryview(data), list(data), "text", 3])
            life.append(("feed", [odd]))
        elif number < 0.74:
            life.append(("read", some_read(rng)))
        elif number < 0.80:
            life.append(("cancel", rng.choice([None, some_bytes(rng)])))
        elif number < 0.84:
            life.append(("eof", rng.choice([None, some_bytes(rng)])))
        elif number < 0.87:
            life.append(("exception", None))
        elif number < 0.90:
            life.append(("peek", None))
        elif number < 0.92:
            life.append(("extend", some_bytes(rng)))
        elif number < 0.94:
            life.append(("limit", rng.choice([1, 4, 10, 2**70])))
        elif number < 0.96:
            life.append(("waiter", None))
        else:
            life.append(("state", None))
    return life


def outcome(task):
    """What came out of a read, to be compared."""
    if task.cancelled():
        return "cancelled"
    error = task.exception()
    if error is None:
        return type(task.result()), task.result()
    context = error.__context__
    details = [getattr(error, name, None) for name in ("partial", "expected", "consumed")]
    # Texts of errors about types are the interpreter's.
    text = "" if isinstance(error, TypeError) else str(error)
    return type(error), text, details, type(context)


async def settle():
    for _ in range(6):
        await asyncio.sleep(0)


async def read(reader, name, args):
    return await getattr(reader, name)(*args)


class Life:
    """One reader and what happens to it."""

    def __init__(self, reader_class, seed):
        rng = random.Random(seed)
        self.log = []
        self.reads = []
        limit = rng.choice([1, 3, 8, 12, 40, 2**16])
        self.reader = reader_class(limit=limit, loop=asyncio.get_running_loop())
        if rng.random() < 0.8:
            self.reader.set_transport(Transport(self.log, rng.random() < 0.8))
        self.steps = steps(rng)

    def feed(self, data):
        try:
            self.reader.feed_data(data)
        except (AssertionError, TypeError, ValueError) as error:
            self.log.append(type(error))

    def take_step(self, kind, value):
        reader = self.reader
        if kind == "feed":
            for data in value:
                self.feed(data)
        elif kind == "read":
            self.reads.append((value, asyncio.ensure_future(read(reader, *value))))
        elif kind == "cancel":
            if value is not None:
                self.feed(value)
            for _, task in self.reads[:1]:
                task.cancel()
        elif kind == "eof":
            if value is not None:
                self.feed(value)
            reader.feed_eof()
        elif kind == "exception":
            reader.set_exception(OSError("gone"))
        elif kind == "peek":
            self.log.append(bytes(reader._buffer))
        elif kind == "extend":
            reader._buffer.extend(value)
        elif kind == "limit":
            reader._limit = value
        elif kind == "waiter":
            self.log.append(reader._waiter is None)
        elif kind == "state":
            # The repr of a waiter has an address.
            text = "" if reader._waiter is not None else repr(reader)
            self.log.append((text, reader.at_eof(), repr(reader.exception()), reader._paused, reader._limit))

    async def live(self):
        for kind, value in self.steps:
            self.log.append(kind)
            self.take_step(kind, value)
            await settle()
            for entry in self.reads[:]:
                call, task = entry
                if task.done():
                    self.reads.remove(entry)
                    self.log.append((call, outcome(task)))
        for call, task in self.reads:
            self.log.append((call, "waits"))
            task.cancel()
        await settle()
        self.log.append((bytes(self.reader._buffer), self.reader._waiter is None))
        return self.log


async def live(reader_class, seed):
    life = Life(reader_class, seed)
    # Tasks that failed keep the exception and thereby the frame, which keeps the reader.
    return await life.live()


class Overriding(aioxide.StreamReader):
    """Goes through Python for everything."""

    async def _wait_for_data(self, func_name):
        await super()._wait_for_data(func_name)

    def _wakeup_waiter(self):
        super()._wakeup_waiter()

    def _maybe_resume_transport(self):
        super()._maybe_resume_transport()

    async def readuntil(self, *args):
        return await super().readuntil(*args)

    async def readline(self):
        return await super().readline()

    async def read(self, *args):
        return await super().read(*args)


WAYS = {
    "native": (aioxide.new_event_loop, aioxide.StreamReader),
    "foreign-loop": (asyncio.SelectorEventLoop, aioxide.StreamReader),
    "overriding": (aioxide.new_event_loop, Overriding),
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("part", range(PARTS))
def test_both_say_the_same(way, part):
    make_loop, reader_class = WAYS[way]
    ours, theirs = make_loop(), asyncio.SelectorEventLoop()
    # Half of all seeds are for the way that is used most.
    count = SEQUENCES // PARTS // (2 if way == "native" else 4)
    try:
        for index in range(count):
            seed = f"{part}-{index}"
            found = ours.run_until_complete(live(reader_class, seed))
            wanted = theirs.run_until_complete(live(asyncio.StreamReader, seed))
            assert found == wanted, f"seed {seed}"
    finally:
        ours.close()
        theirs.close()

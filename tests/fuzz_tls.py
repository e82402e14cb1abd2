"""A fuzz target for TLS: the records of a real peer, changed on their way to a connection of the event loop.

Of a seed follow the side, the version, the protocol and what is done to the peer's bytes: flipped, cut out, doubled,
put elsewhere, replaced by noise, followed by an end. The same happens to a connection of the stdlib. What comes of it
has to be of the same kind (the exception and OpenSSL's reason, or an orderly life with the same data), in time, with
no descriptor, task or transport left behind. Keys and signatures differ each time, so an outcome that differs is
looked at again some times before it counts.

`make fuzz` runs it for AIOXIDE_FUZZ_SECONDS, from AIOXIDE_FUZZ_SEED (0) on. A failure names its seed.
"""

import asyncio
import contextlib
import functools
import gc
import os
import random
import socket
import sys
import time

from tls_certificates import client_context, server_context
from tls_talk import TLS_1_2, TLS_1_3, BufferedRecorder, Hand, Recorder, describe, descriptors, turns

import aioxide

LIMIT = 10
"""Seconds after which a case hangs. All ends by an end of file, so that nothing waits for a time limit."""

AGAIN = 6
"""How often an outcome may differ before it counts."""


@functools.cache
def contexts(version):
    """An RSA key and one curve: so messages have the same lengths each time."""
    pair = client_context(version=version), server_context("rsa")
    for context in pair:
        context.set_ecdh_curve("prime256v1")
    return pair


def flip(data, numbers):
    data[numbers.randrange(len(data))] ^= 1 << numbers.randrange(8)


def replace(data, numbers):
    data[numbers.randrange(len(data))] = numbers.choice([0, 1, 2, 22, 23, 127, 128, 255])


def noise(data, numbers):
    start = numbers.randrange(len(data))
    data[start : start + numbers.randrange(40)] = numbers.randbytes(numbers.randrange(40))


def cut(data, numbers):
    start = numbers.randrange(len(data))
    del data[start : start + numbers.choice([1, 2, 5, 100])]


def double(data, numbers):
    start = numbers.randrange(len(data))
    data[start:start] = data[start : start + numbers.choice([1, 5, 50, len(data)])]


def truncate(data, numbers):
    del data[numbers.randrange(len(data)) :]


def alert(data, numbers):
    data[:0] = bytes([21, 3, 3, 0, 2, numbers.randrange(3), numbers.choice([0, 10, 40, 90, 100, 112, 200])])


def whole_record(data, numbers):
    """One more record of some type in front."""
    size = numbers.choice([0, 1, 5, 300, 16_400])
    data[:0] = bytes([numbers.choice([20, 21, 22, 23, 24, 99]), 3, 3, *divmod(size, 256)]) + numbers.randbytes(size)


def swap(data, numbers):
    """The records in another order."""
    records = []
    while len(data) >= 5:
        size = 5 + int.from_bytes(data[3:5], "big")
        records.append(data[:size])
        data = data[size:]
    numbers.shuffle(records)
    return bytearray(b"".join(records) + data)


CHANGES = [flip, flip, replace, noise, cut, double, truncate, alert, whole_record, swap]


class Case:
    """What follows of a seed. The kind of protocol is None if it is a stream's."""

    def __init__(self, seed):
        numbers = random.Random(seed)
        self.seed = seed
        self.side = numbers.choice(["client", "server"])
        self.version = numbers.choice([TLS_1_2, TLS_1_3])
        self.kind = numbers.choice([Recorder, BufferedRecorder, None])
        # Which of the peer's messages is changed: those of the handshake come first, then data and the end.
        self.message = numbers.randrange(5)
        self.changes = [numbers.choice(CHANGES) for _ in range(numbers.choice([1, 1, 1, 2, 4]))]
        self.pieces = numbers.choice([1, 100, 1 << 20])
        self.writes = numbers.random() < 0.3
        self.numbers = numbers.random()

    def change(self, data):
        numbers = random.Random(self.numbers)
        data = bytearray(data)
        for change in self.changes:
            if data:
                data = change(data, numbers) or data
        return bytes(data)


async def send(loop, case, sock, data, count):
    """Sends the peer's next message. `count` tells how many it has sent."""
    if count == case.message:
        data = case.change(data)
    for start in range(0, len(data), case.pieces if len(data) < 2000 else 1 << 20):
        await loop.sock_sendall(sock, data[start : start + case.pieces] if len(data) < 2000 else data)
        if case.pieces > 1 and len(data) < 2000:
            await asyncio.sleep(0)


async def peer(loop, case, sock):
    """The other side: a handshake, data in three messages, an end; then it reads until the end."""
    pair = contexts(case.version)
    hand = Hand(pair[1], server_side=True) if case.side == "client" else Hand(pair[0])
    count = 0
    with contextlib.suppress(OSError):
        data = b""
        while not hand.ready and not hand.error:
            answer = hand.shake(data)
            if answer:
                await send(loop, case, sock, answer, count)
                count += 1
                if case.message < count and not hand.ready:
                    # What was changed may have been cut: then nobody sends any more.
                    receiving = asyncio.ensure_future(loop.sock_recv(sock, 1 << 16))
                    await turns(30)
                    if not receiving.done():
                        sock.shutdown(socket.SHUT_WR)
                    data = await receiving
                    if not data:
                        break
                    continue
            if not hand.ready and not hand.error and not (data := await loop.sock_recv(sock, 1 << 16)):
                break
        if hand.ready:
            for message in (hand.seal(b"some data"), hand.seal(bytes(1000)) + hand.seal(b"more"), hand.end()):
                await send(loop, case, sock, message, count)
                count += 1
    with contextlib.suppress(OSError):
        sock.shutdown(socket.SHUT_WR)
    with contextlib.suppress(OSError):
        while await loop.sock_recv(sock, 1 << 16):
            pass


async def read_all(reader, writer):
    """What a stream comes to."""
    try:
        data = await reader.read()
    except OSError as error:
        outcome = "connected", *describe(error)
        error.__traceback__ = None
    else:
        outcome = "connected", len(data)
    writer.close()
    with contextlib.suppress(OSError):
        await writer.wait_closed()
    return outcome


async def outcome_of(loop, aio, case):
    near, far = socket.socketpair()
    far.setblocking(False)
    pair = contexts(case.version)

    reader = aio.StreamReader(loop=loop)

    def factory():
        if case.kind is not None:
            return case.kind()
        return aio.StreamReaderProtocol(reader, loop=loop)

    with far:
        if case.side == "client":
            opening = loop.create_connection(factory, sock=near, ssl=pair[0], server_hostname="localhost")
        else:
            opening = loop.connect_accepted_socket(factory, near, ssl=pair[1])
        opening = asyncio.ensure_future(opening)
        other = asyncio.ensure_future(peer(loop, case, far))
        await asyncio.wait([opening])
        error = opening.exception()
        if error is None:
            transport, protocol = opening.result()
            if case.writes:
                transport.write(b"a line")
        if error is None and case.kind is None:
            outcome = await read_all(reader, aio.StreamWriter(transport, protocol, reader, loop))
        elif error is None:
            await asyncio.wait([protocol.lost])
            found = [entry for entry in protocol.log if entry[0] != "data_received"]
            # Whole data is lost if what follows it in the same read is an error: as the system has it.
            count = len(protocol.data) if protocol.error is None else "some"
            outcome = "connected", count, *found[1:]
        else:
            outcome = "failed", *describe(error)
        await other
    await turns(2)
    return outcome


def run_case(aio, case):
    """The outcome of a case on a loop of a namespace, with everything gone afterwards."""
    loop = asyncio.SelectorEventLoop() if aio is asyncio else aioxide.new_event_loop()
    reports = []
    loop.set_exception_handler(lambda _, context: reports.append(context))
    before = descriptors()
    try:
        outcome = loop.run_until_complete(asyncio.wait_for(outcome_of(loop, aio, case), LIMIT))
        loop.run_until_complete(turns(2))
        assert descriptors() <= before, "a descriptor is left"
        assert not asyncio.all_tasks(loop), "a task is left"
        assert not reports, reports
        if len(loop._transports):
            gc.collect()
        assert not len(loop._transports), "a transport is left"
    finally:
        loop.close()
    return outcome


def check(seed):
    """Raises AssertionError if aioxide differs from the stdlib on a seed, or anything else is wrong."""
    case = Case(seed)
    seen = {asyncio: set(), aioxide: set()}
    for _ in range(AGAIN):
        for aio, outcomes in seen.items():
            outcomes.add(run_case(aio, case))
        if seen[asyncio] & seen[aioxide]:
            return
    raise AssertionError(f"seed {seed}: {seen[asyncio]} on the stdlib, {seen[aioxide]} on aioxide")


def fuzz(seeds, goes_on=lambda: True):
    """Checks seed after seed. Returns how many."""
    count = 0
    for seed in seeds:
        if not goes_on():
            break
        try:
            check(seed)
        except BaseException:
            print(f"failed with AIOXIDE_FUZZ_SEED={seed}", file=sys.stderr)
            raise
        count += 1
    return count


def main():
    first = int(os.environ.get("AIOXIDE_FUZZ_SEED", "0"))
    end = time.monotonic() + float(os.environ.get("AIOXIDE_FUZZ_SECONDS", "1"))
    count = fuzz(range(first, sys.maxsize), lambda: time.monotonic() < end)
    print(f"fuzz_tls: {count} connections with changed records")


if __name__ == "__main__":
    main()

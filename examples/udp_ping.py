"""Ping over UDP: datagrams, timeouts, and what to do about lost packets.

A datagram arrives whole or not at all, and nobody tells the sender. So the client numbers its
pings, waits a while for each answer and tries again. To have something to see, the server of the
demonstration swallows every third ping.

    python examples/udp_ping.py                 a server, ten pings, and it ends
    python -m aioxide examples/udp_ping.py      the same natively
    python examples/udp_ping.py --serve 9999    a server until Ctrl-C, which loses nothing
    python examples/udp_ping.py --to 9999       pings it
"""

import argparse
import asyncio
import time
from typing import Any


class PongServer(asyncio.DatagramProtocol):
    """Sends each datagram back to where it came from, but for every `lose`-th one."""

    def __init__(self, lose: int = 0) -> None:
        self.lose = lose
        self.received = 0

    def connection_made(self, transport: asyncio.DatagramTransport) -> None:  # type: ignore[override]
        self.transport = transport

    def datagram_received(self, data: bytes, addr: tuple[str | Any, int]) -> None:
        self.received += 1
        if self.lose and self.received % self.lose == 0:
            return
        self.transport.sendto(data, addr)


class Pinger(asyncio.DatagramProtocol):
    """The client: knows who waits for which number."""

    def __init__(self) -> None:
        self.waiting: dict[bytes, asyncio.Future[float]] = {}

    def connection_made(self, transport: asyncio.DatagramTransport) -> None:  # type: ignore[override]
        self.transport = transport

    def datagram_received(self, data: bytes, addr: tuple[str | Any, int]) -> None:
        answer = self.waiting.pop(data, None)
        if answer is not None and not answer.done():
            answer.set_result(time.perf_counter())

    def error_received(self, exc: Exception) -> None:
        # On Linux a closed port is reported here, with the next datagram.
        print("error:", exc)

    async def ping(self, number: int, timeout: float, tries: int = 3) -> tuple[float, int]:
        """Sends a ping until it is answered. Returns how long the answer took, and the number of tries."""
        data = b"ping %d" % number
        for attempt in range(1, tries + 1):
            self.waiting[data] = asyncio.get_running_loop().create_future()
            sent = time.perf_counter()
            self.transport.sendto(data)
            try:
                async with asyncio.timeout(timeout):
                    return await self.waiting[data] - sent, attempt
            except TimeoutError:
                self.waiting.pop(data, None)
        raise TimeoutError(f"no answer to ping {number} after {tries} tries")


async def ping(port: int, count: int, timeout: float, show_times: bool) -> None:
    """Sends pings to the server, one after the other."""
    loop = asyncio.get_running_loop()
    transport, pinger = await loop.create_datagram_endpoint(Pinger, remote_addr=("127.0.0.1", port))
    try:
        for number in range(1, count + 1):
            took, tries = await pinger.ping(number, timeout)
            how_long = f" in {took * 1e6:.0f} µs" if show_times else ""
            print(f"pong {number}{how_long}" + (f", at try {tries}" if tries > 1 else ""))
    finally:
        transport.close()


async def demonstrate(count: int, timeout: float) -> None:
    """Runs a server that loses datagrams, and pings it."""
    loop = asyncio.get_running_loop()
    transport, server = await loop.create_datagram_endpoint(lambda: PongServer(lose=3), local_addr=("127.0.0.1", 0))
    try:
        await ping(transport.get_extra_info("sockname")[1], count, timeout, show_times=False)
    finally:
        transport.close()
    print(f"{count} pings were answered, {server.received - count} were lost")


async def serve(port: int) -> None:
    """Runs a server until it is interrupted."""
    loop = asyncio.get_running_loop()
    transport, _ = await loop.create_datagram_endpoint(PongServer, local_addr=("127.0.0.1", port))
    print("serving on", *transport.get_extra_info("sockname"))
    try:
        await loop.create_future()
    finally:
        transport.close()


def main() -> None:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description="Ping over UDP.")
    parser.add_argument("--count", type=int, default=10, metavar="N", help="how many pings are sent")
    parser.add_argument("--timeout", type=float, default=0.2, metavar="SECONDS", help="how long to wait for an answer")
    mode = parser.add_mutually_exclusive_group()
    mode.add_argument("--serve", type=int, metavar="PORT", help="serve there until Ctrl-C")
    mode.add_argument("--to", type=int, metavar="PORT", help="ping a server there")
    args = parser.parse_args()
    if args.serve is not None:
        program = serve(args.serve)
    elif args.to is not None:
        program = ping(args.to, args.count, args.timeout, show_times=True)
    else:
        program = demonstrate(args.count, args.timeout)
    try:
        asyncio.run(program)
    except KeyboardInterrupt:
        print("stopped")
    except TimeoutError as error:
        print(error)


if __name__ == "__main__":
    main()

"""A chat server, written with streams.

With streams a connection is a coroutine that reads and writes as if they were files: as long as
it waits for a line, the loop serves everybody else. Each guest has a queue of lines to be sent,
so that a slow guest holds up nobody.

    python examples/chat.py                 a server, three guests with a script, and it ends
    python -m aioxide examples/chat.py      the same natively
    python examples/chat.py --serve 8888    a server until Ctrl-C; try `nc localhost 8888` twice
"""

import argparse
import asyncio


class ChatRoom:
    """The server: who is there, and what is said."""

    def __init__(self) -> None:
        self.guests: dict[str, asyncio.Queue[str]] = {}

    async def welcome(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serves one guest, from the first line, which is the name, to the end."""
        name = (await reader.readline()).decode().strip()
        if not name or name in self.guests:
            writer.write(b"* this name will not do\n")
            writer.close()
            return
        outbox: asyncio.Queue[str] = asyncio.Queue()
        self.guests[name] = outbox
        sender = asyncio.create_task(self.send(outbox, writer))
        try:
            self.tell_all(f"* {name} came in")
            async for line in reader:
                self.tell_all(f"{name}: {line.decode().strip()}")
        finally:
            del self.guests[name]
            self.tell_all(f"* {name} went away")
            sender.cancel()
            writer.close()

    async def send(self, outbox: asyncio.Queue[str], writer: asyncio.StreamWriter) -> None:
        """Sends a guest what is said, as fast as the guest takes it."""
        while True:
            line = await outbox.get()
            writer.write(line.encode() + b"\n")
            await writer.drain()

    def tell_all(self, line: str) -> None:
        """Puts a line into everybody's queue."""
        for outbox in self.guests.values():
            outbox.put_nowait(line)


class Guest:
    """One scripted client."""

    def __init__(self, name: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.name = name
        self.reader = reader
        self.writer = writer

    @classmethod
    async def enter(cls, name: str, port: int) -> "Guest":
        """Connects to the server and says a name."""
        guest = cls(name, *await asyncio.open_connection("127.0.0.1", port))
        guest.say(name)
        return guest

    def say(self, line: str) -> None:
        """Says a line."""
        self.writer.write(line.encode() + b"\n")

    async def hear(self) -> None:
        """Waits for the next line and prints it."""
        line = await asyncio.wait_for(self.reader.readline(), timeout=10)
        print(f"{self.name:>5} hears  {line.decode().strip()}")

    async def leave(self) -> None:
        """Hangs up."""
        self.writer.close()
        await self.writer.wait_closed()


async def demonstrate() -> None:
    """Runs a server and plays a scene."""
    server = await asyncio.start_server(ChatRoom().welcome, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with server:
        guests: list[Guest] = []
        for name in ("Alice", "Bob", "Carol"):
            guests.append(await Guest.enter(name, port))
            for guest in guests:
                await guest.hear()
        alice, bob, carol = guests
        for speaker, line in [(alice, "Hello, everybody!"), (bob, "Good evening."), (carol, "Is this native?")]:
            speaker.say(line)
            for guest in guests:
                await guest.hear()
        await bob.leave()
        await alice.hear()
        await carol.hear()
        late = await Guest.enter("Alice", port)
        await late.hear()
        for guest in (alice, carol, late):
            await guest.leave()
    print("the room is closed")


async def serve(port: int) -> None:
    """Runs a server until it is interrupted."""
    server = await asyncio.start_server(ChatRoom().welcome, "127.0.0.1", port)
    async with server:
        print("serving on", *server.sockets[0].getsockname(), "-- the first line is your name")
        await server.serve_forever()


def main() -> None:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description="A chat server and three guests, on streams.")
    parser.add_argument("--serve", type=int, metavar="PORT", help="serve there until Ctrl-C")
    args = parser.parse_args()
    try:
        asyncio.run(demonstrate() if args.serve is None else serve(args.serve))
    except KeyboardInterrupt:
        print("stopped")


if __name__ == "__main__":
    main()

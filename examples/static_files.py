"""A web server for the files of a folder.

It is a protocol, so that bytes come in without a task for each connection; a task exists only
while a request is being answered. The files go out by `loop.sendfile`: the kernel takes them from
the disk to the network by itself, and the program never sees their bytes.

    python examples/static_files.py                               a server for a temporary folder, three
                                                                  clients, and it ends
    python -m aioxide examples/static_files.py                    the same natively
    python examples/static_files.py --serve 8080 --folder docs    a server until Ctrl-C
"""

import argparse
import asyncio
import hashlib
import mimetypes
import os
import tempfile
from pathlib import Path
from typing import BinaryIO
from urllib.parse import quote, unquote

END_OF_HEAD = b"\r\n\r\n"
LONGEST_HEAD = 16 * 1024


class FileServer(asyncio.Protocol):
    """One connection. Answers its requests in order, as many as there come."""

    transport: asyncio.Transport

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.requests = bytearray()
        self.answering: asyncio.Task[None] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.requests += data
        if self.answering is None and END_OF_HEAD in self.requests:
            self.answering = asyncio.create_task(self.answer())
        elif len(self.requests) > LONGEST_HEAD:
            self.transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        if self.answering is not None:
            self.answering.cancel()

    async def answer(self) -> None:
        """Answers the requests that have come in completely."""
        try:
            while END_OF_HEAD in self.requests and not self.transport.is_closing():
                head, _, rest = bytes(self.requests).partition(END_OF_HEAD)
                self.requests[:] = rest
                await self.answer_one(head.decode("latin-1"))
        except OSError:
            # The other side hung up, or the disk failed. Either way there is nothing more to say.
            self.transport.abort()
        finally:
            self.answering = None

    async def answer_one(self, head: str) -> None:
        """Answers one request."""
        request_line, *headers = head.split("\r\n")
        method, _, rest = request_line.partition(" ")
        target = rest.partition(" ")[0].partition("?")[0]
        if method not in ("GET", "HEAD"):
            self.send_head("405 Method Not Allowed", 0)
        elif (file := self.open(target)) is None:
            self.send_head("404 Not Found", 0)
        else:
            with file:
                size = os.fstat(file.fileno()).st_size
                self.send_head("200 OK", size, mimetypes.guess_type(file.name)[0])
                if method == "GET" and size:
                    await asyncio.get_running_loop().sendfile(self.transport, file)
        if "connection: close" in (header.lower() for header in headers):
            self.transport.close()

    def open(self, target: str) -> BinaryIO | None:
        """The file that a request means; nothing if there is none in the folder."""
        try:
            path = (self.folder / unquote(target).lstrip("/")).resolve()
            if path.is_dir():
                path = (path / "index.html").resolve()
            # Links and `..` have been followed by now, so that this keeps the rest of the disk private.
            if path.is_relative_to(self.folder) and path.is_file():
                return path.open("rb")
        except (OSError, ValueError):
            # No permission, a name too long, a zero byte in it, ...
            pass
        return None

    def send_head(self, status: str, size: int, content_type: str | None = None) -> None:
        """Sends what comes before the content."""
        lines = [f"HTTP/1.1 {status}", f"Content-Length: {size}"]
        if content_type is not None:
            lines.append(f"Content-Type: {content_type}")
        self.transport.write("\r\n".join(lines).encode() + END_OF_HEAD)


async def fetch(port: int, names: list[str]) -> dict[str, str]:
    """Gets files over one connection. Returns what came for each name: the digest of a file, or the refusal."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    found = {}
    for name in names:
        writer.write(f"GET /{quote(name)} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
        status, *headers = (await reader.readuntil(END_OF_HEAD)).decode().rstrip().split("\r\n")
        fields = dict(header.lower().split(": ") for header in headers)
        content = await reader.readexactly(int(fields["content-length"]))
        found[name] = hashlib.sha256(content).hexdigest() if " 200 " in status else status
    writer.close()
    await writer.wait_closed()
    return found


async def demonstrate(clients: int) -> None:
    """Serves a temporary folder to some clients and compares what they get with what is there."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary).resolve()
        files = {
            "index.html": b"<h1>Hello</h1>",
            "with space & ünicode.txt": b"a name that has to be quoted",
            "empty.txt": b"",
            "big.bin": os.urandom(10_000_000),
        }
        for name, content in files.items():
            (folder / name).write_bytes(content)
        names = [*files, "nothing.txt", "../../etc/passwd"]
        loop = asyncio.get_running_loop()
        server = await loop.create_server(lambda: FileServer(folder), "127.0.0.1", 0)
        async with server:
            port = server.sockets[0].getsockname()[1]
            answers = await asyncio.gather(*(fetch(port, names) for _ in range(clients)))
    for name in names:
        expected = hashlib.sha256(files[name]).hexdigest() if name in files else "HTTP/1.1 404 Not Found"
        right = sum(answer[name] == expected for answer in answers)
        what = f"{len(files[name])} bytes" if name in files else "not found"
        print(f"{name}: {what}, right for {right} of {clients} clients")


async def serve(folder: Path, port: int) -> None:
    """Serves a folder until it is interrupted."""
    server = await asyncio.get_running_loop().create_server(lambda: FileServer(folder), "127.0.0.1", port)
    async with server:
        print(f"serving {folder} on http://127.0.0.1:{server.sockets[0].getsockname()[1]}/")
        await server.serve_forever()


def main() -> None:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description="A web server for the files of a folder.")
    parser.add_argument("--clients", type=int, default=3, metavar="N", help="how many clients fetch files")
    parser.add_argument("--serve", type=int, metavar="PORT", help="serve there until Ctrl-C")
    parser.add_argument("--folder", type=Path, default=Path(), help="what is served, the current folder by default")
    args = parser.parse_args()
    try:
        asyncio.run(demonstrate(args.clients) if args.serve is None else serve(args.folder.resolve(), args.serve))
    except KeyboardInterrupt:
        print("stopped")


if __name__ == "__main__":
    main()

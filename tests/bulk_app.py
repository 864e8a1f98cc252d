"""An app that sends and reads as many bytes as one wants: `python bulk_app.py` prints its port and serves."""

from __future__ import annotations

import asyncio
import sys

import websockets.asyncio.server as websockets
from websockets.asyncio.server import ServerConnection
from websockets.http11 import Request, Response

PART = bytes(range(256)) * 1024  # 256 KiB


async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Serve `GET /bytes/N`, `POST /count`, which answers how many came, and `POST /echo`, all with a length."""
    try:
        while head := (await reader.readuntil(b"\r\n\r\n")).lower():
            length = int(head.partition(b"\r\ncontent-length: ")[2].partition(b"\r\n")[0] or 0)
            target = head.split(b" ")[1]
            if target.startswith(b"/bytes/"):
                await send(writer, int(target.removeprefix(b"/bytes/")))
            elif target == b"/echo":
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % length)
                await read(reader, length, writer)
            else:
                count = b"%d" % await read(reader, length)
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(count), count))
            await writer.drain()
    except (asyncio.IncompleteReadError, ConnectionError):
        writer.close()


async def send(writer: asyncio.StreamWriter, length: int) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % length)
    while length:
        part = PART[: min(length, len(PART))]
        writer.write(part)
        await writer.drain()
        length -= len(part)


async def read(reader: asyncio.StreamReader, length: int, echo: asyncio.StreamWriter | None = None) -> int:
    count = 0
    while count < length:
        part = await reader.read(min(length - count, len(PART)))
        if not part:
            raise asyncio.IncompleteReadError(b"", length)
        count += len(part)
        if echo is not None:
            echo.write(part)
            await echo.drain()
    return count


async def echo(connection: ServerConnection) -> None:
    """Serve a WebSocket; of HTTP it knows `GET /bytes/…`, to which it says that it is well."""
    async for message in connection:
        await connection.send(message)


def answer(connection: ServerConnection, request: Request) -> Response | None:
    return connection.respond(200, "x") if request.path.startswith("/bytes/") else None


async def main() -> None:
    """Serve until told to stop: with the argument `websockets` those, else HTTP."""
    if sys.argv[1:] == ["websockets"]:
        async with websockets.serve(echo, "127.0.0.1", 0, process_request=answer, compression=None) as sockets:
            print(next(iter(sockets.sockets)).getsockname()[1], flush=True)  # noqa: T201  whoever started it reads it
            await sockets.serve_forever()
    server = await asyncio.start_server(serve, "127.0.0.1", 0, limit=len(PART))
    print(server.sockets[0].getsockname()[1], flush=True)  # noqa: T201  whoever started it reads it
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main())

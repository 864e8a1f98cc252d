"""The proxy over real sockets: apps behind it that speak HTTP as a test wants them to, and a client that sees all."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from importlib.util import find_spec
from typing import Any, TypeAlias

import uvicorn
from starlette.types import ASGIApp

from oidc_middleware import OIDC, OIDCMiddleware
from oidc_middleware.cli.protocol import http_protocol, websocket_protocol
from oidc_middleware.proxy import ReverseProxy
from oidc_middleware.testing import FakeIssuer
from oidc_middleware.testing.server import bind

SECONDS = 20
# The one that needs a wheel of its own is served as our command serves it.
PARSERS = {"h11": "h11"} | ({"httptools": http_protocol()} if find_spec("httptools") else {})
COMPLETE, CUT = "complete", "cut"

Reader: TypeAlias = asyncio.StreamReader
Writer: TypeAlias = asyncio.StreamWriter


@dataclass
class Message:
    """A request or a response, as bytes."""

    start: bytes
    headers: list[tuple[bytes, bytes]]
    body: bytes = b""
    end: str = COMPLETE

    @classmethod
    def parse(cls, head: bytes) -> Message:
        start, *lines = head.rstrip(b"\r\n").split(b"\r\n")
        pairs = (line.partition(b":") for line in lines)
        return cls(start, [(name.lower(), value.strip()) for name, _, value in pairs])

    @property
    def status(self) -> int:
        return int(self.start.split(b" ")[1])

    def all(self, name: str) -> list[str]:
        """Return the values of all headers of this name."""
        return [value.decode("latin-1") for found, value in self.headers if found == name.encode()]

    def one(self, name: str) -> str:
        (value,) = self.all(name)
        return value

    async def read_body(self, reader: Reader, *, of_head: bool = False) -> None:
        """Read the body as RFC 9112 §6.3 has it, and note whether it was all there."""
        if of_head or (self.start.startswith(b"HTTP/") and self.status in {204, 304}):
            return
        try:
            if self.all("transfer-encoding"):
                while size := int(await reader.readuntil(b"\r\n"), 16):
                    self.body += (await reader.readexactly(size + 2))[:-2]
                while await reader.readuntil(b"\r\n") != b"\r\n":
                    pass
            elif lengths := self.all("content-length"):
                self.body = await reader.readexactly(int(lengths[0]))
            elif self.start.startswith(b"HTTP/"):
                self.body = await reader.read()
        except asyncio.IncompleteReadError as error:
            self.body += error.partial
            self.end = CUT
        except ConnectionError:
            self.end = CUT


Answer = Callable[[Message, Reader, Writer], Awaitable[None]]

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


async def ok(request: Message, reader: Reader, writer: Writer) -> None:
    """Read the body and answer."""
    await request.read_body(reader)
    writer.write(OK)


def saying(*parts: bytes, then: Callable[[Writer], None] | None = None, reads: bool = True) -> Answer:
    """Return an app that reads the body, or nothing of it, and answers with these bytes."""

    async def answer(request: Message, reader: Reader, writer: Writer) -> None:
        if reads:
            await request.read_body(reader)
        for part in parts:
            writer.write(part)
            await writer.drain()
        if then is not None:
            then(writer)

    return answer


@dataclass
class App:
    """An app in the shape of bytes: what it got, in the order it came, and over how many connections."""

    answer: Answer = ok
    requests: list[Message] = field(default_factory=list)
    connections: int = 0
    open: int = 0
    port: int = 0
    """How many connections are open now."""

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def last(self) -> Message:
        return self.requests[-1]

    async def serve(self, reader: Reader, writer: Writer) -> None:
        self.connections += 1
        self.open += 1
        try:
            while head := await _head(reader):
                request = Message.parse(head)
                self.requests.append(request)
                await self.answer(request, reader, writer)
                await writer.drain()
        except ConnectionError:
            pass
        finally:
            self.open -= 1
            writer.close()
            with suppress(ConnectionError):
                await writer.wait_closed()


async def _head(reader: Reader) -> bytes:
    try:
        return await reader.readuntil(b"\r\n\r\n")
    except asyncio.IncompleteReadError:
        return b""


@asynccontextmanager
async def behind(answer: Answer = ok, *, tls: ssl.SSLContext | None = None) -> AsyncIterator[App]:
    """Run an app in the shape of bytes."""
    app = App(answer)
    tasks: set[asyncio.Task[None]] = set()

    def serve(reader: Reader, writer: Writer) -> None:
        task = asyncio.get_running_loop().create_task(app.serve(reader, writer))
        tasks.add(task)
        task.add_done_callback(tasks.discard)

    server = await asyncio.start_server(serve, "127.0.0.1", 0, limit=1 << 20, ssl=tls)
    app.port = server.sockets[0].getsockname()[1]
    try:
        yield app
    finally:
        server.close()
        for task in tuple(tasks):
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


@asynccontextmanager
async def served(app: ASGIApp, *, parser: Any = "h11", **options: Any) -> AsyncIterator[int]:
    """Serve an ASGI app by uvicorn, without what it adds to responses, and yield its port."""
    listening = bind("127.0.0.1", 0)
    config = uvicorn.Config(
        app,
        http=parser,
        ws=websocket_protocol(),
        lifespan="on",
        log_config=None,
        proxy_headers=False,
        server_header=False,
        date_header=False,
        timeout_graceful_shutdown=1,
        **options,
    )
    server = _Server(config)
    running = asyncio.create_task(server.serve([listening]))
    try:
        await until(lambda: server.started or running.done())
        assert server.started
        yield listening.getsockname()[1]
    finally:
        server.over.set()
        await running
        listening.close()


class _Server(uvicorn.Server):
    """uvicorn that ends when it is told to, and not at its next look."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.over = asyncio.Event()

    async def main_loop(self) -> None:
        await self.over.wait()


async def until(is_so: Callable[[], object]) -> None:
    """Wait for a state."""
    async with asyncio.timeout(SECONDS):
        while not is_so():  # noqa: ASYNC110  whoever changes the state has no event for us
            await asyncio.sleep(0.005)


class Front:
    """A proxy with its door, and a client in front of it."""

    def __init__(self, port: int, issuer: FakeIssuer, oidc: OIDC) -> None:
        self.port = port
        self.issuer = issuer
        self.oidc = oidc
        self.authorization = f"Authorization: Bearer {issuer.token('alice')}"

    async def open(self) -> tuple[Reader, Writer]:
        return await asyncio.open_connection("127.0.0.1", self.port, limit=1 << 20)

    def head(self, request: str, *headers: str, host: str | None = "app.example", authorized: bool = True) -> bytes:
        """Return the head of a request, `Host` and a token in it."""
        lines = [f"{request} HTTP/1.1", *headers]
        lines += [f"Host: {host}"] if host is not None else []
        lines += [self.authorization] if authorized else []
        return "\r\n".join([*lines, "", ""]).encode("latin-1")

    async def ask(self, request: str, *headers: str, body: bytes = b"", **options: Any) -> Message:
        """Send a request on a connection of its own, and return the response."""
        reader, writer = await self.open()
        try:
            writer.write(self.head(request, *headers, **options) + body)
            return await self.response(reader, of_head=request.startswith("HEAD "))
        finally:
            writer.close()

    async def response(self, reader: Reader, *, of_head: bool = False) -> Message:
        """Read a response, after those that are only preliminary."""
        async with asyncio.timeout(SECONDS):
            response = Message.parse(await reader.readuntil(b"\r\n\r\n"))
            await response.read_body(reader, of_head=of_head)
        return response


@asynccontextmanager
async def before(
    upstream: App | str, *, parser: Any = "h11", proxy: dict[str, Any] | None = None, **settings: Any
) -> AsyncIterator[Front]:
    """Put a proxy, and a door before that, before an app; `/open/*` is public."""
    issuer = FakeIssuer(audience="https://app.example", algorithms=("ES256",))
    reverse_proxy = ReverseProxy(upstream if isinstance(upstream, str) else upstream.url, **proxy or {})
    defaults: dict[str, Any] = {"issuer": issuer.url, "audience": issuer.audience, "public": ["/open/*"]}
    oidc = OIDC(transport=issuer.transport(), **defaults | settings)
    async with served(OIDCMiddleware(reverse_proxy, oidc=oidc), parser=parser) as port:
        yield Front(port, issuer, oidc)

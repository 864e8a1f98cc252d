"""WebSockets through the proxy: real clients, real apps, and what either end sees when the other one closes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.http11 import Request, Response
from websockets.typing import Subprotocol

from proxy_kit import PARSERS, Front, Message, Reader, Writer, before, behind, saying, until

pytestmark = pytest.mark.anyio

Handler = Callable[[ServerConnection], Awaitable[None]]
MIB = 1 << 20


class Sockets:
    """An app with WebSockets: what each connection was, and how it ended."""

    def __init__(self) -> None:
        self.handler: Handler = echo
        self.requests: list[Request] = []
        self.closed: list[tuple[int, str]] = []
        self.server: Server
        self.refusal: Callable[[ServerConnection], Response] | None = None

    @property
    def url(self) -> str:
        port: int = next(iter(self.server.sockets)).getsockname()[1]
        return f"http://127.0.0.1:{port}"

    async def serve(self, connection: ServerConnection) -> None:
        assert connection.request is not None
        self.requests.append(connection.request)
        try:
            await self.handler(connection)
            await connection.wait_closed()
        except ConnectionClosed:
            pass
        finally:
            self.closed.append((connection.close_code or 0, connection.close_reason or ""))

    def process(self, connection: ServerConnection, _: Request) -> Response | None:
        return self.refusal(connection) if self.refusal else None


async def echo(connection: ServerConnection) -> None:
    async for message in connection:
        await connection.send(message)


@asynccontextmanager
async def sockets(**options: Any) -> AsyncIterator[Sockets]:
    app = Sockets()
    async with serve(app.serve, "127.0.0.1", 0, process_request=app.process, **options) as app.server:
        yield app


@pytest.fixture
async def app() -> AsyncIterator[Sockets]:
    def choose(_: ServerConnection, offered: Sequence[Subprotocol]) -> Subprotocol | None:
        return max(offered, default=None)

    async with sockets(select_subprotocol=choose, max_size=4 * MIB) as app:
        yield app


@pytest.fixture(params=PARSERS)
async def front(app: Sockets, request: pytest.FixtureRequest) -> AsyncIterator[Front]:
    async with before(app.url, parser=PARSERS[request.param]) as front:
        yield front


@asynccontextmanager
async def opened(
    front: Front, path: str = "/ws", *, headers: dict[str, str] | None = None, **options: Any
) -> AsyncIterator[ClientConnection]:
    name, _, value = front.authorization.partition(": ")
    url = f"ws://127.0.0.1:{front.port}{path}"
    options = {"max_size": 4 * MIB, "close_timeout": 1, "compression": None, **options}
    async with connect(url, additional_headers={name: value, **(headers or {})}, proxy=None, **options) as connection:
        yield connection


async def test_text_and_bytes_go_on_as_they_are(front: Front) -> None:
    async with opened(front) as connection:
        for message in ("hello", "", "José 李 \0", b"", b"\xff\x00", b"x" * 3 * MIB, "é" * MIB):
            await connection.send(message)
            assert await connection.recv() == message


async def test_the_handshake_says_who_it_is(front: Front, app: Sockets) -> None:
    sent = {
        "X-Forwarded-User": "admin", "X_Auth_Request_User": "admin", "Cookie": "a=1; __Host-oidc_session=s3cret",
        "X-Forwarded-For": "192.0.2.1", "Origin": "https://app.example", "X-Mine": "1",
    }  # fmt: skip
    async with opened(front, "/ws/%61@evil.example?a=1&&b", headers=sent) as connection:
        await connection.send("x")
        await connection.recv()
    (request,) = app.requests
    assert request.path == "/ws/%61@evil.example?a=1&&b"
    assert request.headers.get_all("Host") == [app.url.removeprefix("http://")]
    assert request.headers.get_all("X-Forwarded-User") == request.headers.get_all("X-Auth-Request-User") == ["alice"]
    for name in ("X_Auth_Request_User", "Authorization"):
        assert request.headers.get_all(name) == []
    assert request.headers["X-Forwarded-For"] == "127.0.0.1"
    assert request.headers["X-Forwarded-Proto"] == "http"
    assert (request.headers["Cookie"], request.headers["X-Mine"]) == ("a=1", "1")
    assert request.headers["Origin"] == "https://app.example"
    for name in ("Sec-WebSocket-Key", "Sec-WebSocket-Version", "Connection", "Upgrade"):
        assert len(request.headers.get_all(name)) == 1
    assert request.headers.get_all("Sec-WebSocket-Extensions") == []


async def test_without_a_token_nobody_is_asked(front: Front, app: Sockets) -> None:
    front.authorization = "X-None: 1"
    with pytest.raises(InvalidStatus) as refused:
        async with opened(front):
            pass
    assert refused.value.response.status_code == 401
    assert app.requests == []


@pytest.mark.parametrize(
    ("request_line", "header", "status"),
    [
        ("POST /ws", "Content-Length: 2", 400),
        ("GET /ws", "Content-Length: 2", 400),
        ("GET /ws", "Transfer-Encoding: chunked", 400),
        ("GET /ws", "X-Long: " + "a" * 20_000, 431),
        ("GET /ws", "\r\n".join(f"X-{number}: 1" for number in range(200)), 431),
        ("GET /" + "x" * 20_000, "X-A: 1", 414),
    ],
    ids=["POST", "length", "chunks", "long", "many", "target"],
)
async def test_a_handshake_that_is_none_is_answered(
    front: Front, app: Sockets, request_line: str, header: str, status: int
) -> None:
    """And the connection ends: nobody waits for the other."""
    upgrade = ("Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Version: 13")
    answer = await front.ask(request_line, *upgrade, "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==", header, body=b"hi")
    assert (answer.status, app.requests) == (status, [])


@pytest.mark.parametrize(
    ("offered", "chosen"),
    [(["chat.v1", "chat.v2"], "chat.v2"), (["chat.v1"], "chat.v1"), (None, None)],
)
async def test_the_app_chooses_the_subprotocol(front: Front, offered: Any, chosen: str | None) -> None:
    async with opened(front, subprotocols=offered) as connection:
        assert connection.subprotocol == chosen


async def test_a_token_among_the_subprotocols_is_not_for_the_app(app: Sockets) -> None:
    async with before(app.url, websocket_token="subprotocol") as front:
        token = front.authorization.removeprefix("Authorization: Bearer ")
        front.authorization = "X-None: 1"
        async with opened(front, subprotocols=["chat.v1", f"bearer.{token}"]) as connection:
            assert connection.subprotocol == "chat.v1"
        (request,) = app.requests
        assert token not in str(request.headers)
        assert request.headers["X-Forwarded-User"] == "alice"


@pytest.mark.parametrize(("code", "reason"), [(1000, "done"), (1001, ""), (1008, "policy"), (3000, "x"), (4999, "é")])
async def test_the_code_of_the_client_reaches_the_app(front: Front, app: Sockets, code: int, reason: str) -> None:
    async with opened(front) as connection:
        await connection.close(code, reason)
    await until(lambda: app.closed)
    assert app.closed == [(code, reason)]


@pytest.mark.parametrize(("code", "reason"), [(1000, "done"), (1001, ""), (1011, "oops"), (1013, ""), (4000, "é")])
async def test_the_code_of_the_app_reaches_the_client(front: Front, app: Sockets, code: int, reason: str) -> None:
    async def closing(connection: ServerConnection) -> None:
        await connection.send("last words")
        await connection.close(code, reason)

    app.handler = closing
    async with opened(front) as connection:
        assert await connection.recv() == "last words"
        with pytest.raises(ConnectionClosed):
            await connection.recv()
        assert (connection.close_code, connection.close_reason) == (code, reason)


async def test_a_client_that_is_just_gone_is_just_gone_for_the_app(front: Front, app: Sockets) -> None:
    async with opened(front) as connection:
        await connection.send("x")
        await connection.recv()
        connection.transport.abort()
    await until(lambda: app.closed)
    assert app.closed[0][0] in {1006, 1005, 1000}


async def test_an_app_that_is_just_gone_is_a_bad_gateway(front: Front, app: Sockets) -> None:
    async def gone(connection: ServerConnection) -> None:
        connection.transport.abort()

    app.handler = gone
    async with opened(front) as connection:
        with pytest.raises(ConnectionClosed):
            await connection.recv()
        assert connection.close_code == 1014


async def test_a_message_too_long_is_not_passed_on(app: Sockets) -> None:
    async def long(connection: ServerConnection) -> None:
        await connection.send(b"x" * 2000)

    app.handler = long
    async with before(app.url, proxy={"websocket_max_size": 1000}) as front, opened(front) as connection:
        with pytest.raises(ConnectionClosed):
            await connection.recv()
        assert connection.close_code == 1009
    await until(lambda: app.closed)
    assert app.closed[0][0] == 1009


async def test_the_app_refuses(front: Front, app: Sockets) -> None:
    """With its own answer; it is not followed anywhere."""

    def refuse(connection: ServerConnection) -> Response:
        response = connection.respond(302, "not here")
        response.headers["Location"] = "http://169.254.169.254/"
        response.headers["Set-Cookie"] = "__Host-oidc_session=evil"
        return response

    app.refusal = refuse
    handshake = ("Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Version: 13")
    answer = await front.ask("GET /ws", *handshake, "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==")
    assert (answer.status, answer.body) == (302, b"not here")
    assert (answer.one("location"), answer.all("set-cookie")) == ("http://169.254.169.254/", [])


@pytest.mark.parametrize(
    "said",
    [
        b"HTTP/1.1 101 S\r\nUpgrade: websocket\r\nConnection: upgrade\r\nSec-WebSocket-Accept: x\r\n\r\n",
        b"SSH-2.0\r\n\r\n",
        b"",
    ],
)
async def test_an_app_that_knows_no_websockets(said: bytes) -> None:
    async with behind(saying(said, then=lambda writer: writer.close())) as app, before(app) as front:
        with pytest.raises(InvalidStatus) as refused:
            async with opened(front):
                pass
        assert refused.value.response.status_code == 502


async def test_an_app_that_does_not_answer() -> None:
    async def silent(_: Message, reader: Reader, __: Writer) -> None:
        await reader.read()

    async with behind(silent) as app, before(app, proxy={"read_timeout": 0.2}) as front:
        with pytest.raises(InvalidStatus) as refused:
            async with opened(front):
                pass
        assert refused.value.response.status_code == 504
        await until(lambda: app.open == 0)


async def stands_still(counted: Callable[[], int]) -> None:
    previous = -1
    while previous != counted():
        previous = counted()
        await asyncio.sleep(0.5)


async def test_a_slow_client_slows_the_app_down(front: Front, app: Sockets) -> None:
    """What was sent and not read lies in the buffers of the kernel for two connections, up to 36 MiB each, and ours."""
    sent = 0

    async def flood(connection: ServerConnection) -> None:
        nonlocal sent
        while sent < 500:
            await connection.send(b"x" * MIB)
            sent += 1

    app.handler = flood
    async with opened(front, max_queue=1, ping_interval=None) as connection:
        await stands_still(lambda: sent)
        assert sent < 300
        before_that = sent
        for _ in range(50):
            await connection.recv()
        await until(lambda: sent > before_that)
        connection.transport.abort()


async def test_a_slow_app_slows_the_client_down(front: Front, app: Sockets) -> None:
    over = asyncio.Event()

    async def deaf(connection: ServerConnection) -> None:
        await over.wait()
        async for _ in connection:
            pass

    app.handler = deaf
    async with opened(front, ping_interval=None) as connection:
        sent = 0

        async def flood() -> None:
            nonlocal sent
            while True:
                await connection.send(b"x" * MIB)
                sent += 1

        flooding = asyncio.create_task(flood())
        await stands_still(lambda: sent)
        assert sent < 300
        flooding.cancel()
        over.set()
        connection.transport.abort()


async def test_revocation_ends_both_halves(front: Front, app: Sockets) -> None:
    async with opened(front) as connection:
        await connection.send("x")
        await connection.recv()
        await front.oidc.revoke.subject("alice")
        with pytest.raises(ConnectionClosed):
            await connection.recv()
        assert connection.close_code == 1008
    await until(lambda: app.closed)
    assert app.closed[0][0] == 1008


async def test_many_at_once(front: Front, app: Sockets) -> None:
    async def one(number: int) -> None:
        async with opened(front) as connection:
            for turn in range(3):
                await connection.send(f"{number} {turn}")
                assert await connection.recv() == f"{number} {turn}"

    async with asyncio.timeout(60):
        await asyncio.gather(*(one(number) for number in range(100)))
    await until(lambda: len(app.closed) == 100)


async def test_an_app_that_is_not_there() -> None:
    async with behind() as raw:
        url = raw.url
    async with before(url) as front:
        with pytest.raises(InvalidStatus) as refused:
            async with opened(front):
                pass
        assert refused.value.response.status_code == 502

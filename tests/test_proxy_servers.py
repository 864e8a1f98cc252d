"""The reverse proxy as an app under every server: bodies, WebSockets, truncation, and clients that go away."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from websockets.asyncio.client import connect
from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosed

from oidc_middleware.testing import FakeIssuer

from live_kit import COMPLETE, CUT, Client
from proxy_kit import App, Message, Reader, Writer, behind, saying, until
from servers_kit import AUDIENCE, COMMANDS, START_SECONDS, Server, running

pytestmark = pytest.mark.anyio


@pytest.fixture(scope="module")
def issuer() -> Iterator[FakeIssuer]:
    with FakeIssuer(audience=AUDIENCE, algorithms=("ES256",)).serve_in_thread() as fake:
        yield fake


@pytest.fixture
async def app() -> AsyncIterator[App]:
    async with behind() as app:
        yield app


@pytest.fixture(params=COMMANDS)
def server(
    request: pytest.FixtureRequest, app: App, issuer: FakeIssuer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Server]:
    monkeypatch.setenv("UPSTREAM", app.url)
    with running(request.param, issuer.url, tmp_path / "log", "proxied_app:app") as server:
        wait_until_ready(server)
        yield server


def wait_until_ready(server: Server) -> None:
    """Return when it has the issuer's keys: on a busy machine they may come late."""
    deadline = time.monotonic() + START_SECONDS
    while server.get("/oauth2/health").status_code != 200:
        assert time.monotonic() < deadline
        time.sleep(0.05)


async def test_requests_and_responses(server: Server, app: App, issuer: FakeIssuer) -> None:
    def ask() -> None:
        client = Client(server.port)
        for _ in range(3):
            client.ask("/orders?a=%2F", token)
            assert (client.status(), client.body()) == (200, (COMPLETE, b"ok"))
            client.ask("/orders", token, method="POST", length=300_000)
            client.socket.sendall(b"x" * 300_000)
            assert (client.status(), client.body()) == (200, (COMPLETE, b"ok"))
        client.socket.close()

    token = issuer.token("alice")
    await asyncio.to_thread(ask)
    first, second = app.requests[:2]
    assert first.start == b"GET /orders?a=%2F HTTP/1.1"
    assert (first.one("x-forwarded-user"), first.one("x-forwarded-for")) == ("alice", "127.0.0.1")
    assert (second.body, second.one("content-length")) == (b"x" * 300_000, "300000")
    assert await asyncio.to_thread(lambda: server.get("/orders").status_code) == 401


async def test_a_response_that_ends_in_the_middle_is_cut(server: Server, app: App, issuer: FakeIssuer) -> None:
    async def half(_: Message, __: Reader, writer: Writer) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf")
        await writer.drain()
        await asyncio.sleep(0.05)
        writer.close()

    def ask() -> None:
        client = Client(server.port)
        client.ask("/orders", token)
        assert client.status() == 200
        assert client.body() == (CUT, b"half")
        client.socket.close()

    app.answer = half
    token = issuer.token("alice")
    await asyncio.to_thread(ask)


@pytest.mark.parametrize("begun", [True, False], ids=["in the body", "before the head"])
async def test_a_client_that_goes_away(server: Server, app: App, issuer: FakeIssuer, begun: bool) -> None:
    async def slow(_: Message, reader: Reader, writer: Writer) -> None:
        if begun:
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf")
        await reader.read()

    app.answer = slow
    client = Client(server.port)
    client.ask("/orders", issuer.token("alice"))
    await until(lambda: app.requests)
    if begun:
        assert await asyncio.to_thread(client.status) == 200
    client.socket.close()
    await until(lambda: app.open == 0)


async def test_bad_upstreams(server: Server, app: App, issuer: FakeIssuer) -> None:
    app.answer = saying(b"SSH-2.0\r\n\r\n", then=lambda writer: writer.close())
    token = issuer.token("alice")
    assert await asyncio.to_thread(lambda: server.get("/orders", token).status_code) == 502


@pytest.mark.parametrize("name", COMMANDS)
async def test_websockets(name: str, issuer: FakeIssuer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    closed: list[tuple[int | None, str | None]] = []

    async def echo(connection: ServerConnection) -> None:
        with suppress(ConnectionClosed):
            while (message := await connection.recv()) != "bye":
                await connection.send(message)
            await connection.close(4001, "why")
        await connection.wait_closed()
        closed.append((connection.close_code, connection.close_reason))

    async with serve(echo, "127.0.0.1", 0) as upstream:
        port = next(iter(upstream.sockets)).getsockname()[1]
        monkeypatch.setenv("UPSTREAM", f"http://127.0.0.1:{port}")
        with running(name, issuer.url, tmp_path / "log", "proxied_app:app") as server:
            wait_until_ready(server)
            headers = {"Authorization": f"Bearer {issuer.token('alice')}"}
            url = f"ws://127.0.0.1:{server.port}/ws"
            async with connect(url, additional_headers=headers, proxy=None) as client:
                for message in ("hello", b"\x00\xff", "x" * 100_000):
                    await client.send(message)
                    assert await client.recv() == message
                await client.send("bye")
                with pytest.raises(ConnectionClosed):
                    await client.recv()
                assert (client.close_code, client.close_reason) == (4001, "why")
            async with connect(url, additional_headers=headers, proxy=None) as client:
                await client.close(4002, "done")
            await until(lambda: len(closed) == 2)
            assert closed[1][0] == (1006 if name == "hypercorn" else 4002)  # which hypercorn keeps to itself


@pytest.mark.parametrize("name", COMMANDS)
async def test_mounted(
    name: str, app: App, issuer: FakeIssuer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The app sees what stands below the mount."""
    monkeypatch.setenv("UPSTREAM", app.url)
    with running(name, issuer.url, tmp_path / "log", "proxied_app:mounted") as server:
        wait_until_ready(server)
        assert await asyncio.to_thread(lambda: server.get("/base/health").text) == "ok"
        await asyncio.to_thread(lambda: server.get("/base/a%2Cb/?x", issuer.token("alice")))
        await asyncio.to_thread(lambda: server.get("/base", issuer.token("alice")))
        starts = [request.start for request in app.requests]
        assert starts[:2] == [b"GET /health HTTP/1.1", b"GET /a%2Cb/?x HTTP/1.1"]

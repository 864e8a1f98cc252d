"""Live connections on several nodes: three servers, each a process, over one Redis; revoked on one, ended on all."""

from __future__ import annotations

import asyncio
import resource
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx2
import pytest

from oidc_middleware.cache import new_secret
from oidc_middleware.testing import FakeIssuer

from redis_kit import RedisServer
from servers_kit import AUDIENCE, Server, running
from time_kit import best_of

pytestmark = pytest.mark.anyio

NODES = 3
OF_EACH = 500
AT_ONCE = 50
PATIENCE = 60.0
UPGRADE = (
    "Connection: Upgrade",
    "Upgrade: websocket",
    "Sec-WebSocket-Version: 13",
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
)
CLOSE_FRAME = b"\x88\x09\x03\xf0revoked"
OUR_CLOSE_FRAME = b"\x88\x82\0\0\0\0\x03\xf0"
LAST_CHUNK = b"0\r\n\r\n"


class Node:
    """A server, and one connection on which it is asked how it is."""

    def __init__(self, server: Server, client: httpx2.Client) -> None:
        self.server = server
        self._client = client

    def told(self, action: str = "look", subject: str = "nobody") -> dict[str, Any]:
        """Do something to a subject, and return what the node knows."""
        found: dict[str, Any] = self._client.get(f"/control/{action}/{subject}").json()
        return found

    async def until(self, is_so: Callable[[dict[str, Any]], bool]) -> None:
        """Wait until it knows this."""
        async with asyncio.timeout(PATIENCE):
            while not is_so(self.told()):  # noqa: ASYNC110  it happens in another process
                await asyncio.sleep(0.01)

    def open_files(self) -> int:
        """Return how many files and sockets the process has open."""
        return sum(1 for _ in Path(f"/proc/{self.server.pid}/fd").iterdir())


class Fleet:
    """The nodes, and who gives tokens for them."""

    def __init__(self, issuer: FakeIssuer, nodes: list[Node]) -> None:
        self.issuer = issuer
        self.nodes = nodes


@pytest.fixture
def fleet(redis_server: RedisServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Fleet]:
    """Start the nodes; each has a journal of its own, as on a host of its own."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(8192, before[1]), before[1]))
    monkeypatch.setenv("OIDC_CACHE", redis_server.url)
    monkeypatch.setenv("OIDC_SECRET", new_secret())
    nodes: list[Node] = []
    with ExitStack() as stack:
        stack.callback(resource.setrlimit, resource.RLIMIT_NOFILE, before)
        issuer = stack.enter_context(FakeIssuer(audience=AUDIENCE, algorithms=("ES256",)).serve_in_thread())
        for number in range(NODES):
            monkeypatch.setenv("OIDC_JOURNAL", str(tmp_path / f"{number}.journal"))
            server = stack.enter_context(running("uvicorn", issuer.url, tmp_path / f"{number}.log", "live_app:app"))
            client = httpx2.Client(base_url=server.url, trust_env=False, timeout=PATIENCE)
            nodes.append(Node(server, stack.enter_context(client)))
        yield Fleet(issuer, nodes)
    for number in range(NODES):
        log = (tmp_path / f"{number}.log").read_text()
        assert "Traceback" not in log, log


class Connection:
    """A WebSocket or an event stream, as its client sees it."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, is_socket: bool) -> None:
        self._reader = reader
        self._writer = writer
        self._is_socket = is_socket

    @classmethod
    async def open(cls, port: int, token: str, *, is_socket: bool) -> Connection:
        """Open one, and return it when the app serves it."""
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        path, more = ("/echo", UPGRADE) if is_socket else ("/quiet", ())
        lines = [f"GET {path} HTTP/1.1", "Host: a", f"Authorization: Bearer {token}", *more, "", ""]
        writer.write("\r\n".join(lines).encode())
        head = await reader.readuntil(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 101 " if is_socket else b"HTTP/1.1 200 "), head
        if not is_socket:
            await reader.readuntil(b"tick\n\n\r\n")
        return cls(reader, writer, is_socket=is_socket)

    async def ended(self) -> float:
        """Return when the server ended it, as it should."""
        last = await self._reader.readexactly(len(CLOSE_FRAME if self._is_socket else LAST_CHUNK))
        now = time.monotonic()
        assert last == (CLOSE_FRAME if self._is_socket else LAST_CHUNK)
        if self._is_socket:
            self._writer.write(OUR_CLOSE_FRAME)
            assert await self._reader.read() == b""
        self._writer.close()
        await self._writer.wait_closed()
        return now


def is_quiet(told: dict[str, Any], tasks: int) -> bool:
    """Tell whether a node has no connection that could be ended, and no more tasks than these."""
    return not any(told["live"].values()) and told["tasks"] <= tasks


async def end_all(fleet: Fleet, of_each: int) -> float:
    """Open so many of each kind, revoke their subject on the first node; return the seconds until the last is over."""
    subject = uuid4().hex
    token = fleet.issuer.token(subject)
    connects = asyncio.Semaphore(AT_ONCE)

    async def connect(number: int, *, is_socket: bool) -> Connection:
        async with connects:
            port = fleet.nodes[number % NODES].server.port
            return await Connection.open(port, token, is_socket=is_socket)

    opened = await asyncio.gather(
        *(connect(number, is_socket=is_socket) for is_socket in (True, False) for number in range(of_each))
    )
    assert sum(node.told()["live"]["expiring"] for node in fleet.nodes) == 2 * of_each
    ends = [asyncio.create_task(connection.ended()) for connection in opened]
    begin = time.monotonic()
    told = await asyncio.to_thread(fleet.nodes[0].told, "revoke", subject)
    assert told["receipt"] == "shared"
    async with asyncio.timeout(PATIENCE):
        return max(await asyncio.gather(*ends)) - begin


async def test_a_revocation_ends_everything_on_every_node_within_a_second(fleet: Fleet) -> None:
    """500 WebSockets and 500 event streams; no task, socket or entry is left of them."""
    for node in fleet.nodes:
        await node.until(lambda told: told["ready"])
    await end_all(fleet, NODES)  # from here on every node has the connections that it needs for itself
    for node in fleet.nodes:
        await node.until(lambda told: not any(told["live"].values()))
    tasks = [node.told()["tasks"] for node in fleet.nodes]
    files = [node.open_files() for node in fleet.nodes]
    assert await best_of(4, 1.0, lambda: end_all(fleet, OF_EACH)) < 1.0
    for node, most in zip(fleet.nodes, tasks, strict=True):
        await node.until(partial(is_quiet, tasks=most))
    assert [node.open_files() for node in fleet.nodes] == files

"""Live connections under real servers: an app under each of them, and a client that sees how a body ends."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx2
from websockets.sync.client import ClientConnection, connect

from oidc_middleware.testing import FakeIssuer

from servers_kit import AUDIENCE, Server, running

SECONDS = 20
CUT, COMPLETE = "cut", "complete"


class Stand:
    """A server with `live_app`, and what it wrote."""

    def __init__(self, server: Server, issuer: FakeIssuer, log: Path) -> None:
        self.server = server
        self.issuer = issuer
        self.log = log
        self.subject = ""
        self.tasks_of_server = 0
        # One connection for all: servers have tasks of their own for each.
        self.control = httpx2.Client(base_url=server.url, trust_env=False, timeout=SECONDS)

    def token(self, **more: Any) -> str:
        """Return a token of a subject of its own."""
        self.subject = uuid4().hex
        return self.issuer.token(self.subject, **more)

    def told(self, action: str = "look") -> dict[str, Any]:
        """Do something to the subject, and return what the server knows."""
        found: dict[str, Any] = self.control.get(f"/control/{action}/{self.subject}").json()
        return found

    def until(self, is_so: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        """Wait for the server to know this."""
        deadline = time.monotonic() + SECONDS
        while True:
            told = self.told()
            if is_so(told):
                return told
            assert time.monotonic() < deadline, told
            time.sleep(0.02)

    def saw(self, *expected: str) -> None:
        """Wait for the app to have seen exactly this."""
        self.until(lambda told: told["seen"] == list(expected))

    def is_clean(self) -> None:
        """Wait until nothing is left of any connection."""
        self.until(lambda told: not any(told["live"].values()))

    @contextmanager
    def websocket(self, path: str, token: str, **options: Any) -> Iterator[ClientConnection]:
        """Open a WebSocket."""
        headers = {"Authorization": f"Bearer {token}"}
        url = f"ws://127.0.0.1:{self.server.port}{path}"
        with connect(url, additional_headers=headers, proxy=None, **options) as websocket:
            yield websocket


@contextmanager
def standing(name: str, log: Path) -> Iterator[Stand]:
    """Run a server with `live_app`, and an issuer that it can reach."""
    fake = FakeIssuer(audience=AUDIENCE, algorithms=("ES256",))
    with fake.serve_in_thread() as issuer, running(name, issuer.url, log, "live_app:app") as server:
        stand = Stand(server, issuer, log)
        with stand.control:
            yield stand


@contextmanager
def nothing_left(stand: Stand) -> Iterator[Stand]:
    """Give a server, and wait until nothing is left after the block: no entry, no task, no traceback."""
    before = stand.until(lambda told: not any(told["live"].values()))
    written = len(stand.log.read_bytes())
    yield stand
    stand.is_clean()
    stand.until(lambda told: told["tasks"] <= before["tasks"] + stand.tasks_of_server)
    stand.tasks_of_server = 0
    log = stand.log.read_bytes()[written:].decode()
    assert "Traceback" not in log, log
    assert "never retrieved" not in log, log


class Client:
    """An HTTP/1.1 client that tells how a body ends."""

    def __init__(self, port: int) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), SECONDS)
        self.buffer = b""
        self.is_over = False

    def ask(self, path: str, token: str, *, method: str = "GET", length: int | None = None) -> None:
        """Send a request, without its body."""
        lines = [f"{method} {path} HTTP/1.1", "Host: a", f"Authorization: Bearer {token}"]
        lines += [f"Content-Length: {length}"] if length is not None else []
        self.socket.sendall("\r\n".join([*lines, "", ""]).encode())

    def status(self) -> int:
        """Read the head of a response."""
        self.until(lambda: b"\r\n\r\n" in self.buffer)
        self.head, _, self.buffer = self.buffer.partition(b"\r\n\r\n")
        return int(self.head.split(b" ", 2)[1])

    def body(self) -> tuple[str, bytes]:
        """Read the body, and tell whether it was complete or cut."""
        fields = dict(line.lower().split(b": ", 1) for line in self.head.split(b"\r\n")[1:])
        if b"content-length" in fields:
            length = int(fields[b"content-length"])
            self.until(lambda: len(self.buffer) >= length or self.is_over)
            body, self.buffer = self.buffer[:length], self.buffer[length:]
            return (COMPLETE if len(body) == length else CUT), body
        assert fields[b"transfer-encoding"] == b"chunked"
        body = b""
        while True:
            self.until(lambda: b"\r\n" in self.buffer or self.is_over)
            line, _, rest = self.buffer.partition(b"\r\n")
            if not line:
                return CUT, body
            size = int(line, 16) + 2
            self.buffer = rest
            self.until(lambda size=size: len(self.buffer) >= size or self.is_over)  # type: ignore[misc]
            if len(self.buffer) < size:
                return CUT, body + self.buffer
            if size == 2:
                self.buffer = self.buffer[2:]
                return COMPLETE, body
            body, self.buffer = body + self.buffer[: size - 2], self.buffer[size:]

    def until(self, is_so: Callable[[], bool]) -> None:
        """Read until this is so."""
        while not is_so():
            try:
                received = self.socket.recv(1 << 20)
            except ConnectionResetError:
                received = b""
            self.buffer += received
            self.is_over = not received
            if self.is_over:
                return

    def is_closed(self) -> bool:
        """Tell whether the server closes the connection, all read."""
        with suppress(ConnectionResetError):
            return self.socket.recv(1) == b""
        return True

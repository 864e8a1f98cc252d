"""What is open for an identity ends with it: under every server, over real sockets, and nothing is left of it."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Thread
from typing import Any
from uuid import uuid4

import httpx2
import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection, connect

from oidc_middleware.testing import FakeIssuer

from servers_kit import COMMANDS, Server, running

SECONDS = 20
CUT, COMPLETE = "cut", "complete"


@pytest.fixture(scope="module")
def issuer() -> Iterator[FakeIssuer]:
    """Return an issuer that other processes can reach."""
    with FakeIssuer(audience="https://api.example", algorithms=("ES256",)).serve_in_thread() as fake:
        yield fake


class Stand:
    """A server with `live_app`, and what it wrote."""

    def __init__(self, server: Server, issuer: FakeIssuer, log: Path) -> None:
        self.server = server
        self.issuer = issuer
        self.log = log
        self.subject = ""
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


@pytest.fixture(scope="module", params=COMMANDS)
def started(
    request: pytest.FixtureRequest, issuer: FakeIssuer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Stand]:
    """Return each server in turn."""
    log = tmp_path_factory.mktemp("live") / f"{request.param}.log"
    with running(request.param, issuer.url, log, "live_app:app") as server:
        stand = Stand(server, issuer, log)
        with stand.control:
            yield stand


@pytest.fixture
def stand(started: Stand) -> Iterator[Stand]:
    """Return a server of which nothing is left after the test: no entry, no task, no traceback."""
    before = started.until(lambda told: not any(told["live"].values()))
    written = len(started.log.read_bytes())
    yield started
    started.is_clean()
    started.until(lambda told: told["tasks"] <= before["tasks"])
    log = started.log.read_bytes()[written:].decode()
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


@pytest.fixture
def client(stand: Stand) -> Iterator[Client]:
    """Return a connection to the server."""
    found = Client(stand.server.port)
    with found.socket:
        yield found


def test_an_event_stream_ends_cleanly(stand: Stand, client: Client) -> None:
    client.ask("/events", stand.token())
    assert client.status() == 200
    client.until(lambda: client.buffer.count(b"tick") > 2)
    stand.told("revoke")
    how, body = client.body()
    assert how == COMPLETE
    assert body.count(b"data: tick\n\n") * len(b"data: tick\n\n") == len(body)
    stand.saw("left")


@pytest.mark.parametrize("path", ["/download", "/download?length=10000000"])
def test_a_body_is_cut(stand: Stand, client: Client, path: str) -> None:
    client.ask(path, stand.token())
    assert client.status() == 200
    client.until(lambda: len(client.buffer) > 2000)
    stand.told("revoke")
    assert client.body()[0] == CUT
    stand.saw("left")


@pytest.mark.parametrize("path", ["/download", "/download?length=10000000"])
def test_curl_notices_that_a_body_was_cut(stand: Stand, path: str) -> None:
    curl = shutil.which("curl")
    if curl is None:
        return  # the test above sees the same with a client of its own
    token = stand.token()
    url = f"{stand.server.url}{path}"
    command = [curl, "-sS", "--noproxy", "*", "-N", "-H", f"Authorization: Bearer {token}", url]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.read(2000) == b"x" * 2000
        stand.told("revoke")
        process.communicate(timeout=SECONDS)
    assert process.returncode == 18


def test_a_file_is_cut(stand: Stand, client: Client, tmp_path: Path) -> None:
    """Also where the server would rather send the file by itself."""
    path = tmp_path / "large"
    with path.open("wb") as file:
        file.truncate(1 << 30)
    client.ask(f"/file?path={path}", stand.token())
    assert client.status() == 200
    stand.told("revoke")
    assert client.body()[0] == CUT


def test_a_request_that_waits_is_refused(stand: Stand, client: Client) -> None:
    client.ask("/wait", stand.token())
    stand.saw("waits")
    stand.told("revoke")
    assert client.status() == 401
    assert b'error="invalid_token"' in client.head
    assert json.loads(client.body()[1])["error"] == "invalid_token"
    stand.saw("waits", "disconnected")


def test_an_upload_that_is_under_way_is_refused(stand: Stand, client: Client) -> None:
    client.ask("/upload", stand.token(), method="POST", length=1_000_000)
    stand.saw("waits")
    stand.told("revoke")
    assert client.status() == 401
    stand.saw("waits", "disconnected")


def test_the_request_that_revokes_itself_is_answered(stand: Stand, client: Client) -> None:
    token = stand.token()
    client.ask("/log-out", token, method="POST", length=0)
    assert client.status() == 200
    assert json.loads(client.body()[1]) == {"logged out": stand.subject}


def test_others_go_on(stand: Stand, client: Client) -> None:
    token = stand.token()
    client.ask("/events", token)
    assert client.status() == 200
    subject = stand.subject
    stand.token()
    stand.told("revoke")
    before = len(client.buffer)
    client.until(lambda: len(client.buffer) > before + 500)
    assert not client.is_over
    stand.subject = subject
    stand.told("revoke")
    assert client.body()[0] == COMPLETE


def test_a_connection_is_used_again_after_an_event_stream(stand: Stand, client: Client) -> None:
    """Keep-alive: what ended cleanly leaves the connection as it was, for somebody else perhaps."""
    client.ask("/events", stand.token())
    assert client.status() == 200
    stand.told("revoke")
    assert client.body()[0] == COMPLETE
    client.ask("/hello", stand.token())
    assert client.status() == 200
    assert client.body() == (COMPLETE, f"hello {stand.subject}".encode())


def test_a_pipelined_request_is_not_answered_after_a_body_was_cut(stand: Stand, client: Client) -> None:
    """What follows a cut body could only be taken for a part of it."""
    token = stand.token()
    other = stand.issuer.token("other")
    client.ask("/download?length=10000000", token)
    client.ask("/hello", other)
    assert client.status() == 200
    stand.told("revoke")
    how, body = client.body()
    assert how == CUT
    assert set(body) == {ord("x")}
    assert client.is_closed()


@pytest.mark.parametrize("query", ["", "?events"])
def test_an_app_that_ignores_it_is_cancelled(stand: Stand, client: Client, query: str) -> None:
    client.ask(f"/deaf{query}", stand.token())
    stand.saw("waits")
    assert client.status() == 200
    stand.told("revoke")
    assert client.body() == (COMPLETE if query else CUT, b"data: tick\n\n")
    stand.saw("waits", "left")


def test_an_app_that_ignores_what_send_raises_is_cancelled(stand: Stand, client: Client) -> None:
    client.ask("/stubborn", stand.token())
    assert client.status() == 200
    stand.told("revoke")
    assert client.body()[0] == CUT
    stand.saw("left")


@pytest.mark.parametrize("query", ["", "?events"])
def test_a_client_that_does_not_read_keeps_no_app(stand: Stand, client: Client, query: str) -> None:
    """The send that waits for it raises."""
    client.ask(f"/flood{query}", stand.token())
    assert client.status() == 200
    stand.told("revoke")
    stand.saw("Disconnected")
    stand.is_clean()


@pytest.mark.parametrize("path", ["/echo", "/careless"])
def test_a_websocket_is_closed(stand: Stand, path: str) -> None:
    with stand.websocket(path, stand.token()) as websocket:
        websocket.send("hello")
        assert websocket.recv(SECONDS) == "hello"
        stand.told("revoke")
        with pytest.raises(ConnectionClosed) as closed:
            websocket.recv(SECONDS)
    assert closed.value.rcvd is not None
    assert (closed.value.rcvd.code, closed.value.rcvd.reason) == (1008, "revoked")
    stand.saw(*(["disconnected 1008"] if path == "/echo" else []))


def test_a_websocket_that_is_not_accepted_yet_is_refused(stand: Stand) -> None:
    token = stand.token()

    def revoke() -> None:
        stand.saw("waits")
        stand.told("revoke")
        stand.told("accept")

    thread = Thread(target=revoke)
    thread.start()
    try:
        with pytest.raises(InvalidStatus) as refused, stand.websocket("/late", token):
            pass
    finally:
        thread.join(SECONDS)
    assert refused.value.response.status_code == 401


def test_a_websocket_is_revoked_while_it_is_accepted(stand: Stand) -> None:
    """Refused or closed with 1008, whichever it is: it does not stay open."""
    token = stand.token()

    def revoke() -> None:
        stand.saw("waits")
        stand.told("accept-and-revoke")

    thread = Thread(target=revoke)
    thread.start()
    try:
        with stand.websocket("/late", token) as websocket, suppress(ConnectionClosed):
            assert websocket.recv(SECONDS) == "hello"
            websocket.recv(SECONDS)
        assert websocket.close_code == 1008
    except InvalidStatus as refused:
        assert refused.response.status_code == 401
    finally:
        thread.join(SECONDS)


def test_the_app_of_a_websocket_that_ignores_it_is_cancelled(stand: Stand) -> None:
    with stand.websocket("/deaf-socket", stand.token()) as websocket:
        assert websocket.recv(SECONDS) == "hello"
        stand.told("revoke")
        with pytest.raises(ConnectionClosed) as closed:
            websocket.recv(SECONDS)
    assert closed.value.rcvd is not None
    assert closed.value.rcvd.code == 1008
    stand.saw("left")


def test_a_websocket_that_is_not_read_keeps_no_app(stand: Stand, client: Client) -> None:
    lines = [
        "GET /socket-flood HTTP/1.1",
        "Host: a",
        f"Authorization: Bearer {stand.token()}",
        "Connection: Upgrade",
        "Upgrade: websocket",
        "Sec-WebSocket-Version: 13",
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
    ]
    client.socket.sendall("\r\n".join([*lines, "", ""]).encode())
    assert client.status() == 101
    stand.until(lambda told: told["live"]["indexed"] > 0)
    stand.told("revoke")
    stand.saw("disconnected")


def test_expiry_ends_websockets_and_event_streams_only(stand: Stand, client: Client) -> None:
    token = stand.token(expires_in=3)
    other = Client(stand.server.port)
    with other.socket, stand.websocket("/echo", token) as websocket:
        client.ask("/events", token)
        other.ask("/download?length=200000", token)
        assert (client.status(), other.status()) == (200, 200)
        assert client.body()[0] == COMPLETE
        with pytest.raises(ConnectionClosed) as closed:
            websocket.recv(SECONDS)
        assert closed.value.rcvd is not None
        assert (closed.value.rcvd.code, closed.value.rcvd.reason) == (1008, "expired")
        assert len(other.body()[1]) == 200_000


def test_expiry_ends_nothing_where_that_is_set(
    issuer: FakeIssuer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OIDC_CLOSE_ON_EXPIRY", "false")
    with running("uvicorn", issuer.url, tmp_path / "log", "live_app:app") as server:
        stand = Stand(server, issuer, tmp_path / "log")
        with stand.control, stand.websocket("/echo", stand.token(expires_in=2)) as websocket:
            deadline = time.time() + 4
            while time.time() < deadline:
                websocket.send("hello")
                assert websocket.recv(SECONDS) == "hello"
            assert stand.told()["live"]["expiring"] == 0
            stand.told("revoke")
            with pytest.raises(ConnectionClosed):
                websocket.recv(SECONDS)


def test_a_client_that_leaves_by_itself_leaves_nothing(stand: Stand) -> None:
    token = stand.token()
    for path in ("/events", "/download", "/hello"):
        leaver = Client(stand.server.port)
        with leaver.socket:
            leaver.ask(path, token)
            assert leaver.status() == 200
    with stand.websocket("/echo", token) as websocket:
        websocket.send("hello")
        assert websocket.recv(SECONDS) == "hello"
    stand.until(lambda told: len(told["seen"]) == 3)

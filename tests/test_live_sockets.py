"""WebSockets end with their identity, and what has a token's end for its own: under every server, over real sockets."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from threading import Thread

import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus

from live_kit import COMPLETE, SECONDS, Client, Stand, nothing_left, standing
from servers_kit import COMMANDS


@pytest.fixture(scope="module", params=COMMANDS)
def started(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stand]:
    """Return each server in turn."""
    with standing(request.param, tmp_path_factory.mktemp("live") / f"{request.param}.log") as stand:
        yield stand


@pytest.fixture
def stand(started: Stand) -> Iterator[Stand]:
    """Return a server of which nothing is left after the test."""
    with nothing_left(started) as stand:
        yield stand


@pytest.fixture
def client(stand: Stand) -> Iterator[Client]:
    """Return a connection to the server."""
    found = Client(stand.server.port)
    with found.socket:
        yield found


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
    token = stand.token(expires_in=2)
    other = Client(stand.server.port)
    with other.socket, stand.websocket("/echo", token) as websocket:
        client.ask("/events", token)
        other.ask("/download?length=150000", token)
        assert (client.status(), other.status()) == (200, 200)
        assert client.body()[0] == COMPLETE
        with pytest.raises(ConnectionClosed) as closed:
            websocket.recv(SECONDS)
        assert closed.value.rcvd is not None
        assert (closed.value.rcvd.code, closed.value.rcvd.reason) == (1008, "expired")
        assert len(other.body()[1]) == 150_000


def test_expiry_ends_nothing_where_that_is_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OIDC_CLOSE_ON_EXPIRY", "false")
    with (
        standing("uvicorn", tmp_path / "log") as stand,
        stand.websocket("/echo", stand.token(expires_in=2)) as websocket,
    ):
        deadline = time.time() + 3.5
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

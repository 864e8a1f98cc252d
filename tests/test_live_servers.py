"""Requests and bodies that are open end with their identity: under every server, and nothing is left of them."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from live_kit import COMPLETE, CUT, SECONDS, Client, Stand, nothing_left, standing
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
    if stand.server.name == "hypercorn":
        stand.tasks_of_server = 2  # it goes on waiting for its turn to read the second request


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

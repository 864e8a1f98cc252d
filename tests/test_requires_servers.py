"""`requires` and a mount's own door under every server, over real sockets: what a client sees of a refusal."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection, connect

from oidc_middleware.testing import FakeIssuer

from servers_kit import ANSWER_SECONDS, AUDIENCE, COMMANDS, Server, running

FORBIDDEN = (
    'Bearer realm="{}", error="insufficient_scope", '
    'error_description="The access token does not permit this request.", scope="read"'
)


@pytest.fixture(scope="module", params=COMMANDS)
def server(
    request: pytest.FixtureRequest, served_issuer: FakeIssuer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Server]:
    """Return each server in turn; what it writes must tell of no failure."""
    log = tmp_path_factory.mktemp("requires") / "log"
    with running(request.param, served_issuer.url, log, "requires_app:app") as server:
        yield server
        written = log.read_text()
    assert "Traceback" not in written, written


def websocket(server: Server, path: str, token: str | None) -> ClientConnection:
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    url = f"ws://127.0.0.1:{server.port}{path}"
    return connect(url, additional_headers=headers, proxy=None, open_timeout=ANSWER_SECONDS)


@pytest.mark.parametrize(("path", "realm"), [("/read", "service"), ("/app/x", "service"), ("/mount/x", "mount")])
def test_a_request(path: str, realm: str, server: Server, served_issuer: FakeIssuer) -> None:
    good, bad = (served_issuer.token("alice", audience=AUDIENCE, scope=scope) for scope in ("read", "write"))
    assert server.get(path, good).text == "alice"
    refused = server.get(path, bad)
    assert (refused.status_code, refused.headers["www-authenticate"]) == (403, FORBIDDEN.format(realm))
    assert server.get(path).status_code == 401


@pytest.mark.parametrize("path", ["/function", "/connect/", "/whole/", "/app/", "/mount/"])
def test_a_websocket_is_refused_before_it_is_accepted(path: str, server: Server, served_issuer: FakeIssuer) -> None:
    good, bad = (served_issuer.token("alice", audience=AUDIENCE, scope=scope) for scope in ("read", "write"))
    with websocket(server, path + "good", good) if path.endswith("/") else websocket(server, path, good) as connection:
        assert connection.recv(ANSWER_SECONDS) == "alice"
    with pytest.raises(InvalidStatus) as refused:
        websocket(server, path + "bad" if path.endswith("/") else path, bad)
    assert refused.value.response.status_code == 403
    realm = "mount" if path.startswith("/mount") else "service"
    assert refused.value.response.headers["www-authenticate"] == FORBIDDEN.format(realm)
    with pytest.raises(InvalidStatus) as refused:
        websocket(server, path + "nobody" if path.endswith("/") else path, None)
    assert refused.value.response.status_code == 401


def test_nothing_of_a_refused_one_is_left(server: Server, served_issuer: FakeIssuer) -> None:
    """An endpoint class asks for the next message after `on_connect`, and must find the end there."""
    token = served_issuer.token("alice", audience=AUDIENCE, scope="write")
    with pytest.raises(InvalidStatus):
        websocket(server, "/connect/refused", token)
    deadline = time.monotonic() + ANSWER_SECONDS
    while "left refused" not in server.get("/told").json():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_one_that_is_open_is_closed(server: Server, served_issuer: FakeIssuer) -> None:
    token = served_issuer.token("alice", audience=AUDIENCE, scope="write")
    with websocket(server, "/receiving", token) as connection:
        connection.send("hello")
        with pytest.raises(ConnectionClosed) as closed:
            connection.recv(ANSWER_SECONDS)
    assert closed.value.rcvd is not None
    assert closed.value.rcvd.code == 1008

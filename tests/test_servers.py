"""The middleware under uvicorn, hypercorn and granian: each a process of its own, asked over real sockets."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

from oidc_middleware.testing import FakeIssuer

from servers_kit import ANSWER_SECONDS, AUDIENCE, COMMANDS, Server, running


@pytest.fixture(scope="module")
def issuer() -> Iterator[FakeIssuer]:
    """Return an issuer that other processes can reach."""
    with FakeIssuer(audience=AUDIENCE, algorithms=("ES256",)).serve_in_thread() as fake:
        yield fake


@pytest.fixture(scope="module", params=COMMANDS)
def server(
    request: pytest.FixtureRequest, issuer: FakeIssuer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Server]:
    """Return each server in turn, serving `served_app`."""
    log = tmp_path_factory.mktemp("server") / f"{request.param}.log"
    with running(request.param, issuer.url, log) as started:
        yield started


def test_good_token(server: Server, issuer: FakeIssuer) -> None:
    """200, and the app sees the subject."""
    answer = server.get("/who", issuer.token("alice"))
    assert (answer.status_code, answer.json()) == (200, {"subject": "alice", "path": "/who"})


def test_public_path(server: Server) -> None:
    """200 for anybody."""
    assert server.get("/health").text == "ok"


def test_no_token(server: Server) -> None:
    """401 with a challenge that has no error code (RFC 6750 §3.1)."""
    answer = server.get("/who")
    assert answer.status_code == 401
    (challenge,) = answer.headers.get_list("WWW-Authenticate")
    assert challenge.startswith("Bearer")
    assert "error" not in challenge


def test_bad_token(server: Server, issuer: FakeIssuer) -> None:
    """401 `invalid_token`."""
    answer = server.get("/who", issuer.token(audience="https://other.example"))
    assert answer.status_code == 401
    assert 'error="invalid_token"' in answer.headers["WWW-Authenticate"]


def test_missing_scope(server: Server, issuer: FakeIssuer) -> None:
    """403 `insufficient_scope` that names the scope, and 200 with it."""
    answer = server.get("/admin/users", issuer.token(scope="read"))
    assert answer.status_code == 403
    assert 'error="insufficient_scope"' in answer.headers["WWW-Authenticate"]
    assert 'scope="admin"' in answer.headers["WWW-Authenticate"]
    assert server.get("/admin/users", issuer.token(scope="read admin")).status_code == 200


@pytest.mark.parametrize("token", ["none", "good"])
@pytest.mark.parametrize(
    "target",
    [
        "/health/../admin/users",
        "/health/%2e%2e/admin/users",
        "/health%2f..%2fadmin/users",
        "//admin/users",
        "//health",
        "/health;x/../admin/users",
        "/admin\\users",
        "/admin%00/users",
    ],
)
def test_dirty_path(server: Server, issuer: FakeIssuer, target: str, token: str) -> None:
    """P-pct-dotdot, P-pct-slash, P-dblslash, P-semicolon, P-backslash, P-nul: 400, whoever asks."""
    credentials = [f"Authorization: Bearer {issuer.token(scope='admin')}"] if token == "good" else []
    status, answer = server.raw(f"GET {target} HTTP/1.1", *credentials)
    assert status == 400
    assert "subject" not in answer


@pytest.mark.parametrize(
    "target",
    [
        "http://127.0.0.1/who",
        "http://evil.example/admin/users",
        "*",
        "who",
        "health/../who",
        "/who#/health",
        "/who?/health",
    ],
)
def test_odd_request_target(server: Server, target: str) -> None:
    """P-asterisk, P-noslash, P-fragment, P-query: servers read these differently, and none of them opens anything."""
    status, answer = server.raw(f"GET {target} HTTP/1.1")
    assert status in {400, 401}
    assert "subject" not in answer


def test_two_authorization_headers(server: Server, issuer: FakeIssuer) -> None:
    """H-dup-same: 400 `invalid_request`, whether the server joins them or not."""
    header = f"Authorization: Bearer {issuer.token()}"
    status, answer = server.raw("GET /who HTTP/1.1", header, header)
    assert status == 400
    assert 'error="invalid_request"' in answer


@pytest.mark.parametrize("path", ["/ws", "/old/ws"])
def test_websocket_accepted(server: Server, issuer: FakeIssuer, path: str) -> None:
    """A good token opens it, the app sees the subject, messages flow."""
    headers = {"Authorization": f"Bearer {issuer.token('alice')}"}
    with connect(f"ws://127.0.0.1:{server.port}{path}", additional_headers=headers, proxy=None) as websocket:
        assert websocket.recv(timeout=ANSWER_SECONDS) == "alice"
        websocket.send("hello")
        assert websocket.recv(timeout=ANSWER_SECONDS) == "hello"


def refusal(server: Server, path: str, token: str | None = None) -> tuple[int, str]:
    """Return status and challenge of the answer to a handshake that must not succeed."""
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    url = f"ws://127.0.0.1:{server.port}{path}"
    with pytest.raises(InvalidStatus) as refused, connect(url, additional_headers=headers, proxy=None):
        pass
    answer = refused.value.response
    return answer.status_code, answer.headers.get("WWW-Authenticate", "")


def test_websocket_refused(server: Server, issuer: FakeIssuer) -> None:
    """P-websocket: refused before it opens, by the status and the challenge that a request would get."""
    status, challenge = refusal(server, "/ws")
    assert (status, challenge.split(" ")[0], "error" in challenge) == (401, "Bearer", False)
    status, challenge = refusal(server, "/ws", issuer.token(audience="https://other.example"))
    assert (status, 'error="invalid_token"' in challenge) == (401, True)
    status, challenge = refusal(server, "/admin/ws", issuer.token(scope="read"))
    assert (status, 'error="insufficient_scope"' in challenge, 'scope="admin"' in challenge) == (403, True, True)


def test_websocket_refused_by_closing(server: Server, issuer: FakeIssuer) -> None:
    """P-websocket: a server that cannot deny by a response closes before it opens, and the client sees 403."""
    assert refusal(server, "/old/ws") == (403, "")
    assert refusal(server, "/old/ws", issuer.token(audience="https://other.example")) == (403, "")


@pytest.mark.parametrize("name", COMMANDS)
def test_the_demo_app(name: str, issuer: FakeIssuer, tmp_path: Path) -> None:
    """What the demo shows under uvicorn is the same under every server."""
    with running(name, issuer.url, tmp_path / "log", "served_demo:app") as server:
        token = issuer.token("alice", scope="orders:read")
        assert server.get("/health").json() == {"status": "up"}
        assert server.get("/orders", token).json()["user"] == f"{issuer.url}#alice"
        assert server.get("/orders").status_code == 401
        headers = {"Authorization": f"Bearer {token}"}
        written = httpx2.post(f"{server.url}/orders", headers=headers, trust_env=False, timeout=ANSWER_SECONDS)
        assert (written.status_code, 'scope="orders:write"' in written.headers["WWW-Authenticate"]) == (403, True)
        assert refusal(server, "/feed")[0] == 401
        with connect(f"ws://127.0.0.1:{server.port}/feed", additional_headers=headers, proxy=None) as websocket:
            assert websocket.recv(timeout=ANSWER_SECONDS) == '{"hello":"alice"}'

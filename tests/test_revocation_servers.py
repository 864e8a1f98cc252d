"""The endpoints of revocation over real sockets: under every server, and on two nodes that share a cache."""

from __future__ import annotations

import re
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import httpx2
import pytest
from websockets.sync.client import connect

from oidc_middleware.testing import FakeIssuer

from redis_kit import RedisServer
from servers_kit import ANSWER_SECONDS, AUDIENCE, COMMANDS, Server, running

ADMIN = "revocations:admin"
REVOKE, REVOCATIONS = "/oauth2/revoke", "/oauth2/revocations"


@pytest.fixture(scope="module")
def issuer() -> Iterator[FakeIssuer]:
    """Return an issuer that other processes can reach."""
    with FakeIssuer(audience=AUDIENCE, algorithms=("ES256",)).serve_in_thread() as fake:
        yield fake


def configure(patch: pytest.MonkeyPatch, cache: str, journal: str = "none") -> None:
    """Make the environment that of a service with every endpoint."""
    variables = {
        "CACHE": cache,
        "SECRET": "s" * 32,
        "JOURNAL": journal,
        "ADMIN_SCOPE": ADMIN,
        "REVOKE_ENDPOINT": "true",
        "STALENESS_HEADER": "true",
    }
    for name, value in variables.items():
        patch.setenv(f"OIDC_{name}", value)


@pytest.fixture(scope="module", params=COMMANDS)
def server(
    request: pytest.FixtureRequest, issuer: FakeIssuer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Server, Path]]:
    """Return each server in turn, over a file, and what it wrote."""
    directory = tmp_path_factory.mktemp("server")
    with pytest.MonkeyPatch.context() as patch:
        configure(patch, f"sqlite:///{directory}/cache.sqlite")
        with running(request.param, issuer.url, directory / "log") as started:
            yield started, directory / "log"


def send(server: Server, path: str, token: str | None = None, **body: object) -> httpx2.Response:
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    options = {"headers": headers, "trust_env": False, "timeout": ANSWER_SECONDS} | body
    return httpx2.post(server.url + path, **options)  # type: ignore[arg-type]


def until(condition: Callable[[], bool]) -> None:
    """Wait until it holds."""
    deadline = time.monotonic() + ANSWER_SECONDS
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def refuses(server: Server, token: str) -> bool:
    return server.get("/who", token).status_code == 401


# --------------------------------------------------------------------------------------------------- under every server


def test_a_token_revokes_itself(server: tuple[Server, Path], issuer: FakeIssuer) -> None:
    node, _ = server
    token = issuer.token("alice")
    answer = node.get("/who", token)
    assert answer.status_code == 200
    assert re.fullmatch(r"\d+\.\d{3}", answer.headers["X-OIDC-Staleness"])
    form = {"token": token, "token_type_hint": "access_token"}
    answer = send(node, REVOKE, data=form)
    assert (answer.status_code, answer.content, answer.headers["Cache-Control"]) == (200, b"", "no-store")
    assert refuses(node, token)
    assert "X-OIDC-Staleness" not in node.get("/who", token).headers
    assert send(node, REVOKE, data=form).status_code == 200
    assert send(node, REVOKE, data={"token": "nonsense"}).status_code == 200
    answer = send(node, REVOKE, json=form)
    assert (answer.status_code, answer.json()["error"]) == (400, "invalid_request")


def test_an_administrator_revokes(server: tuple[Server, Path], issuer: FakeIssuer) -> None:
    """C-bl-api-other: and nobody else does."""
    node, _ = server
    admin, user, victim = issuer.token("root", scope=ADMIN), issuer.token("mallory"), issuer.token("bob")
    order = {"sub": "bob", "require": "shared"}
    for token, status in ((None, 401), (user, 403)):
        assert send(node, REVOCATIONS, token, json=order).status_code == status
        assert node.get(REVOCATIONS, token).status_code == status
    assert not refuses(node, victim)
    answer = send(node, REVOCATIONS, admin, json=order)
    assert (answer.status_code, answer.json()) == (200, {"receipt": "shared"})
    assert refuses(node, victim)
    assert "subject" in {entry["kind"] for entry in node.get(REVOCATIONS, admin).json()["revocations"]}
    assert node.get("/oauth2/status", admin).json()["revocations"]["by_kind"]["subject"] >= 1


def test_a_websocket_says_how_old_the_knowledge_is(server: tuple[Server, Path], issuer: FakeIssuer) -> None:
    node, _ = server
    headers = {"Authorization": f"Bearer {issuer.token('carol')}"}
    with connect(f"ws://127.0.0.1:{node.port}/ws", additional_headers=headers, proxy=None) as websocket:
        assert websocket.recv() == "carol"
        websocket.send("bye")
        assert websocket.recv() == "bye"
        assert websocket.response is not None
        told = websocket.response.headers.get("X-OIDC-Staleness")
    if node.name == "granian":  # it sends no headers of an acceptance
        assert told is None
    else:
        assert told is not None
        assert re.fullmatch(r"\d+\.\d{3}", told)


def test_a_body_without_end_is_cut_off(server: tuple[Server, Path]) -> None:
    """413 after 64 KiB, whoever says how long it is, and the server goes on."""
    node, log = server
    for framing in (b"Content-Length: 1000000000", b"Transfer-Encoding: chunked"):
        with socket.create_connection(("127.0.0.1", node.port), ANSWER_SECONDS) as client:
            head = b"POST /oauth2/revoke HTTP/1.1\r\nHost: a\r\nContent-Type: application/x-www-form-urlencoded\r\n"
            client.sendall(head + framing + b"\r\n\r\n")
            part = b"token=" + b"a" * 65_536
            client.sendall(part if framing.startswith(b"C") else b"%x\r\n%b\r\n" % (len(part), part))
            assert client.recv(12) == b"HTTP/1.1 413"
    assert node.get("/health").status_code == 200
    assert "Traceback" not in log.read_text()


def test_a_client_that_leaves_in_the_middle_does_no_harm(server: tuple[Server, Path], issuer: FakeIssuer) -> None:
    node, log = server
    token = issuer.token("dave")
    for _ in range(20):
        with socket.create_connection(("127.0.0.1", node.port), ANSWER_SECONDS) as client:
            head = f"POST {REVOKE} HTTP/1.1\r\nHost: a\r\nContent-Type: application/x-www-form-urlencoded\r\n"
            client.sendall(f"{head}Content-Length: 20000\r\n\r\ntoken={token}".encode())
    assert not refuses(node, token)
    assert "Traceback" not in log.read_text()


# --------------------------------------------------------------------------------------------------------- on two nodes


@pytest.fixture
def nodes(
    request: pytest.FixtureRequest,
    issuer: FakeIssuer,
    redis_server: RedisServer,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[tuple[Server, Server]]:
    """Run two nodes over Redis, each with a journal, or with none where a test says so."""
    with ExitStack() as stack:
        started = []
        for number in range(2):
            journal = "none" if request.param == "none" else str(tmp_path / f"{number}.journal")
            configure(monkeypatch, redis_server.url, journal)
            started.append(stack.enter_context(running("uvicorn", issuer.url, tmp_path / f"{number}.log")))
        for node in started:
            until(lambda node=node: node.get("/oauth2/health").status_code == 200)  # type: ignore[misc]
        yield started[0], started[1]


@pytest.mark.parametrize("nodes", ["journal"], indirect=True)
def test_what_is_revoked_at_one_node_the_other_refuses(
    nodes: tuple[Server, Server], issuer: FakeIssuer, redis_server: RedisServer
) -> None:
    first, second = nodes
    admin = issuer.token("root", scope=ADMIN)
    tokens = [issuer.token(f"user-{number}") for number in range(4)]
    for node in nodes:
        assert [node.get("/who", token).status_code for token in tokens] == [200] * 4
    assert send(first, REVOKE, data={"token": tokens[0]}).status_code == 200
    assert send(first, REVOCATIONS, admin, json={"sub": "user-1", "require": "journaled"}).status_code == 200
    for token in tokens[:2]:
        until(lambda token=token: refuses(second, token))  # type: ignore[misc]
    redis_server.kill()
    assert send(first, REVOKE, data={"token": tokens[2]}).status_code == 200, "it is on the disk of this host"
    answer = send(first, REVOCATIONS, admin, json={"sub": "user-3", "require": "shared"})
    assert (answer.status_code, answer.json()["receipt"]) == (503, "journaled")
    assert int(answer.headers["Retry-After"]) > 0
    assert refuses(first, tokens[2])
    assert refuses(first, tokens[3])
    redis_server.start()
    for token in tokens:
        until(lambda token=token: refuses(second, token))  # type: ignore[misc]


@pytest.mark.parametrize("nodes", ["none"], indirect=True)
def test_what_only_one_process_knows_is_no_success(
    nodes: tuple[Server, Server], issuer: FakeIssuer, redis_server: RedisServer
) -> None:
    """RFC 7009 §2.2.1: the client comes again; and with an administrator's receipt it is said."""
    first, second = nodes
    admin, token = issuer.token("root", scope=ADMIN), issuer.token("alice")
    redis_server.kill()
    answer = send(first, REVOKE, data={"token": token})
    assert (answer.status_code, answer.json()["error"]) == (503, "temporarily_unavailable")
    assert int(answer.headers["Retry-After"]) > 0
    assert refuses(first, token), "it holds all the same"
    assert send(first, REVOCATIONS, admin, json={"sub": "bob"}).json() == {"receipt": "local"}
    redis_server.start()
    until(lambda: refuses(second, token))
    until(lambda: send(first, REVOKE, data={"token": token}).status_code == 200)

"""The official SDK's client against the example server, over sockets.

It finds the issuer by itself, logs in, and comes back with more scope when a tool asks for it.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import httpx2
import pytest
from mcp.shared.auth import OAuthToken

from oidc_middleware import OIDC
from oidc_middleware.testing import FakeIssuer
from oidc_middleware.testing.server import bind, serving

from mcp_kit import CALLBACK, SECONDS, LogIn, Storage, User, client_named, connected, example, value_of

pytestmark = pytest.mark.anyio


@dataclass
class Server:
    """The example, served: its URL, its service, and each request with the status of its answer."""

    url: str
    oidc: OIDC
    seen: list[tuple[str, str, int]] = field(default_factory=list)

    def watch(self, app: Any) -> Any:
        async def watched(scope: Any, receive: Any, send: Any) -> None:
            async def note(message: Any) -> None:
                if message["type"] == "http.response.start":
                    self.seen.append((scope["method"], scope["path"], message["status"]))
                await send(message)

            await app(scope, receive, note)

        return watched


@pytest.fixture
async def issuer(fake_issuer_factory: Callable[..., FakeIssuer]) -> AsyncIterator[FakeIssuer]:
    issuer = fake_issuer_factory(algorithms=("ES256",))
    async with issuer.serve():
        yield issuer


@pytest.fixture
async def server(issuer: FakeIssuer, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Server]:
    listening = bind("127.0.0.1", 0)
    url = f"http://127.0.0.1:{listening.getsockname()[1]}/mcp"
    module = example(issuer.url, url, monkeypatch)
    server = Server(url, module["oidc"])
    app = server.watch(module["app"])
    async with serving(app, listening, lifespan="on"):
        yield server


def signing_in(name: str = "alice") -> LogIn:
    """Return how this user logs in at the fake issuer."""

    async def log_in(url: str) -> dict[str, str]:
        form = dict(parse_qsl(urlsplit(url).query)) | {"username": name, "decision": "allow"}
        async with httpx2.AsyncClient(trust_env=False, timeout=SECONDS) as browser:
            page = await browser.get(url)
            assert page.status_code == 200
            sent_back = await browser.post(url.partition("?")[0], data=form)
        assert sent_back.headers["location"].startswith(CALLBACK)
        return dict(parse_qsl(urlsplit(sent_back.headers["location"]).query))

    return log_in


@pytest.mark.parametrize("mode", ["auto", "legacy"])
async def test_a_client_that_knows_the_url_alone_gets_in_and_steps_up(
    server: Server, issuer: FakeIssuer, mode: str
) -> None:
    """401 → metadata → authorization → 200; then 403 with all scopes → more scope → 200."""
    storage, user = Storage(), User(signing_in())
    async with connected(server.url, storage, user, mode) as client:
        assert server.seen[:2] == [
            ("POST", "/mcp", 401),
            ("GET", "/.well-known/oauth-protected-resource/mcp", 200),
        ]
        assert {tool.name for tool in (await client.list_tools()).tools} == {"list_notes", "add_note"}
        assert value_of(await client.call_tool("list_notes", {})) == []
        assert [asked["scope"] for asked in user.asked] == ["notes:read"]
        assert storage.tokens is not None
        assert storage.tokens.scope == "notes:read"
        assert [status for _, _, status in server.seen].count(401) == 1
        assert 403 not in [status for _, _, status in server.seen]

        assert value_of(await client.call_tool("add_note", {"text": "buy milk"})) == 1
        assert [status for _, _, status in server.seen].count(403) == 1
        assert [asked["scope"] for asked in user.asked] == ["notes:read", "notes:read notes:write"]
        assert storage.tokens.scope == "notes:read notes:write"

        assert value_of(await client.call_tool("add_note", {"text": "and bread"})) == 2
        assert value_of(await client.call_tool("list_notes", {})) == ["buy milk", "and bread"]
        assert len(user.asked) == 2

    for asked in user.asked:
        assert (asked["resource"], asked["code_challenge_method"]) == (server.url, "S256")
    claims = issuer.verify(storage.tokens.access_token)
    assert claims is not None
    assert (claims["aud"], claims["sub"], claims["scope"]) == (server.url, "alice", "notes:read notes:write")
    assert storage.client is not None
    assert claims["client_id"] == storage.client.client_id
    assert (issuer.requests["register"], issuer.requests["token"], issuer.requests["oauth_metadata"]) == (1, 2, 1)


async def test_a_registered_client_with_a_token_starts_where_it_was(server: Server, issuer: FakeIssuer) -> None:
    """Only the step-up makes it look for the issuer."""
    issuer.client("desk", redirect_uris=[CALLBACK])
    storage = Storage(
        OAuthToken(access_token=issuer.token("alice", audience=server.url, scope="notes:read", client_id="desk")),
        client_named("desk"),
    )
    user = User(signing_in())
    async with connected(server.url, storage, user) as client:
        assert value_of(await client.call_tool("list_notes", {})) == []
        assert issuer.requests["token"] == 0
        assert value_of(await client.call_tool("add_note", {"text": "x"})) == 1
    assert issuer.requests["register"] == 0
    assert [asked["client_id"] for asked in user.asked] == ["desk"]
    assert set(user.asked[0]["scope"].split()) >= {"notes:read", "notes:write"}


async def test_a_scope_that_implies_others_needs_no_step_up(server: Server, issuer: FakeIssuer) -> None:
    token = issuer.token("root", audience=server.url, scope="notes:admin")
    storage, user = Storage(OAuthToken(access_token=token)), User(signing_in("root"))
    async with connected(server.url, storage, user) as client:
        assert value_of(await client.call_tool("add_note", {"text": "x"})) == 1
    assert user.asked == []


async def test_a_token_for_another_resource_is_of_no_use(server: Server, issuer: FakeIssuer) -> None:
    """T-aud-other: the client is sent to get one for this resource."""
    token = issuer.token("alice", audience="https://other.example/mcp", scope="notes:admin")
    storage, user = Storage(OAuthToken(access_token=token)), User(signing_in())
    async with connected(server.url, storage, user) as client:
        assert value_of(await client.call_tool("list_notes", {})) == []
    assert [asked["resource"] for asked in user.asked] == [server.url]


async def test_users_have_notes_of_their_own(server: Server) -> None:
    for name in ("alice", "bob"):
        async with connected(server.url, Storage(), User(signing_in(name))) as client:
            assert value_of(await client.call_tool("add_note", {"text": name})) == 1
            assert value_of(await client.call_tool("list_notes", {})) == [name]


# Sessions, of the revisions before 2026-07-28


HANDSHAKE = {
    "jsonrpc": "2.0",
    "id": 1,
    "method": "initialize",
    "params": {
        "protocolVersion": "2025-11-25",
        "capabilities": {},
        "clientInfo": {"name": "t", "version": "1"},
    },
}
LIST = {"jsonrpc": "2.0", "id": 2, "method": "tools/list"}
ACCEPT = {"Accept": "application/json, text/event-stream"}


@pytest.fixture
async def http() -> AsyncIterator[httpx2.AsyncClient]:
    async with httpx2.AsyncClient(trust_env=False, timeout=SECONDS, headers=ACCEPT) as http:
        yield http


async def begun(http: httpx2.AsyncClient, server: Server, token: str) -> dict[str, str]:
    """Begin a session, and return the headers of all that follows in it."""
    headers = {"Authorization": f"Bearer {token}"}
    answer = await http.post(server.url, json=HANDSHAKE, headers=headers)
    assert answer.status_code == 200, answer.text
    headers |= {"Mcp-Session-Id": answer.headers["mcp-session-id"], "MCP-Protocol-Version": "2025-11-25"}
    ready = {"jsonrpc": "2.0", "method": "notifications/initialized"}
    assert (await http.post(server.url, json=ready, headers=headers)).status_code == 202
    return headers


async def test_nobody_goes_on_in_the_session_of_another(
    server: Server, issuer: FakeIssuer, http: httpx2.AsyncClient
) -> None:
    """Issuer, subject and client are compared, so another token of the same user will do."""

    def token(subject: str, client: str = "app") -> str:
        return issuer.token(subject, audience=server.url, scope="notes:read", client_id=client)

    headers = await begun(http, server, token("alice"))
    for other, status in (
        (token("alice"), 200),
        (token("bob"), 404),
        (token("alice", "another-app"), 404),
    ):
        answer = await http.post(server.url, json=LIST, headers=headers | {"Authorization": f"Bearer {other}"})
        assert answer.status_code == status


async def test_a_revocation_ends_an_open_stream(server: Server, issuer: FakeIssuer, http: httpx2.AsyncClient) -> None:
    """Without it the stream of a session would stay open for hours."""
    token = issuer.token("alice", audience=server.url, scope="notes:read")
    headers = await begun(http, server, token)
    async with http.stream("GET", server.url, headers=headers) as stream:
        assert stream.status_code == 200
        assert stream.headers["content-type"].startswith("text/event-stream")
        await server.oidc.revoke.token(token)
        async with asyncio.timeout(SECONDS):
            assert [line async for line in stream.aiter_lines() if line.startswith("data")] == []
    assert (await http.post(server.url, json=LIST, headers=headers)).status_code == 401

"""The MCP adapter: the official SDK's server asks this service who sent a token, and tools name their scopes."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from typing import Any

import pytest
from mcp.server import MCPServer
from mcp.server.auth.middleware.auth_context import get_access_token
from mcp.server.auth.provider import AccessToken, TokenVerifier
from starlette.applications import Starlette
from starlette.authentication import AuthCredentials, AuthenticationBackend, SimpleUser
from starlette.middleware.authentication import AuthenticationMiddleware
from starlette.routing import Mount, Route
from starlette.testclient import TestClient
from starlette.types import ASGIApp

from oidc_middleware import OIDC, OIDCMiddleware, Rule, resource_metadata_routes
from oidc_middleware.errors import ConfigError, ProviderUnavailable, RevocationStale
from oidc_middleware.mcp import AnswerUnavailable, OIDCTokenVerifier, ToolScopes, auth_settings
from oidc_middleware.testing import FakeIssuer, ManualClock, faults

pytestmark = pytest.mark.anyio

RESOURCE = "http://127.0.0.1:8000/mcp"
METADATA = "http://127.0.0.1:8000/.well-known/oauth-protected-resource/mcp"


@pytest.fixture
def issuer(fake_issuer_factory: Callable[..., FakeIssuer]) -> FakeIssuer:
    return fake_issuer_factory(algorithms=("ES256",), audience=RESOURCE)


Open = Callable[..., OIDC]


@pytest.fixture
def open_(issuer: FakeIssuer, oidc_clock: ManualClock) -> Open:
    def make(**keywords: Any) -> OIDC:
        defaults: dict[str, Any] = {"issuer": issuer.url, "audience": RESOURCE, "resource": RESOURCE}
        return OIDC(transport=issuer.transport(), clock=oidc_clock, **(defaults | keywords))

    return make


# The verifier


async def test_what_the_sdk_is_told_of_a_good_token(open_: Open, issuer: FakeIssuer, oidc_clock: ManualClock) -> None:
    token = issuer.token(
        "alice", scope="b a", client_id="app", audience=["other", RESOURCE], claims={"org": {"x": [1]}}
    )
    async with open_() as oidc:
        verifier: TokenVerifier = OIDCTokenVerifier(oidc)
        found = await verifier.verify_token(token)
    assert isinstance(found, AccessToken)
    claims = found.claims or {}
    assert found == AccessToken(
        token=token,
        client_id="app",
        scopes=["a", "b"],
        expires_at=claims["exp"],
        resource=RESOURCE,
        subject="alice",
        claims=claims,
    )
    assert (claims["iss"], claims["org"], claims["aud"]) == (issuer.url, {"x": [1]}, ["other", RESOURCE])
    assert type(claims) is dict
    assert type(claims["org"]["x"]) is list
    assert claims["exp"] - oidc_clock.now() == pytest.approx(300, abs=2)


@pytest.mark.parametrize(
    ("keywords", "aud", "found"),
    [
        pytest.param({"audience": ["api", RESOURCE]}, ["api", RESOURCE], RESOURCE, id="the-resource-first"),
        pytest.param({"audience": ["api", RESOURCE]}, "api", "api", id="another-audience"),
        pytest.param({"audience": "api", "resource": None}, ["x", "api"], "api", id="no-resource-set"),
        pytest.param({"audience": "api"}, ["x", "api"], "api", id="resource-is-no-audience"),
    ],
)
async def test_which_resource_a_token_is_for(
    open_: Open, issuer: FakeIssuer, keywords: dict[str, Any], aud: Any, found: str
) -> None:
    async with open_(**keywords) as oidc:
        access = await OIDCTokenVerifier(oidc).verify_token(issuer.token(audience=aud))
    assert access is not None
    assert access.resource == found


async def test_a_token_without_client_or_aud(open_: Open, issuer: FakeIssuer) -> None:
    async with open_(audience="app", audience_claim="client_id") as oidc:
        access = await OIDCTokenVerifier(oidc).verify_token(issuer.token(client_id="app", omit=["aud"]))
        assert access is not None
        assert (access.client_id, access.resource) == ("app", None)
    async with open_() as oidc:
        access = await OIDCTokenVerifier(oidc).verify_token(issuer.token(omit=["client_id"]))
        assert access is not None
        assert access.client_id == ""


async def test_scopes_that_others_imply(open_: Open, issuer: FakeIssuer) -> None:
    async with open_(expand_scopes={"admin": ["read", "write"]}) as oidc:
        access = await OIDCTokenVerifier(oidc).verify_token(issuer.token(scope="admin"))
    assert access is not None
    assert access.scopes == ["admin", "read", "write"]


async def test_bad_tokens_are_none(open_: Open, issuer: FakeIssuer, oidc_clock: ManualClock) -> None:
    """T-aud-other, T-typ-idtoken, a revoked one, and shapes that no header could carry."""
    good, ended = issuer.token(), issuer.token(expires_in=60)
    async with open_() as oidc:
        verifier = OIDCTokenVerifier(oidc)
        assert await verifier.verify_token(good) is not None
        for bad in (
            "",
            " ",
            "garbage",
            "ümläut",
            "\ud800",
            f" {good}",
            f"{good} ",
            f"{good},{good}",
            good[:-4] + "AAAA",
            issuer.token(audience="https://other.example"),
            issuer.id_token(client_id=RESOURCE, nonce="n"),
            "a" * 20_000,
        ):
            assert await verifier.verify_token(bad) is None, bad
        assert await verifier.verify_token(ended) is not None
        oidc_clock.advance(60 + 30)
        assert await verifier.verify_token(ended) is None
        assert await verifier.verify_token(good) is not None
        await oidc.revoke.token(good)
        assert await verifier.verify_token(good) is None


async def test_opaque_tokens_are_introspected(open_: Open, issuer: FakeIssuer) -> None:
    issuer.client("api", secret="s3cret")
    async with open_(client_id="api", client_secret="s3cret") as oidc:
        verifier = OIDCTokenVerifier(oidc)
        access = await verifier.verify_token(issuer.opaque_token("bob", scope="a"))
        assert access is not None
        assert (access.subject, access.scopes) == ("bob", ["a"])
        assert await verifier.verify_token("unknown-opaque") is None


async def test_nobody_can_say_is_no_bad_token(open_: Open, issuer: FakeIssuer) -> None:
    """An issuer that is away says nothing about the token."""
    issuer.fault("*", faults.status(503))
    async with open_() as oidc:
        with pytest.raises(ProviderUnavailable):
            await OIDCTokenVerifier(oidc).verify_token(issuer.token())


async def test_a_stale_ledger_that_denies_is_no_bad_token(open_: Open, issuer: FakeIssuer, tmp_path: Any) -> None:
    cache = {"cache": "redis://127.0.0.1:1/0", "secret": "s" * 32, "journal": None, "on_stale": "deny"}
    async with open_(**cache) as oidc:
        with pytest.raises(RevocationStale):
            await OIDCTokenVerifier(oidc).verify_token(issuer.token())


async def test_it_starts_the_service(open_: Open, issuer: FakeIssuer) -> None:
    oidc = open_()
    assert await OIDCTokenVerifier(oidc).verify_token(issuer.token()) is not None
    assert oidc.started
    await oidc.stop()


def test_it_wants_a_service() -> None:
    with pytest.raises(ConfigError) as error:
        OIDCTokenVerifier("https://login.example.com")  # type: ignore[arg-type]
    assert error.value.field == "oidc"


@pytest.mark.parametrize("resource", ["http://127.0.0.1:8000/mpc", "", 1])
def test_a_resource_that_no_token_can_be_for(open_: Open, resource: Any) -> None:
    with pytest.raises(ConfigError) as error:
        OIDCTokenVerifier(open_(), resource=resource)
    assert error.value.field == "resource"


def test_without_the_sdk_the_error_says_what_to_install() -> None:
    program = (
        "import sys\nsys.modules['mcp'] = None\n"
        "try:\n    import oidc_middleware.mcp\nexcept ModuleNotFoundError as error:\n    print(error)\n"
    )
    told = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60)
    assert "pip install 'oidc-middleware[mcp]'" in told.stdout


# The SDK's server


def make_server(**options: Any) -> MCPServer:
    server = MCPServer("notes", **options)

    @server.tool()
    def whoami() -> str:
        access = get_access_token()
        return "nobody" if access is None else f"{access.subject} {access.client_id} {access.scopes}"

    @server.tool()
    def erase(note: str = "") -> str:
        return f"erased {note}"

    return server


def call(name: str, **arguments: Any) -> dict[str, Any]:
    return {
        "jsonrpc": "2.0",
        "id": 1,
        "method": "tools/call",
        "params": {
            "name": name,
            "arguments": arguments,
            "_meta": {
                "io.modelcontextprotocol/protocolVersion": "2026-07-28",
                "io.modelcontextprotocol/clientInfo": {"name": "t", "version": "1"},
                "io.modelcontextprotocol/clientCapabilities": {},
            },
        },
    }


HEADERS = {
    "Accept": "application/json, text/event-stream",
    "Content-Type": "application/json",
    "MCP-Protocol-Version": "2026-07-28",
    "Mcp-Method": "tools/call",
}


def post(client: TestClient, message: Any, token: str | None = None, *, path: str = "/mcp", **headers: str) -> Any:
    body = message if isinstance(message, bytes) else json.dumps(message).encode()
    if isinstance(message, dict) and message.get("method") == "tools/call":
        headers = {"Mcp-Name": message["params"]["name"]} | headers
    if token is not None:
        headers["Authorization"] = f"Bearer {token}"
    return client.post(path, content=body, headers=HEADERS | headers)


@contextmanager
def client_of(app: ASGIApp) -> Iterator[TestClient]:
    with TestClient(app, base_url="http://127.0.0.1:8000", raise_server_exceptions=False) as client:
        yield client


def text_of(answer: Any) -> str:
    assert answer.status_code == 200, answer.text
    text: str = answer.json()["result"]["content"][0]["text"]
    return text


@pytest.fixture
def alone(open_: Open) -> Callable[..., ASGIApp]:
    """Return the SDK's server with our verifier and no door in front."""

    def make(oidc: OIDC) -> ASGIApp:
        settings = auth_settings(oidc, required_scopes=["read"])
        return make_server(token_verifier=OIDCTokenVerifier(oidc), auth=settings).streamable_http_app(
            host="127.0.0.1", stateless_http=True, json_response=True
        )

    return make


def test_the_sdk_alone_lets_in_whom_the_verifier_knows(open_: Open, issuer: FakeIssuer, alone: Any) -> None:
    with client_of(alone(open_())) as client:
        refused = post(client, call("whoami"))
        assert refused.status_code == 401
        assert f'resource_metadata="{METADATA}"' in refused.headers["www-authenticate"]
        assert post(client, call("whoami"), "garbage").status_code == 401
        assert post(client, call("whoami"), issuer.token(audience="https://other.example")).status_code == 401
        assert post(client, call("whoami"), issuer.token(scope="write")).status_code == 403
        told = text_of(post(client, call("whoami"), issuer.token("alice", scope="read", client_id="app")))
        assert told == "alice app ['read']"
        described = client.get("/.well-known/oauth-protected-resource/mcp").json()
        assert (described["resource"], described["authorization_servers"]) == (RESOURCE, [issuer.url])


def test_the_sdk_alone_makes_500_of_what_nobody_knows(open_: Open, issuer: FakeIssuer, alone: Any) -> None:
    issuer.fault("*", faults.status(503))
    with client_of(alone(open_())) as client:
        assert post(client, call("whoami"), issuer.token(scope="read")).status_code == 500


def test_the_sdk_alone_answers_503_where_that_is_asked_for(open_: Open, issuer: FakeIssuer, alone: Any) -> None:
    app, token = alone(open_()), issuer.token(scope="read")
    app.add_middleware(AnswerUnavailable)
    issuer.fault("*", faults.status(503))
    with TestClient(app, base_url="http://127.0.0.1:8000") as client:  # which raises what the app raises
        refused = post(client, call("whoami"), token)
        assert (refused.status_code, refused.json()["error"]) == (503, "temporarily_unavailable")
        assert int(refused.headers["retry-after"]) >= 1
        assert "www-authenticate" not in refused.headers
        assert post(client, call("whoami")).status_code == 401


@pytest.mark.parametrize("has_begun", [False, True])
@pytest.mark.parametrize("error", [ProviderUnavailable("x"), ConfigError("a", "b", "c"), RuntimeError("x")])
async def test_only_what_is_not_answered_yet_becomes_503(error: Exception, has_begun: bool) -> None:
    sent: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if has_begun:
            await send({"type": "http.response.start", "status": 200, "headers": []})
        raise error

    async def send(message: Any) -> None:
        sent.append(message)

    async def serve() -> None:
        scope = {"type": "http", "method": "POST", "path": "/mcp", "headers": []}
        await AnswerUnavailable(app)(scope, send, send)  # type: ignore[arg-type]

    if isinstance(error, ProviderUnavailable) and not has_begun:
        await serve()
        assert sent[0]["status"] == 503
    else:
        with pytest.raises(type(error)):
            await serve()
        assert [message["status"] for message in sent] == [200] * has_begun


def behind_the_door(oidc: OIDC, **options: Any) -> ASGIApp:
    server = make_server(token_verifier=OIDCTokenVerifier(oidc), auth=auth_settings(oidc))
    app = server.streamable_http_app(host="127.0.0.1", stateless_http=True, json_response=True)
    return OIDCMiddleware(ToolScopes(app, **options), oidc=oidc)


def test_behind_the_door_it_is_503(open_: Open, issuer: FakeIssuer) -> None:
    issuer.fault("*", faults.status(503))
    with client_of(behind_the_door(open_())) as client:
        answer = post(client, call("whoami"), issuer.token())
    assert answer.status_code == 503
    assert int(answer.headers["retry-after"]) >= 1
    assert "www-authenticate" not in answer.headers


def test_behind_the_door_the_sdk_knows_the_identity_too(open_: Open, issuer: FakeIssuer) -> None:
    oidc = open_()
    with client_of(behind_the_door(oidc)) as client:
        assert text_of(post(client, call("whoami"), issuer.token("bob", scope="a"))) == "bob client ['a']"
        assert post(client, call("whoami"), "garbage").status_code == 401


@pytest.mark.parametrize(
    ("keywords", "field"),
    [
        ({"resource": None}, "resource"),
        (
            {
                "issuer": None,
                "audience": (),
                "issuers": [{"issuer": f"https://{name}.example", "audience": RESOURCE} for name in ("a", "b")],
            },
            "issuer",
        ),
    ],
)
def test_settings_that_the_sdk_cannot_have(open_: Open, keywords: dict[str, Any], field: str) -> None:
    keywords = {name: value for name, value in keywords.items() if value or name == "resource"}
    if field == "issuer":
        oidc = OIDC(resource=RESOURCE, **keywords)
        assert str(auth_settings(oidc, issuer="https://b.example").issuer_url) == "https://b.example"
        chosen = OIDC(resource=RESOURCE, authorization_servers="https://a.example", **keywords)
        assert str(auth_settings(chosen).issuer_url) == "https://a.example"
    else:
        oidc = open_(**keywords)
    with pytest.raises(ConfigError) as error:
        auth_settings(oidc)
    assert error.value.field == field


def test_several_servers_share_a_service(open_: Open, issuer: FakeIssuer) -> None:
    """Each has its own resource, description and scopes, and a token for one is none for the other."""
    urls = {name: f"http://127.0.0.1:8000/{name}/mcp" for name in ("notes", "mail")}
    oidc = open_(audience=list(urls.values()), resource=None)
    routes: list[Route | Mount] = []
    for name, url in urls.items():
        server = make_server(
            token_verifier=OIDCTokenVerifier(oidc, resource=url), auth=auth_settings(oidc, resource=url)
        ).streamable_http_app(host="127.0.0.1", stateless_http=True, json_response=True)
        own: dict[str, Any] = {"resource": url, "rules": [Rule("/mcp", scopes=[f"{name}:read"])]}
        routes += resource_metadata_routes(oidc, **own)
        routes.append(Mount(f"/{name}", OIDCMiddleware(server, oidc=oidc, audience=url, **own)))

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        async with AsyncExitStack() as stack:
            for route in routes:
                if isinstance(route, Mount):
                    inner = route.app.app  # type: ignore[attr-defined]
                    await stack.enter_async_context(inner.router.lifespan_context(inner))
            yield

    with client_of(Starlette(routes=routes, lifespan=lifespan)) as client:
        for name, url in urls.items():
            where = f"http://127.0.0.1:8000/.well-known/oauth-protected-resource/{name}/mcp"
            refused = post(client, call("whoami"), path=f"/{name}/mcp")
            assert refused.headers["www-authenticate"] == f'Bearer scope="{name}:read", resource_metadata="{where}"'
            described = client.get(where).json()
            assert (described["resource"], described["scopes_supported"]) == (url, [f"{name}:read"])
            token = issuer.token("eve", audience=url, scope="notes:read mail:read")
            statuses = {other: post(client, call("whoami"), token, path=f"/{other}/mcp").status_code for other in urls}
            assert statuses == {other: 200 if other == name else 401 for other in urls}


async def test_a_verifier_of_one_resource_of_several(open_: Open, issuer: FakeIssuer) -> None:
    async with open_(audience=["a", "b"], resource="http://127.0.0.1/x") as oidc:
        one = OIDCTokenVerifier(oidc, resource="a")
        both = await one.verify_token(issuer.token(audience=["b", "a"]))
        assert both is not None
        assert both.resource == "a"
        assert await one.verify_token(issuer.token(audience="b")) is None
        assert await OIDCTokenVerifier(oidc).verify_token(issuer.token(audience="b")) is not None


# What tools need

TOOLS = {"erase": ["notes:read", "notes:write"], "whoami": ()}
LACKING = 'Bearer error="insufficient_scope", error_description="The access token does not permit this request."'


@pytest.fixture
def client(open_: Open) -> Iterator[TestClient]:
    oidc = open_(rules=[Rule("/mcp", scopes=["mcp:use"])], expand_scopes={"notes:all": ["notes:read", "notes:write"]})
    options = {"tools": TOOLS, "methods": {"resources/list": "notes:read"}}
    with client_of(behind_the_door(oidc, **options)) as client:
        yield client


@pytest.mark.parametrize(
    ("scope", "tool", "status"),
    [
        ("mcp:use", "whoami", 200),
        ("mcp:use", "erase", 403),
        ("mcp:use notes:read", "erase", 403),
        ("mcp:use notes:write", "erase", 403),
        ("mcp:use notes:read notes:write", "erase", 200),
        ("mcp:use notes:all", "erase", 200),
        ("notes:read notes:write", "erase", 403),
    ],
)
def test_a_tool_needs_its_scopes(client: TestClient, issuer: FakeIssuer, scope: str, tool: str, status: int) -> None:
    answer = post(client, call(tool), issuer.token(scope=scope))
    assert answer.status_code == status


def test_one_challenge_names_all_scopes_of_the_operation(client: TestClient, issuer: FakeIssuer) -> None:
    answer = post(client, call("erase"), issuer.token(scope="mcp:use notes:read"))
    assert answer.status_code == 403
    assert answer.headers["www-authenticate"] == (
        f'{LACKING}, scope="mcp:use notes:read notes:write", resource_metadata="{METADATA}"'
    )
    assert answer.json()["error"] == "insufficient_scope"


def test_an_anonymous_message_is_asked_for_a_token(open_: Open) -> None:
    oidc = open_(optional=["/mcp"])
    server = make_server().streamable_http_app(host="127.0.0.1", stateless_http=True, json_response=True)
    with client_of(OIDCMiddleware(ToolScopes(server, {"erase": "notes:write"}), oidc=oidc)) as client:
        assert text_of(post(client, call("whoami"))) == "nobody"
        answer = post(client, call("erase"))
    assert answer.status_code == 401
    assert answer.headers["www-authenticate"] == f'Bearer scope="notes:write", resource_metadata="{METADATA}"'


def test_methods_and_batches(client: TestClient, issuer: FakeIssuer) -> None:
    listing = {"jsonrpc": "2.0", "id": 2, "method": "resources/list"}
    token = issuer.token(scope="mcp:use")
    answer = post(client, listing, token)
    assert (answer.status_code, 'scope="mcp:use notes:read"' in answer.headers["www-authenticate"]) == (403, True)
    answer = post(client, [call("whoami"), listing, call("erase")], token)
    assert answer.status_code == 403
    assert 'scope="mcp:use notes:read notes:write"' in answer.headers["www-authenticate"]


ERASE = json.dumps(call("erase")).encode()


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(ERASE.replace(b'"name": "erase"', b'"name": "whoami", "name": "erase"'), id="name-twice"),
        pytest.param(ERASE.replace(b'"method"', b'"method": "ping", "method"'), id="method-twice"),
        pytest.param(ERASE.replace(b'"params"', b'"params": {}, "params"'), id="params-twice"),
        pytest.param(ERASE.decode().encode("utf-16"), id="utf-16"),
        pytest.param(b"\xef\xbb\xbf" + ERASE, id="byte-order-mark"),
        pytest.param(ERASE.replace(b"}}", b'}, "x": NaN}', 1), id="nan"),
        pytest.param(b"[" * 200 + ERASE + b"]" * 200, id="deep"),
        pytest.param(b"", id="empty"),
        pytest.param(b"tools/call", id="no-json"),
    ],
)
def test_what_two_readers_could_read_in_two_ways_is_refused(
    client: TestClient, issuer: FakeIssuer, body: bytes
) -> None:
    """The SDK's reader takes the last of two names, and UTF-16."""
    answer = post(client, body, issuer.token(scope="mcp:use"), **{"Mcp-Name": "erase"})
    assert answer.status_code == 400
    assert answer.json()["error"]["code"] == -32700


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(ERASE.replace(b'"erase"', b'"\\u0065rase"'), id="escaped"),
        pytest.param(ERASE.replace(b"erase", b"erase", 1).replace(b": ", b" :\n\t"), id="spaces"),
    ],
)
def test_another_spelling_is_the_same_tool(client: TestClient, issuer: FakeIssuer, body: bytes) -> None:
    assert post(client, body, issuer.token(scope="mcp:use"), **{"Mcp-Name": "erase"}).status_code == 403


def test_what_names_no_tool_is_left_to_the_server(client: TestClient, issuer: FakeIssuer) -> None:
    token = issuer.token(scope="mcp:use")
    odd: tuple[Any, ...] = (
        {"name": ["erase"]},
        {"name": {"erase": 1}},
        {"name": "Erase"},
        {"name": "erase "},
        [],
        "erase",
        None,
    )
    for params in odd:
        answer = post(client, json.dumps(call("x") | {"params": params}).encode(), token)
        assert answer.status_code in {200, 400}, params
        assert "erased" not in answer.text


def test_a_large_message_is_413(open_: Open, issuer: FakeIssuer) -> None:
    oidc = open_()
    with client_of(behind_the_door(oidc, largest=1000)) as client:
        assert post(client, call("whoami"), issuer.token()).status_code == 200
        assert post(client, call("erase", note="x" * 1000), issuer.token()).status_code == 413


def test_pieces_are_put_together(client: TestClient, issuer: FakeIssuer) -> None:
    token = issuer.token(scope="mcp:use notes:read notes:write")
    headers = HEADERS | {"Authorization": f"Bearer {token}", "Mcp-Name": "erase"}
    body = json.dumps(call("erase", note="x" * 100)).encode()
    answer = client.post("/mcp", content=iter([body[:7], b"", body[7:]]), headers=headers)
    assert text_of(answer) == "erased " + "x" * 100


def test_it_stands_behind_the_door() -> None:
    app = ToolScopes(make_server().streamable_http_app(host="127.0.0.1"), {"erase": "a"})
    with (
        TestClient(app, base_url="http://127.0.0.1:8000") as client,
        pytest.raises(LookupError, match="OIDCMiddleware"),
    ):
        post(client, call("erase"))


def test_a_user_of_somebody_else_is_none(open_: Open, issuer: FakeIssuer) -> None:
    class Login(AuthenticationBackend):
        async def authenticate(self, conn: Any) -> tuple[AuthCredentials, SimpleUser]:
            return AuthCredentials(["notes:write"]), SimpleUser("admin")

    server = make_server().streamable_http_app(host="127.0.0.1", stateless_http=True, json_response=True)
    inside = AuthenticationMiddleware(ToolScopes(server, {"erase": "notes:write"}), backend=Login())
    with client_of(OIDCMiddleware(inside, oidc=open_())) as client:
        assert post(client, call("erase"), issuer.token()).status_code == 401


async def test_who_leaves_in_the_middle_of_a_message_calls_nothing() -> None:
    messages = iter([{"type": "http.request", "body": ERASE[:9], "more_body": True}, {"type": "http.disconnect"}])

    async def receive() -> Any:
        return next(messages)

    async def never(*_: object) -> None:
        pytest.fail("nobody is there")

    await ToolScopes(never, {"erase": "a"})({"type": "http", "method": "POST"}, receive, never)


@pytest.mark.parametrize("method", ["post", "Post"])
async def test_a_method_in_small_letters_is_read_too(method: str) -> None:
    async def receive() -> Any:
        return {"type": "http.request", "body": ERASE}

    async def never(*_: object) -> None:
        pytest.fail("the tool was called")

    with pytest.raises(LookupError, match="OIDCMiddleware"):
        await ToolScopes(never, {"erase": "a"})({"type": "http", "method": method}, receive, never)


@pytest.mark.parametrize("scope", [{"type": "http", "method": "GET"}, {"type": "websocket"}, {"type": "lifespan"}])
async def test_what_is_no_message_passes_as_it_is(scope: dict[str, str]) -> None:
    passed: list[Any] = []

    async def app(*given: Any) -> Any:
        passed.extend(given)

    await ToolScopes(app, {"erase": "a"})(scope, app, app)
    assert passed == [scope, app, app]


def test_scopes_are_checked() -> None:
    with pytest.raises(ValueError, match="scopes holds"):
        ToolScopes(make_server().streamable_http_app(), {"erase": "a b"})

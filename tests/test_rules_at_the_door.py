"""Rules, lists of paths, endpoints of ours and answers, as a client of the whole middleware meets them."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from functools import partial
from typing import Any

import httpx2
import pytest
from starlette.applications import Starlette
from starlette.requests import HTTPConnection, Request
from starlette.responses import JSONResponse, PlainTextResponse, RedirectResponse, Response, StreamingResponse
from starlette.routing import Mount, Route, WebSocketRoute
from starlette.testclient import TestClient, WebSocketDenialResponse
from starlette.types import ASGIApp, Receive, Scope, Send
from starlette.websockets import WebSocket, WebSocketDisconnect

from oidc_middleware import OIDC, OIDCError, OIDCMiddleware, Rule
from oidc_middleware.errors import ConfigError, InsufficientScope, MissingToken
from oidc_middleware.testing import FakeIssuer, ManualClock, faults

METHODS = ["GET", "POST", "PUT", "DELETE", "OPTIONS"]
BROWSER = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"


async def echo(request: Request) -> Response:
    return JSONResponse({"who": request.user.display_name, "path": request.scope["path"]})


async def echo_websocket(websocket: WebSocket) -> None:
    chosen = next(iter(websocket.scope["subprotocols"]), None)
    await websocket.accept(chosen)
    await websocket.send_json({"who": websocket.user.display_name, "subprotocols": websocket.scope["subprotocols"]})
    await websocket.close()


APP = Starlette(
    routes=[
        WebSocketRoute("/ws/{rest:path}", echo_websocket),
        Route("/{rest:path}", echo, methods=METHODS),
    ]
)

Guard = Callable[..., TestClient]


@pytest.fixture
def issuer(fake_issuer_factory: Callable[..., FakeIssuer]) -> FakeIssuer:
    return fake_issuer_factory(algorithms=("ES256",))


@pytest.fixture
def guard(issuer: FakeIssuer, oidc_clock: ManualClock) -> Guard:
    def make(app: ASGIApp = APP, **settings: Any) -> TestClient:
        defaults: dict[str, Any] = {"issuer": issuer.url, "audience": issuer.audience}
        oidc = OIDC(transport=issuer.transport(), clock=oidc_clock, **(defaults | settings))
        return TestClient(OIDCMiddleware(app, oidc=oidc), follow_redirects=False)

    return make


def bearer(token: str | None) -> dict[str, str]:
    return {} if token is None else {"Authorization": f"Bearer {token}"}


def status(client: TestClient, token: str | None, path: str, method: str = "GET") -> int:
    return client.request(method, path, headers=bearer(token)).status_code


# What a rule asks

WANTS: dict[str, tuple[dict[str, Any], dict[str, Any], int]] = {
    "scopes-all": ({"scopes": ["a", "b"]}, {"scope": "b c a"}, 200),
    "scopes-one-missing": ({"scopes": ["a", "b"]}, {"scope": "a"}, 403),
    "scopes-no-prefix": ({"scopes": ["a"]}, {"scope": "ab a:b"}, 403),
    "scopes-case": ({"scopes": ["a"]}, {"scope": "A"}, 403),
    "scopes-none-in-token": ({"scopes": ["a"]}, {}, 403),
    "any-scopes-one": ({"any_scopes": ["a", "b"]}, {"scope": "b"}, 200),
    "any-scopes-none": ({"any_scopes": ["a", "b"]}, {"scope": "c"}, 403),
    "both-kinds": ({"scopes": ["a"], "any_scopes": ["b", "c"]}, {"scope": "a c"}, 200),
    "both-kinds-half": ({"scopes": ["a"], "any_scopes": ["b", "c"]}, {"scope": "b c"}, 403),
    "claim": ({"claims": {"tenant": "t1"}}, {"claims": {"tenant": "t1"}}, 200),
    "claim-other": ({"claims": {"tenant": "t1"}}, {"claims": {"tenant": "t2"}}, 403),
    "claim-missing": ({"claims": {"tenant": "t1"}}, {}, 403),
    "claim-part-of-text": ({"claims": {"tenant": "t1"}}, {"claims": {"tenant": "t10"}}, 403),
    "claim-nested": (
        {"claims": {"realm_access.roles": "admin"}},
        {"claims": {"realm_access": {"roles": ["admin"]}}},
        200,
    ),
    "claim-nested-other": (
        {"claims": {"realm_access.roles": "admin"}},
        {"claims": {"realm_access": {"roles": ["x"]}}},
        403,
    ),
    "claim-nested-in-text": ({"claims": {"realm_access.roles": "admin"}}, {"claims": {"realm_access": "roles"}}, 403),
    "claim-client-with-dot": (
        {"claims": {"resource_access.my.api.roles": "admin"}},
        {"claims": {"resource_access": {"my.api": {"roles": ["admin"]}}}},
        200,
    ),
    "claim-url": (
        {"claims": {"https://a.example/roles": "admin"}},
        {"claims": {"https://a.example/roles": ["admin"]}},
        200,
    ),
    "claim-alternatives": ({"claims": {"role": ["x", "y"]}}, {"claims": {"role": "y"}}, 200),
    "claim-true-is-not-one": ({"claims": {"verified": True}}, {"claims": {"verified": 1}}, 403),
    "claim-true-is-not-text": ({"claims": {"verified": True}}, {"claims": {"verified": "true"}}, 403),
    "claim-all-of-several": ({"claims": {"a": 1, "b": 2}}, {"claims": {"a": 1}}, 403),
    "audience": (
        {"audience": "https://admin.example"},
        {"audience": ["https://api.example", "https://admin.example"]},
        200,
    ),
    "audience-other": ({"audience": "https://admin.example"}, {"audience": ["https://api.example"]}, 403),
    "nothing": ({}, {}, 200),
}


@pytest.mark.parametrize(("rule", "token", "expected"), WANTS.values(), ids=WANTS)
def test_what_a_rule_asks(
    guard: Guard, issuer: FakeIssuer, rule: dict[str, Any], token: dict[str, Any], expected: int
) -> None:
    client = guard(rules=[Rule("/guarded/*", **rule)])
    made = issuer.token(**token)
    assert status(client, made, "/guarded/x") == expected
    assert status(client, made, "/guarded/x") == expected  # a token that is known by now
    assert status(client, made, "/elsewhere") == 200
    assert status(client, None, "/guarded/x") == 401


def test_the_first_rule_that_matches_decides(guard: Guard, issuer: FakeIssuer) -> None:
    client = guard(
        rules=[
            Rule("/orders/mine"),
            Rule("/orders/{id}", methods=["GET"], scopes=["read"]),
            Rule("/orders/{id}", scopes=["write"]),
            Rule("/*", scopes=["all"]),
        ]
    )
    nothing, read, write, everything = (issuer.token(scope=scope) for scope in ("x", "read", "write", "all"))
    assert status(client, nothing, "/orders/mine") == 200
    assert status(client, read, "/orders/1") == 200
    assert status(client, write, "/orders/1") == 403
    assert status(client, write, "/orders/1", "DELETE") == 200
    assert status(client, read, "/orders/1", "DELETE") == 403
    assert status(client, everything, "/orders/1") == 403
    assert status(client, everything, "/orders/1/lines") == 200
    assert status(client, write, "/orders/1/lines") == 403


def test_methods(guard: Guard, issuer: FakeIssuer) -> None:
    """GET speaks of HEAD and of WebSockets too; a method in another case is the same one; others are identity only."""
    client = guard(rules=[Rule("/*", methods=["GET"], scopes=["read"])])
    nothing, read = issuer.token(), issuer.token(scope="read")
    for method in ("GET", "HEAD", "get"):
        assert status(client, nothing, "/x", method) == 403, method
    assert status(client, read, "/x") == 200
    assert status(client, nothing, "/x", "POST") == 200
    with pytest.raises(WebSocketDenialResponse), client.websocket_connect("/ws/x", headers=bearer(nothing)):
        pass
    with client.websocket_connect("/ws/x", headers=bearer(read)) as websocket:
        assert websocket.receive_json()["who"] == "alice"


def test_head_is_refused_as_get_is(guard: Guard) -> None:
    client = guard(rules=[Rule("/*", scopes=["read"])])
    get, head = client.get("/x"), client.head("/x")
    assert head.status_code == get.status_code == 401
    assert head.headers["www-authenticate"] == get.headers["www-authenticate"]


def test_optional_paths(guard: Guard, issuer: FakeIssuer) -> None:
    """P-optional-auth: none is anonymous, good is known, bad is refused."""
    client = guard(optional=["/hello/*"])
    assert client.get("/hello/x").json()["who"] == ""
    assert client.get("/hello/x", headers={"Authorization": "Basic YTpi"}).json()["who"] == ""
    assert client.get("/hello/x", headers=bearer(issuer.token("alice"))).json()["who"] == "alice"
    for bad in ("garbage", issuer.token(expires_in=-60), issuer.token(audience="other")):
        assert status(client, bad, "/hello/x") == 401
    assert client.get("/hello/x", headers={"Authorization": "Bearer a b"}).status_code == 400
    assert client.get(f"/hello/x?access_token={issuer.token()}").json()["who"] == ""  # not a place that we read


def test_optional_while_the_issuer_is_away(guard: Guard, issuer: FakeIssuer) -> None:
    """Who shows a token wants to be known: 503, never anonymous. Nobody else notices."""
    issuer.fault("*", faults.down())
    client = guard(optional=["/hello"])
    assert status(client, None, "/hello") == 200
    assert status(client, issuer.token(), "/hello") == 503


def test_ambiguous_paths_that_are_protected(guard: Guard, issuer: FakeIssuer) -> None:
    """P-dblslash: never public, and only for an identity that satisfies every rule; dot segments stay refused."""
    client = guard(
        ambiguous_paths="protect",
        public=["/health"],
        optional=["/hello"],
        rules=[Rule("/a/*", scopes=["a"]), Rule("/b/*", claims={"b": True})],
    )
    some, every = issuer.token(scope="a"), issuer.token(scope="a", claims={"b": True})
    for path in ("/x//y", "/health;v=1", "/hello%2fworld", "/a//b"):
        assert status(client, None, path) == 401, path
        assert status(client, some, path) == 403, path
        assert status(client, every, path) == 200, path
    for path in ("/x/%2e%2e/y", "/x%5cy", "/x%00y"):
        assert status(client, every, path) == 400, path


# Mounts and root paths


def test_rules_are_relative_to_where_the_middleware_stands(guard: Guard, issuer: FakeIssuer) -> None:
    inner = guard(public=["/open"], rules=[Rule("/admin/*", scopes=["admin"])]).app
    client = TestClient(Starlette(routes=[Mount("/api/v1", inner)]))
    assert client.get("/api/v1/open").json() == {"who": "", "path": "/api/v1/open"}
    assert status(client, None, "/api/v1/x") == 401
    assert status(client, issuer.token(), "/api/v1/admin/x") == 403
    assert status(client, issuer.token(scope="admin"), "/api/v1/admin/x") == 200
    assert status(client, None, "/api/v1/oauth2/health") in {200, 503}


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/api/open", 200),
        ("/open", 200),
        ("/api/api/open", 401),
        ("/apiopen", 401),
        ("/api/admin/x", 403),
        ("/admin/x", 403),
    ],
)
def test_a_root_path_of_the_server(guard: Guard, issuer: FakeIssuer, path: str, expected: int) -> None:
    """One server writes it before the path, another does not; it is cut off at a whole segment only."""
    guarded = guard(public=["/open"], rules=[Rule("/admin/*", scopes=["admin"])]).app
    client = TestClient(guarded, root_path="/api")
    assert status(client, None if expected != 403 else issuer.token(), path) == expected


@pytest.mark.parametrize("header", ["X-Forwarded-Prefix", "X-Script-Name", "Root-Path"])
def test_no_header_is_a_root_path(guard: Guard, header: str) -> None:
    """P-xfu."""
    client = guard(public=["/open"])
    assert client.get("/x/open", headers={header: "/x"}).status_code == 401


# Endpoints of ours


def test_health_tells_readiness_to_everybody(guard: Guard, issuer: FakeIssuer, oidc_clock: ManualClock) -> None:
    """503 until the keys are there, 200 from then on, also while the issuer is away."""
    issuer.fault("*", faults.down())
    with guard() as client:
        answer = client.get("/oauth2/health")
        assert (answer.status_code, answer.json()) == (503, {"status": "unavailable"})
        assert answer.headers["cache-control"] == "no-store"
        issuer.heal()
        oidc_clock.advance(2)
        assert status(client, issuer.token(), "/x") == 200
        issuer.fault("*", faults.down())
        for headers in ({}, {"Authorization": "garbage"}):
            answer = client.get("/oauth2/health", headers=headers)
            assert (answer.status_code, answer.json()) == (200, {"status": "ok"})
        assert client.head("/oauth2/health").status_code == 200


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS", "PATCH"])
def test_our_endpoints_are_read_only(guard: Guard, issuer: FakeIssuer, method: str) -> None:
    answer = guard().request(method, "/oauth2/health")
    assert (answer.status_code, answer.headers["allow"]) == (405, "GET, HEAD")
    client = guard(admin_scope="ops")
    assert status(client, None, "/oauth2/status", method) == 401
    assert status(client, issuer.token(scope="ops"), "/oauth2/status", method) == 405


def test_status_is_for_whom_admin_scope_names(guard: Guard, issuer: FakeIssuer) -> None:
    client = guard(admin_scope="ops", prefix="/-")
    assert client.get("/-/status").headers["www-authenticate"] == 'Bearer scope="ops"'
    assert status(client, issuer.token(scope="read"), "/-/status") == 403
    answer = client.get("/-/status", headers=bearer(issuer.token(scope="ops")))
    assert answer.status_code == 200
    assert answer.json()["issuers"][issuer.url]["keys"] == 1
    assert status(client, None, "/oauth2/health") == 401  # the app's own path now


def test_only_what_is_enabled_is_taken_from_the_app(guard: Guard, issuer: FakeIssuer) -> None:
    client = guard()
    for path in ("/oauth2/status", "/oauth2/health/", "/oauth2/health/x", "/oauth2/Health", "/oauth2", "/oauth2/"):
        assert status(client, None, path) == 401, path
        assert client.get(path, headers=bearer(issuer.token())).json()["path"] == path


def test_a_websocket_to_an_endpoint_of_ours(guard: Guard) -> None:
    with pytest.raises(WebSocketDisconnect), guard().websocket_connect("/oauth2/health"):
        pass


# Answers


@pytest.mark.parametrize(
    ("settings", "missing", "forbidden"),
    [
        pytest.param({}, 'Bearer scope="a b"', 'scope="a b"', id="default"),
        pytest.param({"realm": "orders"}, 'Bearer realm="orders", scope="a b"', 'scope="a b"', id="realm"),
    ],
)
def test_challenges(guard: Guard, issuer: FakeIssuer, settings: dict[str, Any], missing: str, forbidden: str) -> None:
    """RFC 6750 §3: the scopes that are needed, in 401 and in 403; no error code where no token came."""
    client = guard(rules=[Rule("/x", scopes=["a"], any_scopes=["b"])], **settings)
    assert client.get("/x").headers["www-authenticate"] == missing
    invalid = client.get("/x", headers=bearer("garbage")).headers["www-authenticate"]
    assert 'error="invalid_token"' in invalid
    assert invalid.endswith('scope="a b"')
    denied = client.get("/x", headers=bearer(issuer.token())).headers["www-authenticate"]
    assert 'error="insufficient_scope"' in denied
    assert denied.endswith(forbidden)
    realm = settings.get("realm")
    assert all((f'realm="{realm}"' in text) is (realm is not None) for text in (invalid, denied))


def test_a_browser_gets_a_page(guard: Guard, issuer: FakeIssuer) -> None:
    client = guard(rules=[Rule("/x", scopes=["a"])])
    for token, title in (
        (None, "401 Unauthorized"),
        ("garbage", "401 Unauthorized"),
        (issuer.token(), "403 Forbidden"),
    ):
        answer = client.get("/x", headers={"Accept": BROWSER} | bearer(token))
        assert answer.headers["content-type"].startswith("text/html")
        assert f"<title>{title}</title>" in answer.text
        assert "www-authenticate" in answer.headers
    assert client.get("/x", headers={"Accept": "*/*"}).json()["error"] == "missing_token"


def test_503_while_the_issuer_is_away(guard: Guard, issuer: FakeIssuer) -> None:
    issuer.fault("*", faults.status(500))
    answer = guard().get("/x", headers=bearer(issuer.token()))
    assert answer.status_code == 503
    assert int(answer.headers["retry-after"]) >= 1
    assert "www-authenticate" not in answer.headers


# on_error


def page(conn: HTTPConnection, error: OIDCError) -> Response:
    return PlainTextResponse(f"{type(error).__name__} at {conn.scope['path']}", 200, {"X-Mine": "yes"})


def test_on_error_writes_the_answer_and_not_the_status(guard: Guard, issuer: FakeIssuer) -> None:
    client = guard(on_error=page, realm="r", rules=[Rule("/x", scopes=["a"])])
    missing = client.get("/x")
    assert (missing.status_code, missing.text, missing.headers["x-mine"]) == (401, "MissingToken at /x", "yes")
    assert missing.headers["www-authenticate"] == 'Bearer realm="r", scope="a"'
    assert missing.headers["cache-control"] == "no-store"
    forbidden = client.get("/x", headers=bearer(issuer.token()))
    assert (forbidden.status_code, forbidden.text) == (403, "InsufficientScope at /x")
    assert client.get("/x//").text == "InvalidRequest at /x//"
    with pytest.raises(WebSocketDenialResponse) as denied, client.websocket_connect("/ws/x"):
        pass
    assert (denied.value.status_code, denied.value.text) == (401, "MissingToken at /ws/x")


def test_on_error_gets_the_error_itself(guard: Guard, issuer: FakeIssuer) -> None:
    seen: list[OIDCError] = []

    def note(_: HTTPConnection, error: OIDCError) -> Response:
        seen.append(error)
        return Response()

    client = guard(on_error=note, rules=[Rule("/x", scopes=["a", "b"])])
    client.get("/x")
    client.get("/x", headers=bearer(issuer.token()))
    assert isinstance(seen[0], MissingToken)
    assert isinstance(seen[1], InsufficientScope)
    assert seen[1].scopes == ("a", "b")


def fail(_: HTTPConnection, __: OIDCError) -> Response:
    raise ZeroDivisionError


def nothing(_: HTTPConnection, __: OIDCError) -> Any:
    return None


def text(_: HTTPConnection, __: OIDCError) -> Any:
    return "no response"


async def later(_: HTTPConnection, __: OIDCError) -> Response:
    return Response()


class Later:
    """Asynchronous, but not at first sight."""

    async def __call__(self, _: HTTPConnection, __: OIDCError) -> Response:
        return Response()


@pytest.mark.parametrize("broken", [fail, nothing, text], ids=["raises", "none", "text"])
@pytest.mark.parametrize("kind", ["http", "websocket"])
def test_a_broken_on_error_still_refuses(
    guard: Guard, caplog: pytest.LogCaptureFixture, broken: Any, kind: str
) -> None:
    client = guard(on_error=broken)
    if kind == "http":
        answer: Any = client.get("/x")
    else:
        with pytest.raises(WebSocketDenialResponse) as denied, client.websocket_connect("/ws/x"):
            pass
        answer = denied.value
    assert (answer.status_code, answer.json()["error"]) == (401, "missing_token")
    assert [record.levelno for record in caplog.records if record.exc_info] == [logging.ERROR]


@pytest.mark.parametrize("asynchronous", [later, Later(), partial(later)], ids=["function", "object", "partial"])
def test_an_asynchronous_on_error_is_told_at_start(guard: Guard, asynchronous: Any) -> None:
    """As in Starlette it is a plain function; a coroutine that nobody awaits would be no answer."""
    with pytest.raises(ConfigError, match="on_error: must not be asynchronous"):
        guard(on_error=asynchronous)


def test_on_error_may_redirect_in_words_only(guard: Guard) -> None:
    """The status is ours, so that no refusal is taken for a success; a Location beside 401 leads nobody anywhere."""
    client = guard(on_error=lambda *_: RedirectResponse("https://login.example"))
    assert client.get("/x").status_code == 401


def test_on_error_may_stream(guard: Guard) -> None:
    async def words() -> AsyncIterator[str]:
        for word in ("not ", "so ", "fast"):
            yield word
            await asyncio.sleep(0)

    answer = guard(on_error=lambda *_: StreamingResponse(words())).get("/x")
    assert (answer.status_code, answer.text) == (401, "not so fast")


# WebSockets


@contextmanager
def refused(client: TestClient, path: str, **options: Any) -> Iterator[pytest.ExceptionInfo[WebSocketDenialResponse]]:
    with pytest.raises(WebSocketDenialResponse) as denied, client.websocket_connect(path, **options):
        pass
    yield denied


def test_a_websocket_is_refused_with_the_answer_of_a_request(guard: Guard, issuer: FakeIssuer) -> None:
    """P-websocket."""
    client = guard(rules=[Rule("/ws/admin", scopes=["admin"])], realm="r")
    for path, token in (("/ws/x", None), ("/ws/x", "garbage"), ("/ws/admin", issuer.token()), ("/ws//", None)):
        with refused(client, path, headers=bearer(token)) as denied:
            plain = client.get(path, headers=bearer(token))
            assert denied.value.status_code == plain.status_code
            assert denied.value.headers["www-authenticate"] == plain.headers["www-authenticate"]
            assert denied.value.json() == plain.json()


def test_a_websocket_on_public_and_optional_paths(guard: Guard, issuer: FakeIssuer) -> None:
    client = guard(public=["/ws/open"], optional=["/ws/hello"])
    for path, token, who in (
        ("/ws/open", None, ""),
        ("/ws/open", issuer.token("alice"), ""),
        ("/ws/hello", None, ""),
        ("/ws/hello", issuer.token("alice"), "alice"),
    ):
        with client.websocket_connect(path, headers=bearer(token)) as websocket:
            assert websocket.receive_json()["who"] == who
    with refused(client, "/ws/hello", headers=bearer("garbage")) as denied:
        assert denied.value.status_code == 401


def test_a_server_that_cannot_deny_by_a_response(guard: Guard) -> None:
    """P-websocket: it is closed before it is accepted, which clients see as 403."""
    guarded = guard().app

    async def old_server(scope: Scope, receive: Receive, send: Send) -> None:
        await guarded({**scope, "extensions": {}}, receive, send)

    with pytest.raises(WebSocketDisconnect), TestClient(old_server).websocket_connect("/ws/x"):
        pass


def test_a_token_as_subprotocol(guard: Guard, issuer: FakeIssuer) -> None:
    """P-websocket-token: where it is configured, for WebSockets only; the app chooses among the others."""
    client = guard(websocket_token="subprotocol")
    token = issuer.token("alice")
    for _ in range(2):
        with client.websocket_connect("/ws/x", subprotocols=["chat", f"bearer.{token}"]) as websocket:
            assert websocket.receive_json() == {"who": "alice", "subprotocols": ["chat"]}
            assert websocket.accepted_subprotocol == "chat"
    with client.websocket_connect("/ws/x", headers=bearer(token)) as websocket:
        assert websocket.receive_json()["who"] == "alice"
    assert client.get("/x", headers={"Sec-WebSocket-Protocol": f"bearer.{token}"}).status_code == 401


@pytest.mark.parametrize(
    ("protocols", "headers", "expected"),
    [
        pytest.param(["chat"], {}, 401, id="none"),
        pytest.param(["bearer.garbage"], {}, 401, id="garbage"),
        pytest.param(["bearer."], {}, 400, id="empty"),
        pytest.param(["bearer.a", "bearer.a"], {}, 400, id="two"),
        pytest.param(["bearer.a"], {"Authorization": "Bearer a"}, 400, id="beside-a-header"),
    ],
)
def test_subprotocols_that_let_nobody_in(
    guard: Guard, protocols: list[str], headers: dict[str, str], expected: int
) -> None:
    """P-websocket-token."""
    client = guard(websocket_token="subprotocol")
    with refused(client, "/ws/x", subprotocols=protocols, headers=headers) as denied:
        assert denied.value.status_code == expected


def test_a_subprotocol_is_no_token_unless_configured(guard: Guard, issuer: FakeIssuer) -> None:
    """P-websocket-token."""
    with refused(guard(), "/ws/x", subprotocols=[f"bearer.{issuer.token()}"]) as denied:
        assert denied.value.status_code == 401


# Many at once


@asynccontextmanager
async def asking(client: TestClient) -> AsyncIterator[httpx2.AsyncClient]:
    transport = httpx2.ASGITransport(client.app)
    async with httpx2.AsyncClient(transport=transport, base_url="http://testserver") as asker:
        yield asker


@pytest.mark.anyio
async def test_identities_do_not_mix(guard: Guard, issuer: FakeIssuer) -> None:
    """A hundred users at once, each a few times, and among them those who may not get in."""
    client = guard(rules=[Rule("/admin", scopes=["admin"])])
    users = {f"u{n}": issuer.token(f"u{n}", scope="admin" if n % 3 == 0 else "read") for n in range(100)}

    async def visit(asker: httpx2.AsyncClient, name: str, token: str) -> None:
        for _ in range(3):
            assert (await asker.get("/x", headers=bearer(token))).json()["who"] == name
            allowed = await asker.get("/admin", headers=bearer(token))
            assert allowed.status_code == (200 if int(name[1:]) % 3 == 0 else 403)
            assert (await asker.get("/x", headers=bearer(token + "x"))).status_code == 401

    async with asking(client) as asker:
        await asyncio.gather(*(visit(asker, name, token) for name, token in users.items()))
    assert isinstance(client.app, OIDCMiddleware)
    await client.app.oidc.stop()

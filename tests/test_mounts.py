"""Middlewares that share a service: mounts with a policy of their own, and one door behind another."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from lifecycle_kit import ask, http_scope, until, who
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import HTTPConnection, Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Mount, Route, WebSocketRoute
from starlette.testclient import TestClient, WebSocketDenialResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from starlette.websockets import WebSocket

from oidc_middleware import OIDC, Issuer, OIDCError, OIDCMiddleware, Rule, requires
from oidc_middleware.testing import FakeIssuer

SECONDS = 20
ONE, TWO = "https://one.example", "https://two.example"
FORBIDDEN = 'error="insufficient_scope", error_description="The access token does not permit this request."'


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


def counted(oidc: OIDC, monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """Return a list that gets what the service verifies from now on."""
    verified: list[bytes] = []
    authenticate = oidc.authenticator.authenticate

    async def count(value: bytes) -> Any:
        verified.append(value)
        return await authenticate(value)

    monkeypatch.setattr(oidc.authenticator, "authenticate", count)
    return verified


@pytest.fixture
def issuer(fake_issuer_factory: Callable[..., FakeIssuer]) -> FakeIssuer:
    return fake_issuer_factory(algorithms=("ES256",))


@pytest.fixture
def service(issuer: FakeIssuer) -> Callable[..., OIDC]:
    def make(**settings: Any) -> OIDC:
        return OIDC(issuer=issuer.url, transport=issuer.transport(), **{"audience": [ONE, TWO], **settings})

    return make


Service = Callable[..., OIDC]


async def greet(request: Request) -> Response:
    return PlainTextResponse(f"{request.user.display_name or 'nobody'} at {request.scope['path']}")


AREA = [Route("/open", greet), Route("/admin", requires("write")(greet)), Route("/{path:path}", greet)]


def mount(path: str, oidc: OIDC, **policy: Any) -> Mount:
    return Mount(path, routes=AREA, middleware=[Middleware(OIDCMiddleware, oidc=oidc, **policy)])


# A policy for each mount


def test_each_mount_has_its_own_policy_and_they_share_what_they_know(
    service: Service, issuer: FakeIssuer, monkeypatch: pytest.MonkeyPatch
) -> None:
    oidc = service(public=["/health"], realm="service")
    verified = counted(oidc, monkeypatch)
    one = mount("/one", oidc, audience=ONE, public=["/open"], rules=[Rule("/admin", scopes=["one"])], realm="one")
    two = mount("/two", oidc, audience=[TWO], optional=["/open"])
    client = TestClient(Starlette(routes=[one, two, mount("/all", oidc)]))
    token = bearer(issuer.token("alice", audience=ONE))
    both = bearer(issuer.token("bob", audience=[TWO, ONE], scope="one"))

    assert client.get("/one/x", headers=token).text == "alice at /one/x"
    refused = client.get("/two/x", headers=token)
    assert (refused.status_code, refused.json()["error"]) == (401, "invalid_token")
    assert client.get("/all/x", headers=token).text == "alice at /all/x"
    assert len(verified) == 1

    assert client.get("/two/x", headers=both).text == "bob at /two/x"
    assert client.get("/one/x", headers=both).text == "bob at /one/x"
    assert len(verified) == 2

    assert client.get("/one/open", headers=token).text == "nobody at /one/open"
    assert client.get("/two/open").text == "nobody at /two/open"
    assert client.get("/two/open", headers=both).text == "bob at /two/open"
    assert client.get("/two/open", headers=token).status_code == 401
    assert client.get("/all/open").status_code == 401
    assert [client.get(f"/{name}/health").status_code for name in ("one", "two", "all")] == [401, 401, 200]

    assert client.get("/one/x").headers["www-authenticate"] == 'Bearer realm="one"'
    assert client.get("/two/x").headers["www-authenticate"] == 'Bearer realm="service"'
    assert client.get("/one/admin", headers=token).headers["www-authenticate"] == (
        f'Bearer realm="one", {FORBIDDEN}, scope="one"'
    )
    assert client.get("/one/admin", headers=both).headers["www-authenticate"] == (
        f'Bearer realm="one", {FORBIDDEN}, scope="one write"'
    )
    assert client.get("/all/admin", headers=token).headers["www-authenticate"] == (
        f'Bearer realm="service", {FORBIDDEN}, scope="write"'
    )


def test_whoever_lists_paths_opens_no_others_and_rules_stay(service: Service, issuer: FakeIssuer) -> None:
    oidc = service(public=["/open"], optional=["/maybe"], rules=[Rule("/ruled", scopes=["x"])])
    policies: dict[str, dict[str, Any]] = {
        "none": {},
        "realm": {"realm": "r"},
        "audience": {"audience": ONE},
        "public": {"public": ["/mine"]},
        "optional": {"optional": ["/mine"]},
        "rules": {"rules": []},
    }
    client = TestClient(Starlette(routes=[mount(f"/{name}", oidc, **policy) for name, policy in policies.items()]))
    token = bearer(issuer.token(audience=ONE))
    seen = {
        name: [
            *(client.get(f"/{name}/{path}").status_code for path in ("open", "maybe", "mine")),
            client.get(f"/{name}/ruled", headers=token).status_code,
        ]
        for name in policies
    }
    assert seen == {
        "none": [200, 200, 401, 403],
        "realm": [200, 200, 401, 403],
        "audience": [200, 200, 401, 403],
        "public": [401, 401, 200, 403],
        "optional": [401, 401, 200, 403],
        "rules": [401, 401, 401, 200],
    }


def test_answers_of_its_own_for_the_door_and_for_what_stands_behind_it(service: Service, issuer: FakeIssuer) -> None:
    def on_error(conn: HTTPConnection, error: OIDCError) -> Response:
        return JSONResponse({"mine": error.code})

    oidc = service()
    client = TestClient(Starlette(routes=[mount("/one", oidc, on_error=on_error), mount("/two", oidc)]))
    token = bearer(issuer.token(audience=ONE))
    assert client.get("/one/x").json() == {"mine": "missing_token"}
    assert client.get("/one/admin", headers=token).json() == {"mine": "insufficient_scope"}
    assert client.get("/two/admin", headers=token).json()["error"] == "insufficient_scope"


def test_the_rest_of_the_policy(service: Service, issuer: FakeIssuer) -> None:
    async def socket(websocket: WebSocket) -> None:
        await websocket.accept("chat")
        await websocket.send_text(websocket.user.display_name)
        await websocket.close()

    oidc = service()
    policy: dict[str, Any] = {
        "ambiguous_paths": "protect",
        "preflight": "protect",
        "websocket_token": "subprotocol",
        "rules": [Rule("/admin", scopes=["x"])],
    }
    routes = [
        Mount("/one", routes=[WebSocketRoute("/feed", socket), *AREA],
              middleware=[Middleware(OIDCMiddleware, oidc=oidc, **policy)]),
        Mount("/two", routes=[WebSocketRoute("/feed", socket), *AREA],
              middleware=[Middleware(OIDCMiddleware, oidc=oidc)]),
    ]  # fmt: skip
    client = TestClient(Starlette(routes=routes))
    token = issuer.token("alice", audience=ONE, scope="x")
    preflight = {"Origin": "https://app.example", "Access-Control-Request-Method": "GET"}
    assert client.get("/one/a//b", headers=bearer(token)).status_code == 200
    assert client.get("/two/a//b", headers=bearer(token)).status_code == 400
    assert [client.options(f"/{name}/x", headers=preflight).status_code for name in ("one", "two")] == [401, 405]
    with client.websocket_connect("/one/feed", subprotocols=["chat", f"bearer.{token}"]) as feed:
        assert feed.receive_text() == "alice"
    with (
        pytest.raises(WebSocketDenialResponse),
        client.websocket_connect("/two/feed", subprotocols=["chat", f"bearer.{token}"]),
    ):
        pass


def test_an_audience_in_another_claim(issuer: FakeIssuer) -> None:
    """As in Amazon Cognito's access tokens."""
    oidc = OIDC(
        issuers=[Issuer(issuer=issuer.url, audience=["app-1", "app-2"], audience_claim="client_id")],
        transport=issuer.transport(),
    )
    client = TestClient(
        Starlette(routes=[mount("/one", oidc, audience="app-1"), mount("/two", oidc, audience="app-2")])
    )
    token = bearer(issuer.token(claims={"client_id": "app-1", "token_use": "access"}))
    assert [client.get(f"/{name}/x", headers=token).status_code for name in ("one", "two")] == [200, 401]


def test_an_audience_of_an_issuer_that_is_found_later(issuer: FakeIssuer) -> None:
    async def resolve(_: str) -> Issuer:
        return Issuer(issuer=issuer.url, audience=[ONE, TWO])

    oidc = OIDC(issuer_resolver=resolve, transport=issuer.transport())
    client = TestClient(Starlette(routes=[mount("/one", oidc, audience=ONE), mount("/two", oidc, audience=TWO)]))
    token = bearer(issuer.token(audience=ONE))
    assert [client.get(f"/{name}/x", headers=token).status_code for name in ("one", "two")] == [200, 401]


@pytest.mark.parametrize(
    ("policy", "problem"),
    [
        ({"cache": "memory://"}, "cache: belongs to the service that middlewares share, and is given beside oidc=."),
        ({"issuer": "https://x.example"}, "issuer: belongs to the service"),
        ({"close_on_expiry": False}, "close_on_expiry: belongs to the service"),
        ({"prefix": "/x"}, "prefix: belongs to the service"),
        ({"env_file": ".env"}, "env_file: belongs to the service"),
        ({"pubic": ["/x"]}, "pubic: there is no such setting. Did you mean public?"),
        ({"public": ["/x"], "rules": [Rule("/x")]}, "public: '/x' and '/x' of rules match the same paths."),
        ({"public": ["/a"]}, "public: '/a' and '/a' of rules match the same paths."),
        ({"preflight": "maybe"}, "preflight: 'maybe' is not one of its values."),
        (
            {"audience": "https://x.example"},
            f"audience: 'https://x.example' is none that the service accepts. Name one or several of {ONE}, {TWO}, or ",
        ),
        ({"audience": []}, "audience: is empty"),
        ({"audience": 3}, "audience: must be a list, not int."),
        ({"settings": "x"}, "oidc: given beside settings="),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else None,
)  # fmt: skip
def test_what_a_mount_cannot_have_closes_it_and_no_other(
    policy: dict[str, Any],
    problem: str,
    service: Service,
    issuer: FakeIssuer,
    caplog: pytest.LogCaptureFixture,
) -> None:
    oidc = service(public=["/health"], rules=[Rule("/a", scopes=["a"])])
    client = TestClient(Starlette(routes=[mount("/one", oidc, **policy), mount("/two", oidc)]))
    token = bearer(issuer.token(audience=ONE))
    assert client.get("/one/x", headers=token).status_code == 500
    assert client.get("/one/open").status_code == 500
    assert f"config_error: {problem}" in caplog.text
    assert client.get("/two/x", headers=token).status_code == 200


def test_the_service_itself_stays_as_it_was(service: Service) -> None:
    oidc = service(public=["/health"], rules=[Rule("/a")])
    settings = oidc.settings
    OIDCMiddleware(who, oidc=oidc, public=["/x"], rules=[])
    assert oidc.settings is settings
    assert (settings.public, settings.rules) == (("/health",), (Rule("/a"),))


# One door behind another


def between(app: ASGIApp, change: Callable[[Scope], None]) -> ASGIApp:
    """Return the app behind something that changes the scope."""

    async def changed(scope: Scope, receive: Receive, send: Send) -> None:
        change(scope)
        await app(scope, receive, send)

    return changed


@pytest.mark.anyio
async def test_a_token_is_verified_once(service: Service, issuer: FakeIssuer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also if the cache has lost it when the request comes to the second door."""
    oidc = service()
    verified = counted(oidc, monkeypatch)
    inner = OIDCMiddleware(who, oidc=oidc, rules=[Rule("/*", scopes=["x"])])
    monkeypatch.setattr(inner, "_lookup", lambda _: None)
    door = OIDCMiddleware(inner, oidc=oidc)
    for audience, scope, status in ((ONE, "x", 200), (ONE, "y", 403), ("other", "x", 401)):
        verified.clear()
        answer = await ask(door, http_scope(token=issuer.token("alice", audience=audience, scope=scope)))
        assert (answer.status, len(verified)) == (status, 1)
    assert (await ask(door, http_scope())).status == 401
    await oidc.stop()


@pytest.mark.anyio
async def test_the_challenge_names_what_both_doors_ask(service: Service, issuer: FakeIssuer) -> None:
    oidc = service(realm="outer", rules=[Rule("/*", scopes=["a"])])
    inner = OIDCMiddleware(requires("c")(who), oidc=oidc, realm="inner", rules=[Rule("/*", any_scopes=["b", "a"])])
    door = OIDCMiddleware(inner, oidc=oidc)
    for scope, realm, names in (("", "outer", "a"), ("a", "inner", "a b c")):
        answer = await ask(door, http_scope(token=issuer.token(audience=ONE, scope=scope)))
        assert (answer.status, answer.headers["www-authenticate"]) == (
            403,
            f'Bearer realm="{realm}", {FORBIDDEN}, scope="{names}"',
        )
    await oidc.stop()


@pytest.mark.anyio
async def test_identity_headers_stay_out(service: Service, issuer: FakeIssuer) -> None:
    seen: list[Any] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        seen.append([name for name, _ in scope["headers"]])
        await who(scope, receive, send)

    oidc = service()
    door = OIDCMiddleware(OIDCMiddleware(app, oidc=oidc, public=["/open"]), oidc=oidc, public=["/open"])
    for path in ("/", "/open"):
        scope = http_scope(path, issuer.token(audience=ONE))
        scope["headers"] += [(b"x-forwarded-user", b"root"), (b"remote_user", b"root"), (b"x-other", b"y")]
        assert (await ask(door, scope)).status == 200
    assert seen == [[b"host", b"authorization", b"x-other"]] * 2
    await oidc.stop()


@pytest.mark.anyio
async def test_another_credential_behind_the_first_door_is_looked_at(service: Service, issuer: FakeIssuer) -> None:
    """What asks the app again with a scope that it got, for others, is believed no more than any client."""
    oidc = service()
    headers: list[tuple[bytes, bytes]] = []
    inner = OIDCMiddleware(who, oidc=oidc, optional=["/optional"])
    door = OIDCMiddleware(between(inner, lambda scope: scope.update(headers=headers)), oidc=oidc)
    scope = http_scope(token=issuer.token("alice", audience=ONE))
    assert (await ask(door, dict(scope))).status == 401
    headers.append((b"authorization", f"Bearer {issuer.token('bob', audience=TWO)}".encode()))
    assert (await ask(door, dict(scope))).body == b"bob"
    headers[0] = (b"authorization", f"Bearer {issuer.token('eve', audience='other')}".encode())
    assert (await ask(door, dict(scope))).status == 401
    assert (await ask(door, {**scope, "path": "/optional", "raw_path": b"/optional"})).status == 401
    await oidc.stop()


@pytest.mark.anyio
async def test_what_the_first_door_lets_pass_the_second_one_decides(service: Service, issuer: FakeIssuer) -> None:
    oidc = service()
    door = OIDCMiddleware(OIDCMiddleware(who, oidc=oidc), oidc=oidc, public=["/public"], optional=["/optional"])
    token = issuer.token("alice", audience=ONE)
    for path in ("/public", "/optional"):
        assert (await ask(door, http_scope(path))).status == 401
        assert (await ask(door, http_scope(path, token))).body == b"alice"
    opened = OIDCMiddleware(OIDCMiddleware(who, oidc=oidc, public=["/public"]), oidc=oidc)
    assert (await ask(opened, http_scope("/public"))).status == 401
    assert (await ask(opened, http_scope("/public", token))).body == b"nobody"
    await oidc.stop()


@pytest.mark.anyio
async def test_a_door_of_another_service_shares_nothing(
    service: Service, issuer: FakeIssuer, fake_issuer_factory: Callable[..., FakeIssuer]
) -> None:
    other = fake_issuer_factory(url="https://other.example", algorithms=("ES256",))
    inside = OIDC(issuer=other.url, audience=other.audience, transport=other.transport(), realm="other")
    outside = service(rules=[Rule("/*", scopes=["outside"])])
    inner = OIDCMiddleware(requires("inside")(who), oidc=inside)
    token = other.token("alice").encode()
    swap = between(inner, lambda scope: scope.update(headers=[(b"authorization", b"Bearer " + token)]))
    door = OIDCMiddleware(swap, oidc=outside, realm="mine")
    answer = await ask(door, http_scope(token=issuer.token(audience=ONE, scope="outside")))
    assert answer.headers["www-authenticate"] == f'Bearer realm="other", {FORBIDDEN}, scope="inside"'
    straight = OIDCMiddleware(inner, oidc=outside, realm="mine")
    assert (await ask(straight, http_scope(token=issuer.token(audience=ONE, scope="outside")))).status == 401
    await asyncio.gather(inside.stop(), outside.stop())


# What is open behind two doors


class Connection:
    """One connection to an app, as a server holds it."""

    def __init__(self, app: ASGIApp, scope: Scope) -> None:
        self.sent: list[Message] = []
        self._coming: asyncio.Queue[Message] = asyncio.Queue()
        first = "websocket.connect" if scope["type"] == "websocket" else "http.request"
        self._coming.put_nowait({"type": first})
        self.task = asyncio.ensure_future(app(scope, self._coming.get, self._send))

    async def _send(self, message: Message) -> None:
        self.sent.append(message)


async def held(scope: Scope, receive: Receive, send: Send) -> None:
    """Hold what comes open until its client is gone: a WebSocket, an event stream, or a request without an answer."""
    await receive()
    if scope["type"] == "websocket":
        await send({"type": "websocket.accept"})
    elif scope["path"] == "/events":
        headers = [(b"content-type", b"text/event-stream")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": b"data: a\n\n", "more_body": True})
    else:
        await send({"type": "http.response.debug"})
    while not (await receive())["type"].endswith(".disconnect"):
        pass


@pytest.fixture
async def doors(service: Service) -> AsyncIterator[tuple[OIDCMiddleware, OIDCMiddleware]]:
    oidc = service()
    inner = OIDCMiddleware(held, oidc=oidc, realm="inner")
    yield OIDCMiddleware(inner, oidc=oidc), inner
    await oidc.stop()


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("scope", "last"),
    [
        ({"type": "websocket"}, {"type": "websocket.close", "code": 1008, "reason": "revoked"}),
        ({"path": "/events"}, {"type": "http.response.body", "body": b"", "more_body": False}),
        ({"path": "/waits"}, None),
    ],
    ids=["websocket", "events", "waits"],
)
async def test_a_connection_is_watched_once_and_ends_once(
    scope: dict[str, Any],
    last: Message | None,
    doors: tuple[OIDCMiddleware, OIDCMiddleware],
    issuer: FakeIssuer,
) -> None:
    outer, inner = doors
    token = issuer.token("alice", audience=ONE)
    connection = Connection(outer, {**http_scope(token=token), **scope})
    await until(lambda: bool(connection.sent))
    watched = outer.live.stats()
    assert watched["waiting"] + watched["indexed"] >= 1
    assert not any(inner.live.stats().values())
    before = len(connection.sent)
    await outer.oidc.revoke.token(token)
    async with asyncio.timeout(SECONDS):
        await connection.task
    ending = connection.sent[before:]
    if last is None:
        assert [message.get("status") for message in ending] == [401, None]
    else:
        assert ending[-1] == last
    await until(lambda: not any(outer.live.stats().values()))
    assert not any(inner.live.stats().values())


@pytest.mark.anyio
async def test_whom_the_second_door_finds_it_watches(service: Service, issuer: FakeIssuer) -> None:
    """A public path of the first door: nobody else knows of the identity."""
    oidc = service()
    inner = OIDCMiddleware(held, oidc=oidc)
    outer = OIDCMiddleware(inner, oidc=oidc, public=["/events"])
    token = issuer.token("alice", audience=ONE)
    connection = Connection(outer, http_scope("/events", token))
    await until(lambda: len(connection.sent) == 2)
    assert inner.live.stats()["indexed"] > 0
    assert not any(outer.live.stats().values())
    await oidc.revoke.token(token)
    async with asyncio.timeout(SECONDS):
        await connection.task
    assert connection.sent[-1] == {"type": "http.response.body", "body": b"", "more_body": False}
    await oidc.stop()


@pytest.mark.anyio
async def test_another_identity_behind_the_first_door_is_watched_by_the_second(
    service: Service, issuer: FakeIssuer
) -> None:
    oidc = service()
    token = issuer.token("bob", audience=ONE)
    inner = OIDCMiddleware(held, oidc=oidc)
    swap = between(inner, lambda scope: scope.update(headers=[(b"authorization", f"Bearer {token}".encode())]))
    connection = Connection(OIDCMiddleware(swap, oidc=oidc), http_scope("/events", issuer.token("alice", audience=ONE)))
    await until(lambda: len(connection.sent) == 2)
    await oidc.revoke.token(token)
    async with asyncio.timeout(SECONDS):
        await connection.task
    assert connection.sent[-1] == {"type": "http.response.body", "body": b"", "more_body": False}
    await oidc.stop()


@pytest.mark.anyio
async def test_a_token_in_a_subprotocol_that_the_second_door_does_not_read(
    service: Service, issuer: FakeIssuer
) -> None:
    """The first one has; what it found holds. Without a first one the second door finds no credentials."""
    oidc = service()
    inner = OIDCMiddleware(held, oidc=oidc)
    outer = OIDCMiddleware(inner, oidc=oidc, websocket_token="subprotocol")
    token = issuer.token("alice", audience=ONE)
    scope = http_scope(type="websocket", subprotocols=["chat", f"bearer.{token}"])
    scope["headers"].append((b"sec-websocket-protocol", f"chat, bearer.{token}".encode()))
    connection = Connection(outer, dict(scope))
    await until(lambda: bool(connection.sent))
    assert connection.sent == [{"type": "websocket.accept"}]
    alone = Connection(inner, dict(scope))
    await alone.task
    assert [message["type"] for message in alone.sent] == ["websocket.close"]
    await oidc.revoke.token(token)
    async with asyncio.timeout(SECONDS):
        await connection.task
    await oidc.stop()

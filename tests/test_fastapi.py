"""The dependencies of `OIDCAuth`, without the middleware: who gets in, who does not, and what they are told."""

# ruff: noqa: B008, FAST002  an annotation is a string here, and cannot name a fixture
from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from typing import Any

import httpx2
import pytest
from fastapi import APIRouter, Depends, FastAPI, HTTPException, Request, Security, WebSocket
from fastapi.responses import JSONResponse
from pydantic import BaseModel
from starlette.exceptions import HTTPException as StarletteHTTPException
from starlette.testclient import TestClient, WebSocketDenialResponse
from starlette.websockets import WebSocketDisconnect

from oidc_middleware import OIDC, OIDCMiddleware, Principal, Rule, Settings, requires
from oidc_middleware.core.patterns import PolicyError
from oidc_middleware.errors import BackendUnavailable, ConfigError, OIDCError
from oidc_middleware.fastapi import OIDCAuth, Refused, require
from oidc_middleware.testing import FakeIssuer, ManualClock, faults


class Item(BaseModel):
    """What clients send."""

    name: str


@pytest.fixture
def issuer(fake_issuer_factory: Callable[..., FakeIssuer]) -> FakeIssuer:
    return fake_issuer_factory(algorithms=("ES256",))


@pytest.fixture
def make_oidc(issuer: FakeIssuer, oidc_clock: ManualClock) -> Callable[..., OIDC]:
    def make(**settings: Any) -> OIDC:
        needed = {"issuer": issuer.url, "audience": issuer.audience}
        return OIDC(transport=issuer.transport(), clock=oidc_clock, **(needed | settings))

    return make


@pytest.fixture
def auth(make_oidc: Callable[..., OIDC]) -> OIDCAuth:
    return OIDCAuth(oidc=make_oidc())


def app_of(auth: OIDCAuth) -> FastAPI:
    """Return an app with one operation of each kind."""
    app = FastAPI()

    @app.get("/me")
    async def me(request: Request, user: Principal = Depends(auth.current_user)) -> dict[str, Any]:
        assert request.user is user
        assert OIDC.from_request(request) is auth.oidc
        return {"identity": user.identity, "scopes": request.auth.scopes}

    @app.get("/threaded")
    def threaded(user: Principal = Depends(auth.current_user)) -> str:
        return user.identity

    @app.get("/open")
    async def anybody() -> int:
        return 1

    @app.get("/optional")
    async def optional(request: Request, user: Principal | None = Depends(auth.optional_user)) -> str:
        return user.identity if user else f"nobody, {request.user.is_authenticated}"

    @app.post("/items", dependencies=[Depends(auth.require("items:write"))])
    async def item(item: Item) -> str:
        return item.name

    @app.get("/any", dependencies=[Depends(auth.require(any_scopes=("read", "admin")))])
    async def either() -> int:
        return 1

    @app.get("/role", dependencies=[Depends(auth.require(claims={"realm_access.roles": "admin"}))])
    async def role() -> int:
        return 1

    @app.post("/log-out")
    async def log_out(user: Principal = Depends(auth.current_user)) -> None:
        await auth.oidc.revoke.token(user.token)

    @app.websocket("/ws")
    async def socket(websocket: WebSocket, user: Principal = Depends(auth.require("live"))) -> None:
        await websocket.accept(websocket.scope["subprotocols"][0] if websocket.scope["subprotocols"] else None)
        await websocket.send_text(user.subject or "")
        await websocket.close()

    return app


@pytest.fixture(params=["installed", "started by the first request"])
def client(auth: OIDCAuth, request: pytest.FixtureRequest) -> Iterator[TestClient]:
    app = app_of(auth)
    if request.param == "installed":
        auth.install(app)
        with TestClient(app) as client:
            assert auth.oidc._users == 1
            yield client
        assert auth.oidc._users == 0
        return
    yield TestClient(app)


@pytest.fixture
def plain(auth: OIDCAuth) -> TestClient:
    return TestClient(app_of(auth))


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


def test_a_good_token(client: TestClient, issuer: FakeIssuer) -> None:
    headers = bearer(issuer.token("alice", scope="b a"))
    for _ in range(2):  # known the second time
        assert client.get("/me", headers=headers).json() == {"identity": f"{issuer.url}#alice", "scopes": ["a", "b"]}
    assert client.get("/threaded", headers=headers).json() == f"{issuer.url}#alice"


def test_no_token(client: TestClient) -> None:
    answer = client.get("/me")
    assert (answer.status_code, answer.headers["WWW-Authenticate"]) == (401, 'Bearer realm="oidc"')
    assert answer.json() == {"error": "missing_token", "error_description": "Authentication is required."}
    assert answer.headers["Cache-Control"] == "no-store"
    assert client.get("/open").json() == 1


def test_a_bad_token(client: TestClient, issuer: FakeIssuer) -> None:
    answer = client.get("/me", headers=bearer(issuer.token(audience="https://other.example")))
    assert answer.status_code == 401
    assert 'error="invalid_token"' in answer.headers["WWW-Authenticate"]
    assert answer.json() == {"error": "invalid_token", "error_description": "The access token is invalid."}


@pytest.mark.parametrize("path", ["/me", "/optional"])
def test_two_credentials_are_one_too_many(client: TestClient, issuer: FakeIssuer, path: str) -> None:
    token = issuer.token()
    twice = [("Authorization", f"Bearer {token}")] * 2
    for request in ({"headers": twice}, {"headers": bearer(token), "params": {"access_token": "x"}}):
        answer = client.get(path, **request)
        assert (answer.status_code, answer.json()["error"]) == (400, "invalid_request")
    assert client.get(path, headers={"Authorization": f"Bearer {token}, Bearer {token}"}).status_code == 400


def test_another_scheme_is_no_credential(client: TestClient) -> None:
    answer = client.get("/me", headers={"Authorization": "Basic YTpi"})
    assert (answer.status_code, answer.headers["WWW-Authenticate"]) == (401, 'Bearer realm="oidc"')
    answer = client.get("/optional", headers={"Authorization": "Basic YTpi"})
    assert (answer.status_code, answer.json()) == (200, "nobody, False")


def test_an_optional_user(client: TestClient, issuer: FakeIssuer) -> None:
    """P-optional-auth."""
    assert client.get("/optional").json() == "nobody, False"
    assert client.get("/optional", headers=bearer(issuer.token("bob"))).json() == f"{issuer.url}#bob"
    assert client.get("/optional", headers=bearer("garbage")).status_code == 401


def test_a_scope_and_then_the_body(client: TestClient, issuer: FakeIssuer) -> None:
    """401 before 403 before 422: who may not get in learns nothing of the schema."""
    assert client.post("/items", json={}).status_code == 401
    answer = client.post("/items", json={}, headers=bearer(issuer.token(scope="items:read")))
    assert answer.status_code == 403
    assert answer.json()["error"] == "insufficient_scope"
    assert answer.headers["WWW-Authenticate"].endswith('scope="items:write"')
    headers = bearer(issuer.token(scope="items:write"))
    assert client.post("/items", json={}, headers=headers).status_code == 422
    assert client.post("/items", json={"name": "tea"}, headers=headers).json() == "tea"


def test_one_of_several_scopes(client: TestClient, issuer: FakeIssuer) -> None:
    answer = client.get("/any", headers=bearer(issuer.token(scope="write")))
    assert (answer.status_code, 'scope="read admin"' in answer.headers["WWW-Authenticate"]) == (403, True)
    assert client.get("/any", headers=bearer(issuer.token(scope="write admin"))).status_code == 200


def test_a_claim(client: TestClient, issuer: FakeIssuer) -> None:
    answer = client.get("/role", headers=bearer(issuer.token(claims={"realm_access": {"roles": ["user"]}})))
    assert (answer.status_code, "scope=" in answer.headers["WWW-Authenticate"]) == (403, False)
    headers = bearer(issuer.token(claims={"realm_access": {"roles": ["user", "admin"]}}))
    assert client.get("/role", headers=headers).status_code == 200


def test_what_is_revoked_is_refused(client: TestClient, issuer: FakeIssuer) -> None:
    headers = bearer(issuer.token("alice"))
    assert client.get("/me", headers=headers).status_code == 200
    assert client.post("/log-out", headers=headers).status_code == 200
    assert client.get("/me", headers=headers).status_code == 401


def test_what_has_expired_is_refused(client: TestClient, issuer: FakeIssuer, oidc_clock: ManualClock) -> None:
    headers = bearer(issuer.token("alice", expires_in=60))
    assert client.get("/me", headers=headers).status_code == 200
    oidc_clock.advance(91)
    assert client.get("/me", headers=headers).status_code == 401


def test_an_issuer_that_is_down(plain: TestClient, issuer: FakeIssuer) -> None:
    issuer.fault("*", faults.status(500))
    answer = plain.get("/me", headers=bearer(issuer.token()))
    assert (answer.status_code, answer.json()["error"]) == (503, "temporarily_unavailable")
    assert int(answer.headers["Retry-After"]) >= 1
    assert "WWW-Authenticate" not in answer.headers


def test_realm_and_on_error_of_the_settings(make_oidc: Callable[..., OIDC]) -> None:
    def on_error(_: object, error: OIDCError) -> JSONResponse:
        return JSONResponse({"mine": error.code}, status_code=200)

    client = TestClient(app_of(OIDCAuth(oidc=make_oidc(realm="orders", on_error=on_error))))
    answer = client.get("/me")
    assert (answer.status_code, answer.json()) == (401, {"mine": "missing_token"})
    assert answer.headers["WWW-Authenticate"] == 'Bearer realm="orders"'


def test_an_opaque_token(make_oidc: Callable[..., OIDC], issuer: FakeIssuer) -> None:
    """The issuer is asked once for many requests at a time, as at the door (I-concurrent)."""
    client = issuer.client("api", secret="secret")
    oidc = make_oidc(client_id=client.client_id, client_secret="secret")
    app = app_of(OIDCAuth(oidc=oidc))
    headers = bearer(issuer.opaque_token("alice"))

    async def ask() -> list[int]:
        transport = httpx2.ASGITransport(app)
        async with oidc, httpx2.AsyncClient(transport=transport, base_url="http://test", trust_env=False) as http:
            answers = await asyncio.gather(*(http.get("/me", headers=headers) for _ in range(64)))
        return [answer.status_code for answer in answers]

    assert asyncio.run(ask()) == [200] * 64
    assert oidc.stats()["issuers"][issuer.url]["introspections"] == 1


def test_a_browser_gets_a_page(plain: TestClient) -> None:
    answer = plain.get("/me", headers={"Accept": "text/html"})
    assert (answer.status_code, answer.headers["Content-Type"]) == (401, "text/html; charset=utf-8")


# Scopes along the chain


def test_all_scopes_of_the_chain_are_required_and_named(auth: OIDCAuth, issuer: FakeIssuer) -> None:
    app = FastAPI()

    def service(user: Principal = Security(auth.require("d"), scopes=["c"])) -> Principal:
        return user

    router = APIRouter(dependencies=[Depends(auth.require("a"))])

    @router.get("/x")
    async def x(user: Principal = Security(service, scopes=["b"])) -> str:
        return user.subject or ""

    app.include_router(router, prefix="/r", dependencies=[Security(auth.current_user, scopes=["e"])])
    client = TestClient(app)

    assert client.get("/r/x").headers["WWW-Authenticate"] == 'Bearer scope="e a b c d"'
    for granted in ("", "a", "a b c d", "b c d e", "a c d e", "a b d e", "a b c e"):
        answer = client.get("/r/x", headers=bearer(issuer.token(scope=granted)))
        assert answer.status_code == 403, granted
        assert answer.headers["WWW-Authenticate"].count("scope=") == 1
        assert answer.headers["WWW-Authenticate"].endswith('scope="e a b c d"')
    assert client.get("/r/x", headers=bearer(issuer.token("alice", scope="a b c d e"))).json() == "alice"


def test_a_dependency_that_asks_the_same_is_the_same(auth: OIDCAuth, make_oidc: Callable[..., OIDC]) -> None:
    assert auth.require("a", claims={"x": 1}) == auth.require("a", claims={"x": 1})
    assert hash(auth.require("a")) == hash(auth.require("a"))
    assert auth.require("a") != auth.require("b")
    assert auth.require("a") != OIDCAuth(oidc=make_oidc()).require("a")
    assert auth.require() == auth.current_user != auth.optional_user
    assert auth.require() != auth.claims_of(Item)
    assert auth.claims_of(Item) == auth.claims_of(Item)


def test_claims_that_are_equal_in_python_alone_are_both_asked(auth: OIDCAuth, issuer: FakeIssuer) -> None:
    """FastAPI resolves equal dependencies once: the second would be left out."""
    app = FastAPI()
    both = [Depends(auth.require(claims={"admin": value})) for value in (1, True)]

    @app.get("/", dependencies=both)
    async def admin() -> None: ...

    assert TestClient(app).get("/", headers=bearer(issuer.token(claims={"admin": 1}))).status_code == 403


def test_a_user_of_another_service_is_none_of_the_door(
    make_oidc: Callable[..., OIDC], fake_issuer_factory: Callable[..., FakeIssuer], issuer: FakeIssuer
) -> None:
    other = fake_issuer_factory("https://partner.example", algorithms=("ES256",))
    partners = OIDCAuth(oidc=OIDC(issuer=other.url, audience=other.audience, transport=other.transport()))
    app = FastAPI()

    @app.get("/partner")
    async def partner(request: Request, user: Principal = Depends(partners.current_user)) -> list[Any]:
        return [user.issuer, request.user.is_authenticated]

    @app.get("/by-dependency", dependencies=[Depends(require("admin"))])
    async def by_dependency(user: Principal = Depends(partners.current_user)) -> None: ...

    @app.get("/in-front", dependencies=[Depends(partners.current_user), Depends(require("admin"))])
    async def in_front() -> None: ...

    @app.get("/by-decorator")
    @requires("admin")
    async def by_decorator(request: Request, user: Principal = Depends(partners.current_user)) -> None: ...

    app.add_middleware(
        OIDCMiddleware, oidc=make_oidc(public=["/partner", "/by-dependency", "/in-front", "/by-decorator"])
    )
    client = TestClient(app)
    headers = bearer(other.token("admin", scope="admin"))
    assert client.get("/partner", headers=headers).json() == [other.url, False]
    for path in ("/by-dependency", "/in-front", "/by-decorator"):
        assert (path, client.get(path, headers=headers).status_code) == (path, 401)


def test_a_test_replaces_the_user(auth: OIDCAuth) -> None:
    app = app_of(auth)
    app.dependency_overrides[auth.require("items:write")] = lambda: None
    assert TestClient(app).post("/items", json={"name": "tea"}).json() == "tea"


def test_a_requirement_that_cannot_work(auth: OIDCAuth) -> None:
    with pytest.raises(PolicyError, match="scopes holds"):
        auth.require("read write")


# Refusals and the app's own handlers


def test_a_handler_of_the_app_for_refusals(auth: OIDCAuth) -> None:
    app = app_of(auth)

    @app.exception_handler(Refused)
    async def mine(_: Request, refused: Refused) -> JSONResponse:
        return JSONResponse({"code": refused.error.code}, refused.status_code, refused.headers)

    answer = TestClient(app).get("/me")
    assert (answer.status_code, answer.json()) == (401, {"code": "missing_token"})
    assert answer.headers["WWW-Authenticate"] == 'Bearer realm="oidc"'


def test_a_handler_for_all_http_exceptions_leaves_refusals_alone(auth: OIDCAuth) -> None:
    app = app_of(auth)

    @app.exception_handler(HTTPException)
    async def mine(_: Request, error: HTTPException) -> JSONResponse:
        return JSONResponse({"uniform": error.detail}, error.status_code, error.headers)

    assert TestClient(app).get("/me").json()["error"] == "missing_token"


def test_a_handler_for_a_status_goes_first_and_has_the_challenge(auth: OIDCAuth) -> None:
    app = app_of(auth)

    @app.exception_handler(401)
    async def mine(_: Request, error: StarletteHTTPException) -> JSONResponse:
        return JSONResponse({"mine": error.detail}, error.status_code, error.headers)

    answer = TestClient(app).get("/me")
    assert (answer.status_code, answer.json()) == (401, {"mine": "Authentication is required."})
    assert answer.headers["WWW-Authenticate"] == 'Bearer realm="oidc"'


def test_a_handler_for_all_exceptions_does_not_make_a_refusal_a_failure(auth: OIDCAuth) -> None:
    app = app_of(auth)

    @app.exception_handler(Exception)
    async def mine(_: Request, __: Exception) -> JSONResponse:
        return JSONResponse("swallowed", 200)

    assert TestClient(app).get("/me").status_code == 401


def test_a_mounted_app_refuses_as_well(auth: OIDCAuth, issuer: FakeIssuer) -> None:
    outer = FastAPI()
    outer.mount("/inner", app_of(auth))
    client = TestClient(outer)
    answer = client.post("/inner/items", json={"name": "tea"}, headers=bearer(issuer.token(scope="other")))
    assert answer.status_code == 403
    assert answer.headers["WWW-Authenticate"].endswith('scope="items:write"')
    assert client.get("/inner/me", headers=bearer(issuer.token("alice"))).status_code == 200


def test_a_dependency_with_yield_sees_an_http_exception(auth: OIDCAuth) -> None:
    seen = []

    def session() -> Iterator[None]:
        try:
            yield
        except StarletteHTTPException as error:
            seen.append(str(error))
            raise

    app = FastAPI()

    @app.get("/x", dependencies=[Depends(session), Depends(auth.current_user)])
    async def x() -> None: ...

    assert TestClient(app).get("/x").status_code == 401
    assert seen == ["401: missing_token: no credentials"]


def test_the_log_says_why_and_holds_no_token(
    plain: TestClient, issuer: FakeIssuer, caplog: pytest.LogCaptureFixture
) -> None:
    token = issuer.token(scope="items:read")
    with caplog.at_level(logging.INFO, "oidc_middleware"):
        plain.post("/items", json={}, headers=bearer(token))
    assert "scope items:write is missing" in caplog.text
    assert token not in caplog.text


# WebSockets


def test_a_websocket(client: TestClient, issuer: FakeIssuer) -> None:
    with client.websocket_connect("/ws", headers=bearer(issuer.token("alice", scope="live"))) as websocket:
        assert websocket.receive_text() == "alice"


@pytest.mark.parametrize(("token", "status"), [(False, 401), (True, 403)])
def test_a_websocket_is_refused_before_it_is_accepted(
    client: TestClient, issuer: FakeIssuer, token: bool, status: int
) -> None:
    headers = bearer(issuer.token("alice")) if token else {}
    with pytest.raises(WebSocketDenialResponse) as denied, client.websocket_connect("/ws", headers=headers):
        pass
    assert denied.value.status_code == status
    assert denied.value.headers["WWW-Authenticate"].endswith('scope="live"')


def test_a_websocket_is_closed_where_it_cannot_be_denied(auth: OIDCAuth) -> None:
    inner = app_of(auth)

    async def old(scope: Any, receive: Any, send: Any) -> None:
        await inner({**scope, "extensions": {}}, receive, send)

    with pytest.raises(WebSocketDisconnect), TestClient(old).websocket_connect("/ws"):
        pass


def test_a_websocket_that_another_dependency_accepted_is_closed(auth: OIDCAuth) -> None:
    app = FastAPI()

    async def accept(websocket: WebSocket) -> None:
        await websocket.accept()

    @app.websocket("/ws", dependencies=[Depends(accept), Depends(auth.current_user)])
    async def socket(websocket: WebSocket) -> None: ...

    with TestClient(app).websocket_connect("/ws") as websocket, pytest.raises(WebSocketDisconnect) as closed:
        websocket.receive_text()
    assert closed.value.code == 1008


def test_a_token_in_a_subprotocol(make_oidc: Callable[..., OIDC], issuer: FakeIssuer) -> None:
    client = TestClient(app_of(OIDCAuth(oidc=make_oidc(websocket_token="subprotocol"))))
    token = issuer.token("alice", scope="live")
    with client.websocket_connect("/ws", subprotocols=[f"bearer.{token}", "chat"]) as websocket:
        chosen: object = websocket.accepted_subprotocol
        assert chosen == "chat"
        assert websocket.receive_text() == "alice"
    with (
        pytest.raises(WebSocketDenialResponse) as denied,
        client.websocket_connect("/ws", subprotocols=[f"bearer.{token}"], headers=bearer(token)),
    ):
        pass
    assert denied.value.status_code == 400


# Settings


def test_settings_as_keywords_or_as_settings(issuer: FakeIssuer) -> None:
    assert OIDCAuth(issuer=issuer.url, audience=issuer.audience).oidc.settings.issuer == issuer.url
    settings = Settings(issuer=issuer.url, audience=issuer.audience)
    assert OIDCAuth(settings).oidc.settings is settings


@pytest.mark.parametrize(
    ("arguments", "field"),
    [
        ({}, "issuer"),
        *(
            ({"issuer": "https://login.example.com", "audience": "a", name: value}, name)
            for name, value in {
                "public": ["/open"],
                "optional": ["/maybe"],
                "rules": [Rule("/x", scopes=["x"])],
                "ambiguous_paths": "protect",
                "preflight": "protect",
                "prefix": "/auth",
                "admin_scope": "admin",
                "revoke_endpoint": True,
                "staleness_header": True,
                "close_on_expiry": False,
                "forward_auth": True,
                "pass_access_token": True,
                "trusted_proxies": "10.0.0.1",
            }.items()
        ),
        (
            {
                "issuer": "https://login.example.com",
                "audience": "a",
                "client_id": "web",
                "client_secret": "s",
                "login": True,
                "base_url": "https://app.example.com",
            },
            "login",
        ),
        ({"oidc": "https://login.example.com"}, "oidc"),
    ],
)
def test_settings_that_cannot_work(arguments: dict[str, Any], field: str) -> None:
    with pytest.raises(ConfigError) as refused:
        OIDCAuth(**arguments)
    assert refused.value.field == field


def test_a_service_beside_settings(auth: OIDCAuth) -> None:
    with pytest.raises(ConfigError, match="given beside other settings"):
        OIDCAuth(oidc=auth.oidc, issuer="https://login.example.com")


def test_the_lifespan_of_the_app_stays(auth: OIDCAuth) -> None:
    seen = []

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[dict[str, int]]:
        seen.append(auth.oidc.started)
        yield {"answer": 42}
        seen.append(auth.oidc.started)

    app = FastAPI(lifespan=lifespan)
    auth.install(app)

    @app.get("/answer")
    async def answer(request: Request) -> int:
        return int(request.state.answer)

    with TestClient(app) as client:
        assert client.get("/answer").json() == 42
    assert seen == [True, True]
    assert auth.oidc._users == 0


def test_one_service_for_the_middleware_and_the_dependencies(
    make_oidc: Callable[..., OIDC], issuer: FakeIssuer
) -> None:
    auth = OIDCAuth(oidc=make_oidc(public=["/open", "/optional"]))
    app = app_of(auth)
    app.add_middleware(OIDCMiddleware, oidc=auth.oidc)
    client = TestClient(app)
    headers = bearer(issuer.token("alice"))
    assert client.get("/me", headers=headers).json()["identity"] == f"{issuer.url}#alice"
    assert client.get("/me").status_code == 401
    assert client.get("/open").json() == 1
    assert client.get("/optional", headers=headers).json() == f"{issuer.url}#alice"


def test_a_failure_that_is_none_of_ours_is_one(auth: OIDCAuth, issuer: FakeIssuer, monkeypatch: Any) -> None:
    """A cache that cannot be asked is 503, a mistake is 500: never 200."""

    async def unavailable(_: bytes) -> None:
        raise BackendUnavailable("gone")

    async def broken(_: bytes) -> None:
        raise RuntimeError("ours")

    client = TestClient(app_of(auth), raise_server_exceptions=False)
    for function, status in ((unavailable, 503), (broken, 500)):
        monkeypatch.setattr(auth.oidc.authenticator, "authenticate", function)
        assert client.get("/me", headers=bearer(issuer.token())).status_code == status

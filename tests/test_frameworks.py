"""The middleware inside Starlette: the user, `requires`, exception handlers, and every other middleware around it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
from lifecycle_kit import http_scope
from starlette.applications import Starlette
from starlette.authentication import UnauthenticatedUser, requires
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.middleware.cors import CORSMiddleware
from starlette.middleware.gzip import GZipMiddleware
from starlette.middleware.sessions import SessionMiddleware
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse
from starlette.routing import Mount, Route, WebSocketRoute
from starlette.testclient import TestClient, WebSocketDenialResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from starlette.websockets import WebSocket, WebSocketDisconnect

from oidc_middleware import OIDC, OIDCMiddleware, Principal
from oidc_middleware.testing import FakeIssuer, ManualClock

Call = Callable[[Request], Awaitable[Response]]


@pytest.fixture
def issuer(fake_issuer_factory: Callable[..., FakeIssuer]) -> FakeIssuer:
    return fake_issuer_factory(algorithms=("ES256",))


@pytest.fixture
def door(issuer: FakeIssuer, oidc_clock: ManualClock) -> Callable[..., Middleware]:
    def make(**settings: Any) -> Middleware:
        oidc = OIDC(
            issuer=issuer.url, audience=issuer.audience, transport=issuer.transport(), clock=oidc_clock, **settings
        )
        return Middleware(OIDCMiddleware, oidc=oidc)

    return make


Door = Callable[..., Middleware]


def service(door: Middleware) -> OIDC:
    found = door.kwargs["oidc"]
    assert isinstance(found, OIDC)
    return found


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


async def greet(request: Request) -> Response:
    return PlainTextResponse(request.user.display_name)


# Who it is


def test_the_user_of_a_request(door: Door, issuer: FakeIssuer) -> None:
    def describe(request: Request) -> Response:  # in a thread, as all handlers that are no coroutines
        user = request.user
        assert isinstance(user, Principal)
        return JSONResponse(
            {
                "identity": user.identity,
                "subject": user.subject,
                "name": user.display_name,
                "client": user.client_id,
                "scopes": sorted(user.scopes),
                "auth": request.auth.scopes,
                "claims": user.claims,
                "is_authenticated": user.is_authenticated,
                "token": user.token,
            }
        )

    client = TestClient(Starlette(routes=[Route("/", describe)], middleware=[door()]))
    token = issuer.token("alice", scope="write read", client_id="web", claims={"name": "Alice", "a": {"b": [1]}})
    seen = client.get("/", headers=bearer(token)).json()
    assert seen.pop("claims").items() >= {"name": "Alice", "a": {"b": [1]}, "sub": "alice"}.items()
    assert seen == {
        "identity": f"{issuer.url}#alice",
        "subject": "alice",
        "name": "Alice",
        "client": "web",
        "scopes": ["read", "write"],
        "auth": ["read", "write"],
        "is_authenticated": True,
        "token": token,
    }


@pytest.mark.parametrize("token", ["none", "good", "bad"])
def test_on_public_paths_the_user_is_starlettes_nobody(door: Door, issuer: FakeIssuer, token: str) -> None:
    """Credentials are not even read there."""

    async def describe(request: Request) -> Response:
        assert type(request.user) is UnauthenticatedUser
        assert not request.user.is_authenticated
        return JSONResponse(request.auth.scopes)

    client = TestClient(Starlette(routes=[Route("/open", describe)], middleware=[door(public=["/open"])]))
    headers = {"none": {}, "good": bearer(issuer.token(scope="read")), "bad": {"Authorization": "Bearer x y"}}[token]
    assert client.get("/open", headers=headers).json() == []


def test_what_a_handler_does_to_the_scopes_reaches_no_other_request(door: Door, issuer: FakeIssuer) -> None:
    async def grab(request: Request) -> Response:
        request.auth.scopes.append("admin")
        return JSONResponse(request.auth.scopes)

    client = TestClient(Starlette(routes=[Route("/", grab)], middleware=[door()]))
    token = issuer.token(scope="read")
    assert [client.get("/", headers=bearer(token)).json() for _ in range(3)] == [["read"]] * 3


def test_the_service_behind_a_request(door: Door, issuer: FakeIssuer) -> None:
    seen: list[OIDC] = []

    async def look(request: Request) -> Response:
        seen.extend((OIDC.from_request(request), OIDC.from_scope(request.scope)))
        return PlainTextResponse("")

    middleware = door()
    TestClient(Starlette(routes=[Route("/", look)], middleware=[middleware])).get("/", headers=bearer(issuer.token()))
    assert seen == [service(middleware)] * 2


def test_without_the_middleware_there_is_no_service() -> None:
    async def look(request: Request) -> Response:
        with pytest.raises(LookupError, match="no OIDCMiddleware stands in front of this app"):
            OIDC.from_request(request)
        with pytest.raises(LookupError, match="no OIDCMiddleware stands in front of this app"):
            OIDC.from_scope(request.scope)
        return PlainTextResponse("none")

    assert TestClient(Starlette(routes=[Route("/", look)])).get("/").text == "none"


# `requires`


@requires("admin")
async def admin(request: Request) -> Response:
    return PlainTextResponse("admin")


@requires(["read", "write"], status_code=404)
def hidden(request: Request) -> Response:
    return PlainTextResponse("found")


@requires("admin", redirect="home")
async def redirected(request: Request) -> Response:
    return PlainTextResponse("admin")


@requires("admin")
async def admin_socket(websocket: WebSocket) -> None:
    await websocket.accept()
    await websocket.send_text(websocket.user.subject)
    await websocket.close()


@pytest.fixture
def guarded(door: Door) -> TestClient:
    routes = [
        Route("/home", greet, name="home"),
        Route("/admin", admin),
        Route("/hidden", hidden),
        Route("/redirected", redirected),
        Route("/open", admin),
        WebSocketRoute("/ws", admin_socket),
    ]
    return TestClient(Starlette(routes=routes, middleware=[door(public=["/open"])]), follow_redirects=False)


@pytest.mark.parametrize(
    ("path", "scope", "status"),
    [
        ("/admin", None, 401),
        ("/admin", "read", 403),
        ("/admin", "administrator", 403),
        ("/admin", "read admin", 200),
        ("/hidden", "read", 404),
        ("/hidden", "write read", 200),
        ("/redirected", None, 401),
        ("/redirected", "read", 303),
        ("/redirected", "admin", 200),
        ("/open", None, 403),
        ("/open", "admin", 403),
    ],
)
def test_requires(guarded: TestClient, issuer: FakeIssuer, path: str, scope: str | None, status: int) -> None:
    """401 is the door's, before the app is asked; what follows is Starlette's own."""
    headers = {} if scope is None else bearer(issuer.token(scope=scope))
    answer = guarded.get(path, headers=headers)
    assert answer.status_code == status
    assert ("www-authenticate" in answer.headers) is (status == 401)


def test_requires_of_a_websocket(guarded: TestClient, issuer: FakeIssuer) -> None:
    with guarded.websocket_connect("/ws", headers=bearer(issuer.token("root", scope="admin"))) as websocket:
        assert websocket.receive_text() == "root"
    with (
        pytest.raises(WebSocketDisconnect),
        guarded.websocket_connect("/ws", headers=bearer(issuer.token(scope="read"))),
    ):
        pass
    with pytest.raises(WebSocketDenialResponse) as denied, guarded.websocket_connect("/ws"):
        pass
    assert denied.value.status_code == 401


# Errors


def test_exception_handlers_of_the_app_do_not_change_a_refusal(door: Door, issuer: FakeIssuer) -> None:
    """They are for what the app raises, and a refusal is an answer, not an exception."""

    async def swallow(_: Request, error: Exception) -> Response:
        status = error.status_code if isinstance(error, HTTPException) else 200
        return PlainTextResponse(f"swallowed {status}", 200)

    async def fail(_: Request) -> Response:
        raise HTTPException(401)

    app = Starlette(
        routes=[Route("/", fail)],
        middleware=[door(rules=[{"path": "/admin", "scopes": ["admin"]}])],
        exception_handlers={401: swallow, 403: swallow, 404: swallow, Exception: swallow},
    )
    client = TestClient(app)
    assert client.get("/").status_code == 401
    assert client.get("/admin", headers=bearer(issuer.token())).status_code == 403
    assert client.get("/", headers=bearer(issuer.token())).text == "swallowed 401"
    assert client.get("/nowhere", headers=bearer(issuer.token())).text == "swallowed 404"


def test_an_error_of_the_app_stays_the_apps(door: Door, issuer: FakeIssuer) -> None:
    async def crash(_: Request) -> Response:
        raise ZeroDivisionError

    client = TestClient(Starlette(routes=[Route("/", crash)], middleware=[door()]))
    with pytest.raises(ZeroDivisionError):
        client.get("/", headers=bearer(issuer.token()))


def test_an_unknown_path_is_401_first_and_404_then(door: Door, issuer: FakeIssuer) -> None:
    """Nobody learns without an identity which paths there are."""
    client = TestClient(Starlette(routes=[Route("/", greet)], middleware=[door()]))
    assert client.get("/nowhere").status_code == 401
    assert client.get("/nowhere", headers=bearer(issuer.token())).status_code == 404
    assert client.delete("/", headers=bearer(issuer.token())).status_code == 405


# Other middleware, on either side


class Stamping(BaseHTTPMiddleware):
    """Write into a header who the user is: before the app is asked, and after."""

    async def dispatch(self, request: Request, call_next: Call) -> Response:
        before = request.scope.get("user")
        response = await call_next(request)
        after = request.scope.get("user")
        response.headers["x-users"] = ",".join(getattr(user, "subject", "-") for user in (before, after))
        return response


@pytest.mark.parametrize(("side", "users"), [("outside", "-,alice"), ("inside", "alice,alice")])
def test_base_http_middleware(door: Door, issuer: FakeIssuer, side: str, users: str) -> None:
    middleware = [Middleware(Stamping), door()]
    app = Starlette(routes=[Route("/", greet)], middleware=middleware if side == "outside" else middleware[::-1])
    client = TestClient(app)
    assert client.get("/", headers=bearer(issuer.token("alice"))).headers["x-users"] == users
    refused = client.get("/")
    assert (refused.status_code, refused.headers.get("x-users")) == (401, "-,-" if side == "outside" else None)


ORIGIN = "https://app.example"
PREFLIGHT = {
    "Origin": ORIGIN,
    "Access-Control-Request-Method": "GET",
    "Access-Control-Request-Headers": "authorization",
}
CORS = Middleware(
    CORSMiddleware, allow_origins=[ORIGIN], allow_headers=["authorization"], expose_headers=["WWW-Authenticate"]
)


def test_cors_outermost(door: Door, issuer: FakeIssuer) -> None:
    """The place for it: the browser's script can read a refusal too."""
    client = TestClient(Starlette(routes=[Route("/", greet)], middleware=[CORS, door(preflight="protect")]))
    preflight = client.options("/", headers=PREFLIGHT)
    assert (preflight.status_code, preflight.headers["access-control-allow-origin"]) == (200, ORIGIN)
    refused = client.get("/", headers={"Origin": ORIGIN})
    assert (refused.status_code, refused.headers["access-control-allow-origin"]) == (401, ORIGIN)
    assert refused.headers["access-control-expose-headers"] == "WWW-Authenticate"
    allowed = client.get("/", headers={"Origin": ORIGIN} | bearer(issuer.token("alice")))
    assert (allowed.text, allowed.headers["access-control-allow-origin"]) == ("alice", ORIGIN)


def test_cors_inside(door: Door, issuer: FakeIssuer) -> None:
    """P-options: true preflights reach it, other OPTIONS do not, and a refusal has no CORS headers."""
    client = TestClient(Starlette(routes=[Route("/", greet)], middleware=[door(), CORS]))
    assert client.options("/", headers=PREFLIGHT).headers["access-control-allow-origin"] == ORIGIN
    assert client.options("/", headers={"Origin": ORIGIN}).status_code == 401
    refused = client.get("/", headers={"Origin": ORIGIN})
    assert (refused.status_code, "access-control-allow-origin" in refused.headers) == (401, False)
    allowed = client.get("/", headers={"Origin": ORIGIN} | bearer(issuer.token("alice")))
    assert allowed.headers["access-control-allow-origin"] == ORIGIN


@pytest.mark.parametrize("side", ["outside", "inside"])
def test_gzip(door: Door, issuer: FakeIssuer, side: str) -> None:
    async def large(_: Request) -> Response:
        return PlainTextResponse("large " * 1000)

    middleware = [Middleware(GZipMiddleware, minimum_size=10), door()]
    app = Starlette(routes=[Route("/", large)], middleware=middleware if side == "outside" else middleware[::-1])
    client = TestClient(app)
    answer = client.get("/", headers=bearer(issuer.token()))
    assert (answer.text, answer.headers["content-encoding"]) == ("large " * 1000, "gzip")
    refused = client.get("/")
    assert refused.json()["error"] == "missing_token"
    assert (refused.status_code, "www-authenticate" in refused.headers) == (401, True)


@pytest.mark.parametrize("side", ["outside", "inside"])
def test_sessions(door: Door, issuer: FakeIssuer, side: str) -> None:
    async def count(request: Request) -> Response:
        request.session["n"] = request.session.get("n", 0) + 1
        return JSONResponse([request.user.subject, request.session["n"]])

    middleware = [Middleware(SessionMiddleware, secret_key="x" * 32), door()]
    app = Starlette(routes=[Route("/", count)], middleware=middleware if side == "outside" else middleware[::-1])
    client = TestClient(app)
    headers = bearer(issuer.token("alice"))
    assert [client.get("/", headers=headers).json() for _ in range(3)] == [["alice", 1], ["alice", 2], ["alice", 3]]
    assert client.get("/").status_code == 401  # the cookie is no identity


def test_one_route_and_one_mount_with_a_door_of_their_own(door: Door, issuer: FakeIssuer) -> None:
    """Starlette's routes and mounts take middleware too; the rest of the app stays as it is."""
    routes = [
        Route("/open", lambda _: PlainTextResponse("open")),
        Route("/mine", greet, middleware=[door()]),
        Mount("/area", routes=[Route("/", greet), Route("/docs", lambda _: PlainTextResponse("docs"))],
              middleware=[door(public=["/docs"])]),
    ]  # fmt: skip
    client = TestClient(Starlette(routes=routes))
    headers = bearer(issuer.token("alice"))
    assert client.get("/open").text == "open"
    assert client.get("/mine").status_code == 401
    assert client.get("/mine", headers=headers).text == "alice"
    assert client.get("/area/").status_code == 401
    assert client.get("/area/", headers=headers).text == "alice"
    assert client.get("/area/docs").text == "docs"


# Bodies


async def through(app: ASGIApp, door: Middleware, scope: Scope, receive: Receive, send: Send) -> None:
    await OIDCMiddleware(app, oidc=service(door))(scope, receive, send)


@pytest.mark.anyio
async def test_the_app_gets_what_the_server_gave(door: Door, issuer: FakeIssuer) -> None:
    """The same messages, unchanged and in order, so whatever streams, waits or pushes back does so as without us."""
    given: list[object] = []
    start: Message = {"type": "http.response.start", "status": 200}
    asked: list[Message] = [{"type": "http.request", "body": b"a", "more_body": True}, {"type": "http.disconnect"}]
    answered: list[Message] = [{"type": "http.response.push"}, start]
    answered += [{"type": "http.response.body", "body": b"b", "more_body": more} for more in (True, True, False)]

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        given.extend((scope, await receive(), await receive()))
        for message in answered:
            await send(message)

    coming, sent = iter(asked), list[Message]()

    async def receive() -> Message:
        return next(coming)

    async def send(message: Message) -> None:
        sent.append(message)

    scope = http_scope("/", issuer.token(), method="POST", state={"a": 1}, extensions={"http.response.push": {}})
    before = dict(scope)
    middleware = door()
    await through(app, middleware, scope, receive, send)
    assert all(mine is theirs for mine, theirs in zip(given, [scope, *asked], strict=True))
    assert all(mine is theirs for mine, theirs in zip(sent, answered, strict=True))
    assert {name: scope[name] for name in before} == before
    assert scope.keys() - before.keys() == {"user", "auth", "oidc_middleware"}
    await service(middleware).stop()


@pytest.mark.anyio
@pytest.mark.parametrize("kind", ["http", "websocket"])
async def test_a_refusal_never_asks_for_the_body(door: Door, kind: str) -> None:
    """X-1xx: hence no 100 Continue, and no upload for nothing."""

    async def receive() -> Message:
        raise AssertionError

    sent: list[Message] = []

    async def send(message: Message) -> None:
        sent.append(message)

    middleware = door()
    scope = http_scope("/", method="POST", type=kind, extensions={"websocket.http.response": {}})
    await through(receive, middleware, scope, receive, send)  # type: ignore[arg-type]
    assert sent[0]["status"] == 401
    assert sum(len(message.get("body", b"")) for message in sent) < 1000
    await service(middleware).stop()


def test_an_upload_of_10_megabytes(door: Door, issuer: FakeIssuer) -> None:
    async def measure(request: Request) -> Response:
        sizes = [len(chunk) async for chunk in request.stream()]
        return JSONResponse(sum(sizes))

    client = TestClient(Starlette(routes=[Route("/", measure, methods=["POST"])], middleware=[door()]))
    body = bytes(10 * 1024 * 1024)
    assert client.post("/", content=body, headers=bearer(issuer.token())).json() == len(body)
    assert client.post("/", content=body).status_code == 401


@pytest.mark.anyio
async def test_a_stream_that_the_client_leaves(door: Door, issuer: FakeIssuer) -> None:
    """Starlette stops the stream when the client goes, as if we were not there."""
    sent: list[bytes] = []
    ended = asyncio.Event()
    gone = asyncio.Event()

    async def endless() -> AsyncIterator[bytes]:
        try:
            while True:
                yield b"tick"
                await asyncio.sleep(0)
        finally:
            ended.set()

    async def receive() -> Message:
        await gone.wait()
        return {"type": "http.disconnect"}

    async def send(message: Message) -> None:
        sent.append(message.get("body", b""))
        if len(sent) > 10:
            gone.set()

    middleware = door()
    async with asyncio.timeout(10):
        await through(StreamingResponse(endless()), middleware, http_scope("/", issuer.token()), receive, send)
        await ended.wait()
    assert b"".join(sent).startswith(b"tick" * 10)
    await service(middleware).stop()


@pytest.mark.anyio
async def test_a_slow_client_holds_the_stream_back(door: Door, issuer: FakeIssuer) -> None:
    """Back-pressure: nothing is produced that nobody takes."""
    made = 0
    taken = asyncio.Semaphore(0)

    async def chunks() -> AsyncIterator[bytes]:
        nonlocal made
        for _ in range(100):
            made += 1
            yield b"x"

    async def receive() -> Message:
        await asyncio.Event().wait()
        raise AssertionError

    async def send(_: Message) -> None:
        await taken.acquire()

    middleware = door()
    response = StreamingResponse(chunks())
    running = asyncio.ensure_future(through(response, middleware, http_scope("/", issuer.token()), receive, send))
    for n in range(10):
        taken.release()
        for _ in range(10):
            await asyncio.sleep(0)
        assert made <= n + 1
    running.cancel()
    await asyncio.wait((running,))
    await service(middleware).stop()


def test_json_bodies_and_answers_are_untouched(door: Door, issuer: FakeIssuer) -> None:
    async def echo(request: Request) -> Response:
        answer = Response(await request.body(), 201, media_type="application/json")
        for name in ("a", "b"):
            answer.set_cookie(name, name)
        return answer

    client = TestClient(Starlette(routes=[Route("/", echo, methods=["PUT"])], middleware=[door()]))
    body = json.dumps({"ä": ["€"] * 1000}).encode()
    answer = client.put("/", content=body, headers=bearer(issuer.token()))
    assert (answer.status_code, answer.content) == (201, body)
    assert len(answer.headers.get_list("set-cookie")) == 2
    assert "cache-control" not in answer.headers

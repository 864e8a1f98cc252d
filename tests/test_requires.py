"""`requires`: an endpoint, a class or an app asks more of the identity, and tells whoever lacks it what (RFC 6750)."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Callable
from functools import partial
from typing import Any, cast

import pytest
from fastapi import FastAPI
from lifecycle_kit import ask, http_scope
from starlette.applications import Starlette
from starlette.authentication import AuthCredentials, SimpleUser
from starlette.endpoints import HTTPEndpoint, WebSocketEndpoint
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import HTTPConnection, Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Mount, Route, WebSocketRoute
from starlette.testclient import TestClient, WebSocketDenialResponse
from starlette.types import ASGIApp, Receive, Scope, Send
from starlette.websockets import WebSocket, WebSocketDisconnect

from oidc_middleware import OIDC, OIDCMiddleware, Principal, Rule, optional_user, requires
from oidc_middleware.testing import FakeIssuer

FORBIDDEN = 'Bearer error="insufficient_scope", error_description="The access token does not permit this request."'


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


class Stand:
    """An app behind the middleware, and tokens for it."""

    def __init__(self, issuer: FakeIssuer) -> None:
        self.issuer = issuer

    def client(self, app: ASGIApp, **settings: Any) -> TestClient:
        oidc = OIDC(
            issuer=self.issuer.url, audience=self.issuer.audience, transport=self.issuer.transport(), **settings
        )
        return TestClient(OIDCMiddleware(app, oidc=oidc))

    def routes(self, *routes: Any, **settings: Any) -> TestClient:
        return self.client(Starlette(routes=routes), **settings)

    def headers(self, scope: str = "", **claims: Any) -> dict[str, str]:
        return bearer(self.issuer.token("alice", scope=scope, claims=claims))


@pytest.fixture
def stand(fake_issuer_factory: Callable[..., FakeIssuer]) -> Stand:
    return Stand(fake_issuer_factory(algorithms=("ES256",)))


def challenge(response: Any) -> tuple[int, str | None]:
    return response.status_code, response.headers.get("www-authenticate")


# Functions


@requires("read", "write")
async def in_the_loop(request: Request) -> Response:
    return PlainTextResponse(request.user.subject)


@requires("read", "write")
def in_a_thread(request: Request) -> Response:
    return PlainTextResponse(request.user.subject)


class Holder:
    @requires("read", "write")
    async def method(self, request: Request) -> Response:
        return PlainTextResponse(request.user.subject)


async def prefixed(prefix: str, request: Request) -> Response:
    return PlainTextResponse(prefix + request.user.subject)


ENDPOINTS: dict[str, Any] = {
    "async": in_the_loop,
    "sync": in_a_thread,
    "method": Holder().method,
    "partial": requires("read", "write")(partial(prefixed, "")),
}


@pytest.mark.parametrize("endpoint", ENDPOINTS.values(), ids=ENDPOINTS)
def test_a_function(endpoint: Any, stand: Stand) -> None:
    client = stand.routes(Route("/", endpoint), optional=["/{$}"], realm="orders")
    answer = client.get("/", headers=stand.headers("write read x"))
    assert (answer.status_code, answer.text) == (200, "alice")
    answer = client.get("/", headers=stand.headers("read"))
    assert challenge(answer) == (403, FORBIDDEN.replace(" ", ' realm="orders", ', 1) + ', scope="read write"')
    assert answer.json()["error"] == "insufficient_scope"
    assert answer.headers["cache-control"] == "no-store"
    answer = client.get("/")
    assert challenge(answer) == (401, 'Bearer realm="orders", scope="read write"')
    assert answer.json()["error"] == "missing_token"
    assert client.head("/").status_code == 401


def test_what_else_it_asks(stand: Stand) -> None:
    async def endpoint(request: Request) -> Response:
        return PlainTextResponse("in")

    client = stand.routes(
        Route("/any", requires(any_scopes=["a", "b"])(endpoint)),
        Route("/claims", requires(claims={"realm_access.roles": ["x", "admin"]})(endpoint)),
        Route("/audience", requires(audience="https://other.example")(endpoint)),
        Route("/identity", requires()(endpoint)),
    )
    both = [stand.issuer.audience, "https://other.example"]
    for path, good, bad, asked in (
        ("/any", stand.headers("b"), stand.headers("c"), ', scope="a b"'),
        ("/claims", stand.headers(realm_access={"roles": ["admin"]}), stand.headers(realm_access={"roles": "y"}), ""),
        ("/audience", stand.headers(aud=both), stand.headers(), ""),
    ):
        assert client.get(path, headers=good).status_code == 200
        assert challenge(client.get(path, headers=bad)) == (403, FORBIDDEN + asked)
    assert client.get("/identity", headers=stand.headers()).status_code == 200


@pytest.mark.parametrize("path", ["/public", "/optional"])
def test_any_identity_on_a_path_that_needs_none(path: str, stand: Stand) -> None:
    """On a public path nobody is anybody, whatever credentials come: they are not read there."""

    @requires()
    async def endpoint(request: Request) -> Response:
        return PlainTextResponse(request.user.subject)

    client = stand.routes(Route("/{path}", endpoint), public=["/public"], optional=["/optional"])
    assert challenge(client.get(path)) == (401, 'Bearer realm="oidc"')
    assert client.get(path, headers=stand.headers()).status_code == (401 if path == "/public" else 200)
    assert client.get(path, headers=bearer("x.y.z")).status_code == 401


def test_the_challenge_names_what_the_rule_asks_too(stand: Stand) -> None:
    """Else a client that gets a token with just these scopes would be refused by the rule, and so on for ever."""
    client = stand.routes(Route("/", in_the_loop), rules=[Rule("/*", scopes=["api", "read"])])
    assert challenge(client.get("/", headers=stand.headers("api read")))[1] == FORBIDDEN + ', scope="api read write"'


def test_one_upon_the_other_names_the_scopes_of_both(stand: Stand) -> None:
    def other_decorator(function: Callable[..., Any]) -> Callable[..., Any]:
        async def around(request: Request) -> Response:
            response: Response = await function(request)
            response.headers["x-around"] = "yes"
            return response

        around.__dict__.update(function.__dict__)  # as functools.wraps does
        return around

    @requires("a")
    @other_decorator
    @requires("b")
    async def endpoint(request: Request) -> Response:
        return PlainTextResponse("in")

    client = stand.routes(Route("/", endpoint))
    for scope in ("", "a", "b"):
        assert challenge(client.get("/", headers=stand.headers(scope))) == (403, FORBIDDEN + ', scope="a b"')
    answer = client.get("/", headers=stand.headers("a b"))
    assert (answer.text, answer.headers["x-around"]) == ("in", "yes")


def test_on_error_writes_the_body(stand: Stand) -> None:
    client = stand.routes(
        Route("/", in_the_loop), on_error=lambda conn, error: JSONResponse([conn.url.path, error.code, error.scopes])
    )
    answer = client.get("/", headers=stand.headers("read"))
    assert (answer.status_code, answer.json()) == (403, ["/", "insufficient_scope", ["read", "write"]])
    assert answer.headers["www-authenticate"] == FORBIDDEN + ', scope="read write"'


def test_the_log_says_where_and_what_is_missing(stand: Stand, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "oidc_middleware")
    stand.routes(Route("/", in_the_loop)).get("/", headers=stand.headers("read"))
    assert "refused '/' with 403: insufficient_scope: in_the_loop: scope write is missing" in caplog.messages


def test_a_user_of_somebody_else_is_none(stand: Stand) -> None:
    """A middleware further in that puts its own user there: what that user may do is not ours to say."""

    def replace(app: ASGIApp) -> ASGIApp:
        async def replaced(scope: Scope, receive: Receive, send: Send) -> None:
            await app({**scope, "user": SimpleUser("root"), "auth": AuthCredentials(["read", "write"])}, receive, send)

        return replaced

    client = stand.client(replace(Starlette(routes=[Route("/", in_the_loop)])))
    assert client.get("/", headers=stand.headers("read write")).status_code == 401


def test_the_decorated_function_is_still_that_function() -> None:
    assert in_the_loop.__name__ == "in_the_loop"
    assert list(inspect.signature(in_the_loop).parameters) == ["request"]
    assert inspect.iscoroutinefunction(in_the_loop)
    assert not inspect.iscoroutinefunction(in_a_thread)


@pytest.mark.anyio
async def test_without_a_middleware_it_says_so() -> None:
    app = Starlette(routes=[Route("/", in_the_loop), WebSocketRoute("/feed", feed), Route("/class", Guarded)])
    cure = "no OIDCMiddleware stands in front of it; add one: app.add_middleware"
    for scope in (http_scope("/"), http_scope("/class"), http_scope("/feed", type="websocket")):
        with pytest.raises(LookupError, match=cure):
            await ask(app, scope)
    with pytest.raises(LookupError, match=cure):
        await ask(requires("x")(app), http_scope("/"))
    with pytest.raises(LookupError, match="no OIDCMiddleware"):
        optional_user(HTTPConnection(http_scope("/")))


def test_fastapi(stand: Stand) -> None:
    app = FastAPI()

    @app.get("/orders/{number}")
    @requires("read")
    async def order(number: int, request: Request) -> dict[str, int]:
        return {"number": number}

    @app.put("/orders/{number}")
    @requires("write")
    def change(request: Request, number: int) -> dict[str, int]:
        return {"changed": number}

    @app.websocket("/feed/{number}")
    @requires("read")
    async def numbers(number: int, websocket: WebSocket) -> None:
        await websocket.accept()
        await websocket.send_text(str(number))
        await websocket.close()

    client = stand.client(app)
    assert client.get("/orders/7", headers=stand.headers("read")).json() == {"number": 7}
    assert client.put("/orders/7", headers=stand.headers("write")).json() == {"changed": 7}
    assert client.get("/orders/x", headers=stand.headers("read")).status_code == 422
    assert challenge(client.put("/orders/7", headers=stand.headers("read"))) == (403, FORBIDDEN + ', scope="write"')
    with client.websocket_connect("/feed/7", headers=stand.headers("read")) as socket:
        assert socket.receive_text() == "7"
    with pytest.raises(WebSocketDenialResponse), client.websocket_connect("/feed/7", headers=stand.headers("x")):
        pass


# What cannot work fails when it is imported


async def nothing_to_look_at(a: int, b: int, c: int) -> None:
    """Serve nobody."""


def a_generator(request: Request) -> Any:
    yield b""


async def an_async_generator(request: Request) -> Any:
    yield b""


def a_sync_socket(websocket: WebSocket) -> None:
    """Serve nobody."""


@pytest.mark.parametrize(
    ("endpoint", "message"),
    [
        (nothing_to_look_at, r"no parameter request or websocket in nothing_to_look_at\(a, b, c\): give it one"),
        (lambda: None, r"no parameter request or websocket in .*<lambda>\(\)"),
        (a_generator, "a_generator is a generator: return a StreamingResponse instead"),
        (an_async_generator, "an_async_generator is a generator"),
        (a_sync_socket, "a_sync_socket serves a WebSocket: write async def"),
        (dict, "HTTPEndpoint and WebSocketEndpoint classes"),
        (3, "3 is neither"),
    ],
)
def test_what_is_no_endpoint(endpoint: Any, message: str) -> None:
    with pytest.raises(TypeError, match=message):
        requires("read")(endpoint)


@pytest.mark.parametrize(
    ("scopes", "options", "message"),
    [
        (("read write",), {}, 'requires: scopes holds \'read write\'. Write requires("read", "write").'),
        ((["a", "b"],), {}, "requires: scopes holds ['a', 'b']. Write requires(\"read\", \"write\")."),
        (("",), {}, 'requires: scopes holds \'\'. Write requires("read", "write").'),
        (("ä",), {}, 'requires: scopes holds \'ä\'. Write requires("read", "write").'),
        ((), {"any_scopes": "read"}, "requires: any_scopes is 'read', not several texts. Write any_scopes="),
        ((), {"claims": {"roles": []}}, "requires: claim 'roles' expects [], which no token can hold."),
        ((), {"audience": ""}, "requires: audience '' is no audience. Name one"),
        (
            ("authenticated",),
            {},
            "requires: 'authenticated' is Starlette's word for any identity, and no scope. Write ",
        ),
    ],
)
def test_what_no_token_can_have(scopes: Any, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=r"^requires: ") as raised:
        requires(*scopes, **options)
    assert str(raised.value).startswith(message)


def test_parentheses_that_are_missing() -> None:
    with pytest.raises(TypeError, match=r'write @requires\(\) or @requires\("read"\)'):
        requires(cast("str", in_the_loop))


# Classes


class Methods(HTTPEndpoint):
    async def get(self, request: Request) -> Response:
        return PlainTextResponse("anybody " + request.user.subject)

    @requires("write")
    async def post(self, request: Request) -> Response:
        return PlainTextResponse("writer " + request.user.subject)

    @requires("delete")
    def delete(self, request: Request) -> Response:
        return PlainTextResponse("deleter " + request.user.subject)


@requires("read")
class Guarded(Methods):
    pass


class Further(Guarded):
    async def put(self, request: Request) -> Response:
        return PlainTextResponse("inherits the guard")


def test_methods_of_a_class(stand: Stand) -> None:
    client = stand.routes(Route("/", Methods))
    assert client.get("/", headers=stand.headers()).text == "anybody alice"
    assert client.post("/", headers=stand.headers("write")).text == "writer alice"
    assert client.delete("/", headers=stand.headers("delete")).text == "deleter alice"
    assert challenge(client.post("/", headers=stand.headers("delete"))) == (403, FORBIDDEN + ', scope="write"')
    assert challenge(client.delete("/", headers=stand.headers("write"))) == (403, FORBIDDEN + ', scope="delete"')


@pytest.mark.parametrize("endpoint", [Guarded, Further])
def test_a_class_and_its_methods(endpoint: type[HTTPEndpoint], stand: Stand) -> None:
    """Whichever of the two refuses, the challenge has the scopes of both."""
    client = stand.routes(Route("/", endpoint), optional=["/{$}"])
    assert client.get("/", headers=stand.headers("read")).text == "anybody alice"
    assert client.post("/", headers=stand.headers("read write")).text == "writer alice"
    for scope in ("", "read", "write"):
        assert challenge(client.post("/", headers=stand.headers(scope))) == (403, FORBIDDEN + ', scope="read write"')
    assert challenge(client.get("/", headers=stand.headers("write"))) == (403, FORBIDDEN + ', scope="read"')
    assert challenge(client.head("/", headers=stand.headers("write"))) == (403, FORBIDDEN + ', scope="read"')
    assert challenge(client.get("/")) == (401, 'Bearer scope="read"')
    assert client.patch("/", headers=stand.headers("read")).status_code == 405
    assert client.put("/").status_code == 401
    assert issubclass(endpoint, Methods)


# WebSockets


@requires("feed")
async def feed(websocket: WebSocket) -> None:
    await websocket.accept()
    await websocket.send_text(websocket.user.subject)
    await websocket.close()


class Told:
    """What happened to an endpoint class."""

    def __init__(self) -> None:
        self.events: list[str] = []


def socket_class(told: Told, *, on_class: bool = False, on_connect: bool = False, on_receive: bool = False) -> Any:
    def guarded(is_it: bool, target: Any) -> Any:
        return requires("feed")(target) if is_it else target

    class Feed(WebSocketEndpoint):
        encoding = "text"

        async def on_connect(self, websocket: WebSocket) -> None:
            told.events.append("connects")
            await websocket.accept()

        async def on_receive(self, websocket: WebSocket, data: Any) -> None:
            told.events.append(data)
            await websocket.send_text(websocket.user.subject)
            await websocket.close()

        async def on_disconnect(self, websocket: WebSocket, close_code: int) -> None:
            told.events.append("disconnects")

    Feed.on_connect = guarded(on_connect, Feed.on_connect)  # type: ignore[method-assign]
    Feed.on_receive = guarded(on_receive, Feed.on_receive)  # type: ignore[method-assign]
    return guarded(on_class, Feed)


def test_a_websocket_is_refused_before_it_is_accepted(stand: Stand) -> None:
    client = stand.routes(WebSocketRoute("/feed", feed), optional=["/feed"])
    with client.websocket_connect("/feed", headers=stand.headers("feed")) as socket:
        assert socket.receive_text() == "alice"
    with pytest.raises(WebSocketDenialResponse) as refused, client.websocket_connect("/feed"):
        pass
    assert challenge(refused.value) == (401, 'Bearer scope="feed"')
    with (
        pytest.raises(WebSocketDenialResponse) as refused,
        client.websocket_connect("/feed", headers=stand.headers("x")),
    ):
        pass
    assert challenge(refused.value) == (403, FORBIDDEN + ', scope="feed"')
    assert refused.value.json()["error"] == "insufficient_scope"


@pytest.mark.parametrize("where", ["on_class", "on_connect"])
def test_an_endpoint_class_of_websockets(where: str, stand: Stand) -> None:
    told = Told()
    client = stand.routes(WebSocketRoute("/feed", socket_class(told, **{where: True})))
    with client.websocket_connect("/feed", headers=stand.headers("feed")) as socket:
        socket.send_text("hello")
        assert socket.receive_text() == "alice"
    assert told.events == ["connects", "hello", "disconnects"]
    told.events.clear()
    with (
        pytest.raises(WebSocketDenialResponse) as refused,
        client.websocket_connect("/feed", headers=stand.headers("x")),
    ):
        pass
    assert challenge(refused.value) == (403, FORBIDDEN + ', scope="feed"')
    assert "connects" not in told.events


def test_a_websocket_that_is_open_is_closed(stand: Stand) -> None:
    told = Told()
    client = stand.routes(WebSocketRoute("/feed", socket_class(told, on_receive=True)))
    with client.websocket_connect("/feed", headers=stand.headers("x")) as socket:
        socket.send_text("hello")
        with pytest.raises(WebSocketDisconnect) as closed:
            socket.receive_text()
    assert closed.value.code == 1008
    assert told.events == ["connects", "disconnects"]


@pytest.mark.anyio
async def test_a_server_that_cannot_deny_closes(stand: Stand) -> None:
    """The client sees 403 then, whatever the reason."""
    client = stand.routes(WebSocketRoute("/feed", feed), optional=["/feed"])
    for app in (client.app, OIDCMiddleware(requires("feed")(feed_app), oidc=cast("Any", client.app).oidc)):
        answer = await ask(app, http_scope("/feed", type="websocket", subprotocols=[]))
        assert [message["type"] for message in answer.messages] == ["websocket.close"]


async def feed_app(scope: Scope, receive: Receive, send: Send) -> None:
    raise AssertionError


# Apps


async def who(scope: Scope, receive: Receive, send: Send) -> None:
    """Answer with what was found out: an app without a framework."""
    subject = getattr(scope["user"], "subject", "nobody")
    await PlainTextResponse(f"{subject} at {scope['path']}")(scope, receive, send)


class Anything:
    """An app that does not name what it takes."""

    async def __call__(self, *arguments: Any) -> None:
        """Serve it."""
        await who(*arguments)


APPS: dict[str, ASGIApp] = {
    "function": who,
    "starlette": Starlette(routes=[Mount("/", app=who)]),
    "instance": Anything(),
}


@pytest.mark.parametrize("app", APPS.values(), ids=APPS)
def test_a_mounted_app(app: ASGIApp, stand: Stand) -> None:
    client = stand.routes(Mount("/area", app=requires("area")(app)), Mount("/", app=who), optional=["/area/open"])
    assert client.get("/area/x", headers=stand.headers("area")).text == "alice at /area/x"
    assert challenge(client.get("/area/x", headers=stand.headers("x"))) == (403, FORBIDDEN + ', scope="area"')
    assert challenge(client.get("/area/open")) == (401, 'Bearer scope="area"')
    assert client.get("/elsewhere", headers=stand.headers("x")).text == "alice at /elsewhere"


def test_names_of_a_mounted_app_are_found(stand: Stand) -> None:
    async def where(request: Request) -> PlainTextResponse:
        return PlainTextResponse(request.url_for("area:page").path)

    app = requires("area")(Starlette(routes=[Route("/page", where, name="page")]))
    client = stand.routes(Mount("/area", app=app, name="area"))
    assert client.get("/area/page", headers=stand.headers("area")).text == "/area/page"


def test_as_a_middleware_of_an_app_a_mount_and_a_route(stand: Stand) -> None:
    app = Starlette(
        routes=[
            Mount("/area", routes=[Route("/", in_the_loop, name="inside")], name="area",
                  middleware=[Middleware(requires("area"))]),
            Route("/one", in_the_loop, middleware=[Middleware(requires("one"))]),
        ],
        middleware=[Middleware(requires("app"))],
    )  # fmt: skip
    client = stand.client(app)
    assert app.url_path_for("area:inside") == "/area/"
    assert client.get("/area/", headers=stand.headers("app area read write")).text == "alice"
    for scope, names in (
        ("", "app"),
        ("app", "app area"),
        ("app area", "app area read write"),
        ("app area read", "app area read write"),
    ):
        answer = client.get("/area/", headers=stand.headers(scope))
        assert challenge(answer) == (403, f'{FORBIDDEN}, scope="{names}"')
    assert challenge(client.get("/one", headers=stand.headers("app")))[1] == FORBIDDEN + ', scope="app one"'


def test_one_app_upon_the_other_names_the_scopes_of_both(stand: Stand) -> None:
    client = stand.client(requires("a")(requires("b")(who)))
    for scope in ("", "a", "b"):
        assert challenge(client.get("/", headers=stand.headers(scope))) == (403, FORBIDDEN + ', scope="a b"')
    assert client.get("/", headers=stand.headers("a b")).text == "alice at /"


def test_a_lifespan_passes() -> None:
    started: list[bool] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        assert scope["type"] == "lifespan"
        for phase in ("startup", "shutdown"):
            assert (await receive())["type"] == f"lifespan.{phase}"
            started.append(phase == "startup")
            await send({"type": f"lifespan.{phase}.complete"})

    with TestClient(requires("x")(app)):
        assert started == [True]
    assert started == [True, False]


ORIGIN = "https://app.example"
PREFLIGHT = {
    "Origin": ORIGIN,
    "Access-Control-Request-Method": "GET",
    "Access-Control-Request-Headers": "authorization",
}


@pytest.mark.parametrize(("preflight", "status"), [("pass", 200), ("protect", 401)])
def test_a_preflight_comes_as_far_as_the_door_lets_it(preflight: str, status: int, stand: Stand) -> None:
    """P-options: CORSMiddleware inside the app that is wrapped answers it; any other OPTIONS needs what all need."""
    area = Starlette(
        routes=[Route("/", in_the_loop)],
        middleware=[Middleware(CORSMiddleware, allow_origins=[ORIGIN], allow_headers=["authorization"])],
    )
    client = stand.routes(Mount("/area", app=requires("area")(area)), public=["/area/*"], preflight=preflight)
    assert client.options("/area/", headers=PREFLIGHT).status_code == status
    assert client.options("/area/", headers={"Origin": ORIGIN}).status_code == 401


# Whoever may be there


def test_optional_user(stand: Stand) -> None:
    async def hello(request: Request) -> Response:
        user: Principal | None = optional_user(request)
        return PlainTextResponse("nobody" if user is None else str(user.subject))

    async def socket(websocket: WebSocket) -> None:
        user = optional_user(websocket)
        await websocket.accept()
        await websocket.send_text("nobody" if user is None else str(user.subject))
        await websocket.close()

    client = stand.routes(
        Route("/{path}", hello), WebSocketRoute("/{path}", socket), optional=["/optional"], public=["/public"]
    )
    assert client.get("/optional").text == "nobody"
    assert client.get("/optional", headers=stand.headers()).text == "alice"
    assert client.get("/optional", headers=bearer("x")).status_code == 401
    assert client.get("/public", headers=stand.headers()).text == "nobody"
    assert client.get("/other", headers=stand.headers()).text == "alice"
    with client.websocket_connect("/optional") as connected:
        assert connected.receive_text() == "nobody"
    with client.websocket_connect("/optional", headers=stand.headers()) as connected:
        assert connected.receive_text() == "alice"

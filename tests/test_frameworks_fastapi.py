"""The middleware inside FastAPI: dependencies, documentation, sub-apps, WebSockets."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Annotated, Any

import pytest
from fastapi import APIRouter, BackgroundTasks, Depends, FastAPI, HTTPException, Request, WebSocket
from fastapi.responses import PlainTextResponse
from pydantic import BaseModel
from starlette.testclient import TestClient, WebSocketDenialResponse

from oidc_middleware import OIDC, OIDCMiddleware, Principal, Rule
from oidc_middleware.errors import ConfigError
from oidc_middleware.testing import FakeIssuer, ManualClock


class Order(BaseModel):
    """What clients send."""

    item: str
    count: int = 1


def current_user(request: Request) -> Principal:
    user = request.user
    assert isinstance(user, Principal)
    return user


async def service(request: Request) -> OIDC:
    return OIDC.from_request(request)


User = Annotated[Principal, Depends(current_user)]


@pytest.fixture
def issuer(fake_issuer_factory: Callable[..., FakeIssuer]) -> FakeIssuer:
    return fake_issuer_factory(algorithms=("ES256",))


@pytest.fixture
def oidc(issuer: FakeIssuer, oidc_clock: ManualClock) -> OIDC:
    return OIDC(
        issuer=issuer.url,
        audience=issuer.audience,
        public=["/docs/*", "/redoc", "/openapi.json", "/version"],
        optional=["/greeting"],
        rules=[Rule("/orders", methods=["POST"], scopes=["orders:write"]), Rule("/admin/*", scopes=["admin"])],
        transport=issuer.transport(),
        clock=oidc_clock,
    )


def routes() -> APIRouter:
    router = APIRouter()
    done: list[str] = []

    @router.get("/me")
    def me(user: User) -> dict[str, Any]:
        return {"identity": user.identity, "claims": user.claims, "scopes": user.scopes}

    @router.post("/orders", status_code=201)
    async def order(order: Order, user: User, tasks: BackgroundTasks) -> dict[str, Any]:
        tasks.add_task(done.append, user.subject or "")
        return {"owner": user.subject, "item": order.item}

    @router.get("/done")
    async def what_was_done() -> list[str]:
        return done

    @router.get("/greeting")
    async def greeting(request: Request) -> str:
        return f"Hello {request.user.display_name}"

    @router.get("/version")
    async def version() -> int:
        return 1

    @router.get("/stats")
    async def stats(oidc: Annotated[OIDC, Depends(service)]) -> bool:
        return bool(oidc.stats()["ready"])

    @router.get("/admin/fail")
    async def fail() -> None:
        raise HTTPException(401, "the app's own 401")

    @router.websocket("/ws")
    async def socket(websocket: WebSocket) -> None:
        await websocket.accept()
        await websocket.send_text(websocket.user.subject)
        await websocket.close()

    return router


@pytest.fixture
def app(oidc: OIDC) -> FastAPI:
    app = FastAPI()
    app.include_router(routes())
    app.add_middleware(OIDCMiddleware, oidc=oidc)
    return app


@pytest.fixture(params=["with lifespan", "without"])
def client(app: FastAPI, request: pytest.FixtureRequest) -> Any:
    if request.param == "without":
        yield TestClient(app)
        return
    with TestClient(app) as client:
        yield client


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


def test_a_dependency_reads_the_user(client: TestClient, issuer: FakeIssuer) -> None:
    answer = client.get("/me", headers=bearer(issuer.token("alice", scope="a", claims={"roles": ["x", {"y": 1}]})))
    seen = answer.json()
    assert seen["identity"] == f"{issuer.url}#alice"
    assert seen["scopes"] == ["a"]
    assert seen["claims"]["roles"] == ["x", {"y": 1}]
    assert client.get("/me").status_code == 401


def test_the_body_is_validated_after_the_identity(client: TestClient, issuer: FakeIssuer) -> None:
    """401 before 403 before 422: who may not get in learns nothing of the schema."""
    wrong = {"thing": 1}
    assert client.post("/orders", json=wrong).status_code == 401
    assert client.post("/orders", json=wrong, headers=bearer(issuer.token())).status_code == 403
    headers = bearer(issuer.token("alice", scope="orders:write"))
    assert client.post("/orders", json=wrong, headers=headers).status_code == 422
    answer = client.post("/orders", json={"item": "tea"}, headers=headers)
    assert (answer.status_code, answer.json()) == (201, {"owner": "alice", "item": "tea"})
    assert client.get("/done", headers=headers).json() == ["alice"]


def test_documentation_and_schema_may_be_public(client: TestClient) -> None:
    for path in ("/docs", "/docs/oauth2-redirect", "/redoc", "/openapi.json", "/version"):
        assert client.get(path).status_code == 200, path


def test_an_optional_path(client: TestClient, issuer: FakeIssuer) -> None:
    """P-optional-auth."""
    assert client.get("/greeting").json() == "Hello "
    assert client.get("/greeting", headers=bearer(issuer.token("alice"))).json() == "Hello alice"
    assert client.get("/greeting", headers=bearer("garbage")).status_code == 401


def test_the_service_as_a_dependency(client: TestClient, issuer: FakeIssuer) -> None:
    assert client.get("/stats", headers=bearer(issuer.token())).json() is True


def test_a_401_of_the_app_is_the_apps(client: TestClient, issuer: FakeIssuer) -> None:
    answer = client.get("/admin/fail", headers=bearer(issuer.token(scope="admin")))
    assert (answer.status_code, answer.json()) == (401, {"detail": "the app's own 401"})
    assert "www-authenticate" not in answer.headers


def test_websockets(client: TestClient, issuer: FakeIssuer) -> None:
    with client.websocket_connect("/ws", headers=bearer(issuer.token("alice"))) as websocket:
        assert websocket.receive_text() == "alice"
    with pytest.raises(WebSocketDenialResponse) as denied, client.websocket_connect("/ws"):
        pass
    assert denied.value.status_code == 401


def test_handlers_of_the_app_do_not_change_a_refusal(app: FastAPI) -> None:
    @app.exception_handler(Exception)
    @app.exception_handler(401)
    async def swallow(_: Request, __: Exception) -> PlainTextResponse:
        return PlainTextResponse("swallowed")

    assert TestClient(app).get("/me").status_code == 401


def test_a_function_middleware_around_it_sees_the_refusal(app: FastAPI, issuer: FakeIssuer) -> None:
    seen = []

    @app.middleware("http")
    async def watch(request: Request, call_next: Any) -> Any:
        response = await call_next(request)
        seen.append((response.status_code, getattr(request.scope.get("user"), "subject", None)))
        return response

    client = TestClient(app)
    client.get("/me")
    client.get("/me", headers=bearer(issuer.token("alice")))
    assert seen == [(401, None), (200, "alice")]


def test_the_lifespan_of_the_app(oidc: OIDC) -> None:
    seen = []

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[dict[str, int]]:
        seen.append(oidc.started)
        yield {"answer": 42}
        seen.append(oidc.started)

    app = FastAPI(lifespan=lifespan)
    app.add_middleware(OIDCMiddleware, oidc=oidc)

    @app.get("/version")
    async def version(request: Request) -> int:
        return int(request.state.answer)

    with TestClient(app) as client:
        assert client.get("/version").json() == 42
    assert seen == [True, True]


def test_a_sub_application(app: FastAPI, issuer: FakeIssuer) -> None:
    """Paths are those that the sub-app knows, wherever it is mounted; its lifespan is never run."""
    main = FastAPI()
    main.mount("/api/v1", app)

    @main.get("/version")
    async def version() -> str:
        return "main"

    with TestClient(main) as client:
        assert client.get("/version").json() == "main"
        assert client.get("/api/v1/version").json() == 1
        assert client.get("/api/v1/docs").status_code == 200
        assert client.get("/api/v1/me").status_code == 401
        assert client.get("/api/v1/admin/fail", headers=bearer(issuer.token())).status_code == 403
        assert client.get("/api/v1/me", headers=bearer(issuer.token("alice"))).status_code == 200
        assert client.get("/api/v1/oauth2/health").json() == {"status": "ok"}


@pytest.mark.parametrize("prefix", ["", "/api"], ids=["the proxy strips it", "the proxy keeps it"])
def test_root_path(app: FastAPI, issuer: FakeIssuer, prefix: str) -> None:
    """The server's `--root-path` changes what is matched exactly as it changes FastAPI's own routing."""
    client = TestClient(app, root_path="/api")
    assert client.get(f"{prefix}/version").json() == 1
    assert client.get(f"{prefix}/me").status_code == 401
    assert client.get(f"{prefix}/me", headers=bearer(issuer.token())).status_code == 200
    assert client.get(f"{prefix}/admin/fail", headers=bearer(issuer.token())).status_code == 403
    assert client.get(f"{prefix}/apiversion").status_code == 401


def test_a_misconfigured_app_says_so_at_its_start() -> None:
    app = FastAPI()
    app.add_middleware(OIDCMiddleware, issuer="https://issuer.example")
    with pytest.raises(ConfigError, match="audience: is missing"), TestClient(app):
        pass

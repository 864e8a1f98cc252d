"""What the OpenAPI document of a FastAPI app says: how to get in, what an operation needs, how it refuses."""

# ruff: noqa: B008, FAST002  an annotation is a string here, and cannot name a fixture
from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
from fastapi import APIRouter, Depends, FastAPI, Security, WebSocket
from fastapi.security import APIKeyHeader
from starlette.testclient import TestClient
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

from oidc_middleware import OIDC, Issuer, OIDCMiddleware, Principal
from oidc_middleware.fastapi import OIDCAuth, current_user, document, optional_user, require
from oidc_middleware.testing import FakeIssuer, ManualClock, faults

from servers_kit import ANSWER_SECONDS, AUDIENCE, Server, running


@pytest.fixture
def issuer(fake_issuer_factory: Callable[..., FakeIssuer]) -> FakeIssuer:
    return fake_issuer_factory("https://login.example.com/realms/a", algorithms=("ES256",))


@pytest.fixture
def oidc(issuer: FakeIssuer, oidc_clock: ManualClock) -> OIDC:
    return OIDC(
        issuer=issuer.url,
        audience=issuer.audience,
        public=["/openapi.json", "/docs/*"],
        transport=issuer.transport(),
        clock=oidc_clock,
    )


def app_of(auth: Any) -> FastAPI:
    """Return an app with an operation of each kind; `auth` has the dependencies."""
    app = FastAPI(swagger_ui_init_oauth={"clientId": "swagger", "usePkceWithAuthorizationCodeGrant": True})

    @app.get("/user")
    async def user(user: Principal = Depends(auth.current_user)) -> None: ...

    @app.get("/optional")
    async def optional(user: Principal = Depends(auth.optional_user)) -> None: ...

    @app.get("/open")
    async def anybody() -> None: ...

    @app.post("/orders", dependencies=[Depends(auth.require("orders:read", any_scopes=("buy", "admin")))])
    async def orders(user: Principal = Security(auth.current_user, scopes=["orders:write"])) -> None: ...

    @app.get("/role", dependencies=[Depends(auth.require(claims={"roles": "admin"}))])
    async def role() -> None: ...

    @app.get("/hidden", include_in_schema=False, dependencies=[Depends(auth.require("hidden"))])
    async def hidden() -> None: ...

    @app.get("/own", dependencies=[Depends(auth.current_user)], responses={401: {"description": "As I say"}})
    async def own() -> None: ...

    @app.websocket("/ws")
    async def socket(websocket: WebSocket, user: Principal = Depends(auth.require("live"))) -> None: ...

    router = APIRouter(dependencies=[Depends(auth.require("outer"))])

    @router.get("/{name}")
    async def inner(name: str, user: Principal = Depends(auth.require("inner"))) -> None: ...

    app.include_router(router, prefix="/included")
    return app


class Behind:
    """The dependencies that need the middleware, as attributes like those of `OIDCAuth`."""

    current_user = current_user
    optional_user = optional_user
    require = staticmethod(require)


@pytest.fixture(params=["alone", "behind the middleware", "around the app"])
def client(request: pytest.FixtureRequest, oidc: OIDC) -> Iterator[TestClient]:
    outer: Any
    if request.param == "alone":
        auth = OIDCAuth(oidc=oidc)
        outer = app = app_of(auth)
        auth.install(app, scopes={"orders:write": "Place orders"})
    else:
        outer = app = app_of(Behind)
        if request.param == "around the app":
            document(app, oidc, scopes={"orders:write": "Place orders"})
            outer = OIDCMiddleware(app, oidc=oidc)
        else:
            document(app, scopes={"orders:write": "Place orders"})
            app.add_middleware(OIDCMiddleware, oidc=oidc)
    with TestClient(outer) as client:
        yield client


DESCRIBED = {"orders:read": "", "buy": "", "admin": "", "orders:write": "Place orders", "outer": "", "inner": ""}


def schema_of(client: TestClient) -> dict[str, Any]:
    """Return the document, once the issuer's metadata are there."""
    deadline = time.monotonic() + ANSWER_SECONDS
    while True:
        schema: dict[str, Any] = client.get("/openapi.json").json()
        if "OAuth2" in schema["components"]["securitySchemes"]:
            return schema
        assert time.monotonic() < deadline, schema


def test_the_schemes_of_the_issuer(client: TestClient, issuer: FakeIssuer) -> None:
    """OpenAPI 3.1 §4.8.27: a flow for Swagger UI, and discovery for everybody else; no other scheme is left."""
    schemes = schema_of(client)["components"]["securitySchemes"]
    flow = {
        "authorizationUrl": issuer.endpoint("authorize"),
        "tokenUrl": issuer.endpoint("token"),
        "scopes": DESCRIBED,
    }
    assert {name: {k: v for k, v in scheme.items() if k != "description"} for name, scheme in schemes.items()} == {
        "OAuth2": {"type": "oauth2", "flows": {"authorizationCode": flow}},
        "OpenIdConnect": {
            "type": "openIdConnect",
            "openIdConnectUrl": f"{issuer.url}/.well-known/openid-configuration",
        },
    }


@pytest.mark.parametrize(
    ("method", "path", "scopes", "statuses"),
    [
        ("get", "/user", [], {"200", "401"}),
        ("post", "/orders", ["orders:read", "buy", "admin", "orders:write"], {"200", "401", "403"}),
        ("get", "/role", [], {"200", "401", "403"}),
        ("get", "/included/{name}", ["outer", "inner"], {"200", "401", "403", "422"}),
    ],
)
def test_what_an_operation_needs_and_how_it_refuses(
    client: TestClient, method: str, path: str, scopes: list[str], statuses: set[str]
) -> None:
    schema = schema_of(client)
    operation = schema["paths"][path][method]
    assert operation["security"] == [{"OAuth2": scopes}, {"OpenIdConnect": scopes}]
    assert set(operation["responses"]) == statuses
    for status in statuses & {"401", "403"}:
        refusal = operation["responses"][status]
        assert refusal["content"]["application/json"]["schema"] == {"$ref": "#/components/schemas/OIDCError"}
        assert "WWW-Authenticate" in refusal["headers"]
    assert set(schema["components"]["schemas"]["OIDCError"]["required"]) == {"error", "error_description"}


def test_an_optional_user_may_be_nobody(client: TestClient) -> None:
    operation = schema_of(client)["paths"]["/optional"]["get"]
    assert operation["security"] == [{"OAuth2": []}, {"OpenIdConnect": []}, {}]
    assert set(operation["responses"]) == {"200", "401"}


def test_what_is_none_of_ours_stays(client: TestClient) -> None:
    paths = schema_of(client)["paths"]
    assert "security" not in paths["/open"]["get"]
    assert set(paths["/open"]["get"]["responses"]) == {"200"}
    assert paths["/own"]["get"]["responses"]["401"]["description"] == "As I say"
    assert "/hidden" not in paths


def test_swagger_ui_is_told_to_use_pkce(client: TestClient) -> None:
    page = client.get("/docs").text
    assert '"usePkceWithAuthorizationCodeGrant": true' in page
    assert client.get("/docs/oauth2-redirect").status_code == 200


def test_without_the_issuer_there_is_discovery_and_then_more(issuer: FakeIssuer, oidc: OIDC) -> None:
    """Nobody waits for an issuer to write a document; what is written without it is not kept."""
    issuer.fault("*", faults.status(500))
    auth = OIDCAuth(oidc=oidc)
    app = app_of(auth)
    auth.install(app)
    schema = app.openapi()
    assert set(schema["components"]["securitySchemes"]) == {"OpenIdConnect"}
    assert schema["paths"]["/user"]["get"]["security"] == [{"OpenIdConnect": []}]
    assert app.openapi() is schema
    issuer.heal()

    async def load() -> None:
        await oidc.providers[issuer.url].metadata()

    asyncio.run(load())
    assert set(app.openapi()["components"]["securitySchemes"]) == {"OpenIdConnect", "OAuth2"}
    assert app.openapi() is app.openapi()


def test_an_internal_discovery_url_stays_internal(issuer: FakeIssuer) -> None:
    auth = OIDCAuth(
        issuer=issuer.url, audience=issuer.audience, discovery_url="http://127.0.0.1:8080/internal", allow_http=True
    )
    app = app_of(auth)
    auth.install(app)
    assert "internal" not in str(app.openapi())


def test_an_operation_that_comes_later(oidc: OIDC) -> None:
    auth = OIDCAuth(oidc=oidc)
    app = app_of(auth)
    auth.install(app)
    app.openapi()

    @app.get("/later", dependencies=[Depends(auth.require("later"))])
    async def later() -> None: ...

    assert app.openapi()["paths"]["/later"]["get"]["security"] == [{"OpenIdConnect": ["later"]}]


def test_other_schemes_stay_alternatives(oidc: OIDC) -> None:
    auth = OIDCAuth(oidc=oidc)
    app = FastAPI()
    auth.install(app)
    auth.install(app, scopes={"a": "What a is"})  # again adds to it

    @app.get("/x", dependencies=[Depends(APIKeyHeader(name="X-Key")), Depends(auth.require("a"))])
    async def x() -> None: ...

    schema = app.openapi()
    assert schema["paths"]["/x"]["get"]["security"] == [{"OpenIdConnect": ["a"]}, {"APIKeyHeader": []}]
    assert set(schema["components"]["securitySchemes"]) == {"OpenIdConnect", "APIKeyHeader"}


def test_several_issuers(fake_issuer_factory: Callable[..., FakeIssuer]) -> None:
    one = fake_issuer_factory("https://one.example")
    two = fake_issuer_factory("https://two.example/realms/b")
    auth = OIDCAuth(
        oidc=OIDC(
            issuers=[Issuer(issuer=issuer.url, audience=issuer.audience) for issuer in (one, two)],
            transport=one.transport(two),
        )
    )
    app = app_of(auth)
    auth.install(app)
    names = ["OpenIdConnect_one.example", "OpenIdConnect_two.example_realms_b"]
    assert list(app.openapi()["components"]["securitySchemes"]) == names
    assert app.openapi()["paths"]["/user"]["get"]["security"] == [{name: []} for name in names]


async def nobody(_: str) -> None:
    """Resolve no issuer."""


ORDERS = {"audience": "api://orders"}
COMMON = "https://login.microsoftonline.com/common/v2.0/.well-known/openid-configuration"
TEMPLATE = "https://login.microsoftonline.com/{tenantid}/v2.0"


@pytest.mark.parametrize(
    ("settings", "urls"),
    [
        ({**ORDERS, "issuer": TEMPLATE, "tenants": "*", "preset": "entra"}, {COMMON}),
        (
            {**ORDERS, "issuer": "https://example.com/{tenant}", "tenants": ["a", "b"]},
            {f"https://example.com/{tenant}/.well-known/openid-configuration" for tenant in "ab"},
        ),
        ({**ORDERS, "issuer": "https://example.com/{tenant}", "tenants": "*"}, {None}),
        ({"issuer_resolver": nobody}, {None}),
    ],
)
def test_issuers_that_are_known_later(settings: dict[str, Any], urls: set[str | None]) -> None:
    """What the settings do not name cannot be documented: a bearer token, from wherever."""
    auth = OIDCAuth(**settings)
    app = app_of(auth)
    assert TestClient(app).get("/user").status_code == 401
    plain = app.openapi()["components"]["securitySchemes"]
    auth.install(app)
    schemes = app.openapi()["components"]["securitySchemes"]
    assert {scheme.get("openIdConnectUrl") for scheme in schemes.values()} == urls
    assert {scheme.get("openIdConnectUrl") for scheme in plain.values()} <= urls
    assert set(app.openapi()["paths"]["/user"]["get"]["responses"]) == {"200", "401"}


def test_an_app_that_describes_itself(oidc: OIDC, issuer: FakeIssuer, oidc_clock: ManualClock) -> None:
    """RFC 9728 §3.1 and §5.1, without the middleware; a path parameter that takes everything is not in the way."""
    auth = OIDCAuth(
        oidc=OIDC(
            issuer=issuer.url,
            audience=issuer.audience,
            resource="https://api.example.com/orders",
            transport=issuer.transport(),
            clock=oidc_clock,
        )
    )
    app = FastAPI()

    @app.get("/{rest:path}")
    async def everything(rest: str, user: Principal = Depends(auth.current_user)) -> None: ...

    auth.install(app)
    client = TestClient(app)
    challenge = client.get("/orders").headers["WWW-Authenticate"]
    url = "https://api.example.com/.well-known/oauth-protected-resource/orders"
    assert challenge == f'Bearer resource_metadata="{url}"'
    described = client.get("/.well-known/oauth-protected-resource/orders").json()
    assert (described["resource"], described["authorization_servers"]) == (
        "https://api.example.com/orders",
        [issuer.url],
    )


def test_nothing_is_changed_in_what_the_app_wrote(oidc: OIDC) -> None:
    auth = OIDCAuth(oidc=oidc)
    app = app_of(auth)
    before = app.openapi()
    assert before["paths"]["/user"]["get"]["security"] == [{"OpenIdConnect": []}]
    copy = repr(before)
    auth.install(app)
    app.openapi()
    assert repr(before) == copy


def test_what_one_app_changes_in_its_document_is_in_no_other(oidc: OIDC) -> None:
    documents = []
    for _ in range(2):
        auth = OIDCAuth(oidc=oidc)
        app = app_of(auth)
        auth.install(app)
        documents.append(app.openapi())
    ours = documents[0]
    ours["components"]["schemas"]["OIDCError"]["title"] = "Problem"
    refusal = ours["paths"]["/user"]["get"]["responses"]["401"]
    refusal["headers"]["WWW-Authenticate"]["description"] = "Mine"
    assert documents[1]["components"]["schemas"]["OIDCError"]["title"] == "OIDCError"
    refusal = documents[1]["paths"]["/user"]["get"]["responses"]["401"]
    assert refusal["headers"]["WWW-Authenticate"]["description"] != "Mine"


def test_without_document_there_is_a_bearer_scheme(oidc: OIDC) -> None:
    app = app_of(Behind)
    app.add_middleware(OIDCMiddleware, oidc=oidc)
    schema = TestClient(app).get("/openapi.json").json()
    assert schema["components"]["securitySchemes"] == {
        "Bearer": {"type": "http", "scheme": "bearer", "bearerFormat": "JWT"}
    }


def test_without_a_middleware_the_bearer_scheme_stays(oidc: OIDC) -> None:
    app = app_of(Behind)
    document(app)
    schema = app.openapi()
    assert set(schema["components"]["securitySchemes"]) == {"Bearer"}
    assert set(schema["paths"]["/user"]["get"]["responses"]) == {"200", "401"}


# Over a socket


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[FakeIssuer, Server]]:
    log: Path = tmp_path_factory.mktemp("server") / "log"
    with (
        FakeIssuer(audience=AUDIENCE, algorithms=("ES256",)).serve_in_thread() as issuer,
        running("uvicorn", issuer.url, log, "fastapi_app:app") as server,
    ):
        yield issuer, server


def test_over_a_socket(server: tuple[FakeIssuer, Server]) -> None:
    issuer, served = server
    assert served.get("/me").status_code == 401
    answer = served.get("/me", issuer.token("alice"))
    assert (answer.status_code, answer.json()) == (200, f"{issuer.url}#alice")
    answer = served.get("/admin", issuer.token("alice", scope="read"))
    assert answer.status_code == 403
    assert answer.headers["WWW-Authenticate"].endswith('scope="admin"')
    url = f"{served.url}/openapi.json"
    schema = httpx2.get(url, trust_env=False, timeout=ANSWER_SECONDS).json()
    assert schema["paths"]["/admin"]["get"]["security"][-1] == {"OpenIdConnect": ["admin"]}


def test_two_authorization_headers_over_a_socket(server: tuple[FakeIssuer, Server]) -> None:
    issuer, served = server
    header = f"Authorization: Bearer {issuer.token('alice')}"
    assert served.raw("GET /me HTTP/1.1", header)[0] == 200
    assert served.raw("GET /me HTTP/1.1", header, header)[0] == 400


def test_a_websocket_over_a_socket(server: tuple[FakeIssuer, Server]) -> None:
    issuer, served = server
    url = f"ws://127.0.0.1:{served.port}/ws"
    headers = {"Authorization": f"Bearer {issuer.token('alice')}"}
    with connect(url, additional_headers=headers, proxy=None, open_timeout=ANSWER_SECONDS) as websocket:
        assert websocket.recv(ANSWER_SECONDS) == "alice"
    with pytest.raises(InvalidStatus) as refused, connect(url, proxy=None, open_timeout=ANSWER_SECONDS):
        pass
    assert refused.value.response.status_code == 401
    assert refused.value.response.headers["WWW-Authenticate"] == 'Bearer realm="oidc"'

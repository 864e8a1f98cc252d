"""An error raised inside the app is answered as the middleware in front answers its own."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.testclient import TestClient

from oidc_middleware import OIDC, OIDCError, OIDCMiddleware, Rule
from oidc_middleware.asgi.refusal import refusal_of
from oidc_middleware.errors import InsufficientScope, MissingToken
from oidc_middleware.testing import FakeIssuer


@pytest.fixture
def open_client(fake_issuer_factory: Callable[..., FakeIssuer]) -> Callable[..., tuple[TestClient, FakeIssuer]]:
    issuer = fake_issuer_factory(algorithms=("ES256",))

    async def refuse(request: Request) -> Response:
        error: OIDCError = MissingToken() if "who" in request.query_params else InsufficientScope("no", ("b",))
        return refusal_of(request.scope).response(request.scope, error)

    def open_(**settings: Any) -> tuple[TestClient, FakeIssuer]:
        oidc = OIDC(issuer=issuer.url, audience=issuer.audience, transport=issuer.transport(), **settings)
        routes = [Route("/{path:path}", refuse)]
        return TestClient(Starlette(routes=routes, middleware=[Middleware(OIDCMiddleware, oidc=oidc)])), issuer

    return open_


def test_it_has_the_realm_and_the_scopes(open_client: Callable[..., tuple[TestClient, FakeIssuer]]) -> None:
    client, issuer = open_client(realm="orders", rules=[Rule("/ruled", any_scopes=("r", "s"))])
    headers = {"Authorization": f"Bearer {issuer.token(scope='r')}"}
    answer = client.get("/x", headers=headers)
    assert (answer.status_code, answer.json()["error"]) == (403, "insufficient_scope")
    assert answer.headers["www-authenticate"] == (
        'Bearer realm="orders", error="insufficient_scope", '
        'error_description="The access token does not permit this request.", scope="b"'
    )
    answer = client.get("/ruled", headers=headers)
    assert (answer.status_code, answer.headers["www-authenticate"][-13:]) == (403, ' scope="r s b"'[1:])
    answer = client.get("/ruled?who", headers=headers)
    assert (answer.status_code, answer.headers["www-authenticate"]) == (401, 'Bearer realm="orders", scope="r s"')


def test_it_has_the_body_of_on_error(open_client: Callable[..., tuple[TestClient, FakeIssuer]]) -> None:
    client, issuer = open_client(on_error=lambda conn, error: JSONResponse([conn.url.path, error.code]))
    answer = client.get("/x", headers={"Authorization": f"Bearer {issuer.token()}"})
    assert (answer.status_code, answer.json()) == (403, ["/x", "insufficient_scope"])
    assert answer.headers["cache-control"] == "no-store"


def test_without_a_middleware_it_says_so() -> None:
    with pytest.raises(LookupError, match="no OIDCMiddleware stands in front of this app"):
        refusal_of({"type": "http"})

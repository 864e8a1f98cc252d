"""How others guard a FastAPI app or an MCP server: each as its documentation shows it, with the keys in memory."""

from __future__ import annotations

import importlib
import json
import math
from collections.abc import Callable
from datetime import datetime
from typing import Annotated, Any

from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from fastapi import Depends, FastAPI
from peers import fastapi_jwks
from starlette.middleware.authentication import AuthenticationMiddleware
from starlette.responses import PlainTextResponse, Response
from traffic import AUDIENCE, Application

from oidc_middleware.testing import FakeIssuer

# Entra ID's tokens have these; the peer that reads them wants them.
ENTRA_CLAIMS: dict[str, Any] = {
    "ver": "2.0",
    "nbf": 1_700_000_000,
    "tid": "9188040d-6c67-4c5b-b112-36a304b66dad",
    "scp": "orders",
}


def bare() -> FastAPI:
    """Return the app without any authentication."""
    app = FastAPI(openapi_url=None)

    @app.get("/orders")
    async def hello() -> Response:
        return PlainTextResponse("hello")

    return app


def depending(dependency: Any) -> FastAPI:
    """Return the app whose operation has a parameter that `dependency` fills."""
    app = FastAPI(openapi_url=None)

    async def hello(user: Any) -> Response:
        del user
        return PlainTextResponse("hello")

    hello.__annotations__["user"] = Annotated[Any, Depends(dependency)]  # FastAPI cannot evaluate the name of ours
    app.add_api_route("/orders", hello)
    return app


def azure(issuer: FakeIssuer) -> Application:
    """Return an app behind fastapi-azure-auth."""
    module: Any = importlib.import_module("fastapi_azure_auth")
    scheme = module.SingleTenantAzureAuthorizationCodeBearer(app_client_id=AUDIENCE, tenant_id=ENTRA_CLAIMS["tid"])
    key = issuer.keys.current("RS256")
    scheme.openid_config.issuer = issuer.url
    scheme.openid_config.signing_keys = {key.kid: key.private.public_key()}
    scheme.openid_config._config_timestamp = datetime.now()  # noqa: DTZ005, SLF001  as it writes it itself
    return depending(scheme)


def axioms(issuer: FakeIssuer) -> Application:
    """Return an app behind axioms-fastapi."""
    module: Any = importlib.import_module("axioms_fastapi")
    helper: Any = importlib.import_module("axioms_fastapi.helper")
    url = f"{issuer.url}/jwks"
    helper.cache.set(f"jwks{url}", json.dumps({"keys": issuer.keys.jwks()}).encode(), timeout=math.inf)
    module.init_axioms(AXIOMS_AUDIENCE=AUDIENCE, AXIOMS_ISS_URL=issuer.url, AXIOMS_JWKS_URL=url)
    return depending(module.require_auth)


def jwks(issuer: FakeIssuer) -> Application:
    """Return an app behind fastapi-jwks."""
    return depending(fastapi_jwks(issuer.url, {"keys": issuer.keys.jwks()}))


def fastmcp_verifier(issuer: FakeIssuer) -> Any:
    """Return FastMCP's verifier of JWTs."""
    module: Any = importlib.import_module("fastmcp.server.auth.providers.jwt")
    key: Any = issuer.keys.current("RS256").private.public_key()
    pem = key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    return module.JWTVerifier(public_key=pem.decode(), issuer=issuer.url, audience=AUDIENCE, algorithm="RS256")


def bearer_auth(verifier: Any) -> Application:
    """Return the app behind the middleware that the official MCP SDK puts in front of its own, as it puts it there."""
    module: Any = importlib.import_module("mcp.server.auth.middleware.bearer_auth")
    guarded = module.RequireAuthMiddleware(bare(), required_scopes=[])
    app: Application = AuthenticationMiddleware(guarded, backend=module.BearerAuthBackend(verifier))
    return app


class Believes:
    """A verifier that has the answer at hand: what is left is the SDK itself."""

    def __init__(self) -> None:
        provider: Any = importlib.import_module("mcp.server.auth.provider")
        self._answer = provider.AccessToken(token="t", client_id="shop-web", scopes=["orders"])

    async def verify_token(self, _: str) -> Any:
        """Return the same for every token."""
        return self._answer


FASTAPI: dict[str, Callable[[FakeIssuer], Application]] = {
    "fastapi-azure-auth": azure,
    "axioms-fastapi": axioms,
    "fastapi-jwks": jwks,
}
MCP: dict[str, Callable[[FakeIssuer], Application]] = {
    "mcp's BearerAuthBackend, its verifier answers at once": lambda _: bearer_auth(Believes()),
    "mcp's BearerAuthBackend with FastMCP's JWTVerifier": lambda issuer: bearer_auth(fastmcp_verifier(issuer)),
}
LEFT_OUT = {"armasec": "no version that FastAPI of today fits runs beside pytest 9, which it has among what it needs"}

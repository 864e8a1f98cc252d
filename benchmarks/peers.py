"""How others do it: each as its documentation shows it."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

import jwt
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding
from pydantic import BaseModel, ConfigDict
from starlette.authentication import AuthCredentials, AuthenticationBackend, AuthenticationError, BaseUser, SimpleUser
from starlette.middleware.base import BaseHTTPMiddleware, RequestResponseEndpoint
from starlette.requests import HTTPConnection, Request
from starlette.responses import PlainTextResponse, Response
from starlette.types import ASGIApp
from traffic import AUDIENCE


class JWTBackend(AuthenticationBackend):
    """PyJWT behind Starlette's AuthenticationMiddleware."""

    def __init__(self, issuer: str, key: Any) -> None:
        self.issuer = issuer
        self.key = key

    async def authenticate(self, conn: HTTPConnection) -> tuple[AuthCredentials, BaseUser] | None:
        """Verify the bearer token."""
        claims = verified(conn, self.issuer, self.key)
        if claims is None:
            raise AuthenticationError("invalid token")
        return AuthCredentials(claims.get("scope", "").split()), SimpleUser(claims["sub"])


class JWTMiddleware(BaseHTTPMiddleware):
    """PyJWT in the kind of middleware that most people write."""

    def __init__(self, app: ASGIApp, issuer: str, key: Any) -> None:
        super().__init__(app)
        self.issuer = issuer
        self.key = key

    async def dispatch(self, request: Request, call_next: RequestResponseEndpoint) -> Response:
        """Verify the bearer token."""
        claims = verified(request, self.issuer, self.key)
        if claims is None:
            return PlainTextResponse("invalid token", 401)
        request.state.claims = claims
        return await call_next(request)


class DoesNothing(BaseHTTPMiddleware):
    """The same without any work in it."""

    async def dispatch(self, request: Request, call_next: RequestResponseEndpoint) -> Response:
        """Pass the request on."""
        return await call_next(request)


def verified(conn: HTTPConnection, issuer: str, key: Any) -> dict[str, Any] | None:
    """Return the claims of the request's token as PyJWT verifies it, None when it is refused."""
    scheme, _, token = conn.headers.get("authorization", "").partition(" ")
    if scheme.lower() != "bearer":
        return None
    try:
        claims: dict[str, Any] = jwt.decode(token, key, ["RS256"], audience=AUDIENCE, issuer=issuer)
    except jwt.PyJWTError:
        return None
    return claims


class AnyClaims(BaseModel):
    """What fastapi-jwks is told to make of a payload."""

    model_config = ConfigDict(extra="allow")


def fastapi_jwks(issuer: str, jwks: dict[str, Any]) -> Any:
    """Return the dependency of fastapi-jwks, which has the keys already.

    Raises:
        ImportError: it is not installed; it needs Python 3.12.
    """
    types: Any = importlib.import_module("fastapi_jwks.models.types")
    validators: Any = importlib.import_module("fastapi_jwks.validators")
    dependencies: Any = importlib.import_module("fastapi_jwks.dependencies")
    validator = validators.JWKSValidator[AnyClaims](
        types.JWTDecodeConfig(audience=[AUDIENCE], issuer=issuer), types.JWKSConfig(url=f"{issuer}/jwks")
    )
    keys = types.JWKS.model_validate(jwks)
    validator.jwks_data = lambda: keys
    return dependencies.JWKSAuth[AnyClaims](validator)


def bare_check(key: Any) -> Callable[[bytes, bytes], object]:
    """Return the check of a signature by `cryptography`, with nothing around it."""
    check, pad, digest = key.verify, padding.PKCS1v15(), hashes.SHA256()
    return lambda signature, signed: check(signature, signed, pad, digest)

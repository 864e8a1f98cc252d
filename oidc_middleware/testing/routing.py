"""The issuer's ASGI app: paths to endpoints, with a counter and a place for a fault before each."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from oidc_middleware.testing import authorize, endpoints, logout, registration, token_endpoint
from oidc_middleware.testing.grants import OAuthError

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Receive, Scope, Send

    from oidc_middleware.testing.issuer import FakeIssuer

_Answer = Callable[["FakeIssuer", Request], Awaitable[Response | dict[str, Any]]]

_GET, _POST, _BOTH = ["GET"], ["POST"], ["GET", "POST"]

_TABLE: dict[str, tuple[str, list[str], _Answer]] = {
    "discovery": ("{base}/.well-known/openid-configuration", _GET, endpoints.metadata),
    "oauth_metadata": ("/.well-known/oauth-authorization-server{base}", _GET, endpoints.metadata),
    "jwks": ("{base}/jwks", _GET, endpoints.jwks),
    "authorize": ("{base}/authorize", _BOTH, authorize.authorize),
    "token": ("{base}/token", _POST, token_endpoint.token),
    "register": ("{base}/register", _POST, registration.register),
    "userinfo": ("{base}/userinfo", _BOTH, endpoints.userinfo),
    "introspect": ("{base}/introspect", _POST, endpoints.introspect),
    "revoke": ("{base}/revoke", _POST, endpoints.revoke),
    "end_session": ("{base}/end-session", _BOTH, logout.end_session),
}

ENDPOINTS = tuple(_TABLE)
"""Names of the endpoints, as counters and faults use them."""


def path_of(name: str, base: str) -> str:
    """Return the path of an endpoint of an issuer whose own path is `base` (OIDC Discovery §4, RFC 8414 §3.1).

    Raises:
        ValueError: there is no such endpoint.
    """
    try:
        return _TABLE[name][0].replace("{base}", base)
    except KeyError:
        raise ValueError(f"there is no endpoint {name!r}: choose from {', '.join(ENDPOINTS)}") from None


def build_app(issuer: FakeIssuer, base: str) -> Starlette:
    """Return the ASGI app of `issuer`."""
    app = Starlette(
        routes=[
            Route(path_of(name, base), _Endpoint(issuer, name, answer), methods=methods)
            for name, (_, methods, answer) in _TABLE.items()
        ]
    )
    app.router.redirect_slashes = False
    return app


class _Endpoint:
    """One endpoint as an ASGI app."""

    def __init__(self, issuer: FakeIssuer, name: str, answer: _Answer) -> None:
        self._issuer = issuer
        self._name = name
        self._answer = answer

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self._issuer.requests[self._name] += 1
        fault = self._issuer.next_fault(self._name)
        app: ASGIApp = fault(self._respond) if fault else self._respond
        await app(scope, receive, send)

    async def _respond(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            answer = await self._answer(self._issuer, Request(scope, receive))
        except OAuthError as error:
            answer = _refusal(error)
        response = answer if isinstance(answer, Response) else JSONResponse(answer)
        response.headers.setdefault("cache-control", self._issuer.cache_control.get(self._name, "no-store"))
        await response(scope, receive, send)


def _refusal(error: OAuthError) -> Response:
    """Answer as RFC 6749 §5.2 says."""
    challenge = {"www-authenticate": "Basic"} if error.error == "invalid_client" else {}
    content = {"error": error.error, "error_description": error.description}
    return JSONResponse(content, error.status, {"cache-control": "no-store", **challenge})

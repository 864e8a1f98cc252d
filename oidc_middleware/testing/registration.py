"""The registration endpoint: a client that nobody knows yet introduces itself, and gets an id (RFC 7591)."""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from oidc_middleware.testing.grants import OAuthError

if TYPE_CHECKING:
    from oidc_middleware.testing.issuer import FakeIssuer

_METHODS: Final = ("none", "client_secret_basic", "client_secret_post")


async def register(issuer: FakeIssuer, request: Request) -> Response:
    """Register the client that the JSON describes, and answer with its id, and a secret unless it wants none.

    It may ask for any scope: a client that knows what it needs only when it is refused could not name them now.

    Raises:
        OAuthError: `invalid_client_metadata` or `invalid_redirect_uri`.

    Source: RFC 7591 §2, §3.1, §3.2.
    """
    wanted = await _metadata(request)
    method = wanted.get("token_endpoint_auth_method", "client_secret_basic")
    if method not in _METHODS:
        raise OAuthError("invalid_client_metadata", f"The token endpoint takes {', '.join(_METHODS)}.")
    redirect_uris = _redirect_uris(wanted)
    client = issuer.client(
        f"registered-{secrets.token_hex(8)}",
        secret=None if method == "none" else secrets.token_urlsafe(24),
        redirect_uris=redirect_uris,
    )
    answer: dict[str, Any] = {
        "client_id": client.client_id,
        "client_id_issued_at": int(issuer.clock.now()),
        "redirect_uris": redirect_uris,
        "token_endpoint_auth_method": method,
        "grant_types": ["authorization_code", "refresh_token"],
        "response_types": ["code"],
    }
    if client.secret is not None:
        answer |= {"client_secret": client.secret, "client_secret_expires_at": 0}
    if "client_name" in wanted:
        answer["client_name"] = wanted["client_name"]
    return JSONResponse(answer, 201, {"cache-control": "no-store"})


async def _metadata(request: Request) -> dict[str, Any]:
    try:
        wanted = await request.json()
    except ValueError:
        wanted = None
    if not isinstance(wanted, dict):
        raise OAuthError("invalid_client_metadata", "The body must be a JSON object.")
    return wanted


def _redirect_uris(wanted: dict[str, Any]) -> list[str]:
    """Return where the browser may be sent back to: absolute, and without a fragment (RFC 6749 §3.1.2)."""
    uris = wanted.get("redirect_uris")
    if not isinstance(uris, list) or not uris or not all(map(_is_absolute, uris)):
        raise OAuthError("invalid_redirect_uri", "redirect_uris must list absolute URIs without fragments.")
    return uris


def _is_absolute(uri: object) -> bool:
    if not isinstance(uri, str) or "#" in uri:
        return False
    try:
        parts = urlsplit(uri)
    except ValueError:
        return False
    return bool(parts.scheme and (parts.netloc or parts.path))

"""The issuer's other endpoints: discovery, keys, userinfo, introspection and revocation."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from oidc_middleware.testing.grants import OAuthError
from oidc_middleware.testing.keys import override
from oidc_middleware.testing.parameters import authenticate, form, required

if TYPE_CHECKING:
    from oidc_middleware.testing.issuer import FakeIssuer

_ENDPOINTS = {
    "authorization_endpoint": "authorize",
    "token_endpoint": "token",
    "registration_endpoint": "register",
    "userinfo_endpoint": "userinfo",
    "jwks_uri": "jwks",
    "introspection_endpoint": "introspect",
    "revocation_endpoint": "revoke",
    "end_session_endpoint": "end_session",
}


async def metadata(issuer: FakeIssuer, _: Request) -> dict[str, Any]:
    """Describe the issuer (OIDC Discovery §3, RFC 8414 §2, RFC 9207 §3, OIDC Back-Channel Logout §2.1)."""
    authentication = ["client_secret_basic", "client_secret_post"]
    document = {
        "issuer": issuer.url,
        **{member: issuer.endpoint(name) for member, name in _ENDPOINTS.items()},
        "response_types_supported": ["code"],
        "response_modes_supported": ["query"],
        "grant_types_supported": ["authorization_code", "refresh_token", "client_credentials"],
        "subject_types_supported": ["public"],
        "id_token_signing_alg_values_supported": list(issuer.keys.algorithms),
        "token_endpoint_auth_methods_supported": [*authentication, "none"],
        "introspection_endpoint_auth_methods_supported": authentication,
        "revocation_endpoint_auth_methods_supported": [*authentication, "none"],
        "code_challenge_methods_supported": ["S256"],
        "authorization_response_iss_parameter_supported": issuer.sends_iss,
        "backchannel_logout_supported": True,
        "backchannel_logout_session_supported": True,
    }
    return override(document, issuer.metadata_overrides)


async def jwks(issuer: FakeIssuer, _: Request) -> dict[str, Any]:
    """Publish the keys (RFC 7517 §5)."""
    return {"keys": [*issuer.keys.jwks(), *issuer.extra_jwks]}


async def userinfo(issuer: FakeIssuer, request: Request) -> Response:
    """Tell the claims of the user whose access token came (OIDC Core §5.3)."""
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() != "bearer":
        return Response(status_code=401, headers={"www-authenticate": "Bearer"})
    claims = issuer.read(token.strip())
    if claims is None:
        return Response(status_code=401, headers={"www-authenticate": 'Bearer error="invalid_token"'})
    subject = str(claims.get("sub"))
    told = {**issuer.users.get(subject, {}), **issuer.profiles.get(subject, {})}
    return JSONResponse({"sub": subject, **told}, headers={"cache-control": "no-store"})


async def introspect(issuer: FakeIssuer, request: Request) -> dict[str, Any]:
    """Tell a confidential client whether an access token is active, and what it says (RFC 7662 §2).

    Raises:
        OAuthError: `invalid_client`, `invalid_request`.
    """
    parameters = await form(request)
    client = authenticate(request, parameters, issuer.clients)
    if client.secret is None:  # RFC 7662 §2.1: or anybody could try tokens here
        raise OAuthError("invalid_client", "A public client may not introspect.", 401)
    claims = issuer.read(required(parameters, "token"))
    return {"active": False} if claims is None else {"active": True, "token_type": "Bearer", **claims}


async def revoke(issuer: FakeIssuer, request: Request) -> Response:
    """Revoke a token of the client that asks; a token that nobody knows is no error (RFC 7009 §2).

    Raises:
        OAuthError: `invalid_client`, `invalid_request`, or `invalid_grant` for another client's token.
    """
    parameters = await form(request)
    client = authenticate(request, parameters, issuer.clients)
    token = required(parameters, "token")
    owner = issuer.grants.owner(token)
    if owner is not None and owner != client:
        raise OAuthError("invalid_grant", "The token belongs to another client.")
    issuer.grants.revoke(token)
    return Response(status_code=200)

"""The token endpoint: authorization code, refresh token and client credentials (RFC 6749 §3.2)."""

from __future__ import annotations

import hashlib
import hmac
import re
from typing import TYPE_CHECKING, Any

from oidc_middleware.testing.grants import Client, Grant, OAuthError
from oidc_middleware.testing.keys import override
from oidc_middleware.testing.minting import Shape
from oidc_middleware.testing.parameters import Parameters, authenticate, form, required
from oidc_middleware.testing.tokens import encode_segment

if TYPE_CHECKING:
    from starlette.requests import Request

    from oidc_middleware.testing.issuer import FakeIssuer

_VERIFIER = re.compile(r"[A-Za-z0-9._~-]{43,128}")  # RFC 7636 §4.1


async def token(issuer: FakeIssuer, request: Request) -> dict[str, Any]:
    """Exchange a grant for tokens.

    Raises:
        OAuthError: as RFC 6749 §5.2 says.
    """
    parameters = await form(request)
    client = authenticate(request, parameters, issuer.clients)
    grant_type = required(parameters, "grant_type")
    issuer.token_requests[grant_type] += 1
    match grant_type:
        case "authorization_code":
            return _from_code(issuer, client, parameters)
        case "refresh_token":
            return _from_refresh_token(issuer, client, parameters)
        case "client_credentials":
            return _from_client_credentials(issuer, client, parameters)
        case _:
            raise OAuthError("unsupported_grant_type", "This grant type is not supported.")


def _from_code(issuer: FakeIssuer, client: Client, parameters: Parameters) -> dict[str, Any]:
    """Redeem a code: same client, same redirect URI, and the verifier of its challenge (RFC 7636 §4.6)."""
    verifier = required(parameters, "code_verifier")
    if not _VERIFIER.fullmatch(verifier):
        raise OAuthError("invalid_request", "The code verifier is not one of RFC 7636.")
    code = issuer.grants.redeem(required(parameters, "code"), client, issuer.clock.now())
    if parameters.get("redirect_uri") != code.redirect_uri:
        raise OAuthError("invalid_grant", "The redirect URI is not that of the authorization request.")
    challenge = encode_segment(hashlib.sha256(verifier.encode()).digest())
    if not hmac.compare_digest(challenge, code.challenge.encode()):
        raise OAuthError("invalid_grant", "The code verifier does not fit the challenge.")
    _check_resource(code.grant, parameters)
    return _tokens(issuer, code.grant, code.grant.scope, refresh=True, identity=True)


def _from_refresh_token(issuer: FakeIssuer, client: Client, parameters: Parameters) -> dict[str, Any]:
    """Take a refresh token, and rotate it if this issuer does; a new scope may be narrower only (RFC 6749 §6)."""
    value = required(parameters, "refresh_token")
    held = issuer.grants.refresh.get(value)
    scope = parameters.get("scope")
    if scope is not None and held is not None and not set(scope.split()).issubset(held.grant.scope.split()):
        raise OAuthError("invalid_scope", "The scope is wider than what was granted.")
    if held is not None:
        _check_resource(held.grant, parameters)
    rotates = issuer.rotates_refresh_tokens
    grant = issuer.grants.use(value, client, detects_reuse=rotates and issuer.detects_reuse)
    return _tokens(issuer, grant, grant.scope if scope is None else scope, refresh=rotates, identity=True)


def _from_client_credentials(issuer: FakeIssuer, client: Client, parameters: Parameters) -> dict[str, Any]:
    """Give a confidential client a token of its own: its id is the subject (RFC 9068 §2.2)."""
    if client.secret is None:
        raise OAuthError("unauthorized_client", "A public client has no credentials.")
    scope = client.granted(parameters.get("scope", ""))
    audience = parameters.get("resource", issuer.audience)
    grant = Grant(client, client.client_id, scope, audience, int(issuer.clock.now()))
    return _tokens(issuer, grant, scope, refresh=False, identity=False)


def _check_resource(grant: Grant, parameters: Parameters) -> None:
    """Refuse a token for another resource than the one that was granted (RFC 8707 §2.2)."""
    if parameters.get("resource", grant.audience) != grant.audience:
        raise OAuthError("invalid_target", "The resource is not that of the authorization request.")


def _tokens(issuer: FakeIssuer, grant: Grant, scope: str, *, refresh: bool, identity: bool) -> dict[str, Any]:
    """Answer as RFC 6749 §5.1 says, with an ID token where `openid` was granted to a user (OIDC Core §3.1.3.3)."""
    access_token = _access_token(issuer, grant, scope)
    issuer.grants.add_access(access_token, grant)
    answer: dict[str, Any] = {
        "access_token": access_token,
        "token_type": "Bearer",
        "expires_in": issuer.expires_in,
        "scope": scope,
    }
    if refresh:
        answer["refresh_token"] = issuer.grants.add_refresh(grant)
    if identity and "openid" in scope.split():
        answer["id_token"] = _id_token(issuer, grant, access_token)
    return override(answer, issuer.token_overrides)


def _access_token(issuer: FakeIssuer, grant: Grant, scope: str) -> str:
    mint = issuer.token if grant.client.access_tokens == "jwt" else issuer.opaque_token
    session = {} if grant.sid is None else {"sid": grant.sid}
    return mint(
        grant.subject,
        audience=grant.audience,
        scope=scope,
        client_id=grant.client.client_id,
        claims={**issuer.users.get(grant.subject, {}), **session},
    )


def _id_token(issuer: FakeIssuer, grant: Grant, access_token: str) -> str:
    return issuer.id_token(
        grant.subject,
        client_id=grant.client.client_id,
        nonce=grant.nonce,
        access_token=access_token,
        **_shape(issuer, {**issuer.users.get(grant.subject, {}), "auth_time": grant.auth_time, "sid": grant.sid}),
    )


def _shape(issuer: FakeIssuer, claims: dict[str, Any]) -> Shape:
    """Return how the ID token of a login differs from the usual one: by these claims, and as a test wants it."""
    wanted = issuer.id_token_shape
    return {**wanted, "claims": {**claims, **wanted.get("claims", {})}}

"""The official SDK's token verifier, which asks the same authenticator, caches and ledger as the door does."""

from __future__ import annotations

import logging
import math
from typing import Any

import msgspec

try:
    from mcp.server.auth.provider import AccessToken, TokenVerifier
    from mcp.server.auth.settings import AuthSettings
except ModuleNotFoundError as _error:
    if _error.name is None or _error.name.partition(".")[0] != "mcp":
        raise
    raise ModuleNotFoundError(
        "oidc_middleware.mcp needs the official MCP SDK, which is not installed or too old: "
        "pip install 'oidc-middleware[mcp]'",
        name="mcp",
    ) from None

from oidc_middleware.asgi.mount import audience_of_mount
from oidc_middleware.core.known import Known
from oidc_middleware.core.principal import Principal
from oidc_middleware.errors import ConfigError, InvalidRequest, MissingToken, TokenError
from oidc_middleware.wiring import OIDC

logger: logging.Logger = logging.getLogger("oidc_middleware")


class OIDCTokenVerifier(TokenVerifier):
    """Verify tokens for the SDK (`MCPServer(token_verifier=…)`) as the door does.

    That is: signature or introspection, issuer, audience, kind, life and revocation. The service is started with the
    first token if nobody did it before; whoever wants it stopped in the end starts it (`async with oidc`).

    Where several MCP servers share a service, `resource` is the identifier of this one: tokens that are not for it are
    refused. It is one of the audiences that the service accepts.

    Raises:
        ConfigError: `oidc` is no service, or does not accept `resource`, so no token could have it.
    """

    def __init__(self, oidc: OIDC, *, resource: str | None = None) -> None:
        given: object = oidc
        if not isinstance(given, OIDC):
            raise ConfigError("oidc", f"is of type {type(given).__name__}", "Pass OIDC(...)")
        try:
            audience_of_mount(oidc, {"audience": resource})
        except ConfigError as error:
            raise ConfigError("resource", error.problem, error.cure) from None
        self._oidc = oidc
        self._only = resource

    async def verify_token(self, token: str) -> AccessToken | None:
        """Return what the SDK wants to know of a token; None: it is refused, and the SDK answers 401.

        `client_id` is empty where the token names no client, `resource` is the setting `resource` if the token is for
        it, else the accepted audience that it is for, and `claims` are all its claims. `scopes` hold those that others
        imply (`expand_scopes`). `expires_at` is `exp`, None where nobody names an end; the SDK allows no leeway on it.

        Raises:
            ProviderError: nobody can say whether the token is good, for the issuer does not answer.
            RevocationStale: nobody knows whether it is revoked, and such are refused.
        """
        try:
            known = await self._identify(b"Bearer " + token.encode("utf-8", "replace"))
        except (TokenError, InvalidRequest, MissingToken) as error:
            logger.info("refused a token: %s", error)
            return None
        principal = known.principal
        resource = self._resource(principal)
        if self._only is not None and resource != self._only:
            logger.info("refused a token: it is for another resource")
            return None
        return AccessToken(
            token=token,
            client_id=principal.client_id or "",
            scopes=sorted(principal.scopes),
            expires_at=None if principal.expires_at == math.inf else int(principal.expires_at),
            resource=resource,
            subject=principal.subject,
            claims=msgspec.json.decode(principal.payload, type=dict[str, Any]),
        )

    async def _identify(self, value: bytes) -> Known:
        if not self._oidc.started:
            await self._oidc.start()
        known = self._oidc.authenticator.lookup(value)
        return known if known is not None else await self._oidc.authenticator.authenticate(value)

    def _resource(self, principal: Principal) -> str | None:
        """Return what the token is for (RFC 8707 §2): of several the resource, else an audience of the settings."""
        found = principal.claims.get("aud", ())
        audiences = (found,) if isinstance(found, str) else found
        settings = self._oidc.settings
        configured = [audience for issuer in settings.trusted for audience in issuer.audience]
        wanted = (self._only, settings.resource, *configured, *(audiences if len(audiences) == 1 else ()))
        return next((audience for audience in wanted if audience in audiences), None)


def auth_settings(
    oidc: OIDC, *, resource: str | None = None, issuer: str | None = None, required_scopes: list[str] | None = None
) -> AuthSettings:
    """Return what `MCPServer(auth=…)` wants beside an `OIDCTokenVerifier`: issuer and resource of the settings.

    Where several MCP servers share a service, pass the `resource` of this one. The SDK knows one issuer: of several,
    pass the one to tell clients as `issuer`. It is not asked to compare audiences, for the verifier does. Behind
    `OIDCMiddleware` the SDK's own description of the resource is never reached, and that of the door has all issuers.

    Raises:
        ConfigError: there is no `resource`, or `issuer` is not passed and not exactly one is described.
    """
    settings = oidc.settings if resource is None else oidc.settings.model_copy(update={"resource": resource})
    if settings.resource_metadata is None:
        raise ConfigError("resource", "is not set", "Set it to the URL of the MCP endpoint: https://host/mcp.")
    names = settings.resource_metadata.authorization_servers
    if issuer is None and len(names) != 1:
        raise ConfigError("issuer", "is not one, and the SDK knows one", "Pass issuer= with the one to tell clients.")
    return AuthSettings.model_validate(
        {
            "issuer_url": names[0] if issuer is None else issuer,
            "resource_server_url": settings.resource,
            "required_scopes": required_scopes,
            "validate_token_resource": False,
        }
    )

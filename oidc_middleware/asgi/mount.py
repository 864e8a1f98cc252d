"""What a middleware may say for itself where it shares its service with others: who gets in, and how a refusal looks.

Whatever issuers, caches and the ledger depend on belongs to the service, for there is one of each.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from oidc_middleware.core.principal import Principal
from oidc_middleware.errors import ClaimError, ConfigError
from oidc_middleware.settings import Settings, checks
from oidc_middleware.settings.keywords import SettingsKeywords
from oidc_middleware.settings.problem import Problem, shown
from oidc_middleware.settings.unknown import unknown_name
from oidc_middleware.wiring import OIDC

POLICY: Final = (
    "public",
    "optional",
    "rules",
    "ambiguous_paths",
    "preflight",
    "websocket_token",
    "realm",
    "on_error",
    "resource",
    "resource_name",
    "resource_documentation",
    "authorization_servers",
    "scopes_supported",
)
"""The settings of a service that each middleware may replace, beside `audience`, which it may narrow."""

AUDIENCES_KEY: Final = "oidc_middleware.audiences"
"""Where the scope of a request to an endpoint of ours holds the audiences that its mount accepts, if not all are."""

_PATHS: Final = ("public", "optional", "rules")


def settings_of_mount(oidc: OIDC, keywords: Mapping[str, Any]) -> Settings:
    """Return the service's settings with those of `keywords` in their place, checked like these.

    Whoever lists paths of its own opens no others: `public` and `optional` are then empty unless they are given. Rules
    stay until others are given.

    Raises:
        ConfigError: one of them cannot work, belongs to the service, or is none.
    """
    for name in keywords:
        if name not in (*POLICY, "audience"):
            if name not in SettingsKeywords.__annotations__:
                raise unknown_name(name, (*POLICY, "audience"))
            cure = f"Put it into OIDC(...). Beside oidc= may stand {', '.join(POLICY)} and audience."
            raise ConfigError(name, "belongs to the service that middlewares share, and is given beside oidc=", cure)
    replaced = {name: value for name, value in keywords.items() if name in POLICY}
    if not replaced.keys().isdisjoint(_PATHS):
        replaced = {"public": (), "optional": ()} | replaced
    return oidc.settings.model_copy(update=replaced) if replaced else oidc.settings


def audience_of_mount(oidc: OIDC, keywords: Mapping[str, Any]) -> frozenset[str] | None:
    """Return those of the service's audiences that this middleware accepts, None for all of them.

    Raises:
        ConfigError: the service does not accept one of them, so no token could have it. Where a resolver tells of
            issuers later, nobody can say so now.
    """
    given = keywords.get("audience")
    if given is None:
        return None
    try:
        wanted = checks.audience(given)
    except Problem as problem:
        raise problem.of("audience") from None
    accepted = {audience for issuer in oidc.settings.trusted for audience in issuer.audience}
    for audience in wanted:
        if audience not in accepted and oidc.settings.issuer_resolver is None:
            cure = f"Name one or several of {', '.join(sorted(accepted))}, or add it to the audience of OIDC(...)."
            raise ConfigError("audience", f"{shown(audience)} is none that the service accepts", cure)
    return frozenset(wanted)


def check_audience(principal: Principal, audiences: frozenset[str], oidc: OIDC) -> None:
    """Check that a token which the service accepts is for this mount too.

    Raises:
        ClaimError: it is for others, or does not say for whom.

    Source: RFC 7519 §4.1.3, RFC 9068 §4.
    """
    issuer = oidc.issuers.peek(principal.issuer)
    name = issuer.expected.audience_claim if issuer is not None else "aud"
    value = principal.claims.get(name)
    held = (value,) if isinstance(value, str) else value
    if not isinstance(held, tuple) or audiences.isdisjoint(held):
        raise ClaimError(name, "mismatch", "the token is for another mount")

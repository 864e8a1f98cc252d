"""Who may be an administrator: the scope alone does not say it."""

from __future__ import annotations

from collections.abc import Sequence

from oidc_middleware.core.principal import Principal
from oidc_middleware.errors import InsufficientScope
from oidc_middleware.wiring import OIDC


def check_administrator(principal: Principal, oidc: OIDC, scopes: Sequence[str]) -> None:
    """Let an administrator pass whose issuer the settings name; the `scopes` were looked at.

    Whoever brings an issuer of their own, or is any tenant of one, gives out scopes as they please, and an
    administrator's reach is all issuers.

    Raises:
        InsufficientScope: the issuer was found by a resolver, or as one of any tenants.
    """
    if principal.issuer not in oidc.issuers.fixed:
        raise InsufficientScope("administrators are of issuers that the settings name", tuple(scopes))

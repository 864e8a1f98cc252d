"""The part of one service that keeps the sessions of browsers."""

from __future__ import annotations

from collections.abc import Mapping

from oidc_middleware.auth.generation import Generation
from oidc_middleware.auth.issuers import Issuers
from oidc_middleware.auth.revocation.receipt import Receipt
from oidc_middleware.auth.revocation.revoke import Revoke
from oidc_middleware.auth.revocation.standing import Standing
from oidc_middleware.cache import Caches
from oidc_middleware.clock import Clock
from oidc_middleware.core.cookies import CookieShape
from oidc_middleware.session.cookie import Cookies
from oidc_middleware.session.limits import Limits
from oidc_middleware.session.login import LoginIssuer
from oidc_middleware.session.opening import IssuerOfSessions
from oidc_middleware.session.renewer import IssuerRenewer
from oidc_middleware.session.sessions import Sessions
from oidc_middleware.session.sids import Sids
from oidc_middleware.settings import Settings


def open_sessions(
    settings: Settings,
    login_issuers: Mapping[str, LoginIssuer],
    issuers: Issuers,
    caches: Caches,
    *,
    standing: Standing,
    generation: Generation,
    revoke: Revoke,
    sids: Sids,
    clock: Clock,
) -> Sessions | None:
    """Return what keeps the sessions of browsers, None without `login`."""
    if settings.base_url is None or not login_issuers:
        return None

    async def end_by_name(issuer: str, name: str, expires_at: float) -> Receipt:
        return await revoke.token(jti=name, issuer=issuer, expires_at=expires_at)

    return Sessions(
        caches.session,
        {
            name: IssuerOfSessions(issuer.tokens.client_id, issuers.fixed[name].mapping)
            for name, issuer in login_issuers.items()
        },
        Cookies(settings.cookie_name, CookieShape(is_secure=settings.base_url.startswith("https://"))),
        Limits(settings.session_idle, settings.session_absolute, settings.refresh_ahead),
        IssuerRenewer(login_issuers),
        locks=caches.general,
        sids=sids,
        ledger=standing,
        stamp=generation,
        end_by_name=end_by_name,
        on_stale=settings.on_stale,
        clock=clock,
    )

"""What ends sessions because an issuer or a browser says so, of one service."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from oidc_middleware.auth.issuers import Issuers
from oidc_middleware.auth.revocation.keeper import Keeper
from oidc_middleware.auth.revocation.names import Names
from oidc_middleware.auth.revocation.receipt import Receipt
from oidc_middleware.cache import Caches
from oidc_middleware.clock import Clock
from oidc_middleware.core.ledger.records import Record
from oidc_middleware.core.logout_token import ExpectedLogout
from oidc_middleware.session.backchannel import BackchannelLogout, LogoutIssuer
from oidc_middleware.session.login import LoginIssuer
from oidc_middleware.session.logout import Logout
from oidc_middleware.session.logout_states import LogoutStates
from oidc_middleware.session.sessions import Sessions
from oidc_middleware.session.sids import Sids
from oidc_middleware.settings import Settings
from oidc_middleware.settings.cache import MEMORY
from oidc_middleware.wiring.logins import secrets_of
from oidc_middleware.wiring.revoking import Revoking

FLOW_LIFE = 540.0
"""For how many seconds after the end of a session a login that was under way may still bring tokens of it.

The longest that a code should live (RFC 6749 §4.1.2), less a minute: an import takes no cut-off that lies further ahead
than the clocks of nodes may differ.
"""


class LedgerCutoffs:
    """Ends sessions by the ledger, and is content only when all nodes will hear of it."""

    def __init__(self, keeper: Keeper, names: Names, required: Receipt, clock: Clock) -> None:
        self._keeper = keeper
        self._names = names
        self._required = required
        self._now = clock.now

    async def session(self, issuer: str, sid: str) -> None:
        """End all of a session at the issuer, and what comes of it within `FLOW_LIFE`: an issuer reuses no `sid`.

        Raises:
            RevocationNotShared: it holds here, and not as widely as required.
        """
        await self._end(self._names.keys.session(issuer, sid, self._now() + FLOW_LIFE, self._names.life))

    async def subject(self, issuer: str, sub: str) -> None:
        """End all of a subject that began until now, or within `leeway` of it.

        Raises:
            RevocationNotShared: it holds here, and not as widely as required.
        """
        await self._end(self._names.keys.subject(issuer, sub, self._now(), self._names.life))

    async def _end(self, record: Record) -> None:
        receipt = await self._keeper.add([record])
        receipt.check(self._required)


def open_backchannel(
    settings: Settings, issuers: Issuers, revoking: Revoking, *, caches: Caches, sids: Sids, clock: Clock
) -> BackchannelLogout:
    """Return what takes the logout tokens of the issuers where browsers log in; of none without a login."""
    required = Receipt.LOCAL if settings.cache == MEMORY else Receipt.SHARED
    trusted = {
        issuer.issuer: LogoutIssuer(
            ExpectedLogout(
                issuer=issuer.issuer,
                client_id=issuer.client_id or "",
                algorithms=frozenset(issuer.algorithms),
                leeway=settings.leeway,
                max_token_life=settings.max_token_life,
                requires_exp=settings.logout_token_exp == "require",  # noqa: S105  a rule, no secret
            ),
            issuers.fixed[issuer.issuer].keys,
        )
        for issuer in settings.login_issuers
    }
    cutoffs = LedgerCutoffs(revoking.keeper, revoking.names, required, clock)
    return BackchannelLogout(MappingProxyType(trusted), cutoffs, sids, caches.general, clock)


def open_logout(
    settings: Settings, sessions: Sessions | None, issuers: Mapping[str, LoginIssuer], clock: Clock
) -> Logout | None:
    """Return what signs users out; None without a login."""
    if sessions is None:
        return None
    states = LogoutStates(secrets_of(settings), settings.namespace, clock)
    return Logout(sessions, issuers, states, settings.post_logout_redirect_uri)

"""Opening sessions: from the cookie of a request to whose it is, with an access token that is not over."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Mapping
from functools import partial
from typing import Final, Literal, NamedTuple

from oidc_middleware.cache import TypedCache
from oidc_middleware.cache.loading import Flights
from oidc_middleware.clock import Clock
from oidc_middleware.core.claims_mapping import ClaimsMapping
from oidc_middleware.errors import BackendUnavailable, ProviderError, ProviderInvalid, Revoked, SessionEnded
from oidc_middleware.session.cookie import SessionCookie, read
from oidc_middleware.session.ends import Ends
from oidc_middleware.session.identity import claims_of, principal_of
from oidc_middleware.session.known import KnownSession, KnownSessions, Ledger, Stamp
from oidc_middleware.session.limits import Limits, is_over
from oidc_middleware.session.record import Record
from oidc_middleware.session.refresh import Refresh, Renewer
from oidc_middleware.session.store import SessionStore

_log = logging.getLogger("oidc_middleware.session")

STOP_SECONDS: Final = 6.0
"""How long an exchange that is under way is waited for when the service stops; it takes 5 s at most."""

# While the store cannot be asked it is tried again so often, in seconds.
_RETRY_SECONDS = 1.0
# Who logged in so short a time ago is not sent to the login again for an access token: that would go round and round.
_JUST_BEGUN_SECONDS = 10.0


class IssuerOfSessions(NamedTuple):
    """What is known of an issuer where browsers log in."""

    client_id: str
    mapping: ClaimsMapping


class Opening:
    """Knows the sessions that were opened, and opens others. `locks` are those of exchanges, see `Refresh`.

    `on_stale` says what becomes of sessions that are known here while the store cannot be asked.
    """

    def __init__(
        self,
        store: SessionStore,
        issuers: Mapping[str, IssuerOfSessions],
        limits: Limits,
        renewer: Renewer,
        ends: Ends,
        *,
        locks: TypedCache[bytes],
        ledger: Ledger,
        stamp: Stamp,
        on_stale: Literal["allow", "deny"],
        clock: Clock,
    ) -> None:
        self.ledger: Ledger = ledger
        self.allowed_unseen: int = 0
        """How often a known session was let in while the store could not be asked."""
        self._issuers = issuers
        self._store = store
        self._known = KnownSessions(stamp, ledger, clock)
        self._limits = limits
        self._denies = on_stale == "deny"
        self._now = clock.now
        self._flights = Flights()
        self._refresh = Refresh(store, locks, renewer, limits, clock, check=self.check, end=ends.end)
        self.lookup: Callable[[bytes], KnownSession | None] = self._known.lookup
        """Return the session that a Cookie header was known to be of; no await, no JSON.

        Raises:
            SessionEnded, RevocationStale: it was ended, or nobody knows.
        """

    async def find(self, header: bytes, value: bytes) -> KnownSession | None:
        """Return the session of a cookie, which stands in a Cookie header; None: it is of none that lasts.

        Raises:
            SessionEnded: it was ended.
            BackendUnavailable, ProviderError, RevocationStale: nobody can say.
        """
        cookie = read(value)
        if cookie is None:
            return None
        await self.ledger.begin()
        known = self._known.peek(value)
        if known is None or not self._known.is_fresh(known):
            try:
                known = await self._flights.run(value, partial(self._opened, value, cookie))
            except Revoked as error:
                self._known.forget(value)
                raise SessionEnded(error.detail) from None
            except BackendUnavailable:
                if known is None or not self._may_go_on(known):
                    raise
            if known is None:
                return None
        known = self._known.held_against_ledger(known)
        self._known.admit(header, known)
        return known

    async def look(self, value: bytes) -> KnownSession | None:
        """Return the session of a cookie as it is, its access token over or not, for whoever ends it.

        The issuer is not asked. None: the cookie is of no session that lasts.

        Raises:
            SessionEnded: it was ended.
            BackendUnavailable, RevocationStale: nobody can say.
        """
        cookie = read(value)
        if cookie is None:
            return None
        await self.ledger.begin()
        try:
            record = await self._looked_up(cookie, self._known.peek(value))
        except Revoked as error:
            raise SessionEnded(error.detail) from None
        if record is None or not self._lasts(record):
            return None
        return self._known.held_against_ledger(self._known_as(value, cookie, record))

    async def newest(self, known: KnownSession) -> Record:
        """Return what is kept of a session: as the store has it now, or else as it is known here."""
        record = (self._known.peek(known.value) or known).record
        found = None
        with contextlib.suppress(BackendUnavailable):
            found = await self._store.find_newest(known.cookie)
        return found if found is not None and found.version > record.version else record

    async def access_token(self, known: KnownSession) -> str:
        """Return the session's access token, renewed if it is over; one that is about to be is renewed meanwhile.

        Raises:
            SessionEnded: it is over and cannot be renewed.
            ProviderError, BackendUnavailable: it is over, and nobody can renew it now; or it is of no use at all.
        """
        now = self._now()
        record = (self._known.peek(known.value) or known).record
        if is_over(record, now):
            if record.refresh_token is None and now < record.began + _JUST_BEGUN_SECONDS:
                raise ProviderInvalid("its access token is over so soon after the login that another is of no use")
            if record.refresh_token is None:
                raise SessionEnded("its access token is over, and there is no refresh token")
            record = await self._renewed(known.value, known.cookie, record)
        elif self._limits.is_due(record, now):
            self._renew_ahead(known.value, known.cookie, record)
        return record.access_token

    async def stop(self) -> None:
        """End what runs in the background; it can be used again.

        Exchanges come to their end: what the issuer gave must be stored, or the user has to log in again.
        """
        flights, self._flights = self._flights, Flights()
        await flights.settle(STOP_SECONDS)
        await flights.aclose()

    def stats(self) -> dict[str, int]:
        """Return counters, as plain JSON types."""
        return {
            "known": len(self._known),
            "exchanges": self._refresh.exchanges,
            "allowed_unseen": self.allowed_unseen,
        }

    def remember(self, value: bytes, cookie: SessionCookie, record: Record) -> KnownSession:
        """Know a session from now on; what the ledger says of it is looked at by whoever uses it."""
        known = self._known_as(value, cookie, record)
        self._known.remember(known)
        return known

    def _known_as(self, value: bytes, cookie: SessionCookie, record: Record) -> KnownSession:
        issuer, now = self._issuers[record.issuer], self._now()
        claims = claims_of(record, issuer.client_id)
        principal = principal_of(record, claims, issuer.mapping)
        until = max(self._limits.looked_at_again(record, now), min(now + _RETRY_SECONDS, record.ends_at))
        return KnownSession(
            value=value,
            until=until,
            generation=-1,
            keys=0,
            principal=principal,
            marks=self.ledger.marks_of(claims, b"").pack(),
            deadline=record.deadline,
            is_cached=True,
            record=record,
            cookie=cookie,
            tokens=self,
        )

    def check(self, record: Record) -> None:
        """Hold a session against the ledger.

        Raises:
            Revoked, RevocationStale: as the ledger does.
        """
        issuer = self._issuers[record.issuer]
        self.ledger.check(self.ledger.marks_of(claims_of(record, issuer.client_id), b""))

    async def _opened(self, value: bytes, cookie: SessionCookie) -> KnownSession | None:
        """Return the session of a cookie as the store has it, used now, its access token renewed if that is due."""
        known = self._known.peek(value)
        record = await self._looked_up(cookie, known)
        now = self._now()
        if record is None or not self._lasts(record):
            self._known.forget(value)
            return None
        self.check(record)
        touched = self._limits.touched(record, now)
        if touched is not record:
            record = await self._touched(cookie, record, touched)
        if record.refresh_token is not None and is_over(record, now):
            try:
                record = await self._renewed(value, cookie, record)
            except BackendUnavailable:
                if known is None or not self._may_go_on(known):
                    raise
        elif self._limits.is_due(record, now):
            self._renew_ahead(value, cookie, record)
        return self.remember(value, cookie, record)

    async def _looked_up(self, cookie: SessionCookie, known: KnownSession | None) -> Record | None:
        """Return the record of a cookie: the newer one of the store's and what is known here.

        What the store has lost is written back. Somebody may have deleted it, too: then the ledger refuses it.

        Raises:
            BackendUnavailable: the store cannot be asked, and the session is not known here, or such are refused.
        """
        try:
            found = await self._store.find(cookie)
        except BackendUnavailable:
            if known is None or not self._may_go_on(known):
                raise
            return known.record
        if known is None or not self._now() < known.record.ends_at:
            return found
        if found is not None and found.version >= known.record.version:
            return found
        self.check(known.record)
        with contextlib.suppress(BackendUnavailable):
            if found is None:
                await self._store.add(cookie, known.record)
            else:
                await self._store.update(cookie, known.record)
        return known.record

    def _lasts(self, record: Record) -> bool:
        """Tell whether a session is not over by itself, and of an issuer that is still one."""
        return self._now() < record.ends_at and record.issuer in self._issuers

    def _may_go_on(self, known: KnownSession) -> bool:
        """Tell whether a session that is known here goes on while nobody can say more of it, and count it."""
        goes_on = not self._denies and self._now() < known.record.ends_at
        self.allowed_unseen += goes_on
        return goes_on

    async def _touched(self, cookie: SessionCookie, record: Record, touched: Record) -> Record:
        try:
            if await self._store.update(cookie, touched):
                return touched
        except BackendUnavailable:
            return touched  # this node goes by it
        return await self._store.find_newest(cookie) or record

    async def _renewed(self, value: bytes, cookie: SessionCookie, record: Record) -> Record:
        try:
            renewed = await self._flights.run((value, "renewed"), partial(self._refresh.run, cookie, record))
        except Revoked as error:
            raise SessionEnded(error.detail) from None
        self.remember(value, cookie, renewed)
        return renewed

    def _renew_ahead(self, value: bytes, cookie: SessionCookie, record: Record) -> None:
        async def renew() -> Record:
            try:
                renewed = await self._refresh.run(cookie, record)
            except (ProviderError, BackendUnavailable) as error:
                _log.warning("session %s: its access token is not renewed yet: %s", record.name, error)
                raise
            self.remember(value, cookie, renewed)
            return renewed

        with contextlib.suppress(BackendUnavailable):  # so much is under way that this can wait
            self._flights.begin((value, "renewed"), renew)

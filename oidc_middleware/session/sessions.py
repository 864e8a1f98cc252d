"""Browser sessions: beginning them, finding whose a cookie is, ending them.

```
sessions   the service: create, find, end, list
cookie     what stands in a cookie, and how it is found
record     what is kept of a session, sealed with the cookie's key
store      where records lie
known      sessions that were opened before
identity   who a session is of
limits     how long it lives
refresh    a new access token, one exchange at a time
index      which sessions a user has
seal       AES-256-GCM
```
"""

from __future__ import annotations

import contextlib
import logging
import secrets
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from typing import Any, Final, Literal, NamedTuple

import msgspec

from oidc_middleware.cache import TypedCache
from oidc_middleware.cache.loading import Flights
from oidc_middleware.clock import Clock
from oidc_middleware.core.claims_mapping import ClaimsMapping
from oidc_middleware.core.grant import Login
from oidc_middleware.errors import (
    BackendUnavailable,
    LoginError,
    OIDCError,
    ProviderError,
    Revoked,
    SessionEnded,
)
from oidc_middleware.session.cookie import Cookies, SessionCookie, new_value, read
from oidc_middleware.session.identity import claims_of, kept_claims, principal_of
from oidc_middleware.session.index import Index, Listed
from oidc_middleware.session.known import KnownSession, KnownSessions, Ledger, Stamp
from oidc_middleware.session.limits import Limits, access_ends, is_over
from oidc_middleware.session.record import Record, check_size
from oidc_middleware.session.refresh import Refresh, Renewer
from oidc_middleware.session.sids import Sids
from oidc_middleware.session.store import SessionStore

_log = logging.getLogger("oidc_middleware.session")

STOP_SECONDS: Final = 6.0
"""How long an exchange that is under way is waited for when the service stops; it takes 5 s at most."""

_LONGEST_USER_AGENT = 256
# While the store cannot be asked it is tried again so often, in seconds.
_RETRY_SECONDS = 1.0

EndByName = Callable[[str, str, float], Awaitable[Any]]
"""Puts the end of a session into the ledger: issuer, name, until when that matters (Unix seconds)."""


class NewSession(NamedTuple):
    """A session that began just now, and the Set-Cookie header that gives it to the browser."""

    known: KnownSession
    set_cookie: str


class IssuerOfSessions(NamedTuple):
    """What is known of an issuer where browsers log in."""

    client_id: str
    mapping: ClaimsMapping


class Sessions:
    """`oidc.sessions`. `end_by_name` writes to the ledger, which decides; the store only remembers.

    `on_stale` says what becomes of sessions that are known here while the store cannot be asked.
    """

    def __init__(
        self,
        cache: TypedCache[bytes],
        issuers: Mapping[str, IssuerOfSessions],
        cookies: Cookies,
        limits: Limits,
        renewer: Renewer,
        *,
        locks: TypedCache[bytes],
        sids: Sids,
        ledger: Ledger,
        stamp: Stamp,
        end_by_name: EndByName,
        on_stale: Literal["allow", "deny"],
        clock: Clock,
    ) -> None:
        self.cookies: Cookies = cookies
        self.allowed_unseen: int = 0
        """How often a known session was let in while the store could not be asked."""
        self._issuers = issuers
        self._sids = sids
        self._store = SessionStore(cache)
        self._index = Index(cache, clock)
        self._known = KnownSessions(stamp, ledger, clock)
        self._limits = limits
        self._ledger = ledger
        self._end_by_name = end_by_name
        self._denies = on_stale == "deny"
        self._now = clock.now
        self._flights = Flights()
        self._refresh = Refresh(
            self._store, locks, renewer, limits, clock, check=self._check_record, end=self._end_record
        )
        self.lookup: Callable[[bytes], KnownSession | None] = self._known.lookup
        """Return the session that a Cookie header was known to be of; no await, no JSON.

        Raises:
            SessionEnded, RevocationStale: it was ended, or nobody knows.
        """

    async def find(self, header: bytes) -> KnownSession | None:
        """Return the session of the cookie in a Cookie header; None: no cookie, or of no session that lasts.

        Raises:
            InvalidRequest: there are two.
            SessionEnded: it was ended.
            BackendUnavailable, ProviderError, RevocationStale: nobody can say.
        """
        value = self.cookies.find(header)
        cookie = None if value is None else read(value)
        if value is None or cookie is None:
            return None
        await self._ledger.begin()
        known = self._known.peek(value)
        if known is None or not self._known.is_fresh(known):
            try:
                known = await self._flights.run(value, partial(self._opened, value, cookie))
            except Revoked as error:
                self._known.forget(value)
                raise SessionEnded(error.detail) from None
            if known is None:
                return None
        known = self._known.held_against_ledger(known)
        self._known.admit(header, known)
        return known

    async def create(self, login: Login, *, replaces: KnownSession | None = None, user_agent: str = "") -> NewSession:
        """Begin a session under an id that nobody knows, and end the one that the browser had.

        Raises:
            Revoked: a revocation forbids this login: everything of the user was ended a moment ago.
            LoginError: the issuer's tokens are too large to be kept.
            BackendUnavailable: the store did not take it, so there is no session.
        """
        value = new_value()
        cookie = read(value.encode())
        assert cookie is not None  # noqa: S101  it has the shape
        record = self._begun(login, user_agent)
        try:
            check_size(record)
        except ValueError as error:
            raise LoginError(str(error)) from None
        await self._ledger.begin()
        self._check_record(record)
        if not await self._store.add(cookie, record):
            raise BackendUnavailable("the store did not take the session")
        self._check_record(record)  # a log-out may have come meanwhile
        known = self._remember(value.encode(), cookie, record)
        if replaces is not None:
            await self.end(replaces)
        await self._note(known)
        return NewSession(known, self.cookies.set(value, self._limits.absolute))

    async def end(self, known: KnownSession) -> Any:
        """End a session on every node, and return the receipt of the ledger."""
        return await self._end_record(known.cookie, known.record)

    async def newest(self, known: KnownSession) -> Record:
        """Return what is kept of a session: as the store has it now, or else as it is known here."""
        record = (self._known.peek(known.value) or known).record
        found = None
        with contextlib.suppress(BackendUnavailable):
            found = await self._store.find_newest(known.cookie)
        return found if found is not None and found.version > record.version else record

    async def list(self, known: KnownSession) -> tuple[Listed, ...]:
        """Return the sessions of the user of this one, the oldest first.

        Raises:
            BackendUnavailable: nobody can say.
        """
        return await self._index.of(known.record.issuer, _subject(known))

    async def end_named(self, known: KnownSession, name: str) -> bool:
        """End one of the sessions of this one's user; tell whether there is such a one.

        Raises:
            BackendUnavailable: nobody can say.
        """
        issuer, subject = known.record.issuer, _subject(known)
        for listed in await self._index.of(issuer, subject):
            if listed.name == name:
                await self._end_by_name(issuer, name, listed.deadline)
                await self._forgotten(issuer, subject, name, listed.store_key)
                return True
        return False

    async def access_token(self, known: KnownSession) -> str:
        """Return the session's access token, renewed if it is over; one that is about to be is renewed meanwhile.

        Raises:
            SessionEnded: it is over and cannot be renewed.
            ProviderError, BackendUnavailable: it is over, and nobody can renew it now.
        """
        now = self._now()
        record = (self._known.peek(known.value) or known).record
        if is_over(record, now):
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

    def _begun(self, login: Login, user_agent: str) -> Record:
        now, grant = self._now(), login.grant
        deadline = self._limits.deadline(now, now, grant)
        return Record(
            version=1,
            name=secrets.token_urlsafe(16),
            issuer=login.issuer,
            claims=kept_claims(login.claims),
            id_token=login.id_token,
            nonce=login.nonce,
            began=now,
            ends_at=self._limits.ends_at(deadline, now),
            deadline=deadline,
            access_token=grant.access_token,
            access_ends=access_ends(grant, now),
            renew_at=self._limits.renew_at(grant, now),
            refresh_token=grant.refresh_token,
            scope=grant.scope,
            user_agent=user_agent[:_LONGEST_USER_AGENT],
        )

    async def _note(self, known: KnownSession) -> None:
        """Remember whose a new session is, for lists and for logout tokens; it is one without that, too."""
        record, principal = known.record, known.principal
        last = record.began + self._limits.absolute
        listed = Listed(record.name, known.cookie.store_key, record.began, last, record.user_agent)
        with contextlib.suppress(BackendUnavailable):
            await self._index.add(record.issuer, _subject(known), listed)
            if principal.sid is not None:
                await self._sids.remember(record.issuer, principal.sid, _subject(known), last)

    async def _opened(self, value: bytes, cookie: SessionCookie) -> KnownSession | None:
        """Return the session of a cookie as the store has it, used now, its access token renewed if that is due."""
        known = self._known.peek(value)
        record = await self._looked_up(cookie, known)
        now = self._now()
        if record is None or not now < record.ends_at or record.issuer not in self._issuers:
            self._known.forget(value)
            return None
        self._check_record(record)
        touched = self._limits.touched(record, now)
        if touched is not record:
            record = await self._touched(cookie, record, touched)
        if record.refresh_token is not None and is_over(record, now):
            try:
                record = await self._renewed(value, cookie, record)
            except BackendUnavailable:
                if known is None or self._denies:
                    raise
                self.allowed_unseen += 1
        elif self._limits.is_due(record, now):
            self._renew_ahead(value, cookie, record)
        return self._remember(value, cookie, record)

    async def _looked_up(self, cookie: SessionCookie, known: KnownSession | None) -> Record | None:
        """Return the record of a cookie: the newer one of the store's and what is known here.

        What the store has lost is written back. Somebody may have deleted it, too: then the ledger refuses it.

        Raises:
            BackendUnavailable: the store cannot be asked, and the session is not known here, or such are refused.
        """
        lasts = known is not None and self._now() < known.record.ends_at
        try:
            found = await self._store.find(cookie)
        except BackendUnavailable:
            if not lasts or self._denies:
                raise
            self.allowed_unseen += 1
            return known.record if known is not None else None
        if known is None or not lasts:
            return found
        if found is not None and found.version >= known.record.version:
            return found
        self._check_record(known.record)
        with contextlib.suppress(BackendUnavailable):
            if found is None:
                await self._store.add(cookie, known.record)
            else:
                await self._store.update(cookie, known.record)
        return known.record

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
        self._remember(value, cookie, renewed)
        return renewed

    def _renew_ahead(self, value: bytes, cookie: SessionCookie, record: Record) -> None:
        async def renew() -> Record:
            try:
                renewed = await self._refresh.run(cookie, record)
            except (ProviderError, BackendUnavailable) as error:
                _log.warning("session %s: its access token is not renewed yet: %s", record.name, error)
                raise
            self._remember(value, cookie, renewed)
            return renewed

        with contextlib.suppress(BackendUnavailable):  # so much is under way that this can wait
            self._flights.begin((value, "renewed"), renew)

    def _remember(self, value: bytes, cookie: SessionCookie, record: Record) -> KnownSession:
        """Know a session from now on; what the ledger says of it is looked at by whoever uses it."""
        issuer, now = self._issuers[record.issuer], self._now()
        claims = claims_of(record, issuer.client_id)
        principal = principal_of(record, claims, issuer.mapping)
        until = max(self._limits.looked_at_again(record, now), min(now + _RETRY_SECONDS, record.ends_at))
        known = KnownSession(
            value=value,
            until=until,
            generation=-1,
            keys=0,
            principal=principal,
            marks=self._ledger.marks_of(claims, b"").pack(),
            deadline=record.deadline,
            is_cached=True,
            record=record,
            cookie=cookie,
            tokens=self,
        )
        self._known.remember(known)
        return known

    def _check_record(self, record: Record) -> None:
        """Hold a session against the ledger.

        Raises:
            Revoked, RevocationStale: as the ledger does.
        """
        issuer = self._issuers[record.issuer]
        self._ledger.check(self._ledger.marks_of(claims_of(record, issuer.client_id), b""))

    async def _end_record(self, cookie: SessionCookie, record: Record) -> Any:
        receipt = await self._end_by_name(record.issuer, record.name, record.began + self._limits.absolute)
        subject = str(msgspec.json.decode(record.claims).get("sub"))
        await self._forgotten(record.issuer, subject, record.name, cookie.store_key)
        return receipt

    async def _forgotten(self, issuer: str, subject: str, name: str, store_key: bytes) -> None:
        """Tidy up behind a session that the ledger ended: nothing depends on it."""
        with contextlib.suppress(OIDCError):
            await self._store.delete(store_key)
            await self._index.remove(issuer, subject, name)


def _subject(known: KnownSession) -> str:
    return known.principal.subject or ""

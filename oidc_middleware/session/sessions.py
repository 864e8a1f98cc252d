"""Browser sessions: beginning them, finding whose a cookie is, ending them.

```
sessions   the service: create, find, end, list
opening    from the cookie of a request to whose it is
ends       ending one, or one of a user's
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
import secrets
from collections.abc import Callable, Mapping
from typing import Any, Literal, NamedTuple

from oidc_middleware.cache import TypedCache
from oidc_middleware.clock import Clock
from oidc_middleware.core.grant import Login
from oidc_middleware.errors import BackendUnavailable, LoginError
from oidc_middleware.session.cookie import Cookies, new_value, read
from oidc_middleware.session.ends import EndByName, Ends
from oidc_middleware.session.identity import kept_claims
from oidc_middleware.session.index import Index, Listed
from oidc_middleware.session.known import KnownSession, Ledger, Stamp
from oidc_middleware.session.limits import Limits, access_ends
from oidc_middleware.session.opening import IssuerOfSessions, Opening
from oidc_middleware.session.record import Record, check_size
from oidc_middleware.session.refresh import Renewer
from oidc_middleware.session.sids import Sids
from oidc_middleware.session.store import SessionStore

_LONGEST_USER_AGENT = 256


class NewSession(NamedTuple):
    """A session that began just now, and the Set-Cookie header that gives it to the browser."""

    known: KnownSession
    set_cookie: str


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
        self._sids = sids
        self._store = SessionStore(cache)
        self._index = Index(cache, clock)
        self._limits = limits
        self._now = clock.now
        self._ends = Ends(self._store, self._index, limits, end_by_name)
        self._opening = Opening(
            self._store,
            issuers,
            limits,
            renewer,
            self._ends,
            locks=locks,
            ledger=ledger,
            stamp=stamp,
            on_stale=on_stale,
            clock=clock,
        )
        self.lookup: Callable[[bytes], KnownSession | None] = self._opening.lookup
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
        return None if value is None else await self._opening.find(header, value)

    async def look(self, header: bytes) -> KnownSession | None:
        """Return what `find` does for whoever ends the session: its access token is not renewed before.

        Raises:
            InvalidRequest, SessionEnded: as `find` does.
            BackendUnavailable, RevocationStale: nobody can say.
        """
        value = self.cookies.find(header)
        return None if value is None else await self._opening.look(value)

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
        await self._opening.ledger.begin()
        self._opening.check(record)
        if not await self._store.add(cookie, record):
            raise BackendUnavailable("the store did not take the session")
        self._opening.check(record)  # a log-out may have come meanwhile
        known = self._opening.remember(value.encode(), cookie, record)
        if replaces is not None:
            await self.end(replaces)
        await self._note(known)
        return NewSession(known, self.cookies.set(value, self._limits.absolute))

    async def end(self, known: KnownSession) -> Any:
        """End a session on every node, and return the receipt of the ledger."""
        return await self._ends.end(known.cookie, known.record)

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
        return await self._ends.end_named(known.record.issuer, _subject(known), name)

    async def newest(self, known: KnownSession) -> Record:
        """Return what is kept of a session: as the store has it now, or else as it is known here."""
        return await self._opening.newest(known)

    async def access_token(self, known: KnownSession) -> str:
        """Return the session's access token, renewed if it is over; one that is about to be is renewed meanwhile.

        Raises:
            SessionEnded: it is over and cannot be renewed.
            ProviderError, BackendUnavailable: it is over, and nobody can renew it now.
        """
        return await self._opening.access_token(known)

    async def stop(self) -> None:
        """End what runs in the background, exchanges after they came to their end; it can be used again."""
        await self._opening.stop()

    def stats(self) -> dict[str, int]:
        """Return counters, as plain JSON types."""
        return self._opening.stats()

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


def _subject(known: KnownSession) -> str:
    return known.principal.subject or ""

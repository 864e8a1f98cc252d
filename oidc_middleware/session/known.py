"""Sessions that were opened before: what makes the second request of a browser cost a microsecond."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, Protocol

from oidc_middleware.clock import Clock
from oidc_middleware.core.known import Known
from oidc_middleware.core.ledger.digests import Marks
from oidc_middleware.errors import Revoked, SessionEnded
from oidc_middleware.session.cookie import SessionCookie
from oidc_middleware.session.limits import LOOK_SECONDS
from oidc_middleware.session.record import Record

HOT_HEADERS: Final = 1024
"""How many Cookie headers are known as a whole: each request of a page sends the same."""

LONGEST_HOT: Final = 4096
"""Bytes of a Cookie header that is kept."""

# What has longer to live was looked at in the future: the clock went back since. The second is for rounding.
_LONGEST: Final = LOOK_SECONDS + 1

MOST_KNOWN: Final = 8192
MOST_BYTES: Final = 64 * 1024 * 1024
"""How many sessions are kept in memory, and how much of it they may take. Those that came last stay."""


class Stamp(Protocol):
    """A number that moves whenever something that was accepted may have to be refused."""

    @property
    def value(self) -> int:
        """The number now."""


class Ledger(Protocol):
    """What the ledger of revocations says of an identity, from memory."""

    @property
    def begin(self) -> Any:
        """Waits until the ledger is loaded."""

    def marks_of(self, claims: Any, signing_input: bytes) -> Marks:
        """Return what the ledger knows an identity by."""

    def check_again(self, packed: bytes) -> bool:
        """Do what `check` does, for marks that were packed."""

    def check(self, marks: Marks) -> bool:
        """Check that nothing refuses it; tell whether that is certain until the ledger moves.

        Raises:
            Revoked, RevocationStale: something does, or nobody knows.
        """


class Tokens(Protocol):
    """Gives a session's access token, renewed if it has to be."""

    async def access_token(self, known: KnownSession) -> str:
        """Return an access token that has not ended.

        Raises:
            SessionEnded, ProviderError, BackendUnavailable: there is none.
        """


class KnownSession(Known, gc=True):
    """An opened session, ready to be put into a request: `request.auth` of whoever came with its cookie.

    `value` is the cookie, `until` is when the store is looked at again, `deadline` when it ends in any case.
    """

    record: Record
    cookie: SessionCookie
    tokens: Tokens

    @property
    def name(self) -> str:
        """What the session is called where one is to be chosen; it opens nothing."""
        return self.record.name

    @property
    def id_token(self) -> str:
        """The ID token of the login, which the issuer wants as a hint at logout. Never log it."""
        return self.record.id_token

    async def access_token(self) -> str:
        """Return the access token for a call on the user's behalf, renewed if it is about to end. Never log it.

        Raises:
            SessionEnded: it is over and cannot be renewed: the user has to log in again.
            ProviderError, BackendUnavailable: it is over, and nobody can renew it now.
        """
        return await self.tokens.access_token(self)

    def __repr__(self) -> str:
        return f"KnownSession({self.principal!r}, name={self.record.name!r})"


class KnownSessions:
    """Two tiers of opened sessions: by the whole Cookie header, and by the session's cookie. Both forget the oldest."""

    def __init__(self, stamp: Stamp, ledger: Ledger, clock: Clock) -> None:
        self._stamp = stamp
        self._ledger = ledger
        self._now = clock.now
        self._hot: dict[bytes, KnownSession] = {}
        self._by_cookie: dict[bytes, KnownSession] = {}
        self._bytes = 0
        self.lookup: Callable[[bytes], KnownSession | None] = self._build_lookup()
        """Return the session that this Cookie header was known to be of; no await, no JSON.

        Raises:
            SessionEnded: it was ended.
            RevocationStale: nobody knows whether it was, and such are refused.
        """

    def __len__(self) -> int:
        return len(self._by_cookie)

    def _build_lookup(self) -> Callable[[bytes], KnownSession | None]:
        find, now, stamp, held_against_ledger = self._hot.get, self._now, self._stamp, self.held_against_ledger
        longest = _LONGEST

        def lookup(header: bytes) -> KnownSession | None:
            known = find(header)
            if known is None or not 0 < known.until - now() <= longest:
                return None
            if known.generation == stamp.value:
                return known
            return held_against_ledger(known)

        return lookup

    def held_against_ledger(self, known: KnownSession) -> KnownSession:
        """Return a session that no revocation concerns; while that is not certain it is asked again each time.

        Raises:
            SessionEnded, RevocationStale: as `lookup` does.
        """
        generation = self._stamp.value
        try:
            is_certain = self._ledger.check_again(known.marks)
        except Revoked as error:
            raise SessionEnded(error.detail) from None
        known.generation = generation if is_certain else -1
        return known

    def is_fresh(self, known: KnownSession) -> bool:
        """Tell whether the store was looked at a moment ago."""
        return 0 < known.until - self._now() <= _LONGEST

    def peek(self, cookie: bytes) -> KnownSession | None:
        """Return what is known of a session's cookie, however old that is."""
        return self._by_cookie.get(cookie)

    def remember(self, known: KnownSession) -> None:
        """Keep a session; what was known of its cookie before is forgotten."""
        self.forget(known.value)
        self._by_cookie[known.value] = known
        self._bytes += _size(known)
        while len(self._by_cookie) > MOST_KNOWN or self._bytes > MOST_BYTES:
            self.forget(next(iter(self._by_cookie)))

    def admit(self, header: bytes, known: KnownSession) -> None:
        """Know a session by the whole header that brought it, too."""
        if len(header) > LONGEST_HOT:
            return
        if header not in self._hot and len(self._hot) >= HOT_HEADERS:
            del self._hot[next(iter(self._hot))]
        self._hot[header] = known

    def forget(self, cookie: bytes) -> None:
        """Know no more of a cookie. Headers that were known are told apart by their session, which is over."""
        known = self._by_cookie.pop(cookie, None)
        if known is not None:
            self._bytes -= _size(known)
            known.until = 0.0


def _size(known: KnownSession) -> int:
    record = known.record
    return 2048 + 2 * len(record.claims) + len(record.id_token) + len(record.access_token)

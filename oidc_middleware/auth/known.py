"""Tokens that were verified before: what makes the second request of a token cost a microsecond."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable
from hashlib import sha256
from itertools import count

import msgspec

from oidc_middleware.auth.generation import Generation
from oidc_middleware.cache import TypedCache
from oidc_middleware.clock import Clock
from oidc_middleware.core.principal import Principal

HOT_TOKENS = 1024
# The hot set is indexed by the end of a header value, which is cheap to hash and different in every token, for it is of
# the signature. What counts is the comparison of the whole value that follows.
_TAIL = 32
# Where more tokens are in use than the hot set holds, every sixteenth that is not in it takes a place: those that come
# often get in soon, and the others do not wash them out.
_ADMIT_EVERY = 16

TokenRecord = tuple[float, int, bytes]
"""End (Unix time in seconds), generation and verified payload: atoms, which the garbage collector never walks."""


# A record without its payload: a tuple of three, a float, a small integer and the head of a bytes object.
_RECORD_BYTES = 160


class GrantedScopes(list[str]):
    """The granted scopes. `"authenticated" in` them is true besides, for Starlette's examples ask for that."""

    def __contains__(self, scope: object) -> bool:
        return scope == "authenticated" or super().__contains__(scope)


class Known(msgspec.Struct, gc=False, eq=False):
    """A verified token, ready to be put into a request: `request.auth`, whose `scopes` Starlette's `requires` reads.

    `value` is the `Authorization` header that brought it, `until` is Unix time in seconds, `is_cached` tells whether
    the cache has it besides the hot set. A Struct, which is made in a quarter of the time of an ordinary object.
    """

    value: bytes
    until: float
    generation: int
    principal: Principal
    is_cached: bool

    @property
    def scopes(self) -> GrantedScopes:
        """The granted scopes, in a new list each time: what a handler does to it reaches no other request."""
        return GrantedScopes(sorted(self.principal.scopes))

    def __repr__(self) -> str:
        return f"Known({self.principal!r})"


class KnownTokens:
    """Two tiers in memory: a small hot set by the raw header value, and the token cache by SHA-256 of the token.

    The hot set is small because it holds raw tokens and ready objects; the cache holds a digest and atoms only. Neither
    is ever keyed by the signature alone, for whoever has a token could write another payload before it.
    """

    def __init__(self, cache: TypedCache[TokenRecord], generation: Generation, clock: Clock) -> None:
        self._cache = cache
        self._recheck_after = math.inf if cache.kind.l1_life is None else cache.kind.l1_life
        # What has longer to live was verified in the future: the clock went back since. The second is for rounding.
        self._longest = self._recheck_after + 1
        self._generation = generation
        self._now = clock.now
        self._hot: dict[bytes, Known] = {}
        self._order: deque[bytes] = deque()
        self._turns = count(1)
        # The last token that neither tier had, with its digest: most likely it is the one that is remembered next.
        self._missed: tuple[bytes, bytes] = (b"", b"")
        self.lookup: Callable[[bytes], Known | None] = self._build_lookup()
        """Return what is known of the token in this `Authorization` header value; no await, no JSON."""

    def __len__(self) -> int:
        return len(self._hot)

    def _build_lookup(self) -> Callable[[bytes], Known | None]:
        """Return the look-up: a closure, for it reads its variables faster than a method finds them on `self`."""
        find, now, generation, from_cache = self._hot.get, self._now, self._generation, self._from_cache
        longest = self._longest

        def lookup(value: bytes) -> Known | None:
            known = find(value[-_TAIL:])
            if (
                known is not None
                and known.value == value
                and known.generation == generation.value
                and 0 < known.until - now() <= longest
            ):
                return known
            return from_cache(value)

        return lookup

    def _from_cache(self, value: bytes) -> Known | None:
        if value[:7] != b"Bearer " and value[:7].lower() != b"bearer ":
            return None
        token = value[7:]
        digest = sha256(token).digest()
        record = self._cache.peek(digest)
        if record is None or record[1] != self._generation.value or record[0] - self._now() > self._longest:
            self._missed = value, digest
            return None
        known = Known(value, record[0], record[1], Principal(record[2], token), is_cached=True)
        if self._has_room() or not next(self._turns) % _ADMIT_EVERY:
            self._admit(known)
        return known

    def remember(self, value: bytes, token: bytes, payload: bytes, deadline: float) -> Known:
        """Keep what was verified just now: nobody may have awaited since. `deadline` is Unix time in seconds.

        After a minute it is verified anew, for its key may be too old: a withdrawn key moves the generation, but keys
        also end because the issuer could not be asked for long.
        """
        until = min(deadline, self._now() + self._recheck_after)
        known = Known(value, until, self._generation.value, Principal(payload, token), is_cached=False)
        if self._has_room():
            self._admit(known)
        else:
            self._move_to_cache(known)
            if not next(self._turns) % _ADMIT_EVERY:
                self._admit(known)
        return known

    def _has_room(self) -> bool:
        """Tell whether the hot set may take one more, or holds one whose end has come."""
        return len(self._order) < HOT_TOKENS or self._hot[self._order[0]].until <= self._now()

    def _admit(self, known: Known) -> None:
        """Give a token a place in the hot set; who has been there longest moves to the cache, if it is not there."""
        tail = known.value[-_TAIL:]
        if tail not in self._hot:
            self._order.append(tail)
        self._hot[tail] = known
        if len(self._order) > HOT_TOKENS:
            oldest = self._hot.pop(self._order.popleft())
            if not oldest.is_cached and self._now() < oldest.until:
                self._move_to_cache(oldest)

    def _move_to_cache(self, known: Known) -> None:
        value, digest = self._missed
        if value is not known.value:
            digest = sha256(known.value[7:]).digest()
        payload = known.principal.payload
        record = (known.until, known.generation, payload)
        known.is_cached = self._cache.put(digest, record, known.until, len(payload) + _RECORD_BYTES)

"""Tokens that were verified before: what makes the second request of a token cost a microsecond."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable
from hashlib import sha256
from itertools import count

from oidc_middleware.auth.generation import Generation
from oidc_middleware.auth.revocation.standing import Standing
from oidc_middleware.cache import TypedCache
from oidc_middleware.clock import Clock
from oidc_middleware.core.claims_mapping import USUAL, ClaimsMapping
from oidc_middleware.core.known import Known
from oidc_middleware.core.principal import Principal

HOT_TOKENS = 1024
# The hot set is indexed by the end of a header value, which is cheap to hash and different in every token, for it is of
# the signature. What counts is the comparison of the whole value that follows.
_TAIL = 32
# Where more tokens are in use than the hot set holds, every sixteenth that is not in it takes a place: those that come
# often get in soon, and the others do not wash them out.
_ADMIT_EVERY = 16
# The generation of a verdict that holds for one request.
_NEVER = -1

TokenRecord = tuple[float, int, int, bytes, bytes, float, ClaimsMapping]
"""A verdict: until when it holds (Unix time in seconds), the two generations, the verified payload, the marks by which
the ledger of revocations knows the token, the token's deadline, and where its issuer has scopes and the like: atoms, or
as good as atoms, which the garbage collector never walks."""


# A record without its payload: a tuple of seven, two floats, small integers and the heads of two bytes objects.
_RECORD_BYTES = 300


class KnownTokens:
    """Two tiers in memory: a small hot set by the raw header value, and the token cache by SHA-256 of the token.

    The hot set is small because it holds raw tokens and ready objects; the cache holds a digest and atoms only. Neither
    is ever keyed by the signature alone, for whoever has a token could write another payload before it.
    """

    def __init__(
        self, cache: TypedCache[TokenRecord], generation: Generation, standing: Standing, clock: Clock
    ) -> None:
        self._cache = cache
        self._standing = standing
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
        """Return what is known of the token in this `Authorization` header value; no await, no JSON.

        Raises:
            Revoked: it was accepted before, and is revoked.
            RevocationStale: nobody knows whether it is, and such are refused.
        """

    def __len__(self) -> int:
        return len(self._hot)

    @property
    def keys_generation(self) -> int:
        """What moves when a key is withdrawn, or an issuer is trusted no more."""
        return self._generation.keys

    def _build_lookup(self) -> Callable[[bytes], Known | None]:
        """Return the look-up: a closure, for it reads its variables faster than a method finds them on `self`."""
        find, now, generation, from_cache = self._hot.get, self._now, self._generation, self._from_cache
        longest, held_against_ledger = self._longest, self._held_against_ledger

        def lookup(value: bytes) -> Known | None:
            known = find(value[-_TAIL:])
            if known is not None and known.value == value and 0 < known.until - now() <= longest:
                if known.generation == generation.value:
                    return known
                if known.keys == generation.keys:
                    return held_against_ledger(known)
            return from_cache(value)

        return lookup

    def _from_cache(self, value: bytes) -> Known | None:
        if value[:7] != b"Bearer " and value[:7].lower() != b"bearer ":
            return None
        token = value[7:]
        digest = sha256(token).digest()
        record = self._cache.peek(digest)
        if record is None or record[2] != self._generation.keys or record[0] - self._now() > self._longest:
            self._missed = value, digest
            return None
        until, generation, keys, payload, marks, deadline, mapping = record
        principal = Principal(payload, token, mapping)
        known = Known(value, until, generation, keys, principal, marks, deadline, is_cached=True)
        if generation != self._generation.value:
            self._held_against_ledger(known)
        if self._has_room() or not next(self._turns) % _ADMIT_EVERY:
            self._admit(known)
        return known

    def _held_against_ledger(self, known: Known) -> Known:
        """Return a token that no revocation of since concerns; while that is not certain it is asked again each time.

        What is revoked stays where it is until its end: it is refused each time, and that is cheap.
        """
        if self._standing.check_again(known.marks):
            known.generation = self._generation.value
        return known

    def remember(
        self,
        value: bytes,
        token: bytes,
        payload: bytes,
        marks: bytes,
        deadline: float,
        *,
        is_certain: bool,
        keys: int | None = None,
        asked_until: float = math.inf,
        mapping: ClaimsMapping = USUAL,
    ) -> Known:
        """Keep what was verified just now. `deadline` is Unix time in seconds.

        What the ledger could not say for certain is held against it again each time. `keys` is what `keys_generation`
        was before anything was looked at: if it moved since, an issuer may be gone, and the token is verified anew when
        it comes again. None: nobody has awaited since.

        After a minute it is verified anew, for its key may be too old: a withdrawn key moves the generation, but keys
        also end because the issuer could not be asked for long. What the issuer said about it holds to `asked_until`.
        """
        until = min(deadline, self._now() + self._recheck_after, asked_until)
        generation = self._generation.value if is_certain else _NEVER
        keys = self._generation.keys if keys is None else keys
        if keys != self._generation.keys:
            generation = _NEVER
        principal = Principal(payload, token, mapping)
        known = Known(value, until, generation, keys, principal, marks, deadline, is_cached=False)
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
        principal, marks = known.principal, known.marks
        payload = principal.payload
        record = (known.until, known.generation, known.keys, payload, marks, known.deadline, principal.mapping)
        known.is_cached = self._cache.put(digest, record, known.until, len(payload) + len(marks) + _RECORD_BYTES)

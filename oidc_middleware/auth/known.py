"""Tokens that were verified before: what makes the second request of a token cost a microsecond."""

from __future__ import annotations

from collections import deque
from hashlib import sha256
from itertools import count

from oidc_middleware.auth.generation import Generation
from oidc_middleware.cache import TypedCache
from oidc_middleware.clock import Clock
from oidc_middleware.core.principal import Principal

HOT_TOKENS = 1024
# Where more tokens are in use than the hot set holds, every sixteenth that is not in it takes a place: those that come
# often get in soon, and the others do not wash them out.
_ADMIT_EVERY = 16

TokenRecord = tuple[float, int, bytes]
"""Deadline (Unix time in seconds), generation and verified payload: atoms, which the garbage collector never walks."""


class Credentials:
    """`request.auth`: what Starlette's `requires` looks at."""

    __slots__ = ("_principal",)

    def __init__(self, principal: Principal) -> None:
        self._principal = principal

    @property
    def scopes(self) -> list[str]:
        """The granted scopes, in a new list each time: what a handler does to it reaches no other request."""
        return sorted(self._principal.scopes)


class Known:
    """One verified token, ready to be put into a request. `deadline` is Unix time in seconds."""

    __slots__ = ("credentials", "deadline", "generation", "principal")

    def __init__(self, deadline: float, generation: int, principal: Principal) -> None:
        self.deadline = deadline
        self.generation = generation
        self.principal = principal
        self.credentials = Credentials(principal)


class KnownTokens:
    """Two tiers in memory: a small hot set by the raw header value, and the token cache by SHA-256 of the token.

    The hot set is small because it holds raw tokens and ready objects; the cache holds a digest and atoms only. Neither
    is ever keyed by the signature alone, for whoever has a token could write another payload before it.
    """

    def __init__(self, cache: TypedCache[TokenRecord], generation: Generation, clock: Clock) -> None:
        self._cache = cache
        self._generation = generation
        self._now = clock.now
        self._hot: dict[bytes, Known] = {}
        self._order: deque[bytes] = deque()
        self._misses = count()

    def __len__(self) -> int:
        return len(self._hot)

    def lookup(self, value: bytes) -> Known | None:
        """Return what is known of the token in this `Authorization` header value; no await, no JSON."""
        known = self._hot.get(value)
        if known is not None:
            if known.generation == self._generation.value and self._now() < known.deadline:
                return known
            del self._hot[value]
        return self._from_cache(value) if value[:7] == b"Bearer " else None

    def _from_cache(self, value: bytes) -> Known | None:
        token = value[7:]
        record = self._cache.peek(sha256(token).digest())
        if record is None or record[1] != self._generation.value:
            return None
        known = Known(record[0], record[1], Principal(record[2], token))
        if len(self._hot) < HOT_TOKENS or not next(self._misses) % _ADMIT_EVERY:
            self._admit(value, known)
        return known

    def remember(self, value: bytes, known: Known, token: bytes, payload: bytes) -> None:
        """Keep a verdict. The caller must not have awaited since it read the generation that `known` carries."""
        self._cache.put(sha256(token).digest(), (known.deadline, known.generation, payload), known.deadline)
        self._admit(value, known)

    def _admit(self, value: bytes, known: Known) -> None:
        hot = self._hot
        if value not in hot:
            self._order.append(value)
        hot[value] = known
        while len(self._order) > HOT_TOKENS:
            hot.pop(self._order.popleft(), None)

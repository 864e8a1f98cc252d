"""What issuers say about tokens, kept for a while: one question for all who ask at once, on all nodes."""

from __future__ import annotations

import asyncio
from functools import partial
from hashlib import sha256
from typing import NamedTuple, Protocol

from oidc_middleware.auth.allowance import Allowance
from oidc_middleware.cache import Flights, TypedCache
from oidc_middleware.cache.loader import Kept, Loaded, Loading, LoadingCache
from oidc_middleware.clock import Clock
from oidc_middleware.core.introspection import end_of
from oidc_middleware.errors import BackendUnavailable, Inactive, ProviderUnavailable

LIFE = 60.0
"""Seconds for which an answer is kept at most, and thus how late a revocation at the issuer may be felt."""
INACTIVE_LIFE = 10.0
"""The same of the answer that a token is not active."""
MAX_CALLS = 256
"""Questions that may be under way at once, so that a flood of made-up tokens is no flood for the issuer."""

MADE_UP_RATE = 100.0
"""Tokens a second that the issuer may call not active, beyond `MADE_UP_BURST`, before it is asked about no more."""
MADE_UP_BURST = 1000.0
"""How many such there may be at once: people whose tokens all ended together are no flood."""

PATIENCE = 10.0
"""Seconds for which anybody waits: a node that waits for another's answer, which does not come, asks itself."""

_LOADING = Loading(life=LIFE, negative_life=INACTIVE_LIFE, refresh_ahead=1, jitter=0, lock=True, lock_life=6)


class Introspector(Protocol):
    """Asks one issuer. `fails`: it gave no answer the last time."""

    fails: bool

    async def ask(self, token: bytes) -> bytes:
        """Return what the issuer says about an active token, as a JSON object; nothing of one that is not active.

        Raises:
            ProviderError: it does not say.
        """


class Answer(NamedTuple):
    """What the issuer says about an active token, and until when that is believed (Unix time in seconds)."""

    payload: bytes
    until: float


class Introspection:
    """The answers of one issuer.

    They lie under the digest of the whole token and of `source`, which stands for whoever asks: an issuer may tell one
    client what it does not tell another. `asks_always`: JWTs are asked about too. `needs_audience`: see
    `core.introspection.check`. `prefix`: the issuer's opaque tokens begin so.
    """

    def __init__(
        self,
        introspector: Introspector,
        source: bytes,
        cache: TypedCache[Kept[bytes]],
        clock: Clock,
        *,
        asks_always: bool,
        needs_audience: bool,
        prefix: bytes = b"",
    ) -> None:
        self.asks_always = asks_always
        self.needs_audience = needs_audience
        self.prefix = prefix
        self._introspector = introspector
        self._source = source
        self._cache = cache
        self._clock = clock
        self._made_up = Allowance(MADE_UP_RATE, MADE_UP_BURST, clock.monotonic)
        self._answers = self._open()

    @property
    def fails(self) -> bool:
        """Whether the issuer gave no answer the last time that it was asked."""
        return self._introspector.fails

    async def ask(self, token: bytes) -> Answer:
        """Return what the issuer says about an active token, or said a moment ago.

        Raises:
            Inactive: it says that the token is not active.
            ProviderError: it does not say.
            BackendUnavailable: too many questions are under way, too many were about made-up tokens, or the service
                stops.
        """
        key = sha256(self._source + token).digest()
        try:
            async with asyncio.timeout(PATIENCE):
                await self._forget_future(key)
                payload = await self._answers.get_or_load(key, partial(self._load, token))
        except TimeoutError:
            raise ProviderUnavailable("introspection: no answer, not on another node either") from None
        if not payload:
            raise Inactive("the issuer says that it is not active")
        kept = self._cache.peek(key)
        return Answer(payload, self._clock.now() if kept is None else kept.fresh_until)

    async def stop(self) -> None:
        """End the questions under way. It can be used again."""
        answers, self._answers = self._answers, self._open()
        await answers.aclose()

    async def _forget_future(self, key: bytes) -> None:
        """Forget an answer that came later than now: the clock went back since, and its minute would be a long one.

        Another node's clock may be a little ahead.
        """
        kept = self._cache.peek(key)
        if kept is not None and kept.loaded_at - self._clock.now() > LIFE:
            await self._answers.delete(key)

    async def _load(self, token: bytes) -> Loaded[bytes]:
        if self._made_up.is_used_up:
            raise BackendUnavailable(
                "too many tokens came that the issuer does not know: it is asked about few more now"
            )
        payload = await self._introspector.ask(token)
        if payload:
            return Loaded(payload, end_of(payload))
        self._made_up.take()
        return Loaded(payload, self._clock.now() + INACTIVE_LIFE)

    def _open(self) -> LoadingCache[bytes]:
        return LoadingCache(self._cache, self._clock, _LOADING, flights=Flights(MAX_CALLS))

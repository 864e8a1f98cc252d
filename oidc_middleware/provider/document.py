"""One document of one issuer: fetched when needed, refreshed ahead of its end, kept while the issuer fails."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
from collections.abc import Awaitable, Callable
from contextvars import Context
from dataclasses import dataclass
from random import Random
from typing import Generic, TypeVar

from oidc_middleware.cache import Flights
from oidc_middleware.clock import Clock
from oidc_middleware.core.addresses import Zone
from oidc_middleware.errors import OIDCError, ProviderError, ProviderInvalid, ProviderUnavailable
from oidc_middleware.provider.backoff import Backoff
from oidc_middleware.provider.freshness import Life
from oidc_middleware.provider.http import Answer
from oidc_middleware.provider.stored import Store, Stored

V = TypeVar("V")

_log = logging.getLogger("oidc_middleware.provider")

# Part of its life after which a document is refreshed; the nodes of a fleet do so at different moments.
_REFRESH_AFTER = (0.72, 0.8)


@dataclass(frozen=True, slots=True)
class Source(Generic[V]):
    """Where a document comes from and how it is read.

    `name` and `issuer` are for the log. `fetch` raises ProviderError, `parse` ValueError.
    """

    name: str
    issuer: str
    store: Store
    fetch: Callable[[], Awaitable[Answer]]
    parse: Callable[[bytes, Zone], V]


@dataclass(slots=True)
class _Held(Generic[V]):
    """What is in memory. `fetched_at` is Unix time, the others are monotonic: the machine's clock may be set."""

    value: V
    fetched_at: float
    refresh_at: float
    fresh_until: float
    usable_until: float


class Document(Generic[V]):
    """The newest good version of a document.

    A fresh one is served from memory. In the last part of its life a refresh starts beside whoever asks; past its end
    whoever asks waits for one. Only while the issuer fails an old version is served, for a day at most. A version that
    cannot be read replaces nothing. However many ask at once, there is one fetch; failed fetches wait ever longer.

    `on_replaced` is called with the old version (None: there was none) and the new one.
    """

    def __init__(
        self,
        source: Source[V],
        life: Life,
        clock: Clock,
        random: Random,
        on_replaced: Callable[[V | None, V], None],
    ) -> None:
        self._source = source
        self._life = life
        self._flights = Flights()
        self._now = clock.now
        self._monotonic = clock.monotonic
        self._random = random
        self._on_replaced = on_replaced
        self._backoff = Backoff(clock, random)
        self._held: _Held[V] | None = None
        self._refresh: asyncio.Task[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._keeps_fresh = False
        self.fetches: int = 0
        """Fetches so far, failed ones too."""
        self.failures: int = 0
        """Failed fetches so far."""

    def peek(self) -> V | None:
        """Return the version that may be used now without waiting; start a refresh when one is due."""
        held = self._held
        if held is None:
            return None
        now = self._monotonic()
        if now < held.refresh_at:
            return held.value
        if now < held.fresh_until or (now < held.usable_until and self._backoff.outage):
            self.refresh_soon()
            return held.value
        return None

    async def get(self, *, at_once: bool = False) -> V:
        """Return the version that may be used now; wait for it where there is none.

        `at_once` asks the issuer even if it failed a moment ago, for callers with a back-off of their own.

        Raises:
            ProviderError: there is none, and the issuer does not give one.
            BackendUnavailable: the service stops.
        """
        value = self.peek()
        return await self._renewed(at_once=at_once) if value is None else value

    async def renew(self) -> None:
        """Fetch a new version even if there is a good one, unless the issuer just failed. Failures are only logged."""
        with contextlib.suppress(OIDCError):
            await self._renewed()

    def expire(self) -> None:
        """Let whoever asks next wait for a new version; the present one serves only if there is none to be had."""
        if self._held is not None:
            self._held.refresh_at = self._held.fresh_until = self._monotonic()
            self._arm()

    def keep_fresh(self) -> None:
        """Load now and refresh ahead without being asked, until `stop`, on the running event loop."""
        self._keeps_fresh = True
        self._arm()

    async def stop(self) -> None:
        """End what runs in the background, and fetches under way. It may be used again."""
        self._keeps_fresh = False
        self._disarm()
        flights, self._flights = self._flights, Flights()
        await flights.aclose()
        task, self._refresh = self._refresh, None
        if task is not None and task.get_loop() is asyncio.get_running_loop():
            await asyncio.wait((task,))  # it waited for one of those flights

    @property
    def usable(self) -> V | None:
        """The version in memory, be it fresh or not, as long as it may be served while the issuer fails."""
        held = self._held
        return None if held is None or self._monotonic() >= held.usable_until else held.value

    @property
    def may_renew(self) -> bool:
        """Whether `renew` would ask the issuer: it did not fail a moment ago."""
        return self._monotonic() >= self._backoff.retry_at

    @property
    def renewing(self) -> bool:
        """Whether a new version is being fetched; `renew` then waits for it."""
        return len(self._flights) > 0

    @property
    def age(self) -> float | None:
        """Seconds since the version in memory was fetched, None when there is none."""
        return None if self._held is None else max(0.0, self._now() - self._held.fetched_at)

    async def _renewed(self, *, at_once: bool = False) -> V:
        """Return the version that a renewal brought, or while the issuer fails the old one.

        Raises:
            ProviderError: there is none that may be used.
        """
        try:
            if not at_once:
                self._backoff.check()
            await self._flights.run(self._source.name, self._renew)
        except ProviderError:
            value = self.peek()
            if value is None:
                raise
            return value
        assert self._held is not None  # noqa: S101  a renewal that did not raise has put it there
        return self._held.value

    async def _renew(self) -> None:
        stored, value = await self._newer_in_cache() or await self._fetch()
        if self._backoff.failures:
            _log.info("%s of %s: answers again", self._source.name, self._source.issuer)
        self._backoff.succeeded()
        self._replace(value, stored)

    async def _newer_in_cache(self) -> tuple[Stored, V] | None:
        """Return the version that another node has fetched meanwhile, if it can be read."""
        held_since = -math.inf if self._held is None else self._held.fetched_at
        stored = await self._source.store.newer_than(held_since, self._now())
        try:
            return None if stored is None else (stored, self._read(stored.body, Zone(stored.zone)))
        except (ProviderInvalid, ValueError):
            return None

    async def _fetch(self) -> tuple[Stored, V]:
        self.fetches += 1
        try:
            answer = await self._source.fetch()
            value = self._read(answer.body, answer.zone)
        except Exception as error:
            self._failed(error)
            raise
        now = self._now()
        stored = Stored(answer.body, answer.zone, now, now + self._life.clamp(answer.max_age))
        await self._source.store.put(stored, stored.fresh_until + self._life.stale)
        return stored, value

    def _read(self, body: bytes, zone: Zone) -> V:
        try:
            return self._source.parse(body, zone)
        except ValueError as error:
            raise ProviderInvalid(f"{self._source.name} of {self._source.issuer}: {error}") from error

    def _failed(self, error: Exception) -> None:
        """Put off the next attempt. An error that is no ProviderError is a mistake of ours, and no reason to hurry."""
        self.failures += 1
        level = logging.DEBUG if self._backoff.failures else logging.WARNING
        known = error if isinstance(error, ProviderError) else ProviderUnavailable(type(error).__name__)
        self._backoff.failed(known)
        _log.log(level, "cannot fetch the %s of %s: %s", self._source.name, self._source.issuer, known)
        self._arm()

    def _replace(self, value: V, stored: Stored) -> None:
        old = self._held
        begin = self._monotonic() - (self._now() - stored.fetched_at)
        life = min(stored.fresh_until - stored.fetched_at, self._life.longest)
        self._held = _Held(
            value,
            stored.fetched_at,
            refresh_at=begin + life * self._random.uniform(*_REFRESH_AFTER),
            fresh_until=begin + life,
            usable_until=begin + life + self._life.stale,
        )
        self._arm()
        self._on_replaced(None if old is None else old.value, value)

    # Refreshing ahead

    def refresh_soon(self) -> None:
        """Renew in the background, unless that is under way, too early after a failure, or there is no event loop."""
        if not self.may_renew:
            return
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:  # asked outside an event loop: there is nothing that could run beside
            return
        if self._refresh is None or self._refresh.done() or self._refresh.get_loop() is not loop:
            # In a context of its own: it must not see the request that happened to come by.
            self._refresh = loop.create_task(self.renew(), context=Context())

    def _arm(self) -> None:
        """Set the timer for the next refresh, where documents are kept fresh without being asked for."""
        if self._keeps_fresh:
            self._disarm()
            delay = max(0.0, self._due_at - self._monotonic())
            self._timer = asyncio.get_running_loop().call_later(delay, self._wake)

    def _disarm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()

    def _wake(self) -> None:
        if self._monotonic() < self._due_at:
            self._arm()
        else:
            self.refresh_soon()

    @property
    def _due_at(self) -> float:
        return max(-math.inf if self._held is None else self._held.refresh_at, self._backoff.retry_at)

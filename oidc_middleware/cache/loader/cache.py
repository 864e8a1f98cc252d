"""A typed cache that loads what it does not have."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
from asyncio import Future
from collections.abc import Awaitable, Callable
from functools import partial
from random import random as chance
from typing import Generic, TypeVar

from oidc_middleware.cache.backend import checked_end
from oidc_middleware.cache.hybrid.placeholders import Placeholders
from oidc_middleware.cache.loader.kept import Kept, Loaded
from oidc_middleware.cache.loader.options import Loading
from oidc_middleware.cache.loader.pauses import Pauses
from oidc_middleware.cache.loader.turns import Turns
from oidc_middleware.cache.loading import Flights
from oidc_middleware.cache.typed import TypedCache
from oidc_middleware.clock import Clock
from oidc_middleware.errors import BackendUnavailable, OIDCError

V = TypeVar("V")

Load = Callable[[], Awaitable[V | Loaded[V] | Loaded[None] | None]]
"""Gets a value from its source. None, or an empty value: there is none. `Loaded` says until when it is fresh."""

_LOGGER = logging.getLogger("oidc_middleware.cache")


class LoadingCache(Generic[V]):
    """Values of one cache type, each loaded when it is asked for and not there.

    However many ask at once, one load is under way in the process, in a context of its own; a caller that is cancelled
    leaves it alone. Errors go to those who waited, and to nobody later. What is deleted or set while it is being loaded
    is not overwritten by what was loaded.

    It is built over a typed cache whose codec is `kept(…)`, and nobody else uses that one: beside each value lies until
    when it is fresh, and its entry lives on for as long as the value may be of use after that. `random` returns numbers
    from 0 to 1. Close it before the backend.
    """

    def __init__(
        self,
        cache: TypedCache[Kept[V]],
        clock: Clock,
        loading: Loading | None = None,
        *,
        random: Callable[[], float] = chance,
        flights: Flights | None = None,
    ) -> None:
        self._cache = cache
        self._loading = loading = loading or Loading()
        self._peek = cache.peek
        self._now = clock.now
        self._monotonic = clock.monotonic
        self._random = random
        self._flights = Flights() if flights is None else flights
        self._notes = Placeholders()
        self._pauses = Pauses()
        self._turns = Turns(cache, clock, loading, random)
        # A node keeps its moment, so that the first of a fleet is far ahead of the others.
        self._ahead = loading.refresh_ahead * (1 - loading.jitter * random()) if loading.refresh_ahead < 1 else 1.0
        self._fails = False

    def peek(self, key: bytes) -> V | None:
        """Return the value in memory if it is fresh, None when there is none; never wait, never load."""
        item = self._peek(key)
        return item.value if item is not None and self._now() < item.fresh_until else None

    async def get_or_load(self, key: bytes, load: Load[V]) -> V | None:
        """Return the value of a key; if there is none that may be served, what `load` returns.

        Raises:
            BackendUnavailable: the service stops, or too many loads are under way.
            TypeError: what was loaded can be changed by whoever gets it.
            ValueError: it was loaded with an end that is no number.
            Exception: whatever `load` raised, where no old value may be served instead.
        """
        item = self._peek(key)
        if item is not None:
            loaded_at = item.loaded_at
            if self._now() - loaded_at < (item.fresh_until - loaded_at) * self._ahead:
                return item.value
        elif self._cache.is_shared:
            item = await self._look(key)
        if item is None or not self._may_serve(key, item):
            item = await self._flights.run(key, partial(self._load, key, load, item))
        elif self._is_due(item) and not self._pauses.is_on(key, self._monotonic()):
            with contextlib.suppress(BackendUnavailable):  # so much is under way that this can wait
                self._flights.begin(key, partial(self._load, key, load, item))
        return item.value

    async def set(self, key: bytes, value: V, expires_at: float) -> None:
        """Store a value in every tier, fresh until `expires_at` (Unix time in seconds); an end in the past deletes it.

        Raises:
            ValueError: `expires_at` is not a finite number.
            TypeError: the value can be changed by whoever gets it.
            BackendUnavailable: as `TypedCache.set` does; memory has the value.
        """
        item = Kept(value, self._now(), checked_end(expires_at))
        self._forget(key)
        await self._cache.set(key, item, self._last_use(item))

    async def delete(self, key: bytes) -> bool:
        """Delete the value in every tier; tell whether there was one. What is being loaded now is not kept."""
        self._forget(key)
        return await self._cache.delete(key)

    async def clear(self) -> None:
        """Delete every value in every tier. What is being loaded now is not kept."""
        self._notes.drop_all()
        self._flights.forget_all()
        await self._cache.clear()

    async def aclose(self) -> None:
        """End all loads and begin no more. What is there can still be read."""
        await self._flights.aclose()

    # ---------------------------------------------------------------------------------------------------------- judging

    def _is_due(self, item: Kept[V]) -> bool:
        return not self._now() - item.loaded_at < (item.fresh_until - item.loaded_at) * self._ahead

    def _may_serve(self, key: bytes, item: Kept[V]) -> bool:
        """Tell whether a value is served without waiting for a reload."""
        window = self._loading.stale_while_revalidate
        if self._pauses.is_on(key, self._monotonic()):
            window = self._loading.window
        return self._now() < self._end(item, window)

    def _end(self, item: Kept[V], window: float) -> float:
        return item.fresh_until + (0.0 if self._cache.is_negative(item) else window)

    def _last_use(self, item: Kept[V]) -> float:
        """Return until when a value is stored; one that is over already is not, and ends what was there before."""
        return self._end(item, self._loading.window) if self._now() < item.fresh_until else item.loaded_at

    # ---------------------------------------------------------------------------------------------------------- loading

    async def _look(self, key: bytes) -> Kept[V] | None:
        try:
            return await self._cache.get(key)
        except BackendUnavailable:
            return None

    async def _newer(self, key: bytes, item: Kept[V] | None) -> Kept[V] | None:
        """Return the fresh value that another node has loaded after `item`, if there is one."""
        try:
            found = await self._cache.get_newest(key)
        except BackendUnavailable:
            return None
        since = -math.inf if item is None else item.loaded_at
        return found if found is not None and found.loaded_at > since and self._now() < found.fresh_until else None

    async def _load(self, key: bytes, load: Load[V], old: Kept[V] | None) -> Kept[V]:
        """Return a newer value than `old`: another node's, or one that is loaded. If that fails, `old` while it serves.

        Raises:
            Exception: whatever `load` raised.
        """
        look, fetch = partial(self._newer, key, old), partial(self._fetch, key, load)
        try:
            if self._loading.lock and self._cache.is_shared:
                item = await self._turns.run(key, look, fetch)
            else:
                await self._spread()
                item = await look() or await fetch()
        except Exception as error:
            if old is None or not self._now() < self._end(old, self._loading.window):
                raise
            self._failed(key, error)
            return old
        self._fails = False
        return item

    async def _spread(self) -> None:
        if self._loading.spread and self._cache.is_shared:
            await asyncio.sleep(self._loading.spread * self._random())

    async def _fetch(self, key: bytes, load: Load[V]) -> Kept[V]:
        """Load a value and store it, unless its key was changed meanwhile, or a late node finds a newer value."""
        note, news = self._notes.put(key), self._cache.next_change(key)
        news.add_done_callback(partial(self._hear, key))
        began, began_at = self._monotonic(), self._now()
        try:
            item = self._dated(await load(), began_at)
        finally:
            was_changed = news.done()
            news.cancel()
            is_newest = self._notes.take(key, note) and not was_changed
        if self._loading.lock and self._monotonic() - began >= self._loading.lock_life:
            newer = await self._newer(key, item)
            if newer is not None:
                return newer
        if is_newest:
            with contextlib.suppress(BackendUnavailable):  # memory has it, or nobody
                await self._cache.set(key, item, self._last_use(item), wait=self._loading.lock or None)
        return item

    def _dated(self, loaded: V | Loaded[V] | Loaded[None] | None, began_at: float) -> Kept[V]:
        """Return a value with its times: chance and the loader may shorten its life, and loading takes its part."""
        value, end = loaded if isinstance(loaded, Loaded) else (loaded, math.inf)
        if math.isnan(end):
            raise ValueError("a value must end at some time")
        item = Kept(value, began_at, began_at)
        loading = self._loading
        life = loading.negative_life if self._cache.is_negative(item) else loading.life
        return item._replace(
            fresh_until=max(began_at, min(end, began_at + life * (1 - loading.jitter * self._random())))
        )

    # --------------------------------------------------------------------------------------------------------- changing

    def _forget(self, key: bytes) -> None:
        """Let what is being loaded of a key go to those who wait for it already, and nowhere else."""
        self._notes.drop(key)
        self._flights.forget(key)

    def _hear(self, key: bytes, news: Future[None]) -> None:
        if not news.cancelled():
            self._forget(key)

    def _failed(self, key: bytes, error: Exception) -> None:
        """Tell that a reload failed, loudly once until one succeeds, and leave the key alone for a while."""
        now = self._monotonic()
        self._pauses.begin(key, now, now + self._loading.retry_after)
        level = logging.DEBUG if self._fails else logging.WARNING
        self._fails = True
        cause = str(error) if isinstance(error, OIDCError) else type(error).__name__
        _LOGGER.log(level, "A reload of %s failed, the old value serves: %s", self._cache.kind.name, cause)

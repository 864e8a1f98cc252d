"""One node loads at a time: a lock in the shared tier, and those who wait for what its holder brings."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from hashlib import blake2b
from typing import Generic, TypeVar

from oidc_middleware.cache.loader.kept import Kept
from oidc_middleware.cache.loader.options import Loading
from oidc_middleware.cache.typed import TypedCache
from oidc_middleware.clock import Clock
from oidc_middleware.errors import BackendUnavailable

V = TypeVar("V")

# Of a lock's life, the part in which it is still given back. Later the delete could arrive when the lock is another's.
_GIVEN_BACK_WITHIN = 0.9
# Lives of a lock that a node waits for others at most: a holder that dies, and whoever takes over from it.
_PATIENCE = 2


class Turns(Generic[V]):
    """Who loads a key, among the nodes that share a tier.

    The lock is an entry of the same type under a key of its own. It ends by itself, so a holder that is gone holds up
    nobody for longer. A holder stores first, waits until the shared tier has the value, and gives the lock back then:
    what leaves together may arrive in any order. That wakes those who wait. Nobody compares before deleting: a lock
    that has not ended is the holder's, and one that is about to end is left alone. Should a delete be held up for the
    rest of the lock's life all the same, or the tier have lost the lock, then one load more than needed begins.
    """

    def __init__(self, cache: TypedCache[Kept[V]], clock: Clock, loading: Loading, random: Callable[[], float]) -> None:
        self._cache = cache
        self._now = clock.now
        self._monotonic = clock.monotonic
        self._loading = loading
        self._random = random

    async def run(
        self, key: bytes, look: Callable[[], Awaitable[Kept[V] | None]], load: Callable[[], Awaitable[Kept[V]]]
    ) -> Kept[V]:
        """Return what `look` finds, or else `load` while no other node does.

        Whoever waited too long loads without the lock, and so does everybody where there is none to be had.
        """
        lock, loop = lock_key(key), asyncio.get_running_loop()
        end = loop.time() + _PATIENCE * self._loading.lock_life
        while loop.time() < end:
            news = self._cache.next_change(lock)
            try:
                began = self._monotonic()
                taken = await self._take(lock)
                if taken is None:
                    break
                if taken:
                    try:
                        return await look() or await load()
                    finally:
                        await self._give_back(lock, began)
                await asyncio.wait((news,), timeout=self._pause(end - loop.time()))
            finally:
                news.cancel()
            found = await look()
            if found is not None:
                return found
        return await look() or await load()

    async def _take(self, lock: bytes) -> bool | None:
        """Try to take the lock; tell whether it was taken, None when there is none to be had."""
        now = self._now()
        end = now + self._loading.lock_life
        try:
            return await self._cache.add(lock, Kept(None, now, end), end)
        except BackendUnavailable:
            return None

    async def _give_back(self, lock: bytes, began: float) -> None:
        if self._monotonic() - began < _GIVEN_BACK_WITHIN * self._loading.lock_life:
            with contextlib.suppress(BackendUnavailable):
                await self._cache.delete(lock)

    def _pause(self, left: float) -> float:
        return max(0.0, min(left, self._loading.poll * (0.5 + self._random())))


def lock_key(key: bytes) -> bytes:
    """Return the key of the lock for loading a key: a digest that nobody else computes."""
    return blake2b(key, digest_size=32, person=b"loading lock").digest()

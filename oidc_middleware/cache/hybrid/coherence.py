"""Keeping memory coherent: forgetting what somebody else changed, and telling those who wait for that."""

from __future__ import annotations

from asyncio import Future

from oidc_middleware.cache.hybrid.tiers import Tiers
from oidc_middleware.cache.hybrid.watchers import Watchers
from oidc_middleware.cache.types import CacheType


class Coherence:
    """What a change by another node does here; it outlives the event loop."""

    def __init__(self, tiers: Tiers) -> None:
        self._tiers = tiers
        self._watchers = Watchers()

    def invalidate(self, kind: CacheType, key: bytes) -> None:
        """Forget what memory has of a key, and do not keep what is being read of it."""
        full = self._tiers.rooms.of(kind).prefix + key
        self._tiers.placeholders.outdate(full)
        self._tiers.memory.expire(kind, key)
        self._watchers.wake(full)

    def invalidate_all(self, kind: CacheType) -> None:
        """Forget what memory has of a type, unless it is replicated."""
        prefix = self._tiers.rooms.of(kind).prefix
        self._tiers.placeholders.outdate_all(prefix)
        if kind.coherence != "replicated":
            self._tiers.memory.expire_all(kind)
        self._watchers.wake_all(prefix)

    def next_change(self, kind: CacheType, key: bytes) -> Future[None]:
        """Return a future that is done at the next invalidation of the key or its type."""
        return self._watchers.watch(self._tiers.rooms.of(kind).prefix + key)

"""How a document of an issuer lies in the cache, which other nodes may share."""

from __future__ import annotations

import logging
from dataclasses import dataclass

import msgspec

from oidc_middleware.cache import TypedCache
from oidc_middleware.errors import BackendUnavailable

_log = logging.getLogger("oidc_middleware.provider")


class Stored(msgspec.Struct, frozen=True, array_like=True):
    """The document as it came, from which zone, when, and until when it is fresh (Unix time)."""

    body: bytes
    zone: int
    fetched_at: float
    fresh_until: float


@dataclass(frozen=True, slots=True)
class Store:
    """The place of one document in the cache. A cache that fails is one that has nothing."""

    cache: TypedCache[bytes]
    key: bytes

    async def newer_than(self, fetched_at: float, now: float) -> Stored | None:
        """Return a version that is fresh at `now` and newer than that; one from the future is no such thing.

        The shared tier is asked even if memory has a version: when that is due, another node may have renewed it.
        """
        try:
            data = await self.cache.get_newest(self.key)
            stored = None if data is None else msgspec.msgpack.decode(data, type=Stored)
        except (BackendUnavailable, msgspec.MsgspecError):
            return None
        if stored is None or not fetched_at < stored.fetched_at <= now < stored.fresh_until:
            return None
        return stored

    async def put(self, stored: Stored, expires_at: float) -> None:
        """Keep a version until `expires_at` (Unix time)."""
        try:
            await self.cache.set(self.key, msgspec.msgpack.encode(stored), expires_at)
        except BackendUnavailable as error:
            _log.warning("a document of an issuer is not cached: %s", error)

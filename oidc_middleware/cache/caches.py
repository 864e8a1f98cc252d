"""All caches of one running service."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from oidc_middleware.cache.backend import suspend
from oidc_middleware.cache.codec import RAW, Codec
from oidc_middleware.cache.hybrid import HybridBackend
from oidc_middleware.cache.memory import MemoryBackend
from oidc_middleware.cache.typed import TieredBackend, TypedCache
from oidc_middleware.cache.types import TYPES
from oidc_middleware.clock import Clock


class Caches:
    """One typed cache for each row of the table, over one backend (None: memory alone).

    `codecs` says by type name how values become bytes. Without one, values that are not bytes can only stay in memory.
    What a cache holds is known to those who fill it: they annotate the one that they take.
    """

    def __init__(
        self, clock: Clock, backend: TieredBackend | None = None, codecs: Mapping[str, Codec[Any]] | None = None
    ) -> None:
        self.backend: TieredBackend = MemoryBackend(clock) if backend is None else backend
        self._codecs = codecs or {}
        self.metadata: TypedCache[Any] = self._open("metadata")
        self.jwk: TypedCache[Any] = self._open("jwk")
        self.token: TypedCache[Any] = self._open("token")
        self.blacklist: TypedCache[Any] = self._open("blacklist")
        self.session: TypedCache[Any] = self._open("session")
        self.introspection: TypedCache[Any] = self._open("introspection")
        self.general: TypedCache[Any] = self._open("general")

    def _open(self, name: str) -> TypedCache[Any]:
        return TypedCache(TYPES[name], self.backend, self._codecs.get(name, RAW))

    def stats(self) -> dict[str, dict[str, int]]:
        """Return the counts by type name, as plain JSON types."""
        return {name: asdict(counts) for name, counts in self.backend.stats().items()}

    def shared_stats(self) -> dict[str, Any] | None:
        """Return what happened between memory and the shared tier, as plain JSON types; None where there is none."""
        backend = self.backend
        return asdict(backend.overview()) if isinstance(backend, HybridBackend) else None

    def start(self) -> None:
        """Begin to look after a shared tier on the running event loop, before anybody asks for anything."""
        if isinstance(self.backend, HybridBackend):
            self.backend.start()

    async def suspend(self) -> None:
        """Write what waits, within 5 s, and let go of a shared tier until the next use; memory stays."""
        await suspend(self.backend)

    async def close(self) -> None:
        """Close the backend; a second time does nothing."""
        await self.backend.close()

"""Caches: bytes with a life span, never tokens.

What needs more than the standard library and msgspec is imported when it is first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from oidc_middleware.cache.backend import Backend, Counts, Entry, Health
from oidc_middleware.cache.caches import Caches
from oidc_middleware.cache.changes import EVERYTHING, Change, ChangingBackend
from oidc_middleware.cache.codec import RAW, Codec, msgpack
from oidc_middleware.cache.loader import Kept, Load, Loaded, Loading, LoadingCache, kept
from oidc_middleware.cache.loading import Flights
from oidc_middleware.cache.memory import MemoryBackend
from oidc_middleware.cache.typed import SharedTier, TieredBackend, TypedCache
from oidc_middleware.cache.types import TYPES, CacheType, Limits

if TYPE_CHECKING:
    from oidc_middleware.cache.envelope import Sealer, new_secret
    from oidc_middleware.cache.hybrid import HybridBackend
    from oidc_middleware.cache.redis import RedisBackend
    from oidc_middleware.cache.sealed import SealedBackend
    from oidc_middleware.cache.sqlite import SqliteBackend

__all__ = [
    "EVERYTHING",
    "RAW",
    "TYPES",
    "Backend",
    "CacheType",
    "Caches",
    "Change",
    "ChangingBackend",
    "Codec",
    "Counts",
    "Entry",
    "Flights",
    "Health",
    "HybridBackend",
    "Kept",
    "Limits",
    "Load",
    "Loaded",
    "Loading",
    "LoadingCache",
    "MemoryBackend",
    "RedisBackend",
    "SealedBackend",
    "Sealer",
    "SharedTier",
    "SqliteBackend",
    "TieredBackend",
    "TypedCache",
    "kept",
    "msgpack",
    "new_secret",
]


def __getattr__(name: str) -> object:
    match name:
        case "Sealer" | "new_secret":
            module = "envelope"
        case "HybridBackend":
            module = "hybrid"
        case "RedisBackend":
            module = "redis"
        case "SealedBackend":
            module = "sealed"
        case "SqliteBackend":
            module = "sqlite"
        case _:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value: object = getattr(import_module(f"{__name__}.{module}"), name)
    globals()[name] = value
    return value

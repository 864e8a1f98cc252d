"""Caches: bytes with a life span, never tokens."""

from __future__ import annotations

from oidc_middleware.cache.backend import Backend, Counts, Entry, Health
from oidc_middleware.cache.caches import Caches
from oidc_middleware.cache.codec import RAW, Codec, msgpack
from oidc_middleware.cache.loading import Flights
from oidc_middleware.cache.memory import MemoryBackend
from oidc_middleware.cache.redis import RedisBackend
from oidc_middleware.cache.typed import TieredBackend, TypedCache
from oidc_middleware.cache.types import TYPES, CacheType, Limits

__all__ = [
    "RAW",
    "TYPES",
    "Backend",
    "CacheType",
    "Caches",
    "Codec",
    "Counts",
    "Entry",
    "Flights",
    "Health",
    "Limits",
    "MemoryBackend",
    "RedisBackend",
    "TieredBackend",
    "TypedCache",
    "msgpack",
]

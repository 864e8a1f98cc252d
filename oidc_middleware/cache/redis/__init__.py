"""The shared cache tier in Redis or Valkey."""

from __future__ import annotations

from oidc_middleware.cache.redis.backend import RedisBackend, Traffic

__all__ = ["RedisBackend", "Traffic"]

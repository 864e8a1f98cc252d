"""The shared cache tier in Redis or Valkey."""

from __future__ import annotations

from oidc_middleware.cache.redis.backend import RedisBackend
from oidc_middleware.cache.redis.session import Traffic

__all__ = ["RedisBackend", "Traffic"]

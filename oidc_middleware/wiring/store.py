"""The backend that a cache URL asks for: memory, or memory over a sealed store that nodes share."""

from __future__ import annotations

from oidc_middleware.cache import Backend, MemoryBackend, TieredBackend
from oidc_middleware.clock import Clock
from oidc_middleware.settings import Settings
from oidc_middleware.settings.cache import MEMORY, sqlite_path


def open_backend(settings: Settings, clock: Clock) -> TieredBackend:
    """Return the backend for `settings.cache`. Nothing is opened yet: it happens with the first call."""
    memory = MemoryBackend(clock)
    if settings.cache == MEMORY:
        return memory
    from oidc_middleware.cache import HybridBackend, SealedBackend, Sealer

    secrets = [secret.get_secret_value() for secret in settings.secret]
    sealed = SealedBackend(_store(settings, clock), Sealer(secrets, settings.namespace), clock)
    return HybridBackend(memory, sealed, clock=clock)


def _store(settings: Settings, clock: Clock) -> Backend:
    from oidc_middleware.cache import RedisBackend, SqliteBackend

    path = sqlite_path(settings.cache)
    if path is not None:
        return SqliteBackend(path, clock=clock)
    return RedisBackend(settings.cache, clock=clock, prefix=settings.namespace.encode())

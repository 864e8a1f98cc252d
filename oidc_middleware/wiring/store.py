"""What a cache URL asks for: memory, or memory over a sealed store that nodes share, with its ledger and journal."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from oidc_middleware.cache import Backend, MemoryBackend, TieredBackend
from oidc_middleware.cache.ledger import Journal, LedgerStore
from oidc_middleware.clock import Clock
from oidc_middleware.core.ledger.digests import KEY_BYTES, KEY_ID_BYTES, LedgerKeys
from oidc_middleware.settings import Settings
from oidc_middleware.settings.cache import MEMORY, USUAL_NAMESPACE, sqlite_path
from oidc_middleware.settings.journal import journal_path

if TYPE_CHECKING:
    from oidc_middleware.cache import Sealer


def open_backend(settings: Settings, clock: Clock) -> TieredBackend:
    """Return the backend for `settings.cache`. Nothing is opened yet: it happens with the first call."""
    memory = MemoryBackend(clock)
    if settings.cache == MEMORY:
        return memory
    from oidc_middleware.cache import HybridBackend, SealedBackend

    sealed = SealedBackend(_store(settings, clock), _sealer(settings), clock)
    return HybridBackend(memory, sealed, clock=clock)


def ledger_keys(settings: Settings) -> LedgerKeys:
    """Return the keys of the ledger's digests: those of the secrets; where there are none, nobody else needs them."""
    if not settings.secret:
        return LedgerKeys({bytes(KEY_ID_BYTES): os.urandom(KEY_BYTES)})
    return LedgerKeys(_sealer(settings).ledger_keys)


def open_ledger(settings: Settings, clock: Clock) -> LedgerStore | None:
    """Return the shared ledger beside the cache, None where nothing is shared. Nothing is opened yet."""
    if settings.cache == MEMORY:
        return None
    path = sqlite_path(settings.cache)
    if path is not None:
        from oidc_middleware.cache.sqlite.ledger import SqliteLedger

        # Services that share a file have different namespaces, and so cannot read each other's revocations.
        own = path if settings.namespace == USUAL_NAMESPACE else f"{path}-{settings.namespace}"
        return SqliteLedger(own, clock=clock)
    from oidc_middleware.cache.redis.ledger import RedisLedger

    return RedisLedger(settings.cache, prefix=settings.namespace.encode())


def open_journal(settings: Settings, clock: Clock) -> Journal | None:
    """Return the journal of this host, None where there is none. Nothing is opened yet."""
    path = journal_path(settings.journal, settings.cache, settings.namespace)
    if path is None:
        return None
    from oidc_middleware.cache.sqlite.journal import SqliteJournal

    return SqliteJournal(path, clock=clock)


def _store(settings: Settings, clock: Clock) -> Backend:
    from oidc_middleware.cache import RedisBackend, SqliteBackend

    path = sqlite_path(settings.cache)
    if path is not None:
        return SqliteBackend(path, clock=clock)
    return RedisBackend(settings.cache, clock=clock, prefix=settings.namespace.encode())


def _sealer(settings: Settings) -> Sealer:
    from oidc_middleware.cache import Sealer

    return Sealer([secret.get_secret_value() for secret in settings.secret], settings.namespace)

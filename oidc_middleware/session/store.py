"""Where the records of sessions lie."""

from __future__ import annotations

from oidc_middleware.cache import TypedCache
from oidc_middleware.session.cookie import SessionCookie
from oidc_middleware.session.record import Record, opened, sealed


class SessionStore:
    """Records over the session cache, each sealed with the key of its cookie.

    Everything here raises `BackendUnavailable` where nobody can say.
    """

    def __init__(self, cache: TypedCache[bytes]) -> None:
        self._cache = cache

    async def find(self, cookie: SessionCookie) -> Record | None:
        """Return the record, a few seconds old at most; None when there is none that this cookie opens."""
        data = await self._cache.get(cookie.store_key)
        return None if data is None else opened(data, cookie)

    async def find_newest(self, cookie: SessionCookie) -> Record | None:
        """Return the record that the shared store has now; None also when it cannot be asked."""
        data = await self._cache.get_newest(cookie.store_key)
        return None if data is None else opened(data, cookie)

    async def add(self, cookie: SessionCookie, record: Record) -> bool:
        """Store a record where there is none, and wait for it; tell whether that was done."""
        return await self._cache.add(cookie.store_key, sealed(record, cookie), record.ends_at, record.version)

    async def update(self, cookie: SessionCookie, record: Record) -> bool:
        """Store a record in the place of one of a lower version, and wait for it; tell whether that was done."""
        return await self._cache.update(cookie.store_key, sealed(record, cookie), record.ends_at, record.version)

    async def delete(self, store_key: bytes) -> None:
        """Delete a record."""
        await self._cache.delete(store_key)

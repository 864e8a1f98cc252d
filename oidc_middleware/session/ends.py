"""Ending sessions: in the ledger first, which decides on every node; what is left of them is tidied up behind it."""

from __future__ import annotations

import contextlib
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec

from oidc_middleware.errors import OIDCError
from oidc_middleware.session.cookie import SessionCookie
from oidc_middleware.session.index import Index
from oidc_middleware.session.limits import Limits
from oidc_middleware.session.record import Record
from oidc_middleware.session.store import SessionStore

EndByName = Callable[[str, str, float], Awaitable[Any]]
"""Puts the end of a session into the ledger: issuer, name, until when that matters (Unix seconds)."""


class Ends:
    """Ends sessions: one whose record is at hand, or one of a user's by its name."""

    def __init__(self, store: SessionStore, index: Index, limits: Limits, end_by_name: EndByName) -> None:
        self._store = store
        self._index = index
        self._limits = limits
        self._end_by_name = end_by_name

    async def end(self, cookie: SessionCookie, record: Record) -> Any:
        """End a session on every node, and return the receipt of the ledger."""
        # It may have begun when session_absolute was longer, and another node may still go by that.
        last = max(record.began + self._limits.absolute, record.deadline)
        receipt = await self._end_by_name(record.issuer, record.name, last)
        subject = str(msgspec.json.decode(record.claims).get("sub"))
        await self._forgotten(record.issuer, subject, record.name, cookie.store_key)
        return receipt

    async def end_named(self, issuer: str, subject: str, name: str) -> bool:
        """End one of the sessions of a user; tell whether there is such a one.

        Raises:
            BackendUnavailable: nobody can say.
        """
        for listed in await self._index.of(issuer, subject):
            if listed.name == name:
                await self._end_by_name(issuer, name, listed.deadline)
                await self._forgotten(issuer, subject, name, listed.store_key)
                return True
        return False

    async def _forgotten(self, issuer: str, subject: str, name: str, store_key: bytes) -> None:
        """Tidy up behind a session that the ledger ended: nothing depends on it."""
        with contextlib.suppress(OIDCError):
            await self._store.delete(store_key)
            await self._index.remove(issuer, subject, name)

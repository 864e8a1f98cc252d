"""A new access token for a session: one exchange at a time, whoever asks and on however many nodes.

The issuer may take a refresh token only once, and end everything when it comes twice. So a lock in the shared store
goes before each exchange, and what the holder gets is stored before it is given back. A holder that dies, or is paused
beyond the life of the lock, may have used up the refresh token all the same: then the issuer refuses the next one, and
the user logs in again.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Mapping
from hashlib import blake2b
from typing import Any, Final, NamedTuple, Protocol

import msgspec

from oidc_middleware.cache import TypedCache
from oidc_middleware.clock import Clock
from oidc_middleware.core.grant import Grant
from oidc_middleware.errors import (
    BackendUnavailable,
    GrantRefused,
    ProviderUnavailable,
    Revoked,
    SessionEnded,
    TokenError,
)
from oidc_middleware.session.cookie import SessionCookie
from oidc_middleware.session.identity import renewed_claims
from oidc_middleware.session.limits import Limits, access_ends, is_over
from oidc_middleware.session.record import Record, check_size
from oidc_middleware.session.store import SessionStore

LOCK_SECONDS: Final = 8.0
"""The life of the lock: an exchange takes 5 s at most, and what it brought is stored within the rest."""

# Of the life of a lock, the part in which it is given back: later the delete could arrive when it is another's.
_GIVEN_BACK_WITHIN = 0.9
_POLL_SECONDS = 0.1
# How often what was renewed is written again because somebody else wrote meanwhile: a touch, no second exchange.
_ATTEMPTS = 5

_log = logging.getLogger("oidc_middleware.session")


class Renewed(NamedTuple):
    """What an issuer gave for a refresh token; `claims` are those of the new ID token, if one came."""

    grant: Grant
    claims: Mapping[str, Any] | None


class Renewer(Protocol):
    """Exchanges refresh tokens at the issuers."""

    async def renew(self, record: Record) -> Renewed:
        """Return what the issuer of a session gives for its refresh token.

        Raises:
            GrantRefused: it refuses it.
            TokenError: what it gave is for somebody else.
            ProviderError: it does not answer.
        """

    async def give_up(self, record: Record) -> None:
        """Tell the issuer of a session that is over that its refresh token is not needed, if it can be told."""


class Refresh:
    """`check` holds a session against the ledger, `end` ends one on every node.

    `locks` is a cache that all nodes share and whose entries can be done without: a lock that was not taken for certain
    is none, and is not kept for when the store is back.
    """

    def __init__(
        self,
        store: SessionStore,
        locks: TypedCache[bytes],
        renewer: Renewer,
        limits: Limits,
        clock: Clock,
        *,
        check: Callable[[Record], None],
        end: Callable[[SessionCookie, Record], Awaitable[object]],
    ) -> None:
        self._store = store
        self._locks = locks
        self._renewer = renewer
        self._limits = limits
        self._now = clock.now
        self._monotonic = clock.monotonic
        self._check = check
        self._end = end
        self.exchanges: int = 0
        """How many refresh tokens were sent to issuers."""

    async def run(self, cookie: SessionCookie, record: Record) -> Record:
        """Return the session with an access token that is newer than that of `record`.

        Raises:
            SessionEnded: the issuer ends it, or somebody did.
            ProviderError: the issuer does not answer, or another node does not come to an end with it.
            BackendUnavailable: there is no lock to be had.
        """
        lock, loop = _lock_key(cookie), asyncio.get_running_loop()
        end = loop.time() + 1.5 * LOCK_SECONDS
        while loop.time() < end:
            news = self._locks.next_change(lock)
            try:
                began = self._monotonic()
                if await self._locks.add(lock, b"renewing", self._now() + LOCK_SECONDS):
                    try:
                        return await self._newer(cookie, record) or await self._exchange(cookie, record)
                    finally:
                        await self._give_back(lock, began)
                await asyncio.wait((news,), timeout=_POLL_SECONDS)
            finally:
                news.cancel()
            found = await self._newer(cookie, record)
            if found is not None:
                return found
        raise ProviderUnavailable("another node renews the session and does not come to an end")

    async def _newer(self, cookie: SessionCookie, record: Record) -> Record | None:
        """Return the session if another node renewed it."""
        found = await self._store.find_newest(cookie)
        if found is None or is_over(found, self._now()):
            return None
        # Some issuers give the same token again, and let it live for longer.
        is_other = found.access_token != record.access_token or found.access_ends > record.access_ends
        return found if is_other else None

    async def _exchange(self, cookie: SessionCookie, record: Record) -> Record:
        newest = await self._store.find_newest(cookie)
        if newest is not None and newest.version > record.version:
            record = newest  # somebody wrote when it was used last
        self._check(record)
        self.exchanges += 1
        try:
            renewed = await self._renewer.renew(record)
        except GrantRefused as error:
            found = await self._newer(cookie, record)  # by a holder whose lock had ended
            if found is not None:
                return found
            raise await self._ended(cookie, record, error) from None
        except TokenError as error:
            raise await self._ended(cookie, record, error) from None
        return await self._saved(cookie, record, renewed)

    async def _saved(self, cookie: SessionCookie, record: Record, renewed: Renewed) -> Record:
        """Store what was renewed, over whatever was written meanwhile; an end of the session goes before it."""
        fresh = self._renewed(record, renewed)
        try:
            check_size(fresh)
        except ValueError as error:
            raise await self._ended(cookie, record, error) from None
        try:
            fresh = await self._written(cookie, fresh)
            self._check(fresh)
        except Revoked:
            with contextlib.suppress(BackendUnavailable):
                await self._store.delete(cookie.store_key)
            await self._renewer.give_up(fresh)
            raise
        return fresh

    async def _written(self, cookie: SessionCookie, fresh: Record) -> Record:
        """Store a session over whatever was written meanwhile, and return it as it is then.

        Raises:
            Revoked: it was ended, and is not in the store any more.
        """
        with contextlib.suppress(BackendUnavailable):  # this node goes by it, and sends it when the store is back
            for _ in range(_ATTEMPTS):
                if await self._store.update(cookie, fresh):
                    break
                newest = await self._store.find_newest(cookie)
                if newest is None:
                    self._check(fresh)  # it was lost, or ended: the ledger knows
                    if await self._store.add(cookie, fresh):
                        break
                    continue
                fresh = msgspec.structs.replace(
                    fresh, version=newest.version + 1, ends_at=max(fresh.ends_at, newest.ends_at)
                )
        return fresh

    def _renewed(self, record: Record, renewed: Renewed) -> Record:
        now, grant = self._now(), renewed.grant
        deadline = self._limits.deadline(record.began, now, grant)
        return msgspec.structs.replace(
            record,
            version=record.version + 1,
            claims=record.claims if renewed.claims is None else renewed_claims(record, renewed.claims),
            id_token=grant.id_token or record.id_token,
            deadline=deadline,
            ends_at=self._limits.ends_at(deadline, now),
            access_token=grant.access_token,
            access_ends=access_ends(grant, now),
            renew_at=self._limits.renew_at(grant, now),
            refresh_token=grant.refresh_token or record.refresh_token,
            scope=record.scope if grant.scope is None else grant.scope,
        )

    async def _ended(self, cookie: SessionCookie, record: Record, error: Exception) -> SessionEnded:
        _log.info("session %s ends: its tokens are not renewed: %s", record.name, error)
        await self._end(cookie, record)
        return SessionEnded("its tokens are not renewed")

    async def _give_back(self, lock: bytes, began: float) -> None:
        if self._monotonic() - began < _GIVEN_BACK_WITHIN * LOCK_SECONDS:
            with contextlib.suppress(BackendUnavailable):
                await self._locks.delete(lock)


def _lock_key(cookie: SessionCookie) -> bytes:
    return blake2b(cookie.store_key, digest_size=32, person=b"session lock").digest()

"""Which sessions a user has: for lists, and for ending one of them. Nothing in it opens a session."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from hashlib import blake2b
from typing import Final

import msgspec

from oidc_middleware.cache import TypedCache
from oidc_middleware.clock import Clock
from oidc_middleware.errors import BackendUnavailable

MOST_LISTED: Final = 64
"""How many sessions of a user are listed, the newest ones; more are possible."""

_ATTEMPTS = 8
_EMPTY_SECONDS = 60.0


class Listed(msgspec.Struct, frozen=True, gc=False, array_like=True):
    """One session in the list of its user; times are Unix seconds."""

    name: str
    store_key: bytes
    began: float
    deadline: float
    user_agent: str


class _Page(msgspec.Struct, frozen=True, array_like=True):
    version: int
    sessions: tuple[Listed, ...]


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(_Page).decode
_EMPTY = _Page(0, ())


class Index:
    """One list for each user, in the session cache, which several nodes write to: the one that is late writes anew."""

    def __init__(self, cache: TypedCache[bytes], clock: Clock) -> None:
        self._cache = cache
        self._now = clock.now

    async def of(self, issuer: str, subject: str) -> tuple[Listed, ...]:
        """Return the sessions of a user that have not reached their deadline, the newest last.

        Raises:
            BackendUnavailable: nobody can say.
        """
        page = await self._page(_key(issuer, subject))
        return _lasting((_EMPTY if page is None else page).sessions, self._now())

    async def add(self, issuer: str, subject: str, listed: Listed) -> None:
        """Put a session into the list of its user.

        Raises:
            BackendUnavailable: nobody knows whether it is there.
        """
        await self._change(issuer, subject, lambda sessions: (*sessions, listed))

    async def remove(self, issuer: str, subject: str, name: str) -> None:
        """Take a session out of the list of its user.

        Raises:
            BackendUnavailable: nobody knows whether it is out.
        """
        await self._change(issuer, subject, lambda sessions: tuple(s for s in sessions if s.name != name))

    async def _change(
        self, issuer: str, subject: str, change: Callable[[tuple[Listed, ...]], tuple[Listed, ...]]
    ) -> None:
        key = _key(issuer, subject)
        for _ in range(_ATTEMPTS):
            page = await self._page(key)
            before = _EMPTY if page is None else page
            sessions = change(_lasting(before.sessions, self._now()))[-MOST_LISTED:]
            after = _Page(before.version + 1, sessions)
            if page is None and not sessions:
                return
            # A list that is empty goes by itself: a deletion would not know of a session that came meanwhile.
            data, end = _encode(after), max((s.deadline for s in sessions), default=self._now() + _EMPTY_SECONDS)
            write = self._cache.add if page is None else self._cache.update
            if await write(key, data, end, after.version):
                return
        raise BackendUnavailable("the list of a user's sessions changes all the time")

    async def _page(self, key: bytes) -> _Page | None:
        data = await self._cache.get_newest(key)
        if data is None:
            data = await self._cache.get(key)
        if data is not None:
            with contextlib.suppress(msgspec.MsgspecError):
                return _decode(data)
        return None


def _lasting(sessions: tuple[Listed, ...], now: float) -> tuple[Listed, ...]:
    return tuple(session for session in sessions if now < session.deadline)


def _key(issuer: str, subject: str) -> bytes:
    hashed = blake2b(digest_size=32, person=b"sessions of")
    for part in (issuer.encode(), subject.encode()):
        hashed.update(len(part).to_bytes(8) + part)
    return hashed.digest()

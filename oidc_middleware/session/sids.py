"""Whose each session at an issuer is, remembered at login: for logout tokens that name a session and a subject."""

from __future__ import annotations

from hashlib import sha256
from typing import Any

from oidc_middleware.cache import TypedCache


class Sids:
    """The subject of each `sid` with which somebody logged in here, as long as sessions live.

    `cache` gets digests only: whoever reads it learns neither who nor which session.
    """

    def __init__(self, cache: TypedCache[Any]) -> None:
        self._cache = cache

    async def remember(self, issuer: str, sid: str, subject: str, expires_at: float) -> None:
        """Remember who has logged in with a session, until then (Unix time in seconds).

        Raises:
            BackendUnavailable: after the cache was closed.
        """
        await self._cache.set(_digest("sid", issuer, sid), _digest("sub", issuer, subject), expires_at)

    async def is_of_another(self, issuer: str, sid: str, subject: str) -> bool:
        """Tell whether it is known that somebody else has logged in with this session.

        Raises:
            BackendUnavailable: nobody can say.
        """
        found = await self._cache.get(_digest("sid", issuer, sid))
        return found is not None and found != _digest("sub", issuer, subject)


def _digest(*parts: str) -> bytes:
    return sha256("\n".join(parts).encode("utf-8", "surrogatepass")).digest()

"""One provider over one fake issuer in this process, on a clock that a test moves."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random
from typing import Any

import httpx2

from oidc_middleware.cache import Caches
from oidc_middleware.core.keys import Key
from oidc_middleware.provider import HTTPDoor, Provider
from oidc_middleware.testing import FakeIssuer, ManualClock

MINUTE = 60.0
HOUR = 60 * MINUTE


@dataclass
class Bench:
    """A provider, what it stands on, and what it told."""

    issuer: FakeIssuer
    clock: ManualClock
    options: dict[str, Any] = field(default_factory=dict)
    removals: int = 0

    def __post_init__(self) -> None:
        self.caches: Caches = self.options.pop("caches", None) or Caches(self.clock)
        transport: httpx2.AsyncBaseTransport = self.options.pop("transport", None) or self.issuer.transport()
        self.http = HTTPDoor(transport=transport, deadline=self.options.pop("deadline", 5))
        self.provider = Provider(
            self.options.pop("name", self.issuer.url),
            algorithms=self.options.pop("algorithms", frozenset({"ES256"})),
            http=self.http,
            caches=self.caches,
            clock=self.clock,
            random=self.options.pop("random", None) or Random(1),
            on_keys_removed=self._count,
            **self.options,
        )

    def _count(self) -> None:
        self.removals += 1

    @property
    def kid(self) -> str:
        """The `kid` that the issuer signs with."""
        return self.issuer.keys.current().kid

    @property
    def fetches(self) -> tuple[int, int]:
        """How many requests for metadata and for keys the issuer got."""
        requests = self.issuer.requests
        return requests["discovery"] + requests["oauth_metadata"], requests["jwks"]

    async def find(self, kid: str | None = None) -> tuple[Key, ...]:
        """Look a key up as the authenticator does; absent: the one that the issuer signs with."""
        kid = self.kid if kid is None else kid
        keys = self.provider.peek_keys()
        found = keys.find(kid, "ES256") if keys else ()
        return found or await self.provider.find_keys(kid, "ES256")


async def until(condition: Callable[[], object]) -> None:
    """Wait for a state that no event announces."""
    async with asyncio.timeout(5):
        while not condition():  # noqa: ASYNC110  there is no event to wait for
            await asyncio.sleep(0.001)

"""A node as it runs in production: memory over sealed entries in a real Redis, or over a link that a test controls."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from typing import Any

import pytest

from oidc_middleware.cache import TYPES, CacheType, HybridBackend, MemoryBackend, RedisBackend, SealedBackend, Sealer
from oidc_middleware.clock import Clock
from oidc_middleware.errors import BackendUnavailable, FailureKind

from redis_kit import CLOCK, PATIENCE, RedisServer, most_of
from time_kit import Stopwatch

SECRET = "a secret of a test, 32 bytes long"

OpenNode = Callable[..., "Node"]
"""Takes a URL and options of the hybrid backend, and returns a node that is closed when the test ends."""


@dataclass(frozen=True, slots=True)
class Node:
    """The tiers of one node, each within reach of a test."""

    hybrid: HybridBackend
    redis: RedisBackend
    sealer: Sealer

    def name(self, kind: CacheType, key: bytes) -> bytes:
        """Return the name under which Redis has an entry."""
        return self.sealer.digest(kind.name, key)

    async def recovered(self) -> None:
        """Wait until the node has made up for an outage, as it does in the background."""
        async with asyncio.timeout(4 * PATIENCE):
            while self.hybrid.fallback or any(self.unsettled) or self.hybrid.overview().queued:  # noqa: ASYNC110
                await asyncio.sleep(0.005)

    async def started(self) -> None:
        """Wait until the node follows what others change: it forgets what it had then."""
        self.hybrid.start()
        async with asyncio.timeout(PATIENCE):
            while self.hybrid.overview().staleness is None:  # noqa: ASYNC110
                await asyncio.sleep(0.001)

    @property
    def unsettled(self) -> tuple[int, int, int]:
        """How many deletes, adds and clears the shared tier is still owed."""
        counts = self.hybrid.overview().unsettled
        return counts.deletes, counts.adds, counts.clears


def new_node(
    url: str,
    *,
    clock: Clock = CLOCK,
    budget: float = PATIENCE,
    namespace: str = "oidc",
    types: Iterable[CacheType] = tuple(TYPES.values()),
    **options: Any,
) -> Node:
    """Return a node over the Redis at a URL; `redis` among the options holds those of the tier beneath."""
    redis = RedisBackend(url, clock=clock, budget=budget, prefix=namespace.encode(), **options.pop("redis", {}))
    sealer = Sealer([SECRET], namespace)
    shared = SealedBackend(redis, sealer, clock)
    return Node(
        HybridBackend(MemoryBackend(clock, types), shared, clock=clock, budget=budget, **options), redis, sealer
    )


def stored(server: RedisServer) -> list[bytes]:
    """Return the names of the entries that a server has, without those by which nodes know each other."""
    names: list[bytes] = server.admin.keys("*")
    return [name for name in names if name.split(b":")[1].decode() in TYPES and not name.endswith(b":check")]


async def fails(work: Awaitable[object], *kinds: FailureKind) -> BackendUnavailable:
    """Await what must fail within the budget, in one of these ways (none given: in any)."""
    with Stopwatch() as passed, pytest.raises(BackendUnavailable) as caught:
        await work
    assert passed() < most_of(caught.value), repr(caught.value)
    assert not kinds or caught.value.kind in kinds, repr(caught.value)
    return caught.value


async def opened(node: Node, *, reads: bool = True, writes: bool = True) -> None:
    """Use a node whose Redis fails until its breakers are open."""
    standing = node.hybrid._standing
    async with asyncio.timeout(PATIENCE):
        while (reads and standing.reads.is_closed) or (writes and standing.writes.is_closed):
            calls: list[Awaitable[object]] = []
            if reads and standing.reads.is_closed:
                calls.append(node.hybrid.get(TYPES["general"], b"read until the breaker is open"))
            if writes and standing.writes.is_closed:
                calls.append(
                    node.hybrid.set(TYPES["general"], b"written until it is", b"v", CLOCK.now() + 60, wait=True)
                )
            await asyncio.gather(*calls, return_exceptions=True)

"""What a node keeps in memory over an outage: nothing of it grows with the number of keys."""

from __future__ import annotations

import asyncio
import gc
import tracemalloc
from dataclasses import replace

import pytest

from oidc_middleware.cache import TYPES, Limits

from hybrid_kit import Node, OpenNode, opened
from redis_kit import BUDGET, RedisServer, done, end

pytestmark = pytest.mark.anyio

SMALL = Limits(max_entries=50, max_bytes=1 << 20, max_entry_bytes=4096)
KINDS = [replace(TYPES[name], limits=SMALL, negative=None) for name in ("general", "token", "session")]
ROUND = 100
# Far less than a round would leave behind if each of its 1,500 keys left anything.
SLACK = 50_000


async def traffic(node: Node, first: int) -> None:
    """Read, write and delete keys that nobody saw before; they fail as they may."""
    for number in range(first, first + ROUND):
        key = b"%032d" % number
        for kind in KINDS:
            calls = (
                node.hybrid.get(kind, key),
                node.hybrid.get_many(kind, [key, key + b"2"]),
                node.hybrid.set(kind, key, bytes(100), end()),
                node.hybrid.add(kind, key + b"3", bytes(100), end()),
                node.hybrid.delete(kind, key + b"4"),
            )
            await asyncio.gather(*calls, return_exceptions=True)


def sizes(node: Node) -> dict[str, int]:
    """Return how much there is of whatever a key may leave behind."""
    session = node.hybrid._session
    assert session is not None
    overview, writer = node.hybrid.overview(), session.writes.writer
    return {
        "placeholders": len(node.hybrid._tiers.placeholders),
        "unsettled": sum(node.unsettled),
        "queued": overview.queued,
        "outside the queue": len(writer._outside),
        "waiting to write": len(writer._patience._waiters),
        "waiting to read": len(session.reads._batcher._waiting) + len(session.reads._batcher._patience._waiters),
        "calls apart": len(session._calls),
        "entries": sum(counts.entries for counts in overview.l1.values()),
    }


async def test_an_outage_leaves_nothing_behind(redis_server: RedisServer, open_node: OpenNode) -> None:
    node = open_node(redis_server.url, types=KINDS, budget=BUDGET)
    unsettled = node.hybrid._tiers.unsettled
    unsettled._max_keys, unsettled._max_bytes = 100, 30_000
    await done(lambda: node.hybrid.set(TYPES["token"], b"k", b"v", end()))
    redis_server.stop()
    await opened(node)
    measured: list[int] = []
    tracemalloc.start()
    try:
        for number in range(4):
            await traffic(node, number * ROUND)
            found = sizes(node)
            assert found.pop("unsettled") <= 100 + 100 + len(KINDS)
            assert found.pop("entries") <= 3 * 50
            assert all(count <= 200 for count in found.values()), found
            gc.collect()
            measured.append(tracemalloc.get_traced_memory()[0])
    finally:
        tracemalloc.stop()
    assert measured[-1] < max(measured[1:3]) + SLACK, measured
    redis_server.cont()
    await node.recovered()
    assert sum(node.unsettled) == 0


async def test_callers_that_go_away_leave_nothing_behind(redis_server: RedisServer, open_node: OpenNode) -> None:
    node = open_node(redis_server.url)
    redis_server.stop()
    for number in range(300):
        key = b"%d" % number
        calls = [
            asyncio.ensure_future(node.hybrid.get(TYPES["token"], key)),
            asyncio.ensure_future(node.hybrid.set(TYPES["token"], key, b"v", end())),
            asyncio.ensure_future(node.hybrid.add(TYPES["session"], key, b"v", end())),
        ]
        await asyncio.sleep(0)
        for call in calls:
            call.cancel()
    redis_server.cont()
    await node.recovered()
    left = sizes(node)
    del left["entries"]
    assert {name: count for name, count in left.items() if count} == {}

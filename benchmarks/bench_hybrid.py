"""Memory over sealed Redis, as the middleware has it: reads that memory cannot answer, and writes of both kinds."""

from __future__ import annotations

import asyncio
import importlib
import os
import time
from itertools import cycle
from time import perf_counter
from typing import Any

from redis_stand import KEYS, LIFE, REDIS, TOGETHER, Callers, Peers, redis_kit
from table import Row, Timing, at_most, compared, interleaved, markdown

from oidc_middleware.cache import (
    TYPES,
    CacheType,
    Entry,
    HybridBackend,
    Limits,
    MemoryBackend,
    RedisBackend,
    SealedBackend,
    Sealer,
    TypedCache,
    msgpack,
    new_secret,
)
from oidc_middleware.clock import SystemClock

GENERAL = TYPES["general"]
# Memory has room for less than is read in turn, so that it never has the answer and is always full.
TOKEN = CacheType("token", 60.0, "synchronous", "dropped by revocation", Limits(1000, 1 << 30, 1 << 20))
STORED = 5_000
CLAIMS = os.urandom(650)
READ = "`TypedCache.get`, opened and decoded"
# The cache that this one descends from, compiled from Go, on this kind of machine, in µs.
ORIGINAL = {"absent": 155.0, "absent, 100 callers": 40.0, "written": 173.0}

Record = tuple[float, int, bytes]


def rows(*, quick: bool = False) -> dict[str, list[Row]]:
    """Return the tables of the two tiers together."""
    with redis_kit().RedisServer() as server, asyncio.Runner() as runner:
        stand = Stand(runner, server.url)
        runner.run(stand.fill())
        try:
            return stand.tables(5 if quick else 15)
        finally:
            runner.run(stand.aclose())


class Stand(Callers):
    """The hybrid backend and its peers, connected to one server."""

    def __init__(self, runner: asyncio.Runner, url: str) -> None:
        super().__init__(runner)
        clock = SystemClock()
        sealed = SealedBackend(RedisBackend(url, clock=clock, budget=10), Sealer([new_secret()], "oidc"), clock)
        self.redis: Any = importlib.import_module("redis.asyncio").Redis.from_url(url)
        self.ours = HybridBackend(MemoryBackend(clock, [TOKEN, GENERAL]), sealed, clock=clock, budget=10)
        self.cache: TypedCache[Record] = TypedCache(TOKEN, self.ours, msgpack(tuple[float, int, bytes]))
        self.peers = Peers(url, ("cashews", "cashews, client side", "aiocache"))
        self.turns = cycle([os.urandom(32) for _ in range(STORED)])

    async def fill(self) -> None:
        """Store what is read, with everybody."""
        for _ in range(STORED):
            await self.write(next(self.turns))
        for key in KEYS:
            await self.redis_set(key)
        await self.peers.fill(CLAIMS)

    async def aclose(self) -> None:
        """Let go of the connections."""
        await self.ours.close()
        await self.redis.aclose()
        await self.peers.aclose()

    async def redis_set(self, key: bytes) -> None:
        """Write with redis-py."""
        await self.redis.set(key, CLAIMS, px=LIFE * 1000)

    async def read(self, _: bytes) -> None:
        """Read what memory no longer has."""
        assert await self.cache.get(next(self.turns)) is not None

    async def absent(self, key: bytes) -> None:
        """Ask for what nobody has."""
        await self.ours.exists(TOKEN, key[:16])

    async def write(self, key: bytes) -> None:
        """Write and wait."""
        end = time.time() + LIFE
        await self.cache.set(key, (end, 1, CLAIMS), end)

    async def queue(self, key: bytes) -> None:
        """Write and do not wait."""
        await self.ours.set(GENERAL, key, CLAIMS, time.time() + LIFE)

    async def write_many(self, _: bytes) -> None:
        """Write all keys and wait."""
        end = time.time() + LIFE
        await self.ours.set_many(GENERAL, {key: Entry(CLAIMS, end) for key in KEYS}, wait=True)

    def waiting(self) -> int:
        """Return how many writes wait."""
        return self.ours.overview().queued

    def tables(self, rounds: int) -> dict[str, list[Row]]:
        """Measure."""
        readers = {REDIS: self.redis.get, READ: self.read, **self.peers.readers()}
        reads = interleaved({name: self.together(call) for name, call in readers.items()}, 50 * TOGETHER, rounds)
        lone = interleaved({REDIS: self.alone(self.redis_set), "`set`": self.alone(self.write)}, 500, rounds)
        together = f"`set`, {TOGETHER} that wait"
        writers = {
            REDIS: self.alone(self.redis_set),
            together: self.together(self.write, clock=perf_counter),
            "`set`, queued": self.queued(self.queue, self.waiting),
            "`set_many`, 100 entries": self.alone(self.write_many, TOGETHER),
        }
        many = interleaved(writers, 20 * TOGETHER, rounds)
        absent = interleaved({"lone": self.alone(self.absent)}, 500, rounds)
        crowd = interleaved({"crowd": self.together(self.absent, clock=perf_counter)}, 50 * TOGETHER, rounds)
        return {
            f"Two tiers: {TOGETHER} readers at once, memory has nothing, processor time of a read": compared(
                reads, REDIS, {READ: 1 / 6}
            ),
            "Two tiers: a lone write, sealed and acknowledged": compared(lone, REDIS, {"`set`": 1.6}),
            "Two tiers: many sealed writes beside an awaited `SET`": compared(
                many, REDIS, {together: 0.25, "`set`, queued": 0.2}
            ),
            "Two tiers: beside the original, compiled from Go": [
                _beside("a key that nobody has", absent["lone"], "absent"),
                _beside(f"a key that nobody has, {TOGETHER} callers", crowd["crowd"], "absent, 100 callers"),
                _beside(f"a write, {TOGETHER} that wait", many[together], "written"),
            ],
        }


def _beside(what: str, timing: Timing, name: str) -> Row:
    """Return the row beside the original's figure; the goal is to be faster where many come at once."""
    ratio, base = timing.median / ORIGINAL[name], f"{ORIGINAL[name]:.0f} µs"
    goal = None if name == "absent" else at_most(ratio, 1)
    return Row(what, timing.median, least=timing.least, ratio=ratio, base=base, goal=goal)


if __name__ == "__main__":
    for title, table in rows().items():
        print(markdown(title, table), end="\n\n")

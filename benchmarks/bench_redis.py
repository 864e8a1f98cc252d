"""What Redis costs as a shared tier, beside redis-py with one command each: many reads, a lone write, many writes."""

from __future__ import annotations

import asyncio
import importlib
import os
import time
from functools import partial
from time import perf_counter, process_time
from typing import Any

from redis_stand import KEYS, LIFE, REDIS, TOGETHER, Callers, Peers, redis_kit
from table import Row, compared, interleaved, markdown

from oidc_middleware.cache import TYPES, RedisBackend
from oidc_middleware.cache.envelope import Sealer, new_secret
from oidc_middleware.clock import SystemClock

TOKEN, GENERAL = TYPES["token"], TYPES["general"]
VALUE = os.urandom(700)
OURS = "`RedisBackend`"


def rows(*, quick: bool = False) -> dict[str, list[Row]]:
    """Return the tables of Redis, each with what redis-py does alone as its base."""
    with redis_kit().RedisServer() as server, asyncio.Runner() as runner:
        stand = Stand(runner, server.url)
        runner.run(stand.fill())
        try:
            return stand.tables(5 if quick else 15)
        finally:
            runner.run(stand.aclose())


class Stand(Callers):
    """Everybody who is measured, connected to one server."""

    def __init__(self, runner: asyncio.Runner, url: str) -> None:
        super().__init__(runner)
        self.redis: Any = importlib.import_module("redis.asyncio").Redis.from_url(url)
        self.ours = RedisBackend(url, clock=SystemClock(), budget=10)
        self.sealer = Sealer([new_secret()], "oidc")
        self.peers = Peers(url, ("cashews", "aiocache"))

    async def fill(self) -> None:
        """Store what is read, with everybody."""
        for key in KEYS:
            await self.redis_set(key)
            await self.ours_set(key)
        await self.peers.fill(VALUE)

    async def aclose(self) -> None:
        """Let go of the connections."""
        await self.ours.close()
        await self.redis.aclose()
        await self.peers.aclose()

    async def redis_set(self, key: bytes) -> None:
        """Write with redis-py."""
        await self.redis.set(key, VALUE, px=LIFE * 1000)

    async def ours_set(self, key: bytes) -> None:
        """Write and wait."""
        await self.ours.set(TOKEN, key, VALUE, time.time() + LIFE)

    async def ours_queue(self, key: bytes) -> None:
        """Write and do not wait."""
        await self.ours.set(GENERAL, key, VALUE, time.time() + LIFE)

    async def ours_queue_sealed(self, key: bytes) -> None:
        """Seal, write and do not wait."""
        now = time.time()
        name, sealed = self.sealer.digest("general", key), self.sealer.seal("general", key, VALUE, now + LIFE, now)
        await self.ours.set(GENERAL, name, sealed, now + LIFE)

    def waiting(self) -> int:
        """Return how many writes wait."""
        return self.ours.traffic().queued

    def tables(self, rounds: int) -> dict[str, list[Row]]:
        """Measure."""
        reads = interleaved(
            {
                REDIS: self.together(self.redis.get),
                "redis-py, one `MGET`": self.alone(lambda _: self.redis.mget(KEYS), TOGETHER, process_time),
                OURS: self.together(partial(self.ours.get, TOKEN)),
                **{name: self.together(get) for name, get in self.peers.readers().items()},
            },
            50 * TOGETHER,
            rounds,
        )
        lone = interleaved({REDIS: self.alone(self.redis_set), OURS: self.alone(self.ours_set)}, 500, rounds)
        many = interleaved(
            {
                REDIS: self.alone(self.redis_set),
                f"{OURS}, {TOGETHER} that wait": self.together(self.ours_set, clock=perf_counter),
                f"{OURS}, queued": self.queued(self.ours_queue, self.waiting),
                f"{OURS}, sealed and queued": self.queued(self.ours_queue_sealed, self.waiting),
            },
            20 * TOGETHER,
            rounds,
        )
        return {
            f"Redis: {TOGETHER} readers at once, processor time of a read": compared(reads, REDIS, {OURS: 0.1}),
            "Redis: a lone write, acknowledged": compared(lone, REDIS, {OURS: 1.6}),
            "Redis: many writes beside an awaited `SET`": compared(
                many,
                REDIS,
                {
                    f"{OURS}, {TOGETHER} that wait": 0.25,
                    f"{OURS}, queued": 0.2,
                    f"{OURS}, sealed and queued": 0.2,
                },
            ),
        }


if __name__ == "__main__":
    for title, table in rows().items():
        print(markdown(title, table), end="\n\n")

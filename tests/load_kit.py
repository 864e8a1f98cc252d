"""Callers who write and read without a pause while a test does something to the servers."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Sequence
from typing import Self, TypeVar

from oidc_middleware.cache import TYPES, RedisBackend
from oidc_middleware.errors import BackendUnavailable

from redis_kit import end, until
from time_kit import Stopwatch

T = TypeVar("T")

BLACKLIST = TYPES["blacklist"]


class Load:
    """One caller for each key: it sets, gets what it set, and does so again, until the end of the block.

    A wrong answer fails the test; a miss does too, unless servers may come back with nothing (`may_miss`).

    `longest` is how long the longest call took, in seconds of a stopwatch, and `longest_success` the longest of those
    that succeeded. `kinds` are the kinds of failures, `failed` the keys of those. `last_success` is when each caller's
    last pair of calls began that succeeded.
    """

    def __init__(self, backend: RedisBackend, keys: Sequence[bytes], *, may_miss: bool = False) -> None:
        self.longest = 0.0
        self.longest_success = 0.0
        self.kinds: set[str] = set()
        self.failed: set[bytes] = set()
        self.last_success = dict.fromkeys(keys, 0.0)
        self._backend = backend
        self._may_miss = may_miss
        self._tasks: list[asyncio.Task[None]] = []
        self._passed = Stopwatch()

    async def __aenter__(self) -> Self:
        self._passed.start()
        self._tasks = [asyncio.create_task(self._call(key)) for key in self.last_success]
        await self.all_well(10)
        return self

    async def __aexit__(self, *_: object) -> None:
        self._passed.stop()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for task in self._tasks:
            if not task.cancelled():
                task.result()

    async def all_well(self, seconds: float) -> None:
        """Wait, so many seconds at most, until every caller has succeeded once more."""
        since = time.monotonic()
        await until(lambda: min(self.last_success.values()) >= since or self._is_over(), seconds)

    def _is_over(self) -> bool:
        return any(task.done() for task in self._tasks)

    async def _call(self, key: bytes) -> None:
        turn = 0
        while True:
            turn += 1
            value = b"%b %d" % (key, turn)
            begun = time.monotonic()
            try:
                await self._timed(self._backend.set(BLACKLIST, key, value, end()))
                found = await self._timed(self._backend.get(BLACKLIST, key))
            except BackendUnavailable as error:
                self.kinds.add(error.kind)
                self.failed.add(key)
            else:
                assert found is not None or self._may_miss, key
                assert found is None or found.value == value, key
                self.last_success[key] = begun
            await asyncio.sleep(0.005)

    async def _timed(self, work: Awaitable[T]) -> T:
        begun = self._passed()
        try:
            result = await work
            self.longest_success = max(self.longest_success, self._passed() - begun)
            return result
        finally:
            self.longest = max(self.longest, self._passed() - begun)

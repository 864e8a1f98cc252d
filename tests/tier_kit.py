"""A shared tier in memory whose every answer a test controls: well, failing, hanging, or done and not acknowledged."""

from __future__ import annotations

import asyncio
from asyncio import Event
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Any, Literal, TypeVar

from oidc_middleware.cache import CacheType, Counts, Entry, Health, MemoryBackend
from oidc_middleware.clock import Clock
from oidc_middleware.errors import BackendUnavailable, FailureKind

T = TypeVar("T")

Mode = Literal["well", "down", "unacknowledged"]

READS = frozenset({"get", "get_many", "exists"})


class Tier:
    """A node's link to a store that several nodes share.

    `reads` and `writes` say what becomes of the next calls, `failure` of which kind a failure is. Calls wait while
    they are held: a read for its answer, a write before it is done, or for its answer if that is `late`. `calls` counts
    what came, `seen` keeps what each call was told of keys.
    """

    def __init__(self, clock: Clock, store: MemoryBackend | None = None) -> None:
        self.store = store if store is not None else MemoryBackend(clock)
        self.reads: Mode = "well"
        self.writes: Mode = "well"
        self.pings = True
        self.late = False
        self.failure: FailureKind | Exception = "link"
        self.gates: dict[str, Event] = {}
        self.calls: Counter[str] = Counter()
        self.seen: list[tuple[str, Any]] = []
        self.most_at_once = 0
        self.closed = 0
        self._at_once = 0

    def hold(self, *operations: str) -> None:
        """Let calls of these operations wait until `release`."""
        for operation in operations:
            self.gates.setdefault(operation, Event())

    def release(self) -> None:
        """Let every call go on."""
        gates, self.gates = self.gates, {}
        for gate in gates.values():
            gate.set()

    def heal(self) -> None:
        """Make all well."""
        self.reads = self.writes = "well"
        self.pings, self.late = True, False
        self.release()

    async def get(self, kind: CacheType, key: bytes) -> Entry | None:
        return await self._do("get", key, lambda: self.store.get(kind, key))

    async def set(self, kind: CacheType, key: bytes, value: bytes, expires_at: float, wait: bool | None = None) -> None:
        await self._do("set", key, lambda: self.store.set(kind, key, value, expires_at))

    async def add(self, kind: CacheType, key: bytes, value: bytes, expires_at: float, version: int = 0) -> bool:
        return await self._do("add", key, lambda: self.store.add(kind, key, value, expires_at, version))

    async def update(self, kind: CacheType, key: bytes, value: bytes, expires_at: float, version: int) -> bool:
        return await self._do("update", key, lambda: self.store.update(kind, key, value, expires_at, version))

    async def delete(self, kind: CacheType, key: bytes) -> bool:
        return await self._do("delete", key, lambda: self.store.delete(kind, key))

    async def exists(self, kind: CacheType, key: bytes) -> bool:
        return await self._do("exists", key, lambda: self.store.exists(kind, key))

    async def clear(self, kind: CacheType) -> None:
        await self._do("clear", kind.name, lambda: self.store.clear(kind))

    async def get_many(self, kind: CacheType, keys: Iterable[bytes]) -> dict[bytes, Entry]:
        wanted = list(keys)
        return await self._do("get_many", wanted, lambda: self.store.get_many(kind, wanted))

    async def set_many(self, kind: CacheType, entries: Mapping[bytes, Entry], wait: bool | None = None) -> None:
        await self._do("set_many", list(entries), lambda: self.store.set_many(kind, entries))

    async def ping(self) -> Health:
        self.calls["ping"] += 1
        return Health(healthy=self.pings, detail="" if self.pings else "down")

    def stats(self) -> Mapping[str, Counts]:
        return self.store.stats()

    async def close(self) -> None:
        self.closed += 1

    async def _do(self, operation: str, what: object, work: Callable[[], Awaitable[T]]) -> T:
        self.calls[operation] += 1
        self.seen.append((operation, what))
        self._at_once += 1
        self.most_at_once = max(self.most_at_once, self._at_once)
        try:
            # A read shows what is there when it arrives, however long its answer takes.
            is_done = self._mode(operation) == "well" and (operation in READS or self.late)
            result = await work() if is_done else None
            if operation in self.gates:
                await self.gates[operation].wait()
            else:
                await asyncio.sleep(0)
            return await self._answer(operation, (lambda: _as_it_was(result)) if is_done else work)
        finally:
            self._at_once -= 1

    async def _answer(self, operation: str, work: Callable[[], Awaitable[T]]) -> T:
        mode = self._mode(operation)
        if mode == "well":
            return await work()
        if mode == "unacknowledged":
            await work()
            raise BackendUnavailable("no answer in time", "timeout")
        if isinstance(self.failure, Exception):
            raise self.failure
        raise BackendUnavailable("as the test wants it", self.failure)

    def _mode(self, operation: str) -> Mode:
        return self.reads if operation in READS else self.writes


async def _as_it_was(result: Any) -> Any:
    return result


async def turns(count: int = 20) -> None:
    """Let the loop go round."""
    for _ in range(count):
        await asyncio.sleep(0)

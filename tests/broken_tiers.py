"""Cache tiers that each do one thing wrong, and the contract over all of them: `test_contract_itself.py` runs it."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Iterable, Mapping
from typing import Any

import pytest

from oidc_middleware.cache import TYPES, Backend, CacheType, Entry, MemoryBackend
from oidc_middleware.testing import BackendContract, ManualClock


class Flawless(MemoryBackend):
    pass


class ForgetsEnds(MemoryBackend):
    async def get(self, kind: CacheType, key: bytes) -> Entry | None:
        entry = await super().get(kind, key)
        return entry and entry._replace(expires_at=math.inf)


class ServesWhatHasEnded(MemoryBackend):
    """It goes by a clock that nobody moves."""

    def __init__(self, clock: ManualClock) -> None:
        super().__init__(ManualClock(clock.now()))


class StoresWhatHasEnded(MemoryBackend):
    """A life of zero or less is one for ever."""

    def __init__(self, clock: ManualClock) -> None:
        super().__init__(clock)
        self.clock = clock

    async def set(self, kind: CacheType, key: bytes, value: bytes, expires_at: float, wait: bool | None = None) -> None:
        await super().set(kind, key, value, expires_at if expires_at > self.clock.now() else self.clock.now() + 1e9)


class RoundsEnds(MemoryBackend):
    """It counts whole seconds."""

    async def set(self, kind: CacheType, key: bytes, value: bytes, expires_at: float, wait: bool | None = None) -> None:
        await super().set(kind, key, value, math.ceil(expires_at) if math.isfinite(expires_at) else expires_at)


class KeepsReferences(MemoryBackend):
    """Who changes what he stored changes what is stored."""

    def __init__(self, clock: ManualClock) -> None:
        super().__init__(clock)
        self.given: dict[bytes, bytes] = {}

    async def set(self, kind: CacheType, key: bytes, value: bytes, expires_at: float, wait: bool | None = None) -> None:
        await super().set(kind, key, value, expires_at)
        self.given[key] = value

    async def get(self, kind: CacheType, key: bytes) -> Entry | None:
        entry = await super().get(kind, key)
        return entry and entry._replace(value=self.given.get(key, entry.value))


class TakesAnything(MemoryBackend):
    """It stores text as if it were bytes."""

    async def set(self, kind: CacheType, key: bytes, value: Any, expires_at: float, wait: bool | None = None) -> None:
        await super().set(kind, key, value if isinstance(value, bytes) else repr(value).encode(), expires_at)


class ManyWithoutEnds(MemoryBackend):
    """Its `get_many` knows nothing of ends."""

    async def get_many(self, kind: CacheType, keys: Iterable[bytes]) -> dict[bytes, Entry]:
        found = await super().get_many(kind, keys)
        return {key: Entry(entry.value, 0.0) for key, entry in found.items()}


class ManyOneByOne(MemoryBackend):
    """Its `set_many` stores until something is wrong."""

    async def set_many(self, kind: CacheType, entries: Mapping[bytes, Entry], wait: bool | None = None) -> None:
        for key, entry in entries.items():
            await super().set_many(kind, {key: entry})


class AlwaysDeleted(MemoryBackend):
    async def delete(self, kind: CacheType, key: bytes) -> bool:
        await super().delete(kind, key)
        return True


class DeletesNothing(MemoryBackend):
    async def delete(self, kind: CacheType, key: bytes) -> bool:
        return await self.exists(kind, key)


class CutsKeys(MemoryBackend):
    async def set(self, kind: CacheType, key: bytes, value: bytes, expires_at: float, wait: bool | None = None) -> None:
        await super().set(kind, key[:64], value, expires_at)

    async def get(self, kind: CacheType, key: bytes) -> Entry | None:
        return await super().get(kind, key[:64])


class OneTypeForAll(MemoryBackend):
    """It takes the key for all that matters."""

    async def set(self, kind: CacheType, key: bytes, value: bytes, expires_at: float, wait: bool | None = None) -> None:
        await super().set(TYPES["general"], key, value, expires_at)

    async def get(self, kind: CacheType, key: bytes) -> Entry | None:
        return await super().get(TYPES["general"], key)

    async def delete(self, kind: CacheType, key: bytes) -> bool:
        return await super().delete(TYPES["general"], key)


class ClearsAll(MemoryBackend):
    async def clear(self, kind: CacheType) -> None:
        for shelf in self._shelves.values():
            shelf.clear()


class AddReplaces(MemoryBackend):
    async def add(self, kind: CacheType, key: bytes, value: bytes, expires_at: float, version: int = 0) -> bool:
        await super().set_many(kind, {key: Entry(value, expires_at, version)})
        return True


class AddIsNotAtomic(MemoryBackend):
    """Between the look and the write, others have their turn."""

    async def add(self, kind: CacheType, key: bytes, value: bytes, expires_at: float, version: int = 0) -> bool:
        if await self.exists(kind, key):
            return False
        await asyncio.sleep(0)
        await super().set_many(kind, {key: Entry(value, expires_at, version)})
        return await self.exists(kind, key)


class UpdateRevives(MemoryBackend):
    """Whoever has a value at hand may store it."""

    async def update(self, kind: CacheType, key: bytes, value: bytes, expires_at: float, version: int) -> bool:
        return await super().update(kind, key, value, expires_at, version) or (
            version > 0 and await self.add(kind, key, value, expires_at, version)
        )


class UpdateReplaces(MemoryBackend):
    """The last update wins, whatever its version."""

    async def update(self, kind: CacheType, key: bytes, value: bytes, expires_at: float, version: int) -> bool:
        there = await self.exists(kind, key)
        if there:
            await self.set_many(kind, {key: Entry(value, expires_at, version)})
        return there


class VersionsAreText(MemoryBackend):
    """It compares versions digit by digit."""

    async def update(self, kind: CacheType, key: bytes, value: bytes, expires_at: float, version: int) -> bool:
        entry = await self.get(kind, key)
        if entry is None or str(entry.version) >= str(version):
            return False
        await self.set_many(kind, {key: Entry(value, expires_at, version)})
        return True


class ForgetsVersions(MemoryBackend):
    async def get(self, kind: CacheType, key: bytes) -> Entry | None:
        entry = await super().get(kind, key)
        return entry and entry._replace(version=0)


class WorksWhenClosed(MemoryBackend):
    async def close(self) -> None:
        pass


BROKEN = [broken for broken in MemoryBackend.__subclasses__() if broken.__module__ == __name__]


class TestBroken(BackendContract):
    @pytest.fixture
    def clock(self) -> ManualClock:
        return ManualClock(now=1_800_000_000.25)

    @pytest.fixture(params=BROKEN, ids=lambda broken: broken.__name__)
    def backend(self, request: pytest.FixtureRequest, clock: ManualClock) -> Backend:
        backend: Backend = request.param(clock)
        return backend

"""How a batch of writes is handed to a tier, and what its failures mean."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine, Mapping, Sequence
from typing import Any

from oidc_middleware.cache.backend import Backend, Entry
from oidc_middleware.cache.hybrid.rooms import Room, Rooms
from oidc_middleware.cache.writer import Write
from oidc_middleware.errors import BackendUnavailable

_LOGGER = logging.getLogger("oidc_middleware.cache")

Results = list[bool | BackendUnavailable]


def failure_of(error: Exception) -> BackendUnavailable:
    """Return what an error of a tier means; one that no tier should raise is logged, and nobody is broken by it."""
    if isinstance(error, BackendUnavailable):
        return error
    if isinstance(error, TimeoutError):
        return BackendUnavailable("no answer in time", "timeout")
    if isinstance(error, OSError):
        return BackendUnavailable(f"{type(error).__name__}: {error}", "link")
    _LOGGER.error("a cache tier failed unexpectedly", exc_info=error)
    return BackendUnavailable(f"{type(error).__name__}: {error}", "refused")


async def deliver(backend: Backend, rooms: Rooms, writes: Sequence[Write], budget: float) -> Results:
    """Hand over writes of distinct keys, and wait for all of them, `budget` seconds at most.

    Returns for each, in order, whether there was something before (where it asks), or why it failed.
    """
    delivery = _Delivery(backend, rooms, writes, budget)
    works = delivery.works()
    try:
        async with asyncio.timeout(budget):
            if len(works) == 1:
                await works[0]
            else:
                await asyncio.gather(*works)
    except TimeoutError:
        pass  # that is the result of whatever has no other
    return delivery.results


class _Delivery:
    """One batch on its way. Sets of one type travel together, every delete for itself; each fails alone."""

    def __init__(self, backend: Backend, rooms: Rooms, writes: Sequence[Write], budget: float) -> None:
        late = BackendUnavailable(f"no answer within {budget:g} s", "timeout")
        self.results: Results = [late] * len(writes)
        self._backend = backend
        self._rooms = rooms
        self._writes = writes

    def works(self) -> list[Coroutine[Any, Any, None]]:
        """Return what is to be done, in any order."""
        sets: dict[bytes, list[int]] = {}
        works = []
        for number, write in enumerate(self._writes):
            if write.value is not None and not write.asks:
                sets.setdefault(self._rooms.split(write.key)[0].prefix, []).append(number)
            else:
                works.append(self._try([number], self._delete if write.value is None else self._replace))
        works += [self._try(numbers, self._set) for numbers in sets.values()]
        return works

    async def _try(self, numbers: Sequence[int], work: Callable[[Sequence[int]], Coroutine[Any, Any, bool]]) -> None:
        result: bool | BackendUnavailable
        try:
            result = await work(numbers)
        except Exception as error:  # noqa: BLE001  whatever a tier raises belongs to who wrote
            result = failure_of(error)
        for number in numbers:
            self.results[number] = result

    async def _set(self, numbers: Sequence[int]) -> bool:
        entries: dict[bytes, Entry] = {}
        room, _ = self._rooms.split(self._writes[numbers[0]].key)
        for number in numbers:
            write = self._writes[number]
            entries[self._rooms.split(write.key)[1]] = _entry_of(write)
        await self._put(room, entries)
        return True

    async def _delete(self, numbers: Sequence[int]) -> bool:
        room, key = self._rooms.split(self._writes[numbers[0]].key)
        return await self._backend.delete(room.kind, key)

    async def _replace(self, numbers: Sequence[int]) -> bool:
        """Make a set that absorbed a delete, whose caller still wants to know whether there was something."""
        write = self._writes[numbers[0]]
        room, key = self._rooms.split(write.key)
        was_there = await self._backend.exists(room.kind, key)
        await self._put(room, {key: _entry_of(write)})
        return was_there

    async def _put(self, room: Room, entries: Mapping[bytes, Entry]) -> None:
        (key, entry), *others = entries.items()
        if others or entry.version:
            await self._backend.set_many(room.kind, entries, wait=True)
        else:
            await self._backend.set(room.kind, key, entry.value, entry.expires_at, wait=True)


def _entry_of(write: Write) -> Entry:
    return Entry(write.value or b"", write.expires_at, write.version)

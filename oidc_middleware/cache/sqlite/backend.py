"""The backend: reads at once in the caller's thread, writes by one thread of its own."""

from __future__ import annotations

import asyncio
import math
import os
import sqlite3
from collections.abc import AsyncGenerator, Callable, Iterable, Mapping, Sequence
from functools import partial
from itertools import islice
from sqlite3 import Connection
from typing import TypeGuard, TypeVar

from oidc_middleware.cache.backend import VERSIONS, Counts, Entry, Health, checked_entry
from oidc_middleware.cache.changes import Change
from oidc_middleware.cache.sqlite.faults import describe, kind_of
from oidc_middleware.cache.sqlite.tables import Tables, Transaction, is_alive, layout
from oidc_middleware.cache.sqlite.watch import Watch
from oidc_middleware.cache.sqlite.worker import NotOpenError, Worker
from oidc_middleware.cache.types import TYPES, CacheType
from oidc_middleware.clock import Clock
from oidc_middleware.errors import BackendUnavailable

T = TypeVar("T")

_LARGEST = 8 * 1024 * 1024
_READ_TOGETHER = 64
_WRITTEN_TOGETHER = 512
_DRAIN = 5.0
# Between two tries of a read that found the file locked, in seconds.
_PAUSE = 0.002
_NOTHING = Entry(b"", -math.inf)


class SqliteBackend:
    """A `Backend` that the processes of one host share: a file, opened when it is first needed, and no server.

    A read takes microseconds and happens in the caller's thread. A write is committed before its caller goes on,
    whatever `wait` says: writes that wait at the same time are one transaction, and nobody waits longer than `budget`
    seconds. A write that was not acknowledged in time, or whose caller was cancelled, may still be made.

    Values lie in the file as they come: whoever may read the file may read them.

    Where the file cannot be used, every call raises `BackendUnavailable` and tries again. A damaged file is set aside
    and a new one begun, and so is one of another version. A file that was removed or replaced is noticed. Beyond
    `max_bytes` those entries go first that end first. It may be used by one event loop after another, and survives
    forks.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        clock: Clock,
        types: Iterable[CacheType] = tuple(TYPES.values()),
        budget: float = 0.25,
        max_bytes: int = 1 << 30,
    ) -> None:
        kinds = tuple(types)
        self.path: str = os.path.abspath(path)  # noqa: PTH100 (a process may change its directory later)
        self._clock = clock
        self._budget = budget
        self._watches: list[Watch] = []
        self._tables = tables = Tables(kinds, max_bytes)
        self._worker: Worker[Transaction] = Worker(
            self.path,
            layout(tables.statements),
            clock,
            lambda file: Transaction(file, tables, clock.now()),
            budget,
        )

    async def get(self, kind: CacheType, key: bytes) -> Entry | None:
        """Return the entry, None when there is none.

        Raises:
            BackendUnavailable: the file cannot be read.
        """
        select = self._tables.statements[kind.name].select
        row = await self._ask(lambda db: db.execute(select, (key,)).fetchone())
        return self._entry(kind, row)

    async def set(self, kind: CacheType, key: bytes, value: bytes, expires_at: float, wait: bool | None = None) -> None:  # noqa: ARG002, FBT001 (every write is acknowledged)
        """Store a copy of `value` until `expires_at` (Unix time in seconds); an end in the past deletes the key.

        Raises:
            ValueError: `expires_at` is not a finite number.
            TypeError: `value` is not bytes-like.
            BackendUnavailable: it was not stored, or nobody knows; also after `close`.
        """
        await self._store(kind, [(key, checked_entry(value, expires_at))])

    async def add(self, kind: CacheType, key: bytes, value: bytes, expires_at: float, version: int = 0) -> bool:
        """Store as `set` does unless there is an entry; tell whether it was stored.

        Raises:
            ValueError: `expires_at` is not a finite number, or there is no such `version`.
            TypeError: `value` is not bytes-like, or `version` no integer.
            BackendUnavailable: nobody knows whether it was stored; after `close`.
        """
        return await self._store_if(Transaction.add, kind, key, checked_entry(value, expires_at, version))

    async def update(self, kind: CacheType, key: bytes, value: bytes, expires_at: float, version: int) -> bool:
        """Replace an entry of a lower version; tell whether that was done.

        Raises:
            ValueError: `expires_at` is not a finite number, or there is no such `version`.
            TypeError: `value` is not bytes-like, or `version` no integer.
            BackendUnavailable: nobody knows whether it was done; after `close`.
        """
        return await self._store_if(Transaction.update, kind, key, checked_entry(value, expires_at, version))

    async def _store_if(
        self, way: Callable[[Transaction, CacheType, bytes, Entry], bool], kind: CacheType, key: bytes, entry: Entry
    ) -> bool:
        size = len(key) + len(entry.value)
        if size > _LARGEST:
            self._tables.tallies[kind.name].refused += 1
            return False
        return await self._worker.do(lambda transaction: way(transaction, kind, key, entry), size)

    async def delete(self, kind: CacheType, key: bytes) -> bool:
        """Delete the entry; tell whether there was one.

        Raises:
            BackendUnavailable: it was not deleted, or nobody knows.
        """
        return await self._worker.do(lambda transaction: transaction.delete(kind, key), len(key))

    async def exists(self, kind: CacheType, key: bytes) -> bool:
        """Tell whether there is an entry.

        Raises:
            BackendUnavailable: the file cannot be read.
        """
        find = self._tables.statements[kind.name].find
        row = await self._ask(lambda db: db.execute(find, (key,)).fetchone())
        return row is not None and is_alive(row[1], self._clock.now())

    async def clear(self, kind: CacheType) -> None:
        """Delete every entry of the type, for all processes; many go some at a time, so that others can write.

        Raises:
            BackendUnavailable: not all were deleted, or nobody knows.
        """
        now = asyncio.get_running_loop().time
        start = now()
        while not await self._worker.do(lambda transaction: transaction.clear(kind)):
            await asyncio.sleep(now() - start)  # as much time for others; who waits for a lock looks now and then only
            start = now()

    async def get_many(self, kind: CacheType, keys: Iterable[bytes]) -> dict[bytes, Entry]:
        """Return the entries that there are, by key; between some and some others the loop gets its turn.

        Raises:
            BackendUnavailable: the file cannot be read.
        """
        select = self._tables.statements[kind.name].select
        found: dict[bytes, Entry] = {}
        left = iter(dict.fromkeys(keys))
        while some := list(islice(left, _READ_TOGETHER)):
            rows = await self._ask(partial(_read_all, select, some))
            entries = ((key, self._entry(kind, row)) for key, row in zip(some, rows, strict=True))
            found |= {key: entry for key, entry in entries if entry is not None}
            await asyncio.sleep(0)
        return found

    async def set_many(self, kind: CacheType, entries: Mapping[bytes, Entry], wait: bool | None = None) -> None:  # noqa: ARG002, FBT001
        """Do what `set` does, for many, each with its version; when one of them is wrong, none is stored.

        Raises:
            BackendUnavailable: not all were stored, or nobody knows.
        """
        left = iter([(key, checked_entry(*entry)) for key, entry in entries.items()])
        while some := list(islice(left, _WRITTEN_TOGETHER)):
            await self._store(kind, some)

    async def ping(self) -> Health:
        """Tell whether the file can be written."""
        try:
            await self._worker.do(Transaction.touch)
        except BackendUnavailable as error:
            return Health(healthy=False, detail=error.detail)
        return Health(healthy=True)

    def stats(self) -> dict[str, Counts]:
        """Return the counts by type name: what happened through this backend, and what all processes hold now."""
        try:
            totals = self._worker.read(lambda db: db.execute("SELECT kind, entries, bytes FROM totals").fetchall())
        except (NotOpenError, BackendUnavailable, sqlite3.Error):
            totals = []  # nobody knows
        held = {kind: (entries, size) for kind, entries, size in totals}
        return {
            kind: Counts(
                hits=tally.hits,
                misses=tally.misses,
                sets=tally.sets,
                evicted=tally.evicted,
                expired=tally.expired,
                refused=tally.refused,
                entries=held.get(kind, (0, 0))[0],
                bytes=held.get(kind, (0, 0))[1],
            )
            for kind, tally in self._tables.tallies.items()
        }

    async def changes(self, every: float = 0.02) -> AsyncGenerator[Change]:
        """Yield what others change: other processes and other backends, not this one. Ends with `close`.

        The file is looked at `every` so many seconds. The first change says that everything may have changed, and so
        does every one after which some may have been missed: those of the time when the file could not be read, too.
        """
        watch = Watch(self._worker)
        self._watches.append(watch)
        try:
            while not self._worker.is_closed:
                try:
                    begun = self._clock.monotonic()
                    for change in watch.look():
                        yield change
                    if watch.is_current:
                        watch.current_at = begun
                    await asyncio.sleep(every)
                except NotOpenError:
                    await self._open_or_pause()
        finally:
            self._watches.remove(watch)

    def staleness(self) -> float | None:
        """Return how many seconds ago all changes had been yielded for certain; None: never yet, or nobody follows."""
        known = [watch.current_at for watch in self._watches if watch.current_at is not None]
        if not known or len(known) < len(self._watches):
            return None
        return self._clock.monotonic() - min(known)

    async def suspend(self) -> None:
        """Make the writes that wait, for 5 seconds at most, and close the file until somebody needs it."""
        await self._worker.suspend(_DRAIN)

    async def close(self) -> None:
        """Make the writes that wait, for 5 seconds at most, and close the file; a second time does nothing."""
        await self._worker.close(_DRAIN)

    async def _store(self, kind: CacheType, entries: Sequence[tuple[bytes, Entry]]) -> None:
        refused = [len(key) + len(entry.value) > _LARGEST for key, entry in entries]

        def write(transaction: Transaction) -> None:
            for (key, entry), no in zip(entries, refused, strict=True):
                # What the key had before is outdated and goes.
                transaction.set(kind, key, _NOTHING if no else entry)

        await self._worker.do(write, sum(len(key) + len(entry.value) for key, entry in entries))
        self._tables.tallies[kind.name].refused += sum(refused)

    def _entry(self, kind: CacheType, row: tuple[object, object, object] | None) -> Entry | None:
        """Return a row as an entry, None when its end has come or nobody can have meant it; count it."""
        tally = self._tables.tallies[kind.name]
        if row is not None:
            value, ends, version = row
            if isinstance(value, bytes) and isinstance(ends, float) and ends < math.inf and _is_version(version):
                if self._clock.now() < ends:
                    tally.hits += 1
                    return Entry(value, ends, version)
            else:
                tally.refused += 1
        tally.misses += 1
        return None

    async def _ask(self, ask: Callable[[Connection], T]) -> T:
        """Read, as soon as the file is open and free; a commit of others never stands in the way, a recovery may."""
        try:
            return self._worker.read(ask)
        except (NotOpenError, sqlite3.Error) as error:
            return await self._ask_again(ask, error)

    async def _ask_again(self, ask: Callable[[Connection], T], error: Exception) -> T:
        now = asyncio.get_running_loop().time
        end = now() + self._budget
        while True:
            if isinstance(error, NotOpenError):
                await self._worker.do(None, budget=end - now())
            else:
                await asyncio.sleep(_PAUSE)
            try:
                return self._worker.read(ask)
            except (NotOpenError, sqlite3.Error) as again:
                if now() >= end:
                    raise BackendUnavailable(f"{self.path}: {describe(again)}", kind_of(again)) from again
                error = again

    async def _open_or_pause(self) -> None:
        try:
            await self._worker.do(None)
        except BackendUnavailable:
            await asyncio.sleep(self._budget)


def _is_version(found: object) -> TypeGuard[int]:
    return isinstance(found, int) and 0 <= found < VERSIONS


def _read_all(select: str, keys: list[bytes], db: Connection) -> list[tuple[bytes, float, int] | None]:
    return [db.execute(select, (key,)).fetchone() for key in keys]

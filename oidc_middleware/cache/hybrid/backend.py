"""The hybrid backend: memory first, a shared tier beneath it, and neither ever fails the other."""

from __future__ import annotations

import asyncio
import logging
from asyncio import Future, Task, get_running_loop
from collections.abc import Callable, Coroutine, Iterable, Mapping
from contextvars import Context
from random import random as chance
from typing import Any

from oidc_middleware.cache.backend import Backend, Counts, Entry, Health, checked_entry, suspend
from oidc_middleware.cache.breaker import Thresholds
from oidc_middleware.cache.hybrid.coherence import Coherence
from oidc_middleware.cache.hybrid.delivery import failure_of
from oidc_middleware.cache.hybrid.follower import Follower
from oidc_middleware.cache.hybrid.overview import Overview, both_tiers, overview_of
from oidc_middleware.cache.hybrid.placeholders import Placeholders
from oidc_middleware.cache.hybrid.rooms import Room, Rooms
from oidc_middleware.cache.hybrid.session import Session
from oidc_middleware.cache.hybrid.standing import Standing
from oidc_middleware.cache.hybrid.tiers import Tiers
from oidc_middleware.cache.hybrid.unsettled import Unsettled
from oidc_middleware.cache.hybrid.writes import OnWritten, Writes
from oidc_middleware.cache.memory import MemoryBackend
from oidc_middleware.cache.types import CacheType
from oidc_middleware.cache.waiters import closed
from oidc_middleware.cache.writer import Write
from oidc_middleware.clock import Clock
from oidc_middleware.errors import BackendUnavailable

_MIB = 1024 * 1024
_DRAIN = 5.0
_LOGGER = logging.getLogger("oidc_middleware.cache")


class HybridBackend:
    """A `TieredBackend`: memory over a tier that several nodes share, which may hang, fail, lose data and come back.

    - A read asks memory, then the shared tier, and fills memory unless the key changed here meanwhile. Memory keeps an
      entry no longer than its type's row says.
    - What other nodes change leaves memory as soon as the shared tier tells of it, if it does (`ChangingBackend`).
    - A write goes to memory first, and to the shared tier through one ordered queue. Writes of the types `synchronous`
      wait for their acknowledgement, `budget` seconds at most, and raise `BackendUnavailable` without it; what memory
      has stays. All other writes return at once.
    - What is too large for memory, by its type's row, is stored nowhere, and what its key had before is deleted.
    - While the shared tier fails, it is left alone, reads and writes each for themselves, and tried in the background.
      A read that memory cannot answer is then a miss. Of the types `irreplaceable` it raises: their entries have no
      other source, and "not there" would be believed.
    - What the shared tier missed is not written later over what others wrote since: those keys are deleted, there and
      in memory, when it is back. Of the types `irreplaceable`, what was added (and every entry of a replicated type) is
      kept and added then, and what was updated is kept and updated, if its version is still the higher one; what was
      changed without a version stays as it was there.

    `on_fallback` is told when memory has to do alone, and when it no longer has. `on_written` is told, batch by batch,
    what this node changed in the shared tier. `random` returns numbers from 0 to 1. One event loop at a time uses it;
    when that one is closed, the next one may.
    """

    def __init__(
        self,
        primary: MemoryBackend,
        secondary: Backend,
        *,
        clock: Clock,
        synchronous: frozenset[str] = frozenset({"blacklist", "token"}),
        irreplaceable: frozenset[str] = frozenset({"blacklist", "session"}),
        queue_size: int = 1000,
        queue_bytes: int = 16 * _MIB,
        budget: float = 0.25,
        thresholds: Thresholds | None = None,
        logger: logging.Logger = _LOGGER,
        random: Callable[[], float] = chance,
        on_fallback: Callable[[bool], None] | None = None,
        on_written: OnWritten | None = None,
    ) -> None:
        self._memory = primary
        self._synchronous = synchronous
        self._queue_size = queue_size
        self._queue_bytes = queue_bytes
        self._clock = clock
        self._logger = logger
        self._random = random
        self._on_written = on_written
        self._standing = Standing(clock, random, thresholds, logger, on_fallback)
        self._tiers = Tiers(
            memory=primary,
            shared=secondary,
            rooms=Rooms(primary),
            placeholders=Placeholders(),
            unsettled=Unsettled(),
            standing=self._standing,
            irreplaceable=irreplaceable,
            now=clock.now,
            budget=budget,
        )
        self._coherence = Coherence(self._tiers)
        self._session: Session | None = None
        self._closing: Task[None] | None = None
        self._closed = False

    @property
    def memory(self) -> MemoryBackend:
        """The tier that can be read without waiting."""
        return self._memory

    @property
    def shared(self) -> Backend:
        """The tier beneath memory."""
        return self._tiers.shared

    @property
    def fallback(self) -> bool:
        """Whether memory does alone for now, for reads, writes or both."""
        return self._standing.fallback

    def start(self) -> None:
        """Begin to look after the shared tier on the running event loop, before anybody asks for anything.

        Raises:
            RuntimeError: the backend is in use by another event loop that runs at this moment.
            BackendUnavailable: after `close`.
        """
        self._open()

    # ------------------------------------------------------------------------------------------------------------ reads

    async def get(self, kind: CacheType, key: bytes) -> Entry | None:
        """Return the entry, None when there is none, or when the shared tier cannot be asked.

        Raises:
            BackendUnavailable: the shared tier cannot be asked, and the type is irreplaceable; after `close`.
        """
        room = self._tiers.rooms.of(kind)
        if self._memory.holds(kind, key):
            return self._memory.find(kind, key)
        return self._counted(room, await self._read(room, key))

    async def exists(self, kind: CacheType, key: bytes) -> bool:
        """Tell whether a tier has an entry.

        Raises:
            BackendUnavailable: as `get` does.
        """
        return self._memory.holds(kind, key) or await self._read(self._tiers.rooms.of(kind), key) is not None

    async def get_many(self, kind: CacheType, keys: Iterable[bytes]) -> dict[bytes, Entry]:
        """Return the entries that there are, by key.

        Raises:
            BackendUnavailable: as `get` does.
        """
        room = self._tiers.rooms.of(kind)
        wanted = list(dict.fromkeys(keys))
        near = [key for key in wanted if self._memory.holds(kind, key)]
        entries = await self._memory.get_many(kind, near)
        far = [key for key in wanted if key not in entries]
        if not far:
            return entries
        found, failure = await self._open().reads.read_many([room.prefix + key for key in far])
        if failure is not None and kind.name in self._tiers.irreplaceable:
            raise failure
        for key in far:
            entry = self._counted(room, found.get(room.prefix + key))
            if entry is not None:
                entries[key] = entry
        return {key: entry for key, entry in entries.items() if self._tiers.now() < entry.expires_at}

    async def get_shared(self, kind: CacheType, key: bytes) -> Entry | None:
        """Return the entry of the shared tier, whatever memory has; None as well when it cannot be asked.

        Raises:
            BackendUnavailable: as `get` does.
        """
        return await self._read(self._tiers.rooms.of(kind), key)

    async def _read(self, room: Room, key: bytes) -> Entry | None:
        reads, full = self._open().reads, room.prefix + key
        known = reads.known(full)
        if known is not None:
            return known.entry
        try:
            answer = await reads.ask(full)
            return answer if isinstance(answer, Entry) else None
        except BackendUnavailable as error:
            self._standing.suspect(error)
            if self._closed or room.kind.name in self._tiers.irreplaceable:
                raise
            return None

    def _counted(self, room: Room, entry: Entry | None) -> Entry | None:
        room.hits += entry is not None
        room.misses += entry is None
        return entry

    # ----------------------------------------------------------------------------------------------------------- writes

    async def set(self, kind: CacheType, key: bytes, value: bytes, expires_at: float, wait: bool | None = None) -> None:  # noqa: FBT001
        """Store a copy of `value` until `expires_at` (Unix time in seconds); an end in the past deletes the key.

        `wait` tells whether to return only after the shared tier has it; None: for the types `synchronous`.

        Raises:
            ValueError: `expires_at` is not a finite number.
            TypeError: `value` is not bytes-like.
            BackendUnavailable: the shared tier is waited for and did not acknowledge it; memory has it. After `close`.
        """
        await self._store(kind, {key: checked_entry(value, expires_at)}, wait)

    async def set_many(self, kind: CacheType, entries: Mapping[bytes, Entry], wait: bool | None = None) -> None:  # noqa: FBT001
        """Do what `set` does, for many, each with its version; when one of them is wrong, none is stored."""
        await self._store(kind, {key: checked_entry(*entry) for key, entry in entries.items()}, wait)

    async def _store(self, kind: CacheType, entries: Mapping[bytes, Entry], wait: bool | None) -> None:  # noqa: FBT001
        session, must_wait = self._open(), self._must_wait(kind, wait)
        try:
            await session.writes.store(self._tiers.rooms.of(kind), entries, wait=must_wait)
        except BackendUnavailable:
            if must_wait:
                raise

    async def add(self, kind: CacheType, key: bytes, value: bytes, expires_at: float, version: int = 0) -> bool:
        """Store as `set` does unless a tier has an entry, and wait for it; tell whether it was stored.

        Raises:
            ValueError: `expires_at` is not a finite number, or there is no such `version`.
            TypeError: `value` is not bytes-like, or `version` no integer.
            BackendUnavailable: the shared tier did not say whether it stored it. Of the types `irreplaceable`, this
                node has it all the same and adds it later, unless it owes the tier a deletion of it. After `close`.
        """
        entry = checked_entry(value, expires_at, version)
        session, room = self._open(), self._tiers.rooms.of(kind)
        return self._tiers.keeps(kind, entry) and await session.apart(session.conditional.add(room, key, entry))

    async def update(self, kind: CacheType, key: bytes, value: bytes, expires_at: float, version: int) -> bool:
        """Replace an entry of a lower version in both tiers, and wait for it; tell whether that was done.

        Raises:
            ValueError: `expires_at` is not a finite number, or there is no such `version`.
            TypeError: `value` is not bytes-like, or `version` no integer.
            BackendUnavailable: the shared tier did not say whether it did it. Of the types `irreplaceable`, this node
                goes by the new entry all the same and sends it again when the tier is back. After `close`.
        """
        entry = checked_entry(value, expires_at, version)
        session, room = self._open(), self._tiers.rooms.of(kind)
        return self._tiers.keeps(kind, entry) and await session.apart(session.conditional.update(room, key, entry))

    async def delete(self, kind: CacheType, key: bytes, wait: bool | None = None) -> bool:  # noqa: FBT001
        """Delete the entry in both tiers; tell whether there was one.

        `wait` tells whether to raise when the shared tier did not acknowledge it; None: for the types `synchronous`. Of
        other types the answer is then that of memory. The shared tier makes up for it when it is back.

        Raises:
            BackendUnavailable: the shared tier did not acknowledge it; memory did. After `close`.
        """
        session, room = self._open(), self._tiers.rooms.of(kind)
        self._tiers.placeholders.drop(room.prefix + key)
        was_here = await self._memory.delete(kind, key)
        try:
            was_there = await session.writes.write([Write(room.prefix + key, None, asks=True)], wait=wait is not False)
        except BackendUnavailable:
            if self._must_wait(kind, wait):
                raise
            return was_here
        return was_here or was_there

    async def clear(self, kind: CacheType) -> None:
        """Delete every entry of the type in both tiers; one that is set meanwhile may go too.

        Raises:
            BackendUnavailable: the shared tier did not delete all; memory did, and unless the type is replicated, what
                the shared tier still has of it is not read until it is gone.
        """
        session = self._open()
        await session.apart(session.caretaker.clear_all(self._tiers.rooms.of(kind)))

    def _must_wait(self, kind: CacheType, wait: bool | None) -> bool:  # noqa: FBT001
        return kind.name in self._synchronous if wait is None else wait

    # ----------------------------------------------------------------------------------------------------- invalidation

    def invalidate(self, kind: CacheType, key: bytes) -> None:
        """Forget what memory has of a key, and do not keep what is being read of it: somebody else changed it."""
        self._coherence.invalidate(kind, key)

    def invalidate_all(self, kind: CacheType) -> None:
        """Forget what memory has of a type, unless it is replicated: what others changed is not known in full."""
        self._coherence.invalidate_all(kind)

    def next_change(self, kind: CacheType, key: bytes) -> Future[None]:
        """Return a future that is done at the next invalidation of the key or its type.

        News may be late or absent, so whoever waits also looks now and then, and cancels the future when he goes.
        """
        return self._coherence.next_change(kind, key)

    # ------------------------------------------------------------------------------------------------------------- care

    async def ping(self) -> Health:
        """Tell whether memory answers, which it does until `close`, and in the detail how the shared tier fares."""
        if self._closed:
            return Health(healthy=False, detail="closed")
        try:
            async with asyncio.timeout(self._tiers.budget):
                health = await self._tiers.shared.ping()
        except Exception as error:  # noqa: BLE001
            health = Health(healthy=False, detail=failure_of(error).detail)
        if health.healthy and not self.fallback:
            return Health(healthy=True, detail=f"shared cache: {health.detail or 'well'}")
        return Health(healthy=True, detail=f"shared cache: {health.detail or self._standing.last_error}")

    async def check(self) -> bool:
        """Look after the shared tier now, as is done in the background; tell whether it answers and missed nothing."""
        session = self._open()
        return await session.apart(session.caretaker.check())

    def stats(self) -> dict[str, Counts]:
        """Return the counts by type name: hits of both tiers, misses of both, and what memory holds."""
        return both_tiers(self._tiers)

    def overview(self) -> Overview:
        """Return what happened in both tiers; never waits."""
        session = self._session
        if session is None:
            return overview_of(self._tiers)
        return overview_of(self._tiers, session.writes.writer, session.follower)

    async def suspend(self) -> None:
        """Write what waits, within 5 seconds, and let go of tasks and connections; memory stays.

        The next call, or `start`, takes them up again.
        """
        session = self._session
        if self._closed or session is None or session.loop is not get_running_loop():
            return
        end = session.loop.time() + _DRAIN
        await session.drain(_DRAIN)
        self._session = None
        await session.aclose(max(0.0, end - session.loop.time()))
        if self._session is None:
            await self._let_go(end, suspend(self._tiers.shared))

    async def close(self) -> None:
        """Write what waits and close both tiers, within 5 seconds in all; a second time waits for the first.

        What is shared stays where it is.
        """
        if self._closing is None or self._closing.get_loop() is not get_running_loop():
            if self._closed:
                return
            self._closed = True
            self._closing = get_running_loop().create_task(self._close(), context=Context())
        await asyncio.shield(self._closing)

    async def _close(self) -> None:
        now = get_running_loop().time
        end = now() + _DRAIN
        session = self._session
        if session is not None and session.loop is get_running_loop():
            await session.aclose(end - now())
        elif session is not None:
            self._leave(session)
        await self._let_go(end, self._tiers.shared.close())
        await self._memory.close()

    async def _let_go(self, end: float, work: Coroutine[Any, Any, None]) -> None:
        """Release or close the shared tier, until `end` at the latest; it fails nobody."""
        try:
            async with asyncio.timeout_at(end):
                await work
        except Exception as error:  # noqa: BLE001
            self._logger.warning("The shared cache did not close properly: %s", failure_of(error).detail)

    def _open(self) -> Session:
        """Return the session of the running loop.

        Raises:
            RuntimeError: the backend is in use by another event loop that runs at this moment.
            BackendUnavailable: after `close`.
        """
        if self._closed:
            raise closed()
        session, loop = self._session, get_running_loop()
        if session is not None and session.loop is loop:
            return session
        if session is not None:
            self._leave(session)
        writes = Writes(self._tiers, self._queue_size, self._queue_bytes, self._on_written)
        follower = Follower(self._tiers, self._coherence, self._random)
        self._session = session = Session(self._tiers, writes, follower, self._clock, self._random)
        return session

    def _leave(self, session: Session) -> None:
        if session.loop.is_running():
            raise RuntimeError("two event loops use one instance at the same time")
        self._session = None
        self._standing.silence()
        session.abandon()

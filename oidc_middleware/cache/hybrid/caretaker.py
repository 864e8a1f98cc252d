"""Who looks after the shared tier: asks how it is, tries it again when it is away, and makes up for what it missed."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from asyncio import Event
from collections.abc import Callable, Coroutine
from typing import Any

from oidc_middleware.cache.backend import Entry
from oidc_middleware.cache.breaker import Breaker
from oidc_middleware.cache.changes import Change
from oidc_middleware.cache.hybrid.delivery import failure_of
from oidc_middleware.cache.hybrid.rooms import Room
from oidc_middleware.cache.hybrid.tiers import Tiers
from oidc_middleware.cache.hybrid.writes import Writes
from oidc_middleware.cache.writer import Write
from oidc_middleware.clock import Clock
from oidc_middleware.errors import BackendUnavailable

_LOGGER = logging.getLogger("oidc_middleware.cache")
_PROBE = b"probe"
# Never written: what still waits to be written is read from the queue, and would be no answer of the tier.
_ABSENT = b"absent"
_PROBE_LIFE = 1.0
_TOGETHER = 256
# Seconds between two looks: while all is well, and at most and at least while it is not. Jitter is added to the first.
_WELL = 30.0
_AT_MOST = 1.0
_AT_LEAST = 0.02


class Caretaker:
    """Tries what nobody else does while a breaker is open, so that no request pays for it.

    A breaker closes only when an operation of its own class succeeds: a server that answers PING may refuse to write.
    """

    def __init__(self, tiers: Tiers, writes: Writes, clock: Clock, random: Callable[[], float]) -> None:
        self._tiers = tiers
        self._writes = writes
        self._now = clock.now
        self._monotonic = clock.monotonic
        self._random = random
        self._trouble = Event()
        tiers.standing.ring = self._trouble.set

    async def watch(self) -> None:
        """Look at once, soon after something failed, again and again until all is well, and else every half minute."""
        if not await self._look():
            self._trouble.set()
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_WELL * (0.75 + self._random() / 2)):
                    await self._trouble.wait()
            if self._trouble.is_set():
                await asyncio.sleep(self._pause())
                self._trouble.clear()
            if not await self._look():
                self._trouble.set()

    async def check(self) -> bool:
        """Look after the tier once; tell whether it answers, and has nothing left to be put right."""
        tiers = self._tiers
        standing = tiers.standing
        answers = standing.reads.is_closed and standing.writes.is_closed and await self._is_reachable()
        if not answers:  # or it does, but not to PING: then both probes succeed
            read = await self._probe(standing.reads, self._read)
            answers = await self._probe(standing.writes, self._write) and read
        if standing.writes.is_closed and tiers.unsettled:
            await self.settle()
        return answers and not tiers.unsettled

    async def _look(self) -> bool:
        try:
            return await self.check()
        except Exception:
            _LOGGER.exception("looking after the shared cache failed unexpectedly")
            return False

    async def finish(self) -> None:
        """Put right at the end what can be put right now."""
        if self._tiers.standing.writes.is_closed and self._tiers.unsettled:
            await self.settle()

    def _pause(self) -> float:
        """Return the seconds until the next look: when a breaker is due, or a random part of a second."""
        standing = self._tiers.standing
        due = [breaker.due_at for breaker in (standing.reads, standing.writes) if not breaker.is_closed]
        pause = min(due) - self._monotonic() if due else _AT_MOST * self._random()
        return min(max(pause, _AT_LEAST), _AT_MOST)

    async def _is_reachable(self) -> bool:
        try:
            async with asyncio.timeout(self._tiers.budget):
                health = await self._tiers.shared.ping()
        except Exception as error:  # noqa: BLE001
            self._tiers.standing.remember(failure_of(error))
            return False
        if health.healthy:
            self._tiers.standing.hangs = False
            self._tiers.standing.warn(health.detail)
        else:
            self._tiers.standing.remember(BackendUnavailable(health.detail, "link"))
        return health.healthy

    # ----------------------------------------------------------------------------------------------------------- probes

    async def _probe(self, breaker: Breaker, work: Callable[[Room], Coroutine[Any, Any, object]]) -> bool:
        """Try one operation, also while its breaker is closed: then the outcome counts like any other.

        Returns whether it succeeded.
        """
        room = self._probed_room()
        if room is None or not (breaker.is_closed or breaker.begin_probe(self._monotonic())):
            return False
        failure: BackendUnavailable | None = None
        try:
            async with asyncio.timeout(self._tiers.budget):
                await work(room)
        except asyncio.CancelledError:
            breaker.give_up(self._monotonic())
            raise
        except Exception as error:  # noqa: BLE001
            failure = failure_of(error)
        self._tiers.standing.report(breaker, failure)
        return failure is None

    def _probed_room(self) -> Room | None:
        """Return the room of a type that nobody misses anything in."""
        rooms = self._tiers.rooms.all()
        return max(rooms, key=lambda room: room.kind.evictable, default=None)

    async def _read(self, room: Room) -> None:
        await self._tiers.shared.get(room.kind, _ABSENT)

    async def _write(self, room: Room) -> None:
        await self._tiers.shared.set(room.kind, _PROBE, b"", self._now() + _PROBE_LIFE, wait=True)

    # --------------------------------------------------------------------------------------------------------- recovery

    async def settle(self) -> None:
        """Make up for what the tier missed: clear, delete, add, update; what fails again stays for the next time."""
        tiers = self._tiers
        try:
            for prefix, number in tiers.unsettled.clears():
                room, _ = tiers.rooms.split(prefix)
                tiers.placeholders.drop_all(prefix)
                tiers.memory.expire_all(room.kind)
                await self._clear(room, number)
            while await self._delete_some():
                pass
            for full, entry in tiers.unsettled.entries():
                await self._make_up(full, entry)
        except BackendUnavailable:
            return  # reported where it came from

    async def clear_all(self, room: Room) -> None:
        """Clear a type in both tiers. Until that is done, what the tier still has of it is not read.

        Of a replicated type nobody clears the rest later: what was revoked meanwhile must not go with it.

        Raises:
            BackendUnavailable: the tier did not delete all.
        """
        tiers = self._tiers
        number = None if room.kind.coherence == "replicated" else tiers.unsettled.must_clear(room.prefix)
        tiers.unsettled.discard_kept(room.prefix)
        tiers.placeholders.drop_all(room.prefix)
        await tiers.memory.clear(room.kind)
        for full in self._writes.writer.pending(room.prefix):  # what is written before the rest is cleared ends as well
            with contextlib.suppress(BackendUnavailable):
                await self._writes.write([Write(full, None)], wait=False)
        if not tiers.standing.writes.is_closed:
            raise tiers.standing.refusal(tiers.standing.writes)
        await self._writes.writer.flush()
        await self._clear(room, number)

    async def _clear(self, room: Room, number: int | None) -> None:
        """Clear a type in the tier, as the note with this number asks for."""
        tiers = self._tiers
        failure: BackendUnavailable | None = None
        try:
            await tiers.shared.clear(room.kind)
        except Exception as error:  # noqa: BLE001
            failure = failure_of(error)
        tiers.standing.report(tiers.standing.writes, failure)
        if failure is not None:
            raise failure
        if number is not None:
            tiers.unsettled.discard_clear(room.prefix, number)
        self._writes.tell([Change(room.kind.name)])

    async def _delete_some(self) -> bool:
        """Delete some of the keys in the tier and here; tell whether there were any.

        They travel with all other writes, so that a newer one of the same key takes their place or comes after them.
        """
        tiers = self._tiers
        due = tiers.unsettled.deletes(_TOGETHER)
        keys = [full for full in due if self._writes.writer.peek(full) is None]
        for full in keys:
            room, key = tiers.rooms.split(full)
            tiers.placeholders.drop(full)
            tiers.memory.expire(room.kind, key)
        if keys:
            await self._writes.write([Write(full, None) for full in keys], wait=True)
        return bool(keys)

    async def _make_up(self, full: bytes, entry: Entry) -> None:
        """Add an entry that was kept, or update it, unless it was ended or written meanwhile."""
        tiers = self._tiers
        room, key = tiers.rooms.split(full)
        if self._writes.writer.peek(full) is not None:
            return
        stored = await self._writes.make_up(room, key, entry)
        if tiers.unsettled.kept(full) is not entry:
            return  # what came meanwhile is on its way, or has an account of its own
        tiers.unsettled.discard(full)
        if not stored and room.kind.coherence != "replicated":
            tiers.placeholders.drop(full)
            tiers.memory.expire(room.kind, key)

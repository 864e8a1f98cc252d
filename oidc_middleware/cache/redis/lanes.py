"""Lanes: what goes to one server waits for no other one."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Hashable, Sequence
from dataclasses import dataclass

from oidc_middleware.cache.reader import ReadBatcher
from oidc_middleware.cache.redis.route import Route, Stored
from oidc_middleware.cache.writer import GroupCommitWriter, Write, WriteCounts
from oidc_middleware.errors import BackendUnavailable

Send = Callable[[Sequence[Write]], Awaitable[Sequence[bool | BackendUnavailable]]]
OnLostWrites = Callable[[Sequence[Write], BackendUnavailable], None]


@dataclass(frozen=True, slots=True)
class Limits:
    """How long a caller waits, in seconds, and how much may wait to be written."""

    budget: float
    queue_size: int
    queue_bytes: int


@dataclass(frozen=True, slots=True)
class Lane:
    """What goes to one server: read in batches, written in order."""

    reader: ReadBatcher[Stored]
    writer: GroupCommitWriter

    @property
    def is_idle(self) -> bool:
        """Whether nothing waits here or is under way."""
        return self.reader.is_idle and not len(self.writer)


class Lanes:
    """A lane for each server that a route leads to: one that hangs holds up nobody else's keys.

    Which server has a key may change. A key with a write that is not acknowledged yet keeps its lane until it is, so
    that its writes leave in their order; wherever the keys of a lane are when they leave, the route finds it out.
    """

    def __init__(self, route: Route, send: Send, limits: Limits, on_lost: OnLostWrites) -> None:
        self._route = route
        self._send = send
        self._limits = limits
        self._on_lost = on_lost
        self._lanes: dict[Hashable, Lane] = {}
        self._past_batches = 0
        self._past_writes = WriteCounts()
        self.only: Lane | None = self._new("") if route.is_one_server else None
        """The one lane, where there never is another."""

    def __len__(self) -> int:
        return len(self._lanes)

    def of(self, key: bytes) -> Lane:
        """Return the lane in which everything about a key travels at the moment."""
        if self.only is not None:
            return self.only
        for lane in self._lanes.values():
            if lane.writer.peek(key) is not None:
                return lane
        name = self._route.lane_of(key)
        return self._lanes.get(name) or self._new(name)

    @property
    def writers(self) -> list[GroupCommitWriter]:
        """The writers that there are at the moment."""
        return [lane.writer for lane in self._lanes.values()]

    @property
    def read_batches(self) -> int:
        """How many batches were read."""
        return sum((lane.reader.batches for lane in self._lanes.values()), self._past_batches)

    @property
    def counts(self) -> WriteCounts:
        """What all writers did so far."""
        return sum((writer.counts for writer in self.writers), self._past_writes)

    async def drain(self, patience: float) -> None:
        """Write what waits, for `patience` seconds at most; more may come meanwhile."""
        await asyncio.gather(*(writer.drain(patience) for writer in self.writers))

    async def aclose(self, patience: float) -> None:
        """Write what waits, for `patience` seconds at most, and take no more."""
        lanes = list(self._lanes.values())
        await asyncio.gather(*(lane.writer.aclose(patience) for lane in lanes))
        await asyncio.gather(*(lane.reader.aclose() for lane in lanes))

    def abandon(self) -> None:
        """Take no more although the loop is closed."""
        for writer in self.writers:
            writer.abandon()

    def _new(self, name: Hashable) -> Lane:
        self._leave_old_ones()
        limits = self._limits
        writer = GroupCommitWriter(
            self._send,
            limits.budget,
            max_items=limits.queue_size,
            max_bytes=limits.queue_bytes,
            on_lost=self._on_lost,
        )
        lane = self._lanes[name] = Lane(ReadBatcher(self._route.fetch, limits.budget), writer)
        return lane

    def _leave_old_ones(self) -> None:
        """Forget lanes to where no key is any more, so that there are never more and more."""
        names = self._route.lanes
        for name, lane in list(self._lanes.items()):
            if name not in names and lane.is_idle:
                del self._lanes[name]
                self._past_batches += lane.reader.batches
                self._past_writes += lane.writer.counts

"""What a Redis backend has while one event loop runs: its connections, its reader and its writer."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from oidc_middleware.cache.reader import ReadBatcher
from oidc_middleware.cache.redis.link import Link
from oidc_middleware.cache.redis.wire import (
    HEADER_SIZE,
    command,
    eviction_policy,
    milliseconds_left,
    read_end,
    seal_end,
)
from oidc_middleware.cache.writer import GroupCommitWriter, Write
from oidc_middleware.clock import Clock
from oidc_middleware.errors import BackendUnavailable

_SCAN_COUNT = b"1000"
_EVICTS = "maxmemory-policy is {}, so that it may drop sessions and revocations for want of room: set it to noeviction"


@dataclass(frozen=True, slots=True)
class Limits:
    """How long a caller waits, in seconds, and how much may wait to be written."""

    budget: float
    queue_size: int
    queue_bytes: int


class Session:
    """Connections for three roles: reads, ordered writes, and everything that is no part of a request."""

    def __init__(
        self,
        connect: Callable[[], Any],
        clock: Clock,
        limits: Limits,
        on_lost: Callable[[Sequence[Write], BackendUnavailable], None],
    ) -> None:
        self.loop: asyncio.AbstractEventLoop = asyncio.get_running_loop()
        self._clock = clock
        self.reading: Link = Link(connect, limits.budget)
        self.writing: Link = Link(connect, limits.budget, fenced=True)
        self.working: Link = Link(connect, limits.budget)
        self.links: tuple[Link, ...] = (self.reading, self.writing, self.working)
        self.reader: ReadBatcher[bytes | None] = ReadBatcher(self._fetch, limits.budget)
        self.writer: GroupCommitWriter = GroupCommitWriter(
            self._send,
            limits.budget,
            max_items=limits.queue_size,
            max_bytes=limits.queue_bytes,
            on_lost=on_lost,
        )

    async def ping(self) -> str:
        """Return when the server answers: what is dangerous about it, empty if nothing is, or nobody may look.

        Raises:
            BackendUnavailable: it does not answer.
        """
        reply, memory = await self.working.ask(command(b"PING"), command(b"INFO", b"memory"))
        _checked(reply)
        policy = eviction_policy(memory) if isinstance(memory, bytes) else None
        return "" if policy in {None, "noeviction"} else _EVICTS.format(policy)

    async def add(self, write: Write) -> bool:
        """Store a value where there is none; tell whether that was so.

        It takes the connection of the writes: order holds there, across faults as well.
        """
        words = _command_of(write, self._clock.now(), b"NX")
        if words is None:
            return False
        (reply,) = await self.writing.ask(words)
        return _checked(reply) is not None

    async def unlink(self, pattern: bytes) -> None:
        """Delete every key that matches a pattern of `SCAN`, a bounded number at a time."""
        cursor = b"0"
        while True:
            (found,) = await self.working.ask(command(b"SCAN", cursor, b"MATCH", pattern, b"COUNT", _SCAN_COUNT))
            cursor, keys = _checked(found)
            if keys:
                (gone,) = await self.working.ask(command(b"UNLINK", *keys))
                _checked(gone)
            if int(cursor) == 0:
                return

    async def drain(self, patience: float) -> None:
        """Write what waits, for `patience` seconds at most; more may come meanwhile."""
        await self.writer.drain(patience)

    async def aclose(self, patience: float) -> None:
        """Write what waits, for `patience` seconds at most, and let go of the connections."""
        await self.writer.aclose(patience)
        await self.reader.aclose()
        for link in self.links:
            await link.aclose()

    def abandon(self) -> None:
        """Let go of everything although the loop is closed."""
        self.writer.abandon()
        for link in self.links:
            link.abandon()

    async def _fetch(self, keys: Sequence[bytes]) -> Sequence[bytes | None]:
        (values,) = await self.reading.ask(command(b"MGET", *keys))
        found: Sequence[bytes | None] = _checked(values)
        return found

    async def _send(self, writes: Sequence[Write]) -> Sequence[bool | BackendUnavailable]:
        """Send a batch as one pipeline; every answer is looked at, for one failing command stops no other."""
        now = self._clock.now()
        commands: list[bytes] = []
        for write in writes:
            if write.asks:
                commands.append(command(b"GETRANGE", write.key, b"0", b"%d" % (HEADER_SIZE - 1)))
            commands.append(_command_of(write, now) or command(b"DEL", write.key))
        replies = iter(await self.writing.ask(*commands))
        results: list[bool | BackendUnavailable] = []
        for write in writes:
            before = next(replies) if write.asks else b""
            reply = next(replies)
            results.append(reply if isinstance(reply, BackendUnavailable) else _lives(before, now))
        return results


def _command_of(write: Write, now: float, *words: bytes) -> bytes | None:
    """Return the `SET` of a write that leaves at `now`, None when nothing is to be stored.

    Time spent in the queue never lengthens a life.
    """
    life = milliseconds_left(write.expires_at, now)
    if write.value is None or not life:
        return None
    return command(b"SET", write.key, seal_end(write.value, write.expires_at), b"PX", b"%d" % life, *words)


def _lives(header: Any, now: float) -> bool:
    """Tell whether the beginning of a value is that of an entry whose end has not come."""
    entry = read_end(header) if isinstance(header, bytes) else None
    return entry is not None and now < entry.expires_at


def _checked(reply: Any) -> Any:
    if isinstance(reply, BackendUnavailable):
        raise reply
    return reply

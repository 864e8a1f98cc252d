"""What a Redis backend has while one event loop runs: its connections, its reader and its writer."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from random import random
from typing import Any

from oidc_middleware.cache.changes import Change
from oidc_middleware.cache.reader import ReadBatcher
from oidc_middleware.cache.redis.changes import BLOCK, Follower
from oidc_middleware.cache.redis.link import Link, Reply
from oidc_middleware.cache.redis.notices import Notices, stream_key
from oidc_middleware.cache.redis.wire import (
    HEADER_SIZE,
    UPDATE,
    UPDATE_NAME,
    command,
    eviction_policy,
    milliseconds_left,
    read_end,
    seal_end,
    split_key,
    time_word,
)
from oidc_middleware.cache.writer import GroupCommitWriter, Write
from oidc_middleware.clock import Clock
from oidc_middleware.errors import BackendUnavailable

_SCAN_COUNT = b"1000"
_UNKNOWN_SCRIPT = "NoScriptError"
_EVICTS = "maxmemory-policy is {}, so that it may drop sessions and revocations for want of room: set it to noeviction"
_SOURCE_BYTES = 16
# What a follower's round trip may take besides the time for which the server waits, in seconds.
_FOLLOWER_BUDGET = 1.0


@dataclass(frozen=True, slots=True)
class Limits:
    """How long a caller waits, in seconds, and how much may wait to be written."""

    budget: float
    queue_size: int
    queue_bytes: int


class Session:
    """Connections for three roles: reads, ordered writes, and everything that is no part of a request.

    Each follower of the others' changes has one more.
    """

    def __init__(
        self,
        connect: Callable[[], Any],
        clock: Clock,
        limits: Limits,
        prefix: bytes,
        on_lost: Callable[[Sequence[Write], BackendUnavailable], None],
    ) -> None:
        self.loop: asyncio.AbstractEventLoop = asyncio.get_running_loop()
        self._connect = connect
        self._clock = clock
        self._prefix = prefix
        self._notices = Notices(stream_key(prefix), os.urandom(_SOURCE_BYTES))
        self._followers: list[Follower] = []
        self._is_closed = False
        self.reading: Link = Link(connect, limits.budget)
        self.writing: Link = Link(connect, limits.budget, fenced=True)
        self.working: Link = Link(connect, limits.budget)
        self.reader: ReadBatcher[bytes | None] = ReadBatcher(self._fetch, limits.budget)
        self.writer: GroupCommitWriter = GroupCommitWriter(
            self._send,
            limits.budget,
            max_items=limits.queue_size,
            max_bytes=limits.queue_bytes,
            on_lost=on_lost,
        )

    @property
    def links(self) -> list[Link]:
        """All connections."""
        return [self.reading, self.writing, self.working, *(follower.link for follower in self._followers)]

    async def ping(self) -> str:
        """Return when the server answers: what is dangerous about it, empty if nothing is, or nobody may look.

        What others were not yet told is told then, as far as the server lets us.

        Raises:
            BackendUnavailable: it does not answer.
        """
        reply, memory = await self.working.ask(command(b"PING"), command(b"INFO", b"memory"))
        _checked(reply)
        if self._notices:
            await self._write()
        policy = eviction_policy(memory) if isinstance(memory, bytes) else None
        return "" if policy in {None, "noeviction"} else _EVICTS.format(policy)

    async def changes(self) -> AsyncGenerator[Change]:
        """Yield what others change, until `aclose`; see `ChangingBackend.changes`."""
        if self._is_closed:
            return
        link = Link(self._connect, BLOCK + _FOLLOWER_BUDGET)
        stream, source = self._notices.stream, self._notices.source
        follower = Follower(link, stream, source, self._clock.monotonic, random)
        self._followers.append(follower)
        try:
            async with aclosing(follower.changes()) as changes:
                async for change in changes:
                    yield change
        finally:
            self._followers.remove(follower)
            follower.link.abandon()

    def staleness(self) -> float | None:
        """Return the seconds since all changes had been yielded for certain, to all who follow; None: nobody knows."""
        known = [follower.current_at for follower in self._followers if follower.current_at is not None]
        if not known or len(known) < len(self._followers):
            return None
        return self._clock.monotonic() - min(known)

    async def add(self, write: Write) -> bool:
        """Store a value where there is none; tell whether that was so.

        It takes the connection of the writes: order holds there, across faults as well.
        """
        words = _command_of(write, self._clock.now(), b"NX")
        if words is None:
            return False
        self._notices.note_set(*split_key(self._prefix, write.key))
        (reply,) = await self._write(words)
        return _checked(reply) is not None

    async def update(self, write: Write) -> bool:
        """Replace a value of a lower version; tell whether that was done. It takes the connection of the writes.

        A server that does not know the script yet, or no longer, is given it.
        """
        now = self._clock.now()
        life = milliseconds_left(write.expires_at, now)
        if not life:
            return False
        stored = seal_end(write.value or b"", write.expires_at, write.version)
        rest = b"1", write.key, stored, b"%d" % life, time_word(now)
        self._notices.note(*split_key(self._prefix, write.key))
        (reply,) = await self._write(command(b"EVALSHA", UPDATE_NAME, *rest))
        if isinstance(reply, BackendUnavailable) and reply.detail.startswith(_UNKNOWN_SCRIPT):
            self._notices.note(*split_key(self._prefix, write.key))
            (reply,) = await self._write(command(b"EVAL", UPDATE, *rest))
        return bool(_checked(reply))

    async def clear(self, kind: str, pattern: bytes) -> None:
        """Delete every key of a type, which matches a pattern of `SCAN`, and tell the others.

        Raises:
            BackendUnavailable: not all were deleted, or nobody was told.
        """
        try:
            await self._unlink(pattern)
        finally:
            self._notices.note_all(kind)
        await self._write()

    async def _unlink(self, pattern: bytes) -> None:
        """Delete every key that matches, a bounded number at a time."""
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
        self._is_closed = True
        for follower in list(self._followers):
            await follower.aclose()
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
            setting = _command_of(write, now)
            commands.append(setting or command(b"DEL", write.key))
            note = self._notices.note_set if setting else self._notices.note
            note(*split_key(self._prefix, write.key))
        replies = iter(await self._write(*commands))
        results: list[bool | BackendUnavailable] = []
        for write in writes:
            before = next(replies) if write.asks else b""
            reply = next(replies)
            results.append(reply if isinstance(reply, BackendUnavailable) else _lives(before, now))
        return results

    async def _write(self, *commands: bytes) -> Sequence[Reply]:
        """Send commands over the connection of the writes, then what others are to be told: never before it is so.

        That they are not told makes no write fail.
        """
        notice = self._notices.take()
        if notice is None:
            return await self.writing.ask(*commands) if commands else ()
        try:
            *replies, told = await self.writing.ask(*commands, notice.command)
        except BaseException:
            self._notices.keep(notice)
            raise
        if isinstance(told, BackendUnavailable):
            self._notices.keep(notice, told)
        return replies


def _command_of(write: Write, now: float, *words: bytes) -> bytes | None:
    """Return the `SET` of a write that leaves at `now`, None when nothing is to be stored.

    Time spent in the queue never lengthens a life.
    """
    life = milliseconds_left(write.expires_at, now)
    if write.value is None or not life:
        return None
    return command(
        b"SET", write.key, seal_end(write.value, write.expires_at, write.version), b"PX", b"%d" % life, *words
    )


def _lives(header: Any, now: float) -> bool:
    """Tell whether the beginning of a value is that of an entry whose end has not come."""
    entry = read_end(header) if isinstance(header, bytes) else None
    return entry is not None and now < entry.expires_at


def _checked(reply: Any) -> Any:
    if isinstance(reply, BackendUnavailable):
        raise reply
    return reply

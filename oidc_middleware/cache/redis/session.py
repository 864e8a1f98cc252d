"""What a Redis backend has while one event loop runs: its route, its lanes, and what it tells and hears from others."""

from __future__ import annotations

import asyncio
import os
from collections import Counter
from collections.abc import AsyncGenerator, Awaitable, Iterable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from itertools import chain
from random import random
from typing import Any

from oidc_middleware.cache.changes import Change
from oidc_middleware.cache.reader import ReadBatcher
from oidc_middleware.cache.redis.changes import BLOCK, Follower
from oidc_middleware.cache.redis.health import danger_of, summary
from oidc_middleware.cache.redis.lanes import Lanes, Limits, OnLostWrites
from oidc_middleware.cache.redis.link import Link, Reply
from oidc_middleware.cache.redis.notices import Notices, stream_key
from oidc_middleware.cache.redis.route import Answer, Request, Route, Stored
from oidc_middleware.cache.redis.wire import (
    HEADER_SIZE,
    UPDATE,
    UPDATE_NAME,
    command,
    glob_of,
    milliseconds_left,
    read_end,
    seal_end,
    split_key,
    time_word,
)
from oidc_middleware.cache.writer import GroupCommitWriter, Write, WriteCounts
from oidc_middleware.clock import Clock
from oidc_middleware.errors import BackendUnavailable, FailureKind

_SCAN_COUNT = b"1000"
_UNKNOWN_SCRIPT = "NoScriptError"
_HEADER_END = b"%d" % (HEADER_SIZE - 1)
_SOURCE_BYTES = 16
# What a follower's round trip may take besides the time for which the server waits, in seconds.
_FOLLOWER_BUDGET = 1.0


@dataclass(frozen=True, slots=True)
class Traffic:
    """What travelled so far, and what waits to be written (`queued`, `queued_bytes`).

    `failures` counts round trips and single commands that failed, by kind.
    """

    read_batches: int = 0
    connects: int = 0
    queued: int = 0
    queued_bytes: int = 0
    writes: WriteCounts = field(default_factory=WriteCounts)
    failures: Mapping[FailureKind, int] = field(default_factory=dict)


class Session:
    """A route and the lanes on it. Each follower of the others' changes has a connection of its own besides."""

    def __init__(
        self,
        route: Route,
        clock: Clock,
        limits: Limits,
        prefix: bytes,
        on_lost: OnLostWrites,
    ) -> None:
        self.loop: asyncio.AbstractEventLoop = asyncio.get_running_loop()
        self.route = route
        self.lanes: Lanes = Lanes(route, self._send, limits, on_lost)
        self._clock = clock
        self._prefix = prefix
        self._notices = Notices(stream_key(prefix), os.urandom(_SOURCE_BYTES))
        self._followers: list[Follower] = []
        self._is_closed = False

    @property
    def links(self) -> list[Link]:
        """All connections."""
        return [*self.route.links, *(follower.link for follower in self._followers)]

    # ------------------------------------------------------------------------------------------------- reads and writes

    def queued(self, keys: Iterable[bytes]) -> dict[bytes, Write]:
        """Return the newest writes of keys that are not acknowledged yet."""
        if not any(map(len, self.lanes.writers)):
            return {}
        writes = ((key, self.lanes.of(key).writer.peek(key)) for key in keys)
        return {key: write for key, write in writes if write is not None}

    async def read_many(self, keys: Iterable[bytes]) -> list[Stored]:
        """Return what lies under each key, in order, or why it could not be read."""
        wanted = list(keys)
        parts: dict[ReadBatcher[Stored], list[bytes]] = {}
        for key in wanted:
            parts.setdefault(self.lanes.of(key).reader, []).append(key)
        if len(parts) == 1:
            ((reader, part),) = parts.items()
            return await reader.read_many(part)
        answers = await asyncio.gather(*(reader.read_many(part) for reader, part in parts.items()))
        found = dict(zip(chain.from_iterable(parts.values()), chain.from_iterable(answers), strict=True))
        return [found[key] for key in wanted]

    async def write_many(self, writes: Sequence[Write], *, wait: bool) -> None:
        """Take all writes; with `wait` return when all are done; raise what one of them raises."""
        parts: dict[GroupCommitWriter, list[Write]] = {}
        for write in writes:
            parts.setdefault(self.lanes.of(write.key).writer, []).append(write)
        if len(parts) == 1:
            ((writer, part),) = parts.items()
            await writer.write_many(part, wait=wait)
        else:
            await _all_done(writer.write_many(part, wait=wait) for writer, part in parts.items())

    async def add(self, write: Write) -> bool:
        """Store a value where there is none; tell whether that was so.

        It takes the connection of the writes: order holds there, across faults as well.
        """
        words = _command_of(write, self._clock.now(), b"NX")
        if words is None:
            return False
        self._notices.note_set(*split_key(self._prefix, write.key))
        return _checked(await self._write_one(write.key, words)) is not None

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
        reply = await self._write_one(write.key, command(b"EVALSHA", UPDATE_NAME, *rest))
        if isinstance(reply, BackendUnavailable) and reply.detail.startswith(_UNKNOWN_SCRIPT):
            self._notices.note(*split_key(self._prefix, write.key))
            reply = await self._write_one(write.key, command(b"EVAL", UPDATE, *rest))
        return bool(_checked(reply))

    async def _send(self, writes: Sequence[Write]) -> Sequence[bool | BackendUnavailable]:
        """Send a batch; every answer is looked at, for one failing command or server stops no other."""
        now = self._clock.now()
        requests: list[Request] = []
        for write in writes:
            setting = _command_of(write, now)
            words = setting or command(b"DEL", write.key)
            header = (command(b"GETRANGE", write.key, b"0", _HEADER_END),) if write.asks else ()
            requests.append(Request(write.key, (*header, words)))
            note = self._notices.note_set if setting else self._notices.note
            note(*split_key(self._prefix, write.key))
        answers = await self._write(requests)
        return [_result(write, answer, now) for write, answer in zip(writes, answers, strict=True)]

    async def _write_one(self, key: bytes, words: bytes) -> Reply:
        (answer,) = await self._write([Request(key, (words,))])
        return answer if isinstance(answer, BackendUnavailable) else answer[0]

    async def _write(self, requests: Sequence[Request]) -> Sequence[Answer]:
        """Send requests over the connections of the writes, then what others are to be told: never before it is so.

        That they are not told makes no write fail. What may yet take effect is told again with what comes next.

        Raises:
            BackendUnavailable: nothing was answered.
        """
        notice = self._notices.take()
        if notice is None:
            return await self.route.send("writing", requests) if requests else ()
        try:
            *answers, told = await self.route.send(
                "writing", requests, Request(self._notices.stream, (notice.command,))
            )
        except BaseException:
            self._notices.keep(notice)
            raise
        for request, answer in zip(requests, answers, strict=True):
            if isinstance(answer, BackendUnavailable):
                self._notices.note(*split_key(self._prefix, request.key))
        if isinstance(told, BackendUnavailable):
            self._notices.keep(notice)
            if not requests:
                raise told
        elif isinstance(told[0], BackendUnavailable):
            self._notices.keep(notice, told[0])
        return answers

    # ---------------------------------------------------------------------------------------------- of all the servers

    async def ping(self) -> str:
        """Return when every server answers: what is dangerous about them, empty if nothing is, or nobody may look.

        What others were not yet told is told then, as far as the server lets us.

        Raises:
            BackendUnavailable: one does not answer; where there are several it is named.
        """
        links = await self.route.primaries()
        details = await asyncio.gather(*(danger_of(link) for link in links.values()), return_exceptions=True)
        detail = summary(list(links), details)
        if self._notices:
            await self._write(())
        return detail

    async def clear(self, kind: str, prefix: bytes) -> None:
        """Delete every key of a type, which begin with `prefix`, that is there or waits to be written, and tell others.

        Raises:
            BackendUnavailable: not all were deleted, or nobody was told. Where one server fails the others are cleared.
        """
        await _all_done(writer.flush() for writer in self.lanes.writers)
        try:
            links = await self.route.primaries()
            await _all_done(self._unlink(link, glob_of(prefix)) for link in links.values())
        finally:
            self._notices.note_all(kind)
        await self._write(())

    async def _unlink(self, link: Link, pattern: bytes) -> None:
        """Delete every key of a server that matches a pattern of `SCAN`, a bounded number at a time."""
        cursor = b"0"
        while True:
            (found,) = await link.ask(command(b"SCAN", cursor, b"MATCH", pattern, b"COUNT", _SCAN_COUNT))
            cursor, keys = _checked(found)
            if keys:
                await self.route.unlink(keys)
            if int(cursor) == 0:
                return

    # ------------------------------------------------------------------------------------------------------- the others

    async def changes(self) -> AsyncGenerator[Change]:
        """Yield what others change, until `aclose`; see `ChangingBackend.changes`."""
        if self._is_closed:
            return
        stream, source = self._notices.stream, self._notices.source
        link = self.route.link_of(stream, BLOCK + _FOLLOWER_BUDGET)
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

    # ----------------------------------------------------------------------------------------------------- life, counts

    async def aclose(self, patience: float) -> None:
        """Write what waits, for `patience` seconds at most, and let go of the connections."""
        self._is_closed = True
        for follower in list(self._followers):
            await follower.aclose()
        await self.lanes.aclose(patience)
        await self.route.aclose()

    def abandon(self) -> None:
        """Let go of everything although the loop is closed."""
        self.lanes.abandon()
        self.route.abandon()
        for follower in self._followers:
            follower.link.abandon()

    def traffic(self) -> Traffic:
        """Return what travelled so far."""
        following = [follower.link for follower in self._followers]
        writers = self.lanes.writers
        return Traffic(
            self.lanes.read_batches,
            self.route.connects + sum(link.connects for link in following),
            sum(len(writer) for writer in writers),
            sum(writer.queued_bytes for writer in writers),
            self.lanes.counts,
            sum((link.failures for link in following), Counter(self.route.failures)),
        )


async def _all_done(works: Iterable[Awaitable[None]]) -> None:
    """Do everything, and raise the first failure when the rest is done."""
    for result in await asyncio.gather(*works, return_exceptions=True):
        if result is not None:
            raise result


def _command_of(write: Write, now: float, *words: bytes) -> bytes | None:
    """Return the `SET` of a write that leaves at `now`, None when nothing is to be stored.

    Time spent in the queue never lengthens a life.
    """
    life = milliseconds_left(write.expires_at, now)
    if write.value is None or not life:
        return None
    stored = seal_end(write.value, write.expires_at, write.version)
    return command(b"SET", write.key, stored, b"PX", b"%d" % life, *words)


def _result(write: Write, answer: Answer, now: float) -> bool | BackendUnavailable:
    """Return whether there was an entry before a write, if it asks, or why it failed."""
    if isinstance(answer, BackendUnavailable):
        return answer
    if isinstance(answer[-1], BackendUnavailable):
        return answer[-1]
    return write.asks and _lives(answer[0], now)


def _lives(header: Any, now: float) -> bool:
    """Tell whether the beginning of a value is that of an entry whose end has not come."""
    entry = read_end(header) if isinstance(header, bytes) else None
    return entry is not None and now < entry.expires_at


def _checked(reply: Any) -> Any:
    if isinstance(reply, BackendUnavailable):
        raise reply
    return reply

"""One ordered writer: what waits while a batch is on the wire leaves together, as the next one."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from asyncio import Task
from collections import OrderedDict, deque
from collections.abc import Awaitable, Callable, Sequence
from contextvars import Context
from dataclasses import astuple, dataclass, field
from typing import NamedTuple

from oidc_middleware.cache.waiters import HURRY, Patience, Waiter, closed, fail
from oidc_middleware.errors import BackendUnavailable

_LOGGER = logging.getLogger("oidc_middleware.cache")
_KIB = 1024
_MIB = 1024 * _KIB
_OVERHEAD = 500
"""The bytes that an item takes besides its key and value, roughly."""


class Write(NamedTuple):
    """What is to become of a key: a value with an end in Unix time, or None: nothing.

    `asks` tells whether somebody wants to know if there was something before. `droppable`: a set may become a delete
    where there is no room, for its value can be had again.
    """

    key: bytes
    value: bytes | None
    expires_at: float = 0.0
    asks: bool = False
    version: int = 0
    droppable: bool = True

    @property
    def size(self) -> int:
        """The bytes that it takes while it waits, roughly."""
        return len(self.key) + len(self.value or b"") + _OVERHEAD


@dataclass(slots=True)
class _Item:
    """The newest write of a key, its size, and everybody who waits for it, each with the answer if that is known."""

    write: Write
    size: int
    waiters: list[tuple[Waiter | _Crowd, bool | None]] = field(default_factory=list)


class _Crowd:
    """One waiter for many writes: done when all of them are, failed when one is."""

    __slots__ = ("_missing", "_waiter")

    def __init__(self, waiter: Waiter) -> None:
        self._waiter = waiter
        self._missing = 1

    def join(self) -> None:
        """Wait for one write more."""
        self._missing += 1

    def done(self) -> bool:
        """Tell whether nobody waits any more."""
        return self._waiter.done()

    def set_result(self, _: bool) -> None:  # noqa: FBT001  as a future's
        """Note that one of them is done."""
        self._missing -= 1
        if not self._missing:
            self._waiter.set_result(None)

    def set_exception(self, error: BaseException) -> None:
        """Note that one of them failed."""
        self._waiter.set_exception(error)


@dataclass(slots=True)
class WriteCounts:
    """What the writer did so far.

    `coalesced` writes gave way to a newer one of the same key before they left; `dropped` sets became deletes because
    the queue was full; `lost` writes failed, or nobody knows what became of them; `refused` ones found no room.
    """

    batches: int = 0
    sent: int = 0
    coalesced: int = 0
    dropped: int = 0
    lost: int = 0
    refused: int = 0

    def __add__(self, other: WriteCounts) -> WriteCounts:
        """Return what two writers did together."""
        return WriteCounts(*(one + two for one, two in zip(astuple(self), astuple(other), strict=True)))


class GroupCommitWriter:
    """Writes leave in the order in which they came, one batch at a time.

    `send` gets the writes of a batch and returns for each, in order, whether there was something before (where it
    asks), or an error; it runs in a task and a context of its own. Of several waiting writes of one key only the last
    leaves, and answers everybody; what is on the wire is never replaced.

    The queue holds `max_items` sets and `max_bytes` in all. When it is full the oldest droppable set that nobody waits
    for becomes a delete, so that the value which it should have replaced does not live on; deletes are never dropped.
    Where that makes no room, callers that wait do so for `budget` seconds at most, in order; others get
    BackendUnavailable.

    `on_lost` is told the writes that failed, have an unknown outcome, or found no room. For one event loop, the one
    that runs when it is made.
    """

    def __init__(  # the limits belong together
        self,
        send: Callable[[Sequence[Write]], Awaitable[Sequence[bool | BackendUnavailable]]],
        budget: float,
        *,
        max_items: int = 1000,
        max_bytes: int = 16 * _MIB,
        batch_items: int = 256,
        batch_bytes: int = _MIB,
        on_lost: Callable[[Sequence[Write], BackendUnavailable], None] | None = None,
    ) -> None:
        self.counts: WriteCounts = WriteCounts()
        self._send = send
        self._loop = asyncio.get_running_loop()
        self._patience = Patience(self._loop, budget)
        self._hurry = Patience(self._loop, budget * HURRY)
        self._max_items = max_items
        self._max_bytes = max_bytes
        self._batch_items = batch_items
        self._batch_bytes = batch_bytes
        self._on_lost = on_lost
        # OrderedDict: taking the oldest from a dict that shrinks at its front takes time.
        self._queue: OrderedDict[bytes, _Item] = OrderedDict()
        self._droppable: OrderedDict[bytes, _Item] = OrderedDict()
        self._on_wire: dict[bytes, _Item] = {}
        self._outside: deque[tuple[Write, Waiter | _Crowd]] = deque()
        self._newest_outside: dict[bytes, Write] = {}
        self._sets = 0
        self._bytes = 0
        self._task: Task[None] | None = None
        self._closed = False

    def __len__(self) -> int:
        """How many writes wait or are on the wire."""
        return len(self._queue) + len(self._on_wire) + len(self._outside)

    @property
    def queued_bytes(self) -> int:
        """How many bytes wait, roughly."""
        return self._bytes

    def peek(self, key: bytes) -> Write | None:
        """Return the newest write of a key that is not acknowledged yet."""
        if self._task is None:
            return None
        if key in self._newest_outside:
            return self._newest_outside[key]
        item = self._queue.get(key) or self._on_wire.get(key)
        return item.write if item else None

    def pending(self, prefix: bytes) -> list[bytes]:
        """Return the keys with this beginning whose writes are not acknowledged yet."""
        outside = [write.key for write, _ in self._outside]
        return [key for key in dict.fromkeys([*self._on_wire, *self._queue, *outside]) if key.startswith(prefix)]

    async def write(self, write: Write, *, wait: bool, hurried: bool = False) -> bool:
        """Take a write; with `wait` return when it is done: whether there was something before, where it asks.

        A caller in a hurry waits for a small part of the budget only.

        Raises:
            BackendUnavailable: it failed, was not done in time (and may still be), there is no room, or after `aclose`.
        """
        if not wait:
            self._take_in(write, None)
            return False
        waiter = self._new_waiter(hurried=hurried)
        self._take_in(write, waiter)
        answer: bool = await waiter
        return answer

    async def write_many(self, writes: Sequence[Write], *, wait: bool, hurried: bool = False) -> None:
        """Take all writes in one go; with `wait` return when all are done; raise what one of them raises."""
        waiter = self._new_waiter(hurried=hurried) if wait else None
        crowd = _Crowd(waiter) if waiter is not None else None
        refusal: BackendUnavailable | None = None
        for write in writes:
            try:
                self._take_in(write, crowd)
            except BackendUnavailable as error:
                refusal = error
            else:
                if crowd is not None:
                    crowd.join()
        if waiter is not None and crowd is not None:
            crowd.set_result(True)  # the one that it began with: it stands for the end of the loop
            await waiter
        if refusal is not None:
            raise refusal

    async def flush(self) -> None:
        """Return when everything that was taken so far is done; raise what the last of it raised."""
        last = next(reversed(self._queue or self._on_wire), None)
        if last is None:
            return
        waiter = self._patience.new_waiter()
        (self._queue.get(last) or self._on_wire[last]).waiters.append((waiter, None))
        self._droppable.pop(last, None)
        await waiter

    async def drain(self, patience: float) -> None:
        """Return when nothing waits, after `patience` seconds at most; more may come meanwhile, and is waited for."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(patience):
                while self._task is not None:
                    await asyncio.wait((self._task,))

    async def aclose(self, patience: float = 5.0) -> None:
        """Take no more, write what waits for `patience` seconds at most, and count the rest as lost.

        A second time waits for what the first one began.
        """
        self._closed = True
        task = self._task
        if task is not None:
            await asyncio.wait((task,), timeout=patience)
            task.cancel()
            await asyncio.wait((task,))
        self._patience.stop()
        self._hurry.stop()
        self._lose_the_rest()

    def abandon(self) -> None:
        """Take no more and count everything that waits as lost, when the loop of all who waited for it is closed."""
        self._closed = True
        for waiters in [item.waiters for item in (*self._on_wire.values(), *self._queue.values())]:
            waiters.clear()
        self._outside.clear()
        self._newest_outside.clear()
        self._lose_the_rest()

    def _lose_the_rest(self) -> None:
        left = [*self._on_wire.values(), *self._queue.values()]
        outside = list(self._outside)
        self._on_wire, self._sets, self._bytes = {}, 0, 0
        for queue in (self._queue, self._droppable, self._outside, self._newest_outside):
            queue.clear()
        for _, waiter in outside:
            fail(waiter, closed())
        self._settle(left, [closed()] * len(left))
        self._report([write for write, _ in outside], closed())

    def _new_waiter(self, *, hurried: bool) -> Waiter:
        return (self._hurry if hurried else self._patience).new_waiter()

    def _take_in(self, write: Write, waiter: Waiter | _Crowd | None) -> None:
        if self._closed:
            raise closed()
        item, size = self._queue.get(write.key), write.size
        must_wait = bool(self._outside) and item is None
        if not must_wait and self._make_room(write, size, item):
            self._put(write, size, item, waiter)
        elif waiter is not None and size <= self._max_bytes:
            self._outside.append((write, waiter))
            self._newest_outside[write.key] = write
        else:
            self.counts.refused += 1
            refusal = BackendUnavailable("too many writes wait already")
            self._report([write], refusal)
            raise refusal

    def _put(self, write: Write, size: int, item: _Item | None, waiter: Waiter | _Crowd | None) -> None:
        answer = None
        if item is None:
            item = self._queue[write.key] = _Item(write, size)
        else:
            self.counts.coalesced += 1
            before = item.write
            self._uncount(item)
            answer = before.value is not None
            item.write, item.size = write._replace(asks=before.asks), size
        self._sets += write.value is not None
        self._bytes += size
        if waiter is not None:
            item.waiters.append((waiter, answer))
        if item.waiters or write.value is None or not write.droppable:
            self._droppable.pop(write.key, None)
        else:
            self._droppable[write.key] = item
        if self._task is None:
            self._task = self._loop.create_task(self._travel(), context=Context())

    def _make_room(self, write: Write, needed: int, item: _Item | None) -> bool:
        """Turn droppable sets into deletes until there is room; tell whether there is.

        `item` is what the queue has of the key, whose place the write takes.
        """
        sets, size = int(write.value is not None), needed
        if item is not None:
            sets -= item.write.value is not None
            size -= item.size
        while (sets and self._sets + sets > self._max_items) or self._bytes + size > self._max_bytes:
            if not self._droppable:
                return False
            key, oldest = self._droppable.popitem(last=False)
            self._uncount(oldest)
            oldest.write = Write(key, None, asks=oldest.write.asks)
            oldest.size = oldest.write.size
            self._bytes += oldest.size
            self.counts.dropped += 1
            if oldest is item:
                sets, size = int(write.value is not None), needed - oldest.size
        return True

    def _uncount(self, item: _Item) -> None:
        self._sets -= item.write.value is not None
        self._bytes -= item.size

    async def _travel(self) -> None:
        while batch := self._take():
            self.counts.batches += 1
            self.counts.sent += len(batch)
            results: Sequence[bool | BackendUnavailable]
            try:
                results = await self._send([item.write for item in batch])
            except asyncio.CancelledError:
                break  # `aclose` lost its patience and settles what is left
            except BackendUnavailable as error:
                results = [error] * len(batch)
            except Exception as error:  # a mistake of ours must not end the writer
                _LOGGER.exception("writing a batch failed unexpectedly")
                results = [BackendUnavailable(f"{type(error).__name__}: {error}", "refused")] * len(batch)
            self._on_wire = {}
            self._settle(batch, results)
            self._patience.tidy()
            self._hurry.tidy()
        self._task = None

    def _take(self) -> list[_Item]:
        """Put the next batch on the wire and let those in who wait for room."""
        batch: list[_Item] = []
        size = 0
        while self._queue and len(batch) < self._batch_items and size < self._batch_bytes:
            key, item = self._queue.popitem(last=False)
            self._droppable.pop(key, None)
            self._uncount(item)
            size += item.size
            batch.append(item)
        self._on_wire = {item.write.key: item for item in batch}
        while self._outside and self._let_in(*self._outside[0]):
            self._outside.popleft()
        return batch

    def _let_in(self, write: Write, waiter: Waiter | _Crowd) -> bool:
        """Let in who waits for room, if there is some; tell whether he waits no more."""
        item, size = self._queue.get(write.key), write.size
        if not waiter.done() and not self._make_room(write, size, item):
            return False
        if self._newest_outside.get(write.key) is write:
            del self._newest_outside[write.key]
        if waiter.done():
            self._report([write], BackendUnavailable("no room in time", "timeout"))
        else:
            self._put(write, size, item, waiter)
        return True

    def _settle(self, items: Sequence[_Item], results: Sequence[bool | BackendUnavailable]) -> None:
        lost: list[Write] = []
        reason: BackendUnavailable | None = None
        for item, result in zip(items, results, strict=True):
            if isinstance(result, BackendUnavailable):
                lost.append(item.write)
                reason = result
            for waiter, answer in item.waiters:
                if isinstance(result, BackendUnavailable):
                    fail(waiter, result)
                elif not waiter.done():
                    waiter.set_result(result if answer is None else answer)
        self.counts.lost += len(lost)
        if reason is not None:
            self._report(lost, reason)

    def _report(self, lost: Sequence[Write], reason: BackendUnavailable) -> None:
        if not lost or self._on_lost is None:
            return
        try:
            self._on_lost(lost, reason)
        except Exception:
            _LOGGER.exception("whoever keeps account of lost writes failed")

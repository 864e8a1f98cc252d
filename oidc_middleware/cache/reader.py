"""Many small reads as few large ones."""

from __future__ import annotations

import asyncio
from asyncio import Future, Task
from collections.abc import Awaitable, Callable, Iterable, Sequence
from contextvars import Context
from typing import Generic, TypeVar

from oidc_middleware.cache.waiters import HURRY, Patience, Waiter, all_of, closed, fail

V = TypeVar("V")


class ReadBatcher(Generic[V]):
    """Reads that are issued in one turn of the loop, or while a batch is on the wire, travel together.

    `fetch` gets distinct keys and returns a value for each, in order; it runs in a task and a context of its own, so a
    caller that is cancelled costs nothing. Readers that wait for the same batch share the read of a key. Nobody joins a
    batch that is on the wire: its answer may be older than a write that the reader knows to be done. No reader waits
    longer than `budget` seconds, one in a hurry a small part of that. For one event loop, the one that runs when it is
    made.
    """

    def __init__(
        self, fetch: Callable[[Sequence[bytes]], Awaitable[Sequence[V]]], budget: float, max_keys: int = 256
    ) -> None:
        self._fetch = fetch
        self._loop = asyncio.get_running_loop()
        self._patience = Patience(self._loop, budget)
        self._hurry = Patience(self._loop, budget * HURRY)
        self._max_keys = max_keys
        self._waiting: dict[bytes, list[Waiter]] = {}
        self._task: Task[None] | None = None
        self._closed = False
        self.batches: int = 0
        """How many batches were sent."""

    @property
    def is_idle(self) -> bool:
        """Whether nobody waits here and nothing is on the wire."""
        return self._task is None and not self._waiting

    def read(self, key: bytes, *, hurried: bool = False) -> Future[V]:
        """Return a future of the value of a key, for one caller alone to await: cancelling it is no harm.

        It fails with BackendUnavailable when no answer comes in time, or with whatever `fetch` raised.

        Raises:
            BackendUnavailable: after `aclose`.
        """
        if self._closed:
            raise closed()
        waiter = (self._hurry if hurried else self._patience).new_waiter()
        waiters = self._waiting.get(key)
        if waiters is None:
            self._waiting[key] = [waiter]
        else:
            waiters.append(waiter)
        if self._task is None:  # a new task begins after everybody whose turn it is already
            self._task = self._loop.create_task(self._travel(), context=Context())
        return waiter

    async def read_many(self, keys: Iterable[bytes], *, hurried: bool = False) -> list[V]:
        """Return the values of all keys, in order; raise what `read` raises, or what its future fails with."""
        return await all_of([self.read(key, hurried=hurried) for key in keys])

    async def aclose(self) -> None:
        """Give up what is under way and read no more; a second time does nothing."""
        self._closed = True
        self._patience.stop()
        self._hurry.stop()
        waiting, self._waiting = self._waiting, {}
        _fail_all(waiting, closed())
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait((self._task,))

    async def _travel(self) -> None:
        while batch := self._take():
            self.batches += 1
            try:
                values = await self._fetch(list(batch))
                for waiters, value in zip(batch.values(), values, strict=True):
                    for waiter in waiters:
                        if not waiter.done():
                            waiter.set_result(value)
            except asyncio.CancelledError:  # by `aclose`, or by a loop that ends: then there is no next batch
                waiting, self._waiting = self._waiting, {}
                for cancelled in (batch, waiting):
                    _fail_all(cancelled, closed())
            except Exception as error:  # noqa: BLE001  whatever it is belongs to those who wait
                _fail_all(batch, error)
            self._patience.tidy()
            self._hurry.tidy()
        self._task = None

    def _take(self) -> dict[bytes, list[Waiter]]:
        waiting, self._waiting = self._waiting, {}
        if len(waiting) <= self._max_keys:
            return waiting
        keys = list(waiting)
        self._waiting = {key: waiting[key] for key in keys[self._max_keys :]}
        return {key: waiting[key] for key in keys[: self._max_keys]}


def _fail_all(batch: dict[bytes, list[Waiter]], error: BaseException) -> None:
    for waiters in batch.values():
        for waiter in waiters:
            fail(waiter, error)

"""Many small reads as few large ones."""

from __future__ import annotations

import asyncio
from asyncio import Future, Task
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from contextvars import Context
from itertools import islice
from typing import Any, Generic, TypeVar

from oidc_middleware.cache.waiters import HURRY, Patience, Waiter, all_of, closed, fail
from oidc_middleware.errors import BackendUnavailable

V = TypeVar("V")

_Question = tuple[bytes | list[bytes], Waiter]
"""A key whose value somebody waits for, or several whose values somebody waits for together."""


class ReadBatcher(Generic[V]):
    """Reads that are issued in one turn of the loop, or while a batch is on the wire, travel together.

    `fetch` gets distinct keys and returns a value for each, in order, or why there is none. It runs in a task and a
    context of its own, so a caller that is cancelled costs nothing. Readers that wait for the same batch share the read
    of a key. Nobody joins a batch that is on the wire: its answer may be older than a write that the reader knows to be
    done. No reader waits longer than `budget` seconds, one in a hurry a small part of that. For one event loop, the one
    that runs when it is made.
    """

    def __init__(
        self, fetch: Callable[[Sequence[bytes]], Awaitable[Sequence[V]]], budget: float, max_keys: int = 256
    ) -> None:
        self._fetch = fetch
        self._loop = asyncio.get_running_loop()
        self._patience = Patience(self._loop, budget)
        self._hurry = Patience(self._loop, budget * HURRY)
        self._max_keys = max_keys
        self._waiting: deque[_Question] = deque()
        self._task: Task[None] | None = None
        self._closed = False
        self.batches: int = 0
        """How many batches were sent."""

    @property
    def is_idle(self) -> bool:
        """Whether nobody waits here and nothing is on the wire."""
        return self._task is None and not self._waiting

    def read(self, wanted: bytes | list[bytes], *, hurried: bool = False) -> Future[Any]:
        """Return a future of the value of a key, for one caller alone to await: cancelling it is no harm.

        For a list of keys, not longer than a batch, it is a list of their values, in order, or why one has none. It
        fails with BackendUnavailable when no answer comes in time or none for the one key, or with whatever `fetch`
        raised.

        Raises:
            BackendUnavailable: after `aclose`.
        """
        if self._closed:
            raise closed()
        waiter = (self._hurry if hurried else self._patience).new_waiter()
        self._waiting.append((wanted, waiter))
        if self._task is None:  # a new task begins after everybody whose turn it is already
            self._task = self._loop.create_task(self._travel(), context=Context())
        return waiter

    async def read_many(self, keys: Iterable[bytes], *, hurried: bool = False) -> list[V]:
        """Return the values of all keys, in order, or why one has none; raise what ends the wait for all of them."""
        left = iter(keys)
        questions = []
        while some := list(islice(left, self._max_keys)):
            questions.append(self.read(some, hurried=hurried))
        if len(questions) == 1:
            values: list[V] = await questions[0]
            return values
        return [value for values in await all_of(questions) for value in values]

    async def aclose(self) -> None:
        """Give up what is under way and read no more; a second time does nothing."""
        self._closed = True
        self._patience.stop()
        self._hurry.stop()
        self._give_up()
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait((self._task,))

    def _give_up(self) -> None:
        waiting, self._waiting = self._waiting, deque()
        _fail_all(waiting, closed())

    async def _travel(self) -> None:
        while self._waiting:
            questions, keys = self._take()
            self.batches += 1
            try:
                _answer(questions, dict(zip(keys, await self._fetch(keys), strict=True)))
            except asyncio.CancelledError:  # by `aclose`, or by a loop that ends: then there is no next batch
                _fail_all(questions, closed())
                self._give_up()
            except Exception as error:  # noqa: BLE001  whatever it is belongs to those who wait
                _fail_all(questions, error)
            self._patience.tidy()
            self._hurry.tidy()
        self._task = None

    def _take(self) -> tuple[list[_Question], list[bytes]]:
        """Return the oldest questions, so many as one batch may ask for, and the keys that they are about."""
        taken: list[_Question] = []
        keys: dict[bytes, None] = {}
        for question in self._waiting:
            wanted = question[0]
            if isinstance(wanted, bytes):
                if len(keys) >= self._max_keys and wanted not in keys:
                    break
                keys[wanted] = None
            elif taken and len(keys) + len(wanted) > self._max_keys:
                break
            else:
                keys.update(dict.fromkeys(wanted))
            taken.append(question)
        for _ in taken:
            self._waiting.popleft()
        return taken, list(keys)


def _answer(questions: Iterable[_Question], values: Mapping[bytes, object]) -> None:
    for wanted, waiter in questions:
        if waiter.done():
            continue
        if isinstance(wanted, list):
            waiter.set_result([values[key] for key in wanted])
        elif isinstance(value := values[wanted], BackendUnavailable):
            fail(waiter, value)
        else:
            waiter.set_result(value)


def _fail_all(questions: Iterable[_Question], error: BaseException) -> None:
    for _, waiter in questions:
        fail(waiter, error)

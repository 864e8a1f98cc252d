"""The other end of a reader or a writer, without a server."""

from __future__ import annotations

import asyncio
from asyncio import Event, Task
from collections.abc import Callable, Sequence
from contextvars import ContextVar
from typing import Any

REQUEST: ContextVar[str] = ContextVar("REQUEST", default="nobody")


class Wire:
    """The other end: it takes batches, and answers each when a test lets it."""

    def __init__(self, *, held: bool = False) -> None:
        self.batches: list[list[Any]] = []
        self.gate = Event()
        self.answer: Callable[[Any], Any] = lambda item: item
        self.seen: list[str] = []
        if not held:
            self.gate.set()

    async def __call__(self, batch: Sequence[Any]) -> list[Any]:
        self.seen.append(REQUEST.get())
        self.batches.append(list(batch))
        await self.gate.wait()
        return [self.answer(item) for item in batch]

    def sent_keys(self) -> list[list[bytes]]:
        """The keys of each batch of writes."""
        return [[write.key for write in batch] for batch in self.batches]

    def values(self) -> list[list[bytes | None]]:
        """The values of each batch of writes."""
        return [[write.value for write in batch] for batch in self.batches]


def start(work: Any) -> Task[Any]:
    return asyncio.get_running_loop().create_task(work)


async def turns(count: int = 5) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


def fails_with(error: Exception) -> Callable[[Any], Any]:
    """Return an answer that fails the whole batch."""

    def answer(_: Any) -> Any:
        raise error

    return answer

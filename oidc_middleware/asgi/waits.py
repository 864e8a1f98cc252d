"""Awaits that somebody else can end: how an app that waits for its client learns that the client is gone."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import msgspec

T = TypeVar("T")


class Disconnected(OSError):
    """What a send after the end raises, under every server: those that speak ASGI 2.4 raise an `OSError` there too."""


class Waits(msgspec.Struct, gc=False, eq=False):
    """The calls of one app to its server that are under way, in whatever tasks.

    A call is ended as `asyncio.timeout` ends a block: its task is cancelled, and the cancellation goes no further than
    the call. So there is no task beside it, and nothing of it is left. A Struct, for every request with a body makes
    one.
    """

    is_over: bool = False
    _tasks: set[asyncio.Task[Any]] = msgspec.field(default_factory=set)
    _ended: frozenset[asyncio.Task[Any]] = frozenset()

    async def call(self, function: Callable[..., Awaitable[T]], *arguments: Any) -> T:
        """Await `function(*arguments)`.

        Raises:
            Disconnected: `end` was called, before or meanwhile. Before: at once, for an app may ask without waiting.
        """
        if self.is_over:
            raise Disconnected
        task = asyncio.current_task()
        if task is None:
            return await function(*arguments)
        before = task.cancelling()
        self._tasks.add(task)
        try:
            return await function(*arguments)
        except asyncio.CancelledError:
            if task in self._ended:
                if task.cancelling() - 1 <= before:
                    raise Disconnected from None
                # Somebody else cancels it too. A scope of anyio knows its own cancellation by the text, which may be
                # ours now, and repeats it in the next turn of the loop; whoever else does so does it once.
                await asyncio.sleep(0)
            raise
        finally:
            self._tasks.discard(task)
            if task in self._ended:
                self._ended -= {task}
                task.uncancel()

    def end(self) -> None:
        """End the calls that are under way, and let no other one begin."""
        if not self.is_over:
            self.is_over = True
            self._ended = frozenset(self._tasks)
            for task in self._ended:
                task.cancel()

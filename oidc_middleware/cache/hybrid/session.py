"""What a hybrid backend has while one event loop runs: its reader, its writer, and who looks after the shared tier."""

from __future__ import annotations

import asyncio
import contextlib
from asyncio import AbstractEventLoop, Task
from collections.abc import Callable, Coroutine
from contextvars import Context
from typing import Any, TypeVar

from oidc_middleware.cache.hybrid.caretaker import Caretaker
from oidc_middleware.cache.hybrid.conditional import Conditional
from oidc_middleware.cache.hybrid.follower import Follower
from oidc_middleware.cache.hybrid.reads import Reads
from oidc_middleware.cache.hybrid.tiers import Tiers
from oidc_middleware.cache.hybrid.writes import Writes
from oidc_middleware.cache.waiters import closed
from oidc_middleware.clock import Clock

T = TypeVar("T")


class Session:
    """Everything that belongs to one event loop; what is known of the tiers outlives it."""

    def __init__(
        self, tiers: Tiers, writes: Writes, follower: Follower, clock: Clock, random: Callable[[], float]
    ) -> None:
        self.loop: AbstractEventLoop = asyncio.get_running_loop()
        self.writes: Writes = writes
        self.reads: Reads = Reads(tiers, writes.writer)
        self.conditional: Conditional = Conditional(tiers, self.reads, writes)
        self.caretaker: Caretaker = Caretaker(tiers, writes, clock, random)
        self.follower: Follower = follower
        self._calls: set[Task[Any]] = set()
        self._watch = self.loop.create_task(self.caretaker.watch(), context=Context())
        self._follow = self.loop.create_task(follower.follow(), context=Context())

    async def apart(self, work: Coroutine[Any, Any, T]) -> T:
        """Do something in a task and a context of its own: a caller that is cancelled leaves it alone.

        Raises:
            BackendUnavailable: it was given up, for the backend closes.
        """
        task = self.loop.create_task(work, context=Context())
        self._calls.add(task)
        task.add_done_callback(self._ended, context=Context())
        await asyncio.wait((task,))
        if task.cancelled():
            raise closed()
        return task.result()

    def _ended(self, task: Task[Any]) -> None:
        self._calls.discard(task)
        if not task.cancelled():
            task.exception()  # looked at, so that asyncio does not report it where the caller has gone

    async def drain(self, patience: float) -> None:
        """Write what waits, for `patience` seconds at most; more may come meanwhile."""
        await self.writes.writer.drain(patience)

    async def aclose(self, patience: float) -> None:
        """Write what waits, and put right what can be, for `patience` seconds at most; then end everything else."""
        await _end(self._watch, self._follow)
        end = self.loop.time() + patience
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout_at(end):
                await self.caretaker.finish()
        await self.writes.writer.aclose(max(0.0, end - self.loop.time()))
        await self.reads.aclose()
        await _end(*self._calls)

    def abandon(self) -> None:
        """Let go although the loop is closed; nobody knows what became of what waited."""
        self.writes.writer.abandon()


async def _end(*tasks: Task[Any]) -> None:
    others = [task for task in tasks if task is not asyncio.current_task()]
    for task in others:
        task.cancel()
    if others:
        await asyncio.wait(others)

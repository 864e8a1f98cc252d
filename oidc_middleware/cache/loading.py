"""One flight per key: whoever asks while an answer is under way waits for that one."""

from __future__ import annotations

import asyncio
from asyncio import AbstractEventLoop, Task
from collections.abc import Awaitable, Callable, Hashable
from contextvars import Context
from typing import Any, TypeVar

from oidc_middleware.errors import BackendUnavailable

V = TypeVar("V")


class Flights:
    """Share work that is under way. Answers and errors go to those who waited for them and are kept for nobody else.

    The work runs in a task and a context of its own: it sees nothing of the request that happened to come first, and
    a caller that is cancelled, the first as well, takes nobody along.
    """

    def __init__(self, limit: int = 1024) -> None:
        self._limit = limit
        self._flights: dict[Hashable, Task[Any]] = {}
        self._forgotten: set[Task[Any]] = set()
        self._closed = False

    def __len__(self) -> int:
        return len(self._flights) + len(self._forgotten)

    async def run(self, key: Hashable, factory: Callable[[], Awaitable[V]]) -> V:
        """Return what `factory` returns, or what the flight with this key does that is under way.

        Raises:
            BackendUnavailable: too many flights are under way, or the flight was ended by `aclose`.
            RuntimeError: the flight belongs to another event loop that runs at this moment, or would wait for itself.
            Exception: whatever `factory` raised.
        """
        task = self._joined(key, factory)
        if task is asyncio.current_task():
            raise RuntimeError(f"the flight {key!r} would wait for itself")
        # `wait` leaves the task alone when its caller is cancelled, and nobody's cancellation comes out of it.
        await asyncio.wait((task,))
        if task.cancelled():
            raise BackendUnavailable("the work was given up, for the service stops")
        result: V = task.result()
        return result

    def begin(self, key: Hashable, factory: Callable[[], Awaitable[V]]) -> None:
        """Begin a flight for whoever asks next, unless one is under way; its error goes to nobody else.

        Raises:
            BackendUnavailable: too many flights are under way; after `aclose`.
            RuntimeError: the flight belongs to another event loop that runs at this moment.
        """
        self._joined(key, factory)

    def forget(self, key: Hashable) -> None:
        """Let whoever asks from now on begin a new flight; those who wait for the present one still get its answer."""
        task = self._flights.pop(key, None)
        if task is not None and not task.done():
            self._forgotten.add(task)

    def forget_all(self) -> None:
        """Do what `forget` does, for every key."""
        for key in list(self._flights):
            self.forget(key)

    async def settle(self, patience: float) -> None:
        """Wait for all flights that are under way, `patience` seconds at most; none of them is ended."""
        loop = asyncio.get_running_loop()
        under_way = [task for task in (*self._flights.values(), *self._forgotten) if task.get_loop() is loop]
        if under_way:
            await asyncio.wait(under_way, timeout=patience)

    async def aclose(self, patience: float = 5.0) -> None:
        """End all flights and start no more; wait `patience` seconds at most for those that do not want to end."""
        self._closed = True
        loop = asyncio.get_running_loop()
        under_way = [*self._flights.values(), *self._forgotten]
        ours = [task for task in under_way if task.get_loop() is loop and task is not asyncio.current_task()]
        self._flights.clear()
        self._forgotten.clear()
        for task in ours:
            task.cancel()
        if ours:
            await asyncio.wait(ours, timeout=patience)

    def _joined(self, key: Hashable, factory: Callable[[], Awaitable[V]]) -> Task[V]:
        loop = asyncio.get_running_loop()
        task = self._flights.get(key)
        if task is None or task.done() or not _is_of(task, loop):
            task = self._start(loop, key, factory)
        return task

    def _start(self, loop: AbstractEventLoop, key: Hashable, factory: Callable[[], Awaitable[V]]) -> Task[V]:
        if len(self) >= self._limit:
            self._forget_dead()
        if self._closed or len(self) >= self._limit:
            raise BackendUnavailable("no more work is taken" if self._closed else "too much work is under way")
        context = Context()
        task = loop.create_task(_fly(factory), context=context)
        self._flights[key] = task
        task.add_done_callback(lambda done: self._land(key, done), context=context)
        return task

    def _land(self, key: Hashable, task: Task[Any]) -> None:
        if self._flights.get(key) is task:
            del self._flights[key]
        self._forgotten.discard(task)
        if not task.cancelled():
            task.exception()  # looked at, so that asyncio does not report it where all who waited have gone

    def _forget_dead(self) -> None:
        for key, task in list(self._flights.items()):
            if not task.get_loop().is_running():
                del self._flights[key]
        self._forgotten = {task for task in self._forgotten if task.get_loop().is_running()}


async def _fly(factory: Callable[[], Awaitable[V]]) -> V:
    return await factory()


def _is_of(task: Task[Any], loop: AbstractEventLoop) -> bool:
    """Tell whether a flight belongs to `loop`; one of a loop that no longer runs will never land.

    Raises:
        RuntimeError: it belongs to another loop, and that one runs.
    """
    if task.get_loop() is loop:
        return True
    if task.get_loop().is_running():
        raise RuntimeError("two event loops use one instance at the same time")
    return False

"""Futures of callers who wait for work that somebody else does, and who all have the same patience."""

from __future__ import annotations

from asyncio import AbstractEventLoop, Future, TimerHandle
from collections import deque
from collections.abc import Sequence
from contextvars import Context
from typing import Any, Protocol

from oidc_middleware.errors import BackendUnavailable

Waiter = Future[Any]

HURRY = 0.04
"""The part of a budget that is left to those who ask a tier that just kept somebody waiting in vain."""


class Patience:
    """Waiters that give up after the same time: one timer for all of them, and nothing of a request's context in it."""

    def __init__(self, loop: AbstractEventLoop, seconds: float) -> None:
        self._loop = loop
        self._seconds = seconds
        self._waiters: deque[tuple[float, Waiter]] = deque()
        self._timer: TimerHandle | None = None

    def new_waiter(self) -> Waiter:
        """Return a future that fails when its time is up."""
        waiter: Waiter = self._loop.create_future()
        end = self._loop.time() + self._seconds
        self._waiters.append((end, waiter))
        if self._timer is None:
            self._timer = self._loop.call_at(end, self._ring, context=Context())
        return waiter

    def tidy(self) -> None:
        """Forget the oldest waiters that wait no more, with what they were given."""
        waiters = self._waiters
        while waiters and waiters[0][1].done():
            waiters.popleft()

    def stop(self) -> None:
        """Ring no more; who still waits has to be answered otherwise."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _ring(self) -> None:
        now = self._loop.time()
        waiters = self._waiters
        while waiters and (waiters[0][0] <= now or waiters[0][1].done()):
            fail(waiters.popleft()[1], BackendUnavailable(f"no answer within {self._seconds:g} s", "timeout"))
        self._timer = self._loop.call_at(waiters[0][0], self._ring, context=Context()) if waiters else None


class Waits(Protocol):
    """Somebody, or a crowd, who waits."""

    def done(self) -> bool:
        """Tell whether nobody waits any more."""

    def set_exception(self, error: BaseException, /) -> None:
        """End the waiting with an error."""


def fail(waiter: Waits, error: BaseException) -> None:
    """Give an error to a waiter that still waits; each gets one of its own, for a raised error collects tracebacks."""
    if not waiter.done():
        own = BackendUnavailable(error.detail, error.kind) if type(error) is BackendUnavailable else error
        waiter.set_exception(own)


def closed() -> BackendUnavailable:
    """Return the error of whatever is asked after its end."""
    return BackendUnavailable("closed")


async def all_of(waiters: Sequence[Waiter]) -> list[Any]:
    """Return all results; when one fails, raise that, and let nobody report the others as forgotten."""
    try:
        return [await waiter for waiter in waiters]
    finally:
        for waiter in waiters:
            if not waiter.cancel() and not waiter.cancelled():
                waiter.exception()

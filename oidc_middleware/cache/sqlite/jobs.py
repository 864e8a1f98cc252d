"""What waits for the thread that writes, and how its results come back."""

from __future__ import annotations

import asyncio
from asyncio import AbstractEventLoop, Future
from collections import deque
from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

from oidc_middleware.errors import BackendUnavailable

T = TypeVar("T")

_MOST_WAITING = 16_384
_MOST_WAITING_BYTES = 64 * 1024 * 1024
_MOST_TOGETHER = 256
_MOST_TOGETHER_BYTES = 1024 * 1024


class Job(NamedTuple):
    """What to do (None: nothing), the bytes that it holds, whether it is no part of a transaction, who waits for it."""

    work: Callable[[Any], Any] | None
    size: int
    is_read: bool
    future: Future[Any]


class Jobs:
    """A queue with bounds on count and bytes. Whoever uses it from two threads holds a lock."""

    def __init__(self) -> None:
        self._waiting: deque[Job] = deque()
        self._bytes = 0

    def put(self, work: Callable[[Any], T] | None, size: int, *, is_read: bool) -> Future[T]:
        """Add a job and return its result to come, for the loop that runs in this thread.

        Raises:
            BackendUnavailable: too much waits.
        """
        if len(self._waiting) >= _MOST_WAITING or self._bytes > _MOST_WAITING_BYTES:
            raise BackendUnavailable("too many writes wait")
        future: Future[T] = asyncio.get_running_loop().create_future()
        self._waiting.append(Job(work, size, is_read, future))
        self._bytes += size
        return future

    def take(self) -> list[Job]:
        """Return the oldest jobs, as many as should be committed together, and forget them."""
        jobs: list[Job] = []
        size = 0
        while self._waiting and len(jobs) < _MOST_TOGETHER and size <= _MOST_TOGETHER_BYTES:
            jobs.append(self._waiting.popleft())
            size += jobs[-1].size
        self._bytes -= size
        return jobs

    def clear(self) -> None:
        """Forget all jobs."""
        self._waiting.clear()
        self._bytes = 0


def land(jobs: list[Job], results: list[Any] | Exception) -> None:
    """Give the results to those who wait, in one call for each loop; an exception goes to all."""
    by_loop: dict[AbstractEventLoop, list[tuple[Future[Any], Any]]] = {}
    for number, job in enumerate(jobs):
        result = results if isinstance(results, Exception) else results[number]
        by_loop.setdefault(job.future.get_loop(), []).append((job.future, result))
    for loop, landed in by_loop.items():
        try:
            loop.call_soon_threadsafe(_settle, landed)
        except RuntimeError:
            continue  # the loop is closed, and nobody waits any more


def _settle(landed: list[tuple[Future[Any], Any]]) -> None:
    for future, result in landed:
        if future.done():
            continue
        if isinstance(result, BackendUnavailable):
            future.set_exception(BackendUnavailable(result.detail, result.kind))  # each its own: raising one adds to it
        elif isinstance(result, Exception):
            future.set_exception(result)
        else:
            future.set_result(result)

"""Waiting for something that a callback tells, for so long at most, without a task or a scope beside it."""

from __future__ import annotations

import asyncio


class Gate:
    """Where one task at a time waits until somebody opens."""

    __slots__ = ("_future", "_loop")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._future: asyncio.Future[None] | None = None

    async def wait(self, seconds: float | None) -> None:
        """Wait until `open` is called.

        Raises:
            TimeoutError: it was not within `seconds`; None is no limit.
        """
        future = self._future = self._loop.create_future()
        timer = None if seconds is None else self._loop.call_later(seconds, _be_late, future)
        try:
            await future
        finally:
            self._future = None
            if timer is not None:
                timer.cancel()

    def open(self) -> None:
        """Let whoever waits go on."""
        if self._future is not None and not self._future.done():
            self._future.set_result(None)


def _be_late(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_exception(TimeoutError())

"""How a connection ends that is to end: something is said to the client, the app is told, and has a while to leave."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable
from typing import Any, Literal

from starlette.requests import ClientDisconnect
from starlette.websockets import WebSocketDisconnect

from oidc_middleware.asgi.waits import Disconnected

Reason = Literal["revoked", "expired"]


FAREWELL_SECONDS = 1.0
"""For how long a client may keep us from saying the last word: one that does not read is cut off without."""

logger: logging.Logger = logging.getLogger("oidc_middleware.live")


class Ending:
    """The end of one connection, under way; `reason` is why."""

    __slots__ = ("_cancelled", "_left", "_said", "reason")

    def __init__(self, reason: Reason) -> None:
        self.reason: Reason = reason
        self._cancelled: asyncio.Task[Any] | None = None
        self._left = asyncio.Event()
        self._said = asyncio.Event()

    @property
    def app_has_left(self) -> bool:
        """Whether the app returned."""
        return self._left.is_set()

    async def say(self, farewell: Awaitable[object] | None) -> None:
        """Await what ends the connection in the eyes of the client; that it cannot be told is no failure."""
        try:
            if farewell is not None:
                async with asyncio.timeout(FAREWELL_SECONDS):
                    await farewell
        except Exception as error:  # noqa: BLE001  a server may raise anything: its client may be gone
            logger.debug("a connection was %s, and its client could not be told: %r", self.reason, error)
        finally:
            self.let_go()

    def let_go(self) -> None:
        """Keep the app's task no longer."""
        self._said.set()

    async def leave(self) -> None:
        """Say that the app has returned; wait until the client was told, for then the server closes the connection."""
        self._left.set()
        await self._said.wait()

    async def left_within(self, seconds: float) -> bool:
        """Wait for the app to return, and tell whether it did."""
        try:
            async with asyncio.timeout(seconds):
                await self._left.wait()
        except TimeoutError:
            return False
        return True

    async def cancel_unless_left(self, task: asyncio.Task[Any] | None, seconds: float) -> None:
        """Cancel the app's task if it goes on for so many seconds as if nothing had happened."""
        if await self.left_within(seconds) or task is None:
            return
        logger.warning("a connection was %s, and its app still runs %g s later: it is cancelled", self.reason, seconds)
        self._cancelled = task
        task.cancel()

    def absorbs(self, error: BaseException) -> bool:
        """Tell whether what came out of the app came because its connection ended, and is to go no further."""
        if not self._explains(error):
            return False
        if isinstance(error, asyncio.CancelledError) and asyncio.current_task() is self._cancelled:
            return self._cancelled is None or self._cancelled.uncancel() == 0
        return True

    def _explains(self, error: BaseException) -> bool:
        if isinstance(error, BaseExceptionGroup):
            return all(map(self._explains, error.exceptions))
        if isinstance(error, asyncio.CancelledError):
            return self._cancelled is not None
        return isinstance(error, Disconnected | ClientDisconnect | WebSocketDisconnect)

"""Who waits for a key to be changed by another node."""

from __future__ import annotations

from asyncio import Future, get_running_loop
from functools import partial
from typing import Final


class Watchers:
    """Futures by key, each done at the next change of its key.

    A future that was cancelled leaves by itself. Where `limit` of them wait, further ones are never done: news may be
    lost anyway, and whoever waits looks now and then.
    """

    def __init__(self, limit: int = 4096) -> None:
        self._limit = limit
        self._waiting: Final[dict[bytes, set[Future[None]]]] = {}
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def watch(self, key: bytes) -> Future[None]:
        """Return a future of the next change of a key, for the running event loop."""
        future: Future[None] = get_running_loop().create_future()
        if self._count < self._limit:
            self._waiting.setdefault(key, set()).add(future)
            self._count += 1
            future.add_done_callback(partial(self._leave, key))
        return future

    def wake(self, key: bytes) -> None:
        """Tell all who wait for a key."""
        waiting = self._waiting.pop(key, None) or set()
        self._count -= len(waiting)
        for future in waiting:
            if not future.done() and not future.get_loop().is_closed():
                future.set_result(None)

    def wake_all(self, prefix: bytes = b"") -> None:
        """Tell all who wait for any key with this beginning."""
        for key in [key for key in self._waiting if key.startswith(prefix)]:
            self.wake(key)

    def _leave(self, key: bytes, future: Future[None]) -> None:
        waiting = self._waiting.get(key)
        if waiting is None or future not in waiting:
            return
        waiting.discard(future)
        self._count -= 1
        if not waiting:
            del self._waiting[key]

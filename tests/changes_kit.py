"""Who listens to the changes of a tier, and keeps what he hears."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, asynccontextmanager

from oidc_middleware.cache.changes import EVERYTHING, Change

from redis_kit import until


class Ear:
    """What was heard so far. `gaps` is how often everything may have changed; `ended`, whether there is no more."""

    def __init__(self) -> None:
        self.heard: list[Change] = []
        self.ended = False

    @property
    def gaps(self) -> int:
        return self.heard.count(EVERYTHING)

    @property
    def named(self) -> list[Change]:
        return [change for change in self.heard if change != EVERYTHING]

    async def hears(self, kind: str, *keys: bytes) -> None:
        """Wait for a change of exactly these keys, or of the type where there are none, and forget it."""
        wanted = Change(kind, frozenset(keys) or None)
        await until(lambda: wanted in self.heard)
        self.heard.remove(wanted)

    async def loses_track(self) -> None:
        """Wait for the news that everything may have changed, and forget all."""
        await until(lambda: self.gaps)
        self.heard.clear()

    async def listen(self, changes: AsyncGenerator[Change]) -> None:
        async with aclosing(changes):
            async for change in changes:
                self.heard.append(change)
        self.ended = True


@asynccontextmanager
async def listening(changes: AsyncGenerator[Change]) -> AsyncIterator[Ear]:
    """Listen until the block ends, from the moment at which the place in the changes is known."""
    ear = Ear()
    task = asyncio.create_task(ear.listen(changes))
    try:
        await ear.loses_track()
        yield ear
    finally:
        task.cancel()
        await asyncio.wait((task,))
    if not task.cancelled():
        task.result()

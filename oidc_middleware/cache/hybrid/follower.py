"""Applying to memory what other nodes change in the shared tier."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from contextlib import aclosing

from oidc_middleware.cache.changes import EVERYTHING, Change, ChangingBackend, changing
from oidc_middleware.cache.hybrid.coherence import Coherence
from oidc_middleware.cache.hybrid.tiers import Tiers

_LOGGER = logging.getLogger("oidc_middleware.cache")
# Between two tries to follow, at least and at most, in seconds; the pause has a random length (full jitter).
_AT_LEAST = 0.05
_AT_MOST = 2.0


class Follower:
    """Drops from memory what others changed, as the shared tier tells it, for as long as its task runs.

    - Entries of a replicated type stay: what is revoked stays so, whatever the shared tier says.
    - Where everything may have changed, what a revocation drops stays: their life in memory is bounded, revocations
      have a way of their own, and without memory every node would verify all tokens again, all at once, in the very
      moment in which the shared tier has trouble.
    """

    def __init__(
        self,
        tiers: Tiers,
        coherence: Coherence,
        random: Callable[[], float],
    ) -> None:
        self.gaps: int = 0
        """How often everything may have changed, the beginning included."""
        self._tiers = tiers
        self._tier: ChangingBackend | None = changing(tiers.shared)
        self._coherence = coherence
        self._random = random
        self._has_complained = False

    @property
    def staleness(self) -> float | None:
        """How many seconds ago memory knew of all changes for certain; None: never yet, or there is nobody to tell."""
        return self._tier.staleness() if self._tier is not None else None

    async def follow(self) -> None:
        """Apply changes; return when there is nobody to tell them. A fault ends nothing."""
        tier = self._tier
        if tier is None:
            return
        while await self._follow(tier):
            await self._pause()

    async def _follow(self, tier: ChangingBackend) -> bool:
        """Apply changes until there are no more; tell whether there may be some later."""
        is_told = False
        try:
            async with aclosing(tier.changes()) as changes:
                async for change in changes:
                    is_told = True
                    self._apply(change)
                    await asyncio.sleep(0)  # others have their turn, however many changes come at once
        except Exception:
            if not self._has_complained:
                self._has_complained = True
                _LOGGER.exception("Following the shared cache failed unexpectedly. This is told once.")
        else:
            return is_told  # it was let go of beneath us
        self._apply(EVERYTHING)
        return True

    async def _pause(self) -> None:
        await asyncio.sleep(max(_AT_LEAST, _AT_MOST * self._random()))

    def _apply(self, change: Change) -> None:
        if change.kind is None:
            self.gaps += 1
            for room in self._tiers.rooms.all():
                if room.kind.coherence == "invalidated":
                    self._coherence.invalidate_all(room.kind)
            return
        kind = self._tiers.rooms.kind_of(change.kind)
        if kind is None or kind.coherence == "replicated":
            return  # nothing of it is in memory, or it stays there
        if change.keys is None:
            self._coherence.invalidate_all(kind)
        for key in change.keys or ():
            self._coherence.invalidate(kind, key)

"""The two tiers, and what is known between them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from oidc_middleware.cache.backend import Backend, Entry
from oidc_middleware.cache.hybrid.placeholders import Placeholders
from oidc_middleware.cache.hybrid.rooms import Rooms
from oidc_middleware.cache.hybrid.standing import Standing
from oidc_middleware.cache.hybrid.unsettled import Unsettled
from oidc_middleware.cache.memory import MemoryBackend
from oidc_middleware.cache.types import CacheType
from oidc_middleware.cache.waiters import HURRY


@dataclass(frozen=True, slots=True)
class Tiers:
    """What reading, writing and recovery share: it outlives the event loop.

    `irreplaceable` names the types whose entries have no other source. `now` is wall time; no call to the shared tier
    is waited for longer than `budget` seconds, and several in a row hardly longer than one: see `patience`.
    """

    memory: MemoryBackend
    shared: Backend
    rooms: Rooms
    placeholders: Placeholders
    unsettled: Unsettled
    standing: Standing
    irreplaceable: frozenset[str]
    now: Callable[[], float]
    budget: float

    @property
    def patience(self) -> float:
        """The seconds that a caller waits now: little while the shared tier hangs, so that one request pays once."""
        return self.budget * HURRY if self.standing.hangs else self.budget

    def keeps(self, kind: CacheType, entry: Entry) -> bool:
        """Tell whether an entry is stored: its end has not come, and memory may hold one that is so large."""
        fits = kind.limits is None or len(entry.value) <= kind.limits.max_entry_bytes
        return fits and self.now() < entry.expires_at

"""What belongs to one cache type on its way between the tiers: a name for its keys, and what happened to it."""

from __future__ import annotations

from dataclasses import dataclass

from oidc_middleware.cache.memory import MemoryBackend
from oidc_middleware.cache.types import CacheType

_PREFIX_BYTES = 2


@dataclass(slots=True)
class Room:
    """One type. `prefix` begins its keys wherever keys of several types meet.

    `hits` were answered by the shared tier, `misses` by none; `fills` went from there into memory. `writes` were
    acknowledged by the shared tier.
    """

    kind: CacheType
    prefix: bytes
    hits: int = 0
    misses: int = 0
    fills: int = 0
    writes: int = 0


class Rooms:
    """The rooms of all types that were used so far. With a room, a type's life in memory gets its bound."""

    def __init__(self, memory: MemoryBackend) -> None:
        self._memory = memory
        self._by_name: dict[str, Room] = {}
        self._by_prefix: dict[bytes, Room] = {}

    def of(self, kind: CacheType) -> Room:
        """Return the room of a type."""
        room = self._by_name.get(kind.name)
        if room is None:
            self._memory.limit_life(kind, kind.memory_life(shared=True))
            room = Room(kind, len(self._by_name).to_bytes(_PREFIX_BYTES))
            self._by_name[kind.name] = self._by_prefix[room.prefix] = room
        return room

    def kind_of(self, name: str) -> CacheType | None:
        """Return the type of this name, None when it was not used yet."""
        room = self._by_name.get(name)
        return None if room is None else room.kind

    @staticmethod
    def prefix_of(full: bytes) -> bytes:
        """Return the prefix of a key with its prefix."""
        return full[:_PREFIX_BYTES]

    def split(self, full: bytes) -> tuple[Room, bytes]:
        """Return the room and the key of a key with its prefix."""
        return self._by_prefix[full[:_PREFIX_BYTES]], full[_PREFIX_BYTES:]

    def all(self) -> list[Room]:
        """Return all rooms."""
        return list(self._by_name.values())

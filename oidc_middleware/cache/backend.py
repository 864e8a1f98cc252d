"""What every cache tier can do: keep bytes under a digest until a point in time."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import NamedTuple, Protocol, runtime_checkable

from oidc_middleware.cache.types import CacheType


class Entry(NamedTuple):
    """A value and its end, in Unix time (seconds)."""

    value: bytes
    expires_at: float

    def remaining(self, now: float) -> float:
        """Return the seconds that are left at `now`, 0 when the end has come."""
        return max(0.0, self.expires_at - now)


class Health(NamedTuple):
    """Whether a tier answers; `detail` says what is wrong, or how the tiers beneath fare."""

    healthy: bool
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Counts:
    """What happened to one type in one tier since it was made, and what it holds now.

    `evicted` left for want of room, `expired` at their end; `refused` were too large or could not be read.
    """

    hits: int = 0
    misses: int = 0
    sets: int = 0
    evicted: int = 0
    expired: int = 0
    refused: int = 0
    entries: int = 0
    bytes: int = 0


class Backend(Protocol):
    """A cache tier.

    Keys are digests: a tier may log, list and send them. Expiry is absolute, so that time spent under way never
    lengthens a life; an entry whose end has come is not there, whatever the tier still holds. The type of an entry is
    an argument and never part of the key: the same key under two types is two entries.

    Every method may raise `BackendUnavailable`; the floor that knows the risk decides what that means.
    """

    async def get(self, kind: CacheType, key: bytes) -> Entry | None:
        """Return the entry, None when there is none."""

    async def set(self, kind: CacheType, key: bytes, value: bytes, expires_at: float, wait: bool | None = None) -> None:  # noqa: FBT001
        """Store a copy of `value` until `expires_at` (Unix time in seconds); an end in the past deletes the key.

        `wait` tells whether to return only after the slowest tier has it; None: as the type's row says.

        Raises:
            ValueError: `expires_at` is not a finite number.
            TypeError: `value` is not bytes-like.
            BackendUnavailable: also after `close`.
        """

    async def add(self, kind: CacheType, key: bytes, value: bytes, expires_at: float) -> bool:
        """Store as `set` does unless there is an entry, and wait for it; tell whether it was stored.

        Of several callers with one key, on any nodes, one at most is told that it was.

        Raises:
            ValueError: `expires_at` is not a finite number.
            TypeError: `value` is not bytes-like.
            BackendUnavailable: nobody knows whether it was stored; also after `close`.
        """

    async def delete(self, kind: CacheType, key: bytes) -> bool:
        """Delete the entry; tell whether there was one."""

    async def exists(self, kind: CacheType, key: bytes) -> bool:
        """Tell whether there is an entry."""

    async def clear(self, kind: CacheType) -> None:
        """Delete every entry of the type."""

    async def get_many(self, kind: CacheType, keys: Iterable[bytes]) -> dict[bytes, Entry]:
        """Return the entries that there are, by key."""

    async def set_many(self, kind: CacheType, entries: Mapping[bytes, Entry], wait: bool | None = None) -> None:  # noqa: FBT001
        """Do what `set` does, for many; when one of them is wrong, none is stored."""

    async def ping(self) -> Health:
        """Tell whether the tier answers."""

    def stats(self) -> Mapping[str, Counts]:
        """Return the counts by type name; never waits."""

    async def close(self) -> None:
        """Let go of everything; a second time does nothing."""


@runtime_checkable
class Suspendable(Protocol):
    """A backend that can be left alone for a while without being closed."""

    async def suspend(self) -> None:
        """Write what waits, within 5 s, and let go of tasks, connections and files; the next call makes new ones."""


async def suspend(backend: object) -> None:
    """Have a backend let go of what it holds while nobody uses it, if it holds anything."""
    if isinstance(backend, Suspendable):
        await backend.suspend()


def checked_end(expires_at: float) -> float:
    """Return `expires_at` as a float.

    Raises:
        ValueError: it is not a finite number; such an end would never come, or never have been.
    """
    try:
        if math.isfinite(expires_at):
            return float(expires_at)
    except OverflowError:
        pass
    raise ValueError("an entry must end at a finite time")


def checked_value(value: bytes) -> bytes:
    """Return `value` as bytes that nobody can change; a bytearray or memoryview is copied.

    Raises:
        TypeError: it is not bytes-like.
    """
    if type(value) is bytes:
        return value
    if isinstance(value, bytes | bytearray | memoryview):
        return bytes(value)
    raise TypeError(f"a backend stores bytes, not {type(value).__name__}")

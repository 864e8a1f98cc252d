"""What every cache tier can do: keep bytes under a digest until a point in time."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final, NamedTuple, Protocol, runtime_checkable

from oidc_middleware.cache.types import CacheType

VERSIONS: Final = 2**53
"""So many versions there are, from 0: those that a double holds exactly, for scripts in Redis count in doubles."""


class Entry(NamedTuple):
    """A value and its end, in Unix time (seconds), and which one of its key's values it is: later ones have more."""

    value: bytes
    expires_at: float
    version: int = 0

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

        Whatever was there is replaced. The entry has version 0.

        `wait` tells whether to return only after the slowest tier has it; None: as the type's row says.

        Raises:
            ValueError: `expires_at` is not a finite number.
            TypeError: `value` is not bytes-like.
            BackendUnavailable: also after `close`.
        """

    async def add(self, kind: CacheType, key: bytes, value: bytes, expires_at: float, version: int = 0) -> bool:
        """Store as `set` does unless there is an entry, and wait for it; tell whether it was stored.

        Of several callers with one key, on any nodes, one at most is told that it was.

        Raises:
            ValueError: `expires_at` is not a finite number, or `version` not from 0 to `VERSIONS`.
            TypeError: `value` is not bytes-like, or `version` no integer.
            BackendUnavailable: nobody knows whether it was stored; also after `close`.
        """

    async def update(self, kind: CacheType, key: bytes, value: bytes, expires_at: float, version: int) -> bool:
        """Replace an entry of a lower version, and wait for it; tell whether that was done.

        Where there is no entry, or one of this or a higher version, nothing changes: in whatever order updates arrive,
        the highest version stays, and none brings back what was deleted or has ended. An end in the past changes
        nothing either.

        Raises:
            ValueError: `expires_at` is not a finite number, or `version` not from 0 to `VERSIONS`.
            TypeError: `value` is not bytes-like, or `version` no integer.
            BackendUnavailable: nobody knows whether it was done, and it may be done again; also after `close`.
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
        """Do what `set` does, for many, each with its version; when one of them is wrong, none is stored."""

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


def checked_version(version: int) -> int:
    """Return `version`.

    Raises:
        ValueError: it is negative, or too large to be exact everywhere.
        TypeError: it is not an integer.
    """
    if type(version) is not int:
        raise TypeError(f"a version is an integer, not {type(version).__name__}")
    if not 0 <= version < VERSIONS:
        raise ValueError(f"a version is from 0 to 2^53 - 1, not {version}")
    return version


def checked_entry(value: bytes, expires_at: float, version: int = 0) -> Entry:
    """Return an entry that can be stored.

    Raises:
        ValueError: the end is not a finite number, or there is no such version.
        TypeError: the value is not bytes-like, or the version not an integer.
    """
    return Entry(checked_value(value), checked_end(expires_at), checked_version(version))

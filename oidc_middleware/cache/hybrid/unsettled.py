"""What a further tier missed: keys of which it is not known what it has, until somebody puts that right."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice

from oidc_middleware.cache.backend import Entry

_MIB = 1024 * 1024
# What Python takes for a key and its place in the books, in bytes.
_OVERHEAD = 300


@dataclass(frozen=True, slots=True)
class UnsettledCounts:
    """What waits to be put right: keys to delete, entries to add, types to clear; `refused` entries found no room."""

    deletes: int = 0
    adds: int = 0
    clears: int = 0
    refused: int = 0


class Unsettled:
    """Keys whose write or delete failed, or has an unknown outcome.

    They are not written again, for others may have written since. A key is deleted, so that nobody reads what is
    outdated; an entry that has no other source is kept here and added where there is nothing under its key. Where too
    many keys of a type would have to be deleted, the whole type is to be cleared. A key begins with the prefix of its
    type.
    """

    def __init__(self, max_keys: int = 50_000, max_bytes: int = 16 * _MIB) -> None:
        self._max_keys = max_keys
        self._max_bytes = max_bytes
        self._deletes: dict[bytes, None] = {}
        self._adds: dict[bytes, Entry] = {}
        self._clears: dict[bytes, int] = {}
        self._cleared = 0
        self._bytes = 0
        self._refused = 0

    def __bool__(self) -> bool:
        return bool(self._deletes or self._adds or self._clears)

    def __contains__(self, key: bytes) -> bool:
        return key in self._deletes or key in self._adds

    def counts(self) -> UnsettledCounts:
        """Return how much there is of what."""
        return UnsettledCounts(len(self._deletes), len(self._adds), len(self._clears), self._refused)

    def must_delete(self, key: bytes) -> bool:
        """Note that a key is to be deleted; tell whether there was room for the note."""
        self.discard(key)
        if len(self._deletes) >= self._max_keys or self._bytes + len(key) + _OVERHEAD > self._max_bytes:
            return False
        self._deletes[key] = None
        self._bytes += len(key) + _OVERHEAD
        return True

    def must_add(self, key: bytes, entry: Entry) -> None:
        """Keep an entry that is to be added; where there is no room for it, it is lost and counted."""
        self.discard(key)
        size = len(key) + len(entry.value) + _OVERHEAD
        if self._bytes + size > self._max_bytes:
            self._refused += 1
            return
        self._adds[key] = entry
        self._bytes += size

    def must_clear(self, prefix: bytes) -> int:
        """Note that a whole type is to be cleared, and return the number of this note.

        Entries that are kept for it stay; they are added afterwards.
        """
        for key in [key for key in self._deletes if key.startswith(prefix)]:
            self.discard(key)
        self._cleared += 1
        self._clears[prefix] = self._cleared
        return self._cleared

    def discard(self, key: bytes) -> None:
        """Forget a key: a newer write of it was acknowledged."""
        entry = self._adds.pop(key, None)
        if entry is not None:
            self._bytes -= len(key) + len(entry.value) + _OVERHEAD
        elif key in self._deletes:
            del self._deletes[key]
            self._bytes -= len(key) + _OVERHEAD

    def discard_clear(self, prefix: bytes, number: int) -> None:
        """Forget that a type is to be cleared, unless that was noted again after the note with this number."""
        if self._clears.get(prefix) == number:
            del self._clears[prefix]

    def discard_adds(self, prefix: bytes) -> None:
        """Forget the entries that are kept for a type."""
        for key in [key for key in self._adds if key.startswith(prefix)]:
            self.discard(key)

    def kept(self, key: bytes) -> Entry | None:
        """Return the entry that is kept for a key."""
        return self._adds.get(key)

    def is_unknown(self, key: bytes) -> bool:
        """Tell whether what the tier has under a key is not to be believed."""
        return key in self._deletes or any(key.startswith(prefix) for prefix in self._clears)

    def clears(self) -> list[tuple[bytes, int]]:
        """Return the prefixes of the types to clear, each with the number of its note."""
        return list(self._clears.items())

    def deletes(self, most: int) -> list[bytes]:
        """Return the keys to delete, so many of the oldest at most."""
        return list(islice(self._deletes, most))

    def adds(self) -> Iterator[tuple[bytes, Entry]]:
        """Yield the entries to add; they may change meanwhile."""
        for key in list(self._adds):
            entry = self._adds.get(key)
            if entry is not None:
                yield key, entry

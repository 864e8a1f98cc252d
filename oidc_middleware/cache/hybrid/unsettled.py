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
    """What waits to be put right: keys to delete, entries to add or update, types to clear; `refused` found no room."""

    deletes: int = 0
    adds: int = 0
    updates: int = 0
    clears: int = 0
    refused: int = 0


class Unsettled:
    """Keys whose write or delete failed, or has an unknown outcome.

    They are not written again, for others may have written since. A key is deleted, so that nobody reads what is
    outdated; an entry that has no other source is kept here, and added where there is nothing under its key, or takes
    the place of an older version of itself. Where too many keys of a type would have to be deleted, the whole type is
    to be cleared. A key begins with the prefix of its type. Keys to delete and entries that are kept may
    take `max_bytes` each: neither takes the room of the other.
    """

    def __init__(self, max_keys: int = 50_000, max_bytes: int = 16 * _MIB) -> None:
        self._max_keys = max_keys
        self._max_bytes = max_bytes
        self._deletes: dict[bytes, None] = {}
        self._kept: dict[bytes, Entry] = {}
        self._born: set[bytes] = set()
        self._unsure: set[bytes] = set()
        self._clears: dict[bytes, int] = {}
        self._cleared = 0
        self._delete_bytes = 0
        self._add_bytes = 0
        self._refused = 0

    def __bool__(self) -> bool:
        return bool(self._deletes or self._kept or self._clears)

    def __contains__(self, key: bytes) -> bool:
        return key in self._deletes or key in self._kept

    def counts(self) -> UnsettledCounts:
        """Return how much there is of what."""
        return UnsettledCounts(
            deletes=len(self._deletes),
            adds=len(self._born),
            updates=len(self._kept) - len(self._born),
            clears=len(self._clears),
            refused=self._refused,
        )

    def must_delete(self, key: bytes) -> bool:
        """Note that a key is to be deleted; tell whether there was room for the note."""
        self.discard(key)
        size = _size(key)
        if len(self._deletes) >= self._max_keys or self._delete_bytes + size > self._max_bytes:
            return False
        self._deletes[key] = None
        self._delete_bytes += size
        return True

    def must_add(self, key: bytes, entry: Entry) -> None:
        """Keep an entry that is to be added; where there is no room for it, it is lost and counted."""
        self.discard(key)
        if self._keep(key, entry):
            self._born.add(key)

    def must_update(self, key: bytes, entry: Entry, *, lives: bool) -> None:
        """Keep an entry that is to take the place of an older version, of one that is still to be added as well.

        `lives` tells whether it is known that there is one; else it may have been deleted long ago, and is not served.
        A newer one that is kept already stays. Where there is no room for it, it is lost and counted.
        """
        before, was_born = self._kept.get(key), key in self._born
        if before is not None and before.version > entry.version:
            return
        self.discard(key)
        if self._keep(key, entry):
            if was_born:
                self._born.add(key)
            if not lives:
                self._unsure.add(key)

    def _keep(self, key: bytes, entry: Entry) -> bool:
        size = _size(key, entry.value)
        if self._add_bytes + size > self._max_bytes:
            self._refused += 1
            return False
        self._kept[key] = entry
        self._add_bytes += size
        return True

    def must_clear(self, prefix: bytes) -> int:
        """Note that a whole type is to be cleared, and return the number of this note.

        Entries that are kept for it stay; they are made up for afterwards.
        """
        for key in [key for key in self._deletes if key.startswith(prefix)]:
            self.discard(key)
        self._cleared += 1
        self._clears[prefix] = self._cleared
        return self._cleared

    def discard(self, key: bytes) -> None:
        """Forget a key: a newer write of it was acknowledged."""
        self._born.discard(key)
        self._unsure.discard(key)
        entry = self._kept.pop(key, None)
        if entry is not None:
            self._add_bytes -= _size(key, entry.value)
        elif key in self._deletes:
            del self._deletes[key]
            self._delete_bytes -= _size(key)

    def discard_clear(self, prefix: bytes, number: int) -> None:
        """Forget that a type is to be cleared, unless that was noted again after the note with this number."""
        if self._clears.get(prefix) == number:
            del self._clears[prefix]

    def discard_kept(self, prefix: bytes) -> None:
        """Forget the entries that are kept for a type."""
        for key in [key for key in self._kept if key.startswith(prefix)]:
            self.discard(key)

    def kept(self, key: bytes) -> Entry | None:
        """Return the entry that is kept for a key."""
        return self._kept.get(key)

    def served(self, key: bytes) -> Entry | None:
        """Return the entry that is kept for a key, if it is known that the key lives."""
        return None if key in self._unsure else self._kept.get(key)

    def is_born(self, key: bytes) -> bool:
        """Tell whether an entry is kept for a key that the tier may never have seen."""
        return key in self._born

    def is_to_be_deleted(self, key: bytes) -> bool:
        """Tell whether the tier is owed the deletion of this key."""
        return key in self._deletes

    def is_unknown(self, key: bytes) -> bool:
        """Tell whether what the tier has under a key is not to be believed."""
        return key in self._deletes or any(key.startswith(prefix) for prefix in self._clears)

    def clears(self) -> list[tuple[bytes, int]]:
        """Return the prefixes of the types to clear, each with the number of its note."""
        return list(self._clears.items())

    def deletes(self, most: int) -> list[bytes]:
        """Return the keys to delete, so many of the oldest at most."""
        return list(islice(self._deletes, most))

    def entries(self) -> Iterator[tuple[bytes, Entry]]:
        """Yield the entries that are kept; they may change meanwhile."""
        for key in list(self._kept):
            entry = self._kept.get(key)
            if entry is not None:
                yield key, entry


def _size(key: bytes, value: bytes = b"") -> int:
    """Return the bytes that a key and what is kept for it take, roughly."""
    return len(key) + len(value) + _OVERHEAD

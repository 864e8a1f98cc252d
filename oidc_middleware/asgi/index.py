"""Connections by the digests that records of the ledger have."""

from __future__ import annotations

from collections.abc import Hashable, Iterable
from typing import Generic, TypeVar

T = TypeVar("T", bound=Hashable)


class Index(Generic[T]):
    """Things by digest, several of each. Most tokens and sessions have one thing open, and that needs no set."""

    def __init__(self) -> None:
        self._alone: dict[int, T] = {}
        self._several: dict[int, set[T]] = {}

    def __len__(self) -> int:
        return len(self._alone) + sum(map(len, self._several.values()))

    def __bool__(self) -> bool:
        return bool(self._alone or self._several)

    def find(self, digest: int) -> Iterable[T]:
        """Return the things that have a digest."""
        if digest in self._alone:
            return (self._alone[digest],)
        return self._several.get(digest, ())

    def add(self, digest: int, thing: T) -> None:
        """Have a thing found by a digest."""
        if digest in self._several:
            self._several[digest].add(thing)
        elif self._alone.setdefault(digest, thing) is not thing:
            self._several[digest] = {self._alone.pop(digest), thing}

    def discard(self, digest: int, thing: T) -> None:
        """Have a thing found by a digest no more, if it was."""
        if self._alone.get(digest) is thing:
            del self._alone[digest]
        elif digest in self._several:
            things = self._several[digest]
            things.discard(thing)
            if not things:
                del self._several[digest]

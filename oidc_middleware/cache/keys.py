"""Which key a name in the shared tier stands for, for as long as memory may have something of it."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

from oidc_middleware.cache.changes import Change
from oidc_middleware.cache.types import CacheType

# What is read now may be in memory a little later, in seconds.
_MARGIN = 1.0


class _Names:
    """The names of one type in two generations, each as old as `life` at most when its successor comes.

    So a name is known for one to two lives after it was last remembered. Where a generation is full before its time,
    names are forgotten too early; the type is blind until the last of them cannot matter any more.
    """

    def __init__(self, life: float, most: int, now: float) -> None:
        self.asked: list[Mapping[bytes, bytes]] = []
        """For each question under way, the names that it asks for with their keys."""
        self._life = life
        self._most = most
        self._young: dict[bytes, bytes] = {}
        self._old: dict[bytes, bytes] = {}
        self._born_at = now
        self._blind_until = -math.inf

    def __len__(self) -> int:
        return len(self._young) + len(self._old)

    def remember(self, names: Mapping[bytes, bytes], now: float) -> None:
        """Remember the keys of names from now on."""
        is_full = len(self._young) >= self._most
        if is_full or now - self._born_at >= self._life:
            if self._old:
                self._blind_until = self._born_at + self._life  # in the past, if it is time
            self._old, self._young, self._born_at = self._young, {}, now
        self._young.update(names)

    def key_of(self, name: bytes) -> bytes | None:
        """Return the key of a name, None when nothing in memory can be of it, or the type is blind."""
        for known in (*self.asked, self._young, self._old):
            if name in known:
                return known[name]
        return None

    def is_blind(self, now: float) -> bool:
        """Tell whether an unknown name may be that of something in memory."""
        return now < self._blind_until


class KeysByName:
    """The keys of all names that were asked for or written here, for as long as a change of them matters here.

    That is while somebody asks, and then as long as memory may keep the answer. Names of absent entries are forgotten
    with the answer, so that a flood of them drives out nobody. `most` bounds each generation of a type (two are kept).
    """

    def __init__(self, monotonic: Callable[[], float], most: int) -> None:
        self._now = monotonic
        self._most = most
        self._types: dict[str, _Names] = {}

    def __len__(self) -> int:
        return sum(len(names) for names in self._types.values())

    def remember(self, kind: CacheType, names: Mapping[bytes, bytes]) -> None:
        """Remember the keys of names: what is under them is written here, or was found."""
        self._of(kind).remember(names, self._now())

    @contextmanager
    def asking(self, kind: CacheType, names: Mapping[bytes, bytes]) -> Iterator[None]:
        """Know the keys of names while somebody asks for them."""
        asked = self._of(kind).asked
        asked.append(names)
        try:
            yield
        finally:
            asked[:] = [other for other in asked if other is not names]

    def translate(self, change: Change) -> Change | None:
        """Return a change of names as one of keys, None when it is about nothing that memory may have."""
        if change.kind is None or change.keys is None:
            return change
        known = self._types.get(change.kind)
        if known is None:
            return None
        found = [known.key_of(name) for name in change.keys]
        if None in found and known.is_blind(self._now()):
            return Change(change.kind)
        keys = frozenset(key for key in found if key is not None)
        return Change(change.kind, keys) if keys else None

    def _of(self, kind: CacheType) -> _Names:
        names = self._types.get(kind.name)
        if names is None:
            life = math.inf if kind.l1_life is None else kind.l1_life + _MARGIN
            names = self._types[kind.name] = _Names(life, self._most, self._now())
        return names

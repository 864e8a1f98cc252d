"""The table of cache types: what each keeps, how much of it, and how a write travels."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

Write = Literal["queued", "synchronous"]
Coherence = Literal["invalidated", "dropped by revocation", "replicated"]

_KIB = 1024
_MIB = 1024 * _KIB


@dataclass(frozen=True, slots=True)
class Limits:
    """How much memory may hold: entries, their bytes with what Python adds to them, and the bytes of one entry."""

    max_entries: int
    max_bytes: int
    max_entry_bytes: int

    def __post_init__(self) -> None:
        if not (self.max_entries >= 1 and 1 <= self.max_entry_bytes <= self.max_bytes):
            raise ValueError(f"{self}: one entry must fit, and no entry may be larger than all of them")


@dataclass(frozen=True, slots=True)
class CacheType:
    """One row of the table.

    `l1_life` is how long memory may answer, in seconds, before a source that knows better is asked (None: to the
    entry's own end). `limits` bound memory; None: nothing is ever evicted, entries leave by expiry alone. `negative`
    bounds the negative answers of the type, which then have a partition of their own. `stale` is how long an expired
    entry is kept, in seconds, for whoever asks with `peek_stale`.
    """

    name: str
    l1_life: float | None
    write: Write
    coherence: Coherence
    limits: Limits | None
    negative: Limits | None = None
    stale: float = 0.0

    @property
    def evictable(self) -> bool:
        """Whether an entry may be dropped before its end."""
        return self.limits is not None

    def memory_life(self, *, shared: bool) -> float:
        """Return how long memory may answer, in seconds, given whether a shared tier lies beneath it (inf: to the end).

        Without a shared tier memory is itself the source of most types. What a revocation drops has another source
        always: the token is verified again, the issuer is asked again.
        """
        has_source = shared or self.coherence == "dropped by revocation"
        return self.l1_life if has_source and self.l1_life is not None else math.inf


_MINUTE = 60.0
_DAY = 86_400.0
_DOCUMENTS = Limits(max_entries=256, max_bytes=32 * _MIB, max_entry_bytes=4 * _MIB)
_NEGATIVE = Limits(max_entries=16_384, max_bytes=8 * _MIB, max_entry_bytes=4 * _KIB)

_ROWS = (
    CacheType("metadata", 10 * _MINUTE, "queued", "invalidated", _DOCUMENTS, stale=_DAY),
    CacheType("jwk", 10 * _MINUTE, "queued", "invalidated", _DOCUMENTS, stale=_DAY),
    CacheType(
        "token", _MINUTE, "synchronous", "dropped by revocation", Limits(131_072, 192 * _MIB, 64 * _KIB), _NEGATIVE
    ),
    CacheType("blacklist", None, "synchronous", "replicated", limits=None),
    CacheType("session", 5.0, "queued", "invalidated", Limits(65_536, 128 * _MIB, 64 * _KIB)),
    CacheType(
        "introspection", _MINUTE, "queued", "dropped by revocation", Limits(65_536, 128 * _MIB, 64 * _KIB), _NEGATIVE
    ),
    CacheType("general", _MINUTE, "queued", "invalidated", Limits(16_384, 64 * _MIB, _MIB), _NEGATIVE),
)

TYPES: Mapping[str, CacheType] = MappingProxyType({row.name: row for row in _ROWS})
"""Every cache type by name."""

"""What a hybrid backend tells about itself."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from oidc_middleware.cache.backend import Counts
from oidc_middleware.cache.hybrid.follower import Follower
from oidc_middleware.cache.hybrid.tiers import Tiers
from oidc_middleware.cache.hybrid.unsettled import UnsettledCounts
from oidc_middleware.cache.writer import GroupCommitWriter, WriteCounts
from oidc_middleware.errors import FailureKind


@dataclass(frozen=True, slots=True)
class Overview:
    """What happened since the backend was made, in both tiers.

    `l1_hits` were answered by memory, `l2_hits` by the shared tier, `misses` by neither. `l2_writes` were acknowledged.
    `errors` counts batches and single calls that failed, by kind. `fallback` tells whether memory does alone, for
    reads, writes or both. `last_error_age` is in seconds, None when nothing failed yet. `queued` writes wait; `writer`
    tells what became of those before them, over the present event loop. `unsettled` is what the shared tier missed and
    has yet to be made up for. `staleness` is how many seconds ago memory knew for certain of everything that others had
    changed; None: never yet, or the shared tier does not tell. `gaps` is how often all that others may have changed was
    forgotten, for want of knowing what they did (the beginning counts), over the present event loop. `l1` and `l2` are
    the statistics of the tiers, by type name.
    """

    l1_hits: int
    l2_hits: int
    misses: int
    l1_writes: int
    l2_writes: int
    errors: Mapping[FailureKind, int]
    fallback: bool
    last_error: str
    last_error_age: float | None
    queued: int
    queued_bytes: int
    writer: WriteCounts
    unsettled: UnsettledCounts
    staleness: float | None
    gaps: int
    l1: Mapping[str, Counts]
    l2: Mapping[str, Counts]

    @property
    def total(self) -> int:
        """How many reads there were."""
        return self.l1_hits + self.l2_hits + self.misses

    @property
    def l1_hit_rate(self) -> float:
        """The share of all reads that memory answered, 0 to 1."""
        return _share(self.l1_hits, self.total)

    @property
    def l2_hit_rate(self) -> float:
        """The share of the reads that reached the shared tier which it answered, 0 to 1."""
        return _share(self.l2_hits, self.l2_hits + self.misses)

    @property
    def hit_rate(self) -> float:
        """The share of all reads that were answered, 0 to 1."""
        return _share(self.l1_hits + self.l2_hits, self.total)


def both_tiers(tiers: Tiers) -> dict[str, Counts]:
    """Return the counts by type name: hits of both tiers, misses of both, and what memory holds."""
    near = tiers.memory.stats()
    for room in tiers.rooms.all():
        counts = near[room.kind.name]
        near[room.kind.name] = replace(
            counts, hits=counts.hits + room.hits, misses=room.misses, sets=counts.sets - room.fills
        )
    return near


def overview_of(tiers: Tiers, writer: GroupCommitWriter | None = None, follower: Follower | None = None) -> Overview:
    """Return what happened so far; without an event loop there is neither a writer nor a follower."""
    rooms, standing, near = tiers.rooms.all(), tiers.standing, tiers.memory.stats()
    fills = sum(room.fills for room in rooms)
    return Overview(
        l1_hits=sum(counts.hits for counts in near.values()),
        l2_hits=sum(room.hits for room in rooms),
        misses=sum(room.misses for room in rooms),
        l1_writes=sum(counts.sets for counts in near.values()) - fills,
        l2_writes=sum(room.writes for room in rooms),
        errors=standing.errors,
        fallback=standing.fallback,
        last_error=standing.last_error,
        last_error_age=standing.last_error_age,
        queued=len(writer) if writer is not None else 0,
        queued_bytes=writer.queued_bytes if writer is not None else 0,
        writer=writer.counts if writer is not None else WriteCounts(),
        unsettled=tiers.unsettled.counts(),
        staleness=follower.staleness if follower is not None else None,
        gaps=follower.gaps if follower is not None else 0,
        l1=near,
        l2=dict(tiers.shared.stats()),
    )


def _share(part: int, whole: int) -> float:
    return part / whole if whole else 0.0

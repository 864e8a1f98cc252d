"""What a server holds: a sorted set with a place in it, and a stream, as the scripts leave them."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple, TypeAlias

from oidc_middleware.core.ledger.records import GRACE, Kind, LogEntry, Position, Record

Member: TypeAlias = tuple[Kind, bytes, int, int]
"""Kind, key id, digest and life."""


class Write(NamedTuple):
    """What a script changes, as replicas are told of it."""

    place: Position | None = None
    ends: Sequence[tuple[Member, int]] = ()
    swept: Sequence[Member] = ()
    entry: LogEntry | None = None
    drops_set: bool = False
    drops_log: bool = False
    keeps: int | None = None


class Data:
    """One copy of it."""

    __slots__ = ("ends", "log", "place")

    def __init__(self) -> None:
        self.place: Position | None = None
        self.ends: dict[Member, int] = {}
        self.log: list[LogEntry] = []

    def copy(self) -> Data:
        """Return another copy."""
        other = Data()
        other.place, other.ends, other.log = self.place, dict(self.ends), list(self.log)
        return other

    def apply(self, write: Write) -> None:
        """Change what a script has changed."""
        if write.drops_set:
            self.place = None
            self.ends.clear()
        if write.drops_log:
            self.log.clear()
        for member in write.swept:
            self.ends.pop(member, None)
        self.ends.update(write.ends)
        if write.entry is not None:
            self.log.append(write.entry)
        if write.keeps is not None:
            del self.log[: -write.keeps]
        if write.place is not None:
            self.place = write.place

    def found(self, new_epoch: Callable[[], bytes]) -> tuple[Position, bool]:
        """Return where the log is, and whether that place is a new one."""
        if self.place is not None:
            return self.place, False
        return Position(new_epoch(), 0, b""), True

    def join(self, records: Iterable[Record], wall: float, new_epoch: Callable[[], bytes], tail: bytes) -> Write:
        """Return what writing these records changes."""
        place, is_new = self.found(new_epoch)
        ends: dict[Member, int] = {}
        for record in records:
            member = _member(record)
            if max(self.ends.get(member, -1), ends.get(member, -1)) < record.end:
                ends[member] = record.end
        news = tuple(record_of(member, end) for member, end in ends.items())
        entry = None
        if news:
            time_of_last = int.from_bytes(place.last_id[:8], "big")
            time = max(int(wall * 1000), time_of_last + 1)
            entry = LogEntry(place.epoch, place.number + 1, place.last_id, time.to_bytes(8, "big") + tail, news)
            place = entry.position
        swept = [member for member, end in self.ends.items() if end + GRACE <= wall][:10]
        return Write(place, list(ends.items()), swept, entry, drops_log=is_new)

    def after(self, last_id: bytes, at_most: int) -> list[LogEntry]:
        """Return the log after an id, as a stream has it: what has a larger id."""
        start = bisect_right(self.log, last_id, key=_id)
        return self.log[start : start + at_most]

    def records(self) -> list[Record]:
        """Return all records."""
        return [record_of(member, end) for member, end in self.ends.items()]


def record_of(member: Member, end: int) -> Record:
    """Return a member with its end as a record."""
    return Record(member[0], member[1], member[2], end - member[3], end)


def _member(record: Record) -> Member:
    return record.kind, record.key_id, record.digest, record.end - record.number


def _id(entry: LogEntry) -> bytes:
    return entry.id

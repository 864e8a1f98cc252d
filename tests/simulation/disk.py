"""The journal of a host: what outlives its processes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, TypeAlias

from oidc_middleware.core.ledger.records import Record
from oidc_middleware.core.replica.mirror import covers, join
from oidc_middleware.core.replica.writer import Thing

Mode: TypeAlias = Literal["well", "refuses", "fails late", "unreadable"]
"""`fails late` does what it is asked for and says that it did not."""


class Disk:
    """What the journals of all processes of one host have, and in which order things came."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.mode: Mode = "well"
        self.well_since = 0.0
        self.kept: dict[Thing, Record] = {}
        self.acknowledged: dict[Thing, Record] = {}
        self.news: list[tuple[str, Thing]] = []

    def fail(self, mode: Mode) -> None:
        """Work no more."""
        self.mode = mode

    def mend(self, now: float) -> None:
        """Work again."""
        self.mode, self.well_since = "well", now

    def keep(self, process: str, records: Sequence[Record], *, is_acknowledged: bool) -> None:
        """Join records with what is kept."""
        for record in records:
            thing = record[:3]
            known = self.kept.get(thing)
            if not covers(known, record):
                self.kept[thing] = join(known, record)
                self.news.append((process, thing))
        if is_acknowledged:
            self.acknowledge(records)

    def acknowledge(self, records: Sequence[Record]) -> None:
        """Note that the store has these."""
        for record in records:
            thing = record[:3]
            self.acknowledged[thing] = join(self.acknowledged.get(thing), record)

    def noted(self, thing: Thing) -> tuple[Record, bool]:
        """Return what is kept of a thing, and whether that was acknowledged."""
        record = self.kept[thing]
        return record, covers(self.acknowledged.get(thing), record)

    def load(self) -> list[tuple[Record, bool]]:
        """Return all of it."""
        return [self.noted(thing) for thing in self.kept]

    def news_for(self, process: str, since: int) -> list[tuple[Record, bool]]:
        """Return what others added after so many things."""
        return [self.noted(thing) for who, thing in self.news[since:] if who != process and thing in self.kept]

    def sweep(self, before: float) -> None:
        """Remove what ended."""
        for thing, record in list(self.kept.items()):
            if record.end < before:
                del self.kept[thing]
                self.acknowledged.pop(thing, None)

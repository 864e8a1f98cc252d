"""What a replica needs of the ledger in memory that it drives."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Protocol

from oidc_middleware.core.ledger.records import GRACE, Kind, Record


class Mirror(Protocol):
    """Records by what they revoke, joined by the larger number and the later end."""

    @property
    def unknown_key_ids(self) -> Collection[bytes]:
        """The key ids of records whose secret is not known here."""

    def __len__(self) -> int:
        """How many records there are."""

    def merge(self, records: Sequence[Record]) -> Sequence[Record]:
        """Join records with what is there; return those that changed something."""

    def find(self, kind: Kind, key_id: bytes, digest: int) -> Record | None:
        """Return what is known of a thing."""

    def records(self, after: Record | None, at_most: int) -> Sequence[Record]:
        """Return some records, those that come after one; nothing at the end.

        What is there during the whole walk is returned.
        """

    def sweep(self, now: float, at_most: int) -> bool:
        """Remove records that ended `GRACE` ago, looking at so many; return whether all were looked at by now."""


def is_over(record: Record, wall: float) -> bool:
    """Tell whether a record ended so long ago that nobody brings it to the store any more.

    That is half of what it is kept for: a store whose clock is ahead would sweep it at once, and be given it again.
    """
    return record.end + GRACE // 2 <= wall


def covers(known: Record | None, record: Record) -> bool:
    """Tell whether joining a record with what is known of the same thing changes nothing."""
    return known is not None and known.number >= record.number and known.end >= record.end


def join(known: Record | None, record: Record) -> Record:
    """Return both of one thing as one: the larger number and the later end."""
    if known is None:
        return record
    return record._replace(number=max(known.number, record.number), end=max(known.end, record.end))

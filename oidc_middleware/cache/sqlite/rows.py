"""Records as rows of a table: what the journal and the ledger have in common."""

from __future__ import annotations

import struct
from collections.abc import Iterable
from typing import Final, NamedTuple

from oidc_middleware.core.ledger.records import LARGEST_NUMBER, Record, from_member

ROW_BYTES: Final = 40
"""What a row takes while it waits, about."""

_LIFE = 4


class Row(NamedTuple):
    """A record of the journal. Those of one key are joined: it is what a store knows it by, without the life."""

    key: bytes
    number: int
    ends: int


def rows_of(records: Iterable[Record]) -> list[Row]:
    """Return the rows of records.

    Raises:
        ValueError: one of them is none that anybody could read.
    """
    return [Row(member_of(record)[:-_LIFE], record.number, record.end) for record in records]


def member_of(record: Record) -> bytes:
    """Return what a store knows a record by.

    Raises:
        ValueError: it is none that anybody could read.
    """
    try:
        if 0 <= record.number <= record.end <= LARGEST_NUMBER:
            return record.member
    except struct.error:
        pass
    raise ValueError("not a record")


def record_of(key: object, number: object, ends: object) -> Record | None:
    """Return the record of a row, None when it is none: a row holds whatever anybody put into it."""
    if not (isinstance(key, bytes) and isinstance(number, int) and isinstance(ends, int)):
        return None
    try:
        return record_of_member(key + (ends - number).to_bytes(_LIFE, "big"), ends)
    except OverflowError:
        return None


def record_of_member(member: object, ends: object) -> Record | None:
    """Return the record of a member and its end, None when it is none."""
    if not (isinstance(member, bytes) and isinstance(ends, int)):
        return None
    try:
        return from_member(member, ends)
    except ValueError:
        return None

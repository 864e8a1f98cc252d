"""Records and log entries, from what the server answers: pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from oidc_middleware.core.ledger.records import LogEntry, Position, Record, from_member, unpack


def position_of(reply: Sequence[bytes]) -> Position:
    """Return where the log is, as the scripts say it."""
    epoch, number, last_id = reply
    return Position(epoch, int(number), last_id)


def records_of(members_and_scores: Sequence[bytes]) -> tuple[list[Record], int]:
    """Return the records of a part of the sorted set, and how many of its members are none."""
    records: list[Record] = []
    strangers = 0
    pairs = iter(members_and_scores)
    for member, score in zip(pairs, pairs, strict=True):
        try:
            records.append(from_member(member, int(score)))
        except ValueError:
            strangers += not score.startswith(b"-")
    return records, strangers


def entries_of(reply: Any) -> list[LogEntry]:
    """Return the entries that `XREAD` answered with."""
    streams = list(reply.items()) if isinstance(reply, Mapping) else reply  # as the newer protocol has it
    return [_entry_of(number, fields) for number, fields in streams[0][1]] if streams else []


def _entry_of(number: bytes, fields: Sequence[bytes]) -> LogEntry:
    """Return an entry of the log; what cannot be read becomes one that follows on no place."""
    match fields:
        case [b"e", epoch, b"n", count, b"p", previous, b"r", blob]:
            try:
                return LogEntry(epoch, int(count), previous, number, unpack(blob))
            except ValueError:
                pass
    return LogEntry(b"", 0, b"", number, ())

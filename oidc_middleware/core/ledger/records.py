"""What a ledger is made of: records that are joined by taking the larger number, and the log that carries them.

```
record     kind 1 · key id 4 · digest 8 · life 4      the member of a store, without its end
           end 8                                      its score there; in the log it follows the record
```
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from enum import IntEnum
from typing import Final, NamedTuple

GRACE: Final = 600
"""Seconds for which a record is kept after its end: more than the largest leeway and the clocks' difference together.

It is a constant, and not the leeway of whoever sweeps: others may have a larger one.
"""

LARGEST_NUMBER: Final = 0xFFFF_FFFF
"""The largest number and end, in seconds of Unix time: the year 2106."""

_MEMBER = struct.Struct(">B4sQI")
_TOLD = struct.Struct(">B4sQIQ")


class Kind(IntEnum):
    """What a record revokes."""

    TOKEN = 1
    SESSION = 2
    SUBJECT = 3
    CLIENT = 4
    CLEAR = 5


_KINDS = {kind.value: kind for kind in Kind}
"""The kinds by their numbers: calling `Kind` for each of a million records takes most of the time to read them."""


class Record(NamedTuple):
    """One revocation.

    `key_id` names the secret under which the 64-bit `digest` was made. `number` is what two records of the same thing
    are joined by, the larger one wins: for a token it is when it expires, else everything issued at or before it is
    revoked. From `end` on it revokes nothing; joined records keep the later end. Both are seconds of Unix time.
    """

    kind: Kind
    key_id: bytes
    digest: int
    number: int
    end: int

    @property
    def member(self) -> bytes:
        """What a store knows it by: two ends of one member are joined by the larger one, which joins the numbers."""
        return _MEMBER.pack(self.kind, self.key_id, self.digest, self.end - self.number)


class Position(NamedTuple):
    """A place in the log of a store: the life of that store, how many entries were logged in it, and the last one's id.

    Two equal positions have the same past. So an id is never given twice, not even for the same number, by two servers
    whose clocks agree or stand still: it has some random bytes of whoever writes. `last_id` is `b""` before the first
    entry, and whoever looks for the first time begins the epoch: an empty store has a past too.
    """

    epoch: bytes
    number: int
    last_id: bytes


class LogEntry(NamedTuple):
    """One write, as all are told of it: it follows on `Position(epoch, number - 1, previous_id)` and nothing else."""

    epoch: bytes
    number: int
    previous_id: bytes
    id: bytes
    records: tuple[Record, ...]

    @property
    def position(self) -> Position:
        """The place after it."""
        return Position(self.epoch, self.number, self.id)


def from_member(member: bytes, end: int) -> Record:
    """Return the record that a store has.

    Raises:
        ValueError: it is none.
    """
    try:  # not by `_checked`: a million are loaded at once
        kind, key_id, digest, life = _MEMBER.unpack(member)
        if life <= end <= LARGEST_NUMBER:
            return Record(_KINDS[kind], key_id, digest, end - life, end)
    except (struct.error, KeyError):
        pass
    raise ValueError("not a record")


def pack(records: Iterable[Record]) -> bytes:
    """Return records as the log carries them."""
    return b"".join(
        _TOLD.pack(kind, key_id, digest, end - number, end) for kind, key_id, digest, number, end in records
    )


def unpack(data: bytes) -> tuple[Record, ...]:
    """Return the records that `pack` wrote.

    Raises:
        ValueError: it did not write this.
    """
    try:
        return tuple(_checked(*fields) for fields in _TOLD.iter_unpack(data))
    except struct.error:
        raise ValueError("not a list of records") from None


def _checked(kind: int, key_id: bytes, digest: int, life: int, end: int) -> Record:
    if not life <= end <= LARGEST_NUMBER:
        raise ValueError("no time that a record can have")
    try:
        return Record(_KINDS[kind], key_id, digest, end - life, end)
    except KeyError:
        raise ValueError("no kind of record") from None

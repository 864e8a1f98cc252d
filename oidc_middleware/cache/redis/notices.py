"""What a writer tells the other nodes: one entry of a stream for each batch, with the names that it changed."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from oidc_middleware.cache.changes import EVERYTHING, Change, packed, unpacked
from oidc_middleware.cache.redis.wire import command
from oidc_middleware.cache.types import TYPES
from oidc_middleware.errors import BackendUnavailable

_LOGGER = logging.getLogger("oidc_middleware.cache")

KEPT: int = 4096
"""Entries that the stream holds, roughly; whoever is further behind has missed some."""

# An entry that would name more than this says "any key", in bytes.
_MOST_TOLD = 16_384
# What a revocation drops is never wrong in anybody's memory, only older.
_SILENT = frozenset(kind.name for kind in TYPES.values() if kind.coherence == "dropped by revocation")
_Told = dict[str, list[bytes] | None]


def stream_key(prefix: bytes) -> bytes:
    """Return the key of the stream. Its hash tag puts all streams of a prefix into one slot of a cluster."""
    return b"%b:{log}:changes" % prefix


def notice(stream: bytes, source: bytes, told: Mapping[str, Sequence[bytes] | None]) -> bytes:
    """Return the command that adds an entry: who changed which names, by type; None for any name of the type."""
    return command(b"XADD", stream, b"MAXLEN", b"~", b"%d" % KEPT, b"*", b"s", source, b"k", packed(told))


def read(fields: object, source: bytes) -> list[Change]:
    """Return what an entry says that others than `source` changed; everything, where it cannot be read."""
    match fields:
        case [b"s", bytes() as sender, b"k", bytes() as blob]:
            if sender == source:
                return []
            return unpacked(blob)
        case _:
            return [EVERYTHING]


class Notice(NamedTuple):
    """What one entry is to say, and the command that adds it."""

    told: _Told
    command: bytes


class Notices:
    """What has yet to be told. What was not acknowledged is told again, with what comes next."""

    def __init__(self, stream: bytes, source: bytes) -> None:
        self.stream = stream
        self.source = source
        self._told: _Told = {}
        self._bytes = 0
        self._has_complained = False

    def __bool__(self) -> bool:
        return bool(self._told)

    def note_set(self, kind: str, name: bytes) -> None:
        """Note that a value is written, unless its type is one that nobody has outdated values of."""
        if kind not in _SILENT:
            self.note(kind, name)

    def note(self, kind: str, name: bytes) -> None:
        """Note that a name is changed."""
        names = self._told.setdefault(kind, [])
        if names is None:
            return
        names.append(name)
        self._bytes += len(name) + 3
        if self._bytes > _MOST_TOLD:
            self._shorten()

    def note_all(self, kind: str) -> None:
        """Note that any name of a type may be changed."""
        self._told[kind] = None

    def take(self) -> Notice | None:
        """Return what is to be told now, None when there is nothing."""
        if not self._told:
            return None
        told, self._told, self._bytes = self._told, {}, 0
        return Notice(told, notice(self.stream, self.source, told))

    def keep(self, notice: Notice, refusal: BackendUnavailable | None = None) -> None:
        """Take back what nobody may have heard of; a refusal by the server is told in the log, the first time."""
        for kind, names in notice.told.items():
            if names is None:
                self.note_all(kind)
            for name in names or ():
                self.note(kind, name)
        if refusal is not None and refusal.kind in {"auth", "refused"}:
            self._shorten()  # it will not be otherwise soon: let it not be tried with ever more names
        if refusal is not None and not self._has_complained:
            self._has_complained = True
            _LOGGER.error(
                "Other nodes do not learn from here what changes in Redis (%s): they serve what they have in memory to "
                "the end of its life there. This is told once.",
                refusal.detail,
            )

    def _shorten(self) -> None:
        self._told = dict.fromkeys(self._told)
        self._bytes = 0

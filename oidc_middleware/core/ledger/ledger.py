"""The ledger itself: everything that is revoked, in memory, and whether a token is."""

from __future__ import annotations

import math
from bisect import bisect_left, insort
from collections.abc import Callable, Iterable, KeysView
from typing import Final

from oidc_middleware.core.ledger.digests import DIGESTS, LedgerKeys, Marks
from oidc_middleware.core.ledger.records import GRACE, Kind, Record
from oidc_middleware.core.ledger.table import LAST_DIGEST, Joined, Table

_NUMBER: Final = 0xFFFF_FFFF

# A kind and a key id: what has a table of its own.
_Place = tuple[Kind, bytes]
_Lookup = tuple[Callable[[int], int | None], int, _Place]


class Ledger:
    """All records that were merged and did not end long ago; none is ever evicted.

    `leeway` (seconds) is how far the issuer's clock may be ahead: a cut-off at T refuses what was issued at or before
    T + `leeway`, and what does not say when it was issued. Records whose key id is not among `keys` refuse nothing, for
    nobody knows what they mean, but are kept like the others.

    Nothing here takes longer than its arguments say: merge, sweep and page in slices, and no caller waits long.
    """

    def __init__(self, keys: LedgerKeys, *, leeway: float) -> None:
        self.keys = keys
        self.generation: int = 0
        """Moves with every merge that may refuse something, so that what was checked since needs no second look."""
        self._leeway = leeway
        self._tables: dict[_Place, Table] = {}
        self._order: list[_Place] = []
        self._lookups: list[_Lookup] = []
        self._swept: tuple[_Place, int] | None = None
        self._unknown: dict[bytes, int] = {}
        self.unknown_key_ids: KeysView[bytes] = self._unknown.keys()
        """The key ids of records that are here and not among `keys`; a view, which follows what happens."""

    def __len__(self) -> int:
        return sum(map(len, self._tables.values()))

    @property
    def counts(self) -> dict[Kind, int]:
        """How many records of each kind there are."""
        counts = dict.fromkeys(Kind, 0)
        for (kind, _), table in self._tables.items():
            counts[kind] += len(table)
        return counts

    @property
    def memory_bytes(self) -> int:
        """About how much memory the records take."""
        return sum(table.memory_bytes for table in self._tables.values())

    def merge(self, records: Iterable[Record]) -> list[Record]:
        """Join records with what is here, and return those that changed something."""
        changed: list[Record] = []
        refuses_more = False
        tables, known = self._tables, self.keys.ids
        try:
            for record in records:
                kind, key_id, digest, number, end = record
                table = tables.get((kind, key_id)) or self._open((kind, key_id))
                joined = table.join(digest, number, end)
                if joined:
                    changed.append(record)
                    refuses_more = refuses_more or (joined is Joined.NUMBER and key_id in known)
        finally:  # whatever the rest is, these are merged
            if refuses_more:
                self._lookups = self._find_lookups()
                self.generation += 1
        return changed

    def refuses(self, marks: Marks) -> Record | None:
        """Return a record that revokes the token of these marks, None when there is none.

        Raises:
            ValueError: the marks were made under other keys.
        """
        if marks.key_ids != self.keys.joined_ids:
            raise ValueError("marks made under other keys")
        digests, iat = marks.digests, marks.iat
        for get, at, place in self._lookups:
            value = get(digests[at])
            if (
                value is not None
                and digests[at]
                and (place[0] is Kind.TOKEN or iat is None or iat <= (value & _NUMBER) + self._leeway)
            ):
                return _record(place, digests[at], value)
        return None

    def find(self, kind: Kind, key_id: bytes, digest: int) -> Record | None:
        """Return the record of this thing, as it is now; None when there is none."""
        table = self._tables.get((kind, key_id))
        value = None if table is None else table.get(digest)
        return None if value is None else _record((kind, key_id), digest, value)

    def sweep(self, now: float, at_most: int) -> bool:
        """Remove what ended `GRACE` ago, looking at `at_most` records, from where the last sweep stopped.

        Return whether this was the end of a round: everything was looked at since the last one ended.
        """
        before = max(0, math.floor(now - GRACE) + 1)
        place, start = self._swept or (None, 0)
        at = 0 if place is None else bisect_left(self._order, place)
        while at < len(self._order):
            here = self._order[at]
            table = self._tables[here]
            start, at_most = table.sweep(start if here == place else 0, at_most, before)
            if not table:
                self._close(here)
            elif start <= LAST_DIGEST:
                self._swept = here, start
                return False
            else:
                at += 1
        self._swept = None
        return True

    def records(self, after: Record | None = None, at_most: int = 1000) -> list[Record]:
        """Return up to so many records in a fixed order, those that come after `after`, as they are now; none: no more.

        Go on with the last one of a page. What is there throughout is in one of the pages, whatever comes and goes.
        """
        place, start = (None, 0) if after is None else ((after.kind, after.key_id), after.digest + 1)
        page: list[Record] = []
        for here in self._order[0 if place is None else bisect_left(self._order, place) :]:
            found = self._tables[here].page(start if here == place else 0, at_most - len(page))
            page += [_record(here, digest, value) for digest, value in found]
            if len(page) >= at_most:
                break
        return page

    def _open(self, place: _Place) -> Table:
        table = self._tables.get(place)
        if table is None:
            table = self._tables[place] = Table()
            insort(self._order, place)
            if place[1] not in self.keys.ids:
                self._unknown[place[1]] = self._unknown.get(place[1], 0) + 1
        return table

    def _close(self, place: _Place) -> None:
        del self._tables[place]
        del self._order[bisect_left(self._order, place)]
        self._lookups = self._find_lookups()
        if place[1] in self._unknown:
            self._unknown[place[1]] -= 1
            if not self._unknown[place[1]]:
                del self._unknown[place[1]]

    def _find_lookups(self) -> list[_Lookup]:
        """Return what has to be asked of a token: where the records are, and which of its digests is meant there."""
        lookups = []
        for number, key_id in enumerate(self.keys.ids):
            for kind in (Kind.TOKEN, Kind.SESSION, Kind.SUBJECT, Kind.CLIENT):
                table = self._tables.get((kind, key_id))
                if table is not None:
                    lookups.append((table.get, number * DIGESTS + kind - 1, (kind, key_id)))
        return lookups


def _record(place: _Place, digest: int, value: int) -> Record:
    return Record(*place, digest, value & _NUMBER, value >> 32)

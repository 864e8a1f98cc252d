"""The ledger of this process, as the protocol changes it: those who must act on a change are told in the same step."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence

from oidc_middleware.auth.generation import Generation
from oidc_middleware.core.ledger.ledger import Ledger
from oidc_middleware.core.ledger.records import Kind, Record

Listener = Callable[[Sequence[Record]], None]
"""Told of records that changed something. It must not raise, and returns soon."""


class Mirror:
    """A ledger whose changes overturn what was accepted before, at once and without an await."""

    def __init__(self, ledger: Ledger, generation: Generation) -> None:
        self.ledger = ledger
        self.listeners: list[Listener] = []
        self._generation = generation

    @property
    def unknown_key_ids(self) -> Collection[bytes]:
        """The key ids of records whose secret is not known here."""
        return self.ledger.unknown_key_ids

    def __len__(self) -> int:
        return len(self.ledger)

    def merge(self, records: Sequence[Record]) -> Sequence[Record]:
        """Join records with what is there; return those that changed something."""
        before = self.ledger.generation
        changed = self.ledger.merge(records)
        if self.ledger.generation != before:
            self._generation.advance()
        if changed:
            for listener in self.listeners:
                listener(changed)
        return changed

    def find(self, kind: Kind, key_id: bytes, digest: int) -> Record | None:
        """Return what is known of a thing."""
        return self.ledger.find(kind, key_id, digest)

    def records(self, after: Record | None, at_most: int) -> Sequence[Record]:
        """Return some records, those after the last one that was returned before; nothing at the end."""
        return self.ledger.records(after, at_most)

    def sweep(self, now: float, at_most: int) -> bool:
        """Look at so many records and remove what ended long ago; tell whether all have been looked at."""
        return self.ledger.sweep(now, at_most)

"""What a shared tier tells about the writes of others."""

from __future__ import annotations

from typing import NamedTuple


class Change(NamedTuple):
    """Keys that somebody else changed. `keys` None: any key of the type; `kind` None: any key of any type."""

    kind: str | None = None
    keys: frozenset[bytes] | None = None


EVERYTHING: Change = Change()
"""What happened is not known in full: whatever was read before may be outdated."""

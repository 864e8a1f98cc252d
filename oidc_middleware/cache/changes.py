"""What a shared tier tells about the writes of others."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping, Sequence
from typing import NamedTuple, Protocol, cast

import msgspec

from oidc_middleware.cache.backend import Backend

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(dict[str, list[bytes] | None]).decode


class Change(NamedTuple):
    """Keys that somebody else changed. `keys` None: any key of the type; `kind` None: any key of any type."""

    kind: str | None = None
    keys: frozenset[bytes] | None = None


EVERYTHING: Change = Change()
"""What happened is not known in full: whatever was read before may be outdated."""


def packed(changed: Mapping[str, Sequence[bytes] | None]) -> bytes:
    """Return the keys that were changed, by type (None for any key of the type), as bytes."""
    return _encode(changed)


def unpacked(blob: bytes) -> list[Change]:
    """Return what `packed` made bytes of, as changes; everything, where that cannot be read."""
    try:
        changed = _decode(blob)
    except (msgspec.MsgspecError, ValueError, TypeError, RecursionError):
        return [EVERYTHING]
    return [Change(kind, None if keys is None else frozenset(keys)) for kind, keys in changed.items()]


class ChangingBackend(Backend, Protocol):
    """A `Backend` that tells what others change in it."""

    def changes(self) -> AsyncGenerator[Change]:
        """Yield what others change, not this backend, until `close`; a fault of the tier never ends it.

        The first change says that everything may have changed, and so does every one after which some may have been
        missed. Whoever reads a key after its change was yielded finds what it was changed to, or something newer. Where
        there is nobody who could tell, it ends at once.
        """

    def staleness(self) -> float | None:
        """Return how many seconds ago all changes had been yielded for certain; None: never yet, or nobody follows."""


def changing(backend: Backend) -> ChangingBackend | None:
    """Return a backend as one that tells what others change, None when it does not."""
    return cast(ChangingBackend, backend) if hasattr(backend, "changes") else None

"""Which node of a cluster has which keys: pure.

Source: Redis cluster specification, "Key distribution model" and "Hash tags"; the command `CLUSTER SLOTS`.
"""

from __future__ import annotations

from binascii import crc_hqx
from collections.abc import Iterable, Sequence
from typing import Any

from oidc_middleware.cache.redis.urls import Address

SLOTS = 16384

_UNKNOWN = (None, b"", b"?")
"""What a node says of an endpoint that it does not know, or that is its own."""


def key_slot(key: bytes) -> int:
    """Return the slot of a key: of what stands between its first `{` and the next `}`, if anything does."""
    start = key.find(b"{")
    if start >= 0:
        end = key.find(b"}", start + 1)
        if end > start + 1:
            key = key[start + 1 : end]
    return crc_hqx(key, 0) % SLOTS


def by_slot(keys: Iterable[bytes]) -> dict[int, list[bytes]]:
    """Return the keys of each slot: one command may name keys of one slot only."""
    groups: dict[int, list[bytes]] = {}
    for key in keys:
        groups.setdefault(key_slot(key), []).append(key)
    return groups


class SlotMap:
    """The primary of each slot as somebody knew it; `nodes` are all of them and their replicas."""

    def __init__(self, owners: list[Address | None], nodes: Sequence[Address]) -> None:
        found = dict.fromkeys(owners)
        self._owners = owners
        self.nodes: tuple[Address, ...] = tuple(dict.fromkeys(nodes))
        self.is_complete: bool = None not in found
        """Whether every slot is served."""
        self.primaries: tuple[Address, ...] = tuple(owner for owner in found if owner is not None)

    def owner(self, slot: int) -> Address | None:
        """Return the primary of a slot, None where nobody serves it."""
        return self._owners[slot]

    def assign(self, slot: int, address: Address) -> None:
        """Note that a slot has moved."""
        self._owners[slot] = address
        if address not in self.primaries:
            self.primaries += (address,)


def read_slots(reply: Any, asked: Address) -> SlotMap | None:
    """Return what `asked` answered to `CLUSTER SLOTS`, None when it knows of no slot, or speaks nonsense."""
    owners: list[Address | None] = [None] * SLOTS
    nodes: list[Address] = []
    try:
        for first, last, *serving in reply:
            found = [_address(node, asked) for node in serving]
            nodes += found
            if 0 <= first <= last < SLOTS and found:
                owners[first : last + 1] = found[:1] * (last + 1 - first)
    except (TypeError, ValueError, IndexError, AttributeError):
        return None
    return SlotMap(owners, nodes) if nodes else None


def _address(node: Sequence[Any], asked: Address) -> Address:
    host, port = node[0], int(node[1])
    return Address(asked.host if host in _UNKNOWN else host.decode(), port or asked.port)

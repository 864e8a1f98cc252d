"""How requests find their nodes in a cluster, and follow keys that have moved: pure.

Source: Redis cluster specification, "Redirection and resharding".
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from oidc_middleware.cache.redis.link import Reply
from oidc_middleware.cache.redis.route import Answer, Request
from oidc_middleware.cache.redis.slots import SlotMap, key_slot
from oidc_middleware.cache.redis.urls import Address
from oidc_middleware.cache.redis.wire import Elsewhere, command
from oidc_middleware.errors import BackendUnavailable

_ASKING = command(b"ASKING")


@dataclass(slots=True)
class Parcel:
    """What goes to one node in one go: its commands, and which of its answers belong to which request."""

    address: Address
    commands: list[bytes] = field(default_factory=list)
    places: list[tuple[int, slice]] = field(default_factory=list)

    def put(self, number: int, commands: Sequence[bytes], *, asking: bool) -> None:
        """Add the commands of a request; a node that does not have the slot yet wants `ASKING` before each of them."""
        begin, step = len(self.commands) + asking, 1 + asking
        for words in commands:
            self.commands += (_ASKING, words) if asking else (words,)
        self.places.append((number, slice(begin, len(self.commands), step)))


class Journey:
    """Requests under way: `parcels` says what to send next, `arrive` takes what came of it.

    `answers` has an answer for each request at any time. `moves` are the slots that turned out to be elsewhere for
    good. It `is_at_a_loss` when nobody serves a slot, or a node whose address nobody knows.
    """

    def __init__(self, requests: Sequence[Request], slots: SlotMap) -> None:
        nobody = BackendUnavailable("no node of the cluster serves the slot of the key", "busy")
        self.answers: list[Answer] = [nobody] * len(requests)
        self.moves: dict[int, Address] = {}
        self.is_at_a_loss: bool = False
        self._requests = requests
        self._due: dict[int, tuple[Address, bool]] = {}
        for number, request in enumerate(requests):
            owner = slots.owner(key_slot(request.key))
            if owner is None:
                self.is_at_a_loss = True
            else:
                self._due[number] = owner, False

    def parcels(self) -> list[Parcel]:
        """Return what is to be sent, to each node at the same time; nothing when every request has its answer."""
        due, self._due = self._due, {}
        parcels: dict[Address, Parcel] = {}
        for number, (address, asking) in due.items():
            parcel = parcels.get(address) or parcels.setdefault(address, Parcel(address))
            parcel.put(number, self._requests[number].commands, asking=asking)
        return list(parcels.values())

    def arrive(self, parcel: Parcel, replies: Sequence[Reply] | BackendUnavailable) -> None:
        """Take what a node answered to a parcel, or why it did not."""
        if isinstance(replies, BackendUnavailable):
            for number, _ in parcel.places:
                self.answers[number] = replies
            return
        for number, place in parcel.places:
            answer = self.answers[number] = replies[place]
            for reply in answer:
                if isinstance(reply, Elsewhere):
                    self.answers[number] = BackendUnavailable(reply.detail, reply.kind)
                    self._follow(number, reply, parcel.address)

    def _follow(self, number: int, reply: Elsewhere, here: Address) -> None:
        host, port = reply.address
        if host == "?":  # a node whose name nobody knows
            self.is_at_a_loss = True
            return
        address = Address(host or here.host, port)
        self._due[number] = address, not reply.is_lasting
        if reply.is_lasting:
            self.moves[reply.slot] = address

"""The route to a cluster: each key to the primary of its slot, all primaries at once.

Source: Redis cluster specification, "Redirection and resharding".
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Collection, Hashable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any

from oidc_middleware.cache.redis.journey import Journey, Parcel
from oidc_middleware.cache.redis.link import Connect, Link, Reply
from oidc_middleware.cache.redis.route import Answer, Links, Request, Role, Stored
from oidc_middleware.cache.redis.slots import by_slot, key_slot
from oidc_middleware.cache.redis.topology import Topology
from oidc_middleware.cache.redis.urls import Address
from oidc_middleware.cache.redis.wire import Elsewhere, command
from oidc_middleware.errors import BackendUnavailable, FailureKind

_DOUBTFUL = frozenset({"link", "timeout", "busy", "readonly"})
"""The kinds of failures after which a node may have been replaced."""

_HOPS = 3
"""How often a request is sent: it may be told of another node, which is about to give the slot away."""


class Cluster:
    """A `Route` to the primaries of a cluster. `connect_to` makes the `Connect` of a node."""

    is_one_server: bool = False

    def __init__(self, seeds: Sequence[Address], connect_to: Callable[[Address], Connect], budget: float) -> None:
        self._connect_to = connect_to
        self._budget = budget
        self._loop = asyncio.get_running_loop()
        self._topology = Topology(seeds, connect_to, budget)
        self._nodes: dict[Address, Links] = {}
        self._past_failures: Counter[FailureKind] = Counter()
        self._past_connects = 0

    @property
    def failures(self) -> Counter[FailureKind]:
        """Return what failed so far, by kind."""
        return sum((link.failures for link in self.links), self._past_failures)

    @property
    def connects(self) -> int:
        """Return how many connections were made."""
        return sum((link.connects for link in self.links), self._past_connects)

    @property
    def links(self) -> Iterable[Link]:
        """Return the connections that there are at the moment."""
        return [link for links in self._nodes.values() for link in links]

    @property
    def lanes(self) -> Collection[Hashable]:
        """Return the primaries."""
        slots = self._topology.map
        return (None,) if slots is None else slots.primaries

    def lane_of(self, key: bytes) -> Hashable:
        """Name the primary of a key, None as long as nobody knows it."""
        slots = self._topology.map
        return None if slots is None else slots.owner(key_slot(key))

    async def fetch(self, keys: Sequence[bytes]) -> Sequence[Stored]:
        """Return the values of keys, or why they could not be read, from one `MGET` for each slot."""
        by = self._loop.time() + self._budget
        groups = by_slot(keys).values()
        found = await self._fetch(groups, by)
        # Of a slot that moves, some keys may be elsewhere already: then they are asked for one by one.
        torn = [[key] for group in groups if len(group) > 1 for key in group if _is_busy(found[key])]
        if torn:
            found |= await self._fetch(torn, by)
        return [found[key] for key in keys]

    async def send(self, role: Role, requests: Sequence[Request], then: Request | None = None) -> Sequence[Answer]:
        """Return the answers to requests, from one pipeline for each primary.

        `then` is sent when they have come, and has time of its own: the others may have taken all of theirs.
        """
        answers = await self._send(role, requests, self._loop.time() + self._budget)
        if then is None:
            return answers
        return [*answers, *await self._send(role, [then], self._loop.time() + self._budget)]

    async def primaries(self) -> Mapping[str, Link]:
        """Return the connection for work to each primary; fail when slots are served by none."""
        slots = await self._topology.known()
        if not slots.is_complete:
            self._topology.doubt()
            raise BackendUnavailable("some slots of the cluster are served by no node", "busy")
        return {str(address): self._links_to(address).working for address in slots.primaries}

    async def unlink(self, keys: Sequence[bytes]) -> None:
        """Delete keys, with a command for each: one command may name keys of one slot only."""
        requests = [Request(key, (command(b"UNLINK", key),)) for key in keys]
        for answer in await self.send("working", requests):
            failure = answer if isinstance(answer, BackendUnavailable) else answer[0]
            if isinstance(failure, BackendUnavailable):
                raise failure

    def link_of(self, key: bytes, budget: float) -> Link:
        """Return a connection of their own for others, to the primary of a key."""

        async def connect() -> Any:
            owner = (await self._topology.known()).owner(key_slot(key))
            if owner is None:
                self._topology.doubt()
                raise BackendUnavailable("no node of the cluster serves the slot of the key", "busy")
            return await self._connect_to(owner)()

        def look_at(failure: BackendUnavailable) -> None:
            if isinstance(failure, Elsewhere) and failure.is_lasting and failure.address.host not in {"", "?"}:
                self._topology.move(failure.slot, failure.address)
            if failure.kind in _DOUBTFUL:
                self._topology.doubt()
                link.renew()

        link = Link(connect, budget, on_failure=look_at)
        return link

    async def aclose(self) -> None:
        """Let go of the connections."""
        await self._topology.aclose()
        for link in self.links:
            await link.aclose()

    def abandon(self) -> None:
        """Let go of the connections although the loop is closed."""
        for link in self.links:
            link.abandon()

    # --------------------------------------------------------------------------------------------------- the way there

    async def _fetch(self, groups: Iterable[Sequence[bytes]], by: float) -> dict[bytes, Stored]:
        """Return by key what came of groups of keys, each of one slot."""
        requests = [Request(group[0], (command(b"MGET", *group),)) for group in groups]
        found: dict[bytes, Stored] = {}
        for group, answer in zip(groups, await self._send("reading", requests, by), strict=True):
            values = answer if isinstance(answer, BackendUnavailable) else answer[0]
            found |= zip(
                group, [values] * len(group) if isinstance(values, BackendUnavailable) else values, strict=True
            )
        return found

    async def _send(self, role: Role, requests: Sequence[Request], by: float) -> Sequence[Answer]:
        """Send requests to the nodes that have their keys, until the loop's time is `by`."""
        try:
            async with asyncio.timeout_at(by):
                journey = Journey(requests, await self._topology.known())
        except TimeoutError:
            raise BackendUnavailable("nobody tells the slots of the cluster", "timeout") from None
        for _ in range(_HOPS):
            parcels = journey.parcels()
            if not parcels:
                break
            if len(parcels) == 1:
                await self._deliver(role, journey, parcels[0], by)
            else:
                await asyncio.gather(*(self._deliver(role, journey, parcel, by) for parcel in parcels))
        for slot, address in journey.moves.items():
            self._topology.move(slot, address)
        if journey.is_at_a_loss:
            self._topology.doubt()
        return journey.answers

    async def _deliver(self, role: Role, journey: Journey, parcel: Parcel, by: float) -> None:
        link: Link = getattr(self._links_to(parcel.address), role)
        left = by - self._loop.time()
        replies: Sequence[Reply] | BackendUnavailable = BackendUnavailable("no time left to follow a key", "timeout")
        if left > 0:
            try:
                replies = await link.ask(*parcel.commands, within=left)
            except BackendUnavailable as error:
                replies = error
        journey.arrive(parcel, replies)

    def _links_to(self, address: Address) -> Links:
        links = self._nodes.get(address)
        if links is None:
            self._leave_old_nodes()
            connect = self._connect_to(address)
            reading, writing, working = (
                Link(connect, self._budget, fenced=fenced, on_failure=partial(self._look_at, address))
                for fenced in (False, True, False)
            )
            links = self._nodes[address] = Links(reading, writing, working)
        return links

    def _look_at(self, address: Address, failure: BackendUnavailable) -> None:
        if failure.kind in _DOUBTFUL and not isinstance(failure, Elsewhere):
            self._topology.doubt(address)

    def _leave_old_nodes(self) -> None:
        """Let go of the connections to nodes that are no primaries any more, so that there are never more and more."""
        slots = self._topology.map
        for address, links in list(self._nodes.items()):
            if slots is not None and address not in slots.primaries and not links.are_busy:
                del self._nodes[address]
                for link in links:
                    link.abandon()
                    self._past_connects += link.connects
                    self._past_failures += link.failures


def _is_busy(value: object) -> bool:
    return isinstance(value, BackendUnavailable) and value.kind == "busy"

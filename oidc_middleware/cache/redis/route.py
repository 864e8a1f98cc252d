"""Who gets which keys: the interface of a route to Redis, and the trivial one, where one server has them all."""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable, Collection, Hashable, Iterable, Mapping, Sequence
from typing import Literal, NamedTuple, Protocol

from oidc_middleware.cache.redis.link import Connect, Link, Reply
from oidc_middleware.cache.redis.wire import command
from oidc_middleware.errors import BackendUnavailable, FailureKind

Role = Literal["reading", "writing", "working"]
"""What a connection is for: reads, ordered writes, and everything that is no part of a request."""


class Request(NamedTuple):
    """Commands about one key, which are sent together and in this order."""

    key: bytes
    commands: tuple[bytes, ...]


Stored = bytes | BackendUnavailable | None
"""What lies under a key, None where nothing does, or why that is not known."""

Answer = Sequence[Reply] | BackendUnavailable
"""The answers to the commands of a request, or why none came."""


class Links(NamedTuple):
    """The connections to one primary."""

    reading: Link
    writing: Link
    working: Link

    @property
    def are_busy(self) -> bool:
        """Whether something is under way."""
        return any(link.is_busy for link in self)


class Route(Protocol):
    """How keys find their server, over one event loop.

    Nothing takes longer than the budget that it was made with. A server that fails fails its own keys alone.
    """

    @property
    def is_one_server(self) -> bool:
        """Whether all keys have the same server, always."""

    @property
    def failures(self) -> Counter[FailureKind]:
        """What failed so far, by kind."""

    @property
    def connects(self) -> int:
        """How many connections were made."""

    @property
    def links(self) -> Iterable[Link]:
        """The connections that there are at the moment."""

    @property
    def lanes(self) -> Collection[Hashable]:
        """What `lane_of` may return at the moment."""

    def lane_of(self, key: bytes) -> Hashable:
        """Name the server that has a key, as far as that is known: what goes to one of them waits for no other."""

    async def fetch(self, keys: Sequence[bytes]) -> Sequence[Stored]:
        """Return the values of distinct keys, in order, None where there is none; or why a key could not be read.

        Raises:
            BackendUnavailable: no key could be read.
        """

    async def send(self, role: Role, requests: Sequence[Request], then: Request | None = None) -> Sequence[Answer]:
        """Return the answers to requests of distinct keys, in order.

        `then` takes effect after all of them, whatever became of them; its answer is the last.

        Raises:
            BackendUnavailable: no request was answered.
        """

    async def primaries(self) -> Mapping[str, Link]:
        """Return the connection for work to each server with keys, by its name.

        Raises:
            BackendUnavailable: nobody knows which there are.
        """

    async def unlink(self, keys: Sequence[bytes]) -> None:
        """Delete keys.

        Raises:
            BackendUnavailable: some of them were not deleted, or nobody knows.
        """

    def link_of(self, key: bytes, budget: float) -> Link:
        """Return a connection of their own for others, to the server that has a key; it finds that again when it moves.

        Whoever asked for it closes it.
        """

    async def aclose(self) -> None:
        """Let go of the connections."""

    def abandon(self) -> None:
        """Let go of the connections although the loop is closed."""


class OneServer:
    """A `Route` to one server, or to the primary that sentinels name: then `connect` finds another one in time.

    When one connection finds out that it leads to a replica, all of them are made anew. `check` asks for that, and
    raises `BackendUnavailable` of the kind `readonly`; without it only a write shows it.
    """

    is_one_server: bool = True
    lanes: Collection[Hashable] = ("",)

    def __init__(self, connect: Connect, budget: float, check: Callable[[Link], Awaitable[None]] | None = None) -> None:
        self._connect = connect
        self._check = check
        reading, writing, working = (
            Link(connect, budget, fenced=fenced, on_failure=self._look_at) for fenced in (False, True, False)
        )
        self._links = Links(reading, writing, working)

    @property
    def failures(self) -> Counter[FailureKind]:
        """Return what failed so far, by kind."""
        return sum((link.failures for link in self._links), Counter())

    @property
    def connects(self) -> int:
        """Return how many connections were made."""
        return sum(link.connects for link in self._links)

    @property
    def links(self) -> Links:
        """Return the connections that there are at the moment."""
        return self._links

    def lane_of(self, key: bytes) -> str:  # noqa: ARG002  one server has every key
        """Name the one server."""
        return ""

    async def fetch(self, keys: Sequence[bytes]) -> Sequence[Stored]:
        """Return the values of keys, from one `MGET`."""
        (values,) = await self._links.reading.ask(command(b"MGET", *keys))
        if isinstance(values, BackendUnavailable):
            raise values
        found: Sequence[bytes | None] = values
        return found

    async def send(self, role: Role, requests: Sequence[Request], then: Request | None = None) -> Sequence[Answer]:
        """Return the answers to requests, from one pipeline."""
        link: Link = getattr(self._links, role)
        if then is not None:
            requests = [*requests, then]
        commands: list[bytes] = []
        places: list[slice] = []
        for request in requests:
            begin = len(commands)
            commands += request.commands
            places.append(slice(begin, len(commands)))
        replies = await link.ask(*commands)
        return [replies[place] for place in places]

    async def primaries(self) -> Mapping[str, Link]:
        """Return the connection for work to the one server, which needs no name."""
        working = self._links.working
        if self._check is not None:
            try:
                await self._check(working)
            except BackendUnavailable as failure:
                self._look_at(failure)
                raise
        return {"": working}

    async def unlink(self, keys: Sequence[bytes]) -> None:
        """Delete keys, with one command."""
        (gone,) = await self._links.working.ask(command(b"UNLINK", *keys))
        if isinstance(gone, BackendUnavailable):
            raise gone

    def link_of(self, key: bytes, budget: float) -> Link:  # noqa: ARG002  one server has every key
        """Return a connection of their own for others."""

        def look_at(failure: BackendUnavailable) -> None:
            if failure.kind in {"busy", "readonly"}:  # a reader that waits is told `UNBLOCKED` when a primary is none
                link.renew()

        link = Link(self._connect, budget, on_failure=look_at)
        return link

    async def aclose(self) -> None:
        """Let go of the connections."""
        for link in self._links:
            await link.aclose()

    def abandon(self) -> None:
        """Let go of the connections although the loop is closed."""
        for link in self._links:
            link.abandon()

    def _look_at(self, failure: BackendUnavailable) -> None:
        if failure.kind == "readonly":
            for link in self._links:
                link.renew()

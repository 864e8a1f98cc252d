"""The connections of a ledger over one event loop."""

from __future__ import annotations

from asyncio import AbstractEventLoop, get_running_loop
from typing import Any

from oidc_middleware.cache.redis.link import Link
from oidc_middleware.cache.redis.route import Route
from oidc_middleware.errors import BackendUnavailable


class Connections:
    """Three to the primary that has a key: what asks or loads waits for no write, and who reads the log waits alone.

    They lead to one server. Where one of them finds a reason to look for another primary, all do: the place of one
    server and the log of another are of no use together. That a write was late is none: it may be many who write.
    """

    def __init__(self, number: int, route: Route, key: bytes, budget: float) -> None:
        self.loop: AbstractEventLoop = get_running_loop()
        self.writing: Link = route.link_of(key, budget)
        self.asking: Link = route.link_of(key, budget)
        self.reading: Link = route.link_of(key, budget)
        self._links = (self.writing, self.asking, self.reading)
        self._number = number
        self._route = route

    @property
    def source(self) -> bytes:
        """Name the connection that asks: after a fault it has another name."""
        return b"%d.%d" % (self._number, self.asking.connects)

    async def ask(self, link: Link, words: bytes, within: float | None = None) -> Any:
        """Return the answer to one command.

        Raises:
            BackendUnavailable: there is none within the time, or it is a refusal.
        """
        try:
            (reply,) = await link.ask(words, within=within)
            if isinstance(reply, BackendUnavailable):
                raise reply
        except BackendUnavailable as failure:
            if _may_be_elsewhere(failure) or (failure.kind == "timeout" and link is not self.writing):
                for each in self._links:
                    each.renew()
            raise
        return reply

    async def aclose(self) -> None:
        """Let go of the connections."""
        for link in self._links:
            await link.aclose()
        await self._route.aclose()

    def abandon(self) -> None:
        """Let go of the connections although the loop is closed."""
        for link in self._links:
            link.abandon()
        self._route.abandon()


def _may_be_elsewhere(failure: BackendUnavailable) -> bool:
    """Tell whether another server may be the primary now; one that misses its replicas may be alone on its side."""
    return failure.kind in {"link", "busy", "readonly"} or "NOREPLICAS" in failure.detail

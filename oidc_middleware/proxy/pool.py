"""Connections to the app: made when there is none, kept for a while when a request is over."""

from __future__ import annotations

import asyncio
import ssl
from typing import Any

from oidc_middleware.errors import UpstreamError, UpstreamTimeout
from oidc_middleware.proxy.link import Link
from oidc_middleware.proxy.upstream import Upstream


class Pool:
    """The connections of one event loop; `most_kept` of them wait for the next request, `kept_seconds` at most.

    What is in use is not counted here: for each there is a client's request, and how many of these there may be is the
    server's to say.
    """

    def __init__(
        self,
        upstream: Upstream,
        tls: ssl.SSLContext | None,
        *,
        connect_timeout: float,
        most_kept: int,
        kept_seconds: float,
    ) -> None:
        self.loop: asyncio.AbstractEventLoop = asyncio.get_running_loop()
        self._upstream = upstream
        self._tls = tls
        self._connect_timeout = connect_timeout
        self._most_kept = most_kept
        self._kept_seconds = kept_seconds
        self._kept: dict[Link, asyncio.TimerHandle] = {}

    def __len__(self) -> int:
        """Return how many wait."""
        return len(self._kept)

    def take(self) -> Link | None:
        """Return the connection that was used last: those used least are the ones that end."""
        if not self._kept:
            return None
        link, timer = self._kept.popitem()
        timer.cancel()
        return link

    async def connect(self) -> Link:
        """Return a new connection.

        Raises:
            UpstreamTimeout, UpstreamError: there is none.
        """
        link: Link
        _, link = await self.open(lambda: Link(self._forget))
        return link

    async def open(self, protocol: Any) -> tuple[asyncio.Transport, Any]:
        """Connect, and return what the event loop makes of it.

        Raises:
            UpstreamTimeout, UpstreamError: it could not be done.
        """
        to = self._upstream
        try:
            async with asyncio.timeout(self._connect_timeout):
                return await self.loop.create_connection(
                    protocol, to.host, to.port, ssl=self._tls, server_hostname=to.host if self._tls else None
                )
        except TimeoutError as error:
            raise UpstreamTimeout("no connection in time") from error
        except OSError as error:  # of which those of TLS and of names are kinds
            raise UpstreamError(f"no connection ({type(error).__name__}: {error.strerror or error})") from error

    def keep(self, link: Link) -> None:
        """Take back a connection whose request is over: one that is not of use any more is closed."""
        if len(self._kept) < self._most_kept and link.is_reusable():
            self._kept[link] = self.loop.call_later(self._kept_seconds, link.end_idle)
        else:
            link.abort()

    def close(self) -> None:
        """End what waits."""
        while (link := self.take()) is not None:
            link.abort()

    def _forget(self, link: Link) -> None:
        timer = self._kept.pop(link, None)
        if timer is not None:
            timer.cancel()

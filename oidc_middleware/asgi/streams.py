"""Live connections: all that is open for an identity, so that it ends when the identity is revoked or expires.

```
streams    which connections there are, which of them a revocation means, and ending them a few at a time
exchange   a request and its response
socket     a WebSocket
ending     how one of them ends
waits      how an app that waits is told
expiries   what ends at which second
```
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Sequence
from typing import Final

from starlette.types import ASGIApp, Receive, Scope, Send

from oidc_middleware.asgi.ending import Ending, Reason
from oidc_middleware.asgi.exchange import Exchange, Refuse
from oidc_middleware.asgi.expiries import Expiries
from oidc_middleware.asgi.socket import Socket
from oidc_middleware.auth.known import Known
from oidc_middleware.clock import Clock
from oidc_middleware.core.ledger.digests import Marks
from oidc_middleware.core.ledger.ledger import Ledger
from oidc_middleware.core.ledger.records import Record

SLICE: Final = 16
"""How many connections begin to end in one turn of the loop: their apps wake up in the next, and take their time."""

CLOCK_SECONDS: Final = 5.0
"""How often the time is looked at while anything is to expire: the clock may have been set."""

logger: logging.Logger = logging.getLogger("oidc_middleware.live")

Live = Exchange | Socket


class LiveConnections:
    """What is open for identities, in this process and on one event loop.

    A request is only in `waiting` at first; it is found by its identity from the first revocation on that finds it
    there, or when its body goes on.
    """

    def __init__(self, ledger: Ledger, refuse: Refuse, clock: Clock, *, close_on_expiry: bool) -> None:
        self._ledger = ledger
        self._refuse = refuse
        self._now = clock.now
        self._close_on_expiry = close_on_expiry
        self.waiting: set[Exchange] = set()
        """Requests without an entry in the index."""
        self._index: dict[int, set[Live]] = {}
        self._expiries: Expiries[Live] = Expiries()
        self._to_end: deque[tuple[Live, Reason]] = deque()
        self._tasks: set[asyncio.Task[None]] = set()
        self._ender: asyncio.Task[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    def stats(self) -> dict[str, int]:
        """Return how many connections can be found, and how many are ending."""
        return {
            "waiting": len(self.waiting),
            "indexed": sum(map(len, self._index.values())),
            "expiring": len(self._expiries),
            "ending": len(self._tasks) + len(self._to_end),
        }

    # ---------------------------------------------------------------------------------------------- what comes and goes

    def goes_on(self, connection: Live) -> None:
        """Have a connection that takes a while found by its identity, and by its end where it ends with the token."""
        self._bind()
        self._be_found(connection)
        if self._close_on_expiry and (isinstance(connection, Socket) or connection.is_event_stream):
            self._expiries.add(connection, connection.known.deadline)
            self._set_timer()

    async def left(self, connection: Live) -> None:
        """Forget a connection that is over; if it was ended, wait until its client was told."""
        for digest in connection.digests or ():
            found = self._index.get(digest)
            if found is not None:
                found.discard(connection)
                if not found:
                    del self._index[digest]
        connection.digests = None
        self._expiries.discard(connection, connection.known.deadline)
        if connection.ending is not None:
            await connection.ending.leave()

    def _be_found(self, connection: Live) -> None:
        if connection.digests is None:
            connection.digests = self._marks(connection).digests
            for digest in connection.digests:
                self._index.setdefault(digest, set()).add(connection)
        if isinstance(connection, Exchange):
            self.waiting.discard(connection)

    def _marks(self, connection: Live) -> Marks:
        return self._ledger.keys.unpack(connection.known.marks)

    async def serve_websocket(self, app: ASGIApp, known: Known, scope: Scope, receive: Receive, send: Send) -> None:
        """Let the app serve a WebSocket until it, the client or the identity ends it."""
        socket = Socket(known, scope, receive, send)
        self.goes_on(socket)
        try:
            await app(scope, socket.receive, socket.send)
        except BaseException as error:
            if socket.ending is None or not socket.ending.absorbs(error):
                raise
        finally:
            await self.left(socket)

    # ----------------------------------------------------------------------------------------------------- what ends it

    def on_revoked(self, records: Sequence[Record]) -> None:
        """Begin to end what these records, which are in the ledger, refuse."""
        self._bind()
        for request in tuple(self.waiting):
            self._be_found(request)
        if self._index:
            for record in records:
                found = self._index.get(record.digest)
                if found is not None:
                    self._to_end.extend((connection, "revoked") for connection in found)
            self._begin()

    def _begin(self) -> None:
        if self._to_end and (self._ender is None or self._ender.done()):
            self._ender = asyncio.get_running_loop().create_task(self._end_all())

    async def _end_all(self) -> None:
        """End what is to end, so many in each turn of the loop that it is never held for long."""
        count = 0
        while self._to_end:
            for _ in range(min(SLICE, len(self._to_end))):
                connection, reason = self._to_end.popleft()
                if self._is_to_end(connection, reason):
                    count += 1
                    self._end(connection, reason)
            await asyncio.sleep(0)
        if count:
            logger.info("%d connections end, for their identity was revoked or has expired", count)

    def _is_to_end(self, connection: Live, reason: Reason) -> bool:
        if connection.ending is not None or connection.digests is None:
            return False
        return reason == "expired" or self._ledger.refuses(self._marks(connection)) is not None

    def _end(self, connection: Live, reason: Reason) -> None:
        ending = connection.ending = Ending(reason)
        task = asyncio.get_running_loop().create_task(connection.end(ending, self._refuse))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _bind(self) -> asyncio.AbstractEventLoop:
        """Return the running loop. What was open on one before it is over: nobody can end it any more."""
        loop = asyncio.get_running_loop()
        if self._loop is not loop:
            self._loop, self._timer, self._ender = loop, None, None
            self._index, self._expiries = {}, Expiries()
            self._to_end.clear()
        return loop

    def _set_timer(self) -> None:
        second = self._expiries.next
        if second is None:
            return
        loop = self._bind()
        when = loop.time() + min(max(second - self._now(), 0.0), CLOCK_SECONDS)
        if self._timer is not None:
            if self._timer.when() <= when:
                return
            self._timer.cancel()
        self._timer = loop.call_at(when, self._expire)

    def _expire(self) -> None:
        self._timer = None
        self._to_end.extend((connection, "expired") for connection in self._expiries.due(self._now()))
        self._begin()
        self._set_timer()

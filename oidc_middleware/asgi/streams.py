"""Live connections: all that is open for an identity, so that it ends when the identity is revoked or expires.

```
streams    which connections there are, which of them a revocation means, and ending them a few at a time
exchange   a request and its response
socket     a WebSocket
track      what is kept of one that takes a while
ending     how one of them ends
waits      how an app that waits is told
index      which ones a record of the ledger means
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
from oidc_middleware.asgi.index import Index
from oidc_middleware.asgi.socket import Socket
from oidc_middleware.asgi.track import Track
from oidc_middleware.clock import Clock
from oidc_middleware.core.known import Known
from oidc_middleware.core.ledger.digests import Marks
from oidc_middleware.core.ledger.ledger import Ledger
from oidc_middleware.core.ledger.records import Record

SLICE: Final = 16
"""How many connections begin to end in one turn of the loop: their apps wake up in the next, and take their time."""

LOOK_AT: Final = 1000
"""How many are looked at for that: a record may mean many of whom it refuses few."""

CLOCK_SECONDS: Final = 5.0
"""How often the time is looked at while anything is to expire: the clock may have been set."""

logger: logging.Logger = logging.getLogger("oidc_middleware.live")

Live = Exchange | Socket


class LiveConnections:
    """What is open for identities, in this process and on one event loop.

    A request is only in `waiting` at first; it is found by its identity from the first revocation on that meets it
    there, or when its body goes on.
    """

    def __init__(self, ledger: Ledger, refuse: Refuse, clock: Clock, *, close_on_expiry: bool) -> None:
        self._ledger = ledger
        self._refuse = refuse
        self._now = clock.now
        self._close_on_expiry = close_on_expiry
        self.waiting: set[Live] = set()
        """Requests without an entry in the index."""
        self._index: Index[Live] = Index()
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
            "indexed": len(self._index),
            "expiring": len(self._expiries),
            "ending": len(self._tasks) + len(self._to_end),
        }

    # ---------------------------------------------------------------------------------------------- what comes and goes

    def goes_on(self, connection: Live, track: Track) -> None:
        """Have a connection that takes a while found by its identity, and by its end where it ends with the token."""
        self._bind()
        self._be_found(connection, track)
        if track.expires and self._close_on_expiry:
            self._expiries.add(connection, connection.known.deadline)
            self._set_timer()

    async def left(self, connection: Live, track: Track) -> None:
        """Forget a connection that is over; if it was ended, wait until its client was told."""
        self.waiting.discard(connection)
        for digest in track.digests or ():
            self._index.discard(digest, connection)
        track.digests = None
        if track.expires:
            self._expiries.discard(connection, connection.known.deadline)
        if track.ending is not None:
            await track.ending.leave()

    def _be_found(self, connection: Live, track: Track) -> None:
        self.waiting.discard(connection)
        if track.digests is None:
            track.digests = tuple(filter(None, self._marks(connection).digests))
            for digest in track.digests:
                self._index.add(digest, connection)

    def _marks(self, connection: Live) -> Marks:
        return self._ledger.keys.unpack(connection.known.marks)

    async def serve_websocket(self, app: ASGIApp, known: Known, scope: Scope, receive: Receive, send: Send) -> None:
        """Let the app serve a WebSocket until it, the client or the identity ends it."""
        socket = Socket(known, scope, receive, send)
        self.goes_on(socket, socket.track)
        try:
            await app(scope, socket.receive, socket.send)
        except BaseException as error:
            if not socket.track.absorbs(error):
                raise
        finally:
            await self.left(socket, socket.track)

    # ----------------------------------------------------------------------------------------------------- what ends it

    def on_revoked(self, records: Sequence[Record]) -> None:
        """Begin to end what these records, which are in the ledger, refuse."""
        self._bind()
        for request in tuple(self.waiting):
            if request.track is None:
                request.track = Track()
            self._be_found(request, request.track)
        if self._index:
            for record in records:
                self._to_end.extend((connection, "revoked") for connection in self._index.find(record.digest))
            self._begin()

    def _begin(self) -> None:
        if self._to_end and (self._ender is None or self._ender.done()):
            self._ender = asyncio.get_running_loop().create_task(self._end_all())

    async def _end_all(self) -> None:
        """End what is to end, so many in each turn of the loop that it is never held for long."""
        ended = 0
        while self._to_end:
            ended += self._end_some()
            await asyncio.sleep(0)
        if ended:
            logger.info("%d connections end, for their identity was revoked or has expired", ended)

    def _end_some(self) -> int:
        ended = 0
        for _ in range(min(LOOK_AT, len(self._to_end))):
            connection, reason = self._to_end.popleft()
            track = connection.track
            if track is not None and self._is_to_end(connection, track, reason):
                track.ending = Ending(reason)
                task = asyncio.get_running_loop().create_task(self._end(connection, track, track.ending))
                self._tasks.add(task)
                task.add_done_callback(self._tasks.discard)
                ended += 1
                if ended == SLICE:
                    break
        return ended

    async def _end(self, connection: Live, track: Track, ending: Ending) -> None:
        try:
            await connection.end(track, ending, self._refuse)
        finally:
            ending.let_go()

    def _is_to_end(self, connection: Live, track: Track, reason: Reason) -> bool:
        if track.ending is not None or track.digests is None:
            return False
        return reason == "expired" or self._ledger.refuses(self._marks(connection)) is not None

    def _bind(self) -> asyncio.AbstractEventLoop:
        """Return the running loop. What was open on one before it is over: nobody can end it any more."""
        loop = asyncio.get_running_loop()
        if self._loop is not loop:
            self._loop, self._timer, self._ender = loop, None, None
            self._index, self._expiries = Index(), Expiries()
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

"""Following what the other nodes tell: the reader of the stream of changes."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from typing import Any, NamedTuple

from oidc_middleware.cache.changes import EVERYTHING, Change
from oidc_middleware.cache.redis.link import Link
from oidc_middleware.cache.redis.notices import notice, read
from oidc_middleware.cache.redis.wire import command, server_identity
from oidc_middleware.errors import BackendUnavailable

_LOGGER = logging.getLogger("oidc_middleware.cache")

BLOCK: float = 0.5
"""How long the server waits for something to tell before it says that there is nothing, in seconds."""

_TOGETHER = 256
# The longest pause after a failure is this at first, doubles with each further one up to that, and has a random length
# (full jitter); the shortest is always the same. In seconds.
_FIRST_PAUSE = 0.05
_LONGEST_PAUSE = 1.0
_SHORTEST_PAUSE = 0.01


_MILLISECONDS = b"%d" % (BLOCK * 1000)

_Entry = Sequence[Any]
"""Its number, and its fields and values in turn."""


class _Anchor(NamedTuple):
    """The last entry that was read: as long as it is where it was, nothing after it was lost."""

    number: bytes
    content: int


class Follower:
    """One reader's place in the stream, on a connection of its own.

    One round trip waits for entries after the last one that was read, and then looks whether that one is still there,
    with the same content. It is the oldest of all that matter, and a stream loses its oldest entries first: while it is
    there, none was trimmed, flushed, evicted, or lost with a primary, and the stream is no new one whose numbers begin
    below or above. Otherwise everything may have changed, and the newest entry becomes the place to go on from.

    So it is where another server answers than before, or the same one after a restart: it may have lost a write that
    somebody read already, together with its entry. Who may not use `INFO` does without that.
    """

    def __init__(
        self, link: Link, stream: bytes, source: bytes, monotonic: Callable[[], float], random: Callable[[], float]
    ) -> None:
        self.link = link
        self.current_at: float | None = None
        """When all changes had been yielded for certain, in monotonic time; None: never yet."""
        self._stream = stream
        self._source = source
        self._now = monotonic
        self._random = random
        self._anchor: _Anchor | None = None
        self._server: Sequence[bytes] = ()
        self._known_connection = 0
        self._failures = 0
        self._closing = asyncio.Event()
        self._complaints: set[str] = set()

    async def changes(self) -> AsyncGenerator[Change]:
        """Yield what others change until `aclose`; see `ChangingBackend.changes`."""
        while not self._closing.is_set():
            try:
                changes, current_at = await self._look()
            except BackendUnavailable as error:
                await self._pause(error)
                continue
            self._failures = 0
            for change in changes:
                yield change
            self.current_at = current_at

    async def aclose(self) -> None:
        """Let go of the connection; the answer that `changes` waits for does not come any more."""
        self._closing.set()
        await self.link.aclose()

    async def _look(self) -> tuple[Sequence[Change], float | None]:
        """Return what changed, and when nothing else had, None when that is not known.

        Raises:
            BackendUnavailable: the stream cannot be read; the place in it is kept.
        """
        begun = self._now()
        if self._anchor is not None:
            entries, is_there = await self._read_on(self._anchor)
            if self.link.connects != self._known_connection:
                is_there = not await self._is_another_server() and is_there
            if is_there and not entries:
                return [], begun + BLOCK  # so long the server has waited at least
            if is_there:
                self._anchor = _anchor_of(entries[-1])
                changes = [change for _, fields in entries for change in read(fields, self._source)]
                is_all = len(entries) < _TOGETHER
                return [EVERYTHING] if EVERYTHING in changes else changes, begun if is_all else self.current_at
        self._anchor = None
        await self._is_another_server()
        self._anchor = _anchor_of(await self._newest())
        return [EVERYTHING], begun

    async def _read_on(self, anchor: _Anchor) -> tuple[list[_Entry], bool]:
        """Return the entries after one, and whether that one is still there: in this order, or it proves nothing."""
        number = anchor.number
        answers = await self.link.ask(
            command(b"XREAD", b"COUNT", b"%d" % _TOGETHER, b"BLOCK", _MILLISECONDS, b"STREAMS", self._stream, number),
            command(b"XRANGE", self._stream, number, number, b"COUNT", b"1"),
        )
        streams, found = (_checked(answer) for answer in answers)
        if isinstance(streams, Mapping):  # as the newer protocol has it
            streams = list(streams.items())
        entries: list[_Entry] = streams[0][1] if streams else []
        return entries, [_anchor_of(entry) for entry in found] == [anchor]

    async def _newest(self) -> _Entry:
        """Return the newest entry; where there is none, one that tells nothing."""
        newest = command(b"XREVRANGE", self._stream, b"+", b"-", b"COUNT", b"1")
        (found,) = await self.link.ask(newest)
        if not _checked(found):
            added, found = await self.link.ask(notice(self._stream, self._source, {}), newest)
            _checked(added)
        if not _checked(found):
            raise BackendUnavailable("the stream of changes does not keep what is added to it", "refused")
        entry: _Entry = found[0]
        return entry

    async def _is_another_server(self) -> bool:
        """Tell whether the data is another than that of the server that was asked last.

        Raises:
            BackendUnavailable: it does not say; who may not ask gets the same answer always.
        """
        infos = await self.link.ask(command(b"INFO", b"server"), command(b"INFO", b"replication"))
        refusals = [info for info in infos if isinstance(info, BackendUnavailable)]
        if any(refusal.kind != "auth" for refusal in refusals):
            raise refusals[0]
        before, self._known_connection = self._server, self.link.connects
        self._server = () if refusals else server_identity(*infos)
        return self._server != before

    async def _pause(self, error: BackendUnavailable) -> None:
        if self._closing.is_set():
            return
        self._known_connection = 0
        if error.kind in {"auth", "refused"} and error.kind not in self._complaints:
            self._complaints.add(error.kind)
            _LOGGER.error(
                "What other nodes change in Redis cannot be followed (%s): what is in memory is served to the end of "
                "its life there. This is told once.",
                error.detail,
            )
        longest = min(_LONGEST_PAUSE, _FIRST_PAUSE * 2 ** min(self._failures, 10))
        self._failures += 1
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(max(_SHORTEST_PAUSE, longest * self._random())):
                await self._closing.wait()


def _anchor_of(entry: _Entry) -> _Anchor:
    number, fields = entry
    return _Anchor(number, hash(tuple(fields)))


def _checked(reply: Any) -> Any:
    if isinstance(reply, BackendUnavailable):
        raise reply
    return reply

"""Issuers that are unknown at start: asked for when a token of theirs comes, and kept while they are in use."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import traceback
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from functools import partial
from hashlib import blake2b
from typing import Any, Generic, Protocol, TypeVar

from oidc_middleware.auth.trusted import TrustedIssuer
from oidc_middleware.cache import Flights
from oidc_middleware.clock import Clock
from oidc_middleware.errors import BackendUnavailable, ConfigError, ProviderError, ProviderUnavailable

_log = logging.getLogger("oidc_middleware.auth")

MAX_ISSUERS = 1000
"""Issuers that are kept; the one that was not asked for the longest goes first."""
MAX_UNREADY = 100
"""Of these, issuers whose keys never came: of made-up names that only look like one of ours."""
MAX_REFUSED = 10_000
"""Names that are remembered as refused, by a digest each."""
MAX_CALLS = 64
"""Questions to the resolver that may be under way at once about issuers that are not known, and about those that are:
a flood of made-up names must not keep anybody trusted whose end nobody can ask for."""
DEADLINE = 5.0
"""Seconds that the resolver may take."""
PATIENCE = 30.0
"""Seconds that anybody waits for an issuer and its keys; a resolver may catch its cancellation and go on."""
LIFE = 300.0
"""Seconds after which the resolver is asked again about an issuer, and thus how long one is trusted after its end."""
STALE_LIFE = 3600.0
"""Seconds that an issuer is trusted while the resolver fails."""
PAUSE = 5.0
"""Seconds between two questions about an issuer that is known, while the resolver fails."""
REFUSED_LIFE = 30.0
"""Seconds for which a refusal is remembered, and thus how late a new issuer may be noticed."""

D = TypeVar("D")


class OpenIssuer(Protocol):
    """An issuer with all that it needs."""

    @property
    def trusted(self) -> TrustedIssuer:
        """What the authenticator needs of it."""

    @property
    def ready(self) -> bool:
        """Whether its keys are in memory."""

    async def load(self) -> None:
        """Wait until its keys are in memory.

        Raises:
            ProviderError, BackendUnavailable: they do not come.
        """

    def start(self) -> None:
        """Begin to refresh its keys unasked, on the running event loop."""

    async def stop(self) -> None:
        """End what runs in the background. It can be started again."""

    def stats(self) -> dict[str, Any]:
        """Return counters, as plain JSON types."""


class _Entry(Generic[D]):
    """When the resolver is asked again, and until when an issuer is trusted if it gives no answer (monotonic)."""

    __slots__ = ("ask_at", "described", "is_unanswered", "open", "runs", "until")

    def __init__(self, described: D, opened: OpenIssuer) -> None:
        self.described = described
        self.open = opened
        self.runs = False
        self.is_unanswered = False
        self.ask_at = -math.inf
        self.until = -math.inf

    def confirmed(self, now: float) -> None:
        self.is_unanswered = False
        self.ask_at = now + LIFE
        self.until = now + LIFE + STALE_LIFE


class ResolvedIssuers(Generic[D]):
    """The issuers that `resolve` describes. `D` is a description, which `open_` makes an open issuer of.

    `resolve` returns None for an issuer that is not trusted; whatever it raises, or does not answer in time, is a
    failure. `could_be` tells whether a name is worth the question at all. `on_closed` is called when an issuer is
    trusted no more, or is another one now, so that whatever was accepted of it is verified anew.
    """

    def __init__(
        self,
        resolve: Callable[[str], Awaitable[D | None]],
        open_: Callable[[D], OpenIssuer],
        could_be: Callable[[str], bool],
        on_closed: Callable[[], None],
        clock: Clock,
    ) -> None:
        self._resolve = resolve
        self._open_issuer = open_
        self._could_be = could_be
        self._on_closed = on_closed
        self._now = clock.monotonic
        self._entries: OrderedDict[str, _Entry[D]] = OrderedDict()
        self._refused: OrderedDict[bytes, float] = OrderedDict()
        self._strangers = Flights(MAX_CALLS)
        self._known = Flights(MAX_CALLS)
        self._runs = False
        self._fails = False
        self.calls: int = 0
        """How often the resolver was asked."""
        self.failures: int = 0
        """How often it gave no answer."""

    def may_know(self, issuer: str) -> bool:
        """Tell whether the resolver may know an issuer of this name."""
        return self._could_be(issuer)

    def peek(self, issuer: str) -> TrustedIssuer | None:
        """Return the issuer of this very name, if it is open."""
        entry = self._entries.get(issuer)
        return None if entry is None else entry.open.trusted

    async def find(self, issuer: str) -> TrustedIssuer | None:
        """Return the issuer of this very name; None: it is not trusted.

        Raises:
            ProviderUnavailable: the resolver does not say.
            BackendUnavailable: too many questions are under way, or the service stops.
        """
        now = self._now()
        entry = self._entries.get(issuer)
        if entry is not None:
            self._entries.move_to_end(issuer)
            self._start_if_ready(entry)
            if now < entry.ask_at:
                return entry.open.trusted
            if entry.is_unanswered and now < entry.until:
                return self._known_meanwhile(issuer, entry, now)
        elif self._refused.get(_digest(issuer), -math.inf) > now:
            return None
        try:
            flights = self._strangers if entry is None else self._known
            return await self._waited_for(flights.run(issuer, partial(self._ask, issuer)))
        except (ProviderError, BackendUnavailable):
            if entry is None or self._entries.get(issuer) is not entry or now >= entry.until:
                raise
            entry.ask_at = self._now() + PAUSE
            entry.is_unanswered = True
            return entry.open.trusted

    async def _waited_for(self, found: Awaitable[TrustedIssuer | None]) -> TrustedIssuer | None:
        try:
            async with asyncio.timeout(PATIENCE):
                return await found
        except TimeoutError:
            raise ProviderUnavailable("issuer_resolver: it does not end") from None

    def _known_meanwhile(self, issuer: str, entry: _Entry[D], now: float) -> TrustedIssuer:
        """Return what is known while the resolver fails, and ask it beside: nobody waits for it again and again."""
        entry.ask_at = now + PAUSE
        with contextlib.suppress(BackendUnavailable):
            self._known.begin(issuer, partial(self._ask, issuer))
        return entry.open.trusted

    def start(self) -> None:
        """Refresh the keys of those that are open, and of those to come, unasked, on the running event loop."""
        self._runs = True
        for entry in self._entries.values():
            entry.runs = False  # what ran on another loop ended with it
            self._start_if_ready(entry)

    async def stop(self) -> None:
        """End what runs in the background. What is known remains; it can be used, and started, again."""
        self._runs = False
        ending = self._strangers, self._known
        self._strangers, self._known = Flights(MAX_CALLS), Flights(MAX_CALLS)
        await asyncio.gather(*(flights.aclose() for flights in ending))
        entries = list(self._entries.values())
        for entry in entries:
            entry.runs = False
        await asyncio.gather(*(entry.open.stop() for entry in entries))

    def stats(self) -> dict[str, Any]:
        """Return counters, as plain JSON types."""
        return {
            "issuers": len(self._entries),
            "refused": len(self._refused),
            "calls": self.calls,
            "failures": self.failures,
        }

    def _start_if_ready(self, entry: _Entry[D]) -> None:
        """Refresh its keys from now on. Before they came once nothing is fetched unasked: the name may be made up."""
        if self._runs and not entry.runs and entry.open.ready:
            entry.runs = True
            entry.open.start()

    async def _ask(self, issuer: str) -> TrustedIssuer | None:
        described = await self._answer(issuer)
        entry = self._entries.get(issuer)
        if described is None:
            self._remember_refused(issuer)
            if entry is not None:
                _log.info("issuer %.200r is no longer trusted", issuer)
                del self._entries[issuer]
                await self._close(entry)
            return None
        if entry is None or entry.described != described:
            entry = await self._opened(issuer, described, entry)
        entry.confirmed(self._now())
        return entry.open.trusted

    async def _opened(self, issuer: str, described: D, previous: _Entry[D] | None) -> _Entry[D]:
        """Open an issuer, in place of what it was before, and wait for its keys: made-up names are asked for here."""
        try:
            entry = _Entry(described, self._open_issuer(described))
        except Exception as error:
            raise self._failed(error) from error
        self._entries[issuer] = entry
        entry.confirmed(self._now())
        if previous is not None:
            await self._close(previous)
        await self._make_room()
        with contextlib.suppress(ProviderError):  # whoever needs the keys will be told
            await entry.open.load()
        self._start_if_ready(entry)
        return entry

    async def _answer(self, issuer: str) -> D | None:
        self.calls += 1
        try:
            async with asyncio.timeout(DEADLINE):
                described = await self._resolve(issuer)
        except Exception as error:  # theirs may raise anything, and nobody is let in or thrown out for it
            raise self._failed(error) from error
        self._fails = False
        return described

    def _failed(self, error: Exception) -> ProviderUnavailable:
        """Count a failure, and tell of it, loudly once until an answer comes. Its text may hold what a client sent."""
        self.failures += 1
        level = logging.DEBUG if self._fails else logging.ERROR
        self._fails = True
        what = type(error).__name__
        if isinstance(error, ConfigError):
            what = f"{error.field} cannot work. {error.cure}"
        frames = traceback.extract_tb(error.__traceback__)
        _log.log(level, "issuer_resolver: %s (%s, line %s)", what, frames[-1].filename, frames[-1].lineno)
        return ProviderUnavailable(f"issuer_resolver: {what}")

    def _remember_refused(self, issuer: str) -> None:
        digest = _digest(issuer)
        self._refused[digest] = self._now() + REFUSED_LIFE
        self._refused.move_to_end(digest)
        if len(self._refused) > MAX_REFUSED:
            self._refused.popitem(last=False)

    async def _close(self, entry: _Entry[D]) -> None:
        """End an issuer that was trusted: whatever was accepted of it is verified anew."""
        self._on_closed()
        await entry.open.stop()

    async def _make_room(self) -> None:
        """Let those go that were not asked for the longest; first those whose keys never came."""
        unready = [name for name, entry in self._entries.items() if not entry.open.ready]
        leaving = unready[: max(0, len(unready) - MAX_UNREADY)]
        surplus = len(self._entries) - len(leaving) - MAX_ISSUERS
        if surplus > 0:
            leaving += [name for name in self._entries if name not in leaving][:surplus]
        gone = [self._entries.pop(name) for name in leaving]
        for entry in gone:
            if entry.runs:  # of the others nothing runs that does not end by itself, and somebody may wait for it
                await entry.open.stop()


def _digest(issuer: str) -> bytes:
    return blake2b(issuer.encode("utf-8", "surrogatepass"), digest_size=16).digest()

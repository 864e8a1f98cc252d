"""The ledger of one process, kept in step with the store and the journal: the protocol's shell on an event loop."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Hashable, Sequence
from itertools import count
from typing import Any

from oidc_middleware.auth.generation import Generation
from oidc_middleware.auth.revocation.lanes import Lanes
from oidc_middleware.auth.revocation.mirror import Mirror
from oidc_middleware.auth.revocation.receipt import Receipt
from oidc_middleware.auth.revocation.standing import Standing, at_once
from oidc_middleware.cache.ledger import Journal, LedgerStore
from oidc_middleware.clock import Clock
from oidc_middleware.core.ledger.ledger import Ledger
from oidc_middleware.core.ledger.records import Record
from oidc_middleware.core.replica import events
from oidc_middleware.core.replica.replica import Replica

_LOGGER = logging.getLogger("oidc_middleware.revocation")

_DRAIN = 5.0
# How long after the start the first requests wait for the ledger to be loaded, in seconds.
_PATIENCE = 0.25


class Keeper:
    """Drives a `Replica`: what it asks for is done by the store and the journal, and it is told how that went.

    `store` is None where nothing is shared, `journal` where nothing is kept on disk. `begin` is what `oidc.start` is:
    it is awaited where nobody has started this yet.
    """

    def __init__(
        self,
        ledger: Ledger,
        generation: Generation,
        standing: Standing,
        store: LedgerStore | None,
        journal: Journal | None,
        *,
        clock: Clock,
        random: Callable[[], float],
        max_staleness: float,
        begin: Callable[[], Awaitable[None]],
    ) -> None:
        self.ledger = ledger
        self.mirror: Mirror = Mirror(ledger, generation)
        self._generation = generation
        self._standing = standing
        self._journal = journal
        self._store = store
        self._clock = clock
        self._max_staleness = max_staleness
        self._begin = begin
        self._replica = Replica(
            self.mirror,
            lambda: Ledger(ledger.keys, leeway=0.0),
            random,
            has_store=store is not None,
            has_journal=journal is not None,
        )
        self._lanes = Lanes(store, journal, self._take)
        self._tickets: dict[Hashable, asyncio.Future[Receipt]] = {}
        self._numbers = count()
        self._timer: asyncio.TimerHandle | None = None
        self._first: asyncio.Event | None = None
        self._settled: asyncio.Event | None = None
        self._wait_until = 0.0
        self._has_told_strangers = False

    # --------------------------------------------------------------------------------------------------------- facts

    @property
    def is_loaded(self) -> bool:
        """Whether everything that the store and the journal have was read once."""
        return self._store is None or self._replica.is_loaded

    @property
    def is_stale(self) -> bool:
        """Whether what is known here is older than it may be."""
        return self._standing.is_stale

    @property
    def staleness(self) -> float | None:
        """How many seconds old the knowledge is; None: there is none yet, or nobody can say."""
        found = self._replica.staleness(self._clock.monotonic())
        return None if found == float("inf") else found

    def stats(self) -> dict[str, Any]:
        """Return what is known, as plain JSON types."""
        return {
            "entries": len(self.ledger),
            "by_kind": {kind.name.lower(): number for kind, number in self.ledger.counts.items()},
            "memory_bytes": self.ledger.memory_bytes,
            "loaded": self.is_loaded,
            "staleness": self.staleness,
            "stale": self.is_stale,
            "allowed_while_stale": self._standing.allowed_stale,
            "denied_while_stale": self._standing.denied_stale,
            "unacknowledged": self._replica.unacknowledged,
            "healing": self._replica.is_healing,
            "to_heal": self._replica.to_heal,
            "unknown_secrets": sorted(key_id.hex() for key_id in self.ledger.unknown_key_ids),
            "journal": self._journal_state(),
        }

    def _journal_state(self) -> str | None:
        if self._journal is None:
            return None
        return self._journal.problem or "ok"

    # ---------------------------------------------------------------------------------------------------------- life

    def start(self) -> None:
        """Begin to follow the store on the running event loop."""
        if self._store is None and self._journal is None:
            return
        if not self._replica.is_loaded and self._store is not None:
            self._standing.is_stale = True
            self._first = asyncio.Event()
            self._wait_until = asyncio.get_running_loop().time() + _PATIENCE
            self._standing.begin = self._wait_for_first_load
        if not self._lanes.is_running:
            self._settled = None  # who waited for it did so on another loop
        self._lanes.start()
        self._take(events.Tick())

    async def stop(self) -> None:
        """Bring what was revoked to where it is safe, for 5 s at most, and let go of the store and the journal."""
        if not self._lanes.is_running:
            return
        if not self._is_settled:
            settled = self._settled = self._settled or asyncio.Event()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_DRAIN):
                    await settled.wait()
            self._settled = None
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        rest = list(self._tickets)
        await self._lanes.stop()
        for ticket in rest:  # nobody but this process knows what they revoked
            self._give(events.Receipt(ticket, "local"))

    async def add(self, records: Sequence[Record]) -> Receipt:
        """Revoke; return when it is as safe as it can be. Cancelling the caller does not take it back."""
        if not self._lanes.is_running:
            await self._begin()
        ticket = next(self._numbers)
        future: asyncio.Future[Receipt] = asyncio.get_running_loop().create_future()
        self._tickets[ticket] = future
        self._take(events.Revoked(ticket, tuple(records)))
        return await asyncio.shield(future)

    # -------------------------------------------------------------------------------------------------------- driving

    def _take(self, event: events.Event) -> None:
        """Take in an event, and see to what it asks for."""
        commands = self._replica.handle(event, self._clock.monotonic(), self._clock.now())
        for command in commands:
            if isinstance(command, events.Receipt):
                self._give(command)
            else:
                self._lanes.do(command)
        self._judge(event)
        self._set_timer()
        if self._settled is not None and self._is_settled:
            self._settled.set()

    @property
    def _is_settled(self) -> bool:
        """Whether nobody waits, and the journal has what it is to have or takes nothing for now."""
        is_kept = self._journal is None or self._journal.problem is not None or not self._replica.pending
        return is_kept and not self._tickets

    def _give(self, receipt: events.Receipt) -> None:
        future = self._tickets.pop(receipt.ticket, None)
        if future is not None and not future.done() and not future.get_loop().is_closed():
            future.set_result(Receipt(receipt.kept))

    def _judge(self, event: events.Event) -> None:
        """See whether what is known is fresh enough; a change makes every verdict be looked at again."""
        if self._store is None:
            return
        if not self._lanes.is_running:
            self._generation.withdraw_keys()  # nobody follows any more: who verifies a token next starts it again
        is_stale = self._replica.staleness(self._clock.monotonic()) > self._max_staleness
        if is_stale != self._standing.is_stale:
            self._standing.is_stale = is_stale
            self._generation.advance()
            self._tell_staleness()
        if self._first is not None and (not is_stale or isinstance(event, events.LookFailed | events.ScanFailed)):
            self._end_first_wait()
        self._tell_strangers()

    def _end_first_wait(self) -> None:
        """Let the first requests go on: the ledger is loaded, or that failed."""
        if self._first is not None:
            self._first.set()
            self._first = None
            self._standing.begin = at_once
            if self._standing.is_stale:
                self._tell_staleness()

    async def _wait_for_first_load(self) -> None:
        """Wait a moment for the first load, if it is under way and nothing has failed yet."""
        if self._first is not None:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout_at(self._wait_until):
                    await self._first.wait()

    def _set_timer(self) -> None:
        """Wake up when the replica wants to, and at the moment in which what is known becomes too old."""
        now = self._clock.monotonic()
        due = self._replica.due
        as_of = self._replica.fresh_as_of
        if as_of is not None and not self._standing.is_stale:
            due = min(due, as_of + self._max_staleness)
        if self._timer is not None:
            self._timer.cancel()
        self._timer = None
        if due != float("inf") and self._lanes.is_running:
            loop = asyncio.get_running_loop()
            self._timer = loop.call_at(loop.time() + max(0.0, due - now), self._take, events.Tick())

    # -------------------------------------------------------------------------------------------------------- telling

    def _tell_staleness(self) -> None:
        if not self.is_loaded:
            _LOGGER.warning("The ledger of revocations could not be loaded yet: nothing is known here of others'.")
        elif self._standing.is_stale:
            _LOGGER.warning("What is known here of revocations is more than %g s old.", self._max_staleness)
        else:
            _LOGGER.info("Everything that is revoked is known here.")

    def _tell_strangers(self) -> None:
        if self.ledger.unknown_key_ids and not self._has_told_strangers:
            self._has_told_strangers = True
            _LOGGER.error(
                "Others revoke under a secret that is not configured here (ids %s), so that this node cannot know whom "
                "that concerns, and is not fresh: give all nodes the same secrets. This is told once.",
                ", ".join(sorted(key_id.hex() for key_id in self.ledger.unknown_key_ids)),
            )

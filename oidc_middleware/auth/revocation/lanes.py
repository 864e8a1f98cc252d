"""Doing what a replica asks for: each command by a task of its own, answered by exactly one event."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from itertools import count
from typing import assert_never

from oidc_middleware.cache.ledger import Journal, LedgerStore
from oidc_middleware.core.replica import events
from oidc_middleware.errors import BackendUnavailable

_LOGGER = logging.getLogger("oidc_middleware.revocation")

Command = events.FollowCommand | events.Scan | events.Write | events.JournalCommand


class Lanes:
    """Runs commands while an event loop runs. What is under way when it stops has failed, as far as anybody knows."""

    def __init__(
        self, store: LedgerStore | None, journal: Journal | None, take: Callable[[events.Event], None]
    ) -> None:
        self._store = store
        self._journal = journal
        self._take = take
        self._numbers = count()
        # What is under way and not answered, by a number of its own.
        self._under_way: dict[int, tuple[asyncio.Task[None], Command]] = {}
        self._postponed: list[Command] = []
        self._loop: asyncio.AbstractEventLoop | None = None
        self._has_complained = False

    @property
    def is_running(self) -> bool:
        """Whether commands are done on the event loop of the caller."""
        return self._loop is not None and self._loop is asyncio.get_running_loop()

    def start(self) -> None:
        """Do commands on the running event loop; those first that came when there was none."""
        if self.is_running:
            return
        self._give_up()  # what another loop had begun, which is over although nobody said so
        self._loop = asyncio.get_running_loop()
        postponed, self._postponed = self._postponed, []
        for command in postponed:
            self.do(command)

    async def stop(self) -> None:
        """Cancel what is under way and let go of the store and the journal."""
        tasks = [task for task, _ in self._under_way.values()]
        for task in tasks:
            task.cancel()
        self._give_up()  # before the first await, after which somebody may have started again
        await asyncio.gather(*tasks, return_exceptions=True)
        for other in (self._store, self._journal):
            if other is not None:
                await other.aclose()

    def do(self, command: Command) -> None:
        """Begin with a command, or keep it for the next start."""
        if self._loop is None:
            self._postponed.append(command)
            return
        number = next(self._numbers)
        self._under_way[number] = self._loop.create_task(self._run(number, command)), command

    def _give_up(self) -> None:
        """Answer what no task will answer any more."""
        self._loop = None
        given_up = list(self._under_way.values())
        self._under_way.clear()
        for _, command in given_up:
            self._take(failed(command))

    async def _run(self, number: int, command: Command) -> None:
        event: events.Event = failed(command)
        try:
            event = await self._answer(command)
        except BackendUnavailable as error:
            _LOGGER.debug("%s failed: %s", type(command).__name__, error)
        except asyncio.CancelledError:
            if number in self._under_way:
                self._loop = None  # it ends: what is asked for next waits for another one
            raise
        except GeneratorExit:  # its loop was closed, and all of this is left to the garbage collector
            self._under_way.pop(number, None)
            raise
        except Exception:
            if not self._has_complained:
                self._has_complained = True
                _LOGGER.exception("Keeping the ledger of revocations failed unexpectedly. This is told once.")
        finally:
            if self._under_way.pop(number, None) is not None:
                self._take(event)

    async def _answer(self, command: Command) -> events.Event:
        if isinstance(command, events.Look | events.Read | events.Scan | events.Write):
            assert self._store is not None  # noqa: S101  nobody asks for one that is not there
            return await _ask_store(self._store, command)
        assert self._journal is not None  # noqa: S101  the same
        return await _ask_journal(self._journal, command)


async def _ask_store(store: LedgerStore, command: events.FollowCommand | events.Scan | events.Write) -> events.Event:
    match command:
        case events.Look():
            return events.Looked(await store.look())
        case events.Read(after, wait):
            return events.Got(await store.read(after, wait))
        case events.Scan(cursor):
            return events.Scanned(*await store.scan(cursor))
        case events.Write(records):
            return events.Written(await store.write(records))
        case _:
            assert_never(command)


async def _ask_journal(journal: Journal, command: events.JournalCommand) -> events.Event:
    match command:
        case events.LoadJournal():
            return events.JournalLoaded(await journal.load())
        case events.ReadJournal():
            return events.JournalNews(await journal.news())
        case events.Keep(records, is_acknowledged):
            await journal.add(records, is_acknowledged=is_acknowledged)
        case events.Acknowledge(records):
            await journal.acknowledge(records)
        case events.SweepJournal(before):
            await journal.sweep(before)
        case _:
            assert_never(command)
    return events.Journaled()


def failed(command: Command) -> events.Event:
    """Return the event that says that a command failed, or that nobody knows."""
    match command:
        case events.Look():
            return events.LookFailed()
        case events.Read():
            return events.ReadFailed()
        case events.Scan():
            return events.ScanFailed()
        case events.Write():
            return events.WriteFailed()
        case _:
            return events.JournalFailed()

"""Rules of the protocol, each broken on purpose: what the simulation must notice."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from typing import Any, TypeVar
from unittest.mock import patch

from oidc_middleware.core.ledger.ledger import Ledger
from oidc_middleware.core.ledger.records import GRACE, LogEntry, Position, Record
from oidc_middleware.core.replica import events, healer, writer
from oidc_middleware.core.replica.calendar import Calendar
from oidc_middleware.core.replica.events import Kept, Receipt, Revoked
from oidc_middleware.core.replica.follower import Follower
from oidc_middleware.core.replica.healer import Healer
from oidc_middleware.core.replica.journal import Journaling
from oidc_middleware.core.replica.line import Line
from oidc_middleware.core.replica.loader import Loader
from oidc_middleware.core.replica.replica import Replica
from oidc_middleware.core.replica.writer import Batch, Writer

from simulation.data import Data, Write, record_of
from simulation.network import Network, Question
from simulation.node import Node
from simulation.server import Cluster, Refused, Server

F = TypeVar("F", bound=Callable[..., Any])
# What is broken: what is replaced in a class, in a module, or among the lanes of a node.
Break = tuple[Any, Any, Any]

MUTANTS: dict[str, list[Break]] = {}


def broken(name: str) -> ExitStack:
    """Break a rule, as long as the context lasts."""
    stack = ExitStack()
    for where, what, instead in MUTANTS[name]:
        is_lane = isinstance(where, dict)
        stack.enter_context(patch.dict(where, {what: instead}) if is_lane else patch.object(where, what, instead))
    return stack


def breaks(name: str, where: Any, what: Any) -> Callable[[F], F]:
    """Take a function for what is put in the place of another."""

    def add(instead: F) -> F:
        MUTANTS.setdefault(name, []).append((where, what, instead))
        return instead

    return add


# ---------------------------------------------------------------------------------------------------------- following


@breaks("gaps are found by the id alone", Line, "follow")
def _follow_by_id(line: Line, entry: LogEntry) -> bool:
    if entry.epoch != line.position.epoch or entry.id <= line.position.last_id:
        return False
    line.position = entry.position
    line.farthest = max(line.farthest, entry.number)
    line._passed[entry.number] = entry.id
    line._ahead.pop(entry.number, None)
    return True


@breaks("the previous id of an entry is ignored", Line, "follow")
def _follow_by_number(line: Line, entry: LogEntry) -> bool:
    return _follow(line, entry._replace(previous_id=line.position.last_id))


@breaks("numbers alone are compared", Line, "follow")
def _follow_number(line: Line, entry: LogEntry) -> bool:
    return _follow_by_number(line, entry._replace(epoch=line.position.epoch))


@breaks("numbers alone are compared", Line, "fits")
def _fit_by_number(line: Line, position: Position, asked_at: int) -> bool:
    return position.number >= asked_at


@breaks("a log that went back is not noticed", Line, "fits")
def _fit_backwards(line: Line, position: Position, _: int) -> bool:
    return _fits(line, position, 0)


@breaks("freshness on the answer to a read alone", Follower, "got")
def _fresh_by_read(follower: Follower, entries: Sequence[LogEntry], now: float) -> Sequence[Record]:
    asked_at, follower._goals = follower._asked_at, []
    records = _got(follower, entries, now)
    if follower.line is not None and asked_at is not None and asked_at.line is follower.line:
        follower.reached_at = follower.read_at  # type: ignore[attr-defined]
    return records


@breaks("freshness on the answer to a read alone", Follower, "next")
def _note_read(follower: Follower, now: float) -> events.FollowCommand | None:
    command = _next(follower, now)
    if type(command) is events.Read:
        follower.read_at = now  # type: ignore[attr-defined]
    return command


@breaks("freshness on the answer to a read alone", Node.LANES, events.Read)
def _read_as_look(node: Node, read: events.Read) -> None:
    began, sent_at = node.now, node.world.now

    def arrived(entries: list[LogEntry], *, is_bound: bool, at: float) -> events.Event:
        node.looks[began] = is_bound, sent_at, at
        return events.Got(entries)

    node.network.ask(node, "follow", Question("read", (read.after,), arrived, events.ReadFailed(), read.wait))


@breaks("a look proves what was not yet read", Follower, "_note_reached")
def _fresh_by_look(follower: Follower) -> None:
    if follower._goals:
        follower.reached_at = follower._goals[-1][1]
    _note_reached(follower)


@breaks("where the log was when a page was read is ignored", Replica, "_scanned")
def _scan_without_position(replica: Replica, page: events.Scanned, now: float) -> None:
    asked_at = replica._loader.answered()
    line = replica._follower.line
    if line is not None and asked_at is not None and asked_at.line is line:
        replica._loader.scanned(page.cursor, line.position)
        replica._apply(page.records)


@breaks("where the log was after a write is ignored", Replica, "_written")
def _written_without_position(replica: Replica, batch: Batch, position: Position, now: float) -> None:
    with patch.object(Follower, "check", lambda *_: True):
        _written(replica, batch, position, now)


@breaks("fresh before everything is loaded", Loader, "is_done")
def _done_at_once(loader: Loader, line: Line | None) -> bool:
    return line is not None and line is loader._line


@breaks("a load is done before the log has come to where the last page was", Loader, "is_done")
def _done_before_caught_up(loader: Loader, line: Line | None) -> bool:
    return line is not None and line is loader._line and loader._is_scanned


def _fresh_among_strangers(replica: Replica) -> float | None:
    return replica._fresh_as_of


MUTANTS["what nobody can read does not make a node stale"] = [
    (Replica, "fresh_as_of", property(_fresh_among_strangers))
]


# ------------------------------------------------------------------------------------------------------------- memory


@breaks("the mirror is cleared by a reload", Replica, "_looked")
def _clear_at_reload(replica: Replica, position: Position, now: float) -> None:
    if replica._follower.line is None:
        assert isinstance(replica.mirror, Ledger)
        replica.mirror._tables.clear()
        replica.mirror._order.clear()
    _looked(replica, position, now)


@breaks("sweeping with the caller's leeway", Ledger, "sweep")
def _sweep_early(ledger: Ledger, now: float, at_most: int) -> bool:
    return _sweep(ledger, now + GRACE - 30, at_most)


@breaks("a clock that jumps ahead is believed at once", Calendar, "read")
def _believe(_: Calendar, now: float, wall: float) -> float:
    return wall


@breaks("the store sweeps with the leeway of who writes", Data, "join")
def _sweep_store_early(data: Data, records: Sequence[Record], wall: float, epoch: Any, tail: bytes) -> Write:
    write = _join(data, records, wall, epoch, tail)
    return write._replace(swept=[member for member, end in data.ends.items() if end + 30 <= wall][:10])


@breaks("the generation does not move", Ledger, "merge")
def _merge_silently(ledger: Ledger, records: Iterable[Record]) -> list[Record]:
    generation = ledger.generation
    changed = _merge(ledger, records)
    ledger.generation = generation
    return changed


# ------------------------------------------------------------------------------------------------------------ writing


@breaks("the mirror learns of a revocation from the log", Replica, "_revoked")
def _mirror_last(replica: Replica, revoked: Revoked, now: float) -> None:
    if not replica._writer.revoked(revoked, now):
        replica._journal.keep(revoked)


@breaks("the receipt comes before the answer", Replica, "_revoked")
def _receipt_first(replica: Replica, revoked: Revoked, now: float) -> None:
    replica.mirror.merge(revoked.records)
    replica._receipts.append(Receipt(revoked.ticket, "shared"))
    replica._writer.revoked(Revoked(None, revoked.records), now)


@breaks("the receipt comes before the answer", Node.LANES, events.Receipt)
@breaks("the receipt comes before the journal", Node.LANES, events.Receipt)
def _one_receipt(node: Node, receipt: events.Receipt) -> None:
    if receipt.ticket in node.tickets:
        _receipt(node, receipt)


@breaks("the receipt comes before the journal", Journaling, "keep")
def _journal_last(journal: Journaling, revoked: Revoked) -> None:
    journal._receipts.append(Receipt(revoked.ticket, "journaled"))
    _keep(journal, revoked)


@breaks("what failed once is forgotten", Writer, "failed")
def _forget_failed(writer: Writer, now: float) -> Batch:
    writer.outlook.write_failed(now)
    return writer._take_from_wire()


@breaks("a failed write is journaled as acknowledged", Journaling, "_take_urgent")
def _journal_as_acknowledged(journal: Journaling) -> events.Keep | None:
    keep = _take_urgent(journal)
    return keep and keep._replace(is_acknowledged=True)


@breaks("a failed write is journaled as acknowledged", Writer, "failed")
def _forget_failed_too(writer: Writer, now: float) -> Batch:
    return _forget_failed(writer, now)


@breaks("a journal that fails gives a receipt all the same", Journaling, "_answer")
def _always_journaled(journal: Journaling, _: Kept) -> None:
    _answer(journal, "journaled")


@breaks("the other workers' journal is not read", Node.LANES, events.ReadJournal)
def _no_news(node: Node, _: events.ReadJournal) -> None:
    node._use_disk(lambda: events.JournalNews([]), is_reading=True)


# ------------------------------------------------------------------------------------------------------------ healing


@breaks("nothing is written back", Healer, "walk")
def _no_write_back(healer: Healer, _: float) -> None:
    healer.stop()


MUTANTS["what ended is written back"] = [
    (module, "is_over", lambda record, wall: record.end + 10 * GRACE <= wall) for module in (healer, writer)
]
MUTANTS["what the journal has is not written back"] = [
    (Replica, "_is_journal_told", True),
    (Healer, "add", lambda *_: None),
]

# ---------------------------------------------------------------------------------------------------------- the store


@breaks("replicas are asked where the log is", Server, "look")
def _look_at_replica(server: Server) -> Position:
    if server.master is None:
        return _look(server)
    return server.data.place or Position(b"", 0, b"")


@breaks("a look does not try to write", Server, "look")
def _look_without_write(server: Server) -> Position:
    if server.master is not None:
        raise Refused("READONLY")
    cut_off, server.is_cut_off = server.is_cut_off, False
    try:
        return _look(server)
    finally:
        server.is_cut_off = cut_off


@breaks("two servers may give one id", Cluster, "new_tail")
def _no_tail(_: Cluster) -> bytes:
    return b""


@breaks("paging by rank", Server, "scan")
def _scan_by_rank(server: Server, cursor: bytes) -> tuple[list[Record], bytes, Position]:
    _, _, place = _scan(server, b"")
    start = int(cursor or b"0")
    ranked = sorted((end, member) for member, end in server.data.ends.items())
    stop = start + server.cluster.page
    page = [record_of(member, end) for end, member in ranked[start:stop]]
    return page, b"%d" % stop if len(ranked) > stop else b"", place


@breaks("a cursor is taken to another server", Network, "scan")
def _scan_anywhere(network: Network, node: Node, cursor: bytes) -> None:
    def arrived(page: tuple[list[Record], bytes, Position], *, is_bound: bool, at: float) -> events.Event:
        return events.Scanned(*page)

    network.ask(node, "load", Question("scan", (cursor,), arrived, events.ScanFailed()))


PROVOKED_BY: dict[str, tuple[str, ...]] = {
    "gaps are found by the id alone": ("partition", "trimmed log"),
    "the previous id of an entry is ignored": ("isolated primary",),
    "numbers alone are compared": ("fail-over", "replication lag"),
    "a log that went back is not noticed": ("fail-over", "replication lag", "delay"),
    "freshness on the answer to a read alone": ("evicted log", "fail-over", "partition"),
    "where the log was when a page was read is ignored": ("isolated primary", "sent to a replica"),
    "where the log was after a write is ignored": ("fail-over", "delay"),
    "a load is done before the log has come to where the last page was": ("isolated primary", "crash"),
    "two servers may give one id": ("fail-over", "replication lag", "clocks of the store set back"),
    "a cursor is taken to another server": ("fail-over", "crash"),
    "replicas are asked where the log is": ("sent to a replica",),
    "a look does not try to write": ("isolated primary",),
    "the other workers' journal is not read": ("partition", "restart of the store"),
    "what the journal has is not written back": ("flush", "crash"),
    "paging by rank": ("time passes", "crash", "evicted set"),
    "a journal that fails gives a receipt all the same": ("broken journal", "partition"),
    "what ended is written back": ("time passes", "evicted set", "clock set"),
    "a clock that jumps ahead is believed at once": ("clock hours ahead",),
    "what nobody can read does not make a node stale": ("rotation of the secret",),
}
"""Which faults show soonest that a rule is broken; where none are named, any do."""

_follow, _fits = Line.follow, Line.fits
_got, _next, _note_reached = Follower.got, Follower.next, Follower._note_reached
_written, _looked = Replica._written, Replica._looked
_sweep, _merge = Ledger.sweep, Ledger.merge
_join = Data.join
_look, _scan = Server.look, Server.scan
_receipt = Node._receipt
_keep, _take_urgent, _answer = Journaling.keep, Journaling._take_urgent, Journaling._answer

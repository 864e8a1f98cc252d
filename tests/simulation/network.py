"""What lies between nodes and servers: requests are lost, answers are lost, both come late."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

from oidc_middleware.core.ledger.records import LogEntry, Position, Record
from oidc_middleware.core.replica import events
from oidc_middleware.core.replica.events import Event

from simulation.server import Cluster, Refused, Server
from simulation.world import World

if TYPE_CHECKING:
    from simulation.node import Node

LANES = ("follow", "load", "write")
"""What a node has a connection of its own for."""
PATIENCE = 1.0
"""Seconds after which a driver takes an answer for lost."""


class Link:
    """A connection: to a server, in one of its lives."""

    __slots__ = ("life", "number", "server")

    def __init__(self) -> None:
        self.server: Server | None = None
        self.life = 0
        self.number = 0
        """How many there were before; a cursor is of one of them."""


class Question(NamedTuple):
    """What is asked of a server, and what the node will handle then."""

    command: str
    arguments: tuple[Any, ...]
    arrived: Callable[..., Event]
    failure: Event
    wait: float = 0.0


class Request:
    """A question under way. It is answered once, or taken for lost."""

    __slots__ = ("is_over", "lane", "life", "link_number", "node", "question", "until")

    def __init__(self, node: Node, lane: str, question: Question, until: float) -> None:
        self.node = node
        self.life = node.life
        self.lane = lane
        self.link_number = node.links[lane].number
        self.question = question
        self.until = until
        self.is_over = False


class Network:
    """Delays and losses, and who cannot reach whom."""

    def __init__(self, world: World, cluster: Cluster, latency: float) -> None:
        self.world = world
        self.cluster = cluster
        self.latency = latency
        self.loss = 0.0
        self.slow = 0.0
        """How likely a message takes up to two seconds."""
        self.cut: set[tuple[str, str]] = set()
        """Nodes and servers that do not reach each other."""
        self.astray: dict[tuple[str, str], Server] = {}
        """Nodes, and lanes of these, whose new connections go to another server than the primary."""
        self.crashes: dict[str, int] = {}
        """At which of the next events of a kind the node crashes that caused it."""
        self.counts: Counter[str] = Counter()

    def ask(self, node: Node, lane: str, question: Question) -> None:
        """Send a question; the node will handle what becomes of it."""
        link = node.links[lane]
        if link.server is None or link.life != link.server.life:
            link.server = self.astray.get((node.name, lane), self.cluster.primary)
            link.life = link.server.life
            link.number += 1
        request = Request(node, lane, question, self.world.now + question.wait + PATIENCE)
        self._send(request, link.server)

    def scan(self, node: Node, cursor: bytes) -> None:
        """Send for a part of all records. A cursor fails on another connection than the one that it came by."""
        number, _, rest = cursor.partition(b":")

        def arrived(page: tuple[list[Record], bytes, Position], *, is_bound: bool, at: float) -> Event:
            records, following, position = page
            if following:
                following = b"%d:%s" % (node.links["load"].number, following)
            return events.Scanned(records, following, position)

        link = node.links["load"]
        is_other = link.server is None or link.life != link.server.life or number != b"%d" % link.number
        if cursor and is_other:
            self.world.after(0.0005, node.deliver, node.life, events.ScanFailed())
        else:
            self.ask(node, "load", Question("scan", (rest,), arrived, events.ScanFailed()))

    def point(self, kind: str, node: Node) -> None:
        """Let a node crash where it is told to."""
        left = self.crashes.get(kind)
        if left is not None:
            if left <= 0:
                del self.crashes[kind]
                self.counts["crash between"] += 1
                node.crash()
            else:
                self.crashes[kind] = left - 1

    def _send(self, request: Request, server: Server) -> None:
        world = self.world
        if self._loses(request.node, server):
            world.after(request.until - world.now, self._give_up, request)
            return
        delay = self._delay()
        if world.now + delay > request.until:
            world.after(request.until - world.now, self._give_up, request)
        world.after(delay, self._arrive, request, server, server.life)

    def _arrive(self, request: Request, server: Server, life: int) -> None:
        world = self.world
        if server.frozen_until > world.now:
            # It lies there until the server goes on; meanwhile whoever asked may give up.
            if server.frozen_until > request.until and not request.is_over:
                world.after(max(0.0, request.until - world.now), self._give_up, request)
            later = server.frozen_until - world.now + world.random.uniform(0, 0.01)
            world.after(later, self._arrive, request, server, life)
            return
        if not server.is_up or life != server.life:
            self._reset(request)
            return
        command, arguments, _, _, wait = request.question
        try:
            answer = getattr(server, command)(*arguments)
        except Refused:
            self._answer(request, server, None, is_refused=True)
            return
        if command == "write":
            self.point("write", request.node)
        if command == "read" and not answer and wait > 0:
            self._wait(request, server, arguments[0], wait)
        else:
            self._answer(request, server, answer)

    def _wait(self, request: Request, server: Server, after: Position, wait: float) -> None:
        def tell(entries: list[LogEntry] | None) -> None:
            if entries is None:
                self._reset(request)
            else:
                self._answer(request, server, entries)

        item = (after.last_id, tell)

        def timed_out() -> None:
            if item in server.waiting:
                server.waiting.remove(item)
                self._answer(request, server, [])

        server.waiting.append(item)
        self.world.after(wait, timed_out)

    def _answer(self, request: Request, server: Server, answer: object, *, is_refused: bool = False) -> None:
        world = self.world
        if request.is_over:
            return
        delay = self._delay()
        if self._loses(request.node, server) or world.now + delay > request.until:
            world.after(max(0.0, request.until - world.now), self._give_up, request)
        elif is_refused:
            world.after(delay, self._finish, request, request.question.failure)
        else:
            # An old primary that takes writes proves nothing, and nobody can know.
            is_bound = server is self.cluster.primary or server.master is not None
            world.after(delay, self._deliver, request, answer, is_bound, world.now)

    def _deliver(self, request: Request, answer: object, is_bound: bool, at: float) -> None:
        if not request.is_over and request.life == request.node.life:
            self._finish(request, request.question.arrived(answer, is_bound=is_bound, at=at))

    def _reset(self, request: Request) -> None:
        """The connection breaks: whoever asked learns it at once."""
        self.world.after(0.001, self._give_up, request)

    def _give_up(self, request: Request) -> None:
        link = request.node.links[request.lane]
        if not request.is_over and request.life == request.node.life and link.number == request.link_number:
            link.server = None
        self._finish(request, request.question.failure)

    def _finish(self, request: Request, event: Event) -> None:
        if not request.is_over:
            request.is_over = True
            request.node.deliver(request.life, event)

    def _delay(self) -> float:
        random = self.world.random.random
        if self.slow and random() < self.slow:
            return 2.0 * random()
        return self.latency * (0.2 + 2.0 * random())

    def _loses(self, node: Node, server: Server) -> bool:
        if self.cut and (node.name, server.name) in self.cut:
            return True
        return self.loss > 0 and self.world.random.random() < self.loss

"""What nodes that revoke have promised, and whether what they say is in accord with it."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from math import inf
from random import Random
from typing import Any, TypeAlias

from revoking_node import MAX_STALENESS

KINDS = ("token", "session", "subject")
SLACK = 1.0
"""Seconds that a timer of a busy process may be late."""
BACKGROUND = 10.0
"""Seconds in which a revocation that is shared is in the journal too."""
LONGEST = 15.0
"""Seconds for which a caller that revokes may have to wait, on a busy machine."""
ASKED_FOR_AT_MOST = 1.0
"""Seconds in which a store answers where its log is, or has not answered."""
_ASKED = 300
_ASKED_AGAIN = 100

Name: TypeAlias = tuple[str, str]


@dataclass(eq=False)
class Revocation:
    """One that a node gave a receipt for; times are monotonic, and all processes have the same."""

    name: Name
    receipt: str
    node: int
    life: int
    began: float
    acknowledged: float


@dataclass(eq=False)
class Life:
    """A node's process, from its start to its end."""

    node: int
    number: int
    open: dict[Name, Revocation]
    refused: dict[Name, Revocation] = field(default_factory=dict)


@dataclass
class Span:
    """From when to when something is done; without an end until that is known."""

    begin: float
    end: float = inf


@dataclass
class Blackout(Span):
    """Meanwhile some nodes can store nothing, and if it hides the log, learn nothing."""

    nodes: frozenset[int] = frozenset()
    hides: bool = True


class Promises:
    """All receipts, what was done to the store, and what is wrong."""

    def __init__(self, random: Random) -> None:
        self.known: dict[Name, Revocation] = {}
        self.lives: dict[int, Life] = {}
        self.deaths: dict[tuple[int, int], float] = {}
        """When a life of a node ended."""
        self.losses: list[Span] = []
        self.blackouts: list[Blackout] = []
        self.counts: Counter[str] = Counter()
        self.receipts: Counter[str] = Counter()
        self.violations: list[str] = []
        self.longest = 0.0
        self._random = random

    def born(self, node: int, number: int) -> Life:
        """Note that a node's process starts, which may know nothing."""
        life = self.lives[node] = Life(node, number, dict(self.known))
        return life

    def died(self, life: Life, now: float) -> None:
        """Note that a process was killed."""
        self.deaths[life.node, life.number] = now

    def heard(self, life: Life, receipt: list[Any], *, was_frozen: bool) -> None:
        """Note a receipt."""
        kind, name, kept, began, acknowledged = receipt
        self.receipts[kept] += 1
        self.counts[kind] += 1
        if not was_frozen:
            self.longest = max(self.longest, acknowledged - began)
            if acknowledged - began > LONGEST:
                self.violated(life, f"a caller waited for {acknowledged - began:.1f} s")
        for blackout in self.blackouts:
            if (
                kept == "shared"
                and life.node in blackout.nodes
                and began > blackout.begin
                and acknowledged < blackout.end
            ):
                self.violated(life, f"{kind} {name} was shared from {began:.3f}, but {blackout}")
        if kind in KINDS and kept in {"shared", "journaled", "local"}:
            revocation = Revocation((kind, name), kept, life.node, life.number, began, acknowledged)
            self.known[revocation.name] = revocation
            for each in self.lives.values():
                each.open[revocation.name] = revocation

    def to_ask(self, life: Life) -> list[Name]:
        """Return what to ask a node for: what it may not know, and some that it must not have forgotten."""
        names = list(life.open)
        if len(names) > _ASKED:
            names = names[-_ASKED // 2 :] + self._random.sample(names, _ASKED // 2)
        return names + self._random.sample(list(life.refused), min(_ASKED_AGAIN, len(life.refused)))

    def judge(self, life: Life, names: list[Name], answer: dict[str, Any]) -> None:
        """Hold what a node says against what was promised."""
        for text in answer["violations"]:
            self.violated(life, text)
        now, staleness = answer["now"], answer["staleness"]
        as_of = None if staleness is None else now - staleness
        self._judge_freshness(life, now, as_of, answer)
        is_open = set(answer["open"])
        for place, name in enumerate(names):
            self.counts["checks"] += 1
            revocation = life.open.get(name) or life.refused.get(name)
            if revocation is None:
                continue
            if place not in is_open:
                life.open.pop(name, None)
                life.refused[name] = revocation
            elif why := self._why_refused(life, revocation, now, as_of, has_journal=answer["journal"]):
                self.violated(life, f"{revocation} is not refused at {now:.3f}, as of {as_of}: {why}")

    def _why_refused(
        self, life: Life, one: Revocation, now: float, as_of: float | None, *, has_journal: bool
    ) -> str | None:
        """Return why a node must refuse something; None if it need not.

        A node knows as of when it asked. One that begins then cannot know what the store lost before it answered: the
        promise is that nothing is missing if nothing was lost, until the answer.
        """
        is_own = one.node == life.node
        if one.name in life.refused:
            return "it was before"
        if is_own and one.life == life.number:
            return "it is its own"
        if is_own and has_journal and self._is_in_journal(one):
            return "it is in its journal"
        if one.receipt != "shared" or as_of is None or one.acknowledged >= as_of:
            return None
        answered = min(now, as_of + ASKED_FOR_AT_MOST)
        return None if self.lost(one, answered) else "the store had it"

    def _judge_freshness(self, life: Life, now: float, as_of: float | None, answer: dict[str, Any]) -> None:
        self.counts["looks at freshness"] += 1
        if as_of is None:
            if not answer["stale"]:
                self.violated(life, "it knows nothing, and is not stale")
            return
        if not answer["stale"] and now - as_of > MAX_STALENESS + SLACK:
            self.violated(life, f"it is {now - as_of:.3f} s behind, and not stale")
        for blackout in self.blackouts:
            if life.node in blackout.nodes and blackout.hides and blackout.begin < as_of and now < blackout.end:
                self.violated(life, f"it knows all as of {as_of:.3f}, at {now:.3f}, but {blackout}")

    def lost(self, one: Revocation, by: float) -> bool:
        """Tell whether the store may have lost a revocation by a time."""
        return any(loss.begin < by and loss.end > one.began for loss in self.losses)

    def _is_in_journal(self, one: Revocation) -> bool:
        return one.receipt == "journaled" or (one.receipt == "shared" and not self._died_with(one))

    def _died_with(self, one: Revocation) -> bool:
        """Tell whether the process that revoked may have had no time to put into its journal what was shared."""
        return self.deaths.get((one.node, one.life), inf) < one.acknowledged + BACKGROUND

    def settle(self) -> None:
        """All is healed, and all have been asked: forget what nobody can know, and what was done before."""
        for name, one in list(self.known.items()):
            if all(name in life.open for life in self.lives.values()) and self._is_excused(one):
                self.counts["lost with both who knew"] += 1
                del self.known[name]
                for life in self.lives.values():
                    del life.open[name]
            else:
                for life in self.lives.values():
                    if name in life.open:
                        self.violated(life, f"{one} is not refused after all was healed")
        self.losses.clear()
        self.blackouts.clear()

    def _is_excused(self, one: Revocation) -> bool:
        if one.receipt == "journaled" or not self._died_with(one):
            return False
        return one.receipt == "local" or self.lost(one, inf)

    def violated(self, life: Life, text: str) -> None:
        """Note what is wrong."""
        self.violations.append(f"node {life.node}, start {life.number}: {text}")

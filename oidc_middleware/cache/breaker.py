"""When to stop asking a tier that does not answer, and when to try it again: pure, with time as an argument."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

from oidc_middleware.errors import FailureKind

State = Literal["closed", "open", "probing"]


@dataclass(frozen=True, slots=True)
class Thresholds:
    """When a breaker opens, and how long it pauses (in seconds).

    Of the last `calls` outcomes, none older than `window`, `failures` at least and a share of `ratio` at least have
    failed. The pause before the n-th try is random between 0 and `first_pause` * 2^n, `longest_pause` at most.
    """

    failures: int = 4
    ratio: float = 0.5
    calls: int = 10
    window: float = 10.0
    first_pause: float = 0.1
    longest_pause: float = 1.0


class Breaker:
    """Whether one kind of operation may be tried.

    Reads and writes have one each: a full server still reads, and one that answers PING may refuse every write.

    Closed: it may. Open: it may not, until `due_at`. Then one caller may `begin_probe`, and what becomes of that one
    call decides. Every outcome is reported, but a call whose caller went away says nothing about the tier.

    `random` returns a number from 0 to 1. It spreads the tries of a fleet over the whole pause, so that they do not
    come in step when the tier returns (full jitter).
    """

    def __init__(self, random: Callable[[], float], thresholds: Thresholds | None = None) -> None:
        self.state: State = "closed"
        self.due_at: float = 0.0
        """When an open breaker may be probed, in the time that is passed in."""
        self.cause: FailureKind | None = None
        """The kind of failure that opened it, or of the last probe; None while it is closed."""
        self._random = random
        self._thresholds = thresholds or Thresholds()
        self._outcomes: deque[tuple[float, bool]] = deque(maxlen=self._thresholds.calls)
        self._failures: dict[FailureKind, int] = {}
        self._probes = 0

    @property
    def is_closed(self) -> bool:
        """Whether the operation may be tried without asking."""
        return self.state == "closed"

    @property
    def failures(self) -> Mapping[FailureKind, int]:
        """How many failures were reported, by kind."""
        return MappingProxyType(self._failures)

    def begin_probe(self, now: float) -> bool:
        """Tell whether the caller is the one who may try; it has to report what becomes of it, or call `give_up`."""
        if self.state != "open" or now < self.due_at:
            return False
        self.state = "probing"
        return True

    def give_up(self, now: float) -> None:
        """Take back a probe that was ended before it could show anything."""
        if self.state == "probing":
            self._open(now)

    def succeed(self, now: float) -> None:
        """Report an answer."""
        if self.state == "closed":
            self._outcomes.append((now, True))
        elif self.state == "probing":
            self.state, self.cause, self._probes = "closed", None, 0
            self._outcomes.clear()

    def fail(self, now: float, kind: FailureKind) -> None:
        """Report a failure; `refused` is an error of the application and shows that the tier answers: only counted."""
        self._failures[kind] = self._failures.get(kind, 0) + 1
        if kind == "refused":
            if self.state == "probing":
                self.succeed(now)
        elif self.state == "probing":
            self.cause = kind
            self._open(now)
        elif self.state == "closed":
            self._outcomes.append((now, False))
            if self._is_too_much(now):
                self.cause = kind
                self._open(now)

    def _is_too_much(self, now: float) -> bool:
        outcomes, limits = self._outcomes, self._thresholds
        while outcomes and outcomes[0][0] <= now - limits.window:
            outcomes.popleft()
        failed = sum(not succeeded for _, succeeded in outcomes)
        return failed >= limits.failures and failed >= limits.ratio * len(outcomes)

    def _open(self, now: float) -> None:
        limits = self._thresholds
        longest = min(limits.longest_pause, limits.first_pause * 2.0 ** min(self._probes, 64))
        self.state = "open"
        self.due_at = now + longest * self._random()
        self._probes += 1

"""How a node stands with the shared tier: whether it may be asked, and who is told when that changes."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable

from oidc_middleware.cache.breaker import Breaker, Thresholds
from oidc_middleware.clock import Clock
from oidc_middleware.errors import BackendUnavailable, FailureKind


class Standing:
    """The breakers of reads and writes, the last failure, and the news when memory has to do alone."""

    def __init__(
        self,
        clock: Clock,
        random: Callable[[], float],
        thresholds: Thresholds | None,
        logger: logging.Logger,
        on_fallback: Callable[[bool], None] | None,
    ) -> None:
        self.reads: Breaker = Breaker(random, thresholds)
        self.writes: Breaker = Breaker(random, thresholds)
        self.fallback: bool = False
        """Whether reads or writes, or both, leave the shared tier alone."""
        self.ring: Callable[[], None] = _nobody_listens
        """Called after every failure: there is something to look after."""
        self.hangs: bool = False
        """Whether the shared tier kept somebody waiting in vain, and has answered nobody since."""
        self.last_error: str = ""
        """What the last failure said, empty when there was none."""
        self._failed_at = 0.0
        self._warned_of = ""
        self._now = clock.monotonic
        self._logger = logger
        self._on_fallback = on_fallback

    @property
    def last_error_age(self) -> float | None:
        """How many seconds ago the last failure was, None when there was none."""
        return self._now() - self._failed_at if self.last_error else None

    @property
    def errors(self) -> dict[FailureKind, int]:
        """How many batches and single calls failed, by kind."""
        return dict(Counter(self.reads.failures) + Counter(self.writes.failures))

    def refusal(self, breaker: Breaker) -> BackendUnavailable:
        """Return the error of a call that was not tried."""
        return BackendUnavailable(f"the shared cache is left alone for now: {self.last_error}", breaker.cause or "link")

    def report(self, breaker: Breaker, failure: BackendUnavailable | None) -> None:
        """Tell a breaker what became of a call, and everybody else if that changes how things stand."""
        now = self._now()
        if failure is None:
            self.hangs = False
            breaker.succeed(now)
        else:
            self.suspect(failure)
            self.remember(failure)
            breaker.fail(now, failure.kind)
        fallback = not (self.reads.is_closed and self.writes.is_closed)
        if fallback is not self.fallback:
            self.fallback = fallback
            self._tell()
        if failure is not None:
            self.ring()

    def suspect(self, failure: BackendUnavailable) -> None:
        """Note that a caller waited in vain, if that is why it failed: until there is an answer others wait less."""
        self.hangs = self.hangs or failure.kind == "timeout"

    def remember(self, failure: BackendUnavailable) -> None:
        """Keep a failure as the last one."""
        self.last_error = failure.detail or failure.kind
        self._failed_at = self._now()

    def warn(self, detail: str) -> None:
        """Log what is wrong with a tier that answers, once as long as it stays the same; empty: nothing is."""
        if detail and detail != self._warned_of:
            self._logger.warning("The shared cache is not safe: %s", detail)
        self._warned_of = detail

    def silence(self) -> None:
        """Call nobody after failures: the event loop of who listened is over."""
        self.ring = _nobody_listens

    def _tell(self) -> None:
        if self.fallback:
            what = "written" if self.reads.is_closed else "read"
            self._logger.warning("The shared cache cannot be %s; memory does alone: %s", what, self.last_error)
        else:
            self._logger.warning("The shared cache is back")
        if self._on_fallback is not None:
            try:
                self._on_fallback(self.fallback)
            except Exception:
                self._logger.exception("whoever wants to know about the shared cache failed")


def _nobody_listens() -> None:
    """No event loop runs."""

"""Unix time by a clock that may be set."""

from __future__ import annotations

from oidc_middleware.core.ledger.records import GRACE

_BELIEVED = 120.0


class Calendar:
    """Does not believe at once that time has gone ahead: what is swept then is lost when the clock is set right again.

    A jump ahead of more than two minutes is believed after it has lasted for `GRACE` seconds. Until then time goes on
    from where it was. A clock that is set back is believed: it lets things live longer.
    """

    def __init__(self) -> None:
        self._ahead: float | None = None
        self._jumped_at: float | None = None

    def read(self, now: float, wall: float) -> float:
        """Return the Unix time to go by, from the monotonic time and what the clock shows."""
        ahead = wall - now
        if self._ahead is not None and ahead > self._ahead + _BELIEVED:
            if self._jumped_at is None:
                self._jumped_at = now
            if now < self._jumped_at + GRACE:
                return now + self._ahead
        self._ahead, self._jumped_at = ahead, None
        return wall

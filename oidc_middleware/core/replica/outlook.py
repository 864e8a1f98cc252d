"""Whether the store may be counted on: a breaker over looks and writes."""

from __future__ import annotations

import math
from collections.abc import Callable

from oidc_middleware.core.replica.backoff import Backoff

_OPENS_AT = 3
_FIRST_PAUSE = 0.1
_LONGEST_PAUSE = 1.0


class Outlook:
    """Count failures in a row, of looks and writes together.

    A look that succeeds shows that the primary answers and may write; a full server still refuses writes. So after
    failures one write is tried as soon as a look has succeeded, or the pause is over, whatever looks say.
    """

    def __init__(self, random: Callable[[], float]) -> None:
        self._backoff = Backoff(random, _FIRST_PAUSE, _LONGEST_PAUSE)
        self._failed_looks = 0
        self._failed_writes = 0
        self._has_answered = True

    def looked(self) -> None:
        """Note that the store answers; what failed while it did not is due at once."""
        if not self._failed_writes:
            self._backoff.succeeded()
        elif self._failed_looks:
            self._backoff.until = -math.inf
        self._failed_looks = 0
        self._has_answered = True

    def look_failed(self, now: float) -> None:
        """Note that the store does not answer."""
        self._failed_looks += 1
        self._has_answered = False
        if not self.is_closed and now >= self._backoff.until:  # a pause that each look made longer would never end
            self._backoff.failed(now)

    def written(self) -> None:
        """Note that the store takes writes."""
        self._failed_looks = self._failed_writes = 0
        self._has_answered = True
        self._backoff.succeeded()

    def write_failed(self, now: float) -> None:
        """Note that the store does not take a write, or nobody knows."""
        self._failed_writes += 1
        self._has_answered = False
        self._backoff.failed(now)

    @property
    def is_closed(self) -> bool:
        """Whether callers may wait for the store."""
        return self._failed_looks + self._failed_writes < _OPENS_AT

    def may_repeat(self, now: float) -> bool:
        """Tell whether what has failed may be tried again."""
        if self._failed_writes < _OPENS_AT and self._has_answered:
            return True
        return self._is_pausing and now >= self._backoff.until

    def due(self, now: float) -> float:
        """When time alone lets it be tried again; infinity if only a look can."""
        return self._backoff.until if self._is_pausing and now < self._backoff.until else math.inf

    @property
    def _is_pausing(self) -> bool:
        return self._failed_writes > 0 or not self.is_closed

"""When an issuer that fails may be asked again."""

from __future__ import annotations

import math
from random import Random

from oidc_middleware.clock import Clock
from oidc_middleware.errors import ProviderError, ProviderInvalid, ProviderUnavailable

FIRST = 1.0
LONGEST = 60.0
_DOUBLINGS = 6
# How long after the next attempt is due an outage still counts as going on, when nobody has made that attempt.
_PATIENCE = 60.0


class Backoff:
    """Waits between attempts, in seconds: they double from 1 to 60, and each is shortened by up to half at random.

    The jitter keeps the nodes of a fleet, which saw the same failure, from asking again at the same moment.
    """

    def __init__(self, clock: Clock, random: Random) -> None:
        self._monotonic = clock.monotonic
        self._random = random
        self._error: ProviderError = ProviderUnavailable("not asked yet")
        self.failures: int = 0
        """Attempts that failed since the last one that succeeded."""
        self.retry_at: float = -math.inf
        """Monotonic time from which on the issuer may be asked."""

    def failed(self, error: ProviderError) -> None:
        """Count a failed attempt, and write into `error` when the next one will be made."""
        wait = min(LONGEST, FIRST * 2 ** min(self.failures, _DOUBLINGS)) * self._random.uniform(0.5, 1)
        self.failures += 1
        self.retry_at = self._monotonic() + wait
        self._error = error
        error.retry_after = self._retry_after()

    def succeeded(self) -> None:
        """Forget the failures."""
        self.failures = 0
        self.retry_at = -math.inf

    def check(self) -> None:
        """Let an attempt pass when its time has come.

        Raises:
            ProviderError: it has not; of the kind of the last failure.
        """
        if self._monotonic() < self.retry_at:
            kind = ProviderInvalid if isinstance(self._error, ProviderInvalid) else ProviderUnavailable
            raise kind(self._error.detail, self._retry_after())

    @property
    def outage(self) -> bool:
        """Whether the issuer failed lately and nothing shows that it is back."""
        return self.failures > 0 and self._monotonic() < self.retry_at + _PATIENCE

    def _retry_after(self) -> int:
        return max(1, math.ceil(self.retry_at - self._monotonic()))

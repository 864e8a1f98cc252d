"""How values are loaded and kept."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields


@dataclass(frozen=True, slots=True)
class Loading:
    """How a `LoadingCache` loads and keeps values. All times are in seconds; 0 turns off what it is the length of.

    `life` is how long a value is fresh, `negative_life` the same of a negative answer, counted from the moment when its
    loading began. `jitter` is the part of a life that chance may take away, so that what a fleet loaded at once does
    not end at once.

    When `refresh_ahead` of a life has passed (1: never), whoever asks gets the value and starts a reload; each node
    has a moment of its own, up to `jitter` earlier. For `stale_while_revalidate` after the end the old value is served
    at once while it is reloaded, for `stale_if_error` only when the reload failed (RFC 5861). Negative answers are
    never served after their end. After a failed reload an old value that may be served is served for `retry_after`
    without another try.

    Where nodes share a tier: with `lock` one node loads at a time while the others wait for its value, each for two
    `lock_life` at most, looking every `poll` where no news comes. A node that is gone holds the lock for `lock_life`.
    Without `lock` every node waits up to `spread` and looks whether another was faster.

    Raises:
        ValueError: a number cannot be one of its kind.

    Source: RFC 5861 §3 (stale-while-revalidate), §4 (stale-if-error).
    """

    life: float = 60.0
    negative_life: float = 10.0
    stale_while_revalidate: float = 0.0
    stale_if_error: float = 0.0
    refresh_ahead: float = 0.8
    jitter: float = 0.1
    retry_after: float = 1.0
    spread: float = 0.0
    lock: bool = False
    lock_life: float = 10.0
    poll: float = 0.25

    def __post_init__(self) -> None:
        for field in fields(self):
            number = getattr(self, field.name)
            if not 0 <= number < math.inf:
                raise ValueError(f"{field.name}: {number} is no number of seconds and no part")
        if not 0 < self.refresh_ahead <= 1:
            raise ValueError("refresh_ahead: a part of the life, more than 0 and 1 at most")
        if not self.jitter < 1:
            raise ValueError("jitter: a part of the life, less than 1")
        if not (self.lock_life > 0 and self.poll > 0):
            raise ValueError("lock_life and poll: a lock ends, and whoever waits for it looks now and then")

    @property
    def window(self) -> float:
        """How long a value may be of use after its end."""
        return max(self.stale_while_revalidate, self.stale_if_error)

"""Time as an object, so that whoever needs it can be handed another one."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Protocol


class Clock(Protocol):
    """Wall and monotonic time, both in seconds as floats.

    The two are attributes that hold functions, so that a hot path may keep `clock.now` itself and pay for one call.
    """

    @property
    def now(self) -> Callable[[], float]:
        """Return Unix time: what `exp`, `nbf` and `iat` are compared with."""

    @property
    def monotonic(self) -> Callable[[], float]:
        """Return a time that never goes back: what cool-downs and deadlines are measured with."""


class SystemClock:
    """The machine's clock."""

    now: staticmethod[[], float] = staticmethod(time.time)
    monotonic: staticmethod[[], float] = staticmethod(time.monotonic)

"""Objects that hear of forks for as long as they live."""

from __future__ import annotations

import os
import weakref
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def follow_forks(
    owner: T, *, before: Callable[[T], None], in_parent: Callable[[T], None], in_child: Callable[[T], None]
) -> None:
    """Call methods of an object around every fork; where there are no forks, never."""
    if not hasattr(os, "register_at_fork"):
        return
    found = weakref.ref(owner)

    def told(method: Callable[[T], None]) -> Callable[[], None]:
        def tell() -> None:
            there = found()
            if there is not None:
                method(there)

        return tell

    os.register_at_fork(before=told(before), after_in_parent=told(in_parent), after_in_child=told(in_child))

"""The stamp by which a known token is known to be known still."""

from __future__ import annotations


class Generation:
    """A number that moves whenever something that was accepted may have to be refused.

    A verdict is stored with the number that was read before its checks. While the two are equal nothing has happened
    that could overturn it, and one comparison of integers stands for all those checks.
    """

    __slots__ = ("value",)

    def __init__(self) -> None:
        self.value: int = 0

    def advance(self) -> None:
        """Make every verdict of before be looked at again."""
        self.value += 1

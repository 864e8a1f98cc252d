"""The stamps by which a known token is known to be known still."""

from __future__ import annotations


class Generation:
    """A number that moves whenever something that was accepted may have to be refused.

    A verdict is stored with the number that was read before its checks. While the two are equal nothing has happened
    that could overturn it, and one comparison of integers stands for all those checks.

    `keys` moves with withdrawn keys only: while that is as it was, the signature need not be verified anew, and it is
    enough to look into the ledger of revocations.
    """

    __slots__ = ("keys", "value")

    def __init__(self) -> None:
        self.value: int = 0
        self.keys: int = 0

    def advance(self) -> None:
        """Have every verdict of before held against the ledger again."""
        self.value += 1

    def withdraw_keys(self) -> None:
        """Have every token of before verified again."""
        self.keys += 1
        self.value += 1

"""What a revocation comes back with."""

from __future__ import annotations

from enum import StrEnum
from typing import Literal

from oidc_middleware.errors import RevocationNotShared

ReceiptName = Literal["shared", "journaled", "local"]


class Receipt(StrEnum):
    """How far a revocation had got when the call returned. It holds on this node from before that, in every case.

    `shared`: the shared store has it, and every node that follows it enforces it within moments. `journaled`: it is on
    this host's disk, and reaches the others as soon as the store can be reached, also after a crash. `local`: it is in
    this process's memory alone, and reaches the others if that lives until the store can be reached.
    """

    SHARED = "shared"
    JOURNALED = "journaled"
    LOCAL = "local"

    def check(self, required: Receipt | None) -> None:
        """Check that it is what was required, or better.

        Raises:
            RevocationNotShared: it is less. The revocation is not taken back.
        """
        if required is not None and self.least(required) is not required:
            raise RevocationNotShared(f"the receipt is {self}, not {required}", str(self))

    def least(self, other: Receipt) -> Receipt:
        """Return the lesser of two."""
        return max(self, other, key=tuple(Receipt).index)

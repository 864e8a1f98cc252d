"""What the ledger says of an identity at this moment, and what is done while that is not certain."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Literal

from oidc_middleware.core.ledger.digests import Marks
from oidc_middleware.core.ledger.ledger import Ledger
from oidc_middleware.core.ledger.records import Kind, Record
from oidc_middleware.errors import RevocationStale, Revoked


class Standing:
    """Held against every identity, from memory.

    `begin` is awaited before a token is held against it that nobody here has seen: once the ledger is loaded that costs
    nothing. `on_stale` says what becomes of identities while the ledger may be behind the others'.
    """

    def __init__(self, ledger: Ledger, on_stale: Literal["allow", "deny"]) -> None:
        self.is_stale: bool = False
        """Whether what is known here is older than it may be."""
        self.allowed_stale: int = 0
        """How often an identity was let in while it was."""
        self.denied_stale: int = 0
        """How often one was refused for that."""
        self._ledger = ledger
        self._denies = on_stale == "deny"
        self.begin: Callable[[], Awaitable[None]] = at_once

    def marks_of(self, claims: Mapping[str, Any], signing_input: bytes) -> Marks:
        """Return what the ledger knows a verified token by."""
        return self._ledger.keys.marks(claims, signing_input)

    def check_again(self, packed: bytes) -> bool:
        """Do what `check` does, for marks that were packed."""
        return self.check(self._ledger.keys.unpack(packed))

    def check(self, marks: Marks) -> bool:
        """Check that the ledger refuses nothing of an identity; tell whether that is certain until the ledger moves.

        Raises:
            Revoked: it does.
            RevocationStale: it may, and such are refused.
        """
        record = self._ledger.refuses(marks)
        if record is not None:
            raise Revoked(_reason(record))
        if not self.is_stale:
            return True
        if self._denies:
            self.denied_stale += 1
            raise RevocationStale("what is known of revocations is too old, and on_stale is deny")
        self.allowed_stale += 1
        return False


def _reason(record: Record) -> str:
    if record.kind is Kind.TOKEN:
        return "the token was revoked"
    return f"everything of this {record.kind.name.lower()} issued until {record.number} was revoked"


async def at_once() -> None:
    """Wait for nothing."""

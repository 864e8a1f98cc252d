"""Who or what is meant: the issuer that was left out, the marks of a principal, and until when a revocation matters."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection

from oidc_middleware.clock import Clock
from oidc_middleware.core import opaque
from oidc_middleware.core.ledger.digests import LedgerKeys, Marks, token_end
from oidc_middleware.core.ledger.records import LARGEST_NUMBER, Record
from oidc_middleware.core.principal import Principal


class Names:
    """The issuers that there are, and how long anything of them can be accepted: a token or a session (seconds).

    `may_know` tells of an issuer that is none of these whether its tokens may be accepted all the same; None: they are
    all that there are.

    A cut-off is kept for twice `longest_life`: a token that does not say when it was issued may have been before it,
    and be accepted that much later.
    """

    def __init__(
        self,
        keys: LedgerKeys,
        issuers: Collection[str],
        *,
        leeway: float,
        longest_life: float,
        clock: Clock,
        may_know: Callable[[str], bool] | None = None,
    ) -> None:
        self.keys = keys
        self.leeway = leeway
        self.life: float = 2 * longest_life
        self._longest = longest_life + leeway
        self._issuers = tuple(issuers)
        self._may_know = may_know
        self._now = clock.now

    def issuer(self, issuer: str | None) -> str:
        """Return an issuer, the only one if none is named.

        Raises:
            ValueError: there are several, or may be, or it is not configured.
        """
        if issuer is None and len(self._issuers) == 1 and self._may_know is None:
            return self._issuers[0]
        if issuer is None:
            raise ValueError("there are several issuers: name one with issuer=")
        if issuer not in self._issuers and not (self._may_know is not None and self._may_know(issuer)):
            raise ValueError(f"{issuer!r} is not a configured issuer")
        return issuer

    def marks_of(self, principal: Principal) -> Marks:
        """Return what the ledger knows a principal's token by."""
        return self.keys.marks(principal.claims, opaque.signing_input(principal.token.encode()))

    def token_records(self, principal: Principal) -> list[Record]:
        """Return what revokes a principal's token: an opaque one by its `jti` and by itself.

        The `jti` is what its issuer answered; the next answer may have another, or none.
        """
        token, end = principal.token.encode(), self.token_end(principal)
        marks = [self.marks_of(principal)]
        if principal.jti is not None and opaque.is_opaque(token):
            marks.append(self.keys.marks({"iss": principal.issuer}, token))
        return [self.keys.marked_token(each, end) for each in marks]

    def token_end(self, principal: Principal) -> int:
        """Return until when a verified token may be accepted somewhere, in whole Unix seconds.

        One that says neither when it ends nor when it was issued is accepted as long as its issuer calls it active.
        And what an issuer says of an opaque token it may prolong later, when it is asked again: there are issuers that
        do so each time. Such a token counts as one that lives as long as any.
        """
        if principal.expires_at == math.inf and "iat" not in principal.claims:
            return LARGEST_NUMBER
        expires_at = None if opaque.is_opaque(principal.token.encode()) else principal.expires_at
        return token_end(expires_at, self._now(), self._longest)

    def named_end(self, expires_at: float | None) -> int:
        """Return until when a token that nobody has verified may be accepted, in whole Unix seconds.

        What it is said to expire at is not shortened: a token may not be valid yet, and be accepted only later.

        Raises:
            ValueError: it is no time.
        """
        if expires_at != expires_at:  # noqa: PLR0124  no number, which no comparison would find
            raise ValueError("expires_at is a Unix time in seconds")
        if expires_at is None or expires_at > LARGEST_NUMBER:
            return token_end(None, self._now(), self._longest)
        return token_end(expires_at, self._now(), LARGEST_NUMBER)

    def issued_until(self, issued_before: float | None) -> float:
        """Return the time of a cut-off: now, if none is named.

        Raises:
            ValueError: it is no time, or in the future.
        """
        now = self._now()
        if issued_before is None:
            return now
        if not 0 <= issued_before <= now + self.leeway:
            raise ValueError("issued_before is a Unix time in seconds that is not in the future")
        return issued_before

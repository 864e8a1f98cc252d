"""Which issuer a token is of: one of those known at start, or one that is found when its first token comes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Protocol

from oidc_middleware.auth.trusted import TrustedIssuer
from oidc_middleware.core import verify
from oidc_middleware.core.foreign import Foreign, reason_of_header
from oidc_middleware.core.verify import Unverified
from oidc_middleware.errors import ClaimError


class Finder(Protocol):
    """Knows issuers that have no entry of their own in the settings."""

    def may_know(self, issuer: str) -> bool:
        """Tell whether `find` has to be asked about an issuer of this name."""

    def peek(self, issuer: str) -> TrustedIssuer | None:
        """Return the issuer of this very name, if it is known here; nobody is asked."""

    async def find(self, issuer: str) -> TrustedIssuer | None:
        """Return the issuer of this very name; None: it is not trusted.

        Raises:
            ProviderError, BackendUnavailable: nobody can say now.
        """


class Issuers(Mapping[str, TrustedIssuer]):
    """The issuers that are trusted: `fixed` ones by name, and those that `finders` know, who are asked in turn.

    As a mapping it has the fixed ones. `foreign` are the kinds of their tokens that nobody can verify here.
    """

    def __init__(
        self, fixed: Mapping[str, TrustedIssuer], finders: Sequence[Finder] = (), foreign: Iterable[Foreign] = ()
    ) -> None:
        self.fixed = fixed
        self.foreign: tuple[Foreign, ...] = tuple(dict.fromkeys(foreign))
        self._finders = tuple(finders)

    def __getitem__(self, name: str) -> TrustedIssuer:
        return self.fixed[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.fixed)

    def __len__(self) -> int:
        return len(self.fixed)

    async def find(self, token: Unverified) -> TrustedIssuer:
        """Return the issuer that the token claims to be of.

        Raises:
            ClaimError: iss missing, invalid, or not one that is trusted.
            ProviderError, BackendUnavailable: nobody can say now.

        Source: RFC 8725 §3.8 (an exact allow-list; what the token says chooses among it and does nothing else).
        """
        name = verify.issuer_of(token)
        issuer = self.fixed.get(name)
        for finder in self._finders:
            if issuer is None and finder.may_know(name):
                issuer = await finder.find(name)
        if issuer is None:
            reason = reason_of_header(token.jws.header, self.foreign)
            raise ClaimError("iss", "mismatch", reason or "not one of the configured issuers")
        return issuer

    def peek(self, name: str) -> TrustedIssuer | None:
        """Return the issuer of this very name, if it is known here, as that of an accepted token nearly always is."""
        issuer = self.fixed.get(name)
        for finder in self._finders:
            if issuer is None:
                issuer = finder.peek(name)
        return issuer

    @property
    def are_fixed(self) -> bool:
        """Whether there are no others than those that the mapping has."""
        return not self._finders

    def may_know(self, name: str) -> bool:
        """Tell whether tokens of an issuer of this name may be accepted."""
        return name in self.fixed or any(finder.may_know(name) for finder in self._finders)


class Wildcard:
    """All tenants of a template whose keys are the same: nothing has to be asked or kept for one of them.

    `tenant_of` returns the tenant that an issuer names, None where it is of another form; `fill` makes the trusted
    issuer of one.
    """

    def __init__(self, tenant_of: Callable[[str], str | None], fill: Callable[[str], TrustedIssuer]) -> None:
        self._tenant_of = tenant_of
        self._fill = fill

    def may_know(self, issuer: str) -> bool:
        """Tell whether it is of the form of the template."""
        return self._tenant_of(issuer) is not None

    def peek(self, issuer: str) -> TrustedIssuer | None:
        """Return the issuer of this tenant."""
        tenant = self._tenant_of(issuer)
        return None if tenant is None else self._fill(tenant)

    async def find(self, issuer: str) -> TrustedIssuer | None:
        """Return the issuer of this tenant."""
        return self.peek(issuer)

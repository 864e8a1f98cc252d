"""What an identity must show beyond being valid: the half of a rule that does not speak of paths."""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from typing import Protocol

from oidc_middleware.core.claim_paths import find
from oidc_middleware.core.patterns import PolicyError
from oidc_middleware.core.principal import Principal, freeze
from oidc_middleware.errors import InsufficientScope

ClaimValue = str | bool | int | float
Words = Sequence[str] | AbstractSet[str]
ExpectedClaims = Mapping[str, ClaimValue | Sequence[ClaimValue] | AbstractSet[ClaimValue]]

_SCOPE = re.compile(r"[\x21\x23-\x5b\x5d-\x7e]+")


class Identity(Protocol):
    """What a requirement looks at: the `Principal`."""

    @property
    def scopes(self) -> frozenset[str]:
        """The granted scopes."""

    @property
    def claims(self) -> Mapping[str, object]:
        """The verified claims."""


@dataclass(frozen=True, eq=False)
class Requirement:
    """What an identity needs: all of `scopes`, one of `any_scopes`, `audience` among its audiences, and all `claims`.

    `claims` maps a claim's name, or a dotted path into nested claims, to the value that it must have or, as a list,
    hold; several expected values are alternatives. Values are compared with their type.

    Raises:
        PolicyError: A field cannot work. It is a ValueError.
    """

    scopes: Words = ()
    any_scopes: Words = ()
    claims: ExpectedClaims = field(default_factory=dict)
    audience: str | None = None

    def __post_init__(self) -> None:
        for name in ("scopes", "any_scopes"):
            cure = f'Write {name}=("read", "write").'
            object.__setattr__(self, name, checked_words(name, getattr(self, name), _SCOPE, cure))
        object.__setattr__(self, "claims", freeze({name: self._expected(name) for name in self._claim_names()}))
        audience: object = self.audience
        if audience is not None and (not isinstance(audience, str) or not audience):
            raise _error(f"audience {audience!r} is no audience", "Name one, or leave it out.")

    def __eq__(self, other: object) -> bool:
        """Tell whether both ask the same: values of claims are compared with their type, as those of tokens are."""
        return isinstance(other, Requirement) and self._asked() == other._asked()

    def __hash__(self) -> int:
        return hash((self.scopes, self.any_scopes, self.audience))

    @property
    def scopes_to_ask(self) -> tuple[str, ...]:
        """All scopes that it names, each once: what a challenge tells the client to ask for."""
        return tuple(dict.fromkeys((*self.scopes, *self.any_scopes)))

    def unmet(self, identity: Identity) -> str | None:
        """Return what the identity lacks, as text for the log; `None` when it has everything."""
        granted = identity.scopes
        if not granted.issuperset(self.scopes):
            return f"scope {' '.join(scope for scope in self.scopes if scope not in granted)}"
        if self.any_scopes and granted.isdisjoint(self.any_scopes):
            return f"one of the scopes {' '.join(self.any_scopes)}"
        if self.audience is not None and not _holds(identity.claims.get("aud"), self.audience):
            return f"audience {self.audience}"
        for path, expected in self.claims.items():
            if not _holds(_claim(identity, path), expected):
                return f"claim {path}"
        return None

    def check(self, identity: Identity, place: str, scopes: Iterable[str] = ()) -> None:
        """Let the identity pass if it has everything; `place` says for the log who asks.

        Raises:
            InsufficientScope: It lacks something. The error names all scopes of the operation: `scopes`, which others
                ask of the same request, and those of this requirement.

        Source: RFC 6750 §3.1.
        """
        lacking = self.unmet(identity)
        if lacking is not None:
            needed = tuple(dict.fromkeys((*scopes, *self.scopes_to_ask)))
            raise InsufficientScope(f"{place}: {lacking} is missing", needed)

    def _asked(self) -> tuple[object, ...]:
        claims = {name: [(type(value), value) for value in _each(expected)] for name, expected in self.claims.items()}
        return self.scopes, self.any_scopes, claims, self.audience

    def _claim_names(self) -> tuple[str, ...]:
        claims: object = self.claims
        names = tuple(claims) if isinstance(claims, Mapping) else ("",)
        if not all(isinstance(name, str) and name for name in names):
            raise _error(f"claims is {claims!r}", 'Write claims={"realm_access.roles": "admin"}.')
        return names

    def _expected(self, name: str) -> tuple[ClaimValue, ...]:
        expected: object = self.claims[name]
        values = tuple(expected) if isinstance(expected, list | tuple | set | frozenset) else (expected,)
        if not values or not all(map(_can_be_held, values)):
            cure = "Write one text, number or boolean, or a list of alternatives."
            raise _error(f"claim {name!r} expects {expected!r}, which no token can hold", cure)
        return values


def checked_words(name: str, words: object, spelling: re.Pattern[str], cure: str) -> tuple[str, ...]:
    """Return several words that are spelled so, in their order, or sorted where they have none.

    Raises:
        PolicyError: They are not.
    """
    if not isinstance(words, list | tuple | set | frozenset):
        raise _error(f"{name} is {words!r}, not several texts", cure)
    for word in words:
        if not isinstance(word, str) or not spelling.fullmatch(word):
            raise _error(f"{name} holds {word!r}", cure)
    return tuple(sorted(words) if isinstance(words, set | frozenset) else words)


def _error(problem: str, cure: str) -> PolicyError:
    return PolicyError("requirement", problem, cure)


def _can_be_held(value: object) -> bool:
    return isinstance(value, str | int) or (isinstance(value, float) and math.isfinite(value))


def _claim(identity: Identity, path: str) -> object:
    """Return the claim at `path`; of what a mapping is for, what the mapping of the issuer says."""
    mapped = identity.mapped(path) if isinstance(identity, Principal) else None
    return find(identity.claims, path) if mapped is None else mapped


def _holds(claim: object, expected: object) -> bool:
    """Say whether the claim is one of the expected values or, as a list, holds one; never part of a text."""
    return any(type(value) is type(wanted) and value == wanted for value in _each(claim) for wanted in _each(expected))


def _each(value: object) -> Collection[object]:
    return value if isinstance(value, list | tuple | frozenset) else (value,)

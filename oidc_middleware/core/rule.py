"""One rule: which requests it speaks of, and what it asks of the identity."""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from typing import Protocol

from oidc_middleware.core.patterns import PolicyError, parse
from oidc_middleware.core.principal import freeze

ClaimValue = str | bool | int | float
Words = Sequence[str] | AbstractSet[str]

_METHOD = re.compile(r"[A-Z][A-Z0-9!#$%&'*+.^_`|~-]*")
_SCOPE = re.compile(r"[\x21\x23-\x5b\x5d-\x7e]+")


class Identity(Protocol):
    """What a rule looks at: the `Principal`."""

    @property
    def scopes(self) -> frozenset[str]:
        """The granted scopes."""

    @property
    def claims(self) -> Mapping[str, object]:
        """The verified claims."""


@dataclass(frozen=True)
class Rule:
    """Ask more than an identity of the requests for `path`.

    `path` takes `/docs/*` and `{name}` for one segment, and covers the same path with a slash at its end. `methods`
    are those it speaks of (none: all); GET stands for HEAD and WebSocket handshakes too, and the case in which a client
    spells a method does not matter. The identity needs all of `scopes`, one of `any_scopes`, `audience` among its
    audiences, and every entry of `claims`: a claim's name, or a dotted path into nested claims, and the value that it
    must have or, as a list, hold; several expected values are alternatives. Values are compared with their type.

    Raises:
        PolicyError: A field cannot work. It is a ValueError.
    """

    path: str
    methods: Words = ()
    scopes: Words = ()
    any_scopes: Words = ()
    claims: Mapping[str, ClaimValue | Sequence[ClaimValue] | AbstractSet[ClaimValue]] = field(
        default_factory=dict, hash=False
    )
    audience: str | None = None

    def __post_init__(self) -> None:
        parse(self.path, "rules")
        for name, spelling, example in (
            ("methods", _METHOD, '("GET", "POST")'),
            ("scopes", _SCOPE, '("read", "write")'),
            ("any_scopes", _SCOPE, '("read", "write")'),
        ):
            object.__setattr__(self, name, self._words(name, spelling, f"Write {name}={example}."))
        object.__setattr__(self, "claims", freeze({name: self._expected(name) for name in self._claim_names()}))
        audience: object = self.audience
        if audience is not None and (not isinstance(audience, str) or not audience):
            raise self._error(f"audience {audience!r} is no audience", "Name one, or leave it out.")

    def covers(self, method: str) -> bool:
        """Say whether the rule speaks of requests with this method."""
        if not self.methods:
            return True
        spelled = method.upper()
        return spelled in self.methods or (spelled == "HEAD" and "GET" in self.methods)

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
            if not _holds(_lookup(identity.claims, path), expected):
                return f"claim {path}"
        return None

    def _words(self, name: str, spelling: re.Pattern[str], cure: str) -> tuple[str, ...]:
        words: object = getattr(self, name)
        if not isinstance(words, list | tuple | set | frozenset):
            raise self._error(f"{name} is {words!r}, not several texts", cure)
        for word in words:
            if not isinstance(word, str) or not spelling.fullmatch(word):
                raise self._error(f"{name} holds {word!r}", cure)
        return tuple(sorted(words) if isinstance(words, set | frozenset) else words)

    def _claim_names(self) -> tuple[str, ...]:
        claims: object = self.claims
        names = tuple(claims) if isinstance(claims, Mapping) else ("",)
        if not all(isinstance(name, str) and name for name in names):
            raise self._error(f"claims is {claims!r}", 'Write claims={"realm_access.roles": "admin"}.')
        return names

    def _expected(self, name: str) -> tuple[ClaimValue, ...]:
        expected: object = self.claims[name]
        values = tuple(expected) if isinstance(expected, list | tuple | set | frozenset) else (expected,)
        if not values or not all(map(_can_be_held, values)):
            cure = "Write one text, number or boolean, or a list of alternatives."
            raise self._error(f"claim {name!r} expects {expected!r}, which no token can hold", cure)
        return values

    def _error(self, problem: str, cure: str) -> PolicyError:
        return PolicyError("rules", f"the rule for {self.path!r}: {problem}", cure)


def _can_be_held(value: object) -> bool:
    return isinstance(value, str | int) or (isinstance(value, float) and math.isfinite(value))


def _lookup(claims: object, path: str) -> object:
    """Return the claim at `path`, or `None`.

    On every level the whole rest of the path is tried as a name first (Auth0's `https://example.com/roles`), then its
    longest beginning that is the name of an object (Keycloak's clients have dots in their names). There is no way back
    from a name that was found.
    """
    if not isinstance(claims, Mapping):
        return None
    if path in claims:
        found: object = claims[path]
        return found
    end = path.rfind(".")
    while end > 0:
        if isinstance(claims.get(path[:end]), Mapping):
            return _lookup(claims[path[:end]], path[end + 1 :])
        end = path.rfind(".", 0, end)
    return None


def _holds(claim: object, expected: object) -> bool:
    """Say whether the claim is one of the expected values or, as a list, holds one; never part of a text."""
    return any(type(value) is type(wanted) and value == wanted for value in _each(claim) for wanted in _each(expected))


def _each(value: object) -> Collection[object]:
    return value if isinstance(value, list | tuple) else (value,)

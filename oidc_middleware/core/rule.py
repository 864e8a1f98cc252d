"""One rule: which requests it speaks of, and what it asks of the identity."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from functools import cached_property

from oidc_middleware.core.patterns import PolicyError, parse
from oidc_middleware.core.requirement import ExpectedClaims, Identity, Requirement, Words, checked_words

_METHOD = re.compile(r"[A-Z][A-Z0-9!#$%&'*+.^_`|~-]*")


@dataclass(frozen=True)
class Rule:
    """Ask more than an identity of the requests for `path`.

    `path` takes `/docs/*` and `{name}` for one segment, and covers the same path with a slash at its end. `methods`
    are those it speaks of (none: all); GET stands for HEAD and WebSocket handshakes too, and the case in which a client
    spells a method does not matter. The identity needs all of `scopes`, one of `any_scopes`, `audience` among its
    audiences, and every entry of `claims`: a claim's name, or a dotted path into nested claims, and the value that it
    must have or, as a list, hold; several expected values are alternatives. Values are compared with their type.
    `scopes`, `roles`, `groups` and `tenant` are those of the principal, wherever its issuer has them.

    Raises:
        PolicyError: A field cannot work. It is a ValueError.
    """

    path: str
    methods: Words = ()
    scopes: Words = ()
    any_scopes: Words = ()
    claims: ExpectedClaims = field(default_factory=dict, hash=False)
    audience: str | None = None

    def __post_init__(self) -> None:
        parse(self.path, "rules")
        try:
            methods = checked_words("methods", self.methods, _METHOD, 'Write methods=("GET", "POST").')
            requirement = self.requirement
        except PolicyError as error:
            refused = PolicyError("rules", f"the rule for {self.path!r}: {error.problem}", error.cure)
        else:
            object.__setattr__(self, "methods", methods)
            for name in ("scopes", "any_scopes", "claims"):
                object.__setattr__(self, name, getattr(requirement, name))
            return
        raise refused

    @cached_property
    def requirement(self) -> Requirement:
        """What it asks of the identity."""
        return Requirement(self.scopes, self.any_scopes, self.claims, self.audience)

    def covers(self, method: str) -> bool:
        """Say whether the rule speaks of requests with this method."""
        if not self.methods:
            return True
        spelled = method.upper()
        return spelled in self.methods or (spelled == "HEAD" and "GET" in self.methods)

    def unmet(self, identity: Identity) -> str | None:
        """Return what the identity lacks, as text for the log; `None` when it has everything."""
        return self.requirement.unmet(identity)

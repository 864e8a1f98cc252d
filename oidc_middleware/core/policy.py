"""Which requests need what: everything is denied without an identity unless the configuration says otherwise.

What opens a path (`public`, `optional`) is taken exactly; what closes one (a rule) also covers the same path with a
slash at its end, HEAD where it says GET, and a method in another case. Paths are compared case-sensitively: an app that
does not is not covered by any list of paths, so give it no `public` ones.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import combinations
from types import MappingProxyType
from typing import Final, Literal

from oidc_middleware.core.forwarded import Forwarded
from oidc_middleware.core.paths import Shape, classify, route_path
from oidc_middleware.core.patterns import Pattern, PolicyError, parse, segments_of
from oidc_middleware.core.requirement import Identity
from oidc_middleware.core.rule import Rule
from oidc_middleware.errors import InsufficientScope

__all__ = ["Access", "Decision", "Policy", "PolicyError", "Rule", "is_preflight", "permit"]

BELOW: Final = "/*"
"""What the name of an endpoint ends with whose handler serves the paths below it too."""


class Access(enum.Enum):
    """What a request needs to get in."""

    PUBLIC = "public"
    """Nothing; credentials are not even read."""
    OPTIONAL = "optional"
    """No credentials, or good ones."""
    IDENTITY = "identity"
    """An identity that satisfies the decision's rules."""
    REFUSED = "refused"
    """Nobody gets in: the path is malformed."""


@dataclass(frozen=True, slots=True)
class Decision:
    """What the policy says of a request.

    `endpoint` is the name of ours that it asks for, `reason` is for the log. An `ambiguous` path was let through for an
    identity that satisfies every rule, and for nobody else: it is no place for a preflight to pass. `scopes` are all
    that the rules name, each once: what a challenge tells the client to ask for.
    """

    access: Access
    rules: tuple[Rule, ...]
    endpoint: str | None
    reason: str
    ambiguous: bool = False
    scopes: tuple[str, ...] = field(init=False)

    def __post_init__(self) -> None:
        scopes = dict.fromkeys(scope for rule in self.rules for scope in rule.requirement.scopes_to_ask)
        object.__setattr__(self, "scopes", tuple(scopes))


class Policy:
    """The lists of paths and rules, checked against each other once and asked on every request.

    `endpoints` are the enabled ones of ours below `prefix`, of which only the exact paths are taken from the app, but
    of `auth/*` also those below `auth`: each with the scopes that it needs, which may be none, or with `None` where it
    is open to everybody. `well_known` are paths of ours beside those, open to everybody, each with the name of the
    endpoint there.

    Raises:
        PolicyError: A path or rule cannot work, or two lists speak of the same path. It is a ValueError.
    """

    def __init__(
        self,
        public: Sequence[str] = (),
        optional: Sequence[str] = (),
        rules: Sequence[Rule] = (),
        *,
        ambiguous_paths: Literal["refuse", "protect"] = "refuse",
        prefix: str = "/oauth2",
        endpoints: Mapping[str, Sequence[str] | None] = MappingProxyType({}),
        well_known: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        if ambiguous_paths not in ("refuse", "protect"):
            raise PolicyError("ambiguous_paths", f"{ambiguous_paths!r} is unknown", 'Write "refuse" or "protect".')
        self.rules: tuple[Rule, ...] = _rules(rules)
        self._ambiguous_paths = ambiguous_paths
        base = _prefix(prefix)
        self._endpoints = {
            (path := f"{base}/{name.removesuffix(BELOW)}"): _endpoint(name.removesuffix(BELOW), path, scopes)
            for name, scopes in endpoints.items()
        } | {path: _endpoint(name, path, None) for path, name in well_known.items()}
        self._below = tuple(f"{base}/{name.removesuffix('*')}" for name in endpoints if name.endswith(BELOW))
        self._fields = dict.fromkeys(self._endpoints, "prefix") | dict.fromkeys(well_known, "resource")
        self._fields |= dict.fromkeys((path + "*" for path in self._below), "prefix")
        self._public = _opening(public, "public", Access.PUBLIC)
        self._optional = _opening(optional, "optional", Access.OPTIONAL)
        self._closing = tuple(
            (pattern, rule, Decision(Access.IDENTITY, (rule,), None, f"rule {rule.path}"))
            for rule in self.rules
            for pattern in parse(rule.path, "rules").closing()
        )
        self._check_disjoint()

    def decide(self, method: str, path: str, raw_path: bytes | None = None, root_path: str = "") -> Decision:
        """Decide what a request needs; pass GET for a WebSocket handshake.

        The arguments are those of the ASGI scope: nothing that a header can change.
        """
        shape = classify(path, raw_path)
        if shape.kind == "bad":
            return Decision(Access.REFUSED, (), None, f"path: {shape.reason}")
        if shape.kind == "ambiguous" and self._ambiguous_paths == "refuse":
            return Decision(Access.REFUSED, (), None, f"ambiguous path: {shape.reason}")
        route = route_path(path, root_path)
        for ours in self._below:
            if route.startswith(ours):
                return self._endpoints[ours[:-1]]
        if shape.kind == "ambiguous":
            return self._protected(shape)
        return self._endpoints.get(route) or self._by_pattern(method, segments_of(route))

    def decide_forwarded(self, forwarded: Forwarded | None) -> Decision:
        """Decide what a request needs that a proxy asks about; the decision is never for an endpoint of ours.

        What nobody told is taken as it is worst: without a path it must satisfy every rule and is never open, without a
        method every rule for its path. Our own endpoints that are open to everybody are open here too, for a proxy may
        ask about the requests to them, and the others ask for what they need.
        """
        if forwarded is None:
            return Decision(Access.IDENTITY, self.rules, None, "forwarded request unknown", ambiguous=True)
        decision = self.decide(forwarded.method or "", forwarded.path, forwarded.raw_path)
        if decision.endpoint is not None:
            # What is ambiguous below an endpoint is nothing to us, but the app may read another path in it.
            shape = classify(forwarded.path, forwarded.raw_path)
            return self._protected(shape) if shape.kind == "ambiguous" else replace(decision, endpoint=None)
        if forwarded.method is None and decision.access is Access.IDENTITY and not decision.ambiguous:
            segments = segments_of(forwarded.path)
            found = {id(rule): rule for pattern, rule, _ in self._closing if pattern.matches(segments)}
            return Decision(Access.IDENTITY, tuple(found.values()), None, "forwarded method unknown")
        return decision

    @property
    def unreachable(self) -> tuple[tuple[Rule, Rule], ...]:
        """Each rule that is never asked, with the earlier one that takes all its requests."""
        forms = [(rule, parse(rule.path, "rules").closing()) for rule in self.rules]
        return tuple((later[0], earlier[0]) for earlier, later in combinations(forms, 2) if _hides(earlier, later))

    def _protected(self, shape: Shape) -> Decision:
        return Decision(Access.IDENTITY, self.rules, None, f"ambiguous path: {shape.reason}", ambiguous=True)

    def _by_pattern(self, method: str, segments: tuple[str, ...]) -> Decision:
        for pattern, decision in (*self._public, *self._optional):
            if pattern.matches(segments):
                return decision
        for pattern, rule, decision in self._closing:
            if pattern.matches(segments) and rule.covers(method):
                return decision
        return _IDENTITY_ONLY

    def _check_disjoint(self) -> None:
        """Refuse two lists that speak of one path: whoever reads the configuration would guess which wins."""
        public = [("public", pattern) for pattern, _ in self._public]
        optional = [("optional", pattern) for pattern, _ in self._optional]
        rules = [("rules", pattern) for pattern, _, _ in self._closing]
        ours = [(field, parse(path, field)) for path, field in self._fields.items()]
        for opening, others in ((public, optional + rules + ours), (optional, rules + ours)):
            for name, pattern in opening:
                for other_name, other in others:
                    if pattern.overlaps(other):
                        problem = f"{pattern.text!r} and {other.text!r} of {other_name} match the same paths"
                        raise PolicyError(name, problem, "Make them disjoint: no path may be in two lists.")
        for _, pattern in rules:
            if pattern.is_literal and pattern.text in self._endpoints:
                cure = "Remove it: who may use our endpoints is a setting of its own."
                raise PolicyError("rules", f"{pattern.text!r} is an endpoint of ours, which no rule reaches", cure)


def permit(decision: Decision, identity: Identity) -> None:
    """Let the identity pass if it satisfies every rule of the decision.

    Raises:
        InsufficientScope: It lacks something; the error names the scopes of all the rules.

    Source: RFC 6750 §3.1.
    """
    for rule in decision.rules:
        lacking = rule.requirement.unmet(identity)
        if lacking is not None:
            raise InsufficientScope(f"rule {rule.path}: {lacking} is missing", decision.scopes)


def is_preflight(method: str, headers: Iterable[tuple[bytes, bytes]]) -> bool:
    """Say whether a request is a CORS preflight; any other OPTIONS is a request like all.

    Source: the Fetch standard, CORS-preflight request: OPTIONS with Origin and Access-Control-Request-Method.
    """
    if method != "OPTIONS":
        return False
    names = {name for name, value in headers if value}
    return b"origin" in names and b"access-control-request-method" in names


_IDENTITY_ONLY = Decision(Access.IDENTITY, (), None, "no rule: identity only")


def _opening(paths: Sequence[str], field: str, access: Access) -> tuple[tuple[Pattern, Decision], ...]:
    if isinstance(paths, str) or not isinstance(paths, Iterable):
        raise PolicyError(field, f"{paths!r} is not a list of paths", f'Write {field}=["/health"].')
    patterns = [parse(path, field) for path in paths]
    for pattern in patterns:
        if not pattern.has_fixed_part and pattern.text != "/{$}":
            cure = 'Name the paths, as in "/docs/*"; for the front page alone write "/{$}".'
            raise PolicyError(field, f"{pattern.text!r} may open everything", cure)
    return tuple((pattern, Decision(access, (), None, f"{field} {pattern.text}")) for pattern in patterns)


def _rules(rules: Sequence[Rule]) -> tuple[Rule, ...]:
    if not isinstance(rules, list | tuple) or not all(isinstance(rule, Rule) for rule in rules):
        raise PolicyError("rules", "not a list of rules", 'Write rules=[Rule("/admin/*", scopes=("admin",))].')
    return tuple(rules)


def _endpoint(name: str, path: str, scopes: Sequence[str] | None) -> Decision:
    reason = f"endpoint {name}"
    if scopes is None:
        return Decision(Access.PUBLIC, (), name, reason)
    return Decision(Access.IDENTITY, (Rule(path, scopes=scopes),) if scopes else (), name, reason)


def _prefix(prefix: str) -> str:
    pattern = parse(prefix, "prefix")
    if not pattern.is_literal or not all(pattern.segments):
        raise PolicyError("prefix", f"{prefix!r} is no plain path without a slash at its end", 'Write "/oauth2".')
    return prefix


def _hides(earlier: tuple[Rule, tuple[Pattern, ...]], later: tuple[Rule, tuple[Pattern, ...]]) -> bool:
    (first, outer), (second, inner) = earlier, later
    if first.methods and not (second.methods and all(map(first.covers, second.methods))):
        return False
    return all(any(one.contains(form) for one in outer) for form in inner)

"""Lists of objects: rules and issuers, built already or as the mappings that JSON gives."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Mapping
from typing import Any

from oidc_middleware.core.patterns import PolicyError
from oidc_middleware.core.policy import Rule
from oidc_middleware.errors import ConfigError
from oidc_middleware.settings import checks
from oidc_middleware.settings.issuer import Issuer
from oidc_middleware.settings.problem import Problem, shown
from oidc_middleware.settings.unknown import unknown_name

_RULE_NAMES = tuple(field.name for field in dataclasses.fields(Rule))


def rules(value: object) -> tuple[Rule, ...]:
    """Check for rules; a mapping has the keywords of `Rule`."""
    return tuple(_rule(entry, f"rules[{place}]") for place, entry in enumerate(checks.items(value, "Rule(...)")))


def issuers(value: object) -> tuple[Issuer, ...]:
    """Check for at least one issuer; a mapping has the keywords of `Issuer`."""
    found = tuple(_issuer(entry, f"issuers[{place}]") for place, entry in enumerate(checks.items(value, "Issuer(...)")))
    if not found:
        raise Problem("is empty, so no token would be accepted", "List the issuers, or set issuer for a single one.")
    names = [entry.issuer for entry in found]
    for name in names:
        if names.count(name) > 1:
            raise Problem(f"lists {shown(name)} twice", "Merge the two; an issuer may have several audiences.")
    return found


def _rule(entry: object, place: str) -> Rule:
    if isinstance(entry, Rule):
        return entry
    keywords = _keywords(entry, _RULE_NAMES, place, 'Write Rule("/admin/*", scopes=("admin",)).')
    if "path" not in keywords:
        raise ConfigError(place, "has no path", "Say which requests it is for.")
    try:
        return Rule(**keywords)
    except PolicyError as error:
        refused = ConfigError(place, error.problem, error.cure)
    raise refused


def _issuer(entry: object, place: str) -> Issuer:
    if isinstance(entry, Issuer):
        return entry
    cure = 'Write Issuer(issuer="https://...", audience="...").'
    keywords = _keywords(entry, tuple(Issuer.model_fields), place, cure)
    try:
        return Issuer(**keywords)
    except ConfigError as error:
        refused = ConfigError(f"{place}.{error.field}", error.problem, error.cure)
    raise refused


def _keywords(entry: object, names: Collection[str], place: str, cure: str) -> Any:
    """Return a mapping that has only `names` for keys; `Any`, for what the values are is checked by who takes them."""
    if not isinstance(entry, Mapping):
        raise ConfigError(place, f"cannot be made from {type(entry).__name__}", cure)
    for name in entry:
        if name not in names:
            error = unknown_name(str(name), names)
            raise ConfigError(f"{place}.{error.field}", error.problem, error.cure)
    return dict(entry)

"""What FastAPI knows of an operation: the dependencies in it that are ours, and the scopes that they need together.

The one module that looks inside FastAPI. Where FastAPI changes, challenges name fewer scopes and OpenAPI fewer
operations; who gets in is decided elsewhere.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

from fastapi import FastAPI, routing
from starlette.types import Scope

if TYPE_CHECKING:
    from oidc_middleware.fastapi.dependencies import Dependency


class Use(NamedTuple):
    """A dependency of ours in an operation, with the scopes of `Security(...)` on the way to it."""

    dependency: Dependency
    scopes: tuple[str, ...]

    @property
    def needed(self) -> tuple[str, ...]:
        """All scopes that it asks for."""
        return (*self.scopes, *self.dependency.scopes)


class Operation(NamedTuple):
    """An operation: where it is in an OpenAPI document, and what it uses of ours."""

    path: str
    methods: frozenset[str]
    uses: tuple[Use, ...]


def scopes_of(scope: Scope) -> tuple[str, ...]:
    """Return all scopes that the dependencies of the operation that serves this connection ask for, each once."""
    route = scope.get("route")
    included = (scope.get("fastapi") or {}).get("effective_route_context")
    if included is not None and getattr(included, "original_route", None) is route:
        route = included
    return tuple(dict.fromkeys(name for use in _uses(getattr(route, "dependant", None)) for name in use.needed))


def operations_of(app: FastAPI) -> Iterator[Operation]:
    """Yield the documented operations of an app that use a dependency of ours."""
    for route in routing.iter_route_contexts(app.routes):  # those of included routers too
        uses = tuple(_uses(getattr(route, "dependant", None)))
        if uses and route.path_format is not None and getattr(route, "include_in_schema", False):
            yield Operation(route.path_format, frozenset(map(str.lower, route.methods or ())), uses)


def _uses(dependant: Any) -> Iterator[Use]:
    from oidc_middleware.fastapi.dependencies import Dependency

    for sub in getattr(dependant, "dependencies", ()):
        if isinstance(sub.call, Dependency):
            scopes = (*(sub.parent_oauth_scopes or ()), *(sub.own_oauth_scopes or ()))
            yield Use(sub.call, tuple(dict.fromkeys(scopes)))
        yield from _uses(sub)

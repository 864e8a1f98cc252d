"""OpenAPI of an app: the schemes of its issuers, and for each operation the scopes that it needs and its refusals."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from copy import deepcopy
from typing import Any

from fastapi import FastAPI

from oidc_middleware.asgi.middleware import OIDCMiddleware
from oidc_middleware.core.metadata import Metadata
from oidc_middleware.fastapi.operations import Operation, Use, operations_of
from oidc_middleware.fastapi.schemes import NAMES, discovery_urls, schemes_of, suffix_of
from oidc_middleware.wiring import OIDC

_ERROR = "OIDCError"
_SCHEMA = {
    "title": _ERROR,
    "type": "object",
    "required": ["error", "error_description"],
    "properties": {
        "error": {"type": "string", "title": "Error", "description": "A code, of RFC 6750 where it has one."},
        "error_description": {"type": "string", "title": "Error Description"},
    },
}
_CHALLENGE = {
    "WWW-Authenticate": {
        "description": "The challenge, with the scopes that are needed (RFC 6750, section 3).",
        "schema": {"type": "string"},
    }
}
_REFUSALS = {
    "401": "No credentials, or an invalid token",
    "403": "The token does not permit this request",
}


def document(app: FastAPI, oidc: OIDC | None = None, *, scopes: Mapping[str, str] | None = None) -> None:
    """Have the OpenAPI document of `app` tell how to get in.

    It then has the security schemes of the issuers, and each operation that uses a dependency of ours has all its
    scopes and the responses 401 and 403. `oidc` is the service of `OIDCMiddleware`; without it the middleware of the
    app is asked. `scopes` describes scopes, in words that Swagger UI shows.

    The endpoints of an issuer are shown as soon as its metadata are in memory. To call it again adds to what it was
    told.
    """
    documented = app.openapi
    if not isinstance(documented, Documented):
        documented = Documented(app, app.openapi)
        app.openapi = documented  # type: ignore[method-assign]
    documented.add(oidc, scopes or {})


class Documented:
    """`app.openapi`, as it was and with what we add. What is returned is kept until something of it changes."""

    def __init__(self, app: FastAPI, original: Callable[[], dict[str, Any]]) -> None:
        self._app = app
        self._original = original
        self._oidc: OIDC | None = None
        self._descriptions: dict[str, str] = {}
        self._made: tuple[Any, dict[str, Any]] | None = None

    def add(self, oidc: OIDC | None, descriptions: Mapping[str, str]) -> None:
        """Tell more: the service of the middleware, and descriptions of scopes."""
        self._oidc = oidc or self._oidc
        self._descriptions.update(descriptions)
        self._made = None

    def __call__(self) -> dict[str, Any]:
        """Return the document."""
        plain = self._original()
        operations = tuple(operations_of(self._app))
        metadata = {
            issuer: (url, service.providers[issuer].peek_metadata())
            for service in self._services(operations)
            for issuer, url in discovery_urls(service).items()
        }
        if self._made is None or self._made[0][0] is not plain or self._made[0][1] != metadata:
            self._made = (plain, metadata), self._make(plain, metadata, operations)
        return self._made[1]

    def _services(self, operations: Iterable[Operation]) -> list[OIDC]:
        found = (use.dependency.source.oidc or self._behind() for operation in operations for use in operation.uses)
        return list(dict.fromkeys(service for service in found if service is not None))

    def _behind(self) -> OIDC | None:
        """Return the service of the middleware in front of the app, where there is one."""
        if self._oidc is None:
            app: Any = self._app.middleware_stack
            while app is not None and not isinstance(app, OIDCMiddleware):
                app = getattr(app, "app", None)
            self._oidc = getattr(app, "oidc", None)
        return self._oidc

    def _make(
        self,
        plain: dict[str, Any],
        metadata: Mapping[str, tuple[str, Metadata | None]],
        operations: tuple[Operation, ...],
    ) -> dict[str, Any]:
        made = deepcopy(plain)
        needed = {name: "" for operation in operations for use in operation.uses for name in use.needed}
        scopes = needed | self._descriptions
        components = made.setdefault("components", {})
        ours: dict[str, Any] = {}
        names: dict[str, tuple[str, ...]] = {}
        for issuer, its in metadata.items():
            schemes = schemes_of(issuer, *its, scopes, suffix_of(issuer) if len(metadata) > 1 else "")
            ours |= schemes
            names[issuer] = tuple(schemes)
        if operations:
            components.setdefault("schemas", {})[_ERROR] = deepcopy(_SCHEMA)
        for operation in operations:
            for method in operation.methods:
                described = made.get("paths", {}).get(operation.path, {}).get(method)
                if described is not None:
                    self._describe(described, operation.uses, names)
        used = {name for path in made.get("paths", {}).values() for name in _names_in(path)}
        known = components.get("securitySchemes", {})
        others = {
            name: scheme for name, scheme in known.items() if name not in ours and name in used | known.keys() - NAMES
        }
        components["securitySchemes"] = ours | others
        return made

    def _describe(self, operation: dict[str, Any], uses: tuple[Use, ...], names: Mapping[str, tuple[str, ...]]) -> None:
        scopes = list(dict.fromkeys(name for use in uses for name in use.needed))
        issuers = [
            issuer
            for service in dict.fromkeys(use.dependency.source.oidc or self._behind() for use in uses)
            if service is not None
            for issuer in discovery_urls(service)
        ]
        if issuers:
            others = [entry for entry in operation.get("security", ()) if not NAMES & entry.keys()]
            ours: list[dict[str, list[str]]] = [{name: scopes} for issuer in issuers for name in names[issuer]]
            if all(use.dependency.is_optional for use in uses):
                ours.append({})
            operation["security"] = [*ours, *others]
        statuses = ["401"] + ["403"] * any(use.scopes or use.dependency.may_forbid for use in uses)
        for status in statuses:
            operation.setdefault("responses", {}).setdefault(status, _refusal(status))


def _refusal(status: str) -> dict[str, Any]:
    schema = {"$ref": f"#/components/schemas/{_ERROR}"}
    return {
        "description": _REFUSALS[status],
        "headers": deepcopy(_CHALLENGE),
        "content": {"application/json": {"schema": schema}},
    }


def _names_in(path: Mapping[str, Any]) -> set[str]:
    operations = (operation for operation in path.values() if isinstance(operation, dict))
    return {name for operation in operations for entry in operation.get("security", ()) for name in entry}

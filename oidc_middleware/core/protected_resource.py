"""What this API says about itself, so that a client finds out by itself where it gets a token (RFC 9728)."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final

from oidc_middleware.core.addresses import parse_url

WELL_KNOWN: Final = "/.well-known/oauth-protected-resource"
"""Where the document lies at the host of the resource, before the resource's own path."""


@dataclass(frozen=True)
class ResourceMetadata:
    """The metadata of one protected resource. What is None or empty is left out of the document.

    `resource` is the identifier that clients ask tokens for (RFC 8707): an http or https URL without query or fragment.
    `authorization_servers` are the identifiers of the issuers whose tokens are accepted.

    Source: RFC 9728 §2.
    """

    resource: str
    authorization_servers: tuple[str, ...] = ()
    scopes_supported: tuple[str, ...] = ()
    bearer_methods_supported: tuple[str, ...] = ("header",)
    resource_name: str | None = None
    resource_documentation: str | None = None

    @cached_property
    def url(self) -> str:
        """Where a client finds the document: the well-known path comes between the host and the resource's path.

        Source: RFC 9728 §3.1 (a slash that ends the host alone is left out).
        """
        path = parse_url(self.resource).path
        origin = self.resource[: len(self.resource) - len(path)]
        return f"{origin}{self.paths[0]}"

    @property
    def paths(self) -> tuple[str, ...]:
        """The paths at which the document lies: the one of `url`, and the one without the resource's own path.

        The second is where clients look that were not told, or that know the host alone (MCP 2026-07-28, authorization
        server discovery).
        """
        path = parse_url(self.resource).path
        return (WELL_KNOWN,) if path in ("", "/") else (WELL_KNOWN + path, WELL_KNOWN)

    def document(self) -> dict[str, Any]:
        """Return the document, made of JSON's types.

        Source: RFC 9728 §3.2 (what has no elements must be left out).
        """
        members = {
            "resource": self.resource,
            "authorization_servers": list(self.authorization_servers),
            "bearer_methods_supported": list(self.bearer_methods_supported),
            "scopes_supported": list(self.scopes_supported),
            "resource_name": self.resource_name,
            "resource_documentation": self.resource_documentation,
        }
        return {name: value for name, value in members.items() if value}

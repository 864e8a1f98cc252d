"""Where the tokens of one issuer carry scopes, roles, groups, tenant and a name for people."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from oidc_middleware.core import claims as rules
from oidc_middleware.core.claim_paths import find
from oidc_middleware.core.scope_hierarchy import Expand, expanded


class ClaimsMapping(msgspec.Struct, frozen=True, gc=False, kw_only=True):
    """Names of claims, or dotted paths into nested ones; what all of them hold is put together.

    Scopes are a text with spaces between them, or a list of texts. Roles and groups are a text, which is one of them,
    or a list of texts. Whatever is of another type grants nothing, and is no error: a list with one wrong member
    neither. `tenant` and `name` hold a text that is not empty; of several names the first one there counts.

    `expand` adds the scopes that others imply (see `scope_hierarchy`).

    Source: RFC 6749 §3.3, RFC 9068 §2.2.3 and §2.2.3.1 (`scope`, `roles`, `groups`).
    """

    scopes: tuple[str, ...] = ("scope", "scp")
    roles: tuple[str, ...] = ("roles",)
    groups: tuple[str, ...] = ("groups",)
    tenant: str | None = None
    name: tuple[str, ...] = ("name", "preferred_username", "email")
    expand: Expand | None = None

    def scopes_of(self, claims: Mapping[str, object]) -> frozenset[str]:
        """Return the granted scopes, and those that they imply."""
        granted = rules.scopes(claims, self.scopes)
        return granted if self.expand is None else expanded(granted, self.expand)

    def roles_of(self, claims: Mapping[str, object]) -> frozenset[str]:
        """Return the roles."""
        return rules.words(claims, self.roles)

    def groups_of(self, claims: Mapping[str, object]) -> frozenset[str]:
        """Return the groups."""
        return rules.words(claims, self.groups)

    def tenant_of(self, claims: Mapping[str, object]) -> str | None:
        """Return the tenant, None where the token names none, or the issuer has none."""
        return None if self.tenant is None else _text(find(claims, self.tenant))

    def name_of(self, claims: Mapping[str, object]) -> str | None:
        """Return a name for people, None where there is none."""
        return next((text for path in self.name if (text := _text(find(claims, path))) is not None), None)


USUAL: ClaimsMapping = ClaimsMapping()
"""Where most issuers have them."""


def _text(value: object) -> str | None:
    return value if isinstance(value, str) and value else None

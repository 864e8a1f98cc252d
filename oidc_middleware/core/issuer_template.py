"""Issuers that differ in their tenant only, such as `https://login.microsoftonline.com/{tenantid}/v2.0`."""

from __future__ import annotations

import re
from dataclasses import dataclass

PLACES = ("{tenantid}", "{tenant}")
"""What stands for the tenant: a GUID in lower case, or any plain segment of a path."""

_GUID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_SEGMENT = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9_.-]{0,126}[A-Za-z0-9_])?")


@dataclass(frozen=True, slots=True)
class IssuerTemplate:
    """What stands before and after the tenant, which is one whole segment of the path. `guid`: it is a GUID."""

    before: str
    after: str
    guid: bool

    def fill(self, tenant: str) -> str:
        """Return the issuer of a tenant."""
        return f"{self.before}{tenant}{self.after}"

    def is_tenant(self, tenant: str) -> bool:
        """Tell whether this can be a tenant. One spelling each: no GUID in capitals, no escapes, no slash."""
        return (_GUID if self.guid else _SEGMENT).fullmatch(tenant) is not None

    def tenant_of(self, issuer: str) -> str | None:
        """Return the tenant whose issuer this is, None where it is of another form.

        Source: RFC 8725 §3.8 (a comparison with the one issuer that the tenant has, and no pattern).
        """
        tenant = issuer[len(self.before) : len(issuer) - len(self.after)]
        return tenant if self.is_tenant(tenant) and self.fill(tenant) == issuer else None


def parse_template(issuer: str) -> IssuerTemplate | None:
    """Take a template apart; None is returned for an issuer that is none.

    Raises:
        ValueError: there are braces, and not one placeholder that is a whole segment of the path.
    """
    if "{" not in issuer and "}" not in issuer:
        return None
    for place in PLACES:
        before, found, after = issuer.partition(place)
        if not found:
            continue
        is_segment = before.endswith("/") and before.count("/") > len("//") and (not after or after.startswith("/"))
        if is_segment and not {"{", "}"} & {*before, *after}:
            return IssuerTemplate(before, after, guid=place == PLACES[0])
    raise ValueError("not a template with one {tenantid} or {tenant} as a whole segment of its path")

"""The `WWW-Authenticate` value of a refusal: constant texts and what the configuration says, nothing of the request."""

from __future__ import annotations

import re
from collections.abc import Iterable

from oidc_middleware.errors import InsufficientScope, OIDCError

DEFAULT_REALM = "oidc"
"""Stands in a challenge that would otherwise have no parameter, which RFC 6750 §3 forbids."""

_NOT_QUOTABLE = re.compile(r"[^\x20\x21\x23-\x5b\x5d-\x7e]+")
_SCOPE = re.compile(r"[\x21\x23-\x5b\x5d-\x7e]+")


def challenge(
    error: OIDCError, *, realm: str | None = None, scopes: Iterable[str] = (), resource_metadata: str | None = None
) -> str | None:
    """Return the challenge that goes with an error, `None` where authenticating again would not help (5xx).

    `scopes` are those that the resource is known to need; an `InsufficientScope` brings its own. Without credentials
    there is no error code, and all refused tokens get the same one: which check failed is nobody's business.
    `resource_metadata` is the URL of the document that says where tokens come from; whoever sent a malformed request
    has no use for another token.

    Source: RFC 6750 §3 and §3.1; RFC 9728 §5.1; RFC 9110 §11.6.1; the characters are those of RFC 6749 §5.2 and
    RFC 6750 §3.
    """
    if error.status not in (400, 401, 403):
        return None
    parameters = {
        "realm": realm or "",
        "error": error.error or "",
        "error_description": type(error).public if error.error else "",
        "scope": _scope(error, scopes),
        "resource_metadata": resource_metadata or "" if error.status in (401, 403) else "",
    }
    known = [f'{name}="{_NOT_QUOTABLE.sub(" ", value)}"' for name, value in parameters.items() if value]
    return "Bearer " + ", ".join(known or [f'realm="{DEFAULT_REALM}"'])


def _scope(error: OIDCError, scopes: Iterable[str]) -> str:
    if error.status == 400:  # noqa: PLR2004 - a malformed request is not mended by another scope
        return ""
    needed = (error.scopes if isinstance(error, InsufficientScope) else ()) or scopes
    return " ".join(dict.fromkeys(scope for scope in needed if _SCOPE.fullmatch(scope)))

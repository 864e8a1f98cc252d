"""URLs of an issuer: exact text, https, and nothing in them that two readers could read in two ways."""

from __future__ import annotations

import re

from oidc_middleware.core.addresses import MAX_URL_LENGTH, is_loopback, parse_url
from oidc_middleware.core.issuer_template import parse_template
from oidc_middleware.settings.problem import Problem

_DOT_SEGMENT = re.compile(r"/(?:\.|%2e){1,2}(?:/|$)", re.IGNORECASE)
_PLAIN_PATH = re.compile(r"(?:/[A-Za-z0-9._~!$&'()+,=:@-]+)*/?")
_FORM = "Write it as https://host or https://host/path."


def issuer(value: object) -> str:
    """Check an issuer identifier and return it unchanged: tokens must carry exactly this text.

    It may be a template (see `core.issuer_template`).

    Raises:
        Problem: no URL, or one with a query, a fragment, a user, white space or letters beyond ASCII; or braces that
            make no template.

    Source: OpenID Connect Discovery §2 and §7.1, RFC 8414 §2.
    """
    try:
        template = parse_template(value) if isinstance(value, str) else None
    except ValueError as error:
        cure = "Write it as https://host/{tenantid}/path. For tenants in the host name use issuers or issuer_resolver."
        raise Problem(f"is {error}", cure) from None
    if template is not None:
        issuer(template.fill("tenant"))
        return str(value)
    url = endpoint(value)
    if "?" in url:
        raise Problem("has a query", "An issuer is https, a host and perhaps a path (RFC 8414 section 2).")
    if "/.well-known/" in url:
        raise Problem("is the address of a document, not an issuer", "Cut it before /.well-known/.")
    return url


def authorization_server(value: object) -> str:
    """Check the identifier of one issuer, which clients are told, and return it unchanged.

    Raises:
        Problem: as `issuer`, or it is a template.

    Source: RFC 9728 §2 (`authorization_servers`).
    """
    url = issuer(value)
    if "{" in url:
        raise Problem("is a template, which no client can ask", "Write the issuer of one tenant.")
    return url


def endpoint(value: object) -> str:
    """Check the address of a document and return it unchanged; a query is fine (Azure AD B2C has one).

    Raises:
        Problem: no URL, or one with a fragment, a user, white space or letters beyond ASCII.

    Source: RFC 3986 §3.
    """
    if not isinstance(value, str):
        raise Problem(f"must be text, not {type(value).__name__}", _FORM)
    if not value:
        raise Problem("is empty", _FORM)
    _check_characters(value)
    _check_authority(value)
    try:
        path = parse_url(value).path
    except ValueError as error:
        raise Problem(f"is {error}", f"{_FORM} Escape other characters.") from None
    if _DOT_SEGMENT.search(path):
        raise Problem("is not a URL in plain form", f"{_FORM} Leave out . and .. segments.")
    return value


def resource(value: object) -> str:
    """Check a resource identifier and return it unchanged: clients compare exactly this text.

    Raises:
        Problem: no URL, or one with a query, a fragment, or a path that servers could read in two ways; or it is http
            and not of this very machine.

    Source: RFC 9728 §1.2 and §3.1, RFC 8707 §2.
    """
    url = endpoint(value)
    if "?" in url:
        raise Problem("has a query", "A resource is https, a host and perhaps a path (RFC 9728 section 1.2).")
    path = parse_url(url).path
    if "/.well-known/" in path:
        raise Problem("is the address of a document, not a resource", "Cut out /.well-known/ and the name after it.")
    if not _PLAIN_PATH.fullmatch(path):
        raise Problem("has a path that is not plain", "Leave out empty segments, escapes, *, ; and other signs.")
    if not may_stay_plain(url):
        raise Problem("is not encrypted, so anybody on the way can read tokens", "Write https; http is for loopback.")
    return url


def may_stay_plain(url: str) -> bool:
    """Tell whether a checked URL, or a template, needs no permission: it is https, or http to this very machine."""
    return url.startswith("https://") or is_loopback(parse_url(url.partition("{")[0]).host)


def _check_characters(value: str) -> None:
    if len(value) > MAX_URL_LENGTH:
        raise Problem(f"is longer than {MAX_URL_LENGTH} characters", _FORM)
    if not value.isascii():
        raise Problem("has letters beyond ASCII", "Write the host in its xn-- form, and escape the path with %.")
    if " " in value or not value.isprintable():
        raise Problem("has white space or control characters", "Remove them.")


def _check_authority(value: str) -> None:
    scheme, separator, rest = value.partition("://")
    if not separator or scheme not in {"https", "http"}:
        raise Problem("is not an https URL", _FORM)
    if "#" in rest:
        raise Problem("has a fragment", "Cut it before the #.")
    if "@" in re.split(r"[/?]", rest, maxsplit=1)[0]:
        raise Problem("has a user name or password in it", "Leave out everything up to the @.")

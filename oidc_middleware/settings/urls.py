"""URLs of an issuer: exact text, https, and nothing in them that two readers could read in two ways."""

from __future__ import annotations

import ipaddress
import re

from oidc_middleware.settings.problem import Problem

_MAX_LENGTH = 2048
_LABEL = r"[A-Za-z0-9_](?:[A-Za-z0-9_-]*[A-Za-z0-9_])?"
_CHARACTER = r"[A-Za-z0-9\-._~!$&'()*+,;=:@]|%[0-9A-Fa-f]{2}"
_URL = re.compile(
    rf"https?://(?P<host>\[[0-9A-Fa-f:.]+\]|{_LABEL}(?:\.{_LABEL})*)(?::(?P<port>[0-9]{{1,5}}))?"
    rf"(?P<path>(?:/(?:{_CHARACTER})*)*)(?:\?(?:[/?]|{_CHARACTER})*)?"
)
_DOT_SEGMENT = re.compile(r"/(?:\.|%2e){1,2}(?:/|$)", re.IGNORECASE)
_FORM = "Write it as https://host or https://host/path."


def issuer(value: object) -> str:
    """Check an issuer identifier and return it unchanged: tokens must carry exactly this text.

    Raises:
        Problem: no URL, or one with a query, a fragment, a user, white space or letters beyond ASCII.

    Source: OpenID Connect Discovery §2 and §7.1, RFC 8414 §2.
    """
    url = endpoint(value)
    if "?" in url:
        raise Problem("has a query", "An issuer is https, a host and perhaps a path (RFC 8414 section 2).")
    if "/.well-known/" in url:
        raise Problem("is the address of a document, not an issuer", "Cut it before /.well-known/.")
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
    match = _URL.fullmatch(value)
    if match is None or _DOT_SEGMENT.search(match["path"]):
        raise Problem(
            "is not a URL in plain form", f"{_FORM} Escape other characters, and leave out . and .. segments."
        )
    if match["port"] is not None and not 0 < int(match["port"]) < 65536:  # noqa: PLR2004  ports have 16 bits
        raise Problem("has a port that does not exist", "Ports are 1 to 65535.")
    if match["host"].startswith("["):
        _check_ipv6(match["host"][1:-1])
    return value


def may_stay_plain(url: str) -> bool:
    """Tell whether a checked URL needs no permission: it is https, or http to this very machine."""
    return url.startswith("https://") or _is_loopback(_host(url))


def _check_characters(value: str) -> None:
    if len(value) > _MAX_LENGTH:
        raise Problem(f"is longer than {_MAX_LENGTH} characters", _FORM)
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


def _check_ipv6(address: str) -> None:
    try:
        ipaddress.IPv6Address(address)
    except ValueError:
        raise Problem("has a host in brackets that is no IPv6 address", _FORM) from None


def _host(url: str) -> str:
    match = _URL.fullmatch(url)
    return match["host"] if match else ""


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        address = ipaddress.ip_address(host.strip("[]"))
    except ValueError:
        return False
    # ::ffff:127.0.0.1 counts as loopback on some Python versions only; it is written by nobody honest.
    return address.is_loopback and getattr(address, "ipv4_mapped", None) is None

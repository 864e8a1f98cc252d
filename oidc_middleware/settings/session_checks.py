"""Checks of what settings say of browser sessions and proxies: as in `checks`."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping
from ipaddress import IPv4Network, IPv6Network

from oidc_middleware.settings import checks, urls
from oidc_middleware.settings.problem import Problem, shown

# RFC 6265 section 4.1.1: a token. What the prefixes say is for us to say.
_COOKIE_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,64}")
_PREFIXES = ("__host-", "__secure-")
_PARAMETER = re.compile(r"[A-Za-z0-9_.:-]{1,64}")
_ORIGIN = re.compile(r"https?://[^/?#]+")
LONGEST_REFRESH_AHEAD = 3600.0

OURS = frozenset(
    {
        "client_id", "client_secret", "response_type", "response_mode", "redirect_uri", "scope", "state", "nonce",
        "code_challenge", "code_challenge_method", "request", "request_uri",
    }
)  # fmt: skip
"""Parameters of an authentication request that decide whether a login is safe, or have a setting of their own."""


def base_url(value: object) -> str:
    """Check for the address of this app, and return it without a slash at its end.

    Raises:
        Problem: no URL, or one with a query or a fragment; or http and not of this very machine.
    """
    url = urls.endpoint(value)
    if "?" in url:
        raise Problem("has a query", "Write it as https://host or https://host/path.")
    if not urls.may_stay_plain(url):
        raise Problem("is not encrypted, so anybody on the way can take over sessions", "Write https.")
    return url.rstrip("/")


def scope(value: object) -> tuple[str, ...]:
    """Check for the scopes of a login (OpenID Connect Core §3.1.2.1: `openid` must be among them)."""
    words = value.split() if isinstance(value, str) else value
    found = checks.each(checks.scope)(words)
    if "openid" not in found:
        raise Problem("lacks openid, so the issuer would not say who logs in", "Add openid.")
    return found


def cookie_name(value: object) -> str:
    """Check for the name of a cookie, which gets its prefix from us."""
    cure = "Write a short word, such as oidc_session."
    name = checks.text(value)
    if not _COOKIE_NAME.fullmatch(name):
        raise Problem(f"{shown(name)} is no name of a cookie", cure)
    if name.lower().startswith(_PREFIXES):
        raise Problem(f"{shown(name)} has a prefix, which we put before it where it can stand", cure)
    return name


def life(value: object) -> float:
    """Check for a life in seconds, more than zero."""
    cure = "Choose a number of seconds above 0."
    found = checks.seconds(value, cure)
    if found <= 0:
        raise Problem(f"with {found:g} s there would be no session", cure)
    return found


def refresh_ahead(value: object) -> float:
    """Check for a span in seconds; zero means that a token is renewed when it is over."""
    cure = f"Choose 0 to {LONGEST_REFRESH_AHEAD:g} seconds."
    found = checks.seconds(value, cure)
    if not 0 <= found <= LONGEST_REFRESH_AHEAD:
        raise Problem(f"{found:g} s is not such a span", cure)
    return found


def authorization_param(value: object) -> str:
    """Check for the name of a parameter that does not decide whether a login is safe."""
    name = checks.text(value)
    if not _PARAMETER.fullmatch(name):
        raise Problem(f"{shown(name)} is no name of a parameter", "Write a name such as prompt.")
    if name in OURS:
        raise Problem(f"{name} is ours to set", "Leave it out; scopes have a setting of their own, scope.")
    return name


def authorization_params(value: object) -> tuple[tuple[str, str], ...]:
    """Check for parameters and their values."""
    cure = 'Write {"prompt": "login"}.'
    if not isinstance(value, Mapping):
        raise Problem(f"must be a table, not {type(value).__name__}", cure)
    found = tuple((authorization_param(name), _parameter(item)) for name, item in value.items())
    _check_max_age(dict(found))
    return found


def _parameter(value: object) -> str:
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else checks.text(value)


def _check_max_age(found: Mapping[str, str]) -> None:
    age = found.get("max_age", "0")
    if not (age.isascii() and age.isdigit() and len(age) < 10):  # noqa: PLR2004  thirty years
        raise Problem(f"max_age is {shown(age)}", "Write it in whole seconds.")


def origin(value: object) -> str:
    """Check for an origin (RFC 6454 §6.2), and return it as browsers write it."""
    cure = "Write it as https://host or https://host:port."
    url = urls.endpoint(value)
    if not _ORIGIN.fullmatch(url):
        raise Problem("is more than an origin", cure)
    if not urls.may_stay_plain(url):
        raise Problem("is not encrypted, so anybody on the way can be that page", "Write https.")
    scheme, _, authority = url.lower().partition("://")
    return f"{scheme}://{authority.removesuffix(':443' if scheme == 'https' else ':80')}"


def network(value: object) -> IPv4Network | IPv6Network:
    """Check for an address or a network."""
    cure = "Write an address such as 10.0.0.5, or a network such as 10.0.0.0/8."
    if not isinstance(value, str | IPv4Network | IPv6Network):
        raise Problem(f"must be text, not {type(value).__name__}", cure)
    try:
        return ipaddress.ip_network(value)
    except ValueError as error:
        raise Problem(f"{shown(str(value))} is no network ({error})", cure) from None

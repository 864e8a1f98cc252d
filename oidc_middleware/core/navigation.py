"""Is it somebody who goes to a page, or a page that fetches something? Only the first may be sent to a login."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from oidc_middleware.core.accept import prefers_html

_READ: Final = frozenset({b"sec-fetch-mode", b"sec-fetch-dest", b"sec-purpose", b"purpose", b"x-requested-with"})

_OWN: Final = frozenset({b"same-origin", b"none"})

Headers = Sequence[tuple[bytes, bytes]]


def is_navigation(method: str, headers: Headers) -> bool:
    """Tell whether a browser goes to a page with this request: a redirect then leads a person somewhere.

    By what the browser says of it; an old one says nothing, and then it is whoever wants HTML and is no script. A page
    fetched ahead of time is none, for nobody has asked for it yet.

    Source: Fetch Metadata §2.1, §2.3; the Fetch standard (`Sec-Purpose`).
    """
    said = _said(headers)
    if method != "GET" or _is_denied(said):
        return False
    return _is_confirmed(said) or prefers_html(headers)


def may_navigate(headers: Headers) -> bool:
    """Tell whether nothing says that this is no navigation: for a page that is there to be gone to.

    A program that takes anything may be sent on, too.
    """
    said = _said(headers)
    if _is_denied(said):
        return False
    accept = b",".join(value for name, value in headers if name == b"accept")
    return _is_confirmed(said) or not accept or b"text/html" in accept.lower() or b"*/*" in accept


def is_asked_for(method: str, headers: Headers) -> bool:
    """Tell whether somebody came here by a page of ours, the address bar or a bookmark, to have done what this does.

    For a GET that changes something: another site may link to it, and any page may name it as an image.

    Source: Fetch Metadata §2.
    """
    said = _said(headers)
    if method != "GET" or _is_denied(said) or any(site not in _OWN for site in _sites(headers)):
        return False
    accept = b",".join(value for name, value in headers if name == b"accept").strip().lower()
    return _is_confirmed(said) or accept in {b"", b"*/*"} or b"text/html" in accept


def _sites(headers: Headers) -> list[bytes]:
    return [value.strip().lower() for name, value in headers if name == b"sec-fetch-site"]


def is_fetched(headers: Headers) -> bool:
    """Tell whether the browser says that this is no navigation of any kind: that a page fetches something."""
    return _said(headers).get(b"sec-fetch-mode", b"navigate") != b"navigate"


def _said(headers: Headers) -> dict[bytes, bytes]:
    return {name: value.strip().lower() for name, value in headers if name in _READ}


def _is_denied(said: dict[bytes, bytes]) -> bool:
    if b"prefetch" in said.get(b"sec-purpose", b"") or said.get(b"purpose") == b"prefetch":
        return True
    if (
        said.get(b"sec-fetch-mode", b"navigate") != b"navigate"
        or said.get(b"sec-fetch-dest", b"document") != b"document"
    ):
        return True
    return b"x-requested-with" in said


def _is_confirmed(said: dict[bytes, bytes]) -> bool:
    return said.get(b"sec-fetch-mode") == b"navigate"

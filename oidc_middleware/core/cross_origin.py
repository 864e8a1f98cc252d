"""Was it a page of ours that sent this? A browser adds the cookie of a session whoever asks it to."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final
from urllib.parse import urlsplit

from oidc_middleware.errors import CrossOriginRequest

SAFE: Final = frozenset({"GET", "HEAD", "OPTIONS", "TRACE"})
"""Methods that change nothing (RFC 9110 §9.2.1)."""

_OF_OURS: Final = frozenset({b"same-origin", b"none"})

Headers = Iterable[tuple[bytes, bytes]]


class OurOrigins:
    """The origin of `base_url`, and those that are trusted besides."""

    def __init__(self, base_url: str, trusted: Iterable[str] = ()) -> None:
        parts = urlsplit(base_url.lower())
        usual = ":443" if parts.scheme == "https" else ":80"
        ours = f"{parts.scheme}://{parts.netloc.removesuffix(usual)}"
        self._origins = frozenset(origin.encode("ascii") for origin in (ours, *trusted))

    def check(self, method: str | None, headers: Headers) -> None:
        """Check that no page of another origin sent an unsafe request; None is a method that nobody knows.

        A browser says where a request comes from, in `Sec-Fetch-Site` or in `Origin`. What says neither is no browser,
        and nobody can have made it send somebody else's cookie.

        Raises:
            CrossOriginRequest: one did.

        Source: Fetch Metadata §2.2; RFC 6454 §7.
        """
        if method in SAFE:
            return
        sites, origins = _said(headers, b"sec-fetch-site"), _said(headers, b"origin")
        if (sites and all(site in _OF_OURS for site in sites)) or not (sites or origins):
            return
        self._check(origins)

    def check_handshake(self, headers: Headers) -> None:
        """Check that a page of ours opens a WebSocket; whatever does not say so is refused, for browsers always do.

        Raises:
            CrossOriginRequest: it is another's, or does not say.

        Source: RFC 6455 §10.2.
        """
        self._check(_said(headers, b"origin"))

    def _check(self, origins: list[bytes]) -> None:
        if len(origins) != 1 or origins[0] not in self._origins:
            raise CrossOriginRequest(f"from {', '.join(map(repr, origins))[:200] or 'nowhere'}")


def _said(headers: Headers, wanted: bytes) -> list[bytes]:
    return [value.strip().lower() for name, value in headers if name == wanted]

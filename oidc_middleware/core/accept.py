"""Does whoever asks want a page, or something for a program?"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

_LONGEST: Final = 1024


def prefers_html(headers: Iterable[tuple[bytes, bytes]]) -> bool:
    """Say whether Accept names text/html and wants it more than JSON; `*/*` alone is a program.

    Source: RFC 9110 §12.5.1.
    """
    accept = b",".join(value for name, value in headers if name == b"accept")
    if b"text/html" not in accept.lower() or len(accept) > _LONGEST:
        return False
    weights = dict(_weighted(part) for part in accept.decode("latin-1").lower().split(","))
    wildcard = weights.get("application/*", weights.get("*/*", 0.0))
    return weights.get("text/html", 0.0) > weights.get("application/json", wildcard)


def _weighted(part: str) -> tuple[str, float]:
    media_type, *parameters = (piece.strip() for piece in part.split(";"))
    for parameter in parameters:
        name, _, value = parameter.partition("=")
        if name == "q":
            try:
                return media_type, float(value)
            except ValueError:
                return media_type, 0.0
    return media_type, 1.0

"""Text for a terminal: plain ASCII, whatever a token or an issuer says, and times that people can read."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any

_SHOWN = 160
_UNITS = (("d", 86_400), ("h", 3_600), ("min", 60), ("s", 1))


def printable(text: str) -> str:
    """Return `text` with all that is not printable ASCII escaped: it could move the cursor or look like other text."""
    return "".join(char if " " <= char <= "~" else char.encode("unicode_escape").decode() for char in text)


def shown(value: Any) -> str:
    """Return a JSON value as JSON, safe to print, and cut where it is long."""
    return _cut(printable(json.dumps(value)))


def listed(words: Iterable[str]) -> str:
    """Return words between commas, safe to print, and cut where they are many; "none" where there are none."""
    return _cut(printable(", ".join(words))) or "none"


def _cut(text: str) -> str:
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}... ({len(text)} characters)"


def moment(when: float) -> str:
    """Return a Unix time as date and time of day."""
    return f"{datetime.fromtimestamp(when, UTC):%Y-%m-%d %H:%M:%S} UTC"


def distance(seconds: float) -> str:
    """Return how far away a moment is, in its two largest units; before now is negative."""
    if abs(seconds) < 1:
        return "now"
    return f"in {span(seconds)}" if seconds > 0 else f"{span(-seconds)} ago"


def span(seconds: float) -> str:
    """Return a duration in its two largest units."""
    rest = int(seconds)
    largest = next((place for place, (_, size) in enumerate(_UNITS) if rest >= size), len(_UNITS) - 1)
    parts: list[str] = []
    for unit, size in _UNITS[largest : largest + 2]:
        count, rest = divmod(rest, size)
        if count or not parts:
            parts.append(f"{count} {unit}")
    return " ".join(parts)


def keep_log_of_issuers_quiet() -> None:
    """Keep what a command prints itself from being printed by the log as well, where nobody configured logging."""
    logging.getLogger("oidc_middleware.provider").addHandler(logging.NullHandler())


def print_line(mark: str, name: str, text: str) -> None:
    """Print one finding: whether it is well, what it is about, and what was found."""
    print(f"{mark:7} {name:10} {text}")

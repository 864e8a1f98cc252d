"""How long a document of an issuer may be used."""

from __future__ import annotations

import re
from dataclasses import dataclass

_MAX_AGE = re.compile(r'max-age="?([0-9]{1,12})"?')
_FOREVER = 10.0**12


@dataclass(frozen=True, slots=True)
class Life:
    """Bounds of a document's life in seconds; `default` is for an answer that does not say how long it is fresh.

    Past its life a document is used for up to `stale` seconds more, but only while the issuer fails.
    """

    shortest: float
    longest: float
    default: float
    stale: float = 86_400

    def clamp(self, max_age: float | None) -> float:
        """Return the seconds that an answer is fresh, whatever it says of itself."""
        return min(max(self.default if max_age is None else max_age, self.shortest), self.longest)


def max_age(cache_control: str | None, age: str | None = None) -> float | None:
    """Return how long an answer with these headers says that it is fresh, in seconds; None: it does not say.

    What cannot be read counts as stale at once, and of two values the smaller one counts.

    Source: RFC 9111 §4.2.1 (invalid or conflicting freshness), §5.1 (`Age`), §5.2.2 (directives of answers).
    """
    directives = [directive.strip().lower() for directive in (cache_control or "").split(",")]
    if "no-store" in directives or any(directive.partition("=")[0] == "no-cache" for directive in directives):
        return 0.0
    ages = [_seconds(directive) for directive in directives if directive.startswith("max-age")]
    if not ages:
        return None
    return max(0.0, min(ages) - _age(age))


def _seconds(directive: str) -> float:
    match = _MAX_AGE.fullmatch(directive)
    if match:
        return float(match[1])
    # Too many digits to matter, or nothing that is a number of seconds.
    return _FOREVER if re.fullmatch(r"max-age=[0-9]+", directive) else 0.0


def _age(age: str | None) -> float:
    return float(age) if age is not None and re.fullmatch(r"[0-9]{1,12}", age) else 0.0

"""Path patterns of `public`, `optional` and `rules`: no regular expressions, so nothing to get wrong or to blow up.

| pattern | matches |
|---|---|
| `/health` | exactly this |
| `/docs/*` | `/docs`, `/docs/`, `/docs/x`, `/docs/x/y`, and not `/docsx` |
| `/users/{id}/avatar` | any one segment that is not empty in the place of `{id}` |
| `/{$}` | exactly `/` (as in Go's ServeMux) |
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from oidc_middleware.core.paths import classify

_ONE_SEGMENT = re.compile(r"\{[A-Za-z_][A-Za-z0-9_]*\}")


class PolicyError(ValueError):
    """A path, rule or prefix cannot work. `field` names the setting, `cure` says what to write instead."""

    def __init__(self, field: str, problem: str, cure: str) -> None:
        super().__init__(f"{field}: {problem}. {cure}")
        self.field = field
        self.problem = problem
        self.cure = cure


@dataclass(frozen=True, slots=True)
class Pattern:
    """A parsed pattern: `None` among the segments is any one that is not empty, `tail` any further ones or none."""

    text: str
    segments: tuple[str | None, ...]
    tail: bool

    def matches(self, segments: tuple[str, ...]) -> bool:
        """Say whether it matches a path, given as its segments (`/a/` is `("a", "")`)."""
        if len(segments) < len(self.segments) or (len(segments) > len(self.segments) and not self.tail):
            return False
        return all(map(_meet, self.segments, segments))

    def overlaps(self, other: Pattern) -> bool:
        """Say whether some path is matched by both."""
        longer = max(len(self.segments), len(other.segments))
        if (len(self.segments) < longer and not self.tail) or (len(other.segments) < longer and not other.tail):
            return False
        return all(map(_meet, self.segments, other.segments))

    def contains(self, other: Pattern) -> bool:
        """Say whether every path that `other` matches is matched by this one."""
        if len(other.segments) < len(self.segments):
            return False
        if not self.tail and (other.tail or len(other.segments) > len(self.segments)):
            return False
        return all(map(_within, other.segments, self.segments))

    def closing(self) -> tuple[Pattern, ...]:
        """Return the patterns that together match this one's paths with and without a trailing slash.

        For what closes a path: an app that ignores the slash must not let `/admin/` escape a rule for `/admin`.
        """
        if self.tail:
            return (self,)
        bare = self.segments[:-1] if self.segments[-1] == "" else self.segments
        return Pattern(self.text, bare, tail=False), Pattern(self.text, (*bare, ""), tail=False)

    @property
    def is_literal(self) -> bool:
        """Whether it matches one path only."""
        return not self.tail and None not in self.segments

    @property
    def has_fixed_part(self) -> bool:
        """Whether at least one segment is given; `/*` and `/{any}` have none."""
        return any(self.segments)


def segments_of(path: str) -> tuple[str, ...]:
    """Return the segments of a path that starts with a slash."""
    return tuple(path[1:].split("/"))


def parse(text: object, field: str) -> Pattern:
    """Return the pattern that `text` spells; `field` is the setting that it stands in.

    Raises:
        PolicyError: It is none, or it could never match a path that is let through.
    """
    if not isinstance(text, str):
        raise PolicyError(field, f"a path is a string, not {text!r}", 'Write it like "/health".')
    if not text.startswith("/"):
        raise PolicyError(field, f"{text!r} does not start with a slash", 'Write it like "/health" or "/docs/*".')
    if text != text.rstrip():
        raise PolicyError(field, f"{text!r} ends with white space", "Remove it.")
    shape = classify(text)
    if shape.kind != "clean":
        cure = "Write it as the app sees it: decoded, without empty and dot segments."
        raise PolicyError(field, f"{text!r} never matches ({shape.reason})", cure)
    if text == "/{$}":
        return Pattern(text, ("",), tail=False)
    base, star, rest = text.partition("/*")
    tail = bool(star) and not rest
    fixed = base if tail else text
    parts = segments_of(fixed) if fixed else ()
    return Pattern(text, tuple(_segment(part, text, field) for part in parts), tail)


def _segment(part: str, text: str, field: str) -> str | None:
    if _ONE_SEGMENT.fullmatch(part):
        return None
    if "*" in part:
        cure = (
            'Write "/docs/*" for /docs and everything below it; there is no other wildcard and no regular expression.'
        )
        raise PolicyError(field, f"{text!r} has a * that is not the last segment", cure)
    if "{" in part or "}" in part:
        cure = 'Write "/users/{id}" for any one segment, "/files/*" for any number of them.'
        raise PolicyError(field, f"{text!r} has a brace that is not around the name of one segment", cure)
    return part


def _meet(one: str | None, other: str | None) -> bool:
    """Say whether two segments have a spelling in common; `None` is any that is not empty."""
    return one == other or (one is None and other != "") or (other is None and one != "")


def _within(part: str | None, whole: str | None) -> bool:
    return part == whole or (whole is None and part != "")

"""Variables and files hold text only: how it becomes the value that a keyword would have had."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from oidc_middleware.core import strict_json
from oidc_middleware.settings.problem import Problem, shown

_NUMBER = re.compile(r"-?[0-9]{1,15}(?:\.[0-9]{1,15})?")
_FLAGS = {"true": True, "1": True, "yes": True, "on": True, "false": False, "0": False, "no": False, "off": False}


@dataclass(frozen=True, slots=True)
class Read:
    """Stands in the annotation of a field whose text has to be read; all others take it as it is."""

    decode: Callable[[str], object]


def number(text: str) -> object:
    """Read a decimal number."""
    if not _NUMBER.fullmatch(text):
        raise Problem(f"{shown(text)} is not a number", "Write it in digits, such as 30 or 0.5.")
    return float(text)


def flag(text: str) -> object:
    """Read true or false, in the words that are common in variables."""
    if text.lower() not in _FLAGS:
        raise Problem(f"{shown(text)} is neither true nor false", "Write true or false.")
    return _FLAGS[text.lower()]


def listed(text: str) -> object:
    """Read a list: a JSON array, or words between commas. Empty text is the empty list."""
    if not text.strip():
        return []
    if text.lstrip().startswith("["):
        return json(text)
    words = [word.strip() for word in text.split(",")]
    if not all(words):
        raise Problem("has nothing between two commas or at an end", "Remove the comma.")
    return words


def spaced(text: str) -> object:
    """Read words between spaces, or a list as `listed` reads it."""
    return listed(text) if text.lstrip().startswith("[") or "," in text else text.split()


def json(text: str) -> object:
    """Read a JSON document."""
    try:
        return strict_json.loads(text.encode())
    except UnicodeEncodeError:
        raise Problem("is not JSON: it is not UTF-8", "Write it in UTF-8.") from None
    except strict_json.StrictJSONError as error:
        raise Problem(f"is not JSON: {error}", 'Write a JSON array, such as [{"path": "/admin/*"}].') from None


def never(text: str) -> object:  # noqa: ARG001  every decoder takes the text
    """Refuse: text cannot be such a value."""
    raise Problem("cannot come from a variable", "Pass it as a keyword, in Python.")

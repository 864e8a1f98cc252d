"""Where a browser goes after a login: a place of this very app, and nowhere else."""

from __future__ import annotations

import re
from typing import Final
from urllib.parse import quote, urlsplit

FRONT_PAGE: Final = "/"
LONGEST: Final = 2048
"""Characters of a return path: it travels in a cookie, as part of which it must fit."""

# Browsers take out tabs and line ends and read a backslash as a slash, so that `/<tab>/host` and `/\host` lead to
# another host (WHATWG URL, basic URL parser). None of them, nor any other control character or space, is in a path.
_PATH = re.compile(r"/(?![/\\])[^\x00-\x20\x7f\\]*")
_ASCII: Final = bytes(range(0x21, 0x7F)).decode()
_HERE: Final = frozenset({".", "%2e"})
_UP: Final = frozenset({"..", ".%2e", "%2e.", "%2e%2e"})


def return_path(wanted: str | None) -> str:
    """Return `wanted` if every browser reads it as a path of the same origin, else the front page.

    It begins with one slash and holds neither white space nor control characters nor backslashes; what is not ASCII is
    written in `%` escapes, as browsers do. A path that begins with `//` once its dot segments are gone is none, and a
    fragment, which no server sees, is left out.

    Source: WHATWG URL §4.4 (path-absolute and path states), RFC 9700 §4.11.
    """
    if not wanted or len(wanted) > LONGEST or not _PATH.fullmatch(wanted):
        return FRONT_PAGE
    try:
        kept = quote(wanted.partition("#")[0], safe=_ASCII)
    except UnicodeEncodeError:  # half of a pair of surrogates
        return FRONT_PAGE
    return FRONT_PAGE if len(kept) > LONGEST or _becomes_a_host(kept.partition("?")[0]) else kept


def path_on(base_url: str, wanted: str) -> str:
    """Return what `return_path` does; a whole URL of the same origin as `base_url` is as good as its path.

    nginx, and those who come from oauth2-proxy, write it so.
    """
    base = urlsplit(base_url)
    origin = f"{base.scheme}://{base.netloc}"
    return return_path(wanted.removeprefix(origin) if wanted.startswith(f"{origin}/") else wanted)


def _becomes_a_host(path: str) -> bool:
    """Tell whether `//` is in front when the dot segments are gone, as of `/.//host`: someone may resolve it twice."""
    left: list[str] = []
    for segment in path.split("/")[1:]:
        if segment.lower() in _UP:
            left[-1:] = []
        elif segment.lower() not in _HERE:
            left.append(segment)
    return len(left) > 1 and not left[0]

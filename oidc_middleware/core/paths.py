"""Is this path one that everybody reads alike? And what is left of it below `root_path`?

Servers pass paths on as they come, only decoded once. What another reader (a proxy, a framework, a file system) may
read differently must not decide who gets in:

- *bad*: no honest client sends it. Dot segments, backslash, control characters, `?` and `#` that were encoded, bytes
  that are not UTF-8 (overlong forms become U+FFFD), surrogates, no leading slash (`*`, `http://…`, `health`).
- *ambiguous*: legal, but read in two ways. `//`, `;`, an encoded slash, an escape left after decoding (`/%2561dmin` is
  `/%61dmin` here and `/admin` for who decodes twice), a `%` that starts no escape.
- *clean*: everything else. Letters are compared exactly: no case folding, no Unicode normalisation (`é` composed and
  decomposed are two paths, U+FF0F is no slash).

`raw_path` is optional in ASGI. Where it comes, it can only make the verdict stricter, never milder.

Source: RFC 3986 §§ 2.1, 3.3, 5.2.4, 6.2.2; RFC 9112 § 3.2; the ASGI specification on `path`, `raw_path`, `root_path`.
"""

from __future__ import annotations

import re
from typing import Literal, NamedTuple
from urllib.parse import unquote


class Shape(NamedTuple):
    """How a path reads, and why; the reason holds nothing of the path."""

    kind: Literal["clean", "ambiguous", "bad"]
    reason: str


CLEAN = Shape("clean", "")

_BAD = (
    (re.compile(r"\A(?!/)"), "no leading slash"),
    (re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]"), "control character"),
    (re.compile(r"\\"), "backslash"),
    (re.compile(r"[?#]"), "encoded ? or #"),
    (re.compile(r"[\ud800-\udfff\ufffd]"), "not UTF-8"),
    # `/..;x/` is a dot segment for readers that strip path parameters.
    (re.compile(r"/\.\.?(?:;[^/]*)?(?:/|\Z)"), "dot segment"),
)
_AMBIGUOUS = (
    (re.compile(r"//"), "empty segment"),
    (re.compile(r";"), "path parameter"),
    (re.compile(r"%(?:[0-9A-Fa-f]{2}|[uU][0-9A-Fa-f]{4})"), "encoded twice"),
)
_AMBIGUOUS_RAW = (
    (re.compile(r"%(?:2[Ff]|5[Cc])"), "encoded slash"),
    (re.compile(r"%(?![0-9A-Fa-f]{2})"), "incomplete escape"),
)


def classify(path: str, raw_path: bytes | None = None) -> Shape:
    """Say how `path` (decoded once) and `raw_path` (as on the wire), both of the ASGI scope, read; the worse counts."""
    shape = _shape_of(path)
    if not raw_path or shape.kind == "bad":
        return shape
    raw_shape = _shape_of_raw(raw_path)
    return raw_shape if raw_shape.kind == "bad" or shape.kind == "clean" else shape


def route_path(path: str, root_path: str = "") -> str:
    """Return the path below `root_path`, which is removed at a segment boundary only.

    As Starlette's router does it, but for one thing: `root_path` itself gives `/`, where Starlette gives an empty path.
    """
    if not root_path or not path.startswith(root_path):
        return path
    rest = path[len(root_path) :]
    if not rest:
        return "/"
    return rest if rest[0] == "/" else path


def _shape_of(path: str) -> Shape:
    for pattern, reason in _BAD:
        if pattern.search(path):
            return Shape("bad", reason)
    for pattern, reason in _AMBIGUOUS:
        if pattern.search(path):
            return Shape("ambiguous", reason)
    return CLEAN


def _shape_of_raw(raw_path: bytes) -> Shape:
    # The specification leaves the query out of raw_path; some clients put it in.
    wire = raw_path.partition(b"?")[0]
    try:
        text = wire.decode("utf-8")
    except UnicodeDecodeError:
        return Shape("bad", "not UTF-8")
    shape = _shape_of(unquote(text))
    if shape.kind == "clean":
        for pattern, reason in _AMBIGUOUS_RAW:
            if pattern.search(text):
                return Shape("ambiguous", reason)
    return shape

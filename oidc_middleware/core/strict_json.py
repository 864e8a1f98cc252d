"""JSON as RFC 8725 §2.4 wants it read: one meaning per document, or none.

`json.loads` takes `NaN`, a byte order mark, UTF-16 and the last of two equal keys. msgspec takes none of these but the
last, and is four times as fast. So msgspec decodes, and a document that it re-encodes to the same bytes cannot have had
a duplicate key, for each key comes out once. Only a document that differs (white space, escapes) is read a second time.
"""

from __future__ import annotations

import json
from typing import Any

import msgspec

_decode = msgspec.json.Decoder().decode
_encode = msgspec.json.Encoder().encode


class StrictJSONError(ValueError):
    """The bytes are not JSON with exactly one meaning. The message never quotes them."""


class DuplicateKeyError(StrictJSONError):
    """They are JSON, and an object in it has a key twice."""


def loads(data: bytes, max_depth: int = 32) -> Any:
    """Read one JSON document in UTF-8; arrays and objects may nest `max_depth` deep.

    Raises:
        StrictJSONError: not JSON, a duplicate key, a number that is not finite, a byte order mark, nested too deep.

    Source: RFC 8259 §4, §8.1; RFC 7519 §4 (duplicate claim names must be refused or resolved: we refuse).
    """
    try:
        value = _decode(data)
    except RecursionError:
        raise StrictJSONError("nested too deep") from None
    except ValueError as error:
        raise StrictJSONError("not JSON: " + _reason(error)) from None
    if len(data) - len(data.translate(None, b"[{")) > max_depth and _deeper_than(value, max_depth):
        raise StrictJSONError("nested too deep")
    if not _reads_back(value, data):
        _refuse_duplicates(data)
    return value


def load_object(data: bytes, max_depth: int = 32) -> dict[str, Any]:
    """Read one JSON document that must be an object.

    Raises:
        StrictJSONError: as `loads`, or the document is not an object.
    """
    value = loads(data, max_depth)
    if type(value) is not dict:
        raise StrictJSONError("not a JSON object")
    return value


def _reason(error: ValueError) -> str:
    return "invalid UTF-8" if isinstance(error, UnicodeDecodeError) else str(error).split(" - at")[0]


def _deeper_than(value: object, depth: int) -> bool:
    if type(value) is dict:
        inner: Any = value.values()
    elif type(value) is list:
        inner = value
    else:
        return False
    return depth == 0 or any(_deeper_than(item, depth - 1) for item in inner)


def _reads_back(value: object, data: bytes) -> bool:
    try:
        return _encode(value) == data
    except (
        OverflowError,
        ValueError,
    ):  # an integer beyond 64 bits decodes but does not encode
        return False


def _refuse_duplicates(data: bytes) -> None:
    try:
        json.loads(data, object_pairs_hook=_unique)
    except StrictJSONError:
        raise
    except (ValueError, RecursionError):
        raise StrictJSONError("not JSON") from None


def _unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
    unique = dict(pairs)
    if len(unique) != len(pairs):
        raise DuplicateKeyError("a key occurs twice")
    return unique

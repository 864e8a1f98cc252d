"""What an app answers to a session stays between the two: no cache on the way may keep it for others.

A request with a cookie looks to a shared cache like any other; of one with `Authorization` it knows better. So where
the app does not say itself who may store its answer, we do. A page is not stored at all: after a log-out the button
that leads back would show it.
"""

from __future__ import annotations

from typing import Final

from starlette.types import Message

_VALIDATORS: Final = frozenset({b"etag", b"last-modified"})
_ASKED_AGAIN: Final = (b"cache-control", b"private, no-cache")
_NOT_STORED: Final = (b"cache-control", b"no-store")


def private(start: Message) -> Message:
    """Return the start of a response with Cache-Control, unless the app has set it.

    What has a validator, and is no page, may be stored by the browser and is asked about each time.

    Source: RFC 9111 §3.5, §5.2.2.
    """
    headers = start.get("headers") or ()
    is_page = has_validator = False
    for name, value in headers:
        if name == b"cache-control":
            return start
        if name == b"content-type":
            is_page = value[:9].lower() == b"text/html"
        elif name in _VALIDATORS:
            has_validator = True
    control = _ASKED_AGAIN if has_validator and not is_page else _NOT_STORED
    start = dict(start)
    start["headers"] = [*headers, control]
    return start

"""What an app answers to a session stays between the two: no cache on the way may keep it for others.

A request with a cookie looks to a shared cache like any other; of one with `Authorization` it knows better. So where
the app does not say itself who may store its answer, we do. A page is not stored at all: after a log-out the button
that leads back would show it.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final

from starlette.types import Message, Send

_WATCHED: Final = frozenset({b"cache-control", b"content-type", b"etag", b"last-modified"})
_ASKED_AGAIN: Final = (b"cache-control", b"private, no-cache")
_NOT_STORED: Final = (b"cache-control", b"no-store")


def private(send: Send) -> Callable[[Message], Awaitable[None]]:
    """Return a `send` that adds Cache-Control where the app set none.

    What has a validator, and is no page, may be stored by the browser and is asked about each time.

    Source: RFC 9111 §3.5, §5.2.2.
    """

    def send_private(message: Message) -> Awaitable[None]:
        if message["type"] == "http.response.start":
            headers = message.get("headers") or ()
            found = {name: value for name, value in headers if name in _WATCHED}
            if b"cache-control" not in found:
                is_page = found.get(b"content-type", b"").startswith(b"text/html")
                has_validator = b"etag" in found or b"last-modified" in found
                control = _ASKED_AGAIN if has_validator and not is_page else _NOT_STORED
                message = {**message, "headers": [*headers, control]}
        return send(message)

    return send_private

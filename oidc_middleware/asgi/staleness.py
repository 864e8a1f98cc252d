"""A response header for debugging: how old what this node knows of revocations is."""

from __future__ import annotations

from typing import Final

from starlette.types import Message, Send

from oidc_middleware.auth.revocation.revocations import Revocations

_NAME: Final = b"x-oidc-staleness"
_STARTS: Final = frozenset({"http.response.start", "websocket.accept", "websocket.http.response.start"})


def telling(revocations: Revocations, send: Send) -> Send:
    """Return a `send` that adds the age, in seconds, to the headers of what starts an answer."""

    async def send_told(message: Message) -> None:
        if message["type"] in _STARTS:
            staleness = revocations.staleness
            value = b"unknown" if staleness is None else f"{staleness:.3f}".encode()
            others = [(name, text) for name, text in message.get("headers", ()) if name.lower() != _NAME]
            message = {**message, "headers": [*others, (_NAME, value)]}
        await send(message)

    return send_told

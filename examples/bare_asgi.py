"""An ASGI app without a framework, and what it gets: who calls, in `scope["user"]`.

Run it with `OIDC_ISSUER=https://... OIDC_AUDIENCE=https://... uvicorn examples.bare_asgi:app`.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from oidc_middleware import OIDCMiddleware, Rule

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Scope]]
Send = Callable[[Scope], Awaitable[None]]


async def api(scope: Scope, receive: Receive, send: Send) -> None:
    """Serve two paths and a WebSocket."""
    user: Any = scope.get("user")
    if scope["type"] == "lifespan":  # without it the service would start with the first request
        while (await receive())["type"] == "lifespan.startup":
            await send({"type": "lifespan.startup.complete"})
        await send({"type": "lifespan.shutdown.complete"})
    elif scope["type"] == "websocket":
        await receive()
        await send({"type": "websocket.accept"})
        await send({"type": "websocket.send", "text": json.dumps({"hello": user.display_name})})
        await send({"type": "websocket.close"})
    elif scope["path"] == "/version":
        await answer(send, 200, {"version": 1})
    elif scope["path"] == "/orders":
        await answer(send, 200, {"owner": user.identity, "scopes": sorted(user.scopes)})
    else:
        await answer(send, 404, {"error": "not_found"})


async def answer(send: Send, status: int, body: dict[str, Any]) -> None:
    """Send a response in JSON."""
    headers = [(b"content-type", b"application/json")]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": json.dumps(body).encode()})


app = OIDCMiddleware(
    api,
    public=["/version"],
    rules=[Rule("/orders", methods=["POST"], scopes=["orders:write"])],
)

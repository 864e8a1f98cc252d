"""An app that people log in to: a page that asks it by fetch, listens to an event stream and talks over a WebSocket."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket, WebSocketDisconnect

from oidc_middleware import OIDC, OIDCMiddleware, Rule
from oidc_middleware.clock import Clock

from .stranger import AUDIENCE

PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>{path}</title><link rel="icon" href="data:,"></head><body>
<h1 id="who">{subject}</h1>
<button id="ask">Ask</button> <output id="answer"></output>
<button id="listen">Listen</button> <output id="events"></output>
<button id="talk">Talk</button> <output id="talk-said"></output>
<a id="out" href="/oauth2/sign_out">Sign out</a>
<script>
const say = (id, text) => {{ document.getElementById(id).textContent = text; }};
const on = (id, act) => document.getElementById(id).addEventListener('click', act);
on('ask', async () => {{
  say('answer', '');
  const answer = await fetch('/me', {{redirect: 'error'}});
  say('answer', answer.status + ' ' + answer.headers.get('content-type'));
}});
on('listen', async () => {{
  const answer = await fetch('/events');
  const reader = answer.body.getReader();
  say('events', 'open');
  try {{
    while (!(await reader.read()).done);
  }} catch {{ }}
  say('events', 'ended');
}});
on('talk', () => {{
  const socket = new WebSocket(location.origin.replace('http', 'ws') + '/ws');
  socket.onmessage = (event) => say('talk-said', event.data);
  socket.onclose = (event) => say('talk-said', 'closed ' + event.code);
}});
</script></body></html>
"""


async def page(request: Request) -> Response:
    """Show the page."""
    return HTMLResponse(PAGE.format(subject=request.user.subject, path=request.url.path))


async def me(request: Request) -> Response:
    """Tell who asks, and what the issuer says of them."""
    user = request.user
    names = ("email", "name")
    return JSONResponse({"subject": user.subject} | {name: user.claims.get(name) for name in names})


async def token(request: Request) -> Response:
    """Show an access token that is good, which no other app should do."""
    return JSONResponse({"access_token": await request.auth.access_token()})


async def events(_request: Request) -> Response:
    """Send an event ten times a second, for as long as somebody listens."""

    async def sent() -> AsyncIterator[bytes]:
        while True:
            yield b"data: tick\n\n"
            await asyncio.sleep(0.1)

    return StreamingResponse(sent(), media_type="text/event-stream")


async def echo(websocket: WebSocket) -> None:
    """Say who it is, and then send back what comes."""
    await websocket.accept()
    await websocket.send_text(f"hello {websocket.user.subject}")
    try:
        while True:
            await websocket.send_text(await websocket.receive_text())
    except WebSocketDisconnect:
        pass


async def health(_request: Request) -> Response:
    """Answer anybody."""
    return PlainTextResponse("ok")


def login_app(clock: Clock | None = None, **settings: Any) -> Starlette:
    """Return the app behind the middleware; `settings` replace what is usual here, None leaves a setting out.

    With a `clock`, that is what time it is for the middleware.
    """
    usual: dict[str, Any] = {
        "audience": AUDIENCE,
        "client_id": "app",
        "client_secret": "app-secret",
        "login": True,
        "scope": "openid email profile",
        "public": ["/health"],
        "rules": [Rule("/admin", scopes=("admin",))],
    }
    app = Starlette(
        routes=[
            Route("/health", health),
            Route("/me", me, methods=["GET", "POST"]),
            Route("/token", token),
            Route("/events", events),
            WebSocketRoute("/ws", echo),
            Route("/{rest:path}", page),
        ]
    )
    chosen = {name: value for name, value in (usual | settings).items() if value is not None}
    if clock is None:
        app.add_middleware(OIDCMiddleware, **chosen)
    else:
        app.add_middleware(OIDCMiddleware, oidc=OIDC(clock=clock, **chosen))
    return app

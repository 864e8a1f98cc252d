"""A Starlette API with rules, a WebSocket and CORS.

Run it with `OIDC_ISSUER=https://... OIDC_AUDIENCE=https://... uvicorn examples.starlette_api:app`.
"""

from __future__ import annotations

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket

from oidc_middleware import OIDCMiddleware, Rule


async def version(request: Request) -> JSONResponse:
    return JSONResponse({"version": 1})


async def orders(request: Request) -> JSONResponse:
    return JSONResponse({"owner": request.user.identity, "scopes": sorted(request.user.scopes)})


async def feed(websocket: WebSocket) -> None:
    await websocket.accept()
    await websocket.send_json({"hello": websocket.user.display_name})
    await websocket.close()


app = Starlette(
    routes=[
        Route("/version", version),
        Route("/orders", orders, methods=["GET", "POST"]),
        WebSocketRoute("/feed", feed),
    ],
    middleware=[
        # Outermost, so that browsers may read refusals too.
        Middleware(CORSMiddleware, allow_origins=["https://app.example.com"], allow_headers=["Authorization"]),
        Middleware(
            OIDCMiddleware,
            public=["/version"],
            rules=[Rule("/orders", methods=["POST"], scopes=["orders:write"])],
        ),
    ],
)

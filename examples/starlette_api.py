"""A Starlette API whose endpoints say what they need, a WebSocket, CORS, and an area for administrators.

Run it with `OIDC_ISSUER=https://... OIDC_AUDIENCE=https://... uvicorn examples.starlette_api:app`.
"""

from __future__ import annotations

from starlette.applications import Starlette
from starlette.endpoints import HTTPEndpoint
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Mount, Route, WebSocketRoute
from starlette.websockets import WebSocket

from oidc_middleware import OIDC, OIDCMiddleware, Rule, optional_user, requires


async def version(request: Request) -> JSONResponse:
    return JSONResponse({"version": 1})


async def welcome(request: Request) -> JSONResponse:
    user = optional_user(request)
    return JSONResponse({"hello": user.display_name if user else "stranger"})


class Orders(HTTPEndpoint):
    """Reading needs an identity only."""

    async def get(self, request: Request) -> JSONResponse:
        return JSONResponse({"owner": request.user.identity, "scopes": sorted(request.user.scopes)})

    @requires("orders:write")
    async def post(self, request: Request) -> JSONResponse:
        return JSONResponse({"owner": request.user.identity, "scopes": sorted(request.user.scopes)})


@requires(any_scopes=["orders:read", "orders:write"])
async def feed(websocket: WebSocket) -> None:
    await websocket.accept()
    await websocket.send_json({"hello": websocket.user.display_name})
    await websocket.close()


async def revocations(request: Request) -> JSONResponse:
    return JSONResponse(OIDC.from_request(request).stats()["revocations"])


# One service: issuers, keys, caches and revocations are shared by the two middlewares below.
oidc = OIDC(public=["/version"], optional=["/welcome"])

app = Starlette(
    routes=[
        Route("/version", version),
        Route("/welcome", welcome),
        Route("/orders", Orders),
        WebSocketRoute("/feed", feed),
        Mount(
            "/admin",
            routes=[Route("/revocations", revocations)],
            # Paths are those that the mounted app sees.
            middleware=[Middleware(OIDCMiddleware, oidc=oidc, realm="admin", rules=[Rule("/*", scopes=["admin"])])],
        ),
    ],
    middleware=[
        # Outermost, so that browsers may read refusals too.
        Middleware(CORSMiddleware, allow_origins=["https://app.example.com"], allow_headers=["Authorization"]),
        Middleware(OIDCMiddleware, oidc=oidc),
    ],
)

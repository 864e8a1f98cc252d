"""Four workers that share one file: what one of them learned, the others need not ask for.

Run it with

    export OIDC_ISSUER=https://... OIDC_AUDIENCE=https://...
    export OIDC_CACHE=sqlite:///cache.sqlite OIDC_SECRET=$(oidc-middleware secret)
    uvicorn --workers 4 examples.shared_cache:app

The issuer's keys and metadata are in the file, sealed, and so is whatever the app keeps there itself. To grow beyond
one host, change the URL: OIDC_CACHE=rediss://...
"""

from __future__ import annotations

import os
import time

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from oidc_middleware import OIDC, OIDCMiddleware, Rule


async def version(request: Request) -> JSONResponse:
    return JSONResponse({"version": 1})


async def orders(request: Request) -> JSONResponse:
    return JSONResponse({"owner": request.user.identity, "scopes": sorted(request.user.scopes)})


async def report(request: Request) -> JSONResponse:
    cache = OIDC.from_request(request).caches.general
    text = await cache.get(b"report")
    if text is None:
        text = f"made by worker {os.getpid()}".encode()
        await cache.set(b"report", text, time.time() + 60, wait=True)
    return JSONResponse({"report": text.decode(), "answered by": os.getpid()})


app = Starlette(
    routes=[
        Route("/version", version),
        Route("/orders", orders, methods=["GET", "POST"]),
        Route("/report", report),
    ],
    middleware=[
        Middleware(
            OIDCMiddleware,
            public=["/version"],
            rules=[Rule("/orders", methods=["POST"], scopes=["orders:write"])],
        ),
    ],
)

"""The app that `test_lifecycle_servers.py` lets each server load."""

from __future__ import annotations

import os

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from oidc_middleware import OIDCMiddleware


async def upload(request: Request) -> Response:
    """Tell who sent how much, and which process counted it."""
    size = 0
    async for chunk in request.stream():
        size += len(chunk)
    return JSONResponse({"subject": request.user.subject, "size": size, "process": os.getpid()})


# OIDC_ISSUER and OIDC_AUDIENCE come from the environment.
app = Starlette(routes=[Route("/", upload, methods=["GET", "POST"])], middleware=[Middleware(OIDCMiddleware)])

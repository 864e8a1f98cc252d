"""One of the apps that `bench_server` asks, on uvicorn: `python served.py NAME ISSUER` prints its port and serves."""

from __future__ import annotations

import socket
import sys
from time import process_time

import jwt
import uvicorn
from peers import JWTBackend, JWTMiddleware
from starlette.applications import Starlette
from starlette.middleware.authentication import AuthenticationMiddleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route
from traffic import AUDIENCE, hello

from oidc_middleware import OIDCMiddleware


async def cpu(request: Request) -> Response:
    """Tell how many seconds of processor time the server has taken so far."""
    del request
    return PlainTextResponse(str(process_time()))


def build(name: str, issuer: str) -> Starlette:
    """Return the app with the middleware of that name, `bare` for none."""
    app = Starlette(routes=[Route("/orders", hello), Route("/cpu", cpu)])
    match name:
        case "oidc-middleware":
            app.add_middleware(OIDCMiddleware, issuer=issuer, audience=AUDIENCE)
        case "pyjwt":
            app.add_middleware(AuthenticationMiddleware, backend=JWTBackend(issuer, only_key(issuer)))
        case "base-http":
            app.add_middleware(JWTMiddleware, issuer=issuer, key=only_key(issuer))
    return app


def only_key(issuer: str) -> object:
    """Return the key of an issuer that has one."""
    return jwt.PyJWKClient(f"{issuer}/jwks").get_signing_keys()[0].key


def main() -> None:
    """Serve until told to stop."""
    name, issuer = sys.argv[1:]
    app = build(name, issuer)
    listening = socket.create_server(("127.0.0.1", 0), backlog=128)
    print(listening.getsockname()[1], flush=True)
    config = uvicorn.Config(app, log_level="warning", access_log=False, ws="none")
    uvicorn.Server(config).run([listening])


if __name__ == "__main__":
    main()

"""One of the proxies that `bench_proxy` asks: `served_proxy.py NAME ISSUER UPSTREAM` prints its port and serves."""

from __future__ import annotations

import socket
import sys
from time import process_time
from typing import Any

import uvicorn
from starlette.responses import PlainTextResponse
from traffic import AUDIENCE, Application

from oidc_middleware import OIDCMiddleware
from oidc_middleware.proxy import ReverseProxy


def build(name: str, issuer: str, upstream: str) -> Application:
    """Return a proxy, behind a door unless its name is `open`; at `/cpu` it tells what it has taken itself."""
    proxy = ReverseProxy(upstream)
    behind: Application = proxy if name == "open" else OIDCMiddleware(proxy, issuer=issuer, audience=AUDIENCE)

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http" and scope["path"] == "/cpu":
            await PlainTextResponse(str(process_time()))(scope, receive, send)
        else:
            await behind(scope, receive, send)

    return app


def main() -> None:
    """Serve until told to stop."""
    name, issuer, upstream = sys.argv[1:]
    listening = socket.create_server(("127.0.0.1", 0), backlog=128)
    listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    print(listening.getsockname()[1], flush=True)
    config = uvicorn.Config(
        build(name, issuer, upstream),
        log_level="warning",
        access_log=False,
        ws="none",
        proxy_headers=False,
        server_header=False,
        date_header=False,
    )
    uvicorn.Server(config).run([listening])


if __name__ == "__main__":
    main()

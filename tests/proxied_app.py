"""What the tests of servers serve: the reverse proxy behind a door, in front of the app that `UPSTREAM` names."""

from __future__ import annotations

import os

from starlette.applications import Starlette
from starlette.routing import Mount

from oidc_middleware import OIDCMiddleware
from oidc_middleware.proxy import ReverseProxy

proxy = ReverseProxy(os.environ["UPSTREAM"], read_timeout=5)
app = OIDCMiddleware(proxy, public=["/health"])
mounted = Starlette(routes=[Mount("/base", app=proxy)])
mounted.add_middleware(OIDCMiddleware, public=["/base/health"])

"""`oidc-middleware serve`: the forward-auth service, and the login with it, from `OIDC_*` variables alone."""

from __future__ import annotations

import argparse
import logging
from importlib.util import find_spec
from typing import TYPE_CHECKING

from oidc_middleware.cli.proxies import warnings
from oidc_middleware.cli.terminal import listed, printable
from oidc_middleware.errors import ConfigError

if TYPE_CHECKING:
    from starlette.types import ASGIApp

    from oidc_middleware.settings import Settings

_DRAIN_SECONDS = 5
_FORMAT = "%(asctime)s %(levelname)s %(message)s"
_logger = logging.getLogger("oidc_middleware.serve")


def run(arguments: argparse.Namespace) -> int:
    """Serve until a signal ends it.

    Raises:
        ConfigError: the settings cannot work, the address cannot be had, or the server is not installed.
    """
    if not find_spec("uvicorn"):
        raise ConfigError("serve", "needs uvicorn, which is not here", "Install it: pip install 'oidc-middleware[cli]'")
    from oidc_middleware.cli.serving import address_of, listen, serve
    from oidc_middleware.settings import Settings

    settings = Settings(env_file=arguments.env_file, forward_auth=True)
    app = build(settings)
    logging.basicConfig(level=arguments.log_level.upper(), format=_FORMAT)
    with listen(arguments.host, arguments.port) as listening:
        address = address_of(listening)
        serve(app, listening, started=lambda: _tell(settings, address), drain_seconds=_DRAIN_SECONDS)
    return 0


def build(settings: Settings) -> ASGIApp:
    """Return the app: our endpoints, and 404 for everything else, whatever the settings say of other paths.

    These speak of the requests that proxies ask about.
    """
    from starlette.applications import Starlette
    from starlette.responses import PlainTextResponse
    from starlette.types import Receive, Scope, Send

    from oidc_middleware.asgi.middleware import OIDCMiddleware
    from oidc_middleware.wiring import OIDC

    door = OIDCMiddleware(Starlette(), oidc=OIDC(settings))
    ours = (f"{settings.prefix}/", *(settings.resource_metadata.paths if settings.resource_metadata else ()))
    text = f"Nothing is here. A proxy asks this service at {settings.prefix}/auth whether a request may pass.\n"
    nothing = PlainTextResponse(text, status_code=404, headers={"Cache-Control": "no-store"})

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and not scope["path"].startswith(ours):
            await nothing(scope, receive, send)
        else:
            await door(scope, receive, send)

    return app


def _tell(settings: Settings, address: str) -> None:
    """Say where it listens and whom it believes, when it does."""
    issuers = listed(issuer.issuer for issuer in settings.trusted)
    believed = listed(map(str, settings.trusted_proxies))
    login = f"login at {settings.base_url}" if settings.login else "no login: bearer tokens only"
    print(
        f"oidc-middleware serves forward auth at {address}{settings.prefix}/auth\n"
        f"  issuer: {issuers}; {printable(login)}; proxies that are believed: {believed}",
        flush=True,
    )
    for warning in warnings(settings):
        _logger.warning(warning)

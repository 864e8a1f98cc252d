"""`oidc-middleware proxy`: a reverse proxy in front of one app, from `OIDC_*` variables."""

from __future__ import annotations

import argparse
import logging
from importlib.util import find_spec
from typing import TYPE_CHECKING

from oidc_middleware.cli.terminal import listed, printable
from oidc_middleware.errors import ConfigError

if TYPE_CHECKING:
    from oidc_middleware.proxy import ReverseProxy
    from oidc_middleware.settings import Settings

_DRAIN_SECONDS = 5
_FORMAT = "%(asctime)s %(levelname)s %(message)s"
_logger = logging.getLogger("oidc_middleware.proxy")


def run(arguments: argparse.Namespace) -> int:
    """Serve until a signal ends it.

    Raises:
        ConfigError: the settings cannot work, the address cannot be had, or the server is not installed.
    """
    if not all(map(find_spec, ("uvicorn", "h11", "websockets"))):
        cure = "Install them: pip install 'oidc-middleware[cli]'"
        raise ConfigError("proxy", "needs uvicorn and websockets, which are not here", cure)
    from oidc_middleware.asgi.middleware import OIDCMiddleware
    from oidc_middleware.cli.serving import address_of, listen, serve
    from oidc_middleware.settings import Settings
    from oidc_middleware.wiring import OIDC

    proxy = _proxy(arguments)
    settings = Settings(env_file=arguments.env_file)
    app = OIDCMiddleware(proxy, oidc=OIDC(settings))
    logging.basicConfig(level=arguments.log_level.upper(), format=_FORMAT)
    with listen(arguments.host, arguments.port) as listening:
        address = address_of(listening)
        serve(
            app,
            listening,
            started=lambda: _tell(settings, proxy, address),
            drain_seconds=_DRAIN_SECONDS,
            passes_on=True,
        )
    return 0


def _proxy(arguments: argparse.Namespace) -> ReverseProxy:
    from oidc_middleware.proxy import ReverseProxy

    return ReverseProxy(
        arguments.upstream,
        connect_timeout=arguments.connect_timeout,
        read_timeout=arguments.read_timeout,
        ca_file=arguments.upstream_ca_file,
        claim_headers=dict(arguments.claim_header),
        pass_authorization=arguments.pass_authorization,
        pass_host=arguments.pass_host,
    )


def _tell(settings: Settings, proxy: ReverseProxy, address: str) -> None:
    """Say where it listens, what stands behind it and who gets in, when it does."""
    issuers = listed(issuer.issuer for issuer in settings.trusted)
    login = f"login at {settings.base_url}" if settings.login else "no login: bearer tokens only"
    opened = listed(map(str, (*settings.public, *settings.optional)))
    print(
        f"oidc-middleware proxies {address} to {proxy.upstream}\n"
        f"  issuer: {issuers}; {printable(login)}; open without identity: {opened}",
        flush=True,
    )
    for network in settings.trusted_proxies:
        if network.prefixlen == 0:
            _logger.warning(
                "trusted_proxies has %s: everybody is believed where a request comes from. Name the proxy's address.",
                network,
            )

"""The issuer, the service, the app, and one proxy after the other in front of them."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from oidc_middleware.testing import FakeIssuer

from .app import App
from .proxies import KINDS, Proxy, free_port, running
from serve_kit import serving

RULES = """[
  {"path": "/admin/*", "scopes": ["admin"]},
  {"path": "/orders/*", "methods": ["POST", "DELETE"], "scopes": ["orders:write"]}
]"""


@pytest.fixture(scope="session")
def issuer() -> Iterator[FakeIssuer]:
    with FakeIssuer().serve_in_thread() as issuer:
        yield issuer


@pytest.fixture(scope="session")
def app() -> Iterator[App]:
    app = App()
    yield app
    app.close()


@pytest.fixture(scope="session", params=KINDS)
def proxy(
    request: pytest.FixtureRequest, issuer: FakeIssuer, app: App, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Proxy]:
    name: str = request.param
    port = free_port()
    address = f"http://127.0.0.1:{port}"
    issuer.client(name, secret="of-this-client-alone", redirect_uris=[f"{address}/oauth2/callback"])
    settings = {
        "login": "true",
        "base_url": address,
        "client_id": name,
        "client_secret": "of-this-client-alone",
        "issuer": issuer.url,
        "audience": issuer.audience,
        "trusted_proxies": "127.0.0.1",
        "public": "/health,/docs/*",
        "optional": "/hello",
        "rules": RULES,
    }
    with (
        serving(tmp_path_factory.mktemp("serve"), settings) as service,
        running(name, tmp_path_factory.mktemp(name), port, service, app.port) as proxy,
    ):
        yield proxy

"""The issuer, the service, the app, and one proxy after the other in front of them."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from oidc_middleware.testing import FakeIssuer

from .app import App
from .proxies import KINDS, Proxy, running
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
    settings = {
        "issuer": issuer.url,
        "audience": issuer.audience,
        "trusted_proxies": "127.0.0.1",
        "public": "/health,/docs/*",
        "optional": "/hello",
        "rules": RULES,
    }
    name: str = request.param
    with (
        serving(tmp_path_factory.mktemp("serve"), settings) as service,
        running(name, tmp_path_factory.mktemp(name), service, app.port) as proxy,
    ):
        yield proxy

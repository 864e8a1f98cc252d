"""Chromium, a provider, and a service whose Swagger UI is a client of it."""

from __future__ import annotations

import os
import shutil
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, expect, sync_playwright

from oidc_middleware.fastapi import OIDCAuth

from .browsing import WAIT_MILLISECONDS, browsing
from .service import REDIRECT_PATH, app_with_swagger_ui
from conformance.logins import Fleet, fleet
from conformance.node import find_node, install
from conformance.service import Served, listen, serving
from conformance.stranger import AUDIENCE, Stranger, resource_uri

HERE = Path(__file__).parent
ASSETS = HERE / "node_modules" / "swagger-ui-dist"
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
# People's browsers put pages aside when one leaves them, and show them again as they were.
UNUSUAL = ["--disable-back-forward-cache"]


def find_chromium() -> str:
    """Return the browser that `CHROMIUM` names, or one from `PATH`.

    Raises:
        RuntimeError: there is none.
    """
    named = os.environ.get("CHROMIUM")
    names = [named] if named else ["chromium", "chromium-browser", "google-chrome"]
    found = next((path for name in names if (path := shutil.which(name))), None)
    if found is None:
        message = (
            f"make browser needs Chromium, and there is no {' or '.join(names)}: install it, or name it in CHROMIUM"
        )
        raise RuntimeError(message)
    return found


@pytest.fixture(scope="session")
def listener() -> Iterator[socket.socket]:
    """Return a socket for the service: the provider has to know its port before the service can start."""
    with listen() as listener:
        yield listener


@pytest.fixture(scope="session")
def node_installed() -> None:
    """Install what the lock files pin: the provider, and Swagger UI."""
    npm = find_node().npm
    install(npm)
    install(npm, HERE)


@pytest.fixture(scope="session")
def provider(node_installed: None, listener: socket.socket) -> Iterator[Stranger]:
    """Return the provider, which knows Swagger UI as a public client."""
    with Stranger(redirect_uri=f"http://127.0.0.1:{listener.getsockname()[1]}{REDIRECT_PATH}") as stranger:
        yield stranger


@pytest.fixture(scope="session")
def service(provider: Stranger, listener: socket.socket) -> Iterator[Served]:
    """Return the service."""
    auth = OIDCAuth(issuer=provider.issuer, audience=AUDIENCE)
    app = app_with_swagger_ui(auth, ASSETS, client_id="swagger", resource=resource_uri("rs256"))
    with serving(app, listener=listener) as served:
        yield served


@pytest.fixture(scope="session")
def chromium() -> Iterator[Browser]:
    """Return the browser of this machine."""
    path = find_chromium()
    expect.set_options(timeout=WAIT_MILLISECONDS)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=path, headless=True, args=FLAGS, ignore_default_args=UNUSUAL
        )
        yield browser
        browser.close()


@pytest.fixture
def page(chromium: Browser, service: Served) -> Iterator[Page]:
    """Return a page in the service's Swagger UI."""
    with browsing(chromium, base_url=f"http://127.0.0.1:{service.port}") as context:
        yield context.new_page()


@pytest.fixture
def app(node_installed: None, patient_tiers: None) -> Iterator[Fleet]:
    """Return three nodes of the app."""
    with fleet() as found:
        yield found


@pytest.fixture
def context(chromium: Browser) -> Iterator[BrowserContext]:
    """Return a profile that nobody used before."""
    with browsing(chromium) as found:
        yield found

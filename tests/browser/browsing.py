"""What a person does in a browser that reaches this machine only."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit

from playwright.sync_api import Browser, BrowserContext, Page, expect

from conformance.logins import Fleet

WAIT_MILLISECONDS = 30_000


@contextmanager
def browsing(chromium: Browser, **options: Any) -> Iterator[BrowserContext]:
    """Return a profile that nobody used before. It reaches this machine only: a login page wants fonts."""
    with chromium.new_context(**options) as context:
        context.set_default_timeout(WAIT_MILLISECONDS)
        context.route(lambda url: urlsplit(url).hostname not in {"127.0.0.1", "localhost"}, lambda route: route.abort())
        yield context


def identify(page: Page, name: str = "alice") -> None:
    """Fill in the provider's login page, and consent where it asks."""
    page.locator("[name=login]").fill(name)
    page.locator("[name=password]").fill("any")
    page.locator("[type=submit]").click()
    consent = page.get_by_role("button", name="Continue")
    expect(consent.or_(page.locator("#who"))).to_be_visible()
    if consent.is_visible():
        consent.click()


def log_in(page: Page, url: str, name: str = "alice") -> None:
    """Open a page of the app, log in, and be back at that page."""
    page.goto(url)
    identify(page, name)
    page.wait_for_url(url)
    expect(page.locator("#who")).to_have_text(name)


def ask(page: Page) -> str:
    """Press the button by which the page asks the app, and return what came."""
    page.locator("#ask").click()
    expect(page.locator("#answer")).not_to_be_empty()
    return str(page.locator("#answer").inner_text())


def at_the_provider(app: Fleet, page: Page) -> bool:
    """Tell whether the page is the provider's login."""
    return str(page.url).startswith(f"{app.provider.issuer}/interaction/")


def sign_out_at_the_provider(app: Fleet, page: Page) -> None:
    """Go to the provider, which knows nothing of the app's pages, and end the session there."""
    page.goto(f"{app.provider.issuer}/session/end")
    page.get_by_role("button", name="Yes, sign me out").click()
    expect(page.get_by_text("Sign-out Success")).to_be_visible()

"""Each page of ours, as somebody comes to it, on a desk and on a phone. `SCREENSHOTS` names a folder for pictures."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import BrowserContext, Page, Response, expect

from oidc_middleware import Issuer

from .browsing import log_in
from conformance.logins import Fleet, fleet
from conformance.service import listen
from conformance.stranger import AUDIENCE

SIZES = {"desk": (1280, 800), "phone": (390, 844)}
OURS = re.compile(r"default-src 'none'; style-src 'sha256-[^']+'; base-uri 'none'; .*frame-ancestors 'none'")

See = Callable[[Page, Response | None, str, int, str], None]


@pytest.fixture
def see(tmp_path: Path) -> See:
    """Return a function that checks a page and takes pictures: page, its response, name, status, heading."""
    folder = Path(os.environ.get("SCREENSHOTS", tmp_path))
    folder.mkdir(parents=True, exist_ok=True)

    def look(page: Page, response: Response | None, name: str, status: int, heading: str) -> None:
        assert response is not None
        assert response.status == status
        assert OURS.fullmatch(response.headers["content-security-policy"])
        assert response.headers["cache-control"] == "no-store"
        expect(page.get_by_role("heading", level=1)).to_have_text(heading)
        for size, (width, height) in SIZES.items():
            page.set_viewport_size({"width": width, "height": height})
            for scheme in ("light", "dark"):
                page.emulate_media(color_scheme=scheme)
                page.screenshot(path=folder / f"{name}-{size}-{scheme}.png")
            # Nothing is cut off, and nothing has to be pushed aside to be read.
            assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
            for target in page.locator("a, button").all():
                box = target.bounding_box()
                assert box is not None
                assert box["height"] >= 40  # a thumb finds it
                assert box["x"] >= 0
                assert box["x"] + box["width"] <= width

    return look


@pytest.fixture
def page(context: BrowserContext) -> Iterator[Page]:
    """Return a page whose console stays empty: a policy of ours that forbids what is on the page would say so there."""
    page = context.new_page()
    said: list[str] = []
    page.on("console", lambda message: said.append(message.text))
    yield page
    assert [text for text in said if "Content Security Policy" in text] == []


def send_form(page: Page, url: str) -> Response:
    """Send a form from the page that is open."""
    with page.expect_navigation() as navigated:
        page.evaluate(
            """(url) => {
                const form = document.createElement('form');
                form.method = 'POST';
                form.action = url;
                document.body.append(form);
                form.submit();
            }""",
            url,
        )
    assert navigated.value is not None
    return navigated.value


def follow_link(page: Page, url: str) -> Response:
    """Follow a link to `url` on the page that is open, whoever's page it is."""
    with page.expect_navigation(url=url) as navigated:
        page.evaluate("(url) => { location.href = url; }", url)
    assert navigated.value is not None
    return navigated.value


def test_choice_of_issuers(node_installed: None, patient_tiers: None, page: Page, see: See) -> None:
    """Two of three are of one host, and can be told apart."""
    names = ["https://login.example.com", "https://id.example.org/realms/staff", "https://id.example.org/realms/guests"]
    issuers = [Issuer(issuer=name, audience=AUDIENCE, client_id="app", client_secret="s") for name in names]
    without: dict[str, Any] = dict.fromkeys(("issuer", "audience", "client_id", "client_secret"))
    with fleet(size=1, issuers=issuers, **without) as app:
        see(page, page.goto(f"{app.base}/orders"), "choice", 200, "Sign in")
        labels = page.get_by_role("link").all_inner_texts()
        assert len(set(labels)) == len(names)
        targets = [link.get_attribute("href") or "" for link in page.get_by_role("link").all()]
        assert all("rd=%2Forders" in target for target in targets)


def test_login_that_nobody_began(app: Fleet, page: Page, see: See) -> None:
    """Try again begins a login."""
    answer = page.goto(f"{app.base}/oauth2/callback?code=c&state=s")
    see(page, answer, "login-error", 400, "You are not signed in")
    page.get_by_role("link", name="Try again").click()
    expect(page.locator("[name=login]")).to_be_visible()


def test_login_that_the_provider_refuses(app: Fleet, page: Page, see: See) -> None:
    """Cancelled at the provider: the page tells in its words why, and a second try comes back to the same page."""
    page.goto(f"{app.base}/orders")
    with page.expect_navigation(url=f"{app.base}/**") as navigated:
        page.get_by_text("Cancel").click()
    see(page, navigated.value, "login-refused", 400, "You are not signed in")
    assert "alert" not in page.locator(".said").inner_html()
    page.get_by_role("link", name="Try again").click()
    page.locator("[name=login]").fill("alice")
    page.locator("[name=password]").fill("any")
    page.locator("[type=submit]").click()
    page.get_by_role("button", name="Continue").click()
    page.wait_for_url(f"{app.base}/orders")


@pytest.mark.parametrize(
    ("path", "heading"),
    [("/oauth2/start", "Signing in is not possible right now"), ("/orders", "503 Service Unavailable")],
)
@pytest.mark.usefixtures("node_installed", "patient_tiers")
def test_login_without_the_provider(page: Page, see: See, path: str, heading: str) -> None:
    """It could not be reached since the start."""
    with listen() as nobody, fleet(size=1, issuer=f"http://127.0.0.1:{nobody.getsockname()[1]}") as app:
        nobody.close()
        see(page, page.goto(app.base + path), f"503-at-{path.rpartition('/')[2]}", 503, heading)


def test_signed_out(app: Fleet, page: Page, see: See) -> None:
    """By a link of one's own; the page offers to sign in again."""
    log_in(page, f"{app.base}/orders")
    page.locator("#out").click()
    with page.expect_navigation(url=f"{app.base}/**") as navigated:
        page.get_by_role("button", name="Yes, sign me out").click()
    see(page, navigated.value, "signed-out", 200, page.get_by_role("heading").inner_text())
    page.get_by_role("link").first.click()
    expect(page.locator("[name=login]")).to_be_visible()


def test_sign_out_that_somebody_else_wants(app: Fleet, page: Page, see: See) -> None:
    """A link on another site asks first. The button signs out, here and on the way to the provider."""
    log_in(page, f"{app.base}/orders")
    page.goto(f"{app.provider.issuer}/session/end")
    answer = follow_link(page, f"{app.base}/oauth2/sign_out")
    see(page, answer, "sign-out", 200, page.get_by_role("heading").inner_text())
    assert page.request.get(f"{app.base}/me").status == 200
    page.get_by_role("button").click()
    page.get_by_role("button", name="Yes, sign me out").click()
    page.wait_for_url(f"{app.base}/oauth2/signed_out*")
    assert page.request.get(f"{app.base}/me").status == 401


def test_form_without_a_session(app: Fleet, page: Page, see: See) -> None:
    """A form is no page to come back to: 401, and no login."""
    page.goto(f"{app.base}/health")
    see(page, send_form(page, f"{app.base}/me"), "401", 401, "401 Unauthorized")


def test_page_that_needs_more(app: Fleet, page: Page, see: See) -> None:
    """A rule that this person does not meet."""
    log_in(page, f"{app.base}/orders")
    see(page, page.goto(f"{app.base}/admin"), "403", 403, "403 Forbidden")


def test_form_of_another_site(app: Fleet, page: Page, see: See) -> None:
    """The cookie comes with it, as both are of one host; the origin gives it away."""
    log_in(page, f"{app.base}/orders")
    page.goto(f"{app.provider.issuer}/session/end")
    see(page, send_form(page, f"{app.base}/me"), "403-form", 403, "403 Forbidden")


def test_ambiguous_path(app: Fleet, page: Page, see: See) -> None:
    """A path that two read in two ways."""
    see(page, page.goto(f"{app.base}//orders"), "400", 400, "400 Bad Request")


def test_session_without_the_store(app: Fleet, page: Page, see: See) -> None:
    """A node that has not seen the session cannot say whose it is: 503, and no way to the login."""
    log_in(page, f"{app.base}/orders")
    before = app.provider.requests()["/auth"]
    app.redis.kill()
    see(page, page.goto(f"{app.urls[1]}/orders"), "503", 503, "503 Service Unavailable")
    assert app.provider.requests()["/auth"] == before

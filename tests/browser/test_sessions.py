"""Somebody logs in to an app in a real browser, uses it in several tabs, and comes back when the session is over."""

from __future__ import annotations

from playwright.sync_api import BrowserContext, expect

from oidc_middleware.testing import ManualClock

from .browsing import ask, at_the_provider, identify, log_in
from conformance.logins import Fleet, fleet

IDLE = 60
LOGGED_IN = "200 application/json"
LOGGED_OUT = "401 application/json"


def test_log_in_and_use_the_app(app: Fleet, context: BrowserContext) -> None:
    """Back at the page that was asked for. A script is answered, and no script can read what the session is."""
    page = context.new_page()
    log_in(page, f"{app.base}/orders/7?part=a%20b")
    assert ask(page) == LOGGED_IN
    assert page.evaluate("document.cookie") == ""
    cookies = [cookie for cookie in context.cookies(app.base) if cookie["name"].startswith("oidc_session")]
    assert [(cookie["name"], cookie["httpOnly"], cookie["sameSite"], cookie["path"]) for cookie in cookies] == [
        ("oidc_session", True, "Lax", "/")
    ]


def test_a_page_that_is_not_logged_in(app: Fleet, context: BrowserContext) -> None:
    """An image, a script and a frame of the app are refused, and none of them begins a login."""
    page = context.new_page()
    page.goto(f"{app.base}/health")
    before = app.provider.requests()["/auth"]
    statuses = page.evaluate("""async () => {
        const load = (name) => new Promise((done) => {
            const element = document.createElement(name);
            element.onload = element.onerror = () => done();
            element.src = '/' + name;
            document.body.append(element);
        });
        await Promise.all(['img', 'script', 'iframe'].map(load));
        return (await fetch('/me')).status;
    }""")
    assert statuses == 401
    assert app.provider.requests()["/auth"] == before


def test_five_tabs_at_once(app: Fleet, context: BrowserContext) -> None:
    """Five logins are under way in one browser, and end in another order than they began, each at its own page."""
    tabs = {number: context.new_page() for number in range(1, 6)}
    for number, tab in tabs.items():
        tab.goto(f"{app.base}/tab/{number}")
        assert at_the_provider(app, tab)
    for number in (3, 1, 5, 2, 4):
        identify(tabs[number])
        tabs[number].wait_for_url(f"{app.base}/tab/{number}")
        expect(tabs[number].locator("#who")).to_have_text("alice")
    assert [ask(tab) for tab in tabs.values()] == [LOGGED_IN] * 5
    assert [cookie["name"] for cookie in context.cookies(app.base) if "flow" in cookie["name"]] == []


def test_the_session_ends_in_an_open_page(node_installed: None, patient_tiers: None, context: BrowserContext) -> None:
    """A script gets 401, and whoever goes to another page comes to it by way of the provider, which knows them."""
    clock = ManualClock()
    with fleet(size=1, clock=clock, session_idle=IDLE) as app:
        page = context.new_page()
        log_in(page, f"{app.base}/first")
        assert ask(page) == LOGGED_IN
        clock.advance(IDLE + 1)
        assert ask(page) == LOGGED_OUT
        expect(page.locator("#who")).to_have_text("alice")
        logins = app.provider.requests()["/auth"]
        page.goto(f"{app.base}/second")
        page.wait_for_url(f"{app.base}/second")
        expect(page.locator("#who")).to_have_text("alice")
        assert app.provider.requests()["/auth"] > logins
        assert ask(page) == LOGGED_IN


def test_the_provider_is_another_site(node_installed: None, patient_tiers: None, context: BrowserContext) -> None:
    """As it mostly is: the way there and back crosses sites. Its form comes without the cookie, its link with it."""
    with fleet(size=1, host="localhost") as app:
        page = context.new_page()
        log_in(page, f"{app.base}/orders/7")
        assert ask(page) == LOGGED_IN
        page.goto(f"{app.provider.issuer}/session/end")
        with page.expect_navigation(url=f"{app.base}/linked"):
            page.evaluate("(url) => { location.href = url; }", f"{app.base}/linked")
        expect(page.locator("#who")).to_have_text("alice")

        page.goto(f"{app.provider.issuer}/session/end")
        with page.expect_navigation() as navigated:
            page.evaluate(
                """(url) => {
                    const form = document.body.appendChild(document.createElement('form'));
                    form.method = 'POST';
                    form.action = url;
                    form.submit();
                }""",
                f"{app.base}/me",
            )
        assert navigated.value.status == 401

        page.goto(f"{app.base}/orders/8")
        page.locator("#out").click()
        page.get_by_role("button", name="Yes, sign me out").click()
        page.wait_for_url(f"{app.base}/oauth2/signed_out*")
        assert page.request.get(f"{app.base}/me").status == 401
        page.goto(f"{app.base}/orders/9")
        expect(page.locator("[name=login]")).to_be_visible()

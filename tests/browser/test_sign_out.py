"""Somebody signs out in a real browser, here or at the provider, with pages of the app open."""

from __future__ import annotations

from playwright.sync_api import BrowserContext, expect

from .browsing import ask, at_the_provider, log_in, sign_out_at_the_provider
from conformance.logins import Fleet

LOGGED_IN = "200 application/json"
LOGGED_OUT = "401 application/json"


def test_back_button_after_a_sign_out(app: Fleet, context: BrowserContext) -> None:
    """G-after: neither the cache nor the page that the browser had put aside shows what was there."""
    page, other = context.new_page(), context.new_page()
    log_in(page, f"{app.base}/secret")
    page.goto(f"{app.base}/second")
    log_in_again = page.locator("[name=login]")
    other.goto(f"{app.base}/third")
    other.locator("#out").click()
    other.get_by_role("button", name="Yes, sign me out").click()
    other.wait_for_url(f"{app.base}/oauth2/signed_out*")
    page.go_back()
    expect(log_in_again).to_be_visible()
    assert at_the_provider(app, page)
    other.go_back()
    expect(other.locator("#who")).to_have_count(0)
    assert "alice" not in other.content()


def test_logout_at_the_provider_ends_it_on_another_node(app: Fleet, context: BrowserContext) -> None:
    """Back-channel: the event stream and the WebSocket of an open page end, and its scripts get 401."""
    elsewhere = app.urls[1]
    page, other = context.new_page(), context.new_page()
    log_in(page, f"{app.base}/first")
    page.goto(f"{elsewhere}/second")
    expect(page.locator("#who")).to_have_text("alice")
    page.locator("#listen").click()
    expect(page.locator("#events")).to_have_text("open")
    page.locator("#talk").click()
    expect(page.locator("#talk-said")).to_have_text("hello alice")

    sign_out_at_the_provider(app, other)

    expect(page.locator("#events")).to_have_text("ended")
    expect(page.locator("#talk-said")).to_contain_text("closed")
    assert ask(page) == LOGGED_OUT
    page.reload()
    expect(page.locator("[name=login]")).to_be_visible()
    assert at_the_provider(app, page)


def test_sign_out_ends_streams_here(app: Fleet, context: BrowserContext) -> None:
    """Signing out in one tab ends the event stream and the WebSocket of another."""
    page, other = context.new_page(), context.new_page()
    log_in(page, f"{app.base}/first")
    page.locator("#listen").click()
    expect(page.locator("#events")).to_have_text("open")
    page.locator("#talk").click()
    expect(page.locator("#talk-said")).to_have_text("hello alice")
    other.goto(f"{app.base}/second")
    other.locator("#out").click()
    expect(page.locator("#events")).to_have_text("ended")
    expect(page.locator("#talk-said")).to_contain_text("closed")
    assert ask(page) == LOGGED_OUT


def test_another_person_in_the_same_browser(app: Fleet, context: BrowserContext) -> None:
    """Who logs in after somebody signed out sees nothing of them."""
    page = context.new_page()
    log_in(page, f"{app.base}/first", "alice")
    page.locator("#out").click()
    page.get_by_role("button", name="Yes, sign me out").click()
    page.wait_for_url(f"{app.base}/oauth2/signed_out*")
    log_in(page, f"{app.base}/first", "bob")
    assert page.evaluate("fetch('/me').then((answer) => answer.json())")["subject"] == "bob"

"""Somebody opens the documentation of an API, logs in there, and tries it."""

from __future__ import annotations

import json
from urllib.parse import urlsplit

from playwright.sync_api import Page

from conformance.service import Served
from conformance.stranger import Stranger


def authorize(page: Page, subject: str, *scopes: str) -> None:
    """Press Authorize, choose scopes, and log in at the provider: what a person does, click by click."""
    page.locator(".btn.authorize").click()
    dialog = page.locator(".dialog-ux .modal-ux")
    flow = dialog.locator(".auth-container", has_text="OAuth2, authorizationCode")
    assert "with PKCE" in flow.inner_text()
    for scope in scopes:
        flow.locator(f"label[for^='{scope}-']").click()
    with page.expect_popup() as opened:
        flow.get_by_role("button", name="Apply given OAuth2 credentials").click()
    login = opened.value
    login.locator("[name=login]").fill(subject)
    login.locator("[name=password]").fill("any")
    login.locator("[type=submit]").click()
    with login.expect_event("close"):
        login.get_by_role("button", name="Continue").click()
    flow.get_by_text("Authorized").wait_for()
    flow.get_by_role("button", name="Close").click()


def call(page: Page, path: str) -> tuple[int, str, dict[str, str]]:
    """Try an operation, and return status, body and headers of what Swagger UI shows."""
    operation = page.locator(".opblock", has_text=path)
    operation.locator(".opblock-summary-control").click()
    operation.get_by_role("button", name="Try it out").click()
    with page.expect_response(f"**{path}") as answered:
        operation.get_by_role("button", name="Execute").click()
    shown = operation.locator(".live-responses-table .response")
    shown.wait_for()
    status = int(shown.locator(".response-col_status").inner_text().split()[0])
    assert answered.value.status == status
    return status, answered.value.text(), answered.value.headers


def test_log_in_and_call(page: Page, service: Served, provider: Stranger) -> None:
    """Authorize with PKCE; 200 where the scope was granted, 403 with a challenge where it was not."""
    asked: set[str | None] = set()
    page.on("request", lambda request: asked.add(urlsplit(request.url).hostname))
    page.goto("/docs")
    assert call(page, "/orders")[0] == 401
    page.goto("/docs?logged=in")  # its address remembers which operations are open

    authorize(page, "alice", "read")

    status, body, _ = call(page, "/orders")
    assert (status, json.loads(body)) == (200, "orders of alice")
    status, body, headers = call(page, "/users")
    assert (status, json.loads(body)["error"]) == (403, "insufficient_scope")
    assert headers["www-authenticate"].endswith('scope="admin"')
    assert provider.requests()["/token"] > 0
    assert asked == {"127.0.0.1"}

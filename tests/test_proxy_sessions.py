"""Browsers in front of the proxy: they log in here, and the app learns who they are and sees nothing of the session."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from oidc_middleware import OIDCMiddleware
from oidc_middleware.proxy import ReverseProxy
from oidc_middleware.testing import FakeIssuer

from abuse.hostile_op import CLIENT, SECRET
from login_kit import BASE, CALLBACK, Browser, service
from proxy_kit import App, behind

pytestmark = pytest.mark.anyio


@asynccontextmanager
async def logged_in(app: App, **settings: object) -> AsyncIterator[Browser]:
    """Put the proxy before the app, and log a browser in."""
    issuer = FakeIssuer("https://issuer.example", algorithms=("ES256",), audience="api")
    issuer.client(CLIENT, secret=SECRET, redirect_uris=[CALLBACK])
    issuer.users["alice"] = {"email": "alice@example.com", "email_verified": True}
    proxy = ReverseProxy(app.url)
    async with service(issuer.url, transport=issuer.transport(), **settings) as made:
        made.app = OIDCMiddleware(proxy, oidc=made.oidc)
        async with made.browser() as browser:
            back = await browser.log_in("/orders?id=1")
            assert (back.status_code, back.headers["location"]) in {
                (status, f"{base}/orders?id=1") for status in (302, 303) for base in (BASE, "")
            }
            yield browser
    await proxy.aclose()


async def test_the_app_learns_who_it_is_and_nothing_of_the_session() -> None:
    async with behind() as app, logged_in(app) as browser:
        browser.client.cookies.set("theirs", "1")
        assert (await browser.get("/orders?id=1")).text == "ok"
        request = app.last
        assert request.start == b"GET /orders?id=1 HTTP/1.1"
        assert (request.one("x-forwarded-user"), request.one("x-auth-request-user")) == ("alice", "alice")
        assert request.one("x-forwarded-host") == "app.example"
        assert (request.one("x-forwarded-proto"), request.one("x-forwarded-port")) == ("https", "443")
        assert browser.session is not None
        assert request.all("cookie") == ["theirs=1"]
        assert browser.session not in str(request.headers)
        assert request.all("x-forwarded-access-token") == []


async def test_the_app_gets_the_access_token_by_a_setting() -> None:
    async with behind() as app, logged_in(app, pass_access_token=True) as browser:
        await browser.get("/orders")
        assert len(app.last.one("x-forwarded-access-token")) > 20
        assert app.last.one("x-forwarded-access-token") == app.last.one("x-auth-request-access-token")


async def test_who_is_not_logged_in_never_reaches_the_app() -> None:
    """Pages lead to the login, everything else is 401, and what another site's page sends is 403."""
    async with behind() as app, logged_in(app) as browser:
        crossing = {"sec-fetch-site": "cross-site", "sec-fetch-mode": "no-cors", "sec-fetch-dest": "empty"}
        assert (await browser.client.post("/orders", headers=crossing)).status_code == 403
        browser.client.cookies.clear()
        assert (await browser.get("/orders")).status_code == 302
        fetched = {"sec-fetch-mode": "cors", "sec-fetch-dest": "empty", "accept": "*/*"}
        assert (await browser.get("/orders", headers=fetched)).status_code == 401
        assert app.requests == []


async def test_who_signs_out_is_out() -> None:
    async with behind() as app, logged_in(app) as browser:
        same = {"sec-fetch-site": "same-origin"}
        assert (await browser.get("/orders")).status_code == 200
        session = browser.session
        answer = await browser.client.post("/oauth2/sign_out", headers=same)
        assert answer.status_code in {302, 303}
        assert session is not None
        browser.client.cookies.set("__Host-oidc_session", session)
        assert (await browser.get("/orders")).status_code == 302
        assert len(app.requests) == 1

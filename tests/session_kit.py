"""A browser before the door of an app with sessions: it keeps cookies, follows a login to the issuer and comes back."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlsplit

from httpx2 import AsyncClient
from issuer_login_kit import Page

from oidc_middleware import OIDC
from oidc_middleware.testing import FakeIssuer

from abuse.door import Answer, Door, Headers

BASE = "https://app.example"
NAME = "__Host-oidc_session"
NAVIGATION: Headers = [(b"sec-fetch-mode", b"navigate"), (b"sec-fetch-dest", b"document"), (b"accept", b"text/html")]
FETCH: Headers = [(b"sec-fetch-mode", b"cors"), (b"sec-fetch-dest", b"empty"), (b"accept", b"*/*")]
LOGIN: dict[str, Any] = {
    "login": True,
    "client_id": "web",
    "client_secret": "s3cret",
    "base_url": BASE,
    "scope": "openid orders:read",
}


def know_the_app(issuer: FakeIssuer, base: str = BASE, **client: Any) -> None:
    """Register the app at an issuer."""
    issuer.client("web", secret="s3cret", redirect_uris=[f"{base}/oauth2/callback"], **client)


def door_of(issuer: FakeIssuer, **settings: Any) -> Door:
    """Return the door of an app where users of this issuer log in."""
    know_the_app(issuer)
    return Door.of(issuer, **(LOGIN | settings))


def service_of(issuer: FakeIssuer, **settings: Any) -> OIDC:
    """Return a service that goes by the machine's clock, with a ledger and a store of its own or shared."""
    know_the_app(issuer)
    given = {"issuer": issuer.url, "audience": issuer.audience, "secret": "s" * 32, "journal": None} | LOGIN
    return OIDC(transport=issuer.transport(), **(given | settings))


async def at_issuer(issuer: FakeIssuer, url: str, subject: str) -> str:
    """Log in at the issuer, and return where it sends the browser."""
    async with AsyncClient(transport=issuer.transport()) as client:
        page = Page((await client.get(url)).raise_for_status().text)
        answer = await client.post(page.action, data={**page.hidden, "username": subject, "decision": "allow"})
    return str(answer.headers["location"])


class Browser:
    """Keeps the cookies that a door sets, and sends them with every request."""

    def __init__(self, door: Door, issuer: FakeIssuer) -> None:
        self.door = door
        self.issuer = issuer
        self.jar: dict[str, str] = {}
        self.set_cookies: list[str] = []
        """What the last answer set, as it came."""

    @property
    def cookie(self) -> str:
        """The value of the session's cookie."""
        return self.jar[NAME]

    async def ask(self, path: str = "/orders", *, headers: Headers | None = None, **more: Any) -> Answer:
        answer = await self.door.ask(path, headers=[*(headers or ()), *self._sent()], **more)
        self._keep(answer)
        return answer

    async def handshake(self, path: str = "/orders", *, headers: Headers | None = None, **more: Any) -> Answer:
        return await self.door.handshake(path, headers=[*(headers or ()), *self._sent()], **more)

    async def log_in(self, path: str = "/orders", subject: str = "alice") -> Answer:
        """Go to a page, through the login, and return the answer of the callback."""
        begun = await self.ask(path, headers=NAVIGATION)
        assert begun.status == 302, begun
        back = urlsplit(await at_issuer(self.issuer, begun.headers["location"], subject))
        return await self.ask(back.path, query=back.query.encode(), headers=NAVIGATION)

    def _sent(self) -> Headers:
        if not self.jar:
            return []
        return [(b"cookie", "; ".join(f"{name}={value}" for name, value in self.jar.items()).encode())]

    def _keep(self, answer: Answer) -> None:
        starts = [message for message in answer.messages if message["type"].endswith("response.start")]
        self.set_cookies = [
            value.decode() for start in starts for name, value in start["headers"] if name.lower() == b"set-cookie"
        ]
        for cookie in self.set_cookies:
            name, _, value = cookie.partition(";")[0].partition("=")
            if "Max-Age=0" in cookie:
                self.jar.pop(name, None)
            else:
                self.jar[name] = value


async def browser_of(door: Door, issuer: FakeIssuer, subject: str = "alice") -> Browser:
    """Return a browser in which somebody has logged in."""
    browser = Browser(door, issuer)
    answer = await browser.log_in(subject=subject)
    assert answer.status == 302, answer
    assert NAME in browser.jar
    return browser

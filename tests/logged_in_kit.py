"""Browsers that log in at a fake issuer and use an app behind the door, over the door's own ASGI."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Self
from urllib.parse import parse_qsl, urlsplit

import httpx2
from issuer_login_kit import Page
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from oidc_middleware import OIDC, OIDCMiddleware
from oidc_middleware.testing import FakeIssuer

BASE = "https://app.example"
NAVIGATION = {
    "accept": "text/html,application/xhtml+xml,*/*;q=0.8",
    "sec-fetch-mode": "navigate",
    "sec-fetch-dest": "document",
    "sec-fetch-site": "none",
}
SETTINGS: dict[str, Any] = {
    "client_id": "web",
    "client_secret": "s3cret",
    "login": True,
    "base_url": BASE,
    "post_logout_redirect_uri": f"{BASE}/oauth2/signed_out",
}


def service(issuer: FakeIssuer, **settings: Any) -> OIDC:
    """Return a service where browsers log in at `issuer`, which knows its client from now on."""
    issuer.client(
        "web",
        secret="s3cret",
        redirect_uris=[f"{BASE}/oauth2/callback"],
        post_logout_redirect_uris=[f"{BASE}/oauth2/signed_out"],
    )
    given = SETTINGS | {"issuer": issuer.url, "audience": issuer.audience} | settings
    if "transport" not in given:
        given["transport"] = issuer.transport()
    return OIDC(**given)


async def _who(request: Request) -> Response:
    return JSONResponse({"sub": request.user.subject})


def app_of(oidc: OIDC) -> OIDCMiddleware:
    """Return an app behind the door that answers every path with the user's subject."""
    return OIDCMiddleware(Starlette(routes=[Route("/{path:path}", _who, methods=["GET", "POST"])]), oidc=oidc)


class Browser(httpx2.AsyncClient):
    """One browser. `node` is the app that it reaches: another one of a fleet has the same address."""

    def __init__(self, issuer: FakeIssuer, node: OIDC, *others: FakeIssuer, app: Any = None) -> None:
        self.node = node
        self._apps: dict[int, Any] = {} if app is None else {id(node): app}
        self._issuer = issuer.transport(*others)
        super().__init__(transport=httpx2.MockTransport(self._reach), base_url=BASE)
        self.issuer = issuer

    async def _reach(self, request: httpx2.Request) -> httpx2.Response:
        if request.url.host != urlsplit(BASE).hostname:
            return await self._issuer.handle_async_request(request)
        app = self._apps.setdefault(id(self.node), app_of(self.node))
        return await httpx2.ASGITransport(app).handle_async_request(request)

    async def __aenter__(self) -> Self:
        await super().__aenter__()
        return self

    async def go(self, url: str, **headers: str) -> httpx2.Response:
        """Go to a page as by the address bar; redirects are left to the caller."""
        sent = NAVIGATION | {name.replace("_", "-"): value for name, value in headers.items()}
        return await self.get(url, headers=sent)

    async def begin(self, path: str = "/orders", username: str = "alice") -> str:
        """Begin a login and say yes at the issuer; return the address that the browser is sent back to."""
        there = await self.go(path)
        assert there.status_code == 302, there.text
        form = Page((await self.go(there.headers["location"])).text)
        back = await self.post(form.action, data={**form.hidden, "username": username, "decision": "allow"})
        return str(back.headers["location"])

    async def sign_in(self, path: str = "/orders", username: str = "alice") -> httpx2.Response:
        """Log in, and return the answer that brings the session."""
        answer = await self.go(await self.begin(path, username))
        assert answer.status_code == 302, answer.text
        return answer

    async def status(self, path: str = "/orders") -> int:
        """Return how a script is answered that fetches something."""
        headers = {"sec-fetch-mode": "cors", "sec-fetch-dest": "empty", "sec-fetch-site": "same-origin"}
        return (await self.get(path, headers=headers)).status_code

    @property
    def session_cookie(self) -> str:
        """The value of the cookie of the session."""
        return self.cookies["__Host-oidc_session"]


def query_of(answer: httpx2.Response) -> dict[str, str]:
    """Return the query of where an answer redirects to."""
    return dict(parse_qsl(urlsplit(answer.headers["location"]).query))


OpenBrowser = Callable[..., Browser]

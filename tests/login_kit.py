"""A browser that logs in, and the service where it does so."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Self
from urllib.parse import parse_qsl, urlsplit

import httpx2
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from oidc_middleware import OIDC, OIDCMiddleware
from oidc_middleware.core.grant import Login
from oidc_middleware.session.known import KnownSession
from oidc_middleware.session.sessions import NewSession, Sessions

from redis_kit import PATIENCE

BASE = "https://app.example"
CALLBACK = f"{BASE}/oauth2/callback"
HTML = {"accept": "text/html,application/xhtml+xml,*/*;q=0.8"}
NAVIGATION = {**HTML, "sec-fetch-mode": "navigate", "sec-fetch-dest": "document", "sec-fetch-site": "none"}


class Recorder:
    """Notes what logins end in, beside the sessions that they get; with `fails` they get none."""

    def __init__(self, sessions: Sessions) -> None:
        self.logins: list[Login] = []
        self.replaced: list[KnownSession | None] = []
        self.fails: Exception | None = None
        self._create = sessions.create
        sessions.create = self.create  # type: ignore[method-assign]

    async def create(self, login: Login, *, replaces: KnownSession | None = None, user_agent: str = "") -> NewSession:
        if self.fails is not None:
            raise self.fails
        self.logins.append(login)
        self.replaced.append(replaces)
        return await self._create(login, replaces=replaces, user_agent=user_agent)


@dataclass
class Service:
    """An app behind the middleware, and what its logins ended in."""

    oidc: OIDC
    app: Any
    sessions: Recorder
    transport: Any

    def browser(self, base: str = BASE) -> Browser:
        return Browser(self, base)


class Browser:
    """A browser: it keeps cookies, and follows nothing by itself."""

    def __init__(self, service: Service, base: str = BASE) -> None:
        self.client = httpx2.AsyncClient(
            transport=httpx2.ASGITransport(service.app), base_url=base, headers=NAVIGATION, follow_redirects=False
        )
        self.wire = httpx2.AsyncClient(transport=service.transport, follow_redirects=False, timeout=60)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.client.aclose()
        await self.wire.aclose()

    async def get(self, url: str, **options: Any) -> httpx2.Response:
        return await self.client.get(url, **options)

    async def start(self, path: str = "/orders?id=1", **query: str) -> httpx2.Response:
        """Begin a login; the answer sends the browser to the issuer."""
        return await self.client.get("/oauth2/start", params={"rd": path, **query})

    async def sign_in(self, url: str, username: str = "alice", decision: str = "allow") -> str:
        """Fill in the issuer's form, and return where it sends the browser."""
        parts = urlsplit(url)
        form = {**dict(parse_qsl(parts.query)), "username": username, "decision": decision}
        answer = await self.wire.post(url.partition("?")[0], data=form)
        assert answer.status_code == 303, answer.text
        return str(answer.headers["location"])

    async def log_in(self, path: str = "/orders?id=1", **query: str) -> httpx2.Response:
        """Log in, and return what the callback answered."""
        begun = await self.start(path, **query)
        assert begun.status_code == 302, begun.text
        return await self.get(await self.sign_in(begun.headers["location"]))

    @property
    def flows(self) -> list[str]:
        """The names of the cookies of logins under way."""
        return [name for name in self.client.cookies if "_flow_" in name]

    @property
    def session(self) -> str | None:
        return self.client.cookies.get("__Host-oidc_session")


async def _front(request: Request) -> Response:
    return JSONResponse({"path": request.url.path})


@asynccontextmanager
async def service(issuer: str, **settings: Any) -> AsyncIterator[Service]:
    """Run a service whose browsers log in at `issuer`, which has time to spare: `patience` seconds for each answer."""
    patience = settings.pop("patience", PATIENCE)
    transport = settings.pop("transport", None)
    clock = settings.pop("clock", None)
    usual: dict[str, Any] = {
        "issuer": issuer, "audience": "api", "client_id": "web", "client_secret": "a client secret of thirty-two bytes",
        "login": True, "base_url": BASE, "journal": None, "public": ["/open"],
    }  # fmt: skip
    if "issuers" in settings:
        usual = {name: usual[name] for name in ("login", "base_url", "journal", "public")}
    oidc = OIDC(transport=transport, clock=clock, **{**usual, **settings})
    oidc._issuers._door._deadline = patience
    assert oidc.sessions is not None
    sessions = Recorder(oidc.sessions)
    app = OIDCMiddleware(Starlette(routes=[Route("/{path:path}", _front)]), oidc=oidc)
    async with oidc:
        yield Service(oidc, app, sessions, transport)

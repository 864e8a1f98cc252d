"""An app that lets anybody in and says at its endpoints who has to log in: the way to the login is the same."""

from __future__ import annotations

from typing import Annotated

import pytest
from fastapi import Depends, FastAPI
from logged_in_kit import Browser, query_of, service
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Mount, Route
from starlette.types import ASGIApp

from oidc_middleware import OIDC, OIDCMiddleware, Principal, requires
from oidc_middleware.fastapi import current_user
from oidc_middleware.testing import FakeIssuer, ManualClock

OPTIONAL = ["/account", "/users", "/sub/*"]


@requires()
async def account(request: Request) -> Response:
    return JSONResponse({"sub": request.user.subject})


@requires("admin")
async def users(request: Request) -> Response:
    return JSONResponse({"sub": request.user.subject})


def starlette_app(oidc: OIDC) -> ASGIApp:
    routes = [Route("/account", account, methods=["GET", "POST"]), Route("/users", users)]
    return OIDCMiddleware(Starlette(routes=[*routes, Mount("/sub", routes=routes)]), oidc=oidc)


def fastapi_app(oidc: OIDC) -> ASGIApp:
    app = FastAPI()

    @app.api_route("/account", methods=["GET", "POST"])
    @app.get("/sub/account")
    async def account(user: Annotated[Principal, Depends(current_user)]) -> dict[str, str | None]:
        return {"sub": user.subject}

    return OIDCMiddleware(app, oidc=oidc)


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def issuer(clock: ManualClock) -> FakeIssuer:
    return FakeIssuer(clock=clock)


@pytest.mark.anyio
@pytest.mark.parametrize("app", [starlette_app, fastapi_app])
@pytest.mark.parametrize("path", ["/account", "/sub/account"])
async def test_a_page_that_needs_somebody_leads_to_the_login(
    app: object, path: str, issuer: FakeIssuer, clock: ManualClock
) -> None:
    oidc = service(issuer, optional=OPTIONAL, session_idle=60, clock=clock)
    async with Browser(issuer, oidc, app=app(oidc)) as browser:  # type: ignore[operator]
        there = await browser.go(f"{path}?a=1")
        assert (there.status_code, there.headers["cache-control"]) == (302, "no-store")
        assert there.headers["location"].startswith("https://app.example/oauth2/start?rd=")
        assert query_of(there) == {"rd": f"{path}?a=1"}
        assert await browser.status(path) == 401

        await browser.sign_in()
        assert (await browser.go(path)).json() == {"sub": "alice"}

        clock.advance(61)
        over = await browser.go(path)
        assert (over.status_code, query_of(over)) == (302, {"rd": path})
        assert over.headers["set-cookie"].startswith("__Host-oidc_session=; Max-Age=0")


@pytest.mark.anyio
async def test_who_is_logged_in_is_not_sent_there_again(issuer: FakeIssuer, clock: ManualClock) -> None:
    oidc = service(issuer, optional=OPTIONAL, clock=clock)
    async with Browser(issuer, oidc, app=starlette_app(oidc)) as browser:
        await browser.sign_in()
        assert (await browser.go("/users")).status_code == 403


@pytest.mark.anyio
async def test_a_public_path_leads_nowhere(issuer: FakeIssuer, clock: ManualClock) -> None:
    """Sessions are not read there, so a login would end where it began, for ever."""
    oidc = service(issuer, public=["/account"], optional=["/sub/*"], clock=clock)
    async with Browser(issuer, oidc, app=starlette_app(oidc)) as browser:
        assert (await browser.go("/account")).status_code == 401
        await browser.sign_in()
        assert (await browser.go("/account")).status_code == 401


@pytest.mark.anyio
async def test_without_logins_it_is_401(issuer: FakeIssuer) -> None:
    oidc = OIDC(issuer=issuer.url, audience=issuer.audience, optional=OPTIONAL, transport=issuer.transport())
    async with Browser(issuer, oidc, app=starlette_app(oidc)) as browser:
        assert (await browser.go("/account")).status_code == 401

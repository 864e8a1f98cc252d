"""What the dependencies for FastAPI cost a request whose token is known."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Any

from fastapi import Depends, FastAPI, Response
from peers import fastapi_jwks
from table import Goal, Row, Timing, at_most, interleaved, markdown
from traffic import AUDIENCE, asking, for_ever, issuer, signed

from oidc_middleware import OIDC, OIDCMiddleware
from oidc_middleware.fastapi import OIDCAuth, current_user

LIMIT = 3.0
"""µs, above FastAPI and a dependency that does nothing."""
ASKED = 512


async def nothing() -> None:
    """Do what the least of dependencies does."""


def rows(*, quick: bool = False) -> dict[str, list[Row]]:
    """Return the table of dependencies."""
    with asyncio.Runner() as runner:
        return {"FastAPI, a request whose token is known": dependencies(runner, rounds=31 if quick else 101)}


def dependencies(runner: asyncio.Runner, rounds: int) -> list[Row]:
    """Measure FastAPI alone, with a dependency that does nothing, and with ours."""
    provider = issuer()
    auth = OIDCAuth(oidc=OIDC(issuer=provider.url, audience=AUDIENCE, transport=provider.transport()))
    runner.run(auth.oidc.start())
    behind = app_with(current_user)
    behind.add_middleware(OIDCMiddleware, oidc=auth.oidc)
    apps = {
        "bare": app_with(),
        "nothing": app_with(nothing),
        "OIDCAuth, current_user": app_with(auth.current_user),
        "OIDCAuth, require with a scope": app_with(auth.require("orders")),
        "the middleware and current_user": behind,
    }
    with suppress(ImportError):  # it needs Python 3.12
        apps["peer: fastapi-jwks"] = app_with(fastapi_jwks(provider.url, {"keys": provider.keys.jwks()}))
    token = signed(provider, 1)
    timings = interleaved({name: asking(runner, app, for_ever(token)) for name, app in apps.items()}, ASKED, rounds)
    runner.run(auth.oidc.stop())
    floor = timings["nothing"]
    return [
        Row("bare FastAPI, a request with 12 headers", timings["bare"].median, least=timings["bare"].least),
        above("a dependency that does nothing", floor, timings["bare"]),
        *(
            above(name, timing, floor, at_most(timing.less(floor).median, LIMIT, "µs") if "OIDCAuth" in name else None)
            for name, timing in timings.items()
            if name not in ("bare", "nothing")
        ),
    ]


def above(name: str, timing: Timing, base: Timing, goal: Goal | None = None) -> Row:
    """Return the row of what something takes more than the least that could be there."""
    more = timing.less(base)
    return Row(f"{name}, added", more.median, least=timing.least - base.least, goal=goal)


def app_with(dependency: Any = None) -> FastAPI:
    """Return an app that answers at once, after a dependency if there is one."""
    app = FastAPI(openapi_url=None)
    answer = Response(b"hello", media_type="text/plain")

    @app.get("/orders", dependencies=[] if dependency is None else [Depends(dependency)])
    async def hello() -> Response:
        return answer

    return app


if __name__ == "__main__":
    for title, table in rows().items():
        print(markdown(title, table), end="\n\n")

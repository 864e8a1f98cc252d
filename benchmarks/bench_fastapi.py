"""What a known token costs a FastAPI app, and the official MCP SDK: our dependencies, and those of others."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import replace

from api_peers import ENTRA_CLAIMS, FASTAPI, LEFT_OUT, MCP, bare, bearer_auth, depending
from table import Row, Timing, added, at_most, interleaved, markdown
from traffic import AUDIENCE, CLAIMS, Application, asking, for_ever, issuer

from oidc_middleware import OIDC, OIDCMiddleware, requires
from oidc_middleware.fastapi import OIDCAuth, current_user
from oidc_middleware.mcp import OIDCTokenVerifier
from oidc_middleware.testing import FakeIssuer

LIMIT = 3.0
ASKED = 512
NOTHING = "a dependency that does nothing"
ALONE = "OIDCAuth, current_user"


async def nothing() -> None:
    """Do what the least of dependencies does."""


def rows(*, quick: bool = False) -> dict[str, list[Row]]:
    """Return the tables of dependencies and of MCP."""
    with asyncio.Runner() as runner:
        return measured(runner, rounds=7 if quick else 61)


def measured(runner: asyncio.Runner, rounds: int) -> dict[str, list[Row]]:
    """Measure FastAPI alone, with a dependency that does nothing, with ours and with theirs, and the same for MCP."""
    provider = issuer()
    oidc = OIDC(issuer=provider.url, audience=AUDIENCE, transport=provider.transport())
    runner.run(oidc.start())
    fastapi = ours(oidc) | built(FASTAPI, provider)
    mcp = {"mcp's BearerAuthBackend with our OIDCTokenVerifier": bearer_auth(OIDCTokenVerifier(oidc))}
    mcp |= built(MCP, provider)
    for name, reason in LEFT_OUT.items():
        print(f"{name}: left out, {reason}", end="\n\n")
    token = provider.token(claims=CLAIMS | ENTRA_CLAIMS)
    apps = {"bare": bare()} | fastapi | mcp
    timings = interleaved({name: asking(runner, app, for_ever([token])) for name, app in apps.items()}, ASKED, rounds)
    runner.run(oidc.stop())
    floor = timings["bare"]
    return {
        "FastAPI, a request whose token is known": [
            Row("bare FastAPI, a request with 12 headers", floor.median, least=floor.least),
            *(over_bare(name, timings[name], floor) for name in fastapi if not name.startswith("peer")),
            of_ours(timings[ALONE], timings[NOTHING]),
            *(over_bare(name, timings[name], floor) for name in fastapi if name.startswith("peer")),
        ],
        "The same app behind the middleware of the official MCP SDK": [
            over_bare(name, timings[name], floor) for name in mcp
        ],
    }


def ours(oidc: OIDC) -> dict[str, Application]:
    """Return the apps that we guard, and the one whose dependency does nothing: what FastAPI takes for one."""
    auth = OIDCAuth(oidc=oidc)
    return {
        NOTHING: depending(nothing),
        ALONE: depending(auth.current_user),
        "OIDCAuth, require with a scope": depending(auth.require("orders")),
        "the middleware": OIDCMiddleware(bare(), oidc=oidc),
        "the middleware, requires around the app": OIDCMiddleware(requires("orders")(bare()), oidc=oidc),
        "the middleware and current_user": OIDCMiddleware(depending(current_user), oidc=oidc),
    }


def built(makers: Mapping[str, Callable[[FakeIssuer], Application]], provider: FakeIssuer) -> dict[str, Application]:
    """Return the peers that are installed, and say which are not."""
    found: dict[str, Application] = {}
    for name, make in makers.items():
        try:
            found[f"peer: {name}"] = make(provider)
        except ImportError as error:
            print(f"{name}: not installed for this Python ({error.name}), left out", end="\n\n")
    return found


def over_bare(name: str, timing: Timing, floor: Timing) -> Row:
    """Return the row of what a contestant adds."""
    row = added(name, timing, floor)
    return replace(row, goal=at_most(row.value, LIMIT, "µs")) if name == ALONE else row


def of_ours(alone: Timing, least: Timing) -> Row:
    """Return the row of what our dependency takes where FastAPI has taken its share."""
    more = alone.less(least).median
    return Row(f"… {ALONE}, more than {NOTHING}", more, goal=at_most(more, LIMIT, "µs"))


if __name__ == "__main__":
    for title, table in rows().items():
        print(markdown(title, table), end="\n\n")

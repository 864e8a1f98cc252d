"""What the door costs a request whose session is known: one browser's over and over, and 1,000 in turn."""

from __future__ import annotations

import asyncio
from http.cookies import SimpleCookie
from typing import Any

from table import Row, added, interleaved, markdown
from traffic import AUDIENCE, CLAIMS, asking, bare, for_ever, issuer, no_body, only_200, scope_with_cookie

from oidc_middleware import OIDC, OIDCMiddleware
from oidc_middleware.core.grant import Grant, Login

# 2.5 µs over a bare request of 6.8 µs.
LIMIT = 0.37
SESSIONS = 1000
ASKED = 1024
# What else a site of some size sets.
_OTHERS = "theme=dark; _ga=GA1.1.1187354321.1764201600; locale=en-GB"


def rows(*, quick: bool = False) -> dict[str, list[Row]]:
    """Return the table of known sessions."""
    del quick
    with asyncio.Runner() as runner:
        return {"A request whose session is known": known_sessions(runner)}


def known_sessions(runner: asyncio.Runner) -> list[Row]:
    """Measure the bare app, and ours around it."""
    provider = issuer()
    base_url = "https://shop.example"
    oidc = OIDC(
        issuer=provider.url,
        audience=AUDIENCE,
        client_id="shop-web",
        login=True,
        base_url=base_url,
        transport=provider.transport(),
    )
    app, plain = OIDCMiddleware(bare(), oidc=oidc), bare()
    cookies = [runner.run(session(oidc, provider.url, number)) for number in range(SESSIONS)]
    for cookie in cookies:
        runner.run(app(scope_with_cookie(cookie), no_body, only_200))
    check_path(app, cookies[0])
    timings = interleaved(
        {
            "bare": asking(runner, plain, for_ever(cookies[:1]), scope_with_cookie),
            "one": asking(runner, app, for_ever(cookies[:1]), scope_with_cookie),
            "bare, in turn": asking(runner, plain, for_ever(cookies), scope_with_cookie),
            "in turn": asking(runner, app, for_ever(cookies), scope_with_cookie),
        },
        ASKED,
        rounds=61,
    )
    floor = timings["bare"]
    return [
        Row("bare Starlette, a request with 12 headers, four cookies in one", floor.median, least=floor.least),
        added("one known session", timings["one"], floor, LIMIT),
        added(f"{SESSIONS:,} known sessions in turn", timings["in turn"], timings["bare, in turn"]),
    ]


async def session(oidc: OIDC, issuer_url: str, number: int) -> str:
    """Begin a session, and return the Cookie header of its browser."""
    if not oidc.started:
        await oidc.start()
    assert oidc.sessions is not None
    claims = CLAIMS | {"iss": issuer_url, "sub": f"user-{number}", "aud": "shop-web", "iat": oidc.clock.now()}
    grant = Grant("an-access-token", "Bearer", expires_in=86_400.0, scope="openid profile email orders")
    created = await oidc.sessions.create(Login(issuer_url, claims, "an-id-token", grant, "a-nonce"))
    cookie: SimpleCookie = SimpleCookie(created.set_cookie)
    return f"{_OTHERS}; " + "; ".join(f"{name}={morsel.value}" for name, morsel in cookie.items())


def check_path(app: Any, cookie: str) -> None:
    """Make sure that a request with a known session suspends nowhere.

    Raises:
        AssertionError: it does.
    """
    asked = app(scope_with_cookie(cookie), no_body, only_200)
    try:
        asked.send(None)
    except StopIteration:
        return
    raise AssertionError("a request with a known session suspended")


if __name__ == "__main__":
    for title, table in rows().items():
        print(markdown(title, table), end="\n\n")

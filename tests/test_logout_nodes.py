"""Signed out on one node, by a browser or the issuer: over on all of them, whatever Redis does and whoever logs in."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import httpx2
import pytest
from logged_in_kit import BASE, NAVIGATION, Browser, app_of, query_of, service

from oidc_middleware import OIDC, OIDCMiddleware
from oidc_middleware.testing import FakeIssuer, faults

from redis_kit import PATIENCE, RedisServer, proxy_of, until

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("patient_tiers")]

SIGN_OUT = "/oauth2/sign_out"
COOKIE = "__Host-oidc_session"
MakeNode = Callable[..., OIDC]


@pytest.fixture
def issuer(fake_issuer_factory: Callable[..., FakeIssuer]) -> FakeIssuer:
    return fake_issuer_factory(algorithms=("ES256",))


@pytest.fixture
async def node(issuer: FakeIssuer, tmp_path: Path) -> AsyncIterator[MakeNode]:
    """Make nodes of one service, each on a host of its own; they are stopped in the end."""
    nodes: list[OIDC] = []

    def make(cache: str, **settings: Any) -> OIDC:
        given = {"secret": "s" * 32, "journal": tmp_path / f"{len(nodes)}.journal"} | settings
        nodes.append(service(issuer, cache=cache, **given))
        return nodes[-1]

    yield make
    for oidc in nodes:
        await oidc.stop()


@pytest.fixture
async def browser(issuer: FakeIssuer) -> AsyncIterator[Callable[[OIDC], Awaitable[Browser]]]:
    """Open browsers, one for each call, that have logged in at a node."""
    async with AsyncExitStack() as stack:

        async def open_(oidc: OIDC) -> Browser:
            opened = await stack.enter_async_context(Browser(issuer, oidc))
            await opened.sign_in()
            return opened

        yield open_


OpenBrowser = Callable[[OIDC], Awaitable[Browser]]


def is_fresh(oidc: OIDC) -> bool:
    facts: dict[str, Any] = oidc.stats()["revocations"]
    return bool(facts["loaded"]) and not facts["stale"]


async def status(browser: Browser, oidc: OIDC, cookie: str | None = None) -> int:
    """Return how a node answers the browser, or whoever has a copy of its cookie."""
    browser.node = oidc
    if cookie is None:
        return await browser.status()
    headers = {"cookie": f"{COOKIE}={cookie}", "accept": "application/json"}
    return (await browser.get("/orders", headers=headers)).status_code


async def known(browser: Browser, nodes: list[OIDC]) -> None:
    """Let every node know the session, and what is revoked."""
    for oidc in nodes:
        assert await status(browser, oidc) == 200
        await until(lambda oidc=oidc: is_fresh(oidc))


async def over(browser: Browser, nodes: list[OIDC], cookie: str) -> None:
    """Wait until every node refuses a session that it knew."""
    for oidc in nodes:
        async with asyncio.timeout(PATIENCE):
            while await status(browser, oidc, cookie) != 401:  # noqa: ASYNC110  another node tells it
                await asyncio.sleep(0.001)


def told_at(issuer: FakeIssuer, oidc: OIDC) -> None:
    """Let the issuer send its logout tokens to this node."""
    issuer.client(
        "web",
        secret="s3cret",
        redirect_uris=[f"{BASE}/oauth2/callback"],
        post_logout_redirect_uris=[f"{BASE}/oauth2/signed_out"],
        backchannel_logout_uri=f"{BASE}/oauth2/backchannel-logout",
    )
    issuer.client_transport = httpx2.ASGITransport(app_of(oidc))


async def logout(issuer: FakeIssuer, oidc: OIDC, sub: str | None = None, sid: str | None = None, **shape: Any) -> int:
    """Let the issuer tell a node that somebody is signed out; return the status of the answer."""
    told_at(issuer, oidc)
    answer = (await issuer.logout(sub, sid=sid, **shape))["web"]
    assert answer is not None
    assert answer.headers["cache-control"] == "no-store"
    return answer.status_code


def sids(issuer: FakeIssuer) -> list[str]:
    """Return the sessions at the issuer, in the order of their logins."""
    return [str(code.grant.sid) for code in issuer.grants.codes.values()]


# ------------------------------------------------------------------------------------------------------- by the browser


async def test_signed_out_on_one_node_is_over_on_all(
    cache: str, node: MakeNode, browser: OpenBrowser, issuer: FakeIssuer
) -> None:
    """G-after: warm caches; and the issuer's own logout token, which comes of it, finds nothing to do."""
    nodes = [node(cache) for _ in range(3)]
    alice, other = await browser(nodes[0]), await browser(nodes[1])
    await known(alice, nodes)
    cookie = alice.session_cookie
    told_at(issuer, nodes[2])

    alice.node = nodes[1]
    there = await alice.go(SIGN_OUT)
    await over(alice, nodes, cookie)
    back = await alice.go(there.headers["location"])

    assert query_of(back) == {"state": query_of(there)["state"]}
    navigation = await alice.get("/orders", headers=NAVIGATION | {"cookie": f"{COOKIE}={cookie}"})
    assert navigation.status_code == 302
    assert [await status(other, oidc) for oidc in nodes] == [200, 200, 200]


async def test_a_session_that_is_known_is_signed_out_though_redis_is_away(
    redis_server: RedisServer, node: MakeNode, browser: OpenBrowser
) -> None:
    """The journal keeps it, and the others hear of it later."""
    nodes = [node(redis_server.url) for _ in range(2)]
    alice = await browser(nodes[0])
    await known(alice, nodes)
    cookie = alice.session_cookie
    redis_server.kill()

    alice.node = nodes[0]
    assert (await alice.go(SIGN_OUT)).status_code == 303
    assert await status(alice, nodes[0], cookie) == 401

    redis_server.start()
    await over(alice, nodes, cookie)


async def test_a_session_that_nobody_can_look_up_is_not_said_to_be_over(
    redis_server: RedisServer, node: MakeNode, browser: OpenBrowser
) -> None:
    nodes = [node(redis_server.url) for _ in range(2)]
    alice = await browser(nodes[0])
    await until(lambda: is_fresh(nodes[0]))
    redis_server.kill()

    alice.node = nodes[1]
    answer = await alice.go(SIGN_OUT)

    assert (answer.status_code, "retry-after" in answer.headers) == (503, True)
    assert COOKIE in alice.cookies


async def test_logout_wins_over_a_refresh_under_way(
    redis_server: RedisServer, node: MakeNode, browser: OpenBrowser, issuer: FakeIssuer
) -> None:
    """Z-refresh-late: the new tokens come when the session is over, and it stays so."""
    issuer.token_overrides = {"expires_in": 0}
    nodes = [node(redis_server.url, refresh_ahead=0) for _ in range(2)]
    alice = await browser(nodes[0])
    cookie = alice.session_cookie
    release = asyncio.Event()
    issuer.fault("token", faults.held(release))

    late = asyncio.ensure_future(status(alice, nodes[1], cookie))
    await until(lambda: issuer.token_requests["refresh_token"] == 1)
    assert await logout(issuer, nodes[0], sid=sids(issuer)[0]) == 200
    await until(lambda: nodes[1].stats()["revocations"]["entries"] == 1)
    release.set()

    assert await late == 401
    await over(alice, nodes, cookie)


# -------------------------------------------------------------------------------------------------------- by the issuer


async def test_the_issuer_ends_one_session_on_all_nodes(
    cache: str, node: MakeNode, browser: OpenBrowser, issuer: FakeIssuer
) -> None:
    """B-ok-sid, B-ok-both, B-all-nodes."""
    nodes = [node(cache) for _ in range(3)]
    first, second, third = await browser(nodes[0]), await browser(nodes[1]), await browser(nodes[2])
    for each in (first, second, third):
        await known(each, nodes)

    assert await logout(issuer, nodes[0], sid=sids(issuer)[0]) == 200
    await over(first, nodes, first.session_cookie)
    assert await logout(issuer, nodes[1], "alice", sids(issuer)[1]) == 200
    await over(second, nodes, second.session_cookie)

    assert [await status(third, oidc) for oidc in nodes] == [200, 200, 200]


async def test_another_subject_does_not_end_a_known_session(
    cache: str, node: MakeNode, browser: OpenBrowser, issuer: FakeIssuer
) -> None:
    """B-ok-both: its `sub` must match, on a node that has never seen the session, too."""
    nodes = [node(cache) for _ in range(2)]
    alice = await browser(nodes[0])

    assert await logout(issuer, nodes[1], "bob", sids(issuer)[0]) == 400

    assert [await status(alice, oidc) for oidc in nodes] == [200, 200]


async def test_redis_fails_after_the_first_of_five_sessions(
    redis_server: RedisServer, node: MakeNode, browser: OpenBrowser, issuer: FakeIssuer
) -> None:
    """B-partial, B-ok-sub: the issuer is told to come again, and then all five are over everywhere."""
    nodes = [node(redis_server.url) for _ in range(3)]
    five = [await browser(nodes[number % 3]) for number in range(5)]
    for each in five:
        await known(each, nodes)
    token: dict[str, Any] = {"claims": {"jti": "l-1"}}
    redis_server.kill()

    assert await logout(issuer, nodes[0], "alice", **token) == 503
    assert [await status(each, nodes[0]) for each in five] == [401] * 5
    redis_server.start()
    async with asyncio.timeout(PATIENCE):
        while (found := await logout(issuer, nodes[1], "alice", **token)) == 503:  # noqa: ASYNC110  no event tells it
            await asyncio.sleep(0.01)

    assert found == 200
    for each in five:
        await over(each, nodes, each.session_cookie)
    assert await logout(issuer, nodes[2], "alice", **token) == 400


async def test_a_node_that_was_cut_off_ends_it_when_it_is_back(
    redis_server: RedisServer, node: MakeNode, browser: OpenBrowser, issuer: FakeIssuer
) -> None:
    """B-all-nodes: the second of three."""
    async with proxy_of(redis_server) as proxy:
        nodes = [node(redis_server.url), node(proxy.url), node(redis_server.url)]
        alice = await browser(nodes[0])
        await known(alice, nodes)
        cookie = alice.session_cookie
        proxy.refuse = True
        await proxy.cut()

        assert await logout(issuer, nodes[0], sid=sids(issuer)[0]) == 200
        await over(alice, [nodes[0], nodes[2]], cookie)

        proxy.refuse = False
        await over(alice, nodes, cookie)
        await nodes[1].stop()


async def test_a_login_under_way_brings_no_session_of_one_that_was_ended(
    redis_server: RedisServer, node: MakeNode, issuer: FakeIssuer
) -> None:
    """B-unknown-sid: nobody knows the session yet, and the issuer that ended it still takes the code."""
    nodes = [node(redis_server.url) for _ in range(2)]
    async with Browser(issuer, nodes[0]) as alice:
        callback = await alice.begin()
        assert await logout(issuer, nodes[1], sid=sids(issuer)[0]) == 200
        await until(lambda: nodes[0].stats()["revocations"]["entries"] == 1)

        answer = await alice.go(callback)

        assert (answer.status_code, COOKIE in alice.cookies) == (400, False)


@pytest.mark.parametrize("held", ["token", "jwks"])
async def test_whatever_order_a_login_and_a_logout_come_in_the_session_is_over(
    redis_server: RedisServer, node: MakeNode, issuer: FakeIssuer, held: str
) -> None:
    """B-unknown-sid: the logout comes while the code is exchanged, or while the ID token is checked."""
    nodes = [node(redis_server.url, userinfo=False) for _ in range(2)]
    release = asyncio.Event()
    async with Browser(issuer, nodes[0]) as alice:
        callback = await alice.begin()
        await nodes[1].providers[issuer.url].load()
        issuer.fault(held, faults.held(release))
        before = issuer.requests[held]

        login = asyncio.ensure_future(alice.go(callback))
        await until(lambda: issuer.requests[held] > before or login.done())
        assert await logout(issuer, nodes[1], sid=sids(issuer)[0]) == 200
        release.set()

        answer = await login
        cookie = alice.cookies.get(COOKIE)
        if answer.status_code == 302 and cookie is not None:  # node 0 had not heard of it yet
            await over(alice, nodes, cookie)
        else:
            assert answer.status_code == 400


# --------------------------------------------------------------------------------------------------- what is still open


async def test_live_connections_end_on_every_node(
    redis_server: RedisServer, node: MakeNode, browser: OpenBrowser
) -> None:
    nodes = [node(redis_server.url) for _ in range(3)]
    alice = await browser(nodes[0])
    await known(alice, nodes)
    streams = [Stream(oidc, alice.session_cookie) for oidc in nodes]
    for stream in streams:
        await until(lambda stream=stream: len(stream.messages) == 2)

    alice.node = nodes[1]
    await alice.go(SIGN_OUT)

    for stream in streams:
        await asyncio.wait_for(stream.task, PATIENCE)
        assert stream.messages[-1] == {"type": "http.response.body", "body": b"", "more_body": False}


class Stream:
    """An event stream that is open for a session until the door ends it."""

    def __init__(self, oidc: OIDC, cookie: str) -> None:
        self.messages: list[Any] = []
        headers = [(b"cookie", f"{COOKIE}={cookie}".encode())]
        scope = {"type": "http", "method": "GET", "path": "/events", "query_string": b"", "headers": headers}
        app = OIDCMiddleware(self._app, oidc=oidc)
        self.task = asyncio.ensure_future(app(scope, self._receive, self._send))

    async def _app(self, _: Any, receive: Any, send: Any) -> None:
        headers = [(b"content-type", b"text/event-stream")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": b"data: 1\n\n", "more_body": True})
        while (await receive())["type"] != "http.disconnect":
            pass

    async def _receive(self) -> Any:
        await asyncio.Event().wait()

    async def _send(self, message: Any) -> None:
        self.messages.append(message)

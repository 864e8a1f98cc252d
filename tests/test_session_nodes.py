"""Sessions on three real nodes over a real Redis: one exchange for all, a node that is killed in the middle of it."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import httpx2
import pytest
from issuer_login_kit import Page
from starlette.types import ASGIApp, Receive, Scope, Send

from oidc_middleware.testing import FakeIssuer, faults

from redis_kit import RedisServer
from servers_kit import AUDIENCE, Server, running

pytestmark = pytest.mark.anyio

SECONDS = 30.0
LIFE = 3
"""Seconds that an access token lives: nodes log in, and serve it, within half of that."""
BASE = "http://localhost:8000"
NAME = "oidc_session"
NAVIGATION = {"sec-fetch-mode": "navigate", "sec-fetch-dest": "document", "accept": "text/html"}


@dataclass
class Cluster:
    """Nodes of one service, and the issuer where its users log in."""

    issuer: FakeIssuer
    redis: RedisServer
    nodes: list[Server]
    client: httpx2.Client = field(default_factory=lambda: httpx2.Client(trust_env=False, timeout=SECONDS))

    def ask(self, node: int, cookie: str, path: str = "/me", **headers: str) -> httpx2.Response:
        return self.client.get(self.nodes[node].url + path, headers={"cookie": cookie, **headers})

    def log_in(self, node: int = 0) -> str:
        """Log in, and return the header that brings the session."""
        begun = self.client.get(self.nodes[node].url + "/me", headers=NAVIGATION)
        assert begun.status_code == 302, begun.text
        page = Page(self.client.get(begun.headers["location"]).raise_for_status().text)
        form = {**page.hidden, "username": "alice", "decision": "allow"}
        back = self.client.post(page.action, data=form).headers["location"].removeprefix(BASE)
        flow = "; ".join(cookie.partition(";")[0] for cookie in begun.headers.get_list("set-cookie"))
        done = self.client.get(self.nodes[node].url + back, headers={**NAVIGATION, "cookie": flow})
        assert (done.status_code, done.headers["location"]) == (302, "/me"), done.text
        cookies = [cookie.partition(";")[0] for cookie in done.headers.get_list("set-cookie")]
        self.client.cookies.clear()
        return next(cookie for cookie in cookies if cookie.startswith(f"{NAME}="))

    def is_ready(self, node: int) -> bool:
        return bool(self.ask(node, "", "/stats").json()["ready"])

    def refuses(self, node: int, cookie: str) -> bool:
        return self.ask(node, cookie).status_code == 401

    def exchanges(self) -> int:
        return self.issuer.token_requests["refresh_token"]


def until(condition: Callable[[], Any], seconds: float = SECONDS) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def wait_for(moment: float) -> None:
    """Let time pass: tokens live on the machine's clock here."""
    until(lambda: time.time() > moment)


@pytest.fixture
def cluster(redis_server: RedisServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Cluster]:
    issuer = FakeIssuer(audience=AUDIENCE, algorithms=("ES256",), expires_in=LIFE)
    issuer.client("web", secret="s3cret", redirect_uris=[f"{BASE}/oauth2/callback"])
    settings = {
        "OIDC_LOGIN": "true",
        "OIDC_CLIENT_ID": "web",
        "OIDC_CLIENT_SECRET": "s3cret",
        "OIDC_BASE_URL": BASE,
        "OIDC_CACHE": redis_server.url,
        "OIDC_SECRET": "s" * 32,
        "OIDC_LEEWAY": "0",
    }
    for name, value in settings.items():
        monkeypatch.setenv(name, value)
    with ExitStack() as stack:
        stack.enter_context(issuer.serve_in_thread())
        nodes = []
        for number in range(3):
            monkeypatch.setenv("OIDC_JOURNAL", str(tmp_path / f"{number}.journal"))
            log = tmp_path / f"{number}.log"
            nodes.append(stack.enter_context(_node(issuer.url, log)))
        found = Cluster(issuer, redis_server, nodes)
        stack.enter_context(found.client)
        for number in range(3):
            until(partial(found.is_ready, number))
        yield found


@contextmanager
def _node(issuer_url: str, log: Path) -> Iterator[Server]:
    """Run a node, which a test may kill."""
    with running("uvicorn", issuer_url, log, "session_app:app") as server:
        yield server


async def twenty(cluster: Cluster, cookie: str) -> list[httpx2.Response]:
    """Ask the nodes in turn, twenty times at once."""
    async with httpx2.AsyncClient(trust_env=False, timeout=SECONDS) as client:
        asked = [client.get(cluster.nodes[number % 3].url + "/me", headers={"cookie": cookie}) for number in range(20)]
        return list(await asyncio.gather(*asked))


async def test_twenty_requests_on_three_nodes_share_one_exchange(cluster: Cluster) -> None:
    """Z-refresh-race: an expired access token, and an issuer that ends everything when a refresh token comes twice."""
    cookie = cluster.log_in()
    ends = time.time() + LIFE
    assert [cluster.ask(node, cookie).status_code for node in range(3)] == [200] * 3
    for _ in range(2):
        before = cluster.exchanges()
        wait_for(ends + 0.1)

        answers = await twenty(cluster, cookie)
        ends = time.time() + LIFE

        assert [answer.status_code for answer in answers] == [200] * 20
        assert cluster.exchanges() == before + 1
        assert len({answer.json()["token"] for answer in answers}) == 1
    held = [token for token in cluster.issuer.grants.refresh.values() if not token.used]
    assert len(held) == 1
    assert not held[0].grant.ended


class _Met:
    """A fault: the issuer does its work, and its answer comes never."""

    def __init__(self) -> None:
        self.event = threading.Event()

    def __call__(self, inner: ASGIApp) -> ASGIApp:
        slow = faults.slow(SECONDS)(inner)

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            self.event.set()
            await slow(scope, receive, send)

        return app


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGSTOP], ids=["killed", "paused"])
async def test_a_node_that_falls_out_between_exchange_and_save(cluster: Cluster, how: signal.Signals) -> None:
    """Z-refresh-crash: the user logs in again; no loop, nobody else's token, and nobody waits for ever."""
    cookie = cluster.log_in()
    ends = time.time() + LIFE
    met = _Met()
    cluster.issuer.fault("token", met, times=1)
    wait_for(ends + 0.1)
    asking = threading.Thread(target=_asked, args=(cluster, cookie), daemon=True)
    asking.start()
    assert await asyncio.to_thread(met.event.wait, SECONDS)
    until(lambda: cluster.exchanges() == 1)

    os.kill(cluster.nodes[0].pid, how)

    began = time.monotonic()
    answers = await asyncio.gather(*(asyncio.to_thread(cluster.ask, node, cookie) for node in (1, 2) * 5))
    assert time.monotonic() - began < SECONDS
    assert {answer.status_code for answer in answers} == {401}
    assert cluster.exchanges() == 2  # the second told the issuer of a token that came twice
    for node in (1, 2):
        assert cluster.ask(node, cookie).status_code == 401
        begun = cluster.ask(node, cookie, **NAVIGATION)
        assert begun.status_code == 302
        assert begun.headers["location"].startswith(cluster.issuer.endpoint("authorize"))
    assert cluster.exchanges() == 2
    again = cluster.log_in(1)
    answer = cluster.ask(2, again)
    assert (answer.status_code, answer.json()["sub"]) == (200, "alice")
    if how == signal.SIGSTOP:
        os.kill(cluster.nodes[0].pid, signal.SIGCONT)
        until(partial(cluster.refuses, 0, cookie))
        assert cluster.ask(0, again).status_code == 200
    await asyncio.to_thread(asking.join, SECONDS)


def _asked(cluster: Cluster, cookie: str) -> None:
    with suppress(httpx2.TransportError):
        httpx2.get(cluster.nodes[0].url + "/me", headers={"cookie": cookie}, trust_env=False, timeout=SECONDS)


async def test_what_ends_on_one_node_is_over_on_all(cluster: Cluster) -> None:
    cookie = cluster.log_in()
    assert [cluster.ask(node, cookie).status_code for node in range(3)] == [200] * 3
    (session,) = cluster.ask(1, cookie, "/oauth2/sessions").json()["sessions"]

    url = f"{cluster.nodes[2].url}/oauth2/sessions/{session['name']}"
    assert cluster.client.delete(url, headers={"cookie": cookie}).status_code == 204

    for node in range(3):
        until(partial(cluster.refuses, node, cookie))

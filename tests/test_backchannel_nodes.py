"""Back-channel logout on three nodes over one real store: one is told, all of them refuse; and what Redis may do."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest

from oidc_middleware import OIDC
from oidc_middleware.testing import FakeIssuer, ManualClock, make_key

from abuse.door import Door
from monitor_kit import monitored
from redis_kit import PATIENCE, RedisServer, proxy_of, until

pytestmark = pytest.mark.anyio

PATH = "/oauth2/backchannel-logout"
MakeNode = Callable[..., Door]
# What nodes say that have nothing to do but to follow the ledger.
FOLLOWERS = {b"EVALSHA", b"ZREM", b"ZRANGE", b"XREAD", b"XRANGE", b"PING", b"INFO", b"HELLO", b"CLIENT", b"ECHO"}


@pytest.fixture
def issuer(fake_issuer_factory: Callable[..., FakeIssuer]) -> FakeIssuer:
    return fake_issuer_factory(algorithms=("ES256",))


@pytest.fixture
async def node(issuer: FakeIssuer, oidc_clock: ManualClock, tmp_path: Path) -> AsyncIterator[MakeNode]:
    """Make nodes of one service, each on a host of its own; they are stopped in the end."""
    nodes: list[OIDC] = []

    def make(cache: str) -> Door:
        oidc = OIDC(
            issuer=issuer.url,
            audience=issuer.audience,
            client_id="web",
            client_secret="s3cret",
            login=True,
            base_url="https://app.example",
            cache=cache,
            secret="s" * 32,
            journal=tmp_path / f"{len(nodes)}.journal",
            transport=issuer.transport(),
        )
        nodes.append(oidc)
        return Door.before(oidc, oidc_clock)

    yield make
    for oidc in nodes:
        await oidc.stop()


def is_fresh(door: Door) -> bool:
    facts: dict[str, Any] = door.oidc.stats()["revocations"]
    return bool(facts["loaded"]) and not facts["stale"]


async def post(door: Door, token: str) -> int:
    """Post a logout token as an issuer does, and return the status of the answer."""
    headers = [(b"content-type", b"application/x-www-form-urlencoded")]
    answer = await door.ask(PATH, method="POST", body=urlencode({"logout_token": token}).encode(), headers=headers)
    assert answer.headers["cache-control"] == "no-store"
    return answer.status


async def status(door: Door, token: str) -> int:
    return (await door.ask(token=token)).status


async def warm(doors: list[Door], *tokens: str) -> None:
    """Let every node know tokens, and everything that is revoked."""
    for door in doors:
        for token in tokens:
            assert await status(door, token) == 200
        await until(lambda door=door: is_fresh(door))


async def refuse(doors: list[Door], token: str) -> None:
    """Wait until each node refuses a token that it knew."""
    for door in doors:
        await until(lambda door=door: door.oidc.revocations.check(token).status == "revoked")
        assert await status(door, token) == 401


async def test_one_node_is_told_and_all_refuse(cache: str, node: MakeNode, issuer: FakeIssuer) -> None:
    """B-all-nodes, with warm caches: and a token that one node took is used on all of them."""
    doors = [node(cache) for _ in range(3)]
    over, other = issuer.token("alice", claims={"sid": "s-1"}), issuer.token("alice", claims={"sid": "s-2"})
    await warm(doors, over, other)
    logout_token = issuer.logout_token("alice", client_id="web", sid="s-1")

    assert await post(doors[0], logout_token) == 200

    await refuse(doors, over)
    assert [await status(door, other) for door in doors] == [200, 200, 200]
    assert [await post(door, logout_token) for door in doors] == [400, 400, 400]


async def test_all_of_a_subject_on_all_nodes(cache: str, node: MakeNode, issuer: FakeIssuer) -> None:
    """B-ok-sub: five sessions, one token."""
    doors = [node(cache) for _ in range(3)]
    tokens = [issuer.token("alice", claims={"sid": f"s-{number}"}) for number in range(5)]
    await warm(doors, *tokens)

    assert await post(doors[1], issuer.logout_token("alice", client_id="web")) == 200

    for token in tokens:
        await refuse(doors, token)


async def test_a_token_sent_to_all_nodes_at_once_is_taken_by_one(
    redis_server: RedisServer, node: MakeNode, issuer: FakeIssuer
) -> None:
    doors = [node(redis_server.url) for _ in range(3)]
    await warm(doors, issuer.token("bob"))
    logout_token = issuer.logout_token("alice", client_id="web")

    statuses = await asyncio.gather(*(post(door, logout_token) for door in doors))

    assert sorted(statuses) == [200, 400, 400]


async def test_a_node_that_was_cut_off_learns_of_it_when_it_is_back(
    redis_server: RedisServer, node: MakeNode, issuer: FakeIssuer
) -> None:
    """B-all-nodes: the second of three is partitioned, and comes back."""
    async with AsyncExitStack() as stack:
        proxy = await stack.enter_async_context(proxy_of(redis_server))
        doors = [node(redis_server.url), node(proxy.url), node(redis_server.url)]
        over = issuer.token("alice", claims={"sid": "s-1"})
        await warm(doors, over)
        proxy.refuse = True
        await proxy.cut()

        assert await post(doors[0], issuer.logout_token("alice", client_id="web", sid="s-1")) == 200
        await refuse([doors[0], doors[2]], over)
        assert await status(doors[1], over) == 200  # on_stale is allow: nobody has told it

        proxy.refuse = False
        await refuse([doors[1]], over)
        for door in doors:
            await door.oidc.stop()


async def test_the_node_that_was_cut_off_is_told_itself(
    redis_server: RedisServer, node: MakeNode, issuer: FakeIssuer
) -> None:
    """B-partial: it cannot tell the others, so it asks the issuer to come again, and then it works."""
    async with AsyncExitStack() as stack:
        proxy = await stack.enter_async_context(proxy_of(redis_server))
        cut, well = node(proxy.url), node(redis_server.url)
        over = issuer.token("alice", claims={"sid": "s-1"})
        await warm([cut, well], over)
        logout_token = issuer.logout_token("alice", client_id="web", sid="s-1")
        proxy.refuse = True
        await proxy.cut()

        assert await post(cut, logout_token) == 503
        assert await status(cut, over) == 401
        assert await post(cut, logout_token) == 503

        assert await post(well, logout_token) == 200  # the issuer may get to another node
        await refuse([well], over)
        proxy.refuse = False
        await until(lambda: is_fresh(cut))
        await until(lambda: cut.oidc.stats()["revocations"]["unacknowledged"] == 0)
        assert await status(cut, over) == 401
        for door in (cut, well):
            await door.oidc.stop()


async def test_redis_dies_between_the_logout_and_the_answer(
    redis_server: RedisServer, node: MakeNode, issuer: FakeIssuer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """B-partial: everybody knows, and nobody can note that the token was used; sent again it is taken, and once."""
    doors = [node(redis_server.url) for _ in range(2)]
    over = issuer.token("alice", claims={"sid": "s-1"})
    await warm(doors, over)
    logout_token = issuer.logout_token("alice", client_id="web", sid="s-1")
    add = doors[0].oidc.caches.general.add

    async def dies(*arguments: Any) -> bool:
        redis_server.kill()
        return await add(*arguments)

    monkeypatch.setattr(doors[0].oidc.caches.general, "add", dies)
    assert await post(doors[0], logout_token) == 503
    assert await status(doors[0], over) == 401
    monkeypatch.setattr(doors[0].oidc.caches.general, "add", add)
    redis_server.start()
    await until(lambda: is_fresh(doors[0]))

    async with asyncio.timeout(PATIENCE):
        while (found := await post(doors[0], logout_token)) == 503:  # noqa: ASYNC110  the breaker of the cache is not closed yet
            await asyncio.sleep(0.01)

    assert found == 200
    assert await post(doors[0], logout_token) == 400
    await refuse(doors, over)


async def test_what_is_not_signed_does_not_reach_the_store(
    redis_server: RedisServer, node: MakeNode, issuer: FakeIssuer
) -> None:
    """B-flood, B-kid-storm: it is neither asked nor written to; and of a good one nothing can be read there."""
    door = node(redis_server.url)
    await warm([door], issuer.token("bob"))
    stranger = make_key("ES256", kid="es256-1")
    assert await post(door, issuer.logout_token("alice", client_id="web", key=stranger)) == 400  # the look for its key
    shapes: list[dict[str, Any]] = [
        {"algorithm": "none"},
        {"key": stranger},
        {"headers": {"kid": "x"}},
        {"omit": ["exp"]},
    ]
    looked = issuer.requests["jwks"]
    await until(lambda: door.oidc.stats()["shared_cache"]["queued"] == 0)
    redis_server.admin.ping()  # what was sent has been heard

    with monitored(redis_server) as monitor:
        for shape in shapes * 25:
            assert await post(door, issuer.logout_token("alice", client_id="web", sid="s-1", **shape)) == 400
        said = {line.split(b'"')[1].upper() for line in (await monitor.all()).splitlines() if b'"' in line}
        assert said <= FOLLOWERS
        good = issuer.logout_token("alice", client_id="web", sid="the-session", claims={"jti": "the-token"})
        assert await post(door, good) == 200
        heard = await monitor.all()

    assert issuer.requests["jwks"] == looked
    for word in (b"the-", b"alice", issuer.url.encode(), *good.encode().split(b".")):
        assert word not in heard

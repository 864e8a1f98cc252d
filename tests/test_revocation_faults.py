"""Revocation while the shared store dies, hangs, refuses or loses something: what was acknowledged holds for all."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from revocation_peer import SECRET, RevokingPeer
from test_revocation_nodes import facts, is_fresh, status

from oidc_middleware import OIDC
from oidc_middleware.cache.redis import ledger
from oidc_middleware.testing import FakeIssuer

from ledger_redis_kit import LEDGER, LOG
from redis_kit import LOOPBACK, PATIENCE, Proxy, RedisServer, free_port, proxy_of, until

pytestmark = pytest.mark.anyio

MakeNode = Callable[..., OIDC]
BUDGET = 2.0
HEALED = 30.0
"""Seconds within which all must be well again; it takes one to three on a machine that does nothing else."""


@pytest.fixture
def issuer(fake_issuer_factory: Callable[..., FakeIssuer]) -> FakeIssuer:
    return fake_issuer_factory(algorithms=("ES256",))


@pytest.fixture(autouse=True)
def patient_ledger(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a receipt be less than shared because of Redis only, and not because the machine had a slow moment."""
    monkeypatch.setattr(ledger, "RedisLedger", partial(ledger.RedisLedger, budget=BUDGET))


@pytest.fixture
async def node(issuer: FakeIssuer, tmp_path: Path) -> AsyncIterator[MakeNode]:
    """Make nodes of one service, each on a host of its own; they are stopped in the end."""
    nodes: list[OIDC] = []

    def make(cache: str, **settings: Any) -> OIDC:
        defaults = {"secret": SECRET, "journal": tmp_path / f"{len(nodes)}.journal"}
        given = {"issuer": issuer.url, "audience": issuer.audience, "transport": issuer.transport()}
        nodes.append(OIDC(cache=cache, **{**given, **defaults, **settings}))
        return nodes[-1]

    yield make
    for oidc in nodes:
        await oidc.stop()


def tokens_of(issuer: FakeIssuer, count: int, first: int = 0) -> list[str]:
    return [issuer.token("alice", claims={"jti": f"{number}"}) for number in range(first, first + count)]


async def well(*nodes: OIDC) -> None:
    """Wait until nodes know everything, and have told everything."""
    for oidc in nodes:
        if not oidc.started:
            await oidc.start()
        await until(
            lambda oidc=oidc: is_fresh(oidc) and not facts(oidc)["unacknowledged"] and not facts(oidc)["healing"],
            HEALED,
        )


async def all_let_in(nodes: Sequence[OIDC], tokens: Iterable[str]) -> None:
    for token in tokens:
        for oidc in nodes:
            assert await status(oidc, token) == 200


async def all_refuse(nodes: Sequence[OIDC], tokens: Sequence[str]) -> None:
    """Wait until every node refuses every token."""
    for oidc in nodes:
        await until(lambda oidc=oidc: all(oidc.revocations.check(t).status == "revoked" for t in tokens), HEALED)
        for token in tokens:
            assert await status(oidc, token) == 401


async def revoke_each(oidc: OIDC, tokens: Sequence[str]) -> list[str]:
    """Revoke tokens at once; whatever the receipt says, from then on this node refuses them. Return the receipts."""

    async def revoke(token: str) -> str:
        receipt = await oidc.revoke.token(token)
        assert await status(oidc, token) == 401
        return receipt

    return await asyncio.gather(*map(revoke, tokens))


async def is_in_the_store(node: MakeNode, cache: str, tokens: Sequence[str]) -> None:
    """Check that a node that has nothing but the store learns of everything."""
    newcomer = node(cache, journal=None)
    await newcomer.start()
    await all_refuse([newcomer], tokens)


# --------------------------------------------------------------------------------------------------------- it or we die


async def test_redis_is_killed_while_200_revocations_run(
    node: MakeNode, redis_server: RedisServer, issuer: FakeIssuer
) -> None:
    """Y-kill-midwrite."""
    nodes = [node(redis_server.url) for _ in range(3)]
    tokens = tokens_of(issuer, 200)
    await well(*nodes)
    await all_let_in(nodes, tokens)
    receipts: list[str] = []

    async def revoke(number: int) -> None:
        receipts.extend(await revoke_each(nodes[number % 3], [tokens[number]]))
        if len(receipts) == 100:
            redis_server.kill()

    for begin in range(0, 200, 20):  # they come in tens, so that the kill meets some of each kind
        await asyncio.gather(*map(revoke, range(begin, begin + 20)))
    assert receipts.count("shared") >= 100
    assert receipts.count("journaled") >= 50
    assert "local" not in receipts
    redis_server.start()
    await all_refuse(nodes, tokens)
    await well(*nodes)
    await is_in_the_store(node, redis_server.url, tokens)


async def test_the_app_is_killed_while_it_revokes(
    node: MakeNode, redis_server: RedisServer, issuer: FakeIssuer, tmp_path: Path
) -> None:
    """Y-kill-app: what it was told is shared others know, whatever became of it; its journal knows the rest."""
    other = node(redis_server.url)
    await well(other)
    acknowledged: dict[str, str] = {}
    for turn in range(3):
        peer = RevokingPeer(issuer.url, redis_server.url, str(tmp_path / "peer.journal"), 10_000 * turn)
        await peer.run_until(100 + 37 * turn)
        acknowledged |= peer.acknowledged
    assert set(acknowledged.values()) <= {"shared", "journaled"}
    shared, journaled = (
        [issuer.token("alice", claims={"jti": jti}) for jti, receipt in acknowledged.items() if receipt == wanted]
        for wanted in ("shared", "journaled")  # a busy machine may answer too late now and then
    )
    assert shared
    await all_refuse([other], shared)
    tokens = shared + journaled
    again = node(redis_server.url, journal=tmp_path / "peer.journal")
    await well(again)
    await all_refuse([again, other], tokens)
    await is_in_the_store(node, redis_server.url, tokens)


async def test_the_app_is_killed_while_redis_is_away(
    node: MakeNode, redis_server: RedisServer, issuer: FakeIssuer, tmp_path: Path
) -> None:
    other = node(redis_server.url)
    await well(other)
    redis_server.kill()
    peer = RevokingPeer(issuer.url, redis_server.url, str(tmp_path / "peer.journal"), 0)
    await peer.run_until(200)
    assert set(peer.acknowledged.values()) == {"journaled"}
    tokens = [issuer.token("alice", claims={"jti": jti}) for jti in peer.acknowledged]
    redis_server.start()
    await well(other)
    assert await status(other, tokens[0]) == 200, "nobody who lives knows of it"
    again = node(redis_server.url, journal=tmp_path / "peer.journal")
    await again.start()
    assert {await status(again, token) for token in tokens} == {401}, "before the first request is served"
    await all_refuse([other], tokens)
    await well(again, other)
    await is_in_the_store(node, redis_server.url, tokens)


# ------------------------------------------------------------------------------------------------- it loses something


async def flush(server: RedisServer) -> None:
    server.admin.flushall()


async def restart(server: RedisServer) -> None:
    server.restart()


async def lose_the_ledger(server: RedisServer) -> None:
    server.admin.delete(LEDGER)


async def lose_the_log(server: RedisServer) -> None:
    server.admin.delete(LOG)


async def evict(server: RedisServer) -> None:
    """Y-evict: fill the memory until the ledger, and nobody's fault, is dropped."""
    admin = server.admin
    admin.config_set("maxmemory-policy", "allkeys-lru")
    admin.config_set("maxmemory-samples", 1)
    admin.config_set("maxmemory", admin.info("memory")["used_memory"] + 500_000)
    epoch = admin.zrange(LEDGER, 0, 0)
    filled = 0
    while admin.zrange(LEDGER, 0, 0) == epoch:
        assert filled < 1_000_000
        admin.mset({f"filler-{filled + n}": bytes(1000) for n in range(300)})
        filled += 300
        await asyncio.sleep(0)
    admin.config_set("maxmemory", 0)


LOSSES = [flush, restart, lose_the_ledger, lose_the_log, evict]


@pytest.mark.parametrize("lose", LOSSES, ids=lambda lose: lose.__name__)
async def test_what_redis_loses_is_refused_all_the_same_and_written_back(
    node: MakeNode,
    redis_server: RedisServer,
    issuer: FakeIssuer,
    lose: Callable[[RedisServer], Awaitable[None]],
) -> None:
    """Y-flushall, Y-restart-empty, Y-evict: also what was revoked by a node that has gone since."""
    first, second, gone = (node(redis_server.url) for _ in range(3))
    tokens = tokens_of(issuer, 150)
    await well(first, second, gone)
    await all_let_in([first, second], tokens)
    for oidc, part in ((first, tokens[:50]), (second, tokens[50:100]), (gone, tokens[100:])):
        assert set(await revoke_each(oidc, part)) == {"shared"}
    await all_refuse([first, second], tokens)
    await gone.stop()
    for _ in range(2):
        await lose(redis_server)
        for oidc in (first, second):
            assert {await status(oidc, token) for token in tokens} == {401}
        if lose is not lose_the_log:
            await is_in_the_store(node, redis_server.url, tokens)
    await well(first, second)
    late = tokens_of(issuer, 1, first=900)
    assert await revoke_each(first, late) == ["shared"]
    await all_refuse([second], late)
    await is_in_the_store(node, redis_server.url, [*tokens, *late])


async def test_it_is_flushed_again_and_again_while_everybody_revokes(
    node: MakeNode, redis_server: RedisServer, issuer: FakeIssuer
) -> None:
    nodes = [node(redis_server.url) for _ in range(3)]
    tokens = tokens_of(issuer, 300)
    await well(*nodes)
    for begin in range(0, 300, 30):
        parts = [tokens[begin + 10 * number : begin + 10 * number + 10] for number in range(3)]
        revoking = asyncio.gather(*(revoke_each(oidc, part) for oidc, part in zip(nodes, parts, strict=True)))
        await asyncio.sleep(0)
        await asyncio.to_thread(redis_server.admin.flushall)
        assert "local" not in {receipt for receipts in await revoking for receipt in receipts}
    await all_refuse(nodes, tokens)
    await well(*nodes)
    await is_in_the_store(node, redis_server.url, tokens)


async def test_a_fail_over_loses_the_end(node: MakeNode, issuer: FakeIssuer) -> None:
    """Y-failover-lost: replication is cut, a revocation is acknowledged, the primary dies, the replica takes over."""
    quick = {"repl-diskless-sync-delay": "0"}
    with RedisServer(options=quick) as primary, RedisServer(options=quick) as replica:
        async with proxy_of(primary) as replication, Proxy(primary.port) as front, Proxy(primary.port) as other:
            replica.admin.replicaof(LOOPBACK, replication.port)
            await until_true(lambda: replica.admin.info("replication")["master_link_status"] == "up")
            first, second = node(front.url), node(other.url)
            kept, lost, new = (tokens_of(issuer, 20, first) for first in (0, 20, 40))
            await well(first, second)
            await all_let_in([first, second], [*kept, *lost, *new])
            assert set(await revoke_each(first, kept)) == {"shared"}
            await all_refuse([second], kept)
            await until_true(lambda: replica.admin.zcard(LEDGER) == 21)
            await replication.cut()
            replication.refuse = True
            other.refuse = True  # the second node does not hear of it before the primary has died
            await other.cut()
            assert set(await revoke_each(first, lost)) == {"shared"}
            primary.kill()
            replica.admin.replicaof("NO", "ONE")
            assert replica.admin.zcard(LEDGER) == 21, "the new primary lacks them"
            front._upstream = other._upstream = replica.port
            other.refuse = False
            await all_refuse([second], [*kept, *lost])
            assert {await status(first, token) for token in (*kept, *lost)} == {401}
            await well(first, second)
            assert set(await revoke_each(second, new)) == {"shared"}
            await all_refuse([first], new)
            await is_in_the_store(node, replica.url, [*kept, *lost, *new])


# ----------------------------------------------------------------------------------------------------------- it refuses


async def read_only(server: RedisServer) -> None:
    server.admin.replicaof(LOOPBACK, free_port())


async def writable(server: RedisServer) -> None:
    server.admin.replicaof("NO", "ONE")


async def no_memory(server: RedisServer) -> None:
    server.admin.config_set("maxmemory", 1)


async def memory(server: RedisServer) -> None:
    server.admin.config_set("maxmemory", 0)


async def no_replicas(server: RedisServer) -> None:
    server.admin.config_set("min-replicas-to-write", 1)


async def replicas(server: RedisServer) -> None:
    server.admin.config_set("min-replicas-to-write", 0)


async def new_password(server: RedisServer) -> None:
    server.admin.config_set("requirepass", "new")
    server.admin.client_kill_filter(_type="normal", skipme=True)


async def old_password(server: RedisServer) -> None:
    server.admin.config_set("requirepass", "")


async def no_snapshot(server: RedisServer) -> None:
    (server.directory / "dump.rdb").mkdir()
    server.admin.config_set("save", "3600 1")
    server.admin.bgsave()
    await until_true(lambda: server.admin.info("persistence")["rdb_last_bgsave_status"] == "err")


async def snapshot(server: RedisServer) -> None:
    server.admin.config_set("stop-writes-on-bgsave-error", "no")


async def freeze(server: RedisServer) -> None:
    server.stop()


async def thaw(server: RedisServer) -> None:
    server.cont()


REFUSALS = [
    (read_only, writable),
    (no_memory, memory),
    (no_replicas, replicas),
    (new_password, old_password),
    (no_snapshot, snapshot),
    (freeze, thaw),
]


@pytest.mark.parametrize(("refuse", "relent"), REFUSALS, ids=[refuse.__name__ for refuse, _ in REFUSALS])
async def test_while_redis_refuses_revocations_are_kept_here_and_arrive_later(
    node: MakeNode,
    redis_server: RedisServer,
    issuer: FakeIssuer,
    refuse: Callable[[RedisServer], Awaitable[None]],
    relent: Callable[[RedisServer], Awaitable[None]],
) -> None:
    """Y-readonly, Y-oom, Y-auth, Y-stop."""
    first, second = (node(redis_server.url, max_staleness=2.0) for _ in range(2))
    before, tokens = tokens_of(issuer, 10), tokens_of(issuer, 40, first=10)
    await well(first, second)
    await all_let_in([first, second], [*before, *tokens])
    assert set(await revoke_each(first, before)) == {"shared"}
    await all_refuse([second], before)
    await refuse(redis_server)
    assert set(await revoke_each(first, tokens)) == {"journaled"}
    assert {await status(second, token) for token in tokens} == {200}, "it cannot know, and on_stale is allow"
    assert {await status(second, token) for token in before} == {401}
    if refuse is no_memory:
        assert is_fresh(second), "nothing was acknowledged as shared that it does not know"
    else:
        await until(lambda: facts(second)["stale"])
    await relent(redis_server)
    await all_refuse([second], tokens)
    await well(first, second)
    await is_in_the_store(node, redis_server.url, [*before, *tokens])


async def until_true(condition: Callable[[], bool]) -> None:
    """Wait for a state of a server that is reached through this process."""
    async with asyncio.timeout(PATIENCE):
        while not await asyncio.to_thread(condition):  # noqa: ASYNC110  there is no event to wait for
            await asyncio.sleep(0.02)

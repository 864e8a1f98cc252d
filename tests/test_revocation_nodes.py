"""Revocation on several nodes of one cache: who hears of it, how current each is, and what happens while it is not."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from lifecycle_kit import ask, http_scope, no_task_left, who

from oidc_middleware import OIDC, OIDCMiddleware
from oidc_middleware.clock import SystemClock
from oidc_middleware.core import verify
from oidc_middleware.errors import RevocationNotShared
from oidc_middleware.testing import FakeIssuer

from monitor_kit import monitored
from redis_kit import RedisServer, proxy_of, until

pytestmark = pytest.mark.anyio

MakeNode = Callable[..., OIDC]


@pytest.fixture
def issuer(fake_issuer_factory: Callable[..., FakeIssuer]) -> FakeIssuer:
    return fake_issuer_factory(algorithms=("ES256",))


@pytest.fixture
async def node(issuer: FakeIssuer, tmp_path: Path) -> AsyncIterator[MakeNode]:
    """Make nodes of one service, each on a host of its own; they are stopped in the end."""
    nodes: list[OIDC] = []

    def make(cache: str, **settings: Any) -> OIDC:
        defaults: dict[str, Any] = {
            "issuer": issuer.url,
            "audience": issuer.audience,
            "secret": "s" * 32,
            "journal": tmp_path / f"{len(nodes)}.journal",
        }
        nodes.append(OIDC(cache=cache, transport=issuer.transport(), **(defaults | settings)))
        return nodes[-1]

    yield make
    for oidc in nodes:
        await oidc.stop()


async def status(oidc: OIDC, token: str) -> int:
    return (await ask(OIDCMiddleware(who, oidc=oidc), http_scope(token=token))).status


def facts(oidc: OIDC) -> dict[str, Any]:
    found: dict[str, Any] = oidc.stats()["revocations"]
    return found


def is_fresh(oidc: OIDC) -> bool:
    return facts(oidc)["loaded"] and not facts(oidc)["stale"]


async def refused(oidc: OIDC, token: str) -> None:
    """Wait until a node refuses a token."""
    await until(lambda: oidc.revocations.check(token).status == "revoked")
    assert await status(oidc, token) == 401


async def test_what_one_node_revokes_every_node_refuses(cache: str, node: MakeNode, issuer: FakeIssuer) -> None:
    """C-bl-before-cache: known tokens too, and on nodes that start later."""
    first, second = node(cache), node(cache)
    for kind in ("token", "session", "subject", "client"):
        token = issuer.token(f"subject-{kind}", client_id=f"client-{kind}", claims={"sid": f"session-{kind}"})
        for oidc in (first, second):
            assert await status(oidc, token) == 200
        name = token if kind == "token" else f"{kind}-{kind}"
        assert await getattr(first.revoke, kind)(name) == "shared"
        assert await status(first, token) == 401
        await refused(second, token)
        third = node(cache)
        await third.start()
        await until(lambda third=third: is_fresh(third))
        assert await status(third, token) == 401
        await third.stop()


async def test_a_new_node_is_ready_when_it_has_loaded(cache: str, node: MakeNode) -> None:
    first = node(cache)
    receipts = await asyncio.gather(*(first.revoke.token(jti=f"{number}") for number in range(3_000)))
    assert set(receipts) == {"shared"}
    second = node(cache)
    await second.start()
    assert not second.ready
    await until(lambda: is_fresh(second))
    assert facts(second)["entries"] == 3_000


async def test_nodes_know_how_old_their_knowledge_is(
    node: MakeNode, redis_server: RedisServer, issuer: FakeIssuer
) -> None:
    oidc = node(redis_server.url, max_staleness=2.0)
    token = issuer.token("alice")
    assert await status(oidc, token) == 200
    await until(lambda: is_fresh(oidc))
    assert oidc.revocations.check(token).status == "valid"
    redis_server.stop()
    await until(lambda: facts(oidc)["stale"])
    assert facts(oidc)["staleness"] > 2.0
    assert oidc.revocations.check(token).status == "unknown"
    before = facts(oidc)["allowed_while_stale"]
    assert await status(oidc, token) == 200, "on_stale is allow"
    assert await status(oidc, issuer.token("bob")) == 200
    assert facts(oidc)["allowed_while_stale"] == before + 2
    redis_server.cont()
    await until(lambda: is_fresh(oidc))
    assert oidc.revocations.check(token).status == "valid"
    assert await status(oidc, token) == 200
    assert facts(oidc)["allowed_while_stale"] == before + 2


async def test_whoever_denies_while_it_is_stale(node: MakeNode, redis_server: RedisServer, issuer: FakeIssuer) -> None:
    """Y-partition-one: 503 with Retry-After for whom it does not know to be revoked, 401 for whom it does."""
    oidc = node(redis_server.url, max_staleness=2.0, on_stale="deny")
    await oidc.start()
    await until(lambda: is_fresh(oidc))
    known, revoked = issuer.token("alice"), issuer.token("bob")
    assert await status(oidc, known) == await status(oidc, revoked) == 200
    redis_server.stop()
    assert await oidc.revoke.token(revoked) == "journaled"
    await until(lambda: facts(oidc)["stale"])
    answer = await ask(OIDCMiddleware(who, oidc=oidc), http_scope(token=known))
    assert answer.status == 503
    assert answer.headers["retry-after"] == "5"
    assert await status(oidc, issuer.token("carol")) == 503
    assert await status(oidc, revoked) == 401
    redis_server.cont()
    await until(lambda: is_fresh(oidc))
    assert await status(oidc, known) == 200
    assert await status(oidc, revoked) == 401


async def test_before_the_first_load_nobody_is_let_in_who_denies(
    node: MakeNode, redis_server: RedisServer, issuer: FakeIssuer
) -> None:
    redis_server.kill()
    oidc = node(redis_server.url, on_stale="deny")
    assert await status(oidc, issuer.token("alice")) == 503
    redis_server.start()
    await until(lambda: is_fresh(oidc))
    assert await status(oidc, issuer.token("alice")) == 200


async def test_a_revocation_in_an_outage_holds_here_and_reaches_the_others_later(
    node: MakeNode, redis_server: RedisServer, issuer: FakeIssuer
) -> None:
    first, second = node(redis_server.url), node(redis_server.url)
    token, other = issuer.token("alice"), issuer.token("bob")
    for oidc in (first, second):
        assert await status(oidc, token) == await status(oidc, other) == 200
        await until(lambda oidc=oidc: is_fresh(oidc))
    redis_server.kill()
    assert await first.revoke.token(token) == "journaled"
    with pytest.raises(RevocationNotShared) as lesser:
        await first.revoke.token(other, require="shared")
    assert lesser.value.receipt == "journaled"
    assert await status(first, token) == await status(first, other) == 401
    await first.stop()  # it goes with what only it knows
    redis_server.start()
    again = node(redis_server.url, journal=first.settings.journal)
    await again.start()
    assert await status(again, token) == 401
    for revoked in (token, other):
        await refused(second, revoked)
    await until(lambda: facts(again)["unacknowledged"] == 0)


async def test_without_a_journal_the_receipt_says_so(
    node: MakeNode, redis_server: RedisServer, issuer: FakeIssuer
) -> None:
    first, second = node(redis_server.url, journal=None), node(redis_server.url)
    token = issuer.token("alice")
    assert await status(first, token) == await status(second, token) == 200
    redis_server.kill()
    assert await first.revoke.token(token) == "local"
    redis_server.start()
    await refused(second, token)


async def test_what_the_store_loses_is_written_back(
    node: MakeNode, redis_server: RedisServer, issuer: FakeIssuer
) -> None:
    """C-tamper-delete, Y-flushall: an empty store takes nothing back, and is filled by whoever knows."""
    first, second = node(redis_server.url), node(redis_server.url)
    tokens = [issuer.token(f"user-{number}") for number in range(20)]
    for oidc in (first, second):
        await oidc.start()
        await until(lambda oidc=oidc: is_fresh(oidc))
    for token in tokens:
        assert await first.revoke.token(token) == "shared"
    await refused(second, tokens[-1])
    redis_server.admin.flushall()
    for oidc in (first, second):
        for token in tokens:
            assert await status(oidc, token) == 401
    third = node(redis_server.url)
    await third.start()
    for token in tokens:
        await refused(third, token)


async def test_what_is_lost_while_a_new_node_asks_is_written_back(
    node: MakeNode, redis_server: RedisServer, issuer: FakeIssuer
) -> None:
    """It knows as of when it asked, and the store lost it before it answered: nobody else can tell it but who knows."""
    token = issuer.token("alice")
    async with proxy_of(redis_server) as proxy:
        first, late = node(redis_server.url), node(proxy.url)
        assert await status(first, token) == 200
        await until(lambda: is_fresh(first))
        assert await first.revoke.token(token) == "shared"
        proxy.to_server = 0.1
        await late.start()
        redis_server.admin.flushall()
        await refused(late, token)
        await until(lambda: is_fresh(late))
        assert await status(first, token) == await status(late, token) == 401
        await late.stop()


async def test_other_secrets_are_noticed(
    node: MakeNode, redis_server: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    first, second = node(redis_server.url), node(redis_server.url, secret="o" * 32)
    for oidc in (first, second):
        await oidc.start()
        await until(lambda oidc=oidc: is_fresh(oidc))
    await first.revoke.subject("alice")
    await until(lambda: facts(second)["stale"])
    assert facts(second)["unknown_secrets"] != []
    assert facts(second)["staleness"] is None
    errors = [record.getMessage() for record in caplog.records if record.name == "oidc_middleware.revocation"]
    errors = [message for message in errors if "secret" in message]
    assert len(errors) == 1
    assert "give all nodes the same secrets" in errors[0]


async def test_secrets_rotate_and_nothing_is_forgotten(cache: str, node: MakeNode, issuer: FakeIssuer) -> None:
    old, new = "o" * 32, "n" * 32
    token = issuer.token("alice")
    first = node(cache, secret=[old])
    assert await first.revoke.token(token) == "shared"
    await first.stop()
    for secret in ([old, new], [new, old]):
        oidc = node(cache, secret=secret)
        await oidc.start()
        await until(lambda oidc=oidc: is_fresh(oidc))
        assert await status(oidc, token) == 401
        await oidc.stop()


async def test_a_caller_that_is_cancelled_takes_nothing_back(
    node: MakeNode, redis_server: RedisServer, issuer: FakeIssuer
) -> None:
    first, second = node(redis_server.url), node(redis_server.url)
    token = issuer.token("alice")
    assert await status(first, token) == await status(second, token) == 200
    await until(lambda: is_fresh(first) and is_fresh(second))
    task = asyncio.create_task(first.revoke.token(issuer=issuer.url, jti=jti_of(token)))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await status(first, token) == 401
    await refused(second, token)


async def test_no_request_asks_the_store(node: MakeNode, redis_server: RedisServer, issuer: FakeIssuer) -> None:
    """What is revoked is known from memory, and what is not as well: Redis hears of followers, and nothing else."""
    first, second = node(redis_server.url), node(redis_server.url)
    assert await status(first, issuer.token("alice")) == await status(second, issuer.token("alice")) == 200
    await until(lambda: is_fresh(first) and is_fresh(second))
    revoked, tokens = issuer.token("mallory"), [issuer.token(f"user-{number}") for number in range(200)]
    await first.revoke.token(revoked)
    await refused(second, revoked)
    with monitored(redis_server) as monitor:
        for token in [*tokens, *tokens, *tokens]:
            assert await status(second, token) == 200
            assert await status(second, revoked) == 401
        said = {line.split(b'"')[1].upper() for line in (await monitor.all()).splitlines() if b'"' in line}
    followers = {b"EVALSHA", b"ZREM", b"ZRANGE", b"XREAD", b"XRANGE", b"PING", b"INFO", b"HELLO", b"CLIENT"}
    assert said <= {*followers, b"ECHO"}


async def test_what_is_revoked_cannot_be_read_in_the_store(
    node: MakeNode, redis_server: RedisServer, issuer: FakeIssuer
) -> None:
    """C-plaintext."""
    token = issuer.token("mallory", client_id="the-client", claims={"sid": "the-session", "jti": "the-token"})
    oidc = node(redis_server.url)
    with monitored(redis_server) as monitor:
        for kind, name in {
            "token": token,
            "session": "the-session",
            "subject": "mallory",
            "client": "the-client",
        }.items():
            assert await getattr(oidc.revoke, kind)(name) == "shared"
        heard = await monitor.all()
    assert heard.count(b"{log}:ledger") > 4
    for word in (b"the-", b"mallory", issuer.url.encode(), *token.encode().split(b".")):
        assert word not in heard


class Skewed(SystemClock):
    """The clock of a machine that is ahead of the others by some seconds, or behind."""

    def __init__(self, seconds: float) -> None:
        self.now = lambda: time.time() + seconds


@pytest.mark.parametrize("skew", [90.0, -90.0, 120.0, -120.0], ids=lambda skew: f"C-clock Y-skew {skew:+.0f}s")
async def test_clocks_that_differ_take_nothing_back(
    skew: float, cache: str, node: MakeNode, issuer: FakeIssuer
) -> None:
    """What a node with a wrong clock revokes holds everywhere, and what others revoke holds there."""
    right, wrong = node(cache), node(cache, clock=Skewed(skew))
    now = time.time()
    lives = {"iat": now - 200, "exp": now + 200}
    first, second = (issuer.token(name, claims={**lives, "jti": name}) for name in ("alice", "bob"))
    for oidc in (right, wrong):
        assert await status(oidc, first) == await status(oidc, second) == 200
        await until(lambda oidc=oidc: is_fresh(oidc))
    assert await wrong.revoke.token(first) == "shared"
    assert await right.revoke.subject("bob") == "shared"
    for oidc in (right, wrong):
        await refused(oidc, first)
        await refused(oidc, second)
    late = node(cache)
    await late.start()
    await until(lambda: is_fresh(late))
    assert await status(late, first) == await status(late, second) == 401


async def test_it_stops_and_starts_again(cache: str, node: MakeNode, issuer: FakeIssuer) -> None:
    oidc, other = node(cache), node(cache)
    tokens = [issuer.token(f"user-{number}") for number in range(3)]
    for token in tokens:
        async with no_task_left(), oidc:
            await until(lambda: is_fresh(oidc))
            assert await oidc.revoke.token(token) == "shared"
            assert await status(oidc, token) == 401
    for token in tokens:
        assert await status(other, token) == 401
    assert await other.revoke.token(jti="another") == "shared"
    async with oidc:
        await until(lambda: oidc.revocations.check(jti="another").status == "revoked")


def jti_of(token: str) -> str:
    return str(verify.read(token.encode()).claims["jti"])

"""Tenants on two nodes that share a cache, and resolved issuers over real sockets: nobody passes for another."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from oidc_middleware import OIDC, Issuer
from oidc_middleware.testing import FakeIssuer, ManualClock

from abuse.door import Door, is_503
from abuse.signing import AUDIENCE, NOW, Signer
from redis_kit import until
from tenants_kit import COMMON, ONE, TEMPLATE, TWO, Documents, common, issuer_of, refusal, token_of

pytestmark = pytest.mark.anyio

MakeNode = Callable[..., Door]


@pytest.fixture(scope="module")
def signer() -> Signer:
    return Signer()


@pytest.fixture(scope="module")
def other() -> Signer:
    return Signer()


@pytest.fixture
async def node(cache: str, tmp_path: Path, patient_tiers: None) -> AsyncIterator[MakeNode]:
    """Make nodes of one service; they are stopped in the end."""
    nodes: list[OIDC] = []

    def make(documents: Documents, **settings: Any) -> Door:
        usual: dict[str, Any] = {"issuer": TEMPLATE, "audience": AUDIENCE, "tenants": [ONE, TWO]}
        clock = ManualClock(NOW)
        shared = {
            "cache": cache,
            "secret": "s" * 32,
            "journal": tmp_path / f"{len(nodes)}.journal",
            "share_tokens": "always",
        }
        nodes.append(OIDC(clock=clock, transport=documents, **(usual | shared | settings)))
        return Door.before(nodes[-1], clock)

    yield make
    for oidc in nodes:
        await oidc.stop()
        await oidc.caches.close()


@pytest.mark.parametrize("tenants", [[ONE, TWO], ["*"]], ids=["listed", "any"])
async def test_what_one_node_verified_is_of_that_tenant_on_the_other(
    tenants: list[str], node: MakeNode, signer: Signer, other: Signer
) -> None:
    """Both tenants sign under the same `kid`, and both nodes share every verdict, with each other and for both."""
    documents = Documents()
    documents.publish(issuer_of(ONE), signer.jwks())
    documents.publish(issuer_of(TWO), other.jwks())
    first, second = node(documents, tenants=tenants), node(documents, tenants=tenants)
    good = {ONE: token_of(signer, ONE), TWO: token_of(other, TWO)}
    swapped = {ONE: token_of(other, ONE), TWO: token_of(signer, TWO)}
    for door in (first, second):
        for tenant in (ONE, TWO):
            answer = await door.ask(token=good[tenant])
            assert answer.seen is not None
            assert answer.seen["user"].issuer == issuer_of(tenant)
            assert str(await refusal(door, swapped[tenant])).startswith("bad_signature")
            assert (await refusal(door, token_of(signer, ONE, claims={"tid": TWO})) or "").startswith("claim: tid")


async def test_a_verdict_of_another_node_is_for_the_very_token(node: MakeNode, signer: Signer) -> None:
    """The second node reaches nobody: it lives on what the first one shares, and that is about one tenant's token."""
    first, second = node(common(signer.jwks()), discovery_url=COMMON), node(Documents(), discovery_url=COMMON)
    token = token_of(signer, ONE)
    assert await refusal(first, token) is None
    documents = Documents()
    alone = node(documents, jwks_uri="https://elsewhere.example/keys", discovery_url=None)
    assert is_503(await alone.ask(token=token)), "verdicts under other keys say nothing"
    assert await refusal(second, token) is None
    forged = token.rpartition(".")[0] + "." + token_of(signer, TWO).rpartition(".")[2]
    assert str(await refusal(second, forged)).startswith("bad_signature")


async def test_a_revocation_of_one_tenant_holds_everywhere_and_for_it_alone(node: MakeNode, signer: Signer) -> None:
    settings: dict[str, Any] = {"tenants": ["*"], "discovery_url": COMMON}
    first, second = node(common(signer.jwks()), **settings), node(common(signer.jwks()), **settings)
    tokens = {tenant: token_of(signer, tenant) for tenant in (ONE, TWO)}
    for door in (first, second):
        await door.oidc.start()
        await until(lambda door=door: door.oidc.ready)
        assert [(await door.ask(token=token)).status for token in tokens.values()] == [200, 200]
    await first.oidc.revoke.subject("alice", issuer=issuer_of(ONE), require="shared")
    await until(lambda: second.oidc.revocations.check(tokens[ONE]).status == "revoked")
    for door in (first, second):
        assert [(await door.ask(token=token)).status for token in tokens.values()] == [401, 200]


async def test_issuers_of_customers_over_real_sockets(fake_issuer_factory: Callable[..., FakeIssuer]) -> None:
    """Two served issuers that nobody configured, of which one becomes a customer."""
    one, two = fake_issuer_factory(algorithms=("ES256",)), fake_issuer_factory(algorithms=("ES256",))
    customers: dict[str, Issuer] = {}

    async def issuer_resolver(iss: str) -> Issuer | None:
        return customers.get(iss)

    async with OIDC(issuer_resolver=issuer_resolver) as oidc, one.serve(), two.serve():
        door = Door.before(oidc, ManualClock(NOW))
        assert (await door.ask(token=one.token())).status == 401
        customers[two.url] = Issuer(issuer=two.url, audience=two.audience)
        answers = await asyncio.gather(*(door.ask(token=two.token(f"u{n}")) for n in range(40)))
        assert {answer.status for answer in answers} == {200}
        assert (two.requests["jwks"], one.requests["jwks"]) == (1, 0)
        assert (await door.ask(token=one.token())).status == 401
        assert (await door.ask(token=one.token(claims={"iss": two.url}))).status == 401
        assert two.requests["jwks"] == 2, "a key that nobody knows is looked for once"
        assert oidc.stats()["resolved_issuers"]["issuer_resolver"]["issuers"] == 1

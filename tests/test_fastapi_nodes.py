"""The dependencies on several nodes: what one revokes, an app without the middleware refuses on another."""

# ruff: noqa: B008, FAST002  an annotation is a string here, and cannot name a fixture
from __future__ import annotations

from collections.abc import Callable
from contextlib import AsyncExitStack
from pathlib import Path

import httpx2
import pytest
from fastapi import Depends, FastAPI

from oidc_middleware import OIDC, Principal
from oidc_middleware.fastapi import OIDCAuth
from oidc_middleware.testing import FakeIssuer

from redis_kit import RedisServer, until

pytestmark = pytest.mark.anyio

SECRET = "s" * 32


@pytest.mark.parametrize("store", ["redis", "sqlite"])
async def test_what_another_node_revokes_is_refused(
    store: str,
    fake_issuer_factory: Callable[..., FakeIssuer],
    request: pytest.FixtureRequest,
    tmp_path: Path,
    patient_tiers: None,
) -> None:
    issuer = fake_issuer_factory(algorithms=("ES256",))
    url = f"sqlite:///{tmp_path}/cache.sqlite"
    if store == "redis":
        server: RedisServer = request.getfixturevalue("redis_server")
        url = server.url

    def node() -> OIDC:
        return OIDC(
            issuer=issuer.url,
            audience=issuer.audience,
            cache=url,
            secret=SECRET,
            journal=None,
            transport=issuer.transport(),
        )

    auth, other, app = OIDCAuth(oidc=node()), node(), FastAPI()

    @app.get("/me")
    async def me(user: Principal = Depends(auth.current_user)) -> str:
        return user.subject or ""

    async with AsyncExitStack() as stack:
        await stack.enter_async_context(auth.oidc)
        await stack.enter_async_context(other)
        transport = httpx2.ASGITransport(app)
        http = httpx2.AsyncClient(transport=transport, base_url="http://test", trust_env=False)
        await stack.enter_async_context(http)

        async def ask(token: str) -> int:
            return (await http.get("/me", headers={"Authorization": f"Bearer {token}"})).status_code

        alice, bob = issuer.token("alice"), issuer.token("bob")
        assert [await ask(alice), await ask(bob)] == [200, 200]
        await until(lambda: auth.oidc.revocations.staleness is not None)

        assert await other.revoke.subject("alice", issuer=issuer.url) == "shared"

        await until(lambda: auth.oidc.stats()["revocations"]["entries"] > 0)
        assert [await ask(alice), await ask(bob)] == [401, 200]

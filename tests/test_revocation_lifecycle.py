"""Revocation while the service stops, starts again, or loses its event loop: nobody waits in vain, nothing breaks."""

from __future__ import annotations

import asyncio
import sqlite3
import subprocess
import sys
from collections.abc import Awaitable, Callable
from contextlib import closing
from functools import partial
from pathlib import Path
from random import Random
from typing import Any

import pytest
from lifecycle_kit import ask, http_scope, no_task_left, who

from oidc_middleware import OIDC, OIDCMiddleware
from oidc_middleware.auth.revocation import keeper
from oidc_middleware.auth.revocation.lanes import Lanes
from oidc_middleware.auth.revocation.receipt import Receipt
from oidc_middleware.core.replica import events
from oidc_middleware.testing import FakeIssuer

from redis_kit import RedisServer, until

SECONDS = 20


@pytest.fixture
def oidc(fake_issuer_factory: Callable[..., FakeIssuer], tmp_path: Path) -> OIDC:
    issuer = fake_issuer_factory(algorithms=("ES256",))
    return OIDC(
        issuer=issuer.url,
        audience=issuer.audience,
        cache=f"sqlite:///{tmp_path}/cache.sqlite",
        secret="s" * 32,
        transport=issuer.transport(),
    )


async def after(turns: int, call: Callable[[], Awaitable[Any]]) -> Any:
    for _ in range(turns):
        await asyncio.sleep(0)
    async with asyncio.timeout(SECONDS):
        return await call()


@pytest.mark.anyio
@pytest.mark.parametrize("seed", range(8))
async def test_who_revokes_while_it_stops_is_answered(oidc: OIDC, seed: int) -> None:
    """A call that finds it stopped starts it again, whatever of the stop is still under way."""
    random = Random(seed)
    async with no_task_left():
        await oidc.start()
        for turn in range(5):
            calls: list[Callable[[], Awaitable[Any]]] = [
                *(partial(oidc.revoke.session, f"{turn}-{each}") for each in range(20)),
                oidc.stop,
                oidc.stop,
            ]
            done = await asyncio.gather(*(after(random.randrange(40), call) for call in calls))
            assert set(done[:20]) <= set(Receipt)
            assert await oidc.revoke.session("last") == "shared"
        while oidc.started:
            await oidc.stop()


_CLOSED_IN_THE_MIDDLE = """
import asyncio, sys
from oidc_middleware import OIDC

oidc = OIDC(issuer="https://login.example", audience="api", cache=sys.argv[1], secret="s" * 32)

async def begin():
    await oidc.start()
    calls = [asyncio.ensure_future(oidc.revoke.session(f"{number}")) for number in range(50)]
    await asyncio.sleep(0)
    return calls

async def go_on():
    async with asyncio.timeout(20), oidc:
        assert await oidc.revoke.session("last") == "shared"
        facts = oidc.stats()["revocations"]
        print(facts["entries"], facts["unacknowledged"])

loop = asyncio.new_event_loop()
calls = loop.run_until_complete(begin())
loop.close()
asyncio.run(go_on())
"""


def test_a_loop_that_was_closed_in_the_middle_of_revocations(tmp_path: Path) -> None:
    """Who waited there cannot be told any more; what they revoked holds, and gets to the store from the next loop."""
    command = [sys.executable, "-c", _CLOSED_IN_THE_MIDDLE, f"sqlite:///{tmp_path}/cache.sqlite"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.stdout == "51 0\n", done.stderr


@pytest.mark.anyio
async def test_each_command_is_answered_once(oidc: OIDC) -> None:
    """Also one that is cancelled and does not end at once, while others have begun already."""
    answers: list[events.Event] = []

    class Slow:
        async def look(self) -> None:
            try:
                await asyncio.Event().wait()
            finally:
                await asyncio.sleep(0.01)

        async def aclose(self) -> None:
            """Close nothing."""

    lanes = Lanes(Slow(), None, answers.append)  # type: ignore[arg-type]
    lanes.start()
    lanes.do(events.Look())
    await asyncio.sleep(0)
    stopping = asyncio.ensure_future(lanes.stop())
    await asyncio.sleep(0)
    assert answers == [events.LookFailed()]
    lanes.start()
    lanes.do(events.Look())
    await stopping
    assert lanes.is_running
    assert answers == [events.LookFailed()]
    await lanes.stop()
    assert answers == [events.LookFailed()] * 2


@pytest.mark.anyio
async def test_what_the_store_has_is_in_the_journal_when_it_has_stopped(
    fake_issuer_factory: Callable[..., FakeIssuer], redis_server: RedisServer, tmp_path: Path
) -> None:
    """Many at once are written to the journal behind the receipts; a stop waits for that."""
    issuer = fake_issuer_factory(algorithms=("ES256",))
    given: dict[str, Any] = {"issuer": issuer.url, "audience": issuer.audience, "transport": issuer.transport()}
    journal = tmp_path / "journal"
    async with OIDC(cache=redis_server.url, secret="s" * 32, journal=journal, **given) as oidc:
        await asyncio.gather(*(oidc.revoke.session(f"{number}") for number in range(3000)))
    with closing(sqlite3.connect(journal)) as db:
        assert db.execute("SELECT count(*) FROM records").fetchone() == (3000,)


@pytest.mark.anyio
async def test_a_journal_that_takes_nothing_does_not_hold_the_stop(
    fake_issuer_factory: Callable[..., FakeIssuer],
    redis_server: RedisServer,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(keeper, "_DRAIN", 10 * SECONDS)
    issuer = fake_issuer_factory(algorithms=("ES256",))
    given: dict[str, Any] = {"issuer": issuer.url, "audience": issuer.audience, "transport": issuer.transport()}
    oidc = OIDC(cache=redis_server.url, secret="s" * 32, journal=tmp_path, **given)
    await oidc.start()
    await until(lambda: oidc.stats()["revocations"]["journal"] != "ok")
    await asyncio.gather(*(oidc.revoke.session(f"{number}") for number in range(3000)))
    async with asyncio.timeout(SECONDS):
        await oidc.stop()


def test_a_known_token_on_another_loop_starts_what_follows_the_store(
    fake_issuer_factory: Callable[..., FakeIssuer], tmp_path: Path
) -> None:
    """Known tokens need nobody: for a minute they were let in while nothing heard what others revoke."""
    issuer = fake_issuer_factory(algorithms=("ES256",))
    given: dict[str, Any] = {"issuer": issuer.url, "audience": issuer.audience, "transport": issuer.transport()}
    one, other = (OIDC(cache=f"sqlite:///{tmp_path}/cache.sqlite", secret="s" * 32, **given) for _ in range(2))
    token = issuer.token("alice")

    async def asked() -> int:
        return (await ask(OIDCMiddleware(who, oidc=one), http_scope(token=token))).status

    async def asked_when_it_is_loaded() -> int:
        await one.start()
        await until(lambda: one.ready)
        return await asked()

    async def revoked_by_another() -> None:
        async with other:
            assert await other.revoke.token(token) == "shared"

    async def refused() -> None:
        await asked()
        assert one.started
        await until(lambda: one.revocations.check(token).status == "revoked")
        assert await asked() == 401
        await one.stop()
        assert not one.started

    assert asyncio.run(asked_when_it_is_loaded()) == 200
    asyncio.run(revoked_by_another())
    asyncio.run(refused())

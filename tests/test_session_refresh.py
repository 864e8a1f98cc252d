"""New access tokens for sessions: one exchange, whoever asks; and what becomes of a session when it fails."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import urlsplit

import pytest

from oidc_middleware import OIDC, Rule
from oidc_middleware.errors import ProviderInvalid
from oidc_middleware.session.sessions import Sessions
from oidc_middleware.testing import FakeIssuer, ManualClock, faults

from abuse.door import Answer, Door, is_503
from redis_kit import until
from session_kit import FETCH, LOGIN, NAME, NAVIGATION, Browser, at_issuer, browser_of, door_of, know_the_app

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("patient_tiers")]

LIFE = 300
"""Seconds that an access token of the fake issuer lives."""
AHEAD = 60


@pytest.fixture
def door(fake_issuer: FakeIssuer) -> Door:
    return door_of(fake_issuer)


def exchanges(issuer: FakeIssuer) -> int:
    return issuer.token_requests["refresh_token"]


def sessions_of(door: Door) -> Sessions:
    assert door.oidc.sessions is not None
    return door.oidc.sessions


async def record_of(door: Door, browser: Browser) -> Any:
    """Return what the session holds now."""
    known = await sessions_of(door).find(f"{NAME}={browser.cookie}".encode())
    assert known is not None
    return known.record


async def token_of(browser: Browser) -> str:
    answer = await browser.ask(headers=FETCH)
    assert answer.seen is not None, answer
    return str(answer.seen["user"].token)


async def is_over(browser: Browser) -> bool:
    """Tell whether a session is dead, without a loop: 401 for what fetches, the login for who goes there."""
    cookie = browser.cookie
    statuses = [(await browser.ask(headers=FETCH)).status for _ in range(2)]
    assert statuses in ([200, 200], [401, 401])
    if statuses == [401, 401]:
        begun = await browser.ask(headers=NAVIGATION)
        assert (begun.status, NAME in browser.jar) == (302, False)
        browser.jar[NAME] = cookie
    return statuses == [401, 401]


# ----------------------------------------------------------------------------------------------------- one exchange


async def test_twenty_at_once_on_one_node(door: Door, fake_issuer: FakeIssuer, oidc_clock: ManualClock) -> None:
    """Z-refresh-race: the issuer detects a refresh token that comes twice, and ends everything then."""
    browser = await browser_of(door, fake_issuer)
    old = (await record_of(door, browser)).refresh_token
    oidc_clock.advance(LIFE + 1)

    answers = await asyncio.gather(*(browser.ask(headers=FETCH) for _ in range(20)))

    assert [answer.status for answer in answers] == [200] * 20
    assert exchanges(fake_issuer) == 1
    tokens = {answer.seen["user"].token for answer in answers if answer.seen is not None}
    assert len(tokens) == 1
    record = await record_of(door, browser)
    assert record.refresh_token != old
    assert not fake_issuer.grants.refresh[record.refresh_token].used
    assert fake_issuer.read(tokens.pop()) is not None


@asynccontextmanager
async def three_nodes(cache: str, issuer: FakeIssuer, clock: ManualClock, **settings: Any) -> AsyncIterator[list[Door]]:
    """Run three nodes of one service over a store."""
    know_the_app(issuer)
    given = {"issuer": issuer.url, "audience": issuer.audience, "secret": "s" * 32, "journal": None, **LOGIN}
    services = [OIDC(cache=cache, clock=clock, transport=issuer.transport(), **(given | settings)) for _ in range(3)]
    for service in services:
        await service.start()
    try:
        yield [Door.before(service, clock) for service in services]
    finally:
        for service in services:
            await service.stop()


def at(door: Door, browser: Browser) -> Browser:
    """Return the same browser before another node."""
    other = Browser(door, browser.issuer)
    other.jar = browser.jar
    return other


async def test_twenty_at_once_on_three_nodes(cache: str, fake_issuer: FakeIssuer, oidc_clock: ManualClock) -> None:
    """Z-refresh-race, over the stores that nodes share."""
    async with three_nodes(cache, fake_issuer, oidc_clock) as doors:
        browser = await browser_of(doors[0], fake_issuer)
        assert [(await at(door, browser).ask(headers=FETCH)).status for door in doors] == [200] * 3

        for turn in (1, 2):
            oidc_clock.advance(LIFE + 1)
            asked = [at(doors[number % 3], browser).ask(headers=FETCH) for number in range(20)]
            answers = await asyncio.gather(*asked)

            assert [answer.status for answer in answers] == [200] * 20
            assert exchanges(fake_issuer) == turn
            assert len({answer.seen["user"].token for answer in answers if answer.seen is not None}) == 1
        records = [await record_of(door, browser) for door in doors]
        assert len({record.refresh_token for record in records}) == 1
        assert not fake_issuer.grants.refresh[records[0].refresh_token].used


async def test_ahead_of_the_end_nobody_waits(door: Door, fake_issuer: FakeIssuer, oidc_clock: ManualClock) -> None:
    browser = await browser_of(door, fake_issuer)
    first = await token_of(browser)
    release = asyncio.Event()
    fake_issuer.fault("token", faults.held(release))
    oidc_clock.advance(LIFE - AHEAD + 1)

    assert [await token_of(browser) for _ in range(20)] == [first] * 20

    release.set()
    header = f"{NAME}={browser.cookie}".encode()
    await until(lambda: sessions_of(door).lookup(header) is None)  # what was known is out of date
    assert await token_of(browser) != first
    assert exchanges(fake_issuer) == 1


async def test_tokens_that_live_for_less_than_the_time_ahead_are_not_renewed_all_the_time(
    door: Door, fake_issuer: FakeIssuer, oidc_clock: ManualClock
) -> None:
    fake_issuer.expires_in = 40
    browser = await browser_of(door, fake_issuer)

    for _ in range(3):
        oidc_clock.advance(6)
        assert (await browser.ask()).status == 200
    assert exchanges(fake_issuer) == 0
    oidc_clock.advance(6)
    assert (await browser.ask()).status == 200
    await until(lambda: exchanges(fake_issuer) == 1)


async def test_an_issuer_that_gives_the_same_token_again(
    cache: str, fake_issuer: FakeIssuer, oidc_clock: ManualClock
) -> None:
    """Z-refresh-race: a node that waited sees that it lives for longer."""
    fake_issuer.token_overrides = {"access_token": "always-the-same"}
    fake_issuer.id_token_shape = {"omit": ("at_hash",)}
    async with three_nodes(cache, fake_issuer, oidc_clock, userinfo=False) as doors:
        browser = await browser_of(doors[0], fake_issuer)
        oidc_clock.advance(LIFE + 1)

        answers = await asyncio.gather(*(at(door, browser).ask(headers=FETCH) for door in doors * 4))

        assert [answer.status for answer in answers] == [200] * 12
        assert exchanges(fake_issuer) == 1


async def test_whoever_is_cancelled_takes_nobody_along(
    door: Door, fake_issuer: FakeIssuer, oidc_clock: ManualClock
) -> None:
    browser = await browser_of(door, fake_issuer)
    release = asyncio.Event()
    fake_issuer.fault("token", faults.held(release))
    oidc_clock.advance(LIFE + 1)
    first, *others = (asyncio.create_task(browser.ask(headers=FETCH)) for _ in range(5))
    await until(lambda: exchanges(fake_issuer) == 1)

    first.cancel()
    release.set()

    assert [answer.status for answer in await asyncio.gather(*others)] == [200] * 4
    assert exchanges(fake_issuer) == 1


async def test_a_stop_waits_for_an_exchange(cache: str, fake_issuer: FakeIssuer, oidc_clock: ManualClock) -> None:
    """Z-refresh-crash: a deployment is no crash, the next node has what the issuer gave."""
    async with three_nodes(cache, fake_issuer, oidc_clock) as doors:
        browser = await browser_of(doors[0], fake_issuer)
        release = asyncio.Event()
        fake_issuer.fault("token", faults.held(release))
        oidc_clock.advance(LIFE - AHEAD + 1)
        assert (await browser.ask(headers=FETCH)).status == 200
        await until(lambda: exchanges(fake_issuer) == 1)

        stopping = asyncio.create_task(doors[0].oidc.stop())
        await asyncio.sleep(0)
        release.set()
        await stopping

        oidc_clock.advance(AHEAD + 1)
        assert (await at(doors[1], browser).ask(headers=FETCH)).status == 200
        assert exchanges(fake_issuer) == 1


# --------------------------------------------------------------------------------------------------- when it fails


async def test_a_log_out_wins_over_a_late_answer(door: Door, fake_issuer: FakeIssuer, oidc_clock: ManualClock) -> None:
    """Z-refresh-late: and the issuer gets back what it gave (RFC 7009)."""
    browser = await browser_of(door, fake_issuer)
    known = await sessions_of(door).find(f"{NAME}={browser.cookie}".encode())
    assert known is not None
    release = asyncio.Event()
    fake_issuer.fault("token", faults.held(release))
    oidc_clock.advance(LIFE + 1)
    asked = asyncio.create_task(browser.ask(headers=FETCH))
    await until(lambda: exchanges(fake_issuer) == 1)

    await sessions_of(door).end(known)
    release.set()

    assert (await asked).status == 401
    assert await is_over(browser)
    assert await door.oidc.caches.session.get(known.cookie.store_key) is None
    assert all(token.grant.ended for token in fake_issuer.grants.refresh.values())


async def test_a_log_out_on_another_node_wins_too(cache: str, fake_issuer: FakeIssuer, oidc_clock: ManualClock) -> None:
    """Z-refresh-late."""
    async with three_nodes(cache, fake_issuer, oidc_clock) as doors:
        browser = await browser_of(doors[0], fake_issuer)
        known = await sessions_of(doors[1]).find(f"{NAME}={browser.cookie}".encode())
        assert known is not None
        release = asyncio.Event()
        fake_issuer.fault("token", faults.held(release))
        oidc_clock.advance(LIFE + 1)
        asked = asyncio.create_task(browser.ask(headers=FETCH))
        await until(lambda: exchanges(fake_issuer) == 1)

        await sessions_of(doors[1]).end(known)
        await until(lambda: doors[0].oidc.stats()["revocations"]["entries"] == 1)
        release.set()

        assert (await asked).status == 401
        for door in doors:
            assert await is_over(at(door, browser))


async def test_invalid_grant_ends_the_session(door: Door, fake_issuer: FakeIssuer, oidc_clock: ManualClock) -> None:
    """Z-refresh-invalid-grant: for good, also when the issuer takes it again later."""
    browser = await browser_of(door, fake_issuer)
    refresh_token = (await record_of(door, browser)).refresh_token
    fake_issuer.grants.revoke(refresh_token)
    oidc_clock.advance(LIFE + 1)

    assert await is_over(browser)

    assert exchanges(fake_issuer) == 1
    fake_issuer.grants.refresh[refresh_token].grant.ended = False
    assert await is_over(browser)
    assert exchanges(fake_issuer) == 1


async def test_invalid_grant_ahead_of_the_end_ends_it_too(
    door: Door, fake_issuer: FakeIssuer, oidc_clock: ManualClock
) -> None:
    """Z-refresh-invalid-grant: the user was locked out, or signed out everywhere at the issuer."""
    browser = await browser_of(door, fake_issuer)
    fake_issuer.grants.revoke((await record_of(door, browser)).refresh_token)
    oidc_clock.advance(LIFE - AHEAD + 1)

    assert (await browser.ask(headers=FETCH)).status == 200

    await until(lambda: door.oidc.stats()["revocations"]["entries"] == 1)
    assert await is_over(browser)


FAULTS: dict[str, Callable[[], faults.Fault]] = {
    "500": lambda: faults.status(500),
    "503": lambda: faults.status(503),
    "cut": faults.down,
    "garbage": faults.garbage,
    "HTML": faults.content_type,
}


@pytest.mark.parametrize("fault", [pytest.param(each, id=name) for name, each in FAULTS.items()])
async def test_an_issuer_that_is_down_ends_nothing(
    door: Door, fake_issuer: FakeIssuer, oidc_clock: ManualClock, fault: Callable[[], faults.Fault]
) -> None:
    """Z-refresh-invalid-grant: while the access token lives all is as it was, then it is 503, never 401."""
    browser = await browser_of(door, fake_issuer)
    first = await token_of(browser)
    fake_issuer.rotates_refresh_tokens = False  # where the issuer did its work the old token is used up: see below
    fake_issuer.fault("token", fault())
    oidc_clock.advance(LIFE - 1)
    assert await token_of(browser) == first

    oidc_clock.advance(1)
    for headers in (FETCH, NAVIGATION):
        assert is_503(await browser.ask(headers=headers))
    assert NAME in browser.jar

    fake_issuer.heal()
    oidc_clock.advance(5)
    assert await token_of(browser) != first


async def test_an_exchange_that_takes_too_long(
    door: Door, fake_issuer: FakeIssuer, oidc_clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Z-refresh-invalid-grant: time-out. The issuer has used the refresh token up, so in the end there is a login."""
    monkeypatch.setattr(door.oidc.providers[fake_issuer.url].http, "_deadline", 0.2)
    browser = await browser_of(door, fake_issuer)
    fake_issuer.fault("token", faults.held(asyncio.Event()), times=1)
    oidc_clock.advance(LIFE + 1)

    assert is_503(await browser.ask(headers=FETCH))

    assert await is_over(browser)  # the token of before came again, which the issuer takes for theft


@pytest.mark.parametrize(
    "claims",
    [
        pytest.param({"sub": "mallory"}, id="sub"),
        pytest.param({"iss": "https://other.example"}, id="iss"),
        pytest.param({"aud": "another"}, id="aud"),
        pytest.param({"nonce": "another"}, id="nonce"),
        pytest.param({"auth_time": 1}, id="older auth_time"),
        pytest.param({"azp": "another"}, id="azp"),
        pytest.param({"at_hash": "AAAAAAAAAAAAAAAAAAAAAA"}, id="at_hash"),
    ],
)
async def test_an_id_token_of_somebody_else_ends_the_session(
    door: Door, fake_issuer: FakeIssuer, oidc_clock: ManualClock, claims: dict[str, Any]
) -> None:
    """Z-refresh-sub."""
    browser = await browser_of(door, fake_issuer)
    fake_issuer.id_token_shape = {"claims": claims}
    oidc_clock.advance(LIFE + 1)

    assert await is_over(browser)

    assert exchanges(fake_issuer) == 1


async def test_an_id_token_without_nonce_is_fine(door: Door, fake_issuer: FakeIssuer, oidc_clock: ManualClock) -> None:
    """Z-refresh-sub: OpenID Connect Core §12.2 says that it should have none."""
    browser = await browser_of(door, fake_issuer)
    fake_issuer.id_token_shape = {"omit": ("nonce",)}
    oidc_clock.advance(LIFE + 1)

    assert (await browser.ask(headers=FETCH)).status == 200


async def test_a_refreshed_id_token_without_sid_leaves_the_session_at_the_issuer_as_it_is(
    door: Door, fake_issuer: FakeIssuer, oidc_clock: ManualClock
) -> None:
    """B-ok-sid: what the issuer ends by that name still ends."""
    browser = await browser_of(door, fake_issuer)
    before = (await browser.ask()).seen
    assert before is not None
    fake_issuer.id_token_shape = {"omit": ("sid",)}
    oidc_clock.advance(LIFE + 1)

    after = (await browser.ask()).seen

    assert after is not None
    assert after["user"].sid == before["user"].sid is not None
    await door.oidc.revoke.session(after["user"].sid)
    assert await is_over(browser)


async def test_a_refresh_without_id_token_keeps_who_it_is(
    door: Door, fake_issuer: FakeIssuer, oidc_clock: ManualClock
) -> None:
    browser = await browser_of(door, fake_issuer)
    before = await record_of(door, browser)
    fake_issuer.token_overrides = {"id_token": None}
    oidc_clock.advance(LIFE + 1)

    assert (await browser.ask(headers=FETCH)).status == 200

    after = await record_of(door, browser)
    assert (after.claims, after.id_token) == (before.claims, before.id_token)
    assert after.access_token != before.access_token


async def test_new_claims_are_in_force_and_the_login_stays_when_it_was(
    door: Door, fake_issuer: FakeIssuer, oidc_clock: ManualClock
) -> None:
    fake_issuer.users["alice"] = {"groups": ["staff", "admins"]}
    browser = await browser_of(door, fake_issuer)
    before = (await browser.ask()).seen
    assert before is not None
    fake_issuer.users["alice"] = {"groups": ["staff"]}
    oidc_clock.advance(LIFE + 1)

    after = (await browser.ask()).seen

    assert after is not None
    assert (before["user"].groups, after["user"].groups) == ({"staff", "admins"}, {"staff"})
    for claim in ("iat", "auth_time", "nonce", "sid", "jti"):
        assert after["user"].claims.get(claim) == before["user"].claims.get(claim), claim
    await door.oidc.revoke.subject("alice", issued_before=before["user"].claims["iat"])
    assert await is_over(browser)  # a cut-off goes by the login, not by the last refresh


async def test_a_role_that_the_id_token_no_longer_has_is_gone(
    door: Door, fake_issuer: FakeIssuer, oidc_clock: ManualClock
) -> None:
    fake_issuer.users["alice"] = {"groups": ["staff"], "roles": ["admin"]}
    browser = await browser_of(door, fake_issuer)
    before = (await browser.ask()).seen
    fake_issuer.users["alice"] = {"groups": ["staff"]}
    oidc_clock.advance(LIFE + 1)

    after = (await browser.ask()).seen

    assert before is not None
    assert after is not None
    assert (before["user"].roles, after["user"].roles) == ({"admin"}, frozenset())
    assert after["user"].groups == {"staff"}
    assert after["user"].sid == before["user"].sid


async def test_a_login_that_replaces_a_session_renews_nothing_of_it(
    door: Door, fake_issuer: FakeIssuer, oidc_clock: ManualClock
) -> None:
    """Z-fixation: the old one ends, and nobody waits for new tokens of it."""
    browser = await browser_of(door, fake_issuer)
    old, before = browser.cookie, exchanges(fake_issuer)
    oidc_clock.advance(LIFE + 1)

    begun = await browser.ask("/oauth2/start", headers=NAVIGATION)
    back = urlsplit(await at_issuer(fake_issuer, begun.headers["location"], "alice"))
    assert (await browser.ask(back.path, query=back.query.encode(), headers=NAVIGATION)).status == 302

    assert exchanges(fake_issuer) == before
    browser.jar[NAME] = old
    assert (await browser.ask(headers=FETCH)).status == 401


async def test_a_token_that_is_over_when_it_comes_is_no_reason_for_another_login(fake_issuer: FakeIssuer) -> None:
    """Z-state-expired: nothing goes round in circles, whatever the issuer gives."""
    fake_issuer.token_overrides = {"expires_in": 0, "refresh_token": None}
    door = door_of(fake_issuer)
    browser = await browser_of(door, fake_issuer)
    known = await sessions_of(door).find(f"{NAME}={browser.cookie}".encode())
    assert known is not None

    with pytest.raises(ProviderInvalid):
        await known.access_token()

    assert (await browser.ask(headers=NAVIGATION)).status == 200


async def test_who_signs_out_needs_no_new_token(door: Door, fake_issuer: FakeIssuer, oidc_clock: ManualClock) -> None:
    """The access token is over, and the issuer, which would renew it, does not answer."""
    browser = await browser_of(door, fake_issuer)
    cookie, before = browser.cookie, exchanges(fake_issuer)
    oidc_clock.advance(LIFE + 1)
    fake_issuer.fault("token", faults.status(503))

    answer = await browser.ask("/oauth2/sign_out", headers=NAVIGATION)

    assert answer.status == 303
    fake_issuer.heal()
    browser.jar[NAME] = cookie
    assert (await browser.ask(headers=FETCH)).status == 401
    assert exchanges(fake_issuer) == before


async def test_an_issuer_whose_keys_nobody_can_fetch_now(
    door: Door, fake_issuer: FakeIssuer, oidc_clock: ManualClock
) -> None:
    """The refresh token is used up by then: to refuse the answer would be to end the session."""
    browser = await browser_of(door, fake_issuer)
    before = await record_of(door, browser)
    fake_issuer.rotate("replace")
    fake_issuer.fault("jwks", faults.down())
    oidc_clock.advance(LIFE + 1)

    assert (await browser.ask(headers=FETCH)).status == 200

    after = await record_of(door, browser)
    assert (after.claims, after.id_token) == (before.claims, before.id_token)
    assert after.refresh_token != before.refresh_token


async def test_fewer_scopes_are_in_force_at_once(fake_issuer: FakeIssuer, oidc_clock: ManualClock) -> None:
    """Z-refresh-scope."""
    door = door_of(fake_issuer, rules=[Rule("/orders", scopes=("orders:read",))])
    browser = await browser_of(door, fake_issuer)
    assert (await browser.ask(headers=FETCH)).status == 200
    fake_issuer.token_overrides = {"scope": "openid"}
    oidc_clock.advance(LIFE + 1)

    assert (await browser.ask(headers=FETCH)).status == 403

    assert (await browser.ask("/other")).status == 200


@pytest.mark.parametrize("rotates", [True, False], ids=["a new one", "none"])
async def test_the_old_refresh_token_is_kept_where_no_new_one_comes(
    door: Door, fake_issuer: FakeIssuer, oidc_clock: ManualClock, *, rotates: bool
) -> None:
    """Z-refresh-scope."""
    fake_issuer.rotates_refresh_tokens = rotates
    browser = await browser_of(door, fake_issuer)
    first = (await record_of(door, browser)).refresh_token

    for _ in range(3):
        oidc_clock.advance(LIFE + 1)
        assert (await browser.ask(headers=FETCH)).status == 200

    assert ((await record_of(door, browser)).refresh_token == first) is not rotates
    assert exchanges(fake_issuer) == 3


async def test_a_refresh_prolongs_nothing_beyond_the_absolute_life(
    fake_issuer: FakeIssuer, oidc_clock: ManualClock
) -> None:
    """Z-idle-abs."""
    door = door_of(fake_issuer, session_absolute=3000)
    browser = await browser_of(door, fake_issuer)
    deadline = (await record_of(door, browser)).deadline

    for _ in range(9):
        oidc_clock.advance(LIFE + 1)
        assert (await browser.ask(headers=FETCH)).status == 200
        assert (await record_of(door, browser)).deadline == deadline
    oidc_clock.advance(LIFE)

    assert await is_over(browser)


# ------------------------------------------------------------------------------------------- request.auth.access_token


def app_that_calls_on(door: Door) -> None:
    """Let the app behind a door call another API on the user's behalf."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        token = await scope["auth"].access_token()
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": json.dumps(token).encode()})

    door.app.app = app


async def test_without_a_refresh_token_the_session_goes_on_and_the_token_does_not(
    door: Door, fake_issuer: FakeIssuer, oidc_clock: ManualClock
) -> None:
    """Whoever goes to a page that needs the token logs in again, and comes back to it."""
    fake_issuer.token_overrides = {"refresh_token": None}
    browser = await browser_of(door, fake_issuer)
    oidc_clock.advance(LIFE + 1)
    assert (await browser.ask(headers=FETCH)).status == 200
    app_that_calls_on(door)

    answer = await browser.ask(headers=FETCH)
    assert (answer.status, json.loads(answer.body)["error"]) == (401, "missing_token")
    old = browser.cookie
    assert (await browser.log_in()).status == 302

    assert browser.cookie != old
    assert (await browser.ask(headers=FETCH)).status == 200
    browser.jar[NAME] = old
    assert (await browser.ask(headers=FETCH)).status == 401  # the login ended it


async def test_a_token_that_ends_meanwhile_is_renewed(
    door: Door, fake_issuer: FakeIssuer, oidc_clock: ManualClock
) -> None:
    """A handler that takes long, and then calls on."""
    browser = await browser_of(door, fake_issuer)
    seen = (await browser.ask()).seen
    assert seen is not None
    first = await seen["auth"].access_token()
    oidc_clock.advance(LIFE + 1)

    tokens = await asyncio.gather(*(seen["auth"].access_token() for _ in range(20)))

    assert len(set(tokens)) == 1
    assert tokens[0] != first
    assert exchanges(fake_issuer) == 1


async def test_an_issuer_that_is_down_is_told_to_whoever_needs_the_token(
    door: Door, fake_issuer: FakeIssuer, oidc_clock: ManualClock
) -> None:
    browser = await browser_of(door, fake_issuer)
    seen = (await browser.ask()).seen
    assert seen is not None
    fake_issuer.fault("token", faults.down())
    waiting, app_may_go_on = asyncio.Event(), asyncio.Event()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        waiting.set()
        await app_may_go_on.wait()
        await scope["auth"].access_token()

    door.app.app = app
    asked = asyncio.create_task(browser.ask(headers=FETCH))
    await waiting.wait()
    oidc_clock.advance(LIFE + 1)
    app_may_go_on.set()

    answer: Answer = await asked
    assert (answer.status, answer.headers["retry-after"]) == (503, "5")

"""Opaque tokens at the door: what their issuer says about them, and what is done with it (cases `introspection`)."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
from typing import Any

import httpx2
import pytest
from hypothesis import given
from hypothesis import strategies as st
from introspection_kit import AUDIENCE, ISSUER, OPAQUE, Asked, door_of
from provider_kit import until

from oidc_middleware import Issuer
from oidc_middleware.auth.known import HOT_TOKENS
from oidc_middleware.core import introspection, strict_json
from oidc_middleware.core.opaque import is_opaque
from oidc_middleware.core.verify import Expected
from oidc_middleware.errors import ClaimError, OIDCError

from abuse.door import is_503
from abuse.signing import NOW, Signer, b64, good_claims

pytestmark = pytest.mark.anyio

EXPECTED = Expected(
    issuer=ISSUER,
    audiences=frozenset({AUDIENCE, "orders-api"}),
    audience_claim="aud",
    algorithms=frozenset({"RS256"}),
    token_type="auto",
    client_ids=frozenset({"orders-api"}),
    leeway=0,
    max_token_life=86_400,
)


@pytest.fixture(scope="module")
def signer() -> Signer:
    return Signer()


def said(omit: tuple[str, ...] = (), **changes: Any) -> dict[str, Any]:
    """Return the answer about a good token, or one that differs from it as said."""
    return {name: value for name, value in ({"active": True} | good_claims(**changes)).items() if name not in omit}


def verdict(answer: Any, *, needs_audience: bool = True) -> Any:
    """Return the claims of an answer, or the error it leads to as text."""
    document = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
    payload = introspection.read(document, ISSUER)
    if not payload:
        return "inactive"
    try:
        return introspection.check(payload, EXPECTED, NOW, needs_audience=needs_audience)[0]
    except ClaimError as error:
        return f"{error.claim} {error.reason}"


# What an answer says


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        pytest.param(said(active="true"), "inactive", id="I-active-str"),
        pytest.param(said(active=1), "inactive", id="active-1"),
        pytest.param(said(omit=("active",)), "inactive", id="I-active-missing"),
        pytest.param(said(active=[True]), "inactive", id="I-active-list"),
        pytest.param(b'{"active":false,"active":true}', "inactive", id="I-active-dup"),
        pytest.param(b'{"active":true,"sub":"a","sub":"b"}', "inactive", id="two-subjects"),
        pytest.param(said(iss="other"), "iss mismatch", id="I-iss"),
        pytest.param(said(iss=None), "iss mismatch", id="iss-null"),
        pytest.param(said(aud="other"), "aud mismatch", id="I-aud"),
        pytest.param(said(aud=["x", [AUDIENCE]]), "aud invalid", id="T-aud-listnested"),
        pytest.param(said(aud=f"x {AUDIENCE}"), "aud mismatch", id="T-aud-joined"),
        pytest.param(said(omit=("aud",)), "aud missing", id="I-aud-missing"),
        pytest.param(said(exp=NOW - 1), "exp expired", id="I-exp-past"),
        pytest.param(said(exp="9999999999"), "exp invalid", id="I-exp-string"),
        pytest.param(said(exp=True), "exp invalid", id="exp-true"),
        pytest.param(said(exp=None), "exp invalid", id="exp-null"),
        pytest.param(said(nbf=NOW + 60), "nbf not_yet", id="I-nbf"),
        pytest.param(said(omit=("exp",), nbf=NOW + 60), "nbf not_yet", id="nbf-without-exp"),
        pytest.param(said(iat=NOW + 60), "iat not_yet", id="iat-future"),
        pytest.param(said(omit=("exp",), iat="x"), "iat invalid", id="iat-string"),
        pytest.param(said(omit=("exp",), iat=NOW - 86_401), "iat expired", id="too-old"),
        pytest.param(said(sub=1), "sub invalid", id="sub-int"),
        pytest.param(said(sub=""), "sub invalid", id="sub-empty"),
        pytest.param(said(omit=("sub", "client_id")), "sub missing", id="nobody"),
        pytest.param(said(client_id=1), "client_id invalid", id="client-int"),
        pytest.param(said(jti=7), "jti invalid", id="jti-int"),
        pytest.param(said(scope=1), "scope invalid", id="scope-int"),
        pytest.param(said(cnf={"jkt": "x"}), "cnf invalid", id="bound"),
        pytest.param(said(token_type="DPoP"), "token_type mismatch", id="dpop"),
        pytest.param(said(token_type="refresh_token"), "token_type mismatch", id="refresh"),
        pytest.param(said(token_type=["Bearer"]), "token_type invalid", id="type-list"),
        pytest.param(said(token_use="refresh_token"), "token_use mismatch", id="refresh-of-hydra"),
        pytest.param(said(typ="Refresh"), "typ mismatch", id="refresh-of-keycloak"),
        pytest.param(said(at_hash="x"), "at_hash invalid", id="id-token"),
        pytest.param(said(aud="orders-api", omit=("scope",)), "aud mismatch", id="for-a-client"),
    ],
)
def test_answers_refused(answer: Any, expected: str) -> None:
    assert verdict(answer) == expected


@pytest.mark.parametrize(
    "answer",
    [
        said(),
        said(token_type="Bearer"),
        said(token_type="bearer"),
        said(aud=["x", AUDIENCE]),
        said(omit=("exp",)),
        said(omit=("exp", "iat")),
        said(omit=("sub",)),
        said(aud="orders-api"),
        said(aud="orders-api", token_type="Bearer", omit=("scope",)),
        said(token_use="access_token"),
        said(big=2**80, deep={"a": [{"b": None}]}, name="José \U0001f600"),
    ],
)
def test_answers_accepted(answer: dict[str, Any]) -> None:
    assert verdict(answer) == {name: value for name, value in answer.items() if name != "active"}


def test_the_issuer_that_was_asked_is_the_issuer() -> None:
    assert verdict(said(omit=("iss",)))["iss"] == ISSUER


def test_an_audience_that_is_trusted_must_still_be_ours_where_it_is_named() -> None:
    assert verdict(said(omit=("aud",)), needs_audience=False)["sub"] == "alice"
    assert verdict(said(aud="other"), needs_audience=False) == "aud mismatch"
    assert verdict(said(aud=[]), needs_audience=False) == "aud mismatch"


@given(st.binary() | st.recursive(st.none() | st.booleans() | st.integers() | st.text(), st.lists).map(json.dumps))
def test_any_answer_is_read_or_refused(answer: bytes | str) -> None:
    data = answer.encode() if isinstance(answer, str) else answer
    with contextlib.suppress(ValueError):
        assert introspection.read(data, ISSUER) == b""


@given(
    st.dictionaries(
        st.sampled_from(["iss", "aud", "sub", "exp", "nbf", "iat", "scope", "cnf", "token_type", "token_use", "typ"]),
        st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text()
        | st.lists(st.text()) | st.sampled_from([ISSUER, AUDIENCE, NOW, NOW + 60]),
    )
)  # fmt: skip
def test_any_claims_are_accepted_or_a_claim_error(claims: dict[str, Any]) -> None:
    try:
        found = verdict({**said(), **claims})
    except strict_json.StrictJSONError:  # such as half of a surrogate pair
        return
    if isinstance(found, dict):
        assert found["iss"] == ISSUER
        assert AUDIENCE in found["aud"]


# What is opaque


@pytest.mark.parametrize(
    "token",
    [OPAQUE, "mF_9.B5f-4.1JqM", "a.b.c", "eyJ", "e30.e30.e30", "v2.local.QAxIpVe", "ya29.a0AfH6SMC", "eyJhIjoxfQ.1.s"],
)
def test_opaque(token: str) -> None:
    """I-jwt-shaped-opaque: dots are not counted; it is the header that makes a JWT."""
    assert is_opaque(token.encode())


def test_a_jwt_in_any_spelling_is_not_opaque(signer: Signer) -> None:
    """What only a liberal reader takes for a JWT must not get in by that reader's word, under a name of its own."""
    token = signer.token()
    head, payload, signature = token.split(".")
    header, twice = json.dumps({"alg": "RS256"}), b'{"alg": 1, "alg": 2}'
    spellings = [
        token,
        f"{head}=.{payload}.{signature}",
        f"{head}==.{payload}.{signature}==",
        f"{head}~.{payload}.{signature}",
        f"{token}.",
        f"{token}.x.y",
        f"{head}.{payload}",
        f"{b64(b' ' + json.dumps({'alg': 'none'}).encode())}.x.",
        f"{b64(json.dumps({'alg': 'dir', 'enc': 'A128GCM'}).encode())}.a.b.c.d",
        f"{b64(header.encode('utf-8-sig'))}.x.y",
        f"{b64(header.encode('utf-16'))}.x.y",
        f"{b64(twice)}.x.y",
        f"{b64(b'[' * 100_000)}.x.y",
    ]
    assert [spelling for spelling in spellings if is_opaque(spelling.encode())] == []


# At the door


async def test_an_opaque_token_gets_in(signer: Signer) -> None:
    asked = Asked()
    door = door_of(asked, signer)
    answer = await door.ask(token=OPAQUE)
    assert answer.status == 200
    assert json.loads(answer.body) == good_claims()
    assert answer.seen is not None
    user = answer.seen["user"]
    assert (user.subject, user.client_id, user.token, user.expires_at) == ("alice", "client-a", OPAQUE, NOW + 300)
    assert asked.asked == [{"token": OPAQUE, "token_type_hint": "access_token"}]
    for _ in range(100):
        assert (await door.ask(token=OPAQUE)).status == 200
    assert len(asked.asked) == 1
    assert door.oidc.stats()["issuers"][ISSUER]["introspections"] == 1


async def test_without_a_client_that_can_say_who_it_is_opaque_tokens_are_refused(signer: Signer) -> None:
    for settings in ({"client_secret": None}, {"introspection": "never"}):
        asked = Asked()
        answer = await door_of(asked, signer, **settings).ask(token=OPAQUE)
        assert answer.status == 401
        assert "invalid_token" in (answer.challenge or "")
        assert asked.asked == []


@pytest.mark.parametrize(
    ("answer", "status"),
    [
        pytest.param(said(active="true"), 401, id="I-active-str"),
        pytest.param({"sub": "a"}, 401, id="I-active-missing"),
        pytest.param({"active": [True]}, 401, id="I-active-list"),
        pytest.param(b'{"active":false,"active":true}', 401, id="I-active-dup"),
        pytest.param([{"active": True}], 503, id="I-array"),
        pytest.param(b"<html>", 503, id="no-json"),
        pytest.param(b"[" * 100_000, 503, id="D-json-depth"),
        pytest.param(b'{"active":true,"x":"' + b"x" * 65_536 + b'"}', 503, id="too-large"),
        pytest.param(said(exp=NOW - 1), 401, id="I-exp-past"),
        pytest.param(said(exp="9999999999"), 401, id="I-exp-string"),
        pytest.param(said(nbf=NOW + 60), 401, id="I-nbf"),
        pytest.param(said(aud="other"), 401, id="I-aud"),
        pytest.param(said(omit=("aud",)), 401, id="I-aud-missing"),
        pytest.param(said(iss="other"), 401, id="I-iss"),
        pytest.param({"active": False}, 401, id="inactive"),
    ],
)
async def test_what_the_client_sees(answer: Any, status: int, signer: Signer) -> None:
    found = await door_of(Asked(answer), signer).ask(token=OPAQUE)
    assert found.status == status
    assert found.seen is None
    if status == 503:
        assert is_503(found)
    else:
        assert found.challenge is not None
        assert 'error="invalid_token"' in found.challenge


@pytest.mark.parametrize(
    ("status", "content_type"),
    [
        pytest.param(200, "text/html", id="I-html"),
        pytest.param(204, "application/json", id="I-204"),
        pytest.param(401, "application/json", id="I-401"),
        pytest.param(302, "application/json", id="redirect"),
        pytest.param(400, "application/json", id="bad-request"),
        pytest.param(500, "application/json", id="I-500"),
    ],
)
async def test_an_issuer_that_does_not_answer_says_nothing_about_the_token(
    status: int, content_type: str, signer: Signer, caplog: pytest.LogCaptureFixture
) -> None:
    asked = Asked()
    door = door_of(asked, signer)
    asked.status, asked.content_type = status, content_type
    with caplog.at_level(logging.INFO, "oidc_middleware"):
        assert is_503(await door.ask(token=OPAQUE))
        assert is_503(await door.ask(token=OPAQUE))
        asked.status, asked.content_type = 200, "application/json"
        assert (await door.ask(token=OPAQUE)).status == 200
    errors = [record.getMessage() for record in caplog.records if record.levelno == logging.ERROR]
    assert len(errors) == 1
    assert ("client_secret and" in errors[0]) == (status == 401)
    assert OPAQUE not in caplog.text
    assert "s3cret" not in caplog.text
    assert len(asked.asked) == 3


async def test_an_issuer_that_is_gone_is_503(signer: Signer) -> None:
    class Gone(Asked):
        async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
            if request.url.path == "/introspect":
                raise httpx2.ConnectError("nobody there")
            return await super().handle_async_request(request)

    assert is_503(await door_of(Gone(), signer).ask(token=OPAQUE))


async def test_an_issuer_without_the_endpoint_is_503(signer: Signer) -> None:
    asked = Asked(introspection_endpoint=None)
    assert is_503(await door_of(asked, signer).ask(token=OPAQUE))
    assert asked.asked == []


async def test_answers_are_kept_for_a_minute_at_most(signer: Signer) -> None:
    """I-exp-none, I-revoked: what the issuer revokes is refused within a minute."""
    asked = Asked(said(omit=("exp", "iat")))
    door = door_of(asked, signer)
    answer = await door.ask(token=OPAQUE)
    assert answer.status == 200
    assert answer.seen is not None
    assert answer.seen["user"].expires_at == float("inf")
    asked.answer = {"active": False}
    door.clock.advance(59)
    assert (await door.ask(token=OPAQUE)).status == 200
    door.clock.advance(1.5)
    assert (await door.ask(token=OPAQUE)).status == 401
    assert len(asked.asked) == 2


async def test_an_answer_ends_with_its_token(signer: Signer) -> None:
    """I-exp-cap."""
    asked = Asked(said(exp=NOW + 10))
    door = door_of(asked, signer)
    assert (await door.ask(token=OPAQUE)).status == 200
    door.clock.advance(11)
    assert (await door.ask(token=OPAQUE)).status == 401
    assert len(asked.asked) == 2
    assert (await door.ask(token=OPAQUE)).status == 401
    assert len(asked.asked) == 3, "what is over already is not kept"


@pytest.mark.parametrize("active", [True, False])
async def test_a_clock_that_goes_back_lengthens_no_answer(active: bool, signer: Signer) -> None:
    asked = Asked(said(omit=("exp", "iat")) if active else {"active": False})
    door = door_of(asked, signer)
    assert (await door.ask(token=OPAQUE)).status == (200 if active else 401)
    door.clock.jump(-3600)
    asked.answer = {"active": False} if active else said(omit=("exp", "iat"))
    assert (await door.ask(token=OPAQUE)).status == (401 if active else 200)
    assert len(asked.asked) == 2


async def test_a_token_that_becomes_active_waits_ten_seconds_at_most(signer: Signer) -> None:
    """I-neg-race."""
    asked = Asked({"active": False})
    door = door_of(asked, signer)
    for _ in range(3):
        assert (await door.ask(token=OPAQUE)).status == 401
    assert len(asked.asked) == 1
    asked.answer = said()
    door.clock.advance(10)
    assert (await door.ask(token=OPAQUE)).status == 200


async def test_tokens_that_begin_alike_are_not_alike(signer: Signer) -> None:
    """I-prefix-collision, I-truncated, I-sub-mismatch: an answer lies under the digest of the whole token."""
    long = "A" * 100
    tokens = [long, long + "B", long + "C", long[:80], "B" + long]
    asked = Asked(lambda token: said(sub=token))
    door = door_of(asked, signer)
    for _ in range(2):
        for token in tokens:
            assert json.loads((await door.ask(token=token)).body)["sub"] == token
    assert len(asked.asked) == len(tokens)


async def test_a_jwt_stays_one(signer: Signer) -> None:
    """A JWT that is refused here is not shown to the issuer, and neither is a good one."""
    asked = Asked()
    door = door_of(asked, signer)
    assert (await door.ask(token=signer.token())).status == 200
    assert (await door.ask(token=signer.token(claims={"aud": "other"}))).status == 401
    assert (await door.ask(token=signer.token() + "=")).status == 401
    assert (await door.ask(token=signer.token() + ".x")).status == 401
    assert asked.asked == []


async def test_a_bad_header_is_no_question(signer: Signer) -> None:
    asked = Asked()
    door = door_of(asked, signer)
    for value, status in {b"Bearer ": 400, b"Bearer a b": 400, b"Bearer \xff": 401, b"Basic eDp5": 401}.items():
        assert (await door.ask(headers=[(b"authorization", value)])).status == status
    assert (await door.ask(token="a" * 16_385)).status == 401
    assert (await door.ask(headers=[(b"authorization", b"bearer " + OPAQUE.encode())])).status == 200
    assert len(asked.asked) == 1


async def test_many_at_once_ask_once(signer: Signer) -> None:
    """I-concurrent: also when the first of them goes away, and when the issuer fails."""
    asked = Asked()
    door = door_of(asked, signer)
    release = asyncio.Event()
    asked.before = release.wait
    first = asyncio.ensure_future(door.ask(token=OPAQUE))
    others = [asyncio.ensure_future(door.ask(token=OPAQUE)) for _ in range(200)]
    await until(lambda: asked.asked)
    first.cancel()
    release.set()
    assert {answer.status for answer in await asyncio.gather(*others)} == {200}
    assert len(asked.asked) == 1

    asked.status = 500
    answers = await asyncio.gather(*(door.ask(token="another") for _ in range(64)))
    assert {answer.status for answer in answers} == {503}
    assert len(asked.asked) == 2
    asked.status = 200
    assert (await door.ask(token="another")).status == 200


async def test_a_flood_of_made_up_tokens_evicts_nobody(signer: Signer) -> None:
    """I-neg-dos: the issuer is asked about so many a second, and answers about nothing have a place of their own."""
    asked = Asked(lambda token: said(sub=token) if token.startswith("good") else {"active": False})
    door = door_of(asked, signer)
    assert (await door.ask(token="good")).status == 200
    statuses = [(await door.ask(token=f"made-up-{number}")).status for number in range(3_000)]
    assert statuses == [401] * 1_000 + [503] * 2_000
    assert len(asked.asked) == 1_001
    assert is_503(await door.ask(token="made-up-again"))
    assert (await door.ask(token="good")).status == 200
    assert len(asked.asked) == 1_001

    door.clock.advance(0.5)
    asked.asked.clear()
    found = [(await door.ask(token=f"made-up-later-{number}")).status for number in range(60)]
    assert found == [401] * 50 + [503] * 10
    door.clock.advance(60)
    found = [(await door.ask(token=f"good-{number}")).status for number in range(2_000)]
    assert found == [200] * 2_000, "tokens that the issuer knows are never too many"


async def test_so_many_questions_are_under_way_at_most(signer: Signer) -> None:
    """I-neg-dos."""
    asked = Asked(lambda token: said() if token == OPAQUE else {"active": False})
    door = door_of(asked, signer)
    assert (await door.ask(token=OPAQUE)).status == 200
    release = asyncio.Event()
    asked.before = release.wait
    waiting = [asyncio.ensure_future(door.ask(token=f"new-{number}")) for number in range(300)]
    await until(lambda: sum(task.done() for task in waiting) == 300 - 256)
    assert all(is_503(task.result()) for task in waiting if task.done())
    assert (await door.ask(token=OPAQUE)).status == 200
    release.set()
    assert sum(answer.status == 401 for answer in await asyncio.gather(*waiting)) == 256


async def test_a_user_name_of_two_lines_is_only_text(signer: Signer) -> None:
    """I-username-crlf: as F-crlf-claim, it reaches the app as a claim, and no header."""
    answer = await door_of(Asked(said(username="a\r\nX: y")), signer).ask(token=OPAQUE)
    assert answer.status == 200
    assert json.loads(answer.body)["username"] == "a\r\nX: y"
    assert answer.seen_headers == [(b"authorization", b"Bearer " + OPAQUE.encode())]


async def test_a_client_for_itself_needs_no_subject(signer: Signer) -> None:
    answer = await door_of(Asked(said(omit=("sub",))), signer).ask(token=OPAQUE)
    assert answer.seen is not None
    user = answer.seen["user"]
    assert (user.subject, user.client_id) == (None, "client-a")
    assert (user.identity, user.display_name) == (f"{ISSUER}#client-a", "client-a")


async def test_more_tokens_than_the_hot_set_holds_are_known_all_the_same(signer: Signer) -> None:
    asked = Asked(lambda token: said(sub=token))
    door = door_of(asked, signer)
    tokens = [f"opaque-{number}" for number in range(HOT_TOKENS + 100)]
    for _ in range(2):
        for token in tokens:
            assert json.loads((await door.ask(token=token)).body)["sub"] == token
    assert len(asked.asked) == len(tokens)


async def test_an_audience_may_be_trusted(signer: Signer) -> None:
    asked = Asked(said(omit=("aud",)))
    assert (await door_of(asked, signer, introspection_audience="trust").ask(token=OPAQUE)).status == 200
    assert (await door_of(asked, signer).ask(token=OPAQUE)).status == 401


# `always`


async def test_always_asks_about_jwts_that_were_verified(signer: Signer) -> None:
    asked = Asked({"active": True})
    door = door_of(asked, signer, introspection="always")
    answer = await door.ask(token=signer.token())
    assert answer.status == 200
    assert json.loads(answer.body) == good_claims(), "what was signed is what counts"
    assert len(asked.asked) == 1
    assert (await door.ask(token=signer.token(claims={"aud": "other"}))).status == 401
    assert (await door.ask(token=signer.token(key=signer.evil))).status == 401
    assert len(asked.asked) == 1, "what is refused here is not shown to the issuer"
    asked.answer = {"active": False}
    door.clock.advance(61)
    assert (await door.ask(token=signer.token())).status == 401
    assert (await door.ask(token=OPAQUE)).status == 401


@pytest.mark.parametrize(
    ("answer", "status"),
    [
        ({"active": True, "sub": "bob"}, 401),
        ({"active": True, "iss": "other"}, 401),
        ({"active": True, "aud": "other"}, 401),
        ({"active": True, "exp": NOW - 1}, 401),
        ({"active": False}, 401),
        (said(), 200),
        (b"<html>", 503),
    ],
)
async def test_a_jwt_and_the_answer_about_it_must_agree(answer: Any, status: int, signer: Signer) -> None:
    found = await door_of(Asked(answer), signer, introspection="always").ask(token=signer.token())
    assert found.status == status


async def test_a_key_that_is_withdrawn_while_the_issuer_is_asked_verifies_nothing(signer: Signer) -> None:
    asked = Asked({"active": True})
    door = door_of(asked, signer, introspection="always")
    assert (await door.ask(token=signer.token(claims={"sub": "bob"}))).status == 200
    release = asyncio.Event()
    asked.before = release.wait
    waiting = asyncio.ensure_future(door.ask(token=signer.token()))
    await until(lambda: len(asked.asked) == 2)
    asked.jwks = Signer().jwks()
    door.clock.advance(30)
    assert (await door.ask(token=signer.token(header={"kid": "unknown"}))).status == 401
    release.set()
    assert (await waiting).status == 401


# Who is asked


async def test_one_of_several_issuers_is_asked(signer: Signer) -> None:
    asked = Asked()
    asked.jwks = signer.jwks()
    mine = Issuer(issuer=ISSUER, audience=AUDIENCE, client_id="orders-api", client_secret="s3cret of the api")
    other = Issuer(issuer="https://other.example", audience=AUDIENCE, jwks_uri=f"{ISSUER}/jwks")
    door = door_of(asked, issuers=[other, mine], client_id=None, client_secret=None)
    assert (await door.ask(token=OPAQUE)).status == 200
    assert len(asked.asked) == 1


async def test_an_error_never_shows_a_credential(signer: Signer) -> None:
    class Talking(Asked):
        async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
            if request.url.path == "/introspect":
                raise httpx2.ReadError("reset", request=request)
            return await super().handle_async_request(request)

    door = door_of(Talking(), signer, client_auth_method="client_secret_post")
    with pytest.raises(OIDCError) as caught:
        await door.oidc.authenticator.authenticate(f"Bearer {OPAQUE}".encode())
    shown = repr(caught.value) + str(caught.value) + repr(door.oidc.settings)
    assert "s3cret" not in shown
    assert OPAQUE not in shown

"""The endpoints of revocation: RFC 7009 section by section, what an administrator may do, and what is refused."""

from __future__ import annotations

import asyncio
import json
import tracemalloc
from collections.abc import Sequence
from time import thread_time
from typing import Any
from urllib.parse import urlencode

import httpx2
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from oidc_middleware.core.ledger.ledger import Ledger
from oidc_middleware.core.ledger.records import Record

from abuse.door import Answer, Door, Headers, is_503
from abuse.signing import AUDIENCE, ISSUER, NOW, Signer

pytestmark = pytest.mark.anyio

REVOKE, REVOCATIONS = "/oauth2/revoke", "/oauth2/revocations"
FORM, JSON = "application/x-www-form-urlencoded", "application/json"
ADMIN = "revocations:admin"


@pytest.fixture(scope="module")
def signer() -> Signer:
    return Signer()


@pytest.fixture
def door(signer: Signer) -> Door:
    return Door(signer.jwks(), revoke_endpoint=True, admin_scope=ADMIN)


@pytest.fixture
def admin(signer: Signer) -> str:
    """Return an administrator's token."""
    return signer.token(claims={"scope": ADMIN, "sub": "root", "jti": "admin", "client_id": "console"})


@pytest.fixture
def victim(signer: Signer) -> str:
    """Return a token of somebody else."""
    return signer.token(claims={"jti": "victim", "sub": "bob", "sid": "s-1", "client_id": "web"})


def content_type(value: str) -> Headers:
    return [(b"content-type", value.encode())]


async def send(door: Door, body: bytes | Sequence[bytes] | str, kind: str = FORM, **more: Any) -> Answer:
    body = body.encode() if isinstance(body, str) else body
    return await door.ask(REVOKE, method="POST", body=body, headers=content_type(kind), **more)


async def revoke(door: Door, token: str, **fields: str) -> Answer:
    return await send(door, urlencode({"token": token, **fields}))


async def order(door: Door, token: str | None, body: object, kind: str = JSON) -> Answer:
    sent = body if isinstance(body, bytes) else json.dumps(body).encode()
    return await door.ask(REVOCATIONS, method="POST", body=sent, headers=content_type(kind), token=token)


async def status(door: Door, token: str) -> int:
    return (await door.ask(token=token)).status


def entries(door: Door) -> int:
    return int(door.oidc.stats()["revocations"]["entries"])


def problem(answer: Answer, status: int = 400, error: str = "invalid_request") -> str:
    """Check that it is an error of RFC 6749 §5.2, and return what it says."""
    assert answer.status == status
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["cache-control"] == "no-store"
    assert answer.seen is None
    body = json.loads(answer.body)
    assert body.keys() == {"error", "error_description"}
    assert body["error"] == error
    return str(body["error_description"])


# ----------------------------------------------------------------------------------------------------- RFC 7009: revoke


@pytest.mark.parametrize("hint", [None, "access_token", "refresh_token", "pizza"])
async def test_rfc_7009_2_1_a_token_revokes_itself(hint: str | None, door: Door, signer: Signer) -> None:
    """§2.1, and §2.2: a hint that is wrong or unknown changes nothing."""
    token, other = signer.token(), signer.token(claims={"jti": "t-2"})
    assert await status(door, token) == 200
    answer = await revoke(door, token, **({"token_type_hint": hint} if hint else {}))
    assert (answer.status, answer.body) == (200, b"")
    assert answer.headers["cache-control"] == "no-store"
    assert answer.seen is None
    assert await status(door, token) == 401
    assert await status(door, other) == 200


@pytest.mark.parametrize("kind", [FORM, f"{FORM};charset=UTF-8", "Application/X-WWW-Form-URLencoded ; charset=utf-8"])
async def test_rfc_7009_2_1_the_form_may_come_in_any_spelling_and_in_parts(
    kind: str, door: Door, signer: Signer
) -> None:
    token = signer.token()
    body = urlencode({"client_id": "web", "future": "1", "empty": "", "token": token}).replace(".", "%2e")
    assert (await send(door, body, kind)).status == 200
    assert await status(door, token) == 401


async def test_rfc_7009_2_1_who_asks_does_not_matter(door: Door, signer: Signer) -> None:
    """The token is the proof; a client that authenticates as at an issuer is answered all the same."""
    for number, value in enumerate((b"Basic d2ViOnNlY3JldA==", b"Bearer nonsense", b"x")):
        token = signer.token(claims={"jti": f"t-{number}"})
        headers = [*content_type(FORM), (b"authorization", value)]
        answer = await door.ask(REVOKE, method="POST", body=f"token={token}".encode(), headers=headers)
        assert answer.status == 200
        assert await status(door, token) == 401


async def test_rfc_7009_2_2_what_is_not_valid_needs_no_revocation(door: Door, signer: Signer) -> None:
    """The answer is the same, byte for byte: nobody learns what was wrong."""
    valid = await revoke(door, signer.token(claims={"jti": "t-9"}))
    good = signer.token()
    for wrong in (
        good[:-4] + "AAAA",
        signer.token(claims={"aud": "api://other"}),
        signer.token(claims={"iss": "https://evil.example"}),
        signer.token(claims={"exp": NOW - 1}),
        signer.token(header={"kid": "unknown"}),
        Signer().token(),
        "opaque-token-of-somebody",
        "=",
        "a b",
        "ä.b.c",
        "x" * 60_000,
        "\0",
    ):
        answer = await revoke(door, wrong)
        assert (answer.status, answer.body, answer.headers) == (200, b"", valid.headers)
    assert entries(door) == 1
    assert await status(door, good) == 200


async def test_rfc_7009_2_2_revoking_twice_is_as_good_as_once(door: Door, signer: Signer) -> None:
    for _ in range(2):
        assert (await revoke(door, signer.token())).status == 200
    assert entries(door) == 1


@pytest.mark.parametrize(
    ("body", "kind", "status", "said"),
    [
        ("", FORM, 400, "The parameter token is missing."),
        ("token=", FORM, 400, "The parameter token is missing."),
        ("token", FORM, 400, "The parameter token is missing."),
        ("Token=a", FORM, 400, "The parameter token is missing."),
        ("token=a&token=a", FORM, 400, "A parameter came twice."),
        ("token=a&token_type_hint=x&token_type_hint=x", FORM, 400, "A parameter came twice."),
        ("token=a&%74oken=b", FORM, 400, "A parameter came twice."),
        ("token=%ff", FORM, 400, "The parameters cannot be read."),
        (b"token=\xff", FORM, 400, "The parameters cannot be read."),
        ("&".join(f"n{number}=1" for number in range(101)), FORM, 400, "The parameters cannot be read."),
        ("token=a", "", 400, f"The body must be {FORM}."),
        ("token=a", "text/plain", 400, f"The body must be {FORM}."),
        ("token=a", f"{FORM}x", 400, f"The body must be {FORM}."),
        ('{"token": "a"}', JSON, 400, f"The body must be {FORM}."),
        (b"token=" + b"a" * 65_536, FORM, 413, "The body is too large."),
    ],
    ids=lambda value: repr(value)[:24],
)
async def test_rfc_7009_2_2_1_errors_are_those_of_rfc_6749(
    body: str | bytes, kind: str, status: int, said: str, door: Door
) -> None:
    assert problem(await send(door, body, kind), status) == said
    assert entries(door) == 0


async def test_a_content_type_that_says_two_things_is_refused(door: Door, signer: Signer) -> None:
    token = signer.token()
    for headers in ([], [*content_type(FORM), *content_type(JSON)], content_type(FORM) * 2):
        answer = await door.ask(REVOKE, method="POST", body=f"token={token}".encode(), headers=headers)
        assert problem(answer) == f"The body must be {FORM}."
    assert await status(door, token) == 200


async def test_a_token_in_the_query_is_not_read(door: Door, signer: Signer) -> None:
    token = signer.token()
    assert problem(await send(door, "", query=f"token={token}".encode())) == "The parameter token is missing."
    assert await status(door, token) == 200


async def test_rfc_7009_2_2_1_when_nobody_can_say_the_client_comes_again(signer: Signer) -> None:
    def down(request: httpx2.Request) -> httpx2.Response:
        raise httpx2.ConnectError("down", request=request)

    door = Door(signer.jwks(), transport=httpx2.MockTransport(down), revoke_endpoint=True)
    answer = await revoke(door, signer.token())
    assert is_503(answer)
    assert json.loads(answer.body)["error"] == "temporarily_unavailable"
    assert answer.headers["cache-control"] == "no-store"
    assert (await revoke(door, "nonsense")).status == 200, "that much is certain"


async def test_a_client_that_goes_away_gets_no_answer_and_revokes_nothing(door: Door, signer: Signer) -> None:
    answer = await send(door, [f"token={signer.token()}".encode()])
    assert answer.messages == []
    assert entries(door) == 0


async def test_no_more_is_read_than_is_wanted(door: Door) -> None:
    parts = [b"a" * 30_000] * 5
    assert problem(await send(door, parts), 413) == "The body is too large."
    assert parts == [b"a" * 30_000] * 5


@pytest.mark.parametrize("method", ["GET", "HEAD", "PUT", "PATCH", "DELETE", "OPTIONS", "post", "REVOKE"])
async def test_only_post_revokes(method: str, door: Door, signer: Signer) -> None:
    token = signer.token()
    body = f"token={token}".encode()
    answer = await door.ask(REVOKE, method=method, body=body, headers=content_type(FORM), query=body)
    assert (answer.status, answer.headers["allow"], answer.body) == (405, "POST", b"")
    assert await status(door, token) == 200


async def test_without_the_setting_there_is_no_endpoint(signer: Signer) -> None:
    door = Door(signer.jwks())
    for path in (REVOKE, REVOCATIONS):
        answer = await door.ask(path, method="POST", body=b"token=a", headers=content_type(FORM))
        assert (answer.status, answer.seen) == (401, None), path
        answer = await door.ask(path, method="POST", token=signer.token())
        assert answer.seen is not None, "the app's own path"


async def test_the_log_has_no_token(door: Door, signer: Signer, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("DEBUG")
    for token in (signer.token(), signer.token()[:-4] + "AAAA"):
        await revoke(door, token)
        assert "revo" in caplog.text
        for part in token.split("."):
            assert part not in caplog.text


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(body=st.one_of(st.binary(max_size=200), st.text("token=&%+;.\0é", max_size=60).map(str.encode)))
async def test_any_body_is_answered_and_revokes_nothing(body: bytes, door: Door) -> None:
    answer = await send(door, body)
    assert answer.status in {200, 400}
    assert entries(door) == 0


# ---------------------------------------------------------------------------------------------------- what an admin may


async def test_c_bl_api_other_nobody_revokes_for_others(door: Door, signer: Signer, victim: str) -> None:
    """C-bl-api-other: a user who is no administrator revokes nobody's token, and not everything of anybody."""
    user = signer.token(claims={"jti": "mine"})
    for body in ({"jti": "victim"}, {"sub": "bob"}, {"token": victim}, {"jti": "mine"}):
        answer = await order(door, user, body)
        assert answer.status == 403
        assert answer.challenge is not None
        assert 'error="insufficient_scope", ' in answer.challenge
        assert f'scope="{ADMIN}"' in answer.challenge
        assert (await order(door, None, body)).status == 401
        assert (await order(door, victim[:-4] + "AAAA", body)).status == 401
    assert (await door.ask(REVOCATIONS, token=user)).status == 403
    assert (await door.ask(REVOCATIONS)).status == 401
    assert entries(door) == 0
    assert await status(door, victim) == 200


@pytest.mark.parametrize(
    ("body", "kind_and_number"),
    [
        ({"token": "…"}, ("token", NOW + 300)),
        ({"jti": "victim"}, ("token", None)),
        ({"jti": "victim", "issuer": ISSUER, "expires_at": NOW + 60.5}, ("token", NOW + 61)),
        ({"jti": "victim", "expires_at": 10**15}, ("token", None)),
        ({"sid": "s-1"}, ("session", NOW)),
        ({"sub": "bob", "issuer": ISSUER}, ("subject", NOW)),
        ({"sub": "bob", "issued_before": NOW - 1}, ("subject", NOW - 1)),
        ({"client_id": "web", "require": "local"}, ("client", NOW)),
    ],
    ids=str,
)
async def test_an_administrator_revokes(
    body: dict[str, Any], kind_and_number: tuple[str, float | None], door: Door, admin: str, victim: str
) -> None:
    kind, number = kind_and_number
    assert await status(door, victim) == 200
    answer = await order(door, admin, body | ({"token": victim} if "token" in body else {}))
    assert (answer.status, json.loads(answer.body)) == (200, {"receipt": "local"})
    assert answer.headers["content-type"] == JSON
    assert answer.headers["cache-control"] == "no-store"
    assert await status(door, victim) == 401
    (entry,) = json.loads((await door.ask(REVOCATIONS, token=admin)).body)["revocations"]
    assert entry["kind"] == kind
    assert number is None or entry["number"] == number


ONE_OF = "Name exactly one of token, jti, sid, sub, client_id."


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ({}, ONE_OF),
        ({"issuer": ISSUER}, ONE_OF),
        ({"jti": "a", "sub": "b"}, ONE_OF),
        ({"token": "a.b.c", "jti": "a"}, ONE_OF),
        ({"sub": "a", "user": "b"}, "unknown field `user`"),
        ({"sub": None}, "Expected `str`, got `null` - at `$.sub`"),
        ({"sub": 7}, "Expected `str`, got `int` - at `$.sub`"),
        ({"sub": ["a"]}, "Expected `str`, got `array` - at `$.sub`"),
        ({"sub": ""}, "subject must be text that is not empty"),
        ({"jti": ""}, "jti must be text that is not empty"),
        ({"jti": "a", "expires_at": "tomorrow"}, "Expected `int | float`, got `str` - at `$.expires_at`"),
        ({"jti": "a", "expires_at": True}, "Expected `int | float`, got `bool` - at `$.expires_at`"),
        ({"sub": "a", "expires_at": 1}, "expires_at belongs to jti."),
        ({"jti": "a", "issued_before": 1}, "issued_before belongs to sid, sub and client_id."),
        ({"sub": "a", "issued_before": NOW + 60}, "not in the future"),
        ({"sub": "a", "issued_before": -1}, "not in the future"),
        ({"sub": "a", "issued_before": 10**300}, "not in the future"),
        ({"sub": "a", "issuer": "https://evil.example"}, "'https://evil.example' is not a configured issuer"),
        ({"sub": "a", "require": "everywhere"}, "Invalid enum value 'everywhere' - at `$.require`"),
        ({"token": "a.b.c", "issuer": ISSUER}, "issuer and expires_at belong to jti"),
        ({"token": "nonsense"}, "The token is refused (malformed"),
        (b"", "The body is refused: not JSON"),
        (b"null", "The body is refused: not a JSON object."),
        (b'["a"]', "The body is refused: not a JSON object."),
        (b'{"sub": "a", "sub": "a"}', "The body is refused: a key occurs twice."),
        (b'{"sub": "a", "\\u0073ub": "a"}', "The body is refused: a key occurs twice."),
        (b'\xef\xbb\xbf{"sub": "a"}', "The body is refused: not JSON"),
        (b'{"sub": "\xff"}', "The body is refused: not JSON"),
        (b'{"sub": "\\ud800"}', "The body is refused: not JSON"),
        (b'{"jti": "a", "expires_at": NaN}', "The body is refused: not JSON"),
        (b'{"jti": "a", "expires_at": 1e999}', "The body is refused: not JSON"),
        (b'{"sub":' * 100 + b"1" + b"}" * 100, "The body is refused: nested too deep."),
        (b'{"sub": "a"} {}', "The body is refused: not JSON"),
    ],
    ids=lambda value: repr(value)[:40],
)
async def test_what_says_nothing_clear_is_refused(body: object, said: str, door: Door, admin: str) -> None:
    assert said in problem(await order(door, admin, body))
    assert entries(door) == 0


MEMBERS = ("token", "jti", "sid", "sub", "client_id", "issuer", "expires_at", "issued_before", "require", "other")
VALUES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.integers(min_value=0, max_value=2**70),
    st.floats(),
    st.text(max_size=8),
    st.sampled_from([ISSUER, "shared", "local", 10**400, -(10**400)]),
    st.lists(st.integers(), max_size=2),
    st.dictionaries(st.text(max_size=2), st.integers(), max_size=2),
)


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(body=st.dictionaries(st.sampled_from(MEMBERS), VALUES, max_size=4))
async def test_any_order_is_carried_out_or_changes_nothing(body: dict[str, Any], door: Door, admin: str) -> None:
    before = list(door.oidc.revocations.export())
    answer = await order(door, admin, body)
    assert answer.status in {200, 400, 503}
    if answer.status == 400:
        assert problem(answer)
        assert list(door.oidc.revocations.export()) == before
    elif answer.status == 503:
        assert body["require"] in {"shared", "journaled"}
    else:
        assert json.loads(answer.body) == {"receipt": "local"}


async def test_one_token_many_times_at_once(door: Door, signer: Signer) -> None:
    token = signer.token()
    answers = await asyncio.gather(*(revoke(door, token) for _ in range(200)))
    assert {answer.status for answer in answers} == {200}
    assert entries(door) == 1


async def test_a_token_that_is_refused_revokes_nothing_and_an_administrator_hears_why(
    door: Door, signer: Signer, admin: str
) -> None:
    answer = await order(door, admin, {"token": signer.token(claims={"exp": NOW - 1})})
    assert problem(answer) == "The token is refused (claim: exp expired), so there is nothing to revoke."
    assert entries(door) == 0


@pytest.mark.parametrize("kind", ["", "text/plain", FORM, "multipart/form-data", "application/jsonp", "text/json"])
async def test_another_site_cannot_have_a_browser_send_it(kind: str, door: Door, admin: str) -> None:
    """What a form or a simple request can carry is 415; JSON needs a preflight, which no endpoint of ours answers."""
    assert problem(await order(door, admin, {"sub": "bob"}, kind), 415) == f"The body must be {JSON}."
    assert entries(door) == 0
    headers = [(b"origin", b"https://evil.example"), (b"access-control-request-method", b"POST")]
    assert (await door.ask(REVOCATIONS, method="OPTIONS", headers=headers)).status == 401


async def test_more_than_there_is_can_be_required(door: Door, admin: str, victim: str) -> None:
    answer = await order(door, admin, {"sub": "bob", "require": "shared"})
    assert is_503(answer)
    assert json.loads(answer.body)["receipt"] == "local"
    assert await status(door, victim) == 401, "it holds all the same"


async def test_the_body_of_an_order_is_bounded(door: Door, admin: str) -> None:
    assert problem(await order(door, admin, {"sub": "a" * 65_536}), 413) == "The body is too large."
    assert (await order(door, admin, {"sub": "a" * 65_000})).status == 200


async def test_with_several_issuers_one_has_to_be_named(signer: Signer) -> None:
    issuers = [{"issuer": issuer, "audience": AUDIENCE} for issuer in (ISSUER, "https://other.example")]
    door = Door(signer.jwks(), issuers=issuers, admin_scope=ADMIN)
    admin = signer.token(claims={"scope": ADMIN})
    assert "several issuers" in problem(await order(door, admin, {"sub": "bob"}))
    assert (await order(door, admin, {"sub": "bob", "issuer": "https://other.example"})).status == 200
    assert await status(door, signer.token(claims={"sub": "bob"})) == 200, "another one's bob"


@pytest.mark.parametrize("method", ["PUT", "PATCH", "DELETE", "OPTIONS"])
async def test_there_is_no_un_revoke(method: str, door: Door, signer: Signer, admin: str) -> None:
    assert (await order(door, admin, {"jti": "victim"})).status == 200
    answer = await door.ask(REVOCATIONS, method=method, token=admin, query=b"jti=victim")
    assert (answer.status, answer.headers["allow"]) == (405, "GET, HEAD, POST")
    assert await status(door, signer.token(claims={"jti": "victim"})) == 401


async def test_an_administrator_who_is_revoked_is_none(door: Door, admin: str) -> None:
    assert (await order(door, admin, {"token": admin})).status == 200
    assert (await order(door, admin, {"sub": "bob"})).status == 401
    assert entries(door) == 1


async def test_websockets_are_no_way_in(door: Door, admin: str) -> None:
    for path, token in ((REVOKE, None), (REVOCATIONS, admin)):
        assert (await door.handshake(path, token=token)).messages == [{"type": "websocket.close"}]


# ---------------------------------------------------------------------------------------------------------------- pages


async def page(door: Door, token: str, query: str = "") -> dict[str, Any]:
    answer = await door.ask(REVOCATIONS, token=token, query=query.encode())
    assert answer.status == 200, answer.body
    found: dict[str, Any] = json.loads(answer.body)
    return found


@pytest.mark.parametrize(
    "query",
    [
        "limit=0",
        "limit=1001",
        "limit=-1",
        "limit=+1",
        "limit=",
        "limit=1.0",
        "limit=%D9%A1",
        "limit=" + "9" * 5000,
        "limit=1&limit=1",
        "kind=user",
        "kind=",
        "kind=token&kind=token",
        "after=",
        "after=elsewhere",
        "after=token-zz-1",
        "after=token-00-%00",
        "after=token-00-g",
        "offset=1",
        "Limit=1",
        "limit=%ff",
    ],
    ids=lambda query: query[:24],
)
async def test_bad_parameters_are_refused(query: str, door: Door, admin: str) -> None:
    assert problem(await door.ask(REVOCATIONS, token=admin, query=query.encode()))


async def test_a_page_says_where_the_next_begins(door: Door, admin: str) -> None:
    assert await page(door, admin) == {"revocations": [], "next": None}
    for number in range(150):
        await door.oidc.revoke.token(jti=f"{number}", expires_at=NOW + 60)
    await door.oidc.revoke.subject("bob")
    first = await page(door, admin)
    second = await page(door, admin, f"after={first['next']}")
    assert (len(first["revocations"]), len(second["revocations"]), second["next"]) == (100, 51, None)
    entry = first["revocations"][0]
    assert entry.keys() == {"kind", "key_id", "digest", "number", "end"}
    assert (entry["kind"], entry["number"], entry["end"]) == ("token", NOW + 60, NOW + 60)
    assert [e["kind"] for e in (await page(door, admin, "kind=subject"))["revocations"]] == ["subject"]
    assert await page(door, admin, "kind=session") == {"revocations": [], "next": None}
    assert len((await page(door, admin, "limit=1"))["revocations"]) == 1
    assert (await door.ask(REVOCATIONS, method="HEAD", token=admin)).status == 200


async def test_any_cursor_is_answered(door: Door, admin: str) -> None:
    """Also one that an attacker made up, or that is of another kind."""
    await door.oidc.revoke.token(jti="one")
    await door.oidc.revoke.client("web")
    for after in ("client-ff-" + "f" * 1000, "token--0", "clear-00-0", "token-" + "ff" * 1000 + "-0"):
        for kind in ("", "&kind=token", "&kind=client"):
            assert (await page(door, admin, f"after={after}{kind}"))["next"] is None


async def test_pages_go_through_100_000_entries(signer: Signer, admin: str) -> None:
    """Each entry is in one page; no page holds the loop, or takes more memory than its own entries."""
    door = Door(signer.jwks(), admin_scope=ADMIN, secret="s" * 32)
    assert await page(door, admin) == {"revocations": [], "next": None}
    await fill(door, 100_000)
    digests: list[str] = []
    sizes = []
    after = ""
    begun = thread_time()
    while True:
        found = await page(door, admin, f"limit=1000{after}")
        sizes.append(len(found["revocations"]))
        digests += [entry["digest"] for entry in found["revocations"]]
        if found["next"] is None:
            break
        after = f"&after={found['next']}"
    assert sizes == [1000] * 100
    assert len(set(digests)) == 100_000
    assert (thread_time() - begun) / len(sizes) < 0.05, "a page costs what is on it"
    tracemalloc.start()
    await page(door, admin, "limit=1000")
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 4_000_000


async def test_one_kind_is_found_among_100_000_others(
    signer: Signer, admin: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not by looking at all of them."""
    door = Door(signer.jwks(), admin_scope=ADMIN, secret="s" * 32)
    await fill(door, 100_000)
    for number in range(150):
        await door.oidc.revoke.subject(f"{number}")
    looked_at: list[int] = []
    records = Ledger.records

    def counted(self: Ledger, after: Record | None = None, at_most: int = 1000) -> list[Record]:
        found = records(self, after, at_most)
        looked_at.append(len(found))
        return found

    monkeypatch.setattr(Ledger, "records", counted)
    first = await page(door, admin, "kind=subject")
    second = await page(door, admin, f"kind=subject&after={first['next']}")
    assert (len(first["revocations"]), len(second["revocations"]), second["next"]) == (100, 50, None)
    assert await page(door, admin, "kind=session") == {"revocations": [], "next": None}
    assert sum(looked_at) <= 3 * 1000


async def fill(door: Door, number: int) -> None:
    """Add so many entries for tokens."""
    await door.oidc.revoke.token(jti="one")
    (line,) = door.oidc.revocations.export()
    row = json.loads(line)
    row |= {"number": int(NOW) + 60, "end": int(NOW) + 60}
    digests = (place * 0x9E3779B97F4A7C15 % 2**64 for place in range(1, number))
    await door.oidc.revocations.import_(json.dumps(row | {"digest": f"{digest:016x}"}) for digest in digests)
    assert entries(door) == number


# ------------------------------------------------------------------------------------------------------------ staleness


async def test_responses_to_identities_say_how_old_the_knowledge_is(signer: Signer) -> None:
    """Only where it is asked for, and to nobody else."""
    door = Door(signer.jwks(), public=["/open"], staleness_header=True)
    answer = await door.ask(token=signer.token())
    assert answer.headers == {"x-oidc-staleness": "0.000"}
    assert (await door.handshake(token=signer.token())).messages[0]["headers"] == [(b"x-oidc-staleness", b"0.000")]
    for other in (await door.ask("/open"), await door.ask(), await door.ask(token="a.b.c")):
        assert "x-oidc-staleness" not in other.headers
    assert "x-oidc-staleness" not in (await Door(signer.jwks()).ask(token=signer.token())).headers


async def test_an_answer_has_one_staleness_whoever_else_writes_it(signer: Signer) -> None:
    door = Door(signer.jwks(), staleness_header=True)
    headers = [(b"X-OIDC-Staleness", b"9"), (b"set-cookie", b"a=1"), (b"set-cookie", b"b=2")]
    door.answers = [{"type": "http.response.start", "status": 200, "headers": headers}, {"type": "http.response.body"}]
    answer = await door.ask(token=signer.token())
    assert answer.messages[0]["headers"] == [*headers[1:], (b"x-oidc-staleness", b"0.000")]
    assert answer.messages[0] is not door.answers[0]
    door.answers = [{"type": "http.response.start", "status": 204}, {"type": "http.response.body"}]
    assert (await door.ask(token=signer.token())).headers == {"x-oidc-staleness": "0.000"}


async def test_a_node_that_knows_nothing_yet_says_so(signer: Signer) -> None:
    door = Door(
        signer.jwks(),
        staleness_header=True,
        cache="redis://127.0.0.1:1",
        secret="s" * 32,
        journal=None,
        on_stale="allow",
    )
    assert (await door.ask(token=signer.token())).headers == {"x-oidc-staleness": "unknown"}
    await door.oidc.stop()

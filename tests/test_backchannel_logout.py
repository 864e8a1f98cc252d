"""Back-channel logout at the door: what is taken, and what is refused with no session touched."""

from __future__ import annotations

import asyncio
import json
import secrets
from collections.abc import Callable
from typing import Any
from urllib.parse import urlencode

import pytest

from oidc_middleware import Issuer
from oidc_middleware.asgi.endpoints import backchannel_logout
from oidc_middleware.testing import FakeIssuer, ManualClock, faults, make_key

from abuse.door import Answer, Door, Headers, fetches

pytestmark = pytest.mark.anyio

PATH = "/oauth2/backchannel-logout"
FORM = "application/x-www-form-urlencoded"
EVENT = "http://schemas.openid.net/event/backchannel-logout"


@pytest.fixture
def door(fake_issuer: FakeIssuer) -> Door:
    return door_of(fake_issuer)


def door_of(issuer: FakeIssuer, **settings: Any) -> Door:
    login = {"login": True, "client_id": "web", "client_secret": "s3cret", "base_url": "https://app.example"}
    return Door.of(issuer, **(login | settings))


async def post(door: Door, token: str | None, **fields: str) -> Answer:
    form = fields if token is None else {"logout_token": token, **fields}
    return await send(door, urlencode(form).encode())


async def send(door: Door, body: Any, kind: str | None = FORM, **more: Any) -> Answer:
    headers: Headers = [] if kind is None else [(b"content-type", kind.encode())]
    return await door.ask(PATH, method="POST", body=body, headers=headers, **more)


def is_taken(answer: Answer) -> bool:
    assert answer.headers["cache-control"] == "no-store"
    return (answer.status, answer.body) == (200, b"")


def problem(answer: Answer, status: int = 400) -> str:
    """Check that the answer is a JSON error that nobody stores, and return what it says."""
    assert (answer.status, answer.headers["cache-control"]) == (status, "no-store")
    assert answer.headers["content-type"] == "application/json"
    said = json.loads(answer.body)
    assert said["error"] == "invalid_request"
    return str(said["error_description"])


def entries(door: Door) -> int:
    return int(door.oidc.stats()["revocations"]["entries"])


async def status(door: Door, token: str) -> int:
    return (await door.ask(token=token)).status


def tokens_of(issuer: FakeIssuer) -> dict[str, str]:
    """Return the access tokens of sessions; those of the same issuer and others."""
    return {
        f"{sub}-{sid}": issuer.token(sub, client_id="web", claims={"sid": sid})
        for sub, sid in (("alice", "s-1"), ("alice", "s-2"), ("bob", "s-3"))
    }


async def refused(door: Door, tokens: dict[str, str]) -> set[str]:
    """Return whose tokens are refused."""
    return {name for name, token in tokens.items() if await status(door, token) == 401}


# ------------------------------------------------------------------------------------------------------------- taken


@pytest.mark.parametrize(
    ("sub", "sid", "ended"),
    [
        pytest.param(None, "s-1", {"alice-s-1"}, id="B-ok-sid"),
        pytest.param("alice", None, {"alice-s-1", "alice-s-2"}, id="B-ok-sub"),
        pytest.param("alice", "s-1", {"alice-s-1"}, id="B-ok-both"),
        pytest.param(None, "s-9", set(), id="B-unknown-sid"),
    ],
)
async def test_what_it_names_is_over(
    door: Door, fake_issuer: FakeIssuer, sub: str | None, sid: str | None, ended: set[str]
) -> None:
    """B-access-token-too: access tokens of the session are refused, too, as bearer tokens."""
    tokens = tokens_of(fake_issuer)
    assert await refused(door, tokens) == set()

    assert is_taken(await post(door, fake_issuer.logout_token(sub, client_id="web", sid=sid)))

    assert await refused(door, tokens) == ended


async def test_a_session_of_somebody_else_is_not_ended(door: Door, fake_issuer: FakeIssuer) -> None:
    """B-ok-both: where the session is known, `sub` must be its subject's."""
    tokens = tokens_of(fake_issuer)
    await door.oidc.sids.remember(fake_issuer.url, "s-1", "alice", door.clock.now() + 3600)

    answer = await post(door, fake_issuer.logout_token("bob", client_id="web", sid="s-1"))

    assert problem(answer) == "The logout token is refused (claim: sub mismatch (the session is somebody else's))."
    assert await refused(door, tokens) == set()
    assert is_taken(await post(door, fake_issuer.logout_token("alice", client_id="web", sid="s-1")))
    assert await refused(door, tokens) == {"alice-s-1"}


@pytest.mark.parametrize("typ", ["JWT", "logout+jwt", None])
async def test_extra_fields_and_claims_are_fine(door: Door, fake_issuer: FakeIssuer, typ: str | None) -> None:
    """B-extra; and the header's type may be any that issuers use."""
    token = fake_issuer.logout_token(
        sid="s-1",
        client_id="web",
        claims={"trace": [1, 2]},
        headers={} if typ is None else {"typ": typ},
        omit_headers=("typ",) if typ is None else (),
    )

    assert is_taken(await post(door, token, state="x"))


async def test_a_login_that_races_with_it_does_not_survive(
    door: Door, fake_issuer: FakeIssuer, oidc_clock: ManualClock
) -> None:
    """B-unknown-sid: what a login under way brings of the session, minutes later, is refused from the start."""
    await post(door, fake_issuer.logout_token(None, client_id="web", sid="s-1"))
    oidc_clock.advance(300)
    tokens = tokens_of(fake_issuer)

    assert await refused(door, tokens) == {"alice-s-1"}


async def test_the_second_of_the_logout_counts_whole_for_a_subject_and_no_more(
    fake_issuer: FakeIssuer, oidc_clock: ManualClock
) -> None:
    """B-before-created: `iat` has whole seconds. By `sid` nothing depends on time."""
    door = door_of(fake_issuer, leeway=0)
    oidc_clock.advance(1 - oidc_clock.now() % 1)
    await post(door, fake_issuer.logout_token("alice", client_id="web"))
    same_second = tokens_of(fake_issuer)
    oidc_clock.advance(1)

    assert await refused(door, same_second) == {"alice-s-1", "alice-s-2"}
    assert await refused(door, tokens_of(fake_issuer)) == set()


async def test_a_backup_of_what_was_logged_out_can_be_read_at_once(fake_issuer: FakeIssuer) -> None:
    """A cut-off by `sid` reaches into the future, and an import takes none that reaches too far."""
    door = door_of(fake_issuer, leeway=0)
    await post(door, fake_issuer.logout_token(None, client_id="web", sid="s-1"))

    lines = list(door.oidc.revocations.export())

    assert len(lines) == 1
    assert await door.oidc.revocations.import_(lines) == "local"


async def test_a_token_is_taken_once(door: Door, fake_issuer: FakeIssuer, oidc_clock: ManualClock) -> None:
    token = fake_issuer.logout_token("alice", client_id="web")
    assert is_taken(await post(door, token))
    oidc_clock.advance(60)  # alice logs in again
    assert await refused(door, later := tokens_of(fake_issuer)) == set()

    answer = await post(door, token)

    assert problem(answer) == "The logout token is refused (claim: jti invalid (the logout token was used before))."
    assert await refused(door, later) == set()


async def test_twice_at_once_one_is_taken(door: Door, fake_issuer: FakeIssuer) -> None:
    token = fake_issuer.logout_token("alice", client_id="web")

    answers = await asyncio.gather(*(post(door, token) for _ in range(5)))

    assert sorted(answer.status for answer in answers) == [200, 400, 400, 400, 400]


async def test_another_issuer_ends_nothing_here(fake_issuer_factory: Callable[..., FakeIssuer]) -> None:
    """B-other-issuer: what is known by `sid` or `sub` is known by its issuer, too."""
    ours, theirs = fake_issuer_factory(), fake_issuer_factory("https://other.example")
    client: dict[str, Any] = {"client_id": "web", "client_secret": "s3cret"}
    issuers = [Issuer(issuer=each.url, audience=each.audience, **client) for each in (ours, theirs)]
    door = Door.of(ours, theirs, issuers=issuers, login=True, base_url="https://app.example")
    tokens = tokens_of(ours)

    assert is_taken(await post(door, theirs.logout_token("alice", client_id="web", sid="s-1")))
    assert is_taken(await post(door, theirs.logout_token("bob", client_id="web")))
    forged = theirs.logout_token("alice", client_id="web", claims={"iss": ours.url})
    assert (
        problem(await post(door, forged))
        == "The logout token is refused (bad_signature: no key of the issuer made it)."
    )

    assert await refused(door, tokens) == set()


# ----------------------------------------------------------------------------------------------------------- refused


def named(claim: str, reason: str, detail: str = "") -> str:
    return f"The logout token is refused (claim: {claim} {reason}{f' ({detail})' if detail else ''})."


NO_OBJECTS: list[tuple[str, Any]] = [("B-event-string", "x"), ("B-event-list", []), ("B-event-null", None)]
NOT_OURS = "a logout token does not have it"


@pytest.mark.parametrize(
    ("shape", "said"),
    [
        pytest.param({"omit": ["events"]}, named("events", "missing"), id="B-no-event"),
        *(
            pytest.param(
                {"claims": {"events": {EVENT: value}}}, named("events", "invalid", "the event is no object"), id=name
            )
            for name, value in NO_OBJECTS
        ),
        *(
            pytest.param({"claims": {"nonce": value}}, named("nonce", "invalid", NOT_OURS), id=f"B-nonce-{value!r}")
            for value in ("x", "", None, 0)
        ),
        pytest.param({"claims": {"aud": "other"}}, named("aud", "mismatch"), id="B-wrong-aud"),
        pytest.param(
            {"claims": {"iss": "https://issuer.example1"}},
            named("iss", "mismatch", "not an issuer where users log in"),
            id="B-wrong-iss",
        ),
        pytest.param({"omit": ["exp"]}, named("exp", "missing"), id="B-no-exp"),
        pytest.param({"omit": ["sub"]}, named("sub", "missing", "and so is sid"), id="B-no-sub-sid"),
        pytest.param(
            {"algorithm": "none"},
            "The logout token is refused (algorithm_not_allowed: alg is not on the allow-list).",
            id="B-alg-none",
        ),
        pytest.param(
            {"key": b"a secret of both sides that is long enough"},
            "The logout token is refused (algorithm_not_allowed: alg is not on the allow-list).",
            id="B-alg-hs256",
        ),
        pytest.param({"headers": {"typ": "at+jwt"}}, named("typ", "mismatch"), id="typ of access tokens"),
    ],
)
async def test_what_is_wrong_touches_nothing(
    door: Door, fake_issuer: FakeIssuer, shape: dict[str, Any], said: str
) -> None:
    token = fake_issuer.logout_token(client_id="web", **shape)

    answer = await post(door, token)

    assert problem(answer) == said
    assert entries(door) == 0
    assert token.encode() not in answer.body


async def test_an_algorithm_that_is_not_registered(fake_issuer_factory: Callable[..., FakeIssuer]) -> None:
    """B-wrong-alg."""
    issuer = fake_issuer_factory(algorithms=("RS256", "ES256"))
    door = door_of(issuer, algorithms=["RS256"])

    answer = await post(door, issuer.logout_token(client_id="web", algorithm="ES256"))

    assert "algorithm_not_allowed" in problem(answer)
    assert is_taken(await post(door, issuer.logout_token(client_id="web", algorithm="RS256")))


async def test_without_exp_where_the_operator_says_so(fake_issuer: FakeIssuer, oidc_clock: ManualClock) -> None:
    """B-no-exp: two minutes after `iat` it is over."""
    door = door_of(fake_issuer, logout_token_exp="optional", leeway=0)
    first, second = (fake_issuer.logout_token(client_id="web", omit=["exp"]) for _ in range(2))

    assert is_taken(await post(door, first))
    oidc_clock.advance(120)
    assert problem(await post(door, second)) == named("exp", "expired")


async def test_other_tokens_of_the_issuer_are_none(door: Door, fake_issuer: FakeIssuer) -> None:
    """B-idtoken, B-accesstoken, and a logout token that is no access token: B-as-access."""
    id_token = fake_issuer.id_token(client_id="web", nonce="n")
    access_token = fake_issuer.token(audience="web")
    logout_token = fake_issuer.logout_token(client_id="web", claims={"aud": ["web", fake_issuer.audience]})

    assert problem(await post(door, id_token)) == named("nonce", "invalid", NOT_OURS)
    assert problem(await post(door, fake_issuer.id_token(client_id="web"))) == named("events", "missing")
    assert problem(await post(door, access_token)) == named("typ", "mismatch")
    assert entries(door) == 0
    assert await status(door, logout_token) == 401


@pytest.mark.parametrize("method", ["GET", "HEAD", "PUT", "DELETE", "OPTIONS"])
async def test_nothing_but_post(door: Door, fake_issuer: FakeIssuer, method: str) -> None:
    """B-get."""
    query = urlencode({"logout_token": fake_issuer.logout_token(client_id="web")}).encode()

    answer = await door.ask(PATH, method=method, query=query)

    assert (answer.status, answer.headers["allow"], answer.headers["cache-control"]) == (405, "POST", "no-store")
    assert entries(door) == 0


@pytest.mark.parametrize("kind", [FORM, None])
async def test_a_token_in_the_query_is_refused(door: Door, fake_issuer: FakeIssuer, kind: str | None) -> None:
    """B-query."""
    token = fake_issuer.logout_token(client_id="web")
    query = urlencode({"logout_token": token}).encode()

    for body in (b"", urlencode({"logout_token": token}).encode()):
        assert problem(await send(door, body, kind, query=query)) == "The logout token belongs into the body."
    assert entries(door) == 0


@pytest.mark.parametrize(
    "kind", ["application/json", "multipart/form-data; boundary=x", "application/jwt", "application/logout+jwt", None]
)
async def test_only_a_form_is_read(door: Door, fake_issuer: FakeIssuer, kind: str | None) -> None:
    """B-json."""
    token = fake_issuer.logout_token(client_id="web")
    for body in (token.encode(), json.dumps({"logout_token": token}).encode(), f"logout_token={token}".encode()):
        assert problem(await send(door, body, kind)) == f"The body must be {FORM}."
    assert entries(door) == 0


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b"", "The parameter logout_token is missing."),
        (b"logout_token=", "The parameter logout_token is missing."),
        (b"Logout_Token=a.b.c", "The parameter logout_token is missing."),
        (b"logout_token=a.b.c&logout_token=a.b.c", "A parameter came twice."),
        (b"logout_token=%ff%fe", "The parameters cannot be read."),
        (b"logout_token=abc", "The logout token is refused (malformed: not three parts)."),
        (b"logout_token=..", "The logout token is refused (malformed: header: not JSON: Input data was truncated)."),
    ],
)
async def test_a_form_without_a_token(door: Door, body: bytes, said: str) -> None:
    assert problem(await send(door, body)) == said


async def test_an_encrypted_token_is_not_supported(door: Door) -> None:
    answer = await post(door, "eyJhbGciOiJSU0EtT0FFUCJ9.a.b.c.d")

    assert problem(answer, 501) == "Encrypted logout tokens are not supported."


async def test_a_body_of_megabytes_is_not_read(door: Door) -> None:
    """B-big."""
    answer = await send(door, [b"logout_token=" + b"a" * 65_536, *([b"a" * 65_536] * 160)])

    assert problem(answer, 413) == "The body is too large."


async def test_a_body_that_does_not_come_is_not_waited_for(door: Door, monkeypatch: pytest.MonkeyPatch) -> None:
    """B-big: slowly."""
    monkeypatch.setattr(backchannel_logout, "BODY_SECONDS", 0.01)
    answers: list[Any] = []

    async def receive() -> Any:
        await asyncio.Event().wait()

    async def keep(message: Any) -> None:
        answers.append(message)

    headers: Headers = [(b"content-type", FORM.encode())]
    scope = {"type": "http", "method": "POST", "path": PATH, "raw_path": PATH.encode(), "root_path": ""}
    await door.app({**scope, "query_string": b"", "headers": headers}, receive, keep)

    assert answers[0]["status"] == 408


# ------------------------------------------------------------------------------------------------------------- floods


async def test_unknown_keys_cost_one_look(door: Door, fake_issuer: FakeIssuer) -> None:
    """B-kid-storm: the cool-down is that of all tokens of the issuer."""
    assert await status(door, fake_issuer.token()) == 200
    assert fetches(fake_issuer) == (1, 1)

    for _ in range(50):
        token = fake_issuer.logout_token(client_id="web", headers={"kid": secrets.token_hex(8)})
        said = problem(await post(door, token))
        assert said == "The logout token is refused (unknown_key: no key of the issuer fits kid and alg)."
    stranger = fake_issuer.token(headers={"kid": secrets.token_hex(8)})
    assert await status(door, stranger) == 401

    assert fetches(fake_issuer) == (1, 2)
    assert entries(door) == 0


async def test_a_flood_of_unsigned_ones_costs_no_fetch(door: Door, fake_issuer: FakeIssuer) -> None:
    """B-flood."""
    assert await status(door, fake_issuer.token()) == 200
    stranger = make_key(kid="rs256-1")
    forged = [fake_issuer.logout_token(client_id="web", algorithm="none") for _ in range(100)]
    forged += [fake_issuer.logout_token(client_id="web", claims={"aud": "x"}, key=stranger) for _ in range(100)]

    for token in forged:
        problem(await post(door, token))

    assert fetches(fake_issuer) == (1, 1)
    assert entries(door) == 0
    assert door.oidc.caches.general.stats().entries == 0


async def test_without_keys_the_issuer_sends_it_again(door: Door, fake_issuer: FakeIssuer) -> None:
    fake_issuer.fault("*", faults.status(500))
    token = fake_issuer.logout_token(client_id="web")

    answer = await post(door, token)

    assert (answer.status, answer.headers["cache-control"], answer.headers["retry-after"]) == (503, "no-store", "1")


async def test_there_is_none_without_a_login(fake_issuer: FakeIssuer) -> None:
    door = Door.of(fake_issuer, client_id="web", client_secret="s3cret")

    assert (await post(door, fake_issuer.logout_token(client_id="web"))).status == 401

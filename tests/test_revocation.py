"""Revocation on one node: what each call refuses, whom it leaves alone, and what is said about it."""

from __future__ import annotations

import json
from typing import Any

import pytest

from oidc_middleware.errors import ClaimError, Malformed, RevocationNotShared, TokenError

from abuse.door import Door
from abuse.signing import ISSUER, NOW, Signer
from abuse.token_cases import MALLEABLE, Case

pytestmark = pytest.mark.anyio

WEEK = 7 * 86_400


@pytest.fixture(scope="module")
def signer() -> Signer:
    return Signer()


@pytest.fixture
def door(signer: Signer) -> Door:
    return Door(signer.jwks())


async def status(door: Door, token: str) -> int:
    return (await door.ask(token=token)).status


# ------------------------------------------------------------------------------------------------------------ one token


@pytest.mark.parametrize("known", [True, False], ids=["known", "first sight"])
@pytest.mark.parametrize("jti", ["with", "without"])
async def test_a_token_is_revoked(door: Door, signer: Signer, known: bool, jti: str) -> None:
    """C-jti-missing: what has no name goes by what was signed."""
    omit = () if jti == "with" else ("jti",)
    token, other = signer.token(omit=omit), signer.token(claims={"jti": "two", "exp": NOW + 301}, omit=omit)
    if known:
        assert await status(door, token) == 200
    assert await door.oidc.revoke.token(token) == "local"
    answer = await door.ask(token=token)
    assert answer.status == 401
    assert answer.challenge == 'Bearer error="invalid_token", error_description="The access token is invalid."'
    assert await status(door, other) == 200


async def test_a_token_is_revoked_by_its_principal(door: Door, signer: Signer) -> None:
    answer = await door.ask(token=signer.token())
    assert answer.seen is not None
    principal = answer.seen["user"]
    assert await door.oidc.revoke.token(principal) == "local"
    assert await status(door, signer.token()) == 401
    assert door.oidc.revocations.check(principal).status == "revoked"


async def test_a_token_is_revoked_by_its_name(door: Door, signer: Signer) -> None:
    token = signer.token(claims={"jti": "one"})
    assert await status(door, token) == 200
    await door.oidc.revoke.token(issuer=ISSUER, jti="one", expires_at=NOW + 60)
    assert await status(door, token) == 401


async def test_revoking_twice_is_as_good_as_once(door: Door, signer: Signer) -> None:
    token = signer.token()
    assert await door.oidc.revoke.token(token) == "local"
    assert await door.oidc.revoke.token(token) == "local"
    assert door.oidc.stats()["revocations"]["entries"] == 1


@pytest.mark.parametrize("case", MALLEABLE, ids=lambda case: f"C-malleable-{case.id}")
async def test_no_spelling_of_a_revoked_token_gets_in(case: Case, door: Door, signer: Signer) -> None:
    alg = case.id.split("-")[2]
    assert await status(door, signer.token(alg=alg)) == 200
    await door.oidc.revoke.token(signer.token(alg=alg))
    assert await status(door, case.token(signer)) in {400, 401}


@pytest.mark.parametrize("alg", ["ES256", "RS256", "EdDSA"])
async def test_what_is_signed_anew_is_the_same_token(alg: str, door: Door, signer: Signer) -> None:
    """Without a jti too: two signatures of one payload are one token."""
    await door.oidc.revoke.token(signer.token(alg=alg, omit=("jti",)))
    assert await status(door, signer.token(alg=alg, omit=("jti",))) == 401


async def test_a_foreign_or_forged_token_revokes_nothing(door: Door, signer: Signer) -> None:
    token = signer.token()
    for wrong in (
        token[:-4] + "AAAA",
        signer.token(claims={"aud": "api://other"}),
        signer.token(claims={"iss": "https://evil.example"}),
        Signer().token(),
    ):
        with pytest.raises(TokenError):
            await door.oidc.revoke.token(wrong)
    for nonsense in ("", "a b", "a.b.c", "ä.b.c", "x" * 20_000, "=" * 20):
        with pytest.raises(Malformed):
            await door.oidc.revoke.token(nonsense)
    with pytest.raises(ClaimError, match="exp expired"):
        await door.oidc.revoke.token(signer.token(claims={"exp": NOW - 1}))
    assert door.oidc.stats()["revocations"]["entries"] == 0
    assert await status(door, token) == 200


@pytest.mark.parametrize(
    "expires_at",
    [None, -1.0, 0.0, NOW - 1, NOW + 60, 1e308, float("inf"), 10**400],
    ids=lambda end: f"C-bl-expired-{str(end)[:12]}",
)
async def test_any_end_is_bounded(expires_at: float | None, door: Door) -> None:
    await door.oidc.revoke.token(jti="one", expires_at=expires_at)
    latest = NOW + door.oidc.settings.max_token_life
    for entry in door.oidc.revocations.list().revocations:
        assert 0 <= entry.end <= latest + 1


async def test_what_is_accepted_only_later_is_refused_until_its_end(door: Door) -> None:
    """An end that was named is not shortened: a token without iat, or with nbf, may begin to be accepted much later."""
    end = NOW + 10 * door.oidc.settings.max_token_life
    await door.oidc.revoke.token(jti="one", expires_at=end)
    assert [entry.end for entry in door.oidc.revocations.list().revocations] == [end]


@pytest.mark.parametrize(
    "jti", ["*", "?[a", "a\nb\0c", "j" * 1_000_000, "🔑", "\ud800"], ids=lambda jti: f"C-jti-glob-{jti[:2]!r}"
)
async def test_any_name_is_only_itself(jti: str, door: Door, signer: Signer) -> None:
    await door.oidc.revoke.token(jti=jti)
    assert door.oidc.revocations.check(jti=jti).status == "revoked"
    assert door.oidc.revocations.check(jti="j").status == "valid"
    assert await status(door, signer.token(claims={"jti": "one"})) == 200


async def test_parts_of_names_do_not_run_together(signer: Signer) -> None:
    """C-jti-delim: and two issuers may give the same jti."""
    door = Door(
        signer.jwks(),
        issuers=[
            {"issuer": "https://x.example", "audience": "a"},
            {"issuer": "https://x.example:8443", "audience": "a"},
        ],
    )
    await door.oidc.revoke.token(issuer="https://x.example", jti=":8443one")
    check = door.oidc.revocations.check
    assert check(issuer="https://x.example", jti=":8443one").status == "revoked"
    assert check(issuer="https://x.example:8443", jti="one").status == "valid"
    assert check(issuer="https://x.example:8443", jti=":8443one").status == "valid"


# -------------------------------------------------------------------------------------------------- sessions and others


@pytest.mark.parametrize(
    ("iat", "expected"),
    [(NOW - 100, 401), (NOW - 50.5, 401), (NOW - 50, 401), (NOW - 40, 200), (None, 401)],
    ids=["C-bl-sub-before", "C-bl-sub-float", "C-bl-sub-at", "C-bl-sub-after", "C-bl-sub-missing"],
)
@pytest.mark.parametrize("kind", ["session", "subject", "client"])
async def test_everything_issued_until_then(
    kind: str, iat: float | None, expected: int, door: Door, signer: Signer
) -> None:
    claims = {"iat": iat, "exp": NOW + 300, "sid": "s1", "sub": "alice", "client_id": "web", "jti": "one"}
    other = claims | {"iat": NOW - 100, "sid": "s2", "sub": "bob", "client_id": "batch", "jti": "two"}
    token = signer.token(claims=claims, omit=("iat",) if iat is None else ())
    neighbour = signer.token(claims=other)
    assert await status(door, token) == await status(door, neighbour) == 200
    revoke = getattr(door.oidc.revoke, kind)
    await revoke({"session": "s1", "subject": "alice", "client": "web"}[kind], issued_before=NOW - 50)
    assert await status(door, token) == expected
    assert await status(door, neighbour) == 200


async def test_a_new_login_within_the_leeway_has_to_be_repeated(signer: Signer) -> None:
    door = Door(signer.jwks(), leeway=30)
    await door.oidc.revoke.subject("alice")
    for later, expected in ((0, 401), (30, 401), (31, 200)):
        door.clock.advance(NOW + later - door.clock.now())
        token = signer.token(claims={"sub": "alice", "iat": NOW + later, "exp": NOW + later + 300})
        assert await status(door, token) == expected, later


async def test_a_later_cut_off_wins_and_an_earlier_one_takes_nothing_back(door: Door, signer: Signer) -> None:
    token = signer.token(claims={"iat": NOW - 60, "exp": NOW + 300})
    await door.oidc.revoke.subject("alice", issued_before=NOW - 30)
    await door.oidc.revoke.subject("alice", issued_before=NOW - 90)
    assert await status(door, token) == 401
    assert [entry.number for entry in door.oidc.revocations.list().revocations] == [NOW - 30]


async def test_by_principal_everything_of_whom_it_belongs_to(door: Door, signer: Signer) -> None:
    claims = {"sid": "s1", "client_id": "web"}
    answer = await door.ask(token=signer.token(claims=claims))
    assert answer.seen is not None
    for kind in ("session", "subject", "client"):
        assert await getattr(door.oidc.revoke, kind)(answer.seen["user"]) == "local"
    kinds = {entry.kind for entry in door.oidc.revocations.list().revocations}
    assert kinds == {"session", "subject", "client"}


@pytest.mark.parametrize(
    ("kind", "arguments", "message"),
    [
        ("token", {}, "name the token"),
        ("token", {"token": "a.b.c", "jti": "one"}, "name the token"),
        ("token", {"token": "a.b.c", "expires_at": NOW}, "belong to jti"),
        ("token", {"jti": ""}, "jti must be text"),
        ("token", {"jti": "one", "expires_at": float("nan")}, "expires_at is"),
        ("token", {"jti": "one", "issuer": "https://other.example"}, "not a configured issuer"),
        ("token", {"jti": "one", "require": "everywhere"}, "everywhere"),
        ("session", {"sid": ""}, "sid must be text"),
        ("subject", {"subject": None}, "subject must be text"),
        ("client", {"client_id": 7}, "client_id must be text"),
        ("subject", {"subject": "alice", "issued_before": NOW + 60}, "not in the future"),
        ("subject", {"subject": "alice", "issued_before": float("nan")}, "not in the future"),
        ("subject", {"subject": "alice", "issued_before": -1.0}, "not in the future"),
    ],
)
async def test_what_names_nothing_is_an_error(kind: str, arguments: dict[str, Any], message: str, door: Door) -> None:
    with pytest.raises(ValueError, match=message):
        await getattr(door.oidc.revoke, kind)(**arguments)
    assert door.oidc.stats()["revocations"]["entries"] == 0


async def test_with_several_issuers_one_has_to_be_named(signer: Signer) -> None:
    issuers = [{"issuer": f"https://{name}.example", "audience": "a"} for name in "xy"]
    door = Door(signer.jwks(), issuers=issuers)
    with pytest.raises(ValueError, match="several issuers: name one"):
        await door.oidc.revoke.subject("alice")
    assert await door.oidc.revoke.subject("alice", issuer="https://x.example") == "local"


# ---------------------------------------------------------------------------------------------------- receipts and ends


async def test_more_than_there_is_can_be_required(door: Door, signer: Signer) -> None:
    token = signer.token()
    with pytest.raises(RevocationNotShared) as refused:
        await door.oidc.revoke.token(token, require="shared")
    assert refused.value.receipt == "local"
    assert await status(door, token) == 401, "it is not taken back"
    assert await door.oidc.revoke.token(token, require="local") == "local"


async def test_nothing_is_kept_for_ever(door: Door) -> None:
    """C-bl-flood: entries are bounded by their ends."""
    for number in range(2_000):
        await door.oidc.revoke.token(jti=f"{number}", expires_at=NOW + 60)
    assert door.oidc.stats()["revocations"]["entries"] == 2_000
    door.clock.advance(60 + 599)
    await door.oidc.revoke.token(jti="another", expires_at=NOW + WEEK)
    assert door.oidc.stats()["revocations"]["entries"] == 2_001
    for _ in range(20):
        door.clock.advance(2)
        await door.oidc.revoke.token(jti="another", expires_at=NOW + WEEK)
    assert door.oidc.stats()["revocations"]["entries"] == 1


async def test_a_revocation_outlives_every_look_until_its_end(door: Door, signer: Signer) -> None:
    token = signer.token(claims={"exp": NOW + 300})
    await door.oidc.revoke.token(token)
    for _ in range(31):
        assert await status(door, token) == 401
        door.clock.advance(10)


# ---------------------------------------------------------------------------------------------- looking into the ledger


async def test_verdicts(door: Door, signer: Signer) -> None:
    token = signer.token()
    assert door.oidc.revocations.check(token) == ("valid", NOW)
    await door.oidc.revoke.token(token)
    assert door.oidc.revocations.check(token) == ("revoked", NOW)
    with pytest.raises(Malformed):
        door.oidc.revocations.check("nonsense")
    with pytest.raises(ValueError, match="name the token"):
        door.oidc.revocations.check()


async def test_a_list_goes_through_everything(door: Door) -> None:
    for number in range(250):
        await door.oidc.revoke.token(jti=f"{number}")
    await door.oidc.revoke.subject("alice")
    pages, after = [], None
    while True:
        page = door.oidc.revocations.list(after=after, limit=100)
        pages.append(page.revocations)
        after = page.next
        if after is None:
            break
    assert [len(page) for page in pages] == [100, 100, 51]
    assert len({entry.digest for page in pages for entry in page}) == 251
    (subject,) = door.oidc.revocations.list(kind="subject").revocations
    assert (subject.kind, subject.number) == ("subject", NOW)
    wrong_ones: dict[str, Any] = {"limit": 0, "after": "elsewhere", "kind": "user"}
    for name, wrong in wrong_ones.items():
        with pytest.raises(ValueError, match=name):
            door.oidc.revocations.list(**{name: wrong})


async def test_an_export_is_the_same_elsewhere(signer: Signer) -> None:
    first, second, third = (Door(signer.jwks(), secret=secret * 32) for secret in "sso")
    token = signer.token(claims={"jti": "one"})
    await first.oidc.revoke.token(token)
    await first.oidc.revoke.subject("bob")
    lines = list(first.oidc.revocations.export())
    assert "one" not in "".join(lines), "digests only"
    assert await second.oidc.revocations.import_(lines) == "local"
    assert await status(second, token) == 401
    assert sorted(second.oidc.revocations.export()) == sorted(lines)
    with pytest.raises(ValueError, match=r"line 1 was made under a secret .* not configured here"):
        await third.oidc.revocations.import_(lines)


@pytest.mark.parametrize("line", ["", "{}", "null", "[1]", "{" * 1000])
async def test_what_is_no_export_is_refused(line: str, door: Door) -> None:
    with pytest.raises(ValueError, match="line 1 is not of an export"):
        await door.oidc.revocations.import_([line])


@pytest.mark.parametrize(
    "change",
    [{"kind": "user"}, {"digest": "0"}, {"digest": "f" * 17}, {"digest": "x"}, {"end": 1 << 33}, {"number": -1}],
)
async def test_what_no_record_can_have_is_refused(change: dict[str, Any], door: Door) -> None:
    await door.oidc.revoke.token(jti="one")
    (line,) = door.oidc.revocations.export()
    with pytest.raises(ValueError, match="line 1 is not of an export"):
        await door.oidc.revocations.import_([json.dumps(json.loads(line) | change)])

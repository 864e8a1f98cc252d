"""The `cache/keys` abuse cases that need no revocation and no shared cache: what a known token may and may not do."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from oidc_middleware import OIDC, OIDCMiddleware, Rule

from abuse.door import Door
from abuse.signing import AUDIENCE, NOW, Signer, good_claims
from abuse.token_cases import MALLEABLE, Case

pytestmark = pytest.mark.anyio


@pytest.fixture(scope="module")
def signer() -> Signer:
    return Signer()


@pytest.fixture
def door(signer: Signer) -> Door:
    return Door(signer.jwks())


@pytest.mark.parametrize("case", MALLEABLE, ids=lambda case: f"C-malleable-{case.id}")
async def test_another_spelling_of_a_known_token(case: Case, door: Door, signer: Signer) -> None:
    """The verdict is that of the spelling itself, known or not, however often it is sent."""
    alg = case.id.split("-")[2]
    for _ in range(2):
        assert (await door.ask(token=signer.token(alg=alg))).status == 200
        answer = await door.ask(token=case.token(signer))
        assert (answer.status == 200) == (case.expected is None)
        assert answer.status in {200, 400, 401}


async def test_every_route_asks_its_own_policy(signer: Signer) -> None:
    """C-aud-scope: what is shared is that the token is good, never what it may do."""
    door = Door(
        signer.jwks(),
        audience=[AUDIENCE, "api://admin"],
        optional=["/hello"],
        rules=[
            Rule("/read", scopes=("orders:read",)),
            Rule("/admin", scopes=("admin",)),
            Rule("/other", audience="api://admin"),
            Rule("/claim", claims={"sub": "bob"}),
        ],
    )
    expected = {"/read": 200, "/admin": 403, "/other": 403, "/claim": 403, "/hello": 200, "/": 200}
    token = signer.token()
    for path, status in [*expected.items(), *reversed(expected.items())]:
        assert ((await door.ask(path, token=token)).status, path) == (status, path)
    other = signer.token(claims={"aud": ["api://admin"], "scope": "admin", "sub": "bob"})
    for path, status in {"/read": 403, "/admin": 200, "/other": 200, "/claim": 200}.items():
        assert (await door.ask(path, token=other)).status == status


async def test_two_services_in_one_process_share_nothing(signer: Signer) -> None:
    """C-aud-scope: a token that one knows is news to the other, which has another audience."""
    one, two = Door(signer.jwks()), Door(signer.jwks(), audience="api://two")
    token = signer.token()
    for _ in range(3):
        assert (await one.ask(token=token)).status == 200
        assert (await two.ask(token=token)).status == 401


async def test_two_doors_of_one_service_keep_their_own_answer(signer: Signer) -> None:
    door = Door(signer.jwks())
    inner = OIDCMiddleware(door.app, oidc=door.oidc)
    token = signer.token()
    assert (await door.ask(token=token)).status == 200
    door.app = inner
    assert (await door.ask(token=token)).status == 200
    assert (await door.ask()).status == 401


@pytest.mark.parametrize("leeway", [0, 30, 300])
@pytest.mark.parametrize("known", [False, True], ids=["new", "known"])
async def test_the_deadline_to_the_fraction(leeway: int, known: bool, signer: Signer) -> None:
    """C-exp-recheck: `exp` plus leeway, whether it is a whole number or not, and before it everything is let in."""
    for exp in (NOW + 20, NOW + 20.25, NOW + 200):
        door = Door(signer.jwks(), leeway=leeway)
        token = signer.token(claims={"exp": exp})
        if known:
            assert (await door.ask(token=token)).status == 200
        door.clock.advance(exp + leeway - NOW - 0.001)
        assert (await door.ask(token=token)).status == 200
        door.clock.advance(0.001)
        door.clock.jump(exp + leeway - door.clock.now())
        assert (await door.ask(token=token)).status == 401
        door.clock.advance(1)
        assert (await door.ask(token=token)).status == 401
        door.clock.jump(-1.5)  # the machine's clock is set back: what is true is what it says now
        assert (await door.ask(token=token)).status == 200


EDGES: dict[str, tuple[dict[str, Any], bool]] = {
    "exp-at-leeway": ({"exp": NOW - 30}, False),
    "exp-within-leeway": ({"exp": NOW - 29.999}, True),
    "exp-just-now": ({"exp": NOW + 1e-6, "iat": NOW}, True),
    "nbf-at-leeway": ({"nbf": NOW + 30}, True),
    "nbf-beyond-leeway": ({"nbf": NOW + 30.001}, False),
    "nbf-is-exp": ({"nbf": NOW + 300, "exp": NOW + 300}, False),
    "nbf-is-exp-within-leeway": ({"nbf": NOW + 10, "exp": NOW + 10}, True),
    "iat-at-leeway": ({"iat": NOW + 30}, True),
    "iat-beyond-leeway": ({"iat": NOW + 30.001}, False),
    "iat-after-exp": ({"iat": NOW + 20, "exp": NOW + 10}, True),
    "iat-too-old": ({"iat": NOW - 30 * 86400 - 30}, False),
    "iat-just-old-enough": ({"iat": NOW - 30 * 86400 - 29}, True),
    "iat-zero": ({"iat": 0}, False),
    "exp-year-9999": ({"exp": 253402300799}, True),
    "exp-year-10000": ({"exp": 253402300800}, False),
    "nbf-zero": ({"nbf": 0}, True),
    "nbf-minus-zero": ({"nbf": -0.0}, True),
    "exp-exponent": ({"exp": 1.8e9}, True),
    "aud-of-1000": ({"aud": [*map(str, range(1_000)), AUDIENCE]}, True),
    "aud-of-10000": ({"aud": [*map(str, range(10_000)), AUDIENCE]}, False),
    "aud-twice": ({"aud": [AUDIENCE, AUDIENCE]}, True),
    "scope-of-1000": ({"scope": " ".join(map(str, range(1_000)))}, True),
    "scope-odd-spaces": ({"scope": "  a\tb\n c "}, True),
    "jti-star": ({"jti": "*"}, True),
    "C-jti-glob-bracket": ({"jti": "?[a"}, True),
    "C-jti-glob-newline": ({"jti": "a\nb\0c"}, True),
    "C-jti-glob-emoji": ({"jti": "👩\u200d🚀"}, True),
    "C-jti-glob-megabyte": ({"jti": "x" * 1_000_000}, False),
    "C-jti-glob-longest": ({"jti": "x" * 8_000}, True),
}


@pytest.mark.parametrize(("claims", "let_in"), EDGES.values(), ids=EDGES)
async def test_edges_with_the_default_leeway(claims: dict[str, Any], let_in: bool, signer: Signer) -> None:
    door = Door(signer.jwks(), leeway=30)
    token = signer.token(claims=claims)
    for _ in range(3):
        assert (await door.ask(token=token)).status == (200 if let_in else 401)


@pytest.mark.parametrize(("depth", "status"), [(30, 200), (31, 200), (32, 401), (5_000, 401)])
@pytest.mark.parametrize(("opening", "closing"), [("[", "]"), ('{"a":', "}")], ids=["array", "object"])
async def test_claims_may_nest_32_deep(depth: int, status: int, opening: str, closing: str, signer: Signer) -> None:
    """The payload itself is the first level."""
    door = Door(signer.jwks())
    nested = opening * depth + "1" + closing * depth
    claims = json.dumps(good_claims(deep="@")).replace('"@"', nested).encode()
    token = signer.token(claims=claims)
    for _ in range(2):
        answer = await door.ask(token=token)
        assert answer.status == status
        assert status != 200 or json.loads(answer.body)["deep"] == json.loads(nested)


@pytest.mark.parametrize("at", [20, 32, 100, 200])
async def test_tokens_that_differ_after_a_long_beginning(at: int, door: Door, signer: Signer) -> None:
    """C-truncate: 200 tokens with the same first kilobyte are 200 identities."""
    tokens = [signer.token(alg="EdDSA", claims={"pad": "x" * at * 10, "z": number}) for number in range(200)]
    for _ in range(2):
        for number, token in enumerate(tokens):
            assert json.loads((await door.ask(token=token)).body)["z"] == number


async def test_what_an_app_does_to_claims_reaches_nobody(door: Door, signer: Signer) -> None:
    """C-mutable."""
    token = signer.token(claims={"roles": ["user"], "realm_access": {"roles": ["user"]}})
    user = (await door.ask(token=token)).seen["user"]  # type: ignore[index]
    auth = (await door.ask(token=token)).seen["auth"]  # type: ignore[index]
    for change in (
        lambda: user.claims.update(sub="admin"),
        lambda: user.claims.__setitem__("sub", "admin"),
        lambda: user.claims.pop("exp"),
        lambda: user.claims["realm_access"].__setitem__("roles", ["admin"]),
        lambda: user.claims["roles"].append("admin"),
        lambda: user.claims.__ior__({"sub": "admin"}),
        lambda: setattr(user, "subject", "admin"),
        lambda: user.scopes.add("admin"),
    ):
        with pytest.raises((TypeError, AttributeError)):
            change()
    auth.scopes.append("admin")
    again = (await door.ask(token=token)).seen
    assert again is not None
    assert (again["user"].subject, again["user"].claims["roles"]) == ("alice", ("user",))
    assert again["auth"].scopes == ["orders:read"]


async def test_a_flood_of_bad_copies_does_not_lock_the_owner_out(door: Door, signer: Signer) -> None:
    """C-neg-poison: before the good token was ever seen, and between its requests."""
    good = signer.token()
    head, _, signature = good.rpartition(".")
    copies = [
        f"{head}.{signature[:at]}{'A' if signature[at] != 'A' else 'B'}{signature[at + 1 :]}" for at in range(300)
    ]
    for copy in copies:
        assert (await door.ask(token=copy)).status == 401
    answers = await asyncio.gather(*(door.ask(token=token) for token in (*copies, good)))
    assert [answer.status for answer in answers] == [401] * 300 + [200]
    for copy in copies:
        assert (await door.ask(token=copy)).status == 401
    assert (await door.ask(token=good)).status == 200


async def test_the_end_of_a_token_alone_is_no_token(door: Door, signer: Signer) -> None:
    """Known tokens are found by their last characters; nothing is let in by those alone."""
    good = signer.token()
    for _ in range(3):
        assert (await door.ask(token=good)).status == 200
    for cut in (1, 10, len(good) - 33, len(good) - 32, len(good) - 31, len(good) - 1):
        assert (await door.ask(token=good[cut:])).status in {400, 401}
    for value in (good, "x" + good, good[-32:], "Bearer" + good, "Basic " + good, "Bearer " + "A" * 100 + good[-32:]):
        assert (await door.ask(headers=[(b"authorization", value.encode())])).status in {400, 401}


def test_nothing_is_shared_by_modules() -> None:
    """Two services of one process differ in everything that can change."""
    one, two = (OIDC(issuer="https://idp.example", audience=AUDIENCE) for _ in range(2))
    assert one.caches is not two.caches
    assert one.authenticator is not two.authenticator

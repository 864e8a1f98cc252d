"""What an attack on the finished service found, each with the input that showed it."""

from __future__ import annotations

import asyncio
import gzip
import json
import time
import traceback
import tracemalloc
from collections.abc import AsyncIterator, Callable
from typing import Any, cast
from urllib.parse import unquote_to_bytes

import httpx2
import pytest
from hypothesis import given
from hypothesis import strategies as st
from provider_kit import Bench

from oidc_middleware import OIDCMiddleware, Rule
from oidc_middleware.auth.known import HOT_TOKENS
from oidc_middleware.core import bearer, verify
from oidc_middleware.core.addresses import Zone
from oidc_middleware.core.claims import check_lifetime, check_texts, scopes
from oidc_middleware.core.keys import parse_jwks
from oidc_middleware.core.policy import Policy
from oidc_middleware.errors import ClaimError, InvalidRequest, ProviderUnavailable
from oidc_middleware.provider import HTTPDoor
from oidc_middleware.provider.http import _read
from oidc_middleware.provider.provider import KEYS_LIFE
from oidc_middleware.provider.stored import Stored
from oidc_middleware.testing import FakeIssuer, ManualClock

from abuse.door import Door, issuer_transport
from abuse.signing import ISSUER, NOW, Signer

pytestmark = pytest.mark.anyio

DAY = 86_400


@pytest.fixture(scope="module")
def signer() -> Signer:
    return Signer()


def test_a_query_of_a_million_parameters_does_not_hold_the_loop() -> None:
    """Any `Authorization` value made us decode each of them: 387 ms for this query, without an identity."""
    began = time.process_time()
    bearer.check_query(b"%&" * 500_000)
    assert time.process_time() - began < 0.2


PIECES = st.sampled_from(
    ["access_token", "access%5ftoken", "%61%63cess_token", "a", "&", "=", "%", "%26", "+", ";", "?"]
)


def decoded_names_hold_a_token(query: bytes) -> bool:
    return any(unquote_to_bytes(part.partition(b"=")[0]) == b"access_token" for part in query.split(b"&"))


@given(st.lists(PIECES, max_size=8).map("".join), st.integers(0, 11), st.booleans())
def test_a_token_in_the_query_is_found_as_if_every_name_were_decoded(query: str, escaped: int, upper: bool) -> None:
    letter = "access_token"[escaped]
    escape = f"%{ord(letter):02X}" if upper else f"%{ord(letter):02x}"
    for form in (query, query.replace(letter, escape)):
        try:
            bearer.check_query(form.encode())
        except InvalidRequest:
            found = True
        else:
            found = False
        assert found == decoded_names_hold_a_token(form.encode())


@pytest.mark.parametrize("space", ["\t", "\u00a0", "\u2003", "\u001c", "\n", "\u3000"])
async def test_white_space_that_is_no_space_makes_no_scope(signer: Signer, space: str) -> None:
    """RFC 6749 §3.3: an issuer that lets users name scopes need not know what Python takes for white space."""
    door = Door(signer.jwks(), rules=[Rule("/admin/*", scopes=("admin",))])
    answer = await door.ask("/admin/x", token=signer.token(claims={"scope": f"x{space}admin"}))
    assert (answer.status, answer.seen) == (403, None)


def test_spaces_between_scopes_make_no_empty_one() -> None:
    assert scopes({"scope": "  a  b ", "scp": ["c", ""]}) == {"a", "b", "c"}
    assert scopes({"scope": ""}) == frozenset()


async def test_a_known_token_is_known_on_optional_paths_too(signer: Signer, monkeypatch: pytest.MonkeyPatch) -> None:
    """It was verified at every request: 30 times the work, for whoever opens a path to guests."""
    verified = 0
    original = verify.is_signed_by

    def counted(*arguments: Any) -> bool:
        nonlocal verified
        verified += 1
        return original(*arguments)

    monkeypatch.setattr(verify, "is_signed_by", counted)
    door = Door(signer.jwks(), optional=["/welcome"])
    token = signer.token()
    first = await door.ask("/welcome", token=token)
    asked = verified
    for _ in range(3):
        answer = await door.ask("/welcome", token=token)
        assert answer.seen is not None
        assert (answer.status, answer.seen["user"].subject) == (200, "alice")
    assert (first.status, verified) == (200, asked)


@pytest.mark.parametrize("name", ["use", "key_ops", "alg", "kid"])
def test_null_in_a_key_is_as_good_as_absent(signer: Signer, name: str) -> None:
    """Serialisers that write every member of an object write `null`; no key of such an issuer could be used."""
    jwk = signer.rsa_jwk() | {name: None}
    keys = parse_jwks(json.dumps({"keys": [jwk]}).encode(), frozenset({"RS256"}))
    assert (len(keys), keys.skipped) == (1, ())


@pytest.mark.parametrize(
    "members", [{"use": "enc"}, {"use": ""}, {"use": ["sig"]}, {"use": 0}, {"key_ops": []}, {"key_ops": "verify"}]
)
def test_what_is_not_null_in_a_key_still_counts(signer: Signer, members: dict[str, Any]) -> None:
    keys = parse_jwks(json.dumps({"keys": [signer.rsa_jwk() | members]}).encode(), frozenset({"RS256"}))
    assert len(keys) == 0


def test_seven_hundred_rules_are_compared_in_less_than_a_second() -> None:
    """They took three, for every rule was parsed again for each other one."""
    policy = Policy(rules=[Rule(f"/a{number}/{{id}}") for number in range(700)])
    began = time.process_time()
    assert policy.unreachable == ()
    assert time.process_time() - began < 1


async def test_the_certificates_of_the_system_are_not_read_on_the_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    """20 ms for each issuer, while every request waits."""
    door = HTTPDoor()
    original = door._tls_context

    def elsewhere() -> Any:
        with pytest.raises(RuntimeError, match="no running event loop"):
            asyncio.get_running_loop()
        return original()

    monkeypatch.setattr(door, "_tls_context", elsewhere)
    with pytest.raises(ProviderUnavailable):
        await door.get("https://127.0.0.1:1/keys", Zone.LOOPBACK)


@pytest.mark.parametrize("others", [0, 1100], ids=["hot", "cached"])
async def test_what_was_verified_in_the_future_is_verified_again(signer: Signer, others: int) -> None:
    """A clock that was ahead for a moment made its verdicts last as long as it was ahead, and not a minute."""
    door = Door(signer.jwks())
    token = signer.token(alg="EdDSA", claims={"exp": int(door.clock.now()) + 7 * DAY})
    door.clock.jump(2 * DAY)
    assert (await door.ask(token=token)).status == 200
    for number in range(others):  # they push it out of the hot set
        lived = int(door.clock.now()) + 300
        other = signer.token(alg="EdDSA", claims={"jti": f"t-{number}", "exp": lived})
        assert (await door.ask(token=other)).status == 200
    door.clock.jump(-2 * DAY)
    assert door.oidc.authenticator.lookup(b"Bearer " + token.encode()) is None
    assert (await door.ask(token=token)).status == 200
    assert door.oidc.authenticator.lookup(b"Bearer " + token.encode()) is not None


def test_the_deadline_is_the_shorter_of_both_lives() -> None:
    """Where `exp` is far away the deadline comes from `iat`."""
    assert check_lifetime({"exp": 10_000_000, "iat": 1_000}, 4_600, 30, 86_400) == 1_000 + 86_400 + 30
    assert check_lifetime({"exp": 5_000, "iat": 1_000}, 4_600, 30, 86_400) == 5_030


@pytest.mark.parametrize("name", ["jti", "sid", "client_id", "azp", "appid", "cid"])
@pytest.mark.parametrize("value", [1, None, "", ["a"], {}], ids=repr)
def test_names_that_we_act_upon_are_texts(name: str, value: object) -> None:
    with pytest.raises(ClaimError) as refused:
        check_texts({name: value})
    assert (refused.value.claim, refused.value.reason) == (name, "invalid")


def test_a_token_without_kid_fits_no_more_than_four_keys(signer: Signer) -> None:
    """Each candidate costs a signature check: an issuer with a hundred keys would let one request make a hundred."""

    def keys(count: int, kid: str | None) -> Any:
        jwks = [signer.rsa_jwk(kid=kid or f"k{number}") for number in range(count)]
        return parse_jwks(json.dumps({"keys": jwks}).encode(), frozenset({"RS256"}))

    assert (len(keys(4, None).find(None, "RS256")), len(keys(5, None).find(None, "RS256"))) == (4, 0)
    assert (len(keys(4, "k").find("k", "RS256")), len(keys(5, "k").find("k", "RS256"))) == (4, 0)
    assert len(keys(5, None).find("k4", "RS256")) == 1


@pytest.mark.parametrize("spelling", ["pad", "newline", "standard", "length"])
@pytest.mark.parametrize("name", ["n", "e"])
def test_numbers_of_a_key_are_strict_base64url(signer: Signer, name: str, spelling: str) -> None:
    """PyJWT reads all of these; then one key would have several thumbprints, and a respelled one would look new."""
    jwk = signer.rsa_jwk()
    number = jwk[name]
    spelled = {
        "pad": number + "==",
        "newline": number + "\n",
        "standard": "+" + number[1:],
        "length": number + "A" * ((1 - len(number)) % 4),
    }
    keys = parse_jwks(json.dumps({"keys": [jwk | {name: spelled[spelling]}]}).encode(), frozenset({"RS256"}))
    assert (len(keys), keys.skipped) == (0, (f"key 0: {name} is not base64url",))


async def test_the_cache_knows_what_the_hot_set_had_no_room_for(signer: Signer) -> None:
    """And only the whole token, and only as long as no key was withdrawn."""
    door = Door(signer.jwks())
    lookup = door.oidc.authenticator.lookup
    value = b"Bearer " + signer.token(alg="EdDSA").encode()
    for number in range(HOT_TOKENS):
        await door.ask(token=signer.token(alg="EdDSA", claims={"jti": f"u-{number}"}))
    assert door.oidc.caches.token.stats().entries == 0
    await door.ask(headers=[(b"authorization", value)])
    assert door.oidc.caches.token.stats().entries == 1
    known = lookup(value)
    assert known is not None
    assert (known.is_cached, known.principal.subject, known.principal.jti) == (True, "alice", "t-1")
    assert lookup(value.replace(b"Bearer", b"bEARER")) is not None
    assert lookup(value.replace(b"Bearer", b"Bearex")) is None
    assert lookup(value[:7] + b"A" + value[8:]) is None
    door.oidc.authenticator._known._generation.withdraw_keys()
    assert lookup(value) is None


async def test_a_hot_token_that_makes_room_is_known_to_the_cache(signer: Signer) -> None:
    door = Door(signer.jwks())
    oldest = signer.token(alg="EdDSA")
    await door.ask(token=oldest)
    for number in range(HOT_TOKENS + 16):
        await door.ask(token=signer.token(alg="EdDSA", claims={"jti": f"u-{number}"}))
    known = door.oidc.authenticator.lookup(b"Bearer " + oldest.encode())
    assert known is not None
    assert known.is_cached


async def test_a_hot_token_whose_end_has_come_makes_room_without_a_trace(signer: Signer) -> None:
    door = Door(signer.jwks())
    for number in range(HOT_TOKENS):
        await door.ask(token=signer.token(alg="EdDSA", claims={"jti": f"u-{number}"}))
    door.clock.advance(61)
    new = signer.token(alg="EdDSA", claims={"jti": "new"})
    await door.ask(token=new)
    known = door.oidc.authenticator.lookup(b"Bearer " + new.encode())
    assert known is not None
    assert not known.is_cached
    assert door.oidc.caches.token.stats().entries == 0


async def test_a_token_that_ends_while_the_issuer_is_asked_is_refused(signer: Signer) -> None:
    clock = ManualClock(NOW)
    served = issuer_transport(signer.jwks())

    async def slow(request: httpx2.Request) -> httpx2.Response:
        clock.advance(200)
        return await served.handle_async_request(request)

    door = Door(b"", transport=httpx2.MockTransport(slow), clock=clock)
    answer = await door.ask(token=signer.token())
    assert (answer.status, answer.seen) == (401, None)
    assert door.oidc.providers[ISSUER].stats()["keys"] == 3


async def test_a_small_packed_answer_never_becomes_a_huge_one() -> None:
    """It would be refused in the end, but 200 MB would have been there for a moment."""
    bomb = gzip.compress(bytes(200_000_000), compresslevel=1)

    async def chunks() -> AsyncIterator[bytes]:
        yield bomb

    tracemalloc.start()
    try:
        with pytest.raises(ValueError, match="larger than 524288 bytes"):
            await _read(chunks(), "gzip")
        assert tracemalloc.get_traced_memory()[1] < 4_000_000
    finally:
        tracemalloc.stop()


async def test_a_look_that_cannot_be_made_is_not_used_up(signer: Signer) -> None:
    """The issuer failed and must not be asked yet: who comes then costs nobody the look after it."""
    clock = ManualClock(NOW)
    old, new = (issuer_transport(json.dumps({"keys": [signer.rsa_jwk(kid=kid)]}).encode()) for kid in ("r1", "r2"))
    now_serving: list[httpx2.MockTransport | None] = [old]

    async def serve(request: httpx2.Request) -> httpx2.Response:
        if now_serving[0] is None:
            raise httpx2.ConnectError("gone", request=request)
        return await now_serving[0].handle_async_request(request)

    door = Door(b"", transport=httpx2.MockTransport(serve), clock=clock)
    unknown = signer.token(header={"kid": "r2"}, claims={"exp": int(NOW) + DAY})
    assert (await door.ask(token=signer.token())).status == 200
    now_serving[0] = None
    backoff = door.oidc.providers[ISSUER]._keys._backoff
    while clock.monotonic() + 31 > backoff.retry_at:
        assert (await door.ask(token=unknown)).status == 401
        clock.advance(0 if clock.monotonic() + 31 <= backoff.retry_at else 31)
    looks = door.oidc.providers[ISSUER].stats()["unknown_kid_looks"]
    clock.advance(30)
    assert (await door.ask(token=unknown)).status == 401
    assert door.oidc.providers[ISSUER].stats()["unknown_kid_looks"] == looks
    now_serving[0] = new
    clock.advance(backoff.retry_at - clock.monotonic())
    assert (
        await door.ask(token=signer.token(header={"kid": "r2"}, claims={"exp": int(clock.now()) + 9}))
    ).status == 200


async def test_one_configuration_error_for_all_requests_collects_no_frames() -> None:
    async def app(*_: object) -> None:
        """Never be called."""

    middleware = OIDCMiddleware(app, issuer="https://idp.example")
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {"type": "http", "method": "GET", "path": "/", "raw_path": b"/", "root_path": "", "headers": []}
    for _ in range(50):
        await middleware(dict(scope), cast("Any", None), send)
    assert [message["status"] for message in sent if "status" in message] == [500] * 50
    assert len(list(traceback.walk_tb(cast("Any", middleware._config_error).__traceback__))) < 10


async def test_keys_from_another_address_are_not_shared(
    fake_issuer_factory: Callable[..., FakeIssuer], oidc_clock: ManualClock
) -> None:
    """Whoever was told other addresses by the operator does not get what those of the issuer's metadata gave."""
    issuer = fake_issuer_factory(algorithms=("ES256",))
    bench = Bench(issuer, oidc_clock)
    await bench.find()
    other = Bench(issuer, oidc_clock, {"caches": bench.caches, "jwks_uri": f"{issuer.url}/jwks"})
    await other.find()
    assert bench.fetches == (1, 2)


async def test_what_the_cache_says_lengthens_no_life(
    fake_issuer_factory: Callable[..., FakeIssuer], oidc_clock: ManualClock
) -> None:
    """A shared cache may hold what another version wrote, or whoever can write there: keys for a year, say."""
    bench = Bench(fake_issuer_factory(algorithms=("ES256",)), oidc_clock)
    await bench.find()
    store = bench.provider._keys._source.store
    now = oidc_clock.now()
    held = bench.provider.peek_keys()
    assert held is not None
    other = Bench(bench.issuer, oidc_clock, {"caches": bench.caches})
    await store.put(Stored(held.document, 0, now, now + 365 * DAY), now + 365 * DAY)
    await other.find()
    assert bench.fetches == (1, 1)
    oidc_clock.advance(KEYS_LIFE.longest)
    assert other.provider.peek_keys() is None

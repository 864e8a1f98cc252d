"""The `dos` and `leak` abuse cases on one node: bounded work, bounded memory, nothing told."""

from __future__ import annotations

import asyncio
import gc
import json
import logging
import tracemalloc
from collections.abc import Callable
from typing import Any

import pytest

from oidc_middleware import Rule, Settings
from oidc_middleware.core import verify
from oidc_middleware.core.keys import MAX_CANDIDATES, Key
from oidc_middleware.core.verify import Unverified
from oidc_middleware.testing import FakeIssuer, faults

from abuse.door import Answer, Door
from abuse.signing import Signer, b64, good_claims

pytestmark = pytest.mark.anyio


@pytest.fixture(scope="module")
def signer() -> Signer:
    return Signer()


@pytest.fixture
def door(signer: Signer) -> Door:
    return Door(signer.jwks())


def deep(count: int) -> bytes:
    return b'{"a":' + b"[" * count + b"]" * count + b"}"


@pytest.mark.parametrize(
    ("depth", "reason"), [(100_000, "longer than 16 KiB"), (5_500, "nested too deep"), (40, "nested too deep")]
)
@pytest.mark.parametrize("part", ["header", "claims"])
async def test_depth(part: str, depth: int, reason: str, signer: Signer, caplog: pytest.LogCaptureFixture) -> None:
    """D-json-depth: what is long is refused unread, what is deep by the reader, and neither by the stack."""
    caplog.set_level(logging.INFO)
    token = signer.token(**{part: deep(depth)})  # type: ignore[arg-type]
    answer = await Door(signer.jwks()).ask(token=token)
    assert (answer.status, answer.seen) == (401, None)
    assert reason in caplog.text


@pytest.mark.parametrize("endpoint", ["discovery", "jwks"])
async def test_depth_of_a_document(endpoint: str) -> None:
    """D-json-depth: an issuer that sends such a thing is one that cannot be asked."""
    issuer = FakeIssuer(algorithms=("ES256",))
    door = Door(b"", transport=issuer.transport(), issuer=issuer.url, audience=issuer.audience)
    door.clock.jump(issuer.clock.now() - door.clock.now())
    for body in (deep(100_000), b"[" * 100_000, deep(100), b'{"keys":[' + deep(40) + b"]}"):
        issuer.fault(endpoint, faults.body(body))
        answer = await door.ask(token=issuer.token())
        assert (answer.status, answer.seen) == (503, None)
        door.clock.advance(60)


DIRECT = b64(b'{"alg":"dir","enc":"A256GCM","zip":"DEF"}')
PASSWORD = b64(b'{"alg":"PBES2-HS256+A128KW","enc":"A128GCM","p2c":2147483648,"p2s":"AAAA"}')
JWE: dict[str, Callable[[Signer], str]] = {
    "D-jwe-five-parts": lambda signer: signer.token() + ".AAAA.AAAA",
    "D-jwe-four-parts": lambda signer: signer.token() + ".AAAA",
    "D-jwe-zip": lambda _: f"{DIRECT}..AAAAAAAAAAAAAAAA.{'A' * 8_000}.AAAAAAAAAAAAAAAAAAAAAA",
    "D-jwe-zip-quarter-megabyte": lambda _: f"{DIRECT}..AA.{'A' * 250_000}.AA",
    "D-jwe-p2c": lambda _: f"{PASSWORD}.AA.AA.AA.AA",
    "D-jwe-p2c-three-parts": lambda _: f"{PASSWORD}.AA.AA",
    "D-jwe-hundred-thousand-parts": lambda _: "." * 100_000,
    "D-jwe-sixteen-thousand-parts": lambda _: "." * 16_000,
}


@pytest.mark.parametrize("make", JWE.values(), ids=JWE)
async def test_an_encrypted_token_is_refused_at_the_first_look(
    make: Callable[[Signer], str], door: Door, signer: Signer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is unpacked, no key is derived, no claim is checked."""
    monkeypatch.setattr("oidc_middleware.core.verify.check", None)
    answer = await door.ask(token=make(signer))
    assert (answer.status, answer.seen) == (401, None)


@pytest.mark.parametrize("kid", [True, False], ids=["kid", "no-kid"])
@pytest.mark.parametrize("count", [1, 4, 5, 100])
async def test_a_token_costs_so_many_signature_checks(
    count: int, kid: bool, signer: Signer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """D-sigcost: four at most, outside the cool-down; the costliest key that is taken needs 1.1 ms each.

    (RSA with 8,192 bits and an exponent of 2**32 - 1, on the machine whose figures the benchmarks show; ES512 0.8 ms.)
    """
    checks: list[Key] = []
    is_signed_by = verify.is_signed_by

    def counted(token: Unverified, keys: tuple[Key, ...]) -> bool:
        checks.extend(keys)
        return is_signed_by(token, keys)

    monkeypatch.setattr(verify, "is_signed_by", counted)
    door = Door(json.dumps({"keys": [signer.rsa_jwk(x=number) for number in range(count)]}).encode())
    bad = [
        signer.token(key=signer.evil, claims={"n": number}, omit_header=() if kid else ("kid",)) for number in range(20)
    ]
    for token in bad[:2]:
        assert (await door.ask(token=token)).status == 401
    checks.clear()
    for token in bad[2:]:
        assert (await door.ask(token=token)).status == 401
    assert len(checks) == 18 * (count if count <= MAX_CANDIDATES else 0)


async def test_what_is_refused_before_the_signature_costs_none(
    door: Door, signer: Signer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Cheap before costly: an expired token, or one for others, is never verified."""
    await door.ask(token=signer.token())
    monkeypatch.setattr(verify, "is_signed_by", None)
    refused: list[dict[str, Any]] = [{"exp": 1}, {"aud": "x"}, {"iss": "x"}, {"sub": 1}, {"nbf": 2e9}, {"cnf": {}}]
    for changes in refused:
        assert (await door.ask(token=signer.token(claims=changes))).status == 401


async def test_memory_is_bounded_by_what_is_known_not_by_what_comes(door: Door, signer: Signer) -> None:
    """D-memory: garbage leaves nothing behind, valid tokens and paths as much as the limits say."""
    app: Any = door.app
    known = door.oidc.authenticator._known
    await garbage(door, signer, range(2_000))
    gc.collect()
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        await garbage(door, signer, range(2_000, 8_000))
        gc.collect()
        after, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert after - before < 100_000
    assert len(known) == 0

    for number in range(3_000):
        token = signer.token(alg="EdDSA", header={"x": number}, claims={"jti": str(number)})
        assert (await door.ask(f"/orders/{number}", token=token)).status == 200
    assert len(known) <= 1_024
    assert len(door.oidc.authenticator._known_headers) <= 256
    assert door.oidc.stats()["caches"]["token"]["bytes"] < 3_000 * 2_000
    for number in range(20_000):
        await door.ask(f"/{number}", method="GET" if number % 2 else f"M{number}")
    assert len(app._decisions) <= 4_096
    assert len(app._decisions.old) <= 4_096


async def garbage(door: Door, signer: Signer, numbers: range) -> None:
    """Send what differs in everything a client can choose, except in the path."""
    claims = b64(json.dumps(good_claims()).encode())
    for number in numbers:
        header = b64(json.dumps({"alg": "RS256", "typ": "at+jwt", "kid": f"kid-{number}"}).encode())
        forged = b64(number.to_bytes(256, "big"))
        other = b64(json.dumps(good_claims(iss=f"https://{number}.example")).encode())
        tokens = (f"{header}.{claims}.{forged}", f"{header}.{other}.{forged}", f"garbage-{number}", "." * (number % 9))
        token = tokens[number % 4] or "x"
        answer = await door.ask(token=token, headers=[(b"accept", b"text/html" if number % 2 else b"*/*")])
        assert answer.status == 401


def test_a_service_belongs_to_one_running_loop_at_a_time(signer: Signer) -> None:
    """D-loop: another loop at the same time is a clear error; after its loop was closed it works on the next."""
    door = Door(signer.jwks())

    async def ask() -> int:
        return (await door.ask(token=signer.token(claims={"n": door.calls}))).status

    async def ask_from_two_loops() -> int:
        status = await ask()
        with pytest.raises(RuntimeError, match="another event loop"):
            await asyncio.to_thread(asyncio.run, ask())
        return status

    for asked in (ask, ask, ask_from_two_loops, ask):
        assert asyncio.run(asked()) == 200


# Leaks


async def refusals(signer: Signer, **request: Any) -> dict[int, Answer]:
    """Return one refusal of each status."""
    token = signer.token()
    door = Door(signer.jwks(), rules=[Rule("/admin", scopes=("admin",))])
    down = Door(b"", transport=FakeIssuer("https://elsewhere.example", algorithms=("ES256",)).transport())
    return {
        400: await door.ask("//", token=token, **request),
        401: await door.ask(token=signer.token(key=signer.evil), **request),
        403: await door.ask("/admin", token=token, **request),
        503: await down.ask(token=token, **request),
    }


@pytest.mark.parametrize("accept", [b"application/json", b"text/html"])
async def test_a_refusal_tells_nothing_of_the_inside(accept: bytes, signer: Signer) -> None:
    """O-exc: a sentence and a code; no traceback, no address, no name of ours, no version."""
    for status, answer in (await refusals(signer, headers=[(b"accept", accept)])).items():
        assert answer.status == status
        text = (answer.body.decode() + str(answer.headers)).lower()
        for secret in (
            "traceback",
            "oidc_middleware",
            "python",
            "idp.example",
            "httpx",
            "jwks",
            "api://orders",
            "alice",
        ):
            assert secret not in text


async def test_a_page_sends_no_referrer(signer: Signer) -> None:
    """O-referer, as far as there are pages: that of a refusal loads nothing, runs nothing, and cannot be framed."""
    for answer in (await refusals(signer, headers=[(b"accept", b"text/html")])).values():
        assert answer.headers["content-type"].startswith("text/html")
        assert answer.headers["referrer-policy"] == "no-referrer"
        assert answer.headers["x-content-type-options"] == "nosniff"
        policy = answer.headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "frame-ancestors 'none'" in policy
        assert b"<script" not in answer.body
        assert b"http" not in answer.body


async def test_a_failing_on_error_changes_no_refusal(signer: Signer, caplog: pytest.LogCaptureFixture) -> None:
    """O-exc: what the user's own function raises is in the log, and the standard refusal goes out."""

    def raises(*_: Any) -> Any:
        raise ZeroDivisionError("secret of the app")

    for on_error in (raises, lambda *_: None, lambda *_: "text"):
        door = Door(signer.jwks(), on_error=on_error)
        answer = await door.ask(token=signer.token(key=signer.evil))
        assert (answer.status, answer.seen) == (401, None)
        assert answer.body == b'{"error":"invalid_token","error_description":"The access token is invalid."}'
    assert "secret of the app" in caplog.text


async def test_nothing_prints_a_token(door: Door, signer: Signer, caplog: pytest.LogCaptureFixture) -> None:
    """O-exc: neither the user, nor the service, nor what it is made of, nor the log at its most talkative."""
    caplog.set_level(logging.DEBUG)
    token = signer.token()
    answer = await door.ask(token=token)
    assert answer.seen is not None
    user = answer.seen["user"]
    known = door.oidc.authenticator.lookup(b"Bearer " + token.encode())
    parts = (user, known, answer.seen["auth"], door.oidc, door.app, door.oidc.settings, door.oidc.stats())
    for shown in (*map(repr, parts), *map(str, parts), f"{user}", caplog.text):
        for part in token.split("."):
            assert part not in shown
    with pytest.raises(TypeError):
        json.dumps(user)


def test_settings_print_no_secret() -> None:
    """O-exc: there is no secret among these settings yet; what is masked is masked in every form."""
    settings = Settings(issuer="https://idp.example", audience="api://orders")
    for shown in (repr(settings), str(settings), f"{settings}"):
        assert "SecretStr" not in shown

"""Every `token/*` abuse case at the door: 401 with the challenge, the app not called, nothing said; or 200."""

from __future__ import annotations

import json
import logging

import pytest

from abuse.door import Door
from abuse.signing import Signer, good_claims
from abuse.token_cases import CASES, Case

pytestmark = pytest.mark.anyio

CHALLENGE = 'Bearer error="invalid_token", error_description="The access token is invalid."'
MALFORMED = 'Bearer error="invalid_request", error_description="The request is malformed."'
# `Bearer  token` is H-twospaces: the header is malformed, before anybody looks at the token.
BAD_REQUESTS = ("leadspace",)


@pytest.fixture(scope="module")
def signer() -> Signer:
    return Signer()


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.id)
async def test_at_the_door(case: Case, signer: Signer, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    jwks = signer.jwks() if case.jwks is None else json.dumps({"keys": case.jwks(signer)}).encode()
    door = Door(jwks)
    token = case.token(signer)
    answer = await door.ask(token=token)
    if case.expected is None:
        assert (answer.status, json.loads(answer.body)["sub"]) == (200, "alice")
        return
    bad_request = any(name in case.id for name in BAD_REQUESTS)
    assert answer.seen is None
    assert answer.status == (400 if bad_request else 401)
    assert answer.challenge == (MALFORMED if bad_request else CHALLENGE)
    for part in (part for part in token.split(".") if len(part) > 3):
        assert part not in answer.body.decode()
        assert part not in caplog.text


async def test_all_refusals_look_the_same(signer: Signer) -> None:
    """H-error-oracle: wrong signature, unknown key, expired and wrong audience cannot be told apart."""
    door = Door(signer.jwks())
    answers = [
        await door.ask(token=signer.token(**changes))
        for changes in (
            {"key": signer.evil},
            {"header": {"kid": "zzz"}},
            {"claims": {"exp": 1}},
            {"claims": {"aud": "other"}},
            {"claims": {"iss": "https://evil.example"}},
            {"header": {"alg": "none"}},
        )
    ]
    assert len({(answer.status, answer.body, tuple(answer.headers.items())) for answer in answers}) == 1


async def test_a_known_token_is_refused_from_its_deadline_on(signer: Signer) -> None:
    """C-exp-recheck: the deadline is looked at on every hit."""
    door = Door(signer.jwks())
    token = signer.token()
    assert (await door.ask(token=token)).status == 200
    door.clock.advance(299.5)
    assert (await door.ask(token=token)).status == 200
    door.clock.advance(0.5)
    assert (await door.ask(token=token)).status == 401


async def test_a_broken_copy_does_not_block_the_good_token(signer: Signer) -> None:
    """C-neg-poison: the victim's header and payload with another signature leave no trace."""
    door = Door(signer.jwks())
    good = signer.token()
    broken = good[:-8] + ("A" * 8 if not good.endswith("A" * 8) else "B" * 8)
    assert (await door.ask(token=broken)).status == 401
    assert (await door.ask(token=good)).status == 200
    assert (await door.ask(token=broken)).status == 401


@pytest.mark.parametrize("at", [20, 32, 128, 400])
async def test_tokens_that_begin_alike_are_two_tokens(at: int, signer: Signer) -> None:
    """C-truncate: a known token lets in no other that shares its beginning."""
    door = Door(signer.jwks())
    good = signer.token()
    assert (await door.ask(token=good)).status == 200
    other = good[:at] + ("A" if good[at] != "A" else "B") + good[at + 1 :]
    assert (await door.ask(token=other)).status == 401
    assert (await door.ask(token=good[:at])).status == 401


async def test_another_payload_before_a_known_signature_is_refused(signer: Signer) -> None:
    door = Door(signer.jwks())
    good = signer.token()
    assert (await door.ask(token=good)).status == 200
    forged = signer.token(claims={"sub": "admin"}).rpartition(".")[0] + "." + good.rpartition(".")[2]
    assert (await door.ask(token=forged)).status == 401


async def test_no_header_is_a_way_in(signer: Signer) -> None:
    """C-bl-backdoor: a header as the original test suite sends it is nothing special."""
    door = Door(signer.jwks())
    header = b'{"alg":"RS256","kid":"test-key-id","typ":"JWT"}'
    assert (await door.ask(token=signer.token(header=header))).status == 401


async def test_a_leaked_private_key_warns_loudly_once(signer: Signer, caplog: pytest.LogCaptureFixture) -> None:
    """T-k-private-leak: used as a public key only, and the log says so."""
    door = Door(json.dumps({"keys": [signer.rsa_jwk(d="AQEBAQEBAQEBAQ")]}).encode())
    assert (await door.ask(token=signer.token())).status == 200
    assert (await door.ask(token=signer.token(claims=good_claims(jti="t-2")))).status == 200
    assert [record.levelname for record in caplog.records if "private part" in record.getMessage()] == ["CRITICAL"]

"""What an attack on revocation found, each with the input that showed it."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
from lifecycle_kit import http_scope, until

from oidc_middleware.core.ledger.records import LARGEST_NUMBER
from oidc_middleware.testing import ManualClock

from abuse.door import Door
from abuse.signing import NOW, Signer

pytestmark = pytest.mark.anyio


@pytest.fixture(scope="module")
def signer() -> Signer:
    return Signer()


async def test_a_verdict_of_all_nodes_is_not_found_by_a_header_value(signer: Signer, tmp_path: Path) -> None:
    """Known tokens are found by the SHA-256 of what follows `Bearer `; verdicts were by that of source and token.

    Anybody can send these where the server lets the bytes of the source pass, and a verdict knows of no revocation.
    """
    cache = f"sqlite:///{tmp_path}/cache.sqlite"
    door = Door(signer.jwks(), cache=cache, secret="s" * 32, share_tokens="always")
    async with door.oidc:
        token = signer.token()
        assert (await door.ask(token=token)).status == 200
        (source,) = [issuer.source for issuer in door.oidc.issuers.values()]
        smuggled = [(b"authorization", b"Bearer " + source + token.encode())]
        assert (await door.ask(headers=smuggled)).status == 400
        await door.oidc.revoke.token(token)
        assert (await door.ask(headers=smuggled)).status == 400


async def test_an_import_revokes_nothing_that_is_yet_to_be_issued(signer: Signer) -> None:
    """There is no un-revoke: a line with a number of the year 2106 shut a subject out for eighty years."""
    door = Door(signer.jwks())
    await door.oidc.revoke.subject("bob")
    (line,) = door.oidc.revocations.export()
    for number, end in ((LARGEST_NUMBER, LARGEST_NUMBER), (int(NOW) + 1000, int(NOW) + 2000)):
        with pytest.raises(ValueError, match=r"^line 1 revokes what is yet to be issued: its number is in the future$"):
            await door.oidc.revocations.import_([json.dumps(json.loads(line) | {"number": number, "end": end})])
    assert list(door.oidc.revocations.export()) == [line]
    ahead = json.dumps(json.loads(line) | {"number": int(NOW) + 120, "end": int(NOW) + 2000})
    await door.oidc.revocations.import_([ahead])  # from a node whose clock is ahead


async def test_an_import_leaves_out_what_has_ended(signer: Signer) -> None:
    door = Door(signer.jwks())
    await door.oidc.revoke.token(jti="one", expires_at=NOW + 60)
    (line,) = door.oidc.revocations.export()
    door.clock.advance(60 + 601)
    other = Door(signer.jwks(), clock=door.clock)
    line = json.dumps(json.loads(line) | {"key_id": other.oidc.mirror.ledger.keys.key_id.hex()})
    await other.oidc.revocations.import_([line])
    assert list(other.oidc.revocations.export()) == []


@pytest.mark.parametrize("rest", ["comes", "does not come"])
async def test_an_order_whose_administrator_is_revoked_while_it_comes(signer: Signer, rest: str) -> None:
    """Whoever had a token of an administrator could keep an order open, and give it hours after that was revoked."""
    door = Door(signer.jwks(), admin_scope="admin")
    admin = signer.token(claims={"scope": "admin", "sub": "root"})
    began, revoked = asyncio.Event(), asyncio.Event()
    parts = [b'{"sub": ', b'"bob"}'] if rest == "comes" else [b'{"sub": ']
    answers: list[dict[str, Any]] = []

    async def receive() -> dict[str, Any]:
        if len(parts) < 2:
            began.set()
            await revoked.wait()
        if not parts:
            await asyncio.Event().wait()
        part = parts.pop(0)
        return {"type": "http.request", "body": part, "more_body": bool(parts) or rest != "comes"}

    async def send(message: Any) -> None:
        answers.append(message)

    headers = [(b"authorization", b"Bearer " + admin.encode()), (b"content-type", b"application/json")]
    scope = http_scope("/oauth2/revocations", method="POST", headers=headers)
    order = asyncio.ensure_future(door.app(scope, receive, send))
    await began.wait()
    await door.oidc.revoke.token(admin)
    revoked.set()
    async with asyncio.timeout(20):
        await order
    assert answers[0]["status"] == 401
    assert json.loads(answers[1]["body"])["error"] == "invalid_token"
    assert (await door.ask(token=signer.token(claims={"sub": "bob", "jti": "two"}))).status == 200


def passed(*doors: Door) -> bool:
    """Let a moment pass on clocks that stand still: what failed is tried again after a pause."""
    for door in doors:
        door.clock.advance(0.01)
    return True


async def test_services_that_share_a_file_have_each_a_ledger(signer: Signer, tmp_path: Path) -> None:
    """They could not read each other's revocations, and so were never sure of anything."""
    cache = f"sqlite:///{tmp_path}/cache.sqlite"
    one, other = (
        Door(signer.jwks(), cache=cache, secret="s" * 32, namespace=name, on_stale="deny") for name in ("oidc", "other")
    )
    async with one.oidc, other.oidc:
        assert await one.oidc.revoke.subject("bob") == "shared"
        assert await other.oidc.revoke.subject("eve") == "shared"
    async with one.oidc, other.oidc:
        await until(lambda: passed(one, other) and one.oidc.ready and other.oidc.ready)
        for door, revoked, valid in ((one, "bob", "eve"), (other, "eve", "bob")):
            assert (await door.ask(token=signer.token(claims={"sub": revoked}))).status == 401
            assert (await door.ask(token=signer.token(claims={"sub": valid}))).status == 200
            assert door.oidc.stats()["revocations"]["unknown_secrets"] == []


async def test_a_secret_that_was_removed_too_early_can_be_put_back(signer: Signer, tmp_path: Path) -> None:
    """Until then nobody is sure of anything, and nothing is thrown away."""
    clock = ManualClock(NOW)

    def door(*secrets: str) -> Door:
        cache = f"sqlite:///{tmp_path}/cache.sqlite"
        return Door(signer.jwks(), cache=cache, secret=list(secrets), on_stale="deny", clock=clock)

    old, new = "o" * 32, "n" * 32
    token, other = signer.token(claims={"sub": "bob"}), signer.token(claims={"sub": "eve", "jti": "two"})
    async with (first := door(old)).oidc:
        assert await first.oidc.revoke.subject("bob") == "shared"
    async with (early := door(new)).oidc:
        await until(lambda: passed(early) and early.oidc.stats()["revocations"]["loaded"])
        assert [(await early.ask(token=each)).status for each in (token, other)] == [503, 503]
        assert early.oidc.stats()["revocations"]["unknown_secrets"] != []
    async with (mended := door(new, old)).oidc:
        await until(lambda: passed(mended) and mended.oidc.ready and not mended.oidc.stats()["revocations"]["stale"])
        assert [(await mended.ask(token=each)).status for each in (token, other)] == [401, 200]


async def test_a_key_that_is_withdrawn_while_the_ledger_is_loaded_lets_nobody_in(
    signer: Signer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The token was remembered for a minute as if the keys of after the wait had verified it."""
    door = Door(signer.jwks())
    (issuer,) = door.oidc.issuers.values()
    assert (await door.ask(token=signer.token(claims={"jti": "one"}))).status == 200

    async def no_keys(*_: object) -> tuple[()]:
        return ()

    async def withdraw() -> None:
        monkeypatch.setattr(issuer.keys, "peek_keys", lambda: None)
        monkeypatch.setattr(issuer.keys, "find_keys", no_keys)
        door.oidc._generation.withdraw_keys()

    monkeypatch.setattr(door.oidc.authenticator._standing, "begin", withdraw)
    assert [(await door.ask(token=signer.token(claims={"jti": "two"}))).status for _ in range(2)] == [401, 401]

"""The `rp/oidf` and `rp/extra` cases: our client against a provider that is served for real and misbehaves."""

from __future__ import annotations

import logging
import time
from typing import Any

import pytest

from abuse.hostile_op import SCENARIOS, HostileOP, served_op
from login_kit import CALLBACK, Browser, service

pytestmark = pytest.mark.anyio

COMPLETES = [
    "oidcc-client-test",
    "oidcc-client-test-kid-absent-single-jwks",
    "oidcc-client-test-kid-absent-multiple-jwks",  # every key that fits is tried, four at most
    "oidcc-client-test-idtoken-sig-rs256",
    "oidcc-client-test-userinfo-bearer-header",
    "oidcc-client-test-discovery-openid-config",
    "oidcc-client-test-discovery-jwks-uri-keys",
    "oidcc-client-test-signing-key-rotation-just-before-signing",
    "oidcc-client-test-signing-key-rotation",
    "x-jwks-one-bad-key",
]
PROVIDER_FAILS = {
    "oidcc-client-test-discovery-issuer-mismatch", "x-token-no-idtoken", "x-token-type-mac", "x-token-500",
    "x-token-array", "x-token-redirect", "x-token-slow", "x-discovery-redirect", "x-discovery-huge", "x-jwks-redirect",
    "x-jwks-huge", "x-jwks-slow", "x-jwks-html", "x-userinfo-500",
}  # fmt: skip
REFUSED = sorted(SCENARIOS.keys() - set(COMPLETES))
NEVER_BEGINS = {"oidcc-client-test-discovery-issuer-mismatch", "x-discovery-redirect", "x-discovery-huge"}
# The state that came back is none of ours, or which of two is not said: no login of ours is ended by that.
NOT_OURS = {"x-state-wrong", "x-state-dup", "x-sent-twice-state"}


def told(caplog: pytest.LogCaptureFixture) -> str:
    return "\n".join(record.getMessage() for record in caplog.records if record.name.startswith("oidc_middleware"))


@pytest.mark.parametrize("scenario", COMPLETES, ids=lambda name: f"RP-{name}")
async def test_the_login_completes(scenario: str) -> None:
    async with served_op(scenario, CALLBACK) as op, service(op.issuer.url) as found, found.browser() as browser:
        answer = await _log_in(browser, op)

        assert (answer.status_code, answer.headers["location"]) == (302, "/orders?id=1")
        assert (await browser.get("/orders")).json() == {"path": "/orders"}
        assert browser.flows == []
        (login,) = found.sessions.logins
        assert (login.issuer, login.claims["sub"], login.claims["email"]) == (
            op.issuer.url,
            "alice",
            "alice@example.com",
        )
        assert op.issuer.requests["token"] == op.issuer.requests["userinfo"] == 1


async def test_rp_signing_key_rotation_the_second_login_completes_with_the_new_key() -> None:
    name = "oidcc-client-test-signing-key-rotation"
    async with served_op(name, CALLBACK) as op, service(op.issuer.url) as found, found.browser() as browser:
        await browser.log_in()
        answer = await _log_in(browser, op)

        assert answer.status_code == 302
        assert len(found.sessions.logins) == 2


@pytest.mark.parametrize("scenario", REFUSED, ids=lambda name: f"RP-{name}")
async def test_the_login_is_refused(scenario: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    status = 503 if scenario in PROVIDER_FAILS else 400
    began = time.monotonic()
    options = {"patience": 3.0} if scenario.endswith("-slow") else {}
    async with (
        served_op(scenario, CALLBACK) as op,
        service(op.issuer.url, **options) as found,
        found.browser() as browser,
    ):
        begun = await browser.start()
        answer, back = begun, None
        if scenario not in NEVER_BEGINS:
            assert begun.status_code == 302
            back = await browser.sign_in(begun.headers["location"])
            answer = await browser.get(back)

        assert answer.status_code == status
        assert answer.headers["content-type"].startswith("text/html")
        assert answer.headers["cache-control"] == "no-store"
        assert ("retry-after" in answer.headers) is (status == 503)
        assert 'href="/oauth2/start' in answer.text
        assert "alice" not in answer.text
        assert (browser.session, found.sessions.logins) == (None, [])
        assert time.monotonic() - began < 50
        if back is not None:
            await _is_consumed(browser, op, back, ours=scenario not in NOT_OURS)
        _is_discreet(told(caplog), op)


async def _log_in(browser: Browser, op: HostileOP) -> Any:
    begun = await browser.start()
    op.prepare()
    return await browser.get(await browser.sign_in(begun.headers["location"]))


async def _is_consumed(browser: Browser, op: HostileOP, back: str, *, ours: bool) -> None:
    """Check that the same answer, healed or not, is good for nothing any more."""
    assert (browser.flows == []) is ours
    asked = op.issuer.requests["token"]
    op.issuer.heal()
    again = await browser.get(back)

    assert again.status_code == 400
    assert op.issuer.requests["token"] == asked


def _is_discreet(log: str, op: HostileOP) -> None:
    """Check that the log holds no secret: tokens have three parts, codes and states 32 characters and more."""
    assert "eyJ" not in log
    assert not any(code in log for code in op.issuer.grants.codes)
    assert "client secret" not in log
    assert "alice" not in log


async def test_x_error_access_denied_what_the_issuer_says_is_shown_as_text_and_cut() -> None:
    name = "x-error-access-denied"
    async with served_op(name, CALLBACK) as op, service(op.issuer.url) as found, found.browser() as browser:
        answer = await browser.log_in()

        assert "&lt;script&gt;alert(1)&lt;/script&gt; X: y zzz" in answer.text
        assert "<script" not in answer.text
        assert "z" * 250 not in answer.text
        assert "…" in answer.text
        assert "rd=%2Forders%3Fid%3D1" in answer.text
        policy = answer.headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "frame-ancestors 'none'" in policy
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["referrer-policy"] == "no-referrer"

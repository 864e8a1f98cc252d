"""`oidc-middleware explain` says what the door does, whatever the token is, and no more than the token says itself."""

from __future__ import annotations

import asyncio
import io
import json
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from introspection_kit import OPAQUE, Asked, door_of

from oidc_middleware import OIDC, Issuer
from oidc_middleware.cli import main
from oidc_middleware.cli.explain import explain
from oidc_middleware.cli.walk import walk
from oidc_middleware.errors import OIDCError
from oidc_middleware.testing import FakeIssuer, ManualClock, faults

from abuse.door import issuer_transport
from abuse.signing import AUDIENCE, ISSUER, NOW, Signer, b64, good_claims
from abuse.token_cases import CASES, Case

SIGNER = Signer()
PAGE = (Path(__file__).parent.parent / "docs" / "commands.md").read_text()


def service(jwks: bytes | None = None, **changes: Any) -> OIDC:
    keywords: dict[str, Any] = {"issuer": ISSUER, "audience": AUDIENCE, "token_type": "at+jwt", "leeway": 0} | changes
    return OIDC(clock=ManualClock(NOW), transport=issuer_transport(jwks or SIGNER.jwks()), **keywords)


async def refusal(oidc: OIDC, token: bytes) -> OIDCError | None:
    """Return what the door says to `token`."""
    try:
        await oidc.authenticator.authenticate(b"Bearer " + token)
    except OIDCError as error:
        return error
    return None


# The same verdict as the door's


@pytest.mark.anyio
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.id)
async def test_it_says_what_the_door_says(case: Case, capsys: pytest.CaptureFixture[str]) -> None:
    jwks = None if case.jwks is None else json.dumps({"keys": case.jwks(SIGNER)}).encode()
    token = case.token(SIGNER).encode()
    verdict = await refusal(service(jwks), token)

    code = await explain(token, service(jwks))

    said = capsys.readouterr().out
    assert code == {0: 0, 503: 3}.get(verdict.status if verdict else 0, 1)
    assert (f": {verdict} (the client sees {verdict.status}" in said) if verdict else ("\naccepted: " in said)
    assert "please report" not in said
    assert said.isascii()
    assert said.replace("\n", "").isprintable()


@pytest.mark.anyio
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.id)
async def test_it_prints_nothing_that_is_not_in_the_token(case: Case, capsys: pytest.CaptureFixture[str]) -> None:
    jwks = None if case.jwks is None else json.dumps({"keys": case.jwks(SIGNER)}).encode()
    token = case.token(SIGNER)
    await explain(token.encode(), service(jwks))
    said = capsys.readouterr().out
    for key in json.loads(jwks or SIGNER.jwks())["keys"]:
        if isinstance(key, dict):
            assert not any(key[name] in said for name in ("n", "x", "y") if name in key)
    assert not any(part in said for part in token.split(".") if len(part) > 40)


DEFECTS: dict[str, list[Any]] = {
    "iss": ["https://evil.example", 1],
    "aud": ["other", [1]],
    "exp": [1, "x"],
    "nbf": [NOW + 1000],
    "iat": [NOW + 1000, None],
    "sub": ["", 1],
    "jti": [1],
    "azp": [[]],
    "cnf": [{"jkt": "x"}],
    "scope": [1],
    "nonce": ["n"],
    "typ": ["ID"],
}
HEADER_DEFECTS: dict[str, list[Any]] = {
    "alg": ["none", 1],
    "jku": ["https://evil.example"],
    "kid": [1, "zzz"],
    "typ": ["logout+jwt", 1],
}


def some_of(defects: dict[str, list[Any]]) -> st.SearchStrategy[dict[str, Any]]:
    return st.fixed_dictionaries({}, optional={name: st.sampled_from(values) for name, values in defects.items()})


@settings(max_examples=150, deadline=None)
@given(
    claims=some_of(DEFECTS),
    header=some_of(HEADER_DEFECTS),
    key=st.sampled_from([None, SIGNER.evil]),
    token_type=st.sampled_from(["auto", "at+jwt"]),
)
def test_of_several_defects_it_finds_the_same_first(
    claims: dict[str, Any], header: dict[str, Any], key: Any, token_type: str
) -> None:
    token = SIGNER.token(claims=claims, header=header, key=key).encode()

    async def both() -> tuple[OIDCError | None, OIDCError | None]:
        oidc = service(token_type=token_type)
        walked = await walk(token, oidc.issuers, NOW)
        return walked.error, await refusal(service(token_type=token_type), token)

    walked, door = asyncio.run(both())
    assert (type(walked), str(walked)) == (type(door), str(door))


@settings(max_examples=150, deadline=None)
@given(token=st.one_of(st.binary(max_size=200), st.lists(st.binary(max_size=30).map(b64), max_size=5).map(".".join)))
def test_any_bytes_are_explained(token: bytes | str) -> None:
    """Garbage gets the door's verdict, and every line stays a line."""
    data = token.encode() if isinstance(token, str) else token
    door = asyncio.run(refusal(service(), data))
    walked = asyncio.run(walk(data, service().issuers, NOW))
    assert (type(walked.error), str(walked.error)) == (type(door), str(door))
    assert all((step.name + step.found + step.expected).isprintable() for step in walked.steps)


# What is said


def lines(text: str, mark: str) -> list[str]:
    return [line[8:27].strip() for line in text.splitlines() if line.startswith(mark)]


@pytest.mark.anyio
async def test_the_other_checks_are_made_all_the_same(capsys: pytest.CaptureFixture[str]) -> None:
    token = SIGNER.token(claims={"aud": "other", "exp": NOW - 90}, header={"kid": "zzz"})
    assert await explain(token.encode(), service()) == 1
    said = capsys.readouterr().out
    assert lines(said, "FAILED") == ["audience", "lifetime", "key"]
    assert 'aud "other"\n                            expected: aud with "api://orders"' in said
    assert "(1 min 30 s ago)" in said
    assert "refused: claim: aud mismatch (the client sees 401, error invalid_token)" in said


@pytest.mark.anyio
async def test_where_the_issuer_is_not_known_nothing_is_compared(capsys: pytest.CaptureFixture[str]) -> None:
    oidc = OIDC(issuers=[Issuer(issuer=name, audience=AUDIENCE) for name in (ISSUER, "https://other.example")])
    assert await explain(SIGNER.token(claims={"iss": "https://evil.example"}).encode(), oidc) == 1
    said = capsys.readouterr().out
    assert lines(said, "FAILED") == ["issuer"]
    assert lines(said, "ok")[-1] == "payload JSON"
    assert 'expected: "https://idp.example" or "https://other.example"' in said


@pytest.mark.anyio
async def test_no_text_of_a_token_moves_the_cursor(capsys: pytest.CaptureFixture[str]) -> None:
    evil = "\x1b[2J\r\n\x7f\x9b\u202e"
    token = SIGNER.token(claims={"sub": evil, evil: 1, "scope": evil}, header={evil: evil, "typ": "at+jwt"})
    assert await explain(token.encode(), service()) == 0
    said = capsys.readouterr().out
    assert said.replace("\n", "").isprintable()
    assert said.isascii()
    assert r'accepted: "\u001b[2J\r\n\u007f\u009b\u202e"' in said


@pytest.mark.anyio
async def test_a_long_claim_is_cut(capsys: pytest.CaptureFixture[str]) -> None:
    assert await explain(SIGNER.token(claims={"sub": "a" * 5000, "b" * 5000: 1}).encode(), service()) == 0
    assert max(map(len, capsys.readouterr().out.splitlines())) < 400


@pytest.mark.anyio
async def test_an_outage_is_no_verdict(fake_issuer: FakeIssuer, capsys: pytest.CaptureFixture[str]) -> None:
    fake_issuer.fault("*", faults.down())
    oidc = OIDC(issuer=fake_issuer.url, audience=fake_issuer.audience, transport=fake_issuer.transport())
    assert await explain(fake_issuer.token().encode(), oidc) == 3
    said = capsys.readouterr().out
    assert lines(said, "FAILED") == ["key"]
    assert "\nnobody knows: provider_unavailable: " in said
    assert "(the client sees 503)" in said


@pytest.mark.anyio
async def test_an_outage_does_not_hide_a_refusal(fake_issuer: FakeIssuer, capsys: pytest.CaptureFixture[str]) -> None:
    fake_issuer.fault("*", faults.down())
    oidc = OIDC(issuer=fake_issuer.url, audience=fake_issuer.audience, transport=fake_issuer.transport())
    assert await explain(fake_issuer.token(audience="other").encode(), oidc) == 1
    assert lines(capsys.readouterr().out, "FAILED") == ["audience", "key"]


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("claims", "expected", "line"),
    [
        ({}, 0, 'accepted: "alice" of '),
        ({"aud": "other"}, 1, "FAILED  introspection"),
        ({"aud": "other"}, 1, "refused: claim: aud mismatch (the client sees 401, error invalid_token)"),
    ],
)
async def test_an_opaque_token_is_explained_by_its_issuer(
    claims: dict[str, Any], expected: int, line: str, fake_issuer: FakeIssuer, capsys: pytest.CaptureFixture[str]
) -> None:
    fake_issuer.client("api", secret="s3cret")
    oidc = OIDC(
        issuer=fake_issuer.url,
        audience=fake_issuer.audience,
        client_id="api",
        client_secret="s3cret",
        transport=fake_issuer.transport(),
    )
    assert await explain(fake_issuer.opaque_token(claims=claims).encode(), oidc) == expected
    said = capsys.readouterr().out
    assert "an opaque token: its issuer is asked" in said
    assert line in said
    assert "note:" not in said
    assert "hint:" not in said


@pytest.mark.anyio
async def test_an_opaque_token_may_have_no_end_and_no_subject(capsys: pytest.CaptureFixture[str]) -> None:
    asked = Asked({"active": True, "client_id": "worker", "aud": AUDIENCE})
    assert await explain(OPAQUE.encode(), door_of(asked).oidc) == 0
    assert f'accepted: "worker" of "{ISSUER}", expires at a time that nobody names' in capsys.readouterr().out


HINTS = {
    "opaque": ("ya29.a0"[:4], "opaque token"),
    "jwe": ("e30..AAAA.AAAA.AAAA", "encrypted token (JWE)"),
    "graph": (SIGNER.token(header={"nonce": "x"}, key=SIGNER.evil), "Microsoft Graph"),
    "id": (SIGNER.token(header={"typ": "JWT"}, claims={"nonce": "n"}), "An ID token"),
    "id-cognito": (SIGNER.token(header={"typ": "JWT"}, claims={"token_use": "id"}), "An ID token"),
    "old-keycloak": (SIGNER.token(header={"typ": "JWT"}, claims={"typ": "Bearer", "nonce": "n"}), "before version 24"),
    "refresh": (SIGNER.token(alg="HS256", key=b"k", claims={"typ": "Refresh"}), "A refresh token"),
    "logout": (SIGNER.token(header={"typ": "logout+jwt"}, claims={"events": {}}), "A logout token"),
    "secret": (SIGNER.token(alg="HS256", key=b"k"), "shared secret"),
    "bound": (SIGNER.token(claims={"cnf": {"jkt": "x"}}), "DPoP"),
    "milliseconds": (SIGNER.token(claims={"exp": int(NOW) * 1000}), "in milliseconds"),
    "slash": (SIGNER.token(claims={"iss": f"{ISSUER}/"}), "slash at the end"),
    "entra-v1": (SIGNER.token(claims={"iss": "https://sts.windows.net/t/"}), "version 1 token"),
    "cognito": (SIGNER.token(omit=("aud",), claims={"token_use": "access"}), "audience_claim"),
    "account": (SIGNER.token(claims={"aud": "account"}), "audience mapper"),
}


@pytest.mark.anyio
@pytest.mark.parametrize(("token", "hint"), HINTS.values(), ids=HINTS)
async def test_known_shapes_get_one_hint(token: str, hint: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert await explain(token.encode(), service(token_type="auto")) == 1
    (said,) = [line for line in capsys.readouterr().out.splitlines() if line.startswith("hint: ")]
    assert hint in said


@pytest.mark.anyio
async def test_an_accepted_token_gets_no_hint(capsys: pytest.CaptureFixture[str]) -> None:
    assert await explain(SIGNER.token().encode(), service()) == 0
    assert "hint" not in capsys.readouterr().out


@pytest.mark.anyio
async def test_the_sample_in_the_docs_is_what_is_said(
    fake_issuer_factory: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    clock = ManualClock(NOW)
    issuer = fake_issuer_factory("https://login.example.com", clock=clock)
    oidc = OIDC(issuer=issuer.url, audience="https://api.example.com", clock=clock, transport=issuer.transport())
    token = issuer.id_token("alice", client_id="web", nonce="n-1")
    await explain(token.encode(), oidc)
    said = re.sub(r"\d+ different ones", "61 different ones", capsys.readouterr().out)
    (sample,) = re.findall(r"^```text\n(ok .*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    assert said.startswith(sample)


# Where the token comes from


@pytest.fixture
def words(served_issuer: FakeIssuer) -> list[str]:
    return ["explain", "--issuer", served_issuer.url, "--audience", served_issuer.audience]


@pytest.fixture
def stdin(monkeypatch: pytest.MonkeyPatch) -> Iterator[io.BytesIO]:
    data = io.BytesIO()
    text = io.TextIOWrapper(data)
    monkeypatch.setattr(sys, "stdin", text)
    yield data
    text.detach()


@pytest.mark.parametrize("before", ["", "Bearer ", "authorization: bearer ", "\n "], ids=repr)
@pytest.mark.parametrize("after", ["", "\n", "\r\n"], ids=repr)
def test_what_people_copy_along_does_no_harm(
    before: str, after: str, words: list[str], served_issuer: FakeIssuer, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*words, before + served_issuer.token() + after]) == 0


def test_ctrl_c_while_the_issuer_keeps_it_waiting(fake_issuer: FakeIssuer) -> None:
    code = "import signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler);"
    code += "from oidc_middleware.cli import main; sys.exit(main())"
    with fake_issuer.serve_in_thread():
        fake_issuer.fault("discovery", faults.slow(30))
        words = ["explain", "--issuer", fake_issuer.url, "--audience", fake_issuer.audience, fake_issuer.token()]
        with subprocess.Popen([sys.executable, "-c", code, *words], stdout=-1, stderr=-1, text=True) as process:
            deadline = time.monotonic() + 20
            while not fake_issuer.requests["discovery"]:
                assert time.monotonic() < deadline
                time.sleep(0.01)
            process.send_signal(signal.SIGINT)
            assert process.communicate(timeout=100) == ("", "")
    assert process.returncode == 130


def test_from_a_file(words: list[str], served_issuer: FakeIssuer, tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text(served_issuer.token() + "\n")
    assert main([*words, "--token-file", str(file)]) == 0


def test_from_standard_input_in_a_process_of_its_own(served_issuer: FakeIssuer) -> None:
    result = subprocess.run(
        [sys.executable, "-W", "error", "-m", "oidc_middleware.cli", "explain", "-"],
        input=served_issuer.token("alice") + "\n",
        env={"OIDC_ISSUER": served_issuer.url, "OIDC_AUDIENCE": served_issuer.audience},
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert (result.returncode, result.stderr) == (0, "")
    assert f'\naccepted: "alice" of "{served_issuer.url}", expires ' in result.stdout


@pytest.mark.parametrize(
    "data", [b"A" * 1_000_000, b"." * 1_000_000, bytes(range(256)) * 4000], ids=["A", "dots", "all"]
)
def test_a_megabyte_is_refused(
    data: bytes, words: list[str], stdin: io.BytesIO, capsys: pytest.CaptureFixture[str]
) -> None:
    stdin.write(data)
    stdin.seek(0)
    assert main([*words, "-"]) == 1
    assert "refused: malformed: longer than 16 KiB" in capsys.readouterr().out


@pytest.mark.parametrize("token", ["", " \n", "Bearer ", "-"], ids=repr)
def test_no_token_is_a_usage_error(
    token: str, words: list[str], stdin: io.BytesIO, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*words, token]) == 2
    assert capsys.readouterr().err.startswith("oidc-middleware: token: there is none. ")


def test_a_file_that_is_not_there_is_a_usage_error(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*words, "--token-file", "no\nsuch"]) == 2
    assert capsys.readouterr().err.startswith("oidc-middleware: --token-file: 'no\\nsuch' cannot be read (No such file")


def test_settings_that_cannot_work_exit_2(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["explain", "--issuer", "https://login.example.com/?x", "--audience", "a", "token"]) == 2
    assert capsys.readouterr().err.startswith("oidc-middleware: issuer: has a query. ")


def test_good_claims_are_good() -> None:
    """The hints above differ from a good token in one thing."""
    assert asyncio.run(refusal(service(), SIGNER.token(claims=good_claims()).encode())) is None

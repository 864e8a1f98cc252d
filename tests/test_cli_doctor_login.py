"""`oidc-middleware doctor`, on whether browsers can log in, and what the issuer has to know for that."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from oidc_middleware.cli import main
from oidc_middleware.testing import FakeIssuer

Said = pytest.CaptureFixture[str]


@pytest.fixture
def issuer(served_issuer: FakeIssuer, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeIssuer]:
    for name, value in {
        "CLIENT_ID": "web",
        "LOGIN": "true",
        "BASE_URL": "https://app.example.com",
        "SCOPE": "openid email",
    }.items():
        monkeypatch.setenv(f"OIDC_{name}", value)
    yield served_issuer
    served_issuer.metadata_overrides.clear()


def doctor(issuer: FakeIssuer, said: Said) -> tuple[int, list[str]]:
    """Return the exit code, and the lines about logins."""
    code = main(["doctor", "--issuer", issuer.url, "--audience", "orders"])
    lines = said.readouterr().out.splitlines()
    return code, [line for line in lines if line[8:].startswith(("login", "register"))]


def test_it_says_what_to_register(issuer: FakeIssuer, capsys: Said, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OIDC_POST_LOGOUT_REDIRECT_URI", "https://app.example.com/oauth2/signed_out")
    assert doctor(issuer, capsys) == (
        0,
        [
            '        register   redirect URI "https://app.example.com/oauth2/callback"',
            '        register   back-channel logout URI "https://app.example.com/oauth2/backchannel-logout"',
            '        register   post-logout redirect URI "https://app.example.com/oauth2/signed_out"',
            'ok      login      "web" asks for openid email',
        ],
    )


def test_it_says_nothing_where_nobody_logs_in(
    issuer: FakeIssuer, capsys: Said, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("LOGIN", "BASE_URL", "SCOPE"):
        monkeypatch.delenv(f"OIDC_{name}")
    assert doctor(issuer, capsys) == (0, [])


def test_an_issuer_that_knows_no_logins(issuer: FakeIssuer, capsys: Said) -> None:
    issuer.metadata_overrides |= {"authorization_endpoint": None, "end_session_endpoint": None}
    code, lines = doctor(issuer, capsys)
    assert code == 3
    assert lines[0] == "FAILED  login      its metadata name no authorization_endpoint"
    assert lines[1] == (
        "note    login      its metadata name no end_session_endpoint: a sign-out ends the session here alone"
    )

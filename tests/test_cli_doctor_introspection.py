"""`oidc-middleware doctor`, on whether and how an issuer is asked about tokens."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from oidc_middleware.cli import main
from oidc_middleware.provider.introspection import REFUSAL
from oidc_middleware.testing import FakeIssuer, faults

Said = pytest.CaptureFixture[str]


@pytest.fixture
def issuer(served_issuer: FakeIssuer, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeIssuer]:
    served_issuer.client("doctor-api", secret="hunter2")
    monkeypatch.setenv("OIDC_CLIENT_ID", "doctor-api")
    monkeypatch.setenv("OIDC_CLIENT_SECRET", "hunter2")
    yield served_issuer
    served_issuer.heal()
    served_issuer.metadata_overrides.clear()


def doctor(issuer: FakeIssuer, said: Said, **variables: str) -> tuple[int, str]:
    """Return the exit code, and the line about introspection."""
    with pytest.MonkeyPatch.context() as context:
        for name, value in variables.items():
            context.setenv(f"OIDC_INTROSPECTION{name}", value)
        code = main(["doctor", "--issuer", issuer.url, "--audience", "orders"])
    out = said.readouterr().out
    assert "hunter2" not in out
    (line,) = [line for line in out.splitlines() if line[8:].startswith("introspect")]
    return code, line


def test_it_says_how_the_issuer_is_asked(issuer: FakeIssuer, capsys: Said) -> None:
    where = f'ok      introspect "{issuer.url}/introspect" by client_secret_basic, about '
    before = issuer.requests["introspect"]
    assert doctor(issuer, capsys) == (0, where + "opaque tokens")
    assert issuer.requests["introspect"] == before + 1
    assert doctor(issuer, capsys, **{"": "always"}) == (0, where + "JWTs and opaque tokens")
    assert doctor(issuer, capsys, _PREFIX="ya29.") == (0, where + 'opaque tokens that begin with "ya29."')


def test_it_says_that_nobody_is_asked(issuer: FakeIssuer, capsys: Said, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = (0, "        introspect the issuer is not asked about tokens: opaque ones are refused")
    assert doctor(issuer, capsys, **{"": "never"}) == expected
    monkeypatch.delenv("OIDC_CLIENT_SECRET")
    assert doctor(issuer, capsys) == expected


def test_it_asks_where_the_settings_say(issuer: FakeIssuer, capsys: Said) -> None:
    issuer.metadata_overrides["introspection_endpoint"] = None
    code, line = doctor(issuer, capsys)
    assert (code, line) == (
        3,
        "FAILED  introspect its metadata name no introspection_endpoint, and neither do the settings",
    )
    url = issuer.endpoint("introspect")
    expected = (0, f'ok      introspect "{url}" by client_secret_basic, about opaque tokens')
    assert doctor(issuer, capsys, _ENDPOINT=url) == expected


def test_it_says_that_our_client_is_refused(issuer: FakeIssuer, capsys: Said, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OIDC_CLIENT_SECRET", "wrong")
    assert doctor(issuer, capsys) == (
        3,
        f"FAILED  introspect {issuer.url}/introspect: answered with status 401: {REFUSAL}",
    )


@pytest.mark.parametrize(
    ("fault", "expected"),
    [
        (faults.status(500), "FAILED  introspect {url}/introspect: answered with status 500"),
        (
            faults.body(b'{"active": true, "sub": "anybody"}'),
            'FAILED  introspect "{url}/introspect" by client_secret_basic: it calls a token active that nobody issued',
        ),
    ],
)
def test_it_says_what_is_wrong_with_the_answer(fault: Any, expected: str, issuer: FakeIssuer, capsys: Said) -> None:
    issuer.fault("introspect", fault)
    assert doctor(issuer, capsys) == (3, expected.format(url=issuer.url))

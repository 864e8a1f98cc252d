"""Where settings come from: variables, files, a secrets directory, a `.env` file, and which of them wins."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from oidc_middleware import Issuer, Rule, Settings
from oidc_middleware.errors import ConfigError

ISSUER = "https://login.example.com"
AUDIENCE = "https://api.example.com"


@pytest.fixture(autouse=True)
def no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.upper().startswith("OIDC_")]:
        monkeypatch.delenv(name)


@pytest.fixture
def variables(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Set issuer and audience, and whatever is asked for, `None` to leave one out."""

    def set_them(**values: str | None) -> None:
        for name, value in {"OIDC_ISSUER": ISSUER, "OIDC_AUDIENCE": AUDIENCE, **values}.items():
            if value is not None:
                monkeypatch.setenv(name, value)

    return set_them


def refusal(**keywords: Any) -> ConfigError:
    with pytest.raises(ConfigError) as caught:
        Settings(**keywords)
    return caught.value


def test_issuer_and_audience_are_enough(variables: Callable[..., None]) -> None:
    variables()
    assert Settings() == Settings(issuer=ISSUER, audience=AUDIENCE)


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("audience", "a", ("a",)),
        ("audience", "a, b", ("a", "b")),
        ("audience", '["a,b", "c"]', ("a,b", "c")),
        ("algorithms", "RS256,ES256", ("RS256", "ES256")),
        ("algorithms", '["EdDSA"]', ("EdDSA",)),
        ("public", "/health,/docs/*", ("/health", "/docs/*")),
        ("public", "/health", ("/health",)),
        ("public", "", ()),
        ("public", "[]", ()),
        ("optional", ' ["/a"] ', ("/a",)),
        ("rules", '[{"path": "/a", "scopes": ["x"]}]', (Rule("/a", scopes=("x",)),)),
        ("rules", "[]", ()),
        ("leeway", "0", 0.0),
        ("leeway", "0.5", 0.5),
        ("max_token_life", "3600", 3600.0),
        ("allow_http", "true", True),
        ("allow_http", "NO", False),
        ("allow_http", "1", True),
        ("token_type", "at+jwt", "at+jwt"),
        ("client_id", "[x]", "[x]"),
        ("realm", "a, b", "a, b"),
        ("prefix", "/auth/", "/auth"),
        ("admin_scope", "admin", "admin"),
    ],
)
def test_text_becomes_what_the_keyword_would_be(
    variables: Callable[..., None], name: str, text: str, value: object
) -> None:
    variables(**{f"OIDC_{name.upper()}": text})
    assert getattr(Settings(), name) == value


@pytest.mark.parametrize(
    ("name", "text", "problem"),
    [
        pytest.param("issuer", "", "is empty", id="K-no-iss"),
        pytest.param("audience", "", "is empty", id="K-no-aud"),
        pytest.param("audience", " ", "is empty", id="K-no-aud-space"),
        pytest.param("audience", "a,", "nothing between two commas", id="comma-at-the-end"),
        pytest.param("audience", ",", "nothing between two commas", id="comma-alone"),
        pytest.param("audience", '["a"', "is not JSON", id="half-JSON"),
        pytest.param("audience", "[1]", "must be text", id="numbers"),
        pytest.param("issuer", f" {ISSUER}", "white space", id="space"),
        pytest.param("algorithms", "", "is empty", id="K-alg-none-empty"),
        pytest.param("algorithms", "RS256,none", "without a signature", id="K-alg-none"),
        pytest.param("algorithms", "HS256", "shared secret", id="K-alg-none-HS256"),
        pytest.param("leeway", "86400", "is no clock skew", id="K-leeway-day"),
        pytest.param("leeway", "-1", "is no clock skew", id="K-leeway-negative"),
        pytest.param("leeway", "NaN", "is not a number", id="K-leeway-NaN"),
        pytest.param("leeway", "inf", "is not a number", id="K-leeway-inf"),
        pytest.param("leeway", "30s", "is not a number", id="unit"),
        pytest.param("leeway", "1_0", "is not a number", id="underscore"),
        pytest.param("leeway", "\u0663", "is not a number", id="arabic-digit"),
        pytest.param("leeway", "", "is not a number", id="no-number"),
        pytest.param("leeway", "true", "is not a number", id="flag-for-number"),
        pytest.param("max_token_life", "0", "no token would be accepted", id="no-life"),
        pytest.param("allow_http", "", "neither true nor false", id="no-flag"),
        pytest.param("allow_http", "maybe", "neither true nor false", id="maybe"),
        pytest.param("public", "/", "may open everything", id="K-wild-exclude"),
        pytest.param("public", "/a,/*", "may open everything", id="K-wild-exclude-all"),
        pytest.param("public", "[null]", "is no path", id="K-wild-exclude-null"),
        pytest.param("rules", "/admin", "is not JSON", id="no-JSON"),
        pytest.param("rules", '{"path": "/a"}', "must be a list", id="object"),
        pytest.param("rules", '[{"path": "/a", "path": "/b"}]', "is not JSON", id="duplicate"),
        pytest.param("rules", "\udcff", "is not UTF-8", id="surrogate"),
        pytest.param("rules", "[" * 100_000, "is not JSON", id="deep"),
        pytest.param("issuers", "[]", "is empty", id="no-issuers"),
        pytest.param("client_id", "\udcff", "control or invisible", id="surrogate-in-text"),
        pytest.param("on_error", "print", "cannot come from a variable", id="code"),
    ],
)
def test_text_refused(monkeypatch: pytest.MonkeyPatch, name: str, text: str, problem: str) -> None:
    # os.environ cannot hold everything that a file can, so the text comes through the mapping that is read.
    base = {"OIDC_ISSUER": ISSUER, "OIDC_AUDIENCE": AUDIENCE}
    monkeypatch.setattr(os, "environ", {**os.environ, **base, f"OIDC_{name.upper()}": text})
    error = refusal()
    assert error.field.startswith(name)
    assert problem in error.problem
    assert error.cure


def test_several_issuers_from_a_variable(variables: Callable[..., None]) -> None:
    issuers = [
        {"issuer": "https://a.example", "audience": "a"},
        {"issuer": "https://b.example", "audience": ["b"], "algorithms": ["ES256"]},
    ]
    variables(OIDC_ISSUER=None, OIDC_AUDIENCE=None, OIDC_ISSUERS=json.dumps(issuers))
    assert Settings().trusted == (
        Issuer(issuer="https://a.example", audience="a"),
        Issuer(issuer="https://b.example", audience="b", algorithms=["ES256"]),
    )


def test_one_issuer_and_several_is_refused_across_sources(variables: Callable[..., None]) -> None:
    variables()
    error = refusal(issuers=[Issuer(issuer=ISSUER, audience=AUDIENCE)])
    assert (error.field, error.problem) == ("issuer", "is set beside issuers")


# Names


@pytest.mark.parametrize(
    ("name", "cure"),
    [
        ("OIDC_AUDIENCES", "Did you mean OIDC_AUDIENCE"),
        ("OIDC_ISSUERFILE", "Did you mean OIDC_ISSUER"),
        ("OIDC_", "Settings are OIDC_ISSUER, "),
        ("OIDC_VERIFY_SSL", "No check can be switched off. For a private CA set OIDC_CA_FILE"),
        ("OIDC_CLIENT_SECRETS", "Did you mean OIDC_CLIENT_SECRET or OIDC_SECRET"),
        ("OIDC_ENV_FILE", "Did you mean OIDC_CA_FILE"),
        ("OIDC_issuer", "Did you mean OIDC_ISSUER"),
        ("oidc_issuer", "Did you mean OIDC_ISSUER"),
    ],
)
def test_an_unknown_variable_of_ours_is_refused(variables: Callable[..., None], name: str, cure: str) -> None:
    variables(**{name: "hunter2"})
    error = refusal()
    assert (error.field, error.problem) == (name, "there is no such setting")
    assert error.cure.startswith(cure)
    assert "hunter2" not in str(error)


def test_a_variable_is_checked_although_a_keyword_wins(variables: Callable[..., None]) -> None:
    variables(OIDC_AUDIANCE="x")
    assert refusal(issuer=ISSUER, audience=AUDIENCE).field == "OIDC_AUDIANCE"


@pytest.mark.parametrize("name", ["ISSUER", "issuer", "MY_OIDC_ISSUER", "OIDCISSUER", "oidc_other", "LEEWAY"])
def test_names_of_others_are_ignored(variables: Callable[..., None], name: str) -> None:
    variables(**{name: "x"})
    assert Settings() == Settings(issuer=ISSUER, audience=AUDIENCE)


# Files


@pytest.mark.parametrize("end", ["", "\n", "\r\n"])
def test_a_file_that_a_variable_names(variables: Callable[..., None], tmp_path: Path, end: str) -> None:
    (tmp_path / "audience").write_bytes(b"a, b" + end.encode())
    variables(OIDC_AUDIENCE=None, OIDC_AUDIENCE_FILE=str(tmp_path / "audience"))
    assert Settings().audience == ("a", "b")


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (None, "No such file"),
        (b"\xff", "not UTF-8"),
        (b"x" * 70_000, "larger than"),
        (b"\n", "is empty"),
        (ISSUER.encode() + b"\n\n", "white space"),
        (b"\xef\xbb\xbf" + ISSUER.encode(), "beyond ASCII"),
    ],
    ids=["missing", "binary", "large", "empty", "two-lines", "byte-order-mark"],
)
def test_a_file_that_cannot_be_used(
    variables: Callable[..., None], tmp_path: Path, content: bytes | None, problem: str
) -> None:
    if content is not None:
        (tmp_path / "issuer").write_bytes(content)
    variables(OIDC_ISSUER=None, OIDC_ISSUER_FILE=str(tmp_path / "issuer"))
    error = refusal()
    assert error.field == "issuer"
    assert problem in error.problem


@pytest.mark.parametrize("path", ["", "/", "/dev/zero", "\0"])
def test_a_path_that_is_no_file(monkeypatch: pytest.MonkeyPatch, path: str) -> None:
    monkeypatch.setattr(os, "environ", {"OIDC_ISSUER_FILE": path})
    assert refusal(audience=AUDIENCE).field == "issuer"


def test_the_ca_file_variable_is_the_path_itself(variables: Callable[..., None]) -> None:
    variables(OIDC_CA_FILE="/does/not/exist")
    error = refusal()
    assert error.field == "ca_file"
    assert "'/does/not/exist' cannot be read" in error.problem


def test_a_secrets_directory(tmp_path: Path) -> None:
    (tmp_path / "oidc_issuer").write_text(ISSUER + "\n")
    (tmp_path / "OIDC_AUDIENCE").write_text(AUDIENCE)
    (tmp_path / "database_password").write_text("hunter2")
    (tmp_path / "..data").mkdir()
    assert Settings(secrets_dir=tmp_path) == Settings(issuer=ISSUER, audience=AUDIENCE)


@pytest.mark.parametrize(
    ("files", "field", "problem"),
    [
        (["oidc_isuer"], "OIDC_ISUER", "no such setting"),
        (["oidc_issuer", "OIDC_ISSUER"], "issuer", "twice"),
        (["oidc_issuer/"], "issuer", "Is a directory"),
        (None, "secrets_dir", "No such file"),
    ],
)
def test_a_secrets_directory_that_cannot_be_used(
    tmp_path: Path, files: list[str] | None, field: str, problem: str
) -> None:
    directory = tmp_path / "secrets"
    if files is not None:
        directory.mkdir()
        for name in files:
            (directory / name).mkdir() if name.endswith("/") else (directory / name).write_text(ISSUER)
    error = refusal(secrets_dir=directory, audience=AUDIENCE)
    assert error.field == field
    assert problem in error.problem


# .env


def test_an_env_file_is_read_when_it_is_named(tmp_path: Path) -> None:
    path = tmp_path / "settings.env"
    path.write_text(f'# ours\nOIDC_ISSUER={ISSUER}\nexport OIDC_AUDIENCE="a,b"\nDATABASE_URL=x\nissuer=y\nEMPTY\n')
    assert Settings(env_file=path) == Settings(issuer=ISSUER, audience=["a", "b"])


def test_no_env_file_is_read_unasked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / ".env").write_text("OIDC_LEEWAY=7\n")
    monkeypatch.chdir(tmp_path)
    assert Settings(issuer=ISSUER, audience=AUDIENCE).leeway == 30


@pytest.mark.parametrize(
    ("content", "field", "problem"),
    [
        (None, "env_file", "No such file"),
        (b"\xff\xfe", "env_file", "not UTF-8"),
        (b"OIDC_ISUER=x\n", "OIDC_ISUER", "no such setting"),
        (b"oidc_issuer=x\n", "oidc_issuer", "no such setting"),
        (b"OIDC_ISSUER\n", "OIDC_ISSUER", "has no value"),
        (b"OIDC_LEEWAY=x\n", "leeway", "is not a number"),
        (b"OIDC_ISSUER_FILE=/does/not/exist\n", "issuer", "No such file"),
    ],
)
def test_an_env_file_that_cannot_be_used(tmp_path: Path, content: bytes | None, field: str, problem: str) -> None:
    path = tmp_path / ".env"
    if content is not None:
        path.write_bytes(content)
    error = refusal(issuer=ISSUER, audience=AUDIENCE, env_file=path)
    assert error.field == field
    assert problem in error.problem


# Which wins


def test_the_order_of_the_sources(variables: Callable[..., None], tmp_path: Path) -> None:
    secrets = tmp_path / "secrets"
    secrets.mkdir()
    env_file = tmp_path / ".env"
    named = tmp_path / "named"
    variables()

    def found() -> str | None:
        return Settings(env_file=env_file, secrets_dir=secrets).client_id

    env_file.write_text("OIDC_CLIENT_ID=from-env-file")
    assert found() == "from-env-file"
    (secrets / "oidc_client_id").write_text("from-secrets")
    assert found() == "from-secrets"
    named.write_text("from-named-file")
    variables(OIDC_CLIENT_ID_FILE=str(named))
    assert found() == "from-named-file"
    variables(OIDC_CLIENT_ID="from-variable")
    assert found() == "from-variable"
    assert Settings(env_file=env_file, secrets_dir=secrets, client_id="keyword").client_id == "keyword"
    assert Settings(env_file=env_file, secrets_dir=secrets, client_id=None).client_id is None


def test_a_keyword_wins_over_variables(variables: Callable[..., None]) -> None:
    variables(OIDC_ISSUER="https://other.example", OIDC_AUDIENCE="other")
    settings = Settings(issuer=ISSUER, audience=AUDIENCE)
    assert (settings.issuer, settings.audience) == (ISSUER, (AUDIENCE,))


def test_a_list_is_replaced_and_not_mixed(variables: Callable[..., None]) -> None:
    variables(OIDC_PUBLIC="/a,/b", OIDC_RULES='[{"path": "/x"}]')
    settings = Settings(public=["/c"], rules=[])
    assert (settings.public, settings.rules) == (("/c",), ())

"""Single settings: what is accepted and what is refused, and that a refusal names the field and the cure."""

from __future__ import annotations

import datetime as dt
import logging
import math
import os
from pathlib import Path
from typing import Any, get_type_hints

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ed25519

from oidc_middleware import Issuer, Rule, Settings
from oidc_middleware.errors import ConfigError
from oidc_middleware.settings import IssuerKeywords, SettingsKeywords

ISSUER = "https://login.example.com"
AUDIENCE = "https://api.example.com"


@pytest.fixture(autouse=True)
def no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.upper().startswith("OIDC_")]:
        monkeypatch.delenv(name)


def build(**keywords: Any) -> Settings:
    return Settings(**{"issuer": ISSUER, "audience": AUDIENCE, **keywords})


def refusal(**keywords: Any) -> ConfigError:
    with pytest.raises(ConfigError) as caught:
        build(**keywords)
    return caught.value


@pytest.fixture
def ca_file(tmp_path: Path) -> Path:
    key = ed25519.Ed25519PrivateKey.generate()
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "Test CA")])
    now = dt.datetime.now(dt.UTC)
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number(), now, now.replace(year=2099))
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, None)
    )
    path = tmp_path / "ca.pem"
    path.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    return path


# What is there without asking


def test_the_defaults_are_those_of_the_documentation() -> None:
    settings = build()
    assert settings.audience == (AUDIENCE,)
    assert settings.algorithms == (
        *("RS256", "RS384", "RS512", "PS256", "PS384", "PS512"),
        *("ES256", "ES384", "ES512", "EdDSA", "Ed25519"),
    )
    assert (settings.audience_claim, settings.token_type) == ("aud", "auto")
    assert (settings.leeway, settings.max_token_life) == (30, 30 * 24 * 3600)
    assert (settings.discovery_url, settings.jwks_uri, settings.ca_file, settings.allow_http) == (
        None,
        None,
        None,
        False,
    )
    assert (settings.client_id, settings.cache) == (None, "memory://")
    assert (settings.client_secret, settings.client_auth_method) == (None, "client_secret_basic")
    assert (settings.client_key_file, settings.client_key_id) == (None, None)
    assert (settings.introspection, settings.introspection_audience) == ("auto", "require")
    assert not settings.trusted[0].introspects
    assert (settings.public, settings.optional, settings.rules) == ((), (), ())
    assert (settings.ambiguous_paths, settings.preflight, settings.prefix) == ("refuse", "pass", "/oauth2")
    assert (settings.admin_scope, settings.websocket_token, settings.realm) == (None, "header", None)
    assert settings.on_error is None
    assert (settings.secret, settings.namespace, settings.share_tokens) == ((), "oidc", "auto")


def test_the_keywords_for_type_checkers_are_the_fields() -> None:
    assert set(get_type_hints(SettingsKeywords)) == {*Settings.model_fields, "env_file", "secrets_dir"}
    assert set(get_type_hints(IssuerKeywords)) == set(Issuer.model_fields)


def test_every_field_has_a_description() -> None:
    fields = {**Settings.model_fields, **Issuer.model_fields}
    assert [name for name, field in fields.items() if not (field.description or "").endswith(".")] == []


@pytest.mark.parametrize(
    ("audience", "expected"),
    [("a", ("a",)), (["a", "b"], ("a", "b")), (("a", "b", "a"), ("a", "b")), ({"a"}, ("a",)), ("a,b", ("a,b",))],
)
def test_audience_is_one_or_several(audience: object, expected: tuple[str, ...]) -> None:
    assert build(audience=audience).audience == expected


@pytest.mark.parametrize(
    "issuer",
    [
        "https://login.example.com",
        "https://login.example.com/",
        "https://login.example.com/realms/a%20b/",
        "https://LOGIN.example.com:8443/a~b",
        "https://[2001:db8::1]:8443/x",
        "https://xn--bcher-kva.example",
        "http://localhost:8000",
        "http://127.0.0.1:8000/",
        "http://127.8.9.1",
        "http://[::1]:8000",
    ],
)
def test_the_issuer_stays_exactly_as_it_is_written(issuer: str) -> None:
    assert build(issuer=issuer).trusted[0].issuer == issuer


def test_a_document_address_may_have_a_query() -> None:
    url = "https://login.example.com/keys?p=b2c_1_sign_in"
    assert build(jwks_uri=url, discovery_url=url).trusted[0].jwks_uri == url


# K: what must not start


@pytest.mark.parametrize("audience", [None, "", [], (), [""], [None], "  "], ids=repr)
def test_k_no_aud(audience: object) -> None:
    """K-no-aud."""
    error = refusal(audience=audience)
    assert error.field == "audience"
    assert error.cure


def test_k_no_aud_left_out() -> None:
    """K-no-aud."""
    with pytest.raises(ConfigError) as caught:
        Settings(issuer=ISSUER)
    assert (caught.value.field, caught.value.problem) == ("audience", "is missing")
    assert caught.value.cure == "Pass audience=... or set OIDC_AUDIENCE."


@pytest.mark.parametrize(
    ("issuer", "problem"),
    [
        pytest.param("", "is empty", id="K-no-iss-empty"),
        pytest.param(None, "is missing", id="K-no-iss-none"),
        pytest.param("http://login.example.com", "is not encrypted", id="K-no-iss-http"),
        pytest.param("http://10.0.0.1", "is not encrypted", id="K-no-iss-http-private"),
        pytest.param("http://127.0.0.1.example.com", "is not encrypted", id="K-no-iss-http-almost-loopback"),
        pytest.param("http://localhost.example.com", "is not encrypted", id="K-no-iss-http-almost-localhost"),
        pytest.param("http://2130706433", "looks like an address and is none", id="K-no-iss-http-decimal-loopback"),
        pytest.param("http://0x7f.1", "looks like an address and is none", id="K-no-iss-http-hex-loopback"),
        pytest.param("http://0.0.0.0", "is not encrypted", id="K-no-iss-http-unspecified"),
        pytest.param("login.example.com", "is not an https URL", id="no-scheme"),
        pytest.param("HTTPS://login.example.com", "is not an https URL", id="capital-scheme"),
        pytest.param("ftp://login.example.com", "is not an https URL", id="ftp"),
        pytest.param("https:login.example.com", "is not an https URL", id="no-slashes"),
        pytest.param("https://", "in plain form", id="no-host"),
        pytest.param("https:///path", "in plain form", id="no-host-but-path"),
        pytest.param("https://a..b", "in plain form", id="empty-label"),
        pytest.param("https://-a.example", "in plain form", id="label-with-dash"),
        pytest.param("https://login.example.com?x=1", "has a query", id="query"),
        pytest.param("https://login.example.com/?", "has a query", id="empty-query"),
        pytest.param("https://login.example.com#x", "has a fragment", id="fragment"),
        pytest.param("https://user:pa55@login.example.com", "a user name or password", id="userinfo"),
        pytest.param("https://user:p/55@login.example.com", "in plain form", id="userinfo-with-slash"),
        pytest.param(" https://login.example.com", "white space", id="space-before"),
        pytest.param("https://login.example.com\n", "white space", id="line-end"),
        pytest.param("https://login.exa\tmple.com", "white space", id="tab"),
        pytest.param("https://login.example.com/\x00", "white space or control", id="nul"),
        pytest.param("https://b\u00fccher.example", "letters beyond ASCII", id="umlaut"),
        pytest.param("https://login.example.com\u200b", "letters beyond ASCII", id="zero-width"),
        pytest.param("https://l\u043egin.example.com", "letters beyond ASCII", id="cyrillic-o"),
        pytest.param("https://login.example.com/\udcff", "letters beyond ASCII", id="lone-surrogate"),
        pytest.param("https://login.example.com/a/../b", "in plain form", id="dot-segment"),
        pytest.param("https://login.example.com/%2E%2e/b", "in plain form", id="escaped-dot-segment"),
        pytest.param("https://login.example.com/{realm}/v2.0", "not a template", id="template-of-something-else"),
        pytest.param("https://login.example.com\\@evil.example", "a user name or password", id="backslash"),
        pytest.param("https://login.example.com/%zz", "in plain form", id="bad-escape"),
        pytest.param("https://login.example.com:0", "port", id="port-0"),
        pytest.param("https://login.example.com:65536", "port", id="port-too-high"),
        pytest.param("https://login.example.com:x", "in plain form", id="port-text"),
        pytest.param("https://[::1", "in plain form", id="open-bracket"),
        pytest.param("https://[::g]", "in plain form", id="no-hex"),
        pytest.param("https://[1:2]", "looks like an address and is none", id="no-address"),
        pytest.param("https://a.example/.well-known/openid-configuration", "address of a document", id="document"),
        pytest.param("https://" + "a" * 3000, "longer than", id="long"),
        pytest.param(1, "must be text, not int", id="int"),
        pytest.param(True, "must be text, not bool", id="bool"),
        pytest.param(b"https://login.example.com", "must be text, not bytes", id="bytes"),
        pytest.param(["https://login.example.com"], "must be text, not list", id="list"),
    ],
)
def test_issuer_refused(issuer: object, problem: str) -> None:
    error = refusal(issuer=issuer)
    assert error.field == "issuer"
    assert problem in error.problem
    assert error.cure
    assert "pa55" not in str(error)


@pytest.mark.parametrize("field", ["discovery_url", "jwks_uri"])
@pytest.mark.parametrize(
    ("url", "problem"),
    [
        ("http://keys.example.com", "is not encrypted"),
        ("https://keys.example.com#x", "has a fragment"),
        ("https://me@keys.example.com/", "a user name or password"),
        ("file:///etc/passwd", "is not an https URL"),
        ("", "is empty"),
    ],
)
def test_document_address_refused(field: str, url: str, problem: str) -> None:
    error = refusal(**{field: url})
    assert error.field == field
    assert problem in error.problem


def test_k_no_iss_http_by_explicit_opt_in(caplog: pytest.LogCaptureFixture) -> None:
    """K-no-iss: allow_http lets it start, with a loud warning."""
    with caplog.at_level(logging.WARNING, "oidc_middleware"):
        settings = build(issuer="http://keycloak.internal:8080/realms/a", allow_http=True)
    assert settings.trusted[0].issuer == "http://keycloak.internal:8080/realms/a"
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "not encrypted" in caplog.text


def test_loopback_needs_no_warning(caplog: pytest.LogCaptureFixture) -> None:
    build(issuer="http://127.0.0.1:8000")
    assert caplog.records == []


@pytest.mark.parametrize(
    ("algorithms", "problem"),
    [
        pytest.param(["none"], "tokens without a signature", id="K-alg-none"),
        pytest.param("none", "tokens without a signature", id="K-alg-none-text"),
        pytest.param(["RS256", "NoNe"], "tokens without a signature", id="K-alg-none-case"),
        pytest.param(["RS256", "HS256"], "a shared secret", id="K-alg-none-HS256"),
        pytest.param(["hs512"], "a shared secret", id="K-alg-none-hs512"),
        pytest.param(["HS1"], "a shared secret", id="K-alg-none-HS1"),
        pytest.param(["rs256"], "is not an algorithm", id="lower-case"),
        pytest.param(["RS256", "ES256K"], "is not an algorithm", id="ES256K"),
        pytest.param(["RSA-OAEP"], "is not an algorithm", id="encryption"),
        pytest.param([], "is empty", id="empty"),
        pytest.param([None], "must be text", id="none-in-list"),
        pytest.param(["RS256 "], "white space", id="space"),
        pytest.param(256, "must be a list", id="int"),
        pytest.param({"RS256": True}, "must be a list", id="dict"),
    ],
)
def test_k_alg_none(algorithms: object, problem: str) -> None:
    error = refusal(algorithms=algorithms)
    assert error.field == "algorithms"
    assert problem in error.problem


def test_algorithms_can_be_fewer() -> None:
    assert build(algorithms=["ES256", "RS256"]).trusted[0].algorithms == ("ES256", "RS256")
    assert build(algorithms="EdDSA").trusted[0].algorithms == ("EdDSA",)


@pytest.mark.parametrize(
    "leeway", [86400, -1, math.nan, math.inf, -math.inf, 300.1, 10**400, True, False, "30", None, [30]], ids=repr
)
def test_k_leeway(leeway: object) -> None:
    """K-leeway."""
    error = refusal(leeway=leeway)
    assert error.field == "leeway"
    assert error.cure == "Choose 0 to 300 seconds."


@pytest.mark.parametrize("leeway", [0, 0.0, 0.5, 300])
def test_leeway_is_what_it_says(leeway: float) -> None:
    assert build(leeway=leeway).leeway == leeway


@pytest.mark.parametrize("life", [0, -1, math.nan, math.inf, True, "3600", 10**400, None], ids=repr)
def test_max_token_life_refused(life: object) -> None:
    assert refusal(max_token_life=life).field == "max_token_life"


@pytest.mark.parametrize("field", ["public", "optional"])
@pytest.mark.parametrize("path", ["", "/", "*", "/*", None, "/**", "//", "health", " /health", "/a/../b", 1], ids=repr)
def test_k_wild_exclude(field: str, path: object) -> None:
    """K-wild-exclude, P-empty-rule."""
    error = refusal(**{field: ["/fine", path]})
    assert error.field == field
    assert error.cure


@pytest.mark.parametrize("name", ["verify", "verify_ssl", "verify_signature", "insecure", "ssl_verify", "tls_skip"])
def test_k_insecure_tls(name: str) -> None:
    """K-insecure-tls."""
    error = refusal(**{name: False})
    assert (error.field, error.problem) == (name, "there is no such setting")
    assert "No check can be switched off" in error.cure
    assert "ca_file" in error.cure


# Names


@pytest.mark.parametrize(
    ("name", "cure"),
    [
        ("audiance", "Did you mean audience?"),
        ("jwks_url", "Did you mean jwks_uri?"),
        ("proxies_that_count", "Settings are issuer, "),
        ("_env_file", "Did you mean env_file?"),
    ],
)
def test_an_unknown_name_is_refused(name: str, cure: str) -> None:
    error = refusal(**{name: "hunter2"})
    assert (error.field, error.problem) == (name, "there is no such setting")
    assert error.cure.startswith(cure)


def test_settings_of_later_versions_do_not_exist_and_their_values_are_not_shown() -> None:
    error = refusal(session_idle="hunter2")
    assert error.field == "session_idle"
    assert "hunter2" not in str(error)


def test_a_name_cannot_write_lines_of_its_own_into_the_log() -> None:
    assert "\n" not in str(refusal(**{"a\nb" * 1000: 1}).field)


# The other values


@pytest.mark.parametrize(
    ("keywords", "problem"),
    [
        ({"audience_claim": "sub"}, "does not say whom a token is for"),
        ({"audience_claim": "a b"}, "is not the name of a claim"),
        ({"audience_claim": None}, "must be text"),
        ({"token_type": "jwt"}, "is not one of its values"),
        ({"token_type": 1}, "must be text"),
        ({"client_id": "caf\u00e9"}, "beyond ASCII"),
        ({"client_id": " a"}, "white space"),
        ({"ambiguous_paths": "allow"}, "is not one of its values"),
        ({"preflight": False}, "must be text"),
        ({"websocket_token": "query"}, "is not one of its values"),
        ({"allow_http": "yes"}, "must be True or False"),
        ({"allow_http": 1}, "must be True or False"),
        ({"prefix": "/"}, "would mix our endpoints"),
        ({"prefix": "oauth2"}, "is not a plain path"),
        ({"prefix": "/a//b"}, "is not a plain path"),
        ({"prefix": "/a/../b"}, "is not a plain path"),
        ({"prefix": "/a*"}, "is not a plain path"),
        ({"prefix": ""}, "is empty"),
        ({"admin_scope": "a b"}, "is not one scope"),
        ({"admin_scope": 'a"'}, "is not one scope"),
        ({"realm": 'a"b'}, "has quotes"),
        ({"realm": "a\\b"}, "has quotes"),
        ({"realm": "a\r\nSet-Cookie: x"}, "control"),
        ({"realm": "caf\u00e9"}, "beyond ASCII"),
        ({"realm": "x" * 201}, "too long"),
        ({"on_error": "handler"}, "must be a function"),
        ({"ca_file": ""}, "is no path"),
        ({"ca_file": 1}, "must be a path"),
        ({"ca_file": "a\0b"}, "is no path"),
        ({"ca_file": b"/etc/ca.pem"}, "must be a path"),
        ({"ca_file": "/does/not/exist"}, "No such file"),
        ({"ca_file": "/"}, "cannot be read"),
        ({"ca_file": __file__}, "holds no certificate"),
        ({"public": {"/a": 1}}, "must be a list"),
        ({"public": None}, "must be a list"),
        ({"rules": "rule"}, "must be a list"),
        ({"rules": Rule("/a")}, "must be a list"),
        ({"rules": [1]}, "cannot be made from int"),
        ({"rules": [{"path": "/a", "scope": "x"}]}, "there is no such setting"),
        ({"rules": [{"scopes": ["x"]}]}, "has no path"),
        ({"rules": [{"path": "/a", "scopes": "x"}]}, "not several texts"),
        ({"rules": [{1: 2}]}, "there is no such setting"),
        ({"env_file": 1}, "must be a path"),
        ({"secrets_dir": b"x"}, "must be a path"),
    ],
    ids=lambda value: ascii(value)[:60],
)
def test_value_refused(keywords: dict[str, Any], problem: str) -> None:
    error = refusal(**keywords)
    assert error.field.startswith(next(iter(keywords)))
    assert problem in error.problem
    assert error.cure


def test_values_accepted(ca_file: Path) -> None:
    def on_error(conn: object, error: object) -> None:
        """Answer nothing."""

    settings = build(
        audience_claim="client_id",
        token_type="at+jwt",
        client_id="my client",
        ca_file=ca_file,
        prefix="/internal/auth/",
        admin_scope="oidc:admin",
        realm="Orders API",
        on_error=on_error,
        public="/health",
        optional=["/{$}"],
        rules=[Rule("/admin/*", scopes=("admin",)), {"path": "/a", "methods": ["POST"]}],
    )
    assert settings.ca_file == str(ca_file)
    assert settings.prefix == "/internal/auth"
    assert settings.public == ("/health",)
    assert settings.rules == (Rule("/admin/*", scopes=("admin",)), Rule("/a", methods=("POST",)))
    assert settings.on_error is on_error


def test_a_rule_for_an_audience_that_no_token_has_is_refused() -> None:
    """Cognito's tokens name their client instead; without this every request under the rule would be 403."""
    rules = [Rule("/admin/*", audience="https://api.example")]
    error = refusal(audience_claim="client_id", rules=rules)
    assert error.field == "rules"
    assert "/admin/*" in error.problem
    assert "client_id" in error.cure
    assert build(rules=rules).rules == tuple(rules)

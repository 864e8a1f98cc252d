"""Settings against each other, several issuers, and that nothing can be changed later."""

from __future__ import annotations

import copy
import logging
import os
from collections.abc import Callable
from typing import Any

import pytest

from oidc_middleware import Issuer, Rule, Settings
from oidc_middleware.core.policy import Access
from oidc_middleware.errors import ConfigError

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


# Settings against each other


@pytest.mark.parametrize(
    ("keywords", "field"),
    [
        ({"public": ["/a/*"], "optional": ["/a/b"]}, "public"),
        ({"public": ["/a"], "rules": [Rule("/{x}")]}, "public"),
        ({"optional": ["/a"], "rules": [Rule("/*")]}, "optional"),
        ({"public": ["/oauth2/*"]}, "public"),
        ({"optional": ["/login/health"], "prefix": "/login/"}, "optional"),
        ({"rules": [Rule("/oauth2/health")]}, "rules"),
        ({"rules": [Rule("/oauth2/status")], "admin_scope": "admin"}, "rules"),
    ],
)
def test_overlaps_are_refused(keywords: dict[str, Any], field: str) -> None:
    error = refusal(**keywords)
    assert error.field == field
    assert error.cure


def test_a_rule_for_everything_is_no_overlap_with_our_endpoints() -> None:
    settings = build(rules=[Rule("/*", scopes=("api",))])
    assert settings.policy.decide("GET", "/oauth2/health").endpoint == "health"
    assert settings.policy.decide("GET", "/x").rules == settings.rules


def test_the_policy_is_that_of_the_settings() -> None:
    policy = build(public=["/health"], ambiguous_paths="protect").policy
    assert policy.decide("GET", "/health").access is Access.PUBLIC
    assert policy.decide("GET", "/health;x").access is Access.IDENTITY


def test_endpoints_are_there_only_where_they_are_asked_for() -> None:
    assert build().endpoints == {"health": None}
    assert build(revoke_endpoint=True).endpoints == {"health": None, "revoke": None}
    assert build(forward_auth=True).endpoints == {"health": None, "auth/*": None}
    ours = build(admin_scope="admin").endpoints
    assert ours == {"health": None, "status": ("admin",), "revocations": ("admin",)}


def test_a_rule_that_is_never_asked_is_warned_of(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "oidc_middleware"):
        build(rules=[Rule("/a/*"), Rule("/a/b", scopes=("x",))])
    assert "the one for /a/b comes after the one for /a/*" in caplog.text


def test_keycloaks_account_audience_is_warned_of(caplog: pytest.LogCaptureFixture) -> None:
    build(audience=["account", AUDIENCE])
    assert [(record.name, record.levelname) for record in caplog.records] == [("oidc_middleware.settings", "WARNING")]
    assert "'account'" in caplog.text


def test_all_problems_are_told_at_once() -> None:
    error = refusal(leeway=-1, realm='"', token_type="x")
    assert error.field == "token_type"
    assert [line.partition(":")[0] for line in str(error).splitlines()[1:]] == ["leeway", "realm"]
    with pytest.raises(ConfigError, match=r"(?s)issuer: is missing.*audience: is missing"):
        Settings()


# Several issuers


def test_the_single_form_is_one_issuer() -> None:
    settings = build(client_id="me", algorithms=["ES256"], jwks_uri="https://a.example/keys")
    assert settings.trusted == (
        Issuer(
            issuer=ISSUER,
            audience=AUDIENCE,
            client_id="me",
            algorithms=["ES256"],
            jwks_uri="https://a.example/keys",
        ),
    )


def test_each_issuer_has_its_own() -> None:
    first = Issuer(issuer="https://a.example", audience="a", algorithms=["ES256"], client_id="x")
    second = Issuer(issuer="https://a.example/", audience=["b", "c"], token_type="at+jwt")
    settings = Settings(
        issuers=[first, {"issuer": "https://a.example/", "audience": ["b", "c"], "token_type": "at+jwt"}]
    )
    assert settings.trusted == (first, second)
    assert second.algorithms != first.algorithms
    assert second.client_id is None


@pytest.mark.parametrize(
    ("issuers", "field", "problem"),
    [
        ([], "issuers", "is empty"),
        ({}, "issuers", "must be a list"),
        ("https://a.example", "issuers", "must be a list"),
        (["https://a.example"], "issuers[0]", "cannot be made from str"),
        ([{"issuer": "https://a.example"}], "issuers[0].audience", "is missing"),
        ([{"issuer": "https://a.example", "audience": "a", "audiance": 1}], "issuers[0].audiance", "no such setting"),
        ([{"issuer": "https://a.example", "audience": "a", "leeway": 1}], "issuers[0].leeway", "no such setting"),
        ([{"issuer": "https://a.example", "audience": []}], "issuers[0].audience", "is empty"),
        (
            [{"issuer": "https://a.example", "audience": "a", "algorithms": ["none"]}],
            "issuers[0].algorithms",
            "without",
        ),
        ([{"issuer": "https://a.example", "audience": "a"}] * 2, "issuers", "twice"),
        ([{"issuer": "http://a.example", "audience": "a"}], "issuer", "not encrypted"),
    ],
)
def test_issuers_refused(issuers: object, field: str, problem: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Settings(issuers=issuers)  # type: ignore[arg-type]
    assert caught.value.field == field
    assert problem in caught.value.problem


def test_http_is_refused_in_each_issuer() -> None:
    issuers = [
        {"issuer": "https://a.example", "audience": "a"},
        {"issuer": "https://b.example", "audience": "b", "jwks_uri": "http://b.example/keys"},
    ]
    with pytest.raises(ConfigError) as caught:
        Settings(issuers=issuers)
    assert caught.value.field == "issuers[1].jwks_uri"
    assert Settings(issuers=issuers, allow_http=True).trusted[1].jwks_uri == "http://b.example/keys"


@pytest.mark.parametrize(
    ("name", "value"),
    [("issuer", ISSUER), ("audience", AUDIENCE), ("client_id", "x"), ("algorithms", ["RS256"]), ("token_type", "auto")],
)
def test_what_nothing_would_read_is_refused(name: str, value: object) -> None:
    with pytest.raises(ConfigError) as caught:
        Settings(**{"issuers": [Issuer(issuer=ISSUER, audience="a")], name: value})  # type: ignore[arg-type]
    assert (caught.value.field, caught.value.problem) == (name, "is set beside issuers")


def test_an_issuer_alone_is_checked_too() -> None:
    with pytest.raises(ConfigError) as caught:
        Issuer(issuer=ISSUER, audience="")
    assert caught.value.field == "audience"
    with pytest.raises(ConfigError) as caught:
        Issuer(issuer=ISSUER)  # type: ignore[call-arg]
    assert (caught.value.field, caught.value.problem) == ("audience", "is missing")


# Frozen


@pytest.mark.parametrize("make", [build, lambda: Issuer(issuer=ISSUER, audience=AUDIENCE)], ids=["Settings", "Issuer"])
def test_nothing_can_be_changed(make: Callable[[], Any]) -> None:
    settings = make()
    for name in ("audience", "new"):
        with pytest.raises(ConfigError, match="cannot be changed"):
            setattr(settings, name, "evil")
    with pytest.raises(ConfigError, match="cannot be changed"):
        del settings.audience
    assert settings.audience == (AUDIENCE,)


def test_a_copy_with_other_values_is_checked_and_is_whole() -> None:
    settings = build(public=["/a"], leeway=1)
    assert settings.policy.decide("GET", "/b").access is Access.IDENTITY
    other = settings.model_copy(update={"public": ["/b"], "audience": "b"})
    assert other.policy.decide("GET", "/b").access is Access.PUBLIC
    assert (other.leeway, other.trusted[0].audience) == (1, ("b",))
    with pytest.raises(ConfigError, match="audience: is empty"):
        settings.model_copy(update={"audience": ()})


def test_settings_are_equal_copied_and_sent_to_other_processes_as_values() -> None:
    settings = build(rules=[Rule("/a", claims={"x": 1})])
    assert settings == build(rules=[Rule("/a", claims={"x": 1})])
    assert hash(settings) == hash(build(rules=[Rule("/a", claims={"x": 1})]))
    assert copy.deepcopy(settings) == settings
    assert copy.copy(settings) == settings


def test_no_pydantic_error_and_no_value_comes_out() -> None:
    """O-exc: the error and everything behind it hold nothing of the value."""
    error = refusal(leeway="hunter2", realm='"hunter2"')
    assert type(error) is ConfigError
    assert (error.__cause__, error.__context__) == (None, None)
    assert "hunter2" not in f"{error!s} {error!r}"

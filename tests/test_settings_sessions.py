"""What settings may say of logins, sessions and proxies."""

from __future__ import annotations

from ipaddress import ip_network
from typing import Any

import pytest

from oidc_middleware import Issuer, Settings
from oidc_middleware.errors import ConfigError

ISSUER = "https://login.example.com"
BASE = "https://app.example.com"
LOGIN: dict[str, Any] = {
    "issuer": ISSUER,
    "audience": "api",
    "client_id": "web",
    "login": True,
    "base_url": BASE,
    "cache": "memory://",
}


def refusal(**keywords: Any) -> ConfigError:
    with pytest.raises(ConfigError) as caught:
        Settings(**{**LOGIN, **keywords})
    return caught.value


def test_what_is_enough() -> None:
    settings = Settings(**LOGIN)
    assert settings.scope == ("openid",)
    assert (settings.session_idle, settings.session_absolute) == (3600, 43200)
    assert [issuer.client_id for issuer in settings.login_issuers] == ["web"]


def test_values_as_variables_have_them(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, text in {
        "LOGIN": "true",
        "BASE_URL": "http://127.0.0.1:8000/app/",
        "CLIENT_ID": "web",
        "SCOPE": "openid email",
        "AUTHORIZATION_PARAMS": '{"prompt": "login", "max_age": 300}',
        "AUTHORIZATION_PARAMS_FROM_QUERY": "login_hint,ui_locales",
        "TRUSTED_ORIGINS": "https://WWW.example.com:443",
        "TRUSTED_PROXIES": "10.0.0.0/8, 192.168.1.1",
    }.items():
        monkeypatch.setenv(f"OIDC_{name}", text)
    settings = Settings(issuer=ISSUER, audience="api")
    assert settings.base_url == "http://127.0.0.1:8000/app"
    assert settings.scope == ("openid", "email")
    assert settings.authorization_params == (("prompt", "login"), ("max_age", "300"))
    assert settings.authorization_params_from_query == ("login_hint", "ui_locales")
    assert settings.trusted_origins == ("https://www.example.com",)
    assert settings.trusted_proxies == (ip_network("10.0.0.0/8"), ip_network("192.168.1.1"))


def test_a_login_is_at_issuers_that_know_our_client() -> None:
    others = [
        Issuer(issuer="https://a.example.com", audience="api", client_id="web"),
        Issuer(issuer="https://b.example.com", audience="api"),
        Issuer(issuer="https://c.example.com/{tenantid}", audience="api", client_id="web", tenants="*"),
    ]
    settings = Settings(issuers=others, login=True, base_url=BASE)
    assert [issuer.issuer for issuer in settings.login_issuers] == ["https://a.example.com"]


@pytest.mark.parametrize(
    ("keywords", "field", "problem"),
    [
        ({"base_url": None}, "base_url", "is missing, and login is on"),
        ({"base_url": "http://app.example.com"}, "base_url", "is not encrypted"),
        ({"base_url": "https://app.example.com/?x=1"}, "base_url", "has a query"),
        ({"base_url": "https://u:p@app.example.com"}, "base_url", "has a user name"),
        ({"client_id": None}, "client_id", "is missing, and login is on"),
        ({"scope": "email"}, "scope", "lacks openid"),
        ({"scope": ""}, "scope", "lacks openid"),
        ({"cookie_name": "__Host-x"}, "cookie_name", "has a prefix"),
        ({"cookie_name": "a b"}, "cookie_name", "is no name of a cookie"),
        ({"cookie_name": ""}, "cookie_name", "is empty"),
        ({"session_idle": 0}, "session_idle", "with 0 s there would be no session"),
        ({"session_absolute": -1}, "session_absolute", "with -1 s there would be no session"),
        ({"session_absolute": float("nan")}, "session_absolute", "is not finite"),
        ({"session_idle": 100, "session_absolute": 50}, "session_idle", "is longer than session_absolute"),
        ({"refresh_ahead": -1}, "refresh_ahead", "-1 s is not such a span"),
        ({"authorization_params": {"state": "x"}}, "authorization_params", "state is ours to set"),
        ({"authorization_params": {"max_age": "soon"}}, "authorization_params", "max_age is 'soon'"),
        ({"authorization_params": ["prompt"]}, "authorization_params", "must be a table, not list"),
        (
            {"authorization_params_from_query": "redirect_uri"},
            "authorization_params_from_query",
            "redirect_uri is ours",
        ),
        ({"trusted_origins": "https://a.example.com/x"}, "trusted_origins", "is more than an origin"),
        ({"trusted_origins": "http://a.example.com"}, "trusted_origins", "is not encrypted"),
        ({"trusted_proxies": "10.0.0.1/8"}, "trusted_proxies", "is no network"),
        ({"trusted_proxies": "*"}, "trusted_proxies", "is no network"),
        ({"post_logout_redirect_uri": "http://x.example.com"}, "post_logout_redirect_uri", "is not encrypted"),
        ({"login": False}, "base_url", "is set, and login is off"),
        ({"login": False, "base_url": None, "cookie_name": "x"}, "cookie_name", "is set, and login is off"),
    ],
)
def test_what_cannot_work(keywords: dict[str, Any], field: str, problem: str) -> None:
    error = refusal(**keywords)
    assert error.field == field
    assert problem in error.problem
    assert error.cure

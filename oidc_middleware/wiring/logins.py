"""The part of one service that logs browsers in."""

from __future__ import annotations

from collections.abc import Mapping

from oidc_middleware.cache import Caches
from oidc_middleware.clock import Clock
from oidc_middleware.core.cookies import CookieShape
from oidc_middleware.core.id_token import ExpectedIDToken
from oidc_middleware.provider import Provider
from oidc_middleware.provider.issuer_keys import IssuerKeys
from oidc_middleware.provider.tokens import TokenClient, check_installed
from oidc_middleware.session.flow import FlowCookies
from oidc_middleware.session.id_tokens import IDTokens
from oidc_middleware.session.login import LoginFlows, LoginIssuer, Plan
from oidc_middleware.settings import Issuer, Settings
from oidc_middleware.settings.logins import CALLBACK
from oidc_middleware.wiring.introspecting import credentials_of


def open_login_issuers(settings: Settings, providers: Mapping[str, Provider], clock: Clock) -> dict[str, LoginIssuer]:
    """Return the issuers where browsers log in, by name; none without `login`.

    Raises:
        ConfigError: Authlib is not installed, or a private key cannot be read.
    """
    if settings.login_issuers:
        check_installed()
    return {
        issuer.issuer: _login_issuer(issuer, settings, providers[issuer.issuer], clock)
        for issuer in settings.login_issuers
    }


def open_logins(
    settings: Settings, issuers: Mapping[str, LoginIssuer], caches: Caches, clock: Clock
) -> LoginFlows | None:
    """Return what logs browsers in, None without `login`."""
    if settings.base_url is None or not issuers:
        return None
    plan = Plan(
        redirect_uri=f"{settings.base_url}{settings.prefix}/{CALLBACK}",
        scope=" ".join(settings.scope),
        params=dict(settings.authorization_params),
        open_params=frozenset(settings.authorization_params_from_query),
        userinfo=settings.userinfo,
    )
    return LoginFlows(issuers, plan, _flow_cookies(settings, settings.base_url), caches.general, clock)


def _login_issuer(issuer: Issuer, settings: Settings, provider: Provider, clock: Clock) -> LoginIssuer:
    client_id = issuer.client_id or ""
    resource = dict(settings.authorization_params).get("resource")
    if "resource" in settings.authorization_params_from_query:
        resource = None  # it may have been another one, and then none is asked for again
    tokens = TokenClient(provider, credentials_of(issuer, clock), client_id=client_id, resource=resource)
    keys = IssuerKeys(provider, frozenset({issuer.issuer}), any_template=True)
    expected = ExpectedIDToken(issuer.issuer, client_id, frozenset(issuer.algorithms), settings.leeway)
    return LoginIssuer(tokens, IDTokens(expected, keys, clock.now))


def _flow_cookies(settings: Settings, base_url: str) -> FlowCookies:
    shape = CookieShape(is_secure=base_url.startswith("https://"))
    return FlowCookies(settings.cookie_name, shape, secrets_of(settings), settings.namespace)


def secrets_of(settings: Settings) -> list[bytes]:
    """Return the secrets of the settings as bytes, the one that seals first."""
    given = [secret.get_secret_value() for secret in settings.secret]
    return [secret.encode() if isinstance(secret, str) else secret for secret in given]

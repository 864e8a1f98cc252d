"""The settings as keywords, for type checkers: what a caller may write, where `Settings` tells what comes out."""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Any, Literal, TypedDict

from pydantic import SecretStr

from oidc_middleware.core.policy import Rule


class IssuerOptions(TypedDict, total=False):
    """What `Issuer(...)` may have."""

    preset: Literal["keycloak", "entra", "auth0", "okta", "google", "cognito"] | None
    tenants: str | Iterable[str]
    audience_claim: str
    algorithms: str | Iterable[str]
    token_type: Literal["auto", "at+jwt"]
    discovery_url: str | None
    jwks_uri: str | None
    ca_file: str | os.PathLike[str] | None
    client_id: str | None
    client_secret: str | SecretStr | None
    client_auth_method: Literal["client_secret_basic", "client_secret_post", "private_key_jwt", "bearer"]
    client_key_file: str | os.PathLike[str] | None
    client_key_id: str | None
    introspection: Literal["auto", "always", "never"]
    introspection_audience: Literal["require", "trust"]
    introspection_endpoint: str | None
    introspection_prefix: str | None
    scope_claims: str | Iterable[str]
    role_claims: str | Iterable[str]
    group_claims: str | Iterable[str]
    tenant_claim: str | None
    name_claims: str | Iterable[str]


class IssuerKeywords(IssuerOptions):
    """What `Issuer(...)` takes."""

    issuer: str
    audience: str | Iterable[str]


class SettingsKeywords(IssuerOptions, total=False):
    """What `Settings(...)` and `OIDCMiddleware(...)` take.

    `env_file` is a `.env` file to read too, `secrets_dir` a directory with one file for each setting.
    """

    issuer: str | None
    audience: str | Iterable[str]
    issuers: Iterable[Any]
    issuer_resolver: Callable[[str], Awaitable[Any]] | None
    leeway: float
    max_token_life: float
    expand_scopes: Mapping[str, str | Iterable[str]] | Callable[[frozenset[str]], Iterable[str]] | None
    allow_http: bool
    cache: str
    secret: str | bytes | Iterable[str | bytes]
    namespace: str
    share_tokens: Literal["auto", "always", "never"]
    max_staleness: float
    on_stale: Literal["allow", "deny"]
    journal: str | os.PathLike[str] | None
    public: str | Iterable[str]
    optional: str | Iterable[str]
    rules: Iterable[Rule | Mapping[str, Any]]
    ambiguous_paths: Literal["refuse", "protect"]
    preflight: Literal["pass", "protect"]
    prefix: str
    resource: str | None
    resource_name: str | None
    resource_documentation: str | None
    authorization_servers: str | Iterable[str]
    scopes_supported: str | Iterable[str] | None
    admin_scope: str | None
    revoke_endpoint: bool
    staleness_header: bool
    login: bool
    base_url: str | None
    scope: str | Iterable[str]
    cookie_name: str
    session_idle: float
    session_absolute: float
    refresh_ahead: float
    authorization_params: Mapping[str, str | int]
    authorization_params_from_query: str | Iterable[str]
    userinfo: bool
    trusted_origins: str | Iterable[str]
    post_logout_redirect_uri: str | None
    logout_token_exp: Literal["require", "optional"]
    forward_auth: bool
    trusted_proxies: str | Iterable[str]
    pass_access_token: bool
    websocket_token: Literal["header", "subprotocol"]
    close_on_expiry: bool
    realm: str | None
    on_error: Callable[[Any, Any], Any] | None
    env_file: str | os.PathLike[str] | None
    secrets_dir: str | os.PathLike[str] | None

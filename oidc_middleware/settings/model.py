"""All settings, frozen once they are checked."""

from __future__ import annotations

import os
from collections.abc import Mapping
from functools import cached_property
from typing import Any, ClassVar, NoReturn, Self, Unpack, cast

from pydantic import ValidationError
from pydantic_settings import BaseSettings, InitSettingsSource, PydanticBaseSettingsSource, SettingsConfigDict

from oidc_middleware.core.claims_mapping import USUAL
from oidc_middleware.core.patterns import PolicyError
from oidc_middleware.core.policy import Policy
from oidc_middleware.core.protected_resource import ResourceMetadata
from oidc_middleware.errors import ConfigError
from oidc_middleware.settings import client, fields, issuer_fields, logins, session_fields, sources, tenants, together
from oidc_middleware.settings.cache import USUAL_NAMESPACE, check_secret
from oidc_middleware.settings.issuer import Issuer
from oidc_middleware.settings.journal import STATE_DIRECTORY
from oidc_middleware.settings.keywords import SettingsKeywords
from oidc_middleware.settings.presets import completed
from oidc_middleware.settings.report import config_error, refuse_change
from oidc_middleware.settings.unknown import unknown_name

# Where settings come from: read by the sources, and no settings themselves.
_PLACES = ("env_file", "secrets_dir")


class Settings(BaseSettings):
    """The frozen configuration of one middleware.

    A keyword goes before the variable `OIDC_*`, this before the file that `OIDC_*_FILE` names, this before a file in
    `secrets_dir`, and this before the `.env` file `env_file`. The last two are read only if they are given.

    Raises:
        ConfigError: a value cannot work, a required one is missing, or a name is no setting.
    """

    model_config: ClassVar[SettingsConfigDict] = SettingsConfigDict(
        frozen=True, extra="forbid", hide_input_in_errors=True, validate_default=False
    )

    issuer: issuer_fields.IssuerOrNone = None
    audience: issuer_fields.Audience = ()
    issuers: fields.Issuers = ()
    issuer_resolver: fields.IssuerResolver = None
    preset: issuer_fields.Preset = None
    tenants: issuer_fields.Tenants = ()
    audience_claim: issuer_fields.AudienceClaim = "aud"
    algorithms: issuer_fields.Algorithms = issuer_fields.ALL_ALGORITHMS
    token_type: issuer_fields.TokenType = "auto"  # noqa: S105  a token type, no secret
    leeway: fields.Leeway = 30.0
    max_token_life: fields.MaxTokenLife = 30 * 86400.0
    discovery_url: issuer_fields.DiscoveryURL = None
    jwks_uri: issuer_fields.JWKSURI = None
    ca_file: issuer_fields.CAFile = None
    allow_http: fields.AllowHTTP = False
    client_id: issuer_fields.ClientID = None
    client_secret: issuer_fields.ClientSecret = None
    client_auth_method: issuer_fields.ClientAuthMethod = "client_secret_basic"
    client_key_file: issuer_fields.ClientKeyFile = None
    client_key_id: issuer_fields.ClientKeyID = None
    introspection: issuer_fields.Introspection = "auto"
    introspection_audience: issuer_fields.IntrospectionAudience = "require"
    introspection_endpoint: issuer_fields.IntrospectionEndpoint = None
    introspection_prefix: issuer_fields.IntrospectionPrefix = None
    scope_claims: issuer_fields.ScopeClaims = USUAL.scopes
    role_claims: issuer_fields.RoleClaims = USUAL.roles
    group_claims: issuer_fields.GroupClaims = USUAL.groups
    tenant_claim: issuer_fields.TenantClaim = USUAL.tenant
    name_claims: issuer_fields.NameClaims = USUAL.name
    expand_scopes: fields.ExpandScopes = None
    cache: fields.Cache = "memory://"
    secret: fields.Secret = ()
    namespace: fields.Namespace = USUAL_NAMESPACE
    share_tokens: fields.ShareTokens = "auto"
    max_staleness: fields.MaxStaleness = 5.0
    on_stale: fields.OnStale = "allow"
    journal: fields.Journal = STATE_DIRECTORY
    public: fields.Public = ()
    optional: fields.Optional = ()
    rules: fields.Rules = ()
    ambiguous_paths: fields.AmbiguousPaths = "refuse"
    preflight: fields.Preflight = "pass"
    prefix: fields.Prefix = "/oauth2"
    resource: fields.Resource = None
    resource_name: fields.ResourceName = None
    resource_documentation: fields.ResourceDocumentation = None
    authorization_servers: fields.AuthorizationServers = ()
    scopes_supported: fields.ScopesSupported = None
    admin_scope: fields.AdminScope = None
    revoke_endpoint: fields.RevokeEndpoint = False
    staleness_header: fields.StalenessHeader = False
    login: session_fields.Login = False
    base_url: session_fields.BaseURL = None
    scope: session_fields.Scope = ("openid",)
    cookie_name: session_fields.CookieName = "oidc_session"
    session_idle: session_fields.SessionIdle = 3600.0
    session_absolute: session_fields.SessionAbsolute = 12 * 3600.0
    refresh_ahead: session_fields.RefreshAhead = 60.0
    authorization_params: session_fields.AuthorizationParams = ()
    authorization_params_from_query: session_fields.AuthorizationParamsFromQuery = ()
    userinfo: session_fields.Userinfo = True
    trusted_origins: session_fields.TrustedOrigins = ()
    post_logout_redirect_uri: session_fields.PostLogoutRedirectURI = None
    logout_token_exp: session_fields.LogoutTokenExp = "require"  # noqa: S105  a rule, no secret
    forward_auth: session_fields.ForwardAuth = False
    trusted_proxies: session_fields.TrustedProxies = ()
    pass_access_token: session_fields.PassAccessToken = False
    websocket_token: fields.WebSocketToken = "header"  # noqa: S105  a place, no secret
    close_on_expiry: fields.CloseOnExpiry = True
    realm: fields.Realm = None
    on_error: fields.OnError = None

    def __init__(self, **keywords: Unpack[SettingsKeywords]) -> None:
        names = (*type(self).model_fields, *_PLACES)
        for name in keywords:
            if name not in names:
                raise unknown_name(name, names)
        try:
            super().__init__(**cast("dict[str, Any]", keywords))
        except ValidationError as error:
            refused = config_error(error)
        else:
            self._check_together()
            return
        raise refused

    @cached_property
    def trusted(self) -> tuple[Issuer, ...]:
        """The issuers whose tokens are accepted, with what their presets say; none where there is only a resolver."""
        if self.issuers:
            return self.issuers
        if self.issuer is None:
            return ()
        given = {name: value for name, value in self._given().items() if name in Issuer.model_fields}
        return (Issuer.model_construct(**completed(given)),)

    @cached_property
    def login_issuers(self) -> tuple[Issuer, ...]:
        """The issuers where browsers log in; none without `login`."""
        return logins.login_issuers(self.trusted) if self.login else ()

    @cached_property
    def endpoints(self) -> Mapping[str, tuple[str, ...] | None]:
        """Our own endpoints below `prefix` that these settings enable, with the scopes needed; `None`: open to all."""
        names: dict[str, tuple[str, ...] | None] = {"health": None}
        if self.admin_scope is not None:
            names |= dict.fromkeys(("status", "revocations"), (self.admin_scope,))
        if self.revoke_endpoint:
            names["revoke"] = None
        if self.login:
            names |= dict.fromkeys(logins.ENDPOINTS) | dict.fromkeys(logins.OWN, ())
        if self.forward_auth:
            names["auth/*"] = None  # Envoy appends the path that it asks about
        return names

    @cached_property
    def resource_metadata(self) -> ResourceMetadata | None:
        """How this API describes itself (RFC 9728); None: it does not."""
        if self.resource is None:
            return None
        scopes = self.scopes_supported
        if scopes is None:
            scopes = tuple(dict.fromkeys(scope for rule in self.rules for scope in rule.requirement.scopes_to_ask))
        return ResourceMetadata(
            self.resource,
            authorization_servers=self.authorization_servers
            or tuple(name for issuer in self.trusted for name in issuer.identifiers),
            scopes_supported=scopes,
            resource_name=self.resource_name,
            resource_documentation=self.resource_documentation,
        )

    @cached_property
    def policy(self) -> Policy:
        """Which requests need what, as these settings say."""
        metadata = self.resource_metadata
        return Policy(
            self.public,
            self.optional,
            self.rules,
            ambiguous_paths=self.ambiguous_paths,
            prefix=self.prefix,
            endpoints=self.endpoints,
            well_known=dict.fromkeys(metadata.paths, "resource_metadata") if metadata is not None else {},
        )

    def check_issuers(self, trusted: tuple[Issuer, ...]) -> None:
        """Check issuers, those of these settings or others, against each other and against these settings.

        Raises:
            ConfigError: one of them cannot work.
        """
        together.check_transport(trusted, allow_http=self.allow_http)
        client.check_clients(trusted)
        tenants.check_presets(trusted)
        tenants.check_tenants(trusted)
        together.check_rule_audiences(self.rules, trusted)

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Return the sources, the strongest first, instead of those that pydantic-settings would use."""
        del env_settings, dotenv_settings, file_secret_settings
        keywords = cast("InitSettingsSource", init_settings).init_kwargs
        env_file, secrets_dir = (keywords.pop(name, None) for name in _PLACES)
        return (init_settings, *sources.in_order(settings_cls, os.environ, secrets_dir, env_file))

    def model_copy(self, *, update: Mapping[str, Any] | None = None, deep: bool = False) -> Self:
        """Return new settings with other values, checked like these; pydantic's own copy would not check them.

        Raises:
            ConfigError: as for new settings.
        """
        del deep  # what is frozen need not be copied
        return type(self)(**cast("SettingsKeywords", self._given() | dict(update or {})))

    def __setattr__(self, name: str, value: object) -> NoReturn:
        refuse_change(name)

    def __delattr__(self, name: str) -> NoReturn:
        refuse_change(name)

    def _given(self) -> dict[str, Any]:
        """Return the settings that came from anywhere; `None` is as if it had not come."""
        return {name: value for name in self.model_fields_set if (value := getattr(self, name)) is not None}

    def _check_together(self) -> None:
        together.check_one_or_many(self._given())
        self.check_issuers(self.trusted)
        check_secret(self.cache, self.secret)
        logins.check_login(self, self._given())
        try:
            _ = self.policy
        except PolicyError as error:
            refused = ConfigError(error.field, error.problem, error.cure)
        else:
            together.warn_of_shared_audiences(self.trusted)
            client.warn_of_shown_tokens(self.trusted)
            together.warn_of_unreachable_rules(self.policy)
            return
        raise refused

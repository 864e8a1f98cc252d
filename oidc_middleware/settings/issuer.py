"""One trusted issuer, with everything that holds for its tokens."""

from __future__ import annotations

from typing import ClassVar, NoReturn, Unpack

from pydantic import BaseModel, ConfigDict, ValidationError

from oidc_middleware.core.claims_mapping import USUAL
from oidc_middleware.core.issuer_template import IssuerTemplate, parse_template
from oidc_middleware.core.metadata import well_known_urls
from oidc_middleware.settings import issuer_fields, presets
from oidc_middleware.settings.keywords import IssuerKeywords
from oidc_middleware.settings.report import config_error, refuse_change
from oidc_middleware.settings.unknown import unknown_name

ANY_TENANT = "*"
USUAL_TENANT_CLAIM = "tid"


class Issuer(BaseModel):
    """One of several issuers in `Settings(issuers=[...])`. Nothing in it is shared with the others.

    Raises:
        ConfigError: a value cannot work, a required one is missing, or a name is no setting of an issuer.
    """

    model_config: ClassVar[ConfigDict] = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    issuer: issuer_fields.Issuer
    audience: issuer_fields.Audience
    preset: issuer_fields.Preset = None
    tenants: issuer_fields.Tenants = ()
    audience_claim: issuer_fields.AudienceClaim = "aud"
    algorithms: issuer_fields.Algorithms = issuer_fields.ALL_ALGORITHMS
    token_type: issuer_fields.TokenType = "auto"  # noqa: S105  a token type, no secret
    discovery_url: issuer_fields.DiscoveryURL = None
    jwks_uri: issuer_fields.JWKSURI = None
    ca_file: issuer_fields.CAFile = None
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

    def __init__(self, **keywords: Unpack[IssuerKeywords]) -> None:
        names = tuple(type(self).model_fields)
        for name in keywords:
            if name not in names:
                raise unknown_name(name, names)
        try:
            super().__init__(**presets.completed(keywords))
        except ValidationError as error:
            refused = config_error(error)
        else:
            return
        raise refused

    @property
    def introspects(self) -> bool:
        """Whether it is asked about tokens: our client can say who it is, and nobody forbids it."""
        return self.introspection != "never" and (self.client_secret or self.client_key_file) is not None

    @property
    def template(self) -> IssuerTemplate | None:
        """The parts of `issuer`, where it is the template of many tenants' issuers."""
        return parse_template(self.issuer)

    @property
    def identifiers(self) -> tuple[str, ...]:
        """The issuers that this is, of a template one for each tenant; none where any tenant will do."""
        template = self.template
        if template is None:
            return (self.issuer,)
        return tuple(template.fill(tenant) for tenant in self.tenants if tenant != ANY_TENANT)

    def accepts_tenant_of(self, identifier: str) -> bool:
        """Tell whether this is a template, and that the issuer of one of its tenants that are accepted."""
        template = self.template
        tenant = None if template is None else template.tenant_of(identifier)
        return tenant is not None and (tenant in self.tenants or ANY_TENANT in self.tenants)

    @property
    def common_metadata(self) -> str | None:
        """Where the metadata are that all tenants of a template share; None: each tenant has its own."""
        shared = presets.preset_of(self.preset).shared_tenant
        if self.discovery_url is not None or self.template is None or shared is None or self.jwks_uri is not None:
            return self.discovery_url
        return well_known_urls(self.template.fill(shared))[0]

    @property
    def tenant_path(self) -> str | None:
        """The claim that names the tenant: of a template's tokens it must name the one that is in `iss`."""
        return USUAL_TENANT_CLAIM if self.tenant_claim is None and self.template is not None else self.tenant_claim

    def of_tenant(self, tenant: str) -> Issuer:
        """Return the issuer of one tenant of a template, with all else that holds for the template."""
        template = self.template
        assert template is not None  # noqa: S101  asked of templates only
        changes = {"issuer": template.fill(tenant), "tenants": (), "tenant_claim": self.tenant_path}
        return self.model_copy(update=changes)

    def __setattr__(self, name: str, value: object) -> NoReturn:
        refuse_change(name)

    def __delattr__(self, name: str) -> NoReturn:
        refuse_change(name)

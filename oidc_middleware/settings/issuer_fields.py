"""The settings that hold for one issuer: type, how text is read, how it is checked, and what users read about it."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, PlainValidator, SecretStr

from oidc_middleware.core.signature import ALGORITHMS
from oidc_middleware.settings import checks, urls
from oidc_middleware.settings.presets import PRESETS
from oidc_middleware.settings.words import Read, listed

ALL_ALGORITHMS = tuple(ALGORITHMS)

_ISSUER = Field(
    description="The exact issuer, as tokens carry it in `iss`: a trailing slash counts. Its keys are found by OpenID "
    "discovery."
)
Issuer = Annotated[str, PlainValidator(urls.issuer), _ISSUER]
IssuerOrNone = Annotated[str | None, PlainValidator(checks.optional(urls.issuer)), _ISSUER]
Audience = Annotated[
    tuple[str, ...],
    Read(listed),
    PlainValidator(checks.audience),
    Field(
        description="What tokens for this API carry in `aud`; one of several is enough. Tokens for anybody else are "
        "refused."
    ),
]
Preset = Annotated[
    Literal["keycloak", "entra", "auth0", "okta", "google", "cognito"] | None,
    PlainValidator(checks.optional(checks.one_of(*PRESETS))),
    Field(
        description="What is known of the tokens of `keycloak`, `entra`, `auth0`, `okta`, `google` or `cognito` stands "
        "in for settings that are not given. See [tenants and presets](tenants.md)."
    ),
]
Tenants = Annotated[
    tuple[str, ...],
    Read(listed),
    PlainValidator(checks.texts),
    Field(
        description="Where `issuer` is a template, with `{tenantid}` (a GUID) or `{tenant}` for the tenant: the "
        "tenants whose tokens are accepted, or `*` for all of them."
    ),
]
AudienceClaim = Annotated[
    str,
    PlainValidator(checks.audience_claim),
    Field(description="The claim that says whom a token is for. Amazon Cognito's access tokens need `client_id`."),
]
Algorithms = Annotated[
    tuple[str, ...],
    Read(listed),
    PlainValidator(checks.algorithms),
    Field(description="The signature algorithms that are accepted. `none` and HS* cannot be listed."),
]
TokenType = Annotated[
    Literal["auto", "at+jwt"],
    PlainValidator(checks.one_of("auto", "at+jwt")),
    Field(
        description="`at+jwt` accepts tokens of that header type only (RFC 9068). `auto` also accepts `JWT` or none, "
        "as most issuers send, unless the token is visibly an ID token, a refresh token or a logout token."
    ),
]
DiscoveryURL = Annotated[
    str | None,
    PlainValidator(checks.optional(urls.endpoint)),
    Field(
        description="Where to fetch the discovery document if not below the issuer, for example at an internal "
        "address. The issuer in it must still be the configured one."
    ),
]
JWKSURI = Annotated[
    str | None,
    PlainValidator(checks.optional(urls.endpoint)),
    Field(description="Where to fetch the issuer's keys; then no discovery document is needed."),
]
CAFile = Annotated[
    str | None,
    PlainValidator(checks.optional(checks.ca_file)),
    Field(
        description="A PEM file with the private CA of the issuer's TLS certificate, trusted instead of the system's. "
        "TLS is always verified."
    ),
]
ClientID = Annotated[
    str | None,
    PlainValidator(checks.optional(checks.client_id)),
    Field(
        description="This API's own client at the issuer. Where it is an accepted audience too, ID tokens carry the "
        "same `aud`, so a token must show that it is an access token."
    ),
]
ClientSecret = Annotated[
    SecretStr | None,
    PlainValidator(checks.optional(checks.client_secret)),
    Field(
        description="The secret of `client_id`. With it the issuer is asked about opaque tokens (RFC 7662). Where "
        "`client_auth_method` is `bearer`: an access token for its introspection endpoint."
    ),
]
ClientAuthMethod = Annotated[
    Literal["client_secret_basic", "client_secret_post", "private_key_jwt", "bearer"],
    PlainValidator(checks.one_of("client_secret_basic", "client_secret_post", "private_key_jwt", "bearer")),
    Field(
        description="How our client says at the issuer who it is: `client_secret_basic`, `client_secret_post`, "
        "`private_key_jwt` or `bearer`."
    ),
]
ClientKeyFile = Annotated[
    str | None,
    PlainValidator(checks.optional(checks.client_key_file)),
    Field(
        description="A PEM file with the private key of `client_id`, for `private_key_jwt`: RSA, P-256, P-384, P-521 "
        "or Ed25519."
    ),
]
ClientKeyID = Annotated[
    str | None,
    PlainValidator(checks.optional(checks.text)),
    Field(description="The `kid` by which the issuer knows that key, where it needs one."),
]
Introspection = Annotated[
    Literal["auto", "always", "never"],
    PlainValidator(checks.one_of("auto", "always", "never")),
    Field(
        description="Which tokens the issuer is asked about, where our client has a secret or a key: `auto`: opaque "
        "ones, `always`: JWTs too, once they are verified, `never`: none, so that opaque ones are refused."
    ),
]
IntrospectionAudience = Annotated[
    Literal["require", "trust"],
    PlainValidator(checks.one_of("require", "trust")),
    Field(
        description="`trust` accepts an opaque token also if the issuer's answer names no audience: then every token "
        "that this client may ask about is one for this API."
    ),
]
IntrospectionEndpoint = Annotated[
    str | None,
    PlainValidator(checks.optional(urls.endpoint)),
    Field(
        description="Where the issuer is asked about tokens, if its metadata name no such endpoint or an address that "
        "is not reached from here. Our client's credentials go there."
    ),
]
IntrospectionPrefix = Annotated[
    str | None,
    PlainValidator(checks.optional(checks.token_prefix)),
    Field(
        description="How this issuer's opaque tokens begin, for example `ya29.`: it is asked about those only, and "
        "other issuers, unless theirs begin so too, are not."
    ),
]
ScopeClaims = Annotated[
    tuple[str, ...],
    Read(listed),
    PlainValidator(checks.claim_paths),
    Field(
        description="The claims that hold scopes: names, or dotted paths into nested claims. A text is split at its "
        "spaces."
    ),
]
RoleClaims = Annotated[
    tuple[str, ...],
    Read(listed),
    PlainValidator(checks.claim_paths),
    Field(description="The claims that hold roles, such as `realm_access.roles`: `request.user.roles`."),
]
GroupClaims = Annotated[
    tuple[str, ...],
    Read(listed),
    PlainValidator(checks.claim_paths),
    Field(description="The claims that hold groups, such as `cognito:groups`: `request.user.groups`."),
]
TenantClaim = Annotated[
    str | None,
    PlainValidator(checks.optional(checks.claim_path)),
    Field(description="The claim that names the tenant, such as `tid`: `request.user.tenant`."),
]
NameClaims = Annotated[
    tuple[str, ...],
    Read(listed),
    PlainValidator(checks.claim_paths),
    Field(
        description="The claims that hold a name for people, the first one there counts: `request.user.display_name`."
    ),
]

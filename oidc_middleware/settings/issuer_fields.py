"""The settings that hold for one issuer: type, how text is read, how it is checked, and what users read about it."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, PlainValidator

from oidc_middleware.core.signature import ALGORITHMS
from oidc_middleware.settings import checks, urls
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

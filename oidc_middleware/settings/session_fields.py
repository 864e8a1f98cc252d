"""The settings of browser sessions, forward auth and proxies: as in `issuer_fields`."""

from __future__ import annotations

from ipaddress import IPv4Network, IPv6Network
from typing import Annotated, Literal

from pydantic import Field, PlainValidator

from oidc_middleware.settings import checks, session_checks
from oidc_middleware.settings.words import Read, flag, json, listed, number, spaced

Login = Annotated[
    bool,
    Read(flag),
    PlainValidator(checks.flag),
    Field(
        description="Whether browsers log in here, at the issuers that have a `client_id`, and get a session. See "
        "[sessions](sessions.md)."
    ),
]
BaseURL = Annotated[
    str | None,
    PlainValidator(checks.optional(session_checks.base_url)),
    Field(
        description="Where browsers find this app: the only source of redirect URIs, never a header. https, or http to "
        "this very machine. Mandatory with `login`."
    ),
]
Scope = Annotated[
    tuple[str, ...],
    Read(spaced),
    PlainValidator(session_checks.scope),
    Field(description="The scopes that a login asks for, `openid` among them: words between spaces, or a list."),
]
CookieName = Annotated[
    str,
    PlainValidator(session_checks.cookie_name),
    Field(description="The name of the session's cookie, after `__Host-`."),
]
SessionIdle = Annotated[
    float,
    Read(number),
    PlainValidator(session_checks.life),
    Field(description="A session ends when it was not used for so many seconds."),
]
SessionAbsolute = Annotated[
    float,
    Read(number),
    PlainValidator(session_checks.life),
    Field(description="A session ends so many seconds after its login, however much it is used."),
]
AuthorizationParams = Annotated[
    tuple[tuple[str, str], ...],
    Read(json),
    PlainValidator(session_checks.authorization_params),
    Field(
        description="Parameters that each login sends to the issuer besides, such as `prompt`, `acr_values`, "
        "`max_age`, `login_hint` or `resource`: a table, in a variable a JSON object."
    ),
]
AuthorizationParamsFromQuery = Annotated[
    tuple[str, ...],
    Read(listed),
    PlainValidator(checks.each(session_checks.authorization_param)),
    Field(
        description="Names of such parameters that a link to the `start` endpoint may set, such as `login_hint`. "
        "Anybody can make such a link."
    ),
]
Userinfo = Annotated[
    bool,
    Read(flag),
    PlainValidator(checks.flag),
    Field(
        description="Whether a login asks the issuer's userinfo endpoint, where it has one, for claims that the ID "
        "token lacks."
    ),
]
RefreshAhead = Annotated[
    float,
    Read(number),
    PlainValidator(session_checks.refresh_ahead),
    Field(description="How many seconds before its end the access token of a session is renewed."),
]
TrustedOrigins = Annotated[
    tuple[str, ...],
    Read(listed),
    PlainValidator(checks.each(session_checks.origin)),
    Field(
        description="Origins besides that of `base_url` whose pages may send unsafe requests and open WebSockets with "
        "the cookie of a session, such as `https://www.example.com`."
    ),
]
PostLogoutRedirectURI = Annotated[
    str | None,
    PlainValidator(checks.optional(session_checks.base_url)),
    Field(
        description="Where the issuer sends browsers after a sign-out, as it is registered there; best the "
        "`signed_out` endpoint here. Unset: the issuer shows its own page."
    ),
]
LogoutTokenExp = Annotated[
    Literal["require", "optional"],
    PlainValidator(checks.one_of("require", "optional")),
    Field(
        description="Whether a back-channel logout token must say when it expires. `optional`: one that does not must "
        "be at most two minutes old."
    ),
]
ForwardAuth = Annotated[
    bool,
    Read(flag),
    PlainValidator(checks.flag),
    Field(
        description="Whether there is an `auth` endpoint, which a proxy asks about each request. See "
        "[forward auth](forward-auth.md)."
    ),
]
TrustedProxies = Annotated[
    tuple[IPv4Network | IPv6Network, ...],
    Read(listed),
    PlainValidator(checks.each(session_checks.network)),
    Field(
        description="Addresses or networks of proxies whose `X-Forwarded-*` headers are believed. Nobody else's are."
    ),
]
PassAccessToken = Annotated[
    bool,
    Read(flag),
    PlainValidator(checks.flag),
    Field(
        description="Whether the access token is among the identity headers that apps behind the proxy or forward auth "
        "get, as `X-Forwarded-Access-Token` and `X-Auth-Request-Access-Token`."
    ),
]

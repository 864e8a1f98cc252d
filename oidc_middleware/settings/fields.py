"""The settings that hold for all issuers and requests: as in `issuer_fields`."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Annotated, Any, Literal

from pydantic import Field, PlainValidator

from oidc_middleware.core.policy import Rule
from oidc_middleware.core.scope_hierarchy import Expand
from oidc_middleware.settings import cache, checks, entries, urls
from oidc_middleware.settings import journal as journals
from oidc_middleware.settings.issuer import Issuer
from oidc_middleware.settings.words import Read, flag, json, listed, never, number

Issuers = Annotated[
    tuple[Issuer, ...],
    Read(json),
    PlainValidator(entries.issuers),
    Field(
        description="Several issuers: a list of `Issuer(...)`, in a variable a JSON array of objects. Each has its own "
        "`audience`, `algorithms`, keys and so on; `issuer`, `audience` and those are then left out here."
    ),
]
IssuerResolver = Annotated[
    Callable[[str], Awaitable[Issuer | None]] | None,
    Read(never),
    PlainValidator(checks.optional(checks.issuer_resolver)),
    Field(
        description="`async issuer_resolver(iss) -> Issuer | None` finds issuers that are unknown at start: it must "
        "look them up, for `iss` is what a client sent. A keyword only. See [tenants](tenants.md)."
    ),
]
Leeway = Annotated[
    float,
    Read(number),
    PlainValidator(checks.leeway),
    Field(description="How far the issuer's clock and ours may differ, in seconds, from 0 to 300."),
]
MaxTokenLife = Annotated[
    float,
    Read(number),
    PlainValidator(checks.max_token_life),
    Field(description="No token is accepted for longer than this after its issue, in seconds, whatever it says."),
]
AllowHTTP = Annotated[
    bool,
    Read(flag),
    PlainValidator(checks.flag),
    Field(
        description="Permit `http://` addresses of issuers on other machines. Whoever can change that traffic can "
        "forge tokens. Loopback addresses need no permission."
    ),
]
Cache = Annotated[
    str,
    PlainValidator(cache.url),
    Field(
        description="Where keys, metadata and verified tokens are cached: `memory://` (in each process), "
        "`sqlite:///path` (a file for the workers of one host), `redis://`, `rediss://`, `unix://`, "
        "`redis+sentinel://` or `redis+cluster://`."
    ),
]
Secret = Annotated[
    tuple[cache.Secret, ...],
    Read(listed),
    PlainValidator(cache.secrets),
    Field(
        description="One secret or several, each of 32 bytes at least, the same on every node: a shared cache is "
        "sealed with the first and opened with any. `oidc-middleware secret` prints one. Mandatory with a shared cache."
    ),
]
Namespace = Annotated[
    str,
    PlainValidator(cache.namespace),
    Field(description="What the names of entries in a shared cache begin with; each service has its own."),
]
ShareTokens = Annotated[
    Literal["auto", "always", "never"],
    PlainValidator(checks.one_of("auto", "always", "never")),
    Field(
        description="Which verified tokens other nodes learn of through a shared cache. `auto`: those whose "
        "verification took a call to the issuer; all others are verified sooner than asked for."
    ),
]
Public = Annotated[
    tuple[str, ...],
    Read(listed),
    PlainValidator(checks.paths),
    Field(
        description="Paths that need no identity and ignore credentials, for all methods. `/docs/*` matches `/docs`, "
        "`/docs/` and `/docs/x`, and `{name}` one segment. Everything else is denied without identity."
    ),
]
Optional = Annotated[
    tuple[str, ...],
    Read(listed),
    PlainValidator(checks.paths),
    Field(
        description="Paths where a request without credentials is anonymous; with bad ones it is refused all the same."
    ),
]
Rules = Annotated[
    tuple[Rule, ...],
    Read(json),
    PlainValidator(entries.rules),
    Field(
        description="What identities need beyond being valid: a list of `Rule(path, methods, scopes, any_scopes, "
        "claims, audience)`, in a variable a JSON array of objects. The first match wins. `public`, `optional` and "
        "`rules` never overlap."
    ),
]
AmbiguousPaths = Annotated[
    Literal["refuse", "protect"],
    PlainValidator(checks.one_of("refuse", "protect")),
    Field(
        description="What happens to paths that servers read in different ways (`//`, `;`, encoded slashes): `refuse` "
        "answers 400, `protect` asks for an identity that satisfies every rule."
    ),
]
Preflight = Annotated[
    Literal["pass", "protect"],
    PlainValidator(checks.one_of("pass", "protect")),
    Field(
        description="`pass` lets CORS preflights reach the app anonymously; `protect` asks for an identity, as for "
        "any other request."
    ),
]
Prefix = Annotated[
    str,
    PlainValidator(checks.prefix),
    Field(description="The path below which the middleware's own endpoints lie. Only their exact paths are taken."),
]
Resource = Annotated[
    str | None,
    PlainValidator(checks.optional(urls.resource)),
    Field(
        description="The identifier of this API, by which clients ask for tokens (RFC 8707): an https URL. With it "
        "the API describes itself at `/.well-known/oauth-protected-resource` (RFC 9728), and challenges say so."
    ),
]
ResourceName = Annotated[
    str | None,
    PlainValidator(checks.optional(checks.text)),
    Field(description="The name of this API for people, as its description tells it."),
]
ResourceDocumentation = Annotated[
    str | None,
    PlainValidator(checks.optional(urls.endpoint)),
    Field(description="The URL of a page for developers, as the description of this API tells it."),
]
AuthorizationServers = Annotated[
    tuple[str, ...],
    Read(listed),
    PlainValidator(checks.each(urls.authorization_server)),
    Field(
        description="The issuers that the description of this API names, where clients get tokens; unset, all that are "
        "configured. Needed where a resolver finds them, or `tenants` is `*`: nobody knows which ones there are."
    ),
]
ScopesSupported = Annotated[
    tuple[str, ...] | None,
    Read(listed),
    PlainValidator(checks.optional(checks.each(checks.scope))),
    Field(
        description="The scopes that the description of this API names; unset, those of all `rules`. Clients that are "
        "not told otherwise ask for all of them."
    ),
]
AdminScope = Annotated[
    str | None,
    PlainValidator(checks.optional(checks.scope)),
    Field(
        description="The scope that opens the `status` and `revocations` endpoints. Unset: there are no such endpoints."
    ),
]
MaxStaleness = Annotated[
    float,
    Read(number),
    PlainValidator(checks.max_staleness),
    Field(
        description="How old, in seconds, what a node knows of revocations may be before it counts as stale. A node "
        "that is well is half a second behind."
    ),
]
OnStale = Annotated[
    Literal["allow", "deny"],
    PlainValidator(checks.one_of("allow", "deny")),
    Field(
        description="What a stale node does with identities that it does not know to be revoked: `allow` lets them in, "
        "and a token revoked elsewhere with them; `deny` answers 503."
    ),
]
Journal = Annotated[
    str,
    PlainValidator(journals.journal),
    Field(
        description="The file that keeps revocations made on this host while Redis does not take them, shared by all "
        "workers; `None`, or `none` in a variable: there is no such file. Only used with a cache in Redis."
    ),
]
RevokeEndpoint = Annotated[
    bool,
    Read(flag),
    PlainValidator(checks.flag),
    Field(description="Whether there is a `revoke` endpoint (RFC 7009), at which a valid token revokes itself."),
]
StalenessHeader = Annotated[
    bool,
    Read(flag),
    PlainValidator(checks.flag),
    Field(
        description="Whether responses to identities say in `X-OIDC-Staleness` how many seconds old the node's "
        "knowledge of revocations is: for debugging."
    ),
]
WebSocketToken = Annotated[
    Literal["header", "subprotocol"],
    PlainValidator(checks.one_of("header", "subprotocol")),
    Field(
        description="Where a WebSocket handshake carries its token. `subprotocol` also reads `bearer.<token>` from "
        "`Sec-WebSocket-Protocol`, for browsers, which cannot set the header."
    ),
]
CloseOnExpiry = Annotated[
    bool,
    Read(flag),
    PlainValidator(checks.flag),
    Field(
        description="Whether WebSockets and event streams end when the token does that opened them. Revocation ends "
        "them in any case."
    ),
]
Realm = Annotated[
    str | None,
    PlainValidator(checks.optional(checks.realm)),
    Field(description="The `realm` that challenges name."),
]
OnError = Annotated[
    Callable[..., Any] | None,
    Read(never),
    PlainValidator(checks.optional(checks.on_error)),
    Field(
        description="`on_error(conn, error) -> Response` makes the body of refusals; status and challenge stay ours. "
        "A keyword only."
    ),
]
ExpandScopes = Annotated[
    Expand | None,
    Read(json),
    PlainValidator(checks.optional(checks.expand_scopes)),
    Field(
        description="Which scopes imply others, which count as granted then: a table from a scope to those that it "
        "implies, in a variable a JSON object, or as a keyword a function from the granted scopes to those implied."
    ),
]

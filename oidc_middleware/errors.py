"""Every error of this package: whose fault it is, which rule was broken, and a stable code.

```
OIDCError                       code, status, public text safe to send, private detail for the log
├ ConfigError                   at start-up: names the field and the cure
├ MissingToken        401       no credentials came (RFC 6750 §3.1: the challenge carries no error code)
│ └ SessionEnded                the cookie is of a session that is over
├ InvalidRequest      400       the request is malformed or ambiguous
├ TokenError          401       the token is refused
│ ├ Malformed                   not a compact JWS of the strict form that we read
│ ├ AlgorithmNotAllowed         `alg` is not on the allow-list
│ ├ UnknownKey                  no key of the issuer fits
│ ├ BadSignature                a key fits, the signature does not
│ ├ Revoked                     the ledger holds it
│ ├ Inactive                    the issuer says that it is not active
│ └ ClaimError                  claim, reason: missing, invalid, mismatch, expired or not_yet
├ InsufficientScope   403       identity is fine, permission is missing
├ CrossOriginRequest  403       another site's page sent it, with the cookie of a session
├ LoginError          400       a login did not succeed
│ └ GrantRefused                the issuer refused the code or the refresh token
├ ProviderError       503       the issuer could not be asked
│ ├ ProviderUnavailable         no answer, or an error answer
│ └ ProviderInvalid             an answer that breaks the protocol
├ BackendUnavailable  503       a cache tier could not be asked; the floor that knows the risk decides
└ UpstreamError       502       the app behind the proxy did not answer, or not in HTTP
  └ UpstreamTimeout   504       it did not answer in time
```

What a client may read is `status`, `error` and `public`; `str(error)` is for the log. No error ever holds a token.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import ClassVar, Literal

ClaimReason = Literal["missing", "invalid", "mismatch", "expired", "not_yet"]
FailureKind = Literal["local", "link", "timeout", "auth", "readonly", "full", "busy", "refused"]


class OIDCError(Exception):
    """Base of every error of this package.

    `code` is stable and meant for logs and metrics, `status` is the HTTP status it becomes, `error` the error code of
    RFC 6750 §3.1 (`None`: the challenge carries none), `public` the text that may be sent to a client.
    """

    code: ClassVar[str] = "oidc_error"
    status: ClassVar[int] = 500
    error: ClassVar[str | None] = None
    public: ClassVar[str] = "The request could not be authenticated."

    def __init__(self, detail: str = "") -> None:
        super().__init__(detail)
        self.detail = detail

    def __str__(self) -> str:
        return f"{self.code}: {self.detail}" if self.detail else self.code


class ConfigError(OIDCError):
    """A setting cannot work. `field` names it, `problem` says what is wrong, `cure` what to write instead."""

    code = "config_error"
    public = "The service is misconfigured."

    def __init__(self, field: str, problem: str, cure: str) -> None:
        super().__init__(f"{field}: {problem}. {cure}")
        self.field = field
        self.problem = problem
        self.cure = cure


class MissingToken(OIDCError):
    """No credentials came (RFC 6750 §3.1: no error code, only the challenge)."""

    code = "missing_token"
    status = 401
    public = "Authentication is required."


class SessionEnded(MissingToken):
    """The session of the cookie expired, was ended, or never was: as if no cookie had come."""

    code = "session_ended"
    public = "The session has ended. Sign in again."


class InvalidRequest(OIDCError):
    """The request is malformed, or its path or credentials can be read in two ways (RFC 6750 §3.1)."""

    code = "invalid_request"
    status = 400
    error: ClassVar[str | None] = "invalid_request"
    public = "The request is malformed."


class TokenError(OIDCError):
    """The token is refused. All of them look the same to the client (RFC 6750 §3.1 `invalid_token`)."""

    code = "invalid_token"
    status = 401
    error: ClassVar[str | None] = "invalid_token"
    public = "The access token is invalid."


class Malformed(TokenError):
    """Not a compact JWS (RFC 7515 §7.1) of the strict form that we read."""

    code = "malformed"


class AlgorithmNotAllowed(TokenError):
    """The header's `alg` is not on the allow-list (RFC 8725 §3.1)."""

    code = "algorithm_not_allowed"


class UnknownKey(TokenError):
    """No key of the issuer fits the header's `kid` and `alg` (RFC 7515 §4.1.4)."""

    code = "unknown_key"


class BadSignature(TokenError):
    """A key fits, but the signature does not verify (RFC 7515 §5.2)."""

    code = "bad_signature"


class Revoked(TokenError):
    """The token, its session, its subject or its client was revoked."""

    code = "revoked"


class Inactive(TokenError):
    """The issuer answered that the token is not active (RFC 7662 §2.2)."""

    code = "inactive"


class ClaimError(TokenError):
    """A claim (or the header's `typ`) does not hold: `claim` names it, `reason` says how."""

    code = "claim"

    def __init__(self, claim: str, reason: ClaimReason, detail: str = "") -> None:
        super().__init__(detail)
        self.claim = claim
        self.reason = reason

    def __str__(self) -> str:
        return f"{self.code}: {self.claim} {self.reason}" + (f" ({self.detail})" if self.detail else "")


class InsufficientScope(OIDCError):
    """The identity is valid but lacks what the rule asks; `scopes` are those the resource needs (RFC 6750 §3.1)."""

    code = "insufficient_scope"
    status = 403
    error: ClassVar[str | None] = "insufficient_scope"
    public = "The access token does not permit this request."

    def __init__(self, detail: str = "", scopes: Iterable[str] = ()) -> None:
        super().__init__(detail)
        self.scopes: tuple[str, ...] = tuple(scopes)


class CrossOriginRequest(OIDCError):
    """A page of another origin sent this request, and the browser added the cookie of a session."""

    code = "cross_origin_request"
    status = 403
    public = "The request came from another site."


class LoginError(OIDCError):
    """A login did not succeed: it took too long, was refused, or what came back does not belong to it.

    `said` is what the issuer said of it, in one short line; anybody may have written that.
    """

    code = "login_error"
    status = 400
    public = "The sign-in did not succeed. Try again."

    def __init__(self, detail: str = "", said: str = "") -> None:
        super().__init__(detail)
        self.said = said


class GrantRefused(LoginError):
    """The issuer's token endpoint refused a code or a refresh token (RFC 6749 §5.2)."""

    code = "grant_refused"


class ProviderError(OIDCError):
    """The issuer could not be asked, so nobody knows; `retry_after` is in seconds (RFC 9110 §10.2.3)."""

    code = "provider_error"
    status = 503
    public = "The identity provider cannot be reached. Try again later."

    def __init__(self, detail: str = "", retry_after: int = 5) -> None:
        super().__init__(detail)
        self.retry_after = retry_after


class ProviderUnavailable(ProviderError):
    """The issuer did not answer, or answered with an error."""

    code = "provider_unavailable"


class ProviderInvalid(ProviderError):
    """The issuer's answer breaks the protocol, so none of it is used."""

    code = "provider_invalid"


class RevocationStale(OIDCError):
    """What this node knows of revocations is older than `max_staleness`, and `on_stale` is `deny`."""

    code = "revocation_stale"
    status = 503
    public = "The service is temporarily unavailable. Try again later."
    retry_after = 5


class RevocationNotShared(OIDCError):
    """A revocation holds here, but not as widely as was required: `receipt` says how widely.

    It is not taken back: the other nodes learn of it as soon as they can.
    """

    code = "revocation_not_shared"
    status = 503
    public = "The revocation holds on this node, and others do not know of it yet. Try again later."
    retry_after = 5

    def __init__(self, detail: str = "", receipt: str = "local") -> None:
        super().__init__(detail)
        self.receipt = receipt


class BackendUnavailable(OIDCError):
    """A cache tier could not be asked. Adapters raise it; the floor that knows the risk decides.

    `kind` says where the fault lies: `local` (closed, or too much waits here), `link` (no connection), `timeout` (no
    answer in time; a write may still take effect), `auth` (credentials or permissions), `readonly` (a replica), `full`
    (no memory or disk for writes), `busy` (the server loads, runs a script or moves data), `refused` (any other error
    answer: the tier is well and does not like what it was asked).
    """

    code = "backend_unavailable"
    status = 503
    public = "The service is temporarily unavailable. Try again later."
    retry_after = 5

    def __init__(self, detail: str = "", kind: FailureKind = "local") -> None:
        super().__init__(detail)
        self.kind: FailureKind = kind


class UpstreamError(OIDCError):
    """The app behind the proxy could not be reached, or what it sent is no answer (RFC 9110 §15.6.3)."""

    code = "upstream_error"
    status = 502
    public = "The service behind this proxy cannot be reached. Try again later."


class UpstreamTimeout(UpstreamError):
    """The app behind the proxy did not answer in time (RFC 9110 §15.6.5)."""

    code = "upstream_timeout"
    status = 504
    public = "The service behind this proxy did not answer in time. Try again later."

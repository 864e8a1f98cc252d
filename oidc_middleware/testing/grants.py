"""What the fake issuer remembers: clients, logins, and which of its tokens are still good."""

from __future__ import annotations

import hmac
import secrets
from dataclasses import dataclass, field
from typing import Any, Literal


class OAuthError(Exception):
    """A request that the issuer refuses: `error` is the code of RFC 6749 §5.2 (or §4.1.2.1)."""

    def __init__(self, error: str, description: str, status: int = 400) -> None:
        super().__init__(error, description)
        self.error = error
        self.description = description
        self.status = status


@dataclass(frozen=True)
class Client:
    """A registered client; without a secret it is public (RFC 6749 §2.1).

    `scopes` are those it may ask for (`None`: any); `access_tokens` says which form its access tokens have.
    """

    client_id: str
    secret: str | None = field(default=None, repr=False)
    redirect_uris: tuple[str, ...] = ()
    post_logout_redirect_uris: tuple[str, ...] = ()
    scopes: frozenset[str] | None = None
    access_tokens: Literal["jwt", "opaque"] = "jwt"
    backchannel_logout_uri: str | None = None

    def proves(self, secret: str | None) -> bool:
        """Tell whether `secret` is this client's (`None`: the client showed none)."""
        if self.secret is None or secret is None:
            return self.secret is secret
        return hmac.compare_digest(self.secret.encode(), secret.encode())

    def granted(self, scope: str) -> str:
        """Return `scope` if this client may have all of it.

        Raises:
            OAuthError: `invalid_scope`.
        """
        if self.scopes is not None and not self.scopes.issuperset(scope.split()):
            raise OAuthError("invalid_scope", "The client may not ask for this scope.")
        return scope


@dataclass(eq=False)
class Grant:
    """What somebody (or a client for itself) agreed to; all tokens that come of it end with it."""

    client: Client
    subject: str
    scope: str
    audience: str | list[str]
    auth_time: int
    nonce: str | None = None
    sid: str | None = None
    ended: bool = False


@dataclass
class Code:
    """An authorization code (RFC 6749 §4.1.2) with the PKCE challenge it is bound to (RFC 7636 §4.4)."""

    grant: Grant
    redirect_uri: str
    challenge: str
    expires_at: float
    used: bool = False


@dataclass
class RefreshToken:
    """A refresh token; `used` once it was exchanged for its successor."""

    grant: Grant
    used: bool = False


class Grants:
    """Codes and tokens that the issuer gave out, by their value."""

    def __init__(self) -> None:
        self.codes: dict[str, Code] = {}
        self.refresh: dict[str, RefreshToken] = {}
        self.opaque: dict[str, dict[str, Any]] = {}
        """Opaque access tokens and what introspection says about them."""
        self._grants: dict[str, Grant] = {}
        self._revoked: set[str] = set()

    def start(self, code: Code) -> str:
        """Keep `code`, and return its value."""
        value = secrets.token_urlsafe(24)
        self.codes[value] = code
        return value

    def redeem(self, value: str, client: Client, now: float) -> Code:
        """Return the code for its one use; a second use ends the grant (RFC 6749 §4.1.2).

        Raises:
            OAuthError: `invalid_grant`.
        """
        code = self.codes.get(value)
        if code is None or code.grant.client != client:
            raise OAuthError("invalid_grant", "The code is unknown or belongs to another client.")
        if code.used:
            code.grant.ended = True
            raise OAuthError("invalid_grant", "The code was used before.")
        code.used = True
        if now >= code.expires_at:
            raise OAuthError("invalid_grant", "The code has expired.")
        return code

    def add_refresh(self, grant: Grant) -> str:
        """Make a refresh token for `grant`, and return its value."""
        value = secrets.token_urlsafe(32)
        self.refresh[value] = RefreshToken(grant)
        return value

    def use(self, value: str, client: Client, *, detects_reuse: bool) -> Grant:
        """Use a refresh token, and return its grant; where reuse is detected, it ends the grant (RFC 9700 §4.14.2).

        Raises:
            OAuthError: `invalid_grant`.
        """
        token = self.refresh.get(value)
        if token is None or token.grant.client != client or token.grant.ended:
            raise OAuthError("invalid_grant", "The refresh token is unknown, revoked or belongs to another client.")
        if token.used and detects_reuse:
            token.grant.ended = True
            raise OAuthError("invalid_grant", "The refresh token was used before.")
        token.used = True
        return token.grant

    def add_access(self, value: str, grant: Grant) -> None:
        """Remember that the access token `value` came of `grant`."""
        self._grants[value] = grant

    def is_live(self, value: str) -> bool:
        """Tell whether neither the access token nor the grant behind it was ended."""
        grant = self._grants.get(value)
        return value not in self._revoked and not (grant is not None and grant.ended)

    def revoke(self, value: str) -> None:
        """End one token; with a refresh token its whole grant (RFC 7009 §2.1). Unknown values are no error."""
        if value in self.refresh:
            self.refresh[value].grant.ended = True
        self._revoked.add(value)

    def owner(self, value: str) -> Client | None:
        """Return the client that got `value`; `None` for tokens that a test minted itself."""
        refresh = self.refresh.get(value)
        grant = refresh.grant if refresh else self._grants.get(value)
        return grant.client if grant else None

    def end_sessions(self, subject: str | None, sid: str | None) -> None:
        """End every grant of the subject, and of the session `sid`; `None` is nobody and none."""
        grants = [*self._grants.values(), *(token.grant for token in self.refresh.values())]
        for grant in grants:
            if (sid is not None and grant.sid == sid) or (subject is not None and grant.subject == subject):
                grant.ended = True

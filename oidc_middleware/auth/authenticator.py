"""From the `Authorization` header to an identity: known token, else keys in memory, else a question to the issuer."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

from oidc_middleware.auth.known import Known, KnownTokens
from oidc_middleware.auth.revocation.standing import Standing, at_once
from oidc_middleware.auth.shared import SharedTokens
from oidc_middleware.clock import Clock
from oidc_middleware.core import bearer, verify
from oidc_middleware.core.jws import JWS
from oidc_middleware.core.keys import Key, KeySet
from oidc_middleware.core.verify import Expected, Unverified
from oidc_middleware.errors import ClaimError, Malformed

_MAX_KNOWN_HEADERS = 256


class KeySource(Protocol):
    """Where the keys of one issuer come from."""

    def peek_keys(self) -> KeySet | None:
        """Return the keys in memory, None when there are none."""

    async def find_keys(self, kid: str | None, alg: str, tried: tuple[Key, ...]) -> tuple[Key, ...]:
        """Return the keys that may be meant, none when the issuer has none such; may wait for the issuer.

        `tried` are keys from memory that did not verify the token: perhaps the issuer has newer ones.

        Raises:
            ProviderError: there are no keys at all and the issuer cannot be asked.
        """


@dataclass(frozen=True, slots=True)
class TrustedIssuer:
    """One issuer whose tokens are accepted: what they must show, where its keys are, and a name for that place."""

    expected: Expected
    keys: KeySource
    source: bytes


class Verified(NamedTuple):
    """A token that passed every check but the ledger's, its deadline (Unix time), and whether others were asked."""

    content: Unverified
    issuer: TrustedIssuer
    deadline: float
    was_asked_for: bool


class Authenticator:
    """Tell who sent a credential. Holds no policy: what the identity may do is decided anew for each request."""

    def __init__(
        self,
        issuers: Mapping[str, TrustedIssuer],
        known: KnownTokens,
        shared: SharedTokens,
        standing: Standing,
        clock: Clock,
    ) -> None:
        self._issuers = dict(issuers)
        self._known = known
        self._shared = shared
        self._standing = standing
        self._now = clock.now
        self._known_headers: dict[bytes, dict[str, Any]] = {}
        self.lookup: Callable[[bytes], Known | None] = known.lookup

    async def authenticate(self, value: bytes) -> Known:
        """Verify the token in an `Authorization` header value that `lookup` does not know.

        Raises:
            MissingToken: a scheme other than Bearer.
            InvalidRequest: not one well-formed credential.
            TokenError: the token is refused.
            ProviderError: nobody can say, because the issuer cannot be asked.
            RevocationStale: nobody knows whether it is revoked, and such are refused.
        """
        token, unverified = self._read(value)
        (jws, claims), issuer, deadline, was_asked_for = await self._verify(token, unverified)
        if self._standing.begin is not at_once:
            await self._standing.begin()
            (jws, claims), issuer, deadline, _ = await self._verify(token, unverified)  # its key may be withdrawn
        # No await from here to where it is stored: it was true under the generation that it carries.
        marks = self._standing.marks_of(claims, jws.signing_input)
        is_certain = self._standing.check(marks)
        known = self._known.remember(value, token, jws.payload, marks.pack(), deadline, is_certain=is_certain)
        if was_asked_for or self._shared.tells_all:
            await self._shared.tell(issuer.source, token, jws.payload, known.until)
            self._standing.check(marks)
        return known

    async def verify(self, token: bytes) -> Verified:
        """Verify a token that is no credential of a request, whether it is revoked or not.

        Raises:
            TokenError, ProviderError: as `authenticate` does.
        """
        return await self._verify(token, verify.read(token, self._known_headers))

    async def _verify(self, token: bytes, unverified: Unverified) -> Verified:
        issuer = self._issuer_of(unverified)
        deadline = verify.check(unverified, issuer.expected, self._now())
        jws = unverified.jws
        keys = issuer.keys.peek_keys()
        candidates = keys.find(jws.kid, jws.algorithm) if keys is not None else ()
        is_signed = verify.is_signed_by(unverified, candidates)
        if not is_signed:
            deadline = await self._ask_others(token, unverified, issuer, candidates)
        self._remember_header(jws)
        return Verified(unverified, issuer, deadline, not is_signed)

    async def _ask_others(
        self, token: bytes, unverified: Unverified, issuer: TrustedIssuer, tried: tuple[Key, ...]
    ) -> float:
        """Return the deadline of a token that no key in memory verified, if other nodes or the issuer know better.

        Raises:
            TokenError: it is refused.
            ProviderError: there are no keys at all and the issuer cannot be asked.
        """
        jws = unverified.jws
        until = await self._shared.find(issuer.source, token, jws.payload)
        if until is None:
            found = await issuer.keys.find_keys(jws.kid, jws.algorithm, tried)
            verify.check_signature(unverified, found, tried)
            until = math.inf
        return min(until, verify.check(unverified, issuer.expected, self._now()))  # time went by meanwhile

    def _read(self, value: bytes) -> tuple[bytes, Unverified]:
        """Return the token and its parts; what is a JWS is a well-formed credential too, so that is looked at later."""
        try:
            if value[:7] == b"Bearer ":
                return value[7:], verify.read(value[7:], self._known_headers)
        except Malformed:
            bearer.credential(value)  # perhaps it is not the token that is malformed, but the header
            raise
        token = bearer.credential(value)
        return token, verify.read(token, self._known_headers)

    def _issuer_of(self, token: Unverified) -> TrustedIssuer:
        """Source: RFC 8725 §3.8 (an exact allow-list; what the token says chooses among it and does nothing else)."""
        issuer = self._issuers.get(verify.issuer_of(token))
        if issuer is None:
            raise ClaimError("iss", "mismatch", "not one of the configured issuers")
        return issuer

    def _remember_header(self, verified: JWS) -> None:
        if verified.encoded_header not in self._known_headers:
            if len(self._known_headers) >= _MAX_KNOWN_HEADERS:
                self._known_headers.clear()
            self._known_headers[verified.encoded_header] = verified.header

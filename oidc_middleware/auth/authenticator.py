"""From the `Authorization` header to an identity: known token, else keys in memory, else a question to the issuer.

A JWT is verified here. What is no JWT is opaque, and only its issuer can read it: those are asked where our client may.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from oidc_middleware.auth.issuers import Issuers
from oidc_middleware.auth.known import KnownTokens
from oidc_middleware.auth.opaque import OpaqueTokens
from oidc_middleware.auth.revocation.standing import Standing, at_once
from oidc_middleware.auth.shared import SharedTokens
from oidc_middleware.auth.trusted import TrustedIssuer
from oidc_middleware.clock import Clock
from oidc_middleware.core import bearer, introspection, verify
from oidc_middleware.core.foreign import reason_of_opaque
from oidc_middleware.core.jws import JWS
from oidc_middleware.core.keys import Key
from oidc_middleware.core.known import Known
from oidc_middleware.core.verify import Unverified
from oidc_middleware.errors import Malformed

_MAX_KNOWN_HEADERS = 256


class Verified(NamedTuple):
    """A token that passed every check but the ledger's.

    `deadline` is when it ends, `asked_until` until when the issuer's word about it is believed (Unix time, infinity
    where it was not asked). `is_news`: other nodes are told, for its signature took a question to others.
    """

    payload: bytes
    claims: Mapping[str, Any]
    signing_input: bytes
    issuer: TrustedIssuer
    deadline: float
    is_news: bool
    asked_until: float


class Authenticator:
    """Tell who sent a credential. Holds no policy: what the identity may do is decided anew for each request."""

    def __init__(
        self,
        issuers: Issuers,
        known: KnownTokens,
        shared: SharedTokens,
        standing: Standing,
        clock: Clock,
    ) -> None:
        self._issuers = issuers
        self._opaque = OpaqueTokens(
            {name: issuer.introspection for name, issuer in issuers.items() if issuer.introspection is not None},
            issuers.foreign,
        )
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
        keys = self._known.keys_generation
        verified = await self._judge(token, unverified)
        is_news = verified.is_news
        if self._standing.begin is not at_once:
            await self._standing.begin()
            keys = self._known.keys_generation
            verified = await self._judge(token, unverified)  # its key may be withdrawn
        payload, claims, signing_input, issuer, deadline, _, asked_until = verified
        # No await from here to where it is stored: what the ledger says is true under the generation that it carries.
        marks = self._standing.marks_of(claims, signing_input)
        if signing_input is token and "jti" in claims:  # an opaque one may be revoked by itself, too
            self._standing.check(self._standing.marks_of({"iss": claims["iss"]}, token))
        is_certain = self._standing.check(marks)
        known = self._known.remember(
            value,
            token,
            payload,
            marks.pack(),
            deadline,
            is_certain=is_certain,
            keys=keys,
            asked_until=asked_until,
            mapping=issuer.mapping,
        )
        if is_news:
            await self._shared.tell(issuer.source, token, payload, known.until)
            self._standing.check(marks)
        return known

    async def verify(self, token: bytes) -> Verified:
        """Verify a token that is no credential of a request, whether it is revoked or not.

        Raises:
            TokenError, ProviderError: as `authenticate` does.
        """
        unverified = None
        try:
            unverified = verify.read(token, self._known_headers)
        except Malformed:
            if not self.introspects(token):
                raise
        return await self._judge(token, unverified)

    def introspects(self, token: bytes) -> bool:
        """Tell whether an issuer is asked what this token is, which nobody here can read."""
        return bool(self.asked_about(token))

    def asked_about(self, token: bytes) -> tuple[str, ...]:
        """Return the issuers that are asked what this token is, which nobody here can read."""
        return self._opaque.issuers_of(token) if bearer.is_token(token) else ()

    async def _judge(self, token: bytes, unverified: Unverified | None) -> Verified:
        """Return a token that passed; None are the parts of one that its issuer is asked about.

        Nothing is awaited after the last look at the keys.
        """
        if unverified is None:
            return await self._introspect(token)
        verified = await self._verify(token, unverified)
        answers = verified.issuer.introspection
        if answers is None or not answers.asks_always:
            return verified
        payload, until = await answers.ask(token)
        again = await self._verify(token, unverified)  # its key may be withdrawn
        deadline = introspection.confirm(payload, again.claims, again.issuer.expected, self._now())
        return again._replace(
            deadline=min(again.deadline, deadline), is_news=verified.is_news or again.is_news, asked_until=until
        )

    async def _verify(self, token: bytes, unverified: Unverified) -> Verified:
        issuer = self._issuers.fixed.get(verify.issuer_of(unverified)) or await self._issuers.find(unverified)
        deadline = verify.check(unverified, issuer.expected, self._now())
        jws, claims = unverified
        keys = issuer.keys.peek_keys()
        candidates = keys.find(jws.kid, jws.algorithm) if keys is not None else ()
        is_signed = verify.is_signed_by(unverified, candidates)
        if not is_signed:
            deadline = await self._ask_others(token, unverified, issuer, candidates)
        self._remember_header(jws)
        is_news = not is_signed or self._shared.tells_all
        return Verified(jws.payload, claims, jws.signing_input, issuer, deadline, is_news, math.inf)

    async def _introspect(self, token: bytes) -> Verified:
        """Return what the issuer that calls an opaque token active says about it.

        Raises:
            TokenError: it is refused.
            ProviderError: nobody calls it active, and one does not say.
        """
        name, (payload, until) = await self._opaque.ask(token)
        issuer = self._issuers.fixed[name]
        assert issuer.introspection is not None  # noqa: S101  it was asked
        needs_audience = issuer.introspection.needs_audience
        claims, deadline = introspection.check(payload, issuer.expected, self._now(), needs_audience=needs_audience)
        return Verified(payload, claims, token, issuer, deadline, is_news=False, asked_until=until)

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

    def _read(self, value: bytes) -> tuple[bytes, Unverified | None]:
        """Return the token and its parts, None for one that its issuer is asked about.

        What is a JWS is a well-formed credential too, so that is looked at later.
        """
        try:
            if value[:7] == b"Bearer ":
                return value[7:], verify.read(value[7:], self._known_headers)
            token = bearer.credential(value)
            return token, verify.read(token, self._known_headers)
        except Malformed:
            token = bearer.credential(value)  # perhaps it is not the token that is malformed, but the header
            if self._opaque.issuers_of(token):
                return token, None
            reason = reason_of_opaque(token, self._issuers.foreign)
            if reason is not None:
                raise Malformed(reason) from None
            raise

    def _remember_header(self, verified: JWS) -> None:
        if verified.encoded_header not in self._known_headers:
            if len(self._known_headers) >= _MAX_KNOWN_HEADERS:
                self._known_headers.clear()
            self._known_headers[verified.encoded_header] = verified.header

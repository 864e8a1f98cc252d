"""Back-channel logout: an issuer posts a logout token, and what it names is over on every node."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256
from typing import Any, Final, Protocol

from oidc_middleware.cache import TypedCache
from oidc_middleware.clock import Clock
from oidc_middleware.core import logout_token, verify
from oidc_middleware.core.keys import Key, KeySet
from oidc_middleware.core.logout_token import ExpectedLogout, LogoutToken
from oidc_middleware.core.verify import Unverified
from oidc_middleware.errors import BackendUnavailable, ClaimError
from oidc_middleware.session.sids import Sids

_USED: Final = b"1"


class KeySource(Protocol):
    """Where the keys of one issuer come from."""

    def peek_keys(self) -> KeySet | None:
        """Return the keys in memory, None when there are none."""

    async def find_keys(self, kid: str | None, alg: str, tried: tuple[Key, ...]) -> tuple[Key, ...]:
        """Return the keys that may be meant; asks the issuer once per cool-down, whoever asks.

        Raises:
            ProviderError: there are no keys at all and the issuer cannot be asked.
        """


class Cutoffs(Protocol):
    """What ends sessions everywhere."""

    async def session(self, issuer: str, sid: str) -> None:
        """End all of the session `sid` at the issuer, also what a login that is under way makes of it.

        Raises:
            RevocationNotShared: it holds here, and perhaps not elsewhere.
        """

    async def subject(self, issuer: str, sub: str) -> None:
        """End all sessions of a subject.

        Raises:
            RevocationNotShared: it holds here, and perhaps not elsewhere.
        """


@dataclass(frozen=True, slots=True)
class LogoutIssuer:
    """One issuer that may end sessions: what its logout tokens must show, and where its keys are."""

    expected: ExpectedLogout
    keys: KeySource


class BackchannelLogout:
    """Takes logout tokens of `issuers`, by name. `used` remembers the tokens that were taken, on all nodes."""

    def __init__(
        self,
        issuers: Mapping[str, LogoutIssuer],
        cutoffs: Cutoffs,
        sids: Sids,
        used: TypedCache[Any],
        clock: Clock,
    ) -> None:
        self._issuers = issuers
        self._cutoffs = cutoffs
        self._sids = sids
        self._used = used
        self._now = clock.now

    async def take(self, token: bytes) -> LogoutToken:
        """End what a logout token names, and return what it says.

        With a `sid` that session ends and no other, whatever `sub` it has besides; without one all of the subject. The
        token counts as used only after that: an issuer that got no answer sends it again, and it works again.

        Raises:
            TokenError: the token is refused; nothing has ended.
            ProviderError: nobody can say, because the issuer has no keys here and cannot be asked.
            RevocationNotShared: it ended here, and the other nodes do not know for sure.
            BackendUnavailable: it ended everywhere, and the token could be used once more.

        Source: OpenID Connect Back-Channel Logout §2.6 and §2.7.
        """
        found = await self._verified(verify.read(token))
        key = sha256(f"logout token\n{found.issuer}\n{found.jti}".encode("utf-8", "surrogatepass")).digest()
        if await self._is_used(key):
            raise ClaimError("jti", "invalid", "the logout token was used before")
        if found.sid is None:
            assert found.subject is not None  # noqa: S101  a token names one of the two
            await self._cutoffs.subject(found.issuer, found.subject)
        else:
            await self._check_owner(found.issuer, found.sid, found.subject)
            await self._cutoffs.session(found.issuer, found.sid)
        if not await self._used.add(key, _USED, found.deadline):
            raise ClaimError("jti", "invalid", "the logout token was used at the same time")
        return found

    async def _verified(self, token: Unverified) -> LogoutToken:
        """Return what a token says that its issuer has signed. What is not is refused without asking anybody.

        An unknown key, and a signature that no known one made, are looked for at the issuer once per cool-down.
        """
        issuer = self._issuers.get(verify.issuer_of(token))
        if issuer is None:
            raise ClaimError("iss", "mismatch", "not an issuer where users log in")
        found = logout_token.check(token, issuer.expected, self._now())
        jws = token.jws
        keys = issuer.keys.peek_keys()
        tried = keys.find(jws.kid, jws.algorithm) if keys is not None else ()
        if not verify.is_signed_by(token, tried):
            verify.check_signature(token, await issuer.keys.find_keys(jws.kid, jws.algorithm, tried), tried)
            found = logout_token.check(token, issuer.expected, self._now())  # time went by meanwhile
        return found

    async def _is_used(self, key: bytes) -> bool:
        """Tell whether a token was taken before. Where nobody can say it is taken: it can only end what it names."""
        with contextlib.suppress(BackendUnavailable):
            return await self._used.get(key) is not None
        return False

    async def _check_owner(self, issuer: str, sid: str, subject: str | None) -> None:
        """Refuse a token that names another subject than the one that logged in with this session.

        Source: OpenID Connect Back-Channel Logout §2.6 (an optional check), §2.7.
        """
        if subject is None:
            return
        with contextlib.suppress(BackendUnavailable):
            if await self._sids.is_of_another(issuer, sid, subject):
                raise ClaimError("sub", "mismatch", "the session is somebody else's")

"""Logging in: a browser goes to the issuer, comes back with a code, and is somebody then."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256
from typing import Any, Final, NamedTuple

from oidc_middleware.cache import TypedCache
from oidc_middleware.clock import Clock
from oidc_middleware.core.authorization import authorization_url, check_issuer, code_of, read_answer, state_of
from oidc_middleware.core.grant import Grant, Login
from oidc_middleware.core.id_token import Asked
from oidc_middleware.core.return_path import return_path
from oidc_middleware.errors import LoginError, ProviderInvalid, ProviderUnavailable, TokenError
from oidc_middleware.provider.http import ErrorStatus
from oidc_middleware.provider.tokens import TokenClient
from oidc_middleware.session.flow import LIFE, Flow, FlowCookies, new_flow
from oidc_middleware.session.id_tokens import IDTokens

_log = logging.getLogger("oidc_middleware.session")

# Claims that speak of a token, not of the user: those of the ID token hold, and no others.
_OF_THE_TOKEN: Final = frozenset(
    {
        "iss", "aud", "exp", "nbf", "iat", "jti", "azp", "nonce", "auth_time", "acr", "amr", "sid", "at_hash", "c_hash",
        "s_hash", "events", "cnf", "act", "may_act", "scope", "scp", "client_id", "typ", "token_use",
    }
)  # fmt: skip
# What an issuer says in place of a code when it is not well (RFC 6749 section 4.1.2.1).
_NOT_WELL: Final = frozenset({"server_error", "temporarily_unavailable"})
# What a userinfo endpoint answers to an access token that is none for it (RFC 6750 section 3.1).
_NOT_TAKEN: Final = (401, 403)
_CLAIMED: Final = b"1"
LONGEST_PARAMETER: Final = 512
"""Characters of a parameter that a link may set."""


@dataclass(frozen=True, slots=True)
class LoginIssuer:
    """An issuer where browsers log in: our client there, and what reads its ID tokens."""

    tokens: TokenClient
    id_tokens: IDTokens

    @property
    def name(self) -> str:
        """The issuer, as tokens carry it."""
        return self.id_tokens.expected.issuer


class Begun(NamedTuple):
    """A login that began: where the browser goes, and the `Set-Cookie` headers that it gets on the way."""

    url: str
    set_cookies: list[str]


class Finished(NamedTuple):
    """A login that succeeded: who it is, where the browser goes now, and the `Set-Cookie` header that ends it."""

    login: Login
    return_path: str
    clear_cookie: str


@dataclass(frozen=True, slots=True)
class Plan:
    """How logins are asked for. `redirect_uri` is where the issuers send browsers back to.

    `params` are sent with each request, `open_params` are names of some that a link may set. `userinfo` is whether the
    issuer is asked for claims that the ID token lacks.
    """

    redirect_uri: str
    scope: str
    params: Mapping[str, str]
    open_params: frozenset[str]
    userinfo: bool


class LoginFlows:
    """Logins under way. A browser keeps its own; here is nothing but which of them came back, on any node.

    `issuers` are those to choose from, by name; `claimed` is a cache that all nodes share.
    """

    def __init__(
        self,
        issuers: Mapping[str, LoginIssuer],
        plan: Plan,
        cookies: FlowCookies,
        claimed: TypedCache[bytes],
        clock: Clock,
    ) -> None:
        self.issuers: Mapping[str, LoginIssuer] = issuers
        self._plan = plan
        self._cookies = cookies
        self._claimed = claimed
        self._now = clock.now
        self._warned: set[str] = set()

    async def begin(self, issuer: str | None, back_to: str | None, params: Mapping[str, str], cookies: bytes) -> Begun:
        """Begin a login at `issuer`; None: at the only one there is.

        `back_to` is the path to which the browser returns, the front page unless it is one of this origin; `params` are
        what a link sets, `cookies` the browser's Cookie header.

        Raises:
            LoginError: there is no such issuer, several of them, or a parameter that a link may not set.
            ProviderError: the issuer does not say where people log in.
            BackendUnavailable: the service stops.

        Source: OpenID Connect Core §3.1.2.1, RFC 7636 §4.3, RFC 8707 §2.1.
        """
        chosen = self._choose(issuer)
        asked = {**self._plan.params, **self._checked(params)}
        endpoint = await chosen.tokens.provider.endpoint("authorization_endpoint")
        if endpoint is None:
            raise ProviderInvalid(f"the metadata of {chosen.name} name no authorization_endpoint")
        await self._warn_of_mix_up(chosen)
        now = self._now()
        max_age = asked.get("max_age")
        flow = new_flow(
            chosen.name,
            return_path(back_to),
            now,
            max_age=None if max_age is None else int(max_age),
            resource=asked.get("resource"),
        )
        sent = {
            **asked,
            "response_type": "code",
            "client_id": chosen.tokens.client_id,
            "redirect_uri": self._plan.redirect_uri,
            "scope": self._plan.scope,
            "state": flow.state,
            "nonce": flow.nonce,
            "code_challenge": flow.challenge,
            "code_challenge_method": "S256",  # whatever the metadata say: who does not know it ignores it
        }
        return Begun(authorization_url(endpoint, sent.items()), self._cookies.begin(flow, cookies, now))

    def find(self, query: bytes, cookies: bytes) -> Flow:
        """Return the login that an answer belongs to, which this browser began.

        Raises:
            LoginError: the answer cannot be read, or belongs to none.
        """
        return self._cookies.find(cookies, state_of(query), self._now())

    def clear_cookie(self, query: bytes) -> str | None:
        """Return the `Set-Cookie` header that ends the login of an answer, whatever came of it.

        None: the answer has no state, so it ends none.
        """
        try:
            return self._cookies.clear(state_of(query))
        except LoginError:
            return None

    async def finish(self, query: bytes, cookies: bytes) -> Finished:
        """Finish a login with an answer; each is finished once, on whatever node.

        Raises:
            LoginError: the answer, or what the issuer gave for its code, does not hold; GrantRefused is one.
            ProviderError: the issuer does not answer, or not as it must.
            BackendUnavailable: nobody knows whether the answer came before.

        Source: OpenID Connect Core §3.1.2.7, §3.1.3, RFC 6749 §10.12, RFC 9207 §2.4, RFC 9700 §4.7.
        """
        flow = self.find(query, cookies)
        await self._claim(flow)
        issuer = self._choose(flow.issuer)
        answer = read_answer(query)
        metadata = await issuer.tokens.provider.metadata()
        check_issuer(answer, issuer.name, is_required=metadata.authorization_response_iss_parameter_supported)
        if answer.get("error") in _NOT_WELL and "code" not in answer:
            raise ProviderUnavailable(f"{issuer.name} answered {answer['error']} to an authentication request")
        code = code_of(answer)
        grant = await issuer.tokens.exchange(code, flow.verifier, self._plan.redirect_uri, flow.resource)
        if grant.id_token is None:
            raise ProviderInvalid(f"{issuer.name} gave no ID token for a code")
        claims = await self._claims(issuer, flow, code, grant, grant.id_token)
        login = Login(issuer.name, claims, grant.id_token, grant, flow.nonce)
        return Finished(login, flow.return_path, self._cookies.clear(flow.state))

    async def _claims(self, issuer: LoginIssuer, flow: Flow, code: str, grant: Grant, id_token: str) -> dict[str, Any]:
        """Return the claims of the ID token, completed by what the userinfo endpoint says of the same user.

        Raises:
            LoginError, ProviderError, BackendUnavailable: as `finish`.

        Source: OpenID Connect Core §3.1.3.7, §5.3.2 (`sub` must be the same), §5.3.4.
        """
        asked = Asked(flow.nonce, grant.access_token, code, flow.max_age)
        try:
            claims = await issuer.id_tokens.check_login(id_token, asked)
        except TokenError as error:
            raise LoginError(f"the ID token of {issuer.name} is refused: {error}") from None
        if not self._plan.userinfo or await issuer.tokens.provider.endpoint("userinfo_endpoint") is None:
            return claims
        more = await _userinfo(issuer, grant.access_token)
        if more.get("sub") != claims["sub"]:
            raise LoginError(f"the userinfo endpoint of {issuer.name} speaks of somebody else")
        return {name: value for name, value in more.items() if name not in _OF_THE_TOKEN} | claims

    async def _claim(self, flow: Flow) -> None:
        """Take a login for this answer alone.

        Raises:
            LoginError: another answer came before.
            BackendUnavailable: nobody knows.
        """
        key = sha256(b"login\x00" + flow.state.encode("ascii")).digest()
        if not await self._claimed.add(key, _CLAIMED, flow.started_at + LIFE):
            raise LoginError("the answer came before")

    async def _warn_of_mix_up(self, issuer: LoginIssuer) -> None:
        """Warn once of an issuer that does not name itself while there are others: they could pass its answers off.

        Source: RFC 9207 §1, RFC 9700 §2.1 and §4.4.
        """
        if len(self.issuers) == 1 or issuer.name in self._warned:
            return
        metadata = await issuer.tokens.provider.metadata()
        if not metadata.authorization_response_iss_parameter_supported:
            self._warned.add(issuer.name)
            _log.warning(
                "%s does not name itself in its answers (RFC 9207), and there are other issuers to log in at: "
                "a hostile one among them could get hold of its codes",
                issuer.name,
            )

    def _choose(self, name: str | None) -> LoginIssuer:
        if name is None and len(self.issuers) == 1:
            return next(iter(self.issuers.values()))
        chosen = self.issuers.get(name or "")
        if chosen is None:
            raise LoginError("nobody logs in at this issuer" if name else "no issuer was chosen, and there are several")
        return chosen

    def _checked(self, params: Mapping[str, str]) -> Mapping[str, str]:
        for name, value in params.items():
            if name not in self._plan.open_params:
                raise LoginError(f"a link may not set {name[:64]!r}")
            if len(value) > LONGEST_PARAMETER or not value.isprintable():
                raise LoginError(f"{name} is no short text")
            if name == "max_age" and not (value.isascii() and value.isdigit() and len(value) < 10):  # noqa: PLR2004
                raise LoginError("max_age is no number of seconds")
        return params


async def _userinfo(issuer: LoginIssuer, access_token: str) -> dict[str, Any]:
    try:
        return await issuer.tokens.userinfo(access_token)
    except ErrorStatus as error:
        if error.answered not in _NOT_TAKEN:
            raise
        cure = "an access token for another resource is none for it, and userinfo=False leaves it out"
        raise ProviderInvalid(f"{error.detail}, as if the access token were none for it: {cure}") from None

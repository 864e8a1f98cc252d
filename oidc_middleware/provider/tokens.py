"""The token endpoint and what lies beside it, for logins. Authlib is imported here and nowhere else, on first use."""

from __future__ import annotations

import asyncio
import logging
import re
import sys
from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlencode

from oidc_middleware.core import strict_json
from oidc_middleware.core.grant import Grant
from oidc_middleware.core.strict_json import StrictJSONError
from oidc_middleware.core.token_answer import read_grant
from oidc_middleware.errors import ConfigError, GrantRefused, ProviderError, ProviderInvalid, ProviderUnavailable
from oidc_middleware.provider.credentials import Credentials
from oidc_middleware.provider.http import ErrorStatus
from oidc_middleware.provider.introspection import REFUSAL
from oidc_middleware.provider.provider import Place, Provider

if TYPE_CHECKING:
    from authlib.integrations.httpx_client import AsyncOAuth2Client

_log = logging.getLogger("oidc_middleware.provider")

_AUTHLIB = "authlib.integrations.httpx_client"
_OK = 200
# RFC 6749 section 5.2: the characters of an error code.
_CODE = re.compile(r"[\x20\x21\x23-\x5b\x5d-\x7e]{1,64}")
# Errors that say nothing about the code or refresh token: those of our client, and those that pass.
_OUR_CLIENT: Final = frozenset({"invalid_client", "unauthorized_client", "unsupported_grant_type"})
_FOR_NOW: Final = frozenset({"server_error", "temporarily_unavailable", "slow_down"})
_BUSY: Final = frozenset({408, 425, 429})


def check_installed() -> None:
    """Check that Authlib is there, which logins need.

    Raises:
        ConfigError: it is not.
    """
    if find_spec("authlib") is None:
        cure = "pip install 'oidc-middleware[login]'"
        raise ConfigError("login", "needs Authlib, which is not installed", cure)


class TokenClient:
    """Exchanges codes and refresh tokens at one issuer, with our client's credentials, which go nowhere else.

    `resource` is sent with each refresh, so that the new token is for whom the old one was (RFC 8707 §2.2).
    Every request goes through the provider's door: no redirects, one deadline, checked addresses.
    """

    def __init__(
        self, provider: Provider, credentials: Credentials, *, client_id: str, resource: str | None = None
    ) -> None:
        self.provider: Provider = provider
        self.client_id: str = client_id
        self._credentials = credentials
        self._resource = resource

    async def exchange(self, code: str, verifier: str, redirect_uri: str, resource: str | None = None) -> Grant:
        """Return what the issuer grants for a code.

        Raises:
            GrantRefused: it refuses the code.
            ProviderError: it does not answer, not as it must, or refuses our client.
            BackendUnavailable: the service stops.

        Source: RFC 6749 §4.1.3, RFC 7636 §4.5, RFC 8707 §2.2.
        """
        sent = {"code": code, "code_verifier": verifier, "redirect_uri": redirect_uri}
        return await self._grant("authorization_code", sent, resource)

    async def refresh(self, refresh_token: str) -> Grant:
        """Return what the issuer grants for a refresh token; without a new one the old one is still good.

        Raises:
            GrantRefused: it refuses the refresh token.
            ProviderError, BackendUnavailable: as for a code.

        Source: RFC 6749 §6.
        """
        return await self._grant("refresh_token", {"refresh_token": refresh_token}, self._resource)

    async def revoke(self, token: str, hint: str = "refresh_token") -> None:
        """Tell the issuer that a token is not needed any more; where that fails, the log says so, and nothing else.

        Source: RFC 7009 §2.1.
        """
        try:
            place = await self.provider.locate("revocation_endpoint")
            if place is None:
                return
            async with await self._client(place, takes_json=False) as client:
                answer = await client.revoke_token(place.url, token, token_type_hint=hint)
            if answer.status_code != _OK:
                raise ErrorStatus(place.url, answer.status_code)
        except ProviderError as error:
            _log.warning("%s did not revoke a token: %s", self.provider.issuer, error)

    async def userinfo(self, access_token: str) -> dict[str, Any]:
        """Return what the issuer says of whom an access token is about; nothing where it has no such endpoint.

        A signed or encrypted answer is none that is read here.

        Raises:
            ProviderError: it does not answer, or not as it must.
            BackendUnavailable: the service stops.

        Source: OpenID Connect Core §5.3.1, §5.3.2.
        """
        place = await self.provider.locate("userinfo_endpoint")
        if place is None:
            return {}
        credentials = (("Authorization", f"Bearer {access_token}"),)
        answer = await self.provider.http.get(*place, headers=credentials)
        try:
            return strict_json.load_object(answer.body)
        except StrictJSONError as error:
            raise ProviderInvalid(f"{place.url}: {error}") from None

    async def _grant(self, grant_type: str, sent: dict[str, str], resource: str | None) -> Grant:
        place = await self.provider.locate("token_endpoint")
        if place is None:
            raise ProviderInvalid(f"the metadata of {self.provider.issuer} name no token_endpoint")
        if resource is not None:
            sent["resource"] = resource
        async with await self._client(place) as client:
            # Authlib would take what has the status of an error, or a type that nobody can use.
            client.register_compliance_hook("access_token_response", lambda answer: _checked(answer, place.url))
            return read_grant(await client.fetch_token(place.url, grant_type=grant_type, **sent))

    async def _client(self, place: Place, *, takes_json: bool = True) -> AsyncOAuth2Client:
        if _AUTHLIB not in sys.modules:
            await asyncio.to_thread(import_module, _AUTHLIB)  # 0.2 s, which the loop must not stand still for
        from authlib.integrations.httpx_client import AsyncOAuth2Client

        return AsyncOAuth2Client(
            client_id=self.client_id,
            token_endpoint_auth_method=self._prove,
            revocation_endpoint_auth_method=self._prove,
            transport=self.provider.http.transport(place.reach, takes_json=takes_json),
            trust_env=False,
            follow_redirects=False,
            timeout=None,  # the door has one for the whole
        )

    def _prove(
        self, _client: Any, _method: str, url: str, headers: Any, body: bytes
    ) -> tuple[str, dict[str, str], bytes]:
        """Add our client's proof to a request, in the form that Authlib calls for."""
        proof = self._credentials.prove()
        return url, {**headers, **dict(proof.headers)}, b"&".join(filter(None, (body, urlencode(proof.form).encode())))


def _checked(answer: Any, url: str) -> Any:
    """Return the answer of a token endpoint if it grants something.

    Raises:
        GrantRefused: it is an error of what was sent.
        ProviderError: it is another one, or breaks the protocol.
    """
    try:
        members = strict_json.load_object(answer.content)
        if "error" in members:
            raise _refusal(members["error"], answer.status_code, url)
        if answer.status_code != _OK:
            raise ErrorStatus(url, answer.status_code)
        read_grant(members)
    except ValueError as error:
        raise ProviderInvalid(f"{url}: {error}") from None
    return answer


def _refusal(code: object, status: int, url: str) -> GrantRefused | ProviderError:
    """Return the error that a refusal is. Of a grant only what is about the grant: the others leave sessions alone.

    Source: RFC 6749 §5.2.
    """
    name = code if isinstance(code, str) and _CODE.fullmatch(code) else "an error without a name"
    said = f"{url}: answered {name} with status {status}"
    if name in _OUR_CLIENT:
        return ProviderInvalid(f"{said}: {REFUSAL}")
    if name in _FOR_NOW or status in _BUSY:
        return ProviderUnavailable(said)
    return GrantRefused(said)

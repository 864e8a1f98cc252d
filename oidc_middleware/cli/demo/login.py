"""Signing in at the issuer: authorization code with PKCE (RFC 6749 §4.1, RFC 7636), for a token to try."""

from __future__ import annotations

import base64
import hashlib
import secrets
from urllib.parse import urlencode

from starlette.requests import Request
from starlette.responses import JSONResponse

from oidc_middleware.testing import FakeIssuer

_CLIENT = "demo"
_SCOPES = "openid orders:read orders:write"


class Login:
    """A client of the issuer that shows whoever signs in the token that it got.

    All logins of one run share a state and a verifier, so that the address can be printed. That is for a demo on
    loopback; a client that keeps sessions makes new ones each time.
    """

    def __init__(self, issuer: FakeIssuer, api: str) -> None:
        self._issuer = issuer
        self._api = api
        self._redirect_uri = f"{api}/callback"
        self._state = secrets.token_urlsafe(16)
        self._verifier = secrets.token_urlsafe(32)
        issuer.client(_CLIENT, redirect_uris=[self._redirect_uri], scopes=_SCOPES.split())

    @property
    def url(self) -> str:
        """Where to sign in."""
        challenge = base64.urlsafe_b64encode(hashlib.sha256(self._verifier.encode()).digest()).rstrip(b"=").decode()
        query = {
            "response_type": "code",
            "client_id": _CLIENT,
            "redirect_uri": self._redirect_uri,
            "scope": _SCOPES,
            "state": self._state,
            "code_challenge": challenge,
            "code_challenge_method": "S256",
        }
        return f"{self._issuer.endpoint('authorize')}?{urlencode(query)}"

    async def callback(self, request: Request) -> JSONResponse:
        """Take the code that the issuer sent along, and show the token that it is good for."""
        query = request.query_params
        if query.get("state") != self._state or query.get("iss") != self._issuer.url:
            return JSONResponse({"error": "This login was not begun here."}, 400)
        if "code" not in query:
            return JSONResponse({"error": query.get("error_description", "The issuer sent no code.")}, 400)
        status, answer = await self._redeem(query["code"])
        if "access_token" not in answer:
            return JSONResponse(answer, status)
        token = answer["access_token"]
        return JSONResponse(
            {"access_token": token, "try": f'curl -i -H "Authorization: Bearer {token}" {self._api}/orders'},
            headers={"Cache-Control": "no-store"},
        )

    async def _redeem(self, code: str) -> tuple[int, dict[str, str]]:
        import httpx2

        form = {
            "grant_type": "authorization_code",
            "client_id": _CLIENT,
            "code": code,
            "redirect_uri": self._redirect_uri,
            "code_verifier": self._verifier,
        }
        async with httpx2.AsyncClient(trust_env=False, timeout=5) as client:
            answer = await client.post(self._issuer.endpoint("token"), data=form)
        return answer.status_code, answer.json()

"""The issuer as the one that signs users out: its end-session endpoint, and logout tokens for its clients."""

from __future__ import annotations

import asyncio
from html import escape
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response

from oidc_middleware.testing.grants import OAuthError
from oidc_middleware.testing.minting import Shape
from oidc_middleware.testing.parameters import Parameters, form, parse

if TYPE_CHECKING:
    import httpx2

    from oidc_middleware.testing.issuer import FakeIssuer

_PATIENCE = 30.0


async def end_session(issuer: FakeIssuer, request: Request) -> Response:
    """Sign the user out, tell the clients, and send the browser back if the client registered where to.

    Raises:
        OAuthError: `invalid_request`, the hint is not ours or the destination is not registered.

    Source: OIDC RP-Initiated Logout §2, OIDC Back-Channel Logout §2.5.
    """
    parameters = await form(request) if request.method == "POST" else parse(request.url.query)
    hint = _hint(issuer, parameters)
    target = _target(issuer, parameters, hint)
    if "sid" in hint:
        await tell_clients(issuer, hint["sub"], hint["sid"], {})
    if target is None:
        return HTMLResponse("<!doctype html><title>Signed out</title><p>You are signed out.</p>")
    state = {"state": parameters["state"]} if "state" in parameters else {}
    separator = "&" if "?" in target else "?"
    return RedirectResponse(target + (separator + urlencode(state) if state else ""), 303)


async def tell_clients(
    issuer: FakeIssuer, sub: str | None, sid: str | None, shape: Shape
) -> dict[str, httpx2.Response | None]:
    """End the session `sid`, or all of `sub`, and send each client that has a URI for it a logout token.

    Return the clients' answers by client id, None where nothing was answered.

    Source: OIDC Back-Channel Logout §2.5.
    """
    import httpx2

    async def post(uri: str, token: str) -> httpx2.Response | None:
        try:
            return await http.post(uri, data={"logout_token": token})
        except httpx2.TransportError:
            return None

    issuer.grants.end_sessions(sub if sid is None else None, sid)
    posts = {
        client.client_id: (uri, issuer.logout_token(sub, client_id=client.client_id, sid=sid, **shape))
        for client in issuer.clients.values()
        if (uri := client.backchannel_logout_uri) is not None
    }
    if not posts:
        return {}
    async with httpx2.AsyncClient(transport=issuer.client_transport, trust_env=False, timeout=_PATIENCE) as http:
        answers = await asyncio.gather(*(post(*each) for each in posts.values()))
    return dict(zip(posts, answers, strict=True))


def _target(issuer: FakeIssuer, parameters: Parameters, hint: dict[str, Any]) -> str | None:
    """Return where the browser goes afterwards, None where it stays."""
    target = parameters.get("post_logout_redirect_uri")
    if target is None:
        return None
    client = issuer.clients.get(parameters.get("client_id", str(hint.get("aud"))))
    if client is None or target not in client.post_logout_redirect_uris:
        raise OAuthError("invalid_request", f"Not registered: {escape(target)}")
    return target


def _hint(issuer: FakeIssuer, parameters: Parameters) -> dict[str, Any]:
    """Return the claims of the ID token that the client shows; an expired one is good enough."""
    token = parameters.get("id_token_hint")
    if token is None:
        return {}
    claims = issuer.verify(token)
    client_id = parameters.get("client_id")
    if claims is None or (client_id is not None and claims.get("aud") != client_id):
        raise OAuthError("invalid_request", "The ID token is not one that this client got here.")
    return claims

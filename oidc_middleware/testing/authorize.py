"""The authorization endpoint and its login page: authorization code with PKCE, nothing else."""

from __future__ import annotations

import re
import secrets
from html import escape
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response

from oidc_middleware.testing.grants import Client, Code, Grant, OAuthError
from oidc_middleware.testing.keys import override
from oidc_middleware.testing.parameters import Parameters, form, parse, required

if TYPE_CHECKING:
    from oidc_middleware.testing.issuer import FakeIssuer

CODE_LIFE = 60
"""Seconds until a code expires."""

_CHALLENGE = re.compile(r"[A-Za-z0-9_-]{43}")

_PAGE = """<!doctype html>
<html lang="en"><meta charset="utf-8"><title>Sign in</title>
<h1>Sign in</h1>
<p><b>{client}</b> asks for: {scope}</p>
<form method="post" action="{action}">
{hidden}
<label>User name <input name="username" value="{hint}" autofocus required></label>
<button name="decision" value="allow">Sign in</button>
<button name="decision" value="deny" formnovalidate>Cancel</button>
</form></html>
"""


async def authorize(issuer: FakeIssuer, request: Request) -> Response:
    """Show the login page (GET), or take its answer and send the browser back with a code (POST).

    Source: RFC 6749 §4.1.1, OIDC Core §3.1.2.
    """
    try:
        parameters = await form(request) if request.method == "POST" else parse(request.url.query)
        client, redirect_uri = _destination(issuer, parameters)
    except OAuthError as error:  # never redirect to where nobody registered (RFC 6749 §4.1.2.1)
        return _page_of(error)
    try:
        _check(client, parameters)
        if "decision" not in parameters:
            return _login_page(issuer, client, parameters)
        answer = {"code": _code(issuer, client, redirect_uri, parameters)}
    except OAuthError as error:
        answer = {"error": error.error, "error_description": error.description}
    return _back(issuer, redirect_uri, answer, parameters)


def _destination(issuer: FakeIssuer, parameters: Parameters) -> tuple[Client, str]:
    """Return the client and its redirect URI, which must be one of those registered, character by character.

    Source: RFC 9700 §2.1.
    """
    client = issuer.clients.get(required(parameters, "client_id"))
    if client is None:
        raise OAuthError("invalid_request", "The client is unknown.")
    redirect_uri = required(parameters, "redirect_uri")
    if redirect_uri not in client.redirect_uris:
        raise OAuthError("invalid_request", "The redirect URI is not registered.")
    return client, redirect_uri


def _check(client: Client, parameters: Parameters) -> None:
    """Refuse what this issuer does not do; PKCE with S256 is demanded of every client (RFC 9700 §2.1.1).

    Any resource will do (RFC 8707 §2.1): the tokens are for whatever the client names.
    """
    for name in ("request", "request_uri"):
        if name in parameters:
            raise OAuthError(f"{name}_not_supported", f"The parameter {name} is not supported.")
    if required(parameters, "response_type") != "code":
        raise OAuthError("unsupported_response_type", "The only response type is code.")
    if parameters.get("response_mode", "query") != "query":
        raise OAuthError("invalid_request", "The only response mode is query.")
    if parameters.get("code_challenge_method") != "S256":
        raise OAuthError("invalid_request", "PKCE with S256 is required.")
    if not _CHALLENGE.fullmatch(required(parameters, "code_challenge")):
        raise OAuthError("invalid_request", "The code challenge is not an S256 challenge.")
    client.granted(parameters.get("scope", ""))
    if "#" in parameters.get("resource", ""):
        raise OAuthError("invalid_target", "A resource has no fragment.")
    if parameters.get("prompt") == "none":
        raise OAuthError("login_required", "Nobody is signed in.")


def _login_page(issuer: FakeIssuer, client: Client, parameters: Parameters) -> Response:
    hidden = "\n".join(
        f'<input type="hidden" name="{escape(name)}" value="{escape(value)}">' for name, value in parameters.items()
    )
    page = _PAGE.format(
        client=escape(client.client_id),
        scope=escape(parameters.get("scope", "") or "nothing"),
        action=escape(issuer.endpoint("authorize")),
        hidden=hidden,
        hint=escape(parameters.get("login_hint", "")),
    )
    return HTMLResponse(page, headers={"cache-control": "no-store"})


def _code(issuer: FakeIssuer, client: Client, redirect_uri: str, parameters: Parameters) -> str:
    if parameters["decision"] != "allow":
        raise OAuthError("access_denied", "The user declined.")
    subject = parameters.get("username")
    if not subject:
        raise OAuthError("access_denied", "The user gave no name.")
    now = issuer.clock.now()
    grant = Grant(
        client=client,
        subject=subject,
        scope=parameters.get("scope", ""),
        audience=parameters.get("resource", issuer.audience),
        auth_time=int(now),
        nonce=parameters.get("nonce"),
        sid=secrets.token_urlsafe(12),
    )
    return issuer.grants.start(Code(grant, redirect_uri, parameters["code_challenge"], now + CODE_LIFE))


def _back(issuer: FakeIssuer, redirect_uri: str, answer: Parameters, parameters: Parameters) -> Response:
    """Redirect to the client, with its state (RFC 6749 §4.1.2) and the issuer's name (RFC 9207 §2)."""
    query: dict[str, Any] = {**answer, "iss": issuer.url} if issuer.sends_iss else {**answer}
    if "state" in parameters:
        query["state"] = parameters["state"]
    query = override(query, issuer.authorization_overrides)
    separator = "&" if "?" in redirect_uri else "?"
    return RedirectResponse(redirect_uri + separator + urlencode(query, doseq=True), 303, {"cache-control": "no-store"})


def _page_of(error: OAuthError) -> Response:
    return HTMLResponse(f"<!doctype html><title>Error</title><p>{escape(error.description)}</p>", error.status)

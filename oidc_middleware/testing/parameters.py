"""Reading what a client sends, as the OAuth RFCs define it."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from urllib.parse import parse_qsl, unquote_plus

from starlette.requests import Request

from oidc_middleware.testing.grants import Client, OAuthError

Parameters = dict[str, str]


def parse(text: str) -> Parameters:
    """Parse a query or form; empty values count as absent.

    Raises:
        OAuthError: `invalid_request`, a parameter came twice.

    Source: RFC 6749 §3.1 and §3.2.
    """
    pairs = parse_qsl(text)
    parameters = dict(pairs)
    if len(parameters) != len(pairs):
        raise OAuthError("invalid_request", "A parameter came more than once.")
    return parameters


async def form(request: Request) -> Parameters:
    """Read a form body.

    Raises:
        OAuthError: `invalid_request`, another content type or a repeated parameter.
    """
    media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if media_type != "application/x-www-form-urlencoded":
        raise OAuthError("invalid_request", "The body must be application/x-www-form-urlencoded.")
    return parse((await request.body()).decode(errors="replace"))


def required(parameters: Parameters, name: str) -> str:
    """Return a parameter that must be there.

    Raises:
        OAuthError: `invalid_request`.
    """
    try:
        return parameters[name]
    except KeyError:
        raise OAuthError("invalid_request", f"The parameter {name} is missing.") from None


def authenticate(request: Request, parameters: Parameters, clients: Mapping[str, Client]) -> Client:
    """Return the client that sent the request: by HTTP Basic, by form, or a public one by its id alone.

    Raises:
        OAuthError: `invalid_client` (401), or `invalid_request` when it authenticates in two ways at once.

    Source: RFC 6749 §2.3 and §3.2.1.
    """
    authorization = request.headers.get("authorization")
    client_id, secret = parameters.get("client_id"), parameters.get("client_secret")
    if authorization is not None:
        if secret is not None:
            raise OAuthError("invalid_request", "The client authenticates in two ways.")
        basic_id, secret = _basic(authorization)
        if client_id not in {None, basic_id}:
            raise OAuthError("invalid_request", "The client names itself in two ways.")
        client_id = basic_id
    client = clients.get(client_id or "")
    if client is None or not client.proves(secret):
        raise OAuthError("invalid_client", "The client is unknown or did not prove who it is.", 401)
    return client


def _basic(authorization: str) -> tuple[str, str]:
    """Return id and secret, which are form-encoded inside HTTP Basic (RFC 6749 §2.3.1)."""
    scheme, _, credentials = authorization.partition(" ")
    try:
        decoded = base64.b64decode(credentials.strip(), validate=True).decode()
    except (binascii.Error, UnicodeDecodeError):
        decoded = ""
    client_id, colon, secret = decoded.partition(":")
    if scheme.lower() != "basic" or not colon:
        raise OAuthError("invalid_client", "The Authorization header is not HTTP Basic.", 401)
    return unquote_plus(client_id), unquote_plus(secret)

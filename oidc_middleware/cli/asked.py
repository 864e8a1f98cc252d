"""Whether an issuer can be asked about tokens, found out by asking about one that nobody issued."""

from __future__ import annotations

import secrets

from oidc_middleware.cli.terminal import print_line, printable, shown
from oidc_middleware.errors import OIDCError
from oidc_middleware.provider import Provider
from oidc_middleware.provider.introspection import REFUSAL, is_refusal
from oidc_middleware.settings import Issuer
from oidc_middleware.wiring import OIDC
from oidc_middleware.wiring.introspecting import open_introspector

_NAME = "introspect"


async def examine_introspection(issuer: Issuer, provider: Provider, oidc: OIDC) -> bool:
    """Print whether and how an issuer is asked about tokens; tell whether it answers where it is.

    Source: RFC 7662 §2.2 (a token that the issuer does not know is not active), §2.3.
    """
    introspector = open_introspector(issuer, provider, oidc.clock)
    if introspector is None:
        print_line("", _NAME, "the issuer is not asked about tokens: opaque ones are refused")
        return True
    try:
        endpoint = await provider.endpoint("introspection_endpoint")
        said = await introspector.ask(f"{issuer.introspection_prefix or ''}{secrets.token_urlsafe()}".encode())
    except OIDCError as error:
        print_line("FAILED", _NAME, printable(error.detail) + (f": {REFUSAL}" if is_refusal(error) else ""))
        return False
    where = f"{shown(endpoint or '')} by {issuer.client_auth_method}"
    if said:
        print_line("FAILED", _NAME, f"{where}: it calls a token active that nobody issued")
        return False
    print_line("ok", _NAME, f"{where}, about {_which(issuer)}")
    return True


def _which(issuer: Issuer) -> str:
    opaque = "opaque tokens"
    if issuer.introspection_prefix is not None:
        opaque += f" that begin with {shown(issuer.introspection_prefix)}"
    return f"JWTs and {opaque}" if issuer.introspection == "always" else opaque

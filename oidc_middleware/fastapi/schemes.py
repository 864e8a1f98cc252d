"""The security schemes of an issuer in OpenAPI: where tokens for this API come from.

Source: OpenAPI 3.1 §4.8.27 to §4.8.29.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

from oidc_middleware.core.metadata import Metadata, well_known_urls
from oidc_middleware.wiring import OIDC

OPENID_CONNECT: Final = "OpenIdConnect"
OAUTH2: Final = "OAuth2"
BEARER: Final = "Bearer"
NAMES: Final = frozenset({OPENID_CONNECT, BEARER})
"""The names that dependencies give their schemes by themselves."""


def discovery_urls(oidc: OIDC) -> dict[str, str]:
    """Return where everybody finds the metadata of each issuer that the settings of a service name.

    An address inside, which `discovery_url` of the settings may be, is of no use to readers. The tenants of a template
    have one document together, or are issuers of their own.

    Source: OpenID Connect Discovery §4.
    """
    shared = {issuer.issuer: issuer.common_metadata for issuer in oidc.settings.trusted if issuer.template is not None}
    urls = {name: shared[name] if name in shared else well_known_urls(name)[0] for name in oidc.providers}
    return {name: url for name, url in urls.items() if url is not None}


def schemes_of(
    issuer: str, url: str, metadata: Metadata | None, scopes: Mapping[str, str], suffix: str
) -> dict[str, Any]:
    """Return the schemes of an issuer, whose metadata are at `url`, by their names, which end with `suffix`.

    One is by discovery, and where the endpoints are known there is one by the authorization code flow, which is what
    Swagger UI's Authorize button uses (with PKCE, where it is told to). `scopes` are the scopes with descriptions.
    """
    found: dict[str, Any] = {}
    if metadata is not None and metadata.authorization_endpoint and metadata.token_endpoint:
        flow = {
            "authorizationUrl": metadata.authorization_endpoint,
            "tokenUrl": metadata.token_endpoint,
            "scopes": dict(scopes),
        }
        found[OAUTH2 + suffix] = {
            "type": "oauth2",
            "description": f"Authorization code flow with PKCE at {issuer}",
            "flows": {"authorizationCode": flow},
        }
    found[OPENID_CONNECT + suffix] = {
        "type": "openIdConnect",
        "description": f"Tokens of {issuer}",
        "openIdConnectUrl": url,
    }
    return found


def suffix_of(issuer: str) -> str:
    """Return what tells the schemes of several issuers apart: the issuer, in the characters that a name may have."""
    return "_" + re.sub(r"[^A-Za-z0-9.-]+", "_", issuer.partition("://")[2]).strip("_")

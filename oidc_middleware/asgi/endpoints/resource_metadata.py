"""RFC 9728: what this API is, and whose tokens it accepts, for clients that know nothing but its address."""

from __future__ import annotations

from http import HTTPStatus
from typing import Final, Unpack

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from oidc_middleware.asgi.endpoints.endpoint import Endpoint
from oidc_middleware.asgi.mount import settings_of_mount
from oidc_middleware.asgi.refusal import settings_of
from oidc_middleware.core.protected_resource import ResourceMetadata
from oidc_middleware.errors import ConfigError
from oidc_middleware.settings import Settings
from oidc_middleware.settings.keywords import SettingsKeywords
from oidc_middleware.wiring import OIDC

# A page of any origin may read what anybody may read; the wildcard never covers a request with cookies.
_CROSS_ORIGIN: Final = {"Access-Control-Allow-Origin": "*"}
_HEADERS: Final = _CROSS_ORIGIN | {"Cache-Control": "public, max-age=3600", "X-Content-Type-Options": "nosniff"}
_PREFLIGHT: Final = _CROSS_ORIGIN | {
    "Allow": "GET, HEAD, OPTIONS",
    "Access-Control-Allow-Methods": "GET, HEAD, OPTIONS",
    "Access-Control-Allow-Headers": "Authorization, *",  # the wildcard leaves Authorization out (Fetch standard)
    "Access-Control-Max-Age": "86400",
}


def resource_metadata_routes(source: OIDC | Settings, **keywords: Unpack[SettingsKeywords]) -> list[Route]:
    """Return routes with the description of the API that `source` protects.

    They belong into the outermost app where the protected one is mounted, for clients look at the root of the host.
    Where several APIs share a service, `keywords` are those that the middleware of this one has beside `oidc=`; the
    place without a path then is that of the first.

    Raises:
        ConfigError: `resource` is not set, so there is nothing to describe, or a keyword cannot work.

    Source: RFC 9728 §3.1.
    """
    if isinstance(source, OIDC):
        settings = settings_of_mount(source, keywords)
    else:
        settings = source.model_copy(update=keywords) if keywords else source
    metadata = settings.resource_metadata
    if metadata is None:
        raise ConfigError("resource", "is not set, so there is no description of this API", "Set resource=...")

    async def tell(request: Request) -> Response:  # noqa: ARG001  every handler takes the request
        return _answer(metadata)

    endpoint = Endpoint(GET=tell, OPTIONS=preflight)
    return [Route(path, endpoint) for path in metadata.paths]


async def describe(request: Request) -> Response:
    """Answer with the document.

    Source: RFC 9728 §3.2.
    """
    metadata = settings_of(request.scope).resource_metadata
    assert metadata is not None  # noqa: S101  the policy knows this endpoint only then
    return _answer(metadata)


async def preflight(request: Request) -> Response:  # noqa: ARG001  every handler takes the request
    """Let pages of any origin read the document, whatever headers they send.

    Source: the Fetch standard, CORS-preflight fetch; RFC 9110 §9.3.7.
    """
    return Response(status_code=HTTPStatus.NO_CONTENT, headers=_PREFLIGHT)


def _answer(metadata: ResourceMetadata) -> Response:
    return Response(msgspec.json.encode(metadata.document()), media_type="application/json", headers=_HEADERS)

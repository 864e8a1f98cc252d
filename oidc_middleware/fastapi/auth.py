"""The dependencies of an app without the middleware: the service finds the identity when a dependency asks."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any, Final, TypeVar, Unpack

from fastapi import FastAPI

from oidc_middleware.asgi.endpoints.resource_metadata import resource_metadata_routes
from oidc_middleware.core.requirement import ExpectedClaims, Words
from oidc_middleware.errors import ConfigError
from oidc_middleware.fastapi.dependencies import ClaimsOf, CurrentUser, OptionalUser, requirement_of
from oidc_middleware.fastapi.document import document
from oidc_middleware.fastapi.sources import Service
from oidc_middleware.settings import Settings
from oidc_middleware.settings.keywords import SettingsKeywords
from oidc_middleware.wiring import OIDC

T = TypeVar("T")

OF_THE_MIDDLEWARE: Final = (
    "public",
    "optional",
    "rules",
    "ambiguous_paths",
    "preflight",
    "prefix",
    "admin_scope",
    "revoke_endpoint",
    "staleness_header",
    "close_on_expiry",
    "login",
    "forward_auth",
    "trusted_proxies",
    "pass_access_token",
)
"""Settings that only `OIDCMiddleware` can keep."""


class OIDCAuth:
    """Dependencies that find the identity themselves, with the checks and caches of the middleware.

    Give it the keywords of `Settings`, or `settings=`, or a service as `oidc=`, which it may share with others. What
    has no dependency of ours is open to everybody.

    Raises:
        ConfigError: at once, when a setting cannot work, or is one that only the middleware can keep.
    """

    def __init__(
        self, settings: Settings | None = None, *, oidc: OIDC | None = None, **keywords: Unpack[SettingsKeywords]
    ) -> None:
        self.oidc: OIDC = _service(settings, oidc, keywords)
        """The service: `auth.oidc.revoke`, `auth.oidc.stats()`."""
        self._source = Service(self.oidc)
        self.current_user: CurrentUser = CurrentUser(self._source)
        """The `Principal` who sends the request: `Annotated[Principal, Depends(auth.current_user)]`."""
        self.optional_user: OptionalUser = OptionalUser(self._source)
        """The `Principal` who sends the request, None when no credentials came."""

    def require(
        self, *scopes: str, any_scopes: Words = (), claims: ExpectedClaims | None = None, audience: str | None = None
    ) -> CurrentUser:
        """Return a dependency like `current_user` that asks for more: what a `Rule` asks, without a path.

        Raises:
            PolicyError: something of it cannot work. It is a ValueError.
        """
        return CurrentUser(self._source, requirement_of(scopes, any_scopes, claims, audience))

    def claims_of(self, model: type[T]) -> ClaimsOf[T]:
        """Return a dependency that gives the claims as a pydantic model, a dataclass or a TypedDict.

        Claims that do not fit make the token invalid: 401, and what does not fit is in the log, without its value.
        """
        return ClaimsOf(self._source, model)

    def install(self, app: FastAPI, *, scopes: Mapping[str, str] | None = None) -> None:
        """Start and stop the service with `app`, and document it in the app's OpenAPI (see `document`).

        With the setting `resource` the app describes itself too (RFC 9728): its description is at the well-known place.
        Without this the service starts on the first request, and OpenAPI knows only where to discover the issuer.
        """
        inner = app.router.lifespan_context

        @asynccontextmanager
        async def lifespan(running: Any) -> AsyncIterator[Any]:
            async with self.oidc, inner(running) as state:
                yield state

        app.router.lifespan_context = lifespan
        if self.oidc.settings.resource_metadata is not None:
            app.router.routes[:0] = resource_metadata_routes(self.oidc)
        document(app, scopes=scopes)


def _service(settings: Settings | None, oidc: OIDC | None, keywords: SettingsKeywords) -> OIDC:
    given: object = oidc
    if given is None:
        made = OIDC(settings, **keywords)
        for name in OF_THE_MIDDLEWARE:
            if name in made.settings.model_fields_set:
                cure = "Leave it out, or put OIDCMiddleware in front of the app."
                raise ConfigError(name, "only OIDCMiddleware can keep it, dependencies alone cannot", cure)
        return made
    if settings is not None or keywords:
        raise ConfigError("oidc", "given beside other settings", "Put them into OIDC(...), or leave oidc= out")
    if not isinstance(given, OIDC):
        raise ConfigError("oidc", f"is of type {type(given).__name__}", "Pass OIDC(...)")
    return given

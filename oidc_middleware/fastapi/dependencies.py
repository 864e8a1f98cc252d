"""The dependencies: who calls, and whether they may.

Each is one object without sub-dependencies, for FastAPI takes longer to resolve a dependency than we to answer it.
"""

from __future__ import annotations

from collections.abc import Iterable
from inspect import Parameter, Signature
from typing import Any, ClassVar, Generic, NoReturn, TypeVar

from fastapi.openapi.models import HTTPBearer, OpenIdConnect
from fastapi.openapi.models import SecurityBase as Scheme
from fastapi.security import SecurityScopes
from fastapi.security.base import SecurityBase
from starlette.requests import HTTPConnection

from oidc_middleware.core.principal import Principal
from oidc_middleware.core.requirement import ExpectedClaims, Requirement, Words
from oidc_middleware.errors import InsufficientScope, MissingToken, OIDCError
from oidc_middleware.fastapi import operations, schemes
from oidc_middleware.fastapi.refused import refused
from oidc_middleware.fastapi.sources import Middleware, Source
from oidc_middleware.fastapi.typed import TypedClaims

T = TypeVar("T")

_PARAMETERS = {"conn": HTTPConnection, "security_scopes": SecurityScopes}


class Dependency(SecurityBase):
    """What all dependencies of ours have in common. Two that ask the same are equal, and so are resolved once.

    `scopes` are those that it asks for itself; those of `Security(...)` come with the request.
    """

    # FastAPI evaluates annotations in the globals of a function, and an object has none.
    __signature__: ClassVar[Signature] = Signature(
        [Parameter(name, Parameter.POSITIONAL_OR_KEYWORD, annotation=kind) for name, kind in _PARAMETERS.items()]
    )

    is_optional: ClassVar[bool] = False
    """Whether it lets in who brings no credentials."""

    def __init__(self, source: Source, requirement: Requirement | None = None) -> None:
        self.source: Source = source
        self._requirement = requirement
        # By the scopes of `Security(...)` on the way here: the app's routes are few, and clients have no say.
        self._with_scopes: dict[str, Requirement] = {}

    @property
    def scopes(self) -> tuple[str, ...]:
        """The scopes that it asks for itself."""
        return () if self._requirement is None else self._requirement.scopes_to_ask

    @property
    def may_forbid(self) -> bool:
        """Whether it asks for more than an identity by itself."""
        return self._requirement is not None

    # FastAPI reads the next two when it writes the document; they are variables there.

    @property
    def scheme_name(self) -> str:  # type: ignore[override]
        """The name of its scheme in OpenAPI, until `document` writes better ones."""
        return schemes.OPENID_CONNECT if self._discovery_url else schemes.BEARER

    @property
    def model(self) -> Scheme:  # type: ignore[override]
        """Its scheme in OpenAPI, until `document` writes better ones."""
        url = self._discovery_url
        return OpenIdConnect(openIdConnectUrl=url) if url else HTTPBearer(bearerFormat="JWT")

    @property
    def _discovery_url(self) -> str | None:
        urls = schemes.discovery_urls(self.source.oidc) if self.source.oidc is not None else {}
        return next(iter(urls.values()), None)

    def _check(self, user: Principal, security_scopes: SecurityScopes) -> None:
        """Let the user pass who has what is asked for.

        Raises:
            InsufficientScope: something is missing.
        """
        requirement = self._together(security_scopes) if security_scopes.scopes else self._requirement
        if requirement is not None and (lacking := requirement.unmet(user)) is not None:
            raise InsufficientScope(f"{self!r}: {lacking} is missing")

    def _together(self, security_scopes: SecurityScopes) -> Requirement:
        requirement = self._with_scopes.get(security_scopes.scope_str)
        if requirement is None:
            own = self._requirement or Requirement()
            scopes = tuple(dict.fromkeys((*security_scopes.scopes, *own.scopes)))
            requirement = Requirement(scopes, own.any_scopes, own.claims, own.audience)
            self._with_scopes[security_scopes.scope_str] = requirement
        return requirement

    def _refuse(self, conn: HTTPConnection, error: OIDCError, security_scopes: SecurityScopes) -> NoReturn:
        """Raise what becomes the response. Its challenge names all scopes that the operation needs, wherever asked."""
        asked = dict.fromkeys((*operations.scopes_of(conn.scope), *security_scopes.scopes, *self.scopes))
        if isinstance(error, InsufficientScope):
            error = InsufficientScope(error.detail, asked)
        raise refused(conn, error, self.source.refusal(conn.scope), asked) from None

    def _key(self) -> tuple[Any, ...]:
        return type(self), self.source, self._requirement

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Dependency) and self._key() == other._key()

    def __hash__(self) -> int:
        return hash(self._key())

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._requirement or ''})"


class CurrentUser(Dependency):
    """The `Principal` who sends the request; without one it is refused."""

    async def __call__(self, conn: HTTPConnection, security_scopes: SecurityScopes) -> Principal:
        """Return who sends this request or WebSocket.

        Raises:
            Refused: nobody, or somebody who may not: 400, 401, 403 or 503.
            LookupError: no middleware stands in front of the app, and this dependency needs one.

        Source: RFC 6750 §3.1.
        """
        try:
            user = self.source.peek(conn.scope) or await self.source.find(conn.scope)
            if user is None:
                raise _missing(conn)
            self._check(user, security_scopes)
        except OIDCError as error:
            self._refuse(conn, error, security_scopes)
        return user


class OptionalUser(Dependency):
    """The `Principal` who sends the request, None when no credentials came; bad ones are refused."""

    is_optional: ClassVar[bool] = True

    async def __call__(self, conn: HTTPConnection, security_scopes: SecurityScopes) -> Principal | None:
        """Return who sends this request or WebSocket.

        Raises:
            Refused: credentials came that are not good: 400, 401, 403 or 503.
            LookupError: no middleware stands in front of the app, and this dependency needs one.
        """
        try:
            user = self.source.peek(conn.scope) or await self.source.find(conn.scope)
            if user is not None:
                self._check(user, security_scopes)
        except OIDCError as error:
            self._refuse(conn, error, security_scopes)
        return user


class ClaimsOf(Dependency, Generic[T]):
    """The claims of who sends the request, as a model of the application's."""

    def __init__(self, source: Source, model: type[T]) -> None:
        super().__init__(source)
        self._claims = TypedClaims(model)

    async def __call__(self, conn: HTTPConnection, security_scopes: SecurityScopes) -> T:
        """Return the claims of this request's token. Those that the model does not fit make it an invalid token.

        Raises:
            Refused: nobody sends it, or somebody who may not: 400, 401, 403 or 503.
            LookupError: no middleware stands in front of the app, and this dependency needs one.
        """
        try:
            user = self.source.peek(conn.scope) or await self.source.find(conn.scope)
            if user is None:
                raise _missing(conn)
            claims = self._claims.of(user)
            self._check(user, security_scopes)
        except OIDCError as error:
            self._refuse(conn, error, security_scopes)
        return claims

    def _key(self) -> tuple[Any, ...]:
        return *super()._key(), self._claims.model

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._claims.name})"


def _missing(conn: HTTPConnection) -> MissingToken:
    has_others = "authorization" in conn.headers
    return MissingToken("the Authorization header is not of the Bearer scheme" if has_others else "no credentials")


def requirement_of(
    scopes: Iterable[str], any_scopes: Words, claims: ExpectedClaims | None, audience: str | None
) -> Requirement | None:
    """Return what `require` was given, None when that is nothing more than an identity.

    Raises:
        PolicyError: it cannot work. It is a ValueError.
    """
    requirement = Requirement(tuple(scopes), any_scopes, {} if claims is None else claims, audience)
    return None if requirement == Requirement() else requirement


_MIDDLEWARE = Middleware()

current_user: CurrentUser = CurrentUser(_MIDDLEWARE)
"""The `Principal` whom the middleware let in: `Annotated[Principal, Depends(current_user)]`."""

optional_user: OptionalUser = OptionalUser(_MIDDLEWARE)
"""The `Principal` whom the middleware let in, None for nobody: for paths that are `optional` there."""


def require(
    *scopes: str, any_scopes: Words = (), claims: ExpectedClaims | None = None, audience: str | None = None
) -> CurrentUser:
    """Return a dependency like `current_user` that asks for more: what a `Rule` asks, without a path.

    The token needs all of `scopes`, one of `any_scopes`, `audience` among its audiences, and every entry of `claims`
    (a name or dotted path, and the value or values of which it must have one).

    Raises:
        PolicyError: something of it cannot work. It is a ValueError.
    """
    return CurrentUser(_MIDDLEWARE, requirement_of(scopes, any_scopes, claims, audience))


def claims_of(model: type[T]) -> ClaimsOf[T]:
    """Return a dependency that gives the claims as a pydantic model, a dataclass or a TypedDict.

    Claims that do not fit make the token invalid: 401, and what does not fit is in the log, without its value.
    """
    return ClaimsOf(_MIDDLEWARE, model)

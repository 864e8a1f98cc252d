"""Where a dependency has the identity from: from the middleware in front of the app, or from the service itself."""

from __future__ import annotations

from typing import Protocol

from starlette.authentication import AuthCredentials, UnauthenticatedUser
from starlette.types import Scope

from oidc_middleware.asgi.credentials import Credentials
from oidc_middleware.asgi.refusal import Refusal, refusal_of
from oidc_middleware.core import bearer
from oidc_middleware.core.known import Known
from oidc_middleware.core.principal import Principal
from oidc_middleware.errors import MissingToken
from oidc_middleware.wiring import OIDC, SCOPE_KEY


class Source(Protocol):
    """Says who sends a request, and how a refusal is answered."""

    oidc: OIDC | None
    """The service that tells, None where the connection says which one it is."""

    def peek(self, scope: Scope) -> Principal | None:
        """Return who sends this request if that is known without waiting; None: `find` has to look.

        Raises:
            OIDCError: the request is refused.
        """

    async def find(self, scope: Scope) -> Principal | None:
        """Return who sends this request; None when no credentials came, or some of another scheme than Bearer.

        Raises:
            OIDCError: the request is refused.
            LookupError: nobody can tell, for the app is put together wrongly.
        """

    def refusal(self, scope: Scope) -> Refusal:
        """Return how refusals of this request are answered."""


class Middleware:
    """`OIDCMiddleware`, which has left the identity in the scope."""

    oidc: OIDC | None = None

    def peek(self, scope: Scope) -> Principal | None:
        """Return the identity that the middleware found."""
        user = scope.get("user")
        return user if type(user) is Principal else None

    async def find(self, scope: Scope) -> Principal | None:
        """Return None, for the middleware found no identity.

        Raises:
            LookupError: there is no middleware.
            MissingToken: credentials came to a path where the middleware does not read them.
        """
        if SCOPE_KEY not in scope:
            raise LookupError(
                "no OIDCMiddleware stands in front of this app, so nobody knows who calls. Add it "
                "(app.add_middleware(OIDCMiddleware, ...)), or take the dependencies of OIDCAuth(...), which need none"
            )
        value = bearer.authorization(scope["headers"])
        if value is not None and not bearer.is_of_another_scheme(value):
            raise MissingToken("credentials are not read on this path: take it out of `public`")
        return None

    def refusal(self, scope: Scope) -> Refusal:
        """Return how the middleware answers refusals."""
        return refusal_of(scope)


class Service:
    """A service, asked by the dependency itself. The identity is left where the middleware leaves it.

    Where another service has left its own there, that stays: who asks for an identity of a door gets none of ours.
    """

    def __init__(self, oidc: OIDC) -> None:
        self.oidc: OIDC | None = oidc
        self._service = oidc
        self._lookup = oidc.authenticator.lookup
        self._credentials = Credentials(oidc, oidc.settings)
        self._refusal = Refusal(oidc.settings)

    def peek(self, scope: Scope) -> Principal | None:
        """Return the identity that was found for this request before, or that of a known token."""
        known = scope.get("auth")
        if type(known) is Known and scope.get(SCOPE_KEY) is self._service:
            return known.principal
        value = bearer.authorization(scope["headers"])
        if value is None or scope["type"] != "http":
            return None
        if query := scope.get("query_string"):
            bearer.check_query(query)
        known = self._lookup(value)
        return None if known is None else self._leave(scope, known)

    async def find(self, scope: Scope) -> Principal | None:
        """Return the identity behind the credentials of this request, None when there are none."""
        try:
            known = await self._credentials.find(scope)
        except MissingToken:  # of another scheme
            known = None
        if known is not None:
            return self._leave(scope, known)
        if SCOPE_KEY not in scope:
            scope.setdefault("user", UnauthenticatedUser())
            scope.setdefault("auth", AuthCredentials())
            scope[SCOPE_KEY] = self._service
        return None

    def _leave(self, scope: Scope, known: Known) -> Principal:
        principal = known.principal
        if scope.get(SCOPE_KEY, self._service) is self._service:
            scope["user"] = principal
            scope["auth"] = known
            scope[SCOPE_KEY] = self._service
        return principal

    def refusal(self, scope: Scope) -> Refusal:
        """Return how refusals are answered, as the settings of the service say."""
        del scope
        return self._refusal

"""What is known of whoever sends a request: `request.auth`."""

from __future__ import annotations

import msgspec

from oidc_middleware.core.principal import Principal


class GrantedScopes(list[str]):
    """The granted scopes. `"authenticated" in` them is true besides, for Starlette's examples ask for that."""

    def __contains__(self, scope: object) -> bool:
        return scope == "authenticated" or super().__contains__(scope)


class Known(msgspec.Struct, gc=False, eq=False):
    """A verified token, ready to be put into a request: `request.auth`, whose `scopes` Starlette's `requires` reads.

    `value` is the `Authorization` header that brought it, `until` is when it is verified anew, `deadline` when the
    token ends (both Unix time in seconds), `is_cached` tells whether the cache has it besides the hot set. A Struct,
    which is made in a quarter of the time of an ordinary object.
    """

    value: bytes
    until: float
    generation: int
    keys: int
    principal: Principal
    marks: bytes
    deadline: float
    is_cached: bool

    @property
    def scopes(self) -> GrantedScopes:
        """The granted scopes, in a new list each time: what a handler does to it reaches no other request."""
        return GrantedScopes(sorted(self.principal.scopes))

    async def access_token(self) -> str:
        """Return the access token for a call on the user's behalf: of a bearer token, that token. Never log it."""
        return self.principal.token

    def __repr__(self) -> str:
        return f"Known({self.principal!r})"

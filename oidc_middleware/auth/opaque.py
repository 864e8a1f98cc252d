"""Opaque tokens do not say who issued them: whoever may have is asked, one after another."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping

from oidc_middleware.auth.introspection import PATIENCE, Answer, Introspection
from oidc_middleware.core.foreign import Foreign, reason_of_opaque
from oidc_middleware.core.opaque import is_opaque
from oidc_middleware.errors import BackendUnavailable, Inactive, ProviderError, ProviderUnavailable


class OpaqueTokens:
    """The issuers that are asked about opaque tokens, in the order in which they are configured.

    Of `foreign` tokens only those are asked whose settings say that their tokens begin so.
    """

    def __init__(self, asked: Mapping[str, Introspection], foreign: Iterable[Foreign] = ()) -> None:
        self._asked = tuple(asked.items())
        self._foreign = tuple(foreign)

    def issuers_of(self, token: bytes) -> tuple[str, ...]:
        """Return the issuers that may have issued this token: of those whose prefix it has, those with the longest.

        None for a JWT, which names its issuer.
        """
        if not self._asked or not is_opaque(token):
            return ()
        fitting = [(name, len(each.prefix)) for name, each in self._asked if token.startswith(each.prefix)]
        longest = max((length for _, length in fitting), default=0)
        if not longest and reason_of_opaque(token, self._foreign) is not None:
            return ()
        return tuple(name for name, length in fitting if length == longest)

    async def ask(self, token: bytes) -> tuple[str, Answer]:
        """Return the first issuer that calls this token active, and what it says.

        Who gave no answer the last time is asked last, so that others' tokens need not wait for an issuer that is gone.

        Raises:
            Inactive: all say that the token is not active.
            ProviderError, BackendUnavailable: nobody says that it is active, and one does not say anything, or all
                together take too long.
        """
        try:
            async with asyncio.timeout(PATIENCE):
                return await self._ask_in_order(token)
        except TimeoutError:
            raise ProviderUnavailable("introspection: the issuers together take too long") from None

    async def _ask_in_order(self, token: bytes) -> tuple[str, Answer]:
        unsaid: ProviderError | BackendUnavailable | None = None
        asked = dict(self._asked)
        for name in sorted(self.issuers_of(token), key=lambda name: asked[name].fails):
            try:
                return name, await asked[name].ask(token)
            except Inactive:
                continue
            except (ProviderError, BackendUnavailable) as error:
                unsaid = unsaid or error
        raise unsaid or Inactive("the issuer says that it is not active")

"""The keys of one issuer, where a document may hold those of others too."""

from __future__ import annotations

from oidc_middleware.core.keys import Key, KeySet
from oidc_middleware.provider.provider import Provider


class IssuerKeys:
    """The keys of `provider` without those that the document gives to another issuer.

    A key that it gives to nobody is everybody's. Entra ID keeps the keys of personal accounts apart in this way, in
    the documents of each tenant too: whoever has one of those keys must not sign for a company.

    `names` are what the document may call this issuer; `any_template`: by any template, too.
    """

    def __init__(self, provider: Provider, names: frozenset[str], *, any_template: bool = False) -> None:
        self._provider = provider
        self._names = names
        self._any_template = any_template

    def peek_keys(self) -> KeySet | None:
        """Return the keys in memory that may be used without asking the issuer."""
        keys = self._provider.peek_keys()
        return None if keys is None else keys.of_issuer(self._names, any_template=self._any_template)

    async def find_keys(self, kid: str | None, alg: str, tried: tuple[Key, ...]) -> tuple[Key, ...]:
        """Return the keys that a header may mean; see `Provider.find_keys`.

        Raises:
            ProviderError, BackendUnavailable: as it does.
        """
        found = await self._provider.find_keys(kid, alg, tried)
        return tuple(key for key in found if key.is_of(self._names, any_template=self._any_template))

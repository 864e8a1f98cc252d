"""The keys of one tenant, where all tenants share a document."""

from __future__ import annotations

from oidc_middleware.core.keys import Key, KeySet
from oidc_middleware.provider.provider import Provider


class TenantKeys:
    """The keys of `provider` without those that the document gives to another tenant.

    `names` are what the document may call this tenant's issuer: by its own name, or by the template. A key that it
    gives to nobody is everybody's. Entra ID keeps the keys of personal accounts apart in this way.
    """

    def __init__(self, provider: Provider, names: frozenset[str]) -> None:
        self._provider = provider
        self._names = names

    def peek_keys(self) -> KeySet | None:
        """Return the keys in memory that may be used without asking the issuer."""
        keys = self._provider.peek_keys()
        return None if keys is None else keys.of_issuer(self._names)

    async def find_keys(self, kid: str | None, alg: str, tried: tuple[Key, ...]) -> tuple[Key, ...]:
        """Return the keys that a header may mean; see `Provider.find_keys`.

        Raises:
            ProviderError, BackendUnavailable: as it does.
        """
        found = await self._provider.find_keys(kid, alg, tried)
        return tuple(key for key in found if key.issuer is None or key.issuer in self._names)

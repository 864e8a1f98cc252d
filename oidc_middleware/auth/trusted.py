"""One issuer whose tokens are accepted, as the authenticator sees it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from oidc_middleware.auth.introspection import Introspection
from oidc_middleware.core.claims_mapping import USUAL, ClaimsMapping
from oidc_middleware.core.keys import Key, KeySet
from oidc_middleware.core.verify import Expected


class KeySource(Protocol):
    """Where the keys of one issuer come from."""

    def peek_keys(self) -> KeySet | None:
        """Return the keys in memory, None when there are none."""

    async def find_keys(self, kid: str | None, alg: str, tried: tuple[Key, ...]) -> tuple[Key, ...]:
        """Return the keys that may be meant, none when the issuer has none such; may wait for the issuer.

        `tried` are keys from memory that did not verify the token: perhaps the issuer has newer ones.

        Raises:
            ProviderError: there are no keys at all and the issuer cannot be asked.
        """


@dataclass(frozen=True, slots=True)
class TrustedIssuer:
    """One issuer whose tokens are accepted: what they must show, where its keys are, and a name for that place.

    With `introspection` the issuer is asked about tokens. `mapping` says where it has scopes and the like.
    """

    expected: Expected
    keys: KeySource
    source: bytes
    introspection: Introspection | None = None
    mapping: ClaimsMapping = USUAL

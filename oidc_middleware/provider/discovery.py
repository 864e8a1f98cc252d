"""Finding an issuer's discovery document."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from oidc_middleware.core.addresses import Zone
from oidc_middleware.core.metadata import Metadata
from oidc_middleware.provider.http import Answer, ErrorStatus, HTTPDoor


@dataclass(frozen=True, slots=True)
class Discovered:
    """Metadata, and the zone of the address that they came from: they may name hosts that far inside, none further."""

    metadata: Metadata
    zone: Zone


async def fetch_metadata(http: HTTPDoor, urls: Sequence[str]) -> Answer:
    """Fetch the first of the documents that exists. The operator named the host, so it may lie anywhere.

    Raises:
        ErrorStatus: the issuer has none of them (4xx), or answers with an error.
        ProviderError: it does not answer, or not as it must.
    """
    for url in urls[:-1]:
        try:
            return await http.get(url, Zone.LOOPBACK)
        except ErrorStatus as error:
            if not 400 <= error.answered < 500:  # noqa: PLR2004  not here, which is no failure (RFC 9110 §15.5)
                raise
    return await http.get(urls[-1], Zone.LOOPBACK)

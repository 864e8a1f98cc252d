"""What to say about the proxies that settings trust."""

from __future__ import annotations

from collections.abc import Iterator

from oidc_middleware.settings import Settings


def warnings(settings: Settings) -> Iterator[str]:
    """Yield what will surprise somebody, a sentence or two each."""
    if not settings.trusted_proxies:
        yield (
            "trusted_proxies is empty, so nobody is believed which request is asked about: no path is public or "
            "optional, and every request has to satisfy every rule. Set OIDC_TRUSTED_PROXIES to the proxy's address."
        )
    for network in settings.trusted_proxies:
        if network.prefixlen == 0:
            yield (
                f"trusted_proxies has {network}, so everybody is believed which request they ask about. "
                "Name the proxy's address."
            )

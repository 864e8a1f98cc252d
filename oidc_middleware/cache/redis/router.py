"""From a URL to the route that it names."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from oidc_middleware.cache.redis.cluster import Cluster
from oidc_middleware.cache.redis.link import Connect, connector
from oidc_middleware.cache.redis.route import OneServer, Route
from oidc_middleware.cache.redis.sentinel import Sentinels, check_primary
from oidc_middleware.cache.redis.urls import Address, Target, target_of


def router(url: str, budget: float, ca_file: str | None = None, **options: Any) -> Callable[[], Route]:
    """Return a function that makes a route for the event loop that runs; nothing is sent before that is used.

    Raises:
        ValueError: the URL names nothing that can be reached, or asks for what is not supported.
        ModuleNotFoundError: redis-py is not installed.
    """
    target = target_of(url)
    if target.form == "server":
        connect = connector(url, ca_file, **options)
        return lambda: OneServer(connect, budget)

    def connect_to(address: Address) -> Connect:
        return connector(target.server_url(address), ca_file, **options)

    connect_to(target.seeds[0])  # what cannot work is refused now
    if target.form == "cluster":
        return lambda: Cluster(target.seeds, connect_to, budget)
    sentinels = _sentinels(target, connect_to, budget, ca_file, options)
    return lambda: OneServer(sentinels, budget, check_primary)


def _sentinels(
    target: Target,
    connect_to: Callable[[Address], Connect],
    budget: float,
    ca_file: str | None,
    options: dict[str, Any],
) -> Sentinels:
    def connect_to_sentinel(address: Address) -> Connect:
        return connector(target.sentinel_url(address), ca_file, **options)

    head_start = budget / (len(target.seeds) + 1)
    return Sentinels(target.service, target.seeds, connect_to, connect_to_sentinel, head_start)

"""Memory over a shared tier that may hang, fail, lose what it has and come back."""

from __future__ import annotations

from oidc_middleware.cache.hybrid.backend import HybridBackend
from oidc_middleware.cache.hybrid.overview import Overview
from oidc_middleware.cache.hybrid.unsettled import UnsettledCounts

__all__ = ["HybridBackend", "Overview", "UnsettledCounts"]

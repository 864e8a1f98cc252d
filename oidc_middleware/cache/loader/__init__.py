"""Values that are loaded when they are asked for: once for all who ask, ahead of their end, and not while others do."""

from __future__ import annotations

from oidc_middleware.cache.loader.cache import Load, LoadingCache
from oidc_middleware.cache.loader.kept import Kept, Loaded, kept
from oidc_middleware.cache.loader.options import Loading

__all__ = ["Kept", "Load", "Loaded", "Loading", "LoadingCache", "kept"]

"""HTTP to the issuer: metadata and keys, through one guarded door."""

from __future__ import annotations

from oidc_middleware.provider.http import HTTPDoor
from oidc_middleware.provider.provider import Provider

__all__ = ["HTTPDoor", "Provider"]

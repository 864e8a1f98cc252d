"""A cache tier that the processes of one host share, in a file and without a server."""

from __future__ import annotations

from oidc_middleware.cache.sqlite.backend import SqliteBackend

__all__ = ["SqliteBackend"]

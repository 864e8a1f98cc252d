"""`oidc-middleware secret`: a new secret for a shared cache."""

from __future__ import annotations

import argparse

from oidc_middleware.cache.envelope import new_secret


def run(arguments: argparse.Namespace) -> int:
    """Print a new secret, and nothing else, so that a file can take it."""
    del arguments
    print(new_secret())
    return 0

"""`python -m oidc_middleware.cli` is the command `oidc-middleware`."""

from __future__ import annotations

import sys

from oidc_middleware.cli import main

if __name__ == "__main__":
    sys.exit(main())

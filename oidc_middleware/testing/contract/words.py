"""What the tests of the contract speak of."""

from __future__ import annotations

from oidc_middleware.cache import TYPES

TOKEN, GENERAL, BLACKLIST = TYPES["token"], TYPES["general"], TYPES["blacklist"]
HOUR = 3600.0
NO_TIMES = (float("nan"), float("inf"), float("-inf"), 10**400)

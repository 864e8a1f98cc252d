"""What the tests of the contract speak of."""

from __future__ import annotations

from typing import Final

from oidc_middleware.cache import TYPES

TOKEN: Final = TYPES["token"]
GENERAL: Final = TYPES["general"]
BLACKLIST: Final = TYPES["blacklist"]
SESSION: Final = TYPES["session"]
HOUR: Final = 3600.0
NO_TIMES: Final = (float("nan"), float("inf"), float("-inf"), 10**400)

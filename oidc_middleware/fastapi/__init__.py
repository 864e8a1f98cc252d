"""Dependencies for FastAPI: who calls, what they may do, and what OpenAPI says about both.

Behind `OIDCMiddleware` the names below read the identity that it found. Without it, `OIDCAuth(...)` has the same names
and finds the identity itself, with the same checks and caches.

```
auth           OIDCAuth: the dependencies of a service that needs no middleware
dependencies   current_user, optional_user, require, claims_of
sources        where they have the identity from
typed          claims as a model of the application's
refused        how a dependency says no
operations     what FastAPI knows of an operation
schemes        the security schemes of an issuer
document       OpenAPI: schemes, scopes and refusals of each operation
```
"""

from __future__ import annotations

try:
    import fastapi as _fastapi  # noqa: F401  asked for here, so that whoever lacks it reads what to do
except ImportError as _error:
    if _error.name != "fastapi":
        raise
    raise ImportError(
        "oidc_middleware.fastapi needs FastAPI. Install it: pip install 'oidc-middleware[fastapi]'", name="fastapi"
    ) from _error

from oidc_middleware.fastapi.auth import OIDCAuth
from oidc_middleware.fastapi.dependencies import ClaimsOf, CurrentUser, OptionalUser, claims_of, require
from oidc_middleware.fastapi.dependencies import current_user as current_user
from oidc_middleware.fastapi.dependencies import optional_user as optional_user
from oidc_middleware.fastapi.document import document
from oidc_middleware.fastapi.refused import Refused

__all__ = [
    "ClaimsOf",
    "CurrentUser",
    "OIDCAuth",
    "OptionalUser",
    "Refused",
    "claims_of",
    "current_user",
    "document",
    "optional_user",
    "require",
]

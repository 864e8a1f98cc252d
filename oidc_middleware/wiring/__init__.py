"""From settings to a running service: the one place where the object graph is built.

```
service    OIDC: issuers, caches and the authenticator of one configuration, started and stopped
store      the backend that a cache URL asks for
```
"""

from __future__ import annotations

from oidc_middleware.wiring.service import OIDC, SCOPE_KEY

__all__ = ["OIDC", "SCOPE_KEY"]

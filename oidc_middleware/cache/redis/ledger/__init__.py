"""The ledger of revocations in Redis or Valkey.

```
scripts        what runs on the server: where the log is, and writing all or nothing
reading        records and log entries from what the server answers
connections    to one server, whichever is the primary
store          `RedisLedger`
```
"""

from __future__ import annotations

from oidc_middleware.cache.redis.ledger.store import RedisLedger

__all__ = ["RedisLedger"]

"""The ledger of revocations: what it holds, how two ledgers become one, and what is refused by it.

```
records    the entries, how they travel, and the place in a log
```
"""

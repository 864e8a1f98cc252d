"""The ledger of revocations: what it holds, how two ledgers become one, and what is refused by it.

```
records    the entries, how they travel, and the place in a log
digests    the names of things in it, and what of a token they are compared with
table      where digests lie in memory
ledger     all of it: merge, refuse, sweep, page
```
"""

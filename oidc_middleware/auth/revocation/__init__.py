"""Revoking, and refusing what is revoked.

```
revoke        oidc.revoke: tokens, sessions, subjects, clients; with its receipts in receipt
revocations   oidc.revocations: is this revoked, what is there, export and import
names         who is meant, and until when a revocation of that matters
standing      what the ledger says of an identity, on the path of every request
keeper        the protocol's shell: the ledger of this process in step with the store and the journal
lanes         what the protocol asks the store and the journal for, each by a task of its own
mirror        the ledger as the protocol changes it: what was accepted before is overturned in the same step
```
"""

"""One node's share of the ledger, as a state machine without I/O: events in, commands out.

`replica` is the whole; `line`, `follower` and `loader` read what a store has, `writer` and `outlook` bring it there,
`journal` keeps it on this host, `healer` brings back what the store has lost. `events` names what goes in and out.

A driver is a loop around it:

```
commands = replica.handle(Tick(), now, wall)
for each command: begin it; a Receipt answers whoever revoked
when one has an answer, or somebody revokes, or `replica.due` has come (then: Tick()): handle it, and so on
```
"""

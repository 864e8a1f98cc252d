"""What runs on the server: where the log is, and writing all or nothing.

Two keys of one slot. In the sorted set lie the records, by their ends, and one member with a negative score that says
where the log is; so no eviction, flush or fail-over takes one without the other. The stream carries the log. Each of
its entries names the epoch, its number and the entry before it: the stream may lose entries, or be lost, and nobody
takes what is left of it for the whole.

```
score -1      log:<epoch>:<number>:<id of the last entry>
score end     the member of a record
```

An id is the server's time in milliseconds, but always more than the last one's, and a random number of the sender's:
entries that two servers wrote after a fail-over have different ids, whatever their clocks say.

Whoever finds no place, or one that cannot be read, begins a new epoch. So does who only looks: with no epoch in an
empty store, nobody could tell one that was always empty from one that was filled and emptied since.
"""

from __future__ import annotations

import hashlib
from typing import Final, NamedTuple


class Script(NamedTuple):
    """A script, and what `EVALSHA` calls it."""

    text: bytes
    name: bytes


def _script(*parts: bytes) -> Script:
    text = b"".join(parts)
    return Script(text, hashlib.sha1(text, usedforsecurity=False).hexdigest().encode())


# Before 7.0 a server can be told to replicate scripts as they are, and then wants to be told otherwise by one that
# writes by the time.
_BEGIN: Final = b"""
local ledger, stream = KEYS[1], KEYS[2]
if redis.replicate_commands then redis.replicate_commands() end
"""

# A command that writes, without effect here: a server that takes no writes refuses it, and the script with it.
_WRITES: Final = b"redis.call('ZREM', ledger, '')"

_GROWS: Final = b"""
redis.call('ZADD', ledger, 'XX', 0, '')
"""
"""The same, refused also by a server that has no memory left, but only as the first of all commands that write."""

# What lies in the stream after the last entry was not logged here, and would be in the way of what is. The limits are
# those of numbers that Lua counts exactly, and of ids that a stream takes.
_FIND: Final = b"""
local places = redis.call('ZRANGE', ledger, '-inf', '(0', 'BYSCORE')
local epoch, number, last = string.match(places[1] or '', '^log:(%x+):(%d+):([%d-]*)$')
local time, tail = string.match(last == '' and '0-0' or last or '', '^(%d+)-(%d+)$')

local function place() return string.format('log:%s:%.0f:%s', epoch, number, last) end

if #places ~= 1 or not time or #number > 15 or #time > 15 or #tail > 19 then
    for _, member in ipairs(places) do redis.call('ZREM', ledger, member) end
    epoch, number, last, time = ARGV[1], 0, '', 0
    redis.call('ZADD', ledger, -1, place())
end
local foreign = redis.call('XREAD', 'COUNT', 1, 'STREAMS', stream, last == '' and '0-0' or last)
if foreign then redis.call('UNLINK', stream) end
"""

_JOIN: Final = b"""
local random, kept, grace, extra, packed = ARGV[2], ARGV[3], ARGV[4], ARGV[5], ARGV[6]
local now = redis.call('TIME')
local count = #packed / 25
local added, news = {}, {}
if count > 0 then
    local members, ends = {}, {}
    for n = 1, count do
        members[n] = string.sub(packed, 25 * n - 24, 25 * n - 8)
        ends[n] = struct.unpack('>I8', packed, 25 * n - 7)
    end
    local known = redis.call('ZMSCORE', ledger, unpack(members))
    for n = 1, count do
        local score = tonumber(known[n] or -1)
        if score > 4294967295 then
            redis.call('ZREM', ledger, members[n])
            score = -1
        end
        if score < ends[n] then
            added[#added + 1] = ends[n]
            added[#added + 1] = members[n]
            news[#news + 1] = string.sub(packed, 25 * n - 24, 25 * n)
        end
    end
end
if #news > 0 then
    local before, previous = place(), last
    number = number + 1
    last = string.format('%.0f-%s', math.max(now[1] * 1000 + math.floor(now[2] / 1000), time + 1), random)
    local entry = {stream, 'MAXLEN', '~', kept, last,
        'e', epoch, 'n', string.format('%.0f', number), 'p', previous, 'r', table.concat(news)}
    local refusal = redis.pcall('XADD', unpack(entry))
    if type(refusal) == 'table' then
        if string.find(refusal.err, ' ID', 1, true) then redis.call('UNLINK', stream) end
        redis.call('XADD', unpack(entry))
    end
    redis.call('ZADD', ledger, 'GT', unpack(added))
    redis.call('ZADD', ledger, -1, place())
    redis.call('ZREM', ledger, before)
end
local ended = redis.call('ZRANGE', ledger, 0, now[1] - grace, 'BYSCORE', 'LIMIT', 0, extra + count)
if #ended > 0 then redis.call('ZREM', ledger, unpack(ended)) end
"""

_TELL: Final = b"""
return {epoch, string.format('%.0f', number), last}
"""

_READ: Final = b"""
local page = redis.call('ZSCAN', ledger, ARGV[2], 'COUNT', ARGV[3])
return {epoch, string.format('%.0f', number), last, page[1], page[2]}
"""

LOOK: Final = _script(_BEGIN, _WRITES, _FIND, _TELL)
"""Says where the log is; takes a name for a new epoch."""

SCAN: Final = _script(_BEGIN, _WRITES, _FIND, _READ)
"""The same, with a cursor and a part of the sorted set; takes also a cursor, and how many members that is roughly."""

WRITE: Final = _script(_BEGIN, _GROWS, _WRITES, _FIND, _JOIN, _TELL)
"""Joins records, logs those that changed something, sweeps, and says where the log is then.

It takes a name for a new epoch, a random number of 19 digits at most, how many entries the log keeps, for how many
seconds a record is kept after its end, how many more of those may go than come, and the records as the log carries
them. Everything that may be refused is tried before anything is changed.
"""

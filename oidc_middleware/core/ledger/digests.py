"""What of a token the ledger knows: keyed digests, so that whoever reads a ledger learns nothing from it.

```
digest     64 bits of BLAKE2b under a key, of the kind and the parts, each after its length
token      "jti", iss, jti; without a jti "input", signing input
session    iss, sid
subject    iss, sub
client     iss, client_id
clear      type of cache entries
```

A token is never named by its raw text: two encodings of it, and two ECDSA signatures of one payload, are one token.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Iterable, Mapping
from hashlib import blake2b
from typing import Any, Final

import msgspec

from oidc_middleware.core.claims import MAX_NUMERIC_DATE
from oidc_middleware.core.ledger.records import LARGEST_NUMBER, Kind, Record

KEY_ID_BYTES: Final = 4
KEY_BYTES: Final = 32
DIGESTS: Final = 4
"""How many digests a token has under each key: of `Kind.TOKEN`, `SESSION`, `SUBJECT` and `CLIENT`, in this order."""

_CLIENT_CLAIMS = ("client_id", "azp", "appid", "cid")


class Marks(msgspec.Struct, frozen=True, gc=False):
    """All that the ledger asks of one verified token.

    `iat` is in seconds of Unix time, None when the token has none. `key_ids` are the ids of all keys in one piece;
    `digests` has `DIGESTS` of them for each key, 0 for what the token does not have: a session, a client, or, where it
    has neither `jti` nor signing input, a name of its own.
    """

    iat: float | None
    key_ids: bytes
    digests: tuple[int, ...]

    def pack(self) -> bytes:
        """Return it as bytes, which `LedgerKeys.unpack` reads."""
        iat = math.nan if self.iat is None else self.iat
        return struct.pack(f">d{len(self.key_ids)}s{len(self.digests)}Q", iat, self.key_ids, *self.digests)


class LedgerKeys:
    """The keys of a ledger, by key id: the first one writes, and things are looked up under all of them.

    Raises:
        ValueError: there is none, an id is not of `KEY_ID_BYTES`, or a key is not of `KEY_BYTES`.
    """

    def __init__(self, keys: Mapping[bytes, bytes]) -> None:
        if not keys:
            raise ValueError("a ledger needs a key")
        if any(len(key_id) != KEY_ID_BYTES or len(key) != KEY_BYTES for key_id, key in keys.items()):
            raise ValueError(f"a key id has {KEY_ID_BYTES} bytes, and a key has {KEY_BYTES}")
        self.ids: tuple[bytes, ...] = tuple(keys)
        self.joined_ids: bytes = b"".join(keys)
        self._hashes = [[_begun(key, kind) for kind in Kind] for key in keys.values()]
        self._packed = struct.Struct(f">d{len(self.joined_ids)}s{DIGESTS * len(self.ids)}Q")

    def __repr__(self) -> str:
        return f"LedgerKeys(ids={[key_id.hex() for key_id in self.ids]})"

    @property
    def key_id(self) -> bytes:
        """The id of the key that writes."""
        return self.ids[0]

    def marks(self, claims: Mapping[str, Any], signing_input: bytes) -> Marks:
        """Return the marks of a token: `claims` passed their checks, `signing_input` is all of it before the last dot.

        Source: RFC 7515 §2 (JWS Signing Input).
        """
        issuer = _part(claims["iss"])
        jti, session, subject, client = claims.get("jti"), claims.get("sid"), claims.get("sub"), _client(claims)
        parts = (
            _token(issuer, jti, signing_input),
            None if session is None else issuer + _part(session),
            None if subject is None else issuer + _part(subject),
            None if client is None else issuer + _part(client),
        )
        digests: list[int] = []
        for begun in self._hashes:
            digests += _digests(begun, parts)
        return Marks(claims.get("iat"), self.joined_ids, tuple(digests))

    def unpack(self, data: bytes) -> Marks:
        """Return the marks that `Marks.pack` wrote.

        Raises:
            ValueError: it did not write this, or they were made under other keys.
        """
        try:
            fields = self._packed.unpack(data)
        except struct.error:
            raise ValueError("not the marks of a token") from None
        iat = fields[0]
        if fields[1] != self.joined_ids:
            raise ValueError("marks made under other keys")
        if 0 <= iat <= MAX_NUMERIC_DATE:
            return Marks(iat, self.joined_ids, fields[2:])
        if math.isnan(iat):
            return Marks(None, self.joined_ids, fields[2:])
        raise ValueError("not the marks of a token")

    def token(self, issuer: str, jti: str, end: int) -> Record:
        """Return the record that revokes the token with this `jti`; for `end` see `token_end`."""
        return Record(Kind.TOKEN, self.key_id, self._digest(Kind.TOKEN, _JTI + _part(issuer) + _part(jti)), end, end)

    def marked_token(self, marks: Marks, end: int) -> Record:
        """Return the record that revokes the token of these marks, `jti` or not; for `end` see `token_end`.

        Raises:
            ValueError: nothing names this token.
        """
        if not marks.digests[0]:
            raise ValueError("a token that has neither jti nor signing input cannot be revoked by itself")
        return Record(Kind.TOKEN, self.key_id, marks.digests[0], end, end)

    def session(self, issuer: str, sid: str, issued_until: float, life: float) -> Record:
        """Return the record that revokes all tokens of a session issued up to then; for `life` see `cut_off`."""
        return self._cut_off(Kind.SESSION, _part(issuer) + _part(sid), issued_until, life)

    def subject(self, issuer: str, sub: str, issued_until: float, life: float) -> Record:
        """Return the record that revokes all tokens of a subject issued up to then; for `life` see `cut_off`."""
        return self._cut_off(Kind.SUBJECT, _part(issuer) + _part(sub), issued_until, life)

    def client(self, issuer: str, client_id: str, issued_until: float, life: float) -> Record:
        """Return the record that revokes all tokens of a client issued up to then; for `life` see `cut_off`."""
        return self._cut_off(Kind.CLIENT, _part(issuer) + _part(client_id), issued_until, life)

    def clear(self, type_name: str, written_until: float, life: float) -> Record:
        """Return the record that clears a type of cache entries written up to then; for `life` see `cut_off`."""
        return self._cut_off(Kind.CLEAR, _part(type_name), written_until, life)

    def clear_digests(self, type_name: str) -> dict[bytes, int]:
        """Return what a type of cache entries is called in records of `Kind.CLEAR`, by key id."""
        part = _part(type_name)
        return {
            key_id: _digests(begun[Kind.CLEAR - 1 :], (part,))[0]
            for key_id, begun in zip(self.ids, self._hashes, strict=True)
        }

    def _cut_off(self, kind: Kind, parts: bytes, until: float, life: float) -> Record:
        number, end = cut_off(until, life)
        return Record(kind, self.key_id, self._digest(kind, parts), number, end)

    def _digest(self, kind: Kind, parts: bytes) -> int:
        """Return the digest under the key that writes."""
        return _digests(self._hashes[0][kind - 1 :], (parts,))[0]


def token_end(expires_at: float | None, now: float, longest: float) -> int:
    """Return the end of a token's record, at most `longest` seconds from now: no token is taken for longer.

    None and what is no number (JSON's 1e400 is infinite) are the latest end there can be. What expired before 1970 is
    over all the same.
    """
    latest = now + longest
    end = latest if expires_at is None or not expires_at < latest else expires_at
    return _seconds(end)


def cut_off(until: float, life: float) -> tuple[int, int]:
    """Return number and end of a cut-off, `life` seconds later: the longest that a token issued by then lives."""
    number = _seconds(until)
    return number, min(number + math.ceil(life), LARGEST_NUMBER)


def _seconds(moment: float) -> int:
    """Return a moment as a number that a record can have, rounded up."""
    return math.ceil(min(max(moment, 0), LARGEST_NUMBER))


def _begun(key: bytes, kind: Kind) -> blake2b:
    return blake2b(_part(kind.name.lower()), key=key, digest_size=8)


def _digests(begun: Iterable[blake2b], things: Iterable[bytes | None]) -> list[int]:
    """Return the digest of each thing by its own hash: 0 for None, and for nothing else."""
    digests = []
    for keyed, parts in zip(begun, things, strict=False):
        if parts is None:
            digests.append(0)
        else:
            hash_ = keyed.copy()
            hash_.update(parts)
            digests.append(int.from_bytes(hash_.digest()) or 1)
    return digests


def _client(claims: Mapping[str, Any]) -> str | None:
    for name in _CLIENT_CLAIMS:
        if name in claims:
            return claims[name]  # type: ignore[no-any-return]
    return None


def _token(issuer: bytes, jti: str | None, signing_input: bytes) -> bytes | None:
    if jti is not None:
        return _JTI + issuer + _part(jti)
    return _INPUT + len(signing_input).to_bytes(8) + signing_input if signing_input else None


def _part(text: str) -> bytes:
    """Return a text after its length. What JSON can say, a lone surrogate too, has bytes of its own."""
    data = text.encode("utf-8", "surrogatepass")
    return len(data).to_bytes(8) + data


_JTI = _part("jti")
_INPUT = _part("input")

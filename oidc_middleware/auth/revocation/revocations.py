"""Looking into the ledger: is this revoked, what is there, and taking all of it elsewhere."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Literal, NamedTuple

import msgspec

from oidc_middleware.auth.authenticator import Authenticator
from oidc_middleware.auth.revocation.keeper import Keeper
from oidc_middleware.auth.revocation.names import Names
from oidc_middleware.auth.revocation.receipt import Receipt
from oidc_middleware.clock import Clock
from oidc_middleware.core import verify
from oidc_middleware.core.ledger.digests import Marks
from oidc_middleware.core.ledger.records import GRACE, LARGEST_NUMBER, Kind, Record
from oidc_middleware.core.principal import Principal
from oidc_middleware.errors import RevocationStale, Revoked

KindName = Literal["token", "session", "subject", "client", "clear"]

_SLICE = 1000


class Verdict(NamedTuple):
    """What this node knows of an identity.

    `valid` and `revoked` are as of `as_of` (Unix seconds); `unknown` means that its knowledge is older than it may be,
    or that it has none (`as_of` is None then). What is revoked stays so, however old the knowledge.
    """

    status: Literal["revoked", "valid", "unknown"]
    as_of: float | None


class Revocation(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One entry of the ledger: digests, for nobody keeps the names.

    For a token `number` is its `exp`; for the others everything issued at or before it is refused, until `end`. Both
    are Unix seconds. `key_id` names the secret under which `digest` was made, both hexadecimal.
    """

    kind: KindName
    key_id: str
    digest: str
    number: int
    end: int


class RevocationPage(NamedTuple):
    """Some entries, and what to pass as `after` for those that follow; None after the last."""

    revocations: tuple[Revocation, ...]
    next: str | None


class Revocations:
    """`oidc.revocations`. Everything but `import_` is answered from memory."""

    def __init__(self, keeper: Keeper, names: Names, authenticator: Authenticator, clock: Clock) -> None:
        self._keeper = keeper
        self._names = names
        self._authenticator = authenticator
        self._now = clock.now

    def check(
        self, token: str | bytes | Principal | None = None, *, issuer: str | None = None, jti: str | None = None
    ) -> Verdict:
        """Tell whether a token is revoked, given as `oidc.revoke.token` takes it. Its signature is not looked at.

        Nobody is asked about an opaque token. While this node believes its issuer's word about it (a minute at most),
        all that is revoked of it is known; before and after, only what was revoked by the token itself. It is `unknown`
        otherwise: pass its principal, or its issuer and `jti`.

        Raises:
            Malformed: it is no token.
            ValueError: no way to name a token, or an issuer that is not configured.
        """
        raw = token.encode("ascii", "replace") if isinstance(token, str) else token
        if isinstance(raw, bytes) and jti is None and (issuers := self._authenticator.asked_about(raw)):
            return self._check_opaque(raw, issuers)
        return self._verdict(self._marks(raw, issuer, jti))

    def _check_opaque(self, token: bytes, issuers: tuple[str, ...]) -> Verdict:
        try:
            known = self._authenticator.lookup(b"Bearer " + token)
        except Revoked:
            return Verdict("revoked", self._as_of)
        except RevocationStale:
            return Verdict("unknown", self._as_of)
        if known is not None:
            return self._verdict(self._names.marks_of(known.principal))
        ledger = self._keeper.ledger
        marks = [ledger.keys.marks({"iss": name}, token) for name in issuers]
        is_revoked = any(ledger.refuses(each) is not None for each in marks)
        return Verdict("revoked" if is_revoked else "unknown", self._as_of)

    def _verdict(self, marks: Marks) -> Verdict:
        if self._keeper.ledger.refuses(marks) is not None:
            return Verdict("revoked", self._as_of)
        return Verdict("unknown" if self._keeper.is_stale else "valid", self._as_of)

    @property
    def _as_of(self) -> float | None:
        staleness = self._keeper.staleness
        return None if staleness is None else self._now() - staleness

    @property
    def staleness(self) -> float | None:
        """How many seconds old what is known here is; None where there is nothing yet, or nobody can say."""
        return self._keeper.staleness

    def list(self, *, kind: KindName | None = None, after: str | None = None, limit: int = 100) -> RevocationPage:
        """Return up to `limit` entries, of one kind or all, after those of another page. The order means nothing.

        What is there from the first page to the last is in one of them.

        Raises:
            ValueError: `after` is not the `next` of a page, or there is no such kind or limit.
        """
        if limit < 1:
            raise ValueError("limit is 1 or more")
        wanted = None if kind is None else _kind(kind)
        place = None if after is None else _place(after)
        if wanted is not None and (place is None or place.kind < wanted):
            place = Record(wanted, b"", 0, 0, 0)  # before the first of the kind: they come one kind after another
        found: list[Record] = []
        while len(found) <= limit and (page := self._keeper.ledger.records(place, max(limit, _SLICE))):
            place = page[-1]
            found += page if wanted is None else [record for record in page if record.kind is wanted]
            if wanted is not None and place.kind is not wanted:
                break
        cursor = None if len(found) <= limit else _cursor(found[limit - 1])
        return RevocationPage(tuple(map(_shown, found[:limit])), cursor)

    def export(self) -> Iterator[str]:
        """Yield every entry as a line of JSON: for `import_` on nodes with the same secret, or for a backup."""
        place = None
        while page := self._keeper.ledger.records(place, _SLICE):
            place = page[-1]
            for record in page:
                yield msgspec.json.encode(_shown(record)).decode()

    async def import_(self, lines: Iterable[str]) -> Receipt:
        """Add what `export` yielded, here or elsewhere, and return the least receipt that any of it got.

        What has ended is left out.

        Raises:
            ValueError: a line is not of an export, was made under a secret that is not configured here, or revokes what
                is yet to be issued. Lines before it may have been added.
        """
        least = Receipt.SHARED
        batch: list[Record] = []
        for number, line in enumerate(lines, 1):
            record = self._read(line, number)
            if record.end + GRACE > self._now():
                batch.append(record)
            if len(batch) == _SLICE:
                least = least.least(await self._keeper.add(batch))
                batch = []
        return least.least(await self._keeper.add(batch)) if batch else least

    def _marks(self, token: bytes | Principal | None, issuer: str | None, jti: str | None) -> Marks:
        keys = self._keeper.ledger.keys
        if (token is None) == (jti is None):
            raise ValueError("name the token: pass it, its principal, or jti= with issuer=")
        if isinstance(token, Principal):
            return self._names.marks_of(token)
        if token is None:
            return keys.marks({"iss": self._names.issuer(issuer), "jti": jti}, b"")
        read = verify.read(token)
        verify.issuer_of(read)
        return keys.marks(read.claims, read.jws.signing_input)

    def _read(self, line: str, number: int) -> Record:
        try:
            row = _decoder.decode(line)
            key_id, digest = bytes.fromhex(row.key_id), int(row.digest, 16)
            record = Record(_kind(row.kind), key_id, digest, row.number, row.end)
        except (ValueError, msgspec.MsgspecError) as error:
            raise ValueError(f"line {number} is not of an export: {error}") from None
        if not 0 <= row.number <= row.end <= LARGEST_NUMBER or not 0 < digest < 1 << 64:
            raise ValueError(f"line {number} is not of an export: a number is out of range")
        if key_id not in self._keeper.ledger.keys.ids:
            raise ValueError(f"line {number} was made under a secret (id {row.key_id}) that is not configured here")
        if record.kind is not Kind.TOKEN and row.number > self._now() + self._names.leeway + GRACE:
            raise ValueError(f"line {number} revokes what is yet to be issued: its number is in the future")
        return record


_decoder = msgspec.json.Decoder(Revocation)


def _shown(record: Record) -> Revocation:
    name: KindName = record.kind.name.lower()  # type: ignore[assignment]
    return Revocation(name, record.key_id.hex(), f"{record.digest:016x}", record.number, record.end)


def _kind(name: str) -> Kind:
    try:
        return Kind[name.upper()]
    except KeyError:
        raise ValueError(
            f"there is no kind {name!r}: choose from {', '.join(kind.name.lower() for kind in Kind)}"
        ) from None


def _cursor(record: Record) -> str:
    return f"{record.kind.name.lower()}-{record.key_id.hex()}-{record.digest:016x}"


def _place(cursor: str) -> Record:
    try:
        kind, key_id, digest = cursor.split("-")
        return Record(_kind(kind), bytes.fromhex(key_id), int(digest, 16), 0, 0)
    except ValueError:
        raise ValueError("after is not the next of a page") from None

"""Revoking: one token, a session, everything of a subject or a client."""

from __future__ import annotations

from oidc_middleware.auth.authenticator import Authenticator
from oidc_middleware.auth.revocation.keeper import Keeper
from oidc_middleware.auth.revocation.names import Names
from oidc_middleware.auth.revocation.receipt import Receipt, ReceiptName
from oidc_middleware.core.ledger.records import Record
from oidc_middleware.core.principal import Principal


class Revoke:
    """`oidc.revoke`. Each call returns when the revocation holds here and is as safe as it can be, see `Receipt`.

    Nothing is ever un-revoked. `require="shared"` raises `RevocationNotShared` where the receipt is less; the
    revocation stays all the same. `issuer` may be left out where there is only one. Times are Unix seconds.
    """

    def __init__(self, keeper: Keeper, names: Names, authenticator: Authenticator) -> None:
        self._keeper = keeper
        self._names = names
        self._authenticator = authenticator

    async def token(
        self,
        token: str | bytes | Principal | None = None,
        *,
        issuer: str | None = None,
        jti: str | None = None,
        expires_at: float | None = None,
        require: ReceiptName | None = None,
    ) -> Receipt:
        """Revoke one token: given as it is, as the principal that it became, or by the `jti` that its issuer gave it.

        A token given as it is is verified first. `expires_at` is the `exp` of the one with this `jti`; without it the
        revocation is kept as long as any token can live.

        Raises:
            TokenError, ProviderError: the token is not valid, so there is nothing to revoke; or nobody can say.
            ValueError: not one of the three ways to name a token, or an issuer that is not configured.
            RevocationNotShared: it holds, and not as widely as required.
        """
        if (token is None) == (jti is None):
            raise ValueError("name the token: pass it, its principal, or jti= with issuer= and expires_at=")
        if token is None:
            end = self._names.named_end(expires_at)
            records = [self._names.keys.token(self._names.issuer(issuer), _text("jti", jti), end)]
        elif issuer is not None or expires_at is not None:
            raise ValueError("issuer and expires_at belong to jti: a token says both itself")
        else:
            principal = token if isinstance(token, Principal) else await self._verified(token)
            records = self._names.token_records(principal)
        return await self._add(require, *records)

    async def session(
        self,
        sid: str | Principal,
        *,
        issuer: str | None = None,
        issued_before: float | None = None,
        require: ReceiptName | None = None,
    ) -> Receipt:
        """Revoke every token of a session at the issuer (`sid`) that was issued until now, or until `issued_before`.

        Raises:
            ValueError: no sid, an issuer that is not configured, or a time in the future.
            RevocationNotShared: it holds, and not as widely as required.
        """
        of, name = self._whose("sid", sid, issuer)
        until = self._names.issued_until(issued_before)
        return await self._add(require, self._names.keys.session(of, name, until, self._names.life))

    async def subject(
        self,
        subject: str | Principal,
        *,
        issuer: str | None = None,
        issued_before: float | None = None,
        require: ReceiptName | None = None,
    ) -> Receipt:
        """Revoke every token of a subject (`sub`) that was issued until now, or until `issued_before`.

        Who logs in again within `leeway` of it has to do so once more.

        Raises:
            ValueError: no subject, an issuer that is not configured, or a time in the future.
            RevocationNotShared: it holds, and not as widely as required.
        """
        of, name = self._whose("subject", subject, issuer)
        until = self._names.issued_until(issued_before)
        return await self._add(require, self._names.keys.subject(of, name, until, self._names.life))

    async def client(
        self,
        client_id: str | Principal,
        *,
        issuer: str | None = None,
        issued_before: float | None = None,
        require: ReceiptName | None = None,
    ) -> Receipt:
        """Revoke every token of a client that was issued until now, or until `issued_before`.

        Raises:
            ValueError: no client, an issuer that is not configured, or a time in the future.
            RevocationNotShared: it holds, and not as widely as required.
        """
        of, name = self._whose("client_id", client_id, issuer)
        until = self._names.issued_until(issued_before)
        return await self._add(require, self._names.keys.client(of, name, until, self._names.life))

    def _whose(self, what: str, of: str | Principal, issuer: str | None) -> tuple[str, str]:
        """Return an issuer, and whom or what of it is meant: by name, or by a principal that has both.

        Raises:
            ValueError: it has no such name, or the issuer is not configured.
        """
        if not isinstance(of, Principal):
            return self._names.issuer(issuer), _text(what, of)
        if issuer is not None:
            raise ValueError("a principal has its own issuer: leave issuer out")
        return self._names.issuer(of.issuer), _text(what, getattr(of, what))

    async def _add(self, require: ReceiptName | None, *records: Record) -> Receipt:
        required = None if require is None else Receipt(require)
        receipt = await self._keeper.add(records)
        receipt.check(required)
        return receipt

    async def _verified(self, token: str | bytes) -> Principal:
        raw = token.encode("ascii", "replace") if isinstance(token, str) else token
        verified = await self._authenticator.verify(raw)
        return Principal(verified.payload, raw, verified.issuer.mapping)


def _text(name: str, value: object) -> str:
    if not isinstance(value, str) or not value:
        raise ValueError(f"{name} must be text that is not empty")
    return value

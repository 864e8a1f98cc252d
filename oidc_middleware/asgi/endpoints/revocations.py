"""What an administrator does with revocations: make them, and page through them."""

from __future__ import annotations

import re
from typing import Final, TypeVar

import msgspec
from msgspec import UNSET, UnsetType
from starlette.requests import Request
from starlette.responses import Response

from oidc_middleware.asgi.endpoints.bodies import BadRequest, read_json, read_query
from oidc_middleware.asgi.endpoints.endpoint import answer
from oidc_middleware.auth.revocation.receipt import Receipt, ReceiptName
from oidc_middleware.errors import Revoked, TokenError
from oidc_middleware.wiring import OIDC

_USUAL_LIMIT: Final = 100
_LARGEST_LIMIT: Final = 1000
_NUMBER: Final = re.compile("[0-9]{1,4}")
_TARGETS: Final = ("token", "jti", "sid", "sub", "client_id")

T = TypeVar("T")

_Text = str | UnsetType
_Time = int | float | UnsetType


class _Order(msgspec.Struct, forbid_unknown_fields=True):
    """What is to be revoked: exactly one of `_TARGETS`, with what belongs to it. Times are Unix seconds."""

    token: _Text = UNSET
    jti: _Text = UNSET
    sid: _Text = UNSET
    sub: _Text = UNSET
    client_id: _Text = UNSET
    issuer: _Text = UNSET
    expires_at: _Time = UNSET
    issued_before: _Time = UNSET
    require: ReceiptName | UnsetType = UNSET


async def revoke(request: Request) -> Response:
    """Revoke what the JSON names, and answer with the receipt.

    Raises:
        BadRequest: it names nothing that can be revoked, and the answer says why.
        Revoked: whoever sent it was revoked while it came.
        ProviderError: nobody can say whether the token in it is valid.
        RevocationNotShared: it holds here, and not as widely as required; the answer has the receipt.
    """
    order, oidc = _order(await read_json(request)), OIDC.from_scope(request.scope)
    if oidc.revocations.check(request.user).status == "revoked":
        raise Revoked("while an order came")
    try:
        receipt = await _revoke(oidc, order)
    except TokenError as error:
        raise BadRequest(f"The token is refused ({error}), so there is nothing to revoke.") from None
    except ValueError as error:
        raise BadRequest(f"{error}") from None
    return answer({"receipt": receipt})


async def list_page(request: Request) -> Response:
    """Answer with some of what is revoked, and with what to pass as `after` for more.

    Raises:
        BadRequest: a parameter is not one of `kind`, `limit` and `after`, or has no such value.
    """
    query = read_query(request)
    unknown = sorted(query.keys() - {"kind", "limit", "after"})
    if unknown:
        raise BadRequest(f"There is no parameter {unknown[0]}: choose from kind, limit and after.")
    limit = _limit(query.get("limit"))
    revocations = OIDC.from_scope(request.scope).revocations
    try:
        page = revocations.list(kind=query.get("kind"), after=query.get("after"), limit=limit)  # type: ignore[arg-type]
    except ValueError as error:
        raise BadRequest(f"{error}") from None
    return answer({"revocations": page.revocations, "next": page.next})


def _order(members: dict[str, object]) -> _Order:
    try:
        order = msgspec.convert(members, _Order)
    except msgspec.ValidationError as error:
        raise BadRequest(f"{error}") from None
    if sum(getattr(order, name) is not UNSET for name in _TARGETS) != 1:
        raise BadRequest(f"Name exactly one of {', '.join(_TARGETS)}.")
    if order.expires_at is not UNSET and order.jti is UNSET:
        raise BadRequest("expires_at belongs to jti.")
    if order.issued_before is not UNSET and (order.token is not UNSET or order.jti is not UNSET):
        raise BadRequest("issued_before belongs to sid, sub and client_id.")
    return order


async def _revoke(oidc: OIDC, order: _Order) -> Receipt:
    revoke, issuer = oidc.revoke, _given(order.issuer)
    require = None if order.require is UNSET else order.require
    if order.token is not UNSET:
        return await revoke.token(order.token, issuer=issuer, require=require)
    if order.jti is not UNSET:
        return await revoke.token(jti=order.jti, issuer=issuer, expires_at=_given(order.expires_at), require=require)
    before = _given(order.issued_before)
    if order.sid is not UNSET:
        return await revoke.session(order.sid, issuer=issuer, issued_before=before, require=require)
    if order.sub is not UNSET:
        return await revoke.subject(order.sub, issuer=issuer, issued_before=before, require=require)
    assert order.client_id is not UNSET  # noqa: S101  one of them is there
    return await revoke.client(order.client_id, issuer=issuer, issued_before=before, require=require)


def _given(value: T | UnsetType) -> T | None:
    return None if value is UNSET else value


def _limit(text: str | None) -> int:
    if text is None:
        return _USUAL_LIMIT
    limit = int(text) if _NUMBER.fullmatch(text) else 0
    if not 1 <= limit <= _LARGEST_LIMIT:
        raise BadRequest(f"limit is a number from 1 to {_LARGEST_LIMIT}.")
    return limit

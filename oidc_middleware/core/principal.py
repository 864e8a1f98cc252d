"""Who a request comes from."""

from __future__ import annotations

import math
from typing import Any, ClassVar, NoReturn

import msgspec

from oidc_middleware.core.claims_mapping import USUAL, ClaimsMapping

_decode = msgspec.json.Decoder().decode


class Claims(dict[str, Any]):
    """A JSON object that cannot be changed, deeply: objects in it are `Claims`, arrays are tuples.

    It is a dict, so that it serialises as one. One value serves all requests of a token, hence nobody may write to it.
    """

    __slots__ = ()

    def _refuse(self, *_: object, **__: object) -> NoReturn:
        raise TypeError("claims cannot be changed; work on dict(claims)")

    __setitem__: Any = _refuse
    __delitem__: Any = _refuse
    __ior__: Any = _refuse
    clear: Any = _refuse
    pop: Any = _refuse
    popitem: Any = _refuse
    setdefault: Any = _refuse
    update: Any = _refuse

    def __copy__(self) -> Claims:
        return self

    def __deepcopy__(self, _: dict[int, Any]) -> Claims:
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        return freeze, (dict(self),)


def freeze(value: Any) -> Any:
    """Return `value`, made of JSON's types, as one that cannot be changed."""
    if isinstance(value, dict):
        return Claims((name, freeze(item)) for name, item in value.items())
    if isinstance(value, list | tuple):
        return tuple(freeze(item) for item in value)
    return value


class Principal(msgspec.Struct, gc=False, eq=False):
    """A verified identity: `request.user` of every request that passed the door.

    Built from the verified payload, whose JSON is read when something asks for a claim, and only then. It has what
    Starlette expects of a user (`is_authenticated`, `display_name`, `identity`) and cannot be changed. Where its issuer
    keeps scopes, roles, groups and tenant, the settings of that issuer say.
    """

    _payload: bytes
    _token: bytes
    _mapping: ClaimsMapping = USUAL
    _claims: Claims | None = None
    _scopes: frozenset[str] | None = None
    _roles: frozenset[str] | None = None
    _groups: frozenset[str] | None = None

    is_authenticated: ClassVar[bool] = True

    @property
    def payload(self) -> bytes:
        """The verified payload: the JSON that `claims` is read from."""
        return self._payload

    @property
    def claims(self) -> Claims:
        """All claims of the token, as the issuer sent them; of an opaque one, what it answered (with `iss` always)."""
        claims = self._claims
        if claims is None:
            claims = self._claims = freeze(_decode(self._payload))
        return claims

    @property
    def subject(self) -> str | None:
        """`sub`; None only for an introspected client token, which has a `client_id` instead."""
        return self.claims.get("sub")

    @property
    def issuer(self) -> str:
        """`iss`, one of the configured issuers."""
        return self.claims["iss"]  # type: ignore[no-any-return]

    @property
    def client_id(self) -> str | None:
        """The client that the token was issued to: `client_id` (RFC 9068), `azp`, `appid` or `cid`, the first there."""
        claims = self.claims
        return next(
            (claims[name] for name in ("client_id", "azp", "appid", "cid") if name in claims),
            None,
        )

    @property
    def identity(self) -> str:
        """Issuer and subject in one string, unique across issuers: an issuer holds no `#`."""
        return f"{self.issuer}#{self.subject if self.subject is not None else self.client_id}"

    @property
    def display_name(self) -> str:
        """A name for people: `name`, `preferred_username`, `email` or the subject, unless the settings name others.

        Never decide by it.
        """
        return self._mapping.name_of(self.claims) or self.subject or self.client_id or ""

    @property
    def scopes(self) -> frozenset[str]:
        """The granted scopes, and those that they imply (`expand_scopes`).

        Raises:
            Exception: whatever the `expand_scopes` of the settings raises, where that is a function.
        """
        scopes = self._scopes
        if scopes is None:
            claims = _decode(self._payload) if self._claims is None else self._claims
            scopes = self._scopes = self._mapping.scopes_of(claims)
        return scopes

    @property
    def roles(self) -> frozenset[str]:
        """The roles, from wherever the issuer has them; empty where it has none."""
        roles = self._roles
        if roles is None:
            roles = self._roles = self._mapping.roles_of(self.claims)
        return roles

    @property
    def groups(self) -> frozenset[str]:
        """The groups, from wherever the issuer has them; empty where it has none."""
        groups = self._groups
        if groups is None:
            groups = self._groups = self._mapping.groups_of(self.claims)
        return groups

    @property
    def tenant(self) -> str | None:
        """The tenant at the issuer, None where it has none."""
        return self._mapping.tenant_of(self.claims)

    @property
    def mapping(self) -> ClaimsMapping:
        """Where the issuer has scopes, roles, groups, tenant and a name for people."""
        return self._mapping

    def mapped(self, name: str) -> frozenset[str] | str | None:
        """Return what a rule means by `scopes`, `roles`, `groups` or `tenant`; None where it means the plain claim."""
        mapping = self._mapping
        if name == "scopes":
            return self.scopes
        if name == "roles" and mapping.roles != USUAL.roles:
            return self.roles
        if name == "groups" and mapping.groups != USUAL.groups:
            return self.groups
        if name == "tenant" and mapping.tenant is not None:
            return self.tenant or frozenset()  # a token that names none is not asked for a plain claim instead
        return None

    @property
    def token(self) -> str:
        """The token itself, for a call on the user's behalf. Never log it."""
        return self._token.decode("ascii")

    @property
    def expires_at(self) -> float:
        """`exp`: Unix time in seconds; infinity where the issuer was asked about the token and named no end."""
        return self.claims.get("exp", math.inf)  # type: ignore[no-any-return]

    @property
    def jti(self) -> str | None:
        """`jti`, the token's own name."""
        return self.claims.get("jti")

    @property
    def sid(self) -> str | None:
        """`sid`, the session at the issuer that the token belongs to."""
        return self.claims.get("sid")

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Principal) and self._payload == other._payload and self._token == other._token

    def __hash__(self) -> int:
        return hash(self._token)

    def __repr__(self) -> str:
        return f"Principal(identity={self.identity!r}, scopes={sorted(self.scopes)!r}, token='[REDACTED]')"

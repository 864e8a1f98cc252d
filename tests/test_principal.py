from __future__ import annotations

import copy
import json
import pickle
from collections.abc import Callable
from typing import Any

import pytest

from oidc_middleware import Principal
from oidc_middleware.core.known import Known
from oidc_middleware.core.principal import Claims

CLAIMS: dict[str, Any] = {
    "iss": "https://idp.example",
    "sub": "alice",
    "exp": 1795424065,
    "scope": "orders:read orders:write",
    "scp": ["extra"],
    "azp": "shop-web",
    "jti": "t-1",
    "sid": "s-1",
    "preferred_username": "al",
    "realm_access": {"roles": ["admin", "user"]},
}


def principal(**changes: Any) -> Principal:
    return Principal(
        json.dumps({k: v for k, v in (CLAIMS | changes).items() if v is not None}).encode(), b"abc.def.ghi"
    )


def test_says_who_it_is() -> None:
    alice = principal()
    assert alice.is_authenticated
    assert (alice.issuer, alice.subject, alice.client_id) == ("https://idp.example", "alice", "shop-web")
    assert alice.identity == "https://idp.example#alice"
    assert alice.display_name == "al"
    assert alice.scopes == {"orders:read", "orders:write", "extra"}
    assert (alice.expires_at, alice.jti, alice.sid, alice.token) == (1795424065, "t-1", "s-1", "abc.def.ghi")


def test_scopes_are_the_same_whether_claims_were_read_before_or_not() -> None:
    before, after = principal(), principal()
    assert before.claims["sub"] == "alice"
    assert before.scopes == after.scopes


def test_identities_of_two_issuers_never_collide() -> None:
    assert (
        principal(iss="https://a.example/x", sub="y").identity != principal(iss="https://a.example", sub="x#y").identity
    )


@pytest.mark.parametrize(
    ("changes", "name"),
    [
        ({"name": "Alice"}, "Alice"),
        ({"preferred_username": None, "email": "a@example.com"}, "a@example.com"),
        ({"preferred_username": None}, "alice"),
        ({"preferred_username": 7}, "alice"),
    ],
)
def test_display_name_is_the_best_there_is(changes: dict[str, Any], name: str) -> None:
    assert principal(**changes).display_name == name


def test_every_identity_is_authenticated_as_starlette_calls_it() -> None:
    """Starlette's own examples write `@requires("authenticated")`, which is no scope that an issuer grants."""
    known = Known(b"Bearer abc.def.ghi", 0.0, 0, 0, principal(), b"", 0.0, is_cached=False)
    assert known.scopes == ["extra", "orders:read", "orders:write"]
    assert "authenticated" in known.scopes
    assert "admin" not in known.scopes
    known.scopes.append("admin")
    assert "admin" not in known.scopes
    assert "abc.def.ghi" not in repr(known)


def test_never_prints_its_token() -> None:
    assert "abc.def.ghi" not in repr(principal())
    assert "abc.def.ghi" not in f"{principal()} {[principal()]}"


MUTATIONS: dict[str, Callable[[Any], object]] = {
    "C-mutable set": lambda claims: claims.__setitem__("sub", "admin"),
    "C-mutable delete": lambda claims: claims.__delitem__("sub"),
    "C-mutable update": lambda claims: claims.update(sub="admin"),
    "C-mutable merge": lambda claims: claims.__ior__({"sub": "admin"}),
    "C-mutable pop": lambda claims: claims.pop("sub"),
    "C-mutable popitem": lambda claims: claims.popitem(),
    "C-mutable clear": lambda claims: claims.clear(),
    "C-mutable setdefault": lambda claims: claims.setdefault("admin", True),
    "C-mutable nested": lambda claims: claims["realm_access"].__setitem__("roles", ["root"]),
}


@pytest.mark.parametrize("name", MUTATIONS)
def test_claims_cannot_be_changed(name: str) -> None:
    alice = principal()
    with pytest.raises(TypeError, match="claims cannot be changed"):
        MUTATIONS[name](alice.claims)
    assert alice.claims == principal().claims


def test_arrays_in_claims_are_tuples() -> None:
    assert principal().claims["realm_access"]["roles"] == ("admin", "user")


def test_claims_serialise_and_copy_as_a_dict() -> None:
    claims = principal().claims
    assert json.loads(json.dumps(claims)) == CLAIMS
    assert copy.deepcopy(claims) == copy.copy(claims) == claims
    restored = pickle.loads(pickle.dumps(claims))
    assert restored == claims
    assert type(restored["realm_access"]) is Claims


def test_properties_cannot_be_set() -> None:
    with pytest.raises(AttributeError):
        principal().subject = "admin"  # type: ignore[misc]
    with pytest.raises(AttributeError):
        principal().extra = 1  # type: ignore[attr-defined]

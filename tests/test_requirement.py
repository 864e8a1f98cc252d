"""What an identity must show, without a path: what rules, decorators and dependencies have in common."""

from __future__ import annotations

import copy
import pickle
from types import SimpleNamespace
from typing import Any

import pytest

from oidc_middleware.core.patterns import PolicyError
from oidc_middleware.core.requirement import Requirement
from oidc_middleware.errors import InsufficientScope


def identity(*scopes: str, **claims: object) -> Any:
    return SimpleNamespace(scopes=frozenset(scopes), claims=claims)


def test_who_has_everything_passes() -> None:
    requirement = Requirement(("a",), any_scopes=("b", "c"), claims={"org.id": 7}, audience="api")
    requirement.check(identity("a", "c", aud=["api"], org={"id": 7}), "here")


def test_the_error_names_the_place_what_is_missing_and_every_scope_of_the_operation_once() -> None:
    requirement = Requirement(("write", "read"), any_scopes=("admin", "write"))
    with pytest.raises(InsufficientScope) as raised:
        requirement.check(identity("read"), "endpoint create", ("orders", "read"))
    assert str(raised.value) == "insufficient_scope: endpoint create: scope write is missing"
    assert raised.value.scopes == ("orders", "read", "write", "admin")
    assert requirement.scopes_to_ask == ("write", "read", "admin")


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"scopes": "read"}, 'scopes is \'read\', not several texts. Write scopes=("read", "write").'),
        ({"any_scopes": ("a b",)}, 'any_scopes holds \'a b\'. Write any_scopes=("read", "write").'),
        ({"claims": {"roles": None}}, "claim 'roles' expects None, which no token can hold."),
        ({"audience": ""}, "audience '' is no audience. Name one, or leave it out."),
    ],
)
def test_what_cannot_work_is_refused_with_the_cure(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(PolicyError) as raised:
        Requirement(**fields)
    assert str(raised.value).startswith(f"requirement: {message}")


def test_it_is_a_value() -> None:
    requirement = Requirement(["b", "a"], any_scopes={"d", "c"}, claims={"roles": ["x"]})
    assert requirement == Requirement(("b", "a"), ("c", "d"), {"roles": "x"})
    assert requirement == copy.deepcopy(requirement) == pickle.loads(pickle.dumps(requirement))
    assert len({requirement, copy.deepcopy(requirement)}) == 1


@pytest.mark.parametrize("other", [1, 1.0, "true", [True, 1]])
def test_claims_of_another_type_are_another_requirement(other: Any) -> None:
    assert Requirement(claims={"admin": True}) != Requirement(claims={"admin": other})
    assert Requirement(claims={"admin": other}) == Requirement(claims={"admin": other})

"""What a rule asks of an identity."""

from __future__ import annotations

import copy
import math
import pickle
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from oidc_middleware.core.policy import Access, Decision, PolicyError, Rule, permit
from oidc_middleware.core.principal import freeze
from oidc_middleware.errors import InsufficientScope

KEYCLOAK = {
    "aud": ["account", "https://api.example.com"],
    "realm_access": {"roles": ["user", "auditor"]},
    "resource_access": {"my.client": {"roles": ["editor"]}, "my": {"client": {"roles": ["wrong"]}}},
    "https://example.com/roles": ["owner"],
    "https://example.com/tenant": {"id": 7, "paid": True},
    "level": 1,
    "ratio": 0.5,
    "group": "administrators",
    "groups": ["administrators", ["nested-admin"], {"name": "admin"}, "a,admin"],
    "nothing": None,
    "realm_access.level": "flat",
}


def permits(rule: Rule, *scopes: str, **claims: Any) -> bool:
    """Say whether the rule lets an identity with these scopes, and these claims beside Keycloak's, pass."""
    holder: Any = SimpleNamespace(scopes=frozenset(scopes), claims=freeze({**KEYCLOAK, **claims}))
    try:
        permit(Decision(Access.IDENTITY, (rule,), None, ""), holder)
    except InsufficientScope:
        return False
    return True


def test_a_rule_without_conditions_asks_for_an_identity_only() -> None:
    assert permits(Rule("/a"))


@pytest.mark.parametrize(
    ("granted", "expected"),
    [((), False), (("a",), False), (("a", "b"), True), (("a", "b", "c"), True), (("A", "b"), False), (("ab",), False)],
)
def test_all_scopes_are_needed(granted: tuple[str, ...], expected: bool) -> None:
    assert permits(Rule("/x", scopes=("a", "b")), *granted) is expected


@pytest.mark.parametrize(("granted", "expected"), [((), False), (("c",), False), (("b",), True), (("a", "b"), True)])
def test_one_of_any_scopes_is_needed(granted: tuple[str, ...], expected: bool) -> None:
    assert permits(Rule("/x", any_scopes=("a", "b")), *granted) is expected


def test_the_error_names_what_is_missing_and_every_scope_of_the_rule() -> None:
    rule = Rule("/x", scopes=("a", "b"), any_scopes=("c", "a"))
    holder: Any = SimpleNamespace(scopes=frozenset({"a"}), claims={})
    with pytest.raises(InsufficientScope) as raised:
        permit(Decision(Access.IDENTITY, (rule,), None, ""), holder)
    assert str(raised.value) == "insufficient_scope: rule /x: scope b is missing"
    assert raised.value.scopes == ("a", "b", "c")


@pytest.mark.parametrize(
    ("audience", "aud", "expected"),
    [
        ("https://api.example.com", "https://api.example.com", True),
        ("https://api.example.com", ["x", "https://api.example.com"], True),
        ("https://api.example.com", "https://api.example.com/", False),
        ("https://api.example.com", "https://api.example.com.evil", False),
        ("api", [["api"]], False),
        ("api", None, False),
    ],
)
def test_one_of_the_audiences_must_be_the_rules(audience: str, aud: Any, expected: bool) -> None:
    assert permits(Rule("/x", audience=audience), aud=aud) is expected


@pytest.mark.parametrize(
    ("path", "wanted", "expected"),
    [
        pytest.param("level", 1, True, id="number"),
        pytest.param("level", True, False, id="one-is-not-true"),
        pytest.param("level", "1", False, id="one-is-no-text"),
        pytest.param("level", 1.0, False, id="one-is-no-float"),
        pytest.param("ratio", 0.5, True, id="float"),
        pytest.param("realm_access.roles", "auditor", True, id="in-a-nested-list"),
        pytest.param("realm_access.roles", "audit", False, id="no-part-of-a-member"),
        pytest.param("realm_access.roles", ["x", "user"], True, id="any-of-a-list"),
        pytest.param("realm_access.roles", ("x", "y"), False, id="none-of-a-tuple"),
        pytest.param("realm_access.roles", {"user"}, True, id="any-of-a-set"),
        pytest.param("realm_access", "roles", False, id="an-object-holds-nothing"),
        pytest.param("realm_access.roles.0", "user", False, id="no-index"),
        pytest.param("realm_access.level", "flat", True, id="exact-name-first"),
        pytest.param("https://example.com/roles", "owner", True, id="name-with-dots"),
        pytest.param("https://example.com/tenant.id", 7, True, id="below-a-name-with-dots"),
        pytest.param("https://example.com/tenant.paid", True, True, id="boolean"),
        pytest.param("https://example.com/tenant.paid", 1, False, id="true-is-not-one"),
        pytest.param("resource_access.my.client.roles", "editor", True, id="nested-name-with-dots"),
        pytest.param("resource_access.my.client.roles", "wrong", False, id="longest-name-first"),
        pytest.param("group", "admin", False, id="F-groups-type-substring"),
        pytest.param("group", "administrators", True, id="F-groups-type-text"),
        pytest.param("groups", "nested-admin", False, id="F-groups-type-nested"),
        pytest.param("groups", "admin", False, id="F-groups-type-dict-and-comma"),
        pytest.param("groups", "a,admin", True, id="F-groups-type-exact"),
        pytest.param("nothing", "None", False, id="null"),
        pytest.param("missing", "x", False, id="missing"),
        pytest.param("missing.below", "x", False, id="missing-object"),
        pytest.param("level.below", "x", False, id="below-a-number"),
        pytest.param(".", "x", False, id="dot"),
        pytest.param("realm_access.", "x", False, id="nothing-after-the-dot"),
        pytest.param(".roles", "user", False, id="nothing-before-the-dot"),
    ],
)
def test_a_claim_must_be_or_hold_the_value(path: str, wanted: Any, expected: bool) -> None:
    assert permits(Rule("/x", claims={path: wanted})) is expected


def test_all_conditions_are_needed_together() -> None:
    rule = Rule(
        "/x", scopes=("a",), any_scopes=("b", "c"), audience="account", claims={"level": 1, "group": "administrators"}
    )
    assert permits(rule, "a", "c")
    assert not permits(rule, "a")
    assert not permits(rule, "b", "c")
    assert not permits(rule, "a", "c", level=2)
    assert not permits(rule, "a", "c", aud="other")


def test_ten_thousand_groups_are_members_like_two() -> None:
    groups = [f"g{number}" for number in range(10_000)]
    assert permits(Rule("/x", claims={"groups": "g9999"}), groups=groups)
    assert not permits(Rule("/x", claims={"groups": "g"}), groups=groups)


@pytest.mark.parametrize(
    "fields",
    [
        pytest.param({"path": "admin"}, id="path"),
        pytest.param({"path": ""}, id="P-empty-rule"),
        pytest.param({"path": "/a", "methods": "POST"}, id="methods-is-one-text"),
        pytest.param({"path": "/a", "methods": ("post",)}, id="method-in-lower-case"),
        pytest.param({"path": "/a", "methods": ("",)}, id="empty-method"),
        pytest.param({"path": "/a", "methods": (1,)}, id="method-is-a-number"),
        pytest.param({"path": "/a", "scopes": "admin"}, id="scopes-is-one-text"),
        pytest.param({"path": "/a", "scopes": ("read write",)}, id="scope-with-a-space"),
        pytest.param({"path": "/a", "scopes": ('a"b',)}, id="scope-with-a-quote"),
        pytest.param({"path": "/a", "scopes": ("",)}, id="empty-scope"),
        pytest.param({"path": "/a", "scopes": None}, id="scopes-is-none"),
        pytest.param({"path": "/a", "any_scopes": ("é",)}, id="scope-beyond-ascii"),
        pytest.param({"path": "/a", "claims": ["roles"]}, id="claims-is-a-list"),
        pytest.param({"path": "/a", "claims": {"": "x"}}, id="claim-without-name"),
        pytest.param({"path": "/a", "claims": {1: "x"}}, id="claim-name-is-a-number"),
        pytest.param({"path": "/a", "claims": {"roles": []}}, id="no-alternative"),
        pytest.param({"path": "/a", "claims": {"roles": None}}, id="nothing-expected"),
        pytest.param({"path": "/a", "claims": {"roles": {"a": "b"}}}, id="object-expected"),
        pytest.param({"path": "/a", "claims": {"roles": [["a"]]}}, id="list-in-a-list"),
        pytest.param({"path": "/a", "claims": {"level": math.nan}}, id="not-a-number"),
        pytest.param({"path": "/a", "audience": ""}, id="empty-audience"),
        pytest.param({"path": "/a", "audience": ["x"]}, id="audience-is-a-list"),
    ],
)
def test_a_rule_that_cannot_work_is_refused(fields: dict[str, Any]) -> None:
    with pytest.raises(PolicyError) as raised:
        Rule(**fields)
    assert raised.value.field == "rules"
    assert repr(fields["path"]) in raised.value.problem
    assert raised.value.cure


def test_a_rule_is_a_value() -> None:
    source = {"roles": ["a"]}
    rule = Rule("/a", methods=["GET"], scopes={"b", "a"}, claims=source)
    source["roles"].append("b")
    assert rule == Rule("/a", methods=("GET",), scopes=("a", "b"), claims={"roles": "a"})
    assert rule == copy.deepcopy(rule) == pickle.loads(pickle.dumps(rule))
    assert len({rule, copy.deepcopy(rule)}) == 1
    changeable: Any = rule
    with pytest.raises(AttributeError):
        changeable.scopes = ()
    with pytest.raises(TypeError):
        changeable.claims["roles"] = "b"


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["a", "b", "a.b"]), inner, max_size=3),
    max_leaves=8,
)


@given(
    st.dictionaries(st.sampled_from(["a", "b", "a.b", "a.b.c"]), json_values, max_size=4), st.text("ab.", min_size=1)
)
def test_any_claims_permit_or_refuse(claims: dict[str, Any], path: str) -> None:
    holder: Any = SimpleNamespace(scopes=frozenset(), claims=freeze(claims))
    assert Rule("/x", claims={path: "never there"}).unmet(holder) == f"claim {path}"

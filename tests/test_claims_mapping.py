"""Where an issuer has scopes, roles, groups and tenant; which scopes imply others; and that every check sees them."""

from __future__ import annotations

import gc
import json
from collections.abc import Iterable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.authentication import has_required_scope
from starlette.requests import HTTPConnection

from oidc_middleware import OIDC, Issuer, Principal, Rule, Settings
from oidc_middleware.core.claims_mapping import USUAL, ClaimsMapping
from oidc_middleware.core.scope_hierarchy import ScopeHierarchy, expanded
from oidc_middleware.errors import ConfigError
from oidc_middleware.testing import FakeIssuer, ManualClock

from abuse.door import Door
from abuse.signing import NOW, Signer

KEYCLOAK = ClaimsMapping(
    roles=("realm_access.roles", "resource_access.my.client.roles"), groups=("groups",), tenant="org.id", name=("nick",)
)


@pytest.fixture(scope="module")
def signer() -> Signer:
    return Signer()


def principal(mapping: ClaimsMapping, **claims: Any) -> Principal:
    payload = json.dumps({"iss": "https://idp.example", "sub": "alice"} | claims).encode()
    return Principal(payload, b"abc.def.ghi", mapping)


# One principal


def test_everything_is_where_the_mapping_says() -> None:
    alice = principal(
        KEYCLOAK,
        scope="openid orders:read",
        realm_access={"roles": ["admin", "user"]},
        resource_access={"my.client": {"roles": ["editor"]}, "other": {"roles": ["root"]}},
        groups=["/staff"],
        org={"id": "t-1"},
        nick="al",
        name="Alice",
    )
    assert alice.scopes == {"openid", "orders:read"}
    assert alice.roles == {"admin", "user", "editor"}
    assert alice.groups == {"/staff"}
    assert (alice.tenant, alice.display_name) == ("t-1", "al")


def test_without_a_mapping_they_are_where_rfc_9068_has_them() -> None:
    alice = principal(USUAL, scope="a b", scp=["c"], roles=["admin"], groups="staff", tid="t-1")
    assert alice.scopes == {"a", "b", "c"}
    assert [*alice.roles, *alice.groups] == ["admin", "staff"]
    assert alice.tenant is None


def test_what_is_not_there_is_empty() -> None:
    alice = principal(KEYCLOAK)
    assert (alice.scopes, alice.roles, alice.groups, alice.tenant) == (frozenset(), frozenset(), frozenset(), None)
    assert alice.display_name == "alice"


def test_a_text_is_one_role_and_several_scopes() -> None:
    mapping = ClaimsMapping(scopes=("permissions",), roles=("job",))
    alice = principal(mapping, permissions="read write", job="head of sales", scope="admin")
    assert alice.scopes == {"read", "write"}
    assert alice.roles == {"head of sales"}


@pytest.mark.parametrize("wrong", [7, True, None, 1.5, {"admin": 1}, ["admin", 1], [["admin"]], "", [], [""]])
def test_a_claim_of_a_wrong_type_grants_nothing(wrong: Any) -> None:
    mapping = ClaimsMapping(scopes=("x",), roles=("x",), groups=("x",), tenant="x", name=("x",))
    alice = principal(mapping, x=wrong)
    assert (alice.scopes, alice.roles, alice.groups, alice.tenant) == (frozenset(), frozenset(), frozenset(), None)
    assert alice.display_name == "alice"


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-9, 9)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("abc."), inner, max_size=3),
    max_leaves=6,
)
PATHS = st.text("abc.", min_size=1, max_size=5)


@given(
    claims=st.dictionaries(st.sampled_from(["a", "b", "c", "a.b", "scope"]), JSON, max_size=4),
    paths=st.lists(PATHS, max_size=3).map(tuple),
    one=PATHS,
)
def test_any_claims_give_sets_of_texts(claims: dict[str, Any], paths: tuple[str, ...], one: str) -> None:
    mapping = ClaimsMapping(scopes=paths, roles=paths, groups=paths, tenant=one, name=paths)
    alice = principal(mapping, **claims)
    for found in (alice.scopes, alice.roles, alice.groups):
        assert type(found) is frozenset
        assert "" not in found
        assert {type(item) for item in found} <= {str}
    assert alice.tenant != ""
    assert type(alice.tenant) in {str, type(None)}
    assert type(alice.display_name) is str


def test_the_mapping_costs_the_garbage_collector_nothing() -> None:
    """The token cache holds a million records; what it walks must not grow with them."""
    assert not gc.is_tracked(KEYCLOAK)
    record = (1.0, 0, 0, bytes(3), b"", 1.0, ClaimsMapping(expand=ScopeHierarchy({"a": ["b"]})))
    gc.collect()
    assert not gc.is_tracked(record)


# Scopes that imply others


def test_what_is_implied_is_implied_by_what_implies_that() -> None:
    hierarchy = ScopeHierarchy({"admin": ["write"], "write": ["read", "list"], "read": ["admin"]})
    assert hierarchy(frozenset({"admin"})) == {"admin", "write", "read", "list"}
    assert hierarchy(frozenset({"list", "other"})) == {"list", "other"}


@given(table=st.dictionaries(st.sampled_from("abcdef"), st.lists(st.sampled_from("abcdefg"), max_size=4), max_size=6))
def test_a_hierarchy_is_closed(table: dict[str, list[str]]) -> None:
    hierarchy = ScopeHierarchy(table)
    for scope in "abcdefg":
        reached = hierarchy(frozenset({scope}))
        assert scope in reached
        assert all(other in reached for each in reached for other in table.get(each, ()))
        assert hierarchy(reached) == reached


def test_a_deep_hierarchy_is_fine() -> None:
    steps = {f"s{number}": [f"s{number + 1}"] for number in range(3000)}
    assert len(ScopeHierarchy(steps)(frozenset({"s2990"}))) == 11


def test_a_function_adds_scopes_and_takes_none_away() -> None:
    calls: list[frozenset[str]] = []

    def families(granted: frozenset[str]) -> Iterable[str]:
        calls.append(granted)
        return [scope.partition(":")[0] for scope in granted]

    alice = principal(ClaimsMapping(expand=families), scope="orders:read users:read")
    assert alice.scopes == alice.scopes == {"orders:read", "users:read", "orders", "users"}
    assert calls == [{"orders:read", "users:read"}]


@pytest.mark.parametrize("wrong", ["admin", [1], [None]])
def test_a_function_that_returns_no_texts_is_a_mistake(wrong: Any) -> None:
    with pytest.raises(TypeError, match="not several texts"):
        expanded(frozenset({"a"}), lambda _: wrong)


# The whole door

MAPPED: dict[str, Any] = {
    "scope_claims": ["permissions", "scope"],
    "role_claims": "realm_access.roles",
    "group_claims": ["cognito:groups"],
    "tenant_claim": "tid",
    "expand_scopes": {"admin": ["orders:write"], "orders:write": ["orders:read"]},
}


@pytest.mark.anyio
async def test_every_check_sees_what_is_mapped_and_implied(signer: Signer) -> None:
    rules = [
        Rule("/write", scopes=("orders:write", "orders:read")),
        Rule("/any", any_scopes=("orders:read",)),
        Rule("/staff", claims={"roles": "staff", "groups": ["a", "b"], "tenant": "t-1", "scopes": "orders:read"}),
        Rule("/boss", claims={"roles": "boss"}),
        Rule("/other", claims={"tenant": "t-2"}),
    ]
    door = Door(signer.jwks(), rules=rules, **MAPPED)
    claims = {
        "scope": "openid",
        "permissions": ["admin"],
        "realm_access": {"roles": ["staff"]},
        "cognito:groups": ["b"],
        "tid": "t-1",
        "roles": ["boss"],  # not where this issuer has roles
    }
    token = signer.token(claims=claims)
    for path, status in {"/write": 200, "/any": 200, "/staff": 200, "/boss": 403, "/other": 403}.items():
        assert (await door.ask(path, token=token)).status == status
    seen = (await door.ask("/", token=token)).seen
    assert seen is not None
    assert seen["user"].scopes == {"openid", "admin", "orders:write", "orders:read"}
    assert seen["auth"].scopes == ["admin", "openid", "orders:read", "orders:write"]
    assert has_required_scope(HTTPConnection(dict(seen)), ["orders:read", "admin"])
    assert not has_required_scope(HTTPConnection(dict(seen)), ["orders:delete"])


@pytest.mark.anyio
async def test_each_issuer_has_its_own_mapping_in_every_tier_of_known_tokens() -> None:
    clock = ManualClock(NOW)
    one, two = (FakeIssuer(f"https://{name}.example", clock=clock) for name in ("one", "two"))
    issuers = [
        Issuer(issuer=one.url, audience=one.audience, role_claims="a"),
        Issuer(issuer=two.url, audience=two.audience, role_claims="b"),
    ]
    door = Door(b"", transport=one.transport(two), clock=clock, issuers=issuers)
    tokens = [
        (issuer.token(f"u{n}", claims={"a": "of a", "b": "of b"}), role)
        for n in range(520)
        for issuer, role in ((one, "of a"), (two, "of b"))
    ]
    for _ in range(2):  # the hot set holds fewer
        for token, role in tokens:
            seen = (await door.ask(token=token)).seen
            assert seen is not None
            assert seen["user"].roles == {role}


@pytest.mark.anyio
async def test_a_function_that_fails_lets_nobody_in(signer: Signer) -> None:
    def broken(_: frozenset[str]) -> Iterable[str]:
        raise LookupError("no table")

    door = Door(signer.jwks(), rules=[Rule("/x", scopes=("a",))], expand_scopes=broken)
    with pytest.raises(LookupError, match="no table"):
        await door.ask("/x", token=signer.token(claims={"scope": "a"}))
    assert door.calls == 0


# Settings


def build(**keywords: Any) -> Settings:
    return Settings(**{"issuer": "https://idp.example", "audience": "a", **keywords})


@pytest.mark.parametrize(
    ("keywords", "problem"),
    [
        ({"role_claims": "a..b"}, "nothing between two dots"),
        ({"role_claims": [""]}, "is empty"),
        ({"role_claims": 7}, "must be a list"),
        ({"scope_claims": [7]}, "must be text"),
        ({"group_claims": "x" * 300}, "longer than 256"),
        ({"tenant_claim": ["tid"]}, "must be text"),
        ({"expand_scopes": "admin"}, "must be a table or a function"),
        ({"expand_scopes": {"two words": ["a"]}}, "is not one scope"),
        ({"expand_scopes": {"a": [7]}}, "must be text"),
        ({"expand_scopes": {"a": 7}}, "must be a list"),
    ],
)
def test_what_cannot_work_is_refused(keywords: dict[str, Any], problem: str) -> None:
    with pytest.raises(ConfigError, match=problem) as refused:
        build(**keywords)
    assert refused.value.field in keywords
    assert refused.value.cure


def test_a_hook_that_has_to_be_awaited_is_refused() -> None:
    async def later(granted: frozenset[str]) -> frozenset[str]:
        return granted

    with pytest.raises(ConfigError, match="must not be asynchronous"):
        build(expand_scopes=later)


def test_variables_hold_mappings_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OIDC_ROLE_CLAIMS", "realm_access.roles, roles")
    monkeypatch.setenv("OIDC_TENANT_CLAIM", "tid")
    monkeypatch.setenv("OIDC_EXPAND_SCOPES", '{"admin": ["read", "write"], "write": "read"}')
    settings = build()
    assert settings.role_claims == ("realm_access.roles", "roles")
    assert settings.trusted[0].tenant_claim == "tid"
    assert settings.expand_scopes == ScopeHierarchy({"admin": ["read", "write"], "write": ["read"]})
    assert settings.model_copy(update={"leeway": 1}).expand_scopes == settings.expand_scopes


def test_no_claims_at_all_may_hold_scopes() -> None:
    oidc = OIDC(build(scope_claims=[]))
    assert oidc.issuers["https://idp.example"].mapping.scopes_of({"scope": "a"}) == frozenset()

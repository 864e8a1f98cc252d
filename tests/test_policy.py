"""What a request needs: public, optional, rules, our endpoints, and everything else."""

from __future__ import annotations

import re
from pathlib import PurePosixPath
from types import SimpleNamespace
from typing import Any, Literal
from urllib.parse import quote, unquote

import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.routing import BaseRoute, Match, Mount, Route
from starlette.types import Receive, Scope, Send

from oidc_middleware.core.paths import classify
from oidc_middleware.core.policy import Access, Decision, Policy, PolicyError, Rule, is_preflight, permit
from oidc_middleware.errors import InsufficientScope

ADMIN = Rule("/admin/*", scopes=("admin",))
USER = Rule("/users/{id}", methods=("GET",), scopes=("read",))
EDIT = Rule("/users/{id}", methods=("PUT", "DELETE"), scopes=("write",), any_scopes=("staff", "read"))
POLICY = Policy(
    public=["/health", "/docs/*", "/{$}"],
    optional=["/feed", "/posts/{id}/comments"],
    rules=[ADMIN, USER, EDIT],
    endpoints={"health": None, "userinfo": (), "status": ("ops",)},
)
PROTECTING = Policy(public=["/health", "/docs/*"], rules=[ADMIN, USER, EDIT], ambiguous_paths="protect")


async def _app(scope: Scope, receive: Receive, send: Send) -> None:
    """Serve nothing: routes are only asked whether they match."""


def identity(*scopes: str, **claims: object) -> Any:
    return SimpleNamespace(scopes=frozenset(scopes), claims=claims)


def decide(method: str, raw: str, root_path: str = "", policy: Policy = POLICY) -> Decision:
    """Decide for a request target, as servers pass it on."""
    return policy.decide(method, unquote(raw), raw.encode(), root_path)


@pytest.mark.parametrize("path", ["/health", "/docs", "/docs/", "/docs/x", "/docs/x/y", "/", "/%68ealth"])
@pytest.mark.parametrize("method", ["GET", "POST", "OPTIONS", "BREW"])
def test_public_paths_are_public_for_every_method(path: str, method: str) -> None:
    assert decide(method, path).access is Access.PUBLIC


@pytest.mark.parametrize(
    "path",
    [
        pytest.param("/healthadmin", id="P-prefix"),
        pytest.param("/health-internal", id="P-prefix-dash"),
        pytest.param("/health/x", id="P-prefix-below"),
        pytest.param("/health/", id="P-trail"),
        pytest.param("/Health", id="case"),
        pytest.param("/docsx", id="P-prefix-wildcard"),
        pytest.param("/h%C3%A9alth", id="P-unicode"),
        pytest.param("/health%EF%BC%8Fadmin", id="P-unicode-full-width"),
        pytest.param("/health%20", id="space"),
        pytest.param("/x/health", id="suffix"),
        pytest.param("/posts//comments", id="name-is-not-empty"),
        pytest.param("/unknown", id="deny-by-default"),
    ],
)
def test_nothing_else_is(path: str) -> None:
    assert decide("GET", path).access in {Access.IDENTITY, Access.REFUSED}


def test_optional_paths() -> None:
    assert decide("GET", "/feed") == Decision(Access.OPTIONAL, (), None, "optional /feed")
    assert decide("GET", "/posts/7/comments").access is Access.OPTIONAL
    assert decide("GET", "/posts/7/comments/").access is Access.IDENTITY


@pytest.mark.parametrize(
    ("method", "path", "rules"),
    [
        pytest.param("GET", "/admin", (ADMIN,), id="wildcard-itself"),
        pytest.param("GET", "/admin/", (ADMIN,), id="wildcard-slash"),
        pytest.param("PATCH", "/admin/a/b", (ADMIN,), id="wildcard-below"),
        pytest.param("GET", "/%61dmin", (ADMIN,), id="P-pct-letter"),
        pytest.param("GET", "/adminx", (), id="not-at-a-boundary"),
        pytest.param("GET", "/users/7", (USER,), id="name"),
        pytest.param("GET", "/users/7/", (USER,), id="P-trail-closed-too"),
        pytest.param("HEAD", "/users/7", (USER,), id="HEAD-is-GET"),
        pytest.param("PUT", "/users/7", (EDIT,), id="next-rule-by-method"),
        pytest.param("put", "/users/7", (EDIT,), id="method-in-another-case"),
        pytest.param("POST", "/users/7", (), id="no-rule-for-the-method"),
        pytest.param("GET", "/users/7/x", (), id="one-segment-only"),
        pytest.param("GET", "/users", (), id="name-is-needed"),
        pytest.param("GET", "/users/", (), id="name-is-not-empty"),
    ],
)
def test_the_first_rule_that_speaks_of_the_request_counts(method: str, path: str, rules: tuple[Rule, ...]) -> None:
    decision = decide(method, path)
    assert (decision.access, decision.rules, decision.endpoint) == (Access.IDENTITY, rules, None)


def test_an_earlier_rule_wins() -> None:
    open_part, rest = Rule("/admin/motd"), Rule("/admin/*", scopes=("admin",))
    assert decide("GET", "/admin/motd", policy=Policy(rules=[open_part, rest])).rules == (open_part,)
    assert decide("GET", "/admin/motd", policy=Policy(rules=[rest, open_part])).rules == (rest,)


def test_a_rule_for_everything_covers_the_root_and_our_unknown_endpoints() -> None:
    everything = Rule("/*", scopes=("api",))
    policy = Policy(rules=[everything], endpoints={"health": None})
    for path in ("/", "/x", "/oauth2", "/oauth2/status", "/oauth2/health/"):
        assert decide("GET", path, policy=policy).rules == (everything,)
    assert decide("GET", "/api", "/api", policy=policy).rules == (everything,)
    assert decide("GET", "/oauth2/health", policy=policy).endpoint == "health"


@pytest.mark.parametrize("path", ["/", "/{$}"])
def test_a_rule_for_the_root_covers_nothing_else(path: str) -> None:
    rule = Rule(path, scopes=("home",))
    assert decide("GET", "/", policy=Policy(rules=[rule])).rules == (rule,)
    assert decide("GET", "/api", "/api", policy=Policy(rules=[rule])).rules == (rule,)
    assert decide("GET", "/x", policy=Policy(rules=[rule])).rules == ()


def test_only_exact_enabled_endpoints_are_ours() -> None:
    assert decide("GET", "/oauth2/health") == Decision(Access.PUBLIC, (), "health", "endpoint health")
    assert decide("POST", "/oauth2/userinfo") == Decision(Access.IDENTITY, (), "userinfo", "endpoint userinfo")
    status = decide("GET", "/oauth2/status")
    assert (status.access, status.endpoint, status.scopes) == (Access.IDENTITY, "status", ("ops",))
    with pytest.raises(InsufficientScope):
        permit(status, identity("read"))
    for path in ("/oauth2/health/", "/oauth2/Health", "/oauth2/revoke", "/oauth2", "/oauth2/", "/oauth2/health/x"):
        assert decide("GET", path).endpoint is None
    assert decide("GET", "/oauth2%2fhealth").access is Access.REFUSED
    assert decide("GET", "/-/health", policy=Policy(prefix="/-", endpoints={"health": None})).endpoint == "health"


def test_paths_are_relative_to_root_path() -> None:
    assert decide("GET", "/api/health", "/api").access is Access.PUBLIC
    assert decide("GET", "/api", "/api").access is Access.PUBLIC  # the front page
    assert decide("GET", "/api/admin/x", "/api").rules == (ADMIN,)
    assert decide("GET", "/apihealth", "/api").access is Access.IDENTITY
    assert decide("GET", "/api/oauth2/health", "/api").endpoint == "health"


HOSTILE = [
    pytest.param("/health/../admin", id="dotdot"),
    pytest.param("/health/%2e%2e/admin", id="P-pct-dotdot"),
    pytest.param("/health%2f..%2fadmin", id="P-pct-slash"),
    pytest.param("/health;/../admin", id="P-semicolon"),
    pytest.param("/health;jsessionid=1/../admin", id="P-jsession"),
    pytest.param("//health/../admin", id="P-dblslash"),
    pytest.param("/health\\..\\admin", id="P-backslash"),
    pytest.param("/admin%00/health", id="P-nul"),
    pytest.param("/health%0a", id="P-nl"),
    pytest.param("/admin%0a/health", id="P-nl-inside"),
    pytest.param("/%c0%ae%c0%ae/admin", id="P-overlong"),
    pytest.param("/admin#/health", id="P-fragment"),
    pytest.param("/admin%23/health", id="P-pct-frag"),
    pytest.param("/admin%3f/health", id="P-pct-q"),
    pytest.param("*", id="P-asterisk"),
    pytest.param("health", id="P-noslash"),
    pytest.param("http://evil.example/health", id="absolute-form"),
]
AMBIGUOUS = [
    pytest.param("//admin", id="P-dblslash-alone"),
    pytest.param("//health", id="P-dblslash-public"),
    pytest.param("/health//", id="P-trail-two"),
    pytest.param("/admin;x=/health", id="P-matrix"),
    pytest.param("/health;x", id="P-matrix-public"),
    pytest.param("/docs%2fadmin", id="encoded-slash"),
    pytest.param("/docs/%252e%252e/admin", id="encoded-twice"),
]


@pytest.mark.parametrize("policy", [POLICY, PROTECTING], ids=["refuse", "protect"])
@pytest.mark.parametrize("path", HOSTILE)
def test_bad_paths_are_refused_always(path: str, policy: Policy) -> None:
    decision = decide("GET", path, policy=policy)
    assert (decision.access, decision.rules) == (Access.REFUSED, ())
    assert decision.reason.startswith("path: ")


@pytest.mark.parametrize("path", AMBIGUOUS)
def test_ambiguous_paths_are_refused_by_default(path: str) -> None:
    decision = decide("GET", path)
    assert decision.access is Access.REFUSED
    assert decision.reason.startswith("ambiguous path: ")


@pytest.mark.parametrize("path", AMBIGUOUS)
def test_protect_lets_ambiguous_paths_to_who_satisfies_every_rule(path: str) -> None:
    decision = decide("GET", path, policy=PROTECTING)
    assert (decision.access, decision.rules, decision.ambiguous) == (Access.IDENTITY, (ADMIN, USER, EDIT), True)
    permit(decision, identity("admin", "read", "write", "staff"))
    for scopes in (("admin", "read", "staff"), ("admin",), ()):
        with pytest.raises(InsufficientScope) as raised:
            permit(decision, identity(*scopes))
        assert raised.value.scopes == ("admin", "read", "write", "staff")


@given(
    st.lists(
        st.sampled_from(
            ["/", "health", "docs", "admin", ".", "..", "%2e", "%2f", "%5c", "%25", ";", "#", "?", "\\", "é"]
        ),
        max_size=8,
    ).map("".join)
)
def test_no_spelling_of_another_path_is_public(raw: str) -> None:
    """Whoever decodes twice, drops parameters and resolves dots still finds a public path."""
    path = unquote(raw)
    for policy in (POLICY, PROTECTING):
        if policy.decide("GET", path, raw.encode()).access is Access.PUBLIC:
            resolved = re.sub(r";[^/]*", "", unquote(path))
            assert ".." not in resolved.split("/")
            assert resolved in {"/", "/health"} or PurePosixPath(resolved).parts[:2] == ("/", "docs")


@pytest.mark.parametrize(
    ("route", "rule"),
    [
        (Route("/admin", str), Rule("/admin")),
        (Route("/users/{id}", str), Rule("/users/{id}")),
        (Mount("/admin", _app), Rule("/admin/*")),
        (Route("/files/{path:path}", str), Rule("/files/*")),
        (Route("/", str), Rule("/")),
    ],
    ids=["route", "parameter", "mount", "path", "root"],
)
@given(
    parts=st.lists(
        st.sampled_from(["/", "admin", "users", "files", ".", "..", "\n", ";", "é", "\\", "//", "%41"])
        | st.text(max_size=2),
        max_size=6,
    ),
    below=st.booleans(),
)
def test_what_starlette_routes_to_a_ruled_endpoint_is_ruled(
    route: BaseRoute,
    rule: Rule,
    parts: list[str],
    below: bool,
) -> None:
    root_path = "/root" if below else ""
    path = root_path + "".join(parts)
    scope = {"type": "http", "method": "GET", "path": path, "root_path": root_path, "headers": []}
    if route.matches(scope)[0] is not Match.NONE:
        decision = Policy(rules=[rule]).decide("GET", path, quote(path, errors="replace").encode(), root_path)
        assert decision.access is Access.REFUSED or decision.rules == (rule,)


@pytest.mark.parametrize("access", ["public", "optional"])
@pytest.mark.parametrize(
    "path",
    [
        pytest.param("", id="K-wild-exclude-empty"),
        pytest.param("/", id="K-wild-exclude-slash"),
        pytest.param("/*", id="K-wild-exclude-everything"),
        pytest.param("*", id="K-wild-exclude-star"),
        pytest.param("/{any}", id="K-wild-exclude-name"),
        pytest.param("/{any}/*", id="K-wild-exclude-name-star"),
        pytest.param(None, id="P-empty-rule-none"),
        pytest.param(".*", id="P-empty-rule-regex"),
        pytest.param("^(/a+)+$", id="P-regex-redos"),
        pytest.param("/health.*", id="regex"),
        pytest.param("health", id="no-slash"),
        pytest.param("/docs*", id="star-in-a-segment"),
        pytest.param("/docs/*/x", id="star-in-the-middle"),
        pytest.param("/docs/**", id="two-stars"),
        pytest.param("/x/{id:int}", id="convertor"),
        pytest.param("/x/{}", id="name-without-name"),
        pytest.param("/x/a{id}", id="part-of-a-segment"),
        pytest.param("/x/{$}", id="end-mark-below-the-root"),
        pytest.param("/a//b", id="empty-segment"),
        pytest.param("/a/../b", id="dot-segment"),
        pytest.param("/a%20b", id="encoded"),
        pytest.param("/a;b", id="parameter"),
        pytest.param("/a?b", id="query"),
        pytest.param("/a\nb", id="newline"),
        pytest.param("/a ", id="space-at-the-end"),
        pytest.param(" /a", id="space-at-the-start"),
        pytest.param("https://api.example.com/a", id="url"),
    ],
)
def test_paths_that_open_everything_or_never_match_are_refused_at_start(access: str, path: Any) -> None:
    lists: dict[str, Any] = {access: [path]}
    with pytest.raises(PolicyError) as raised:
        Policy(**lists)
    assert raised.value.field == access
    assert raised.value.cure


@pytest.mark.parametrize("paths", ["/health", None, 7, b"/docs"])
def test_a_list_of_paths_is_a_list(paths: Any) -> None:
    with pytest.raises(PolicyError, match=r"^public: "):
        Policy(public=paths)


@pytest.mark.parametrize(
    ("lists", "field"),
    [
        pytest.param({"public": ["/a"], "optional": ["/a"]}, "public", id="public-optional"),
        pytest.param({"public": ["/a/*"], "rules": [Rule("/a")]}, "public", id="wildcard-itself"),
        pytest.param({"public": ["/a/*"], "rules": [Rule("/{x}/b")]}, "public", id="wildcard-name"),
        pytest.param({"public": ["/a/b"], "rules": [Rule("/*")]}, "public", id="rule-for-everything"),
        pytest.param({"public": ["/a/"], "rules": [Rule("/a")]}, "public", id="rule-covers-the-slash"),
        pytest.param(
            {"public": ["/a"], "rules": [Rule("/a/", methods=("POST",))]}, "public", id="methods-do-not-matter"
        ),
        pytest.param({"optional": ["/{x}/a"], "rules": [Rule("/b/{y}")]}, "optional", id="names-cross"),
        pytest.param({"public": ["/{$}"], "rules": [Rule("/")]}, "public", id="root"),
        pytest.param({"public": ["/oauth2/*"], "endpoints": {"health": None}}, "public", id="our-endpoints"),
        pytest.param(
            {"rules": [Rule("/oauth2/health")], "endpoints": {"health": None}}, "rules", id="rule-for-an-endpoint"
        ),
    ],
)
def test_no_path_is_in_two_lists(lists: dict[str, Any], field: str) -> None:
    with pytest.raises(PolicyError) as raised:
        Policy(**lists)
    assert raised.value.field == field


def test_an_overlap_is_told_with_both_names() -> None:
    with pytest.raises(PolicyError) as raised:
        Policy(public=["/a/*"], rules=[Rule("/{tenant}/b", scopes=("x",))])
    assert str(raised.value) == (
        "public: '/a/*' and '/{tenant}/b' of rules match the same paths. "
        "Make them disjoint: no path may be in two lists."
    )


def test_lists_that_only_touch_are_fine() -> None:
    Policy(
        public=["/a", "/docs/*", "/x/{id}/y"],
        optional=["/a/b", "/docsx"],
        rules=[Rule("/b"), Rule("/x/{id}"), Rule("/x/{id}/y/z")],
        endpoints={"health": None},
    )


@pytest.mark.parametrize("prefix", ["", "/", "oauth2", "/oauth2/", "/a//b", "/{x}", "/x/*", None])
def test_a_prefix_is_a_plain_path(prefix: Any) -> None:
    with pytest.raises(PolicyError, match=r"^prefix: "):
        Policy(prefix=prefix)


def test_other_arguments_are_checked_too() -> None:
    mode: Any = "allow"
    rules: Any = [{"path": "/a"}]
    with pytest.raises(PolicyError, match=r"^ambiguous_paths: "):
        Policy(ambiguous_paths=mode)
    with pytest.raises(PolicyError, match=r"^rules: not a list of rules"):
        Policy(rules=rules)


def test_rules_that_are_never_asked_are_known() -> None:
    everything, admin = Rule("/*", methods=("GET", "POST")), Rule("/admin/*", methods=("HEAD",), scopes=("x",))
    put, slash, same = Rule("/admin", methods=("PUT",)), Rule("/b/{id}/"), Rule("/b/{name}")
    policy = Policy(rules=[everything, admin, put, slash, same, Rule("/b/c")])
    assert policy.unreachable == ((admin, everything), (same, slash), (Rule("/b/c"), slash), (Rule("/b/c"), same))
    assert Policy(rules=[Rule("/a", methods=("GET",)), Rule("/a")]).unreachable == ()


ORIGIN, ASKS = (b"origin", b"https://app.example"), (b"access-control-request-method", b"GET")


@pytest.mark.parametrize(
    ("method", "headers", "expected"),
    [
        pytest.param("OPTIONS", [ORIGIN, ASKS], True, id="P-options"),
        pytest.param("OPTIONS", [ORIGIN], False, id="P-options-without-request-method"),
        pytest.param("OPTIONS", [ASKS], False, id="P-options-without-origin"),
        pytest.param("OPTIONS", [], False, id="P-options-plain"),
        pytest.param("OPTIONS", [ORIGIN, (ASKS[0], b"")], False, id="empty-request-method"),
        pytest.param("options", [ORIGIN, ASKS], False, id="another-case"),
        pytest.param("POST", [ORIGIN, ASKS, (b"x-http-method-override", b"OPTIONS")], False, id="P-method-override"),
    ],
)
def test_only_true_preflights_are(method: str, headers: list[tuple[bytes, bytes]], expected: bool) -> None:
    assert is_preflight(method, headers) is expected


@given(
    st.text(max_size=30),
    st.none() | st.binary(max_size=30),
    st.text(max_size=6),
    st.sampled_from(["", "/api", "//", "x"]),
    st.sampled_from(["refuse", "protect"]),
)
def test_any_request_gets_a_decision(
    path: str, raw: bytes | None, method: str, root_path: str, mode: Literal["refuse", "protect"]
) -> None:
    decision = Policy(public=["/health"], rules=[ADMIN], ambiguous_paths=mode).decide(method, path, raw, root_path)
    if classify(path, raw).kind == "bad":
        assert decision.access is Access.REFUSED
    assert decision.access is not Access.PUBLIC or path == root_path + "/health"

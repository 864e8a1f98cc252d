"""The identity headers that apps behind the proxy and behind forward auth get: exact values, and properties of them."""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import unquote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from oidc_middleware.core.claims_mapping import ClaimsMapping
from oidc_middleware.core.identity_headers import IDENTITY_HEADERS, folded
from oidc_middleware.core.identity_values import LONGEST, encoded, encoded_list, identity_headers
from oidc_middleware.core.principal import Principal

ISSUER = "https://login.example.com"


def headers(mapping: ClaimsMapping | None = None, token: str | None = None, /, **claims: Any) -> dict[str, str]:
    """Return the headers of the first family, and see that the second says the same."""
    payload = json.dumps({"iss": ISSUER, "sub": "alice", **claims}).encode()
    found = identity_headers(Principal(payload, b"token", mapping or ClaimsMapping()), token)
    assert {name for name, _ in found} <= IDENTITY_HEADERS, "a client could send what we do not remove"
    forwarded, auth_request = (
        {name.removeprefix(family): value for name, value in found if name.startswith(family)}
        for family in (b"x-forwarded-", b"x-auth-request-")
    )
    assert forwarded == auth_request
    assert len(found) == 2 * len(forwarded)
    return {name.decode(): value.decode("ascii") for name, value in forwarded.items()}


def test_what_a_usual_token_says() -> None:
    assert headers(
        None, "a.b-c", email="a@example.com", email_verified=True, preferred_username="al", groups=["staff", "Ad min"]
    ) == {
        "user": "alice",
        "issuer": ISSUER,
        "email": "a@example.com",
        "preferred-username": "al",
        "groups": "Ad min,staff",
        "access-token": "a.b-c",
    }
    assert headers() == {"user": "alice", "issuer": ISSUER}


def test_a_client_without_a_subject_is_the_user() -> None:
    assert headers(sub=None, client_id="robot")["user"] == "robot"


@pytest.mark.parametrize(
    ("claim", "value"),
    [
        pytest.param("a\r\nX-Admin: 1", "a%0D%0AX-Admin: 1", id="F-crlf-claim"),
        pytest.param("a\0b", "a%00b", id="F-nul-claim"),
        pytest.param("José 李", "Jos%C3%A9 %E6%9D%8E", id="F-unicode-claim"),
        pytest.param("Jose\u0301", "Jose%CC%81", id="F-unicode-confusable: NFD stays what it is"),
        pytest.param("admin\u200b", "admin%E2%80%8B", id="F-unicode-confusable: zero width"),
        pytest.param("admin, bob", "admin%2C bob", id="F-comma"),
        pytest.param("50%", "50%25", id="percent"),
        pytest.param(" admin  ", "%20admin%20%20", id="spaces at the ends"),
        pytest.param("\ttab\x7f", "%09tab%7F", id="controls"),
        pytest.param("auth0|5f", "auth0|5f", id="left as it is"),
    ],
)
def test_a_claim_becomes_one_value(claim: str, value: str) -> None:
    assert headers(preferred_username=claim)["preferred-username"] == value
    assert headers(sub=claim)["user"] == value


@pytest.mark.parametrize("verified", [False, "true", 1, None, [True]])
def test_an_address_that_is_not_verified_is_not_sent(verified: object) -> None:
    """F-email-unverified."""
    assert "email" not in headers(email="admin@example.com", email_verified=verified)
    assert "email" not in headers(email="admin@example.com")


@pytest.mark.parametrize(
    "email",
    ["attacker@evil.com@corp.com", "a@b c", "a@b,c@d", "Admin <a@b>", "a@", "@b", "", "a@b\n", 7, None, ["a@b"]],
)
def test_what_is_not_one_plain_address_is_not_sent(email: object) -> None:
    """F-multi-at, and its kin."""
    assert "email" not in headers(email=email, email_verified=True)


@pytest.mark.parametrize(
    ("groups", "value"),
    [
        ("admin", "admin"),
        (["a,admin", "b"], "a%2Cadmin,b"),
        (["", "x"], "x"),
        ([["admin"]], None),
        ({"admin": True}, None),
        ([], None),
        ([f"group-{n}" for n in range(10_000)], None),
    ],
    ids=["text", "comma", "empty", "nested", "object", "none", "10,000"],
)
def test_groups(groups: object, value: str | None) -> None:
    """F-groups-type: the list that `request.user.groups` is, or none at all."""
    assert headers(groups=groups).get("groups") == value


def test_groups_are_where_the_settings_say() -> None:
    mapping = ClaimsMapping(groups=("realm_access.roles",))
    assert headers(mapping, groups=["no"], realm_access={"roles": ["yes"]})["groups"] == "yes"


@pytest.mark.parametrize("token", ["a b", "a\r\nb", "é", "", None])
def test_what_is_no_bearer_token_is_not_sent(token: str | None) -> None:
    assert "access-token" not in headers(None, token)


def test_what_is_too_long_is_left_out() -> None:
    assert headers(preferred_username="x" * LONGEST)["preferred-username"] == "x" * LONGEST
    assert "preferred-username" not in headers(preferred_username="x" * (LONGEST + 1))


@given(st.text())
def test_percent_decoding_gives_the_claim_back(claim: str) -> None:
    value = encoded(claim)
    assert unquote(value.decode("ascii")) == claim
    assert value.strip() == value
    assert all(32 <= byte < 127 and byte != ord(",") for byte in value)


@given(st.text(alphabet=st.characters(categories=["Cs"])))
def test_lone_surrogates_are_no_error(claim: str) -> None:
    assert encoded(claim).isascii()


@given(st.frozensets(st.text(min_size=1)))
def test_groups_are_told_apart(groups: frozenset[str]) -> None:
    value = encoded_list(groups).decode("ascii")
    assert {unquote(part) for part in value.split(",") if part} == groups


@pytest.mark.parametrize("name", sorted(IDENTITY_HEADERS)[::7])
def test_spellings_fold_into_one(name: bytes) -> None:
    assert folded(name) == folded(name.upper()) == name.replace(b"_", b"-").replace(b".", b"-")


def test_every_sign_of_a_token_folds() -> None:
    assert folded(b"X~Forwarded!User") == b"x-forwarded-user"

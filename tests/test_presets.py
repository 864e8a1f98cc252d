"""Presets: a recorded shape of each vendor's tokens at the whole door, and what cannot work is said at start.

The claims are those that the vendors document; only issuer, audience, times and signature are ours.
"""

from __future__ import annotations

import asyncio
import dataclasses
import json
import logging
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from oidc_middleware import Issuer, Principal, Rule, Settings
from oidc_middleware.cli.options import settings_of
from oidc_middleware.cli.parser import build_parser
from oidc_middleware.errors import ConfigError
from oidc_middleware.settings.presets import PRESETS

from abuse.door import Door
from abuse.signing import NOW, Signer
from tenants_kit import COMMON, ONE, TEMPLATE, TWO, Documents, issuer_of, refusal

API = "api://orders"
OKTA = "https://shop.okta.example/oauth2/default"
SSO = "https://sso.example/realms/shop"
AUTH0 = "https://shop.eu.auth0.example/"
GOOGLE = "https://accounts.google.example"
COGNITO = "https://cognito-idp.eu-west-1.example/eu-west-1_Ab1Cd2Ef3"
STRANGER = "claim: iss mismatch (not one of the configured issuers)"
LOGOUT: dict[str, Any] = {"http://schemas.openid.net/event/backchannel-logout": {}}


@dataclasses.dataclass(frozen=True)
class Vendor:
    """One vendor's settings, its access token, other tokens with their refusals, and who the access token is of."""

    settings: dict[str, Any]
    access: dict[str, Any]
    others: dict[str, tuple[dict[str, Any], str]]
    scopes: set[str]
    roles: set[str] = dataclasses.field(default_factory=set)
    groups: set[str] = dataclasses.field(default_factory=set)
    tenant: str | None = None
    name: str = "u-1"
    typ: str | None = "JWT"

    @property
    def issuer(self) -> str:
        return str(self.access["iss"])


VENDORS: dict[str, Vendor] = {
    "keycloak": Vendor(
        settings={"preset": "keycloak", "issuer": SSO, "audience": API},
        access={
            "iss": SSO,
            "jti": "onrtro:9e4a2b1c",
            "aud": [API, "account"],
            "sub": "u-1",
            "typ": "Bearer",
            "azp": "shop-web",
            "sid": "s-1",
            "acr": "1",
            "allowed-origins": ["https://shop.example"],
            "realm_access": {"roles": ["default-roles-shop", "offline_access", "auditor"]},
            "resource_access": {"account": {"roles": ["manage-account", "view-profile"]}},
            "scope": "openid email profile",
            "email_verified": True,
            "name": "Alice Doe",
            "preferred_username": "alice",
        },
        others={
            "ID": ({"typ": "ID", "aud": "shop-web", "at_hash": "x", "nonce": "n"}, "claim: aud mismatch"),
            "ID for this API": (
                {"typ": "ID", "nonce": "n"},
                "claim: typ mismatch (the payload says that it is another kind of token)",
            ),
            "refresh": (
                {"typ": "Refresh", "aud": SSO},
                "claim: aud mismatch",
            ),
            "offline": (
                {"typ": "Offline"},
                "claim: typ mismatch (the payload says that it is another kind of token)",
            ),
            "logout": (
                {"typ": "Logout", "events": LOGOUT},
                "claim: typ mismatch (the payload says that it is another kind of token)",
            ),
            "ID without typ": ({"typ": None, "nonce": "n"}, "claim: nonce invalid (an access token does not have it)"),
            "with at_hash": ({"at_hash": "x"}, "claim: at_hash invalid (an access token does not have it)"),
        },
        scopes={"openid", "email", "profile"},
        roles={"default-roles-shop", "offline_access", "auditor"},
        name="Alice Doe",
    ),
    "keycloak before 24": Vendor(
        settings={"preset": "keycloak", "issuer": SSO, "audience": API},
        access={
            "iss": SSO,
            "jti": "a1",
            "aud": API,
            "sub": "u-1",
            "typ": "Bearer",
            "azp": "shop-web",
            "nonce": "n-0S6_WzA2Mj",
            "session_state": "s-1",
            "scope": "openid",
        },
        others={},
        scopes={"openid"},
    ),
    "entra, delegated": Vendor(
        settings={"preset": "entra", "issuer": TEMPLATE, "audience": API, "tenants": [ONE]},
        access={
            "iss": issuer_of(ONE),
            "aud": API,
            "sub": "u-1",
            "aio": "AXQAi/8IAAAA",
            "azp": "c1",
            "azpacr": "0",
            "groups": ["8ab1d86a-a2b6-4c8f-9d63-1f8d6a1e7a11"],
            "name": "Abe Lincoln",
            "oid": "690222be-ff1a-4d56-abd1-7e4f7d38e474",
            "preferred_username": "abeli@example.com",
            "rh": "0.AXEA",
            "scp": "Orders.Read Orders.Write",
            "scope": "not.where.entra.has.them",
            "tid": ONE,
            "uti": "abc",
            "ver": "2.0",
        },
        others={
            "ID": ({"aud": "c1", "scp": None, "nonce": "n"}, "claim: aud mismatch"),
            "ID for this API": ({"nonce": "n"}, "claim: nonce invalid (an access token does not have it)"),
            "of another tenant": (
                {"iss": issuer_of(TWO), "tid": TWO},
                STRANGER,
            ),
            "version 1": (
                {"iss": f"https://sts.windows.net/{ONE}/", "ver": "1.0"},
                STRANGER,
            ),
        },
        scopes={"Orders.Read", "Orders.Write"},
        groups={"8ab1d86a-a2b6-4c8f-9d63-1f8d6a1e7a11"},
        tenant=ONE,
        name="Abe Lincoln",
    ),
    "entra, application": Vendor(
        settings={"preset": "entra", "issuer": TEMPLATE, "audience": API, "tenants": ["*"]},
        access={
            "iss": issuer_of(TWO),
            "aud": API,
            "sub": "u-1",
            "azp": "c1",
            "azpacr": "1",
            "oid": "u-1",
            "roles": ["Orders.Read.All"],
            "tid": TWO,
            "ver": "2.0",
        },
        others={},
        scopes=set(),
        roles={"Orders.Read.All"},
        tenant=TWO,
    ),
    "auth0": Vendor(
        settings={"preset": "auth0", "issuer": AUTH0, "audience": "https://example.com/health-api"},
        access={
            "iss": AUTH0,
            "sub": "u-1",
            "aud": ["https://example.com/health-api", AUTH0 + "userinfo"],
            "azp": "my_client_id",
            "scope": "openid profile read:patients read:admin",
            "org_id": "org_9ybsU1dN2dKfDkBi",
            "permissions": ["read:patients"],
        },
        others={
            "ID": ({"aud": "my_client_id", "nonce": "n", "sid": "s", "scope": None}, "claim: aud mismatch"),
            "ID for this API": ({"nonce": "n"}, "claim: nonce invalid (an access token does not have it)"),
            "userinfo only": ({"aud": AUTH0 + "userinfo"}, "claim: aud mismatch"),
            "logout": ({"events": LOGOUT}, "claim: events invalid (an access token does not have it)"),
        },
        scopes={"openid", "profile", "read:patients", "read:admin"},
        roles={"read:patients"},
        tenant="org_9ybsU1dN2dKfDkBi",
    ),
    "auth0, RFC 9068 profile": Vendor(
        settings={
            "preset": "auth0",
            "issuer": AUTH0,
            "audience": "https://example.com/health-api",
            "token_type": "at+jwt",
        },
        access={
            "iss": AUTH0,
            "sub": "u-1",
            "aud": "https://example.com/health-api",
            "client_id": "my_client_id",
            "jti": "73WakrfVbNJBaAmhQtEeDv",
            "scope": "read:patients",
        },
        others={},
        scopes={"read:patients"},
        typ="at+jwt",
    ),
    "okta": Vendor(
        settings={"preset": "okta", "issuer": OKTA, "audience": "api://default"},
        access={
            "ver": 1,
            "jti": "AT.0mP4JKAZX1iACIT4vbEDF7LpvDVjxypPMf0D7uX39RE",
            "iss": OKTA,
            "aud": "api://default",
            "sub": "u-1",
            "cid": "nmdP1fcyvdVO11AL7ECm",
            "uid": "00ujmkLgagxeRrAg20g3",
            "scp": ["openid", "orders"],
            "groups": ["Everyone", "Admins"],
        },
        others={
            "ID": ({"jti": "ID.4eAWJOCMB3", "aud": "nmdP1fcyvdVO11AL7ECm", "scp": None}, "claim: aud mismatch"),
            "ID for this API": ({"at_hash": "x"}, "claim: at_hash invalid (an access token does not have it)"),
        },
        scopes={"openid", "orders"},
        groups={"Everyone", "Admins"},
        typ=None,
    ),
    "google, of a service account": Vendor(
        settings={"preset": "google", "issuer": GOOGLE, "audience": "https://orders.example"},
        access={
            "iss": GOOGLE,
            "aud": "https://orders.example",
            "azp": "112010400000000710080",
            "email": "robot@project-1.iam.gserviceaccount.com",
            "email_verified": True,
            "sub": "u-1",
        },
        others={
            "ID of a user": (
                {"aud": "c1.apps.example", "azp": "c1.apps.example", "hd": "example.com", "at_hash": "x"},
                "claim: aud mismatch",
            ),
            "ID of a user for this API": (
                {"azp": "https://orders.example", "hd": "example.com"},
                "claim: aud mismatch (the audience is a client and nothing says that this is an access token)",
            ),
        },
        scopes=set(),
        name="robot@project-1.iam.gserviceaccount.com",
    ),
    "cognito": Vendor(
        settings={"preset": "cognito", "issuer": COGNITO, "audience": "57cbishk4j24pabc1234567890"},
        access={
            "sub": "u-1",
            "device_key": "aaaaaaaa-bbbb",
            "cognito:groups": ["testgroup"],
            "iss": COGNITO,
            "version": 2,
            "client_id": "57cbishk4j24pabc1234567890",
            "origin_jti": "o-1",
            "event_id": "e-1",
            "token_use": "access",
            "scope": "phone openid profile",
            "jti": "j-1",
            "username": "my-test-user",
        },
        others={
            "ID": (
                {"token_use": "id", "aud": "57cbishk4j24pabc1234567890", "client_id": None},
                "claim: client_id missing",
            ),
            "ID with a client_id": ({"token_use": "id"}, "claim: token_use mismatch"),
            "of another client": ({"client_id": "other"}, "claim: client_id mismatch"),
        },
        scopes={"phone", "openid", "profile"},
        groups={"testgroup"},
        typ=None,
    ),
}
OTHERS = [(name, kind) for name, vendor in VENDORS.items() for kind in vendor.others]


SIGNER = Signer()
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=5,
)


@pytest.fixture(scope="module")
def signer() -> Signer:
    return SIGNER


def door_of(vendor: Vendor, signer: Signer, **settings: Any) -> Door:
    documents = Documents()
    if "{" in vendor.settings["issuer"]:
        documents.publish(TEMPLATE, signer.jwks(), at=COMMON)
    else:
        documents.publish(vendor.settings["issuer"].rstrip("/"), signer.jwks())
        at = f"{vendor.settings['issuer'].rstrip('/')}/.well-known/openid-configuration"
        documents.documents[at]["issuer"] = vendor.settings["issuer"]
    return Door(b"", transport=documents, **({"token_type": "auto"} | vendor.settings | settings))


def sent(vendor: Vendor, signer: Signer, *, header: dict[str, Any] | None = None, **changes: Any) -> str:
    claims = {"iat": int(NOW) - 5, "exp": int(NOW) + 300} | vendor.access | changes
    payload = json.dumps({name: value for name, value in claims.items() if value is not None}).encode()
    typ = {} if vendor.typ is None else {"typ": vendor.typ}
    omitted = ("typ",) if vendor.typ is None and "typ" not in (header or {}) else ()
    return signer.token(header=typ | (header or {}), omit_header=omitted, claims=payload)


async def user_of(door: Door, token: str) -> Principal:
    answer = await door.ask(token=token)
    assert answer.seen is not None
    user = answer.seen["user"]
    assert isinstance(user, Principal)
    return user


def test_every_preset_has_a_recorded_token() -> None:
    assert {vendor.settings["preset"] for vendor in VENDORS.values()} == set(PRESETS)


@pytest.mark.anyio
@pytest.mark.parametrize("name", VENDORS)
async def test_the_access_token_gets_in_and_says_who_it_is(name: str, signer: Signer) -> None:
    vendor = VENDORS[name]
    user = await user_of(door_of(vendor, signer), sent(vendor, signer))
    assert (user.issuer, user.subject, user.display_name, user.tenant) == (
        vendor.issuer,
        "u-1",
        vendor.name,
        vendor.tenant,
    )
    assert user.scopes == vendor.scopes
    assert user.roles == vendor.roles
    assert user.groups == vendor.groups


@pytest.mark.anyio
@pytest.mark.parametrize(("name", "kind"), OTHERS)
async def test_other_tokens_stay_out(name: str, kind: str, signer: Signer) -> None:
    vendor = VENDORS[name]
    claims, expected = vendor.others[kind]
    assert await refusal(door_of(vendor, signer), sent(vendor, signer, **claims)) == expected


@pytest.mark.anyio
@pytest.mark.parametrize("name", VENDORS)
async def test_a_logout_token_by_its_header_stays_out(name: str, signer: Signer) -> None:
    vendor = VENDORS[name]
    found = await refusal(door_of(vendor, signer), sent(vendor, signer, header={"typ": "logout+jwt"}))
    assert found == "claim: typ mismatch"


@pytest.mark.anyio
@pytest.mark.parametrize("typ", [None, "ID", "bearer", "JWT", 7])
async def test_a_nonce_is_waived_only_where_the_payload_says_bearer(typ: Any, signer: Signer) -> None:
    old = VENDORS["keycloak before 24"]
    found = await refusal(door_of(old, signer), sent(old, signer, typ=typ))
    assert found is not None
    assert found.startswith("claim: typ" if typ == "ID" else "claim: nonce invalid")
    without_preset = door_of(old, signer, preset=None)
    assert await refusal(without_preset, sent(old, signer)) == "claim: nonce invalid (an access token does not have it)"


# Tokens that nobody can verify: the log says why, the client sees a 401 like any other


@pytest.mark.anyio
async def test_a_token_for_graph_is_known_by_its_header(signer: Signer) -> None:
    vendor = VENDORS["entra, delegated"]
    door = door_of(vendor, signer)
    graph = sent(vendor, signer, header={"nonce": "QltrBofYb5"}, aud="00000003-0000-0000-c000-000000000000")
    why = "a token of Entra ID for Microsoft Graph"
    assert (await refusal(door, graph) or "").startswith(f"claim: nonce mismatch ({why}")
    usual = sent(vendor, signer, header={"nonce": "QltrBofYb5"}, iss=f"https://sts.windows.net/{ONE}/")
    assert (await refusal(door, usual) or "").startswith(f"claim: iss mismatch ({why}")


@pytest.mark.anyio
async def test_a_token_of_oktas_org_server_is_known_by_its_type(signer: Signer) -> None:
    vendor = VENDORS["okta"]
    org = sent(vendor, signer, header={"typ": "application/okta-internal-at+jwt"}, iss="https://shop.okta.example")
    found = await refusal(door_of(vendor, signer), org) or ""
    assert found.startswith("claim: iss mismatch (an access token of Okta's org authorization server")


@pytest.mark.anyio
async def test_an_access_token_of_google_is_known_by_its_beginning(
    signer: Signer, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    found = await refusal(door_of(VENDORS["google, of a service account"], signer), "ya29.a0AfB_byC-made-up")
    assert (found or "").startswith("malformed: an access token of Google, which is opaque")
    assert "made-up" not in caplog.text
    assert "which is opaque" in caplog.text


@pytest.mark.anyio
async def test_an_opaque_token_of_google_is_shown_to_no_other_issuer(signer: Signer) -> None:
    issuers = [
        Issuer(preset="google", issuer=GOOGLE, audience="https://orders.example"),
        Issuer(issuer=SSO, audience=API, client_id="api", client_secret="s"),
    ]
    documents = Documents()
    documents.publish(SSO, signer.jwks())
    documents.documents[f"{SSO}/.well-known/openid-configuration"]["introspection_endpoint"] = f"{SSO}/introspect"
    documents.documents[f"{SSO}/introspect"] = {"active": False}
    door = Door(b"", transport=documents, issuers=issuers)
    assert (await refusal(door, "ya29.a0AfB") or "").startswith("malformed: an access token of Google")
    assert documents.asked[f"{SSO}/introspect"] == 0
    assert await refusal(door, "another-opaque-token") == "inactive: the issuer says that it is not active"


# What is set goes before the preset


@pytest.mark.anyio
async def test_what_is_set_goes_before_the_preset(signer: Signer) -> None:
    keycloak = VENDORS["keycloak"]
    roles = ["resource_access.account.roles"]
    user = await user_of(door_of(keycloak, signer, role_claims=roles), sent(keycloak, signer))
    assert user.roles == {"manage-account", "view-profile"}
    cognito = VENDORS["cognito"]
    bound = door_of(cognito, signer, audience_claim="aud", audience="https://orders.example")
    assert await refusal(bound, sent(cognito, signer, aud="https://orders.example")) is None
    assert await refusal(bound, sent(cognito, signer)) == "claim: aud missing"


@pytest.mark.anyio
async def test_rules_see_what_a_preset_maps(signer: Signer) -> None:
    keycloak = VENDORS["keycloak"]
    rules = [Rule("/audit", claims={"roles": "auditor"}), Rule("/admin", claims={"roles": "admin"})]
    door = door_of(keycloak, signer, rules=rules)
    token = sent(keycloak, signer, roles=["admin"])
    assert [(await door.ask(path, token=token)).status for path in ("/audit", "/admin")] == [200, 403]


def test_issuers_and_settings_read_presets_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    issuer = Issuer(preset="cognito", issuer=COGNITO, audience="c")
    assert (issuer.audience_claim, issuer.group_claims) == ("client_id", ("cognito:groups",))
    settings = Settings(preset="cognito", issuer=COGNITO, audience="c")
    assert settings.trusted == Settings(issuers=[issuer]).trusted
    assert settings.model_copy(update={"preset": "keycloak"}).trusted[0].role_claims == ("realm_access.roles",)
    monkeypatch.setenv("OIDC_PRESET", "cognito")
    monkeypatch.setenv("OIDC_GROUP_CLAIMS", "teams")
    found = Settings(issuer=COGNITO, audience="c").trusted[0]
    assert (found.audience_claim, found.group_claims) == ("client_id", ("teams",))


@pytest.mark.parametrize(
    ("keywords", "field", "problem"),
    [
        ({"preset": "azure"}, "preset", "is not one of its values"),
        ({"preset": ["entra"]}, "preset", "must be text"),
        ({"preset": "entra", "token_type": "at+jwt"}, "token_type", "stands in none of its tokens"),
        ({"preset": "okta", "token_type": "at+jwt"}, "token_type", "stands in none of its tokens"),
        ({"preset": "google", "token_type": "at+jwt"}, "token_type", "stands in none of its tokens"),
        ({"preset": "cognito", "token_type": "at+jwt"}, "token_type", "stands in none of its tokens"),
        ({"preset": "entra", "audience": "https://graph.microsoft.com"}, "audience", "Microsoft Graph"),
        ({"preset": "entra", "audience": ["a", "00000003-0000-0000-c000-000000000000"]}, "audience", "Microsoft Graph"),
        ({"preset": "okta", "issuer": "https://shop.okta.example"}, "issuer", "org authorization server"),
        ({"preset": "okta", "issuer": "https://shop.okta.example/"}, "issuer", "org authorization server"),
        (
            {"preset": "google", "introspection": "always", "client_id": "c", "client_secret": "s"},
            "introspection",
            "has no introspection endpoint",
        ),
    ],
)
def test_what_cannot_work_is_refused(keywords: dict[str, Any], field: str, problem: str) -> None:
    with pytest.raises(ConfigError, match=problem) as refused:
        Settings(**{"issuer": "https://idp.example/a", "audience": "a", **keywords})
    assert (refused.value.field, bool(refused.value.cure)) == (field, True)


def test_a_preset_is_never_guessed() -> None:
    for host in ("https://login.microsoftonline.com/x/v2.0", "https://a.okta.com", "https://accounts.google.com"):
        issuer = Issuer(issuer=host, audience="a")
        assert issuer == Issuer(issuer=host, audience="a", preset=None)
        assert (issuer.preset, issuer.tenant_claim, issuer.audience_claim) == (None, None, "aud")


def test_presets_cannot_be_changed() -> None:
    with pytest.raises(TypeError):
        PRESETS["entra"] = PRESETS["okta"]  # type: ignore[index]
    with pytest.raises(TypeError):
        PRESETS["entra"].settings["tenant_claim"] = "x"  # type: ignore[index]
    with pytest.raises(dataclasses.FrozenInstanceError):
        PRESETS["entra"].waived = frozenset({"nonce"})  # type: ignore[misc]


@pytest.mark.parametrize(
    ("issuer", "shared"),
    [
        (TEMPLATE, COMMON),
        ("https://sts.windows.net/{tenantid}/", "https://sts.windows.net/common/.well-known/openid-configuration"),
    ],
)
def test_tenants_of_entra_share_their_metadata(issuer: str, shared: str) -> None:
    keywords: dict[str, Any] = {"preset": "entra", "issuer": issuer, "audience": API, "tenants": "*"}
    assert Issuer(**keywords).common_metadata == shared
    assert Issuer(**keywords, discovery_url="https://proxy.example/x").common_metadata == "https://proxy.example/x"
    assert Issuer(**keywords, jwks_uri="https://proxy.example/x").common_metadata is None


def test_commands_take_presets_and_tenants(signer: Signer) -> None:
    words = ["explain", "x", "--preset", "entra", "--issuer", TEMPLATE, "--audience", API, "--tenants", f"{ONE}, {TWO}"]
    settings = settings_of(build_parser().parse_args(words))
    assert (settings.preset, settings.tenants) == ("entra", (ONE, TWO))
    assert settings.trusted[0].identifiers == (issuer_of(ONE), issuer_of(TWO))
    assert settings.trusted[0].common_metadata == COMMON


@given(st.data())
def test_no_claim_of_any_type_is_an_error_of_the_app(data: st.DataObject) -> None:
    """Whatever a claim holds, the answer is one of the door's, and who gets in can be looked at."""
    vendor = data.draw(st.sampled_from(list(VENDORS.values())))
    names = st.sampled_from([*vendor.access, "roles", "groups", "scope", "scp", "nonce", "tid", "typ"])
    changes: dict[str, Any] = data.draw(st.dictionaries(names, JSON, max_size=3))
    token = sent(vendor, SIGNER, **changes)
    rules = [Rule(f"/{name}", claims={name: "x"}) for name in ("scopes", "roles", "groups", "tenant")]
    door = door_of(vendor, SIGNER, rules=rules, expand_scopes={"a": ["x"]})

    async def ask() -> None:
        for path in ("/scopes", "/roles", "/groups", "/tenant", "/"):
            answer = await door.ask(path, token=token)
            assert answer.status in {200, 401, 403}
            if answer.seen is not None:
                user = answer.seen["user"]
                assert {type(each) for each in (user.scopes, user.roles, user.groups)} == {frozenset}
                assert {type(each) for each in (user.tenant, user.display_name)} <= {str, type(None)}

    asyncio.run(ask())

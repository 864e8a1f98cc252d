"""Tokens as the vendors send them: access tokens get in, what only looks like one does not."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from test_verify import ALGORITHMS, verdict

from oidc_middleware.core.verify import Expected

from abuse.signing import NOW, Signer

SIGNER = Signer()
API = "api://orders"
LIFE = {"iat": int(NOW) - 5, "exp": int(NOW) + 300}

KEYCLOAK = "https://sso.example/realms/shop"
ENTRA = "https://login.microsoftonline.com/9188040d-6c67-4c5b-b112-36a304b66dad/v2.0"
ENTRA_V1 = "https://sts.windows.net/9188040d-6c67-4c5b-b112-36a304b66dad/"
AUTH0 = "https://shop.eu.auth0.com/"
OKTA = "https://shop.okta.com/oauth2/default"
COGNITO = "https://cognito-idp.eu-west-1.amazonaws.com/eu-west-1_Ab1Cd2Ef3"
GOOGLE = "https://accounts.google.com"


def expected(issuer: str, *audiences: str, claim: str = "aud", clients: tuple[str, ...] = ()) -> Expected:
    return Expected(issuer, frozenset(audiences), claim, ALGORITHMS, "auto", frozenset(clients), 30, 30 * 86400)


def sent(issuer: str, header_typ: str | None, /, **claims: Any) -> bytes:
    header = {} if header_typ is None else {"typ": header_typ}
    payload = json.dumps({"iss": issuer, "sub": "u-1"} | LIFE | claims).encode()
    return SIGNER.token(header=header, omit_header=("typ",) if header_typ is None else (), claims=payload).encode()


KEYCLOAK_CLAIMS: dict[str, Any] = {
    "jti": "a1",
    "typ": "Bearer",
    "azp": "shop-web",
    "aud": [API, "account"],
    "sid": "s-1",
    "acr": "1",
    "scope": "openid profile email",
    "realm_access": {"roles": ["admin", "offline_access"]},
    "resource_access": {"account": {"roles": ["manage-account"]}},
}
ENTRA_CLAIMS: dict[str, Any] = {
    "aud": API,
    "azp": "c1",
    "azpacr": "1",
    "tid": "t",
    "oid": "o",
    "ver": "2.0",
    "rh": "0.",
}
AUTH0_CLAIMS: dict[str, Any] = {
    "aud": [API, AUTH0 + "userinfo"],
    "azp": "c1",
    "gty": "password",
    "permissions": ["read"],
}
OKTA_CLAIMS: dict[str, Any] = {
    "ver": 1,
    "jti": "AT.x",
    "aud": "api://default",
    "cid": "c1",
    "uid": "u",
    "scp": ["openid"],
}
COGNITO_CLAIMS: dict[str, Any] = {
    "client_id": "c1",
    "token_use": "access",
    "scope": "openid",
    "cognito:groups": ["admins"],
    "username": "jane",
    "jti": "j",
}

ACCESS_TOKENS = {
    "keycloak": (sent(KEYCLOAK, "JWT", **KEYCLOAK_CLAIMS), expected(KEYCLOAK, API)),
    "keycloak whose audience is the client": (
        sent(KEYCLOAK, "JWT", **KEYCLOAK_CLAIMS | {"aud": "shop-web"}),
        expected(KEYCLOAK, "shop-web", clients=("shop-web",)),
    ),
    "entra delegated": (sent(ENTRA, "JWT", **ENTRA_CLAIMS, scp="Orders.Read"), expected(ENTRA, API)),
    "entra application": (sent(ENTRA, "JWT", **ENTRA_CLAIMS, roles=["Orders.All"]), expected(ENTRA, API)),
    "entra v1": (sent(ENTRA_V1, "JWT", aud=API, appid="c1", scp="Orders.Read", ver="1.0"), expected(ENTRA_V1, API)),
    "auth0": (sent(AUTH0, "JWT", **AUTH0_CLAIMS, scope="openid"), expected(AUTH0, API)),
    "auth0 with the RFC 9068 profile": (sent(AUTH0, "at+jwt", **AUTH0_CLAIMS, client_id="c1"), expected(AUTH0, API)),
    "okta custom server": (sent(OKTA, None, **OKTA_CLAIMS), expected(OKTA, "api://default")),
    "cognito, which has no aud": (sent(COGNITO, None, **COGNITO_CLAIMS), expected(COGNITO, "c1", claim="client_id")),
}

ID_CLAIMS = {"aud": "c1", "azp": "c1", "at_hash": "x", "nonce": "n"}

OTHER_TOKENS = {
    "keycloak ID token": (
        sent(KEYCLOAK, "JWT", typ="ID", aud=API, azp="shop-web", sid="s-1"),
        expected(KEYCLOAK, API),
        "ClaimError typ mismatch",
    ),
    "keycloak refresh token": (
        sent(KEYCLOAK, "JWT", typ="Refresh", aud=API, scope="openid"),
        expected(KEYCLOAK, API),
        "ClaimError typ mismatch",
    ),
    "keycloak offline token": (
        sent(KEYCLOAK, "JWT", typ="Offline", aud=API, scope="openid"),
        expected(KEYCLOAK, API),
        "ClaimError typ mismatch",
    ),
    "keycloak logout token": (
        sent(KEYCLOAK, "JWT", typ="Logout", aud=API, events={"http://schemas.openid.net/event/backchannel-logout": {}}),
        expected(KEYCLOAK, API),
        "ClaimError typ mismatch",
    ),
    "logout token by its header": (
        sent(KEYCLOAK, "logout+jwt", aud=API, events={}),
        expected(KEYCLOAK, API),
        "ClaimError typ mismatch",
    ),
    "logout token by its events": (
        sent(KEYCLOAK, "JWT", aud=API, events={}),
        expected(KEYCLOAK, API),
        "ClaimError events invalid",
    ),
    "keycloak before 24, with a nonce": (
        sent(KEYCLOAK, "JWT", **KEYCLOAK_CLAIMS, nonce="n"),
        expected(KEYCLOAK, API),
        "ClaimError nonce invalid",
    ),
    "entra ID token": (
        sent(ENTRA, "JWT", aud="c1", nonce="n", tid="t", ver="2.0"),
        expected(ENTRA, "c1", clients=("c1",)),
        "ClaimError nonce invalid",
    ),
    "entra ID token without a nonce": (
        sent(ENTRA, "JWT", aud="c1", tid="t", ver="2.0"),
        expected(ENTRA, "c1", clients=("c1",)),
        "ClaimError aud mismatch",
    ),
    "auth0 ID token": (
        sent(AUTH0, "JWT", aud="c1", nonce="n", sid="s"),
        expected(AUTH0, "c1", clients=("c1",)),
        "ClaimError nonce invalid",
    ),
    "okta ID token": (
        sent(OKTA, None, **ID_CLAIMS, jti="ID.x", ver=1),
        expected(OKTA, "c1", clients=("c1",)),
        "ClaimError at_hash invalid",
    ),
    "cognito ID token": (
        sent(COGNITO, None, aud="c1", token_use="id", client_id="c1"),
        expected(COGNITO, "c1", claim="client_id"),
        "ClaimError token_use mismatch",
    ),
    "google ID token": (
        sent(GOOGLE, "JWT", aud="c1.apps.example", azp="c1.apps.example", hd="example.com"),
        expected(GOOGLE, "c1.apps.example"),
        "ClaimError aud mismatch",
    ),
    "google access token, which is opaque": (b"ya29.a0AfB_byC-made-up", expected(GOOGLE, "c1"), "Malformed"),
}


@pytest.mark.parametrize("name", ACCESS_TOKENS)
def test_access_tokens_of_the_vendors_get_in(name: str) -> None:
    token, wanted = ACCESS_TOKENS[name]
    assert verdict(token, SIGNER.jwks(), wanted) is None


@pytest.mark.parametrize("name", OTHER_TOKENS)
def test_other_tokens_of_the_vendors_stay_out(name: str) -> None:
    token, wanted, outcome = OTHER_TOKENS[name]
    assert verdict(token, SIGNER.jwks(), wanted) == outcome


@pytest.mark.parametrize("name", [name for name in ACCESS_TOKENS if "9068" not in name])
def test_most_vendors_do_not_send_at_jwt(name: str) -> None:
    token, wanted = ACCESS_TOKENS[name]
    assert verdict(token, SIGNER.jwks(), replace(wanted, token_type="at+jwt")) in (
        "ClaimError typ mismatch",
        "ClaimError typ missing",
    )

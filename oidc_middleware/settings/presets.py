"""What is known of the tokens of some issuers, as data: nobody's settings depend on the name of a host.

A preset stands in for settings that were not given. `needs` are settings that cannot have another value, however they
are given; `foreign` are tokens that nobody but their issuer, or whom they are for, can verify.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from oidc_middleware.core.foreign import Foreign, ForeignHeader, ForeignPrefix


@dataclass(frozen=True, slots=True)
class Impossible:
    """A value of a setting with which no token would be accepted, and what to do instead.

    With `unless` it can work where that setting is given.
    """

    setting: str
    value: str
    problem: str
    cure: str
    unless: str | None = None


@dataclass(frozen=True, slots=True)
class Preset:
    """What stands in for settings that were not given, and what is known besides.

    `waived` are claims of ID tokens that access tokens may have too (see `core.token_type`). `shared_tenant` takes the
    place of the tenant in the address of the metadata that all tenants share; `org_issuer` tells that an issuer without
    a path is one whose tokens are for the vendor alone, and what to write instead.
    """

    settings: Mapping[str, Any] = field(default_factory=lambda: MappingProxyType({}))
    impossible: tuple[Impossible, ...] = ()
    foreign: tuple[Foreign, ...] = ()
    waived: frozenset[str] = frozenset()
    shared_tenant: str | None = None
    org_issuer: tuple[str, str] | None = None


_NO_AT_JWT = "is at+jwt, which stands in none of its tokens"
_LEAVE_OUT = "Leave it out: what only looks like an access token is refused all the same."
_NO_INTROSPECTION = "is always, and it has no introspection endpoint"
_NEVER = "Leave it out. Its access tokens are JWTs, which are verified here."
_GRAPH = "names Microsoft Graph, whose tokens nobody but Graph can verify"
_OWN_API = "Register an API of your own, and name its application id or application id URI."

NO_PRESET = Preset()

PRESETS: Mapping[str, Preset] = MappingProxyType(
    {
        "keycloak": Preset(
            settings=MappingProxyType({"role_claims": ("realm_access.roles",)}),
            waived=frozenset({"nonce"}),  # before version 24
        ),
        "entra": Preset(
            settings=MappingProxyType({"scope_claims": ("scp",), "tenant_claim": "tid"}),
            impossible=(
                Impossible("token_type", "at+jwt", _NO_AT_JWT, _LEAVE_OUT),
                Impossible("introspection", "always", _NO_INTROSPECTION, _NEVER, "introspection_endpoint"),
                Impossible("audience", "https://graph.microsoft.com", _GRAPH, _OWN_API),
                Impossible("audience", "https://graph.microsoft.com/", _GRAPH, _OWN_API),
                Impossible("audience", "00000003-0000-0000-c000-000000000000", _GRAPH, _OWN_API),
            ),
            foreign=(
                ForeignHeader(
                    "nonce",
                    "a token of Entra ID for Microsoft Graph, whose signature is over another header than this one: "
                    "nobody but Graph can verify it. Clients have to ask for a token with a scope of this API",
                ),
            ),
            shared_tenant="common",
        ),
        "auth0": Preset(settings=MappingProxyType({"role_claims": ("permissions",), "tenant_claim": "org_id"})),
        "okta": Preset(
            impossible=(Impossible("token_type", "at+jwt", _NO_AT_JWT, _LEAVE_OUT),),
            foreign=(
                ForeignHeader(
                    "typ",
                    "an access token of Okta's org authorization server, which is for Okta alone and opaque by "
                    "contract. Clients have to use a custom authorization server",
                    value="application/okta-internal-at+jwt",
                ),
            ),
            org_issuer=(
                "is Okta's org authorization server, whose access tokens nobody but Okta can verify",
                "Name a custom authorization server, such as https://example.okta.com/oauth2/default.",
            ),
        ),
        "google": Preset(
            settings=MappingProxyType({"tenant_claim": "hd"}),
            impossible=(
                Impossible("token_type", "at+jwt", _NO_AT_JWT, _LEAVE_OUT),
                Impossible(
                    "introspection",
                    "always",
                    _NO_INTROSPECTION,
                    "Leave it out. ID tokens for this API are verified here.",
                    "introspection_endpoint",
                ),
            ),
            foreign=(
                ForeignPrefix(
                    b"ya29.",
                    "an access token of Google, which is opaque, and nobody but Google's APIs can verify it. Service "
                    "accounts have to send an ID token whose audience is this API",
                ),
            ),
        ),
        "cognito": Preset(
            settings=MappingProxyType({"audience_claim": "client_id", "group_claims": ("cognito:groups",)}),
            impossible=(
                Impossible("token_type", "at+jwt", _NO_AT_JWT, _LEAVE_OUT),
                Impossible("introspection", "always", _NO_INTROSPECTION, _NEVER, "introspection_endpoint"),
            ),
        ),
    }
)


def preset_of(name: str | None) -> Preset:
    """Return the preset of this name; of None one that says nothing."""
    return NO_PRESET if name is None else PRESETS[name]


def completed(given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings of an issuer that were given, and what its preset, if it has one, says of the others."""
    name = given.get("preset")
    preset = PRESETS.get(name, NO_PRESET) if isinstance(name, str) else NO_PRESET
    return {**preset.settings, **given}

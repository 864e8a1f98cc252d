"""What an issuer says about itself: its discovery document, and where that is found."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from oidc_middleware.core import strict_json
from oidc_middleware.core.addresses import check_scheme, parse_url

_ENDPOINTS = (
    "jwks_uri",
    "authorization_endpoint",
    "token_endpoint",
    "userinfo_endpoint",
    "introspection_endpoint",
    "end_session_endpoint",
    "revocation_endpoint",
)


@dataclass(frozen=True, slots=True)
class Metadata:
    """The parts of a discovery document that are used here. `None`: the issuer does not offer it, or does not say.

    With `authorization_response_iss_parameter_supported` it adds `iss` to each answer to an authentication request
    (RFC 9207 §3), so that one without `iss` is not its own.
    """

    issuer: str
    jwks_uri: str | None
    authorization_endpoint: str | None = None
    token_endpoint: str | None = None
    userinfo_endpoint: str | None = None
    introspection_endpoint: str | None = None
    end_session_endpoint: str | None = None
    revocation_endpoint: str | None = None
    authorization_response_iss_parameter_supported: bool = False
    code_challenge_methods_supported: tuple[str, ...] | None = None


def well_known_urls(issuer: str) -> tuple[str, ...]:
    """Return where the discovery document of `issuer` may lie, the likelier place first.

    Raises:
        ValueError: `issuer` is no URL, or has a query (a user or a fragment is no plain URL either).

    Source: OpenID Connect Discovery §4.1 (after the path); RFC 8414 §3.1 (before the path), §5 (the OpenID name there).
    """
    url = parse_url(issuer)
    if url.query:
        raise ValueError("an issuer has no query")
    path = url.path.rstrip("/")
    origin = issuer[: len(issuer) - len(url.path)]
    urls = (
        f"{origin}{path}/.well-known/openid-configuration",
        f"{origin}/.well-known/oauth-authorization-server{path}",
        f"{origin}/.well-known/openid-configuration{path}",
    )
    return urls if path else urls[:2]


def parse_metadata(document: bytes, issuer: str, *, allow_http: bool = False, needs_keys: bool = True) -> Metadata:
    """Read the discovery document of `issuer`, the whole of it or nothing.

    Raises:
        StrictJSONError: not a strict JSON object.
        ValueError: it speaks for another issuer, an endpoint is no https URL (http for loopback), or with `needs_keys`
            it lacks `jwks_uri`, which an issuer of opaque tokens need not have.

    Source: OpenID Connect Discovery §3, §4.3; RFC 8414 §2, §3.3 (`issuer` must be identical).
    """
    values = strict_json.load_object(document)
    if values.get("issuer") != issuer:
        raise ValueError("its issuer is not the configured one, letter by letter")
    if needs_keys and values.get("jwks_uri") is None:
        raise ValueError("it has no jwks_uri")
    endpoints = {name: _endpoint(values, name, allow_http) for name in _ENDPOINTS if values.get(name) is not None}
    return Metadata(
        issuer,
        endpoints.pop("jwks_uri", None),
        **endpoints,
        # What is no boolean asks for the stricter reading.
        authorization_response_iss_parameter_supported=values.get("authorization_response_iss_parameter_supported")
        not in (None, False),
        code_challenge_methods_supported=_texts(values.get("code_challenge_methods_supported")),
    )


def _texts(value: object) -> tuple[str, ...] | None:
    return tuple(value) if isinstance(value, list) and all(isinstance(item, str) for item in value) else None


def _endpoint(values: dict[str, Any], name: str, allow_http: bool) -> str:  # noqa: FBT001  the caller's, passed on
    url = values[name]
    try:
        check_scheme(parse_url(url), allow_http=allow_http)
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from None
    return str(url)

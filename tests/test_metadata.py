"""Discovery documents: where they lie, and that each is taken whole or not at all."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from oidc_middleware.core.metadata import Metadata, parse_metadata, well_known_urls
from oidc_middleware.core.strict_json import StrictJSONError

ISSUER = "https://issuer.example/tenant"


def document(**changes: Any) -> bytes:
    values = {"issuer": ISSUER, "jwks_uri": "https://issuer.example/jwks", "scopes_supported": ["openid"]} | changes
    return json.dumps({name: value for name, value in values.items() if value != "absent"}).encode()


def test_what_is_used_is_read_and_the_rest_is_left() -> None:
    metadata = parse_metadata(
        document(
            token_endpoint="https://issuer.example/token",
            introspection_endpoint="https://other.example/introspect",
            end_session_endpoint=None,
        ),
        ISSUER,
    )
    assert metadata == Metadata(
        ISSUER,
        "https://issuer.example/jwks",
        token_endpoint="https://issuer.example/token",
        introspection_endpoint="https://other.example/introspect",
    )


@pytest.mark.parametrize(
    "issuer",
    [
        pytest.param(ISSUER + "/", id="J-issuer-mismatch-trailing-slash"),
        pytest.param("https://Issuer.example/tenant", id="J-issuer-mismatch-case"),
        pytest.param("https://issuer.example:443/tenant", id="J-issuer-mismatch-port"),
        pytest.param("http://issuer.example/tenant", id="J-issuer-mismatch-http"),
        pytest.param("https://issuer.example/other", id="J-issuer-mismatch-path"),
        pytest.param("https://issuer.example/tenänt", id="J-issuer-mismatch-unicode"),
        pytest.param("absent", id="J-issuer-mismatch-missing"),
        pytest.param([ISSUER], id="J-issuer-mismatch-list"),
        pytest.param(None, id="J-issuer-mismatch-null"),
        pytest.param("https://issuer.example/{tenantid}", id="J-issuer-mismatch-template"),
    ],
)
def test_another_issuer_is_refused(issuer: object) -> None:
    with pytest.raises(ValueError, match="its issuer is not the configured one"):
        parse_metadata(document(issuer=issuer), ISSUER)


@pytest.mark.parametrize(
    ("uri", "problem"),
    [
        pytest.param("http://issuer.example/jwks", "must be https", id="J-scheme-http"),
        pytest.param("file:///etc/passwd", "not an http or https URL", id="J-scheme-file"),
        pytest.param("data:application/json,{}", "not an http or https URL", id="J-scheme-data"),
        pytest.param(7, "not a string", id="number"),
        pytest.param(["https://issuer.example/jwks"], "not a string", id="list"),
    ],
)
@pytest.mark.parametrize("name", ["jwks_uri", "token_endpoint", "introspection_endpoint", "end_session_endpoint"])
def test_one_bad_endpoint_spoils_the_document(name: str, uri: object, problem: str) -> None:
    with pytest.raises(ValueError, match=f"{name}: .*{problem}"):
        parse_metadata(document(**{name: uri}), ISSUER)


@pytest.mark.parametrize("missing", ["absent", None])
def test_a_document_without_keys_is_of_no_use(missing: str | None) -> None:
    with pytest.raises(ValueError, match="no jwks_uri"):
        parse_metadata(document(jwks_uri=missing), ISSUER)


def test_http_may_be_allowed() -> None:
    metadata = parse_metadata(document(jwks_uri="http://issuer.example/jwks"), ISSUER, allow_http=True)
    assert metadata.jwks_uri == "http://issuer.example/jwks"


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(b'{"issuer": "https://evil.example",' + document()[1:], id="duplicate-issuer"),
        pytest.param(b"[]", id="list"),
        pytest.param(b"\xef\xbb\xbf" + document(), id="bom"),
        pytest.param(document() + b"x", id="trailing-garbage"),
        pytest.param(document()[:-1], id="cut"),
        pytest.param(b"[" * 100_000, id="D-json-depth-discovery"),
        pytest.param(b'{"a":' * 100_000, id="D-json-depth-discovery-objects"),
        pytest.param(b" " * 1_000_000, id="a-megabyte-of-nothing"),
    ],
)
def test_only_strict_json_is_read(data: bytes) -> None:
    begin = time.process_time()
    with pytest.raises(StrictJSONError):
        parse_metadata(data, ISSUER)
    assert time.process_time() - begin < 1


@given(st.binary() | st.dictionaries(st.text(), st.text()).map(lambda values: json.dumps(values).encode()))
def test_any_bytes_are_metadata_or_a_value_error(data: bytes) -> None:
    with pytest.raises(ValueError, match=r"JSON|issuer|jwks_uri|nested|occurs twice"):
        parse_metadata(data, ISSUER)


@pytest.mark.parametrize(
    ("issuer", "urls"),
    [
        pytest.param(
            "https://a.example",
            (
                "https://a.example/.well-known/openid-configuration",
                "https://a.example/.well-known/oauth-authorization-server",
            ),
            id="J-issuer-path-none",
        ),
        pytest.param(
            "https://a.example/",
            (
                "https://a.example/.well-known/openid-configuration",
                "https://a.example/.well-known/oauth-authorization-server",
            ),
            id="J-issuer-path-slash",
        ),
        pytest.param(
            "https://a.example:8443/realms/one/",
            (
                "https://a.example:8443/realms/one/.well-known/openid-configuration",
                "https://a.example:8443/.well-known/oauth-authorization-server/realms/one",
                "https://a.example:8443/.well-known/openid-configuration/realms/one",
            ),
            id="J-issuer-path-trailing-slash",
        ),
        pytest.param(
            "http://[::1]:9/t",
            (
                "http://[::1]:9/t/.well-known/openid-configuration",
                "http://[::1]:9/.well-known/oauth-authorization-server/t",
                "http://[::1]:9/.well-known/openid-configuration/t",
            ),
            id="J-issuer-path-ipv6",
        ),
    ],
)
def test_where_the_document_lies(issuer: str, urls: tuple[str, ...]) -> None:
    assert well_known_urls(issuer) == urls


@pytest.mark.parametrize(
    "issuer",
    [
        pytest.param("https://a.example?tenant=1", id="J-issuer-path-query"),
        pytest.param("https://a.example/?", id="J-issuer-path-empty-query"),
        pytest.param("https://a.example/#x", id="J-issuer-path-fragment"),
        pytest.param("https://user:pass@a.example", id="J-issuer-path-userinfo"),
    ],
)
def test_an_issuer_with_more_than_a_path_has_no_document(issuer: str) -> None:
    with pytest.raises(ValueError, match=r"query|plain form"):
        well_known_urls(issuer)

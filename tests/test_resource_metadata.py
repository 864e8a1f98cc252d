"""RFC 9728: the API tells clients who its issuer is, at the well-known place and in every challenge."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any

import pytest
from fastapi import Depends, FastAPI
from hypothesis import given
from hypothesis import strategies as st
from starlette.applications import Starlette
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import HTTPConnection, Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Mount, Route
from starlette.testclient import TestClient

from oidc_middleware import OIDC, OIDCError, OIDCMiddleware, Rule, Settings, resource_metadata_routes
from oidc_middleware.core.challenge import challenge
from oidc_middleware.core.protected_resource import WELL_KNOWN, ResourceMetadata
from oidc_middleware.errors import ConfigError, InsufficientScope, MissingToken
from oidc_middleware.fastapi import OIDCAuth
from oidc_middleware.testing import FakeIssuer, ManualClock, faults

RESOURCE = "https://api.example.com/mcp"
DOCUMENT_URL = "https://api.example.com/.well-known/oauth-protected-resource/mcp"
INSERTED = f"{WELL_KNOWN}/mcp"
ISSUER = "https://login.example.com"
RULES = [Rule("/notes", methods=["POST"], scopes=["notes:write", "notes:read"]), Rule("/notes", scopes=["notes:read"])]


async def echo(request: Request) -> Response:
    return PlainTextResponse(request.scope["path"])


APP = Starlette(routes=[Route("/{rest:path}", echo, methods=["GET", "POST", "OPTIONS"])])


def settings(**keywords: Any) -> Settings:
    return Settings(**({"issuer": ISSUER, "audience": RESOURCE} | keywords))


@pytest.fixture
def issuer(fake_issuer_factory: Callable[..., FakeIssuer]) -> FakeIssuer:
    return fake_issuer_factory(algorithms=("ES256",))


Guard = Callable[..., TestClient]


@pytest.fixture
def guard(issuer: FakeIssuer, oidc_clock: ManualClock) -> Guard:
    def make(app: Any = APP, *, root_path: str = "", **keywords: Any) -> TestClient:
        defaults: dict[str, Any] = {"issuer": issuer.url, "audience": issuer.audience, "resource": RESOURCE}
        oidc = OIDC(transport=issuer.transport(), clock=oidc_clock, **(defaults | keywords))
        return TestClient(OIDCMiddleware(app, oidc=oidc), root_path=root_path, follow_redirects=False)

    return make


# The examples of the RFC


@pytest.mark.parametrize(
    ("resource", "url"),
    [
        pytest.param(
            "https://resource.example.com",
            "https://resource.example.com/.well-known/oauth-protected-resource",
            id="rfc-9728-3.1-no-path",
        ),
        pytest.param(
            "https://resource.example.com/resource1",
            "https://resource.example.com/.well-known/oauth-protected-resource/resource1",
            id="rfc-9728-3.1-path",
        ),
        pytest.param("https://a.example/", "https://a.example/.well-known/oauth-protected-resource", id="host-slash"),
        pytest.param(
            "https://a.example/b/c/", "https://a.example/.well-known/oauth-protected-resource/b/c/", id="path-slash"
        ),
        pytest.param(
            "http://127.0.0.1:8000/mcp",
            "http://127.0.0.1:8000/.well-known/oauth-protected-resource/mcp",
            id="loopback-port",
        ),
    ],
)
def test_rfc_9728_3_1_where_the_document_lies(resource: str, url: str) -> None:
    metadata = ResourceMetadata(resource)
    assert metadata.url == url
    assert [resource[: resource.index("/", 8) if "/" in resource[8:] else None] + metadata.paths[0]] == [url]
    assert metadata.paths[-1] == WELL_KNOWN


def test_rfc_9728_3_2_the_document_of_the_example() -> None:
    metadata = ResourceMetadata(
        "https://resource.example.com",
        authorization_servers=("https://as1.example.com", "https://as2.example.net"),
        bearer_methods_supported=("header", "body"),
        scopes_supported=("profile", "email", "phone"),
        resource_documentation="https://resource.example.com/resource_documentation.html",
    )
    assert metadata.document() == {
        "resource": "https://resource.example.com",
        "authorization_servers": ["https://as1.example.com", "https://as2.example.net"],
        "bearer_methods_supported": ["header", "body"],
        "scopes_supported": ["profile", "email", "phone"],
        "resource_documentation": "https://resource.example.com/resource_documentation.html",
    }


def test_rfc_9728_3_2_what_is_empty_is_left_out() -> None:
    assert ResourceMetadata("https://a.example", bearer_methods_supported=()).document() == {
        "resource": "https://a.example"
    }


def test_rfc_9728_5_1_the_challenge_of_the_example() -> None:
    url = ResourceMetadata("https://resource.example.com").url
    expected = 'Bearer resource_metadata="https://resource.example.com/.well-known/oauth-protected-resource"'
    assert challenge(MissingToken(), resource_metadata=url) == expected


@given(st.text())
def test_no_url_leaves_its_quotes(url: str) -> None:
    """H-error-injection, by way of the setting."""
    value = challenge(InsufficientScope("", ("a",)), resource_metadata=url)
    assert value is not None
    assert re.fullmatch(r'Bearer (?:[a-z_]+="[\x20\x21\x23-\x5b\x5d-\x7e]+"(?:, |\Z))+', value)


# What the door serves


@pytest.mark.parametrize("path", [WELL_KNOWN, INSERTED])
def test_the_door_serves_the_description_to_everybody(guard: Guard, issuer: FakeIssuer, path: str) -> None:
    with guard(rules=RULES, resource_name="Nötes", resource_documentation="https://api.example.com/docs") as client:
        for token in (None, "garbage"):
            headers = {"Host": "evil.example", "X-Forwarded-Host": "evil.example", "Accept": "text/html"}
            answer = client.get(path, headers=headers | ({"Authorization": f"Bearer {token}"} if token else {}))
            assert answer.status_code == 200
            assert answer.headers["content-type"] == "application/json"
            assert answer.headers["access-control-allow-origin"] == "*"
            assert answer.headers["cache-control"] == "public, max-age=3600"
            assert answer.json() == {
                "resource": RESOURCE,
                "authorization_servers": [issuer.url],
                "bearer_methods_supported": ["header"],
                "scopes_supported": ["notes:write", "notes:read"],
                "resource_name": "Nötes",
                "resource_documentation": "https://api.example.com/docs",
            }
        head = client.head(path)
    assert head.status_code == 200
    assert head.headers["access-control-allow-origin"] == "*"


@pytest.mark.parametrize("path", [WELL_KNOWN, INSERTED])
def test_a_page_of_any_origin_may_ask_with_headers(guard: Guard, path: str) -> None:
    headers = {
        "Origin": "https://client.example",
        "Access-Control-Request-Method": "GET",
        "Access-Control-Request-Headers": "mcp-protocol-version",
    }
    with guard() as client:
        for sent in (headers, {}):
            answer = client.options(path, headers=sent)
            assert (answer.status_code, answer.content) == (204, b"")
            assert answer.headers["access-control-allow-origin"] == "*"
            assert answer.headers["access-control-allow-methods"] == "GET, HEAD, OPTIONS"
            assert answer.headers["access-control-allow-headers"] == "Authorization, *"
            assert "access-control-allow-credentials" not in answer.headers


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "get"])
def test_other_methods_are_405(guard: Guard, method: str) -> None:
    with guard() as client:
        answer = client.request(method, INSERTED) if method != "get" else client.post(INSERTED)
    assert answer.status_code == 405
    assert answer.headers["allow"] == "GET, HEAD, OPTIONS"


@pytest.mark.parametrize(
    "path", [WELL_KNOWN + "/", INSERTED + "/", INSERTED + "/x", f"{WELL_KNOWN}/MCP", "/.well-known/other", "/mcp"]
)
def test_only_the_exact_paths_are_taken(guard: Guard, issuer: FakeIssuer, path: str) -> None:
    with guard() as client:
        assert client.get(path).status_code == 401
        answer = client.get(path, headers={"Authorization": f"Bearer {issuer.token()}"})
    assert (answer.status_code, answer.text) == (200, path)


def test_without_resource_there_is_no_description(guard: Guard) -> None:
    with guard(resource=None) as client:
        answer = client.get(WELL_KNOWN)
    assert answer.status_code == 401
    assert "resource_metadata" not in answer.headers["www-authenticate"]


def test_it_is_served_while_the_issuer_is_away(guard: Guard, issuer: FakeIssuer) -> None:
    issuer.fault("*", faults.status(503))
    with guard() as client:
        assert client.get(WELL_KNOWN).status_code == 200


def test_below_a_root_path(guard: Guard, issuer: FakeIssuer) -> None:
    """With uvicorn: it puts `--root-path` before every path, so that of the host's root arrives with it."""
    resource = "https://api.example.com/prefix"
    with guard(root_path="/prefix", resource=resource) as client:
        answer = client.get(f"/prefix{WELL_KNOWN}/prefix")
        assert answer.json()["resource"] == resource
        bare = client.get(f"{WELL_KNOWN}/prefix")  # as hypercorn passes it on
        assert bare.json()["resource"] == resource


def test_a_mounted_app_is_described_at_the_root_by_the_outermost(issuer: FakeIssuer, oidc_clock: ManualClock) -> None:
    oidc = OIDC(
        issuer=issuer.url,
        audience=issuer.audience,
        resource="https://api.example.com/api",
        transport=issuer.transport(),
        clock=oidc_clock,
    )
    protected = OIDCMiddleware(APP, oidc=oidc)
    app = Starlette(routes=[*resource_metadata_routes(oidc), Mount("/api", app=protected)])
    with TestClient(app) as client:
        refused = client.get("/api/x")
        url = re.fullmatch(
            r'Bearer resource_metadata="https://api\.example\.com(.*)"', refused.headers["www-authenticate"]
        )
        assert url is not None
        answer = client.get(url[1])
        assert answer.json()["resource"] == "https://api.example.com/api"
        assert client.get(WELL_KNOWN).json() == answer.json()
        assert client.head(WELL_KNOWN).status_code == 200
        assert client.options(WELL_KNOWN).status_code == 204
        assert client.post(WELL_KNOWN).status_code == 405


def test_fastapi_without_a_door_has_the_routes_too(issuer: FakeIssuer, oidc_clock: ManualClock) -> None:
    oidc = OIDC(issuer=issuer.url, audience=RESOURCE, resource=RESOURCE, transport=issuer.transport(), clock=oidc_clock)
    auth = OIDCAuth(oidc=oidc)
    app = FastAPI()
    app.router.routes.extend(resource_metadata_routes(oidc))

    @app.get("/notes", dependencies=[Depends(auth.require("notes:read"))])
    async def notes() -> list[str]:
        return []

    with TestClient(app) as client:
        expected = f'Bearer scope="notes:read", resource_metadata="{DOCUMENT_URL}"'
        assert client.get("/notes").headers["www-authenticate"] == expected
        assert client.get(INSERTED).json()["resource"] == RESOURCE
        assert INSERTED not in client.get("/openapi.json").json()["paths"]


def test_routes_need_a_resource() -> None:
    with pytest.raises(ConfigError) as error:
        resource_metadata_routes(settings())
    assert error.value.field == "resource"


def test_several_issuers_are_all_named() -> None:
    issuers = [{"issuer": f"https://{name}.example", "audience": RESOURCE} for name in ("a", "b")]
    metadata = Settings(issuers=issuers, resource=RESOURCE).resource_metadata
    assert metadata is not None
    assert metadata.authorization_servers == ("https://a.example", "https://b.example")


ENTRA = "https://login.microsoftonline.com/{tenantid}/v2.0"
TENANTS = ("11111111-2222-3333-4444-555555555555", "66666666-7777-8888-9999-000000000000")


@pytest.mark.parametrize(
    ("tenants", "named"),
    [
        (TENANTS, tuple(ENTRA.replace("{tenantid}", tenant) for tenant in TENANTS)),
        ("*", ()),
    ],
)
def test_each_tenant_of_a_template_is_named(tenants: Any, named: tuple[str, ...]) -> None:
    metadata = settings(issuer=ENTRA, tenants=tenants, resource=RESOURCE).resource_metadata
    assert metadata is not None
    assert metadata.authorization_servers == named
    assert ("authorization_servers" in metadata.document()) is bool(named)


def test_issuers_that_a_resolver_finds_are_named_where_they_are_set() -> None:
    async def find(iss: str) -> None:
        """Find none."""

    keywords: dict[str, Any] = {"issuer_resolver": find, "resource": RESOURCE}
    metadata = Settings(**keywords, authorization_servers=["https://a.example"]).resource_metadata
    assert metadata is not None
    assert metadata.authorization_servers == ("https://a.example",)
    empty = Settings(**keywords).resource_metadata
    assert empty is not None
    assert "authorization_servers" not in empty.document()


def test_the_issuers_to_name_can_be_chosen() -> None:
    metadata = settings(resource=RESOURCE, authorization_servers=["https://a.example", "https://b.example/x"])
    assert metadata.resource_metadata is not None
    assert metadata.resource_metadata.authorization_servers == ("https://a.example", "https://b.example/x")


@pytest.mark.parametrize(
    ("keywords", "scopes"),
    [
        pytest.param({}, (), id="no-rules"),
        pytest.param({"rules": RULES}, ("notes:write", "notes:read"), id="of-the-rules"),
        pytest.param({"rules": [Rule("/a", any_scopes=["x", "y"]), Rule("/b", scopes=["x"])]}, ("x", "y"), id="any"),
        pytest.param({"rules": RULES, "scopes_supported": ["notes:read"]}, ("notes:read",), id="chosen"),
        pytest.param({"rules": RULES, "scopes_supported": []}, (), id="none"),
    ],
)
def test_which_scopes_are_named(keywords: dict[str, Any], scopes: tuple[str, ...]) -> None:
    metadata = settings(resource=RESOURCE, **keywords).resource_metadata
    assert metadata is not None
    assert metadata.scopes_supported == scopes
    assert ("scopes_supported" in metadata.document()) is bool(scopes)


# Challenges


def challenge_of(
    client: TestClient, path: str, token: str | None = None, method: str = "GET"
) -> tuple[int, str | None]:
    headers = {} if token is None else {"Authorization": f"Bearer {token}"}
    answer = client.request(method, path, headers={"Host": "evil.example"} | headers)
    return answer.status_code, answer.headers.get("www-authenticate")


def test_every_401_and_403_says_where_to_look(guard: Guard, issuer: FakeIssuer) -> None:
    where = f'resource_metadata="{DOCUMENT_URL}"'
    with guard(rules=RULES) as client:
        assert challenge_of(client, "/other") == (401, f"Bearer {where}")
        assert challenge_of(client, "/notes") == (401, f'Bearer scope="notes:read", {where}')
        assert challenge_of(client, "/notes", method="POST") == (401, f'Bearer scope="notes:write notes:read", {where}')
        bad = 'Bearer error="invalid_token", error_description="The access token is invalid."'
        assert challenge_of(client, "/other", "garbage") == (401, f"{bad}, {where}")
        lacking = (
            'Bearer error="insufficient_scope", error_description="The access token does not permit this request."'
        )
        scopes = 'scope="notes:write notes:read"'
        assert challenge_of(client, "/notes", issuer.token(scope="notes:read"), "POST") == (
            403,
            f"{lacking}, {scopes}, {where}",
        )
        status, value = challenge_of(client, "/other;x")
        assert (status, "resource_metadata" in (value or "")) == (400, False)


def test_503_has_no_challenge(guard: Guard, issuer: FakeIssuer) -> None:
    issuer.fault("*", faults.status(503))
    with guard() as client:
        assert challenge_of(client, "/other", issuer.token()) == (503, None)


def test_answers_of_on_error_say_it_too(guard: Guard) -> None:
    def on_error(conn: HTTPConnection, error: OIDCError) -> Response:
        return JSONResponse({"sorry": error.code})

    with guard(on_error=on_error) as client:
        answer = client.get("/")
    assert answer.json() == {"sorry": "missing_token"}
    assert answer.headers["www-authenticate"] == f'Bearer resource_metadata="{DOCUMENT_URL}"'


def test_a_page_can_read_the_challenge_where_cors_exposes_it(guard: Guard, issuer: FakeIssuer) -> None:
    inner = guard()
    app = CORSMiddleware(inner.app, allow_origins=["https://client.example"], expose_headers=["WWW-Authenticate"])
    with TestClient(app) as client:
        answer = client.get("/", headers={"Origin": "https://client.example"})
        assert answer.headers["access-control-expose-headers"] == "WWW-Authenticate"
        assert DOCUMENT_URL in answer.headers["www-authenticate"]
        described = client.get(INSERTED, headers={"Origin": "https://client.example"})
    assert described.headers.get_list("access-control-allow-origin") == ["https://client.example"]


# Settings


@pytest.mark.parametrize(
    "resource",
    [
        "https://api.example.com",
        "https://api.example.com/",
        "https://api.example.com:8443/a/b-c_d~e/f.g",
        "https://api.example.com/a@b:c",
        "http://localhost:8000/mcp",
        "http://127.0.0.1/mcp",
        "http://[::1]:9/",
    ],
)
def test_resources_accepted(resource: str) -> None:
    assert settings(resource=resource).resource == resource


@pytest.mark.parametrize(
    ("resource", "problem"),
    [
        ("https://api.example.com/#a", "has a fragment"),
        ("https://api.example.com?a=b", "has a query"),
        ("http://api.example.com/", "is not encrypted, so anybody on the way can read tokens"),
        ("api.example.com", "is not an https URL"),
        ("urn:example:api", "is not an https URL"),
        ("", "is empty"),
        ("https://user@api.example.com", "has a user name or password in it"),
        ("https://api.example.com/a b", "has white space or control characters"),
        ("https://api.example.com/a/../b", "is not a URL in plain form"),
        ("https://api.example.com//a", "has a path that is not plain"),
        ("https://api.example.com/a/*", "has a path that is not plain"),
        ("https://api.example.com/%7Bid%7D", "has a path that is not plain"),
        ("https://api.example.com/a;b", "has a path that is not plain"),
        (DOCUMENT_URL, "is the address of a document, not a resource"),
        (7, "must be text, not int"),
    ],
)
def test_resources_refused(resource: Any, problem: str) -> None:
    with pytest.raises(ConfigError) as error:
        settings(resource=resource)
    assert (error.value.field, error.value.problem) == ("resource", problem)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("resource_name", ""),
        ("resource_name", "a\nb"),
        ("resource_documentation", "docs"),
        ("authorization_servers", ["https://a.example?b=c"]),
        ("authorization_servers", [7]),
        ("authorization_servers", ["https://a.example/{tenant}"]),
        ("scopes_supported", ["a b"]),
        ("scopes_supported", ['"']),
        ("scopes_supported", 7),
    ],
)
def test_other_members_are_checked(field: str, value: Any) -> None:
    with pytest.raises(ConfigError) as error:
        settings(resource=RESOURCE, **{field: value})
    assert error.value.field == field


def test_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OIDC_RESOURCE", RESOURCE)
    monkeypatch.setenv("OIDC_RESOURCE_NAME", "Notes")
    monkeypatch.setenv("OIDC_SCOPES_SUPPORTED", "a, b")
    metadata = settings().resource_metadata
    assert metadata is not None
    assert json.loads(json.dumps(metadata.document())) == {
        "resource": RESOURCE,
        "authorization_servers": [ISSUER],
        "bearer_methods_supported": ["header"],
        "scopes_supported": ["a", "b"],
        "resource_name": "Notes",
    }


@pytest.mark.parametrize(
    ("keywords", "field"),
    [
        ({"public": [WELL_KNOWN]}, "public"),
        ({"public": ["/.well-known/*"]}, "public"),
        ({"public": [INSERTED]}, "public"),
        ({"optional": ["/.well-known/{name}"]}, "optional"),
        ({"rules": [Rule(INSERTED, scopes=["a"])]}, "rules"),
        ({"rules": [Rule(WELL_KNOWN)]}, "rules"),
    ],
)
def test_lists_that_speak_of_its_paths_are_refused(keywords: dict[str, Any], field: str) -> None:
    with pytest.raises(ConfigError) as error:
        settings(resource=RESOURCE, **keywords)
    assert error.value.field == field
    settings(**keywords)


def test_a_wide_rule_does_not_reach_it(guard: Guard) -> None:
    with guard(rules=[Rule("/*", scopes=["a"])]) as client:
        assert client.get(WELL_KNOWN).status_code == 200
        assert client.get("/x").status_code == 401

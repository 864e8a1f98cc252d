"""What an app behind the proxy is told of who sends a request and from where, as bytes on its socket."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest

from oidc_middleware.core.identity_headers import IDENTITY_HEADERS, folded

from proxy_kit import PARSERS, App, Front, Message, before, behind, saying

pytestmark = pytest.mark.anyio

IDENTITY = frozenset(map(folded, IDENTITY_HEADERS))


@pytest.fixture
async def app() -> AsyncIterator[App]:
    async with behind() as app:
        yield app


@pytest.fixture(params=PARSERS)
async def front(app: App, request: pytest.FixtureRequest) -> AsyncIterator[Front]:
    async with before(app, parser=PARSERS[request.param]) as front:
        yield front


def identity_in(request: Message) -> dict[str, str]:
    """Return the headers that tell an identity, in whatever spelling; each came once."""
    found = [(name.decode(), value.decode()) for name, value in request.headers if folded(name) in IDENTITY]
    assert len(dict(found)) == len(found)
    return dict(found)


def told(issuer: str, **more: str) -> dict[str, str]:
    values = {"user": "alice", "issuer": issuer, **more}
    return {f"x-{family}-{name}": value for family in ("forwarded", "auth-request") for name, value in values.items()}


SPOOFED = {
    "F-spoof": ("X-Forwarded-User: admin",),
    "F-underscore": ("X_Forwarded_User: admin",),
    "F-mixed": ("X-Forwarded_User: admin", "X_Forwarded-User: admin", "x-FORWARDED-user: admin"),
    "F-dot": ("X.Forwarded.User: admin",),
    "F-other-signs": ("X~Forwarded~User: admin", "X!Auth|Request^User: admin"),
    "F-dup": ("X-Forwarded-User: admin", "X-Forwarded-User: root"),
    "F-comma": ("X-Forwarded-User: admin, bob",),
    "F-conn": ("Connection: close, X-Forwarded-User", "X-Forwarded-User: admin"),
    "F-conn-lower": ("connection: x-forwarded-user, authorization, x-auth-request-user",),
    "F-remote-user": tuple(
        f"{name}: admin"
        for name in (
            *("Remote-User", "Remote-Groups", "X-Remote-User", "X-Userinfo", "X-Id-Token"),
            *("X-Auth-Request-User", "X-Auth-Request-Email", "X-Auth-Request-Redirect", "X-Auth-Request-New"),
            *("X-Forwarded-Email", "X-Forwarded-Groups", "X-Forwarded-Preferred-Username"),
            *("X-Forwarded-Access-Token", "X-Forwarded-Issuer"),
        )
    ),
}


@pytest.mark.parametrize("headers", SPOOFED.values(), ids=SPOOFED)
async def test_the_app_sees_the_verified_identity_once(front: Front, app: App, headers: tuple[str, ...]) -> None:
    answer = await front.ask("GET /orders", *headers)
    assert answer.status == 200
    assert identity_in(app.last) == told(front.issuer.url)
    assert b"admin" not in str(app.last).encode()


@pytest.mark.parametrize("headers", SPOOFED.values(), ids=SPOOFED)
async def test_nobody_is_anybody_on_a_public_path(front: Front, app: App, headers: tuple[str, ...]) -> None:
    assert (await front.ask("GET /open/door", *headers, authorized=False)).status == 200
    assert identity_in(app.last) == {}
    assert b"admin" not in str(app.last).encode()


async def test_a_bare_line_feed_and_a_folded_line_bring_nothing_in(front: Front, app: App) -> None:
    """F-lf, F-obsfold."""
    for header in ("X-A: 1\nX-Forwarded-User: admin", "X-A: 1\r\n X-Forwarded-User: admin"):
        answer = await front.ask("GET /orders", header)
        assert answer.status in {200, 400}
        if answer.status == 200:
            assert identity_in(app.requests.pop()) == told(front.issuer.url)
    assert app.requests == []


async def test_trailers_end_here(front: Front, app: App) -> None:
    """F-te-trailers: whatever they say, in both directions."""
    trailers = "X-Forwarded-User: admin\r\nX-Trailer: 1"
    body = b"2\r\nhi\r\n0\r\n" + trailers.encode() + b"\r\n\r\n"
    app.answer = saying(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-T\r\n\r\n" + body)
    answer = await front.ask("POST /orders", "TE: trailers", "Trailer: X-T", "Transfer-Encoding: chunked", body=body)
    assert (answer.status, answer.body, answer.all("trailer"), answer.all("x-trailer")) == (200, b"hi", [], [])
    assert identity_in(app.last) == told(front.issuer.url)
    assert (app.last.all("te"), app.last.all("trailer"), app.last.all("x-trailer")) == ([], [], [])


@pytest.mark.parametrize(
    ("claims", "headers"),
    [
        pytest.param({"sub": "a\r\nX-Admin: 1"}, {"user": "a%0D%0AX-Admin: 1"}, id="F-crlf-claim"),
        pytest.param({"sub": "a\0"}, {"user": "a%00"}, id="F-nul-claim"),
        pytest.param({"preferred_username": "José 李"}, {"preferred-username": "Jos%C3%A9 %E6%9D%8E"}, id="F-unicode"),
        pytest.param({"email": "a@b.example"}, {}, id="F-email-unverified"),
        pytest.param({"email": "a@b.example", "email_verified": True}, {"email": "a@b.example"}, id="F-email-verified"),
        pytest.param({"groups": ["b,admin", "a"]}, {"groups": "a,b%2Cadmin"}, id="F-groups-type"),
        pytest.param({"groups": ["x" * 20] + [f"g{n}" for n in range(10_000)]}, {}, id="F-groups-many"),
    ],
)
async def test_claims_become_headers(app: App, claims: dict[str, Any], headers: dict[str, str]) -> None:
    async with before(app) as front:
        subject = claims.pop("sub", "alice")
        front.authorization = f"Authorization: Bearer {front.issuer.token(subject, claims=claims)}"
        if len(front.authorization) > 16_000:
            assert (await front.ask("GET /orders")).status == 401  # longer than any token we read
            return
        assert (await front.ask("GET /orders")).status == 200
        assert identity_in(app.last) == told(front.issuer.url, **headers)
        assert app.last.all("x-admin") == []


async def test_claims_in_headers_of_ones_own(app: App) -> None:
    """And nobody else can send these, in any spelling."""
    claims = {"team": {"name": "red, blue"}, "level": 3, "staff": True, "tags": ["x", "y"], "email": "a@b.example"}
    headers = {
        "X-WEBAUTH-USER": "sub", "X-Team": "team.name", "X-Level": "level", "X-Staff": "staff", "X-Tags": "tags",
        "X-Mail": "email", "X-None": "none",
    }  # fmt: skip
    async with before(app, proxy={"claim_headers": headers}) as front:
        front.authorization = f"Authorization: Bearer {front.issuer.token('alice', claims=claims)}"
        await front.ask("GET /orders", "X-Webauth-User: admin", "X_Level: 9", "X-Mail: root@b.example", "X-None: 1")
        seen = {name: app.last.all(name.lower()) for name in headers}
        assert seen == {
            "X-WEBAUTH-USER": ["alice"], "X-Team": ["red%2C blue"], "X-Level": ["3"], "X-Staff": ["true"],
            "X-Tags": ["x,y"], "X-Mail": [], "X-None": [],
        }  # fmt: skip
        assert app.last.all("x_level") == []
        await front.ask("GET /open/x", "X-Webauth-User: admin", authorized=False)
        assert app.last.all("x-webauth-user") == []


async def test_a_claim_may_take_the_place_of_a_header_of_ours(app: App) -> None:
    """F-spoof: there is one value, the chosen one, or none."""
    async with before(app, proxy={"claim_headers": {"X-Forwarded-User": "name", "X-Forwarded-Email": "none"}}) as front:
        front.authorization = f"Authorization: Bearer {front.issuer.token('alice', claims={'name': 'Alice'})}"
        await front.ask("GET /orders", "X-Forwarded-User: admin", "X-Forwarded-Email: root@b.example")
        assert (app.last.all("x-forwarded-user"), app.last.all("x-forwarded-email")) == (["Alice"], [])
        assert app.last.all("x-auth-request-user") == ["alice"]


async def test_credentials_stay_here(front: Front, app: App) -> None:
    """`Authorization` and our own cookies, of sessions and logins, with and without prefix."""
    cookies = "a=1; __Host-oidc_session=s3cret;oidc_session=s3cret; b=2;__host-oidc_session_flow_0a1b2c3d=s3cret"
    await front.ask("GET /orders", f"Cookie: {cookies}", "Cookie: __Secure-OIDC_SESSION=s3cret", "Cookie: c=3")
    assert app.last.all("cookie") == ["a=1; b=2", "c=3"]
    await front.ask("GET /open/x", "Authorization: Basic s3cret", f"Cookie: {cookies}", authorized=False)
    assert app.last.all("cookie") == ["a=1; b=2"]
    for request in app.requests:
        assert request.all("authorization") == []
        assert b"s3cret" not in str(request.headers).encode()


async def test_cookies_that_only_look_alike_go_on_byte_by_byte(front: Front, app: App) -> None:
    cookie = 'x_oidc_session=1;oidc_session2=2; q="a; b" ;empty=;odd'
    await front.ask("GET /orders", f"Cookie: {cookie}")
    assert app.last.one("cookie") == cookie


async def test_credentials_go_on_by_option(app: App) -> None:
    async with before(app, proxy={"pass_authorization": True}, pass_access_token=True) as front:
        await front.ask("GET /orders")
        token = front.authorization.removeprefix("Authorization: Bearer ")
        assert app.last.one("authorization") == f"Bearer {token}"
        assert app.last.one("x-forwarded-access-token") == app.last.one("x-auth-request-access-token") == token
    async with before(app, proxy={"pass_access_token": False}, pass_access_token=True) as front:
        await front.ask("GET /orders")
        assert app.last.all("x-forwarded-access-token") == []


async def test_the_cookie_of_a_session_is_not_for_the_app_to_set(front: Front, app: App) -> None:
    """F-resp-leak: what else the app says goes on, a challenge of its own among it."""
    app.answer = saying(
        b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\nSet-Cookie: a=1; Path=/\r\n"
        b"Set-Cookie: __Host-oidc_session=evil; Path=/; Secure\r\nset-cookie: oidc_session_flow_00=evil\r\n"
        b"Set-Cookie: =oidc_session=evil\r\nSet-Cookie:  = oidc_session_flow_00=evil; Path=/\r\n"
        b"Set-Cookie: b=2\r\nServer-Timing: db\r\nWWW-Authenticate: Basic\r\n\r\n"
    )
    answer = await front.ask("GET /orders")
    assert answer.all("set-cookie") == ["a=1; Path=/", "b=2"]
    assert (answer.status, answer.one("server-timing"), answer.one("www-authenticate")) == (401, "db", "Basic")


@pytest.mark.parametrize(
    ("said", "passed"),
    [
        ([], ["private"]),
        (["max-age=60"], ["max-age=60", "private"]),
        (["no-store"], ["no-store"]),
        (["Private, max-age=1"], ["Private, max-age=1"]),
        (["public, max-age=9"], ["public, max-age=9"]),
        (["max-age=1, s-maxage=9"], ["max-age=1, s-maxage=9"]),
    ],
)
async def test_no_shared_cache_gives_it_to_others(front: Front, app: App, said: list[str], passed: list[str]) -> None:
    """F-cache-control."""
    lines = "".join(f"Cache-Control: {value}\r\n" for value in said).encode()
    app.answer = saying(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n" + lines + b"\r\n")
    assert (await front.ask("GET /orders")).all("cache-control") == passed
    assert (await front.ask("GET /open/x", authorized=False)).all("cache-control") == said


# Where a request came from


FORWARDED = (
    "X-Forwarded-For: 192.0.2.1",
    "X-Forwarded-Proto: https",
    "X-Forwarded-Host: evil.example",
    "X-Forwarded-Port: 444",
    "X-Forwarded-Prefix: /evil",
    "X-Real-IP: 192.0.2.1",
    "Forwarded: for=192.0.2.1;host=evil.example;proto=https",
)


def origin_in(request: Message) -> dict[str, list[str]]:
    names = ("for", "proto", "host", "port", "prefix")
    return {name: request.all(name) for name in (*(f"x-forwarded-{name}" for name in names), "x-real-ip", "forwarded")}


async def test_what_a_stranger_says_of_itself_is_replaced(front: Front, app: App) -> None:
    """X-xff, X-host."""
    odd = ("X_Forwarded_For: 192.0.2.9", "X-Forwarded-Server: evil", "True-Client-IP: 192.0.2.9", "X-Scheme: https")
    await front.ask("GET /orders", *FORWARDED, *odd, host="app.example:8443")
    assert app.last.one("host") == f"127.0.0.1:{app.port}"
    assert origin_in(app.last) == {
        "x-forwarded-for": ["127.0.0.1"],
        "x-forwarded-proto": ["http"],
        "x-forwarded-host": ["app.example:8443"],
        "x-forwarded-port": ["8443"],
        "x-forwarded-prefix": [],
        "x-real-ip": ["127.0.0.1"],
        "forwarded": ['for=127.0.0.1;host="app.example:8443";proto=http'],
    }
    assert b"192.0.2.9" not in str(app.last.headers).encode()
    assert b"evil" not in str(app.last.headers).encode()


async def test_a_trusted_proxy_is_believed(app: App) -> None:
    async with before(app, trusted_proxies=["127.0.0.0/8", "10.0.0.7"]) as front:
        await front.ask("GET /orders", *FORWARDED, "X-Forwarded-For: 10.0.0.7")
        assert origin_in(app.last) == {
            "x-forwarded-for": ["192.0.2.1, 10.0.0.7, 127.0.0.1"],
            "x-forwarded-proto": ["https"],
            "x-forwarded-host": ["evil.example"],
            "x-forwarded-port": ["444"],
            "x-forwarded-prefix": ["/evil"],
            "x-real-ip": ["192.0.2.1"],
            "forwarded": ['for=192.0.2.1;host=evil.example;proto=https, for=127.0.0.1;host="app.example";proto=http'],
        }
        await front.ask("GET /orders", "X_Forwarded_For: 192.0.2.9", "X-Forwarded-User: admin")
        assert origin_in(app.last)["x-forwarded-for"] == ["127.0.0.1"]
        assert identity_in(app.last) == told(front.issuer.url)


async def test_a_list_of_addresses_is_believed_as_far_as_the_proxies_that_made_it(app: App) -> None:
    """X-xff: the client wrote the first one, a proxy that is trusted the second."""
    async with before(app, trusted_proxies=["127.0.0.1", "10.0.0.0/8"]) as front:
        await front.ask("GET /orders", "X-Forwarded-For: 8.8.8.8, 192.0.2.1, 10.1.1.1")
        assert app.last.one("x-real-ip") == "192.0.2.1"


async def test_base_url_says_where_browsers_find_it(app: App) -> None:
    """X-host: so no link that the app sends to anybody is of the client's making."""
    login: dict[str, Any] = {
        "login": True,
        "client_id": "app",
        "client_secret": "s" * 32,
        "base_url": "https://app.example/base",
    }
    async with before(app, **login) as front:
        await front.ask("GET /orders", *FORWARDED, host="evil.example")
        assert app.last.one("x-forwarded-host") == "app.example"
        assert (app.last.one("x-forwarded-proto"), app.last.one("x-forwarded-port")) == ("https", "443")
        assert b"evil" not in str(app.last.headers).encode()


async def test_the_host_goes_on_by_option(app: App) -> None:
    async with before(app, proxy={"pass_host": True}) as front:
        await front.ask("GET /orders", host="app.example:81")
        assert app.last.one("host") == "app.example:81"


@pytest.mark.parametrize("header", ["X-Original-URL", "X-Rewrite-URL", "X_Original_Url", "X-HTTP-Method-Override"])
async def test_rules_decided_by_the_request_itself(front: Front, app: App, header: str) -> None:
    """P-xfu, P-method-override: what would make another request of it ends here."""
    await front.ask("GET /open/x", f"{header}: /admin", authorized=False)
    assert app.last.all(header.lower()) == []
    assert app.last.start == b"GET /open/x HTTP/1.1"

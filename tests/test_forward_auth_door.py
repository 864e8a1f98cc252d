"""The forward-auth endpoint of an app that has the middleware: what only a scope can show."""

from __future__ import annotations

from typing import Any

import pytest
from starlette.requests import HTTPConnection
from starlette.responses import PlainTextResponse, Response

from oidc_middleware import OIDCError, OIDCMiddleware, Rule
from oidc_middleware.testing import FakeIssuer, faults

from abuse.door import Answer, Door, Headers, is_503

pytestmark = pytest.mark.anyio

AUTH = "/oauth2/auth"
PROXY = ("10.0.0.1", 40000)
SETTINGS: dict[str, Any] = {"forward_auth": True, "trusted_proxies": ["10.0.0.0/8"], "public": ["/health", "/docs/*"]}


def door(issuer: FakeIssuer, **settings: Any) -> Door:
    return Door.of(issuer, **(SETTINGS | settings))


def uri(path: str, method: str = "GET") -> Headers:
    return [(b"x-forwarded-uri", path.encode()), (b"x-forwarded-method", method.encode())]


async def ask(asked: Door, headers: Headers, **more: Any) -> Answer:
    return await asked.ask(AUTH, **({"client": PROXY, "headers": headers} | more))


async def test_the_app_is_not_called(fake_issuer: FakeIssuer) -> None:
    answer = await ask(door(fake_issuer), uri("/health"))
    assert (answer.status, answer.seen) == (200, None)


async def test_without_forward_auth_the_path_is_the_apps(fake_issuer: FakeIssuer) -> None:
    answer = await ask(door(fake_issuer, forward_auth=False), uri("/health"), token=fake_issuer.token("alice"))
    assert (answer.status, answer.seen is not None) == (200, True)


@pytest.mark.parametrize("client", [None, ("testclient", 1), ("192.0.2.1", 1), ("", 0)], ids=str)
async def test_a_peer_without_an_address_of_a_proxy_is_not_believed(fake_issuer: FakeIssuer, client: Any) -> None:
    """A Unix socket has no address."""
    assert (await ask(door(fake_issuer), uri("/health"), client=client)).status == 401
    assert (await ask(door(fake_issuer), uri("/health"))).status == 200


async def test_a_client_on_ipv6_may_be_a_proxy_on_ipv4(fake_issuer: FakeIssuer) -> None:
    assert (await ask(door(fake_issuer), uri("/health"), client=("::ffff:10.0.0.1", 1))).status == 200


# WebSockets


@pytest.mark.parametrize("path", [AUTH, AUTH + "/ws"])
async def test_a_handshake_that_a_proxy_passes_on_is_answered_without_being_accepted(
    fake_issuer: FakeIssuer, path: str
) -> None:
    asked = door(fake_issuer)
    headers = uri("/ws") if path == AUTH else []
    known = await asked.handshake(path, client=PROXY, headers=headers, token=fake_issuer.token("alice"))
    assert (known.status, known.headers["x-forwarded-user"]) == (200, "alice")
    assert (await asked.handshake(path, client=PROXY, headers=headers)).status == 401


async def test_where_a_server_cannot_deny_a_handshake_it_is_closed(fake_issuer: FakeIssuer) -> None:
    answer = await door(fake_issuer).handshake(
        AUTH, denial=False, client=PROXY, headers=uri("/ws"), token=fake_issuer.token("alice")
    )
    assert [message["type"] for message in answer.messages] == ["websocket.close"]


async def test_a_token_may_be_a_subprotocol_where_that_is_configured(fake_issuer: FakeIssuer) -> None:
    token = fake_issuer.token("alice").encode()
    headers = [*uri("/ws"), (b"sec-websocket-key", b"eA=="), (b"sec-websocket-protocol", b"chat, bearer." + token)]
    answer = await ask(door(fake_issuer, websocket_token="subprotocol"), headers)
    assert (answer.status, answer.headers["x-forwarded-user"]) == (200, "alice")
    assert (await ask(door(fake_issuer), headers)).status == 401


# Settings that hold here too


async def test_the_access_token_is_told_where_that_is_configured(fake_issuer: FakeIssuer) -> None:
    token = fake_issuer.token("alice")
    for passes, told in ((True, token), (False, "")):
        answer = await ask(door(fake_issuer, pass_access_token=passes), uri("/x"), token=token)
        assert answer.headers["x-forwarded-access-token"] == told
        assert answer.headers["x-auth-request-access-token"] == told


async def test_protect_lets_an_ambiguous_path_to_who_satisfies_every_rule(fake_issuer: FakeIssuer) -> None:
    asked = door(fake_issuer, ambiguous_paths="protect", rules=[Rule("/admin/*", scopes=("admin",))])
    for headers, path in ((uri("/docs//x"), AUTH), ([], AUTH + "/docs//x")):
        for scope, status in (("read", 403), ("admin", 200)):
            token = fake_issuer.token("alice", scope=scope)
            answer = await asked.ask(path, client=PROXY, headers=headers, token=token)
            assert (answer.status, answer.seen) == (status, None)


async def test_the_prefix_is_that_of_the_settings(fake_issuer: FakeIssuer) -> None:
    asked = door(fake_issuer, prefix="/sso")
    assert (await asked.ask("/sso/auth/health", client=PROXY)).status == 200
    assert (await asked.ask("/oauth2/auth/health", client=PROXY)).status == 401


async def test_root_path_is_where_the_endpoint_is_and_not_what_is_asked_about(fake_issuer: FakeIssuer) -> None:
    """Servers have it in the path or not."""
    asked = door(fake_issuer)
    mounted: dict[str, Any] = {"client": PROXY, "root_path": "/api"}
    assert (await asked.ask("/api/oauth2/auth/health", **mounted)).status == 200
    assert (await asked.ask("/api/oauth2/auth/api/health", **mounted)).status == 401
    assert (await asked.ask("/api/oauth2/auth", headers=uri("/health"), **mounted)).status == 200
    assert (await asked.ask("/oauth2/auth/health", **mounted)).status == 200


async def test_a_server_may_leave_out_the_raw_path(fake_issuer: FakeIssuer) -> None:
    asked = door(fake_issuer)
    assert (await asked.ask(AUTH + "/health", client=PROXY, raw_path=None)).status == 200
    assert (await asked.ask(AUTH + "/docs/%20x", client=PROXY, raw_path=None)).status == 200
    assert (await asked.ask(AUTH + "/x", client=PROXY, raw_path=None)).status == 401


async def test_a_raw_path_that_says_something_else_opens_nothing(fake_issuer: FakeIssuer) -> None:
    asked = door(fake_issuer)
    assert (await asked.ask(AUTH + "/admin", client=PROXY, raw_path=b"/health")).status == 400
    assert (await asked.ask(AUTH + "/admin", client=PROXY, raw_path=b"/oauth2/%61uth/health")).status == 400


async def test_on_error_makes_the_answer_and_sees_the_request_that_is_asked_about(fake_issuer: FakeIssuer) -> None:
    def on_error(conn: HTTPConnection, error: OIDCError) -> Response:
        return PlainTextResponse(f"{conn.scope['method']} {conn.scope['path']}: {error.code}")

    answer = await ask(door(fake_issuer, on_error=on_error), uri("/orders?x", "POST"))
    assert (answer.status, answer.body) == (401, b"POST /orders: missing_token")
    assert "www-authenticate" in answer.headers


async def test_a_mount_lets_in_tokens_for_its_own_audience_alone(fake_issuer: FakeIssuer) -> None:
    whole = door(fake_issuer, audience=["https://one.example", "https://two.example"])
    mount = Door.before(whole.oidc, whole.clock)
    mount.app = OIDCMiddleware(mount._app, oidc=whole.oidc, audience="https://one.example")
    for audience, status in (("https://one.example", 200), ("https://two.example", 401)):
        token = fake_issuer.token("alice", audience=audience)
        assert (await ask(mount, uri("/x"), token=token)).status == status
        assert (await ask(whole, uri("/x"), token=token)).status == 200


async def test_a_mount_has_rules_and_public_paths_of_its_own(fake_issuer: FakeIssuer) -> None:
    whole = door(fake_issuer)
    mount = Door.before(whole.oidc, whole.clock)
    mount.app = OIDCMiddleware(mount._app, oidc=whole.oidc, public=["/open"])
    assert (await ask(mount, uri("/open"))).status == 200
    assert (await ask(mount, uri("/health"))).status == 401


# Who cannot say, and who says no


async def test_an_issuer_that_does_not_answer_is_503(fake_issuer: FakeIssuer) -> None:
    asked = door(fake_issuer)
    fake_issuer.fault("discovery", faults.status(500))
    answer = await ask(asked, uri("/x"), token=fake_issuer.token("alice"))
    assert is_503(answer)
    assert (await ask(asked, uri("/health"), token=fake_issuer.token("alice"))).status == 200


async def test_what_is_revoked_does_not_pass_any_more(fake_issuer: FakeIssuer) -> None:
    asked = door(fake_issuer)
    token = fake_issuer.token("alice")
    assert (await ask(asked, uri("/x"), token=token)).status == 200
    await asked.oidc.revoke.token(token)
    answer = await ask(asked, uri("/x"), token=token)
    assert answer.status == 401
    assert 'error="invalid_token"' in (answer.challenge or "")
    await asked.oidc.stop()


async def test_a_request_that_is_malformed_says_nothing_of_the_path_in_the_answer(fake_issuer: FakeIssuer) -> None:
    answer = await ask(door(fake_issuer), uri("/<b>/../x"))
    assert answer.status == 400
    assert b"<b>" not in answer.body

"""A configuration that cannot work: told at once where somebody reads it, and nobody gets in meanwhile."""

from __future__ import annotations

import asyncio
import logging
from types import TracebackType
from typing import Any

import pytest
from lifecycle_kit import Lifespan, ask, http_scope, who
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.responses import PlainTextResponse
from starlette.routing import Route, WebSocketRoute
from starlette.testclient import TestClient, WebSocketDenialResponse

from oidc_middleware import OIDC, OIDCMiddleware, Settings
from oidc_middleware.errors import ConfigError

ISSUER = "https://issuer.example"
CAUSE = "config_error: audience: is missing. Pass audience=... or set OIDC_AUDIENCE."
OTHERS: Any = {"issuer": ISSUER, "audience": "https://api.example"}


def misconfigured(**settings: Any) -> Starlette:
    """Return an app whose middleware has no audience, or these settings."""
    return Starlette(
        routes=[Route("/", lambda _: PlainTextResponse("in")), WebSocketRoute("/ws", lambda _: None)],
        middleware=[Middleware(OIDCMiddleware, **(settings or {"issuer": ISSUER, "public": ["/"]}))],
    )


WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "missing": ({"issuer": ISSUER}, "audience"),
    "wrong-type": (OTHERS | {"issuer": 3}, "issuer"),
    "unknown": (OTHERS | {"audiences": "x"}, "audiences"),
    "overlap": (OTHERS | {"public": ["/a"], "optional": ["/a"]}, "public"),
    "settings-of-another-type": ({"settings": OTHERS}, "settings"),
    "settings-and-keywords": ({"settings": Settings(**OTHERS), "realm": "x"}, "realm"),
}


@pytest.mark.parametrize(("keywords", "field"), WRONG.values(), ids=WRONG)
def test_the_service_raises_at_once_and_the_middleware_never(keywords: dict[str, Any], field: str) -> None:
    with pytest.raises(ConfigError) as raised:
        OIDC(**keywords)
    assert raised.value.field == field
    OIDCMiddleware(who, **keywords)


@pytest.mark.parametrize(
    ("keywords", "field"),
    [
        pytest.param({"oidc": Settings(**OTHERS)}, "oidc", id="settings-in-its-place"),
        pytest.param({"oidc": OIDC(**OTHERS), "leeway": 3}, "leeway", id="what-is-the-services-beside"),
        pytest.param({"oidc": OIDC(**OTHERS), "settings": Settings(**OTHERS)}, "oidc", id="settings-beside"),
    ],
)
def test_a_service_that_is_none_or_not_alone(
    keywords: dict[str, Any], field: str, caplog: pytest.LogCaptureFixture
) -> None:
    assert TestClient(OIDCMiddleware(who, **keywords)).get("/").status_code == 500
    assert f"config_error: {field}: " in caplog.text


@pytest.mark.anyio
async def test_the_lifespan_fails_with_the_cause() -> None:
    server = Lifespan(misconfigured())
    assert await server.startup() == "startup.failed"
    await asyncio.wait((server.task,))
    assert server.answers == [{"type": "lifespan.startup.failed", "message": CAUSE}]


def test_a_test_client_raises_the_cause() -> None:
    with pytest.raises(ConfigError, match="audience: is missing"), TestClient(misconfigured()):
        pass


@pytest.mark.parametrize("path", ["/", "/anything", "/oauth2/health", "//"])
def test_without_lifespan_nobody_gets_in(path: str, caplog: pytest.LogCaptureFixture) -> None:
    """Fails closed: public paths too, since nobody knows which ones these are. The cause is for the log only."""
    answer = TestClient(misconfigured()).get(path)
    assert answer.status_code == 500
    assert answer.json() == {"error": "server_error", "error_description": "The service is misconfigured."}
    assert "www-authenticate" not in answer.headers
    (record,) = (record for record in caplog.records if record.name == "oidc_middleware")
    assert record.levelno >= logging.WARNING
    assert record.getMessage().endswith(CAUSE)


def test_a_websocket_is_refused_too() -> None:
    with (
        pytest.raises(WebSocketDenialResponse) as raised,
        TestClient(misconfigured()).websocket_connect("/ws"),
    ):
        pass
    assert raised.value.status_code == 500


@pytest.mark.anyio
async def test_the_one_error_does_not_collect_what_many_requests_leave() -> None:
    """A raised exception keeps its frames, hence scopes and tokens, and each `raise` would add to them."""
    door = OIDCMiddleware(who, issuer=ISSUER)
    for n in range(100):
        await ask(door, http_scope("/", f"token-{n}"))
    assert door._config_error is not None
    trace: TracebackType | None = door._config_error.__traceback__
    length = 0
    while trace is not None:
        trace, length = trace.tb_next, length + 1
    assert length < 10


def test_the_cause_never_holds_a_secret(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setenv("OIDC_ISUER", "https://user:hunter2@issuer.example")
    TestClient(misconfigured()).get("/")
    assert "OIDC_ISUER" in caplog.text
    assert "hunter2" not in caplog.text

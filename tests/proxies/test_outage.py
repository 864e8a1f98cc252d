"""A service that is gone, or that cannot look a session up, lets nobody in, whatever stands in front of it."""

from __future__ import annotations

import signal
from contextlib import ExitStack
from pathlib import Path

import httpx2
import pytest

from oidc_middleware.testing import FakeIssuer

from .app import App
from .proxies import KINDS, free_port, running
from redis_kit import RedisServer
from serve_kit import serving, serving_process
from servers_kit import ANSWER_SECONDS


@pytest.mark.parametrize("kind", KINDS)
def test_without_the_service_no_request_reaches_the_app(
    kind: str, issuer: FakeIssuer, app: App, tmp_path: Path
) -> None:
    settings = {
        "issuer": issuer.url,
        "audience": issuer.audience,
        "trusted_proxies": "127.0.0.1",
        "public": "/health",
    }
    token = {"Authorization": f"Bearer {issuer.token('alice')}"}
    with ExitStack() as stack:
        service = stack.enter_context(ExitStack())
        port = service.enter_context(serving(tmp_path, settings))
        proxy = stack.enter_context(running(kind, tmp_path, free_port(), port, app.port))

        def ask(path: str) -> int:
            return httpx2.get(proxy.url + path, headers=token, trust_env=False, timeout=ANSWER_SECONDS).status_code

        assert (ask("/feed"), ask("/health")) == (200, 200)
        before = app.requests
        service.close()
        for path in ("/feed", "/health"):
            assert ask(path) in {500, 502, 503, 504}
        assert app.requests == before


@pytest.mark.parametrize("kind", KINDS)
def test_while_the_service_does_not_answer_no_request_reaches_the_app(
    kind: str, issuer: FakeIssuer, app: App, tmp_path: Path
) -> None:
    settings = {"issuer": issuer.url, "audience": issuer.audience, "trusted_proxies": "127.0.0.1", "public": "/health"}
    with (
        serving_process(tmp_path, settings) as (port, process),
        running(kind, tmp_path, free_port(), port, app.port) as proxy,
    ):
        before = app.requests
        process.send_signal(signal.SIGSTOP)
        with pytest.raises(httpx2.ReadTimeout):
            httpx2.get(f"{proxy.url}/health", trust_env=False, timeout=3)
        assert app.requests == before
        process.send_signal(signal.SIGCONT)
        assert httpx2.get(f"{proxy.url}/health", trust_env=False, timeout=ANSWER_SECONDS).status_code == 200


@pytest.mark.parametrize("kind", KINDS)
def test_without_its_store_nobody_is_anonymous_and_nobody_is_sent_round_in_circles(
    kind: str, issuer: FakeIssuer, app: App, tmp_path: Path
) -> None:
    port = free_port()
    address = f"http://127.0.0.1:{port}"
    issuer.client("outage", secret="of-this-client-alone", redirect_uris=[f"{address}/oauth2/callback"])
    cookie = {"Cookie": f"oidc_session={'A' * 64}"}
    with ExitStack() as stack:
        redis = stack.enter_context(RedisServer())
        settings = {
            "issuer": issuer.url,
            "audience": issuer.audience,
            "trusted_proxies": "127.0.0.1",
            "optional": "/hello",
            "login": "true",
            "base_url": address,
            "client_id": "outage",
            "client_secret": "of-this-client-alone",
            "cache": redis.url,
            "secret": "s" * 32,
        }
        service = stack.enter_context(serving(tmp_path, settings))
        proxy = stack.enter_context(running(kind, tmp_path, port, service, app.port))

        def ask(path: str, **headers: str) -> httpx2.Response:
            return httpx2.get(proxy.url + path, headers=cookie | headers, trust_env=False, timeout=ANSWER_SECONDS)

        assert (ask("/feed").status_code, ask("/hello").status_code) == (401, 200)
        before = app.requests
        redis.stop()
        for path in ("/feed", "/hello"):
            for headers in ({}, {"Accept": "text/html"}):
                answer = ask(path, **headers)
                assert (answer.status_code, answer.headers.get("location")) == (503, None), answer.text
                if kind != "envoy":  # which has an answer of its own for whatever went wrong
                    assert int(answer.headers["retry-after"]) >= 1
        assert app.requests == before

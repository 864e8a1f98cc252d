"""A service that is gone lets nobody in, whatever stands in front of it."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path

import httpx2
import pytest

from oidc_middleware.testing import FakeIssuer

from .app import App
from .proxies import KINDS, free_port, running
from serve_kit import serving
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

"""The examples do what they show."""

from __future__ import annotations

import runpy
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from oidc_middleware.testing import FakeIssuer

EXAMPLES = sorted((Path(__file__).parent.parent / "examples").glob("*.py"))


@pytest.fixture
def app(request: pytest.FixtureRequest, served_issuer: FakeIssuer, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setenv("OIDC_ISSUER", served_issuer.url)
    monkeypatch.setenv("OIDC_AUDIENCE", served_issuer.audience)
    return runpy.run_path(str(request.param))["app"]


@pytest.mark.parametrize("app", EXAMPLES, ids=lambda path: path.stem, indirect=True)
def test_the_example_lets_in_whom_it_should(app: Any, served_issuer: FakeIssuer) -> None:
    def token(scope: str) -> dict[str, str]:
        return {"Authorization": f"Bearer {served_issuer.token('alice', scope=scope)}"}

    with TestClient(app) as client:
        assert client.get("/version").json() == {"version": 1}
        assert client.get("/orders").status_code == 401
        assert client.post("/orders", headers=token("orders:read")).status_code == 403
        answer = client.post("/orders", headers=token("orders:write"))

    assert answer.json() == {"owner": f"{served_issuer.url}#alice", "scopes": ["orders:write"]}

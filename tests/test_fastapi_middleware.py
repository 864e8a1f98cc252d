"""The dependencies behind `OIDCMiddleware`, and claims as a model of the application's."""

# ruff: noqa: B008, FAST002  an annotation is a string here, and cannot name a fixture
from __future__ import annotations

import dataclasses
import logging
import subprocess
import sys
from collections.abc import Callable
from typing import Any, NotRequired, TypedDict

import pytest
import typing_extensions
from fastapi import Depends, FastAPI, Security, WebSocket
from pydantic import BaseModel, ConfigDict, Field
from starlette.testclient import TestClient, WebSocketDenialResponse

from oidc_middleware import OIDC, OIDCMiddleware, Principal, Rule
from oidc_middleware.fastapi import OIDCAuth, claims_of, current_user, optional_user, require
from oidc_middleware.testing import FakeIssuer, ManualClock


@pytest.fixture
def issuer(fake_issuer_factory: Callable[..., FakeIssuer]) -> FakeIssuer:
    return fake_issuer_factory(algorithms=("ES256",))


@pytest.fixture
def oidc(issuer: FakeIssuer, oidc_clock: ManualClock) -> OIDC:
    return OIDC(
        issuer=issuer.url,
        audience=issuer.audience,
        public=["/public"],
        optional=["/optional"],
        rules=[Rule("/both", scopes=["rule"])],
        realm="orders",
        transport=issuer.transport(),
        clock=oidc_clock,
    )


def app_of() -> FastAPI:
    """Return an app that asks for the user in each way."""
    app = FastAPI()

    @app.get("/me")
    async def me(user: Principal = Depends(current_user)) -> str:
        return user.identity

    @app.get("/public")
    async def public(user: Principal = Depends(current_user)) -> str:
        return user.identity

    @app.get("/optional")
    async def optional(user: Principal | None = Depends(optional_user)) -> str | None:
        return None if user is None else user.identity

    @app.get("/both", dependencies=[Depends(require("dependency"))])
    async def both(user: Principal = Security(current_user, scopes=["chain"])) -> str:
        return user.identity

    @app.websocket("/ws")
    async def socket(websocket: WebSocket, user: Principal = Depends(require("live"))) -> None:
        await websocket.accept()
        await websocket.send_text(user.subject or "")
        await websocket.close()

    return app


@pytest.fixture
def client(oidc: OIDC) -> TestClient:
    app = app_of()
    app.add_middleware(OIDCMiddleware, oidc=oidc)
    return TestClient(app)


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


def test_the_user_whom_the_middleware_let_in(client: TestClient, issuer: FakeIssuer) -> None:
    assert client.get("/me", headers=bearer(issuer.token("alice"))).json() == f"{issuer.url}#alice"
    assert client.get("/me").status_code == 401


def test_an_optional_user(client: TestClient, issuer: FakeIssuer) -> None:
    """P-optional-auth."""
    assert client.get("/optional").json() is None
    assert client.get("/optional", headers=bearer(issuer.token("alice"))).json() == f"{issuer.url}#alice"
    assert client.get("/optional", headers=bearer("x")).status_code == 401


def test_another_scheme_is_no_credential(client: TestClient, caplog: pytest.LogCaptureFixture) -> None:
    basic = {"Authorization": "Basic YTpi"}
    assert client.get("/optional", headers=basic).json() is None
    with caplog.at_level(logging.INFO, "oidc_middleware"):
        assert client.get("/public", headers=basic).status_code == 401
    assert "not of the Bearer scheme" in caplog.text


def test_scopes_of_rule_chain_and_dependency_are_in_one_challenge(client: TestClient, issuer: FakeIssuer) -> None:
    answer = client.get("/both", headers=bearer(issuer.token(scope="rule")))
    assert (answer.status_code, answer.json()["error"]) == (403, "insufficient_scope")
    assert answer.headers["WWW-Authenticate"].startswith('Bearer realm="orders", error="insufficient_scope"')
    assert answer.headers["WWW-Authenticate"].endswith('scope="rule dependency chain"')
    token = issuer.token("alice", scope="rule dependency chain")
    assert client.get("/both", headers=bearer(token)).json() == f"{issuer.url}#alice"


def test_a_public_path_has_no_user(client: TestClient, issuer: FakeIssuer, caplog: pytest.LogCaptureFixture) -> None:
    """The middleware does not read credentials there: that is said where whoever wonders looks."""
    assert client.get("/public").status_code == 401
    with caplog.at_level(logging.INFO, "oidc_middleware"):
        assert client.get("/public", headers=bearer(issuer.token())).status_code == 401
    assert "take it out of `public`" in caplog.text


def test_a_websocket(client: TestClient, issuer: FakeIssuer) -> None:
    with client.websocket_connect("/ws", headers=bearer(issuer.token("alice", scope="live"))) as websocket:
        assert websocket.receive_text() == "alice"
    headers = bearer(issuer.token("alice"))
    with pytest.raises(WebSocketDenialResponse) as denied, client.websocket_connect("/ws", headers=headers):
        pass
    assert denied.value.status_code == 403
    assert denied.value.headers["WWW-Authenticate"].endswith('scope="live"')


@pytest.mark.parametrize("path", ["/me", "/optional"])
def test_without_the_middleware_it_is_the_programmers_mistake(path: str) -> None:
    """500, never 200, and the cause in the log of the server: the error itself, with its cure."""
    with pytest.raises(LookupError, match=r"Add it .*or take the dependencies of OIDCAuth"):
        TestClient(app_of()).get(path)
    assert TestClient(app_of(), raise_server_exceptions=False).get(path).status_code == 500


# Claims as a model


class Caller(BaseModel):
    """A model that checks more than types."""

    sub: str
    level: int = Field(ge=1)


class Frozen(BaseModel):
    """A model that cannot be changed."""

    model_config = ConfigDict(frozen=True)

    sub: str


@dataclasses.dataclass
class CallerData:
    """A dataclass."""

    sub: str
    level: int = 1


@dataclasses.dataclass(frozen=True)
class FrozenData:
    """A dataclass that cannot be changed."""

    sub: str


class Nested(TypedDict):
    """An object in the claims."""

    roles: list[str]


class CallerDict(TypedDict):
    """A TypedDict of the standard library."""

    sub: str
    realm_access: Nested


class ExtendedDict(typing_extensions.TypedDict):
    """A TypedDict of `typing_extensions`, which is that of the standard library in some Pythons only."""

    sub: str
    realm_access: Nested
    level: NotRequired[int]


@pytest.fixture(params=["alone", "behind the middleware"])
def ask(request: pytest.FixtureRequest, oidc: OIDC, issuer: FakeIssuer) -> Callable[..., Any]:
    """Return a function that gives the claims of a token as a model, or the response that refused it."""

    def ask(model: Any, claims: dict[str, Any]) -> Any:
        seen = []
        app = FastAPI()
        dependency: Any = claims_of(model)
        if request.param == "alone":
            dependency = OIDCAuth(oidc=oidc).claims_of(model)
        else:
            app.add_middleware(OIDCMiddleware, oidc=oidc)

        @app.get("/x", response_model=None)
        async def x(claims: Any = Depends(dependency)) -> None:
            seen.append(claims)

        client, headers = TestClient(app), bearer(issuer.token("alice", claims=claims))
        answers = [client.get("/x", headers=headers) for _ in range(2)]
        assert client.get("/x").status_code == 401
        return tuple(seen) if seen else answers[0]

    return ask


@pytest.mark.parametrize("model", [Caller, Frozen, CallerData, FrozenData])
def test_claims_as_a_model(ask: Callable[..., Any], model: type) -> None:
    first, second = ask(model, {"level": 3})
    assert isinstance(first, model)
    assert first.sub == "alice"  # type: ignore[attr-defined]
    assert getattr(first, "level", 3) == 3
    assert (first is second) == (model in (Frozen, FrozenData))  # made once where nobody can change it


@pytest.mark.parametrize("model", [CallerDict, ExtendedDict])
def test_claims_as_a_typed_dict(ask: Callable[..., Any], model: type) -> None:
    first, second = ask(model, {"realm_access": {"roles": ["a"], "more": 1}})
    assert first == second == {"sub": "alice", "realm_access": {"roles": ["a"]}}
    assert first is not second


def test_claims_as_one_of_several_models(ask: Callable[..., Any]) -> None:
    assert isinstance(ask(Caller | Frozen, {"level": 0})[0], Frozen)
    assert isinstance(ask(Caller | Frozen, {"level": 1})[0], Caller)


@pytest.mark.parametrize(
    ("model", "claims", "logged"),
    [
        (Caller, {}, "claim: level missing"),
        (Caller, {"level": "hunter2"}, "claim: level invalid (does not fit Caller: int_parsing)"),
        (Caller, {"level": 0}, "claim: level invalid"),
        (CallerData, {"level": "hunter2"}, "claim: level invalid"),
        (CallerDict, {}, "claim: realm_access missing"),
        (CallerDict, {"realm_access": {"roles": "hunter2"}}, "claim: realm_access.roles invalid"),
    ],
)
def test_claims_that_do_not_fit(
    ask: Callable[..., Any], model: type, claims: dict[str, Any], logged: str, caplog: pytest.LogCaptureFixture
) -> None:
    """401 `invalid_token`; why is in the log only, without what the claim holds."""
    with caplog.at_level(logging.INFO, "oidc_middleware"):
        answer = ask(model, claims)
    assert (answer.status_code, answer.json()["error"]) == (401, "invalid_token")
    assert 'error="invalid_token"' in answer.headers["WWW-Authenticate"]
    assert logged in caplog.text
    assert "hunter2" not in caplog.text + answer.text


def test_validated_claims_are_kept_for_so_many_tokens_only(monkeypatch: pytest.MonkeyPatch) -> None:
    from oidc_middleware.fastapi import typed

    monkeypatch.setattr(typed, "KEPT", 2)
    claims = typed.TypedClaims(Frozen)
    principals = [Principal(b'{"sub":"%d"}' % number, b"t") for number in range(4)]
    made = [claims.of(principal) for principal in principals]
    assert len(claims._kept) == 2
    assert claims.of(principals[3]) is made[3]
    assert claims.of(principals[0]) == made[0]


def test_without_fastapi_it_says_what_to_do() -> None:
    code = "import sys; sys.modules['fastapi'] = None; import oidc_middleware.fastapi"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 1
    assert "ImportError: oidc_middleware.fastapi needs FastAPI. Install it: pip install 'oidc-middleware[fastapi]'" in (
        done.stderr
    )

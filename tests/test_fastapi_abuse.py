"""The abuse cases at a dependency: it answers each as the door does, byte for byte."""

# ruff: noqa: B008, FAST002  an annotation is a string here, and cannot name an argument
from __future__ import annotations

import json
from typing import Any

import pytest
from fastapi import Depends, FastAPI, WebSocket

from oidc_middleware import OIDC, Principal
from oidc_middleware.fastapi import OIDCAuth
from oidc_middleware.testing import ManualClock

from abuse.door import Answer, Door
from abuse.signing import Signer
from abuse.token_cases import CASES, Case

pytestmark = pytest.mark.anyio

# Values of the `Authorization` header, and queries; `<T>` stands for a good token.
REQUESTS: dict[str, tuple[list[bytes], bytes]] = {
    "H-none": ([], b""),
    "H-good": ([b"Bearer <T>"], b""),
    "H-two": ([b"Bearer <T>", b"Bearer <T>"], b""),
    "H-two-kinds": ([b"Bearer <T>", b"Basic dXNlcjpwdw=="], b""),
    "H-basic": ([b"Basic dXNlcjpwdw=="], b""),
    "H-comma": ([b"Bearer <T>, Bearer evil"], b""),
    "H-case-mixed": ([b"bEaReR <T>"], b""),
    "H-twospaces": ([b"Bearer  <T>"], b""),
    "H-space-before": ([b" Bearer <T>"], b""),
    "H-space-after": ([b"Bearer <T> "], b""),
    "H-tab": ([b"Bearer\t<T>"], b""),
    "H-empty": ([b""], b""),
    "H-scheme-alone": ([b"Bearer"], b""),
    "H-no-token": ([b"Bearer "], b""),
    "H-latin": ([b"Bearer \xe9\xe8"], b""),
    "H-huge": ([b"Bearer " + b"a" * 20_000], b""),
    "H-json": ([b'Bearer {"a": "b"}'], b""),
    "H-query": ([], b"access_token=<T>"),
    "H-query-too": ([b"Bearer <T>"], b"access_token=x"),
    "H-query-escaped": ([b"Bearer <T>"], b"%61ccess_token=x"),
}


class Alone(Door):
    """An app with a dependency, in place of one behind the middleware."""

    def _stand_before(self, oidc: OIDC, clock: ManualClock) -> None:
        super()._stand_before(oidc, clock)
        auth, app = OIDCAuth(oidc=oidc), FastAPI()

        @app.get("/orders")
        async def orders(user: Principal = Depends(auth.current_user)) -> dict[str, Any]:
            self.calls += 1
            self.seen = {}
            return user.claims

        @app.websocket("/orders")
        async def socket(websocket: WebSocket, user: Principal = Depends(auth.current_user)) -> None:
            self.calls += 1
            self.seen = {}
            await websocket.send({"type": "websocket.accept"})

        self.app = app  # type: ignore[assignment]


def told(answer: Answer) -> tuple[Any, ...]:
    """Return all that a client is told."""
    body: Any = answer.body
    if answer.status == 200:
        return 200, json.loads(body), answer.seen is not None
    headers = {name: value for name, value in answer.headers.items() if name != "content-length"}
    return answer.status, body, headers, answer.seen is not None


@pytest.fixture(scope="module")
def signer() -> Signer:
    return Signer()


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.id)
async def test_a_token_at_a_dependency(case: Case, signer: Signer) -> None:
    jwks = signer.jwks() if case.jwks is None else json.dumps({"keys": case.jwks(signer)}).encode()
    token = case.token(signer)
    door, alone = Door(jwks), Alone(jwks)
    for _ in range(2):  # unknown, and if it is good known
        assert told(await alone.ask(token=token)) == told(await door.ask(token=token))


@pytest.mark.parametrize("name", REQUESTS)
@pytest.mark.parametrize("kind", ["request", "handshake"])
@pytest.mark.parametrize("settings", [{}, {"websocket_token": "subprotocol"}], ids=["header", "subprotocol"])
async def test_a_request_at_a_dependency(name: str, kind: str, settings: dict[str, Any], signer: Signer) -> None:
    values, query = REQUESTS[name]
    token = signer.token().encode()
    headers = [(b"authorization", value.replace(b"<T>", token)) for value in values]
    query = query.replace(b"<T>", token)
    door, alone = Door(signer.jwks(), **settings), Alone(signer.jwks(), **settings)
    for _ in range(2):
        answers = [
            await (stand.ask if kind == "request" else stand.handshake)(headers=list(headers), query=query)
            for stand in (door, alone)
        ]
        assert told(answers[0]) == told(answers[1])
        assert answers[0].status in (101, 200, 400, 401)


async def test_a_flood_of_bad_tokens_leaves_nothing(signer: Signer) -> None:
    alone = Alone(signer.jwks())
    good = signer.token()
    for number in range(500):
        assert (await alone.ask(token=f"{good[:-8]}{number:08}")).status == 401
    assert len(alone.oidc.authenticator._known) == 0
    assert (await alone.ask(token=good)).status == 200

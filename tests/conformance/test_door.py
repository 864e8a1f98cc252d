"""The door itself: rules, methods, credentials and WebSockets, with a real provider's tokens."""

from __future__ import annotations

import httpx2
import pytest
from starlette.applications import Starlette
from starlette.routing import Mount
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

from .answers import assert_asks_for_credentials, assert_scope_missing, assert_token_refused, challenge, parameters
from .conftest import Serve
from .service import Served, protected_app
from .stranger import Stranger

ANONYMOUS = {"authenticated": False, "path": "/maybe"}


# ---------------------------------------------------------------------------------------------------------- credentials


def test_no_token(shared_service: Served) -> None:
    """Nobody presented anything: a challenge without an error code."""
    assert_asks_for_credentials(shared_service.get("/who"))


def test_basic_credentials(shared_service: Served) -> None:
    """H-basic: another scheme is no token."""
    assert_asks_for_credentials(shared_service.get("/who", Authorization="Basic dXNlcjpwdw=="))


def test_token_in_the_query(stranger: Stranger, shared_service: Served) -> None:
    """H-query: a token in the address is not read (RFC 9700 §4.3.2)."""
    token = stranger.client_credentials()
    assert_asks_for_credentials(shared_service.get(f"/who?access_token={token}"))


def test_token_in_header_and_query(stranger: Stranger, shared_service: Served) -> None:
    """H-query-and-header: two credentials are one too many (RFC 6750 §2)."""
    token = stranger.client_credentials()
    answer = shared_service.get(f"/who?access_token={token}", token)
    assert answer.status_code == httpx2.codes.BAD_REQUEST
    assert challenge(answer)["error"] == "invalid_request"


def test_two_authorization_headers(stranger: Stranger, shared_service: Served) -> None:
    """H-dup-same: two headers, even alike, are one too many."""
    header = ("Authorization", f"Bearer {stranger.client_credentials()}")
    answer = shared_service.client.get("/who", headers=[header, header])
    assert answer.status_code == httpx2.codes.BAD_REQUEST
    assert challenge(answer)["error"] == "invalid_request"


@pytest.mark.parametrize("scheme", ["bearer", "BEARER"])
def test_scheme_in_any_case(stranger: Stranger, shared_service: Served, scheme: str) -> None:
    """H-case: the scheme's capitals do not matter (RFC 9110 §11.1)."""
    token = stranger.client_credentials()
    assert shared_service.get("/who", Authorization=f"{scheme} {token}").status_code == httpx2.codes.OK


# ---------------------------------------------------------------------------------------------------------------- rules


@pytest.mark.parametrize("credentials", [None, "garbage"])
def test_public_path_ignores_credentials(shared_service: Served, credentials: str | None) -> None:
    """A public path is open, whatever the caller presents."""
    assert shared_service.get("/health", credentials).text == "ok"


def test_optional_path(stranger: Stranger, shared_service: Served) -> None:
    """P-optional-auth: nothing is anonymous, good is an identity, bad is refused."""
    assert shared_service.get("/maybe").json() == ANONYMOUS
    assert shared_service.get("/maybe", stranger.client_credentials()).json()["subject"] == "service"
    wrong = stranger.client_credentials("https://other.example/")
    assert_token_refused(shared_service.get("/maybe", wrong), wrong)


def test_scope_rule(stranger: Stranger, shared_service: Served) -> None:
    """`POST /admin/*` needs the scope `admin`, and the 403 says so."""
    token = stranger.client_credentials(scope="read write")
    assert_scope_missing(shared_service.request("POST", "/admin/users", token), "admin")
    token = stranger.client_credentials(scope="read admin")
    assert shared_service.request("POST", "/admin/users", token).status_code == httpx2.codes.OK


def test_any_scope_rule(stranger: Stranger, shared_service: Served) -> None:
    """`GET /admin/*` needs `admin` or `read`."""
    for scope in ("read", "admin"):
        token = stranger.client_credentials(scope=scope)
        assert shared_service.get("/admin/users", token).status_code == httpx2.codes.OK
    answer = shared_service.get("/admin/users", stranger.client_credentials(scope="write"))
    assert answer.status_code == httpx2.codes.FORBIDDEN


def test_claim_rule(stranger: Stranger, shared_service: Served) -> None:
    """`/alice/*` needs a role that the provider puts into a nested claim."""
    alice, bob = (stranger.sign_in(name)["access_token"] for name in ("alice", "bob"))
    assert shared_service.get("/alice/mail", alice).json()["subject"] == "alice"
    answer = shared_service.get("/alice/mail", bob)
    assert answer.status_code == httpx2.codes.FORBIDDEN
    assert "subject" not in answer.text


def test_starlettes_own_decorator(stranger: Stranger, shared_service: Served) -> None:
    """Starlette's `requires` reads the token's scopes."""
    assert shared_service.get("/write", stranger.client_credentials(scope="write")).status_code == httpx2.codes.OK
    answer = shared_service.get("/write", stranger.client_credentials(scope="read"))
    assert answer.status_code == httpx2.codes.FORBIDDEN


# -------------------------------------------------------------------------------------------------------------- methods


def test_head(stranger: Stranger, shared_service: Served) -> None:
    """HEAD is guarded like GET, and no answer to it has a body."""
    accepted = shared_service.request("HEAD", "/who", stranger.client_credentials())
    assert (accepted.status_code, accepted.content) == (httpx2.codes.OK, b"")
    refused = shared_service.request("HEAD", "/who")
    assert (refused.status_code, refused.content) == (httpx2.codes.UNAUTHORIZED, b"")


def test_options_that_is_no_preflight(stranger: Stranger, shared_service: Served) -> None:
    """P-options: a plain OPTIONS needs an identity."""
    assert_asks_for_credentials(shared_service.request("OPTIONS", "/maybe-not"))
    assert shared_service.request("OPTIONS", "/maybe-not", stranger.client_credentials()).is_success


def test_preflight_reaches_the_application(shared_service: Served) -> None:
    """P-options: a browser's preflight carries no credentials, and the application sees nobody."""
    answer = shared_service.request(
        "OPTIONS", "/who", Origin="https://spa.example", Access_Control_Request_Method="POST"
    )
    assert answer.json() == {"authenticated": False, "path": "/who"}


# --------------------------------------------------------------------------------------------------------------- mounts


def test_mounted_application_sees_the_user(stranger: Stranger, shared_service: Served) -> None:
    """A sub-application below the middleware has the same user."""
    assert shared_service.get("/sub/who", stranger.client_credentials()).json()["subject"] == "service"


def test_middleware_of_a_mounted_application(stranger: Stranger, serve: Serve) -> None:
    """A mounted app gets no lifespan; its middleware starts on the first request, and its paths are its own."""
    outer = Starlette(routes=[Mount("/inner", protected_app(issuer=stranger.issuer))])
    served = serve(outer)
    assert served.get("/inner/health").text == "ok"
    assert_asks_for_credentials(served.get("/inner/who"))
    token = stranger.client_credentials(scope="write")
    assert served.get("/inner/who", token).json()["subject"] == "service"
    assert_scope_missing(served.request("POST", "/inner/admin/users", token), "admin")


def test_root_path_of_the_server(stranger: Stranger, serve: Serve) -> None:
    """Behind a proxy that strips `/api`, the rules mean what the application means."""
    served = serve(root_path="/api", issuer=stranger.issuer)
    assert served.get("/health").text == "ok"
    token = stranger.client_credentials(scope="write")
    assert served.get("/who", token).json()["subject"] == "service"
    assert_scope_missing(served.request("POST", "/admin/users", token), "admin")


# ----------------------------------------------------------------------------------------------------------- WebSockets


def test_websocket_is_accepted(stranger: Stranger, shared_service: Served) -> None:
    """A good token opens a WebSocket whose application sees the user."""
    headers = {"Authorization": f"Bearer {stranger.sign_in('alice')['access_token']}"}
    with connect(f"ws://127.0.0.1:{shared_service.port}/ws", additional_headers=headers, proxy=None) as websocket:
        assert '"subject":"alice"' in str(websocket.recv(timeout=5))
        websocket.send("hello")
        assert websocket.recv(timeout=5) == "hello"


@pytest.mark.parametrize(
    ("path", "resource", "refusal"),
    [
        ("/ws", None, (401, None)),
        ("/ws", "https://other.example/", (401, "invalid_token")),
        ("/ws", "opaque", (401, "invalid_token")),
        ("/alice/ws", "rs256", (403, "insufficient_scope")),
    ],
    ids=["no token", "wrong audience", "opaque", "rule"],
)
def test_websocket_is_refused_before_it_opens(
    stranger: Stranger, shared_service: Served, path: str, resource: str | None, refusal: tuple[int, str | None]
) -> None:
    """P-websocket: the handshake is answered with the HTTP status and the challenge that a request would get."""
    headers = {} if resource is None else {"Authorization": f"Bearer {stranger.client_credentials(resource)}"}
    url = f"ws://127.0.0.1:{shared_service.port}{path}"
    with pytest.raises(InvalidStatus) as refused, connect(url, additional_headers=headers, proxy=None):
        pass
    answer = refused.value.response
    (value,) = answer.headers.get_all("WWW-Authenticate")
    assert (answer.status_code, parameters(value).get("error")) == refusal

"""The whole door under anything at all: no exception but the app's, and nobody in without a good token."""

from __future__ import annotations

import asyncio
import json
import operator
from collections.abc import Awaitable, Iterable
from functools import cache
from typing import Any, TypeVar
from urllib.parse import unquote

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from oidc_middleware import Rule

from abuse.door import Answer, Door, Headers
from abuse.signing import AUDIENCE, ISSUER, NOW, Signer, b64

T = TypeVar("T")

STATUSES = {200, 400, 401, 403}


@cache
def signer() -> Signer:
    return Signer()


@cache
def good_token() -> str:
    return signer().token(alg="EdDSA")


@cache
def loop() -> asyncio.Runner:
    return asyncio.Runner()


@pytest.fixture(scope="module", autouse=True)
def _closed_loop() -> Any:
    yield
    loop().close()
    loop.cache_clear()


def run(awaitable: Awaitable[T]) -> T:
    async def asked() -> T:
        return await awaitable

    return loop().run(asked())


def new_door(**changes: Any) -> Door:
    common: dict[str, Any] = {"public": ["/health", "/docs/*"], "optional": ["/hello"]}
    rules = [
        Rule("/admin/*", scopes=("admin",)),
        Rule("/a/{one}/two", claims={"a.b": [1, "x", True]}, methods=("GET",)),
    ]
    return Door(signer().jwks(), **(common | {"rules": rules} | changes))


@cache
def doors() -> tuple[Door, ...]:
    return (
        new_door(),
        new_door(token_type="auto", client_id="client-a", ambiguous_paths="protect", websocket_token="subprotocol"),
        new_door(preflight="protect", admin_scope="ops", realm="a realm", leeway=30),
    )


# What a client chooses: what means something, pieces of it, and anything at all.


def mostly(usual: Iterable[Any], odd: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """Draw what is usual nine times out of ten, for a request with two odd parts shows little of either."""
    plain = st.sampled_from(list(usual))
    return st.integers(0, 9).flatmap(lambda number: odd if number == 9 else plain)


PATHS = ("/", "/orders", "/health", "/hello", "/docs/a/b", "/docs", "/admin", "/admin/x", "/a/b/two")
PIECES = (*PATHS, "//", "a", "..", ".", ";", "\\", "%2f", "%2e", "%25", "%00", "%C3%A9")
NAMES = (
    *(b"authorization", b"accept", b"origin", b"access-control-request-method", b"cookie", b"host", b"x"),
    *(b"sec-websocket-protocol", b"transfer-encoding", b"x-forwarded-user", b"x_forwarded.user"),
)
SCHEMES = (b"", b" ", b"Bearer", b"Bearer ", b"bearer ", b"Bearer  ", b"Basic ", b"bearer.", b"text/html;q=")
CREDENTIALS = (b"", b"<T>", b"<T> ", b"<T>,<T>", b"<T>=", b"\xff", b"a.b.c", b"..", b'"<T>"', b"0.5")
GOOD = (b"authorization", b"Bearer <T>")
PREFLIGHT = [(b"origin", b"https://a.example"), (b"access-control-request-method", b"PUT")]

paths = mostly(PATHS, st.lists(st.sampled_from(PIECES) | st.text(max_size=3), max_size=8).map("".join))
values = st.builds(operator.add, st.sampled_from(SCHEMES), st.sampled_from(CREDENTIALS)) | st.binary(max_size=12)
odd_headers = st.lists(st.tuples(mostly(NAMES, st.binary(max_size=8)), values), max_size=4)
headers = mostly(
    ([GOOD], [], PREFLIGHT, [GOOD, (b"x-forwarded-user", b"admin")], [(b"sec-websocket-protocol", b"bearer.<T>")]),
    st.builds(operator.add, st.sampled_from([[GOOD], [], PREFLIGHT]), odd_headers),
)
requests = st.fixed_dictionaries(
    {
        "which": st.integers(0, 2),
        "websocket": st.booleans(),
        "path": paths,
        "raw_path": mostly(
            ["same"], st.none() | st.sampled_from([b"/health", b"/docs/x", b"//"]) | st.binary(max_size=9)
        ),
        "headers": headers,
        "method": mostly(("GET", "POST", "OPTIONS", "HEAD"), st.just("get") | st.text(max_size=6)),
        "query": mostly(
            [b"", b"a=1"], st.sampled_from([b"access_token=<T>", b"%61ccess_token"]) | st.binary(max_size=9)
        ),
        "root_path": mostly([""], st.sampled_from(["/", "/docs", "/admin", "/health", "x"]) | st.text(max_size=4)),
    }
)


def filled(sent: Headers, token: str) -> Headers:
    return [(name, value.replace(b"<T>", token.encode())) for name, value in sent]


def carries_one_good_token(sent: Headers, token: str, *, subprotocol: bool) -> bool:
    credentials = [value for name, value in sent if name == b"authorization"]
    if len(credentials) == 1:
        scheme, _, rest = credentials[0].partition(b" ")
        return scheme.lower() == b"bearer" and rest == token.encode()
    offered = b",".join(value for name, value in sent if name == b"sec-websocket-protocol")
    return subprotocol and not credentials and b"bearer." + token.encode() in offered


PLAIN: dict[str, Any] = {
    "which": 0,
    "websocket": False,
    "path": "/orders",
    "raw_path": "same",
    "headers": [(b"authorization", b"Bearer <T>")],
    "method": "GET",
    "query": b"",
    "root_path": "",
}


@settings(max_examples=400, deadline=None)
@given(requests)
@example(PLAIN)
@example(PLAIN | {"path": "/admin"})
@example(PLAIN | {"which": 1, "websocket": True, "headers": [(b"sec-websocket-protocol", b"bearer.<T>")]})
@example(PLAIN | {"method": "OPTIONS", "headers": [(b"origin", b"x"), (b"access-control-request-method", b"x")]})
def test_any_request(request: dict[str, Any]) -> None:
    """Whoever is let in has exactly one good token, or asks for what is open, or is a true preflight."""
    token = good_token()
    sent = filled(request["headers"], token)
    path, answer = run(asked(request, sent, token))
    status = 200 if answer.status == 101 else answer.status
    assert status in STATUSES
    assert (answer.seen is not None) == (status == 200)
    if answer.seen is None:
        assert "www-authenticate" in answer.headers
        assert token not in answer.body.decode() + str(answer.headers)
        return
    assert not [name for name, _ in answer.seen_headers if b"user" in name and b"forwarded" in name]
    user = answer.seen["user"]
    if user.is_authenticated:
        assert user.token == token
        in_subprotocol = request["websocket"] and request["which"] == 1
        assert carries_one_good_token(sent, token, subprotocol=in_subprotocol)
    elif not is_open(path, request["root_path"]):
        assert (request["websocket"], request["method"]) == (False, "OPTIONS")
        assert {b"origin", b"access-control-request-method"} <= {name for name, _ in sent}


async def asked(request: dict[str, Any], sent: Headers, token: str) -> tuple[str, Answer]:
    """Return the path that the server made of the wire, and the answer."""
    door = doors()[request["which"]]
    wire, raw = request["path"], request["raw_path"]
    as_on_the_wire = raw == "same"
    path = unquote(wire, errors="surrogatepass") if as_on_the_wire else wire
    answer = await (door.handshake if request["websocket"] else door.ask)(
        headers=sent,
        method=request["method"],
        query=request["query"].replace(b"<T>", token.encode()),
        root_path=request["root_path"],
        scope={"path": path, "raw_path": wire.encode("utf-8", "surrogatepass") if as_on_the_wire else raw},
    )
    return path, answer


def is_open(path: str, root: str) -> bool:
    """Say whether the path below the root is one that the doors open: by other means than the policy's."""
    below = (
        path[len(root) :] if root and path.startswith(root) and path[len(root) : len(root) + 1] in {"", "/"} else path
    )
    return below in {"/health", "/hello", "/docs"} or below.startswith("/docs/")


# What a token holds

json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=8)
    | st.sampled_from([NOW, ISSUER, AUDIENCE]),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=6), inner, max_size=4),
    max_leaves=8,
)
CLAIMS = ["iss", "aud", "sub", "exp", "nbf", "iat", "jti", "sid", "azp", "client_id", "appid", "cid", "scope", "scp"]
CLAIMS += ["typ", "token_use", "nonce", "at_hash", "c_hash", "events", "cnf", "name", "email", "a", "permissions"]
HEADER = ["alg", "kid", "typ", "crit", "b64", "jku", "x5u", "x5c", "jwk", "zip", "cty", "enc", "p2c"]


@settings(max_examples=500, deadline=None)
@given(
    which=st.integers(0, 2),
    claims=st.dictionaries(st.sampled_from(CLAIMS), json_values, max_size=3),
    header=st.dictionaries(st.sampled_from(HEADER), json_values, max_size=1),
    typed=st.booleans(),
)
@example(1, {"azp": []}, {}, False)
@example(1, {"azp": {"a": 1}}, {}, False)
@example(1, {"token_use": [], "typ": {}}, {}, False)
def test_any_claims(which: int, claims: dict[str, Any], header: dict[str, Any], typed: bool) -> None:
    """Whatever stands in a claim or a header, signed or not: a clean answer, and a user who can be read."""
    door = doors()[which]
    omit = () if typed else ("typ",)
    try:
        token = signer().token(alg="EdDSA", claims=claims, header=header, omit_header=omit)
    except (ValueError, UnicodeEncodeError):
        return
    for sent in (token, token.rpartition(".")[0] + "." + b64(b"x" * 64)):
        for path in ("/orders", "/admin/x", "/a/b/two", "/hello"):
            answer = run(door.ask(path, token=sent))
            assert answer.status in STATUSES
            if answer.seen is not None:
                assert sent == token
                read_everything(answer.seen["user"])


def read_everything(user: Any) -> None:
    assert user.is_authenticated
    assert type(user.subject) is str
    assert isinstance(user.display_name, str)
    assert all(isinstance(scope, str) for scope in user.scopes)
    assert isinstance(user.expires_at, int | float)
    assert all(part is None or isinstance(part, str) for part in (user.jti, user.sid, user.client_id))
    assert user.identity
    assert repr(user)
    assert hash(user) == hash(user)
    json.dumps(user.claims)


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=200) | st.text(max_size=40).map(lambda text: text.encode("utf-8", "surrogatepass")))
@example(b"{}")
@example(b"[]")
@example(b"a" * 17_000)
def test_any_bytes_as_a_part_of_a_token(noise: bytes) -> None:
    """As header, payload or signature, encoded or not, and as the whole."""
    head, payload, signature = good_token().split(".")
    encoded = b64(noise).encode()
    parts = [part.encode() for part in (head, payload, signature)]
    for piece in (noise, encoded):
        for at in range(3):
            token = b".".join([*parts[:at], piece, *parts[at + 1 :]])
            if token == good_token().encode():
                continue
            answer = run(doors()[0].ask(headers=[(b"authorization", b"Bearer " + token)]))
            assert answer.status in {400, 401}
    answer = run(doors()[0].ask(headers=[(b"authorization", noise)]))
    assert answer.status in {400, 401}


@settings(max_examples=200, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 255))
def test_no_octet_of_a_good_token_can_be_changed(at: int, change: int) -> None:
    """Known or not: every other token is another token."""
    good = good_token().encode()
    at %= len(good)
    other = good[:at] + bytes([good[at] ^ change]) + good[at + 1 :]
    for sent, statuses in ((other, {400, 401}), (good, {200}), (other, {400, 401})):
        assert run(doors()[0].ask(headers=[(b"authorization", b"Bearer " + sent)])).status in statuses

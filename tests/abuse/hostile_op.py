"""A hostile OpenID provider, served for real: `HostileOP(name)` misbehaves as the scenario of that name says."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any, Unpack, cast
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from oidc_middleware.testing import FakeIssuer, KeyPool, faults, make_key
from oidc_middleware.testing.faults import Fault
from oidc_middleware.testing.keys import SigningKey, make_private_key
from oidc_middleware.testing.minting import Shape
from oidc_middleware.testing.tokens import half_hash

CLIENT = "web"
SECRET = "a client secret of thirty-two bytes"
_POOL = KeyPool()

Query = list[tuple[str, str]]
Scenario = Callable[["HostileOP"], None]


class _Issuer(FakeIssuer):
    """A fake issuer whose ID tokens are of another shape than they should be."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.shape: Callable[[], Shape] = Shape
        self.rewrite: Callable[[str], str] = str

    def id_token(self, subject: str = "alice", **options: Any) -> str:
        own: Shape = self.shape()
        claims = {**options.pop("claims", {}), **own.pop("claims", {})}
        token = super().id_token(subject, **options, claims=claims, **_unpacked(own))
        return self.rewrite(token)


def _unpacked(shape: Shape, **options: Unpack[Shape]) -> Any:
    return {**shape, **options}


class HostileOP:
    """One provider and what it does wrong. `redirect_uri` is where our client may be sent back to."""

    def __init__(self, scenario: str, redirect_uri: str, make: Any = make_private_key, **options: Any) -> None:
        algorithms = ("RS256", "ES256") if "es256" in scenario else ("RS256",)
        self.issuer = _Issuer(algorithms=algorithms, make_private_key=make, audience="api", **options)
        self.issuer.client(CLIENT, secret=SECRET, redirect_uris=[redirect_uri])
        self.issuer.users["alice"] = {"email": "alice@example.com"}
        self.prepare: Callable[[], object] = bool
        """What happens after the browser came to the provider, and before it comes back."""
        SCENARIOS[scenario](self)

    @property
    def key(self) -> SigningKey:
        return self.issuer.keys.current("RS256")

    def says(self, **claims: Any) -> None:
        """Put claims into each ID token."""
        self.issuer.shape = lambda: Shape(claims=claims)

    def headed(self, **headers: Any) -> None:
        """Put members into the header of each ID token."""
        self.issuer.shape = lambda: Shape(headers=headers)

    def lacks(self, claim: str) -> None:
        """Leave a claim out of each ID token."""
        self.issuer.shape = lambda: Shape(omit=(claim,))

    def answers(self, change: Callable[[Query], Query]) -> None:
        """Send the browser back with other parameters."""
        self.issuer.fault("authorize", _with_query(change))

    def grants(self, change: Callable[[Any], Any]) -> None:
        """Answer something else at the token endpoint."""
        self.issuer.fault("token", _with_json(change))

    def informs(self, change: Callable[[Any], Any]) -> None:
        """Answer something else at the userinfo endpoint."""
        self.issuer.fault("userinfo", _with_json(change))


@contextmanager
def op_of(scenario: str, redirect_uri: str, **options: Any) -> Iterator[HostileOP]:
    """Make a provider whose keys are borrowed: to make some takes long."""
    with _POOL.borrow() as make:
        yield HostileOP(scenario, redirect_uri, make, **options)


@asynccontextmanager
async def served_op(scenario: str, redirect_uri: str, **options: Any) -> AsyncIterator[HostileOP]:
    """Serve a provider on loopback until the block ends."""
    with op_of(scenario, redirect_uri, **options) as op:
        async with op.issuer.serve():
            yield op


def _with_query(change: Callable[[Query], Query]) -> Fault:
    def fault(inner: ASGIApp) -> ASGIApp:
        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            async def changed(message: Message) -> None:
                if message["type"] == "http.response.start":
                    message["headers"] = [
                        (name, _changed(value, change) if name == b"location" else value)
                        for name, value in message["headers"]
                    ]
                await send(message)

            await inner(scope, receive, changed)

        return app

    return fault


def _changed(location: bytes, change: Callable[[Query], Query]) -> bytes:
    parts = urlsplit(location.decode())
    return urlunsplit(parts._replace(query=urlencode(change(parse_qsl(parts.query))))).encode()


def _with_json(change: Callable[[Any], Any]) -> Fault:
    def fault(inner: ASGIApp) -> ASGIApp:
        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            start: Message = {}
            body = b""

            async def changed(message: Message) -> None:
                nonlocal start, body
                if message["type"] == "http.response.start":
                    start = message
                    return
                body += message.get("body", b"")
                if message.get("more_body"):
                    return
                content = json.dumps(change(json.loads(body))).encode()
                kept = [header for header in start["headers"] if header[0] != b"content-length"]
                await send({**start, "headers": kept})
                await send({"type": "http.response.body", "body": content})

            await inner(scope, receive, changed)

        return app

    return fault


# Claims


def _wrong_hash(op: HostileOP) -> None:
    op.says(at_hash=half_hash("another access token", "RS256"))


def _duplicate_sub(op: HostileOP) -> None:
    def rewrite(token: str) -> str:
        claims = op.issuer.verify(token) or {}
        payload = json.dumps(claims)[:-1] + ', "sub": "mallory"}'
        header = {"alg": "RS256", "kid": op.key.kid, "typ": "JWT"}
        return op.issuer.raw_token(json.dumps(header).encode(), payload.encode())

    op.issuer.rewrite = rewrite


# Signatures


def _signed(**shape: Any) -> Scenario:
    def scenario(op: HostileOP) -> None:
        op.issuer.shape = lambda: cast("Shape", shape)

    return scenario


def _flipped(op: HostileOP) -> None:
    def rewrite(token: str) -> str:
        signed, _, signature = token.rpartition(".")
        return f"{signed}.{'B' if signature[0] == 'A' else 'A'}{signature[1:]}"

    op.issuer.rewrite = rewrite


def _flipped_es256(op: HostileOP) -> None:
    _flipped(op)
    op.issuer.shape = lambda: Shape(algorithm="ES256")


def _none(spelled: str) -> Scenario:
    def scenario(op: HostileOP) -> None:
        header = json.dumps({"alg": spelled, "typ": "JWT"}).encode()
        op.issuer.rewrite = lambda token: op.issuer.raw_token(
            header, json.dumps(op.issuer.verify(token)).encode(), algorithm="none"
        )

    return scenario


def _own_key_in_header(op: HostileOP) -> None:
    key = make_key("RS256", "mine", op.issuer.keys._make)
    op.issuer.shape = lambda: Shape(key=key, headers={"jwk": key.public_jwk()})


def _small_key(op: HostileOP) -> None:
    from cryptography.hazmat.primitives.asymmetric import rsa

    key = SigningKey("RS256", "small", rsa.generate_private_key(65537, 1024))
    op.issuer.extra_jwks.append(key.public_jwk())
    op.issuer.shape = lambda: Shape(key=key)


def _key_for_another_algorithm(op: HostileOP) -> None:
    jwk = op.key.public_jwk() | {"alg": "RS512", "kid": "other"}
    op.issuer.extra_jwks.append(jwk)
    op.issuer.shape = lambda: Shape(headers={"kid": "other"})


def _two_keys_without_kid(op: HostileOP) -> None:
    op.issuer.rotate("overlap")
    op.issuer.shape = lambda: Shape(omit_headers=("kid",))


def _rotates_before_signing(op: HostileOP) -> None:
    op.prepare = lambda: op.issuer.rotate("replace")


def _broken_key(op: HostileOP) -> None:
    op.issuer.extra_jwks += [{"kty": "RSA", "n": "AQAB", "e": 65537, "kid": "broken"}, 7, {"kty": "OCT"}]


# Answers


def _without(name: str) -> Callable[[Query], Query]:
    return lambda query: [(found, value) for found, value in query if found != name]


def _twice(name: str) -> Callable[[Query], Query]:
    return lambda query: [*query, *((found, value) for found, value in query if found == name)]


def _twice_with_another(name: str) -> Callable[[Query], Query]:
    return lambda query: [*query, (name, "another")]


def _other_state(query: Query) -> Query:
    return [(name, value if name != "state" else "A" * 43) for name, value in query]


def _denied(query: Query) -> Query:
    return [
        ("error", "access_denied"),
        ("error_description", "<script>alert(1)</script>\r\nX: y " + "z" * 1000),
        *((name, value) for name, value in query if name in {"state", "iss"}),
    ]


def _answers(change: Callable[[Query], Query]) -> Scenario:
    return lambda op: op.answers(change)


def _grants(**members: Any) -> Scenario:
    def change(answer: Any) -> Any:
        return {name: value for name, value in {**answer, **members}.items() if value is not None}

    return lambda op: op.grants(change)


def _fails(endpoint: str, fault: Fault) -> Scenario:
    def scenario(op: HostileOP) -> None:
        for name in (endpoint, "oauth_metadata") if endpoint == "discovery" else (endpoint,):
            op.issuer.fault(name, fault)

    return scenario


def _announces(**members: Any) -> Scenario:
    return lambda op: op.issuer.metadata_overrides.update(members)


def _nothing(_: HostileOP) -> None:
    return


_HUGE = faults.oversize(2_000_000)
_AWAY = "http://127.0.0.1:9/elsewhere"

SCENARIOS: dict[str, Scenario] = {
    "oidcc-client-test": _nothing,
    "oidcc-client-test-nonce-invalid": lambda op: op.says(nonce="another"),
    "oidcc-client-test-missing-sub": lambda op: op.lacks("sub"),
    "oidcc-client-test-missing-aud": lambda op: op.lacks("aud"),
    "oidcc-client-test-missing-iat": lambda op: op.lacks("iat"),
    "oidcc-client-test-kid-absent-single-jwks": _signed(omit_headers=("kid",)),
    "oidcc-client-test-kid-absent-multiple-jwks": _two_keys_without_kid,
    "oidcc-client-test-idtoken-sig-rs256": _nothing,
    "oidcc-client-test-idtoken-sig-none": _none("none"),
    "oidcc-client-test-invalid-sig-es256": _flipped_es256,
    "oidcc-client-test-invalid-sig-hs256": _signed(key=SECRET.encode(), algorithm="HS256"),
    "oidcc-client-test-userinfo-bearer-header": _nothing,
    "oidcc-client-test-userinfo-invalid-sub": lambda op: op.informs(lambda said: said | {"sub": "mallory"}),
    "oidcc-client-test-discovery-openid-config": _nothing,
    "oidcc-client-test-discovery-jwks-uri-keys": _nothing,
    "oidcc-client-test-discovery-issuer-mismatch": _announces(issuer="https://another.example"),
    "oidcc-client-test-signing-key-rotation-just-before-signing": _rotates_before_signing,
    "oidcc-client-test-signing-key-rotation": lambda op: setattr(op, "prepare", lambda: op.issuer.rotate("overlap")),
    "oidcc-client-test-invalid-athash": _wrong_hash,
    "x-exp-expired": lambda op: op.says(exp=int(op.issuer.clock.now()) - 3600),
    "x-exp-missing": lambda op: op.lacks("exp"),
    "x-exp-nan": lambda op: op.says(exp=float("nan")),
    "x-exp-bool": lambda op: op.says(exp=True),
    "x-iat-future": lambda op: op.says(iat=int(op.issuer.clock.now()) + 3600),
    "x-nonce-missing": lambda op: op.lacks("nonce"),
    "x-aud-array-untrusted-no-azp": lambda op: op.says(aud=[CLIENT, "untrusted"]),
    "x-aud-substring": lambda op: op.says(aud=f"{CLIENT}-admin"),
    "x-iss-trailing-slash": lambda op: op.says(iss=f"{op.issuer.url}/"),
    "x-alg-hs-with-client-secret": _signed(key=SECRET.encode(), algorithm="HS256"),
    "x-alg-None-case": _none("None"),
    "x-jwk-header": _own_key_in_header,
    "x-jku-header": lambda op: op.headed(jku=f"{op.issuer.url}/jwks"),
    "x-crit-unknown": lambda op: op.headed(crit=["x-unknown"], **{"x-unknown": True}),
    "x-key-alg-mismatch": _key_for_another_algorithm,
    "x-rsa-1024": _small_key,
    "x-sub-empty": lambda op: op.says(sub=""),
    "x-sub-int": lambda op: op.says(sub=7),
    "x-sub-300-chars": lambda op: op.says(sub="a" * 300),
    "x-dup-claim-sub": _duplicate_sub,
    "x-sig-truncated": lambda op: setattr(op.issuer, "rewrite", lambda token: token[:-8]),
    "x-unsigned-2-part": lambda op: setattr(op.issuer, "rewrite", lambda token: token.rpartition(".")[0]),
    "x-state-wrong": _answers(_other_state),
    "x-state-dup": _answers(_twice("state")),
    "x-code-dup": _answers(_twice_with_another("code")),
    "x-iss-param-missing-though-advertised": _answers(_without("iss")),
    "x-error-and-code": _answers(lambda query: [*query, ("error", "access_denied")]),
    "x-error-access-denied": _answers(_denied),
    "x-token-no-idtoken": _grants(id_token=None),
    "x-token-type-mac": _grants(token_type="mac"),
    "x-token-500": _fails("token", faults.status(500)),
    "x-token-array": lambda op: op.grants(lambda answer: [answer]),
    "x-token-redirect": _fails("token", faults.redirect(_AWAY, 307)),
    "x-token-slow": _fails("token", faults.slow(60)),
    "x-discovery-redirect": _fails("discovery", faults.redirect(_AWAY)),
    "x-discovery-huge": _fails("discovery", _HUGE),
    "x-jwks-redirect": _fails("jwks", faults.redirect(_AWAY)),
    "x-jwks-empty": _fails("jwks", faults.body(b'{"keys": []}')),
    "x-jwks-one-bad-key": _broken_key,
    "x-jwks-huge": _fails("jwks", _HUGE),
    "x-jwks-slow": _fails("jwks", faults.slow(60)),
    "x-jwks-html": _fails("jwks", faults.content_type("text/html")),
    "x-userinfo-no-sub": lambda op: op.informs(lambda said: {"email": said["email"]}),
    "x-userinfo-500": _fails("userinfo", faults.status(500)),
    "x-sent-twice-state": _answers(_twice_with_another("state")),
    "x-iss-other": _answers(lambda query: [*_without("iss")(query), ("iss", "https://evil.example")]),
}
"""Every scenario by name. What is beside those of the table is ours."""

"""`FakeIssuer`: an OpenID provider inside the process, for tests."""

from __future__ import annotations

import itertools
import secrets
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from typing import TYPE_CHECKING, Any, Unpack
from urllib.parse import parse_qsl, urlsplit

import jwt
import msgspec

from oidc_middleware.clock import Clock, SystemClock
from oidc_middleware.testing.grants import Client, Grants
from oidc_middleware.testing.keys import KeyRing, MakeKey, Rotation, SigningKey, make_private_key
from oidc_middleware.testing.minting import Shape, mint, signer
from oidc_middleware.testing.routing import ENDPOINTS, build_app, path_of
from oidc_middleware.testing.tokens import Key, half_hash, lay_over, sign

if TYPE_CHECKING:
    import socket

    import httpx2
    from starlette.applications import Starlette

    from oidc_middleware.testing.faults import Fault

LOGOUT_EVENT = "http://schemas.openid.net/event/backchannel-logout"


class FakeIssuer:
    """An OpenID provider that does what a test wants: mints any token, rotates its keys, fails.

    `url` is the issuer identifier and may have a path. `audience` is what access tokens are for unless a call says
    otherwise, `expires_in` their life in seconds. `make_private_key` makes keys (see `KeyPool`).
    """

    def __init__(
        self,
        url: str = "https://issuer.example",
        *,
        audience: str = "https://api.example",
        algorithms: Sequence[str] = ("RS256",),
        clock: Clock | None = None,
        expires_in: int = 300,
        make_private_key: MakeKey = make_private_key,
    ) -> None:
        self.url: str = url
        self.audience = audience
        self.expires_in = expires_in
        self.clock: Clock = clock or SystemClock()
        self.keys: KeyRing = KeyRing(tuple(algorithms), make_private_key)
        self.extra_jwks: list[Any] = []
        """Members that the JWKS has besides the issuer's own keys: anything at all."""
        self.metadata_overrides: dict[str, Any] = {}
        """Members of the discovery document to add or replace; `None` leaves one out."""
        self.cache_control: dict[str, str] = {}
        """Cache-Control by endpoint (absent: `no-store`)."""
        self.users: dict[str, dict[str, Any]] = {}
        """Claims of users, put into every token they get by logging in; a user need not be listed to log in."""
        self.profiles: dict[str, dict[str, Any]] = {}
        """Claims of users that the userinfo endpoint alone tells, over those of `users`."""
        self.clients: dict[str, Client] = {}
        self.grants: Grants = Grants()
        self.sends_iss: bool = True
        """Whether authorization responses name the issuer, and the metadata says so (RFC 9207)."""
        self.rotates_refresh_tokens: bool = True
        """Whether each use of a refresh token gives a new one; else it stays good, and none comes with the answer."""
        self.detects_reuse: bool = True
        """Whether a rotated refresh token that comes again ends all that came of the login (RFC 9700 §4.14.2)."""
        self.id_token_shape: Shape = {}
        """How the ID tokens of logins and refreshes differ from the usual ones."""
        self.authorization_overrides: dict[str, Any] = {}
        """Parameters of authorization responses to add or replace; `None` leaves one out, a list repeats it."""
        self.token_overrides: dict[str, Any] = {}
        """Members of the token endpoint's answers to add or replace; `None` leaves one out."""
        self.client_transport: httpx2.AsyncBaseTransport | None = None
        """How the back-channel logout URIs of clients are reached; `None`: over the network."""
        self.requests: Counter[str] = Counter()
        """How many requests each endpoint got, failed ones too."""
        self.token_requests: Counter[str] = Counter()
        """How many requests of authenticated clients the token endpoint got, by grant type."""
        self._faults: dict[str, Iterator[Fault]] = {}
        self._not_access: set[str] = set()
        self._path = urlsplit(url).path.rstrip("/")
        self.app: Starlette = build_app(self, self._path)

    # Where it can be reached

    def endpoint(self, name: str) -> str:
        """Return the URL of an endpoint.

        Raises:
            ValueError: there is no such endpoint.
        """
        parts = urlsplit(self.url)
        return f"{parts.scheme}://{parts.netloc}{path_of(name, self._path)}"

    def transport(self, *others: FakeIssuer) -> httpx2.AsyncBaseTransport:
        """Return a transport that reaches this issuer, and `others`, without a network."""
        from oidc_middleware.testing.transport import IssuerTransport

        return IssuerTransport(self, *others)

    def bind(self, host: str = "127.0.0.1", port: int = 0) -> socket.socket:
        """Return a listening socket for a server of your own, and make `url` point to it; port 0 takes a free one."""
        from oidc_middleware.testing.server import bind

        listening = bind(host, port)
        tail = urlsplit(self.url).path
        self.url = f"http://{host}:{listening.getsockname()[1]}{tail}"
        return listening

    @asynccontextmanager
    async def serve(self, host: str = "127.0.0.1", port: int = 0) -> AsyncIterator[FakeIssuer]:
        """Serve over HTTP inside the running event loop until the block ends (needs uvicorn).

        `url` changes to the server's and stays so: a later `serve` on the same port brings the same issuer back.
        """
        from oidc_middleware.testing.server import serving

        async with serving(self.app, self.bind(host, port)):
            yield self

    @contextmanager
    def serve_in_thread(self, host: str = "127.0.0.1", port: int = 0) -> Iterator[FakeIssuer]:
        """Serve as `serve` does, for tests without an event loop and for clients in other processes."""
        from oidc_middleware.testing.server import serving_in_thread

        with serving_in_thread(self.app, self.bind(host, port)):
            yield self

    # What it knows

    def client(
        self,
        client_id: str,
        *,
        secret: str | None = None,
        redirect_uris: Sequence[str] = (),
        post_logout_redirect_uris: Sequence[str] = (),
        scopes: Sequence[str] | None = None,
        opaque: bool = False,
        backchannel_logout_uri: str | None = None,
    ) -> Client:
        """Register a client, and return it.

        Without `secret` it is public; `scopes` are those it may ask for (`None`: any); with `opaque` its access
        tokens are opaque, not JWTs; `backchannel_logout_uri` is where it gets logout tokens (see `logout`).
        """
        self.clients[client_id] = client = Client(
            client_id,
            secret,
            tuple(redirect_uris),
            tuple(post_logout_redirect_uris),
            None if scopes is None else frozenset(scopes),
            "opaque" if opaque else "jwt",
            backchannel_logout_uri,
        )
        return client

    # Minting

    def token(
        self,
        subject: str = "alice",
        *,
        audience: str | Sequence[str] | None = None,
        scope: str | None = None,
        expires_in: float | None = None,
        client_id: str = "client",
        **shape: Unpack[Shape],
    ) -> str:
        """Mint a JWT access token (RFC 9068 §2), right unless `shape` says otherwise.

        Raises:
            ValueError: this issuer has no key for the algorithm.
            TypeError: `shape` has what no `Shape` has.
        """
        claims = self._access_claims(subject, audience, scope, expires_in, client_id)
        return mint(self.keys, "at+jwt", claims, shape)

    def opaque_token(
        self,
        subject: str = "alice",
        *,
        audience: str | Sequence[str] | None = None,
        scope: str | None = None,
        expires_in: float | None = None,
        client_id: str = "client",
        claims: Mapping[str, Any] | None = None,
        omit: Sequence[str] = (),
    ) -> str:
        """Make an opaque access token; introspection answers with its claims, changed by `claims` and `omit`."""
        value = secrets.token_urlsafe(32)
        base = self._access_claims(subject, audience, scope, expires_in, client_id)
        self.grants.opaque[value] = lay_over(base, claims, omit)
        return value

    def id_token(
        self,
        subject: str = "alice",
        *,
        client_id: str = "client",
        nonce: str | None = None,
        access_token: str | None = None,
        expires_in: float = 300,
        **shape: Unpack[Shape],
    ) -> str:
        """Mint an ID token (OIDC Core §2), with `at_hash` where an access token is given.

        Raises:
            ValueError: this issuer has no key for the algorithm.
            TypeError: `shape` has what no `Shape` has.
        """
        now = int(self.clock.now())
        claims = {"iss": self.url, "sub": subject, "aud": client_id, "iat": now, "exp": now + expires_in}
        if nonce is not None:
            claims["nonce"] = nonce
        if access_token is not None:
            claims["at_hash"] = half_hash(access_token, signer(self.keys, shape)[1])
        return self._not_for_access(mint(self.keys, "JWT", claims, shape))

    def logout_token(
        self,
        subject: str | None = "alice",
        *,
        client_id: str = "client",
        sid: str | None = None,
        expires_in: float = 120,
        **shape: Unpack[Shape],
    ) -> str:
        """Mint a logout token (OIDC Back-Channel Logout §2.4).

        Raises:
            ValueError: this issuer has no key for the algorithm.
            TypeError: `shape` has what no `Shape` has.
        """
        now = int(self.clock.now())
        claims = {"iss": self.url, "aud": client_id, "iat": now, "exp": now + expires_in, "jti": secrets.token_hex(16)}
        about = {name: value for name, value in {"sub": subject, "sid": sid}.items() if value is not None}
        return self._not_for_access(
            mint(self.keys, "logout+jwt", {**claims, **about, "events": {LOGOUT_EVENT: {}}}, shape)
        )

    def raw_token(self, header: bytes, payload: bytes, key: Key | None = None, algorithm: str | None = None) -> str:
        """Sign any bytes as header and payload; see `tokens.sign`."""
        return sign(header, payload, key or self.keys.current(), algorithm)

    # Signing in and out

    async def sign_in(self, url: str, username: str = "alice") -> str:
        """Log in at the login page as somebody would whom a client sent there; return where they are sent back to.

        `url` is the client's authentication request: the `Location` of its redirect.

        Raises:
            ValueError: the issuer refuses the request, and sends nobody anywhere.
        """
        import httpx2

        page, _, query = url.partition("?")
        form = dict(parse_qsl(query, keep_blank_values=True)) | {"username": username, "decision": "allow"}
        async with httpx2.AsyncClient(transport=self.transport()) as browser:
            answer = await browser.post(page, data=form)
        if "location" not in answer.headers:
            raise ValueError(f"the issuer answers {answer.status_code}: {answer.text[:500]}")
        return str(answer.headers["location"])

    async def logout(
        self, sub: str | None = None, *, sid: str | None = None, **shape: Unpack[Shape]
    ) -> dict[str, httpx2.Response | None]:
        """Sign a user out: of one session (`sid`), else of all; and tell each client that has a URI for it.

        What is given stands in the logout tokens, changed as `shape` says. Return the clients' answers by client id,
        `None` where nothing was answered.

        Raises:
            ValueError: this issuer has no key for the algorithm.
            TypeError: `shape` has what no `Shape` has.

        Source: OIDC Back-Channel Logout §2.5.
        """
        from oidc_middleware.testing.logout import tell_clients

        return await tell_clients(self, sub, sid, shape)

    # Breaking

    def rotate(self, how: Rotation = "overlap", algorithm: str | None = None) -> SigningKey:
        """Make and publish a new key, and return it; see `KeyRing.rotate` for the three ways.

        Raises:
            ValueError: `how` is none of them, or this issuer does not sign with `algorithm`.
        """
        return self.keys.rotate(how, algorithm)

    def fault(self, endpoint: str, fault: Fault, times: int | None = None) -> None:
        """Let `endpoint` fail, the next `times` requests or (`None`) until `heal`; `"*"` means all endpoints.

        Raises:
            ValueError: there is no such endpoint.
        """
        for name in self._named(endpoint):
            self._faults[name] = itertools.repeat(fault) if times is None else itertools.repeat(fault, times)

    def heal(self, endpoint: str = "*") -> None:
        """End the fault of `endpoint`, or of all.

        Raises:
            ValueError: there is no such endpoint.
        """
        for name in self._named(endpoint):
            self._faults.pop(name, None)

    def next_fault(self, endpoint: str) -> Fault | None:
        """Return the fault that the next request to `endpoint` meets, and count it as met."""
        return next(self._faults.get(endpoint, iter(())), None)

    def _named(self, endpoint: str) -> tuple[str, ...]:
        if endpoint == "*":
            return ENDPOINTS
        path_of(endpoint, self._path)
        return (endpoint,)

    # Reading its own tokens

    def verify(self, token: str) -> dict[str, Any] | None:
        """Return the claims of a JWT that one of this issuer's keys signed, however old; `None` for all else."""
        for key in self.keys.issued:
            try:
                payload = jwt.PyJWS().decode(token, key.private.public_key(), [key.algorithm])
                claims = msgspec.json.decode(payload, type=dict[str, Any])
            except (jwt.PyJWTError, msgspec.DecodeError):
                continue
            return claims
        return None

    def read(self, token: str) -> dict[str, Any] | None:
        """Return the claims of an active access token of this issuer; `None` where it is not active."""
        claims = self.grants.opaque.get(token) or self.verify(token)
        if claims is None or token in self._not_access or not self.grants.is_live(token):
            return None
        expiry = claims.get("exp")
        return claims if isinstance(expiry, int | float) and self.clock.now() < expiry else None

    def _access_claims(
        self,
        subject: str,
        audience: str | Sequence[str] | None,
        scope: str | None,
        expires_in: float | None,
        client_id: str,
    ) -> dict[str, Any]:
        now = int(self.clock.now())
        claims = {
            "iss": self.url,
            "sub": subject,
            "aud": self.audience if audience is None else audience,
            "client_id": client_id,
            "iat": now,
            "exp": now + (self.expires_in if expires_in is None else expires_in),
            "jti": secrets.token_hex(16),
        }
        return claims if scope is None else {**claims, "scope": scope}

    def _not_for_access(self, token: str) -> str:
        self._not_access.add(token)
        return token

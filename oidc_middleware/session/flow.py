"""A login that is under way: what the browser keeps of it meanwhile, sealed, in a cookie of its own for each.

Nothing is stored for somebody who only begins a login, on whatever node: a crowd of them costs nobody memory.
"""

from __future__ import annotations

import hmac
import os
from base64 import urlsafe_b64encode
from collections.abc import Sequence
from functools import cached_property
from hashlib import sha256
from typing import Final

import msgspec

from oidc_middleware.core import base64url, cookies
from oidc_middleware.core.cookies import CookieShape
from oidc_middleware.errors import LoginError
from oidc_middleware.session.seal import KEY_BYTES, derived_key, seal, unseal

LIFE: Final = 600.0
"""Seconds that a login may take."""
MOST: Final = 5
"""Logins under way in one browser: tabs that wait at the issuer. One more ends the oldest."""
MOST_BYTES: Final = 4096
"""Bytes of their cookies in all, for a proxy takes 8 KiB: long return paths leave room for fewer."""
_MOST_LOOKED_AT = 4 * MOST
_LONGEST_VALUE = 4096


class Flow(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """What has to be known when the browser comes back. `started_at` is Unix time, `max_age` seconds.

    One secret is kept, from which the three come that are sent: a browser with many tabs keeps many flows, and sends
    all of them with each request, of which proxies take 8 KiB.
    """

    issuer: str
    secret: bytes
    return_path: str
    started_at: float
    max_age: int | None = None
    resource: str | None = None

    def __repr__(self) -> str:
        return f"Flow(issuer={self.issuer!r}, return_path={self.return_path!r})"

    @property
    def state(self) -> str:
        """What comes back with the answer (RFC 6749 §10.12)."""
        return self._derived(b"state")

    @property
    def nonce(self) -> str:
        """What comes back in the ID token (OpenID Connect Core §15.5.2)."""
        return self._derived(b"nonce")

    @property
    def verifier(self) -> str:
        """What shows that the code was asked for here; only the token endpoint gets to know it (RFC 7636 §4.1)."""
        return self._derived(b"code_verifier")

    @property
    def challenge(self) -> str:
        """What the issuer gets to know of the verifier before: the S256 challenge (RFC 7636 §4.2)."""
        return _base64url(sha256(self.verifier.encode("ascii")).digest())

    def is_over(self, now: float) -> bool:
        """Tell whether the login took too long. Another node's clock, by which it began, may be ahead of ours."""
        return not -LIFE < now - self.started_at < LIFE

    def _derived(self, purpose: bytes) -> str:
        return _base64url(hmac.digest(self.secret, purpose, "sha256"))


def new_flow(
    issuer: str, return_path: str, now: float, *, max_age: int | None = None, resource: str | None = None
) -> Flow:
    """Return a login that begins, with 256 random bits."""
    return Flow(issuer, os.urandom(KEY_BYTES), return_path, now, max_age, resource)


def _base64url(data: bytes) -> str:
    return urlsafe_b64encode(data).rstrip(b"=").decode("ascii")


class FlowCookies:
    """The cookies of logins under way. `name` is how the session's cookie is called, without a prefix.

    The first of `secrets` seals, all of them open; without any, one is made up that dies with the process.
    """

    def __init__(self, name: str, shape: CookieShape, secrets: Sequence[bytes], namespace: str) -> None:
        self._shape = shape
        self._begin = shape.name(f"{name}_flow_")
        self._secrets = tuple(secrets)
        self._purpose = b"login\x00" + namespace.encode()
        self._decoder = msgspec.msgpack.Decoder(Flow)

    def set(self, flow: Flow) -> str:
        """Return the `Set-Cookie` header that lets a browser keep a login."""
        name = self._name(flow.state)
        sealed = seal(self._keys[0], msgspec.msgpack.encode(flow), name.encode("ascii"))
        return self._shape.set(name, _base64url(sealed), LIFE)

    def clear(self, state: str) -> str:
        """Return the `Set-Cookie` header that takes the login of this state away."""
        return self._shape.clear(self._name(state))

    def begin(self, flow: Flow, header: bytes, now: float) -> list[str]:
        """Return the `Set-Cookie` headers that let a browser keep one more login, and make room for it.

        The oldest ones go, and what is no login; `header` is the Cookie header that the browser sends.
        """
        found: list[tuple[float, str, int]] = []
        for name, values in cookies.grouped(header, self._begin, _MOST_LOOKED_AT).items():
            other = self._open(name, values[0])
            is_good = len(values) == 1 and other is not None and not other.is_over(now)
            found.append(
                (other.started_at if is_good and other is not None else 0.0, name, len(name + "=; ") + len(values[0]))
            )
        new = self.set(flow)
        room = MOST_BYTES - len(new.partition(";")[0])
        cleared = []
        for place, (began, name, size) in enumerate(sorted(found, reverse=True), 1):
            room -= size
            if place >= MOST or room < 0 or not began:
                cleared.append(self._shape.clear(name))
        return [*cleared, new]

    def find(self, header: bytes, state: str, now: float) -> Flow:
        """Return the login of this state, which this browser began.

        Raises:
            LoginError: there is none, or it took too long.
        """
        name = self._name(state)
        values = cookies.values(header, name)
        if not values:
            raise LoginError("no login with this state is under way in this browser")
        flow = self._open(name, values[0])
        if len(values) > 1 or flow is None or not hmac.compare_digest(flow.state, state):
            raise LoginError("the cookie of the login is not as it was set")
        if flow.is_over(now):
            raise LoginError(f"it took longer than {LIFE:g} s")
        return flow

    def _name(self, state: str) -> str:
        return self._begin + sha256(state.encode("ascii")).hexdigest()[:8]

    def _open(self, name: str, value: bytes) -> Flow | None:
        """Return what a cookie holds; None when it is none of ours, whatever it is."""
        if len(value) > _LONGEST_VALUE:
            return None
        try:
            sealed = base64url.decode(value)
            for key in self._keys:
                opened = unseal(key, sealed, name.encode("ascii"))
                if opened is not None:
                    return self._decoder.decode(opened)
        except (ValueError, msgspec.MsgspecError):
            pass
        return None

    @cached_property
    def _keys(self) -> tuple[bytes, ...]:
        """Derived when first needed, so that processes forked before that do not share one that was made up."""
        return tuple(derived_key(secret, self._purpose) for secret in self._secrets or (os.urandom(KEY_BYTES),))

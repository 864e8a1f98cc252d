"""What a browser brings back from the issuer after a sign-out: where it wanted to go, sealed."""

from __future__ import annotations

import os
import struct
from base64 import urlsafe_b64encode
from collections.abc import Sequence
from functools import cached_property
from typing import Final

from oidc_middleware.clock import Clock
from oidc_middleware.core import base64url
from oidc_middleware.core.return_path import return_path
from oidc_middleware.session.seal import KEY_BYTES, derived_key, seal, unseal

LIFE: Final = 600.0
"""Seconds that a browser has to come back."""

_PLACE: Final = b"state of a logout request"
_END = struct.Struct(">d")


class LogoutStates:
    """Makes the `state` of logout requests, each another one though they lead to the same place, and reads it.

    It is sealed under a key of the first of `secrets`, and opens under those of all; without any, under one that dies
    with the process.
    """

    def __init__(self, secrets: Sequence[bytes], namespace: str, clock: Clock) -> None:
        self._secrets = tuple(secrets)
        self._purpose = b"logout\x00" + namespace.encode()
        self._now = clock.now

    def state(self, path: str) -> str:
        """Return a state that says where on this origin the browser goes afterwards."""
        sealed = seal(self._keys[0], _END.pack(self._now() + LIFE) + path.encode("ascii"), _PLACE)
        return urlsafe_b64encode(sealed).rstrip(b"=").decode("ascii")

    def path(self, state: str) -> str | None:
        """Return what a state says; None where it is too old, or not one of ours."""
        try:
            sealed = base64url.decode(state.encode("ascii", "replace"))
        except ValueError:
            return None
        for key in self._keys:
            opened = unseal(key, sealed, _PLACE)
            if opened is not None:
                (end,) = _END.unpack_from(opened)
                return return_path(opened[_END.size :].decode("ascii")) if self._now() < end else None
        return None

    @cached_property
    def _keys(self) -> tuple[bytes, ...]:
        """Derived when first needed, so that processes forked before that do not share one that was made up."""
        return tuple(derived_key(secret, self._purpose) for secret in self._secrets or (os.urandom(KEY_BYTES),))

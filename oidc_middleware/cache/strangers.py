"""How nodes that share a tier find out that they have different secrets."""

from __future__ import annotations

import logging
from collections.abc import Iterable

import msgspec

from oidc_middleware.cache.backend import Backend, Entry
from oidc_middleware.cache.envelope import Sealer
from oidc_middleware.cache.types import TYPES
from oidc_middleware.clock import Clock
from oidc_middleware.errors import BackendUnavailable

_LOGGER = logging.getLogger("oidc_middleware.cache")
_KIND = TYPES["general"]
# Seconds for which what a node left counts, and between two looks at what others left.
_LIFE = 90.0
_PAUSE = 15.0
# Whoever can write the tier can make up any number of strangers.
_MOST = 16
_MOST_BYTES = 4096

_Secrets = dict[bytes, bytes]
"""Check values by key id: those of all secrets of a node."""
_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(list[tuple[_Secrets, float]]).decode


class Strangers:
    """Nodes that seal with other secrets, seen in one entry in clear, where every node leaves its check values.

    They tell nothing about the secrets. Nodes in the midst of a rotation have one in common and are no strangers.
    """

    def __init__(self, backend: Backend, sealer: Sealer, clock: Clock) -> None:
        self.complaint: str = ""
        """What the last look found, empty when that was nobody strange."""
        self._backend = backend
        self._name = sealer.check_name
        self._ours = dict(sealer.check_values)
        self._clock = clock
        self._due_at = clock.monotonic()
        self._seen: set[tuple[tuple[bytes, bytes], ...]] = set()

    def __len__(self) -> int:
        """How many different ones were seen, 16 at most."""
        return len(self._seen)

    async def look(self) -> None:
        """Compare what other nodes left with what this one has, and leave that too; every 15 seconds at most.

        A tier that does not answer is somebody else's concern.
        """
        begun = self._clock.monotonic()
        if begun < self._due_at:
            return
        self._due_at = begun + _PAUSE
        now = self._clock.now()
        try:
            others = self._others_in(await self._backend.get(_KIND, self._name), now)
            self._judge([theirs for theirs, _ in others if not self._is_one_of_us(theirs)])
            left = [(self._ours, now + _LIFE), *others][:_MOST]
            await self._backend.set(_KIND, self._name, _encode(left), now + _LIFE, wait=True)
        except BackendUnavailable:
            self._due_at = begun

    def _others_in(self, entry: Entry | None, now: float) -> list[tuple[_Secrets, float]]:
        """Return what other nodes left and still counts, each with its end; garbage counts as nothing."""
        if entry is None or len(entry.value) > _MOST_BYTES:
            return []
        try:
            left = _decode(entry.value)
        except (msgspec.MsgspecError, RecursionError):
            return []
        return [(theirs, min(end, now + _LIFE)) for theirs, end in left if now < end and theirs not in ({}, self._ours)]

    def _is_one_of_us(self, theirs: _Secrets) -> bool:
        common = theirs.keys() & self._ours.keys()
        return bool(common) and all(theirs[key_id] == self._ours[key_id] for key_id in common)

    def _judge(self, strangers: Iterable[_Secrets]) -> None:
        self.complaint = ""
        for secrets in strangers:
            ids = ", ".join(sorted(key_id.decode(errors="replace") for key_id in secrets))
            self.complaint = f"another node seals with a secret that is not configured here (key ids {ids})"
            stranger = tuple(sorted(secrets.items()))
            if stranger not in self._seen and len(self._seen) < _MOST:
                self._seen.add(stranger)
                _LOGGER.error(
                    "In the shared cache, %s: nodes do not share it until they have a secret in common. Give them the "
                    "same secret, or different namespaces.",
                    self.complaint,
                )

"""Verified tokens that other nodes know: asked for only where verification would need the issuer."""

from __future__ import annotations

import logging
from hashlib import blake2b
from typing import Literal

import msgspec

from oidc_middleware.auth.generation import Generation
from oidc_middleware.auth.known import TokenRecord
from oidc_middleware.cache import Codec, TypedCache
from oidc_middleware.core.claims_mapping import USUAL
from oidc_middleware.errors import BackendUnavailable

_log = logging.getLogger("oidc_middleware.auth")


class _Shared(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """What is told of a token: until when its verdict holds (Unix time), and its verified payload."""

    until: float
    payload: bytes


def codec(generation: Generation) -> Codec[TokenRecord]:
    """Return how a record of the token cache travels. The generations are each node's own: they are set on arrival."""
    decoder = msgspec.msgpack.Decoder(_Shared)

    def encode(record: TokenRecord) -> bytes:
        return msgspec.msgpack.encode(_Shared(record[0], record[3]))

    def decode(data: bytes) -> TokenRecord:
        try:
            shared = decoder.decode(data)
        except msgspec.MsgspecError as error:
            raise ValueError("not a shared token") from error
        return shared.until, generation.value, generation.keys, shared.payload, b"", shared.until, USUAL

    return Codec(encode, decode, is_negative=lambda record: not record[3])


class SharedTokens:
    """The verdicts of all nodes on tokens.

    Another node's verdict stands for the signature alone: what a token must show is checked here before, whoever
    verified it. It holds no longer than the minute for which that node believes it itself. `share` says which verdicts
    are told; where the cache is not shared, none are.
    """

    def __init__(self, cache: TypedCache[TokenRecord], share: Literal["auto", "always", "never"]) -> None:
        self._cache = cache
        self._is_on = share != "never" and cache.is_shared
        self.tells_all: bool = share == "always" and cache.is_shared
        """Whether other nodes learn of every token, and not only of those whose verification took a call."""

    async def find(self, source: bytes, token: bytes, payload: bytes) -> float | None:
        """Return until when another node's verdict on a token holds (Unix time), None where nobody knows it.

        `source` is where the issuer's keys come from: verdicts under other keys say nothing.
        """
        if not self._is_on:
            return None
        try:
            record = await self._cache.get(_key(source, token))
        except BackendUnavailable:
            return None
        return record[0] if record is not None and record[3] == payload else None

    async def tell(self, source: bytes, token: bytes, payload: bytes, until: float) -> None:
        """Tell other nodes of a verified token, and wait until they can know it. If that fails, the token is good."""
        if not self._is_on:
            return
        try:
            await self._cache.set(_key(source, token), (until, 0, 0, payload, b"", until, USUAL), until)
        except BackendUnavailable as error:
            _log.debug("a verified token is not shared: %s", error)


def _key(source: bytes, token: bytes) -> bytes:
    """Return the key of a verdict. No SHA-256, by which known tokens are found: a client can send source and token."""
    return blake2b(token, key=source, digest_size=32).digest()

"""How a live value becomes bytes when it leaves the process, and bytes a live value when it comes in."""

from __future__ import annotations

import operator
from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

import msgspec

from oidc_middleware.cache.backend import checked_value

V = TypeVar("V")


@dataclass(frozen=True, slots=True)
class Codec(Generic[V]):
    """Two functions that undo each other, and one that knows a negative answer.

    `decode` gets bytes that anybody may have written and raises ValueError for whatever it cannot read. `is_negative`
    tells whether a value says "there is nothing"; absent: an empty one does.
    """

    encode: Callable[[V], bytes]
    decode: Callable[[bytes], V]
    is_negative: Callable[[V], bool] = operator.not_


RAW: Codec[bytes] = Codec(checked_value, checked_value)
"""The codec of values that are bytes already."""


def msgpack(shape: type[V]) -> Codec[V]:
    """Return a codec that writes MessagePack and reads back nothing but `shape`."""
    decoder = msgspec.msgpack.Decoder(shape)

    def decode(data: bytes) -> V:
        try:
            return decoder.decode(data)
        except (msgspec.MsgspecError, RecursionError) as error:
            raise ValueError("not MessagePack of the expected shape") from error

    return Codec(msgspec.msgpack.Encoder().encode, decode)

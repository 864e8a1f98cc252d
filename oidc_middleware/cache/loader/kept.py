"""What was loaded, and until when it is fresh: the end of its entry may be later."""

from __future__ import annotations

import math
import struct
from typing import Generic, NamedTuple, TypeVar

from oidc_middleware.cache.codec import Codec

V = TypeVar("V")

_FRAME = struct.Struct(">Bdd")
_NOTHING, _VALUE = 0, 1


class Loaded(NamedTuple, Generic[V]):
    """What a loader returns that knows until when its value is fresh (Unix time in seconds)."""

    value: V
    expires_at: float


class Kept(NamedTuple, Generic[V]):
    """A value (None: there is none), when its loading began, and until when it is fresh, in Unix time (seconds)."""

    value: V | None
    loaded_at: float
    fresh_until: float


def kept(codec: Codec[V]) -> Codec[Kept[V]]:
    """Return a codec of what a `LoadingCache` keeps, given one of the values alone.

    Beyond the process it is a byte (0: there is no value, 1: there is one), both times as IEEE 754, and the value.
    """

    def encode(item: Kept[V]) -> bytes:
        if item.value is None:
            return _FRAME.pack(_NOTHING, item.loaded_at, item.fresh_until)
        return _FRAME.pack(_VALUE, item.loaded_at, item.fresh_until) + codec.encode(item.value)

    def decode(data: bytes) -> Kept[V]:
        if len(data) < _FRAME.size:
            raise ValueError("no value with its times")
        what, loaded_at, fresh_until = _FRAME.unpack_from(data)
        if what > _VALUE or not -math.inf < loaded_at <= fresh_until < math.inf:
            raise ValueError("no value with its times")
        if what == _VALUE:
            return Kept(codec.decode(data[_FRAME.size :]), loaded_at, fresh_until)
        return Kept(None, loaded_at, fresh_until)

    def is_negative(item: Kept[V]) -> bool:
        return item.value is None or codec.is_negative(item.value)

    return Codec(encode, decode, is_negative)

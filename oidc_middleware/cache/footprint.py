"""How much memory a value takes."""

from __future__ import annotations

from sys import getsizeof

_ATOMS = frozenset({bool, bytes, float, int, str})
_MUTABLE = frozenset({bytearray, dict, list, memoryview, set})


def footprint(value: object) -> int:
    """Return the bytes that `value` takes, with what lies in its tuples and frozensets.

    Other objects count as they stand, without what they refer to; who stores such objects knows their size better.

    Raises:
        TypeError: `value` is None, which means a miss, or can be changed by whoever gets it from the cache.
    """
    if value is None:
        raise TypeError("None cannot be stored: it means a miss")
    total = 0
    pending = [value]
    for item in pending:  # grows meanwhile
        total += getsizeof(item)
        kind = type(item)
        if kind in _ATOMS:
            continue
        if kind in _MUTABLE:
            raise TypeError(f"a cached value is shared by all who get it, and {kind.__name__} can be changed")
        if isinstance(item, tuple | frozenset):
            pending.extend(item)
    return total

"""Our own cookies stay here: the app neither gets nor sets the session that it does not keep.

Source: RFC 6265 §5.2 and §5.4 (how a browser writes and reads them), §4.1.1 (`Set-Cookie`).
"""

from __future__ import annotations

_PREFIXES = (b"__host-", b"__secure-")
_SKIPPED = b"= \t\n\r\x0b\x0c"


class OwnCookies:
    """The cookies of sessions and logins: `name` as in the settings, with each prefix and without."""

    __slots__ = ("_flow", "_name")

    def __init__(self, name: str) -> None:
        self._name = name.lower().encode()
        self._flow = self._name + b"_flow_"

    def without(self, cookie: bytes) -> bytes:
        """Return the value of a `Cookie` header without ours, the others byte by byte as they came."""
        pairs = cookie.split(b";")
        kept = [pair for pair in pairs if not self._is_ours(pair)]
        return cookie if len(kept) == len(pairs) else b";".join(kept).strip()

    def are_set_by(self, set_cookie: bytes) -> bool:
        """Tell whether the value of a `Set-Cookie` header sets one of ours."""
        return self._is_ours(set_cookie.partition(b";")[0])

    def _is_ours(self, pair: bytes) -> bool:
        # A browser sends a cookie without a name, such as `=a=b`, as if it were one with a name.
        name = pair.lstrip(_SKIPPED).partition(b"=")[0].strip().lower()
        for prefix in _PREFIXES:
            name = name.removeprefix(prefix)
        return name == self._name or name.startswith(self._flow)

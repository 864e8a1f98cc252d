"""Where requests go: one address, which nothing in a request can change."""

from __future__ import annotations

import re
from dataclasses import dataclass
from urllib.parse import quote

from oidc_middleware.core.addresses import parse_url
from oidc_middleware.core.paths import route_path
from oidc_middleware.errors import ConfigError, InvalidRequest
from oidc_middleware.settings import urls
from oidc_middleware.settings.problem import Problem

# What stands in a path as it is (RFC 3986 §3.3). A `%` was decoded once already, so it is none of an escape.
_PATH = "/:@!$&'()*+,;=~"
_FORM = "Write it as http://host:port, with a path if need be."
_USUAL_PORTS = {"http": 80, "https": 443}
# RFC 9112 §3.2.1: the origin form. What is no printable ASCII was escaped, or is none.
_ORIGIN_FORM = re.compile(rb"/[!-\"$-~]*")


@dataclass(frozen=True, slots=True)
class Upstream:
    """The address of the app: `host` without brackets, `authority` as in a `Host` header, `path` before each path."""

    secure: bool
    host: str
    port: int
    authority: bytes
    path: bytes

    @classmethod
    def parse(cls, url: str) -> Upstream:
        """Take apart a URL such as `http://127.0.0.1:9000` or `https://app.internal/base`.

        Raises:
            ConfigError: no http or https URL, or one with a user, a query or a fragment.
        """
        if not url.lower().startswith(("http://", "https://")):
            raise ConfigError("upstream", "is no http or https URL", _FORM)
        try:
            scheme, host, port, path, query = parse_url(urls.endpoint(url))
        except Problem as problem:
            raise problem.of("upstream") from None
        if query:
            raise ConfigError("upstream", "has a query", _FORM)
        shown = f"[{host}]" if ":" in host else host
        authority = shown if port == _USUAL_PORTS[scheme] else f"{shown}:{port}"
        return cls(scheme == "https", host, port, authority.encode(), path.rstrip("/").encode())

    def target(self, path: str, raw_path: bytes | None, root_path: str, query: bytes) -> bytes:
        """Return the request target: path and query byte by byte as they came, only without `root_path`.

        Nothing is normalised: what the path means has been decided before, and what the app makes of it is its own. Of
        a server that does not tell how the path was written, it is written anew.

        Raises:
            InvalidRequest: the path is none (an absolute URL, an authority, `*`), or nobody can say where in it
                `root_path` ends.

        Source: RFC 9112 §3.2.1; the ASGI specification on `raw_path` and `root_path`.
        """
        raw = quote(path, safe=_PATH).encode() if raw_path is None else raw_path.partition(b"?")[0]
        if route_path(path, root_path) != path:
            raw = _without(raw, root_path)
        target = self.path + raw + (b"?" + query if query else b"")
        if raw[:1] != b"/" or not _ORIGIN_FORM.fullmatch(target):
            raise InvalidRequest("the request target is no path")
        return target

    def __str__(self) -> str:
        return f"{'https' if self.secure else 'http'}://{self.authority.decode()}{self.path.decode()}"


def _without(raw: bytes, root_path: str) -> bytes:
    """Return what follows `root_path`, which servers write as it is and routers decode; nothing if it is not there."""
    for root in (root_path.encode(), quote(root_path, safe=_PATH).encode()):
        if raw.startswith(root):
            return raw.removeprefix(root) or b"/"
    return b""

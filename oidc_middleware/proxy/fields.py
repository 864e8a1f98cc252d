"""Header fields on their way: what ends here, in either direction.

| what | why |
|---|---|
| `Connection` and what it names, `Keep-Alive`, `TE`, `Trailer`, `Upgrade`, … | about one connection (RFC 9110 §7.6.1) |
| identity headers of the client, in any spelling | only we say who it is |
| `Authorization`, our cookies | credentials for us, not for the app |
| `X-Forwarded-*`, `Forwarded`, `X-Real-IP` of a peer that is no trusted proxy | `origin` writes them |
| `Proxy` | CGI programs would take it for a setting (httpoxy) |
| `X-Original-URL`, `X-HTTP-Method-Override` and their kin | rules have decided by path and method as they are |
"""

from __future__ import annotations

from collections.abc import Container, Iterable

from oidc_middleware.core.identity_headers import IDENTITY_HEADERS, Headers, folded

_HOP_BY_HOP = frozenset(
    {
        b"connection", b"proxy-connection", b"keep-alive", b"te", b"trailer", b"transfer-encoding", b"upgrade",
        b"proxy-authenticate", b"proxy-authorization", b"http2-settings",
    }
)  # fmt: skip
# Written anew, from what they say.
_FRAMING = frozenset({b"host", b"content-length", b"expect"})
# Frameworks take path or method from these where they find them (Symfony, IIS; Rails, Laravel).
_OVERRIDES = frozenset(
    {
        b"x-original-url", b"x-original-uri", b"x-original-method", b"x-rewrite-url", b"x-forwarded-uri",
        b"x-forwarded-method", b"x-forwarded-path", b"x-http-method", b"x-http-method-override", b"x-method-override",
    }
)  # fmt: skip
# CGI calls it HTTP_PROXY, which programs take for the proxy to use (httpoxy, CVE-2016-5385).
_ENVIRONMENT = frozenset({b"proxy"})
_IDENTITY = frozenset(map(folded, IDENTITY_HEADERS))
_ENDS_HERE = frozenset().union(_HOP_BY_HOP, _FRAMING, _OVERRIDES, _ENVIRONMENT, _IDENTITY)
_IDENTITY_PREFIX = b"x-auth-request-"
_FORWARDED_PREFIX = b"x-forwarded-"
_FORWARDED = frozenset(
    {
        b"forwarded", b"forwarded-for", b"x-forwarded", b"x-original-forwarded-for", b"x-real-ip", b"client-ip",
        b"x-client-ip", b"true-client-ip", b"fastly-client-ip", b"proxy-client-ip", b"wl-proxy-client-ip",
        b"x-cluster-client-ip", b"cf-connecting-ip", b"cf-connecting-ipv6", b"x-originating-ip", b"x-remote-ip",
        b"x-remote-addr", b"front-end-https", b"x-scheme", b"x-url-scheme", b"x-host", b"x-original-host",
        b"x-http-host-override",
    }
)  # fmt: skip
# `origin` writes them.
_WRITTEN = frozenset(
    {b"forwarded", b"x-forwarded-for", b"x-forwarded-host", b"x-forwarded-proto", b"x-forwarded-port", b"x-real-ip"}
)


def named_in_connection(headers: Headers) -> frozenset[bytes]:
    """Return what the `Connection` headers name, folded."""
    return frozenset(
        folded(token.strip()) for name, value in headers if name == b"connection" for token in value.split(b",")
    )


def of_request(headers: Headers, also: Container[bytes] = frozenset()) -> Headers:
    """Return the fields of a request that may go on, as they came and in their order.

    `also` are names, folded, that end here besides.
    """
    named = named_in_connection(headers)
    return [(name, value) for name, value in headers if _goes_on(folded(name), named, also)]


def _goes_on(name: bytes, named: Container[bytes], also: Container[bytes]) -> bool:
    return not (name in _ENDS_HERE or name.startswith(_IDENTITY_PREFIX) or name in named or name in also)


def is_forwarded(name: bytes) -> bool:
    """Tell whether a field says where a request came from: what only a trusted proxy is believed."""
    name = folded(name)
    return name.startswith(_FORWARDED_PREFIX) or name in _FORWARDED


def may_hold_a_claim(name: bytes) -> bool:
    """Tell whether a field of the request is free to say who it is: the others are about the message, or its origin."""
    name = folded(name)
    return name in _IDENTITY or not (name in _ENDS_HERE or name in _WRITTEN or name == b"cookie")


def of_response(headers: Iterable[tuple[bytes, bytes]]) -> Headers:
    """Return the fields of a response that may go on, in lower case as ASGI wants it.

    Its length goes on where it says how the body ends; where that is chunked, it is not believed.

    Source: RFC 9112 §6.3.
    """
    lowered = [(name.lower(), value) for name, value in headers]
    named = named_in_connection(lowered)
    chunked = any(name == b"transfer-encoding" for name, _ in lowered)
    return [
        (name, value)
        for name, value in lowered
        if name not in _HOP_BY_HOP and folded(name) not in named and not (chunked and name == b"content-length")
    ]


def kept_private(headers: Headers) -> Headers:
    """Return the fields of a response to somebody whom we know, such that no shared cache gives it to others.

    Where the app says `public` or `s-maxage`, it says so itself.

    Source: RFC 9111 §5.2.2.7 (`private`), §3.5 (which knows of `Authorization`, and not of cookies).
    """
    values = [value for name, value in headers if name == b"cache-control"]
    said = {part.partition(b"=")[0].strip().lower() for value in values for part in value.split(b",")}
    return headers if said & _SAID else [*headers, (b"cache-control", b"private")]


_SAID = frozenset({b"private", b"no-store", b"public", b"s-maxage"})

"""What a tool needs. All tools share one path, so what is asked for shows in the message alone."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from http import HTTPStatus
from types import MappingProxyType
from typing import Any, Final

from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from oidc_middleware.asgi.refusal import refusal_of
from oidc_middleware.core import strict_json
from oidc_middleware.core.principal import Principal
from oidc_middleware.core.requirement import Requirement
from oidc_middleware.errors import MissingToken, OIDCError

LARGEST: Final = 4 * 1024 * 1024
"""Bytes of a message that are read: as many as the SDK takes."""
_DEPTH: Final = 128
_PARSE_ERROR: Final = {"jsonrpc": "2.0", "id": None, "error": {"code": -32700, "message": "Parse error"}}

Scopes = str | Iterable[str]


class ToolScopes:
    """ASGI middleware between `OIDCMiddleware` and an MCP server: some messages need more scopes than their path.

    `tools` names the scopes that a call of each tool needs, all of them; `methods` those of other JSON-RPC methods,
    such as `resources/read`. Whoever lacks one gets 403 with every scope of the operation in one challenge, those that
    rules ask for the path too, so that one new token is enough; whoever is anonymous gets 401 with the same.

    The whole message is read before the app sees it, and it must be JSON with one meaning: where this reader and the
    server's took different names from it, a tool could be called under the name of another. What is not gets 400, what
    is larger than `largest` bytes 413. A batch needs what all its messages need.

    Raises:
        ValueError: a scope is none.
        LookupError: with the first message that needs a scope, where no `OIDCMiddleware` stands in front.

    Source: MCP 2026-07-28, Authorization, Scope Challenge Handling; RFC 6750 §3.1.
    """

    def __init__(
        self,
        app: ASGIApp,
        tools: Mapping[str, Scopes] = MappingProxyType({}),
        *,
        methods: Mapping[str, Scopes] = MappingProxyType({}),
        largest: int = LARGEST,
    ) -> None:
        self.app = app
        self._tools = {name: _words(scopes) for name, scopes in tools.items()}
        self._methods = {name: _words(scopes) for name, scopes in methods.items()}
        self._largest = largest

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a message on if its sender may send it."""
        if scope["type"] != "http" or scope["method"].upper() != "POST":  # the app may fold it
            await self.app(scope, receive, send)
            return
        body = await _read(receive, self._largest)
        if body is None:
            return
        if len(body) > self._largest:
            await Response(status_code=HTTPStatus.REQUEST_ENTITY_TOO_LARGE)(scope, receive, send)
            return
        try:
            message = strict_json.loads(body, _DEPTH)
        except strict_json.StrictJSONError:
            await JSONResponse(_PARSE_ERROR, HTTPStatus.BAD_REQUEST)(scope, receive, send)
            return
        needed = self._needed(message)
        if needed:
            refusal = refusal_of(scope)
            try:
                user = scope.get("user")
                if not isinstance(user, Principal):
                    raise MissingToken("no identity, and a message that needs scopes")
                Requirement(needed).check(user, "an MCP message")
            except OIDCError as error:
                await refusal.answer(scope, receive, send, error, needed)
                return
        await self.app(scope, _replay(body, receive), send)

    def _needed(self, message: Any) -> tuple[str, ...]:
        """Return the scopes that a message needs, or all messages of a batch (JSON-RPC §6)."""
        messages = message if isinstance(message, list) else [message]
        return tuple(dict.fromkeys(scope for each in messages if isinstance(each, dict) for scope in self._of(each)))

    def _of(self, message: dict[str, Any]) -> Iterator[str]:
        method, params = message.get("method"), message.get("params")
        if not isinstance(method, str):
            return
        yield from self._methods.get(method, ())
        if method == "tools/call" and isinstance(params, dict) and isinstance(params.get("name"), str):
            yield from self._tools.get(params["name"], ())


def _words(scopes: Scopes) -> tuple[str, ...]:
    words = (scopes,) if isinstance(scopes, str) else tuple(scopes)
    return tuple(Requirement(words).scopes)


async def _read(receive: Receive, largest: int) -> bytes | None:
    """Return the body, or more of it than is allowed; None: the client is gone."""
    body = bytearray()
    while len(body) <= largest:
        message = await receive()
        if message["type"] != "http.request":
            return None
        body += message.get("body", b"")
        if not message.get("more_body", False):
            break
    return bytes(body)


def _replay(body: bytes, receive: Receive) -> Receive:
    """Return a `receive` that gives the body again, in one piece, and then whatever comes."""
    pending: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def replay() -> Message:
        return pending.pop() if pending else await receive()

    return replay

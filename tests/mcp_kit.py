"""An MCP client as a program of its own would be: the official SDK's, with a user who has a browser."""

from __future__ import annotations

import runpy
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import httpx2
from mcp.client.auth import OAuthClientProvider
from mcp.client.client import Client
from mcp.client.streamable_http import streamable_http_client
from mcp.shared.auth import AuthorizationCodeResult, OAuthClientInformationFull, OAuthClientMetadata, OAuthToken

EXAMPLE = Path(__file__).parent.parent / "examples" / "mcp_server.py"
CALLBACK = "http://127.0.0.1:33418/callback"
SECONDS = 60

LogIn = Callable[[str], Awaitable[dict[str, str]]]
"""Opens the page at a URL, logs in there, and returns the parameters with which the browser is sent back."""


@dataclass
class Storage:
    """What a client remembers: the tokens, and who it is at the issuer."""

    tokens: OAuthToken | None = None
    client: OAuthClientInformationFull | None = None

    async def get_tokens(self) -> OAuthToken | None:
        return self.tokens

    async def set_tokens(self, tokens: OAuthToken) -> None:
        self.tokens = tokens

    async def get_client_info(self) -> OAuthClientInformationFull | None:
        return self.client

    async def set_client_info(self, client_info: OAuthClientInformationFull) -> None:
        self.client = client_info


@dataclass
class User:
    """Somebody with a browser, who opens the pages that the client wants."""

    log_in: LogIn
    asked: list[dict[str, str]] = field(default_factory=list)
    """The parameters of each authorization request."""
    answer: dict[str, str] = field(default_factory=dict)

    async def open_page(self, url: str) -> None:
        self.asked.append(dict(parse_qsl(urlsplit(url).query)))
        self.answer = await self.log_in(url)

    async def sent_back(self) -> AuthorizationCodeResult:
        return AuthorizationCodeResult(**{name: self.answer[name] for name in ("code", "state", "iss")})


def example(issuer: str, resource: str, patch: Any) -> dict[str, Any]:
    """Return what the example defines, for this issuer: `app`, `oidc`; `patch` is pytest's `monkeypatch`."""
    for name, value in {"ISSUER": issuer, "AUDIENCE": resource, "RESOURCE": resource}.items():
        patch.setenv(f"OIDC_{name}", value)
    return runpy.run_path(str(EXAMPLE))


@asynccontextmanager
async def connected(url: str, storage: Storage, user: User, mode: str = "auto") -> AsyncIterator[Client]:
    wanted = OAuthClientMetadata.model_validate(
        {"client_name": "notes client", "redirect_uris": [CALLBACK], "token_endpoint_auth_method": "none"}
    )
    auth = OAuthClientProvider(url, wanted, storage, user.open_page, user.sent_back)
    async with (
        httpx2.AsyncClient(auth=auth, trust_env=False, timeout=SECONDS) as http,
        Client(streamable_http_client(url, http_client=http), mode=mode) as client,
    ):
        yield client


def client_named(client_id: str) -> OAuthClientInformationFull:
    """Return what a public client knows of itself that was registered beforehand."""
    return OAuthClientInformationFull.model_validate(
        {"client_id": client_id, "redirect_uris": [CALLBACK], "token_endpoint_auth_method": "none"}
    )


def value_of(result: Any) -> Any:
    assert not result.is_error
    return result.structured_content["result"]

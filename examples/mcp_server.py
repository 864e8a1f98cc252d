"""An MCP server over streamable HTTP whose tools need different scopes.

Run it with `OIDC_ISSUER=https://... OIDC_AUDIENCE=http://127.0.0.1:8000/mcp uvicorn examples.mcp_server:app`. A client
that knows nothing but the URL finds the issuer by itself: 401 names a document that names the issuer. It comes with a
token for reading; when it calls the tool that writes, 403 names all scopes for that, and it comes back with more.
"""

from __future__ import annotations

import os
from typing import Any
from urllib.parse import urlsplit

from mcp.server import MCPServer
from mcp.server.auth.middleware.auth_context import get_access_token

from oidc_middleware import OIDC, OIDCMiddleware, Rule
from oidc_middleware.mcp import OIDCTokenVerifier, ToolScopes, auth_settings

RESOURCE = os.environ.get("OIDC_RESOURCE", "http://127.0.0.1:8000/mcp")

oidc = OIDC(
    resource=RESOURCE,  # what clients ask tokens for
    resource_name="Notes",
    scopes_supported=["notes:read"],  # enough to begin with
    rules=[Rule("/mcp", scopes=["notes:read"])],
    expand_scopes={"notes:admin": ["notes:read", "notes:write"]},  # who may do anything may do these
)
server = MCPServer("notes", token_verifier=OIDCTokenVerifier(oidc), auth=auth_settings(oidc))
notes: dict[str | None, list[str]] = {}


@server.tool()
def list_notes() -> list[str]:
    """List the notes of whoever asks."""
    return notes.get(owner(), [])


@server.tool()
def add_note(text: str) -> int:
    """Add a note, and tell how many there are now."""
    mine = notes.setdefault(owner(), [])
    mine.append(text)
    return len(mine)


def owner() -> str | None:
    access = get_access_token()
    return access.subject if access is not None else None


app: Any = server.streamable_http_app(host=urlsplit(RESOURCE).hostname or "127.0.0.1")
app.add_middleware(ToolScopes, tools={"add_note": ["notes:write"]})
app.add_middleware(OIDCMiddleware, oidc=oidc)  # the last one added is the first one asked

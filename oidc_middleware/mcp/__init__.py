"""MCP servers (Model Context Protocol, revision 2026-07-28) built with the official SDK.

```
verifier      OIDCTokenVerifier, auth_settings     the SDK asks this service who sent a token
unavailable   AnswerUnavailable                    503 where it cannot say, for servers without a door
scopes        ToolScopes                           tools that need more than the path does: 403 with all their scopes
```

Raises:
    ModuleNotFoundError: the SDK is not installed.
"""

from __future__ import annotations

from oidc_middleware.mcp.scopes import ToolScopes
from oidc_middleware.mcp.unavailable import AnswerUnavailable
from oidc_middleware.mcp.verifier import OIDCTokenVerifier, auth_settings

__all__ = ["AnswerUnavailable", "OIDCTokenVerifier", "ToolScopes", "auth_settings"]

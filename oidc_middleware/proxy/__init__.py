"""A reverse proxy: an app in any language behind this one, which says who sends each request.

```
app        ReverseProxy, the ASGI app
upstream   where requests go, and what their targets are
outgoing   a request as the app gets it     fields · origin · cookies   what ends here, and what is written instead
relay      one request, there and back      link · gate                 one connection, HTTP/1.1 on it
pool       connections that are kept        socket                      one WebSocket, there and back
```

Raises:
    ModuleNotFoundError: `h11` or `websockets` is not installed; `pip install 'oidc-middleware[proxy]'` brings them.
"""

from __future__ import annotations

from oidc_middleware.proxy.app import ReverseProxy

__all__ = ["ReverseProxy"]

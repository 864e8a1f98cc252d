"""The app that `test_fastapi_openapi.py` lets uvicorn load: configured by the environment, as in a container."""

from __future__ import annotations

from typing import Annotated

from fastapi import Depends, FastAPI, WebSocket

from oidc_middleware import Principal
from oidc_middleware.fastapi import OIDCAuth

auth = OIDCAuth()
app = FastAPI()
auth.install(app)

User = Annotated[Principal, Depends(auth.current_user)]


@app.get("/me")
async def me(user: User) -> str:
    """Tell the caller who it is."""
    return user.identity


@app.get("/admin", dependencies=[Depends(auth.require("admin"))])
async def admin() -> None:
    """Answer those who may."""


@app.websocket("/ws")
async def socket(websocket: WebSocket, user: User) -> None:
    """Tell the caller who it is."""
    await websocket.accept()
    await websocket.send_text(user.subject or "")
    await websocket.close()

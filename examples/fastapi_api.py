"""A FastAPI service whose handlers ask for the user as a dependency.

Run it with `OIDC_ISSUER=https://... OIDC_AUDIENCE=https://... uvicorn examples.fastapi_api:app`.
"""

from __future__ import annotations

from typing import Annotated

from fastapi import Depends, FastAPI, Request

from oidc_middleware import OIDCMiddleware, Principal, Rule


def current_user(request: Request) -> Principal:
    user: Principal = request.user
    return user


User = Annotated[Principal, Depends(current_user)]

app = FastAPI()
app.add_middleware(
    OIDCMiddleware,
    public=["/version", "/docs/*", "/openapi.json"],
    rules=[Rule("/orders", methods=["POST"], scopes=["orders:write"])],
)


@app.get("/version")
async def version() -> dict[str, int]:
    return {"version": 1}


@app.get("/orders")
async def orders(user: User) -> dict[str, str | list[str]]:
    return {"owner": user.identity, "scopes": sorted(user.scopes)}


@app.post("/orders")
async def order(user: User) -> dict[str, str | list[str]]:
    return {"owner": user.identity, "scopes": sorted(user.scopes)}

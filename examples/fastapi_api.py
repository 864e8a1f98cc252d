"""A FastAPI service whose operations ask for the user as a dependency, with a Swagger UI that can log in.

Run it with `OIDC_ISSUER=https://... OIDC_AUDIENCE=https://... uvicorn examples.fastapi_api:app`, and open `/docs`.
Swagger UI is a public client of the issuer (`SWAGGER_CLIENT_ID`); its redirect URI is `/docs/oauth2-redirect` here.
"""

from __future__ import annotations

import os
from typing import Annotated

from fastapi import Depends, FastAPI, Security

from oidc_middleware import Principal
from oidc_middleware.fastapi import OIDCAuth

auth = OIDCAuth()

User = Annotated[Principal, Depends(auth.current_user)]
Buyer = Annotated[Principal, Security(auth.current_user, scopes=["orders:write"])]

app = FastAPI(
    swagger_ui_init_oauth={
        "clientId": os.environ.get("SWAGGER_CLIENT_ID", "swagger"),
        "usePkceWithAuthorizationCodeGrant": True,
    }
)
auth.install(app, scopes={"orders:write": "Place orders"})


@app.get("/version")
async def version() -> dict[str, int]:
    return {"version": 1}


@app.get("/orders")
async def orders(user: User) -> dict[str, str | list[str]]:
    return {"owner": user.identity, "scopes": sorted(user.scopes)}


@app.post("/orders")
async def order(user: Buyer) -> dict[str, str | list[str]]:
    return {"owner": user.identity, "scopes": sorted(user.scopes)}

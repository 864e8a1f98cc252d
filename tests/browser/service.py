"""A FastAPI app with a Swagger UI of its own: nothing of it is loaded from the internet."""

# ruff: noqa: B008, FAST002  an annotation is a string here, and cannot name an argument
from __future__ import annotations

from pathlib import Path

from fastapi import Depends, FastAPI, Security
from fastapi.openapi.docs import get_swagger_ui_html, get_swagger_ui_oauth2_redirect_html
from fastapi.responses import HTMLResponse
from fastapi.staticfiles import StaticFiles

from oidc_middleware import Principal
from oidc_middleware.fastapi import OIDCAuth

REDIRECT_PATH = "/docs/oauth2-redirect"


def app_with_swagger_ui(auth: OIDCAuth, assets: Path, client_id: str, resource: str) -> FastAPI:
    """Return an app that asks for identities, and whose `/docs` can get one for `resource` (RFC 8707)."""
    app = FastAPI(title="Orders", docs_url=None, redoc_url=None)
    auth.install(app, scopes={"read": "Read orders", "admin": "Do anything"})
    app.mount("/assets", StaticFiles(directory=assets))

    @app.get("/docs", include_in_schema=False)
    async def docs() -> HTMLResponse:
        return get_swagger_ui_html(
            openapi_url="/openapi.json",
            title=app.title,
            swagger_js_url="/assets/swagger-ui-bundle.js",
            swagger_css_url="/assets/swagger-ui.css",
            swagger_favicon_url="/assets/favicon-32x32.png",
            oauth2_redirect_url=REDIRECT_PATH,
            init_oauth={
                "clientId": client_id,
                "usePkceWithAuthorizationCodeGrant": True,
                "additionalQueryStringParams": {"resource": resource},
            },
        )

    @app.get(REDIRECT_PATH, include_in_schema=False)
    async def redirect() -> HTMLResponse:
        return get_swagger_ui_oauth2_redirect_html()

    @app.get("/orders")
    async def orders(user: Principal = Security(auth.current_user, scopes=["read"])) -> str:
        return f"orders of {user.subject}"

    @app.get("/users", dependencies=[Depends(auth.require("admin"))])
    async def users() -> str:
        return "all users"

    return app

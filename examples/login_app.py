"""An app that people log in to with a browser, and that calls an API on their behalf.

    python examples/login_app.py           # it, and an issuer, until Ctrl-C: open the address that it prints
    python examples/login_app.py --check   # logs in, uses it and signs out: 0 all went as it must, 1 something did not

With an issuer of your own, where a client with the redirect URI `<OIDC_BASE_URL>/oauth2/callback` is registered:
`OIDC_ISSUER=https://... OIDC_AUDIENCE=https://... OIDC_CLIENT_ID=... OIDC_CLIENT_SECRET=... OIDC_LOGIN=true
OIDC_BASE_URL=https://... uvicorn --factory examples.login_app:make_app`.
"""

from __future__ import annotations

import html
import os
import re
import secrets
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final
from urllib.parse import urljoin

import httpx2
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse
from starlette.routing import Route
from starlette.types import ASGIApp

from oidc_middleware import OIDCMiddleware, optional_user
from oidc_middleware.testing import FakeIssuer
from oidc_middleware.testing.server import bind, serving_in_thread

AUDIENCE: Final = "https://orders.example.com"

# The app. Settings come from OIDC_* variables.

PAGE: Final = """<!doctype html><html lang="en"><meta charset="utf-8"><title>Orders</title>
<h1>{title}</h1>
{body}
"""
SIGN_OUT: Final = '<form method="post" action="/oauth2/sign_out"><button>Sign out</button></form>'


async def welcome(request: Request) -> HTMLResponse:
    user = optional_user(request)
    if user is None:
        return HTMLResponse(PAGE.format(title="Welcome", body='<a href="/orders">Your orders</a>'))
    return HTMLResponse(PAGE.format(title=f"Welcome, {html.escape(user.display_name or '')}", body=SIGN_OUT))


async def orders(request: Request) -> HTMLResponse:
    # Renewed where it has to be. An API that is called with it checks signature, issuer, audience and so on.
    token = await request.auth.access_token()
    body = f"<p>An API would be asked with {len(token)} characters.</p>{SIGN_OUT}"
    return HTMLResponse(PAGE.format(title=f"Orders of {html.escape(request.user.subject)}", body=body))


async def cancel(request: Request) -> JSONResponse:
    return JSONResponse({"cancelled_by": request.user.subject})


def make_app() -> ASGIApp:
    routes = [Route("/", welcome), Route("/orders", orders), Route("/cancel", cancel, methods=["POST"])]
    return OIDCMiddleware(Starlette(routes=routes), optional=["/{$}"])


# All of it on this machine, to try.


@contextmanager
def running() -> Iterator[str]:
    issuer, listening, secret = FakeIssuer(audience=AUDIENCE), bind("127.0.0.1", 0), secrets.token_urlsafe()
    url = f"http://127.0.0.1:{listening.getsockname()[1]}"
    issuer.client(
        "shop",
        secret=secret,
        redirect_uris=[f"{url}/oauth2/callback"],
        post_logout_redirect_uris=[f"{url}/oauth2/signed_out"],
        backchannel_logout_uri=f"{url}/oauth2/backchannel-logout",
    )
    with issuer.serve_in_thread():
        os.environ |= {
            "OIDC_ISSUER": issuer.url,
            "OIDC_AUDIENCE": AUDIENCE,
            "OIDC_CLIENT_ID": "shop",
            "OIDC_CLIENT_SECRET": secret,
            "OIDC_LOGIN": "true",
            "OIDC_BASE_URL": url,
            "OIDC_POST_LOGOUT_REDIRECT_URI": f"{url}/oauth2/signed_out",
        }
        with serving_in_thread(make_app(), listening):
            yield url


def follow(browser: httpx2.Client, answer: httpx2.Response) -> httpx2.Response:
    """Go where an answer leads, and log in at the issuer's page as alice."""
    while True:
        here = str(answer.request.url)
        if answer.has_redirect_location:
            answer = browser.get(urljoin(here, answer.headers["Location"]))
        elif 'name="username"' in answer.text:
            hidden = re.findall(r'type="hidden" name="([^"]+)" value="([^"]*)"', answer.text)
            form = {name: html.unescape(value) for name, value in hidden}
            action = html.unescape(re.findall(r'action="([^"]+)"', answer.text)[0])
            answer = browser.post(urljoin(here, action), data=form | {"username": "alice", "decision": "allow"})
        else:
            return answer


def check(url: str) -> bool:
    # What a browser says of itself when somebody opens a page, and when a script of that page asks for something.
    page = {"Accept": "text/html", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document"}
    script = {"Accept": "*/*", "Sec-Fetch-Mode": "cors", "Sec-Fetch-Dest": "empty", "Sec-Fetch-Site": "same-origin"}
    elsewhere = script | {"Sec-Fetch-Site": "cross-site", "Origin": "https://elsewhere.example"}
    with httpx2.Client(trust_env=False, headers=page) as browser:
        for what, answer, status, text in (
            ("a script, not logged in", browser.get(url + "/orders", headers=script), 401, "missing_token"),
            ("a page, after the login", follow(browser, browser.get(url + "/orders")), 200, "Orders of alice"),
            ("the front page", browser.get(url + "/"), 200, "Welcome, alice"),
            ("a script", browser.post(url + "/cancel", headers=script), 200, '"cancelled_by":"alice"'),
            ("a script of another site", browser.post(url + "/cancel", headers=elsewhere), 403, "another site"),
            ("signing out", follow(browser, browser.post(url + "/oauth2/sign_out")), 200, "signed out"),
            ("a script, signed out", browser.get(url + "/orders", headers=script), 401, "missing_token"),
        ):
            print(f"{answer.status_code} {what}")
            if answer.status_code != status or text not in answer.text:
                print(f"It should have been {status} with {text}, and is {answer.text}")
                return False
    print("All went as it must.")
    return True


def main() -> int:
    with running() as url:
        if "--check" in sys.argv:
            return 0 if check(url) else 1
        print(f"Open {url}/ in a browser; log in under any name.")
        try:
            threading.Event().wait()
        except KeyboardInterrupt:
            return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())

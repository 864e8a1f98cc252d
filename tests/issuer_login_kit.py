"""Logging in at the fake issuer as a browser and a client do it."""

from __future__ import annotations

from html.parser import HTMLParser
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from httpx2 import USE_CLIENT_DEFAULT, AsyncClient, Response

from oidc_middleware.testing import FakeIssuer

CALLBACK = "https://app.example/callback"
VERIFIER = "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk"  # RFC 7636 appendix B
CHALLENGE = "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM"
ASKED = {
    "response_type": "code",
    "client_id": "web",
    "redirect_uri": CALLBACK,
    "scope": "openid orders:read",
    "state": "s-1",
    "nonce": "n-1",
    "code_challenge": CHALLENGE,
    "code_challenge_method": "S256",
}


class Page(HTMLParser):
    """What a browser sees of the login page: where the form goes, and what is in it."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.action = ""
        self.hidden: dict[str, str] = {}
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = {name: value or "" for name, value in attrs}
        if tag == "form":
            self.action = found["action"]
        if tag == "input" and found.get("type") == "hidden":
            self.hidden[found["name"]] = found["value"]


def asked(**changes: str | None) -> dict[str, str]:
    return {name: value for name, value in {**ASKED, **changes}.items() if value is not None}


async def sign_in(issuer: FakeIssuer, browser: AsyncClient, decision: str, **changes: str | None) -> Response:
    page = Page((await browser.get(issuer.endpoint("authorize"), params=asked(**changes))).raise_for_status().text)
    form = {**page.hidden, "username": "alice", "decision": decision}
    return await browser.post(page.action, data=form)


def answer_of(response: Response) -> dict[str, str]:
    location = response.headers["location"]
    assert location.startswith(CALLBACK + "?")
    return dict(parse_qsl(urlsplit(location).query))


async def code_of(issuer: FakeIssuer, browser: AsyncClient, **changes: str | None) -> str:
    return answer_of(await sign_in(issuer, browser, "allow", **changes))["code"]


async def exchange(issuer: FakeIssuer, browser: AsyncClient, code: str, **changes: str) -> Response:
    form = {
        "grant_type": "authorization_code",
        "code": code,
        "redirect_uri": CALLBACK,
        "code_verifier": VERIFIER,
        **changes,
    }
    auth = USE_CLIENT_DEFAULT if "client_id" in form else ("web", "s3cret")
    return await browser.post(issuer.endpoint("token"), data=form, auth=auth)


async def refresh(issuer: FakeIssuer, browser: AsyncClient, value: str, **changes: str) -> Response:
    form = {"grant_type": "refresh_token", "refresh_token": value, **changes}
    return await browser.post(issuer.endpoint("token"), data=form, auth=("web", "s3cret"))


async def logged_in(issuer: FakeIssuer, browser: AsyncClient) -> dict[str, Any]:
    tokens = await exchange(issuer, browser, await code_of(issuer, browser))
    return dict(tokens.raise_for_status().json())


def refusal(response: Response) -> tuple[int, str]:
    return response.status_code, response.json()["error"]


async def is_active(issuer: FakeIssuer, browser: AsyncClient, token: str) -> bool:
    answer = await browser.post(issuer.endpoint("introspect"), data={"token": token}, auth=("web", "s3cret"))
    return bool(answer.raise_for_status().json()["active"])

"""The demo tried by itself: every line, over real sockets, and a login."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable
from dataclasses import dataclass
from http import HTTPStatus
from typing import TYPE_CHECKING
from urllib.parse import parse_qsl, urlsplit

from oidc_middleware.cli.demo.lines import ADMIN, LINES, SPARE, TOKEN, Line
from oidc_middleware.cli.demo.servers import Demo
from oidc_middleware.cli.terminal import printable

if TYPE_CHECKING:
    import httpx2

_DEADLINE = 10


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back. `text` is the challenge of a refusal, and else the body."""

    status: int
    text: str


async def check(demo: Demo) -> bool:
    """Print how each line went, and return whether all went as they must."""
    import httpx2

    async with httpx2.AsyncClient(trust_env=False) as client:
        outcomes = [await _try(line, demo, client) for line in LINES]
        outcomes.append(await _try_login(demo, client))
    print()
    print(f"{sum(outcomes)} of {len(outcomes)} went as they must")
    return all(outcomes)


async def _try(line: Line, demo: Demo, client: httpx2.AsyncClient) -> bool:
    headers = {"Authorization": f"Bearer {_filled(line.token, demo)}"} if line.token else {}
    asked = _greeting(demo.api, line.path, headers) if line.websocket else _http(client, line, demo, headers)
    return await _tell(line.title, line.curl(demo.api), asked, line.status, line.shows)


def _filled(text: str, demo: Demo) -> str:
    """Put the tokens where a shell would put them."""
    return text.replace(TOKEN, demo.token).replace(SPARE, demo.spare).replace(ADMIN, demo.admin)


async def _http(client: httpx2.AsyncClient, line: Line, demo: Demo, headers: dict[str, str]) -> Answer:
    headers = headers | line.content_type
    body = _filled(line.form or line.json, demo)
    answer = await client.request(line.method, demo.api + line.path, headers=headers, content=body)
    return Answer(answer.status_code, answer.headers.get("WWW-Authenticate", answer.text))


async def _greeting(api: str, path: str, headers: dict[str, str]) -> Answer:
    """Open a WebSocket and read its first message."""
    from websockets.asyncio.client import connect
    from websockets.exceptions import InvalidStatus

    address = urlsplit(api)
    # A connection made here goes to the API, whatever proxy the environment names.
    connection = socket.create_connection((address.hostname, address.port), _DEADLINE)
    try:
        async with connect(f"ws://{address.netloc}{path}", sock=connection, additional_headers=headers) as websocket:
            return Answer(HTTPStatus.SWITCHING_PROTOCOLS, str(await websocket.recv()))
    except InvalidStatus as refused:
        return Answer(refused.response.status_code, refused.response.headers["WWW-Authenticate"])


async def _try_login(demo: Demo, client: httpx2.AsyncClient) -> bool:
    asked = _orders_after_login(demo, client)
    return await _tell("Signed in as bob, who gets a token of his own", demo.login, asked, HTTPStatus.OK, "#bob")


async def _orders_after_login(demo: Demo, client: httpx2.AsyncClient) -> Answer:
    """Fill in the login page as a browser does, and ask for the orders with the token that comes of it."""
    page = await client.get(demo.login)
    if "Sign in" not in page.text:
        return Answer(page.status_code, page.text)
    form = {**dict(parse_qsl(urlsplit(demo.login).query)), "username": "bob", "decision": "allow"}
    shown = await client.post(demo.login.partition("?")[0], data=form, follow_redirects=True)
    if shown.status_code != HTTPStatus.OK:
        return Answer(shown.status_code, shown.text)
    answer = await client.get(f"{demo.api}/orders", headers={"Authorization": f"Bearer {shown.json()['access_token']}"})
    return Answer(answer.status_code, answer.text)


async def _tell(title: str, line: str, asked: Awaitable[Answer], status: int, shows: str) -> bool:
    try:
        async with asyncio.timeout(_DEADLINE):
            answer = await asked
    except Exception as error:  # noqa: BLE001  whatever went wrong, the other lines are tried too
        answer = Answer(0, f"{type(error).__name__}: {error}")
    good = answer.status == status and shows in answer.text
    print(f"{'ok' if good else 'FAILED':7} {answer.status:3}  {title}")
    print(f"             {line}")
    print(f"             {printable(answer.text)}", flush=True)
    if not good:
        print(f"             expected: {status} with {shows}")
    return good

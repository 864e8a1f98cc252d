"""Somebody with a browser that has no scripts: cookies, redirects, and the forms of the provider filled in."""

from __future__ import annotations

import html
import re
from types import TracebackType
from typing import Self
from urllib.parse import urljoin

import httpx2

MOST_STEPS = 20
NAVIGATION = {
    "Accept": "text/html,application/xhtml+xml",
    "Sec-Fetch-Dest": "document",
    "Sec-Fetch-Mode": "navigate",
    "Sec-Fetch-Site": "none",
    "Sec-Fetch-User": "?1",
}
FETCH = {"Accept": "*/*", "Sec-Fetch-Dest": "empty", "Sec-Fetch-Mode": "cors", "Sec-Fetch-Site": "same-origin"}


class Person:
    """Somebody called `name` at the provider. Their browser, as all browsers, has one set of cookies for all ports."""

    def __init__(self, name: str = "alice") -> None:
        self.name = name
        self.browser = httpx2.Client(trust_env=False, timeout=15, limits=httpx2.Limits(max_connections=None))
        self.places: list[str] = []
        """The addresses that the browser was at, in order."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.browser.close()

    def go(self, url: str) -> httpx2.Response:
        """Open a page, and do what the pages of the provider ask for; return where that ends."""
        return self.follow(self.browser.get(url, headers=NAVIGATION))

    def follow(self, answer: httpx2.Response) -> httpx2.Response:
        """Go on from an answer until nothing is left to do."""
        for _ in range(MOST_STEPS):
            here = str(answer.request.url)
            self.places.append(here)
            if answer.has_redirect_location:
                answer = self.browser.get(urljoin(here, answer.headers["Location"]), headers=NAVIGATION)
            elif (filled := _filled(answer.text, self.name)) is not None:
                action, form = filled
                answer = self.browser.post(urljoin(here, action), data=form, headers=NAVIGATION)
            else:
                return answer
        raise AssertionError("it goes round in circles: " + " -> ".join(self.places))

    def fetch(self, url: str, method: str = "GET", **headers: str) -> httpx2.Response:
        """Ask as a script on a page of the app does."""
        return self.browser.request(method, url, headers=FETCH | headers)

    def leave(self, url: str, base: str) -> httpx2.Response:
        """Sign out with a button on a page of the app."""
        headers = NAVIGATION | {"Sec-Fetch-Site": "same-origin", "Origin": base}
        return self.follow(self.browser.post(url, headers=headers))


def _filled(page: str, name: str) -> tuple[str, dict[str, str]] | None:
    """Return where the provider's form goes and what to post there: login, consent, or the end of its session."""
    action = re.search(r'<form[^>]*action="([^"]+)"', page)
    if action is None:
        return None
    if (xsrf := re.search(r'name="xsrf" value="([^"]+)"', page)) is not None:
        return html.unescape(action[1]), {"xsrf": xsrf[1], "logout": "yes"}
    prompt = re.search(r'name="prompt" value="([^"]+)"', page)
    if prompt is None:
        return None
    form = {"prompt": prompt[1]} | ({"login": name, "password": "any"} if prompt[1] == "login" else {})
    return html.unescape(action[1]), form

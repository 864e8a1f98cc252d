"""The way to the login: for somebody who goes to a page without a session. Everything else gets its 401."""

from __future__ import annotations

from typing import Final
from urllib.parse import quote, urlencode, urlsplit

from starlette.responses import RedirectResponse, Response
from starlette.types import Message, Scope, Send

from oidc_middleware.core.cookies import cookie_header
from oidc_middleware.core.navigation import is_fetched, is_navigation
from oidc_middleware.errors import MissingToken, OIDCError, SessionEnded
from oidc_middleware.settings import Settings
from oidc_middleware.wiring import OIDC

_STARTS: Final = frozenset({"http.response.start", "websocket.http.response.start", "websocket.accept"})


class SignIn:
    """Sends browsers to the issuer, or to the page where they choose one."""

    def __init__(self, oidc: OIDC, settings: Settings) -> None:
        self._oidc = oidc
        self._base = settings.base_url or ""
        self._base_path = urlsplit(self._base).path
        self._start = f"{self._base}{settings.prefix}/start"

    async def redirect(self, scope: Scope, error: OIDCError, back_to: str | None = None) -> Response | None:
        """Return the redirect to the login; None where this request gets the refusal as it is.

        `back_to` is where the browser comes back to, None: to where it goes now.

        Raises:
            ProviderError, LoginError, BackendUnavailable: nobody can log in now.
        """
        logins = self._oidc.login
        if logins is None or not isinstance(error, MissingToken) or scope["type"] != "http":
            return None
        headers = scope["headers"]
        if not is_navigation(scope["method"], headers):
            return None
        back_to = self._path_of(scope) if back_to is None else back_to
        if len(logins.issuers) > 1:
            response = _found(f"{self._start}?{urlencode({'rd': back_to})}")
        else:
            begun = await logins.begin(None, back_to, {}, cookie_header(headers))
            response = _found(begun.url)
            for cookie in begun.set_cookies:
                response.headers.append("Set-Cookie", cookie)
        self.clear_ended(response, error)
        return response

    def by_start(self, scope: Scope) -> Response | None:
        """Return the redirect to the `start` endpoint, for an app that finds out itself that somebody has to log in."""
        if self._oidc.login is None or scope["type"] != "http" or not is_navigation(scope["method"], scope["headers"]):
            return None
        return _found(f"{self._start}?{urlencode({'rd': self._path_of(scope)})}")

    def clear_ended(self, response: Response, error: OIDCError) -> None:
        """Take the cookie of a session away that is over."""
        if isinstance(error, SessionEnded) and self._oidc.sessions is not None:
            response.headers.append("Set-Cookie", self._oidc.sessions.cookies.clear())

    def forgetting(self, scope: Scope, send: Send) -> Send:
        """Return a `send` that takes the cookie of a session away that is over.

        Not from a page that fetches something: its request may have left before a login in another tab was done, and
        the answer would take the new cookie away.
        """
        sessions = self._oidc.sessions
        if sessions is None or is_fetched(scope["headers"]):
            return send
        header = (b"set-cookie", sessions.cookies.clear().encode("ascii"))

        async def send_forgetting(message: Message) -> None:
            if message["type"] in _STARTS:
                message = {**message, "headers": [*(message.get("headers") or ()), header]}
            await send(message)

        return send_forgetting

    def _path_of(self, scope: Scope) -> str:
        """Return the path and query of a request as browsers see it: below the path of `base_url`."""
        raw: bytes = scope.get("raw_path") or quote(scope["path"]).encode()
        path = raw.partition(b"?")[0].decode("latin-1")
        if self._base_path and not f"{path}/".startswith(f"{self._base_path}/"):
            path = self._base_path + path
        query = scope.get("query_string", b"").decode("latin-1")
        return f"{path}?{query}" if query else path


def _found(url: str) -> Response:
    return RedirectResponse(url, 302, {"Cache-Control": "no-store", "Referrer-Policy": "no-referrer"})

"""The requests to try."""

from __future__ import annotations

from dataclasses import dataclass

TOKEN = "$TOKEN"  # noqa: S105  the shell variable that holds it
_HANDSHAKE = (
    "Connection: Upgrade",
    "Upgrade: websocket",
    "Sec-WebSocket-Version: 13",
    "Sec-WebSocket-Key: b2lkYy1taWRkbGV3YXJlIQ==",
)


@dataclass(frozen=True, slots=True)
class Line:
    """One request, the status that has to come back, and what else must show: in the challenge, or in the body."""

    title: str
    path: str
    status: int
    shows: str
    method: str = "GET"
    token: str | None = None
    websocket: bool = False

    def curl(self, api: str) -> str:
        """Return the request as a curl line for the API at this address."""
        words = ["curl -i"]
        if self.method != "GET":
            words.append(f"-X {self.method}")
        if self.token is not None:
            words.append(f'-H "Authorization: Bearer {self.token}"')
        if self.websocket:
            words += ["-m 2", *(f'-H "{header}"' for header in _HANDSHAKE)]  # curl would wait for a close of its own
        return " ".join([*words, api + self.path])


LINES = (
    Line("Anybody may ask for a public path", "/health", 200, '"up"'),
    Line("Nobody gets in without a token", "/orders", 401, "Bearer"),
    Line("Nor with something that is none", "/orders", 401, 'error="invalid_token"', token="garbage"),  # noqa: S106
    Line("With a token, and the API sees whose it is", "/orders", 200, '#alice","scopes":["orders:read"]', token=TOKEN),
    Line("Writing needs a scope that it lacks", "/orders", 403, 'scope="orders:write"', method="POST", token=TOKEN),
    Line("A WebSocket is refused before it is accepted", "/feed", 401, "Bearer", websocket=True),
    Line("A WebSocket with a token is accepted", "/feed", 101, '"alice"', token=TOKEN, websocket=True),
)

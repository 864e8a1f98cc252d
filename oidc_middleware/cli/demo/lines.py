"""The requests to try."""

from __future__ import annotations

from dataclasses import dataclass

from oidc_middleware.cli.demo.app import ADMIN_SCOPE

TOKEN = "$TOKEN"  # noqa: S105  the shell variables that hold them
SPARE = "$SPARE"
ADMIN = "$ADMIN"
REVOKE = "/oauth2/revoke"
REVOCATIONS = "/oauth2/revocations"
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
    form: str = ""
    json: str = ""

    @property
    def content_type(self) -> dict[str, str]:
        """The header that says what the body is."""
        if self.form:
            return {"Content-Type": "application/x-www-form-urlencoded"}  # as curl says unless it is told
        return {"Content-Type": "application/json"} if self.json else {}

    def curl(self, api: str) -> str:
        """Return the request as a curl line for the API at this address."""
        words = ["curl -i"]
        if self.method != "GET":
            words.append(f"-X {self.method}")
        if self.token is not None:
            words.append(f'-H "Authorization: Bearer {self.token}"')
        if self.form:
            words.append(f'-d "{self.form}"')
        if self.json:
            words.append(f"-H 'Content-Type: application/json' -d '{self.json}'")
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
    Line("Another token is good", "/orders", 200, "#alice", token=SPARE),
    Line("It revokes itself (RFC 7009)", REVOKE, 200, "", method="POST", form=f"token={SPARE}"),
    Line("And is refused from then on", "/orders", 401, 'error="invalid_token"', token=SPARE),
    Line("To see what is revoked needs a scope that alice lacks", REVOCATIONS, 403, ADMIN_SCOPE, token=TOKEN),
    Line(
        "An administrator revokes whatever carol has",
        REVOCATIONS,
        200,
        '"receipt":',
        "POST",
        ADMIN,
        json='{"sub":"carol"}',
    ),
    Line("And sees what is revoked, of which only digests are known", REVOCATIONS, 200, '"subject"', token=ADMIN),
)

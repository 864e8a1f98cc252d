"""What an answer must look like, in one place and in full."""

from __future__ import annotations

import re

import httpx2

_PARAMETER = re.compile(r'([a-z_]+)="([^"]*)"')
UNIQUE_CHARACTERS = 16


def parameters(value: str) -> dict[str, str]:
    """Return the parameters of a Bearer challenge; nothing else may stand in it (RFC 6750 §3)."""
    scheme, _, rest = value.partition(" ")
    assert scheme == "Bearer"
    found = dict(_PARAMETER.findall(rest))
    assert ", ".join(f'{name}="{text}"' for name, text in found.items()) == rest, value
    return found


def challenge(answer: httpx2.Response) -> dict[str, str]:
    """Return the parameters of the one challenge of an answer."""
    (value,) = answer.headers.get_list("WWW-Authenticate")
    return parameters(value)


def assert_token_refused(answer: httpx2.Response, token: str) -> None:
    """Check for a 401 `invalid_token` that tells nothing of the token or of the reason (RFC 6750 §3.1)."""
    assert answer.status_code == httpx2.codes.UNAUTHORIZED, answer.text
    assert challenge(answer)["error"] == "invalid_token"
    assert answer.headers["Content-Type"].startswith("application/json")
    sent = answer.text + "".join(answer.headers.values())
    assert token[-UNIQUE_CHARACTERS:] not in sent
    assert "subject" not in sent  # the application was not called


def assert_asks_for_credentials(answer: httpx2.Response) -> None:
    """Check for a 401 whose challenge carries no error code, as nobody presented a token (RFC 6750 §3.1)."""
    assert answer.status_code == httpx2.codes.UNAUTHORIZED, answer.text
    assert "error" not in challenge(answer)
    assert "subject" not in answer.text


def assert_scope_missing(answer: httpx2.Response, *scopes: str) -> None:
    """Check for a 403 `insufficient_scope` that names what the resource needs (RFC 6750 §3.1)."""
    assert answer.status_code == httpx2.codes.FORBIDDEN, answer.text
    found = challenge(answer)
    assert found["error"] == "insufficient_scope"
    assert found["scope"].split() == list(scopes)
    assert "subject" not in answer.text


def assert_unavailable(answer: httpx2.Response) -> None:
    """Check for a 503 that says when to come back, and is no challenge (RFC 9110 §10.2.3)."""
    assert answer.status_code == httpx2.codes.SERVICE_UNAVAILABLE, answer.text
    assert int(answer.headers["Retry-After"]) >= 1
    assert "WWW-Authenticate" not in answer.headers
    assert "subject" not in answer.text

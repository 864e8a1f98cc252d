"""What a token endpoint answers: one small check a member."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

from oidc_middleware.core.grant import Grant

# RFC 6749 appendix A: VSCHAR, of which tokens are made. Nothing of it can end a header.
_TOKEN = re.compile(r"[\x20-\x7e]+")
_DIGITS = re.compile(r"[0-9]{1,10}")
# Three hundred years. What is longer is taken as this: a larger integer may be no float.
_LONGEST_LIFE = 1e10

Answer = Mapping[str, Any]


def read_grant(answer: Answer) -> Grant:
    """Return what a token endpoint granted; a member that is null is as if it had not come.

    Raises:
        ValueError: it breaks the protocol. The message names the member and never quotes it.

    Source: RFC 6749 §5.1, RFC 6750 §4, OpenID Connect Core §3.1.3.3.
    """
    access_token = _token(answer, "access_token")
    if access_token is None:
        raise ValueError("access_token is missing")
    if isinstance(answer.get("expires_at"), list | dict):  # no standard has it, but Authlib makes a number of it
        raise ValueError("expires_at is not a time")  # noqa: TRY004  an answer is wrong, not a caller
    return Grant(
        access_token=access_token,
        token_type=_token_type(answer),
        expires_in=_seconds(answer, "expires_in"),
        refresh_token=_token(answer, "refresh_token"),
        # Keycloak says 0 of a refresh token that does not expire.
        refresh_expires_in=_seconds(answer, "refresh_expires_in") or None,
        scope=_text(answer, "scope"),
        id_token=_token(answer, "id_token"),
    )


def _token_type(answer: Answer) -> str:
    """Source: RFC 6749 §7.1: a client must not use a token of a type that it does not know."""
    token_type = _text(answer, "token_type")
    if token_type is None:
        raise ValueError("token_type is missing")
    if token_type.lower() != "bearer":
        raise ValueError("token_type is not Bearer")
    return "Bearer"


def _text(answer: Answer, name: str) -> str | None:
    value = answer.get(name)
    if value is not None and type(value) is not str:
        raise ValueError(f"{name} is not a string")
    return value


def _token(answer: Answer, name: str) -> str | None:
    value = _text(answer, name)
    if value is not None and not _TOKEN.fullmatch(value):
        raise ValueError(f"{name} is not made of visible ASCII characters")
    return value


def _seconds(answer: Answer, name: str) -> float | None:
    """Return a life. It is a number; Entra ID's first endpoint writes it as a string of digits."""
    value = answer.get(name)
    if value is None:
        return None
    if type(value) is str and _DIGITS.fullmatch(value):
        return float(value)
    if (type(value) is not int and type(value) is not float) or not (0 <= value < math.inf):
        raise ValueError(f"{name} is not a number of seconds")
    return float(min(value, _LONGEST_LIFE))

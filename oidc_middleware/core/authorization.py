"""Authorization requests and their answers, as URLs carry them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Final
from urllib.parse import parse_qsl, urlencode

from oidc_middleware.errors import LoginError

_LONGEST_QUERY: Final = 64 * 1024
_MOST_FIELDS: Final = 100
_READ: Final = frozenset({"state", "code", "iss", "error", "error_description"})
# RFC 6749 appendix A.11: VSCHAR. Longer ones than this fit into no URL that browsers and servers agree upon.
_CODE = re.compile(r"[\x20-\x7e]{1,8192}")
_ERROR = re.compile(r"[\x20\x21\x23-\x5b\x5d-\x7e]{1,64}")
_STATE = re.compile(r"[A-Za-z0-9_-]{43}")
_LONGEST_DESCRIPTION: Final = 200


def authorization_url(endpoint: str, parameters: Iterable[tuple[str, str]]) -> str:
    """Return the URL of an authorization request; a query that the endpoint has is kept (RFC 6749 §3.1)."""
    separator = "&" if "?" in endpoint else "?"
    return endpoint + separator + urlencode(tuple(parameters))


def state_of(query: bytes) -> str:
    """Return the state of an answer, whatever else is wrong with it.

    Raises:
        LoginError: it cannot be read, or has no state that could be of a login here, or two.

    Source: RFC 6749 §4.1.2 (`state` is returned exactly as it was sent).
    """
    states = [value for name, value in _pairs(query) if name == "state"]
    if len(states) != 1 or not _STATE.fullmatch(states[0]):
        raise LoginError("the answer has no state of a login here")
    return states[0]


def read_answer(query: bytes) -> dict[str, str]:
    """Return the parameters of an answer that are read; one without a value is as if it had not come.

    Raises:
        LoginError: it cannot be read, or has one of them twice.

    Source: RFC 6749 §3.1, §4.1.2, §4.1.2.1; RFC 9207 §2.
    """
    kept = [(name, value) for name, value in _pairs(query) if name in _READ]
    found = dict(kept)
    if len(found) != len(kept):
        raise LoginError("a parameter of the answer came twice")
    return found


def _pairs(query: bytes) -> list[tuple[str, str]]:
    if len(query) > _LONGEST_QUERY:
        raise LoginError("the answer is longer than 64 KiB")
    try:
        return parse_qsl(query.decode("ascii"), errors="strict", max_num_fields=_MOST_FIELDS)
    except ValueError:
        raise LoginError("the answer cannot be read") from None


def check_issuer(answer: Mapping[str, str], issuer: str, *, is_required: bool) -> None:
    """Check that the answer comes from the issuer that was asked.

    Raises:
        LoginError: it names another, or with `is_required` none.

    Source: RFC 9207 §2.4.
    """
    if "iss" not in answer:
        if is_required:
            raise LoginError("the answer lacks iss, which its issuer adds to each")
    elif answer["iss"] != issuer:
        raise LoginError("the answer is another issuer's than the one that was asked")


def code_of(answer: Mapping[str, str]) -> str:
    """Return the code that an answer brings.

    Raises:
        LoginError: it brings none, or an error.
    """
    if "error" in answer:
        raise refusal(answer)
    code = answer.get("code", "")
    if not _CODE.fullmatch(code):
        raise LoginError("the answer brings no code")
    return code


def refusal(answer: Mapping[str, str]) -> LoginError:
    """Return what an answer with an error says, cut and in one line: anybody may have written it."""
    error = answer["error"]
    name = error if _ERROR.fullmatch(error) else "an error without a name"
    words = "".join(letter if letter.isprintable() else " " for letter in answer.get("error_description", "")[:2000])
    said = " ".join(words.split())
    said = said if len(said) <= _LONGEST_DESCRIPTION else said[: _LONGEST_DESCRIPTION - 1] + "…"
    detail = f"the issuer answered {name}" + (f" ({said!r})" if said else "")
    return LoginError(detail, said=said or name)

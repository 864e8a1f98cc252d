"""What a client sends to an endpoint: read up to a limit, in the one form that is asked for, each name once."""

from __future__ import annotations

from http import HTTPStatus
from typing import Any, Final
from urllib.parse import parse_qsl

from starlette.requests import Request

from oidc_middleware.core import strict_json
from oidc_middleware.core.strict_json import StrictJSONError

LARGEST: Final = 64 * 1024
"""Bytes of a body that are read; four times the longest token."""
_MOST_FIELDS = 100
_DEPTH = 4

FORM: Final = "application/x-www-form-urlencoded"
JSON: Final = "application/json"


class BadRequest(Exception):
    """What was sent is refused: `problem` says why, in words that may be sent back. It is never a secret.

    Source: RFC 6749 §5.2 for the codes.
    """

    def __init__(self, problem: str, *, status: int = HTTPStatus.BAD_REQUEST, code: str = "invalid_request") -> None:
        super().__init__(problem)
        self.problem = problem
        self.status = status
        self.code = code


def check_content_type(request: Request, wanted: str, *, status: int) -> None:
    """Check that the body says it is what is wanted; parameters such as a charset are not looked at.

    Raises:
        BadRequest: it is not, or says two things; with this status.
    """
    found = request.headers.getlist("content-type")
    if len(found) != 1 or found[0].partition(";")[0].strip().lower() != wanted:
        raise BadRequest(f"The body must be {wanted}.", status=status)


async def read(request: Request) -> bytes:
    """Return the body.

    Raises:
        BadRequest: it is longer than `LARGEST`; no more of it was read.
        ClientDisconnect: nobody waits for an answer.
    """
    body = bytearray()
    async for chunk in request.stream():
        if len(body) + len(chunk) > LARGEST:
            raise BadRequest("The body is too large.", status=HTTPStatus.REQUEST_ENTITY_TOO_LARGE)
        body += chunk
    return bytes(body)


async def read_form(request: Request) -> dict[str, str]:
    """Return the fields of a form; those without a value are as if they had not come.

    Raises:
        BadRequest, ClientDisconnect: as `read`, or the body is no form, or has a field twice.

    Source: RFC 6749 §3.2 and appendix B, which RFC 7009 §2.1 takes over.
    """
    check_content_type(request, FORM, status=HTTPStatus.BAD_REQUEST)
    return {name: value for name, value in _fields(await read(request)).items() if value}


async def read_json(request: Request) -> dict[str, Any]:
    """Return the members of a JSON object.

    Raises:
        BadRequest, ClientDisconnect: as `read`, or the body is no JSON object with exactly one meaning.
    """
    check_content_type(request, JSON, status=HTTPStatus.UNSUPPORTED_MEDIA_TYPE)
    try:
        return strict_json.load_object(await read(request), _DEPTH)
    except StrictJSONError as error:
        raise BadRequest(f"The body is refused: {error}.") from None


def read_query(request: Request) -> dict[str, str]:
    """Return the parameters of the query.

    Raises:
        BadRequest: it cannot be read, or has a name twice.
    """
    return _fields(request.scope.get("query_string", b""))


def _fields(data: bytes) -> dict[str, str]:
    try:
        pairs = parse_qsl(data.decode(), keep_blank_values=True, errors="strict", max_num_fields=_MOST_FIELDS)
    except ValueError:
        raise BadRequest("The parameters cannot be read.") from None
    fields = dict(pairs)
    if len(fields) != len(pairs):
        raise BadRequest("A parameter came twice.")
    return fields

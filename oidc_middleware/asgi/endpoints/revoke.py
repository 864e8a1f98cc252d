"""RFC 7009: whoever has a token may revoke it."""

from __future__ import annotations

import logging

from starlette.requests import Request
from starlette.responses import Response

from oidc_middleware.asgi.endpoints.bodies import BadRequest, read_form
from oidc_middleware.asgi.endpoints.endpoint import answer
from oidc_middleware.auth.revocation.receipt import ReceiptName
from oidc_middleware.errors import TokenError
from oidc_middleware.settings.cache import MEMORY
from oidc_middleware.wiring import OIDC

logger: logging.Logger = logging.getLogger("oidc_middleware.revocation")


async def revoke(request: Request) -> Response:
    """Revoke the token in the form; a token that is not valid needs none, so the answer is the same.

    200 means that the revocation holds here and outlives this process, so that it gets to the other nodes by itself:
    the receipt is `journaled` at least, where there is a shared cache at all. Else the answer is 503, and the client
    asks again. `token_type_hint` is not looked at: there is one type of token here.

    Raises:
        BadRequest: there is no token, or the form cannot be read (RFC 6749 §5.2).
        ProviderError: nobody can say whether the token is valid (RFC 7009 §2.2.1).
        RevocationNotShared: the revocation is in this process's memory alone, and should be elsewhere too.

    Source: RFC 7009 §2.1 and §2.2.
    """
    token = (await read_form(request)).get("token")
    if token is None:
        raise BadRequest("The parameter token is missing.")
    oidc = OIDC.from_scope(request.scope)
    required: ReceiptName = "local" if oidc.settings.cache == MEMORY else "journaled"
    try:
        receipt = await oidc.revoke.token(token, require=required)
    except TokenError as error:
        logger.info("nothing to revoke: %s", error)
    else:
        logger.info("a token revoked itself: %s", receipt)
    return answer()

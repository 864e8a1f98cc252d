"""Where a browser goes to sign out at the issuer.

Source: OpenID Connect RP-Initiated Logout 1.0 §2.
"""

from __future__ import annotations

from typing import Final
from urllib.parse import urlencode

LONGEST_HINT: Final = 4096
"""Characters of an ID token that goes along: with a longer one the address would be too long for servers on its way."""


def end_session_url(
    endpoint: str, *, id_token: str, client_id: str, post_logout_redirect_uri: str | None, state: str
) -> str:
    """Return the address of the logout request; what the endpoint's own query says stays.

    An ID token that is too long is left out. Then the issuer asks the user whether to sign out, for all that it knows
    is our client. Without an address to come back to there is no `state`: it would come back with nobody.
    """
    query = {"client_id": client_id}
    if len(id_token) <= LONGEST_HINT:
        query = {"id_token_hint": id_token} | query
    if post_logout_redirect_uri is not None:
        query |= {"post_logout_redirect_uri": post_logout_redirect_uri, "state": state}
    return f"{endpoint}{'&' if '?' in endpoint else '?'}{urlencode(query)}"

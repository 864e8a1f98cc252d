"""Our own endpoints. Who may use one was decided before; here is what it answers.

```
endpoint            one by its methods: 405, refusals, errors
bodies              what a client sends: bounded bodies, forms, queries, one value each
state               health, status
revoke              RFC 7009: a token revokes itself
revocations         an administrator revokes, and pages through what is revoked
resource_metadata   RFC 9728: the description of the API, at the host's well-known path
login               a login begins, and the issuer's answer comes
forward_auth        a proxy asks whether a request may pass, and whose it is
sign_out            a user signs out, and comes back from the issuer; or the issuer says so through the browser
own_sessions        who a user is, and the user's sessions
backchannel_logout  an issuer says that a session, or all of a subject, is over
```
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from starlette.types import ASGIApp

from oidc_middleware.asgi.endpoints import (
    backchannel_logout,
    forward_auth,
    login,
    own_sessions,
    resource_metadata,
    revocations,
    revoke,
    sign_out,
    state,
)
from oidc_middleware.asgi.endpoints.endpoint import Endpoint
from oidc_middleware.settings.logins import (
    BACKCHANNEL,
    CALLBACK,
    FRONTCHANNEL,
    SESSIONS,
    SIGN_OUT,
    SIGNED_OUT,
    START,
    USERINFO,
)

ENDPOINTS: Mapping[str, ASGIApp] = MappingProxyType(
    {
        "health": Endpoint(GET=state.health),
        "status": Endpoint(GET=state.status),
        "revoke": Endpoint(POST=revoke.revoke),
        **dict.fromkeys(START, Endpoint(GET=login.start)),
        CALLBACK: Endpoint(GET=login.callback),
        forward_auth.NAME: forward_auth.forward_auth,
        "resource_metadata": Endpoint(GET=resource_metadata.describe, OPTIONS=resource_metadata.preflight),
        **dict.fromkeys(SIGN_OUT, Endpoint(GET=sign_out.sign_out, POST=sign_out.sign_out_by_form)),
        SIGNED_OUT: Endpoint(GET=sign_out.come_back),
        USERINFO: Endpoint(GET=own_sessions.userinfo),
        SESSIONS: Endpoint(GET=own_sessions.list_own, POST=own_sessions.end_own, DELETE=own_sessions.end_own),
        BACKCHANNEL: Endpoint(POST=backchannel_logout.backchannel_logout),
        FRONTCHANNEL: Endpoint(GET=sign_out.frontchannel_logout),
        "revocations": Endpoint(GET=revocations.list_page, POST=revocations.revoke),
    }
)

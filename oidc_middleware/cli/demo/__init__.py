"""`oidc-middleware demo`: an issuer and a protected API on loopback, in this one process.

```
app        the API: what a user of this package writes
login      the one part of a client that the demo needs: signing in for a token
servers    both of them, listening
lines      the requests to try: as curl lines, and as what has to come back
check      the same requests, made by the command itself
```
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec

from oidc_middleware.errors import ConfigError

_GUIDE = """\
The issuer:  {issuer}
The API:     {api}, behind OIDCMiddleware

Try it in another terminal. The token is good for an hour.

TOKEN={token}

{lines}
# Why a token is accepted or refused
oidc-middleware explain --issuer {issuer} --audience {api} $TOKEN

Sign in as anybody, in a browser, and get a token of your own:
{login}

Ctrl-C ends it. What happens meanwhile:
"""


def run(arguments: argparse.Namespace) -> int:
    """Run the demo until Ctrl-C, or check it and return.

    Raises:
        ConfigError: a port cannot be had, or the servers are not installed.
        KeyboardInterrupt: Ctrl-C came, and both have stopped.
    """
    if not (find_spec("uvicorn") and find_spec("websockets")):
        cure = "Install them: pip install 'oidc-middleware[cli]'"
        raise ConfigError("demo", "needs uvicorn and websockets, which are not here", cure)
    with _own_settings_only():
        return asyncio.run(_check(arguments) if arguments.check else _serve(arguments))


async def _serve(arguments: argparse.Namespace) -> int:
    from oidc_middleware.cli.demo.lines import LINES
    from oidc_middleware.cli.demo.servers import running

    _log_to_terminal()
    async with running(arguments.port, arguments.issuer_port) as demo:
        lines = "\n".join(f"# {line.title}: {line.status}\n{line.curl(demo.api)}\n" for line in LINES)
        guide = _GUIDE.format(issuer=demo.issuer, api=demo.api, token=demo.token, lines=lines, login=demo.login)
        print(guide, flush=True)
        try:
            await asyncio.Event().wait()
        finally:
            print("\nStopping.", flush=True)
    return 0


async def _check(arguments: argparse.Namespace) -> int:
    from oidc_middleware.cli.demo.check import check
    from oidc_middleware.cli.demo.servers import running

    # Free ports: the outcome must not depend on what else runs here.
    async with running(arguments.port or 0, arguments.issuer_port or 0) as demo:
        return 0 if await check(demo) else 1


def _log_to_terminal() -> None:
    """Show what the app saw and what the middleware refused, as it happens."""
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(logging.Formatter("  %(message)s"))
    log = logging.getLogger("oidc_middleware")
    log.addHandler(handler)
    log.setLevel(logging.INFO)


@contextmanager
def _own_settings_only() -> Iterator[None]:
    """Set `OIDC_*` variables aside: they are for the user's own service, and the demo's middleware would obey them."""
    theirs = {name: value for name, value in os.environ.items() if name.upper().startswith("OIDC_")}
    for name in theirs:
        del os.environ[name]
    try:
        yield
    finally:
        os.environ.update(theirs)

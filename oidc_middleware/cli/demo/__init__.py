"""`oidc-middleware demo`: an issuer and a protected API on loopback, in this one process.

```
app        the API: what a user of this package writes
login      the one part of a client that the demo needs: signing in for a token
servers    both of them, listening
place      what it has in a shared cache: apart, and gone in the end
lines      the requests to try: as curl lines, and as what has to come back
check      the same requests, made by the command itself
```
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict
from importlib.util import find_spec

from oidc_middleware.errors import ConfigError

_KILLED = 128
"""What shells add to the number of the signal that ended a command."""
_GUIDE = """\
The issuer:  {issuer}
The API:     {api}, behind OIDCMiddleware
Its cache:   {cache}

Try it in another terminal, from top to bottom: some lines revoke. The tokens are good for an hour.

TOKEN={token}
SPARE={spare}
ADMIN={admin}

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
    """
    if not (find_spec("uvicorn") and find_spec("websockets")):
        cure = "Install them: pip install 'oidc-middleware[cli]'"
        raise ConfigError("demo", "needs uvicorn and websockets, which are not here", cure)
    with _own_settings_only():
        return asyncio.run(_check(arguments) if arguments.check else _serve(arguments))


async def _serve(arguments: argparse.Namespace) -> int:
    from oidc_middleware.cli.demo.lines import LINES
    from oidc_middleware.cli.demo.servers import running
    from oidc_middleware.settings.cache import without_credentials

    _log_to_terminal()
    stopped_by = _signal()
    async with running(arguments.port, arguments.issuer_port, arguments.cache) as demo:
        lines = "\n".join(f"# {line.title}: {line.status}\n{line.curl(demo.api)}\n" for line in LINES)
        cache = without_credentials(arguments.cache)
        guide = _GUIDE.format(**asdict(demo), cache=cache, lines=lines)
        print(guide, flush=True)
        number = await stopped_by
        print("\nStopping.", flush=True)
    return _KILLED + number


def _signal() -> asyncio.Future[int]:
    """Return what will be the number of the first signal to stop.

    More of them change nothing: an impatient second Ctrl-C must not break off an orderly end.
    """
    loop = asyncio.get_running_loop()
    stopped_by: asyncio.Future[int] = loop.create_future()

    def stop(number: int) -> None:
        if not stopped_by.done():
            stopped_by.set_result(number)

    with suppress(NotImplementedError):  # on Windows Ctrl-C raises KeyboardInterrupt instead
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, stop, number)
    return stopped_by


async def _check(arguments: argparse.Namespace) -> int:
    from oidc_middleware.cli.demo.check import check
    from oidc_middleware.cli.demo.servers import running

    # Free ports: the outcome must not depend on what else runs here.
    async with running(arguments.port or 0, arguments.issuer_port or 0, arguments.cache) as demo:
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

"""The command `oidc-middleware`.

```
parser     which commands and options there are
options    the options that are settings
terminal   text that cannot harm a terminal
tokens     a token from a file or standard input      ledger   what is revoked, read without becoming a node
proxies    what to say about proxies that are trusted
walk       the checks of a token, one by one      hints   what a refused token looks like
serving    uvicorn for serve and proxy            protocol   how it reads requests for the latter
explain · doctor · revoke · demo · secret · serve · proxy         the commands, each loaded when it is asked for
```
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from importlib import import_module

from oidc_middleware.cli.parser import build_parser
from oidc_middleware.errors import ConfigError

USAGE = 2
"""Exit code of a command that cannot run as it was asked to."""
INTERRUPTED = 130
"""Exit code after Ctrl-C, as shells have it: 128 and the number of the signal."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line `argv` (None: this process's) and return its exit code."""
    try:
        arguments = build_parser().parse_args(argv)
    except SystemExit as wanted:  # argparse has said what there is to say
        return int(wanted.code or 0)
    try:
        command = import_module(f"oidc_middleware.cli.{arguments.command}")
        code: int = command.run(arguments)
        sys.stdout.flush()
    except ConfigError as error:
        print(f"oidc-middleware: {error.detail}", file=sys.stderr)
        return USAGE
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:  # whoever read the output has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    return code

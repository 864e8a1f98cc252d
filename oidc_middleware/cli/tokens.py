"""Where a token comes from: an argument, a file or standard input, and what people copy along."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import BinaryIO, Final

from oidc_middleware.errors import ConfigError

STANDARD_INPUT: Final = "-"

# Four times what a token may have: enough to see that it has too much.
_MOST = 64 * 1024
# People copy whole headers.
_BEFORE_TOKEN = re.compile(rb"(?:authorization:\s*)?bearer(?:\s+|$)", re.IGNORECASE)


def bare(data: bytes) -> bytes:
    """Return the token, without a line end and without what stands before it in a header.

    Raises:
        ConfigError: there is none.
    """
    token = data.strip()
    before = _BEFORE_TOKEN.match(token)
    token = token[before.end() :] if before else token
    if not token:
        raise ConfigError(
            "token", "there is none", "Give it as an argument, with --token-file, or - for standard input."
        )
    return token


def read(name: str) -> bytes:
    """Return what is in a file, `-` is standard input: as much of it as a token could have, and some more.

    Raises:
        ConfigError: it cannot be read.
    """
    if name == STANDARD_INPUT:
        return _of_stream(sys.stdin.buffer)
    try:
        with Path(name).open("rb") as file:
            return _of_stream(file)
    except OSError as error:
        cure = "Check the path and its permissions."
        raise ConfigError("--token-file", f"{name!a} cannot be read ({error.strerror})", cure) from None


def _of_stream(stream: BinaryIO) -> bytes:
    return stream.read(_MOST)

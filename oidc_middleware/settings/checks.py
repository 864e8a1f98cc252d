"""Checks of single values: each takes what came, and returns what the rest of the package works with.

A check raises `Problem`; nobody but these functions decides what a setting may be.
"""

from __future__ import annotations

import inspect
import math
import os
import re
import ssl
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import TypeVar

from pydantic import SecretStr

from oidc_middleware.core.scope_hierarchy import Expand, ScopeHierarchy
from oidc_middleware.core.signature import ALGORITHMS, load_private_key
from oidc_middleware.settings.problem import Problem, shown

T = TypeVar("T")

MAX_LEEWAY = 300.0
LEAST_STALENESS = 2.0
MAX_CLAIM_PATH = 256
_CLAIM_NAME = re.compile(r"[A-Za-z0-9_.:/-]{1,128}")
_NO_AUDIENCE = frozenset({"iss", "sub", "exp", "nbf", "iat", "jti", "sid", "typ", "scope", "scp"})
_PREFIX_OF_TOKENS = re.compile(r"[A-Za-z0-9._~+/-]{1,64}")
_SCOPE = re.compile(r"[\x21\x23-\x5b\x5d-\x7e]+")
_REALM = re.compile(r"[\x20\x21\x23-\x5b\x5d-\x7e]{1,200}")
_PREFIX = re.compile(r"(?:/[A-Za-z0-9_~-][A-Za-z0-9._~-]*)+")
_ALGORITHMS_CURE = f"Choose from {', '.join(ALGORITHMS)}."


def optional(check: Callable[[object], T]) -> Callable[[object], T | None]:
    """Return a check that lets `None` pass: the setting is off."""

    def checked(value: object) -> T | None:
        return None if value is None else check(value)

    return checked


def each(check: Callable[[object], T]) -> Callable[[object], tuple[T, ...]]:
    """Return a check that lets one value or several pass that `check` lets pass, and returns each once, in order."""

    def checked(value: object) -> tuple[T, ...]:
        found = (value,) if isinstance(value, str) else items(value, "values")
        return tuple(dict.fromkeys(map(check, found)))

    return checked


def one_of(*choices: str) -> Callable[[object], str]:
    """Return a check that lets only `choices` pass."""
    cure = f"Write {' or '.join(choices)}."

    def checked(value: object) -> str:
        if not isinstance(value, str):
            raise Problem(f"must be text, not {type(value).__name__}", cure)
        if value not in choices:
            raise Problem(f"{shown(value)} is not one of its values", cure)
        return value

    return checked


def text(value: object) -> str:
    """Check for text in one line, with something in it and no white space around it."""
    if not isinstance(value, str):
        raise Problem(f"must be text, not {type(value).__name__}", "Write it in quotes.")
    if not value:
        raise Problem("is empty", "Write a value, or leave the setting out.")
    if value != value.strip():
        raise Problem("has white space around it", "Remove it: the text is compared as it stands.")
    if not value.isprintable():
        raise Problem("has control or invisible characters", "Remove them.")
    return value


def texts(value: object) -> tuple[str, ...]:
    """Check for one text or several, and return each once, in order."""
    found = (value,) if isinstance(value, str) else items(value, "text")
    return tuple(dict.fromkeys(text(item) for item in found))


def items(value: object, kind: str) -> tuple[object, ...]:
    """Check for a collection and return what is in it, whatever that is."""
    if isinstance(value, str | bytes | Mapping) or not isinstance(value, Iterable):
        raise Problem(f"must be a list, not {type(value).__name__}", f"Write a list of {kind}.")
    return tuple(value)


def flag(value: object) -> bool:
    """Check for True or False. A number or a word is neither."""
    if not isinstance(value, bool):
        raise Problem(f"must be True or False, not {type(value).__name__}", "Write True or False.")
    return value


def leeway(value: object) -> float:
    """Check for a clock skew in seconds; zero means zero (RFC 7519 §4.1.4: "usually no more than a few minutes")."""
    cure = f"Choose 0 to {MAX_LEEWAY:g} seconds."
    found = seconds(value, cure)
    if not 0 <= found <= MAX_LEEWAY:
        raise Problem(f"{found:g} s is no clock skew", cure)
    return found


def max_token_life(value: object) -> float:
    """Check for a life in seconds, more than zero."""
    cure = "Choose a number of seconds above 0."
    found = seconds(value, cure)
    if found <= 0:
        raise Problem(f"with {found:g} s no token would be accepted", cure)
    return found


def max_staleness(value: object) -> float:
    """Check for an age in seconds; a node that is well is a second behind at most."""
    cure = "Choose 2 seconds or more: a node that is well may be one behind."
    found = seconds(value, cure)
    if found < LEAST_STALENESS:
        raise Problem(f"{found:g} s is less than a node that is well may be behind", cure)
    return found


def audience(value: object) -> tuple[str, ...]:
    """Check for at least one audience (RFC 7519 §4.1.3, RFC 9068 §4: a token for somebody else is refused)."""
    found = texts(value)
    if not found:
        raise Problem("is empty, so tokens for anybody would do", "Name the audience that tokens for this API carry.")
    return found


def audience_claim(value: object) -> str:
    """Check for the name of a claim that can say whom a token is for."""
    cure = "Leave it out, or write client_id for Amazon Cognito, whose access tokens have no aud."
    name = text(value)
    if not _CLAIM_NAME.fullmatch(name):
        raise Problem("is not the name of a claim", cure)
    if name in _NO_AUDIENCE:
        raise Problem(f"{name} does not say whom a token is for", cure)
    return name


def claim_path(value: object) -> str:
    """Check for the name of a claim, or a dotted path into nested claims."""
    path = text(value)
    if len(path) > MAX_CLAIM_PATH:
        raise Problem(f"{shown(path)} is longer than {MAX_CLAIM_PATH} characters", "Write the name of a claim.")
    if not all(path.split(".")):
        raise Problem(f"{shown(path)} has nothing between two dots or at an end", "Write a path such as a.b.c.")
    return path


def claim_paths(value: object) -> tuple[str, ...]:
    """Check for the names of claims, none at all, or one."""
    return tuple(map(claim_path, texts(value)))


def algorithms(value: object) -> tuple[str, ...]:
    """Check for signature algorithms that a public key verifies (RFC 8725 §3.1, §3.2)."""
    found = texts(value)
    if not found:
        raise Problem("is empty, so no token would be accepted", _ALGORITHMS_CURE)
    for name in found:
        _check_algorithm(name)
    return found


def client_id(value: object) -> str:
    """Check for a client identifier (RFC 6749 appendix A.1: visible ASCII)."""
    name = text(value)
    if not name.isascii():
        raise Problem("has letters beyond ASCII", "Write the client's id as it stands at the issuer.")
    return name


def client_secret(value: object) -> SecretStr:
    """Check for a client's secret; no message shows it."""
    return SecretStr(text(value.get_secret_value() if isinstance(value, SecretStr) else value))


def token_prefix(value: object) -> str:
    """Check for the beginning of a bearer token (RFC 6750 §2.1: b64token)."""
    prefix = text(value)
    if not _PREFIX_OF_TOKENS.fullmatch(prefix):
        raise Problem(
            f"{shown(prefix)} begins no bearer token",
            "Write up to 64 letters, digits and . _ ~ + / - of its beginning.",
        )
    return prefix


def client_key_file(value: object) -> str:
    """Check for a file with a private key that can sign."""
    cure = "Name a readable PEM file with one private key without a passphrase: RSA, P-256, P-384, P-521 or Ed25519."
    if not isinstance(value, str | os.PathLike):
        raise Problem(f"must be a path, not {type(value).__name__}", cure)
    path = os.fspath(value)
    if not isinstance(path, str) or not path or "\0" in path:
        raise Problem("is no path", cure)
    try:
        load_private_key(Path(path).read_bytes())
    except OSError as error:
        raise Problem(f"{shown(path)} cannot be read ({error.strerror})", cure) from None
    except ValueError as error:
        raise Problem(f"{shown(path)} holds {error}", cure) from None
    return path


def ca_file(value: object) -> str:
    """Check for a file of certificates in PEM form that TLS can load."""
    cure = "Name a readable file with one or more CERTIFICATE blocks in PEM form."
    if not isinstance(value, str | os.PathLike):
        raise Problem(f"must be a path, not {type(value).__name__}", cure)
    path = os.fspath(value)
    if not isinstance(path, str) or not path or "\0" in path:
        raise Problem("is no path", cure)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    try:
        context.load_verify_locations(cafile=path)
    except ssl.SSLError:
        raise Problem(f"{shown(path)} holds no certificates that can be read", cure) from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "not a path"
        raise Problem(f"{shown(path)} cannot be read ({reason})", cure) from None
    if not context.cert_store_stats()["x509"]:
        raise Problem(f"{shown(path)} holds no certificate", cure)
    return path


def paths(value: object) -> tuple[str, ...]:
    """Check for one path pattern or several; whether they make sense together, `Policy` says."""
    found = (value,) if isinstance(value, str) else items(value, "paths")
    for pattern in found:
        if not isinstance(pattern, str):
            raise Problem(f"holds {shown(pattern)}, which is no path", "Write paths such as /health or /docs/*.")
    return tuple(dict.fromkeys(map(str, found)))


def prefix(value: object) -> str:
    """Check for the path below which our endpoints lie, and return it without a slash at its end."""
    cure = "Write a path such as /oauth2."
    path = text(value).removesuffix("/")
    if not path:
        raise Problem("/ would mix our endpoints with those of the app", cure)
    if not _PREFIX.fullmatch(path):
        raise Problem(f"{shown(path)} is not a plain path", cure)
    return path


def scope(value: object) -> str:
    """Check for one scope (RFC 6749 §3.3)."""
    if not _SCOPE.fullmatch(name := text(value)):
        raise Problem(f"{shown(name)} is not one scope", 'Write one word without quotes, such as "admin".')
    return name


def expand_scopes(value: object) -> Expand:
    """Check for a function that does not have to be awaited, or a table of scopes and those that each implies."""
    cure = 'Write {"admin": ["read", "write"]}, or pass a function that takes and returns scopes.'
    if isinstance(value, Mapping):
        return ScopeHierarchy({scope(name): tuple(map(scope, texts(implied))) for name, implied in value.items()})
    if not callable(value):
        raise Problem(f"must be a table or a function, not {type(value).__name__}", cure)
    if is_async(value):
        raise Problem("must not be asynchronous", cure)
    return value


def issuer_resolver(value: object) -> Callable[..., object]:
    """Check for a function that has to be awaited."""
    cure = "Pass async def issuer_resolver(iss): ... that returns an Issuer(...) or None."
    if not callable(value):
        raise Problem(f"must be a function, not {type(value).__name__}", cure)
    if not is_async(value):
        raise Problem("must be asynchronous", cure)
    return value


def is_async(function: Callable[..., object]) -> bool:
    """Tell whether what `function` returns has to be awaited."""
    while isinstance(function, partial):
        function = function.func
    return inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(type(function).__call__)


def realm(value: object) -> str:
    """Check for a realm that can stand in a challenge without escapes (RFC 9110 §11.5)."""
    if not _REALM.fullmatch(name := text(value)):
        raise Problem("has quotes, backslashes or letters beyond ASCII, or is too long", "Write a short plain name.")
    return name


def on_error(value: object) -> Callable[..., object]:
    """Check for something that can be called and does not have to be awaited."""
    if not callable(value):
        raise Problem(f"must be a function, not {type(value).__name__}", "Pass on_error(conn, error) -> Response.")
    if is_async(value):
        raise Problem("must not be asynchronous", "Pass a plain function on_error(conn, error) -> Response.")
    return value


def seconds(value: object, cure: str) -> float:
    """Check for a finite number."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise Problem(f"must be a number, not {type(value).__name__}", cure)
    try:
        found = float(value)
    except OverflowError:
        found = math.inf
    if not math.isfinite(found):
        raise Problem("is not finite", cure)
    return found


def _check_algorithm(name: str) -> None:
    if name in ALGORITHMS:
        return
    upper = name.upper()
    if upper == "NONE":
        raise Problem("none means tokens without a signature, which anybody can write", _ALGORITHMS_CURE)
    if upper.startswith("HS"):
        raise Problem(f"{shown(name)} uses a shared secret, so whoever checks could also sign", _ALGORITHMS_CURE)
    raise Problem(f"{shown(name)} is not an algorithm that this package knows", f"{_ALGORITHMS_CURE} Capitals matter.")

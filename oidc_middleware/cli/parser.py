"""Which commands and options there are. Nothing slow is imported here: help and usage errors come at once."""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable
from datetime import datetime
from functools import partial
from importlib.metadata import version

from oidc_middleware.cli import options

_Add = Callable[..., argparse.ArgumentParser]

_MAX_PORT = 65535
_LONGEST = 86400.0
_UNIX_SECONDS = re.compile(r"[0-9]{1,15}(\.[0-9]{1,9})?")
_RFC_3339 = re.compile(r"[0-9]{4}(-[0-9]{2}){2}[Tt ][0-9]{2}(:[0-9]{2}){2}(\.[0-9]{1,9})?([Zz]|[+-][0-9]{2}:[0-9]{2})")


class _Version(argparse.Action):
    """Print the version, which is looked up only then."""

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        print("oidc-middleware", version("oidc-middleware"))
        parser.exit()


def build_parser() -> argparse.ArgumentParser:
    """Return the parser; `arguments.command` is the module of this package whose `run(arguments)` is wanted."""
    parser = argparse.ArgumentParser(
        prog="oidc-middleware",
        description="OpenID Connect for any ASGI app: try it, and see why a token is accepted or refused.",
        allow_abbrev=False,
    )
    parser.add_argument("--version", action=_Version, nargs=0, help="print the version and exit")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    add = partial(commands.add_parser, allow_abbrev=False)
    _add_demo(add)
    _add_explain(add)
    _add_doctor(add)
    _add_revoke(add)
    _add_secret(add)
    _add_serve(add)
    _add_proxy(add)
    return parser


def _add_demo(add: _Add) -> None:
    demo = add(
        "demo",
        help="run an issuer and a protected API on this machine",
        description="Run an issuer with a login page and an API behind the middleware, both on loopback, and print "
        "curl lines to try. Ctrl-C ends it.",
    )
    demo.add_argument("--port", type=_port, metavar="PORT", help="port of the API (8000 if it is free; 0: any)")
    demo.add_argument(
        "--issuer-port", type=_port, metavar="PORT", help="port of the issuer (9000 if it is free; 0: any)"
    )
    demo.add_argument(
        "--cache",
        default="memory://",
        metavar="URL",
        help="cache of the API: sqlite:///path of a new file, or redis://host (memory://)",
    )
    demo.add_argument("--check", action="store_true", help="try the lines, tell how each went, and exit with 0 or 1")


def _add_explain(add: _Add) -> None:
    explain = add(
        "explain",
        help="say check by check why a token is accepted or refused",
        description="Say check by check why a token is accepted or refused, with the settings given here, in OIDC_* "
        "variables or in a file.",
        epilog="Exit code: 0 accepted, 1 refused, 2 usage or settings, 3 the issuer cannot be asked.",
    )
    token = explain.add_mutually_exclusive_group(required=True)
    token.add_argument("token", nargs="?", metavar="TOKEN", help="the token; -: read it from standard input")
    token.add_argument("--token-file", metavar="FILE", help="read the token from this file; -: standard input")
    options.add_to(explain)


def _add_doctor(add: _Add) -> None:
    doctor = add(
        "doctor",
        help="check the settings, and whether the issuer and the cache answer",
        description="Check the settings given here, in OIDC_* variables or in a file, fetch what they need from the "
        "issuer, and see how a shared cache fares.",
        epilog="Exit code: 0 all is well, 2 usage or settings, 3 an issuer or the cache cannot be asked.",
    )
    options.add_to(doctor)


def _add_revoke(add: _Add) -> None:
    revoke = add(
        "revoke",
        help="revoke a token, a session, or everything of a subject or a client, on every node",
        description="Revoke a token, a session, or everything that was issued to a subject or a client, for every node "
        "of the shared cache that OIDC_CACHE and OIDC_SECRET name, in variables or in a file.",
        epilog="Exit code: 0 the receipt is shared, or what --require asked for; 1 it is less, or the token is refused "
        "and there is nothing to revoke; 2 usage or settings; 3 the issuer of the token cannot be asked.",
    )
    target = revoke.add_mutually_exclusive_group(required=True)
    target.add_argument("--jti", metavar="ID", help="the token with this jti")
    target.add_argument("--sid", metavar="ID", help="the session with this sid")
    target.add_argument("--sub", metavar="SUBJECT", help="everything of this subject")
    target.add_argument("--client", metavar="CLIENT", help="everything of this client")
    target.add_argument("--token-file", metavar="FILE", help="the token in this file; -: on standard input")
    revoke.add_argument(
        "--token-issuer", metavar="URL", help="whose token, session, subject or client it is, where there are several"
    )
    revoke.add_argument(
        "--expires-at", type=_time, metavar="TIME", help="with --jti: its exp, in Unix seconds or as RFC 3339 has it"
    )
    revoke.add_argument(
        "--issued-before", type=_time, metavar="TIME", help="with --sid, --sub, --client: revoke until then only (now)"
    )
    revoke.add_argument(
        "--require", choices=("shared", "journaled"), default="shared", help="the least receipt to exit with 0 (shared)"
    )
    revoke.add_argument("--json", action="store_true", help="print JSON")
    options.add_to(revoke)


def _add_secret(add: _Add) -> None:
    add(
        "secret",
        help="print a new secret for a shared cache",
        description="Print a new secret for a shared cache: 256 random bits. Every node needs the same one.",
    )


def _add_serve(add: _Add) -> None:
    serve = add(
        "serve",
        help="answer a proxy's question whether a request may pass (forward auth)",
        description="Serve forward auth, for a proxy that asks about each request: Traefik, nginx, Caddy, Envoy. All "
        "settings come from OIDC_* variables: OIDC_ISSUER and OIDC_AUDIENCE are enough for bearer tokens, "
        "OIDC_TRUSTED_PROXIES names the proxies that are believed which request they ask about, and OIDC_LOGIN, "
        "OIDC_BASE_URL, OIDC_CLIENT_ID and OIDC_CLIENT_SECRET let browsers log in.",
        epilog="Exit code: 2 usage or settings; else that of the signal that ended it.",
    )
    _add_serving(serve)


def _add_proxy(add: _Add) -> None:
    proxy = add(
        "proxy",
        help="stand in front of an app and let in only requests with an identity (reverse proxy)",
        description="Pass requests with a valid identity on to an app, and tell it in headers whose they are: HTTP, "
        "WebSockets, event streams. All settings come from OIDC_* variables: OIDC_ISSUER and OIDC_AUDIENCE are enough "
        "for bearer tokens, OIDC_PUBLIC and OIDC_RULES say what is open and what needs more, and OIDC_LOGIN, "
        "OIDC_BASE_URL, OIDC_CLIENT_ID and OIDC_CLIENT_SECRET let browsers log in. See to it that nobody reaches the "
        "app but through here.",
        epilog="Exit code: 2 usage or settings; else that of the signal that ended it.",
    )
    proxy.add_argument("--upstream", required=True, metavar="URL", help="where the app is: http://127.0.0.1:9000")
    proxy.add_argument(
        "--upstream-ca-file", metavar="FILE", help="the private CA of the app's certificate (PEM), if it is https"
    )
    proxy.add_argument(
        "--connect-timeout", type=_seconds, default=5.0, metavar="SECONDS", help="for a connection to the app (5)"
    )
    proxy.add_argument(
        "--read-timeout", type=_seconds, default=60.0, metavar="SECONDS", help="how long the app may be silent (60)"
    )
    proxy.add_argument(
        "--claim-header",
        type=_claim_header,
        action="append",
        default=[],
        metavar="NAME=CLAIM",
        help="a header more for the app, with a claim in it: X-WEBAUTH-USER=preferred_username; may come several times",
    )
    proxy.add_argument("--pass-host", action="store_true", help="pass on the client's Host header, not the app's own")
    proxy.add_argument("--pass-authorization", action="store_true", help="pass on the client's Authorization header")
    _add_serving(proxy)


def _add_serving(command: argparse.ArgumentParser) -> None:
    command.add_argument("--host", default="127.0.0.1", metavar="ADDRESS", help="address to listen on (127.0.0.1)")
    command.add_argument("--port", type=_port, default=4180, metavar="PORT", help="port to listen on (4180; 0: any)")
    command.add_argument("--env-file", metavar="FILE", help="read OIDC_* variables from this file too")
    command.add_argument(
        "--log-level", choices=("debug", "info", "warning", "error"), default="info", help="what is logged (info)"
    )


def _time(text: str) -> float:
    """Return a time of RFC 3339 §5.6, or in Unix seconds, as Unix seconds."""
    if _UNIX_SECONDS.fullmatch(text):
        return float(text)
    try:
        if _RFC_3339.fullmatch(text):
            return datetime.fromisoformat(text.upper()).timestamp()
    except ValueError:
        pass  # February 30
    raise argparse.ArgumentTypeError(f"{text!r} is no time: write Unix seconds, or as in 2030-01-31T23:59:59Z")


def _port(text: str) -> int:
    if not (text.isascii() and text.isdigit() and int(text) <= _MAX_PORT):
        raise argparse.ArgumentTypeError(f"{text!r} is no port: choose 0 to {_MAX_PORT}")
    return int(text)


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds < _LONGEST:
        raise argparse.ArgumentTypeError(f"{text!r} is no such time: choose a number of seconds above 0")
    return seconds


def _claim_header(text: str) -> tuple[str, str]:
    name, equals, claim = text.partition("=")
    if not (name and equals and claim):
        raise argparse.ArgumentTypeError(f"{text!r} is no header with a claim: write NAME=CLAIM")
    return name, claim

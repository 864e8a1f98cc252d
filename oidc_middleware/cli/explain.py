"""`oidc-middleware explain`: why a token is accepted or refused."""

from __future__ import annotations

import argparse
import asyncio
import math
import os
from http import HTTPStatus

from oidc_middleware.cli import tokens
from oidc_middleware.cli.hints import hints
from oidc_middleware.cli.ledger import read_journal, read_store
from oidc_middleware.cli.options import settings_of
from oidc_middleware.cli.terminal import distance, keep_log_of_issuers_quiet, listed, moment, printable, shown
from oidc_middleware.cli.walk import Step, Walk, walk
from oidc_middleware.core.known import Known
from oidc_middleware.errors import BackendUnavailable, ClaimError, OIDCError, Revoked
from oidc_middleware.wiring import OIDC

ACCEPTED = 0
REFUSED = 1
UNREACHABLE = 3


def run(arguments: argparse.Namespace) -> int:
    """Explain the token that the arguments name.

    Raises:
        ConfigError: the settings cannot work, or there is no token.
    """
    oidc = OIDC(settings_of(arguments))
    if arguments.token in {None, tokens.STANDARD_INPUT}:
        data = tokens.read(arguments.token_file or tokens.STANDARD_INPUT)
    else:
        data = os.fsencode(arguments.token)
    token = tokens.bare(data)
    keep_log_of_issuers_quiet()
    return asyncio.run(_explain_and_close(token, oidc))


async def _explain_and_close(token: bytes, oidc: OIDC) -> int:
    try:
        return await explain(token, oidc)
    finally:
        await oidc.caches.close()


async def explain(token: bytes, oidc: OIDC) -> int:
    """Print the checks, the verdict of the door, and what may be behind it; return the exit code."""
    now = oidc.clock.now()
    asked = oidc.authenticator.asked_about(token)
    is_asked_about = bool(asked)
    walked = Walk((_opaque(asked),)) if asked else await walk(token, oidc.issuers, now)
    for step in walked.steps:
        print(_line(step))
    is_shared, problem = await _read_ledger(oidc) if walked.error is None else (False, None)
    try:
        verdict: Known | OIDCError = await oidc.authenticator.authenticate(b"Bearer " + token)
    except OIDCError as error:
        verdict = error
    expected = walked.error
    if is_asked_about and isinstance(verdict, OIDCError) and not isinstance(verdict, Revoked):
        expected = verdict
        print(_line(Step("introspection", "what its issuer says", "active, and for this API", verdict)))
    if expected is None and (is_shared or isinstance(verdict, Revoked)):
        revocation = _revocation(verdict, oidc)
        expected = revocation.error
        print(_line(revocation))
    print()
    if isinstance(verdict, Known):
        _print_accepted(verdict, now)
        _print_disagreement(expected is None)
        if problem is not None:
            print(f"note: {problem}")
        return ACCEPTED
    print(_refused(verdict))
    _print_disagreement(str(expected) == str(verdict))
    for hint in () if is_asked_about else hints(token, walked.token, walked.expected):
        print(f"hint: {hint}")
    return UNREACHABLE if verdict.status == HTTPStatus.SERVICE_UNAVAILABLE else REFUSED


def _opaque(asked: tuple[str, ...]) -> Step:
    """Return what is known of an opaque token before anybody is asked."""
    who = "its issuer is asked" if len(asked) == 1 else f"{' and '.join(map(shown, asked))} are asked in this order"
    return Step("kind", f"an opaque token: {who}")


async def _read_ledger(oidc: OIDC) -> tuple[bool, str | None]:
    """Read what is revoked; return whether all of it was, and otherwise what that means for an accepted token."""
    await read_journal(oidc)
    try:
        return await read_store(oidc), None
    except BackendUnavailable as error:
        then = "refuses it with 503" if oidc.settings.on_stale == "deny" else "accepts it all the same"
        why = printable(error.detail)
        return False, f"what is revoked cannot be read ({why}), so it may be; a node that cannot read it either {then}"


def _revocation(verdict: Known | OIDCError, oidc: OIDC) -> Step:
    """Return the last check, which is the ledger's."""
    number = len(oidc.mirror.ledger)
    if isinstance(verdict, Revoked):
        return Step("revocation", f"among {number}", "none of its token, session, subject and client", verdict)
    return Step("revocation", f"none among {number}")


def _line(step: Step) -> str:
    if step.error is None:
        return f"ok      {step.name:19} {step.found}"
    lines = [f"FAILED  {step.name:19} {step.found}", f"        {'':19} expected: {step.expected}"]
    why = step.error.detail
    if isinstance(step.error, ClaimError):
        why = f"{step.error.claim} {step.error.reason.replace('_', ' ')}" + (f": {why}" if why else "")
    return "\n".join([*lines, f"        {'':19} why: {printable(why)}"])


def _print_accepted(known: Known, now: float) -> None:
    user = known.principal
    end = user.expires_at
    expiry = "at a time that nobody names" if end == math.inf else f"{moment(end)} ({distance(end - now)})"
    print(f"accepted: {shown(user.subject or user.client_id)} of {shown(user.issuer)}, expires {expiry}")
    print(f"scopes: {listed(sorted(user.scopes))}; whether they suffice, the rules decide for each request")


def _refused(error: OIDCError) -> str:
    verdict = "nobody knows" if error.status == HTTPStatus.SERVICE_UNAVAILABLE else "refused"
    challenge = f", error {error.error}" if error.error else ""
    return f"{verdict}: {printable(str(error))} (the client sees {error.status}{challenge})"


def _print_disagreement(agree: bool) -> None:  # noqa: FBT001  the one thing it is about
    if not agree:
        print("note: the checks above do not show what the door found; please report this as a bug")

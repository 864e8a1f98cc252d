"""`oidc-middleware revoke`: revoke on every node, from a terminal."""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
from collections.abc import Awaitable, Callable
from typing import Any

from oidc_middleware.auth.revocation.receipt import Receipt
from oidc_middleware.cli import tokens
from oidc_middleware.cli.options import settings_of
from oidc_middleware.cli.terminal import listed, printable
from oidc_middleware.errors import ConfigError, ProviderError, TokenError
from oidc_middleware.settings import Settings
from oidc_middleware.settings.cache import MEMORY
from oidc_middleware.settings.journal import journal_path
from oidc_middleware.wiring import OIDC

REVOKED = 0
NOT_AS_REQUIRED = 1
UNREACHABLE = 3

# How often is looked whether the journal still has something to bring, and the seconds between: 5 s in all.
_LOOKS = 250
_PAUSE = 0.02

_Call = Callable[[OIDC], Awaitable[Receipt]]


def run(arguments: argparse.Namespace) -> int:
    """Revoke what the arguments name, and tell how far that got.

    Raises:
        ConfigError: the settings cannot work, or the arguments name nothing that can be revoked.
    """
    settings = settings_of(arguments)
    _check_shared(settings)
    _check_together(arguments)
    call = _call(arguments, _issuer(arguments, settings))
    oidc = OIDC(settings)
    logging.getLogger("oidc_middleware").addHandler(logging.NullHandler())  # what went wrong is told here
    return asyncio.run(revoke(oidc, call, Receipt(arguments.require), as_json=arguments.json))


async def revoke(oidc: OIDC, call: _Call, required: Receipt, *, as_json: bool) -> int:
    """Revoke, print the receipt or why there is none, and return the exit code.

    Raises:
        ConfigError: the arguments name nothing that can be revoked.
    """
    facts: dict[str, Any]
    async with oidc:
        try:
            receipt = await call(oidc)
        except (TokenError, ProviderError) as error:
            code = UNREACHABLE if isinstance(error, ProviderError) else NOT_AS_REQUIRED
            facts = {"receipt": None, "error": error.code, "detail": error.detail}
            verdict = "nobody knows" if code == UNREACHABLE else "refused"
            line = f"{verdict}: {printable(str(error))}; nothing is revoked"
        except ValueError as error:
            raise ConfigError("revoke", str(error), "See oidc-middleware revoke --help.") from None
        else:
            code = REVOKED if receipt.least(required) is required else NOT_AS_REQUIRED
            if receipt is Receipt.SHARED:
                await _bring_the_rest(oidc)
            facts = {"receipt": receipt}
            line = f"{receipt}: {_meaning(receipt, oidc)}"
    print(json.dumps(facts) if as_json else line)
    return code


async def _bring_the_rest(oidc: OIDC) -> None:
    """Wait a while until the shared cache has what this command revoked before when it did not answer."""
    for _ in range(_LOOKS):
        facts = oidc.stats()["revocations"]
        if facts["loaded"] and not facts["unacknowledged"]:
            return
        await asyncio.sleep(_PAUSE)


def _meaning(receipt: Receipt, oidc: OIDC) -> str:
    settings = oidc.settings
    if receipt is Receipt.SHARED:
        return "it is in the shared cache, and every node that follows it enforces it"
    journal = journal_path(settings.journal, settings.cache, settings.namespace)
    if receipt is Receipt.JOURNALED:
        return (
            f"the shared cache did not take it; it is in {printable(str(journal))}, and whatever uses that journal, "
            "the service or this command, brings it to the cache when that answers. Nodes elsewhere do not know"
        )
    problem = oidc.stats()["revocations"]["journal"]
    why = "" if problem in {None, "ok"} else f" ({printable(problem)})"
    return f"neither the shared cache nor a journal took it{why}, so nothing is revoked: try again"


# Arguments


def _check_shared(settings: Settings) -> None:
    if settings.cache == MEMORY:
        problem = "is memory://, which belongs to one process: what this command revokes would end with it"
        raise ConfigError("cache", problem, "Set OIDC_CACHE and OIDC_SECRET to what the service has.")


def _check_together(arguments: argparse.Namespace) -> None:
    """Check that no option stands beside a target that takes no notice of it."""
    if arguments.expires_at is not None and arguments.jti is None:
        raise ConfigError("--expires-at", "belongs to --jti", "Leave it out.")
    if arguments.issued_before is not None and (arguments.jti is not None or arguments.token_file is not None):
        raise ConfigError("--issued-before", "belongs to --sid, --sub and --client", "Leave it out.")
    if arguments.token_issuer is not None and arguments.token_file is not None:
        raise ConfigError(
            "--token-issuer", "does not belong to --token-file: a token names its issuer", "Leave it out."
        )


def _issuer(arguments: argparse.Namespace, settings: Settings) -> str:
    """Return the issuer of what is to be revoked; any one for a token, which names it itself."""
    issuer: str | None = arguments.token_issuer
    if arguments.token_file is not None:
        return settings.trusted[0].issuer
    names = [name for each in settings.trusted for name in each.identifiers]
    templates = [each for each in settings.trusted if each.template is not None]
    if issuer is None and len(names) == len(settings.trusted) == 1:
        return names[0]
    if issuer is not None and (issuer in names or any(each.accepts_tenant_of(issuer) for each in templates)):
        return issuer
    problem = "is missing, and there are several issuers" if issuer is None else "is not a configured issuer"
    filled = [f"{each.issuer} with the tenant filled in" for each in templates if not each.identifiers]
    raise ConfigError("--token-issuer", problem, f"Choose from {listed([*names, *filled])}.")


def _call(arguments: argparse.Namespace, issuer: str) -> _Call:
    """Return what revokes."""
    before = arguments.issued_before
    if arguments.token_file is not None:
        token = tokens.bare(tokens.read(arguments.token_file))
        return lambda oidc: oidc.revoke.token(token)
    if arguments.jti is not None:
        return lambda oidc: oidc.revoke.token(issuer=issuer, jti=arguments.jti, expires_at=arguments.expires_at)
    if arguments.sid is not None:
        return lambda oidc: oidc.revoke.session(arguments.sid, issuer=issuer, issued_before=before)
    if arguments.sub is not None:
        return lambda oidc: oidc.revoke.subject(arguments.sub, issuer=issuer, issued_before=before)
    return lambda oidc: oidc.revoke.client(arguments.client, issuer=issuer, issued_before=before)

"""`oidc-middleware doctor`: whether the settings work, and whether the issuer and the cache give what they need."""

from __future__ import annotations

import argparse
import asyncio

from oidc_middleware.cache import TYPES, HybridBackend
from oidc_middleware.cache.backend import Health
from oidc_middleware.cli.asked import examine_introspection
from oidc_middleware.cli.ledger import read_journal, read_store
from oidc_middleware.cli.logins import examine_login
from oidc_middleware.cli.options import settings_of
from oidc_middleware.cli.proxies import warnings
from oidc_middleware.cli.terminal import keep_log_of_issuers_quiet, listed, print_line, printable, shown
from oidc_middleware.core.keys import Key
from oidc_middleware.errors import BackendUnavailable, OIDCError
from oidc_middleware.provider import Provider
from oidc_middleware.settings import Issuer, Settings
from oidc_middleware.settings.cache import without_credentials
from oidc_middleware.wiring import OIDC

WELL = 0
UNREACHABLE = 3


def run(arguments: argparse.Namespace) -> int:
    """Examine the settings that the arguments make.

    Raises:
        ConfigError: they cannot work.
    """
    oidc = OIDC(settings_of(arguments))
    keep_log_of_issuers_quiet()
    return asyncio.run(examine(oidc))


async def examine(oidc: OIDC) -> int:
    """Print what works and what does not, a line each, and return the exit code."""
    print_line("ok", "settings", _policy(oidc.settings))
    _print_resource(oidc.settings)
    _print_forward_auth(oidc.settings)
    answers = [await _examine_cache(oidc), await _examine_ledger(oidc), await _examine_journal(oidc)]
    for issuer in oidc.settings.trusted:
        answers += [
            await _examine_issuer(issuer, provider)
            and await examine_introspection(issuer, provider, oidc)
            and await examine_login(issuer, provider, oidc.settings)
            for provider in _providers(issuer, oidc)
        ]
    if oidc.settings.issuer_resolver is not None:
        print_line("", "issuers", "others are asked of issuer_resolver, when a token of theirs comes")
    return WELL if all(answers) else UNREACHABLE


def _print_forward_auth(settings: Settings) -> None:
    """Print who is believed what they say of the requests that they ask about."""
    if settings.forward_auth:
        print_line("ok", "auth", f"proxies that are believed: {listed(map(str, settings.trusted_proxies))}")
        for warning in warnings(settings):
            print_line("WARNING", "auth", warning)


def _print_resource(settings: Settings) -> None:
    """Print where the API describes itself, and whose tokens for it would be refused (RFC 8707 §2)."""
    metadata = settings.resource_metadata
    if metadata is None:
        return
    print_line("ok", "resource", f"{shown(metadata.resource)} is described at {shown(metadata.url)}")
    if not metadata.authorization_servers:
        print_line("WARNING", "resource", "no issuer is named there, so no client finds one: set authorization_servers")
    for issuer in settings.trusted:
        if metadata.resource not in issuer.audience:
            why = "it is none of its audiences, so a token that a client asks for by this name may be refused"
            print_line("WARNING", "resource", f"{shown(issuer.issuer)}: {why}")


async def _examine_cache(oidc: OIDC) -> bool:
    """Print how a shared cache fares; tell whether it answers and can be written."""
    backend, where = oidc.caches.backend, without_credentials(oidc.settings.cache)
    if not isinstance(backend, HybridBackend):
        print_line("", "cache", f"{where} (each process keeps its own)")
        return True
    health = await backend.shared.ping()
    try:
        if health.healthy:
            await backend.set(TYPES["general"], b"doctor", b"", oidc.clock.now() + 1, wait=True)
    except BackendUnavailable as error:
        health = Health(healthy=False, detail=f"cannot be written: {error.detail}")
    await oidc.caches.close()
    print_line("ok" if health.healthy else "FAILED", "cache", where)
    if health.detail:
        print_line("WARNING" if health.healthy else "", "cache", printable(health.detail))
    return health.healthy


async def _examine_ledger(oidc: OIDC) -> bool:
    """Print how many revocations there are; tell whether they can be read, understood and added to."""
    begun = oidc.clock.monotonic()
    try:
        is_shared = await read_store(oidc)
    except BackendUnavailable as error:
        print_line("FAILED", "ledger", printable(error.detail))
        return False
    if not is_shared:
        print_line("", "ledger", "a revocation reaches no other process")
        return True
    ledger = oidc.mirror.ledger
    print_line("ok", "ledger", f"{_counted(len(ledger))}, read in {oidc.clock.monotonic() - begun:.2f} s")
    unknown = sorted(key_id.hex() for key_id in ledger.unknown_key_ids)
    if unknown:
        text = f"some were made under secrets that are not configured here (ids {listed(unknown)}): no node is fresh"
        print_line("FAILED", "ledger", text)
    return not unknown


async def _examine_journal(oidc: OIDC) -> bool:
    """Print what the journal of this host holds; tell whether it can be written, if it is there."""
    journal = await read_journal(oidc)
    if journal is None:
        return True
    path = printable(journal.path)
    if journal.problem is not None:
        print_line("FAILED", "journal", printable(journal.problem))
    elif not journal.is_there:
        print_line("", "journal", f"{path} is not there yet")
    else:
        waiting = sum(not each.is_acknowledged for each in journal.noted)
        print_line("ok", "journal", f"{_counted(len(journal.noted))} in {path}, {waiting} not in the shared cache yet")
    return journal.problem is None


def _counted(number: int) -> str:
    return f"{number} revocation{'' if number == 1 else 's'}"


def _providers(issuer: Issuer, oidc: OIDC) -> list[Provider]:
    """Return what is known of an issuer, or of each tenant that is listed, where they have nothing in common."""
    template = issuer.template
    if issuer.issuer in oidc.providers or template is None:
        return [oidc.providers[issuer.issuer]]
    found = [provider for name, provider in oidc.providers.items() if template.tenant_of(name) is not None]
    if not found:
        print_line("", "issuer", f"{shown(issuer.issuer)}: each tenant is asked when a token of it comes")
    return found


async def _examine_issuer(issuer: Issuer, provider: Provider) -> bool:
    print()
    print_line("", "issuer", shown(provider.issuer))
    print_line("", "audience", f"{issuer.audience_claim} with {' or '.join(map(shown, issuer.audience))}")
    try:
        if issuer.jwks_uri is None:
            metadata = await provider.metadata()
            where = "it has no keys" if metadata.jwks_uri is None else f"keys are at {shown(metadata.jwks_uri)}"
            print_line("ok", "discovery", where)
        else:
            print_line("", "discovery", f"not needed, keys are at {shown(issuer.jwks_uri)}")
    except OIDCError as error:
        print_line("FAILED", "discovery", printable(error.detail))
        return False
    try:
        await provider.find_keys(None, issuer.algorithms[0], ())
    except OIDCError as error:
        print_line("FAILED", "keys", printable(error.detail))
        return False
    _print_keys(provider)
    return True


def _print_keys(provider: Provider) -> None:
    keys = provider.peek_keys()
    if keys is None:
        return
    for key in keys.keys:
        print_line("ok", "key", _key(key))
    for skipped in keys.skipped:
        print_line("note", "left out", printable(skipped))
    for warning in keys.warnings:
        print_line("WARNING", "key", printable(warning))


def _key(key: Key) -> str:
    return f"{'without an id' if key.kid is None else shown(key.kid)} for {listed(sorted(key.algorithms))}"


def _policy(settings: Settings) -> str:
    return (
        f"public {listed(settings.public)}; optional {listed(settings.optional)}; rules for "
        f"{listed(rule.path for rule in settings.rules)}; all else needs an identity"
    )

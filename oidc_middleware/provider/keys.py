"""Reading an issuer's keys, and seeing what changed between two versions of them."""

from __future__ import annotations

import logging

from oidc_middleware.core.keys import KeySet, parse_jwks

_log = logging.getLogger("oidc_middleware.provider")


def read_keys(document: bytes, algorithms: frozenset[str], held: KeySet | None) -> KeySet:
    """Read a JWKS document that is to take the place of `held`.

    A set without a key of use refuses every token. An issuer publishes one by mistake, while it starts, and never for
    long; so it replaces no keys, which remain until they are too old. Where there are none, it is what the issuer says.

    Raises:
        ValueError: the document is no JWKS, or it would leave us without a key.
    """
    keys = parse_jwks(document, algorithms)
    if held and not keys:
        raise ValueError("no key in it can be used: " + ("; ".join(keys.skipped[:5]) or "it is empty"))
    return keys


def lost_trust(old: KeySet, new: KeySet) -> bool:
    """Tell whether a key of `old` is gone in `new`, or may no longer be used with an algorithm.

    Keys are told apart by what they are (RFC 7638), not by their `kid`.
    """
    trusted = {(key.thumbprint, algorithm) for key in new.keys for algorithm in key.algorithms}
    return any((key.thumbprint, algorithm) not in trusted for key in old.keys for algorithm in key.algorithms)


def log_faults(issuer: str, old: KeySet | None, new: KeySet) -> None:
    """Log what is wrong with the keys, once as long as it stays the same."""
    if new.warnings and (old is None or old.warnings != new.warnings):
        _log.critical("keys of %s: %s", issuer, "; ".join(new.warnings))
    if not new:
        _log.error("keys of %s: there is none that can be used, so no token is accepted", issuer)
    if new.skipped and (old is None or old.skipped != new.skipped):
        _log.info("keys of %s: left out %s", issuer, "; ".join(new.skipped))

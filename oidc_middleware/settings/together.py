"""Checks of settings against each other; each alone is fine by now."""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterable, Iterator

from oidc_middleware.core.policy import Policy, Rule
from oidc_middleware.errors import ConfigError
from oidc_middleware.settings import urls
from oidc_middleware.settings.issuer import Issuer
from oidc_middleware.settings.problem import combined, shown

_log = logging.getLogger("oidc_middleware.settings")
_URL_FIELDS = ("issuer", "discovery_url", "jwks_uri", "introspection_endpoint")


def check_one_or_many(given: Collection[str]) -> None:
    """Check that there is one issuer, a list of them or a resolver; `given` are the names of the settings that came.

    Raises:
        ConfigError: issuer or audience is missing, or stands beside issuers, where nothing would read it.
    """
    of_one = [name for name in Issuer.model_fields if name in given]
    if "issuer_resolver" in given and not of_one:
        return
    if "issuers" not in given:
        wrong = [
            ConfigError(name, "is missing", f"Pass {name}=... or set OIDC_{name.upper()}.")
            for name in ("issuer", "audience")
            if name not in given
        ]
    else:
        wrong = [
            ConfigError(name, "is set beside issuers", "Each Issuer(...) has its own: move it there.")
            for name in of_one
        ]
    if wrong:
        raise combined(wrong)


def check_transport(trusted: tuple[Issuer, ...], *, allow_http: bool) -> None:
    """Check that nobody between here and the issuer can change its keys; warn where that was asked for.

    Raises:
        ConfigError: an http URL to another machine.

    Source: OpenID Connect Discovery §7.1 and §7.2, RFC 8414 §6.1.
    """
    for field, url in _plain_urls(trusted):
        if not allow_http:
            cure = "Write https. Where the network itself is safe, allow_http=True permits it."
            raise ConfigError(field, f"{shown(url)} is not encrypted, so anybody on the way can forge tokens", cure)
        _log.warning("allow_http: %s=%s is not encrypted; whoever can change its traffic can forge tokens", field, url)


def check_rule_audiences(rules: Iterable[Rule], trusted: tuple[Issuer, ...]) -> None:
    """Check that a rule for an audience can be met: it reads `aud`, which the tokens of some issuers do not have.

    Raises:
        ConfigError: a rule names an audience, and an issuer's tokens name theirs in another claim.
    """
    for rule in rules:
        for issuer in trusted:
            if rule.audience is not None and issuer.audience_claim != "aud":
                problem = f"the rule for {rule.path!r} asks for an audience, and tokens of {issuer.issuer} have no aud"
                cure = f"Ask for claims={{{issuer.audience_claim!r}: ...}} instead."
                raise ConfigError("rules", problem, cure)


def warn_of_shared_audiences(trusted: tuple[Issuer, ...]) -> None:
    """Warn of an audience that says nothing."""
    for issuer in trusted:
        if "account" in issuer.audience:
            _log.warning(
                "audience: Keycloak puts 'account' into every token, so tokens for other services of %s get in too. "
                "Give this API an audience mapper of its own.",
                issuer.issuer,
            )


def warn_of_unreachable_rules(policy: Policy) -> None:
    """Warn of a rule that is never asked, since the first one that matches counts."""
    for rule, earlier in policy.unreachable:
        _log.warning(
            "rules: the one for %s comes after the one for %s, which takes all its requests", rule.path, earlier.path
        )


def _plain_urls(trusted: tuple[Issuer, ...]) -> Iterator[tuple[str, str]]:
    for place, issuer in enumerate(trusted):
        before = f"issuers[{place}]." if len(trusted) > 1 else ""
        for field in _URL_FIELDS:
            url = getattr(issuer, field)
            if url is not None and not urls.may_stay_plain(url):
                yield before + field, url

"""The checks of the door one by one, so that each can be told.

Every verdict is that of the door's own function, called with as much of the token as the check is about. A check that
fails does not end the walk, as it ends the door's: whoever mends one thing wants to know of the others.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from oidc_middleware.auth.issuers import Issuers
from oidc_middleware.auth.trusted import KeySource, TrustedIssuer
from oidc_middleware.cli.terminal import distance, listed, moment, printable, shown, span
from oidc_middleware.core import base64url, bearer, foreign, jws, strict_json, token_type, verify
from oidc_middleware.core import claims as rules
from oidc_middleware.core.claim_paths import find
from oidc_middleware.core.keys import Key
from oidc_middleware.core.verify import Expected, Unverified
from oidc_middleware.errors import ClaimError, OIDCError

_ABSENT = "none"


@dataclass(frozen=True, slots=True)
class Step:
    """One check: its name, what was found, what was expected, and the refusal if it failed."""

    name: str
    found: str
    expected: str = ""
    error: OIDCError | None = None


@dataclass(frozen=True, slots=True)
class Walk:
    """All checks that could be made, in the order of the door. `expected` is None where the issuer is not known."""

    steps: tuple[Step, ...]
    token: Unverified | None = None
    expected: Expected | None = None

    @property
    def error(self) -> OIDCError | None:
        """The first refusal, which is the door's."""
        return next((step.error for step in self.steps if step.error is not None), None)


async def walk(token: bytes, issuers: Issuers, now: float) -> Walk:
    """Make every check that can be made; asks the issuer for its keys where the header names one that can be sought."""
    steps = list(_reading(token))
    if steps[-1].error is not None:
        return Walk(tuple(steps))
    unverified = verify.read(token)
    issuer, trusted = await _issuer(unverified, issuers)
    steps.append(issuer)
    if trusted is None:
        return Walk(tuple(steps), unverified)
    header = list(_header(unverified, trusted.expected))
    steps += header
    steps += _claims(unverified, trusted.expected, now)
    if all(step.error is None for step in header):
        steps += await _signature(unverified, trusted.keys)
    return Walk(tuple(steps), unverified, trusted.expected)


def _refusal(check: Callable[[], object]) -> OIDCError | None:
    try:
        check()
    except OIDCError as error:
        return error
    return None


# Reading


def _reading(token: bytes) -> Iterator[Step]:
    """Tell how far the token can be read; only the last step can have failed.

    The door reads in one go, and its refusal is the one that counts; the probes tell where it was met.
    """
    refused = _refusal(lambda: verify.read(bearer.credential(b"Bearer " + token)))
    for name, found, expected, probe in _probes(token):
        try:
            probe()
        except (OIDCError, ValueError):
            yield Step(name, found, expected, refused)
            return
        yield Step(name, found)
    if refused is not None:
        yield Step("reading", "a token that cannot be read", "a compact JWS", refused)


def _probes(token: bytes) -> Iterator[tuple[str, str, str, Callable[[], object]]]:
    """Yield name, found, expected and the probe of each step; whoever takes the next one has seen this one succeed."""
    size = f"{len(token):,} bytes"
    yield "size", size, f"at most {bearer.MAX_TOKEN:,}", lambda: bearer.credential(b"Bearer " + b"A" * len(token))
    letters = f"{len(set(token))} different ones"
    yield "characters", letters, "letters, digits and - . _ ~ + /", lambda: bearer.credential(b"Bearer " + token)
    parts = token.split(b".")
    yield (
        "parts",
        str(len(parts)),
        "3: header, payload, signature",
        lambda: verify.read(b".".join([b"e30"] * len(parts))),
    )
    header, payload, signature = parts
    strict = "without padding, spare bits or other characters"
    yield "header encoding", "base64url", strict, lambda: base64url.decode(header)
    data = base64url.decode(header)
    yield "header JSON", _names(data), "one JSON object", lambda: strict_json.load_object(data)
    yield "payload encoding", "base64url", strict, lambda: base64url.decode(payload)
    yield "signature encoding", "base64url", strict, lambda: base64url.decode(signature)
    claims = base64url.decode(payload)
    yield "payload JSON", _names(claims), "one JSON object", lambda: strict_json.load_object(claims)


def _names(data: bytes) -> str:
    try:
        return listed(strict_json.load_object(data))
    except strict_json.StrictJSONError as error:
        return printable(str(error))


# Header and claims


async def _issuer(token: Unverified, issuers: Issuers) -> tuple[Step, TrustedIssuer | None]:
    """Choose among the issuers. Where there is but one, the other checks are made as if the token were of it."""
    fixed = issuers.fixed
    found, expected = _claim(token, "iss"), _one_of(fixed) or "one of a tenant that is trusted"
    try:
        return Step("issuer", found), await issuers.find(token)
    except OIDCError as error:
        return Step("issuer", found, expected, error), next(iter(fixed.values())) if len(fixed) == 1 else None


def _header(token: Unverified, expected: Expected) -> Iterator[Step]:
    header, algorithms = token.jws.header, expected.algorithms
    good = {"alg": next(iter(algorithms))}

    def check(part: dict[str, Any]) -> OIDCError | None:
        return _refusal(lambda: jws.check_header(part, algorithms))

    yield Step(
        "algorithm", _member(header, "alg"), _one_of(algorithms), check({k: v for k, v in header.items() if k == "alg"})
    )
    others = {name: value for name, value in header.items() if name not in {"alg", "kid"}}
    expects = "none that changes what is signed or who signed it"
    yield Step("other parameters", listed(others), expects, check(others | good))
    kid = {name: value for name, value in header.items() if name == "kid"}
    yield Step("key id", _member(header, "kid"), "text of at most 256 characters", check(kid | good))
    if expected.foreign:
        error = _refusal(lambda: foreign.check_header(header, expected.foreign))
        yield Step("verifiable", "by anybody" if error is None else "by somebody else", "by anybody", error)


def _claims(token: Unverified, expected: Expected, now: float) -> Iterator[Step]:
    claims = token.claims
    if expected.tenant is not None:
        claim, tenant = expected.tenant
        error = _refusal(lambda: rules.check_tenant(claims, claim, tenant))
        yield Step("tenant", f"{claim} {shown(find(claims, claim))}", f"{claim} {shown(tenant)}, as in iss", error)
    identifiers = _members(claims, ("jti", "sid", "client_id", "azp", "appid", "cid"))
    yield Step("identifiers", identifiers, "text in each", _refusal(lambda: rules.check_texts(claims)))
    audience, matched = _audience(token, expected)
    yield audience
    yield _kind(token, expected, matched)
    yield Step(
        "lifetime",
        _times(claims, now),
        f"a time between nbf and exp, at most {span(expected.max_token_life)} after iat, give or take "
        f"{expected.leeway:g} s",
        _refusal(lambda: rules.check_lifetime(claims, now, expected.leeway, expected.max_token_life)),
    )
    yield Step("subject", _claim(token, "sub"), "text", _refusal(lambda: rules.check_subject(claims)))
    binding = "none" if "cnf" not in claims else "cnf, a key"
    yield Step("binding", binding, "a plain bearer token", _refusal(lambda: rules.check_unbound(claims)))
    scopes = _members(claims, ("scope", "scp"))
    yield Step("scopes", scopes, "text, or a list of texts", _refusal(lambda: rules.check_scopes(claims)))


def _audience(token: Unverified, expected: Expected) -> tuple[Step, frozenset[str]]:
    name = expected.audience_claim
    found, wanted = f"{name} {_claim(token, name)}", f"{name} with {_one_of(expected.audiences)}"
    try:
        matched = rules.check_audience(token.claims, name, expected.audiences)
    except ClaimError as error:
        return Step("audience", found, wanted, error), frozenset()
    return Step("audience", found), matched


def _kind(token: Unverified, expected: Expected, matched: frozenset[str]) -> Step:
    header, claims = token.jws.header, token.claims
    found = f"typ {_member(header, 'typ')}"
    if expected.token_type == "at+jwt":  # noqa: S105  a token type, no secret
        return Step("token type", found, 'typ "at+jwt"', _refusal(lambda: token_type.check_strict(header)))
    error = _refusal(lambda: token_type.check_auto(header, claims, matched, expected.client_ids, expected.waived))
    if isinstance(error, ClaimError) and error.claim in claims:
        found += f", {error.claim} {_claim(token, error.claim)}"
    return Step("token type", found, "an access token", error)


def _times(claims: Mapping[str, Any], now: float) -> str:
    return (
        ", ".join(f"{name} {_time(claims, name, now)}" for name in ("iat", "nbf", "exp") if name in claims) or _ABSENT
    )


def _time(claims: Mapping[str, Any], name: str, now: float) -> str:
    try:
        when = rules.numeric_date(claims, name)
    except ClaimError:
        when = None
    return shown(claims[name]) if when is None else f"{moment(when)} ({distance(when - now)})"


# Keys


async def _signature(token: Unverified, source: KeySource) -> list[Step]:
    kid, algorithm = token.jws.kid, token.jws.algorithm
    wanted = f"one for {algorithm}" + ("" if kid is None else f" with the id {shown(kid)}")
    try:
        keys = await _keys(token, source)
    except OIDCError as error:
        return [Step("key", "no answer from the issuer", wanted, error)]
    refused = _refusal(lambda: verify.check_signature(token, keys))
    if not keys:
        published = source.peek_keys()
        return [Step("key", f"none of the issuer's {0 if published is None else len(published)} fits", wanted, refused)]
    fit = "1 key of the issuer fits" if len(keys) == 1 else f"{len(keys)} keys of the issuer fit"
    made = "made by the issuer" if refused is None else "made by another key, or over other text"
    return [Step("key", fit), Step("signature", made, "made by a key of the issuer", refused)]


async def _keys(token: Unverified, source: KeySource) -> tuple[Key, ...]:
    """Return the keys that the token may mean: those in memory, or where they do not do, those that the issuer has."""
    known = source.peek_keys()
    keys = () if known is None else known.find(token.jws.kid, token.jws.algorithm)
    if verify.is_signed_by(token, keys):
        return keys
    return await source.find_keys(token.jws.kid, token.jws.algorithm, keys)


# Texts


def _member(values: Mapping[str, Any], name: str) -> str:
    return shown(values[name]) if name in values else _ABSENT


def _claim(token: Unverified, name: str) -> str:
    return _member(token.claims, name)


def _members(values: Mapping[str, Any], names: tuple[str, ...]) -> str:
    return ", ".join(f"{name} {shown(values[name])}" for name in names if name in values) or _ABSENT


def _one_of(values: frozenset[str] | Mapping[str, object]) -> str:
    return " or ".join(shown(value) for value in sorted(values))

"""Where the time of a first sight goes: what `Authenticator.authenticate` does, one step after the other."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from hashlib import sha256

from bench_first_sight import TOKENS, authenticating, newcomers
from peers import bare_check
from services import Service, every_signature_believed
from table import Contestant, Row, compared, interleaved, markdown, over
from traffic import bare, header_value, issuer, taken_apart

from oidc_middleware.auth.known import TokenRecord
from oidc_middleware.cache import Caches
from oidc_middleware.clock import SystemClock
from oidc_middleware.core import base64url, jws, strict_json, verify
from oidc_middleware.core.claims_mapping import USUAL
from oidc_middleware.core.known import Known
from oidc_middleware.core.principal import Principal
from oidc_middleware.testing import FakeIssuer

REST = "the rest: calls, the hot set, who leaves it"
WHOLE = "authenticate() in all"
BELIEVED = "authenticate(), the signature believed"
SIGNATURE = "of it: the bare signature check (cryptography)"
# These are parts of the step above them.
_PARTS = ("of it: ",)


def rows(*, quick: bool = False) -> dict[str, list[Row]]:
    """Return the table of steps."""
    del quick  # it takes a few seconds
    provider = issuer()
    with asyncio.Runner() as runner:
        timings = interleaved(contestants(runner, provider, *newcomers(provider)), TOKENS)
    whole, unsigned = timings.pop(WHOLE), timings.pop(BELIEVED)
    rest = whole
    for name, timing in timings.items():
        if not name.startswith(_PARTS):
            rest = rest.less(timing)
    timings |= {REST: rest, BELIEVED: unsigned, WHOLE: whole}
    rows = compared(timings, SIGNATURE)
    return {
        "First sight, step by step": [
            replace(row, base="signature", least=None if row.what == REST else row.least) for row in rows
        ]
    }


def contestants(
    runner: asyncio.Runner, provider: FakeIssuer, tokens: Sequence[str], others: Sequence[str]
) -> dict[str, Contestant]:
    """Return the steps in their order, each with what it works on made before."""
    oidc = Service(provider, bare()).oidc
    values = [header_value(token) for token in tokens]
    runner.run(oidc.authenticator.authenticate(values[0]))
    trusted = oidc.issuers[provider.url]
    keys = trusted.keys.peek_keys()
    if keys is None:
        raise AssertionError("the keys are not in memory")
    parts = [value[7:] for value in values]
    headers = {parts[0].partition(b".")[0]: jws.parse(parts[0]).header}
    read = [verify.read(token, headers) for token in parts]
    now = oidc.clock.now()
    found = keys.find(read[0].jws.kid, "RS256")
    deadline = now + 60
    digests = [sha256(token).digest() for token in parts]
    records = [(deadline, 0, 0, token.jws.payload, b"", deadline, USUAL) for token in read]
    return {
        "the token taken apart": over(jws.parse, [(token, headers) for token in parts]),
        "of it: base64url of the payload": over(base64url.decode, [(token.split(b".")[1],) for token in parts]),
        "of it: base64url of the signature": over(base64url.decode, [(token.split(b".")[2],) for token in parts]),
        "strict JSON of the payload": over(strict_json.load_object, [(token.jws.payload,) for token in read]),
        "header and claims checked": over(verify.check, [(token, trusted.expected, now) for token in read]),
        "the key found": over(keys.find, [(token.jws.kid, "RS256") for token in read]),
        "the signature, through PyJWT": over(verify.check_signature, [(token, found) for token in read]),
        SIGNATURE: over(bare_check(found[0].public_key), [taken_apart(token) for token in tokens]),
        "the identity": over(
            lambda value, token, payload: Known(
                value, deadline, 0, 0, Principal(payload, token), b"", deadline, is_cached=False
            ),
            [
                (value, token, unverified.jws.payload)
                for value, token, unverified in zip(values, parts, read, strict=True)
            ],
        ),
        "SHA-256 of the token": over(lambda token: sha256(token).digest(), [(token,) for token in parts]),
        "into the cache": storing(digests, records, deadline),
        BELIEVED: believing(authenticate := authenticating(runner, provider, tokens, others)),
        WHOLE: authenticate,
    }


def believing(authenticate: Contestant) -> Contestant:
    """Return the contestant that takes every signature for good: what our own work costs by itself."""

    def run(count: int) -> float:
        with every_signature_believed():
            return authenticate(count)

    return run


def storing(digests: Sequence[bytes], records: Sequence[TokenRecord], end: float) -> Contestant:
    """Return the contestant that puts records into a cache that has none of them."""
    arguments = [(key, value, end, len(value[3]) + 300) for key, value in zip(digests, records, strict=True)]

    def run(count: int) -> float:
        cache = Caches(SystemClock()).token
        return over(cache.put, arguments)(count)

    return run


if __name__ == "__main__":
    for title, table in rows().items():
        print(markdown(title, table), end="\n\n")

"""What an attack on revocation found, each with the input that showed it."""

from __future__ import annotations

from pathlib import Path

import pytest

from abuse.door import Door
from abuse.signing import Signer

pytestmark = pytest.mark.anyio


@pytest.fixture(scope="module")
def signer() -> Signer:
    return Signer()


async def test_a_verdict_of_all_nodes_is_not_found_by_a_header_value(signer: Signer, tmp_path: Path) -> None:
    """Known tokens are found by the SHA-256 of what follows `Bearer `; verdicts were by that of source and token.

    Anybody can send these where the server lets the bytes of the source pass, and a verdict knows of no revocation.
    """
    cache = f"sqlite:///{tmp_path}/cache.sqlite"
    door = Door(signer.jwks(), cache=cache, secret="s" * 32, share_tokens="always")
    async with door.oidc:
        token = signer.token()
        assert (await door.ask(token=token)).status == 200
        (source,) = [issuer.source for issuer in door.oidc.issuers.values()]
        smuggled = [(b"authorization", b"Bearer " + source + token.encode())]
        assert (await door.ask(headers=smuggled)).status == 400
        await door.oidc.revoke.token(token)
        assert (await door.ask(headers=smuggled)).status == 400

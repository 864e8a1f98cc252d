"""What it costs to name, seal and open an entry, beside the cipher alone and beside Fernet."""

from __future__ import annotations

import itertools
import logging
import os
from base64 import urlsafe_b64encode
from hashlib import sha256

from cryptography.fernet import Fernet, InvalidToken
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from table import Row, compared, interleaved, markdown, repeated

from oidc_middleware.cache.envelope import Sealer, new_secret

COUNT = 4096
NOW, END = 1_800_000_000.0, 1_800_003_600.0
OURS = "`Sealer`"
CIPHER = "AES-256-GCM alone"
SIZES = (700, 16_384)


def rows(*, quick: bool = False) -> dict[str, list[Row]]:
    """Return the tables of sealing."""
    rounds = 5 if quick else 15
    logging.getLogger("oidc_middleware.cache").addHandler(logging.NullHandler())
    tables = {f"Envelope: {size:,} bytes": [*sealing(size, rounds), *opening(size, rounds)] for size in SIZES}
    return {**tables, "Envelope: names and misses": [*naming(rounds), *refusing(rounds)]}


def sealing(size: int, rounds: int) -> list[Row]:
    """Return what it costs to seal a value."""
    value, key = os.urandom(size), sha256(b"a token").digest()
    sealer, fernet, cipher = Sealer([new_secret()], "oidc"), Fernet(Fernet.generate_key()), AESGCM(os.urandom(32))
    timings = interleaved(
        {
            CIPHER: repeated(lambda: cipher.encrypt(os.urandom(12), value, key)),
            OURS: repeated(lambda: sealer.seal("token", key, value, END, NOW)),
            "Fernet": repeated(lambda: fernet.encrypt(value)),
        },
        COUNT,
        rounds,
    )
    return compared(timings, CIPHER, {OURS: 2.5}, "seal · {}")


def opening(size: int, rounds: int) -> list[Row]:
    """Return what it costs to open what was sealed."""
    value, key, nonce = os.urandom(size), sha256(b"a token").digest(), os.urandom(12)
    sealer, fernet, cipher = Sealer([new_secret()], "oidc"), Fernet(Fernet.generate_key()), AESGCM(os.urandom(32))
    blob, token = sealer.seal("token", key, value, END, NOW), fernet.encrypt(value)
    bare = cipher.encrypt(nonce, value, key)
    timings = interleaved(
        {
            CIPHER: repeated(lambda: cipher.decrypt(nonce, bare, key)),
            OURS: repeated(lambda: sealer.open("token", key, blob, NOW)),
            "Fernet": repeated(lambda: fernet.decrypt(token)),
        },
        COUNT,
        rounds,
    )
    return compared(timings, CIPHER, {OURS: 4}, "open · {}")


def naming(rounds: int) -> list[Row]:
    """Return what a name costs, under one secret and during a rotation."""
    key = sha256(b"a token").digest()
    sealer = Sealer([new_secret(), new_secret()], "oidc")
    base = "SHA-256 in base64"
    timings = interleaved(
        {
            base: repeated(lambda: urlsafe_b64encode(sha256(key).digest())),
            "`digest`": repeated(lambda: sealer.digest("token", key)),
            "`digests`, two secrets": repeated(lambda: sealer.digests("token", key)),
        },
        COUNT,
        rounds,
    )
    return compared(timings, base, label="name · {}")


def refusing(rounds: int) -> list[Row]:
    """Return what a blob costs that does not open; of a new day or type, with the derivation of its key."""
    value, key = os.urandom(700), sha256(b"a token").digest()
    sealer, fernet = Sealer([new_secret()], "oidc"), Fernet(Fernet.generate_key())
    blob, token = sealer.seal("token", key, value, END, NOW), fernet.encrypt(value)
    days = [blob[:9] + day.to_bytes(4) + blob[13:] for day in range(1000)]
    turn = itertools.cycle(days)
    altered = "altered"
    timings = interleaved(
        {
            altered: repeated(lambda: sealer.open("token", b"another", blob, NOW)),
            "altered, of a day that was not seen before": repeated(lambda: sealer.open("token", key, next(turn), NOW)),
            "garbage": repeated(lambda: sealer.open("token", key, value, NOW)),
            "Fernet, altered": repeated(lambda: refused(fernet, token[:-4] + b"AAAA")),
        },
        COUNT,
        rounds,
    )
    return compared(timings, altered, label="miss · {}")


def refused(fernet: Fernet, token: bytes) -> bool:
    """Tell whether Fernet refuses a token."""
    try:
        fernet.decrypt(token)
    except InvalidToken:
        return True
    return False


if __name__ == "__main__":
    for title, table in rows().items():
        print(markdown(title, table), end="\n\n")

"""What a run keeps in a shared cache: apart from what others have there, and gone when it ends."""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

from oidc_middleware.cache.envelope import new_secret
from oidc_middleware.errors import BackendUnavailable, ConfigError
from oidc_middleware.settings.cache import MEMORY, USUAL_NAMESPACE, sqlite_path

_BUDGET = 1.0
# What SQLite and we call the files beside a cache's.
_FILES = [kind + part for kind in ("", "-ledger") for part in ("", "-wal", "-shm", "-lock")]


class Place(NamedTuple):
    """A cache, and the settings that keep a run to itself there."""

    cache: str
    secret: str
    namespace: str = "demo"
    journal: str = "none"


@asynccontextmanager
async def place_in(cache: str) -> AsyncIterator[Place]:
    """Yield a place in a cache that nobody else has, and remove in the end what was written there.

    A run has a secret of its own. In the ledger of others its revocations would be such that they cannot know whom they
    concern, and none of them would be fresh.

    Raises:
        ConfigError: it is a file that is there already.
    """
    place = Place(cache, new_secret(), f"oidc-{secrets.token_hex(4)}")
    path = sqlite_path(cache)
    if cache == MEMORY:
        yield place
    elif path is not None:
        with _new_file(path):
            yield place._replace(namespace=USUAL_NAMESPACE)
    else:
        with TemporaryDirectory(prefix="oidc-demo-") as folder:
            try:
                yield place._replace(journal=f"{folder}/revocations.journal")
            finally:
                with suppress(BackendUnavailable):  # a Redis that is gone has nothing of ours, or cannot be helped
                    await _unlink(cache, place.namespace)


@contextmanager
def _new_file(path: str) -> Iterator[None]:
    files = [Path(path + ending) for ending in _FILES]
    if any(file.exists() for file in files):
        cure = "Name a new one: the demo begins with nothing, and leaves nothing."
        raise ConfigError("--cache", f"{path} is there already, and may be a service's", cure)
    try:
        yield
    finally:
        for file in files:
            file.unlink(missing_ok=True)


async def _unlink(cache: str, namespace: str) -> None:
    from oidc_middleware.cache.redis.router import router
    from oidc_middleware.cache.redis.wire import command, glob_of

    pattern = glob_of(namespace.encode() + b":")
    route = router(cache, _BUDGET)()
    try:
        for link in (await route.primaries()).values():
            cursor = None
            while cursor != b"0":
                ((cursor, keys),) = await link.ask(
                    command(b"SCAN", cursor or b"0", b"MATCH", pattern, b"COUNT", b"1000")
                )
                if keys:
                    await route.unlink(keys)
    finally:
        await route.aclose()

"""Three nodes of an app that people log in to, one Redis, and a provider that knows where they are."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .login_app import login_app
from .person import Person
from .service import Served, listen, serving
from .stranger import Stranger
from redis_kit import RedisServer

SECRET = "s" * 32
PATIENCE = 15


@dataclass(frozen=True)
class Fleet:
    """The nodes, of which the first is where browsers find the app and the provider delivers logout tokens."""

    nodes: tuple[Served, ...]
    provider: Stranger
    redis: RedisServer
    urls: tuple[str, ...]
    """The addresses of the nodes."""

    @property
    def base(self) -> str:
        """The address of the app."""
        return self.urls[0]

    def statuses(self, person: Person, path: str = "/me") -> list[int]:
        """Return what each node answers to a script on this person's page."""
        return [person.fetch(url + path).status_code for url in self.urls]


@contextmanager
def fleet(
    size: int = 3, *, host: str = "127.0.0.1", client_key: Path | None = None, **settings: Any
) -> Iterator[Fleet]:
    """Start it all; `settings` are those of the nodes. The private key of `app-keyed` is written to `client_key`.

    For browsers the provider is of the same site as the nodes, unless their `host` is `localhost`.
    """
    with ExitStack() as stack:
        listeners = [stack.enter_context(listen()) for _ in range(size)]
        urls = [f"http://{host}:{listener.getsockname()[1]}" for listener in listeners]
        provider = stack.enter_context(Stranger(apps=urls))
        if client_key is not None:
            client_key.write_text(provider.client_key())
        redis = stack.enter_context(RedisServer())
        usual: dict[str, Any] = {
            "issuer": provider.issuer,
            "base_url": urls[0],
            "post_logout_redirect_uri": f"{urls[0]}/oauth2/signed_out",
            "cache": redis.url,
            "secret": SECRET,
            "trusted_origins": urls[1:],  # here each node has an address of its own for browsers
        }
        nodes = [
            stack.enter_context(serving(login_app(**(usual | settings)), listener=listener)) for listener in listeners
        ]
        yield Fleet(tuple(nodes), provider, redis, tuple(urls))


def wait_for(condition: Callable[[], bool], seconds: float = PATIENCE) -> None:
    """Wait until something is so.

    Raises:
        AssertionError: it was not, in time.
    """
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def log_in(app: Fleet, person: Person, path: str = "/") -> None:
    """Open a page of the app, and come back to it logged in."""
    answer = person.go(app.base + path)
    assert (answer.status_code, str(answer.url)) == (200, app.base + path), answer.text
    assert f'<h1 id="who">{person.name}</h1>' in answer.text

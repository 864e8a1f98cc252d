"""What the door costs a request whose token is known: one token over and over, and 100,000 in turn."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Sequence
from typing import Any

import msgspec
from peers import DoesNothing, JWTBackend
from services import Service, introduce
from starlette.middleware.authentication import AuthenticationMiddleware
from table import Row, added, interleaved, markdown
from traffic import Application, ask, asking, bare, for_ever, issuer, no_body, only_200, scope_of, signed, unsigned

HOT_LIMIT, ROTATING_LIMIT = 0.18, 0.37
ASKED = 1024


def rows(*, quick: bool = False) -> dict[str, list[Row]]:
    """Return the table of known tokens."""
    with asyncio.Runner() as runner:
        return {"A request whose token is known": known_tokens(runner, 20_000 if quick else 100_000)}


def known_tokens(runner: asyncio.Runner, rotating: int) -> list[Row]:
    """Measure the bare app, ours around it, and what others put around it."""
    provider = issuer()
    key = provider.keys.current("RS256").private.public_key()
    tokens = list(unsigned(provider, rotating))
    hot, turning = Service(provider, bare()), Service(provider, bare())
    runner.run(introduce(hot, tokens[:1]))
    runner.run(introduce(turning, tokens))
    check_path(hot.app, tokens[:1])
    check_path(turning.app, tokens[:256])

    plain, sample = bare(), signed(provider, 1)[0]
    pyjwt = AuthenticationMiddleware(bare(), backend=JWTBackend(provider.url, key))
    turns = for_ever(tokens)
    timings = interleaved(
        {
            "bare": asking(runner, plain, for_ever(tokens[:1])),
            "hot": asking(runner, hot.app, for_ever(tokens[:1])),
            "bare, rotating": asking(runner, plain, for_ever(tokens)),
            "rotating": asking(runner, turning.app, turns),
            "PyJWT": asking(runner, pyjwt, for_ever([sample])),
            "nothing": asking(runner, DoesNothing(bare()), for_ever([sample])),
        },
        ASKED,
        rounds=61,
    )
    seen = turning.digest_hits()
    runner.run(ask(turning.app, turns, 10 * ASKED))
    by_digest = (turning.digest_hits() - seen) / (10 * ASKED)
    floor = timings["bare"]
    return [
        Row("bare Starlette, a request with 12 headers", floor.median, least=floor.least),
        added("one known token", timings["hot"], floor, HOT_LIMIT),
        added(f"{rotating:,} known tokens in turn", timings["rotating"], timings["bare, rotating"], ROTATING_LIMIT),
        Row("… share of them that the hot set does not have", 100 * by_digest, unit="%"),
        added("peer: AuthenticationMiddleware with PyJWT", timings["PyJWT"], floor),
        added("peer: BaseHTTPMiddleware that does nothing", timings["nothing"], floor),
    ]


def check_path(app: Application, tokens: Sequence[str]) -> None:
    """Make sure that a request with a known token suspends nowhere and reads no JSON.

    Raises:
        AssertionError: it does.
    """
    decoders: list[object] = []

    def note(_: Any, event: str, called: Any) -> None:
        if event == "c_call" and isinstance(getattr(called, "__self__", None), msgspec.json.Decoder):
            decoders.append(called)

    for token in tokens:
        scope = scope_of(token)
        asked: Any = app(scope, no_body, only_200)
        sys.setprofile(note)
        try:
            asked.send(None)
        except StopIteration:
            pass
        else:
            raise AssertionError("a request with a known token suspended")
        finally:
            sys.setprofile(None)
        if decoders or scope["user"]._claims is not None:  # noqa: SLF001
            raise AssertionError("JSON was read for a known token")


if __name__ == "__main__":
    for title, table in rows().items():
        print(markdown(title, table), end="\n\n")

"""Any order of questions, answers, failures and pauses: whom `ResolvedIssuers` trusts, and what it keeps meanwhile."""

from __future__ import annotations

import asyncio
from itertools import pairwise
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from oidc_middleware.auth.resolving import (
    LIFE,
    MAX_CALLS,
    PAUSE,
    REFUSED_LIFE,
    STALE_LIFE,
    ResolvedIssuers,
)
from oidc_middleware.errors import BackendUnavailable, ProviderUnavailable
from oidc_middleware.testing import ManualClock

NAMES = ["a", "b", "c"]


class Opened:
    """An open issuer that counts its starts and stops; its keys come, or do not."""

    def __init__(self, described: tuple[str, int], log: list[Opened]) -> None:
        self.trusted: Any = described
        self.ready = False
        self.comes = described[1] % 3 > 0
        self.runs = 0
        log.append(self)

    async def load(self) -> None:
        await asyncio.sleep(0)
        if not self.comes:
            raise ProviderUnavailable("no keys")
        self.ready = True

    def start(self) -> None:
        assert self.ready, "nothing is fetched unasked before the keys came once"
        self.runs += 1

    async def stop(self) -> None:
        self.runs = 0

    def stats(self) -> dict[str, Any]:
        return {}


STEPS = st.one_of(
    st.tuples(st.just("ask"), st.lists(st.sampled_from(NAMES), min_size=1, max_size=4)),
    st.tuples(st.just("know"), st.tuples(st.sampled_from(NAMES), st.integers(0, 5))),
    st.tuples(st.just("forget"), st.sampled_from(NAMES)),
    st.tuples(st.just("fail"), st.booleans()),
    st.tuples(st.just("wait"), st.sampled_from([1.0, PAUSE, REFUSED_LIFE, LIFE, STALE_LIFE])),
    st.tuples(st.just("cancel"), st.sampled_from(NAMES)),
    st.tuples(st.just("restart"), st.none()),
)


@given(st.lists(STEPS, max_size=25))
def test_whoever_is_trusted_was_named_not_long_ago(steps: list[tuple[str, Any]]) -> None:
    async def play() -> None:
        world = World()
        for step, what in steps:
            await getattr(world, step)(what)
            await settle(world.issuers)
            world.check()
        await world.issuers.stop()
        assert not any(each.runs for each in world.opened)

    asyncio.run(play())


class World:
    """A resolver, what it said and when, and the issuers that were opened for it."""

    def __init__(self) -> None:
        self.clock = ManualClock(1_000_000.0)
        self.known: dict[str, tuple[str, int]] = {}
        self.said: dict[str, list[tuple[float, tuple[str, int] | None]]] = {name: [] for name in NAMES}
        self.opened: list[Opened] = []
        self.closings = 0
        self.fails = False
        self.unanswered: set[str] = set()
        """Names about which the last question got no answer: what is known of them serves while it is asked again."""
        self.issuers = ResolvedIssuers[tuple[str, int]](
            self._resolve, lambda described: Opened(described, self.opened), lambda _: True, self._closed, self.clock
        )
        self.issuers.start()

    async def ask(self, names: list[str]) -> None:
        await asyncio.gather(*map(self._ask, names))

    async def know(self, described: tuple[str, int]) -> None:
        self.known[described[0]] = described

    async def forget(self, name: str) -> None:
        self.known.pop(name, None)

    async def fail(self, fails: bool) -> None:
        self.fails = fails

    async def wait(self, seconds: float) -> None:
        self.clock.advance(seconds)

    async def cancel(self, name: str) -> None:
        task = asyncio.create_task(self.issuers.find(name))
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    async def restart(self, _: None) -> None:
        await self.issuers.stop()
        assert not any(each.runs for each in self.opened)
        self.issuers.start()

    def check(self) -> None:
        running = [each for each in self.opened if each.runs]
        assert all(each.runs == 1 for each in running)
        assert {each.trusted for each in running} <= {self.issuers.peek(name) for name in NAMES}
        assert self.issuers.stats()["issuers"] <= len(NAMES)
        changes = [
            before is not None and before != after
            for answers in self.said.values()
            for (_, before), (_, after) in pairwise(answers)
        ]
        assert self.closings == sum(changes), "whatever was accepted is looked at anew, and only then"

    async def _ask(self, name: str) -> None:
        try:
            found: Any = await self.issuers.find(name)
        except (ProviderUnavailable, BackendUnavailable):
            assert self.fails, "an answer was to be had"
            return
        now = self.clock.monotonic()
        when, last = self.said[name][-1]
        assert found == last, "the last answer counts"
        longest = REFUSED_LIFE if found is None else LIFE + STALE_LIFE * (name in self.unanswered)
        assert now == when or now - when < longest

    async def _resolve(self, name: str) -> tuple[str, int] | None:
        await asyncio.sleep(0)
        if self.fails:
            self.unanswered.add(name)
            raise LookupError(name)
        self.unanswered.discard(name)
        self.said[name].append((self.clock.monotonic(), self.known.get(name)))
        return self.known.get(name)

    def _closed(self) -> None:
        self.closings += 1


async def settle(issuers: ResolvedIssuers[Any]) -> None:
    """Let what runs beside come to its end."""
    for _ in range(MAX_CALLS):
        await asyncio.sleep(0)
        if not (len(issuers._strangers) or len(issuers._known)):
            return
    raise AssertionError("something runs on")

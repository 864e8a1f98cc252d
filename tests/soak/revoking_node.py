"""One node of the soak of revocations: it revokes all the time, and says what it refuses and how current it is.

Started with a JSON object: url, journal, number, start, seed, rate, skew. Each receipt is told as it comes; each line
of JSON that is heard (`{"do": "check", …}`) is answered by one.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import sys
import time
from base64 import urlsafe_b64encode
from pathlib import Path
from random import Random
from typing import Any

from cryptography.hazmat.primitives.asymmetric import ec

sys.path[:0] = [str(Path(__file__).parent.parent)]

from lifecycle_kit import ask, http_scope, who  # noqa: E402  the folder is named above

from oidc_middleware import OIDC, OIDCMiddleware  # noqa: E402
from oidc_middleware.clock import SystemClock  # noqa: E402
from oidc_middleware.errors import OIDCError  # noqa: E402
from oidc_middleware.testing import FakeIssuer  # noqa: E402

SECRET = "s" * 32
MAX_STALENESS = 2.0
TASKS = 4
COMMON = 10
"""Subjects that all nodes revoke again and again."""
CLAIMS = {"token": "jti", "session": "sid", "subject": "sub"}
_PASSED = 595.0
"""Since how many seconds a token is over that is revoked nevertheless: its record is swept soon, by everybody."""


class Clock(SystemClock):
    """The clock of a machine that is ahead of the others by some seconds, or behind, and not always by as many."""

    def __init__(self, skew: float) -> None:
        self.skew = skew
        self.now = lambda: time.time() + self.skew


def _key(kind: str) -> ec.EllipticCurvePrivateKey:
    """Return the key of the issuer, the same in all processes."""
    return ec.derive_private_key(7, ec.SECP256R1())


class Errors(logging.Handler):
    """Nothing of what is done here may be an error of this package, or leave a task that nobody asks for its end."""

    def __init__(self, errors: list[str]) -> None:
        super().__init__(logging.ERROR)
        self._errors = errors

    def emit(self, record: logging.LogRecord) -> None:
        self._errors.append(f"log: {self.format(record)}")


class Node:
    """A service that revokes."""

    def __init__(self, given: dict[str, Any]) -> None:
        self.clock = Clock(given["skew"])
        self.issuer = FakeIssuer(algorithms=("ES256",), clock=self.clock, make_private_key=_key)
        self.oidc = OIDC(
            issuer=self.issuer.url,
            audience=self.issuer.audience,
            cache=given["url"],
            secret=SECRET,
            journal=given["journal"],
            max_staleness=MAX_STALENESS,
            transport=self.issuer.transport(),
            clock=self.clock,
        )
        self.app = OIDCMiddleware(who, oidc=self.oidc)
        self.prefix = f"{given['number']}-{given['start']}"
        self.random = Random(f"{given['seed']}-{self.prefix}")
        self.pause = TASKS / given["rate"]
        self.made = 0
        self.busy = 0
        self.violations: list[str] = []
        self.may_go = asyncio.Event()
        self.may_go.set()

    async def work(self) -> None:
        """Revoke until cancelled."""
        while True:
            await asyncio.sleep(self.random.expovariate(1 / self.pause))
            await self.may_go.wait()
            self.busy += 1
            try:
                await self.random.choices((self._revoke, self._revoke_common, self._revoke_passed), (8, 1, 1))[0]()
            finally:
                self.busy -= 1

    async def _revoke(self) -> None:
        """Revoke what nobody revoked before; for some it is seen that a request is refused from then on."""
        self.made += 1
        kind, name = self.random.choice(list(CLAIMS)), f"{self.prefix}-{self.made}"
        token = self._token(kind, name)
        is_known = self.random.random() < 0.3 and await self._status(token) == 200
        began = time.monotonic()
        try:
            if kind == "token" and self.random.random() < 0.5:
                receipt = await self.oidc.revoke.token(token)
            elif kind == "token":
                receipt = await self.oidc.revoke.token(jti=name, expires_at=self.clock.now() + 200)
            else:
                receipt = await getattr(self.oidc.revoke, kind)(name)
        except OIDCError as error:  # the clock was moved between minting and verifying
            say({"receipt": [kind, name, error.code, began, time.monotonic()]})
            return
        say({"receipt": [kind, name, str(receipt), began, time.monotonic()]})
        if not self.refuses(kind, name):
            self._violated(f"{kind} {name}: not refused with the receipt {receipt}")
        if is_known and (status := await self._status(token)) != 401:
            self._violated(f"{kind} {name}: a request is answered with {status} after the receipt {receipt}")

    async def _revoke_common(self) -> None:
        name = f"common-{self.random.randrange(COMMON)}"
        began = time.monotonic()
        receipt = await self.oidc.revoke.subject(name)
        say({"receipt": ["common", name, str(receipt), began, time.monotonic()]})
        if not self.refuses("subject", name):
            self._violated(f"subject {name}: not refused with the receipt {receipt}")

    async def _revoke_passed(self) -> None:
        self.made += 1
        name = f"{self.prefix}-{self.made}"
        began = time.monotonic()
        receipt = await self.oidc.revoke.token(jti=name, expires_at=self.clock.now() - _PASSED)
        say({"receipt": ["passed", name, str(receipt), began, time.monotonic()]})

    def refuses(self, kind: str, name: str) -> bool:
        """Tell whether the ledger refuses a token with this jti, sid or sub that was issued long ago."""
        claims = {"iss": self.issuer.url, "sub": "somebody", "jti": "another", "iat": 1, CLAIMS[kind]: name}
        parts = ({"alg": "ES256", "typ": "at+jwt"}, claims, "signature")
        encoded = (urlsafe_b64encode(json.dumps(part).encode()).rstrip(b"=") for part in parts)
        return self.oidc.revocations.check(b".".join(encoded)).status == "revoked"

    def _token(self, kind: str, name: str) -> str:
        return self.issuer.token(claims={"jti": "a" + name, CLAIMS[kind]: name})

    async def _status(self, token: str) -> int:
        return (await ask(self.app, http_scope(token=token))).status

    def _violated(self, text: str) -> None:
        self.violations.append(f"{text} ({time.monotonic():.3f})")

    # ------------------------------------------------------------------------------------------------------ answering

    async def answer(self, heard: dict[str, Any]) -> dict[str, Any]:
        """Do what was heard, and return what to say."""
        match heard["do"]:
            case "check":
                return self.check(heard["names"])
            case "refuse":
                return await self.refuse(heard["names"])
            case "rest":
                self.may_go.clear()
                while self.busy:  # noqa: ASYNC110  there is no event to wait for
                    await asyncio.sleep(0.01)
            case "go":
                self.may_go.set()
            case "skew":
                self.clock.skew = heard["seconds"]
            case "export":
                return {"export": sorted(self.oidc.revocations.export())}
            case "sizes":
                return sizes()
        return {}

    def check(self, names: list[tuple[str, str]]) -> dict[str, Any]:
        """Say in one step how current this node is, and which of these it does not refuse."""
        now = time.monotonic()
        journal = self.oidc._keeper._replica._journal
        facts = self.oidc.stats()["revocations"]
        found, self.violations = self.violations, []
        return {
            "now": now,
            "staleness": facts["staleness"],
            "stale": facts["stale"],
            "loaded": facts["loaded"],
            "unacknowledged": facts["unacknowledged"] + self.oidc._keeper._replica.pending,
            "healing": facts["healing"],
            "journal": journal.is_loaded and not self.oidc._keeper._replica._untold,
            "open": [place for place, (kind, name) in enumerate(names) if not self.refuses(kind, name)],
            "violations": found,
        }

    async def refuse(self, names: list[tuple[str, str]]) -> dict[str, Any]:
        """Say what requests are answered with that bring what was revoked, and one that brings what was not."""
        earlier = self.clock.now() - 280  # no cut-off is older
        tokens = [
            self.issuer.token(claims={"jti": "a" + name, CLAIMS[kind]: name, "iat": earlier}) for kind, name in names
        ]
        return {
            "statuses": [await self._status(token) for token in tokens],
            "other": await self._status(self.issuer.token()),
        }


def sizes() -> dict[str, Any]:
    """Return what must not grow."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return {
        "memory": pages * os.sysconf("SC_PAGE_SIZE"),
        "tasks": len(asyncio.all_tasks()),
        "files": len(list(Path("/proc/self/fd").iterdir())),
        "threads": len(list(Path("/proc/self/task").iterdir())),
    }


def say(what: dict[str, Any]) -> None:
    """Say a line."""
    print(json.dumps(what), flush=True)


async def main(given: dict[str, Any]) -> None:
    """Hear lines and answer them until there are no more."""
    node = Node(given)
    logging.getLogger().addHandler(Errors(node.violations))
    logging.getLogger().setLevel(logging.ERROR)
    await node.oidc.start()
    tasks = [asyncio.create_task(node.work()) for _ in range(TASKS)]
    words = asyncio.StreamReader(limit=1 << 26)
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(words), sys.stdin)
    while line := await words.readline():
        say({"answer": await node.answer(json.loads(line))})
        for task in tasks:
            if task.done():
                task.result()
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)
    await node.oidc.stop()


if __name__ == "__main__":
    asyncio.run(main(json.loads(sys.argv[1])))

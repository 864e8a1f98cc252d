"""`oidc-middleware revoke`: what it revokes on every node, what it says of that, and when it refuses."""

from __future__ import annotations

import asyncio
import io
import json
import os
import re
import signal
import sys
from collections.abc import AsyncIterator, Callable
from functools import partial
from pathlib import Path
from typing import NamedTuple

import pytest
from lifecycle_kit import ask, http_scope, who

from oidc_middleware import OIDC, OIDCMiddleware
from oidc_middleware.cache.redis import ledger as redis_ledger
from oidc_middleware.cli import main
from oidc_middleware.cli.parser import build_parser
from oidc_middleware.testing import FakeIssuer, faults

from redis_kit import PATIENCE, RedisServer, until

pytestmark = pytest.mark.anyio


class Said(NamedTuple):
    """What a command said, and how it ended."""

    code: int
    out: str
    err: str


Say = Callable[..., Said]


@pytest.fixture
def environment(
    served_issuer: FakeIssuer, redis_server: RedisServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Make the environment that of a service over Redis."""
    variables = {
        "ISSUER": served_issuer.url,
        "AUDIENCE": served_issuer.audience,
        "CACHE": redis_server.url,
        "SECRET": "s" * 32,
        "JOURNAL": str(tmp_path / "host.journal"),
    }
    for name, value in variables.items():
        monkeypatch.setenv(f"OIDC_{name}", value)
    monkeypatch.setattr(redis_ledger, "RedisLedger", partial(redis_ledger.RedisLedger, budget=PATIENCE))


@pytest.fixture
def say(environment: None, capsys: pytest.CaptureFixture[str]) -> Say:
    """Run the command in this process."""

    def run(*words: str, command: str = "revoke") -> Said:
        capsys.readouterr()
        code = main([command, *words])
        return Said(code, *capsys.readouterr())

    return run


@pytest.fixture
async def nodes(environment: None, tmp_path: Path) -> AsyncIterator[tuple[OIDC, OIDC]]:
    """Run two nodes of the service, each on a host of its own."""
    async with OIDC(journal=tmp_path / "1.journal") as first, OIDC(journal=tmp_path / "2.journal") as second:
        for oidc in (first, second):
            await until(partial(is_fresh, oidc))
        yield first, second


def is_fresh(oidc: OIDC) -> bool:
    facts = oidc.stats()["revocations"]
    return bool(facts["loaded"] and not facts["stale"])


async def status(oidc: OIDC, token: str) -> int:
    return (await ask(OIDCMiddleware(who, oidc=oidc), http_scope(token=token))).status


async def refused(nodes: tuple[OIDC, OIDC], token: str) -> None:
    """Wait until all refuse a token."""
    for oidc in nodes:
        await until(lambda oidc=oidc: oidc.revocations.check(token).status == "revoked")
        assert await status(oidc, token) == 401


async def later(say: Say, *words: str) -> Said:
    """Run the command while the nodes run."""
    return await asyncio.to_thread(say, *words)


# --------------------------------------------------------------------------------------------------------- on all nodes


@pytest.mark.parametrize("target", ["--jti", "--sid", "--sub", "--client", "--token-file"])
async def test_what_it_revokes_every_node_refuses(
    target: str, say: Say, nodes: tuple[OIDC, OIDC], served_issuer: FakeIssuer, tmp_path: Path
) -> None:
    token = served_issuer.token("alice", client_id="web", claims={"sid": "s-1", "jti": "t-1"})
    other = served_issuer.token("bob", client_id="batch", claims={"sid": "s-2", "jti": "t-2"})
    for oidc in nodes:
        assert await status(oidc, token) == await status(oidc, other) == 200
    file = tmp_path / "token"
    file.write_text(f"Bearer {token}\n")
    names = {"--jti": "t-1", "--sid": "s-1", "--sub": "alice", "--client": "web", "--token-file": str(file)}
    said = await later(say, target, names[target])
    assert said.out == "shared: it is in the shared cache, and every node that follows it enforces it\n"
    assert (said.code, said.err) == (0, "")
    await refused(nodes, token)
    for oidc in nodes:
        assert await status(oidc, other) == 200


async def test_in_a_process_of_its_own(nodes: tuple[OIDC, OIDC], served_issuer: FakeIssuer) -> None:
    token = served_issuer.token("alice")
    command = [sys.executable, "-W", "error", "-m", "oidc_middleware.cli", "revoke"]
    receipt = ""
    while receipt != "shared":  # the cache has 0.25 s to answer here, which may be too little on a busy machine
        words = ["--token-file", "-", "--json", "--require", "journaled"]
        process = await asyncio.create_subprocess_exec(*command, *words, stdin=-1, stdout=-1, stderr=-1)
        out, err = await process.communicate(token.encode())
        assert (process.returncode, err) == (0, b"")
        receipt = json.loads(out)["receipt"]
    await refused(nodes, token)


async def test_workers_over_a_file(
    say: Say, monkeypatch: pytest.MonkeyPatch, served_issuer: FakeIssuer, tmp_path: Path
) -> None:
    monkeypatch.setenv("OIDC_CACHE", f"sqlite:///{tmp_path}/cache.sqlite")
    token = served_issuer.token("alice")
    async with OIDC() as first, OIDC() as second:
        for oidc in (first, second):
            await until(partial(is_fresh, oidc))
            assert await status(oidc, token) == 200
        said = await later(say, "--sub", "alice")
        assert (said.code, said.out.partition(":")[0]) == (0, "shared")
        await refused((first, second), token)


@pytest.mark.parametrize(
    ("target", "words", "number"),
    [
        ("--jti", ["--expires-at", "1800000000"], 1_800_000_000),
        ("--jti", ["--expires-at", "2027-01-15T08:00:00Z"], 1_800_000_000),
        ("--jti", ["--expires-at", "2027-01-15t09:00:00.5+01:00"], 1_800_000_001),
        ("--sub", ["--issued-before", "1700000000"], 1_700_000_000),
        ("--sid", ["--issued-before", "2023-11-14 22:13:20Z"], 1_700_000_000),
        ("--client", ["--issued-before", "0"], 0),
    ],
    ids=str,
)
async def test_times(target: str, words: list[str], number: int, environment: None) -> None:
    arguments = build_parser().parse_args(["revoke", target, "x", *words])
    assert (arguments.expires_at or arguments.issued_before or 0) == pytest.approx(number, abs=0.5)


async def test_an_earlier_time_spares_what_was_issued_later(
    say: Say, nodes: tuple[OIDC, OIDC], served_issuer: FakeIssuer
) -> None:
    now = int(served_issuer.clock.now())
    old, new = (served_issuer.token("alice", claims={"iat": now - age}) for age in (900, 0))
    assert (await later(say, "--sub", "alice", "--issued-before", str(now - 600))).code == 0
    await refused(nodes, old)
    for oidc in nodes:
        assert await status(oidc, new) == 200


async def test_with_several_issuers_one_is_named(
    say: Say, served_issuer: FakeIssuer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    both = [
        {"issuer": name, "audience": served_issuer.audience} for name in (served_issuer.url, "https://other.example")
    ]
    monkeypatch.delenv("OIDC_ISSUER")
    monkeypatch.delenv("OIDC_AUDIENCE")
    monkeypatch.setenv("OIDC_ISSUERS", json.dumps(both))
    token = served_issuer.token("alice")
    async with OIDC(journal=tmp_path / "1.journal") as oidc:
        await until(partial(is_fresh, oidc))
        said = await later(say, "--sub", "alice")
        assert (said.code, said.out) == (2, "")
        assert said.err == (
            "oidc-middleware: --token-issuer: is missing, and there are several issuers. "
            f"Choose from {served_issuer.url}, https://other.example.\n"
        )
        assert (await later(say, "--sub", "alice", "--token-issuer", "https://evil.example")).code == 2
        assert (await later(say, "--sub", "alice", "--token-issuer", "https://other.example")).code == 0
        await until(lambda: oidc.stats()["revocations"]["entries"] == 1)
        assert await status(oidc, token) == 200, "another one's alice"
        assert (await later(say, "--sub", "alice", "--token-issuer", served_issuer.url)).code == 0
        await refused((oidc, oidc), token)


async def test_of_many_tenants_one_is_named(
    say: Say, served_issuer: FakeIssuer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    template = f"{served_issuer.url}/{{tenant}}"
    monkeypatch.setenv("OIDC_ISSUER", template)
    monkeypatch.setenv("OIDC_TENANTS", "*")
    async with OIDC(journal=tmp_path / "1.journal") as oidc:
        await until(partial(is_fresh, oidc))
        for issuer in ([], ["--token-issuer", template], ["--token-issuer", f"{served_issuer.url}/a/b"]):
            said = await later(say, "--sub", "alice", *issuer)
            assert (said.code, said.out) == (2, "")
            assert said.err.endswith(f"Choose from {template} with the tenant filled in.\n")
        assert (await later(say, "--sub", "alice", "--token-issuer", f"{served_issuer.url}/one")).code == 0
        await until(lambda: oidc.stats()["revocations"]["entries"] == 1)


# ---------------------------------------------------------------------------------------------- while the cache is away


async def test_while_the_cache_is_away_it_is_kept_and_brought_there_by_the_next(
    say: Say,
    nodes: tuple[OIDC, OIDC],
    served_issuer: FakeIssuer,
    redis_server: RedisServer,
    tmp_path: Path,
) -> None:
    first, second, third = (served_issuer.token(name) for name in ("alice", "bob", "carol"))
    redis_server.kill()
    said = await later(say, "--sub", "alice")
    assert said.code == 1
    assert said.out == (
        f"journaled: the shared cache did not take it; it is in {tmp_path}/host.journal, and whatever uses that "
        "journal, the service or this command, brings it to the cache when that answers. Nodes elsewhere do not know\n"
    )
    assert said.err == ""
    said = await later(say, "--sub", "bob", "--require", "journaled", "--json")
    assert (said.code, json.loads(said.out)) == (0, {"receipt": "journaled"})
    for oidc in nodes:
        assert await status(oidc, first) == 200, "they are elsewhere"
    redis_server.start()
    assert (await later(say, "--sub", "carol")).code == 0
    for token in (first, second, third):
        await refused(nodes, token)


async def test_a_running_service_of_this_host_enforces_what_is_in_the_journal(
    say: Say, served_issuer: FakeIssuer, redis_server: RedisServer
) -> None:
    token = served_issuer.token("alice")
    async with OIDC() as oidc:
        await until(partial(is_fresh, oidc))
        assert await status(oidc, token) == 200
        redis_server.kill()
        assert (await later(say, "--sub", "alice", "--require", "journaled")).code == 0
        await refused((oidc, oidc), token)


async def test_what_nothing_keeps_is_not_revoked(
    say: Say, redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    redis_server.kill()
    (tmp_path / "file").touch()
    for journal, why in (("none", "took it, so"), (str(tmp_path / "file" / "x.journal"), "took it (")):
        monkeypatch.setenv("OIDC_JOURNAL", journal)
        said = await later(say, "--sub", "alice", "--require", "journaled")
        assert said.code == 1
        assert said.out.startswith(f"local: neither the shared cache nor a journal {why}")
        assert said.out.endswith("nothing is revoked: try again\n")
        assert said.err == ""


async def test_ctrl_c_while_the_cache_keeps_it_waiting(environment: None, redis_server: RedisServer) -> None:
    """It says nothing, for nobody knows."""
    redis_server.stop()
    code = (
        "import signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler);"
        "from oidc_middleware.cache.redis import ledger; from functools import partial;"
        f"ledger.RedisLedger = partial(ledger.RedisLedger, budget={PATIENCE});"
        "from oidc_middleware.cli import main; sys.exit(main())"
    )
    words = [sys.executable, "-c", code, "revoke", "--sub", "alice"]
    process = await asyncio.create_subprocess_exec(*words, stdout=-1, stderr=-1)
    journal = Path(os.environ["OIDC_JOURNAL"])
    await until(journal.exists)
    process.send_signal(signal.SIGINT)
    assert await process.communicate() == (b"", b"")
    assert process.returncode == 130


async def test_a_cache_that_takes_no_writes(say: Say, redis_server: RedisServer) -> None:
    """Y-oom: it is not acknowledged."""
    redis_server.admin.config_set("maxmemory", "1")
    assert (await later(say, "--sub", "alice")).out.partition(":")[0] == "journaled"


# ------------------------------------------------------------------------------------------------------ what is refused


async def test_a_token_that_is_not_valid_revokes_nothing(
    say: Say, served_issuer: FakeIssuer, redis_server: RedisServer, tmp_path: Path
) -> None:
    file = tmp_path / "token"
    now = int(served_issuer.clock.now())
    expired = served_issuer.token("alice", claims={"exp": now - 600, "iat": now - 900})
    cases = [
        (expired, "claim", "refused: claim: exp expired"),
        (served_issuer.token("alice", audience="other"), "claim", "refused: claim: aud mismatch"),
        (FakeIssuer(served_issuer.url).token("alice"), "bad_signature", "refused: bad_signature"),
        ("nonsense", "malformed", "refused: malformed: "),
    ]
    for token, error, line in cases:
        file.write_text(token)
        said = await later(say, "--token-file", str(file))
        assert (said.code, said.err) == (1, ""), token
        assert said.out.startswith(line)
        assert said.out.endswith("; nothing is revoked\n")
        assert token not in said.out
        facts = json.loads((await later(say, "--token-file", str(file), "--json")).out)
        assert (facts["receipt"], facts["error"]) == (None, error)
    assert redis_server.admin.zcount("oidc:{log}:ledger", 0, "+inf") == 0


async def test_without_the_issuer_nobody_knows(
    say: Say, served_issuer: FakeIssuer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(served_issuer.token().encode())))
    served_issuer.fault("*", faults.down())
    try:
        said = await later(say, "--token-file", "-")
    finally:
        served_issuer.heal()
    assert (said.code, said.err) == (3, "")
    assert said.out.startswith("nobody knows: provider_unavailable")
    assert said.out.endswith("; nothing is revoked\n")


async def test_names_need_no_issuer(say: Say, served_issuer: FakeIssuer) -> None:
    served_issuer.fault("*", faults.down())
    try:
        assert (await later(say, "--sub", "alice")).code == 0
    finally:
        served_issuer.heal()


async def test_memory_is_nothing_to_revoke_in(say: Say, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OIDC_CACHE")
    said = await later(say, "--sub", "alice")
    assert (said.code, said.out) == (2, "")
    assert said.err == (
        "oidc-middleware: cache: is memory://, which belongs to one process: what this command revokes would end with "
        "it. Set OIDC_CACHE and OIDC_SECRET to what the service has.\n"
    )


@pytest.mark.parametrize(
    "words",
    [
        [],
        ["--sub", "a", "--jti", "b"],
        ["--sub", "a", "--require", "local"],
        ["--jti", "a", "--expires-at", "tomorrow"],
        ["--jti", "a", "--expires-at", "nan"],
        ["--jti", "a", "--expires-at", "-1"],
        ["--jti", "a", "--expires-at", "2027-01-15T08:00:00"],
        ["--jti", "a", "--expires-at", "2027-01-15"],
        ["--jti", "a", "--expires-at", "2027-02-30T08:00:00Z"],
        ["--jti", "a", "--expires-at", "1e10"],
        ["--sub", "a", "--expires-at", "1800000000"],
        ["--jti", "a", "--issued-before", "1700000000"],
        ["--token-file", "-", "--issued-before", "1700000000"],
        ["--token-file", "-", "--token-issuer", "https://login.example.com"],
        ["--sub", "a", "--issued-before", "99999999999"],
        ["--sub", "a", "--token-issuer", "https://evil.example"],
        ["--sub", ""],
        ["--jti", ""],
        ["--token-file", "no such"],
        ["--sub", "a", "--leeway", "x"],
    ],
    ids=" ".join,
)
def test_usage_errors(words: list[str], say: Say, redis_server: RedisServer) -> None:
    said = say(*words)
    assert (said.code, said.out) == (2, "")
    assert "oidc-middleware" in said.err
    assert redis_server.admin.zcount("oidc:{log}:ledger", 0, "+inf") == 0


# -------------------------------------------------------------------------------------------------- and explain sees it


async def test_explain_says_that_a_token_is_revoked(
    say: Say,
    served_issuer: FakeIssuer,
    redis_server: RedisServer,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As the door would: whether it is in the cache, or in the journal alone."""
    tokens = [served_issuer.token(name) for name in ("alice", "bob", "carol")]

    async def explained(token: str) -> tuple[int, str]:
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(token.encode())))
        said = await asyncio.to_thread(say, "-", command="explain")
        return said.code, said.out

    code, out = await explained(tokens[0])
    assert code == 0
    assert "\nok      revocation          none among 0\n" in out
    await later(say, "--sub", "alice")
    code, out = await explained(tokens[0])
    assert code == 1
    assert "\nFAILED  revocation          among 1\n" in out
    assert re.search(
        r"\nrefused: revoked: everything of this subject .* \(the client sees 401, error invalid_token\)", out
    )
    assert "please report" not in out
    assert (await explained(tokens[1]))[0] == 0
    redis_server.kill()
    await later(say, "--sub", "bob")
    code, out = await explained(tokens[1])
    assert (code, "please report" in out) == (1, False)
    for on_stale, then in (("allow", "accepts it all the same"), ("deny", "refuses it with 503")):
        monkeypatch.setenv("OIDC_ON_STALE", on_stale)
        code, out = await explained(tokens[2])
        assert (code, "please report" in out) == (0, False)
        assert "\nnote: what is revoked cannot be read (" in out
        assert out.endswith(f"so it may be; a node that cannot read it either {then}\n")

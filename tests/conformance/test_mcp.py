"""The official MCP SDK's client, our example server, and a provider that neither of them knows."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest

from .service import listen, serving
from .stranger import Stranger
from mcp_kit import CALLBACK, Storage, User, client_named, connected, example, value_of


@pytest.fixture
def server(stranger: Stranger, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Serve the example, and return its URL."""
    listener = listen()
    url = f"http://127.0.0.1:{listener.getsockname()[1]}/mcp"
    with serving(example(stranger.issuer, url, monkeypatch)["app"], listener=listener):
        yield url


@pytest.mark.anyio
@pytest.mark.parametrize("mode", ["auto", "legacy"])
async def test_a_client_that_knows_the_url_alone_gets_in_and_steps_up(
    stranger: Stranger, server: str, mode: str
) -> None:
    """401 → metadata → login and consent → 200; then 403 → more scope → 200.

    The SDK asks for `offline_access` wherever an issuer knows it.
    """

    async def log_in(url: str) -> dict[str, str]:
        return await asyncio.to_thread(stranger.browse, url, "alice", CALLBACK)

    before = stranger.requests()
    storage, user = Storage(client=client_named("desk")), User(log_in)
    async with connected(server, storage, user, mode) as client:
        assert value_of(await client.call_tool("list_notes", {})) == []
        assert [asked["scope"] for asked in user.asked] == ["notes:read offline_access"]
        assert value_of(await client.call_tool("add_note", {"text": "buy milk"})) == 1
        assert value_of(await client.call_tool("list_notes", {})) == ["buy milk"]
    assert user.asked[1]["scope"] == "notes:read offline_access notes:write"
    assert {asked["resource"] for asked in user.asked} == {server}
    requests = stranger.requests() - before
    assert requests["/token"] == 2

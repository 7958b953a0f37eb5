"""The limit on requests, at the doors."""

from collections.abc import Callable

import httpx
import pytest
from mcp.client import Client

from tests.service import Live, problem

QUESTION = "How high is the tower of the lighthouse?"


def ask(client: httpx.Client) -> httpx.Response:
    return client.post("/chat", json={"message": QUESTION})


def search(client: httpx.Client) -> httpx.Response:
    return client.post("/search", json={"question": QUESTION})


def upload(client: httpx.Client) -> httpx.Response:
    kind = {"content-type": "application/octet-stream"}
    return client.post("/uploads", params={"name": "mill.md"}, content=b"# A mill\n\nIt grinds barley.\n", headers=kind)


@pytest.mark.parametrize("first", [ask, search, upload])
async def test_whatever_makes_work_counts_and_is_refused(
    start: Callable[..., Live], first: Callable[[httpx.Client], httpx.Response]
) -> None:
    service = start(CITEWELL_REQUESTS_PER_MINUTE="1", CITEWELL_MCP="on")
    with httpx.Client(base_url=service.url, timeout=60) as client:
        assert first(client).status_code == 200
        for call in (ask, search, upload):
            assert problem(call(client), "rate_limited", 429)["retry_after_s"]
        for verb in ("invoke", "stream", "stream_log", "stream_events"):
            problem(client.post(f"/rag/{verb}", json={"input": {"question": QUESTION}}), "rate_limited", 429)
        assert client.get("/sources").status_code == 200
    async with Client(f"{service.url}/mcp") as mcp:
        refused = await mcp.call_tool("search", {"query": QUESTION})
    assert refused.is_error
    assert "rate_limited" in refused.content[0].text

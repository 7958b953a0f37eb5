"""The MCP door, through the official client over HTTP."""

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from mcp.client import Client
from mcp.shared.exceptions import MCPError

from citewell.identity.keys import new_key
from tests.models.scripted_server import scripted_server
from tests.service import Live, problem, running

TOWER = "How high is the tower of the lighthouse?"


@pytest.fixture(scope="module")
def url(indexed: Path) -> Iterator[str]:
    with running(indexed, CITEWELL_MCP="on") as live:
        yield f"{live.url}/mcp"


async def test_the_tools_say_what_they_take_and_give(url: str) -> None:
    async with Client(url) as client:
        tools = {tool.name: tool for tool in (await client.list_tools()).tools}
        assert set(tools) == {"ask", "search"}
        assert tools["ask"].input_schema["required"] == ["question"]
        assert tools["search"].output_schema
        assert client.instructions


async def test_ask_answers_with_checked_citations_and_remembers(url: str) -> None:
    async with Client(url) as client:
        first = (await client.call_tool("ask", {"question": TOWER})).structured_content
        assert "42 metres" in first["answer"]
        assert first["citations"][0]["status"] == "verified"
        more = await client.call_tool(
            "ask", {"question": "And when was it first lit?", "thread_id": first["thread_id"]}
        )
        assert "1871" in more.structured_content["answer"]
        assert "verified" in more.content[0].text
        assert more.content[0].text.endswith(first["thread_id"])


async def test_ask_says_who_answered_why_and_whether_the_answer_was_cut(indexed: Path) -> None:
    async with scripted_server() as told:
        told.finish_reason = "length"
        model = {"CITEWELL_CHAT_MODEL": "openai:told", "OPENAI_BASE_URL": told.base_url, "OPENAI_API_KEY": "none"}
        with running(indexed, CITEWELL_MCP="on", **model) as live:
            async with Client(f"{live.url}/mcp") as client:
                reply = await client.call_tool("ask", {"question": TOWER, "trace": True})
    metadata = reply.structured_content["metadata"]
    assert (metadata["answerer"], metadata["model"], metadata["truncated"]) == ("model", "told", True)
    assert metadata["trace"]["candidates"]
    assert metadata["usage"]["total_tokens"]
    assert "The answer was cut" in reply.content[0].text


async def test_search_finds_passages_within_a_filter(url: str) -> None:
    async with Client(url) as client:
        reply = await client.call_tool("search", {"query": "When was the fog horn added?", "limit": 2})
        assert "1903" in reply.structured_content["passages"][0]["text"]
        assert len(reply.structured_content["passages"]) == 2
        only = await client.call_tool("search", {"query": "fog horn", "filter": {"type": "txt"}})
        assert {hit["source"] for hit in only.structured_content["passages"]} == {"library/ferry.txt"}


@pytest.mark.parametrize(
    ("tool", "arguments", "named"),
    [
        ("ask", {}, "question"), ("ask", {"question": "x" * 5001}, "5,001"), ("search", {"query": "a", "limit": 99}, "limit"),
        ("search", {"query": "a", "filter": {"colour": "red"}}, "colour"),
    ],
)  # fmt: skip
async def test_faults_are_told_in_words(url: str, tool: str, arguments: dict[str, object], named: str) -> None:
    async with Client(url) as client:
        reply = await client.call_tool(tool, arguments)
        assert reply.is_error
        assert named in reply.content[0].text


async def test_documents_are_resources(url: str) -> None:
    async with Client(url) as client:
        resources = (await client.list_resources()).resources
        assert [resource.name for resource in resources] == [
            "library/ferry.txt",
            "library/handbook.html",
            "library/lighthouse.md",
        ]
        assert (await client.list_resource_templates()).resource_templates == []
        text = (await client.read_resource(resources[0].uri)).contents[0].text
        assert "every 40 minutes" in text
        with pytest.raises(MCPError, match="No document"):
            await client.read_resource("citewell://source/library/nothing.md")


async def test_a_document_longer_than_an_assistant_can_read_is_no_resource(url: str) -> None:
    page = f"<pre>High water{' ' * 4_000_000}at seven.</pre>".encode()
    place, headers = f"{url.removesuffix('/mcp')}/uploads?name=tide.html", {"content-type": "application/octet-stream"}
    httpx.post(place, content=page, headers=headers, timeout=60).raise_for_status()
    async with Client(url) as client:
        with pytest.raises(MCPError, match="too many to be read whole"):
            await client.read_resource("citewell://source/uploads/tide.html")
    httpx.delete(place).raise_for_status()


def test_no_stream_is_opened_on_which_nothing_would_come(url: str) -> None:
    """Clients go on without it; a shutdown had to cut it, which was logged as a fault."""
    for method in ("GET", "DELETE"):
        refused = httpx.request(method, url, headers={"accept": "text/event-stream"}, timeout=30)
        problem(refused, "http_405", 405)
        assert refused.headers["allow"] == "POST"


def test_a_page_that_calls_the_service_by_another_name_is_turned_away(url: str) -> None:
    problem(httpx.post(url, json={}, headers={"host": "evil.example"}), "not_authorized", 403)


def test_with_keys_it_is_called_by_any_name(indexed: Path, tmp_path: Path) -> None:
    """As behind a proxy on the same machine."""
    key, entry = new_key("alice", (), None)
    (tmp_path / "keys").write_text(entry.line())
    ping = {"jsonrpc": "2.0", "id": 1, "method": "ping"}
    headers = {"host": "docs.example", "authorization": f"Bearer {key}", "accept": "application/json"}
    with running(indexed, CITEWELL_MCP="on", CITEWELL_API_KEYS_FILE=str(tmp_path / "keys")) as live:
        assert httpx.post(f"{live.url}/mcp", json=ping, headers=headers).json()["result"] == {}


def test_the_door_is_shut_unless_it_is_asked_for(live: Live) -> None:
    assert httpx.post(f"{live.url}/mcp", json={}).status_code == 404

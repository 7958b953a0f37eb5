"""One question through every door: the same answer, the same citations."""

import asyncio
import json
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
import websockets
from langserve import RemoteRunnable
from mcp.client import Client as McpClient

from tests.service import Live, environment, running

QUESTION = "How high is the tower of the lighthouse?"
FOLLOW_UP = "And when was it first lit?"


@pytest.fixture(scope="module")
def live(indexed: Path) -> Iterator[Live]:
    with running(indexed, CITEWELL_MCP="on") as service:
        yield service


@asynccontextmanager
async def remote(live: Live, path: str = "/rag") -> AsyncIterator[RemoteRunnable]:
    runnable = RemoteRunnable(live.url + path)
    yield runnable
    await runnable.async_client.aclose()


async def by_invoke(live: Live, question: str, thread: str) -> dict[str, Any]:
    async with remote(live) as rag:
        return await rag.ainvoke({"question": question}, {"configurable": {"thread_id": thread}})


async def by_stream(live: Live, question: str, thread: str) -> dict[str, Any]:
    whole: Any = None
    async with remote(live) as rag:
        async for piece in rag.astream({"question": question}, {"configurable": {"thread_id": thread}}):
            whole = piece if whole is None else whole + piece
    return whole


async def by_batch(live: Live, question: str, thread: str) -> dict[str, Any]:
    async with remote(live) as rag:
        [answer] = await rag.abatch([{"question": question}], {"configurable": {"thread_id": thread}})
    return answer


async def by_events(live: Live, question: str, thread: str) -> dict[str, Any]:
    config = {"configurable": {"thread_id": thread}}
    async with remote(live) as rag:
        ends = [
            event
            async for event in rag.astream_events({"question": question}, config, version="v2")
            if event["event"] == "on_chain_end" and not event["parent_ids"]
        ]
    return ends[-1]["data"]["output"]


async def by_post(live: Live, question: str, thread: str) -> dict[str, Any]:
    async with httpx.AsyncClient(base_url=live.url, timeout=60) as client:
        body = {"message": question, "conversation_id": thread, "include_sources": True}
        reply = (await client.post("/chat", json=body)).raise_for_status().json()
    return {
        "answer": reply["response"], "citations": reply["sources"], "thread_id": reply["conversation_id"],
        "metadata": reply["metadata"],
    }  # fmt: skip


async def by_websocket(live: Live, question: str, thread: str) -> dict[str, Any]:
    async with websockets.connect(live.ws) as socket:
        await socket.send(json.dumps({"message": question, "conversation_id": thread}))
        tokens = []
        async for frame in socket:
            message = json.loads(frame)
            if message["done"]:
                break
            tokens.append(message["token"])
    return _of_frame("".join(tokens), message)


def _of_frame(answer: str, last: dict[str, Any]) -> dict[str, Any]:
    return {
        "answer": answer, "citations": last["sources"], "thread_id": last["conversation_id"], "metadata": last["metadata"],
    }  # fmt: skip


async def by_sse(live: Live, question: str, thread: str) -> dict[str, Any]:
    headers = {"accept": "text/event-stream"}
    async with httpx.AsyncClient(base_url=live.url, timeout=60) as client:
        reply = await client.post("/chat", json={"message": question, "conversation_id": thread}, headers=headers)
    frames = [json.loads(line.removeprefix("data: ")) for line in reply.text.splitlines() if line.startswith("data: ")]
    answer = "".join(frame["token"] for frame in frames)
    return _of_frame(answer, frames[-1])


async def by_openai(live: Live, question: str, thread: str) -> dict[str, Any]:
    body = {"model": "citewell", "messages": [{"role": "user", "content": question}], "thread_id": thread}
    async with httpx.AsyncClient(base_url=live.url, timeout=60) as client:
        reply = (await client.post("/v1/chat/completions", json=body)).raise_for_status().json()
    return {"answer": reply["choices"][0]["message"]["content"], **reply["citewell"]}


async def by_mcp(live: Live, question: str, thread: str) -> dict[str, Any]:
    async with McpClient(f"{live.url}/mcp") as client:
        return (await client.call_tool("ask", {"question": question, "thread_id": thread})).structured_content or {}


async def by_command_line(live: Live, question: str, thread: str) -> dict[str, Any]:
    command = [
        str(Path(sys.executable).with_name("citewell")),
        "ask",
        question,
        "--thread",
        thread,
        "--json",
        "--url",
        live.url,
    ]
    done = await asyncio.to_thread(
        subprocess.run, command, env=environment(live.data_dir), cwd=live.data_dir.parent, capture_output=True, text=True, timeout=200,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


DOORS = [
    by_invoke, by_stream, by_batch, by_events, by_post, by_sse, by_websocket, by_openai, by_mcp, by_command_line,
]  # fmt: skip


def told(answer: dict[str, Any]) -> dict[str, Any]:
    """The metadata without what some doors give beside it, and without times."""
    return {name: value for name, value in answer["metadata"].items() if name not in ("usage", "stages_ms")}


@pytest.mark.parametrize("door", DOORS, ids=lambda door: door.__name__.removeprefix("by_"))
async def test_every_door_gives_the_same_cited_answer_and_remembers(live: Live, door: Any) -> None:
    thread = f"contract {door.__name__}"
    first = await door(live, QUESTION, thread)
    second = await door(live, FOLLOW_UP, thread)
    assert "42 metres" in first["answer"]
    assert "14 March 1871" in second["answer"], "the follow-up was not understood from the first turn"
    assert (first["thread_id"], second["thread_id"]) == (thread, thread)
    reference = await by_invoke(live, QUESTION, f"reference {door.__name__}")
    assert first["answer"] == reference["answer"]
    assert first["citations"] == reference["citations"]
    assert told(first) == told(reference)
    assert all(citation["status"] == "verified" for citation in first["citations"] + second["citations"])


async def test_the_chat_door_gives_the_same_text_and_remembers_what_it_is_sent(live: Live) -> None:
    async with remote(live, "/chat") as chat:
        first = await chat.ainvoke({"messages": [{"type": "human", "content": QUESTION}]})
    assert first == (await by_invoke(live, QUESTION, "reference chat"))["answer"]
    messages = [
        {"type": "human", "content": QUESTION},
        {"type": "ai", "content": first},
        {"type": "human", "content": FOLLOW_UP},
    ]
    async with remote(live, "/chat") as chat:
        assert "14 March 1871" in await chat.ainvoke({"messages": messages})

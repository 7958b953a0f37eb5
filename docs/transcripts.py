"""Write docs/transcripts.md: one conversation of two turns through every door, as it really went.

`python -m docs.transcripts http://127.0.0.1:8000` against a running service (`CITEWELL_MCP=on make run`).
"""

import asyncio
import json
import sys
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import websockets
from langserve import RemoteRunnable
from mcp.client import Client as McpClient

ASKED = ("At what wind speed are the domes closed?", "And how long do they stay closed?")
USUAL = "http://127.0.0.1:8000"
LONG = 200
"""Characters of JSON that still stand on one line."""
PAGE = Path(__file__).with_name("transcripts.md")


async def invoke(url: str, thread: str) -> list[tuple[Any, Any]]:
    rag = RemoteRunnable(f"{url}/rag")
    config: Any = {"configurable": {"thread_id": thread}}
    turns = [({"question": question}, await rag.ainvoke({"question": question}, config)) for question in ASKED]
    await rag.async_client.aclose()
    return [(given, {"answer": answer["answer"], "citations": answer["citations"]}) for given, answer in turns]


async def stream(url: str, thread: str) -> list[tuple[Any, Any]]:
    rag = RemoteRunnable(f"{url}/rag")
    config: Any = {"configurable": {"thread_id": thread}}
    turns = []
    for question in ASKED:
        pieces = [piece async for piece in rag.astream({"question": question}, config)]
        turns.append(({"question": question}, [*(dict(piece) for piece in pieces[:3]), "…", sorted(pieces[-1])]))
    await rag.async_client.aclose()
    return turns


async def chat(url: str, _: str) -> list[tuple[Any, Any]]:
    runnable = RemoteRunnable(f"{url}/chat")
    messages: list[dict[str, str]] = []
    turns = []
    for question in ASKED:
        messages = [*messages, {"type": "human", "content": question}]
        text = await runnable.ainvoke({"messages": messages})
        turns.append(({"messages": messages}, text))
        messages = [*messages, {"type": "ai", "content": text}]
    await runnable.async_client.aclose()
    return turns


async def post(url: str, thread: str) -> list[tuple[Any, Any]]:
    turns = []
    async with httpx.AsyncClient(base_url=url, timeout=60) as client:
        for question in ASKED:
            body = {"message": question, "conversation_id": thread}
            reply = (await client.post("/chat", json=body)).raise_for_status().json()
            turns.append((body, {key: reply[key] for key in ("response", "conversation_id")}))
        page = (await client.get(f"/conversation/{thread}")).json()
        turns.append((f"GET /conversation/{thread}", page["statistics"]))
    return turns


async def events(url: str, thread: str) -> list[tuple[Any, Any]]:
    turns = []
    async with httpx.AsyncClient(base_url=url, headers={"accept": "text/event-stream"}, timeout=60) as client:
        for question in ASKED:
            body = {"message": question, "conversation_id": thread}
            lines = (await client.post("/chat", json=body)).raise_for_status().text.splitlines()
            frames = [json.loads(line.removeprefix("data: ")) for line in lines if line.startswith("data: ")]
            last = {key: frames[-1][key] for key in ("token", "done", "conversation_id")}
            turns.append((body, [*frames[:3], "…", last]))
    return turns


async def openai(url: str, thread: str) -> list[tuple[Any, Any]]:
    turns = []
    async with httpx.AsyncClient(base_url=url, timeout=60) as client:
        for question in ASKED:
            body = {"model": "citewell", "messages": [{"role": "user", "content": question}], "thread_id": thread}
            reply = (await client.post("/v1/chat/completions", json=body)).raise_for_status().json()
            turns.append((body, {"choices": reply["choices"], "citations": reply["citations"]}))
    return turns


async def mcp(url: str, thread: str) -> list[tuple[Any, Any]]:
    turns = []
    async with McpClient(f"{url}/mcp") as client:
        for question in ASKED:
            given = {"question": question, "thread_id": thread}
            answered = (await client.call_tool("ask", given)).structured_content or {}
            turns.append(({"tool": "ask"} | given, {"answer": answered["answer"]}))
    return turns


async def websocket(url: str, _: str) -> list[tuple[Any, Any]]:
    turns = []
    async with websockets.connect(url.replace("http", "ws") + "/ws/chat") as socket:
        for question in ASKED:
            await socket.send(json.dumps({"message": question}))
            frames = [json.loads(await socket.recv())]
            while not frames[-1]["done"]:
                frames.append(json.loads(await socket.recv()))
            last = {key: frames[-1][key] for key in ("token", "done", "conversation_id")}
            turns.append(({"message": question}, [*frames[:3], "…", last]))
    return turns


async def write(url: str) -> None:
    lines = [
        "# One conversation, every door",
        "",
        "The same two questions, the second a follow-up, asked of the samples of `make run`. Written by `python -m docs.transcripts`; long "
        "parts are left out at `…`, and most metadata. [Clients](clients.md) says how to call each door.",
        "",
    ]
    for title, door in (
        ("`RemoteRunnable(…/rag).invoke`", invoke), ("`RemoteRunnable(…/rag).stream`", stream),
        ("`RemoteRunnable(…/chat).invoke`", chat), ("`POST /chat`", post),
        ("`POST /chat`, as events", events), ("`WS /ws/chat`", websocket), ("`POST /v1/chat/completions`", openai), ("`/mcp`", mcp),
    ):  # fmt: skip
        lines += [f"## {title}", ""]
        for given, got in await door(url, str(uuid4())):
            sent = given if isinstance(given, str) else json.dumps(given, ensure_ascii=False)
            shown = got if isinstance(got, list) else [got]
            lines += [
                "```text",
                f"→ {sent}",
                *(f"← {_written(each)}" for each in shown),
                "```",
                "",
            ]
    PAGE.write_text("\n".join(lines).replace(url, USUAL), encoding="utf-8")


def _written(value: Any) -> str:
    line = json.dumps(value, ensure_ascii=False)
    return line if len(line) <= LONG else json.dumps(value, ensure_ascii=False, indent=2)


if __name__ == "__main__":
    asyncio.run(write(sys.argv[1] if len(sys.argv) > 1 else USUAL))

"""A client that leaves ends its run, on every door: the call to the chat model is closed."""

import asyncio
import json
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest
import websockets

from tests.models.paced_server import Paced
from tests.service import Live, copied, running

QUESTION = "How high is the tower of the lighthouse?"
MESSAGES = {"messages": [{"type": "human", "content": QUESTION}]}
OPENAI = {"model": "citewell", "messages": [{"role": "user", "content": QUESTION}]}
EVENTS = {"accept": "text/event-stream"}


@pytest.fixture(scope="module")
def slow(paced: Paced, indexed: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    with running(copied(indexed, tmp_path_factory.mktemp("slow")), **paced.model(30)) as live:
        yield live


async def leave_post(live: Live, path: str, body: object, until: Callable[[str], bool], paced: Paced) -> None:
    headers = EVENTS if path == "/chat" and until is SPOKEN else {}
    async with httpx.AsyncClient(base_url=live.url, timeout=60, headers=headers) as client:
        if until is NEVER:
            before = (await asyncio.to_thread(paced.calls))["started"]
            asking = asyncio.create_task(client.post(path, json=body))
            await paced.until(lambda calls: calls["started"] > before)
            asking.cancel()
            with pytest.raises(asyncio.CancelledError):
                await asking
            return
        async with client.stream("POST", path, json=body) as response:
            async for line in response.aiter_lines():
                if until(line):
                    return


def SPOKEN(line: str) -> bool:
    """A piece of the answer, which the documents do not hold in this form."""
    return '" metres"' in line


def NEVER(_: str) -> bool:
    return False


async def leave_socket(url: str) -> None:
    async with websockets.connect(url.replace("http", "ws") + "/ws/chat") as socket:
        await socket.send(json.dumps({"message": QUESTION}))
        await socket.recv()


@pytest.mark.parametrize(
    ("path", "body", "until"),
    [
        ("/rag/invoke", {"input": {"question": QUESTION}}, NEVER),
        ("/rag/batch", {"inputs": [{"question": QUESTION}]}, NEVER),
        ("/rag/stream", {"input": {"question": QUESTION}}, SPOKEN),
        ("/rag/stream_log", {"input": {"question": QUESTION}}, SPOKEN),
        ("/rag/stream_events", {"input": {"question": QUESTION}}, SPOKEN),
        ("/chat/invoke", {"input": MESSAGES}, NEVER),
        ("/chat/batch", {"inputs": [MESSAGES]}, NEVER),
        ("/chat/stream", {"input": MESSAGES}, SPOKEN),
        ("/chat/stream_log", {"input": MESSAGES}, SPOKEN),
        ("/chat/stream_events", {"input": MESSAGES}, SPOKEN),
        ("/chat", {"message": QUESTION}, NEVER),
        ("/chat", {"message": QUESTION}, SPOKEN),
        ("/v1/chat/completions", OPENAI, NEVER),
        ("/v1/chat/completions", OPENAI | {"thread_id": "left"}, NEVER),
        ("/v1/chat/completions", OPENAI | {"stream": True}, SPOKEN),
        ("/ws/chat", None, NEVER),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
async def test_leaving_closes_the_call_to_the_model(
    slow: Live, paced: Paced, path: str, body: object, until: Callable[[str], bool]
) -> None:
    await paced.until(lambda calls: calls["started"] == calls["finished"] + calls["left"])
    before = await asyncio.to_thread(paced.calls)
    await (leave_socket(slow.url) if body is None else leave_post(slow, path, body, until, paced))
    await paced.until(lambda calls: calls["started"] == calls["finished"] + calls["left"])
    after = await asyncio.to_thread(paced.calls)
    assert after["started"] == before["started"] + 1
    assert after["left"] == before["left"] + 1, "the model went on writing for nobody"


async def test_the_question_of_a_cut_turn_is_kept_and_the_next_turn_works(slow: Live, paced: Paced) -> None:
    body = {"message": QUESTION, "conversation_id": "cut"}
    await leave_post(slow, "/chat", body, NEVER, paced)
    async with httpx.AsyncClient(base_url=slow.url, timeout=60) as client:
        async with asyncio.timeout(60):  # the cut run gives the thread back when it has ended
            while (page := await client.get("/conversation/cut")).status_code != 200:
                await asyncio.sleep(0.05)
        assert [message["content"] for message in page.json()["history"]] == [QUESTION]
        reply = await client.post("/chat", json=body | {"chat_model": "extractive"})
        assert "42 metres" in reply.raise_for_status().json()["response"]

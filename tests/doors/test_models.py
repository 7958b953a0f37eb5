"""A written answer through the doors: a real OpenAI-compatible server, and one that fails."""

import json
from collections.abc import Callable
from typing import Any

import httpx
import pytest
from langserve import RemoteRunnable

from tests.models.faulty_server import faulty_server
from tests.models.openai_server import OpenAIServer
from tests.service import Live, problem

QUESTION = "How high is the tower of the lighthouse?"


@pytest.fixture
def written(openai_server: OpenAIServer, start: Callable[..., Live]) -> Live:
    return start(CITEWELL_CHAT_MODEL=openai_server.chat_model, OPENAI_BASE_URL=openai_server.base_url)


async def test_a_written_answer_streams_is_counted_and_named(written: Live) -> None:
    rag = RemoteRunnable(f"{written.url}/rag")
    config: Any = {"configurable": {"temperature": 0.0, "max_tokens": 24}}
    pieces = [piece async for piece in rag.astream({"question": QUESTION}, config)]
    await rag.async_client.aclose()
    last = pieces[-1]
    assert sum("answer" in piece for piece in pieces) > 3
    assert last["metadata"]["answerer"] == "model"
    assert last["metadata"]["model"] == "smollm2"
    assert last["usage"]["output_tokens"] > 0
    assert last["metadata"]["truncated"] is (last["metadata"]["finish_reason"] == "length")
    assert all(c["status"] in ("verified", "partial", "unsupported") for c in last["citations"])


def test_an_answer_cut_at_the_limit_says_so(written: Live) -> None:
    body = {"message": QUESTION, "max_tokens": 3, "temperature": 0}
    metadata = httpx.post(f"{written.url}/chat", json=body, timeout=60).raise_for_status().json()["metadata"]
    assert (metadata["truncated"], metadata["finish_reason"]) == (True, "length")


def test_the_extractive_answerer_can_be_chosen_per_call(written: Live) -> None:
    body = {"message": QUESTION, "chat_model": "extractive"}
    reply = httpx.post(f"{written.url}/chat", json=body, timeout=60).raise_for_status().json()
    assert reply["metadata"]["answerer"] == "extractive"
    assert "42 metres" in reply["response"]


async def test_a_model_that_cannot_be_reached_is_a_503_and_the_question_is_kept(start: Callable[..., Live]) -> None:
    live = start(CITEWELL_CHAT_MODEL="openai:m", OPENAI_BASE_URL="http://127.0.0.1:9/v1", CITEWELL_MODEL_RETRIES="0")
    async with httpx.AsyncClient(base_url=live.url, timeout=60) as client:
        for path, body in (
            ("/chat", {"message": QUESTION, "conversation_id": "t"}),
            ("/rag/invoke", {"input": {"question": QUESTION}}),
            ("/rag/stream", {"input": {"question": QUESTION}}),
            ("/rag/batch", {"inputs": [{"question": QUESTION}]}),
        ):
            body_ = problem(await client.post(path, json=body), "model_unavailable", 503)
            assert "127.0.0.1:9" not in json.dumps(body_)
        history = (await client.get("/conversation/t")).json()["history"]
        assert [message["content"] for message in history] == [QUESTION]


async def test_a_model_that_falls_silent_ends_the_stream_with_an_error_event(start: Callable[..., Live]) -> None:
    async with faulty_server(pause_s=60.0) as upstream:
        live = start(CITEWELL_CHAT_MODEL="openai:m", OPENAI_BASE_URL=upstream.base_url, CITEWELL_MODEL_TIMEOUT_S="1")
        async with httpx.AsyncClient(base_url=live.url, timeout=60) as client:
            reply = await client.post("/rag/stream", json={"input": {"question": QUESTION}})
    events = [line.removeprefix("event: ") for line in reply.text.splitlines() if line.startswith("event: ")]
    assert reply.status_code == 200
    assert events[-1] == "error"
    assert "end" not in events
    last = json.loads(reply.text.rstrip().splitlines()[-1].removeprefix("data: "))
    assert last["code"] == "model_timeout"
    assert last["status_code"] == last["status"]

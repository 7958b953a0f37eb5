"""`RemoteRunnable` and the raw LangServe routes."""

import json
from collections.abc import AsyncIterator
from typing import Any
from uuid import uuid4

import httpx
import pytest
from langserve import RemoteRunnable
from langserve.lzstring import LZString

from tests.service import Live, problem

TOWER = {"question": "How high is the tower of the lighthouse?"}


@pytest.fixture
async def rag(live: Live) -> AsyncIterator[RemoteRunnable]:
    rag = RemoteRunnable(f"{live.url}/rag")
    yield rag
    await rag.async_client.aclose()


def with_thread(thread: str | None = None, **more: Any) -> dict[str, Any]:
    return {"configurable": {"thread_id": thread or str(uuid4()), **more}}


def history(live: Live, thread: str) -> list[str]:
    page = httpx.get(f"{live.url}/conversation/{thread}").raise_for_status().json()
    return [message["content"] for message in page["history"] if message["role"] == "user"]


def test_synchronous_invoke_and_stream_agree(rag: RemoteRunnable) -> None:
    whole = rag.invoke(TOWER)
    pieces = list(rag.stream(TOWER))
    assert "".join(piece.get("answer", "") for piece in pieces) == whole["answer"]
    assert sum("answer" in piece for piece in pieces) > 5, "the answer came in one lump"


async def test_the_pieces_of_a_stream_add_up_to_what_invoke_returns(rag: RemoteRunnable) -> None:
    whole = await rag.ainvoke(TOWER)
    total: Any = None
    async for piece in rag.astream(TOWER):
        total = piece if total is None else total + piece
    assert set(total) == set(whole) == {"answer", "citations", "thread_id", "usage", "metadata"}
    assert (total["answer"], total["citations"], total["usage"]) == (
        whole["answer"],
        whole["citations"],
        whole["usage"],
    )


def test_missing_null_and_empty_thread_ids_make_fresh_random_threads(live: Live) -> None:
    configs: list[Any] = [{}, {"configurable": {}}, {"configurable": {"thread_id": ""}}]
    bodies = [{"input": TOWER, "config": config} for config in configs] + [{"input": TOWER}] * 2
    seen = {
        httpx.post(f"{live.url}/rag/invoke", json=body, timeout=60).json()["output"]["thread_id"] for body in bodies
    }
    assert len(seen) == len(bodies)


async def test_a_batch_on_one_thread_keeps_every_turn_in_order(live: Live, rag: RemoteRunnable) -> None:
    thread = str(uuid4())
    questions = [f"Question {i}: what does a return ticket for the ferry cost?" for i in range(6)]
    await rag.abatch([{"question": question} for question in questions], with_thread(thread))
    assert history(live, thread) == questions


async def test_a_batch_over_many_threads_answers_each_on_its_own(live: Live, rag: RemoteRunnable) -> None:
    threads = [str(uuid4()) for _ in range(4)]
    answers = await rag.abatch([TOWER] * 4, [with_thread(thread) for thread in threads])
    assert [answer["thread_id"] for answer in answers] == threads


async def test_events_show_the_nodes_of_the_graph(rag: RemoteRunnable) -> None:
    names = {event["name"] async for event in rag.astream_events(TOWER, version="v2")}
    assert {"screen", "retrieve", "rerank", "generate", "verify"} <= names


async def test_stream_log_ends_with_the_whole_answer(rag: RemoteRunnable) -> None:
    state: Any = None
    async for patch in rag.astream_log(TOWER):
        state = patch if state is None else state + patch
    assert state.state["final_output"]["answer"] == (await rag.ainvoke(TOWER))["answer"]


def test_options_are_honoured_per_call(rag: RemoteRunnable) -> None:
    only_ferry = rag.invoke({"question": "What does it cost?"}, with_thread(filter={"source": "library/ferry.txt"}))
    assert {citation["source"] for citation in only_ferry["citations"]} <= {"library/ferry.txt"}


def test_an_option_that_is_null_is_left_at_its_default(rag: RemoteRunnable) -> None:
    given = dict.fromkeys(
        ("thread_id", "chat_model", "temperature", "max_tokens", "top_k", "filter", "thread_policy", "trace")
    )
    assert rag.invoke(TOWER, {"configurable": given})["thread_id"]


def test_schemas_name_what_goes_in_and_what_comes_out(live: Live) -> None:
    schema = {name: httpx.get(f"{live.url}/rag/{name}_schema").json() for name in ("input", "output", "config")}
    assert schema["input"]["required"] == ["question"]
    assert {"answer", "citations", "thread_id", "usage"} <= set(schema["output"]["$defs"]["RagAnswer"]["properties"])
    assert "thread_id" in json.dumps(schema["config"])


@pytest.mark.parametrize(
    ("body", "named"),
    [
        ({"input": {"question": 5}}, "question"),
        ({"input": {"question": ""}}, "empty"),
        ({"input": {"question": " \n"}}, "empty"),
        ({"input": {"question": "nul \x00 inside"}}, "U+0000"),
        ({"input": {}}, "question"),
        ({"input": {"question": "fine", "colour": "red"}}, "colour"),
        ({"input": None}, "JSON object"),
        ({"input": TOWER, "config": {"configurable": {"top_k": 0}}}, "top_k"),
        ({"input": TOWER, "config": {"configurable": {"top_k": "many"}}}, "top_k"),
        ({"input": TOWER, "config": {"configurable": {"top_k": 2.0}}}, "top_k"),
        ({"input": TOWER, "config": {"configurable": {"top_k": True}}}, "top_k"),
        ({"input": TOWER, "config": {"configurable": {"temperature": 9}}}, "temperature"),
        ({"input": TOWER, "config": {"configurable": {"temperature": "0.5"}}}, "temperature"),
        ({"input": TOWER, "config": {"configurable": {"trace": "yes"}}}, "trace"),
        ({"input": TOWER, "config": {"configurable": {"thread_id": 7}}}, "thread_id"),
        ({"input": TOWER, "config": {"configurable": {"thread_id": "x" * 1025}}}, "1,024"),
        ({"input": TOWER, "config": {"configurable": {"chat_model": "openai:gpt-99"}}}, "model"),
        ({"input": TOWER, "config": {"configurable": {"colour": "red"}}}, "colour"),
        ({"input": TOWER, "config": {"configurable": {"filter": {"$nope": 1}}}}, "$nope"),
        ({"input": TOWER, "config": {"configurable": {"thread_policy": "shout"}}}, "policy"),
        ({"input": TOWER, "config": {"thread_id": "t"}}, "thread_id is read in config.configurable"),
        ({"input": TOWER, "thread_id": "t"}, "thread_id is read in config.configurable"),
        ({"input": TOWER, "kwargs": {"temperature": 0}}, "temperature is read in config.configurable"),
        ({"input": TOWER, "configurable": {"thread_id": "t"}}, "configurable"),
    ],
)
@pytest.mark.parametrize("endpoint", ["invoke", "stream", "batch"])
def test_bad_input_is_named_before_anything_runs(live: Live, endpoint: str, body: dict[str, Any], named: str) -> None:
    if endpoint == "batch":
        body = {"inputs": [TOWER, body["input"]]} | {key: value for key, value in body.items() if key != "input"}
    reply = httpx.post(f"{live.url}/rag/{endpoint}", json=body, timeout=60)
    assert reply.headers["content-type"] == "application/problem+json", reply.text
    assert 400 <= reply.status_code < 500
    assert named in reply.json()["detail"]


@pytest.mark.parametrize("endpoint", ["invoke", "stream", "batch", "stream_log", "stream_events"])
@pytest.mark.parametrize(
    "messages",
    [
        [None], [1], ["x"], [["human"]], [{}], [], None, {}, "x", [{"type": "human"}], [{"type": "human", "content": None}],
        [{"role": "user", "content": None}], [{"type": "human", "content": "Hi?", "additional_kwargs": None}],
    ],
    ids=json.dumps,
)  # fmt: skip
def test_messages_that_are_none_get_a_4xx(live: Live, endpoint: str, messages: Any) -> None:
    value = {"messages": messages}
    body = {"inputs": [value]} if endpoint == "batch" else {"input": value}
    reply = httpx.post(f"{live.url}/chat/{endpoint}", json=body, timeout=60)
    assert 400 <= reply.status_code < 500, reply.text
    assert reply.headers["content-type"] == "application/problem+json"


def test_a_message_that_names_a_role_is_that_speakers(live: Live) -> None:
    messages = [{"role": "user", "content": TOWER["question"]}, {"role": "assistant", "content": "It is 5 m high."}]
    asked = {"input": {"messages": [*messages, messages[0]]}}
    assert "42" in httpx.post(f"{live.url}/chat/invoke", json=asked, timeout=60).raise_for_status().json()["output"]
    for last in ({"role": "assistant"}, {"role": "system"}, {"type": "ai"}):
        reply = httpx.post(f"{live.url}/chat/invoke", json={"input": {"messages": [last | {"content": "It is high."}]}})
        assert "must end with a message of the user" in str(problem(reply, "invalid_request", 422)["detail"])
    for stranger in ({}, {"type": "tool", "tool_call_id": "1"}, {"role": "tool"}):
        given = [*messages, stranger | {"content": "42"}, messages[0]]
        reply = httpx.post(f"{live.url}/chat/invoke", json={"input": {"messages": given}})
        assert str(problem(reply, "invalid_request", 422)["detail"]).startswith("messages.2: A message needs a type")


@pytest.mark.parametrize("endpoint", ["invoke", "stream", "batch", "stream_log", "stream_events"])
@pytest.mark.parametrize(
    "raw",
    [
        b"", b"{", b"[]", b"null", b'"text"', b"\xff\xfe{}", b'{"input": ' + b"9" * 5000 + b"}",
        b"[" * 100_000, b'{"input": {"question": "\\ud800"}}', b'{"inputs": [{"question": "\\ud800"}]}',
    ],
    ids=["empty", "cut", "list", "null", "string", "not UTF-8", "huge number", "deep", "surrogate", "surrogate batch"],
)  # fmt: skip
def test_bodies_that_are_no_request_get_a_4xx(live: Live, endpoint: str, raw: bytes) -> None:
    reply = httpx.post(f"{live.url}/rag/{endpoint}", content=raw, headers={"content-type": "application/json"})
    assert 400 <= reply.status_code < 500, reply.text
    assert reply.headers["content-type"] == "application/problem+json"
    if raw.startswith(b'{"input": 9'):
        assert "64 bits" in reply.json()["detail"]


@pytest.mark.parametrize("endpoint", ["invoke", "stream", "batch", "stream_log", "stream_events"])
def test_a_conversation_that_is_not_unicode_is_refused(live: Live, endpoint: str) -> None:
    messages = [
        {"type": "human", "content": "hi \ud800"},
        {"type": "ai", "content": "hi"},
        {"type": "human", "content": "so?"},
    ]
    given = {"inputs": [{"messages": messages}]} if endpoint == "batch" else {"input": {"messages": messages}}
    body = json.dumps(given)  # in which the half pair is an escape
    problem(httpx.post(f"{live.url}/chat/{endpoint}", content=body, timeout=60), "invalid_request", 422)


def test_what_langserve_refuses_by_itself_has_a_code_that_is_known(live: Live) -> None:
    body = {"inputs": [TOWER], "config": [{}, {}]}
    problem(httpx.post(f"{live.url}/rag/batch", json=body), "invalid_request", 422)
    problem(httpx.post(f"{live.url}/rag/c/nothing/invoke", json={"input": TOWER}), "invalid_request", 422)


@pytest.mark.parametrize("file", ["nothing.js", "assets"])
def test_a_file_that_no_playground_has_is_a_problem(live: Live, file: str) -> None:
    problem(httpx.get(f"{live.url}/rag/playground/{file}"), "http_404", 404)


def test_a_configuration_in_an_address_has_a_limit(live: Live) -> None:
    assert httpx.post(f"{live.url}/rag/c/{'N' * 5000}/invoke", json={"input": TOWER}).status_code == 422


@pytest.mark.parametrize("endpoint", ["invoke", "stream"])
def test_a_question_of_5001_characters_is_refused_and_one_of_5000_is_not(live: Live, endpoint: str) -> None:
    def ask(length: int) -> httpx.Response:
        return httpx.post(f"{live.url}/rag/{endpoint}", json={"input": {"question": "why " * (length // 4) + "y" * (length % 4)}}, timeout=60)  # fmt: skip

    assert ask(5000).status_code == 200
    problem(ask(5001), "message_too_long", 413)


def test_a_body_over_the_bound_is_refused_unread(live: Live) -> None:
    reply = httpx.post(f"{live.url}/rag/invoke", content=b" " * 1_000_001)
    problem(reply, "body_too_large", 413)


@pytest.mark.parametrize("path", ["playground/", "config_schema", "input_schema", "output_schema"])
def test_a_shared_address_puts_nothing_of_its_own_into_a_page(live: Live, path: str) -> None:
    markup = "</script><img src=x onerror=alert(1)>"

    def got(config: object) -> httpx.Response:
        packed = LZString.compressToEncodedURIComponent(config if isinstance(config, str) else json.dumps(config))
        return httpx.get(f"{live.url}/rag/c/{packed}/{path}")

    for given in ({"thread_id": markup}, {"chat_model": markup}, {"filter": {"title": markup}}, {markup: 1}):
        reply = got({"configurable": given, "tags": [markup]})
        assert (reply.status_code, markup in reply.text, "<img src=x" in reply.text) == (200, False, False)
    for broken in ("[" * 50_000, "{" * 500, f'"{markup}"', "1e999", "nul"):
        reply = got(broken)
        assert "<img src=x" not in reply.text
        problem(reply, "invalid_request", 422)

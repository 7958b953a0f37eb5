"""The OpenAI door, through the official client and LangChain's."""

import json
from collections.abc import Callable
from typing import Any
from urllib.parse import quote
from uuid import uuid4

import httpx
import openai
import pytest
from langchain_openai import ChatOpenAI

from tests.service import Live

TOWER = "How high is the tower of the lighthouse?"
TOOLS = [{"type": "function", "function": {"name": "f"}}]


@pytest.fixture
def client(live: Live) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{live.url}/v1", api_key="none", max_retries=0)


def user(text: str) -> list[Any]:
    return [{"role": "user", "content": text}]


def test_the_models_offered_are_listed(client: openai.OpenAI) -> None:
    assert [model.id for model in client.models.list()] == ["citewell", "extractive"]
    assert client.models.retrieve("citewell").owned_by == "citewell"
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve("gpt-4")


def test_an_answer_carries_its_citations_in_the_fields_that_programs_read(client: openai.OpenAI) -> None:
    reply = client.chat.completions.create(model="citewell", messages=user(TOWER))
    choice = reply.choices[0]
    assert choice.finish_reason == "stop"
    assert "42 metres" in (choice.message.content or "")
    assert reply.usage is not None
    extra = reply.model_extra
    assert extra is not None
    passage = httpx.get(extra["citations"][0]).json()
    assert passage["quote"] == extra["sources"][0]["document"][0] == extra["citewell"]["citations"][0]["quote"]
    assert extra["sources"][0]["source"]["name"] == "The Skerrow lighthouse"
    assert extra["sources"][0]["metadata"][0]["status"] == "verified"
    assert choice.message.annotations
    where = choice.message.annotations[0].url_citation
    assert (choice.message.content or "")[where.start_index : where.end_index] == extra["citewell"]["citations"][0][
        "sentence"
    ]


def test_a_stream_adds_up_to_the_whole_answer(client: openai.OpenAI) -> None:
    whole = client.chat.completions.create(model="extractive", messages=user(TOWER))
    chunks = list(
        client.chat.completions.create(
            model="extractive", messages=user(TOWER), stream=True, stream_options={"include_usage": True}
        )
    )
    assert (
        "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
        == whole.choices[0].message.content
    )
    assert len({chunk.id for chunk in chunks}) == 1
    last, usage = chunks[-2], chunks[-1]
    assert last.choices[0].finish_reason == "stop"
    assert last.model_extra is not None
    assert last.model_extra["sources"] == (whole.model_extra or {})["sources"]
    assert usage.choices == []
    assert usage.usage == whole.usage
    assert all(chunk.usage is None for chunk in chunks[:-1])


def test_a_stream_that_breaks_off_anywhere_is_resumed_to_its_whole(start: Callable[..., Live]) -> None:
    live = start(CITEWELL_ON_DISCONNECT="continue")
    body = {
        "model": "citewell", "messages": user(TOWER), "thread_id": "broken off", "stream": True,
        "stream_options": {"include_usage": True},
    }  # fmt: skip

    def stream(**headers: str) -> list[str]:
        reply = httpx.post(f"{live.url}/v1/chat/completions", json=body, headers=headers, timeout=60)
        assert reply.headers["x-accel-buffering"] == "no", "a proxy would collect it"
        return reply.raise_for_status().text.removesuffix("\n\n").split("\n\n")

    def read(events: list[str]) -> tuple[str, Any, str]:
        chunks = [json.loads(event.partition("data: ")[2]) for event in events[:-1]]
        text = "".join(choice["delta"].get("content") or "" for chunk in chunks for choice in chunk["choices"])
        return text, [chunk["usage"] for chunk in chunks if chunk["usage"]], events[-1]

    whole = stream()
    for cut in range(1, len(whole)):
        heard = whole[:cut]
        last = [event.split("\n")[0].removeprefix("id: ") for event in heard if event.startswith("id: ")][-1]
        assert read(heard + stream(**{"last-event-id": last})) == read(whole), f"broken off after event {cut}"


def test_a_stream_without_usage_asked_for_has_none(live: Live) -> None:
    body = {"model": "citewell", "messages": user(TOWER), "stream": True}
    text = httpx.post(f"{live.url}/v1/chat/completions", json=body, timeout=60).text
    *events, done = [line.removeprefix("data: ") for line in text.splitlines() if line]
    assert done == "[DONE]"
    assert events
    assert all("usage" not in json.loads(event) for event in events)


def test_messages_are_the_history_unless_a_thread_is_named(client: openai.OpenAI, live: Live) -> None:
    history = [*user(TOWER), {"role": "assistant", "content": "Its tower is 42 metres high. [1]"}]
    reply = client.chat.completions.create(model="citewell", messages=[*history, *user("And when was it first lit?")])  # type: ignore[list-item]
    assert "1871" in (reply.choices[0].message.content or "")
    thread = (reply.model_extra or {})["citewell"]["thread_id"]
    assert httpx.get(f"{live.url}/conversation/{thread}").status_code == 404


@pytest.mark.parametrize("by", ["header", "user", "body"])
def test_a_thread_is_kept_here_when_the_caller_names_it(client: openai.OpenAI, live: Live, by: str) -> None:
    thread = f"openai {uuid4()}"
    named: dict[str, Any] = {
        "header": {"extra_headers": {"X-Thread-Id": thread}}, "user": {"user": thread},
        "body": {"extra_body": {"thread_id": thread}},
    }[by]  # fmt: skip
    client.chat.completions.create(model="citewell", messages=user(TOWER), **named)
    raw = client.chat.completions.with_raw_response.create(
        model="citewell", messages=user("And when was it first lit?"), **named
    )
    assert raw.headers["x-thread-id"] == thread
    assert "1871" in (raw.parse().choices[0].message.content or "")
    assert httpx.get(f"{live.url}/conversation/{thread}").json()["statistics"]["total"] == 4


@pytest.mark.parametrize("stream", [False, True])
def test_a_thread_may_have_a_name_in_any_letters(live: Live, stream: bool) -> None:
    name = f"Łukasz 日本 {uuid4()}"
    body = {"model": "citewell", "messages": user(TOWER), "user": name, "stream": stream}
    reply = httpx.post(f"{live.url}/v1/chat/completions", json=body, timeout=60)
    assert reply.status_code == 200
    again = {"x-thread-id": reply.headers["x-thread-id"]}
    body = {"model": "citewell", "messages": user("And when was it first lit?")}
    assert "1871" in httpx.post(f"{live.url}/v1/chat/completions", json=body, headers=again, timeout=60).text
    assert httpx.get(f"{live.url}/conversation/{quote(name)}").json()["statistics"]["total"] == 4


def test_user_is_no_thread_for_a_client_that_keeps_its_own_history(client: openai.OpenAI, live: Live) -> None:
    someone = f"someone {uuid4()}"
    messages: list[Any] = [
        *user(TOWER),
        {"role": "assistant", "content": "42 metres."},
        *user("And when was it first lit?"),
    ]
    client.chat.completions.create(model="citewell", messages=messages, user=someone)
    assert httpx.get(f"{live.url}/conversation/{someone}").status_code == 404


def test_content_may_come_in_parts_and_tuning_is_let_by(client: openai.OpenAI) -> None:
    parts: list[Any] = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": [{"type": "text", "text": TOWER}]},
    ]
    reply = client.chat.completions.create(
        model="citewell", messages=parts, seed=1, top_p=0.9, presence_penalty=0, n=1, tools=[], logprobs=False,
        max_completion_tokens=50, temperature=0, extra_body={"top_k": 2, "filter": {"source": {"$in": ["library/lighthouse.md", "library/ferry.txt"]}}, "trace": True},
    )  # fmt: skip
    metadata = (reply.model_extra or {})["citewell"]["metadata"]
    assert metadata["kept"] == 2
    assert {row["source"] for row in metadata["trace"]["candidates"]} == {"library/lighthouse.md", "library/ferry.txt"}


@pytest.mark.parametrize(
    "more",
    [
        {"tools": TOOLS}, {"tools": TOOLS, "tool_choice": "auto"}, {"tools": TOOLS, "tool_choice": "none"},
        {"functions": [{"name": "f"}], "function_call": "auto"},
    ],
)  # fmt: skip
def test_a_plain_answer_is_given_where_no_tool_need_be_used(client: openai.OpenAI, more: dict[str, Any]) -> None:
    choice = client.chat.completions.create(model="citewell", messages=user(TOWER), **more).choices[0]
    assert (choice.finish_reason, choice.message.tool_calls) == ("stop", None)
    assert "42 metres" in (choice.message.content or "")


@pytest.mark.parametrize(
    ("more", "named"),
    [
        ({"n": 2}, "n"), ({"logprobs": True}, "logprobs"), ({"stop": ["."]}, "stop"),
        ({"tools": TOOLS, "tool_choice": "required"}, "tool_choice"),
        ({"tools": TOOLS, "tool_choice": {"type": "function", "function": {"name": "f"}}}, "tool_choice"),
        ({"response_format": {"type": "json_object"}}, "response_format"),
        ({"extra_body": {"colour": "red"}}, "colour"), ({"temperature": 3}, "temperature"),
        ({"extra_body": {"top_k": 0}}, "top_k"), ({"extra_body": {"temperature": "0.5"}}, "temperature"),
    ],
)  # fmt: skip
def test_what_would_change_the_meaning_is_refused_by_name(
    client: openai.OpenAI, more: dict[str, Any], named: str
) -> None:
    with pytest.raises(openai.BadRequestError, match=named) as caught:
        client.chat.completions.create(model="citewell", messages=user(TOWER), **more)
    assert (caught.value.type, caught.value.param) == ("invalid_request_error", named)


def test_errors_have_the_shape_and_status_that_clients_know(live: Live, client: openai.OpenAI) -> None:
    with pytest.raises(openai.NotFoundError) as missing:
        client.chat.completions.create(model="gpt-4", messages=user(TOWER))
    assert missing.value.code == "model_not_found"
    assert "Offered are: citewell, extractive." in missing.value.message
    with pytest.raises(openai.NotFoundError, match="Offered are: citewell, extractive") as missing:
        client.models.retrieve("gpt-4")
    assert missing.value.code == "model_not_found"
    astray = openai.OpenAI(base_url=live.url, api_key="none", max_retries=0)
    for ask in (
        lambda: astray.models.list(),
        lambda: astray.chat.completions.create(model="citewell", messages=user(TOWER)),
    ):
        with pytest.raises(openai.NotFoundError, match=f"must be {live.url}/v1"):
            ask()
    with pytest.raises(openai.APIStatusError, match="at most 1,000,000 are accepted"):
        client.chat.completions.create(model="citewell", messages=user("x" * 1_000_000))
    for ask in (
        lambda: client.responses.create(model="citewell", input=TOWER),
        lambda: client.models.delete("citewell"),
    ):
        with pytest.raises(openai.NotFoundError, match="chat/completions") as elsewhere:
            ask()
        assert elsewhere.value.code == "not_found"
    with pytest.raises(openai.APIStatusError) as long:
        client.chat.completions.create(model="citewell", messages=user("x" * 5001), stream=True)
    assert (long.value.status_code, long.value.code) == (413, "message_too_long")
    with pytest.raises(openai.BadRequestError, match="X-Thread-Id"):
        client.chat.completions.create(model="citewell", messages=user(TOWER), extra_headers={"X-Thread-Id": "%FF"})
    with pytest.raises(openai.BadRequestError, match="end with a message of the user") as nothing_asked:
        client.chat.completions.create(model="citewell", messages=[{"role": "assistant", "content": "Hello."}])
    assert nothing_asked.value.param == "messages"
    picture: list[Any] = [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:,"}}]}]
    with pytest.raises(openai.BadRequestError, match="image_url"):
        client.chat.completions.create(model="citewell", messages=picture)


def test_what_is_not_worth_another_try_is_not_tried_again(live: Live) -> None:
    """Else a question whose conversation was deleted meanwhile would begin it anew, and one that was replaced come back."""
    tries: list[httpx.Request] = []
    with httpx.Client(event_hooks={"request": [tries.append]}) as http:
        client = openai.OpenAI(base_url=f"{live.url}/v1", api_key="none", max_retries=2, http_client=http)
        with pytest.raises(openai.ConflictError, match="Ask again"):
            client.chat.completions.create(
                model="citewell", messages=user(TOWER), stream=True, extra_headers={"Last-Event-ID": f"{0:032}.1"}
            )
    assert len(tries) == 1


def test_a_question_that_a_guard_refuses_ends_as_filtered(start: Callable[..., Live]) -> None:
    live = start(documents=None, CITEWELL_PII_POLICY="refuse")
    client = openai.OpenAI(base_url=f"{live.url}/v1", api_key="none", max_retries=0)
    reply = client.chat.completions.create(
        model="citewell", messages=user("Write to jane.doe@example.com about the tower")
    )
    assert reply.choices[0].finish_reason == "content_filter"
    assert "can't answer" in (reply.choices[0].message.content or "")


async def test_langchain_reads_it_as_any_other_model(live: Live) -> None:
    model = ChatOpenAI(model="citewell", base_url=f"{live.url}/v1", api_key="none", stream_usage=True)  # type: ignore[arg-type]
    whole = await model.ainvoke(TOWER)
    assert "42 metres" in whole.text
    pieces = [piece async for piece in model.astream(TOWER)]
    assert "".join(piece.text for piece in pieces) == whole.text
    assert any(piece.usage_metadata for piece in pieces)

"""`POST /chat`, conversations, health."""

import gzip
import re
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import pytest

from citewell.api.app import create_app
from citewell.errors import every_code
from citewell.feedback import Row
from citewell.settings import Settings
from tests.service import Live, problem


@pytest.fixture
def client(live: Live) -> Any:
    with httpx.Client(base_url=live.url, timeout=60) as client:
        yield client


def ask(client: httpx.Client, message: str, **more: Any) -> dict[str, Any]:
    return client.post("/chat", json={"message": message, **more}).raise_for_status().json()


def test_an_answer_says_who_answered_and_keeps_sources_for_those_who_ask(client: httpx.Client) -> None:
    plain = ask(client, "How long is the crossing of the ferry?")
    assert "25 minutes" in plain["response"]
    assert plain["metadata"]["answerer"] == "extractive"
    assert "sources" not in plain
    assert ask(client, "How long is the crossing of the ferry?", include_sources=True)["sources"]


def test_every_quote_stands_where_its_citation_says(client: httpx.Client) -> None:
    for citation in ask(client, "When was the fog horn added?", include_sources=True)["sources"]:
        passage = client.get("/source", params={"uri": citation["source"], "start": citation["start"], "end": citation["end"]}).json()  # fmt: skip
        assert passage["quote"] == citation["quote"]


def test_what_stands_around_a_passage_begins_and_ends_with_whole_words(client: httpx.Client) -> None:
    def around(start: int, end: int) -> dict[str, Any]:
        wanted = {"uri": "library/lighthouse.md", "start": start, "end": end}
        found: dict[str, Any] = client.get("/source", params=wanted).json()
        return found

    whole = around(0, 10_000)
    text = whole["quote"]
    assert (whole["before"], whole["after"], whole["goes_on"]) == ("", "", False)
    for start in range(0, len(text), 7):
        found = around(start, start + 20)
        low = start - len(found["before"])
        high = start + len(found["quote"] + found["after"])
        assert text[low:high] == found["before"] + found["quote"] + found["after"]
        assert low == 0 or (text[low - 1].isspace() and not text[low].isspace())
        assert found["goes_on"] == (high < len(text))
        assert high == len(text) or (text[high].isspace() and not text[high - 1].isspace())


def test_nothing_in_the_documents_is_said_so(client: httpx.Client) -> None:
    reply = ask(client, "Who won the football world cup in 1954?", include_sources=True)
    assert reply["metadata"]["supported"] is False
    assert reply["sources"] == []


def test_a_conversation_is_read_back_counted_and_deleted(client: httpx.Client) -> None:
    thread = f"öffentlich:{{x}} {uuid4()}"
    ask(client, "What does admission to the museum cost?", conversation_id=thread)
    ask(client, "And for children?", conversation_id=thread)
    page = client.get(f"/conversation/{thread}").json()
    assert [message["role"] for message in page["history"]] == ["user", "assistant"] * 2
    assert page["statistics"] | {"first": None, "last": None} == {
        "total": 4, "user": 2, "assistant": 2, "first": None, "last": None,
    }  # fmt: skip
    assert page["statistics"]["first"] < page["statistics"]["last"]
    newest = client.get(f"/conversation/{thread}", params={"limit": 1}).json()
    assert newest["history"] == page["history"][-1:]
    older = client.get(f"/conversation/{thread}", params={"limit": 3, "before": newest["before"]}).json()
    assert older["history"] + newest["history"] == page["history"]
    assert client.delete(f"/conversation/{thread}").status_code == 204
    problem(client.get(f"/conversation/{thread}"), "thread_not_found", 404)
    assert client.delete(f"/conversation/{thread}").status_code == 204


@pytest.mark.parametrize("given", [{}, {"conversation_id": None}, {"conversation_id": ""}])
def test_a_missing_conversation_id_makes_a_fresh_one(client: httpx.Client, given: dict[str, Any]) -> None:
    seen = {ask(client, "How high is the tower?", **given)["conversation_id"] for _ in range(2)}
    assert len(seen) == 2


@pytest.mark.parametrize(
    ("body", "named"),
    [
        ({}, "message"), ({"message": None}, "message"), ({"message": 1}, "message"), ({"message": ""}, "empty"),
        ({"message": "hi", "colour": "red"}, "colour"), ({"message": "hi", "top_k": 51}, "top_k"),
        ({"message": "hi", "conversation_id": 3}, "conversation_id"), ({"message": "a\x00b"}, "U+0000"),
        ({"message": "hi", "include_sources": "yes"}, "include_sources"), ([], ""), ("text", ""),
    ],
)  # fmt: skip
def test_bad_input_gets_a_problem_that_names_the_fault(client: httpx.Client, body: Any, named: str) -> None:
    assert named in problem(client.post("/chat", json=body), "invalid_request", 422)["detail"]


@pytest.mark.parametrize(
    ("kind", "body", "says"),
    [
        (
            "application/x-www-form-urlencoded",
            '{"message": "x"}',
            "with Content-Type: application/json",
        ),  # as curl sends it
        ("application/json", '["x"]', "Send a JSON object as the body"),
        ("application/json", '{"message": "x"', "no valid JSON: it goes wrong at character 15"),
        ("application/json", "", "Send a JSON object as the body"),
        ("application/json", gzip.compress(b"{}"), "not compressed"),
        ("application/json", "[" * 100_000, "not nested"),
        ("application/json", "9" * 5000, "more than 64 bits"),
    ],
    ids=["form", "list", "cut", "empty", "compressed", "deep", "huge number"],
)
def test_a_body_that_is_no_object_is_told_what_to_be(
    client: httpx.Client, kind: str, body: str | bytes, says: str
) -> None:
    reply = client.post("/chat", content=body, headers={"content-type": kind})
    assert says in problem(reply, "invalid_request", 422)["detail"]  # type: ignore[operator]


def test_an_address_where_nothing_is_leads_to_those_where_something_is(client: httpx.Client) -> None:
    nowhere = problem(client.get("/rag"), "http_404", 404)
    assert "/docs" in str(nowhere["detail"])
    wrong = client.get("/chat")
    assert "takes POST" in str(problem(wrong, "http_405", 405)["detail"])
    assert wrong.headers["allow"] == "POST"
    for path, methods in (("/conversation/x", "GET, DELETE"), ("/uploads", "POST, DELETE"), ("/feedback", "GET, POST")):
        either = client.put(path)
        assert f"takes {methods}." in str(problem(either, "http_405", 405)["detail"])
        assert either.headers["allow"] == methods
    problem(client.put("/docs/static/swagger-ui.css"), "http_405", 405)
    page = client.get("/docs/errors").text
    for refused in (nowhere, wrong.json()):
        assert f'id="{refused["type"].rpartition("#")[2]}"' in page


def test_a_request_id_comes_back(client: httpx.Client) -> None:
    reply = client.post("/chat", json={})
    assert reply.headers["x-request-id"] == reply.json()["request_id"]


def test_the_front_door_serves_browsers_a_page_and_programs_a_status(client: httpx.Client) -> None:
    assert client.get("/").json()["status"] == "ok"
    page = client.get("/", headers={"accept": "text/html"}).text
    assert "<form" in page
    assert "http" not in page.replace("http://www.w3.org/2000/svg", ""), "the page loads something from elsewhere"


def test_liveness_readiness_and_metrics_answer(client: httpx.Client) -> None:
    assert client.get("/healthz").json() == {"status": "ok"}
    ready = client.get("/readyz").json()
    assert ready["status"] == "ready"
    assert ready["checks"]["index"]["sources"] == 3
    assert "citewell_turns_total" in client.get("/metrics").text


@pytest.mark.parametrize("path", ["/", "/healthz", "/readyz", "/metrics", "/docs", "/rag/playground/", "/sources"])
def test_whoever_asks_for_the_head_alone_gets_that_of_get_and_no_body(client: httpx.Client, path: str) -> None:
    head, whole = client.head(path), client.get(path)
    assert (head.status_code, head.content) == (whole.status_code, b"") == (200, b"")
    assert head.headers["content-type"] == whole.headers["content-type"]
    assert client.head("/chat/invoke").status_code == 405


def test_the_type_of_a_problem_leads_to_what_it_is(client: httpx.Client) -> None:
    kind = client.get("/conversation/nobody").json()["type"]
    page = client.get(kind)
    assert (page.status_code, page.headers["content-type"]) == (200, "text/html; charset=utf-8")
    for code in (kind.partition("#")[2], *every_code(), "internal"):
        assert f'id="{code}"' in page.text
    ids = re.findall(r'id="(\w+)"', page.text)
    assert len(ids) == len(set(ids))


def test_the_api_page_works_without_a_network(client: httpx.Client) -> None:
    page = client.get("/docs").text
    assert "https://" not in page
    assert client.get("/docs/static/swagger-ui-bundle.js").status_code == 200
    paths = client.get("/openapi.json").json()["paths"]
    assert {"/chat", "/rag/invoke", "/rag/batch", "/rag/stream", "/conversation/{conversation_id}"} <= set(paths)


async def test_a_rating_of_an_answer_that_is_deleted_meanwhile_is_not_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    app = create_app(Settings(_env_file=None, data_dir=tmp_path))
    transport = httpx.ASGITransport(app, client=("127.0.0.1", 1))
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1", timeout=60) as client,
    ):
        await client.post("/chat", json={"message": "Who is the keeper?", "conversation_id": "brief"})
        store = app.state.feedback
        put = store.put

        async def late(row: Row) -> None:
            assert (await client.delete("/conversation/brief")).status_code == 204
            await put(row)

        monkeypatch.setattr(store, "put", late)
        problem(await client.post("/feedback", json={"thread_id": "brief", "rating": "up"}), "thread_not_found", 404)
        assert [row async for row in store.walk()] == []

"""`citewell.client` against a real service."""

import ast
import asyncio
import json
import pickle
import socket
import struct
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from uuid import uuid4

import pytest

import citewell.client
from citewell.client import Answer, AsyncClient, Client, Ingested, Progress, ServiceError
from tests.service import ROOT, Live, environment, free_port, running

TOWER = "How high is the tower of the lighthouse?"


@pytest.fixture
def client(live: Live) -> Iterator[Client]:
    with Client(live.url) as client:
        yield client


def test_the_client_imports_nothing_of_the_server() -> None:
    for file in Path(citewell.client.__file__).parent.glob("*.py"):
        tree = ast.parse(file.read_text(encoding="utf-8"))
        froms = [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
        plain = {name.name for node in ast.walk(tree) if isinstance(node, ast.Import) for name in node.names}
        assert not [node for node in froms if (node.module or "").startswith("citewell") or node.level > 1]
        assert not [name for name in plain if name.startswith("citewell")]


def test_a_stream_gives_the_pieces_and_then_the_answer_they_add_up_to(client: Client) -> None:
    *pieces, answer = client.stream(TOWER)
    assert isinstance(answer, Answer)
    assert "".join(pieces) == answer.text  # type: ignore[arg-type]
    assert "42 metres" in answer.text
    assert answer.citations[0].status == "verified"
    assert answer.thread_id
    assert answer.text == client.ask(TOWER).text


def test_a_conversation_goes_on_is_read_renamed_listed_and_deleted(client: Client) -> None:
    thread = f"client/ü {uuid4()}"
    client.ask(TOWER, thread_id=thread)
    assert "1871" in client.ask("And when was it first lit?", thread_id=thread).text
    page = client.history(thread)
    assert [message.role for message in page.messages] == ["user", "assistant"] * 2
    assert page.messages[1].citations
    assert (page.statistics.total, page.before, page.first) == (4, None, 0)
    assert client.history(thread, limit=1).first == 3
    assert client.threads().threads[0].title == TOWER
    assert client.rename(thread, "  The   tower ").title == "The tower"
    assert next(one for one in client.threads().threads if one.thread_id == thread).title == "The tower"
    with pytest.raises(ServiceError, match="title holds a control character"):
        client.rename(thread, "\x1b[31mtower")
    client.ask("How far could the lamp be seen?", thread_id=thread)
    assert client.threads().threads[0].title == "The tower"
    client.delete(thread)
    assert all(one.thread_id != thread for one in client.threads().threads)
    with pytest.raises(ServiceError) as caught:
        client.history(thread)
    assert (caught.value.status, caught.value.code) == (404, "thread_not_found")


def test_threads_come_in_pages(client: Client) -> None:
    for n in range(3):
        client.ask(TOWER, thread_id=f"page {n} {uuid4()}")
    first = client.threads(limit=2)
    second = client.threads(limit=2, before=first.before)
    ids = [thread.thread_id for thread in (*first.threads, *second.threads)]
    assert len(set(ids)) == len(ids) >= 3


def test_search_shows_passages_and_why(client: Client) -> None:
    found = client.search("When was the fog horn added?", top_k=2)
    assert len(found.hits) == 2
    assert "1903" in found.hits[0].text
    assert found.hits[0].score >= found.hits[1].score
    assert {"keyword", "maxsim"} <= set(found.hits[0].evidence)
    assert found.trace["stages_ms"]
    assert len(found.trace["candidates"]) > 2
    only = client.search("How long?", filter={"type": "txt"})
    assert {hit.source for hit in only.hits} == {"library/ferry.txt"}


def test_sources_are_listed_and_a_passage_stands_in_its_place(client: Client) -> None:
    assert [source.uri for source in client.sources()] == [
        "library/ferry.txt", "library/handbook.html", "library/lighthouse.md",
    ]  # fmt: skip
    citation = client.ask(TOWER).citations[0]
    passage = client.passage(citation.source, citation.start, citation.end)
    assert passage.quote == citation.quote
    assert passage.has_file
    assert "Agnes Tolland" in passage.before + passage.quote
    with pytest.raises(ServiceError, match="source_not_found"):
        client.passage("library/nothing.md", 0, 1)


def test_feedback_is_kept_with_the_turn_until_the_conversation_is_deleted(client: Client) -> None:
    thread = client.ask(TOWER).thread_id
    rating = client.rate(thread, "down", reason="incomplete", comment="Which quarry?")
    assert rating.message == 1
    client.ask("And when was it first lit?", thread_id=thread)
    client.rate(thread, "up")
    client.rate(thread, "up", message=1)
    assert [(one.message, one.rating, one.reason) for one in client.ratings(thread)] == [(1, "up", ""), (3, "up", "")]
    with pytest.raises(ServiceError, match="position 0"):
        client.rate(thread, "up", message=0)
    client.delete(thread)
    with pytest.raises(ServiceError, match="thread_not_found"):
        client.ratings(thread)


def test_an_upload_reports_progress_and_is_found_at_once(start: Callable[..., Live]) -> None:
    with Client(start(documents=None).url) as client:
        text = "# The tide mill\n\nThe tide mill of Orrin Bay grinds 3 tonnes of barley a day.\n"
        *progress, done = client.upload("mill.md", text.encode())
        assert {one.stage for one in progress if isinstance(one, Progress)} == {"reading", "embedding"}
        assert progress[-1] == Progress(stage="embedding", done=1, total=1)
        assert done == Ingested(uri="uploads/mill.md", status="new", chunks=1)
        assert "3 tonnes" in client.ask("How much barley does the tide mill grind?").text
        assert [
            one.status for one in client.upload("mill.md", text.encode() + b"New.") if isinstance(one, Ingested)
        ] == ["changed"]
        for name, data, code in (
            ("mill.exe", b"MZ", "invalid_request"),
            ("broken.pdf", b"%PDF-1.7 no", "source_unreadable"),
        ):
            with pytest.raises(ServiceError) as caught:
                list(client.upload(name, data))
            assert caught.value.code == code, caught.value
        client.remove_upload("mill.md")
        assert all(source.uri != "uploads/mill.md" for source in client.sources())


def test_faults_carry_what_the_service_said(client: Client) -> None:
    with pytest.raises(ServiceError) as caught:
        list(client.stream("x" * 5001))
    assert (caught.value.status, caught.value.code, caught.value.retryable) == (413, "message_too_long", False)
    assert caught.value.request_id
    with pytest.raises(ServiceError) as caught:
        client.ask("hi", top_k=51)
    assert caught.value.errors[0]["field"] == "top_k"


def test_answers_and_faults_go_from_one_process_to_another(client: Client) -> None:
    answer = client.ask(TOWER)
    assert pickle.loads(pickle.dumps(answer)) == answer
    with pytest.raises(ServiceError) as caught:
        client.history("no-such-conversation")
    other = pickle.loads(pickle.dumps(caught.value))
    assert vars(other) == vars(caught.value)
    assert str(other) == f"thread_not_found: {other.detail}"


def test_a_service_that_is_not_there_is_unreachable() -> None:
    with Client(f"http://127.0.0.1:{free_port()}") as client, pytest.raises(ServiceError) as caught:
        client.ask("hi")
    assert (caught.value.status, caught.value.code, caught.value.retryable) == (0, "unreachable", True)


def test_what_no_service_can_take_is_a_fault_like_any_other(client: Client) -> None:
    half = "\ud83d"
    for call in (
        lambda: client.ask(half), lambda: list(client.stream("hi", thread_id=half)), lambda: client.history(half),
        lambda: client.passage(half, 0, 1), lambda: list(client.upload(half, b"")), lambda: Client(client.url, key="cw_\u200b"),
    ):  # fmt: skip
        with pytest.raises(ServiceError):
            call()


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        ("text/html", b"Welcome"), ("application/json", b"{}"), ("application/json", b"[]"),
        ("text/event-stream", b"event: done\ndata: {}\n\n"), ("text/event-stream", b"event: error\ndata: []\n\n"),
    ],
)  # fmt: skip
async def test_another_program_at_the_address_is_told_of(kind: str, body: bytes) -> None:
    """A page where the service was expected, as a proxy or a login shows it, or a service of another kind."""

    async def page(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(asyncio.IncompleteReadError):  # the client is done
            while await reader.readuntil(b"\r\n\r\n"):
                head = f"HTTP/1.1 200 OK\r\ncontent-type: {kind}\r\ncontent-length: {len(body)}\r\n\r\n"
                writer.write(head.encode() + body)
        writer.close()

    server = await asyncio.start_server(page, "127.0.0.1", 0)
    async with server:
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        async with AsyncClient(url) as awaited:
            for reply in (
                awaited.ask("hi"), anext(awaited.stream("hi")), awaited.status(), awaited.threads(), awaited.delete("t"),
                anext(awaited.upload("a.md", b"A.")),
            ):  # fmt: skip
                with pytest.raises(ServiceError, match="no Citewell service"):
                    await reply
        with Client(url) as blocking:
            for call in (
                lambda: blocking.ask("hi"), lambda: next(blocking.stream("hi")), blocking.status, blocking.threads,
                lambda: blocking.delete("t"), lambda: next(blocking.upload("a.md", b"A.")), lambda: blocking.rename("t", "x"),
                lambda: blocking.stop("t"), lambda: blocking.history("t"), lambda: blocking.search("x"), blocking.sources,
                lambda: blocking.passage("u", 0, 1), lambda: blocking.rate("t", "up"), lambda: blocking.ratings("t"),
                blocking.models,
            ):  # fmt: skip
                with pytest.raises(ServiceError, match="no Citewell service"):
                    await asyncio.to_thread(call)


async def test_a_connection_that_is_reset_has_broken_off() -> None:
    async def reset(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        no_time = struct.pack("ii", 1, 0)  # to linger: the end is a reset
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, no_time)
        await reader.readuntil(b"\r\n\r\n")
        writer.transport.abort()

    server = await asyncio.start_server(reset, "127.0.0.1", 0)
    async with server, AsyncClient(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}") as client:
        with pytest.raises(ServiceError, match="broken_off"):
            await client.ask("hi")


def test_a_key_out_of_a_file_may_end_with_its_line(live: Live) -> None:
    with Client(live.url, key="cw_abc\n") as client:
        assert client.models() == ["extractive"]


def test_models_and_status_are_told(client: Client) -> None:
    assert client.models() == ["extractive"]
    assert client.status()["checks"]["index"]["sources"] == 3


async def test_the_asynchronous_client_does_the_same(live: Live) -> None:
    async with AsyncClient(live.url) as client:
        events = [event async for event in client.stream(TOWER, trace=True)]
        answer = events[-1]
        assert isinstance(answer, Answer)
        assert "".join(events[:-1]) == answer.text  # type: ignore[arg-type]
        assert answer.metadata["trace"]["candidates"]
        thread = answer.thread_id
        assert (await client.ask("And when was it first lit?", thread_id=thread)).thread_id == thread
        assert (await client.history(thread)).statistics.total == 4
        assert (await client.rename(thread, "Tower")).title == "Tower"
        assert (await client.rate(thread, "up")).message == 3
        assert len(await client.ratings(thread)) == 1
        assert (await client.search(TOWER)).hits
        assert len(await client.sources()) == 3
        assert (await client.passage("library/ferry.txt", 0, 7)).quote == "Skerrow"
        assert await client.models() == ["extractive"]
        assert (await client.status())["status"] == "ready"
        await client.delete(thread)
        with pytest.raises(ServiceError, match="thread_not_found"):
            await client.history(thread)


def test_ratings_become_evaluation_rows(live: Live, tmp_path: Path) -> None:
    check_export(live, tmp_path)


def test_ratings_are_kept_in_redis_where_threads_are_and_uploads_can_be_shut(
    indexed: Path, redis_url: str, tmp_path: Path
) -> None:
    with running(indexed, CITEWELL_REDIS_URL=redis_url, CITEWELL_UPLOADS="off") as service:
        check_export(service, tmp_path, CITEWELL_REDIS_URL=redis_url)
        with Client(service.url) as client, pytest.raises(ServiceError, match="not_authorized"):
            list(client.upload("mill.md", b"text"))


def check_export(service: Live, folder: Path, **settings: str) -> None:
    with Client(service.url) as client:
        liked = client.ask("When was the fog horn added?").thread_id
        client.rate(liked, "up")
        disliked = client.ask("How long is the crossing of the ferry?").thread_id
        client.rate(disliked, "down", reason="incorrect", comment="25")
        gone = client.ask("When was the fog horn removed?").thread_id
        client.rate(gone, "up")
        client.delete(gone)
    done = subprocess.run(
        [sys.executable, "-m", "evals.feedback", "--out", str(folder / "rows")],
        env=environment(service.data_dir, **settings), cwd=ROOT, capture_output=True, text=True, timeout=200,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    rows = [json.loads(line) for line in (folder / "rows" / "queries.jsonl").read_text().splitlines()]
    ours = [row for row in rows if row["thread_id"] in (liked, disliked, gone)]
    assert [(row["text"], row["rating"], row["comment"]) for row in ours] == [
        ("When was the fog horn added?", "up", ""), ("How long is the crossing of the ferry?", "down", "25"),
    ]  # fmt: skip
    judged = (folder / "rows" / "qrels.tsv").read_text().splitlines()
    assert judged[0] == "query-id\tcorpus-id\tscore"
    assert f"{ours[0]['_id']}\tlibrary/lighthouse.md\t1" in judged
    assert all(ours[1]["_id"] not in line for line in judged)

"""SIGTERM: readiness falls first, new turns are refused, those under way end, the process exits with 0."""

import asyncio
import json
import math
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import ExitStack, asynccontextmanager
from pathlib import Path

import httpx
import psutil
import pytest
import websockets

from tests.models.paced_server import Paced
from tests.models.scripted_server import ScriptedServer, scripted_server
from tests.service import LIBRARY, STOP_WITHIN_S, Live, copied, ingest, problem, running

QUESTION = "How high is the tower of the lighthouse?"


@asynccontextmanager
async def answering(start: Callable[..., Live], **settings: str) -> AsyncIterator[tuple[Live, ScriptedServer]]:
    """A service, and its chat model, which stops after two words of an answer until it may say more."""
    async with scripted_server() as told:
        told.most_words = 2
        yield start(CITEWELL_CHAT_MODEL="openai:told", OPENAI_BASE_URL=told.base_url, **settings), told


async def until_it_drains(client: httpx.AsyncClient) -> httpx.Response:
    """The answer of `/readyz` to whoever is to send no more."""
    async with asyncio.timeout(60):
        while (ready := await client.get("/readyz")).status_code == 200:
            await asyncio.sleep(0.02)
    return ready


async def test_a_turn_under_way_ends_and_a_new_one_is_refused(start: Callable[..., Live]) -> None:
    async with (
        answering(start) as (live, told),
        httpx.AsyncClient(base_url=live.url, timeout=60) as client,
        websockets.connect(live.ws) as idle,
    ):
        turn = asyncio.create_task(client.post("/chat", json={"message": QUESTION, "conversation_id": "t"}))
        async with asyncio.timeout(60):
            while not told.calls:
                await asyncio.sleep(0.02)
        live.process.send_signal(signal.SIGTERM)
        ready = await until_it_drains(client)
        assert (ready.status_code, ready.json()["checks"]) == (
            503, {"drain": {"error": "draining", "detail": "The service is shutting down"}},
        )  # fmt: skip
        for path, body in (
            ("/chat", {"message": QUESTION}),
            ("/rag/invoke", {"input": {"question": QUESTION}}),
            ("/rag/stream", {"input": {"question": QUESTION}}),
        ):
            refused = await client.post(path, json=body)
            assert problem(refused, "draining", 503)["retryable"]
            assert refused.headers["retry-after"] == "1"
        openai = await client.post(
            "/v1/chat/completions", json={"model": "citewell", "messages": [{"role": "user", "content": QUESTION}]}
        )
        assert (openai.status_code, openai.headers["retry-after"]) == (503, "1")
        await idle.send(json.dumps({"message": QUESTION}))
        assert json.loads(await idle.recv())["error"]["code"] == "draining"
        with pytest.raises(websockets.ConnectionClosed):
            await idle.recv()
        assert idle.close_code == 1012
        async with websockets.connect(live.ws) as late:
            with pytest.raises(websockets.ConnectionClosed):
                await late.recv()
        assert late.close_code == 1013
        assert not turn.done()
        told.most_words = math.inf
        assert "42 metres" in (await turn).raise_for_status().json()["response"]
        assert await asyncio.to_thread(live.process.wait, STOP_WITHIN_S) == 0


async def test_a_socket_hears_the_end_of_its_turn(start: Callable[..., Live]) -> None:
    async with answering(start) as (live, told):
        async with websockets.connect(live.ws) as socket, httpx.AsyncClient(base_url=live.url, timeout=60) as client:
            await socket.send(json.dumps({"message": QUESTION}))
            await socket.recv()
            live.process.send_signal(signal.SIGTERM)
            await until_it_drains(client)
            told.most_words = math.inf
            frame = {}
            while not frame.get("done"):
                frame = json.loads(await socket.recv())
            with pytest.raises(websockets.ConnectionClosed):
                await socket.recv()
        assert socket.close_code == 1012
        assert await asyncio.to_thread(live.process.wait, STOP_WITHIN_S) == 0


async def test_readiness_fails_before_turns_are_refused(start: Callable[..., Live]) -> None:
    live = start(CITEWELL_DRAIN_NOTICE_S="60")
    live.process.send_signal(signal.SIGTERM)
    async with httpx.AsyncClient(base_url=live.url, timeout=60) as client:
        await until_it_drains(client)
        reply = await client.post("/chat", json={"message": QUESTION})
    assert "42 metres" in reply.raise_for_status().json()["response"]
    live.process.send_signal(signal.SIGINT)  # else it would give notice for a minute
    assert await asyncio.to_thread(live.process.wait, STOP_WITHIN_S) == 0


async def test_a_turn_that_outlasts_the_deadline_is_cut_and_told_so(start: Callable[..., Live]) -> None:
    async with answering(start, CITEWELL_DRAIN_S="0.5") as (live, _):
        async with websockets.connect(live.ws) as socket:
            await socket.send(json.dumps({"message": QUESTION}))
            await socket.recv()
            live.process.send_signal(signal.SIGTERM)
            frame = {}
            while "error" not in frame:
                frame = json.loads(await socket.recv())
        assert (frame["error"]["code"], frame["error"]["retryable"]) == ("draining", True)
        assert await asyncio.to_thread(live.process.wait, STOP_WITHIN_S) == 0


def test_ctrl_c_ends_it_at_once_and_without_a_traceback(start: Callable[..., Live]) -> None:
    live = start(CITEWELL_DRAIN_NOTICE_S="60")
    live.process.send_signal(signal.SIGINT)
    assert live.process.wait(STOP_WITHIN_S) == 0
    assert "Traceback" not in live.log.read_text()


@pytest.mark.parametrize(
    ("rounds", "comes_back"), [(1, False), pytest.param(4, True, marks=pytest.mark.slow)], ids=["one goes", "rolling"]
)
async def test_a_rolling_restart_under_load_loses_no_turn(
    indexed: Path, tmp_path: Path, paced: Paced, redis_url: str, rounds: int, comes_back: bool
) -> None:
    settings = paced.model(1) | {"CITEWELL_REDIS_URL": redis_url, "CITEWELL_DRAIN_NOTICE_S": "3"}
    workers: list[Live | None] = [None, None]
    asked: dict[str, list[str]] = {f"talk {n}": [] for n in range(6)}
    restarted = asyncio.Event()

    async def ready(client: httpx.AsyncClient) -> str:
        while True:
            for live in workers:
                if live is None:
                    continue
                try:
                    if (await client.get(f"{live.url}/readyz")).status_code == 200:
                        return live.url
                except httpx.TransportError:  # gone, or going while it was asked: not ready, as a load balancer sees it
                    continue
            await asyncio.sleep(0.02)

    async def talk(thread: str) -> None:
        async with httpx.AsyncClient(timeout=60) as client:
            while not restarted.is_set():
                question = f"How high is the tower, for the {len(asked[thread]) + 1}. time?"
                body = {"message": question, "conversation_id": thread}
                reply = await client.post(f"{await ready(client)}/chat", json=body)
                if reply.status_code != 503:  # else it drained once it had been asked whether it does
                    reply.raise_for_status()
                    asked[thread].append(question)

    async def go_on() -> None:
        """Until each has asked two questions more."""
        most = {thread: len(questions) + 2 for thread, questions in asked.items()}
        while any(len(asked[thread]) < count for thread, count in most.items()):
            for ended in (await asyncio.wait(talks, timeout=0.02))[0]:
                ended.result()

    stacks = [ExitStack(), ExitStack()]
    copies = [copied(indexed, tmp_path / str(n)) for n in range(2)]

    def start(n: int) -> Live:
        return stacks[n].enter_context(running(copies[n], **settings))

    try:
        workers[:] = await asyncio.gather(*(asyncio.to_thread(start, n) for n in range(2)))
        talks = [asyncio.create_task(talk(thread)) for thread in asked]
        for n in range(rounds):
            await go_on()
            old = workers[n % 2]
            assert old is not None
            old.process.send_signal(signal.SIGTERM)
            assert await asyncio.to_thread(old.process.wait, STOP_WITHIN_S) == 0
            if comes_back:
                workers[n % 2] = await asyncio.to_thread(start, n % 2)
        await go_on()
        restarted.set()
        await asyncio.gather(*talks)
        one = workers[1]
        assert one is not None
        async with httpx.AsyncClient(base_url=one.url) as client:
            for thread, questions in asked.items():
                history = (await client.get(f"/conversation/{thread}?limit=1000")).raise_for_status().json()["history"]
                assert [message["content"] for message in history if message["role"] == "user"] == questions
                assert [message["role"] for message in history] == ["user", "assistant"] * len(questions)
                assert all(message["content"] for message in history)
    finally:
        for stack in stacks:
            await asyncio.to_thread(stack.close)


@pytest.mark.parametrize(("drain_s", "last"), [("60", "done"), ("1", "error")])
async def test_a_document_that_is_being_added_is_waited_for_like_a_turn(
    start: Callable[..., Live], drain_s: str, last: str
) -> None:
    live = start(CITEWELL_DRAIN_S=drain_s)
    text = "".join(f"The boiler number {n} was inspected on day {n % 365} and found to leak.\n\n" for n in range(5000))
    name, kind = {"name": "boilers.txt"}, {"content-type": "application/octet-stream"}
    events: list[tuple[str, dict[str, object]]] = []
    async with httpx.AsyncClient(base_url=live.url, timeout=90) as client, client.stream(
        "POST", "/uploads", params=name, content=text, headers=kind | {"accept": "text/event-stream"}
    ) as stream:  # fmt: skip
        async for line in stream.aiter_lines():
            field, _, value = line.partition(": ")
            if field == "event":
                events.append((value, {}))
            elif field == "data":
                events[-1][1].update(json.loads(value))
                if "done" in events[-1][1] and live.process.poll() is None and len(events) == 2:
                    live.process.send_signal(signal.SIGTERM)
                    if last == "done":  # else it may be gone by then
                        await until_it_drains(client)
                        late = await client.post(
                            "/uploads", params={"name": "late.txt"}, content=b"Late.", headers=kind
                        )
                        problem(late, "draining", 503)
    assert events[-1][0] == last
    if last == "done":
        assert events[-1][1]["status"] == "new"
    else:
        assert events[-1][1]["code"] == "draining"
    assert await asyncio.to_thread(live.process.wait, STOP_WITHIN_S) == 0
    assert "Traceback" not in live.log.read_text()


@pytest.mark.parametrize("sig", [signal.SIGTERM, signal.SIGKILL])
async def test_every_one_of_several_workers_drains_also_when_their_parent_is_killed(
    tmp_path: Path, chroma_server: str, paced: Paced, sig: signal.Signals
) -> None:
    data_dir = tmp_path / "data"
    data_dir.mkdir()
    settings = paced.model(6) | {
        "CITEWELL_VECTOR_STORE": f"chroma+{chroma_server}", "CITEWELL_NAMESPACE": f"drain-of-workers-{sig}",
    }  # fmt: skip
    await asyncio.to_thread(ingest, data_dir, LIBRARY, **settings)
    with running(data_dir, CITEWELL_WORKERS="2", **settings) as live:
        workers = psutil.Process(live.process.pid).children()
        before = paced.calls()["started"]
        async with httpx.AsyncClient(base_url=live.url, timeout=60) as client:
            turns = [asyncio.create_task(client.post("/chat", json={"message": QUESTION})) for _ in range(6)]
            await paced.until(lambda calls: calls["started"] > before + 5)
            live.process.send_signal(sig)
            for turn in turns:
                assert "42 metres" in (await turn).raise_for_status().json()["response"]
        expected = 0 if sig == signal.SIGTERM else -sig
        assert expected == await asyncio.to_thread(live.process.wait, STOP_WITHIN_S)
        _, left = await asyncio.to_thread(psutil.wait_procs, workers, STOP_WITHIN_S)
        for worker in left:
            worker.kill()
        assert not left

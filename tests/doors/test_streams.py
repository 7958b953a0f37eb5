"""Streams that survive: resumed after a dropped connection, on any worker; stopped on any worker."""

import asyncio
import gc
import json
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import pytest
import websockets
from structlog.testing import capture_logs

from citewell.errors import RunReplaced
from citewell.runs import Result, Run, Runs
from citewell.settings import Settings
from citewell.threads import open_threads
from citewell.threads.journal import new_run_id
from tests.doors import test_contract as doors
from tests.models.paced_server import Paced
from tests.models.scripted_server import scripted_server
from tests.redis_servers import server
from tests.service import Live, copied, problem, running

QUESTION = "How high is the tower of the lighthouse?"
UNKNOWN = "0" * 32 + ".3"
ENDLESS = "openai:endless"


@pytest.fixture(scope="module")
def workers(indexed: Path, paced: Paced, tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Live]]:
    """Two processes on one Redis; an answer takes five seconds, and one of the model named `endless` for ever."""
    with ExitStack() as stack:
        settings = paced.model(15) | {
            "CITEWELL_REDIS_URL": stack.enter_context(server()).url, "CITEWELL_ON_DISCONNECT": "continue",
            "CITEWELL_CHAT_MODELS": f'["{ENDLESS}"]',
        }  # fmt: skip
        yield [stack.enter_context(over_a_copy(indexed, tmp_path_factory, **settings)) for _ in range(2)]


def over_a_copy(indexed: Path, tmp_path_factory: pytest.TempPathFactory, **settings: str) -> Any:
    return running(copied(indexed, tmp_path_factory.mktemp("worker")), **settings)


class Flaky:
    """A way to Redis that loses a reply when told to."""

    def __init__(self, port: int) -> None:
        self._port = port
        self.loses_next = False
        self.port = 0

    async def open(self) -> asyncio.Server:
        server = await asyncio.start_server(self._carry, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        return server

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        from_redis, to_redis = await asyncio.open_connection("127.0.0.1", self._port)

        async def there() -> None:
            while data := await reader.read(65536):
                to_redis.write(data)
            to_redis.close()

        carrying = asyncio.create_task(there())
        while data := await from_redis.read(65536):
            if self.loses_next:
                self.loses_next = False
                break
            writer.write(data)
        writer.close()
        await carrying


@pytest.mark.parametrize("lost_at", [0, 2])
async def test_what_redis_has_twice_because_its_reply_was_lost_is_heard_once(tmp_path: Path, lost_at: int) -> None:
    with server() as redis:
        flaky = Flaky(redis.port)
        async with (
            await flaky.open(),
            open_threads(Settings(redis_url=f"redis://127.0.0.1:{flaky.port}", data_dir=tmp_path)) as ours,
            open_threads(Settings(redis_url=redis.url, data_dir=tmp_path)) as others,
        ):
            here, there = (Runs(threads, keep_s=60, longest_s=60) for threads in (ours, others))
            run = Run(new_run_id("t"), "t", "ada", is_kept=True)

            async def work() -> Result:
                for n in range(5):
                    flaky.loses_next = flaky.loses_next or n == lost_at
                    run.say(f"w{n} ")
                    await asyncio.sleep(0.3)
                return Result(answer="".join(run.said), citations=[], thread_id="t", usage={}, metadata={})

            here.start(run, work())
            await run.task
            await here.drain(5)
            heard = [event async for event in await there.resume("ada", run.run_id, 0) if isinstance(event, str)]
    assert heard == ["w0 ", "w1 ", "w2 ", "w3 ", "w4 "]


@pytest.mark.parametrize(("fault", "told"), [(RunReplaced(), []), (KeyError(), ["turn.failed"])])
async def test_a_run_that_fails_while_nobody_listens_is_told_of_once(fault: Exception, told: list[str]) -> None:
    """A fault that was foreseen stands in the turn's line; asyncio would say of each, later, that nobody asked for it."""
    complaints: list[Any] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: complaints.append(context))
    run = Run(new_run_id("t"), "t", "ada", is_kept=True)

    async def work() -> Result:
        raise fault

    with capture_logs() as logged:
        run.start(work())
        await asyncio.wait([run.task])
        await asyncio.sleep(0)
    del run
    gc.collect()
    assert [line["event"] for line in logged] == told
    assert not complaints


async def test_a_run_whose_journal_is_gone_can_be_resumed_where_it_runs(tmp_path: Path) -> None:
    with server() as redis:
        async with open_threads(Settings(redis_url=redis.url, data_dir=tmp_path)) as threads:
            runs, run, end = (
                Runs(threads, keep_s=60, longest_s=60),
                Run(new_run_id("t"), "t", "ada", is_kept=True),
                asyncio.Event(),
            )

            async def work() -> Result:
                run.say("word ")
                await end.wait()
                return Result(answer="word ", citations=[], thread_id="t", usage={}, metadata={})

            runs.start(run, work())
            await asyncio.sleep(0.6)
            redis.client.flushall()
            run.say("more ")
            await asyncio.sleep(0.6)
            events = await runs.resume("ada", run.run_id, 0)
            end.set()
            assert [event async for event in events if isinstance(event, str)] == ["word ", "more "]


Event = tuple[str, str, dict[str, Any]]
"""Id, name, data."""


async def server_sent(response: httpx.Response) -> AsyncIterator[Event]:
    response.raise_for_status()
    event = {"id": "", "event": "message"}
    async for line in response.aiter_lines():
        if line and not line.startswith(":"):
            name, _, value = line.partition(": ")
            event[name] = value
        elif "data" in event:
            data = event["data"]
            yield event["id"], event["event"], {} if data == "[DONE]" else json.loads(data)
            event = {"id": event["id"], "event": "message"}


class Chat:
    """`POST /chat` as a stream, taken up again by asking it once more."""

    async def events(self, live: Live, thread: str, last: str = "") -> AsyncIterator[Event]:
        headers = {"accept": "text/event-stream"} | ({"last-event-id": last} if last else {})
        async with (
            httpx.AsyncClient(base_url=live.url, timeout=60) as client,
            client.stream(
                "POST", "/chat", json={"message": QUESTION, "conversation_id": thread}, headers=headers
            ) as reply,
        ):
            async for event in server_sent(reply):
                yield event

    def text(self, data: dict[str, Any]) -> str:
        return str(data["token"])


class EventSource(Chat):
    """The same, taken up again as a browser's EventSource does."""

    async def events(self, live: Live, thread: str, last: str = "") -> AsyncIterator[Event]:
        if not last:
            async for event in super().events(live, thread):
                yield event
            return
        async with (
            httpx.AsyncClient(base_url=live.url, timeout=60) as client,
            client.stream("GET", f"/runs/{last.partition('.')[0]}/events", headers={"last-event-id": last}) as reply,
        ):
            async for event in server_sent(reply):
                yield event


class OpenAI(Chat):
    async def events(self, live: Live, thread: str, last: str = "") -> AsyncIterator[Event]:
        body = {"model": "citewell", "stream": True, "messages": [{"role": "user", "content": QUESTION}]}
        headers = {"x-thread-id": thread} | ({"last-event-id": last} if last else {})
        async with (
            httpx.AsyncClient(base_url=live.url, timeout=60) as client,
            client.stream("POST", "/v1/chat/completions", json=body, headers=headers) as reply,
        ):
            async for event in server_sent(reply):
                yield event

    def text(self, data: dict[str, Any]) -> str:
        return str(data["choices"][0]["delta"].get("content") or "") if data else ""


class Socket(Chat):
    def __init__(self, **asked: str) -> None:
        self._asked = asked

    async def events(self, live: Live, thread: str, last: str = "") -> AsyncIterator[Event]:
        async with websockets.connect(live.ws) as socket:
            await socket.send(
                json.dumps({"resume": last} if last else {"message": QUESTION, "conversation_id": thread} | self._asked)
            )
            async for text in socket:
                frame = json.loads(text)
                yield frame.get("id", ""), "error" if "error" in frame else "token", frame
                if frame.get("done"):
                    return


async def hear(door: Chat, live: Live, thread: str, last: str = "", *, most: int = 0) -> tuple[str, list[str]]:
    """Text and ids of the events; with `most`, the connection is dropped after so many."""
    text, ids = "", []
    events = door.events(live, thread, last)
    async for event_id, _, data in events:
        text += door.text(data)
        ids.append(event_id)
        if most and len(ids) == most:
            break
    await events.aclose()  # type: ignore[attr-defined]  # an async generator
    return text, list(dict.fromkeys(ids))


async def history(live: Live, thread: str) -> list[dict[str, Any]]:
    async with httpx.AsyncClient(base_url=live.url) as client:
        found: list[dict[str, Any]] = (await client.get(f"/conversation/{thread}")).raise_for_status().json()["history"]
        return found


async def until_it_is_over(live: Live, thread: str) -> list[dict[str, Any]]:
    async with asyncio.timeout(60):  # unless the run did not go on without its client
        while (messages := await history(live, thread))[-1]["role"] != "assistant":
            await asyncio.sleep(0.1)
    return messages


@pytest.mark.parametrize("door", [Chat(), EventSource(), OpenAI(), Socket()], ids=lambda door: type(door).__name__)
async def test_a_dropped_stream_goes_on_where_it_stopped_on_either_worker(workers: list[Live], door: Chat) -> None:
    thread = str(uuid4())
    text, ids = await hear(door, workers[0], thread, most=6)
    run, _, number = ids[-1].partition(".")
    assert int(number) < 10
    (here, ids_here), (there, ids_there) = await asyncio.gather(
        hear(door, workers[0], thread, ids[-1]), hear(door, workers[1], thread, ids[-1])
    )
    assert here == there
    last = int(ids_here[-1].rpartition(".")[2])  # 61, fewer where tokens that came together went on together
    assert ids_here == ids_there == [f"{run}.{n}" for n in range(int(number) + 1, last + 1)]
    asked, answered = await history(workers[1], thread)
    assert (asked["content"], answered["content"]) == (QUESTION, text + here)
    again, ids_again = await hear(door, workers[1], thread, f"{run}.{last - 2}")
    assert (ids_again, again) == ([f"{run}.{last - 1}", f"{run}.{last}"], answered["content"][-len(again) :])


async def test_a_run_that_nobody_comes_back_to_ends_by_itself(workers: list[Live]) -> None:
    thread = str(uuid4())
    text, _ = await hear(Socket(), workers[0], thread, most=3)
    messages = await until_it_is_over(workers[1], thread)
    assert messages[-1]["content"].startswith(text)
    assert len(messages) == 2


async def test_a_stream_says_its_id_before_the_first_word(workers: list[Live]) -> None:
    thread = str(uuid4())
    text, ids = await hear(Chat(), workers[0], thread, most=1)
    assert (text, ids[0][-2:]) == ("", ".0")
    whole, _ = await hear(Chat(), workers[1], thread, ids[0])
    assert whole == (await history(workers[0], thread))[-1]["content"]


async def test_what_cannot_be_resumed_says_why(workers: list[Live], live: Live) -> None:
    sse = {"accept": "text/event-stream"}
    async with httpx.AsyncClient(timeout=60) as client:
        for worker, last, code, status in (
            (workers[0], UNKNOWN, "run_not_found", 404),
            (workers[0], "nonsense", "invalid_request", 422),
            (live, UNKNOWN, "resume_off", 409),
        ):
            headers = sse | {"last-event-id": last}
            problem(await client.post(f"{worker.url}/chat", json={"message": QUESTION}, headers=headers), code, status)
            reply = await client.get(f"{worker.url}/runs/{'0' * 32}/events", headers={"last-event-id": last})
            problem(reply, code, status)
            async with websockets.connect(worker.ws) as socket:
                await socket.send(json.dumps({"resume": last}))
                assert json.loads(await socket.recv())["error"]["code"] == code


async def test_a_deleted_conversation_cannot_be_resumed(workers: list[Live]) -> None:
    thread = str(uuid4())
    _, ids = await hear(Socket(chat_model=ENDLESS), workers[0], thread, most=5)
    async with httpx.AsyncClient(timeout=60) as client:
        await client.delete(f"{workers[1].url}/conversation/{thread}")
        headers = {"accept": "text/event-stream", "last-event-id": ids[-1]}
        for worker in workers:
            while True:  # until the worker has noticed
                reply = await client.post(f"{worker.url}/chat", json={"message": QUESTION}, headers=headers)
                if reply.status_code != 200:
                    break
                assert "event: done" not in reply.text
            problem(reply, "run_not_found", 404)


@pytest.mark.parametrize("other", [0, 1], ids=["same worker", "other worker"])
async def test_a_run_is_stopped_on_either_worker_and_what_was_said_stays(workers: list[Live], other: int) -> None:
    thread = f"stop {uuid4()}"
    async with httpx.AsyncClient(base_url=workers[other].url, timeout=60) as client:
        async with websockets.connect(workers[0].ws) as socket:
            asked = {"message": QUESTION, "conversation_id": thread, "chat_model": ENDLESS}
            await socket.send(json.dumps(asked))
            said, frame, stopping = "", {}, None
            while not frame.get("done"):
                frame = json.loads(await socket.recv())
                said += frame["token"]
                if said and stopping is None:
                    stopping = asyncio.create_task(client.post(f"/conversation/{thread}/stop"))
        assert stopping is not None
        assert (await stopping).raise_for_status().json() == {"conversation_id": thread, "stopped": True}
        assert frame["metadata"]["stopped"]
        messages = await history(workers[0], thread)
        assert [message["content"] for message in messages] == [QUESTION, said]
        assert messages[1]["metadata"]["stopped"]
        again = await client.post(f"/conversation/{thread}/stop")
        assert again.raise_for_status().json() == {"conversation_id": thread, "stopped": False}
        body = {"message": QUESTION, "conversation_id": thread, "chat_model": "extractive"}
        assert "42 metres" in (await client.post("/chat", json=body)).raise_for_status().json()["response"]


async def test_only_the_run_that_is_named_is_stopped(workers: list[Live]) -> None:
    thread = str(uuid4())
    _, ids = await hear(Socket(chat_model=ENDLESS), workers[0], thread, most=3)
    async with httpx.AsyncClient(base_url=workers[1].url, timeout=60) as client:
        for run_id, stopped in (("f" * 32, False), (ids[0].partition(".")[0], True)):
            reply = await client.post(f"/conversation/{thread}/stop", json={"run_id": run_id})
            assert reply.raise_for_status().json()["stopped"] is stopped
        problem(await client.post(f"/conversation/{thread}/stop", json={"run_id": "x"}), "invalid_request", 422)
        problem(await client.post("/conversation/never/stop"), "thread_not_found", 404)


async def test_every_door_ends_well_when_a_turn_is_stopped_before_its_first_word(
    indexed: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    async def by_chat(live: Live, question: str, thread: str) -> dict[str, Any]:
        async with doors.remote(live, "/chat") as chat:
            messages = {"messages": [{"type": "human", "content": question}]}
            return {"answer": await chat.ainvoke(messages, {"configurable": {"thread_id": thread}})}

    async with scripted_server() as told:
        told.always["told"] = "silent"
        model = {"CITEWELL_CHAT_MODEL": "openai:told", "OPENAI_BASE_URL": told.base_url, "CITEWELL_MCP": "on"}
        with over_a_copy(indexed, tmp_path_factory, **model) as live:
            for number, door in enumerate([by_chat, *doors.DOORS], 1):
                asking = asyncio.create_task(door(live, QUESTION, f"silent {number}"))
                async with asyncio.timeout(30):
                    while len(told.calls) < number:
                        await asyncio.sleep(0.05)
                async with httpx.AsyncClient(base_url=live.url, timeout=60) as client:
                    assert (await client.post(f"/conversation/silent {number}/stop")).json()["stopped"]
                answer = await asking
                assert answer["answer"] == "", door.__name__
                assert answer.get("metadata", {"stopped": True})["stopped"], door.__name__


async def test_without_redis_a_stream_is_resumed_and_stopped_in_its_process(
    indexed: Path, paced: Paced, tmp_path_factory: pytest.TempPathFactory
) -> None:
    settings = paced.model(15) | {
        "CITEWELL_ON_DISCONNECT": "continue", "CITEWELL_RESUME_S": "8", "CITEWELL_CHAT_MODELS": f'["{ENDLESS}"]',
    }  # fmt: skip
    with over_a_copy(indexed, tmp_path_factory, **settings) as live:
        async with httpx.AsyncClient(base_url=live.url, timeout=60) as client:
            text, ids = await hear(Chat(), live, "t", most=6)
            rest, more = await hear(Chat(), live, "t", ids[-1])
            events = f"/runs/{more[-1].partition('.')[0]}/events"
            last = {"last-event-id": more[-1]}  # as EventSource gives it back, until it is told that this was all
            assert (await client.get(events, headers=last)).status_code == 204
            assert text + rest == (await history(live, "t"))[-1]["content"]
            await hear(Socket(chat_model=ENDLESS), live, "stopped", most=6)
            assert (await client.post("/conversation/stopped/stop")).raise_for_status().json()["stopped"]
            assert (await history(live, "stopped"))[-1]["metadata"]["stopped"]
            while (reply := await client.get(events, headers=last)).status_code == 204:
                await asyncio.sleep(0.1)
            problem(reply, "run_not_found", 404)


async def test_a_killed_worker_leaves_what_it_wrote_down_and_a_clear_end(
    workers: list[Live], indexed: Path, paced: Paced, tmp_path_factory: pytest.TempPathFactory
) -> None:
    url = workers[0].environment["CITEWELL_REDIS_URL"]
    settings = paced.model(30) | {"CITEWELL_REDIS_URL": url, "CITEWELL_ON_DISCONNECT": "continue"}
    thread = str(uuid4())
    with over_a_copy(indexed, tmp_path_factory, **settings) as victim:
        text, ids = await hear(Socket(), victim, thread, most=8)
        await hear(EventSource(), workers[1], thread, ids[0], most=7)  # so it is written down
        victim.process.kill()
        events = [event async for event in broken(workers[1], ids[0])]
    assert "".join(data.get("token", "") for _, data in events).startswith(text)
    assert events[-1][0] == "error"
    assert (events[-1][1]["code"], events[-1][1]["retryable"]) == ("run_lost", True)
    async with httpx.AsyncClient(base_url=workers[1].url, timeout=60) as client:
        body = {"message": QUESTION, "conversation_id": thread, "chat_model": "extractive"}
        assert "42 metres" in (await client.post("/chat", json=body)).raise_for_status().json()["response"]


async def broken(live: Live, last: str) -> AsyncIterator[tuple[str, dict[str, Any]]]:
    headers = {"last-event-id": last}
    async with (
        httpx.AsyncClient(base_url=live.url, timeout=60) as client,
        client.stream("GET", f"/runs/{last.partition('.')[0]}/events", headers=headers) as reply,
    ):
        async for _, name, data in server_sent(reply):
            yield name, data

"""Streams that join what waits: nothing is lost or changed, whatever comes and however slowly it is read."""

import asyncio
import json
import time
from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Sequence
from contextlib import contextmanager
from itertools import pairwise

import httpx2
import openai
import pytest
from aiohttp.client_proto import ResponseHandler
from hypothesis import given
from hypothesis import strategies as st

from citewell.errors import ModelUnavailable
from citewell.models import deltas
from citewell.models.chat import open_chat_models
from citewell.models.deltas import LONGEST_HOLD_S, Delta, Pace, deltas_of, joined
from citewell.models.faults import map_model_errors
from citewell.models.joining import JoiningQueue
from citewell.settings import Settings


def delta(content: str | None = None, finish: str | None = None, **more: object) -> Delta:
    text = {} if content is None else {"content": content}
    return {"id": "1", "choices": [{"index": 0, "delta": text | more, "finish_reason": finish}]}


LAST = delta(None, "stop")


async def stream(deltas: list[Delta], pauses: list[bool]) -> AsyncGenerator[Delta, None]:
    for one, pause in zip(deltas, pauses, strict=True):
        if pause:
            await asyncio.sleep(0)
        yield one


async def test_tokens_that_come_together_go_on_together() -> None:
    sent = [delta("a"), delta("b"), delta("c"), delta(None, "stop")]
    got = [one async for one in joined(stream(sent, [False] * 4))]
    assert got == [delta("abc", "stop")]


async def test_a_reader_that_keeps_up_gets_each_token_as_it_comes() -> None:
    arrived: asyncio.Queue[Delta] = asyncio.Queue()

    async def slowly() -> AsyncGenerator[Delta, None]:
        for _ in range(3):
            yield await arrived.get()

    reading = joined(slowly())
    for token in "abc":
        arrived.put_nowait(delta(token))
        async with asyncio.timeout(60):
            assert await anext(reading) == delta(token)
    await reading.aclose()


async def test_the_more_streams_the_longer_their_tokens_gather() -> None:
    streams: set[Pace] = set()
    paces = [Pace(streams) for _ in range(50)]
    for pace in paces:
        pace.passed()
    assert paces[0].hold_s == LONGEST_HOLD_S
    for pace in paces[4:]:
        pace.ended()
    assert paces[0].hold_s == pytest.approx(0.009)
    for pace in paces[1:4]:
        pace.ended()
    assert paces[0].hold_s == 0


async def test_tokens_gather_while_other_answers_are_streamed() -> None:
    ended, streams = asyncio.Event(), set[Pace]()

    async def lasting() -> AsyncGenerator[Delta, None]:
        yield delta("a")
        await ended.wait()
        yield LAST

    others = [joined(lasting(), Pace(streams)) for _ in range(39)]
    for other in others:
        assert await anext(other) == delta("a")

    async def evenly() -> AsyncGenerator[Delta, None]:  # as a socket: what has come meanwhile is there at once
        begun, sent = time.perf_counter(), 0
        while sent < 40:
            await asyncio.sleep(0.005)
            while sent < min(40, (time.perf_counter() - begun) / 0.005):
                sent += 1
                yield delta("x")

    under_load = [one async for one in joined(evenly(), Pace(streams))]
    assert "".join(one["choices"][0]["delta"]["content"] for one in under_load) == "x" * 40
    assert len(under_load) < 10
    ended.set()
    for other in others:
        assert [one async for one in other] == [LAST]
    assert not streams


async def test_the_first_words_are_not_held_up() -> None:
    held: list[Delta] = []

    class Watched(Pace):
        async def hold(self) -> None:
            held.append(come[-1])

    async def coming() -> AsyncGenerator[Delta, None]:
        for one in (delta(role="assistant"), delta("One"), delta(" two"), delta(" three"), LAST):
            come.append(one)
            yield one

    come: list[Delta] = []
    got = [one async for one in joined(coming(), Watched(set()))]
    assert "".join(one["choices"][0]["delta"].get("content", "") for one in got) == "One two three"
    assert held == [delta(" two"), delta(" three"), LAST]


async def test_a_stream_that_is_held_up_is_left_unread(monkeypatch: pytest.MonkeyPatch) -> None:
    async def paced(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n")
        for one in [*[delta("x")] * 60, LAST]:
            writer.write(b"data: " + json.dumps(one).encode() + b"\n\n")
            await asyncio.sleep(0.005)
        writer.write(b"data: [DONE]\n\n")
        writer.close()

    holds = reads = 0
    is_held, really, unread = False, ResponseHandler.data_received, deltas._unread

    def read(self: ResponseHandler, data: bytes) -> None:
        nonlocal reads
        reads += is_held
        really(self, data)

    @contextmanager
    def watched(response: httpx2.Response | None) -> Iterator[None]:
        nonlocal holds, is_held
        with unread(response):
            holds, is_held = holds + 1, True
            yield
            is_held = False

    monkeypatch.setattr(ResponseHandler, "data_received", read)
    monkeypatch.setattr(deltas, "_unread", watched)
    monkeypatch.setattr(Pace, "hold_s", LONGEST_HOLD_S)
    server = await asyncio.start_server(paced, "127.0.0.1", 0)
    async with server, asyncio.timeout(60):
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"
        settings = Settings(_env_file=None, chat_model="openai:m", openai_base_url=url)  # type: ignore[call-arg]
        async with open_chat_models(settings) as models:
            assert "".join([piece.text async for piece in models.get().astream("How high is the tower?")]) == "x" * 60
    assert holds
    assert not reads


async def test_what_is_not_plain_text_stays_alone() -> None:
    tool = delta("x", tool_calls=[{"index": 0}])
    usage: Delta = {"choices": [], "usage": {"total_tokens": 3}}
    second = {"id": "1", "choices": [{"index": 1, "delta": {"content": "other"}, "finish_reason": None}]}
    sent = [delta("a"), tool, delta("b", "stop"), second, usage]
    assert [one async for one in joined(stream(sent, [False] * 5))] == [delta("a"), {
        "id": "1", "choices": [{"index": 0, "delta": {"content": "xb", "tool_calls": [{"index": 0}]}, "finish_reason": "stop"}],
    }, second, usage]  # fmt: skip


async def test_a_fault_comes_after_everything_before_it() -> None:
    async def broken() -> AsyncGenerator[Delta, None]:
        yield delta("a")
        raise ConnectionError("gone")

    reading = joined(broken())
    assert await anext(reading) == delta("a")
    with pytest.raises(ConnectionError, match="gone"):
        await anext(reading)


async def test_leaving_ends_the_reading() -> None:
    ended = asyncio.Event()

    async def endless() -> AsyncGenerator[Delta, None]:
        try:
            yield delta("a")
            await asyncio.Event().wait()
        finally:
            ended.set()

    reading = joined(endless())
    await anext(reading)
    await reading.aclose()
    assert ended.is_set()


async def test_leaving_while_a_token_is_held_back_ends_the_reading_too(monkeypatch: pytest.MonkeyPatch) -> None:
    held, ended = asyncio.Event(), asyncio.Event()

    async def hold(_: Pace) -> None:
        held.set()
        await asyncio.Event().wait()

    async def endless() -> AsyncGenerator[Delta, None]:
        try:
            while True:
                yield delta("a")
        finally:
            ended.set()

    monkeypatch.setattr(Pace, "hold", hold)
    reading = joined(endless())
    await anext(reading)
    await held.wait()
    await reading.aclose()
    assert ended.is_set()


@given(st.lists(st.tuples(st.text(max_size=4), st.booleans(), st.sampled_from(["text", "tool", "usage"])), max_size=30))
def test_no_text_is_lost_or_reordered(pieces: list[tuple[str, bool, str]]) -> None:
    more: dict[str, dict[str, object]] = {"text": {}, "tool": {"tool_calls": [{}]}, "usage": {}}
    sent = [delta(text, **more[kind]) | ({"usage": {"n": 1}} if kind == "usage" else {}) for text, _, kind in pieces]

    async def run() -> list[Delta]:
        return [one async for one in joined(stream(sent, [pause for _, pause, _ in pieces]))]

    got = asyncio.run(run())
    assert "".join(one["choices"][0]["delta"]["content"] for one in got) == "".join(text for text, _, _ in pieces)
    assert sum("usage" in one for one in got) == sum(kind == "usage" for _, _, kind in pieces)


async def test_a_queue_ends_after_what_waits() -> None:
    queue: JoiningQueue[int] = JoiningQueue(lambda last, new: last + new if new < 10 else None)
    for number in (1, 2, 30, 4):
        queue.put(number)
    queue.end()
    assert [number async for number in queue] == [3, 34]


class Sent(httpx2.AsyncByteStream):
    """A body in pieces; None: nothing more comes, though the connection stays."""

    def __init__(self, pieces: Sequence[bytes | None]) -> None:
        self._pieces = pieces

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for piece in self._pieces:
            if piece is None:
                await asyncio.Event().wait()
            else:
                yield piece


async def received(*pieces: bytes | None) -> list[Delta]:
    request = httpx2.Request("POST", "http://127.0.0.1/v1/chat/completions")
    response = httpx2.Response(200, stream=Sent(pieces), request=request)
    async with asyncio.timeout(60):
        return [one async for one in deltas_of(response)]


@given(
    st.lists(st.text(max_size=5), max_size=6),
    st.sampled_from(["\n", "\r\n", "\r"]),
    st.lists(st.integers(0, 400), max_size=8),
)
def test_a_stream_reads_the_same_however_its_bytes_are_cut(words: list[str], end: str, cuts: list[int]) -> None:
    sent = [delta(word) for word in words]
    events = [f": still here{end}{end}", *(f"event: x{end}data: {json.dumps(one)}{end}{end}" for one in sent)]
    body = "".join([*events, f"data: {json.dumps(LAST)}{end}{end}", f"data: [DONE]{end}{end}"]).encode()
    bounds = sorted({0, *(cut for cut in cuts if cut < len(body)), len(body)})
    pieces = [body[left:right] for left, right in pairwise(bounds)]
    assert asyncio.run(received(*pieces)) == [*sent, LAST]


async def test_a_stream_ends_when_it_says_so() -> None:
    assert await received(b'data: {"a": 1}\n\ndata: [DONE]\n\n', None) == [{"a": 1}]
    whole = delta("a", "stop")
    assert await received(b"data: " + json.dumps(whole).encode() + b"\n\n") == [whole]  # some never say [DONE]


@pytest.mark.parametrize(
    "body", [b"", b"data: [DONE]\n\n", b"<html>Sign in</html>", b'data: {"a":\ndata: 1}\n\ndata: {"b"']
)
async def test_one_that_ends_in_good_order_before_the_answer_does_is_no_answer(body: bytes) -> None:
    with pytest.raises(openai.APIConnectionError, match="before the answer did"):
        await received(body)


@pytest.mark.parametrize(
    ("data", "fault"),
    [
        (b'{"error": {"message": "out of memory"}}', "out of memory"),
        (b'{"error": "no"}', "An error occurred"),
        (b"<html>", "not a JSON object"),
        (b"[1]", "not a JSON object"),
        (b'{"choices": [null]}', "choices that are none"),
        (b'{"choices": {"delta": {}}}', "choices that are none"),
        (b'{"choices": [{"delta": "a"}]}', "choices that are none"),
    ],
)
async def test_a_stream_that_goes_wrong_says_so(data: bytes, fault: str) -> None:
    with pytest.raises(openai.APIError, match=fault):
        await received(b"data: " + data + b"\n\n")


async def test_an_event_without_an_end_is_not_read_on() -> None:
    read = 0

    async def endless() -> AsyncIterator[bytes]:
        nonlocal read
        yield b"data: "
        while True:
            read += 16_384
            yield b"a" * 16_384

    request = httpx2.Request("POST", "http://127.0.0.1/v1/chat/completions")
    with pytest.raises(openai.APIResponseValidationError, match="1,000,000 bytes"):
        _ = [one async for one in deltas_of(httpx2.Response(200, content=endless(), request=request))]
    assert read < 1_100_000


@pytest.mark.parametrize("status", [200, 500])
async def test_a_body_without_an_end_is_not_read_on(status: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("citewell.models.deltas.MOST_BYTES", 1_000_000)
    sent = 0

    async def endless(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        await reader.readuntil(b"\r\n\r\n")
        writer.write(f"HTTP/1.1 {status} Told\r\ncontent-type: application/json\r\n\r\n[".encode())
        try:
            while True:
                sent += 10_000
                writer.write(b" " * 10_000)
                await writer.drain()
        except ConnectionError:
            writer.close()

    server = await asyncio.start_server(endless, "127.0.0.1", 0)
    async with server, asyncio.timeout(60):
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"
        settings = Settings(_env_file=None, chat_model="openai:m", openai_base_url=url)  # type: ignore[call-arg]
        async with open_chat_models(settings) as models:
            with pytest.raises(ModelUnavailable), map_model_errors():
                await models.get().ainvoke("How high is the tower?")
    assert sent < 50_000_000

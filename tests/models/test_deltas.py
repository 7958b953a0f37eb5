"""Streams that join what waits: nothing is lost or changed, whatever comes and however slowly it is read."""

import asyncio
import time
from collections.abc import AsyncIterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from citewell.joining import JoiningQueue
from citewell.models.deltas import LONGEST_HOLD_S, Delta, Pace, joined


def delta(content: str | None = None, finish: str | None = None, **more: object) -> Delta:
    text = {} if content is None else {"content": content}
    return {"id": "1", "choices": [{"index": 0, "delta": text | more, "finish_reason": finish}]}


async def stream(deltas: list[Delta], pauses: list[bool]) -> AsyncIterator[Delta]:
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

    async def slowly() -> AsyncIterator[Delta]:
        for _ in range(3):
            yield await arrived.get()

    reading = joined(slowly())
    for token in "abc":
        arrived.put_nowait(delta(token))
        async with asyncio.timeout(5):
            assert await anext(reading) == delta(token)
    await reading.aclose()


async def test_tokens_gather_while_the_event_loop_is_late() -> None:
    async def evenly() -> AsyncIterator[Delta]:  # as a socket: what has come meanwhile is there at once
        begun, sent = time.perf_counter(), 0
        while sent < 40:
            await asyncio.sleep(0.005)
            while sent < min(40, (time.perf_counter() - begun) / 0.005):
                sent += 1
                yield delta("x")

    async def busy() -> None:
        while True:
            time.sleep(0.004)  # what makes a loop late
            await asyncio.sleep(0)

    idle = [one async for one in joined(evenly())]
    working = asyncio.create_task(busy())
    under_load = [one async for one in joined(evenly())]
    working.cancel()
    for got in (idle, under_load):
        assert "".join(one["choices"][0]["delta"]["content"] for one in got) == "x" * 40
    assert len(under_load) < 10
    assert len(under_load) < len(idle)


async def test_the_first_words_are_not_held_up() -> None:
    pace = Pace()
    await pace.hold()
    begun = time.perf_counter()
    for _ in range(20):
        await pace.hold()
    assert time.perf_counter() - begun < LONGEST_HOLD_S


async def test_what_is_not_plain_text_stays_alone() -> None:
    tool = delta("x", tool_calls=[{"index": 0}])
    usage: Delta = {"choices": [], "usage": {"total_tokens": 3}}
    second = {"id": "1", "choices": [{"index": 1, "delta": {"content": "other"}, "finish_reason": None}]}
    sent = [delta("a"), tool, delta("b", "stop"), second, usage]
    assert [one async for one in joined(stream(sent, [False] * 5))] == [delta("a"), {
        "id": "1", "choices": [{"index": 0, "delta": {"content": "xb", "tool_calls": [{"index": 0}]}, "finish_reason": "stop"}],
    }, second, usage]  # fmt: skip


async def test_a_fault_comes_after_everything_before_it() -> None:
    async def broken() -> AsyncIterator[Delta]:
        yield delta("a")
        raise ConnectionError("gone")

    reading = joined(broken())
    assert await anext(reading) == delta("a")
    with pytest.raises(ConnectionError, match="gone"):
        await anext(reading)


async def test_leaving_ends_the_reading() -> None:
    ended = asyncio.Event()

    async def endless() -> AsyncIterator[Delta]:
        try:
            yield delta("a")
            await asyncio.Event().wait()
        finally:
            ended.set()

    reading = joined(endless())
    await anext(reading)
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

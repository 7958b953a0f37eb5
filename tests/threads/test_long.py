"""A conversation of a thousand turns: cheap to go on with, whole to read, linear to keep."""

from __future__ import annotations

import itertools
import statistics
import time
from typing import Any

import pytest
import redis
from langchain_core.messages import AIMessage, HumanMessage

from citewell.settings import Settings
from citewell.threads import RedisSaver, Threads, open_threads
from citewell.wiring import open_service
from tests.service import LIBRARY, ingest
from tests.threads.echo_graph import ask, config, contents, talk, transcript

WORDS = "the keeper wrote down the wind and the weather " * 11


async def turn_s(threads: Threads, name: str, thread: str = "t") -> float:
    """CPU of this process for one turn of a graph that does nothing, in seconds."""
    began = time.process_time()
    async with threads.turn(thread) as held:
        app = talk().compile(checkpointer=threads.checkpointer)
        await app.ainvoke(ask(f"{name} {WORDS}"), {"configurable": held.config}, durability="sync")
    return time.process_time() - began


async def test_a_turn_on_a_thread_of_a_thousand_costs_milliseconds_more_than_on_a_new_one(
    redis_url: str, tmp_path: Any
) -> None:
    async with open_threads(Settings(data_dir=tmp_path, redis_url=redis_url)) as threads:
        app = talk().compile(checkpointer=threads.checkpointer)
        for start in range(0, 980, 98):
            said = [
                message
                for number in range(start, start + 98)
                for message in (HumanMessage(f"{number} {WORDS}", id=f"h{number}"), AIMessage(f"re: {number} {WORDS}", id=f"i{number}"))
            ]  # fmt: skip
            await app.aupdate_state(config("t"), {"messages": said}, as_node="answer")
        early, late = [], []
        for number in range(20):  # in turn, so that whatever else the machine does meets both
            early.append(await turn_s(threads, f"early {number}", "new"))
            late.append(await turn_s(threads, f"late {number}"))
        assert len(await transcript(threads, "t")) == 2 * 1000
        print(f"CPU of a turn, ms: {min(early) * 1000:.1f} early, {min(late) * 1000:.1f} after 1,000 turns")
        extra_ms = (min(late) - min(early)) * 1000
        assert extra_ms < 20, "a turn with retrieval and reranking takes 40 and more"


async def test_what_a_turn_adds_does_not_depend_on_what_came_before(redis_url: str, tmp_path: Any) -> None:
    async with open_threads(Settings(data_dir=tmp_path, redis_url=redis_url)) as threads:
        sizes = []
        for number in range(120):
            await turn_s(threads, str(number))
            if number % 20 == 19:
                with redis.Redis.from_url(redis_url) as client:
                    fields = client.hgetall("citewell:thread:t")
                sizes.append(sum(len(name) + len(value) for name, value in fields.items()))
    added = [later - earlier for earlier, later in itertools.pairwise(sizes)]
    assert max(added) < 1.05 * min(added)


@pytest.mark.slow
@pytest.mark.timeout(600)
async def test_a_thousand_turns_one_by_one(redis_url: str, tmp_path: Any) -> None:
    async with open_threads(Settings(data_dir=tmp_path, redis_url=redis_url)) as threads:
        spent = [await turn_s(threads, str(number)) for number in range(1000)]
        info = await threads.info("t")
        assert info is not None
    tenth, last = statistics.median(spent[5:15]), statistics.median(spent[-10:])
    print(f"CPU of a turn, ms: {tenth * 1000:.1f} at 10, {last * 1000:.1f} at 1,000; {info.size_bytes:,} bytes")
    assert last - tenth < 0.02
    assert info.size_bytes < 15_000_000
    async with RedisSaver.from_conn_string(redis_url) as cold:
        state = await talk().compile(checkpointer=cold).aget_state(config("t"))
    assert contents(state.values) == [
        said for number in range(1000) for said in (f"{number} {WORDS}", f"re: {number} {WORDS}")
    ]


@pytest.mark.slow
@pytest.mark.timeout(600)
async def test_the_service_is_not_slower_by_half_after_a_thousand_turns(redis_url: str, tmp_path: Any) -> None:
    """The whole turn, without a chat model: the built-in answerer quotes."""
    ingest(tmp_path / "data", LIBRARY)
    async with open_service(Settings(data_dir=tmp_path / "data", redis_url=redis_url)) as service:

        async def seconds(number: int) -> float:
            began = time.process_time()
            await service.ask(service.prepare(question=f"How tall is lighthouse {number}?", thread_id="t"))
            return time.process_time() - began

        early = statistics.median([await seconds(number) for number in range(20)][5:15])
        for start in range(0, 980, 98):
            said = [
                message
                for number in range(start, start + 98)
                for message in (HumanMessage(f"{number} {WORDS}", id=f"h{number}"), AIMessage(f"re: {number} {WORDS}", id=f"i{number}"))
            ]  # fmt: skip
            update = {"messages": said, "summary": "so far", "summarized": 2 * (start + 98)}
            await service.graph.aupdate_state(config("t"), update, as_node="verify")
        late = statistics.median([await seconds(number) for number in range(20, 35)])
        print(f"a turn of the service, ms: {early * 1000:.1f} at 10, {late * 1000:.1f} after 1,000")
    assert late < 1.5 * early

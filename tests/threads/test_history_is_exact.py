"""Whatever InMemorySaver would remember, RedisSaver and SqliteSaver remember: history, forks, interrupts, writes, delta channels."""

from __future__ import annotations

import asyncio
import multiprocessing
import operator
from typing import Annotated, Any

import hypothesis.strategies as st
import pytest
from hypothesis import HealthCheck, given, settings
from langchain_core.messages import AIMessage, AnyMessage, HumanMessage, RemoveMessage
from langgraph.channels import DeltaChannel
from langgraph.checkpoint.base import BaseCheckpointSaver, CheckpointTuple
from langgraph.checkpoint.base import id as drawing
from langgraph.checkpoint.conformance.test_utils import generate_checkpoint, generate_metadata
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import END, START, StateGraph
from langgraph.graph.message import add_messages
from langgraph.types import Command, Send, interrupt
from typing_extensions import TypedDict

from citewell.threads import RedisSaver
from citewell.threads.redis_saver import fresh_generation
from tests.threads.conftest import OpenSaver
from tests.threads.echo_graph import ask, config, contents, talk

Saver = BaseCheckpointSaver[Any]


def essence(found: CheckpointTuple) -> dict[str, Any]:
    """A checkpoint without what differs between any two runs: ids, times, versions."""
    return {
        "values": found.checkpoint["channel_values"],
        "step": found.metadata["step"],
        "source": found.metadata["source"],
        "writes": [(channel, value) for _, channel, value in found.pending_writes or ()],
        "seen": {node: sorted(seen) for node, seen in found.checkpoint["versions_seen"].items()},
        "channels": sorted(found.checkpoint["channel_versions"]),
        "has_parent": found.parent_config is not None,
    }


async def whole(saver: Saver, thread: str = "t") -> list[dict[str, Any]]:
    return [essence(found) async for found in saver.alist(config(thread))]


class Wide(TypedDict, total=False):
    messages: Annotated[list[AnyMessage], add_messages]
    log: Annotated[list[str], operator.add]
    last: AnyMessage
    blob: bytes


def wide() -> StateGraph[Wide]:
    """Parallel branches, a single message in a channel, bytes, messages that are edited and removed."""

    def fan(state: Wide) -> list[Send]:
        return [Send("worker", {"log": [str(n)], "messages": state["messages"]}) for n in range(3)]

    async def worker(state: Wide) -> dict[str, Any]:
        return {"log": [f"w{state['log'][0]}-{len(state['messages'])}"]}

    async def join(state: Wide) -> dict[str, Any]:
        number = len(state["messages"])
        reply = AIMessage("x" * number, id=f"a{number}", additional_kwargs={"citations": [{"marker": 1, "score": 0.5}]})
        update: list[Any] = [reply]
        if number % 3 == 2:
            update.append(RemoveMessage(id=state["messages"][0].id or ""))
        if number % 4 == 3:
            update.append(HumanMessage("edited", id=state["messages"][-1].id))
        return {"messages": update, "last": reply, "blob": bytes([number % 256])}

    graph = StateGraph(Wide)
    graph.add_node("worker", worker)
    graph.add_node("join", join)
    graph.add_conditional_edges(START, fan, ["worker"])
    graph.add_edge("worker", "join")
    graph.add_edge("join", END)
    return graph


@pytest.mark.parametrize("durability", ["sync", "async", "exit"])
async def test_every_checkpoint_equals_the_one_in_memory(either: Saver, durability: Any) -> None:
    memory = InMemorySaver()
    for number in range(8):
        for one in (memory, either):
            await (
                wide()
                .compile(checkpointer=one)
                .ainvoke(
                    {"messages": [HumanMessage(f"q{number}", id=f"q{number}")]}, config("t"), durability=durability
                )
            )
    assert await whole(either) == await whole(memory)
    assert len(await whole(either)) == (8 if durability == "exit" else 32)


async def test_a_second_process_reads_the_same_as_the_first(either: Saver, open_saver: OpenSaver) -> None:
    app = wide().compile(checkpointer=either)
    for number in range(6):
        await app.ainvoke({"messages": [HumanMessage(f"q{number}", id=f"q{number}")]}, config("t"), durability="sync")
    async with open_saver() as cold:
        assert await whole(cold) == await whole(either)


async def test_two_workers_taking_turns_lose_nothing(either: Saver, open_saver: OpenSaver) -> None:
    async with open_saver() as other:
        apps = [talk().compile(checkpointer=one) for one in (either, other)]
        for number in range(10):
            await apps[number % 2].ainvoke(ask(str(number)), config("t"), durability="sync")
        expected = [text for number in range(10) for text in (str(number), f"re: {number}")]
        for app in apps:
            assert contents((await app.aget_state(config("t"))).values) == expected


async def test_a_fork_leaves_the_branch_it_came_from_as_it_was(either: Saver) -> None:
    app = talk().compile(checkpointer=either)
    for text in ("a", "b", "c"):
        await app.ainvoke(ask(text), config("t"), durability="sync")
    history = [state async for state in app.aget_state_history(config("t"))]
    before = {
        state.config["configurable"]["checkpoint_id"]: contents(state.values) for state in history if state.values
    }
    after_a = next(
        state for state in history if state.values and contents(state.values) == ["a", "re: a"] and not state.next
    )

    forked = await app.aupdate_state(
        after_a.config, {"messages": [HumanMessage("fork", id="q-fork")]}, as_node="answer"
    )
    await app.ainvoke(ask("d"), forked, durability="sync")
    await app.ainvoke(ask("e"), after_a.config, durability="sync")

    assert contents((await app.aget_state(config("t"))).values) == ["a", "re: a", "e", "re: e"]
    branches = [contents(state.values) async for state in app.aget_state_history(config("t")) if state.values]
    assert ["a", "re: a", "fork", "d", "re: d"] in branches
    for checkpoint_id, expected in before.items():
        state = await app.aget_state(config("t", checkpoint_id=checkpoint_id))
        assert contents(state.values) == expected


async def test_an_interrupted_run_resumes(either: Saver, open_saver: OpenSaver) -> None:
    class Asked(TypedDict, total=False):
        messages: Annotated[list[AnyMessage], add_messages]
        answer: str

    async def approve(state: Asked) -> dict[str, Any]:
        return {"answer": interrupt({"question": state["messages"][-1].content})}

    graph = StateGraph(Asked)
    graph.add_node("approve", approve)
    graph.add_edge(START, "approve")
    await graph.compile(checkpointer=either).ainvoke(ask("may I?"), config("t"), durability="sync")
    async with open_saver() as later:
        app = graph.compile(checkpointer=later)
        state = await app.aget_state(config("t"))
        assert [stop.value for stop in state.interrupts] == [{"question": "may I?"}]
        result = await app.ainvoke(Command(resume="yes"), config("t"), durability="sync")
    assert result["answer"] == "yes"


async def test_a_task_that_finished_before_the_crash_does_not_run_again(either: Saver, open_saver: OpenSaver) -> None:
    runs: list[str] = []
    broken = [True]

    class Both(TypedDict, total=False):
        log: Annotated[list[str], operator.add]

    async def good(state: Both) -> dict[str, Any]:
        runs.append("good")
        return {"log": ["good"]}

    async def bad(state: Both) -> dict[str, Any]:
        runs.append("bad")
        if broken[0]:
            await asyncio.sleep(0.1)  # the other task is done and its writes are stored
            raise RuntimeError("crash")
        return {"log": ["bad"]}

    graph = StateGraph(Both)
    graph.add_node("good", good)
    graph.add_node("bad", bad)
    graph.add_edge(START, "good")
    graph.add_edge(START, "bad")
    with pytest.raises(RuntimeError, match="crash"):
        await graph.compile(checkpointer=either).ainvoke({"log": []}, config("t"), durability="sync")
    broken[0] = False
    async with open_saver() as later:
        result = await graph.compile(checkpointer=later).ainvoke(None, config("t"), durability="sync")
    assert sorted(result["log"]) == ["bad", "good"]
    assert runs == ["good", "bad", "bad"] or runs == ["bad", "good", "bad"]


def appended(state: list[Any], writes: list[list[Any]]) -> list[Any]:
    return [*state, *(item for write in writes for item in write)]


@pytest.mark.parametrize("durability", ["sync", "exit"])
async def test_a_delta_channel_is_rebuilt_in_one_round_trip(saver: RedisSaver, durability: Any) -> None:
    class Delta(TypedDict, total=False):
        log: Annotated[list[str], DeltaChannel(appended, snapshot_frequency=1000)]

    async def work(state: Delta) -> dict[str, Any]:
        return {"log": [f"n{len(state['log'])}"]}

    graph = StateGraph(Delta)
    graph.add_node("work", work)
    graph.add_edge(START, "work")
    memory = InMemorySaver()
    for number in range(12):
        for one in (memory, saver):
            await graph.compile(checkpointer=one).ainvoke({"log": [f"q{number}"]}, config("t"), durability=durability)
    states = [(await graph.compile(checkpointer=one).aget_state(config("t"))).values for one in (memory, saver)]
    assert states[0] == states[1]
    assert len(states[1]["log"]) == 24

    before = saver.connection.calls
    ours = await saver.aget_delta_channel_history(config=config("t"), channels=["log"])
    assert saver.connection.calls - before == 1
    theirs = await memory.aget_delta_channel_history(config=config("t"), channels=["log"])
    assert [value for _, _, value in ours["log"]["writes"]] == [value for _, _, value in theirs["log"]["writes"]]
    assert ("seed" in ours["log"]) == ("seed" in theirs["log"])


async def test_pruning_keeps_what_a_delta_channel_is_rebuilt_from(either: Saver) -> None:
    class Delta(TypedDict, total=False):
        log: Annotated[list[str], DeltaChannel(appended, snapshot_frequency=4)]

    async def work(state: Delta) -> dict[str, Any]:
        return {"log": [f"n{len(state['log'])}"]}

    graph = StateGraph(Delta)
    graph.add_node("work", work)
    graph.add_edge(START, "work")
    app = graph.compile(checkpointer=either)
    for number in range(9):
        await app.ainvoke({"log": [f"q{number}"]}, config("t"), durability="sync")
    before = (await app.aget_state(config("t"))).values
    many = len(await whole(either))
    await either.aprune(["t"])
    assert (await app.aget_state(config("t"))).values == before
    assert len(await whole(either)) < many / 2
    await app.ainvoke({"log": ["after"]}, config("t"), durability="sync")
    assert (await app.aget_state(config("t"))).values["log"][:-1] == [*before["log"], "after"]


async def test_pruning_keeps_the_transcript_and_gives_back_the_space(saver: RedisSaver) -> None:
    app = talk().compile(checkpointer=saver)
    for number in range(30):
        await app.ainvoke(ask(str(number)), config("t"), durability="sync")
    before = contents((await app.aget_state(config("t"))).values)
    size = await saver.connection.command("MEMORY", "USAGE", saver.key("t"), "SAMPLES", 0)
    await saver.aprune(["t"])
    assert await saver.connection.command("MEMORY", "USAGE", saver.key("t"), "SAMPLES", 0) < size / 3
    assert contents((await app.aget_state(config("t"))).values) == before
    await app.ainvoke(ask("more"), config("t"), durability="sync")
    assert contents((await app.aget_state(config("t"))).values) == [*before, "more", "re: more"]


async def test_what_another_process_has_pruned_is_sent_anew(open_saver: OpenSaver) -> None:
    async with open_saver() as one, open_saver() as other, open_saver() as cold:
        here, there, afterwards = (talk().compile(checkpointer=saver) for saver in (one, other, cold))
        for number in range(2):
            await here.ainvoke(ask(str(number)), config("t"), durability="sync")
        await there.aupdate_state(config("t"), {"messages": [RemoveMessage("q-0")]}, as_node="answer")
        await other.aprune(["t"])
        await here.aupdate_state(config("t"), ask("0"), as_node="answer")
        assert contents((await afterwards.aget_state(config("t"))).values) == ["re: 0", "1", "re: 1", "0"]


async def test_a_copied_thread_goes_its_own_way(either: Saver) -> None:
    app = talk().compile(checkpointer=either)
    await app.ainvoke(ask("a"), config("from"), durability="sync")
    await either.acopy_thread("from", "to")
    assert await whole(either, "to") == await whole(either, "from")
    await app.ainvoke(ask("b"), config("to"), durability="sync")
    assert contents((await app.aget_state(config("from"))).values) == ["a", "re: a"]
    assert contents((await app.aget_state(config("to"))).values) == ["a", "re: a", "b", "re: b"]


IDS = [
    "a:b", "a b", "{x}", "}{", "{}", "a*?[b]", "Ünïcode 漢字 🙂", "", "%7B", "a/b\\c", "line\nbreak", "k" * 1024,
]  # fmt: skip


async def test_any_text_is_a_thread_id(either: Saver) -> None:
    ids = [*IDS, "\ud800"] if isinstance(either, RedisSaver) else IDS  # half a character: bytes to Redis alone
    app = talk().compile(checkpointer=either)
    for number, thread in enumerate(ids):
        await app.ainvoke(ask(str(number)), config(thread), durability="sync")
    for number, thread in enumerate(ids):
        assert contents((await app.aget_state(config(thread))).values) == [str(number), f"re: {number}"]
    listed = {found.config["configurable"]["thread_id"] async for found in either.alist(None)}
    assert listed == set(ids)
    for number, thread in enumerate(ids):
        await either.adelete_thread(thread)
        left = {found.config["configurable"]["thread_id"] async for found in either.alist(None)}
        assert left == set(ids[number + 1 :])
    if isinstance(either, RedisSaver):
        assert [key async for key in either.connection.keys(b"")] == []


names = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), min_size=1, max_size=40)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(thread=names, ns=names, channel=names, value=st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False) | st.text() | st.binary(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=10,
))  # fmt: skip
async def test_any_value_under_any_name_comes_back(
    saver: RedisSaver, thread: str, ns: str, channel: str, value: Any
) -> None:
    version = saver.get_next_version(None, None)
    point = generate_checkpoint(channel_values={channel: value}, channel_versions={channel: version})
    stored = await saver.aput(config(thread, checkpoint_ns=ns), point, generate_metadata(), {channel: version})
    await saver.aput_writes(stored, [(channel, value), (channel, [value])], "task", "path")
    found = await saver.aget_tuple(stored)
    assert found is not None
    assert found.checkpoint["channel_values"] == {channel: value}
    assert [write[:2] for write in found.pending_writes or ()] == [("task", channel)] * 2


async def test_each_message_is_stored_once(saver: RedisSaver, redis_url: str) -> None:
    app = talk().compile(checkpointer=saver)
    marks = [f"needle-{number}-" for number in range(10)]
    for mark in marks:
        await app.ainvoke(ask(mark), config("t"), durability="sync")
    fields = await saver.connection.command("HGETALL", saver.key("t"))
    for mark in marks:
        messages = [name for name, value in fields.items() if name[:1] == b"m" and mark.encode() in value]
        assert len(messages) == 2, "the question, and the answer that repeats it"
    assert len([name for name in fields if name[:1] == b"m"]) == 20


async def test_a_message_changed_in_place_harms_nobody(saver: RedisSaver) -> None:
    app = talk().compile(checkpointer=saver)
    await app.ainvoke(ask("a"), config("t"), durability="sync")
    state = await app.aget_state(config("t"))
    state.values["messages"][0].content = "vandalised"
    state.values["messages"][1].additional_kwargs["deep"] = {"er": [1]}
    again = (await app.aget_state(config("t"))).values["messages"]
    assert [message.content for message in again] == ["a", "re: a"]
    assert again[1].additional_kwargs == {}
    again[1].additional_kwargs["deep"] = {"er": [1]}
    again = (await app.aget_state(config("t"))).values["messages"]
    assert again[1].additional_kwargs == {}


async def test_a_node_that_edits_a_message_in_place_is_stored_as_it_left_it(saver: RedisSaver, redis_url: str) -> None:
    class Edited(TypedDict, total=False):
        messages: Annotated[list[AnyMessage], add_messages]

    async def edit(state: Edited) -> dict[str, Any]:
        message = state["messages"][-1]
        message.additional_kwargs["checked"] = True
        return {"messages": [message]}

    graph = StateGraph(Edited)
    graph.add_node("edit", edit)
    graph.add_edge(START, "edit")
    await graph.compile(checkpointer=saver).ainvoke(ask("a"), config("t"), durability="sync")
    async with RedisSaver.from_conn_string(redis_url) as cold:
        state = await graph.compile(checkpointer=cold).aget_state(config("t"))
    assert state.values["messages"][0].additional_kwargs == {"checked": True}


async def test_checkpoints_that_arrive_late_take_their_place_and_not_the_newest(either: Saver) -> None:
    points = [generate_checkpoint() for _ in range(3)]
    for number in (1, 2, 0):
        await either.aput(config("t", checkpoint_ns=""), points[number], generate_metadata(), {})
    newest = await either.aget_tuple(config("t"))
    assert newest is not None
    assert newest.checkpoint["id"] == points[2]["id"]
    listed = [found.checkpoint["id"] async for found in either.alist(config("t"))]
    assert listed == [point["id"] for point in reversed(points)]


async def test_what_is_said_is_the_newest_though_the_clock_of_the_process_before_was_ahead(
    either: Saver, monkeypatch: pytest.MonkeyPatch
) -> None:
    app = talk().compile(checkpointer=either)
    monkeypatch.setattr(drawing, "_last_v6_timestamp", drawing.uuid6().time + 36_000_000_000)  # by an hour
    await app.ainvoke(ask("0"), config("t"))
    monkeypatch.setattr(drawing, "_last_v6_timestamp", None)  # as in another process, whose clock is right
    await app.ainvoke(ask("1"), config("t"))
    assert contents((await app.aget_state(config("t"))).values) == ["0", "re: 0", "1", "re: 1"]


async def test_a_write_is_stored_as_it_was_when_it_was_written(saver: RedisSaver) -> None:
    stored = await saver.aput(config("t", checkpoint_ns=""), generate_checkpoint(), generate_metadata(), {})
    value = ["first"]
    writing = asyncio.create_task(saver.aput_writes(stored, [("log", value)], "task"))
    await asyncio.sleep(0)
    value.append("a reducer that works in place")
    await writing
    found = await saver.aget_tuple(stored)
    assert found is not None
    assert found.pending_writes == [("task", "log", ["first"])]


async def test_a_turn_costs_two_round_trips_on_exit_and_one_a_checkpoint_in_sync(redis_url: str) -> None:
    # On a busy machine five milliseconds may pass between two steps of one coroutine.
    async with RedisSaver.from_conn_string(redis_url, linger_s=0.5) as saver:
        app = talk().compile(checkpointer=saver)
        await app.ainvoke(ask("warm"), config("t"), durability="sync")
        before = saver.connection.calls
        await app.ainvoke(ask("a"), config("t"), durability="exit")
        assert saver.connection.calls - before == 2
        before = saver.connection.calls
        await app.ainvoke(ask("b"), config("t"), durability="sync")
        assert saver.connection.calls - before == 1 + 4, "one read; input, start and two nodes"


async def test_the_list_comes_in_batches(saver: RedisSaver) -> None:
    app = talk().compile(checkpointer=saver)
    for number in range(30):
        await app.ainvoke(ask(str(number)), config("t"), durability="sync")
    before = saver.connection.calls
    assert len([found async for found in saver.alist(config("t"))]) == 120
    assert saver.connection.calls - before == 3
    before = saver.connection.calls
    assert len([found async for found in saver.alist(config("t"), limit=5)]) == 5
    assert saver.connection.calls - before == 1


def test_the_saver_works_without_an_event_loop(redis_url: str) -> None:
    class Sum(TypedDict, total=False):
        total: Annotated[int, operator.add]

    graph = StateGraph(Sum)
    graph.add_node("one", lambda state: {"total": 1})
    graph.add_edge(START, "one")
    with RedisSaver.from_conn_string(redis_url) as saver:
        app = graph.compile(checkpointer=saver)
        for _ in range(3):
            app.invoke({"total": 0}, config("t"), durability="sync")
        assert app.get_state(config("t")).values == {"total": 3}
        assert len(list(saver.list(config("t")))) == 9
        assert len(list(saver.list(config("t"), limit=2))) == 2
        saver.copy_thread("t", "u")
        saver.prune(["u"])
        assert len(list(saver.list(config("u")))) == 1
        saver.delete_thread("t")
        assert saver.get_tuple(config("t")) is None


async def test_blocking_the_loop_the_saver_works_on_is_refused(saver: RedisSaver) -> None:
    with pytest.raises(asyncio.InvalidStateError, match="aget_tuple"):
        saver.get_tuple(config("t"))


def test_no_two_processes_draw_the_same_numbers() -> None:
    """Forked from one that has drawn before, as a server's workers may be."""
    fresh_generation()
    forked = multiprocessing.get_context("fork")
    drawn = [fresh_generation()]
    for _ in range(2):
        with forked.Pool(1) as other:
            drawn.append(other.apply(fresh_generation))
    assert len(set(drawn)) == 3

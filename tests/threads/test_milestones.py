"""A turn stores the checkpoint with its question and the one with its answer, and these as if all had been stored."""

from __future__ import annotations

import asyncio
from typing import Annotated, Any

import pytest
from langchain_core.messages import AIMessage, AnyMessage
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import END, START, StateGraph
from langgraph.graph.message import add_messages
from typing_extensions import TypedDict

from citewell.threads import Threads, milestones_only
from tests.threads.echo_graph import ask, config, contents


class Turn(TypedDict, total=False):
    messages: Annotated[list[AnyMessage], add_messages]
    summary: str
    cited: list[str]


def turn(reached: asyncio.Event | None = None) -> StateGraph[Turn]:
    """As the service's: the question comes with the input, steps between it and the answer keep something of their own."""

    async def search(state: Turn) -> dict[str, Any]:
        return {"summary": f"{len(state['messages'])} messages"}

    async def choose(state: Turn) -> dict[str, Any]:
        if reached is not None:
            reached.set()
            await asyncio.Event().wait()
        return {"cited": [*state.get("cited", ()), state["summary"]]}

    async def answer(state: Turn) -> dict[str, Any]:
        return {"messages": [AIMessage(f"to {state['messages'][-1].text}")]}

    graph = StateGraph(Turn)
    for node in (search, choose, answer):
        graph.add_node(node.__name__, node)
    graph.add_edge(START, "search")
    graph.add_edge("search", "choose")
    graph.add_edge("choose", "answer")
    graph.add_edge("answer", END)
    return graph


async def test_two_of_a_turns_checkpoints_are_stored_and_hold_all_that_changed(threads: Threads) -> None:
    sparing, whole = threads.checkpointer, InMemorySaver()
    for number in range(3):
        for saver in (sparing, whole):
            with milestones_only():
                await turn().compile(checkpointer=saver).ainvoke(ask(f"q{number}"), config("t"), durability="async")
    stored = [found async for found in sparing.alist(config("t"))]
    kept = [found async for found in whole.alist(config("t")) if found.metadata["step"] % 5 in (0, 3)]
    assert [found.metadata["step"] for found in stored] == [13, 10, 8, 5, 3, 0]
    for ours, theirs in zip(stored, kept, strict=True):
        assert contents(ours.checkpoint["channel_values"]) == contents(theirs.checkpoint["channel_values"])
        assert {**ours.checkpoint["channel_values"], "messages": []} == {**theirs.checkpoint["channel_values"], "messages": []}  # fmt: skip
        assert not ours.pending_writes
    parents = [found.parent_config and found.parent_config["configurable"]["checkpoint_id"] for found in stored]
    assert parents[:-1] == [found.checkpoint["id"] for found in stored[1:]]


async def test_a_turn_that_is_cut_off_leaves_its_question(threads: Threads) -> None:
    reached = asyncio.Event()
    with milestones_only():
        run = asyncio.create_task(
            turn(reached).compile(checkpointer=threads.checkpointer).ainvoke(ask("q"), config("t"), durability="async")
        )
    await reached.wait()
    run.cancel()
    with pytest.raises(asyncio.CancelledError):
        await run
    found = await threads.checkpointer.aget_tuple(config("t"))
    assert found is not None
    assert contents(found.checkpoint["channel_values"]) == ["q"]


async def test_elsewhere_every_checkpoint_is_stored(threads: Threads) -> None:
    await turn().compile(checkpointer=threads.checkpointer).ainvoke(ask("q"), config("t"), durability="async")
    assert len([found async for found in threads.checkpointer.alist(config("t"))]) == 5

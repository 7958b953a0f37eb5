"""A graph for tests of threads, which answers each message by repeating it."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Annotated, Any

from langchain_core.messages import AIMessage, AnyMessage, HumanMessage
from langgraph.graph import END, START, StateGraph
from langgraph.graph.message import add_messages
from typing_extensions import TypedDict

from citewell.threads import Threads


class Talk(TypedDict, total=False):
    messages: Annotated[list[AnyMessage], add_messages]
    cited: list[str]


def talk(pause_s: float = 0.0, meanwhile: Callable[[], Awaitable[object]] | None = None) -> StateGraph[Talk]:
    """A graph with two nodes, which waits and then answers by repeating the message; `meanwhile` happens once that is stored."""

    async def hear(state: Talk) -> dict[str, Any]:
        return {"cited": [f"c{len(state['messages'])}"]}

    async def answer(state: Talk) -> dict[str, Any]:
        await asyncio.sleep(pause_s)
        if meanwhile is not None:
            await meanwhile()
        return {"messages": [AIMessage(f"re: {state['messages'][-1].content}", id=f"a-{state['messages'][-1].id}")]}

    graph = StateGraph(Talk)
    graph.add_node("hear", hear)
    graph.add_node("answer", answer)
    graph.add_edge(START, "hear")
    graph.add_edge("hear", "answer")
    graph.add_edge("answer", END)
    return graph


def ask(text: str) -> dict[str, Any]:
    return {"messages": [HumanMessage(text, id=f"q-{text}")]}


def config(thread_id: str, **more: Any) -> Any:
    return {"configurable": {"thread_id": thread_id} | more}


def contents(values: Any) -> list[str]:
    return [message.content for message in values["messages"]]


async def transcript(threads: Threads, thread_id: str) -> list[str]:
    """What the messages of a thread say; nothing where there is no such thread."""
    saved = await threads.checkpointer.aget_tuple(config(thread_id))
    return contents(saved.checkpoint["channel_values"]) if saved else []

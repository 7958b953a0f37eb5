"""The state machine: which node follows which.

    START ─► screen ─┬─► condense ─► retrieve ─► rerank ─┐
                     └─► summarize (only if long) ───────┴─► generate ─► verify ─► END

A first question needs no condensing and goes straight to `retrieve`; a blocked one goes to END. With the answer cache on, `recall`
stands before `retrieve`, and a cached answer goes to END.
"""

from langgraph.graph import END, START, StateGraph

from graph.nodes import Nodes
from graph.parts import Parts
from graph.state import Answer, Question, RunContext, State


def build_graph(parts: Parts) -> StateGraph[State, RunContext, Question, Answer]:
    """Connect the nodes.

    Returns:
        An uncompiled graph: the service compiles it with a checkpointer, and `langgraph dev` brings its own.
    """
    nodes = Nodes(parts)
    graph = StateGraph(State, context_schema=RunContext, input_schema=Question, output_schema=Answer)
    graph.add_node("screen", nodes.screen)
    graph.add_node("condense", nodes.condense)
    graph.add_node("retrieve", nodes.retrieve)
    graph.add_node("rerank", nodes.rerank)
    graph.add_node("summarize", nodes.summarize)
    # Deferred: it waits for both branches, whether both are taken or one.
    graph.add_node("generate", nodes.generate, defer=True)
    graph.add_node("verify", nodes.verify)

    search = "retrieve"
    if parts.cache is not None:
        search = "recall"
        graph.add_node("recall", nodes.recall)
        graph.add_conditional_edges("recall", nodes.after_recall, ["retrieve", END])
    graph.add_edge(START, "screen")
    graph.add_conditional_edges("screen", nodes.after_screen, ["condense", "retrieve", search, "summarize", END])
    graph.add_edge("condense", search)
    graph.add_edge("retrieve", "rerank")
    graph.add_edge("rerank", "generate")
    graph.add_edge("summarize", "generate")
    graph.add_edge("generate", "verify")
    graph.add_edge("verify", END)
    return graph

"""A chat model that answers from numbered chunks, as a runnable: prompt | model."""

from __future__ import annotations

from typing import cast

from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessageChunk
from langchain_core.runnables import Runnable, RunnableLambda

from chains.prompts import AnswerInput, answer_messages


def answer_chain(model: BaseChatModel) -> Runnable[AnswerInput, AIMessageChunk]:
    """An answer with markers, written by a chat model from the chunks it is given.

    `astream` yields the model's pieces, `ainvoke` the whole message (an `AIMessage`). The model's own errors pass through. The
    graph does not use it: see `graph.calls.Calls.stream`.
    """
    # what the model returns is BaseMessage to the type checker; chat models stream AIMessageChunk
    return cast("Runnable[AnswerInput, AIMessageChunk]", RunnableLambda(answer_messages, name="prompt") | model)

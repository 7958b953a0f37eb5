"""Question and evidence -> a written answer with markers: prompt | model."""

from __future__ import annotations

from typing import cast

from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessageChunk
from langchain_core.runnables import Runnable, RunnableLambda

from chains.prompts import AnswerInput, answer_messages

__all__ = ["AnswerInput", "answer_chain"]


def answer_chain(model: BaseChatModel) -> Runnable[AnswerInput, AIMessageChunk]:
    """A chat model that answers from the numbered chunks it is given.

    `astream` yields the model's pieces, `ainvoke` the whole message (an `AIMessage`, as chat models return it). The
    model's own errors pass through.
    """
    # what the model returns is BaseMessage to the type checker; chat models stream AIMessageChunk
    return cast("Runnable[AnswerInput, AIMessageChunk]", RunnableLambda(answer_messages, name="prompt") | model)

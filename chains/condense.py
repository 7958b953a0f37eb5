"""Turn a follow-up into a question that stands alone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

from langchain_core.language_models import BaseChatModel
from langchain_core.messages import BaseMessage, HumanMessage
from langchain_core.output_parsers import StrOutputParser
from langchain_core.prompts import ChatPromptTemplate, MessagesPlaceholder
from langchain_core.runnables import Runnable
from typing_extensions import TypedDict


class CondenseInput(TypedDict):
    question: str
    history: list[BaseMessage]


PROMPT = ChatPromptTemplate.from_messages([
    (
        "system",
        "Rewrite the user's last question so that it can be understood without the conversation: put names in place of "
        "pronouns and fill in what is left out. Keep its language. Do not answer it. Write the question and nothing else.",
    ),
    MessagesPlaceholder("history"),
    ("human", "{question}"),
])  # fmt: skip


def condense_chain(model: BaseChatModel) -> Runnable[CondenseInput, str]:
    """prompt | model | text."""
    return cast("Runnable[CondenseInput, str]", PROMPT | model | StrOutputParser())


def condense_rule(question: str, history: Sequence[BaseMessage]) -> str:
    """Without a chat model: the question, followed by the one before it, whose words give it its topic."""
    before = [message.text for message in history if isinstance(message, HumanMessage)]
    return f"{question} {before[-1]}" if before else question

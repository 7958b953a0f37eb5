"""The transcript of a thread, in pages, and its statistics."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from langchain_core.messages import AIMessage, AnyMessage, BaseMessage, HumanMessage
from langgraph.checkpoint.base import BaseCheckpointSaver
from typing_extensions import TypedDict

from citewell.errors import ThreadNotFound


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """A stretch of a transcript, oldest message first."""

    messages: Sequence[AnyMessage]
    first: int
    """Position of the first message of the page in the whole transcript, from 0."""
    total: int
    """Messages in the whole transcript."""

    @property
    def before(self) -> int | None:
        """The position to ask for to get the previous page; None if this page holds the beginning."""
        return self.first or None


@dataclass(frozen=True, slots=True, kw_only=True)
class Statistics:
    """Figures of a whole thread."""

    messages: int
    user_messages: int
    assistant_messages: int
    summarized: int
    """How many messages, from the first, the running summary covers."""
    checkpoint_ts: str
    """When the thread last changed, ISO 8601."""


class Said(TypedDict):
    """A message as it is shown and exported."""

    role: Literal["user", "assistant"]
    content: str
    created_at: str | None
    """ISO 8601, UTC."""
    citations: list[dict[str, Any]]
    metadata: dict[str, Any]


def said(message: BaseMessage) -> Said:
    """A message as plain data. `graph.transcript` says what its `additional_kwargs` hold."""
    extra = message.additional_kwargs
    return Said(
        role="user" if isinstance(message, HumanMessage) else "assistant", content=message.text,
        created_at=extra.get("created_at"), citations=extra.get("citations", []), metadata=extra.get("metadata", {}),
    )  # fmt: skip


async def _state(checkpointer: BaseCheckpointSaver[Any], thread_id: str) -> tuple[dict[str, Any], str]:
    saved = await checkpointer.aget_tuple({"configurable": {"thread_id": thread_id, "checkpoint_ns": ""}})
    if saved is None:
        raise ThreadNotFound
    return saved.checkpoint["channel_values"], saved.checkpoint["ts"]


async def history(
    checkpointer: BaseCheckpointSaver[Any],  # Any: the base class is generic over its version type
    thread_id: str,
    *,
    before: int | None = None,
    limit: int = 50,
) -> Page:
    """The newest `limit` messages of a thread, or the `limit` messages before position `before`.

    Args:
        checkpointer: Where the thread is.
        thread_id: The thread.
        before: A position in the transcript, as `Page.before` gives it; None starts at the end.
        limit: 1..1000 messages.

    Raises:
        ThreadNotFound: There is no such thread, or it has expired.
        CheckpointError: The store cannot be read.
    """
    if not 1 <= limit <= 1000:
        raise ValueError(f"limit must be between 1 and 1000, not {limit}")
    values, _ = await _state(checkpointer, thread_id)
    messages: list[AnyMessage] = values.get("messages", [])
    end = len(messages) if before is None else max(0, min(before, len(messages)))
    first = max(0, end - limit)
    return Page(messages=messages[first:end], first=first, total=len(messages))


async def statistics(
    checkpointer: BaseCheckpointSaver[Any],  # Any: the base class is generic over its version type
    thread_id: str,
) -> Statistics:
    """Count a thread's messages.

    Raises:
        ThreadNotFound: There is no such thread, or it has expired.
        CheckpointError: The store cannot be read.
    """
    values, ts = await _state(checkpointer, thread_id)
    messages: list[BaseMessage] = values.get("messages", [])
    return Statistics(
        messages=len(messages),
        user_messages=sum(isinstance(message, HumanMessage) for message in messages),
        assistant_messages=sum(isinstance(message, AIMessage) for message in messages),
        summarized=values.get("summarized", 0),
        checkpoint_ts=ts,
    )

"""The messages of a thread as they are shown and exported."""

from __future__ import annotations

from typing import Any, Literal

from langchain_core.messages import BaseMessage, HumanMessage
from typing_extensions import TypedDict


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

"""The messages of a thread: what a turn adds to them, and which of them later prompts may hold.

Beside its text a message has, in `additional_kwargs`: `created_at` (ISO 8601, UTC), where a turn wrote it; `blocked`, on a refused
question, the guards' rule; on an answer `citations` and `metadata`.
"""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, cast
from uuid import uuid4

from langchain_core.messages import AIMessage, BaseMessage, HumanMessage
from langchain_core.messages.ai import UsageMetadata


def question_message(question: str, *, blocked: str | None = None) -> HumanMessage:
    """A question, with the rule that refused it, if one did."""
    extra = {"created_at": _now()} | ({"blocked": blocked} if blocked else {})
    return HumanMessage(question, id=str(uuid4()), additional_kwargs=extra)


def answer_message(
    answer: str, citations: Sequence[Any], metadata: dict[str, Any], usage: dict[str, int] | None = None
) -> AIMessage:
    """An answer. `usage` as `token_counts` returns it; None: no model was asked."""
    return AIMessage(
        answer,
        id=str(uuid4()),
        additional_kwargs={"citations": list(citations), "metadata": metadata, "created_at": _now()},
        usage_metadata=cast("UsageMetadata", usage) if usage else None,
    )


def is_own(message: BaseMessage) -> bool:
    """Whether a turn wrote the message; otherwise it comes from a client that keeps its own transcript."""
    return "created_at" in message.additional_kwargs


def is_blocked(message: BaseMessage) -> bool:
    """Whether it is a refused question or the refusal, which later prompts must not hold."""
    extra = message.additional_kwargs
    return bool(extra.get("blocked") or extra.get("metadata", {}).get("blocked"))


def token_counts(usage: Mapping[str, Any] | None = None) -> dict[str, int]:
    """`input_tokens`, `output_tokens` and `total_tokens` of a model's usage; zeros where there is none."""
    return {key: usage[key] if usage else 0 for key in ("input_tokens", "output_tokens", "total_tokens")}


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")

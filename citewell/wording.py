"""What terminal and pages say in the same words. The page at `/` says it too, in a script of its own."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def count(number: int, noun: str) -> str:
    """A number with its noun: `1 chunk`, `2,345 chunks`."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def about(metadata: Mapping[str, Any]) -> str:
    """Who answered, and what to know before the answer is relied on.

    Args:
        metadata: Of an answer, as every door gives it.
    """
    parts = [_by(metadata)]
    if metadata.get("cached"):
        parts.append("given before to the same question")
    if "confidence" in metadata:
        parts.append(f"confidence {round(100 * metadata['confidence'])} %")
    if metadata.get("truncated"):
        parts.append("cut at the length limit: ask for the rest")
    if metadata.get("needs_review"):
        parts.append(f"marked for review: {', '.join(map(_plain, metadata['review_reasons']))}")
    return " · ".join(parts)


def _by(metadata: Mapping[str, Any]) -> str:
    answerer = metadata.get("answerer")
    if blocked := metadata.get("blocked"):
        return f"{'refused' if answerer == 'guard' else 'withheld'} by the rule “{blocked}”"
    match answerer:
        case "none":
            return "nothing in the documents supports an answer"
        case "stopped":
            return "stopped: what had come was not checked"
        case "service":
            return "answered by the service itself"
        case "extractive":
            by = "quoted word for word from the documents"
        case _:
            by = f"answered by {metadata.get('model') or answerer}"
    call = metadata.get("calls", {}).get("answer", {})
    return f"{by} in place of {call['asked']} ({_plain(call['why'])})" if call.get("why") else by


def _plain(name: str) -> str:
    return name.replace("_", " ")

"""What a client that keeps its own transcript says was said before."""

from __future__ import annotations

from collections.abc import Sequence

from langchain_core.messages import BaseMessage, HumanMessage

from citewell.guards.verdict import UNDECIDED, Verdict
from graph.parts import Guards


async def guarded(messages: Sequence[BaseMessage], guards: Guards) -> tuple[list[BaseMessage], Verdict | None]:
    """Let the guards judge what no turn of ours has put into the transcript.

    An exchange that they refuse stays out of prompts, as a refused question of a thread does.

    Args:
        messages: The transcript; those with `created_at` are ours.

    Returns:
        The messages that change, and the verdict where the guards could not decide, which refuses the whole turn.
    """
    given = [message for message in messages if "created_at" not in message.additional_kwargs]
    verdicts: list[Verdict] = await guards.screen_earlier([
        ("question" if isinstance(message, HumanMessage) else "document", message.text) for message in given
    ])  # fmt: skip
    exchanges: list[list[tuple[BaseMessage, Verdict]]] = []
    for message, judged in zip(given, verdicts, strict=True):
        if judged.rule == UNDECIDED:
            return [], judged
        if isinstance(message, HumanMessage) or not exchanges:
            exchanges.append([])
        exchanges[-1].append((message, judged))
    changed: list[BaseMessage] = []
    for exchange in exchanges:
        refused = next((judged.rule for _, judged in exchange if not judged.allowed), None)
        for message, judged in exchange:
            if refused:
                changed.append(message.model_copy(update={"additional_kwargs": {"blocked": refused}}))
            elif judged.text is not None:
                changed.append(message.model_copy(update={"content": judged.text}))
    return changed, None

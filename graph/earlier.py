"""The earlier messages that a client with a transcript of its own sends along."""

from __future__ import annotations

from collections.abc import Sequence

from langchain_core.messages import BaseMessage, HumanMessage

from citewell.guards.checks import Guards
from citewell.guards.verdict import UNDECIDED, Verdict
from graph.transcript import is_own


async def guarded(messages: Sequence[BaseMessage], guards: Guards) -> tuple[list[BaseMessage], Verdict | None]:
    """Let the guards judge the messages that no turn has written.

    An exchange that they refuse is kept out of prompts, like a refused question of a thread.

    Args:
        messages: The transcript.
        guards: What judges them.

    Returns:
        The messages that change; and where the guards could not decide, their verdict, which refuses the whole turn.
    """
    given = [message for message in messages if not is_own(message)]
    verdicts = await guards.screen_earlier([
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

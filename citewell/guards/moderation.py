"""Content moderation: OpenAI's endpoint, or any server that speaks it, judges a text by what harm it does."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from citewell.guards.verdict import MODERATION, Verdict, allow, block
from citewell.models.embedder import sound

if TYPE_CHECKING:
    import openai

RETRIES: Final = 2
"""Further tries after a transient failure; all of them within the guards' deadline."""
_CATEGORY = re.compile(r"[A-Za-z][\w/ -]{0,60}")


class Moderator:
    """Asks one moderation model.

    Args:
        client: Of the server that has it; not closed here.
        model: Its name, as `omni-moderation-latest`.
    """

    def __init__(self, client: openai.AsyncOpenAI, model: str) -> None:
        self._client = client
        self._model = model

    async def judge(self, text: str) -> Verdict:
        """Judge a text, whole. Cancelling the call closes its request.

        Returns:
            Blocked where the server flags it, the categories in the reason; the score is the highest of any category.

        Raises:
            openai.OpenAIError: The server cannot be reached, refuses, or fails.
            ValueError: What it says is no judgement.
        """
        answer = await self._client.moderations.create(model=self._model, input=sound(text))
        # The SDK hands on whatever JSON came, so every part is looked at before it is believed.
        results = answer.results or []
        if len(results) != 1 or not isinstance(results[0].flagged, bool):
            raise ValueError("no judgement")
        scores = results[0].category_scores.model_dump().values() if results[0].category_scores else ()
        score = max((float(score) for score in scores if isinstance(score, int | float)), default=0.0)
        if not results[0].flagged:
            return allow(score)
        named = results[0].categories.model_dump(by_alias=True) if results[0].categories else {}
        about = [name for name, holds in named.items() if holds is True and _CATEGORY.fullmatch(name)]
        return block(MODERATION, score, about=", ".join(about))

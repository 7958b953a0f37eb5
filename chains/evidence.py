"""How likely it is that the documents hold the answer at all."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Sequence

from citewell.documents import ScoredChunk
from citewell.models.embedder import Embedder
from citewell.terms import read

SUPPORTED_FROM = 0.5


class Evidence:
    """The calibrated line between "in the documents" and "not in the documents"."""

    def __init__(self, embedder: Embedder) -> None:
        self._embedder = embedder

    async def confidence(self, question: str, chunks: Sequence[ScoredChunk]) -> float:
        """Probability (0..1) that the chunks hold the answer; 0 without chunks."""
        if not chunks:
            return 0.0
        return await asyncio.to_thread(confidence, question, chunks)

    def is_supported(self, confidence: float) -> bool:
        return confidence >= SUPPORTED_FROM


def confidence(question: str, chunks: Sequence[ScoredChunk]) -> float:
    maxsim = max(one.evidence.get("maxsim", one.score) for one in chunks)
    asked = {term.key for term in read(question).terms}
    held = {term.key for one in chunks for term in read(f"{one.chunk.title}. {one.chunk.text}").terms}
    overlap = len(asked & held) / len(asked) if asked else 0.0
    return 1 / (1 + math.exp(-(8 * (maxsim - 0.45) + 3 * (overlap - 0.4))))

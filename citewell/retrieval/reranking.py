"""Puts candidates in their final order, by late interaction over stored token vectors or by a cross-encoder's scores."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Protocol

from citewell.documents import ScoredChunk
from citewell.models import Encoded
from citewell.retrieval.generation import Generation

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


class CrossEncoder(Protocol):
    """A reranker that `CITEWELL_RERANKER` names, other than `maxsim` and `none`."""

    async def rerank(self, question: str, texts: Sequence[str]) -> NDArray[np.float32]:
        """How well each text answers, 0..1, in the order given."""

    def close(self) -> None: ...


def by_late_interaction(
    generation: Generation, encoded: Encoded, candidates: Sequence[ScoredChunk], most: int
) -> list[ScoredChunk]:
    """The best `most` by MaxSim and the scores of the searches, in order. Chunks that have been replaced since are left out. Blocking."""
    from citewell.retrieval import maxsim  # late: an ingestion that finds nothing changed needs no NumPy

    assert encoded.tokens is not None and encoded.token_ids is not None, "the index asks for token vectors"  # noqa: PT018
    stored = generation.token_vectors([candidate.chunk.id for candidate in candidates])
    kept = [candidate for candidate in candidates if candidate.chunk.id in stored]
    judged = maxsim.rerank(
        maxsim.query(encoded.tokens[0], encoded.token_ids[0]),
        [stored[candidate.chunk.id] for candidate in kept],
        dense=[candidate.evidence.get("dense") for candidate in kept],
        keyword=[candidate.evidence.get("keyword") for candidate in kept],
    )
    return in_order(kept, judged.score, most, maxsim=judged.maxsim, stretch=judged.stretch)


def in_order(
    candidates: Sequence[ScoredChunk], scores: NDArray[np.float32], most: int, **evidence: NDArray[np.float32]
) -> list[ScoredChunk]:
    """The best `most` by descending score (0..1), ties as they were, each with the given figures in its evidence."""
    import numpy as np  # late, see above

    order = np.argsort(-scores, kind="stable")[:most]
    return [
        replace(
            candidates[n], score=float(np.clip(scores[n], 0, 1)),
            evidence={
                **candidates[n].evidence, **{name: float(values[n]) for name, values in evidence.items()},
                "rerank_rank": float(rank),
            },
        )
        for rank, n in enumerate(order, 1)
    ]  # fmt: skip

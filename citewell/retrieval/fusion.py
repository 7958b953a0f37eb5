"""Fuses dense and keyword hits into one list of candidates.

The scores of both searches are scaled to 0..1 per question and added with a weight (convex combination; Bruch, Gai & Ingber 2023,
arXiv:2210.11934). They find it better than reciprocal rank fusion, and so do the measurements in `docs/retrieval-experiments.md`:
ranks discard how sure a search was, so that a weak list drags down a strong one.
"""

from collections.abc import Iterable
from dataclasses import dataclass

DENSE_WEIGHT = 0.5
"""Share of the dense evidence; the rest is the keyword evidence. Measured: `python -m evals.all`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fused:
    """One candidate and its scores."""

    id: str
    score: float
    """0..1: the weighted sum of the two normalised scores."""
    dense: float | None
    """Cosine, None where the dense search did not return it."""
    keyword: float | None
    """BM25, None where the keyword search did not return it."""


def fuse(
    dense: Iterable[tuple[str, float]], keyword: Iterable[tuple[str, float]], *, limit: int | None = None
) -> list[Fused]:
    """Fuse two result lists.

    Args:
        dense: (id, cosine), in any order; of an id that occurs twice the better score counts.
        keyword: (id, BM25), likewise.
        limit: How many to return; None returns all.

    Returns:
        Every id of either list, by descending score and then by id, so that equal input gives equal output. An id that one list
        lacks gets that list's lowest score: it is no better than the last one found.
    """
    cosines, bm25 = _best(dense), _best(keyword)
    by_meaning, by_words = _normalised(cosines), _normalised(bm25)
    found = [
        Fused(
            id=id_,
            score=DENSE_WEIGHT * by_meaning.get(id_, 0.0) + (1 - DENSE_WEIGHT) * by_words.get(id_, 0.0),
            dense=cosines.get(id_),
            keyword=bm25.get(id_),
        )
        for id_ in cosines.keys() | bm25.keys()
    ]
    return sorted(found, key=lambda one: (-one.score, one.id))[:limit]


def _best(hits: Iterable[tuple[str, float]]) -> dict[str, float]:
    best: dict[str, float] = {}
    for id_, score in hits:
        if id_ not in best or score > best[id_]:
            best[id_] = float(score)
    return best


def _normalised(scores: dict[str, float]) -> dict[str, float]:
    """Map the lowest score to 0 and the highest to 1; a list of equals is all ones."""
    if not scores:
        return {}
    low, high = min(scores.values()), max(scores.values())
    return {id_: (score - low) / (high - low) if high > low else 1.0 for id_, score in scores.items()}

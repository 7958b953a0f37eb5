"""Rank metrics as trec_eval and BEIR define them; each takes one question's ranking and judgements."""

from collections.abc import Mapping, Sequence
from math import log2


def ndcg(ranking: Sequence[str], relevance: Mapping[str, int], *, at: int = 10) -> float:
    """Return the normalised discounted cumulative gain, 0..1, with linear gain (Järvelin & Kekäläinen 2002).

    Args:
        ranking: Document ids, best first, each once.
        relevance: Relevance of the judged documents; a document that is not there counts 0.
        at: Depth of the ranking that counts.
    """
    gained = sum(relevance.get(id_, 0) / log2(rank + 1) for rank, id_ in enumerate(ranking[:at], 1))
    best = sorted((value for value in relevance.values() if value > 0), reverse=True)[:at]
    ideal = sum(value / log2(rank + 1) for rank, value in enumerate(best, 1))
    return gained / ideal if ideal else 0.0


def recall(ranking: Sequence[str], relevance: Mapping[str, int], *, at: int) -> float:
    """Return the share of the relevant documents among the first `at`, 0..1."""
    relevant = {id_ for id_, value in relevance.items() if value > 0}
    return len(relevant.intersection(ranking[:at])) / len(relevant) if relevant else 0.0


def hit(ranking: Sequence[str], relevance: Mapping[str, int], *, at: int = 1) -> float:
    """Return 1 where any of the first `at` is relevant, else 0."""
    return float(any(relevance.get(id_, 0) > 0 for id_ in ranking[:at]))


def percentile(values: Sequence[float], share: float) -> float:
    """Return the smallest value that at least `share` (0..1) of the values do not exceed."""
    ordered = sorted(values)
    return ordered[max(0, min(len(ordered) - 1, int(-(-share * len(ordered) // 1)) - 1))]

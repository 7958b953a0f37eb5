"""The features by which `chains.judge` tells whether a sentence answers a question."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from chains.answer_type import answer_type, cue
from chains.candidates import Candidate
from citewell.documents import ScoredChunk
from citewell.models.embedder import Embedder
from citewell.terms import overlap, read

Floats = NDArray[np.float32]

FEATURES = (
    "cosine", "maxsim", "maxsim_weighted", "maxsim_worst", "maxsim_wh", "overlap", "overlap_exact",
    "chunk_overlap", "chunk_cosine", "chunk_maxsim", "chunk_score", "chunk_rank",
    "cue", "wants_date", "wants_number", "wants_person", "wants_place", "wants_reason",
    "new_numbers", "new_names", "new_words", "length", "whole", "first", "denied",
    "cosine_gap", "maxsim_gap", "overlap_gap", "neighbour_overlap",
)  # fmt: skip


def features(question: str, found: Sequence[Candidate], chunks: Sequence[ScoredChunk], embedder: Embedder) -> Floats:
    """Compute the features of each candidate. Blocking: encodes the question and every candidate once.

    Returns:
        float32[len(found), len(FEATURES)].
    """
    if not found:
        return np.zeros((0, len(FEATURES)), np.float32)
    texts = [one.in_context for one in found]
    encoded = embedder.encode([question, *texts], tokens=embedder.gives_tokens)
    cosines = encoded.vectors[1:] @ encoded.vectors[0]
    late: list[tuple[float, ...]] = [(each,) * 4 for each in cosines]
    if encoded.tokens and encoded.token_ids:
        late = [_late(encoded.tokens, encoded.token_ids, i) for i in range(1, len(found) + 1)]
    asked, kind = read(question), answer_type(question)
    known = {(term.key, term.unit) for term in asked.terms}
    said = [read(text) for text in texts]
    shares = [overlap(asked, one) for one in said]
    best_cosine, best_share, best_weighted = cosines.max(), max(shares), max(weighted for _, weighted, *_ in late)
    in_chunk: dict[int, tuple[float, float, float]] = {}
    for number in {one.number for one in found}:
        mine = [i for i, one in enumerate(found) if one.number == number]
        chunk = chunks[number - 1].chunk
        in_chunk[number] = (
            overlap(asked, read(f"{chunk.title}. {chunk.text}")),
            max(float(cosines[i]) for i in mine),
            max(float(late[i][1]) for i in mine),
        )
    rows = []
    for i, one in enumerate(found):
        mean, weighted, worst, question_words = late[i]
        chunk_overlap, chunk_cosine, chunk_maxsim = in_chunk[one.number]
        new = [term for term in said[i].terms if (term.key, term.unit) not in known]
        kinds = Counter(term.kind for term in new)
        near = [shares[j] for j in (i - 1, i + 1) if 0 <= j < len(found) and found[j].number == one.number]
        row = {
            "cosine": cosines[i], "maxsim": mean, "maxsim_weighted": weighted, "maxsim_worst": worst, "maxsim_wh": question_words,
            "overlap": shares[i], "overlap_exact": overlap(asked, said[i], names_only=True),
            "chunk_overlap": chunk_overlap, "chunk_cosine": chunk_cosine, "chunk_maxsim": chunk_maxsim,
            "chunk_score": chunks[one.number - 1].score, "chunk_rank": 1 / one.number,
            "cue": cue(kind, new, one.text),
            **{f"wants_{other}": kind == other for other in ("date", "number", "person", "place", "reason")},
            "new_numbers": min(3, kinds["number"]) / 3, "new_names": min(4, kinds["name"]) / 4, "new_words": min(20, len(new)) / 20,
            "length": min(400, len(one.text)) / 400, "whole": one.whole, "first": one.span.start == 0,
            "denied": bool(said[i].denials) != bool(asked.denials),
            "cosine_gap": cosines[i] - best_cosine, "maxsim_gap": weighted - best_weighted,
            "overlap_gap": shares[i] - best_share, "neighbour_overlap": max(near, default=0.0),
        }  # fmt: skip
        rows.append([row[name] for name in FEATURES])
    return np.asarray(rows, np.float32)


def _late(tokens: Sequence[Floats], ids: Sequence[NDArray[np.int32]], i: int) -> tuple[float, float, float, float]:
    """Best cosine of each of the question's tokens in sentence i: the mean, the mean weighted by rarity, the lowest of a rare token, the
    mean of the question words."""
    asked, said = tokens[0], tokens[i]
    if not len(asked) or not len(said):
        return (0.0, 0.0, 0.0, 0.0)
    best = (asked @ said.T).max(axis=1)
    # WordPiece ids run from frequent to rare.
    rarity = np.clip(np.log(np.maximum(ids[0], 1) / 2000.0) / np.log(10.0), 0, 1)
    weights = 0.1 + rarity
    rare = best[rarity > 0.05]
    wh = best[np.isin(ids[0], _QUESTION_WORD_IDS)]
    return (
        float(best.mean()), float(best @ weights / weights.sum()),
        float(rare.min()) if len(rare) else float(best.min()), float(wh.mean()) if len(wh) else float(best.mean()),
    )  # fmt: skip


_QUESTION_WORD_IDS = np.array([2054, 2040, 2043, 2073, 2339, 2129, 2029, 3183, 3005])
"""what who when where why how which whom whose, in the uncased BERT vocabulary."""

"""What speaks for a passage's being the answer: the features that `chains.judge` weighs."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from chains.candidates import Candidate
from citewell.documents import ScoredChunk
from citewell.models.embedder import Embedder
from citewell.terms import MONTHS, WEIGHTS, Statement, Term, read

Floats = NDArray[np.float32]
Wanted = Literal["date", "number", "person", "place", "reason", "thing"]

_CAUSES = re.compile(
    r"\b(?:because|due to|owing to|since|so that|in order to|thanks to|cause[sd]?|result|therefore|thus|reason|led to|to avoid|to prevent)\b",
    re.IGNORECASE,
)
_LOCATED = re.compile(r"\b(?:in|at|near|from|to|of|on|between|across|around|outside|inside)\s+(?:the\s+)?[A-Z]")
_WANTED: tuple[tuple[Wanted, re.Pattern[str]], ...] = (
    ("date", re.compile(r"\b(?:when|(?:what|which) (?:year|date|day|month|decade|century|time|period)|how (?:old|recently))\b", re.I)),
    ("number", re.compile(r"\b(?:how (?:many|much|long|far|tall|large|big|high|fast|deep|wide|often|heavy)|(?:what|which)\b.{0,30}\b(?:percent\w*|number|amount|population|rate|ratio|price|cost|size|length|height|area|temperature|total))\b", re.I)),
    ("person", re.compile(r"\b(?:who|whom|whose|(?:what|which) (?:person|man|woman|people|king|queen|president|author|actor|scientist|leader))\b", re.I)),
    ("place", re.compile(r"\b(?:where|(?:what|which) (?:\w+ )?(?:city|country|state|place|region|town|river|location|continent|island|area))\b", re.I)),
    ("reason", re.compile(r"\b(?:why|what (?:\w+ )?(?:cause[sd]?|reason|led to|purpose))\b", re.I)),
)  # fmt: skip


def wanted(question: str) -> Wanted:
    """What kind of thing a question asks for; English questions only, "thing" for all others."""
    for kind, pattern in _WANTED:
        if pattern.search(question):
            return kind
    return "thing"


_QUOTED_QUESTION = re.compile(
    r"(?:^|(?<=[\s(\[{=:,]))[\"'\u201c\u2018\u00ab]([^\"\u201c\u201d\u00ab\u00bb]+\?)[\"'\u201d\u2019\u00bb]"
)
_SAME_QUESTION = 0.5
"""Share of the words that tell what is asked."""
_INTERROGATIVE = re.compile(r"\b(?:who|whom|whose|what|which|when|where|why|how)\b", re.I)
ASKS_YES_OR_NO = re.compile(
    r"\W*(?:am|are|can|could|did|do|does|had|has|have|is|may|must|shall|should|was|were|will|would)\b", re.I
)


def repeats(question: str, text: str) -> bool:
    """Whether a text holds the question word for word or says no more than it does, which answers no "who", "what" or "how".

    English only; and what asks for yes or no may be answered in its own words. Nor does it answer to quote a question that is
    much the same, as examples of code do.
    """
    asks = read(question)
    if any(overlap(asks, read(quoted)) >= _SAME_QUESTION for quoted in _QUOTED_QUESTION.findall(text)):
        return True
    if not _INTERROGATIVE.search(question) and (question.rstrip().endswith("?") or ASKS_YES_OR_NO.match(question)):
        return False
    if _in_words(question) in _in_words(text):
        return True
    asked, said = (Counter(term.key for term in read(one).terms) for one in (question, text))
    return said <= asked


def _in_words(text: str) -> str:
    return " ".join(["", *re.findall(r"[^\W_]+", text.casefold()), ""])


def in_context(one: Candidate) -> str:
    """What a candidate is read as: a row's figures say nothing without the names of their columns."""
    return f"{one.context} {one.text}" if one.context else one.text


FEATURES = (
    "cosine", "maxsim", "maxsim_weighted", "maxsim_worst", "maxsim_wh", "overlap", "overlap_exact",
    "chunk_overlap", "chunk_cosine", "chunk_maxsim", "chunk_score", "chunk_rank",
    "cue", "wants_date", "wants_number", "wants_person", "wants_place", "wants_reason",
    "new_numbers", "new_names", "new_words", "length", "whole", "first", "denied",
    "cosine_gap", "maxsim_gap", "overlap_gap", "neighbour_overlap",
)  # fmt: skip


def features(question: str, found: Sequence[Candidate], chunks: Sequence[ScoredChunk], embedder: Embedder) -> Floats:
    """Describe each candidate to the judge.

    Returns:
        float32[len(found), len(FEATURES)]. Encodes the question and every candidate once, on the caller's thread.
    """
    if not found:
        return np.zeros((0, len(FEATURES)), np.float32)
    texts = [in_context(one) for one in found]
    encoded = embedder.encode([question, *texts], tokens=embedder.gives_tokens)
    cosine = encoded.vectors[1:] @ encoded.vectors[0]
    similar = [_late(encoded.tokens, encoded.token_ids, i) for i in range(1, len(found) + 1)] if encoded.tokens and encoded.token_ids else [(c,) * 4 for c in cosine]  # fmt: skip
    asked = read(question)
    kind = wanted(question)
    said = [read(text) for text in texts]
    shares = [overlap(asked, one) for one in said]
    in_chunk: dict[int, tuple[float, float, float]] = {}
    for number in {one.number for one in found}:
        mine = [i for i, one in enumerate(found) if one.number == number]
        text = chunks[number - 1].chunk
        in_chunk[number] = (
            overlap(asked, read(f"{text.title}. {text.text}")),
            max(float(cosine[i]) for i in mine),
            max(float(similar[i][1]) for i in mine),
        )
    rows = []
    for i, one in enumerate(found):
        late, known = similar[i], {(term.key, term.unit) for term in asked.terms}
        new = [term for term in said[i].terms if (term.key, term.unit) not in known]
        near = [shares[j] for j in (i - 1, i + 1) if 0 <= j < len(found) and found[j].number == one.number]
        scored = chunks[one.number - 1]
        rows.append((
            cosine[i], *late, shares[i], overlap(asked, said[i], names_only=True),
            *in_chunk[one.number], scored.score, 1 / one.number,
            cue(kind, new, one.text), *(float(kind == other) for other in ("date", "number", "person", "place", "reason")),
            min(3, sum(term.kind == "number" for term in new)) / 3, min(4, sum(term.kind == "name" for term in new)) / 4,
            min(20, len(new)) / 20, min(400, len(one.text)) / 400, float(one.whole), float(one.span.start == 0),
            float(bool(said[i].denials) != bool(asked.denials)),
            cosine[i] - cosine.max(), late[1] - max(other[1] for other in similar), shares[i] - max(shares),
            max(near, default=0.0),
        ))  # fmt: skip
    return np.asarray(rows, np.float32)


def _late(tokens: Sequence[Floats], ids: Sequence[NDArray[np.int32]], i: int) -> tuple[float, float, float, float]:
    """MaxSim of the question's tokens in sentence i: mean, weighted mean, the worst telling token, the question word."""
    asked, said = tokens[0], tokens[i]
    if not len(asked) or not len(said):
        return (0.0, 0.0, 0.0, 0.0)
    best = (asked @ said.T).max(axis=1)
    # WordPiece ids run from frequent to rare, so the id tells how much a token tells.
    telling = np.clip(np.log(np.maximum(ids[0], 1) / 2000.0) / np.log(10.0), 0, 1)
    weights = 0.1 + telling
    rare = best[telling > 0.05]
    wh = best[np.isin(ids[0], _QUESTION_WORD_IDS)]
    return (
        float(best.mean()), float(best @ weights / weights.sum()),
        float(rare.min()) if len(rare) else float(best.min()), float(wh.mean()) if len(wh) else float(best.mean()),
    )  # fmt: skip


_QUESTION_WORD_IDS = np.array([2054, 2040, 2043, 2073, 2339, 2129, 2029, 3183, 3005])
"""what who when where why how which whom whose, in the uncased BERT vocabulary."""


def overlap(asked: Statement, said: Statement, *, names_only: bool = False) -> float:
    """Share (0..1) of the question's terms that are said; numbers and names count more."""
    keys = {term.key for term in said.terms}
    terms = [term for term in asked.terms if not names_only or term.kind != "word"]
    total = sum(WEIGHTS[term.kind] for term in terms)
    return sum(WEIGHTS[term.kind] for term in terms if term.key in keys) / total if total else 0.0


def cue(kind: Wanted, new: Sequence[Term], text: str) -> float:
    """Whether the sentence holds something of the kind that is asked for and that the question does not hold."""
    if kind == "date":
        return float(
            any(
                (t.kind == "number" and re.fullmatch(r"1\d{3}|20\d\d|\d{3,4}s|#\d+", t.key)) or t.key in MONTHS
                for t in new
            )
        )
    if kind == "number":
        return float(any(term.kind == "number" for term in new))
    if kind == "person":
        return float(any(term.kind == "name" for term in new))
    if kind == "place":
        return float(_LOCATED.search(text) is not None) * 0.5 + 0.5 * float(any(term.kind == "name" for term in new))
    if kind == "reason":
        return float(_CAUSES.search(text) is not None)
    return float(bool(new))

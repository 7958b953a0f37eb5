"""How likely it is that the retrieved chunks hold the answer: the line between "in the documents" and "not there".

Logistic regression over retrieval's scores and over the words that the chunks share with the question. Fitted and measured by
`python -m evals.calibrate` (figures and curves in `docs/answer-quality.md`): half of its questions have their answer in the documents,
a quarter are about something else, and a quarter are about the same things but ask what the documents do not say. Nothing is
embedded. Where sentences are quoted, how likely one of them answers counts as well.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cache
from importlib.resources import files
from typing import NamedTuple

import numpy as np

from chains.answer_type import answer_type, cue
from citewell.documents import ScoredChunk
from citewell.models.embedder import Embedder
from citewell.sentences import sentence_spans
from citewell.terms import Statement, overlap, read

FEATURES = ("maxsim", "stretch", "missing")
"""BM25 scores are left out: they grow with the number of documents, so a line fitted on many would be wrong for few. So is the
chunk's cosine: it falls with whatever else the chunk holds and with the brevity of the question, so a line fitted on the long
questions of test collections refused one in five short questions that a small collection answers."""
WORD_FEATURES = ("overlap", "overlap_union", "overlap_sentence", "missing", "cue", "terms", "title")
"""Used where the vectors are another model's, whose scale is unknown, or where there is no late interaction."""
ALL_FEATURES = tuple(dict.fromkeys((*FEATURES, *WORD_FEATURES)))
_MOST_CHUNKS = 5


class Line(NamedTuple):
    """A fitted logistic regression."""

    weights: tuple[float, ...]
    bias: float


class Fitted(NamedTuple):
    """What `python -m evals.calibrate` fitted."""

    full: Line
    """Over FEATURES."""
    words: Line
    """Over WORD_FEATURES."""
    quoted: Line
    """Over the log odds of the full line's confidence, and the probability that a quoted sentence answers."""
    supported_from: float
    """Confidence (0..1) below which the documents count as not holding the answer."""
    quoted_from: float
    """Confidence (0..1) by what is quoted, too, below which it is not shown."""


@cache
def fitted() -> Fitted:
    with files("chains").joinpath("evidence.npz").open("rb") as file, np.load(file) as data:
        lines = [
            Line(tuple(data[f"{name}_weights"].tolist()), float(data[f"{name}_bias"]))
            for name in ("full", "words", "quoted")
        ]
        if [len(line.weights) for line in lines] != [len(FEATURES), len(WORD_FEATURES), 2]:
            raise RuntimeError("chains/evidence.npz was made for other features: run python -m evals.calibrate")
        return Fitted(lines[0], lines[1], lines[2], float(data["supported_from"]), float(data["quoted_from"]))


class Evidence:
    """The calibrated line, for the embedding model that the index was built with.

    Args:
        embedder: Decides which line applies: only the built-in model's scores have a known scale.
        answer_from: Confidence (0..1) from which an answer is tried; None: the calibrated operating point.
    """

    def __init__(self, embedder: Embedder, answer_from: float | None = None) -> None:
        self._answer_from = answer_from
        self._known_scale = embedder.name == "minilm"
        fitted()  # reads a file, once per process

    def confidence(self, question: str, chunks: Sequence[ScoredChunk]) -> float:
        """Probability (0..1) that the five best chunks hold the answer; 0 without chunks.

        Meant for the event loop: it takes half a millisecond at most where the chunks' terms are cached, and took ten times as
        long in a thread of a busy service, which has to wait for the interpreter's lock.
        """
        if not chunks:
            return 0.0
        line, names = (fitted().full, FEATURES) if self._is_full(chunks) else (fitted().words, WORD_FEATURES)
        found = features(question, chunks, names)
        return _probability(line, [found[name] for name in names])

    def quoted(self, confidence: float, answers: float | None, chunks: Sequence[ScoredChunk]) -> tuple[float, bool]:
        """The confidence once it is known what would be quoted, and whether that should be shown.

        Args:
            confidence: As `confidence` gave it.
            answers: Probability (0..1) that one of the quoted sentences answers; None: unknown.
            chunks: What `confidence` looked at. Where their scores are not those that this was fitted with, it stays as it was.
        """
        if answers is None or not self._is_full(chunks):
            return confidence, self.is_supported(confidence)
        confidence = _probability(fitted().quoted, [math.log(confidence / (1 - confidence)), answers])
        return confidence, confidence >= self._line(fitted().quoted_from)

    def is_supported(self, confidence: float) -> bool:
        """Whether an answer should be attempted. The calibrated threshold refuses 2 % of the answerable questions."""
        return confidence >= self._line(fitted().supported_from)

    def _line(self, calibrated: float) -> float:
        return calibrated if self._answer_from is None else self._answer_from

    def _is_full(self, chunks: Sequence[ScoredChunk]) -> bool:
        """Whether the full line applies: to the built-in model's vectors, after late interaction; no other reranker leaves `maxsim`."""
        return bool(chunks) and self._known_scale and "maxsim" in chunks[0].evidence


def _probability(line: Line, values: Sequence[float]) -> float:
    # Without NumPy, which hands the interpreter to another thread at every product.
    evidence = sum(value * weight for value, weight in zip(values, line.weights, strict=True))
    return 1 / (1 + math.exp(-evidence - line.bias))


def is_about(typed: str, chunks: Sequence[ScoredChunk]) -> bool:
    """Whether the five best chunks hold a word of the question as it was typed, or the question has no such word.

    Chunks found with words of the conversation look like evidence for any question to which these words are added: "Who won the
    cup?" after a question about wind and domes.
    """
    asked = {term.key for term in read(typed).terms}
    held = (said for one in chunks[:_MOST_CHUNKS] for said in (read(one.chunk.text), _title(one)))
    return not asked or any(term.key in asked for said in held for term in said.terms)


def features(question: str, chunks: Sequence[ScoredChunk], names: Sequence[str] = ALL_FEATURES) -> dict[str, float]:
    """The features by name, each about 0..1. Sentences are looked at only where one of `names` is about them."""
    chunks = chunks[:_MOST_CHUNKS]
    asked = read(question)
    texts = [read(scored.chunk.text) for scored in chunks]
    titles = [_title(scored) for scored in chunks]
    shares = [
        overlap(asked, Statement(text.terms + title.terms, ())) for text, title in zip(texts, titles, strict=True)
    ]
    fullest = max(range(len(chunks)), key=shares.__getitem__)
    held = {term.key for term in texts[fullest].terms + titles[fullest].terms}
    telling = [term for term in asked.terms if term.kind != "word"]
    found = {
        "maxsim": max(scored.evidence.get("maxsim", 0.0) for scored in chunks),
        "stretch": max(scored.evidence.get("stretch", 0.0) for scored in chunks),
        "overlap": shares[fullest],
        "overlap_union": overlap(asked, Statement(tuple(t for s in (*texts, *titles) for t in s.terms), ())),
        "missing": sum(term.key not in held for term in telling) / max(1, len(telling)),
        "terms": min(12, len(asked.terms)) / 12,
        "title": float(any(term.key in {t.key for t in titles[0].terms} for term in asked.terms)),
    }
    if not {"overlap_sentence", "cue"}.isdisjoint(names):
        found["overlap_sentence"], found["cue"] = _best_sentence(question, chunks[:3])
    return {name: found[name] for name in names}


def _title(scored: ScoredChunk) -> Statement:
    return read(" ".join((scored.chunk.title, *scored.chunk.headings)))


def _best_sentence(question: str, chunks: Sequence[ScoredChunk]) -> tuple[float, float]:
    """The largest overlap of a sentence with the question, and whether that sentence holds something of its answer type (0..1)."""
    asked, kind = read(question), answer_type(question)
    known = {(term.key, term.unit) for term in asked.terms}
    best, its_cue = 0.0, 0.0
    for scored in chunks:
        for start, end in sentence_spans(scored.chunk.text):
            said = tuple(term for term in read(scored.chunk.text).terms if start <= term.start < end)
            share = overlap(asked, Statement(said, ()))
            if share > best:
                new = [term for term in said if (term.key, term.unit) not in known]
                best, its_cue = share, cue(kind, new, scored.chunk.text[start:end])
    return best, its_cue

"""Late interaction over stored token vectors: packing at ingestion, MaxSim at query time.

A passage answers a question if each word of the question finds its like in it: the score is the weighted mean, over the question's
tokens, of the best cosine with any token of the passage (ColBERT, Khattab & Zaharia 2020, arXiv:2004.12832). It is computed over the
whole passage and over its best stretch of 24 tokens, for an answer is seldom longer than a sentence, and words found far from each
other say less.

The token vectors are those that embedding computes anyway, so there is no second model. Kept are 256 dimensions at two bits, without
the tokens that are punctuation: two bits on many dimensions preserve more than eight bits on few, because no small number of
directions holds most of a token vector (64 of 384 principal components hold half of the energy). A question's tokens have a projection
and weights of their own, both learned (`python -m evals.train_questions`), which needs no change to what is stored. The cost of each
choice in quality is in `docs/retrieval-experiments.md`.
"""

import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from citewell import blas
from citewell.retrieval.packing import DIMENSIONS, PACKED_BYTES, TOKEN_BYTES

Floats = NDArray[np.float32]

WEIGHTS = (0.3, 0.3, 0.2, 0.2)
"""Weights in the final score of MaxSim, MaxSim of the best stretch, dense and keyword score, each scaled to 0..1 over the candidates."""
HALF_STRETCH = 12
"""Half of a stretch, in tokens; stretches overlap by one half. 16 to 32 tokens per stretch do about as well."""
NEIGHBOURS = 1 / 3
"""Share of a candidate's final score that is the mean score of the candidates that resemble it, as passages that answer the same
question do (score regularisation, Diaz 2007). Worth .003 to .008 on SQuAD and MTRAG."""
LIKENESS_POWER = 8
"""A candidate counts as a neighbour by its cosine to this power."""

_LEVELS = np.array([-1.510, -0.4528, 0.4528, 1.510], np.float32)
"""Four values that stand for a normal variable with the least squared error (Max 1960)."""
_THRESHOLDS = (_LEVELS[1:] + _LEVELS[:-1]) / 2
_SHIFTS = np.array([0, 2, 4, 6], np.uint8)
_TABLE = _LEVELS[(np.arange(256)[:, None] >> _SHIFTS) & 3].view(np.complex128).ravel()
"""[256]: for each byte the four float32 values that it encodes, seen as one 16-byte number."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Packed:
    """The token vectors of one chunk as they are stored."""

    codes: NDArray[np.uint8]
    """[tokens, PACKED_BYTES], four numbers per byte, the first in the lowest bits."""
    scales: NDArray[np.float16]
    """[tokens]; the decoded numbers times this are the vector, of about unit length."""

    def __len__(self) -> int:
        return len(self.scales)

    def tobytes(self) -> bytes:
        """Serialise; `unpack` is the inverse. Little-endian: count (uint32), scales, codes."""
        return np.array([len(self)], "<u4").tobytes() + self.scales.astype("<f2").tobytes() + self.codes.tobytes()


def unpack(data: bytes | memoryview) -> Packed:
    """Read what `Packed.tobytes` wrote, without copying.

    Raises:
        ValueError: The data has not the length that its first four bytes say.
    """
    count = int(np.frombuffer(data, "<u4", 1)[0]) if len(data) >= 4 else -1
    if len(data) != 4 + count * TOKEN_BYTES:
        raise ValueError("the stored token vectors are damaged")
    scales = np.frombuffer(data, "<f2", count, 4)
    codes = np.frombuffer(data, np.uint8, count * PACKED_BYTES, 4 + 2 * count).reshape(count, PACKED_BYTES)
    return Packed(codes=codes, scales=scales)


@dataclass(frozen=True, slots=True, kw_only=True)
class Query:
    """A question, ready for comparison."""

    vectors: Floats
    """[tokens, DIMENSIONS], unit length."""
    weights: Floats
    """[tokens], sum 1."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Passages:
    """How passages are packed. Made by `python -m evals.projection`."""

    projection: Floats
    """[384, DIMENSIONS], orthonormal columns."""
    idf: Floats
    """[vocabulary]; 0 for punctuation, which is not stored."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Questions:
    """How questions are compared with them. Made by `python -m evals.train_questions`."""

    projection: Floats
    """[384, DIMENSIONS]"""
    salience: Floats
    """[384]; its product with a token's vector is the logarithm of a factor on the token's idf weight."""
    idf_power: float


@cache
def passages() -> Passages:
    """The installed projection and idf, read once per process."""
    blas.one_thread()
    with files("citewell.retrieval").joinpath("projection.npz").open("rb") as file, np.load(file) as data:
        return Passages(projection=data["projection"].astype(np.float32), idf=data["idf"].astype(np.float32))


@cache
def _questions() -> _Questions:
    with files("citewell.retrieval").joinpath("questions.npz").open("rb") as file, np.load(file) as data:
        if not np.array_equal(data["passages"], passages().projection.astype(np.float16)[0]):
            raise RuntimeError("questions.npz was made for another projection.npz: run python -m evals.train_questions")
        return _Questions(
            projection=data["projection"].astype(np.float32), salience=data["salience"].astype(np.float32),
            idf_power=float(data["idf_power"]),
        )  # fmt: skip


def _unit(vectors: Floats) -> Floats:
    unit: Floats = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), np.float32(1e-6))
    return unit


def pack(tokens: Floats, token_ids: ArrayLike) -> Packed:
    """Make a chunk's token vectors small enough to keep.

    Args:
        tokens: float32[tokens, 384] as the built-in model makes them, special tokens dropped.
        token_ids: int[tokens], the WordPiece id of each.
    """
    vectors = _unit(tokens[passages().idf[np.asarray(token_ids, np.int64)] > 0] @ passages().projection)
    standard = vectors * np.sqrt(np.float32(DIMENSIONS))
    low, middle, high = (standard > threshold for threshold in _THRESHOLDS)
    numbers = low.astype(np.uint8) + middle + high  # 0..3
    # With this scale the product of the packed vector with the true one is 1, as for unit vectors, so that similarities are
    # unbiased (RaBitQ, Gao & Long 2024, arXiv:2405.12497).
    scales = 1 / np.maximum(np.einsum("td,td->t", _LEVELS[numbers], vectors), np.float32(1e-6))
    codes = np.bitwise_or.reduce(numbers.reshape(-1, PACKED_BYTES, 4) << _SHIFTS, axis=2)
    return Packed(codes=codes, scales=scales.astype(np.float16))


def query(tokens: Floats, token_ids: ArrayLike) -> Query:
    """Prepare a question's token vectors (float32[tokens, 384]) for `score` and `rerank`."""
    learned, unit = _questions(), _unit(np.asarray(tokens, np.float32).reshape(-1, 384))
    weights = passages().idf[np.asarray(token_ids, np.int64)] ** learned.idf_power * np.exp(unit @ learned.salience)
    if not weights.any():  # nothing but punctuation
        weights = np.ones_like(weights)
    return Query(vectors=_unit(unit @ learned.projection), weights=weights / max(weights.sum(), np.float32(1e-6)))


def score(query: Query, chunks: Sequence[Packed]) -> Floats:
    """MaxSim of each chunk: [chunks], about 0..1, in the order given; 0 for a chunk without tokens."""
    return _compared(query, chunks).whole


class _Compared(NamedTuple):
    """The comparison of a question with chunks, in their order."""

    whole: Floats
    """[chunks]: MaxSim."""
    stretch: Floats
    """[chunks]: MaxSim of the best stretch, at most that of the whole."""
    sums: Floats
    """[chunks, DIMENSIONS]: the sum of each chunk's token vectors."""


def _compared(query: Query, chunks: Sequence[Packed]) -> _Compared:
    """Compare a question with chunks.

    Many chunks at a time: every call into NumPy releases the interpreter's lock, and a thread of a busy service waits to get it back
    (50 candidates beside 16 clients: 37 ms one by one, 18 ms in two groups). On an idle machine one by one would take a quarter less,
    as the decoded vectors stay in the core's cache.
    """
    whole, stretch = np.zeros((2, len(chunks)), np.float32)
    sums = np.zeros((len(chunks), DIMENSIONS), np.float32)
    questions = np.ascontiguousarray(query.vectors.T)
    for some in _groups([len(chunk) for chunk in chunks]):
        codes = np.concatenate([chunks[i].codes for i in some])
        scales = np.concatenate([chunks[i].scales for i in some]).astype(np.float32)
        lengths = np.array([len(chunks[i]) for i in some])
        ends = np.cumsum(lengths)
        starts = ends - lengths
        decoded = _decode(codes)  # the scales are applied below
        if len(query.weights):
            alike = decoded @ questions
            alike *= scales[:, None]
            halves = -(-lengths // HALF_STRETCH)
            last = np.cumsum(halves)
            first = last - halves
            places = np.arange(last[-1]) - np.repeat(first, halves)
            best = np.maximum.reduceat(alike, np.repeat(starts, halves) + HALF_STRETCH * places)
            following = np.concatenate([best[1:], best[-1:]])
            following[last - 1] = best[last - 1]  # nothing follows a chunk's last half
            whole[some] = np.maximum.reduceat(best, first) @ query.weights
            stretch[some] = np.maximum.reduceat(np.maximum(best, following) @ query.weights, first)
        for at in range(0, len(some), _SUMMED_AT_ONCE):
            few = slice(at, at + _SUMMED_AT_ONCE)
            sums[some[few]] = _summed(decoded, scales, starts[few], ends[few])
    return _Compared(whole, stretch, sums)


def _summed(decoded: Floats, scales: Floats, starts: NDArray[np.int64], ends: NDArray[np.int64]) -> Floats:
    """[chunks, DIMENSIONS]: the sum of the scaled vectors of each of a few chunks that follow one another, by one product with a
    matrix that has each chunk's scales in a row of their own. Most of it is zeros: the more chunks, the more of them."""
    begin = starts[0]
    own = np.zeros((len(starts), ends[-1] - begin), np.float32)
    for row, (start, end) in enumerate(zip(starts, ends, strict=True)):
        own[row, start - begin : end - begin] = scales[start:end]
    summed: Floats = own @ decoded[begin : ends[-1]]
    return summed


_AT_ONCE = 3000
"""Tokens compared at once, about; 3 MB of decoded vectors."""
_SUMMED_AT_ONCE = 8
"""Chunks: 50 chunks take .25 ms; with 4 at once .2 ms, in twice as many calls, with as many as are compared at once .8."""
_scratch = threading.local()


def _groups(lengths: Sequence[int]) -> Iterator[list[int]]:
    """Groups of indices of chunks to compare at once, given how many tokens each has; chunks without any are left out."""
    some: list[int] = []
    tokens = 0
    for place, length in enumerate(lengths):
        if length:
            some.append(place)
            tokens += length
        if tokens >= _AT_ONCE:
            yield some
            some, tokens = [], 0
    if some:
        yield some


def _decode(codes: NDArray[np.uint8]) -> Floats:
    """[tokens, DIMENSIONS], not scaled, in memory that this thread reuses at its next call: getting new pages from the system takes
    longer than decoding."""
    space: NDArray[np.complex128] | None = getattr(_scratch, "space", None)
    if space is None or len(space) < len(codes):
        space = _scratch.space = np.empty((len(codes) * 5 // 4, PACKED_BYTES), np.complex128)
    # Four floats are fetched as one 16-byte number, in half the time. The default mode would buffer `out`; no byte is out of range.
    numbers: Floats = np.take(_TABLE, codes, out=space[: len(codes)], mode="clip").view(np.float32)
    return numbers


def decoded(chunk: Packed) -> Floats:
    """[tokens, DIMENSIONS]: a chunk's token vectors, as exact as two bits allow."""
    return _decode(chunk.codes) * chunk.scales.astype(np.float32)[:, None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Reranked:
    """The scores of each chunk, in the order given."""

    score: Floats
    """[chunks], 0..1: the final score, comparable within one question."""
    maxsim: Floats
    """[chunks], about 0..1: late interaction alone."""
    stretch: Floats
    """[chunks], about 0..1: the same over the best stretch."""


def rerank(
    query: Query, chunks: Sequence[Packed], *, dense: Sequence[float | None], keyword: Sequence[float | None]
) -> Reranked:
    """Judge candidates by late interaction together with the evidence that found them.

    Args:
        query: From `query`.
        chunks: The candidates' token vectors.
        dense: Each candidate's cosine, None where the dense search did not return it.
        keyword: Each candidate's BM25 score, None where the keyword search did not return it.
    """
    found = _compared(query, chunks)
    own = WEIGHTS[0] * scaled(found.whole) + WEIGHTS[1] * scaled(found.stretch) + others(dense, keyword)
    alike = _likeness(found.sums)
    neighbours = alike @ own / alike.sum(axis=1)
    score = (1 - NEIGHBOURS) * own + NEIGHBOURS * neighbours
    return Reranked(score=score, maxsim=found.whole, stretch=found.stretch)


def _likeness(sums: Floats) -> Floats:
    """[chunks, chunks]: the cosines of the chunks' mean token vectors to the power LIKENESS_POWER; 1 on the diagonal."""
    means = _unit(sums)
    alike: Floats = np.clip(means @ means.T, 0, 1) ** LIKENESS_POWER
    np.fill_diagonal(alike, 1)
    return alike


def others(dense: Sequence[float | None], keyword: Sequence[float | None]) -> Floats:
    """[chunks]: what the two searches add to the final score, 0 to the sum of their weights. Arguments as for `rerank`."""
    return WEIGHTS[2] * scaled(_filled(dense)) + WEIGHTS[3] * scaled(_filled(keyword))


def _filled(values: Sequence[float | None]) -> Floats:
    """The scores, with the lowest one for what the search did not return: it is no better than the last one found."""
    low = min((value for value in values if value is not None), default=0.0)
    return np.array([low if value is None else value for value in values], np.float32)


def scaled(values: Floats) -> Floats:
    """Scale the lowest value to 0 and the highest to 1; equal values become 0."""
    low, high = values.min(initial=np.inf), values.max(initial=-np.inf)
    return (values - low) / (high - low) if high > low else np.zeros_like(values)

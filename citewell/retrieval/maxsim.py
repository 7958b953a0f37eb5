"""Late interaction over stored token vectors: packing at ingestion, MaxSim at query time.

A passage answers when each word of the question finds its like somewhere in it: the score is, over the
question's tokens, the weighted mean of the best cosine with any token of the passage (ColBERT, Khattab &
Zaharia 2020, arXiv:2004.12832). Citewell keeps the token vectors that embedding computes anyway, so there is no
second model: projected to fewer dimensions, without the tokens that carry nothing, eight bits a number.

How much is kept and what it costs in quality is measured in `docs/retrieval-quality.md`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Self

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]

DIMENSIONS = 64
"""Of a packed token vector. See docs/retrieval-quality.md for 32 to 128."""

WEIGHTS = (0.6, 0.2, 0.2)
"""Shares of MaxSim, dense and keyword evidence in the final score, each scaled to 0..1 over the candidates."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Packed:
    """The token vectors of one chunk as they are stored: 68 bytes a token."""

    codes: NDArray[np.int8]
    """[tokens, DIMENSIONS]; a vector is `codes * scales`, about unit length."""
    scales: NDArray[np.float16]
    """[tokens]"""
    ids: NDArray[np.uint16]
    """[tokens] WordPiece ids."""

    def __len__(self) -> int:
        return len(self.ids)

    def tobytes(self) -> bytes:
        """Serialise; `unpack` is the inverse. Little-endian: count (uint32), scales, ids, codes."""
        count = np.array([len(self)], "<u4")
        return count.tobytes() + self.scales.astype("<f2").tobytes() + self.ids.astype("<u2").tobytes() + self.codes.tobytes()  # fmt: skip


def unpack(data: bytes | memoryview) -> Packed:
    """Read what `Packed.tobytes` wrote, without copying.

    Raises:
        ValueError: The data is not as long as its first four bytes say.
    """
    count = int(np.frombuffer(data, "<u4", 1)[0]) if len(data) >= 4 else -1
    if len(data) != 4 + count * (4 + DIMENSIONS):
        raise ValueError("the stored token vectors are damaged")
    scales = np.frombuffer(data, "<f2", count, 4)
    ids = np.frombuffer(data, "<u2", count, 4 + 2 * count)
    codes = np.frombuffer(data, np.int8, count * DIMENSIONS, 4 + 4 * count).reshape(count, DIMENSIONS)
    return Packed(codes=codes, scales=scales, ids=ids)


@dataclass(frozen=True, slots=True, kw_only=True)
class Stack:
    """The token vectors of several chunks, one after the other."""

    codes: NDArray[np.int8]
    scales: NDArray[np.float16]
    ids: NDArray[np.uint16]
    offsets: NDArray[np.int64]
    """[chunks + 1]; chunk i owns the rows offsets[i]:offsets[i + 1]."""

    @classmethod
    def of(cls, packed: Sequence[Packed]) -> Self:
        return cls(
            codes=np.concatenate([p.codes for p in packed]),
            scales=np.concatenate([p.scales for p in packed]),
            ids=np.concatenate([p.ids for p in packed]),
            offsets=np.cumsum([0, *map(len, packed)], dtype=np.int64),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Query:
    """A question ready to be compared."""

    vectors: Floats
    """[tokens, DIMENSIONS], unit length."""
    weights: Floats
    """[tokens], sum 1."""
    ids: NDArray[np.uint16]


@cache
def _projection() -> Floats:
    """[384, DIMENSIONS], orthonormal columns. Made by `python -m evals.projection`."""
    with files("citewell.retrieval").joinpath("projection.npz").open("rb") as file, np.load(file) as data:
        return np.asarray(data["projection"], dtype=np.float32)


def _project(tokens: Floats) -> Floats:
    projected = tokens @ _projection()
    return projected / np.maximum(np.linalg.norm(projected, axis=1, keepdims=True), 1e-6)  # type: ignore[no-any-return]


def pack(tokens: Floats, token_ids: Sequence[int]) -> Packed:
    """Make a chunk's token vectors small enough to keep.

    Args:
        tokens: [tokens, 384], as the built-in model makes them, special tokens dropped.
        token_ids: The WordPiece id of each.
    """
    ids = np.asarray(token_ids, np.uint16)
    vectors = _project(np.asarray(tokens, np.float32))
    scales = np.abs(vectors).max(axis=1, initial=1e-6) / 127
    codes = np.rint(vectors / scales[:, None]).astype(np.int8)
    return Packed(codes=codes, scales=scales.astype(np.float16), ids=ids)


def query(tokens: Floats, token_ids: Sequence[int]) -> Query:
    """Prepare a question's token vectors ([tokens, 384]) for `score`."""
    count = len(token_ids)
    weights = np.full(count, 1 / max(count, 1), np.float32)
    return Query(vectors=_project(np.asarray(tokens, np.float32)), weights=weights, ids=np.asarray(token_ids, np.uint16))  # fmt: skip


def score(query: Query, chunks: Stack | Sequence[Packed]) -> Floats:
    """Return how well each chunk answers: [chunks], about 0..1, in the order given; 0 for a chunk without tokens.

    One matrix product for all chunks and one `np.maximum.reduceat`; 50 chunks take about a millisecond.
    """
    stack = chunks if isinstance(chunks, Stack) else Stack.of(chunks) if chunks else None
    if stack is None or not len(query.ids):
        return np.zeros(0 if stack is None else len(stack.offsets) - 1, np.float32)
    starts, ends = stack.offsets[:-1], stack.offsets[1:]
    filled = starts < ends
    scores = np.zeros(len(starts), np.float32)
    if filled.any():
        similarity = (stack.codes.astype(np.float32) * stack.scales.astype(np.float32)[:, None]) @ query.vectors.T
        # Empty chunks own no row, so the starts of the others are exactly where reduceat has to cut.
        best = np.maximum.reduceat(similarity, starts[filled], axis=0)
        scores[filled] = best @ query.weights
    return scores


@dataclass(frozen=True, slots=True, kw_only=True)
class Reranked:
    """What late interaction says of each chunk, in the order given."""

    score: Floats
    """[chunks], 0..1: all evidence together, comparable within one question."""
    maxsim: Floats
    """[chunks], about 0..1: late interaction alone."""


def rerank(
    query: Query,
    chunks: Stack | Sequence[Packed],
    *,
    dense: Sequence[float | None],
    keyword: Sequence[float | None],
) -> Reranked:
    """Judge candidates by late interaction together with the evidence that found them.

    Args:
        query: From `query`.
        chunks: The candidates' token vectors.
        dense: Each candidate's cosine, None where the dense search did not return it.
        keyword: Each candidate's BM25 score, None where the keyword search did not return it.
    """
    maxsim = score(query, chunks)
    combined = sum(
        weight * _scaled(values)
        for weight, values in zip(WEIGHTS, (maxsim, _filled(dense), _filled(keyword)), strict=True)
    )
    return Reranked(score=np.asarray(combined, np.float32), maxsim=maxsim)


def _filled(values: Sequence[float | None]) -> Floats:
    """Give what a search did not return that search's lowest score: it is no better than the last one found."""
    known = [value for value in values if value is not None]
    low = min(known, default=0.0)
    return np.array([low if value is None else value for value in values], np.float32)


def _scaled(values: Floats) -> Floats:
    low, high = values.min(initial=np.inf), values.max(initial=-np.inf)
    return (values - low) / (high - low) if high > low else np.zeros_like(values)

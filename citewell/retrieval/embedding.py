"""Embeds chunks for a generation: their vectors, their packed token vectors, and what the guard sees in passing."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

from citewell.documents import Chunk
from citewell.models import Embedder, Encoded, Vectors
from citewell.retrieval.blocking import BlockingCalls
from citewell.retrieval.generation import Embedded
from citewell.retrieval.packing import has_tokens
from citewell.retrieval.verdicts import ChunkGuard

_AT_ONCE = 256
"""Chunks embedded in one pass, which takes about 90 MB for token vectors and states."""


async def embed(
    chunks: Sequence[Chunk], embedder: Embedder, guard: ChunkGuard | None, *, blocking: BlockingCalls,
    progress: Callable[[int, int], None] | None,
) -> Embedded:  # fmt: skip
    """Embed chunks, some at a time: token vectors take twenty times the memory of what is kept of them.

    Args:
        chunks: Any number.
        embedder: Embeds them.
        guard: Skims them on the way; None: nobody does.
        blocking: Runs what blocks.
        progress: Called with (chunks embedded, chunks in all).
    """
    parts: list[Embedded] = []
    for start in range(0, len(chunks), _AT_ONCE):
        texts = [chunk.text for chunk in chunks[start : start + _AT_ONCE]]
        passages = [passage(chunk) for chunk in chunks[start : start + _AT_ONCE]]
        told = partial(_tell, progress, start, len(chunks)) if progress is not None else None
        encoded = await embedder.aencode(passages, tokens=has_tokens(embedder), progress=told)
        parts.append(await blocking.run(_kept, encoded, texts, guard))
    return Embedded(
        vectors=await blocking.run(_stacked, [part.vectors for part in parts], embedder.dimension),
        tokens=[packed for part in parts for packed in part.tokens],
        guard=guard.fingerprint if guard is not None else None,
        suspicions=[score for part in parts for score in part.suspicions],
    )


def passage(chunk: Chunk) -> str:
    """The text that is embedded for a chunk: below its title and headings, which give it context."""
    above = " / ".join(dict.fromkeys([chunk.title, *chunk.headings]))
    return f"{above}\n{chunk.text}" if above else chunk.text


def _tell(progress: Callable[[int, int], None], before: int, total: int, done: int, _: int) -> None:
    progress(before + done, total)


def _kept(encoded: Encoded, texts: Sequence[str], guard: ChunkGuard | None) -> Embedded:
    import numpy as np  # late, as in `reranking`

    from citewell.retrieval import maxsim

    tokens = [b""] * len(texts)
    if encoded.tokens is not None and encoded.token_ids is not None:
        both = zip(encoded.tokens, encoded.token_ids, strict=True)
        tokens = [maxsim.pack(vectors, ids).tobytes() for vectors, ids in both]
    return Embedded(
        vectors=np.asarray(encoded.vectors, np.float32), tokens=tokens,
        guard=guard.fingerprint if guard is not None else None,
        suspicions=guard.skim(texts, encoded) if guard is not None else [None] * len(texts),
    )  # fmt: skip


def _stacked(parts: Sequence[Vectors], dimension: int) -> Vectors:
    """[rows of all parts, dimension]; there may be no part."""
    import numpy as np

    return np.concatenate([np.zeros((0, dimension), np.float32), *parts])

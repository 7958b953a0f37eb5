"""Sources made for the tests, and a small embedding model that needs no weights."""

import hashlib
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from citewell.documents import Chunk, Source
from citewell.models import Embedder, Encoded, Progress
from citewell.retrieval import NewSource
from citewell.settings import Settings


class HashedWords(Embedder):
    """Every word is a direction drawn from its hash; a text is the sum of its words. Close texts share words."""

    def __init__(self, name: str = "hashed-words") -> None:
        self.name, self.dimension, self.gives_tokens, self.fingerprint = name, 384, True, name

    def encode(self, texts: Sequence[str], *, tokens: bool = False, progress: Progress | None = None) -> Encoded:
        words = [re.findall(r"\w+", text.lower()) or ["nothing"] for text in texts]
        by_token = [np.stack([self._direction(word) for word in each]) for each in words]
        sums = np.stack([each.sum(axis=0) for each in by_token]) if texts else np.zeros((0, 384))
        vectors = (sums / np.maximum(np.linalg.norm(sums, axis=1, keepdims=True), 1e-9)).astype(np.float32)
        ids = [np.array([_number(word) % 30_000 for word in each], np.int32) for each in words]
        return Encoded(vectors=vectors, tokens=by_token if tokens else None, token_ids=ids if tokens else None)

    def _direction(self, word: str) -> np.ndarray:
        drawn = np.random.default_rng(_number(word)).standard_normal(384)
        return (drawn / np.linalg.norm(drawn)).astype(np.float32)


def _number(word: str) -> int:
    return int.from_bytes(hashlib.blake2b(word.encode(), digest_size=6).digest())


def made(uri: str, paragraphs: Sequence[str], **described: object) -> NewSource:
    """A source whose chunks are these paragraphs, with true offsets."""
    text = "\n\n".join(paragraphs)
    source = Source(**{  # type: ignore[arg-type]
        "uri": uri, "title": uri, "type": "txt", "sha256": hashlib.sha256(text.encode()).hexdigest(),
        "size_bytes": len(text.encode()), **described,
    })  # fmt: skip
    chunks, start = [], 0
    for index, paragraph in enumerate(paragraphs):
        id_ = hashlib.sha256(f"{uri}\0{start}\0{paragraph}".encode()).hexdigest()[:20]
        chunks.append(Chunk(
            id=id_, source=uri, title=source.title, text=paragraph, start=start, end=start + len(paragraph), index=index,
            type=source.type, date=source.date, tags=source.tags, access=source.access,
        ))  # fmt: skip
        start += len(paragraph) + 2
    return NewSource(source=source, text=text, chunks=chunks)


def settings(folder: Path, **changed: object) -> Settings:
    return Settings(**{"data_dir": folder, "retrieval_timeout_s": 30, **changed})  # type: ignore[arg-type]

"""The guard's judgement of chunks, made when they are ingested and kept in the catalog."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Protocol

from citewell.models import Encoded
from citewell.retrieval.catalog import Catalog

BATCH = 64
"""Chunks judged and committed at once: about a second's work, which is all that a stopped ingestion loses."""


class ChunkGuard(Protocol):
    """Judges chunks; `citewell.guards.injection.InjectionScanner` is one. Blocking; called in a thread."""

    @property
    def fingerprint(self) -> str:
        """Changes whenever the same text could get another score."""

    def load(self) -> None:
        """Load its model now instead of at first use. Raises ConfigurationError."""

    def skim(self, texts: Sequence[str], encoded: Encoded) -> list[float | None]:
        """Score (0..1) each text that its embedding shows to be harmless; None for the others, which need a scan."""

    def score_documents(self, texts: Sequence[str]) -> list[float]:
        """Score (0..1) each text by scanning it."""


def judge_some(catalog: Catalog, guard: ChunkGuard, *, sources: Sequence[str] | None, after: int) -> int | None:
    """Judge the next chunks that this guard has not judged. Blocking.

    Args:
        sources: Only chunks of these uris; None: of all sources.
        after: Only chunks with a key above.

    Returns:
        The last key looked at, to go on after; None when there was nothing left.
    """
    with catalog.reading() as snapshot:
        texts = snapshot.unjudged(guard.fingerprint, sources=sources, after=after, limit=BATCH)
    if not texts:
        return None
    scores = zip(texts, guard.score_documents(list(texts.values())), strict=True)
    # A score that is not a number is not kept: such a chunk is judged again when it is found, and then blocked.
    catalog.judge(guard.fingerprint, {key: score for key, score in scores if math.isfinite(score)})
    return max(texts)

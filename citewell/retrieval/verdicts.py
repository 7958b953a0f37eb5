"""What the guard thinks of the chunks, found out when they are ingested and kept beside them in the catalog."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Protocol

from citewell.models import Encoded
from citewell.retrieval.catalog import Catalog

BATCH = 64
"""Chunks judged and committed at once: about a second's work, so that a stopped ingestion loses no more."""


class ChunkGuard(Protocol):
    """What judges chunks; `citewell.guards.injection.InjectionScanner` is one. Holds the processor; called in a thread."""

    @property
    def fingerprint(self) -> str:
        """Changes whenever the same text could get another score."""

    def load(self) -> None:
        """Read now what would otherwise be read when it is first asked for something. Raises ConfigurationError."""

    def skim(self, texts: Sequence[str], encoded: Encoded) -> list[float | None]:
        """0..1 for each text that needs no scan after what embedding it has shown; None for the others."""

    def score_documents(self, texts: Sequence[str]) -> list[float]:
        """0..1 for each text."""


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
    # A score that is no number decides nothing: such a chunk is judged again when it is found, and blocked then.
    catalog.judge(guard.fingerprint, {key: score for key, score in scores if math.isfinite(score)})
    return max(texts)

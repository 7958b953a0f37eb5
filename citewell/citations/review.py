"""Which answers a person should look at before they are relied on. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from citewell.citations import Citation


def review_reasons(metadata: Mapping[str, Any], citations: Sequence[Citation], *, below: float) -> list[str]:
    """Why somebody should look at an answer; empty where there is no reason to.

    Args:
        metadata: The answer's; `confidence`, `unmarked`, `quarantined` and `truncated` are read.
        citations: The answer's, as `verify` returns them.
        below: Confidence (0..1) below which an answer should be looked at.

    Returns:
        Those of `low_confidence`, `unsupported_sentence`, `unmarked_sentence`, `quarantined_source` and `truncated` that apply, in
        this order.
    """
    holds = {
        "low_confidence": metadata.get("confidence", 0.0) < below,
        "unsupported_sentence": any(citation["status"] == "unsupported" for citation in citations),
        "unmarked_sentence": bool(metadata.get("unmarked")),
        "quarantined_source": bool(metadata.get("quarantined")),
        "truncated": bool(metadata.get("truncated")),
    }
    return [reason for reason, is_so in holds.items() if is_so]

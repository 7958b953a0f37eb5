"""Why this answer, as HTML: the candidates with their scores, and where the time went. Pure."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from typing import Any

from citewell.wording import count

SHOWN = 12
"""Candidates listed; the rest is counted."""
_COLUMNS = (
    ("score", "Score", "What the order follows, 0 to 1"),
    ("dense", "Meaning", "Closeness of meaning"),
    ("keyword", "Words", "Match of words (BM25)"),
    ("fused", "Both", "Meaning and words put together"),
    ("maxsim", "Rerank", "Late interaction, word by word"),
    ("stretch", "Nearby", "The same within the best sentence or so"),
)


def why_html(trace: Mapping[str, Any], metadata: Mapping[str, Any]) -> str:
    """Two tables and a sentence on what was left out."""
    candidates: Sequence[Mapping[str, Any]] = trace.get("candidates", [])
    kept = sum(row.get("dropped") is None for row in candidates)
    parts = [
        f'<div class="cw-small">{count(len(candidates), "passage")} compared, {kept} kept.{_notes(trace, metadata)}</div>',
        _candidates(candidates[:SHOWN]),
    ]
    if len(candidates) > SHOWN:
        parts.append(f'<div class="cw-small">… and {len(candidates) - SHOWN} more below these.</div>')
    parts.append(_times(trace.get("stages_ms", {}), metadata.get("stages_ms", {})))
    return f'<div class="cw-why">{"".join(parts)}</div>'


def _notes(trace: Mapping[str, Any], metadata: Mapping[str, Any]) -> str:
    notes = []
    if standalone := metadata.get("standalone_question"):
        notes.append(f"Searched for: “{html.escape(str(standalone))}”")
    if quarantined := trace.get("quarantined"):
        notes.append(f"{len(quarantined)} held back by a guard.")
    if "confidence" in metadata:
        notes.append(f"Confidence that the documents hold the answer: {round(100 * metadata['confidence'])} %.")
    return " " + " ".join(notes) if notes else ""


def _candidates(rows: Sequence[Mapping[str, Any]]) -> str:
    head = "".join(f'<th scope="col" title="{title}">{name}</th>' for _, name, title in _COLUMNS)
    body = "".join(
        f'<tr><td>{place}</td><th scope="row">{html.escape(str(row["source"]))}</th>'
        + "".join(f"<td>{_figure(row.get(key))}</td>" for key, _, _ in _COLUMNS)
        + f"<td>{_fate(row.get('dropped'))}</td></tr>"
        for place, row in enumerate(rows, 1)
    )
    return (
        '<div class="cw-scroll" tabindex="0" role="region" aria-label="Candidates"><table><caption>Candidates, best first</caption>'
        f'<thead><tr><th scope="col">#</th><th scope="col">Document</th>{head}<th scope="col">Fate</th></tr></thead>'
        f"<tbody>{body}</tbody></table></div>"
    )


def _times(retrieval: Mapping[str, float], stages: Mapping[str, float]) -> str:
    def rows(times: Mapping[str, float], longest: float) -> str:
        return "".join(
            f'<tr><th scope="row">{html.escape(name)}</th><td>{ms:.1f} ms</td>'
            f'<td><div class="cw-bar" style="width:{100 * ms / longest:.0f}%"></div></td></tr>'
            for name, ms in times.items()
        )

    tables = [
        f"<table><caption>{caption}</caption><tbody>{rows(times, max(times.values()) or 1)}</tbody></table>"
        for caption, times in (("Time per stage", stages), ("Within retrieval", retrieval))
        if times
    ]
    return f'<div class="cw-times">{"".join(tables)}</div>'


def _fate(dropped: object) -> str:
    if dropped is None:
        return "✓ kept"
    return "not kept" if dropped == "below top_k" else html.escape(str(dropped))


def _figure(value: object) -> str:
    return f"{value:.3f}" if isinstance(value, int | float) else "–"

"""`python -m citewell.retrieval why "question"`: what retrieval found for a question, and why in that order."""

from __future__ import annotations

import asyncio
import json
from typing import Annotated

import typer
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from citewell.commands import command_line
from citewell.documents import ScoredChunk
from citewell.errors import CitewellError, InvalidFilter
from citewell.models import open_embedder
from citewell.retrieval import Trace, open_index
from citewell.settings import Settings
from citewell.wording import count

app = command_line(no_args_is_help=True, help="Look into the index.")

COLUMNS = (
    ("dense", "dense_rank"), ("keyword", "keyword_rank"), ("fused", "fused_rank"), ("maxsim", None),
    ("stretch", None), ("cross_encoder", None), ("score", "rerank_rank"),
)  # fmt: skip
"""Figures of the table, each with the rank that goes with it."""


@app.callback()
def root() -> None:
    """Look into the index."""


@app.command()
def why(
    question: Annotated[str, typer.Argument(help="As it would be asked.")],
    where: Annotated[str, typer.Option(help="Metadata filter as JSON, see docs/filters.md.")] = "{}",
    rows: Annotated[int, typer.Option(min=1, help="Most candidates shown.")] = 20,
    as_json: Annotated[bool, typer.Option("--json", help="Print the whole trace as JSON.")] = False,
) -> None:
    """Show each candidate's dense, keyword, fused and rerank figures, what was dropped and why, and the time per stage."""
    console, errors = Console(soft_wrap=as_json, highlight=False), Console(stderr=True)
    try:
        trace, found = asyncio.run(_ask(question, where))
    except CitewellError as exc:
        errors.print(exc.detail, markup=False)
        raise typer.Exit(2) from None
    if as_json:
        console.print_json(json.dumps(trace.as_dict()))
        return
    texts = {one.chunk.id: one.chunk.text for one in found}
    console.print(_table(trace, rows))
    for number, row in enumerate(trace.candidates[:rows], 1):
        why_not = f" (dropped: {row['dropped']})" if row["dropped"] else ""
        text = " ".join(texts.get(str(row["id"]), "").split())
        line = f"{number:>3} {row['source']}{why_not}: {text}"
        console.print(line, markup=False, overflow="ellipsis", no_wrap=True)
    for reason in dict.fromkeys(str(one["why"]) for one in trace.dropped):
        count = sum(one["why"] == reason for one in trace.dropped)
        console.print(f"dropped before ranking: {count} ({reason})")
    console.print(", ".join(f"{stage} {ms:.1f} ms" for stage, ms in trace.stages.items()))


async def _ask(question: str, where: str) -> tuple[Trace, list[ScoredChunk]]:
    try:
        filter_ = json.loads(where)
    except ValueError:
        raise InvalidFilter('--where is not JSON, such as {"source": "a.md"}.') from None
    settings, trace = Settings.load(), Trace()
    embedder = await asyncio.to_thread(open_embedder, settings)
    try:
        async with open_index(settings, embedder) as index:
            found = await index.search(question, candidates=settings.candidates, where=filter_, trace=trace)
            await index.rerank(question, found, top_k=settings.top_k, trace=trace)
    finally:
        embedder.close()
    return trace, found


def _table(trace: Trace, rows: int) -> Table:
    """The figures alone, which fit into 80 columns."""
    table = Table(
        "", title=f"{count(len(trace.candidates), 'candidate')}, figure (rank)", title_justify="left", box=SIMPLE_HEAD
    )
    shown = [(name, rank) for name, rank in COLUMNS if any(name in row for row in trace.candidates)]
    for name, _ in shown:
        table.add_column(name, justify="right", no_wrap=True)
    for number, row in enumerate(trace.candidates[:rows], 1):
        table.add_row(str(number), *(_figure(row, name, rank) for name, rank in shown))
    return table


def _figure(row: dict[str, object], name: str, rank: str | None) -> str:
    if name not in row:
        return "–"
    figure = f"{float(str(row[name])):.3f}"
    return f"{figure} ({float(str(row[rank])):.0f})" if rank in row else figure


if __name__ == "__main__":
    app()

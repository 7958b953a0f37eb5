"""Finds chunks for a question: for each thing that it asks, as each of its readings, with its misspelt words put right."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from chains.compound import interleaved, singles
from chains.condense import readings
from chains.evidence import is_about
from chains.spelling import doubtful, respelt
from citewell.documents import Chunk, ScoredChunk, may_read
from citewell.retrieval import Trace, filters
from graph.parts import Parts
from graph.state import Hits, RunContext, SingleHits


class Searching:
    """Searches with the live parts, within what the run's caller may read."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._settings = parts.settings

    async def found(self, context: RunContext, question: str, typed: str) -> tuple[str, str, list[Hits]]:
        """What is found for the standalone question, and for the typed one where the two may be about different things.

        Returns:
            Both questions, misspelt words put right, and what was found for them so.
        """
        hits = await self._hits(context, question, typed)
        chunks = [each.chunk for one in hits for single in one.singles for each in single.candidates]
        meant = {asked: await self._respelt(asked, chunks) for asked in dict.fromkeys((question, typed))}
        if any(asked != right for asked, right in meant.items()):
            question, typed = meant[question], meant[typed]
            hits = await self._hits(context, question, typed)
        return question, typed, hits

    async def best(self, hits: Sequence[Hits], typed: str, top_k: int) -> tuple[Hits, list[ScoredChunk]]:
        """The reading of the question that finds better evidence, and the best chunks for it.

        Args:
            hits: From `found`.
            typed: The question as it was typed.
            top_k: How many chunks to keep.
        """
        ranked = [(one, await self._ranked(one, top_k)) for one in hits]
        if len(ranked) > 1:  # a follow-up, or a question about something else: the documents tell
            fit = [one for one in ranked if one[0].question == typed or is_about(typed, one[1])]
            ranked = sorted(fit, key=lambda one: -self._parts.evidence.confidence(one[0].question, one[1]))
        return ranked[0]

    async def candidates(
        self, context: RunContext, question: str, most: int, trace: Trace | None = None
    ) -> list[ScoredChunk]:
        """Chunks for one thing that is asked, best first."""
        return await self._parts.index.search(
            question, candidates=most, where=context.filter, access=context.labels, trace=trace
        )

    async def again(self, context: RunContext, ids: Sequence[str]) -> list[Chunk]:
        """Chunks that were found before, as far as the caller may still find them."""
        tree = filters.parse(context.filter)
        return [
            chunk
            for chunk in await self._parts.index.chunks(ids)
            if may_read(context.labels, chunk.access) and (tree is None or filters.holds(tree, chunk))
        ]

    async def _hits(self, context: RunContext, question: str, typed: str) -> list[Hits]:
        return [
            Hits(asked, [await self._single(context, single.question) for single in singles(asked, typed)])
            for asked in readings(question, typed)
        ]

    async def _single(self, context: RunContext, question: str) -> SingleHits:
        trace = Trace() if context.trace else None
        return SingleHits(question, await self.candidates(context, question, self._settings.candidates, trace), trace)

    async def _respelt(self, question: str, found: Sequence[Chunk]) -> str:
        if self._settings.language != "english" or not doubtful(question, found):
            return question
        meant = await asyncio.to_thread(respelt, question, found)
        # It is stored and shown, now with words of documents.
        return question if meant == question else await self._parts.guards.keepable(meant)

    async def _ranked(self, hits: Hits, top_k: int) -> list[ScoredChunk]:
        """The best chunks for a question; where it asks several things, the best for each in turn."""
        rankings = [
            await self._parts.index.rerank(single.question, single.candidates, top_k=top_k, trace=single.trace)
            for single in hits.singles
        ]
        return interleaved(rankings, top_k)

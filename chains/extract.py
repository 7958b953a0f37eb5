"""The answerer that needs no chat model: quotes the sentences that answer best, word for word, each with its marker."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Sequence
from typing import cast

from langchain_core.messages import AIMessageChunk
from langchain_core.messages.ai import UsageMetadata
from langchain_core.runnables import Runnable, RunnableGenerator

from chains.judge import probabilities
from chains.prompts import AnswerInput
from chains.reading import Candidate, candidates, features
from citewell.citations import support
from citewell.documents import ScoredChunk
from citewell.models.embedder import Embedder

MODEL_NAME = "extractive"
MOST_SENTENCES = 3
REFUSE_BELOW = 0.02
"""Nothing is quoted when the best sentence is less probable than this to hold the answer."""
KEEP_FROM = 0.25
"""A further sentence is quoted when it is at least this probable, as a share of the best one's probability."""


def extractive_answerer(embedder: Embedder) -> Runnable[AnswerInput, AIMessageChunk]:
    """An answerer that quotes.

    `astream` yields one word at a time, `ainvoke` the whole message. The last piece carries `usage_metadata` (words)
    and `response_metadata` with `model_name` "extractive", `finish_reason` "stop" and `sentences`, the number
    quoted; 0 when the answer says that the documents hold none. The work is done off the event loop.

    Args:
        embedder: The model that the chunks were embedded with, or any other.
    """

    async def pieces(inputs: AsyncIterator[AnswerInput]) -> AsyncIterator[AIMessageChunk]:
        async for given in inputs:
            quoted = await asyncio.to_thread(select, given["question"], given["chunks"], embedder)
            answer = compose(quoted, given["chunks"])
            words = re.findall(r"\s*\S+", answer)
            for word in words:
                yield AIMessageChunk(content=word)
            read_words = len(given["question"].split()) + sum(len(one.chunk.text.split()) for one in given["chunks"])
            yield AIMessageChunk(
                content="",
                usage_metadata=UsageMetadata(
                    input_tokens=read_words, output_tokens=len(words), total_tokens=read_words + len(words)
                ),
                response_metadata={"model_name": MODEL_NAME, "finish_reason": "stop", "sentences": len(quoted)},
                chunk_position="last",
            )

    return cast("Runnable[AnswerInput, AIMessageChunk]", RunnableGenerator(pieces, name=MODEL_NAME))


def select(question: str, chunks: Sequence[ScoredChunk], embedder: Embedder) -> list[Candidate]:
    """The sentences to quote, best first; none when no sentence is likely to hold the answer."""
    found = candidates(chunks)
    if not found:
        return []
    probable = probabilities(features(question, found, chunks, embedder))
    order = sorted(range(len(found)), key=lambda i: -probable[i])
    best = probable[order[0]]
    if best < REFUSE_BELOW:
        return []
    kept: list[Candidate] = []
    for i in order:
        if len(kept) == MOST_SENTENCES or probable[i] < KEEP_FROM * best:
            break
        if _holds(found[i], chunks):
            kept.append(found[i])
    return kept


def _holds(one: Candidate, chunks: Sequence[ScoredChunk]) -> bool:
    """A quotation that the check of citations would not confirm (nothing but function words, say) is not made."""
    return support(one.text, chunks[one.number - 1].chunk.text).status == "verified"


def compose(quoted: Sequence[Candidate], chunks: Sequence[ScoredChunk]) -> str:
    """The answer: each quoted sentence with the marker of its chunk, or a plain statement that there is none."""
    if not quoted:
        return not_in_documents(chunks)
    return " ".join(f"{one.text if one.text[-1:] in '.!?…。！？' else one.text + ' …'} [{one.number}]" for one in quoted)


def not_in_documents(chunks: Sequence[ScoredChunk]) -> str:
    """Say that the documents do not hold the answer, and which come nearest."""
    nearest = list(dict.fromkeys(scored.chunk.title or scored.chunk.source for scored in chunks))[:3]
    if not nearest:
        return "I found nothing in the documents that this could be answered from."
    return f"The documents do not seem to answer this. The nearest passages are in: {'; '.join(nearest)}."

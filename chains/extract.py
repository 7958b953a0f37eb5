"""The answerer that needs no chat model: it quotes the sentences that answer best, word for word, each with its marker."""

from __future__ import annotations

import asyncio
import re
from collections import Counter
from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
from itertools import pairwise, zip_longest
from typing import NamedTuple, cast

import numpy as np
from langchain_core.messages import AIMessageChunk
from langchain_core.messages.ai import UsageMetadata
from langchain_core.runnables import Runnable, RunnableGenerator

from chains.answer import AnswerInput
from chains.answer_type import asks_yes_or_no
from chains.candidates import Candidate, begins, candidates, ends
from chains.compound import Single, singles
from chains.conditions import condition
from chains.features import FEATURES, features
from chains.judge import probabilities
from chains.lists import asked_for
from chains.superlatives import extreme, may_answer
from citewell.citations import verify
from citewell.documents import ScoredChunk
from citewell.models.embedder import Embedder
from citewell.settings import EXTRACTIVE
from citewell.terms import overlap, read

MOST_SENTENCES = 3
NEAR = 0.25
"""Cosine with the question from which a sentence that shares no word with it may be quoted."""
KEEP_FROM = 0.2
"""A further sentence is quoted if its probability is at least this share of the best one's."""
SURE_FROM = 0.4
"""Probability that one of the chosen sentences answers, below which none stands out: the answer may be spread over a table, or have
to be worked out, or not be there. Then every chunk is quoted once before any is quoted twice, to show all the places that were found,
below NEAREST."""
_MEANING = re.compile(r"\bmeans?\b|\bmeaning of\b", re.IGNORECASE)
NEAREST = "The documents may not answer this; these passages come nearest:"


class Quotations(NamedTuple):
    """What is quoted."""

    sentences: list[Candidate]
    """Best first; none where no sentence is likely to hold the answer."""
    is_sure: bool
    """Whether they can be said without reserve."""
    answers: float | None
    """Probability (0..1) that one of them answers; 1 where they are the list that is asked for. None for a question that follows on
    others: its few words leave most sentences improbable."""


def extractive_answerer(embedder: Embedder) -> Runnable[AnswerInput, AIMessageChunk]:
    """An answerer that quotes.

    `astream` yields one word at a time, `ainvoke` the whole message. The first piece's `response_metadata` has `sentences`, the number
    quoted: 0 where the answer says that the documents hold none; and `answers` as in `Quotations`, where that is known, so that a
    reader can turn away before a word is shown. The last piece carries `usage_metadata` (in words) and `response_metadata` with
    `model_name` "extractive" and `finish_reason` "stop". The work is done off the event loop.

    Args:
        embedder: Any model; it need not be the one that the chunks were embedded with.
    """

    async def pieces(inputs: AsyncIterator[AnswerInput]) -> AsyncIterator[AIMessageChunk]:
        async for given in inputs:
            question = given["question"]
            quoted = await asyncio.to_thread(
                select, question, given["chunks"], embedder, typed=given.get("typed", question)
            )
            first, *others = words = re.findall(r"\s*\S+", compose(quoted, given["chunks"]))
            known = {} if quoted.answers is None else {"answers": quoted.answers}
            yield AIMessageChunk(content=first, response_metadata={"sentences": len(quoted.sentences), **known})
            for word in others:
                yield AIMessageChunk(content=word)
            read_words = len(question.split()) + sum(len(one.chunk.text.split()) for one in given["chunks"])
            yield AIMessageChunk(
                content="",
                usage_metadata=UsageMetadata(
                    input_tokens=read_words, output_tokens=len(words), total_tokens=read_words + len(words)
                ),
                response_metadata={"model_name": EXTRACTIVE, "finish_reason": "stop"},
                chunk_position="last",
            )

    return cast("Runnable[AnswerInput, AIMessageChunk]", RunnableGenerator(pieces, name=EXTRACTIVE))


def select(question: str, chunks: Sequence[ScoredChunk], embedder: Embedder, *, typed: str) -> Quotations:
    """What to quote.

    Args:
        question: Standalone.
        chunks: What to quote from.
        embedder: See `extractive_answerer`.
        typed: The question without the words that a rule added to it. Sentences are judged by this one: the chunks are about the
            added words already, and with them the answer to the question before would be given again.
    """
    asked = singles(question, typed)
    found = [one for one in candidates(chunks) if not any(_repeats(single.typed, one.text) for single in asked)]
    quoted = []
    for single in asked:
        listed = [one for one in asked_for(single.typed, chunks) if _holds(one, chunks)]
        quoted.append(Quotations(listed, True, 1.0) if listed else _answering(single, found, chunks, embedder))
    # The best sentence for each comes before the second best for any.
    best = dict.fromkeys(one for place in zip_longest(*(each.sentences for each in quoted)) for one in place if one)
    kept = {*list(best)[: max(MOST_SENTENCES, len(asked))], *(one for one in best if one.item is not None)}
    in_order = dict.fromkeys(one for each in quoted for one in each.sentences if one in kept)
    known = [each.answers for each in quoted if each.answers is not None]
    return Quotations(
        list(_in_place(in_order, found, chunks)), any(each.is_sure for each in quoted), max(known, default=None)
    )


def _answering(asked: Single, found: list[Candidate], chunks: Sequence[ScoredChunk], embedder: Embedder) -> Quotations:
    """What answers one thing that is asked."""
    follows_on = asked.typed != asked.question
    if not found:
        return Quotations([], False, None if follows_on else 0.0)
    rows = features(asked.typed, found, chunks, embedder)
    probable = probabilities(rows)
    shares = rows[:, FEATURES.index("overlap")]
    if follows_on:
        topic = read(asked.question)
        shares = np.array([overlap(topic, read(_below_headings(one, chunks))) for one in found])
    related = (shares > 0) | (rows[:, FEATURES.index("cosine")] >= NEAR)
    named = _whose_meaning(asked)
    order = sorted(np.flatnonzero(related), key=lambda i: (not _explains(found[i], named), -probable[i]))
    kept: list[np.intp] = []
    for i in order:
        if len(kept) == MOST_SENTENCES or probable[i] < KEEP_FROM * probable[order[0]]:
            break
        if _holds(found[i], chunks):
            kept.append(i)
    answers = float(1 - np.prod(1 - probable[kept]))
    stands_out = answers >= SURE_FROM and may_answer(asked.typed, [found[i] for i in kept])
    if kept and not stands_out:
        first: dict[int, np.intp] = {}
        for i in (*kept, *order):
            if found[i].number not in first and (i in kept or _holds(found[i], chunks)):
                first[found[i].number] = i
        spread = sorted(first.values(), key=order.index)
        kept = [*spread, *(i for i in kept if i not in spread)][:MOST_SENTENCES]
    # Of what is found by words of the conversation, the few that were typed leave most sentences improbable.
    is_sure = stands_out or follows_on or (bool(kept) and _is_of_its_number(asked, found[kept[0]]))
    quoted = [found[i] for i in kept]
    if (row := extreme(asked.typed, quoted, found)) and _holds(row, chunks):
        quoted = [row, *(one for one in quoted if one != row)]
    if stands_out and (limit := condition(quoted[0], found, chunks)) and limit not in quoted and _holds(limit, chunks):
        quoted.insert(1, limit)
    return Quotations(quoted, is_sure, None if follows_on else answers)


def _whose_meaning(asked: Single) -> set[str]:
    """The names and numbers of which a question asks what they mean; none where it does not ask that."""
    if _MEANING.search(asked.typed) is None:
        return set()
    return {term.key for term in read(asked.typed).terms if term.kind != "word"}


def _explains(one: Candidate, named: set[str]) -> bool:
    """Whether a sentence begins with one of them: of "E17: the drain is frozen" and "Check it as described for E17" the first says what
    E17 means."""
    return bool(named) and bool(terms := read(one.text).terms) and terms[0].key in named


def _below_headings(one: Candidate, chunks: Sequence[ScoredChunk]) -> str:
    """A candidate after the headings above it, which name what it may call "it"."""
    return " ".join((*chunks[one.number - 1].chunk.headings, one.in_context))


def _is_of_its_number(asked: Single, one: Candidate) -> bool:
    """Whether the question has numbers and the sentence all of these: what "error E17" means stands in the row of E17."""
    numbers = {term.key for term in read(asked.typed).terms if term.kind == "number"}
    return bool(numbers) and numbers <= {term.key for term in read(one.in_context).terms}


def _in_place(
    quoted: Iterable[Candidate], found: Sequence[Candidate], chunks: Sequence[ScoredChunk]
) -> Iterator[Candidate]:
    """Put the names of a table's columns before its first row, as "adult \u00b7 \u00a37.50 \u00b7 \u00a316.00" does not say which is which; and before an
    item of a list the sentence that leads to it: "Not insured are:". The whole list follows that where it is quoted itself, or
    several items are."""
    chosen, said = list(quoted), set[object]()
    for one in chosen:
        lead = one.lead or one
        is_whole = lead in chosen or sum(other.lead == lead for other in chosen) > 1
        heads = [one.columns] if one.columns and not _says_too_little(one.columns) else [lead]
        heads = [head for head in heads if _says_too_little(head) or _holds(head, chunks)]
        for each in (*heads, *(_led_by(lead, found, chunks) if is_whole else ()), one):
            key = each.cells if each == one.columns else each
            if key not in said:
                said.add(key)
                yield each if each.lead is None else each._replace(item=_mark(each, chunks))


def _says_too_little(one: Candidate) -> bool:
    """Whether it has fewer than two terms: a marker after it would be read as the end of the sentence before."""
    return len(read(one.text).terms) < 2


def _led_by(lead: Candidate, found: Sequence[Candidate], chunks: Sequence[ScoredChunk]) -> Iterator[Candidate]:
    """The items of a list, as far as one that is no whole line or sentence: a PDF's next heading may be joined to it."""
    for one in found:
        if one.lead == lead and _holds(one, chunks):
            yield one
            if not (one.cells or one.whole):
                return


def _mark(one: Candidate, chunks: Sequence[ScoredChunk]) -> str:
    """A dash before an item of a list, nothing before what continues it."""
    text = chunks[one.number - 1].chunk.text
    return "-" if text[: one.span.start].rpartition("\n")[2].strip() == "" else ""


def _holds(one: Candidate, chunks: Sequence[ScoredChunk]) -> bool:
    """Whether the check of citations would confirm a quotation; it would not if this holds only function words, say."""
    citations = verify(_quotation(one), chunks)
    return bool(citations) and all(
        (citation["marker"], citation["status"]) == (one.number, "verified") for citation in citations
    )


_QUOTED_QUESTION = re.compile(
    r"(?:^|(?<=[\s(\[{=:,]))[\"'\u201c\u2018\u00ab]([^\"\u201c\u201d\u00ab\u00bb]+\?)[\"'\u201d\u2019\u00bb]"
)
_SAME_QUESTION = 0.5
"""Overlap from which two questions count as the same."""
_INTERROGATIVE = re.compile(r"\b(?:who|whom|whose|what|which|when|where|why|how)\b", re.I)


def _repeats(question: str, text: str) -> bool:
    """Whether a text only repeats the question: it quotes one that is much the same (as examples of code do), holds this one word
    for word, or says no more than it does.

    English. A question that asks for yes or no may be answered in its own words.
    """
    asked = read(question)
    if any(overlap(asked, read(quoted)) >= _SAME_QUESTION for quoted in _QUOTED_QUESTION.findall(text)):
        return True
    has_interrogative = _INTERROGATIVE.search(question) is not None
    if not has_interrogative and (question.rstrip().endswith("?") or asks_yes_or_no(question)):
        return False
    if has_interrogative and _spaced_words(question) in _spaced_words(text):  # keywords stand in what answers them
        return True
    return Counter(term.key for term in read(text).terms) <= Counter(term.key for term in asked.terms)


def _spaced_words(text: str) -> str:
    return " ".join(["", *re.findall(r"[^\W_]+", text.casefold()), ""])


def compose(quoted: Quotations, chunks: Sequence[ScoredChunk]) -> str:
    """The answer: each quoted sentence with the marker of its chunk, or a statement that the documents hold none."""
    if not quoted.sentences:
        return not_in_documents(chunks)
    first = _quotation(quoted.sentences[0])
    said = first if quoted.is_sure else f"{NEAREST}\n\n{first}"
    for before, one in pairwise(quoted.sentences):
        if one.item is None or before.item is None:
            gap = " " if one.item == before.item else "\n\n"
        else:
            gap = "\n" if one.item else " "
        said += gap + _quotation(one)
    return said


def _quotation(one: Candidate) -> str:
    """A candidate as it is quoted, with its marker: a row as its cells, a sentence with an ellipsis where a chunk's edge or a line
    break cut it. "We do not pay for:" has no marker of its own."""
    mark = f"{one.item} " if one.item else ""
    if one.text.endswith(":") and _says_too_little(one):
        return one.text
    if one.cells:
        return f"{mark}{' · '.join(one.cells)} [{one.number}]"
    return f"{mark}{'' if mark or begins(one.text) else '… '}{one.text}{'' if ends(one.text) else ' …'} [{one.number}]"


def not_in_documents(chunks: Sequence[ScoredChunk]) -> str:
    """Say that the documents do not hold the answer, and which come nearest."""
    nearest = list(dict.fromkeys(scored.chunk.title or scored.chunk.source for scored in chunks))[:3]
    if not nearest:
        return "I found nothing in the documents that this could be answered from."
    return f"The documents do not seem to answer this. The nearest passages are in: {'; '.join(nearest)}."

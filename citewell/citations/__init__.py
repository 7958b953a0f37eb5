"""Citations: what each marker of an answer really rests on.

Every marker (`[1]`, `[1][2]`, `[1, 2]`) becomes one citation: its sentence is compared with the chunk that it names
(`citewell.citations.support` says how) and aligned with the passage of that chunk that supports it best. A marker that names the
wrong chunk is corrected where another chunk supports its sentence.

Pure and deterministic; no model, no I/O.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Sequence
from typing import NamedTuple, NotRequired

from typing_extensions import TypedDict

from citewell.citations.support import Status, Support, passages, state
from citewell.documents import ScoredChunk
from citewell.sentences import Span, sentence_spans
from citewell.terms import ITEM, Statement, denies_below, read


class Citation(TypedDict):
    """One marker of an answer and the passage behind it."""

    marker: int
    """Number (from 1) of the chunk that supports the sentence; not the number in the answer where that was wrong."""
    sentence: str
    """The sentence, or the part of it, that the marker belongs to: without markers, white space collapsed."""
    quote: str
    """The passage, verbatim: the source's extracted text from `start` to `end`. Empty where nothing matches."""
    status: Status
    score: float
    """Share of the sentence that the quote holds, 0..1; 1 only if verified, at most .49 if unsupported."""
    source: str
    title: str
    page: int | None
    start: int
    end: int
    chunk_id: str
    also_in: NotRequired[list[str]]
    """Other documents that hold the same passage, and that the caller may read; only where there are any."""


MARKER = re.compile(r"[\[\u3010][ \t]*[0-9]{1,4}(?:[ \t]*[,;][ \t]*[0-9]{1,4})*[ \t]*[\]\u3011]")
_INTEGER = re.compile("[0-9]+")
MOST_CHARACTERS = 4_000_000
"""Of an answer's citations together, about. Each holds its sentence, so those of one endless sentence with a marker at every word
would grow by squares: to gigabytes."""
_OVERHEAD = 500
"""Characters of a citation besides its sentence and its quote, about."""


def verify(answer: str, chunks: Sequence[ScoredChunk]) -> list[Citation]:
    """Check every marker of an answer.

    Args:
        answer: Any text; no text raises an error. Markers are 1-based numbers into `chunks`.
        chunks: What the answer was written from, in the order of their numbers.

    Returns:
        One citation per marker, in the order of the markers in the answer. The last markers have none where all of them would
        hold more than `MOST_CHARACTERS`.
    """
    citations: list[Citation] = []
    room = MOST_CHARACTERS
    for claim in claims(answer):
        statement = state(f"not {claim.text}" if claim.is_denied else claim.text)
        supports: dict[int, Support] = {}
        taken = set(claim.markers)
        for marker in claim.markers:
            number, support = _best_marker(marker, taken, statement, chunks, supports)
            taken.add(number)
            citations.append(citation := _citation(number, claim.text, support, chunks))
            room -= len(citation["sentence"]) + len(citation["quote"]) + _OVERHEAD
            if room < 0:
                return citations
    return citations


def requoted(citation: Citation, quote: str) -> Citation:
    """The citation with a changed quote, judged again: what is not shown supports nothing.

    Args:
        citation: From `verify`.
        quote: The part of the passage that may be shown.
    """
    support = passages(quote).support(state(citation["sentence"]))
    return {**citation, "quote": quote, "status": support.status, "score": round(support.score, 4)}


def repair(answer: str, citations: Sequence[Citation]) -> str:
    """The answer with the corrected markers that `verify` found.

    Args:
        answer: The text that `verify` was given.
        citations: What it returned.
    """
    numbers = iter([citation["marker"] for citation in citations])
    return MARKER.sub(
        lambda match: _INTEGER.sub(lambda digits: str(next(numbers, digits.group())), match.group()), answer
    )


def strip(text: str) -> str:
    """The text without its markers."""
    return re.sub(r"[ \t]+(?=[.,;:!?]|$)", "", MARKER.sub("", text), flags=re.MULTILINE)


class Claim(NamedTuple):
    """The part of an answer that one group of markers belongs to."""

    text: str
    markers: tuple[int, ...]
    is_denied: bool = False
    """Whether it is an item of a list below a line that denies what it lists, as "Guests may not:" does."""


def claims(answer: str) -> list[Claim]:
    """Split an answer into the claims that its markers belong to; sentences without a marker are left out.

    A marker belongs to its sentence; of several within one sentence, each belongs to the words before it. Markers after a full stop
    belong to the sentence before, and those at the head of a line to the sentence after.
    """
    plain, owned = _sentences(answer)
    denied = _denied_items(plain, [span for span, _ in owned])
    return [
        claim._replace(is_denied=is_denied)
        for (span, groups), is_denied in zip(owned, denied, strict=True)
        for claim in _claims_in(plain, span, groups)
    ]


def unmarked(answer: str) -> list[str]:
    """The sentences that state something and have no marker, in order, white space collapsed.

    Questions, headings, code, column names, lines that end in a colon and single words state nothing.
    """
    plain, owned = _sentences(answer)
    apart = [match.span() for pattern in (_CODE_BLOCK, _COLUMNS) for match in pattern.finditer(plain)]
    return [
        _one_line(plain[span.start : span.end])
        for span, groups in owned
        if not groups
        and not any(start <= span.start < end for start, end in apart)
        and _states_something(plain[span.start : span.end])
    ]


def bears_out(answer: str, chunks: Sequence[ScoredChunk]) -> int | None:
    """Find the first chunk that verifies an answer's last sentence.

    Args:
        answer: The answer so far, to the end of a sentence.
        chunks: What it is written from, in the order of their numbers.

    Returns:
        The chunk's number, from 1. None where no chunk verifies the sentence, or where it has a marker, states nothing, or is a row of
        a table, which has no place for a marker.
    """
    plain, owned = _sentences(answer)
    if not owned:
        return None
    span, groups = owned[-1]
    sentence = plain[span.start : span.end]
    if groups or sentence.startswith("|") or not _states_something(sentence):
        return None
    is_denied = _denied_items(plain, [span for span, _ in owned])[-1]
    said = _one_line(sentence)
    statement = state(f"not {said}" if is_denied else said)
    return next(
        (n for n, one in enumerate(chunks, 1) if passages(one.chunk.text).support(statement).status == "verified"), None
    )


_CODE_BLOCK = re.compile(r"^[ \t]*(```|~~~).*?(?:^[ \t]*\1|\Z)", re.MULTILINE | re.DOTALL)
_COLUMNS = re.compile(r"^[ \t]*\|[^\n]*\n(?=[ \t]*\|?[ \t]*:?--)", re.MULTILINE)
_STATES_NOTHING = re.compile(r"#|(\*\*|__)[^*_]+\1$|.*[?:\uff1f\uff1a][*_\"'\u201d\u2019)]*$", re.DOTALL)
"""A heading, a line in bold, a question, and a line that introduces a list."""


def _states_something(sentence: str) -> bool:
    terms = read(sentence).terms
    is_more_than_a_word = len(terms) > 1 or any(term.kind == "number" for term in terms)
    return is_more_than_a_word and not _STATES_NOTHING.match(sentence)


def _sentences(answer: str) -> tuple[str, list[tuple[Span, list[tuple[int, list[int]]]]]]:
    """The answer without markers, and its sentences, each with its groups of markers: (offset, numbers)."""
    groups: list[tuple[int, list[int]]] = []
    plain = ""
    position = 0
    for match in MARKER.finditer(answer):
        between = answer[position : match.start()]
        plain += between
        numbers = [int(digits) for digits in _INTEGER.findall(match.group())]
        if groups and not between.strip() and "\n" not in between:
            groups[-1][1].extend(numbers)
        else:
            groups.append((len(plain), numbers))
            plain += " "
        position = match.end()
    plain += answer[position:]

    spans = sentence_spans(plain)
    owners: list[list[tuple[int, list[int]]]] = [[] for _ in spans]
    for place, numbers in groups:
        index = _owner(place, spans, plain)
        if index is not None:
            owners[index].append((place, numbers))
    return plain, list(zip(spans, owners, strict=True))


def _owner(place: int, spans: Sequence[Span], plain: str) -> int | None:
    before = bisect_left(spans, place, key=lambda span: span.start)
    if before:
        last = spans[before - 1]
        if place <= last.end or not re.search(r"[\r\n]", plain[last.end : place]) or before == len(spans):
            return before - 1
        return before
    return 0 if spans else None


def _denied_items(plain: str, spans: Sequence[Span]) -> list[bool]:
    """Of each sentence, whether it is such a claim, see `Claim.is_denied`."""
    denied, denies = [], False
    for span in spans:
        is_item = ITEM.match(plain, span.start) is not None
        if not is_item:
            lead = plain[span.start : span.end].rstrip("*_")
            denies = lead.endswith(":") and denies_below(lead)
        denied.append(is_item and denies)
    return denied


def _claims_in(plain: str, span: Span, owned: Sequence[tuple[int, list[int]]]) -> list[Claim]:
    whole = _one_line(plain[span.start : span.end])
    if len(owned) < 2:
        return [Claim(whole, tuple(numbers)) for _, numbers in owned]
    found = []
    start = span.start
    for i, (place, numbers) in enumerate(owned):
        end = span.end if i == len(owned) - 1 else place
        text = _one_line(plain[start:end]).lstrip(",;. ")
        # "As [1] says, ...": too little stands before the marker to be its claim
        found.append(Claim(text if len(read(text).terms) >= 2 else whole, tuple(numbers)))
        start = place
    return found


def _one_line(text: str) -> str:
    return re.sub(r" (?=[.,;:!?](?:\s|$))", "", " ".join(text.split()))


def _best_marker(
    marker: int, taken: set[int], statement: Statement, chunks: Sequence[ScoredChunk], supports: dict[int, Support]
) -> tuple[int, Support]:
    """The marker as written, or that of another chunk where only that one supports the sentence; and the support."""

    def support(number: int) -> Support:
        if number not in supports:
            supports[number] = passages(chunks[number - 1].chunk.text).support(statement)
        return supports[number]

    cited = support(marker) if 1 <= marker <= len(chunks) else Support("unsupported", 0.0, Span(0, 0))
    if cited.status == "verified":
        return marker, cited
    others = [n for n in range(1, len(chunks) + 1) if n not in taken]
    best = max(others, key=lambda n: (support(n).status == "verified", support(n).score, -n), default=None)
    if best is None:
        return marker, cited
    better = support(best)
    if better.status == "verified" or (cited.status == "unsupported" and better.status == "partial"):
        return best, better
    return marker, cited


def _citation(number: int, sentence: str, support: Support, chunks: Sequence[ScoredChunk]) -> Citation:
    chunk = chunks[number - 1].chunk if 1 <= number <= len(chunks) else None
    start, end = support.passage
    return Citation(
        marker=number, sentence=sentence, quote=chunk.text[start:end] if chunk else "",
        status=support.status, score=round(support.score, 4),
        source=chunk.source if chunk else "", title=chunk.title if chunk else "",
        page=chunk.page if chunk else None,
        start=chunk.start + start if chunk else 0, end=chunk.start + end if chunk else 0,
        chunk_id=chunk.id if chunk else "",
    )  # fmt: skip

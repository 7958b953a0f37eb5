"""Where sentences begin and end, in prose, lists, Markdown and the broken lines of a PDF."""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

from citewell.terms import LIST_MARK, MONTHS


class Span(NamedTuple):
    """A half-open range of characters (Python code points)."""

    start: int
    end: int


# A full stop after one of these does not by itself end a sentence.
_ABBREVIATIONS = frozenset(
    "mr mrs ms dr prof rev gen sen rep gov capt lt col sgt st mt jr sr vs etc e.g i.e cf al ca approx est fig figs "
    "eq sec ch vol pp p ed eds inc ltd co corp bros dept univ assn jan feb mar apr jun jul aug sep sept oct "
    "nov dec tue thu min max avg a.m p.m u.s u.k u.n d.c ph.d b.c a.d".split()
)
_NEVER_LAST = frozenset("mr mrs ms dr prof rev gen sen rep gov capt lt col sgt e.g i.e cf fig figs eq vs".split())
_ORDINAL = re.compile(r"(?:([^\W\d_]+)\s+)?(?<![\w.,:/-])\d{1,2}$")
_GERMAN_MONTHS = frozenset(
    "januar februar m\u00e4rz april mai juni juli august september oktober november dezember".split()
)
_GERMAN_DETERMINERS = frozenset("beim dem den der des im jede jeden jeder jedes vom zum zur".split())
"""Before an ordinal: "zum 3. Vorsitzenden". Without those that are English words, too."""
_LINE_BREAK = re.compile(r"[\n\r\v\f\x1c-\x1e\x85\u2028\u2029]")
_BLOCK = re.compile(
    r"(?:\r?\n|\r)(?:[ \t]*(?:\r?\n|\r))+"  # an empty line
    r"|[\v\f\x1c-\x1e\u2029]"
    r"|(?:\r?\n|\r)(?=[ \t]*(?:" + LIST_MARK + r"\s|\#{1,6}\s|>|\||```))"  # list, heading, table
)
_FENCE = re.compile(r"[ \t]*(?:```|~~~)[^\n\r]*")
"""A line that opens or closes a code block in Markdown, with the language's name."""
_HEADING = re.compile(r"[ \t]*#{1,6}[ \t][^\n\r]*")
_TERMINATOR = re.compile(
    r"[.!?\u2026\u061f\u06d4\u0964\u0965]+[\"'\u2019\u201c\u201d\u00bb)\]*_]*(?=\s)|[\u3002\uff01\uff1f]+[\u300d\u300f\u201d\uff09]*"
)
_UNIT = re.compile(r"\d[ \u00a0]?[a-z]$")
"""A unit of one letter after a figure: "50 g", "18 h"."""
_WORD_BEFORE = re.compile(r"(?:[^\W\d_]\.)*[^\W\d_]+$")


def sentence_spans(text: str) -> list[Span]:
    """Split any text into sentences.

    A line break alone does not end a sentence, since the lines of a PDF are broken anywhere. It does before a list item or a
    heading, after an empty line, before a table row that begins like its neighbour (E11, E17), and in a Markdown code block.

    Returns:
        Spans in order, not overlapping, without surrounding white space, none empty. Only white space lies
        between them.
    """
    spans: list[Span] = []
    for block in _blocks(text):
        start = block.start
        for match in _TERMINATOR.finditer(text, block.start, block.end):
            if match.end() < block.end and _ends_sentence(text, match, block.end, start):
                _add(spans, text, _begun(spans, text, Span(start, match.end()), block), match.end())
                start = match.end()
        _add(spans, text, _begun(spans, text, Span(start, block.end), block), block.end)
    return spans


def _begun(spans: list[Span], text: str, piece: Span, block: Span) -> int:
    """Where the sentence begins that a piece belongs to: a lone quotation mark, bracket or ellipsis ends the one before it, which is
    taken off."""
    if spans and spans[-1].start >= block.start and not any(map(str.isalnum, text[slice(*piece)])):
        return spans.pop().start
    return piece.start


def _blocks(text: str) -> list[Span]:
    edges = [0]
    for match in _BLOCK.finditer(text):
        edges += [match.start(), match.end()]
    edges.append(len(text))
    blocks = []
    for start, end in zip(edges[::2], edges[1::2], strict=True):
        if fence := _FENCE.match(text, start, end):
            blocks += [Span(start, fence.end()), *_lines(text, fence.end(), end)]
            continue
        heading = _HEADING.match(text, start, end) or _title_line(text, start, end)
        if heading and heading.end() < end:
            blocks.append(Span(start, heading.end()))
            start = heading.end()
        blocks += _rows(text, Span(start, end))
    return blocks


_LABEL = re.compile(r"\s*([^\W\d_]{1,8}[-.]?)(\d+)(?=[\s:])")
ROW_LINES = 3
"""Most lines from one row's label to the next."""


def begin_rows(lines: Sequence[str]) -> list[bool]:
    """For each line, whether it begins a row of a table: a line near it begins with a label of the same form but another
    number (E11, E17)."""
    found = [_LABEL.match(line) for line in lines]
    return [
        label is not None
        and any(
            other is not None and other[1] == label[1] and other[2] != label[2]
            for other in found[max(0, i - ROW_LINES) : i + ROW_LINES + 1]
        )
        for i, label in enumerate(found)
    ]


def _rows(text: str, block: Span) -> list[Span]:
    lines = _lines(text, *block)
    starts = begin_rows([text[line.start : line.end] for line in lines])
    edges = [block.start, *(line.start for line, begins in zip(lines, starts, strict=True) if begins), block.end]
    return [Span(left, right) for left, right in pairwise(edges)]


def _lines(text: str, start: int, end: int) -> list[Span]:
    edges = [start, *(match.end() for match in _LINE_BREAK.finditer(text, start, end)), end]
    return [Span(left, right) for left, right in pairwise(edges)]


_TITLE_LINE = re.compile(r"\s*(?P<line>[^\W_a-z][^\n\r]{1,58}[^\W_])[ \t]*(?=\r?\n[ \t]*[^\W\d_a-z](?P<next>[^\n\r]*))")


def _title_line(text: str, start: int, end: int) -> re.Match[str] | None:
    """The title of a section in plain text: a short first line without a full stop, above a longer line that begins with a
    capital."""
    match = _TITLE_LINE.match(text, start, end)
    if match is None or len(match["line"]) * 4 > len(match["next"]) * 3:
        return None
    return None if match["line"].split()[-1].lower() in _UNFINISHED else match


_UNFINISHED = frozenset(
    "the a an of in on at by for from to with and or but as is are was were be that which who its".split()
)


_LONG_SENTENCE = 320
_SHORT_CLAUSE = 40
_CLAUSE = re.compile(r"(?<=[;:\u2014])\s+|\s+(?=[\u2013\u2014]\s)|(?:\r?\n)+")


def clauses(text: str, span: Span) -> list[Span]:
    """Split a sentence of more than 320 characters into its clauses, or a table into its rows, so that a quotation stays short.

    Returns:
        Spans in order; only white space lies between them. A shorter sentence is returned whole.
    """
    if span.end - span.start <= _LONG_SENTENCE:
        return [span]
    pieces, start = [], span.start
    for match in _CLAUSE.finditer(text, span.start, span.end):
        if match.start() - start >= _SHORT_CLAUSE and span.end - match.end() >= _SHORT_CLAUSE:
            pieces.append(Span(start, match.start()))
            start = match.end()
    return [*pieces, Span(start, span.end)]


def _ends_sentence(text: str, match: re.Match[str], limit: int, sentence_start: int) -> bool:
    if match.group()[0] != ".":
        return True
    following = text[match.end() : min(limit, match.end() + 40)].lstrip()
    if not following:
        return True
    word = _WORD_BEFORE.search(text, max(sentence_start, match.start() - 24), match.start())
    before = word.group().lower() if word else ""
    head = following.lstrip("\"'\u2018\u201c\u00ab([*_")[:1]
    if _UNIT.search(text, max(sentence_start, match.start() - 4), match.start()) and head.isupper():
        return True
    if before in _NEVER_LAST or (len(before) == 1 and before.isascii() and before != "i" and (head + " ")[0].isalnum()):
        return False  # a title, an initial, an abbreviation: "J. Smith", "c. 1600"
    if head.islower() or (before in ("no", "nos", "nr", "abs") and head.isdigit()):
        return False
    if _is_ordinal(text[max(sentence_start, match.start() - 24) : match.start()], following):
        return False
    if before in _ABBREVIATIONS or "." in before:
        return head.isupper() and following.split(None, 1)[0].lower().strip(",") in _OPENERS
    # "1." at the start of a list item ends no sentence
    return not text[sentence_start : match.start()].strip().isdigit()


def _is_ordinal(before: str, following: str) -> bool:
    """Whether a full stop makes a German ordinal of the number before it: "31. Dezember", "im 19. Jahrhundert"."""
    number = _ORDINAL.search(before)
    if number is None:
        return False
    word = (number[1] or "").lower()
    if word in _GERMAN_DETERMINERS:
        return following[:1].isalpha()
    # not in English: "on June 12. August was hot"
    return following.split(None, 1)[0].lower().rstrip(".,;:") in _GERMAN_MONTHS and word not in MONTHS


# After an abbreviation a sentence ends only where one of these words opens the next: "in the U.S. The".
_OPENERS = frozenset(
    "the a an this that these those it he she they we i you in on at as for from by with after before during since "
    "when while although but and however its his her their there most many some all no if".split()
)


def _add(spans: list[Span], text: str, start: int, end: int) -> None:
    while start < end and text[start].isspace():
        start += 1
    while end > start and text[end - 1].isspace():
        end -= 1
    if end > start:
        spans.append(Span(start, end))


_MARKUP = re.compile(rf"^\s*(?:#{{1,6}}\s+|>\s*|{LIST_MARK}\s+)+")
_LINK = re.compile(r"!?\[([^\]\[]*)\]\((?:[^()\s]|\([^()\s]*\))*(?:\s+\"[^\"]*\")?\)")
_MARK = r"(?:\[(?:[\d⁰¹²³⁴-⁹]{1,3}|[a-z]|citation needed|note \d+)\]|\u3010\d{1,3}\u3011)"
_REFERENCE = re.compile(rf"(?: ?{_MARK}){{1,9}}(?=[.,;:!?])|{_MARK}", re.IGNORECASE)
"""Reference marks of the source; before a sign that ends something with the space before them."""
_EMPHASIS = re.compile(r"(\*\*|__|\*|`)(?=\S)(.+?)(?<=\S)\1")
_CODE = re.compile(r"(`+)(?!`).+?(?<!`)\1(?!`)", re.DOTALL)
_TAG = re.compile(
    r"<!--.*?-->|</?(?:a|abbr|b|big|blockquote|br|center|cite|code|col|colgroup|dd|del|details|dfn|div|dl|dt|em|figcaption|figure|font|"
    r"h[1-6]|hr|i|img|ins|kbd|li|mark|ol|p|picture|pre|q|s|samp|small|source|span|strike|strong|sub|summary|sup|table|tbody|td|"
    r"tfoot|th|thead|tr|tt|u|ul|var|video|wbr)(?:\s[^<>]*)?/?>",
    re.DOTALL | re.IGNORECASE,
)
"""HTML tags in Markdown, which a reader does not see. Other words in angle brackets may belong to the text."""
_AUTOLINK = re.compile(r"<(https?://[^\s<>`]+|[^\s<>@`]+@[^\s<>@`]+)>")
"""An address in angle brackets, as in Markdown and in the heads of e-mails."""
_ANGLED = re.compile(r"\w*</?[A-Za-z][^<>`\n]*>\w*")
_BAR = re.compile(r"(?<!\\)(?:(?<!\w)\||\|(?!\w))")
"""A bar between the cells of a table; that of `on|off` is none."""
_STRUCK = re.compile(r"~~(?=\S)(?:(?!~~).)+?(?<=\S)~~", re.DOTALL)
_HYPHENATED = re.compile(r"(?<=[^\W\d_])-[ \t]*(?:\r?\n|\r)[ \t]*(?=[a-z])")


def readable(text: str) -> str:
    """A sentence of a document as one line of plain prose.

    Removes list bullets, heading signs, emphasis, what is struck out, the addresses of links, HTML tags, soft hyphens, line
    breaks and the source's own reference marks such as `[12]`, which a reader would take for citations of this answer; joins
    words hyphenated at a line end. Other words, numbers and punctuation stay. What contains a `<` that a page could take for
    markup keeps its backticks as code, or gets some.
    """
    text = _HYPHENATED.sub("", text.replace("\u00ad", ""))
    text = _REFERENCE.sub("", _LINK.sub(r"\1", _MARKUP.sub("", text)))
    text = _EMPHASIS.sub(_plain, _BAR.sub(" ", _without_tags(text)).replace("\\|", "|"))
    text = re.sub(r"[\[\u3010](?=\s*\d)", "(", text)  # whatever still looks like a citation
    return " ".join(text.split())


def _plain(emphasis: re.Match[str]) -> str:
    return emphasis[0] if emphasis[1] == "`" and "<" in emphasis[2] else emphasis[2]


def _without_tags(text: str) -> str:
    """The text without tags and without what is struck out, outside of code."""
    at, kept = 0, ""
    for code in _CODE.finditer(text):
        kept += _without_markup(text[at : code.start()]) + code[0]
        at = code.end()
    return kept + _without_markup(text[at:])


def _without_markup(text: str) -> str:
    text = _AUTOLINK.sub(r"\1", _TAG.sub(_space, _STRUCK.sub("", text)))
    return _ANGLED.sub(r"`\g<0>`", text)


def _space(tag: re.Match[str]) -> str:
    return " " if tag[0][:3].lower() == "<br" else ""

"""Joins the texts of pages into one document: drops running heads and page numbers, and rejoins words and paragraphs."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from itertools import pairwise

from citewell.ingestion.encoding import clean
from citewell.sentences import begin_rows

_DIVIDED = re.compile(r"(\S*)\ufffe(\S*)[ \t]?")
"""The noncharacter that PDFium writes, without a line break, where a word was hyphenated at the end of a line."""
_EDGE_LINES = 2
"""Lines at the top and at the bottom of a page that may be furniture (a running head or a page number)."""
_LEAST_PAGES = 3
"""Fewest pages on which a line must be to count as furniture: two may be alike by chance."""
_LEAST_SHARE = 0.4
"""Share of the pages on which a line must be to count as furniture: running heads often alternate left and right."""
PAGE_NUMBER = re.compile(
    r"[-–—\s]*(?:(?:page|seite|p[áa]gina|sid[ae]|strona)\s+|p\.\s*)?\d+(?:\s*(?:of|/|von|sur|de)\s*\d+)?[-–—\s]*", re.I
)
_COUNTED = re.compile(r"[^\W\d_]{2,}\s+\d+(?:\s*(?:of|/|von|sur|de)\s*\d+)?[.:]?")
"""Titles with a number that is not that of the page: "Week 3", "Step 3 of 7"."""
_LABEL_LINES = 3
"""Most lines of a row's label below the first."""
_NUMBER = re.compile(r"(?<!\d)\d{1,6}(?!\d)")
_ENDS = (".", "!", "?", ":", ";", "…", "。", "！", "？", ".”", '."', ".)", "”", "»")
_ITEM = re.compile(r"(?:[-–—•●▪◦‣*·]|\(?(?:[0-9]{1,3}|[a-zA-Z])[.)]|[0-9]+(?:\.[0-9]+)+(?=\s+[A-Z]))\s")
_COLUMNS = re.compile(r"(?:\s[-–($€£]*\d[\d.,]*[%)]*){2,}$")
_FIGURE = re.compile(r"[\d$%€£()|=+*/\\<>{}\[\]—-]")


def assemble(pages: Sequence[str]) -> tuple[str, tuple[int, ...]]:
    """Join raw page texts.

    A page that ends in the middle of a sentence goes on after a space, others after an empty line.

    Returns:
        The clean text, and where each page starts in it (one offset per page; an empty page shares the next one's).
    """
    lines_of = _without_furniture([_lines(page) for page in pages])
    parts: list[str] = []
    starts: list[int] = []
    length = 0
    for lines in lines_of:
        text = _paragraphs(lines)
        if text and parts:
            gap = " " if _continues(parts[-1][-80:], text) else "\n\n"
            parts.append(gap)
            length += len(gap)
        starts.append(length)
        if text:
            parts.append(text)
            length += len(text)
    return "".join(parts), tuple(starts)


def _lines(page: str) -> list[str]:
    page = _DIVIDED.sub(_join_divided, page)
    return [" ".join(line.split()) for line in clean(page).split("\n")]


def _join_divided(match: re.Match[str]) -> str:
    before, after = match[1], match[2]
    # "Schwarz|Weiß" and "state-of-the|art" had a hyphen of their own; "com|pile" had none.
    own = after[:1].isupper() or after[:1].isdigit() or "-" in before
    # The line break moves behind the joined word, so that line lengths still tell full lines from short ones.
    return f"{before}{'-' if own else ''}{after}\n"


def _without_furniture(pages: list[list[str]]) -> list[list[str]]:
    """Drop page numbers, and running heads after their first appearance."""
    bodies = [[line for line in page if line] for page in pages]
    if len(bodies) < _LEAST_PAGES:
        return bodies
    forms = [{at: _forms(body[at], number, at) for at in _edges(body)} for number, body in enumerate(bodies)]
    counts = Counter(form for page in forms for form in set().union(*page.values()))
    least = max(_LEAST_PAGES, _LEAST_SHARE * len(bodies))
    seen: set[str] = set()
    kept: list[list[str]] = []
    for body, page in zip(bodies, forms, strict=True):
        dropped: set[int] = set()
        for at in page:
            common = {form for form in page[at] if counts[form] >= least}
            # Chapters and appendices restart their page numbers: a few that count up with the pages are enough.
            is_page_number = PAGE_NUMBER.fullmatch(body[at]) and any(
                counts[form] >= _LEAST_PAGES for form in page[at] - {body[at]}
            )
            if is_page_number or not common.isdisjoint(seen):
                dropped.add(at)
            seen |= common
        kept.append([line for at, line in enumerate(body) if at not in dropped])
    return kept


def _forms(line: str, page: int, at: int) -> set[str]:
    """The forms in which line `at` of a page is on other pages if it is furniture: the line itself, or with a number replaced by
    its distance to the page number. Numbers that differ otherwise, as on invoices, and counted titles at the top are content."""
    if at < _EDGE_LINES and _COUNTED.fullmatch(line) and not PAGE_NUMBER.fullmatch(line):
        return {line}
    return {line} | {
        f"{line[: number.start()]}\0{int(number[0]) - page}\0{line[number.end() :]}"
        for number in _NUMBER.finditer(line)
    }


def _edges(body: list[str]) -> list[int]:
    return sorted({*range(min(_EDGE_LINES, len(body))), *range(max(0, len(body) - _EDGE_LINES), len(body))})


def _paragraphs(lines: list[str]) -> str:
    """Join the lines of running text; leave lists, tables, headings and code as lines of their own."""
    if not lines:
        return ""
    widths = sorted(len(line) for line in lines)
    full = 0.7 * widths[int(0.9 * (len(widths) - 1))]  # a shorter line ended on purpose
    labels = _labels(lines)
    text = [lines[0]]
    for at, ((before, line), begins_row) in enumerate(zip(pairwise(lines), begin_rows(lines)[1:], strict=True), 1):
        runs_on = at in labels or (
            len(before) >= max(full, 25)
            and not _ITEM.match(line)
            and not begins_row
            and not _is_tabular(before)
            and not _is_tabular(line)
            and (not before.endswith(_ENDS) or len(before) >= 1.1 * full)
        )
        text.append((" " if runs_on else "\n") + line)
    return "".join(text)


def _labels(lines: list[str]) -> set[int]:
    """The lines that continue the label of a table row whose figures are on its last line: each begins with a lower-case letter.
    Empty if most rows of this page begin like that."""
    rows = {at for at, line in enumerate(lines) if _COLUMNS.search(line)}
    small = [at for at in rows if lines[at][:1].islower()]
    if 2 * len(small) > len(rows):
        return set()
    found: set[int] = set()
    for row in small:
        for at in range(row, max(0, row - _LABEL_LINES), -1):
            if not lines[at][:1].islower() or at - 1 in rows or lines[at - 1].endswith(_ENDS):
                break
            found.add(at)
    return found


def _is_tabular(line: str) -> bool:
    return _COLUMNS.search(line) is not None or len(_FIGURE.findall(line)) > 0.25 * len(line)


def _continues(before: str, after: str) -> bool:
    return not before.endswith(_ENDS) and after[:1].islower()

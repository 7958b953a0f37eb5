"""What a superlative asks for: "the oldest bridge" stands in the row with the earliest year, "the largest debt" in no sentence without
a figure. English."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

from chains.candidates import Candidate
from citewell.terms import MONTHS, overlap, read

_PRICE: Final = re.compile(r"(?:most|least) expensive|cheapest|dearest", re.I)
_DATE: Final = re.compile(r"earliest|first|last|latest|most recent|newest|oldest", re.I)
_LARGEST: Final = re.compile(
    r"most expensive|dearest|last|latest|most recent|newest|biggest|deepest|greatest|heaviest|highest|largest|longest|strongest|tallest|widest",
    re.I,
)
_SUPERLATIVE: Final = re.compile(
    rf"\b(?:{_PRICE.pattern}|{_DATE.pattern}|{_LARGEST.pattern}|fewest|lightest|lowest|shortest|smallest|weakest)\b",
    re.I,
)
_OF_PRICES: Final = re.compile(r"\b(?:amount|charge|cost|fee|price|rate|rent)s?\b", re.I)
_YEAR: Final = re.compile(r"\b(?:1\d|20)\d\d\b")
_DATED: Final = re.compile(rf"(?:\b\d{{1,2}} )?\b(?:{'|'.join(MONTHS)})\b(?: \d{{1,2}}\b)?|{_YEAR.pattern}", re.I)
_DAY: Final = re.compile(r"\b\d{1,2}\b")
_NUMBER: Final = re.compile(r"[-\u2212]?\d[\d,]*(?:\.\d+)?(?!:)\b")
_CURRENCIES: Final = "\u00a3$\u20ac "


def may_answer(question: str, quoted: Sequence[Candidate]) -> bool:
    """Whether a superlative of size in a question could be answered by what would be quoted: some of it holds a superlative, too, or a
    number that is no date. True where a question holds none."""
    asked = _SUPERLATIVE.search(question)
    return (
        asked is None
        or _DATE.fullmatch(asked[0]) is not None
        or any(_SUPERLATIVE.search(one.text) or _has_number(_DATED.sub("", one.text)) for one in quoted)
    )


def _has_number(text: str) -> bool:
    return any(term.kind == "number" for term in read(text).terms)


def extreme(question: str, quoted: Sequence[Candidate], found: Sequence[Candidate]) -> Candidate | None:
    """The row with the largest, smallest, first or last value of the column that a question asks about.

    None where it asks for none, no row is quoted, no column is told by its name or by what its cells hold, or a row is named by the
    superlative ("lowest temperature").

    Args:
        question: As it was typed.
        quoted: What would be quoted; the table of its first row below names of columns is looked at.
        found: All candidates.
    """
    asked = _SUPERLATIVE.search(question)
    columns = next((one.columns for one in quoted if one.columns), None)
    if asked is None or columns is None:
        return None
    rows = [one for one in found if one.columns and one.columns.cells == columns.cells]
    if any(asked[0].casefold() in one.text.casefold() for one in rows):
        return None
    width = max(len(one.cells) for one in rows)
    names = ("",) * (width - len(columns.cells)) + columns.cells  # the column of what the rows are about may have none
    is_date, is_price = _DATE.fullmatch(asked[0]), _PRICE.fullmatch(asked[0])
    best: tuple[tuple[bool, float], dict[int, tuple[float, ...]]] | None = None
    for place, name in enumerate(names):
        cells = {i: one.cells[place] for i, one in enumerate(rows) if place < len(one.cells)}
        values = {i: value for i, cell in cells.items() if (value := _date(cell) if is_date else _number(cell))}
        fit = (bool(is_date or (is_price and _OF_PRICES.search(name))), overlap(read(question), read(name)))
        if len(values) >= max(2, len(rows) / 2) and (best is None or fit > best[0]):
            best = fit, values
    if best is None or best[0] == (False, 0.0):
        return None
    pick = max if _LARGEST.fullmatch(asked[0]) else min
    return rows[pick(best[1], key=best[1].__getitem__)]


def _date(cell: str) -> tuple[float, ...]:
    """Year, month and day; empty where a cell holds no year."""
    if not (year := _YEAR.search(cell)):
        return ()
    month = next((i for i, name in enumerate(MONTHS, 1) if name in cell.casefold()), 0)
    day = _DAY.search(cell)
    return (float(year[0]), float(month), float(day[0]) if day else 0.0)


def _number(cell: str) -> tuple[float, ...]:
    """The number that a cell begins with; empty where it begins with none, or with a time of day."""
    number = _NUMBER.match(cell.lstrip(_CURRENCIES))
    return (float(number[0].replace(",", "").replace("\u2212", "-")),) if number else ()

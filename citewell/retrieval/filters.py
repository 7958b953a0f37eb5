"""Metadata filters: one syntax for every door, one small tree for every store.

    {"source": "handbook.md"}                          equal
    {"type": {"$in": ["pdf", "md"]}}                   one of
    {"date": {"$gte": "2024-01-01", "$lt": "2025"}}    both hold
    {"tags": {"$contains": "legal"}}                   also: {"tags": "legal"}
    {"$or": [{"title": "Leave"}, {"$not": {"type": "pdf"}}]}

Several keys in one object must all hold; `{}` and `None` mean no filter. `docs/filters.md` is the page for users.

A parsed filter is a tree of `All`, `Either` and `Test`. Negation has already been pushed into the tests, so a store's adapter
translates three shapes and need not know what "not" means for a missing value. Dates are integers (`date_number`), 0 where a document
has none; tags always include the empty string, so that no list is empty.
"""

from __future__ import annotations

import datetime
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

from citewell.documents import Chunk, Source
from citewell.errors import InvalidFilter

Field: TypeAlias = Literal["source", "title", "type", "date", "tags", "access"]
Operator: TypeAlias = Literal["eq", "ne", "in", "nin", "lt", "lte", "gt", "gte", "has", "lacks"]
Scalar: TypeAlias = str | int

TEXT_FIELDS: tuple[Field, ...] = ("source", "title", "type")
FIELDS: tuple[Field, ...] = (*TEXT_FIELDS, "date", "tags")
"""What callers may name. `access` is for the index alone: labels are enforced, not requested."""

MAX_DEPTH = 8
MAX_VALUES = 200
MAX_COMPARISONS = 1_000
"""Bounds on what a caller can make a store compute, far above what people write."""

_SURROGATE = re.compile("[\ud800-\udfff]")
"""Half of a character, which JSON can hold and no store takes."""
_NEGATED: dict[Operator, Operator] = {
    "eq": "ne", "ne": "eq", "in": "nin", "nin": "in", "has": "lacks", "lacks": "has",
    "lt": "gte", "gte": "lt", "gt": "lte", "lte": "gt",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Test:
    """One comparison. `value` is a tuple for `in` and `nin`, an integer for `date`, otherwise a string."""

    __test__ = False  # pytest would take the name for a test case

    field: Field
    operator: Operator
    value: Scalar | tuple[Scalar, ...]


@dataclass(frozen=True, slots=True)
class All:
    """Every part holds. Never empty."""

    parts: tuple[Filter, ...]


@dataclass(frozen=True, slots=True)
class Either:
    """At least one part holds. Never empty."""

    parts: tuple[Filter, ...]


Filter: TypeAlias = Test | All | Either


def parse(where: Mapping[str, object] | None) -> Filter | None:
    """Read a caller's filter.

    Returns:
        The tree, or None where nothing is filtered.

    Raises:
        InvalidFilter: It cannot be understood; the message names the part and what is possible there.
    """
    if where is None or where == {}:
        return None
    tree = _parse(where, depth=0)
    if _comparisons(tree) > MAX_COMPARISONS:
        raise InvalidFilter(f"The filter makes more than {MAX_COMPARISONS:,} comparisons.")
    return tree


def both(first: Filter | None, second: Filter | None) -> Filter | None:
    """The filter under which both hold, where either may be absent."""
    if first is None or second is None:
        return first or second
    return All((first, second))


def negate(tree: Filter) -> Filter:
    """The filter that holds exactly where `tree` does not."""
    match tree:
        case Test(field, operator, value):
            return Test(field, _NEGATED[operator], value)
        case All(parts):
            return Either(tuple(map(negate, parts)))
        case Either(parts):
            return All(tuple(map(negate, parts)))


def holds(tree: Filter, source: Source | Chunk) -> bool:
    """Whether a source, or one of its chunks, passes; every store's translation must agree with this."""
    return passes(tree, lambda field: field_value(source, field))


def passes(tree: Filter, value_of: Callable[[Field], object]) -> bool:
    """Like `holds`, with values from elsewhere, in the form of `field_value`."""
    match tree:
        case All(parts):
            return all(passes(part, value_of) for part in parts)
        case Either(parts):
            return any(passes(part, value_of) for part in parts)
        case Test(field, operator, value):
            return _COMPARE[operator](value_of(field), value)


def field_value(source: Source | Chunk, field: Field) -> str | int | tuple[str, ...]:
    """The value of a source's field, as stores keep it."""
    match field:
        case "source":
            return source.uri if isinstance(source, Source) else source.source
        case "title":
            return source.title
        case "type":
            return source.type
        case "date":
            return date_number(source.date) if source.date else 0
        case "tags":
            return ("", *source.tags)
        case "access":
            return access_set(source.access)


def access_set(labels: Iterable[str]) -> str:
    """A set of access labels as one string, so that "shares a label" becomes "is one of these sets"."""
    return "\x1f".join(sorted(set(labels)))


def labels_of(access: str) -> list[str]:
    """The inverse of `access_set`."""
    return access.split("\x1f")


def date_number(text: str) -> int:
    """An ISO 8601 date (`2024`, `2024-05`, `2024-05-31`, with or without a time) as the number 20240531.

    A missing month or day counts as the first; a time of day is not compared.

    Raises:
        ValueError: It is not a date.
    """
    found = re.fullmatch(r"(\d{4})(?:-(\d{2})(?:-(\d{2})(?:[T ]\S.*)?)?)?", text.strip())
    if not found:
        raise ValueError(text)
    year, month, day = (int(part or 1) for part in found.groups())
    return int(datetime.date(year, month, day).strftime("%Y%m%d"))


_COMPARE: dict[Operator, Callable[..., bool]] = {
    "eq": lambda have, want: bool(have == want),
    "ne": lambda have, want: bool(have != want),
    "in": lambda have, want: have in want,
    "nin": lambda have, want: have not in want,
    "lt": lambda have, want: bool(have < want),
    "lte": lambda have, want: bool(have <= want),
    "gt": lambda have, want: bool(have > want),
    "gte": lambda have, want: bool(have >= want),
    "has": lambda have, want: want in have,
    "lacks": lambda have, want: want not in have,
}


def _parse(where: object, *, depth: int) -> Filter:
    if not isinstance(where, Mapping):
        raise InvalidFilter(f"A filter is an object such as {{'source': 'a.md'}}, not {_kind(where)}.")
    if depth > MAX_DEPTH:
        raise InvalidFilter(f"The filter is nested more than {MAX_DEPTH} levels deep.")
    if not where:
        raise InvalidFilter("An empty object inside a filter says nothing; leave it out.")
    return _all([_entry(key, value, depth) for key, value in where.items()])


def _entry(key: object, value: object, depth: int) -> Filter:
    match key:
        case "$and" | "$or":
            if not isinstance(value, Sequence) or isinstance(value, str) or not 1 <= len(value) <= MAX_VALUES:
                raise InvalidFilter(f"{key} takes a list of 1 to {MAX_VALUES} filters.")
            parts = [_parse(part, depth=depth + 1) for part in value]
            return _all(parts) if key == "$and" else _any(parts)
        case "$not":
            return negate(_parse(value, depth=depth + 1))
        case str() if key in FIELDS:
            return _field(key, value)
        case _:
            raise InvalidFilter(f"{_shown(key)} cannot be filtered on; use {', '.join(FIELDS)}, $and, $or or $not.")


def _field(name: Field, value: object) -> Filter:
    if not isinstance(value, Mapping):
        return _test(name, "$in" if isinstance(value, list | tuple) else "$eq", value)
    if not value:
        raise InvalidFilter(f"{name} is compared with an empty object; write {{'{name}': {{'$eq': ...}}}}.")
    return _all([_test(name, operator, operand) for operator, operand in value.items()])


def _test(name: Field, operator: object, value: object) -> Filter:
    match operator:
        case "$in" | "$nin":
            if not isinstance(value, list | tuple) or not 1 <= len(value) <= MAX_VALUES:
                raise InvalidFilter(f"{operator} on {name} takes a list of 1 to {MAX_VALUES} values.")
            any_of = _any([_test(name, "$eq", each) for each in value]) if name == "tags" else Test(
                name, "in", tuple(_scalar(name, each) for each in value))  # fmt: skip
            return any_of if operator == "$in" else negate(any_of)
        case "$eq" | "$ne":
            kind: Operator = "has" if name == "tags" else "eq"
            equal = Test(name, kind, _scalar(name, value))
            return equal if operator == "$eq" else negate(equal)
        case "$contains" if name == "tags":
            return Test(name, "has", _scalar(name, value))
        case "$exists" if name == "date":
            if not isinstance(value, bool):
                raise InvalidFilter("$exists on date takes true or false.")
            return Test(name, "gt" if value else "eq", 0)
        case "$gt" | "$gte":
            return Test(_dated(name, operator), "gt" if operator == "$gt" else "gte", _scalar(name, value))
        case "$lt" | "$lte":
            bound = Test(_dated(name, operator), "lt" if operator == "$lt" else "lte", _scalar(name, value))
            return All((bound, Test(name, "gt", 0)))  # a document without a date is not older than any
        case _:
            raise InvalidFilter(f"{_shown(operator)} cannot be used on {name}; use {', '.join(_operators(name))}.")


def _dated(name: Field, operator: object) -> Field:
    if name != "date":
        raise InvalidFilter(f"{operator} compares dates; use {', '.join(_operators(name))} on {name}.")
    return name


def _operators(name: Field) -> list[str]:
    extra = {"date": ["$gt", "$gte", "$lt", "$lte", "$exists"], "tags": ["$contains"]}
    return ["$eq", "$ne", "$in", "$nin", *extra.get(name, [])]


def _scalar(name: Field, value: object) -> Scalar:
    if name != "date":
        if isinstance(value, str) and 0 < len(value) <= 2000 and not _SURROGATE.search(value):
            return value
        raise InvalidFilter(f"{name} is compared with text of 1 to 2,000 characters, not {_kind(value)}.")
    try:
        return date_number(value if isinstance(value, str) else "")
    except ValueError:
        raise InvalidFilter("date is compared with an ISO 8601 date such as '2024-05-31'.") from None


def _comparisons(tree: Filter) -> int:
    if isinstance(tree, Test):
        return len(tree.value) if isinstance(tree.value, tuple) else 1
    return sum(map(_comparisons, tree.parts))


def _all(parts: list[Filter]) -> Filter:
    return parts[0] if len(parts) == 1 else All(tuple(parts))


def _any(parts: list[Filter]) -> Filter:
    return parts[0] if len(parts) == 1 else Either(tuple(parts))


def _kind(value: object) -> str:
    return {"NoneType": "null", "dict": "an object", "list": "a list", "str": "such text", "bool": "true or false"}.get(
        type(value).__name__, "a number" if isinstance(value, int | float) else "this")  # fmt: skip


def _shown(value: object) -> str:
    return repr(value if len(str(value)) <= 40 else str(value)[:40] + "…")

"""YAML front matter: title, date, tags and who may read."""

from __future__ import annotations

import datetime
import re
from dataclasses import dataclass

import yaml

from citewell.errors import SourceUnreadable
from citewell.ingestion.access import check_labels
from citewell.ingestion.encoding import clean_line

MOST_TAGS = 64
"""Of one document; a vector store keeps them beside every vector."""
_BLOCK = re.compile(r"\A---[ \t]*\n(.{0,65536}?)^(?:---|\.\.\.)[ \t]*(?:\n|\Z)", re.S | re.M)
_KEYED = re.compile(r"\s*(?:#[^\n]*\n\s*)*[\w-]+[ \t]*:(?:[ \t]|\n|\Z)")


@dataclass(frozen=True, slots=True, kw_only=True)
class FrontMatter:
    """What the front matter says, checked."""

    title: str = ""
    date: str | None = None
    """ISO 8601."""
    tags: tuple[str, ...] = ()
    access: tuple[str, ...] = ()
    """Empty where it says nothing of it."""
    notes: tuple[str, ...] = ()


def split_front_matter(text: str) -> tuple[FrontMatter, str]:
    """Take the front matter off a text.

    Only a block between `---` lines at the very start that begins with `key:` counts; anything else is a rule
    above ordinary text. Keys other than `title`, `date`, `tags` (or `keywords`) and `access` are ignored.

    Raises:
        SourceUnreadable: The block cannot be understood. It may hold `access`, so guessing is out of the question.
    """
    block = _BLOCK.match(text)
    if block is None or not _KEYED.match(block[1]):
        return FrontMatter(), text
    try:
        values = yaml.safe_load(block[1])
    except (yaml.YAMLError, ValueError, RecursionError) as exc:
        mark = getattr(exc, "problem_mark", None)
        where = f" (line {mark.line + 2})" if mark is not None else ""
        raise SourceUnreadable(f"the front matter is not valid YAML{where}") from exc
    if not isinstance(values, dict):
        return FrontMatter(), text
    return read_metadata({str(key).casefold(): value for key, value in values.items()}), text[block.end() :]


def read_metadata(values: dict[str, object]) -> FrontMatter:
    """Check metadata given by name, from front matter or from a format's own fields.

    Raises:
        SourceUnreadable: `access` names no usable label, or too many.
    """
    notes: list[str] = []
    date = iso_date(values.get("date"))
    if values.get("date") and date is None:
        notes.append("the date is not ISO 8601 (as 2026-03-31) and was left out")
    title = values.get("title")
    words = _words(values.get("tags") or values.get("keywords"))
    tags = tuple(dict.fromkeys(tag for word in words if (tag := clean_line(word, most=100))))
    if len(tags) > MOST_TAGS:
        notes.append(f"of {len(tags):,} tags the first {MOST_TAGS} are kept")
    return FrontMatter(
        title=clean_line(str(title)) if isinstance(title, str | int | float) else "",
        date=date,
        tags=tags[:MOST_TAGS],
        access=check_labels(_words(values["access"])) if "access" in values else (),
        notes=tuple(notes),
    )


def iso_date(value: object) -> str | None:
    """A date as ISO 8601 writes it, one that filters can compare; None where it is none."""
    if isinstance(value, datetime.date):  # datetime is one too
        return value.isoformat()
    if isinstance(value, int) and 1000 <= value <= 9999:
        return str(value)
    if not isinstance(value, str):
        return None
    value = value.strip()
    if re.fullmatch(r"[1-9]\d{3}(-(0[1-9]|1[0-2]))?", value, re.ASCII):
        return value
    try:
        return datetime.date.fromisoformat(value).isoformat()
    except ValueError:
        pass
    try:
        return datetime.datetime.fromisoformat(value).isoformat()
    except ValueError:
        return None


def _words(value: object) -> tuple[str, ...]:
    parts = value if isinstance(value, list) else re.split(r"[,;]", value) if isinstance(value, str) else []
    words = (" ".join(str(part).split())[:100] for part in parts if isinstance(part, str | int | float))
    return tuple(dict.fromkeys(word for word in words if word))

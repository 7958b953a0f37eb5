"""Front matter, in YAML or TOML: title, date, tags and who may read."""

from __future__ import annotations

import datetime
import re
import tomllib
from dataclasses import dataclass

import yaml

from citewell.errors import SourceUnreadable
from citewell.ingestion.access import check_labels
from citewell.ingestion.encoding import clean_line

TWICE = "it names access more than once: who may read it cannot be known"
MOST_TAGS = 64
"""Most tags of a document; a vector store keeps them with every vector."""
_MOST_CHARS = 65_536
_BLOCK = re.compile(r"\A---[ \t]*\n(.*?)^(?:---|\.\.\.)[ \t]*(?:\n|\Z)", re.S | re.M)
_TOML = re.compile(r"\A\+\+\+[ \t]*\n(.*?)^\+\+\+[ \t]*(?:\n|\Z)", re.S | re.M)
_KEYED = re.compile(r"\s*(?:#[^\n]*\n\s*)*[\w-]+[ \t]*:(?:[ \t]|\n|\Z)")
_HEAD = re.compile(
    r"\A(?>[\s\u200b-\u200d\u2060]|<!--.*?-->|%[^\n]*\n)*+"  # what a careless author may have left above the block
    r"(?:[-+]{2,}|[\u2010-\u2015]+|(?=\{))([^\n]*\n\s*.*?)"
    r"(?:^\s*(?:[-+]{3,}|[\u2010-\u2015]+|\.{3})|^[^\S\n]*$|\Z)",
    re.S | re.M,
)
"""Anything that looks like front matter, whether or not it is: up to a fence or an empty line."""
_NAMES_ACCESS = re.compile(r"(?:^|[{,])[^\w\n#]{0,80}access[^\w\n]{0,80}[:\uff1a=]", re.I | re.M)


@dataclass(frozen=True, slots=True, kw_only=True)
class FrontMatter:
    """The values of front matter, checked."""

    title: str = ""
    date: str | None = None
    """ISO 8601."""
    tags: tuple[str, ...] = ()
    access: tuple[str, ...] = ()
    """Empty if the front matter does not name `access`."""
    notes: tuple[str, ...] = ()


def split_front_matter(text: str) -> tuple[FrontMatter, str]:
    """Split a text into its front matter and the rest.

    Front matter is a block at the very start: YAML between `---` lines that begins with `key:` or contains `access`, or TOML
    between `+++` lines. Anything else is a rule above ordinary text. Keys other than `title`, `date`, `tags` (or `keywords`) and `access` are ignored.

    Raises:
        SourceUnreadable: The block cannot be understood, or something that only looks like one names `access`. A guess might
            publish the document.
    """
    block = _BLOCK.match(text) or _TOML.match(text)
    values = None if block is None else _toml(block[1]) if text.startswith("+") else _values(block[1])
    if block is not None and values is not None:
        suspect = "" if "access" in values else block[1]
    else:
        suspect = head[1] if (head := _HEAD.match(text)) else ""
    if _NAMES_ACCESS.search(suspect):
        raise SourceUnreadable(
            "its head names access, but cannot be read as front matter, which has --- alone on the first line and below, and "
            "access: at the beginning of a line (or +++ and access = in TOML)"
        )
    if block is None or values is None:
        return FrontMatter(), text
    return read_metadata(values), text[block.end() :]


def _values(block: str) -> dict[str, object] | None:
    """The values of a block; None if it is ordinary text between two rules."""
    is_keyed = _KEYED.match(block) is not None
    if len(block) > _MOST_CHARS:
        if is_keyed and _NAMES_ACCESS.search(block):
            raise SourceUnreadable(f"the front matter has more than {_MOST_CHARS:,} characters")
        return None
    try:
        tree = yaml.compose(block, yaml.SafeLoader)
        parsed = yaml.safe_load(block)
    except (yaml.YAMLError, ValueError, RecursionError) as exc:
        if not is_keyed:
            return None
        mark = getattr(exc, "problem_mark", None)
        where = f" (line {mark.line + 2})" if mark is not None else ""
        raise SourceUnreadable(f"the front matter is not valid YAML{where}") from exc
    if not isinstance(parsed, dict):
        return None
    values = {str(key).casefold(): value for key, value in parsed.items()}
    if isinstance(tree, yaml.MappingNode) and [str(key.value).casefold() for key, _ in tree.value].count("access") > 1:
        raise SourceUnreadable(TWICE)  # YAML keeps the last one, which may allow what the first one restricts
    return values if is_keyed or "access" in values else None


def _toml(block: str) -> dict[str, object] | None:
    """The values of a block; None if it is no TOML."""
    try:
        parsed = tomllib.loads(block)
    except (tomllib.TOMLDecodeError, RecursionError):
        return None
    if [key.casefold() for key in parsed].count("access") > 1:
        raise SourceUnreadable(TWICE)
    return {key.casefold(): value for key, value in parsed.items()}


def read_metadata(values: dict[str, object]) -> FrontMatter:
    """Check metadata by name, whether from front matter or from the fields of a format.

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
    """A date in ISO 8601, which filters can compare; None if the value is not a date."""
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

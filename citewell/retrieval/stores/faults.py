"""A vendor's exceptions turned into ours, by a table."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TypeAlias

from citewell.errors import CitewellError

Faults: TypeAlias = Mapping[type[BaseException], type[CitewellError]]


@contextmanager
def mapped(table: Faults, store: str) -> Iterator[None]:
    """Raise what the table says for the nearest class of what is raised inside; anything else passes unchanged.

    Our error names the store and the vendor's exception class, never its text, which may hold keys and documents.
    """
    try:
        yield
    except tuple(table) as exc:
        ours = next(table[kind] for kind in type(exc).__mro__ if kind in table)
        raise ours(f"{ours.title}: {store} ({type(exc).__name__}).") from exc

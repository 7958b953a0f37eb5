"""Turns a vendor's exceptions into ours, by a table."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TypeAlias

from citewell.errors import CitewellError

Faults: TypeAlias = Mapping[type[BaseException], type[CitewellError]]

LOST = (
    "The vector store holds nothing of this index: it is another one, or has lost it. Set CITEWELL_VECTOR_STORE to the one that was "
    "ingested into, or ingest with --rebuild."
)
"""What is said of a store that is empty although the index holds chunks."""


@contextmanager
def mapped(table: Faults, store: str) -> Iterator[None]:
    """Replace an exception of the table, or of a subclass, by the error that stands for its nearest class; others pass unchanged.

    The error names the store and the vendor's exception class, never its text, which may hold keys and documents.
    """
    try:
        yield
    except tuple(table) as exc:
        ours = next(table[kind] for kind in type(exc).__mro__ if kind in table)
        raise ours(f"{ours.title}: {store} ({type(exc).__name__}).") from exc

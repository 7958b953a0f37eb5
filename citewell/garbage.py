"""Garbage collection in a program that loads much."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager

_AFTER = 100_000
"""Objects made before the interpreter looks for garbage."""


@contextmanager
def seldom_collected() -> Iterator[None]:
    """Packages are half a million objects that stay: to look through them again and again, and once more on the way out, is
    nearly a quarter of the processor time of `citewell ask`.
    """
    gc.set_threshold(_AFTER)
    try:
        yield
    finally:
        gc.freeze()  # or the interpreter looks through all of it once more on its way out

"""Settings of the interpreter for a program that imports much."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager

_AFTER = 100_000
"""Objects made before the interpreter collects garbage."""


@contextmanager
def loading() -> Iterator[None]:
    """Wraps a whole program, its imports included.

    The packages are half a million objects that stay: searching them for garbage again and again, and once more at exit, takes
    nearly a quarter of the processor time of `citewell ask`. Ctrl-C during an import ends the program without a traceback;
    later, the running command handles it itself.
    """
    gc.set_threshold(_AFTER)
    try:
        yield
    except KeyboardInterrupt:
        raise SystemExit(130) from None
    finally:
        gc.freeze()  # or the interpreter searches all of it once more at exit

"""What a program that loads much asks of the interpreter."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager

_AFTER = 100_000
"""Objects made before the interpreter looks for garbage."""


@contextmanager
def loading() -> Iterator[None]:
    """Around a whole program, what it imports included.

    Packages are half a million objects that stay: to look through them again and again, and once more on the way out, is
    nearly a quarter of the processor time of `citewell ask`. Ctrl-C meanwhile ends the program and prints no half of an import;
    what is under way by then says itself what becomes of it.
    """
    gc.set_threshold(_AFTER)
    try:
        yield
    except KeyboardInterrupt:
        raise SystemExit(130) from None
    finally:
        gc.freeze()  # or the interpreter looks through all of it once more on its way out

"""How many threads NumPy multiplies matrices with."""

from __future__ import annotations

from functools import cache

import numpy as np  # noqa: F401  # it brings the BLAS that is looked for here
from threadpoolctl import ThreadpoolController


@cache
def one_thread() -> None:
    """Matrices here are small: a second BLAS thread only waits for the first, on busy cores far longer than the product
    takes (packing 100 token vectors: 8.0 ms of CPU with two threads, 0.09 ms with one). Holds for the whole process.

    Called by whoever reads weights to multiply with.
    """
    ThreadpoolController().select(internal_api="openblas").limit(limits=1)  # type: ignore[no-untyped-call]  # has no types

"""The format of packed token vectors, on which readers and writers of an index must agree. `maxsim` does the packing."""

from __future__ import annotations

import hashlib
from functools import cache
from importlib.resources import files
from typing import Final

from citewell.models import Embedder

DIMENSIONS: Final = 256
"""Dimensions of a packed token vector, of two bits each."""
PACKED_BYTES: Final = DIMENSIONS // 4
TOKEN_BYTES: Final = PACKED_BYTES + 2
"""Size of a token on disk, its scale included: about 7 KB for a chunk of 500 characters."""
_WIDTH = 384
"""Dimensions of the built-in model's token vectors, for which there is a projection."""


def has_tokens(embedder: Embedder) -> bool:
    """Whether a model's token vectors can be kept: only those with the built-in model's dimensions can be packed."""
    return embedder.gives_tokens and embedder.dimension == _WIDTH


def packing(embedder: Embedder) -> str:
    """The format's name in an index's fingerprint; `none` where no token vectors are kept."""
    return _packing() if has_tokens(embedder) else "none"


@cache
def _packing() -> str:
    data = files("citewell.retrieval").joinpath("projection.npz").read_bytes()
    return f"{DIMENSIONS}x{TOKEN_BYTES}-{hashlib.sha256(data).hexdigest()[:8]}"

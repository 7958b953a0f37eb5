"""How token vectors are packed, as far as readers and writers of an index must agree on it; `maxsim` does it."""

from __future__ import annotations

import hashlib
from functools import cache
from importlib.resources import files
from typing import Final

from citewell.models import Embedder

DIMENSIONS: Final = 256
"""Of a packed token vector, two bits each."""
PACKED_BYTES: Final = DIMENSIONS // 4
TOKEN_BYTES: Final = PACKED_BYTES + 2
"""On disk, with the scale: about 7 KB for a chunk of 500 characters."""
_WIDTH = 384
"""Of the built-in model's token vectors, for which there is a projection."""


def has_tokens(embedder: Embedder) -> bool:
    """Whether a model's token vectors can be kept: only those as wide as the built-in model's can be packed."""
    return embedder.gives_tokens and embedder.dimension == _WIDTH


def packing(embedder: Embedder) -> str:
    """What an index's fingerprint says of it; `none` where no token vectors are kept."""
    return _packing() if has_tokens(embedder) else "none"


@cache
def _packing() -> str:
    data = files("citewell.retrieval").joinpath("projection.npz").read_bytes()
    return f"{DIMENSIONS}x{TOKEN_BYTES}-{hashlib.sha256(data).hexdigest()[:8]}"

"""Any sentence-transformers model as an embedder (extra `sentence-transformers`)."""

from __future__ import annotations

import hashlib
import importlib.util
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from citewell.errors import ConfigurationError, MissingExtra
from citewell.models.embedder import Embedder, Encoded, Progress, Vectors, sound, unit

if TYPE_CHECKING:
    from torch import nn

EXTRA = "sentence-transformers"
BATCH = 32
WINDOW = 512
"""Texts handed to the model at once, which sorts them by length; progress is reported after each such window."""


class SentenceTransformerEmbedder(Embedder):
    """A model by its name on the Hugging Face hub or by a local path.

    Args:
        name: As `sentence-transformers/all-mpnet-base-v2`, or a directory.

    Raises:
        MissingExtra: sentence-transformers is not installed.
        ConfigurationError: There is no such model, or it cannot be fetched.
    """

    def __init__(self, name: str) -> None:
        require_extra(f"The embedding model {name}")
        from sentence_transformers import SentenceTransformer

        try:
            self._model = SentenceTransformer(name)
        except (OSError, ValueError) as exc:
            raise ConfigurationError(
                f"CITEWELL_EMBEDDING_MODEL: {name!r} is neither a directory with a sentence-transformers model nor one "
                "that can be fetched under that name"
            ) from exc
        self.name = name
        self.dimension = int(self._model.get_embedding_dimension() or 0)
        self.fingerprint = f"sbert-{weights_digest(self._model)}-{self._model.max_seq_length}"
        self._special = np.asarray(getattr(self._model.tokenizer, "all_special_ids", ()), dtype=np.int32)
        self.gives_tokens = (
            self._special.size > 0
        )  # other kinds of models (static ones, for images) have no special tokens
        self._thread = self._executor = ThreadPoolExecutor(
            1, thread_name_prefix="sbert"
        )  # torch spreads one batch over the cores

    def encode(self, texts: Sequence[str], *, tokens: bool = False, progress: Progress | None = None) -> Encoded:
        """See `Embedder.encode`. Vectors differ by about 1e-7 with the batch that a text is in, as torch's sums do."""
        self._refuse_tokens(tokens)
        vectors: Vectors = np.zeros((len(texts), self.dimension), dtype=np.float32)
        token_vectors: list[Vectors] = []
        token_ids: list[NDArray[np.int32]] = []
        for start in range(0, len(texts), WINDOW):
            window = [sound(text) for text in texts[start : start + WINDOW]]
            output: Any = None if tokens else "sentence_embedding"
            found: Any = self._model.encode(window, batch_size=BATCH, output_value=output, show_progress_bar=False)
            for row, one in enumerate(found, start):
                if tokens:
                    vectors[row] = one["sentence_embedding"].float().numpy(force=True)
                    ids, hidden = self._without_special(one)
                    token_ids.append(ids)
                    token_vectors.append(unit(hidden))
                else:
                    vectors[row] = one
            if progress is not None:
                progress(start + len(window), len(texts))
        if not tokens:
            return Encoded(vectors=unit(vectors))
        return Encoded(vectors=unit(vectors), tokens=token_vectors, token_ids=token_ids)

    def close(self) -> None:
        self._thread.shutdown(cancel_futures=True)

    def _without_special(self, one: dict[str, Any]) -> tuple[NDArray[np.int32], Vectors]:
        ids = one["input_ids"].numpy(force=True).astype(np.int32)
        hidden: Vectors = one["token_embeddings"].float().numpy(force=True)
        keep = (one["attention_mask"].numpy(force=True) > 0) & ~np.isin(ids, self._special)
        return ids[keep], hidden[keep]


def require_extra(needed_for: str) -> None:
    """Raise MissingExtra unless sentence-transformers is installed."""
    if importlib.util.find_spec("sentence_transformers") is None:
        raise MissingExtra(EXTRA, needed_for)


def weights_digest(model: nn.Module) -> str:
    """A digest of all parameters: a name on a hub may stand for other weights tomorrow."""
    import torch

    digest = hashlib.blake2b(digest_size=12)
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()

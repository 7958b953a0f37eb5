"""Cross-encoders as rerankers (extra `sentence-transformers`)."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from numpy.typing import NDArray

from citewell.errors import ConfigurationError
from citewell.models.embedder import sound
from citewell.models.sbert import require_extra

BATCH = 32


class CrossEncoderReranker:
    """Reads question and text together, which is better and slower than comparing separate vectors.

    Args:
        name: As `cross-encoder/ms-marco-MiniLM-L-6-v2`, or a directory.

    Raises:
        MissingExtra: sentence-transformers is not installed.
        ConfigurationError: There is no such model, or it gives more than one score a pair.

    Source:
        Nogueira & Cho 2019, "Passage Re-ranking with BERT", arXiv:1901.04085.
    """

    def __init__(self, name: str) -> None:
        require_extra(f"The reranker {name}")
        import torch
        from sentence_transformers import CrossEncoder

        try:
            self._model = CrossEncoder(name, activation_fn=torch.nn.Sigmoid())
        except (OSError, ValueError) as exc:
            raise ConfigurationError(
                f"CITEWELL_RERANKER: {name!r} is neither a directory with a cross-encoder nor one that can be fetched "
                "under that name"
            ) from exc
        if self._model.num_labels != 1:
            raise ConfigurationError(
                f"CITEWELL_RERANKER: {name!r} gives {self._model.num_labels} scores for a pair; a reranker gives one"
            )
        self.name = name
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="cross-encoder")  # torch itself uses all cores

    async def rerank(self, question: str, texts: Sequence[str]) -> NDArray[np.float32]:
        """Score how well each text answers the question.

        Args:
            question: Standalone; cut, together with the text, to what the model takes (mostly 512 tokens).
            texts: Any number, in any order; without any the model is not called.

        Returns:
            float32[n], sigmoid of the model's logit, 0..1, in the order of `texts`.
        """
        if not texts:
            return np.zeros(0, dtype=np.float32)
        return await asyncio.get_running_loop().run_in_executor(self._thread, self._score, question, texts)

    def close(self) -> None:
        """Give back the thread. Closing twice is fine."""
        self._thread.shutdown(cancel_futures=True)

    def _score(self, question: str, texts: Sequence[str]) -> NDArray[np.float32]:
        question = sound(question)
        pairs = [(question, sound(text)) for text in texts]
        scores = self._model.predict(pairs, batch_size=BATCH, show_progress_bar=False)
        return np.asarray(scores, dtype=np.float32).reshape(len(texts))

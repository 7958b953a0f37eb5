"""The interface of embedding models: vectors of texts and, where a model has them, of their tokens."""

from __future__ import annotations

import asyncio
import functools
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

from citewell.errors import ConfigurationError

if TYPE_CHECKING:  # an ingestion that finds nothing changed does without: it is a quarter of what such a run would load
    import numpy as np
    from numpy.typing import NDArray

Vectors: TypeAlias = "NDArray[np.float32]"
Progress: TypeAlias = Callable[[int, int], None]
"""Called with (texts done, texts in all), on the caller's thread or event loop."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Encoded:
    """Texts as vectors, in the order they were given."""

    vectors: Vectors
    """float32[n, dimension], each row of length 1."""
    tokens: list[Vectors] | None = None
    """Per text float32[t_i, token dimension], rows of length 1, special tokens dropped; t_i may be 0."""
    token_ids: list[NDArray[np.int32]] | None = None
    """Per text int32[t_i], vocabulary ids aligned with `tokens`."""
    early: list[Vectors] | None = None
    """Per text float32[t_i, dimension], aligned with `tokens`: their states after the first layers, not normalised. Only of the built-in
    model, where token vectors are asked for."""


class Embedder(ABC):
    """An embedding model that knows its own identity and can give token vectors.

    It has the methods of LangChain's `Embeddings` but does not inherit from it: importing that takes a quarter of a second, half of the
    time of an ingestion that finds nothing to do.
    """

    name: str
    """As `CITEWELL_EMBEDDING_MODEL` names it."""
    dimension: int
    """Length of one vector."""
    fingerprint: str
    """Changes whenever the same text could get another vector; part of an index's fingerprint."""
    gives_tokens: bool
    """Whether `encode(..., tokens=True)` works, which late interaction needs."""
    costs_money = False
    """Whether `citewell.models.payer` pays for each text."""
    _executor: Executor | None = None
    """Where `aencode` runs; None: in the event loop's own threads."""

    def load(self) -> None:  # noqa: B027  # most have done so when they are made
        """Load the model now instead of at first use. Blocking.

        Raises:
            ConfigurationError: It cannot be loaded.
        """

    @abstractmethod
    def encode(self, texts: Sequence[str], *, tokens: bool = False, progress: Progress | None = None) -> Encoded:
        """Embed any number of texts of any length; what exceeds the model's window is cut.

        Args:
            texts: Any strings, including empty ones and lone surrogates.
            tokens: Whether to return token vectors as well.
            progress: Called after every batch.

        Raises:
            ConfigurationError: The model gives no token vectors, and they were asked for.
        """

    async def aencode(self, texts: Sequence[str], *, tokens: bool = False, progress: Progress | None = None) -> Encoded:
        """`encode` without blocking the event loop; `progress` is called on the loop."""
        loop = asyncio.get_running_loop()
        report: Progress | None = None
        if progress is not None:
            call = progress

            def report(done: int, total: int) -> None:
                loop.call_soon_threadsafe(call, done, total)

        return await loop.run_in_executor(
            self._executor, functools.partial(self.encode, texts, tokens=tokens, progress=report)
        )

    def close(self) -> None:  # noqa: B027  # most hold none
        """Release threads and connections. May be called more than once."""

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        return _lists(self.encode(texts).vectors)

    def embed_query(self, text: str) -> list[float]:
        return _lists(self.encode([text]).vectors)[0]

    async def aembed_documents(self, texts: list[str]) -> list[list[float]]:
        return _lists((await self.aencode(texts)).vectors)

    async def aembed_query(self, text: str) -> list[float]:
        return _lists((await self.aencode([text])).vectors)[0]

    def _refuse_tokens(self, tokens: bool) -> None:
        if tokens and not self.gives_tokens:
            raise ConfigurationError(
                f"The embedding model {self.name} gives no token vectors, which CITEWELL_RERANKER=maxsim needs: "
                "set CITEWELL_RERANKER to none or to a cross-encoder, or CITEWELL_EMBEDDING_MODEL to minilm"
            )


def sound(text: str) -> str:
    """The text with lone surrogates, which no tokenizer and no protocol takes, replaced by U+FFFD."""
    if text.isascii():
        return text
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text


def unit(vectors: NDArray[np.floating]) -> Vectors:
    """Rows divided by their length; a zero row stays zero."""
    import numpy as np  # late, see above

    rows = np.asarray(vectors, dtype=np.float32)
    lengths = np.sqrt(np.einsum("...i,...i->...", rows, rows))[..., None]
    result: Vectors = rows / np.maximum(lengths, np.float32(1e-12))
    return result


def _lists(vectors: Vectors) -> list[list[float]]:
    result: list[list[float]] = vectors.tolist()
    return result

